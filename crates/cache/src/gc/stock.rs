//! Layers and blobs as items.

use std::collections::{HashMap, HashSet};

use rbuild_oci::Digest;
use rbuild_solver::{LayerId, Output};

use super::item::{Item, ItemKind};
use super::lineage::Lineage;
use super::references::References;
use super::survey::Survey;
use crate::StoredRecord;

/// The layers and blobs of a store.
#[derive(Debug)]
pub(super) struct Stock {
    pub(super) layers: HashMap<LayerId, Item>,
    pub(super) blobs: HashMap<Digest, Item>,
}

impl Stock {
    /// `lasting` are the holders that stay whatever is given up.
    pub(super) fn of(survey: &Survey, lineage: &Lineage<'_>, lasting: &References<'_>) -> Self {
        let of_images: HashSet<Digest> =
            survey.images.iter().flat_map(|(_, held)| held).copied().collect();
        let layers: HashMap<LayerId, Item> = survey
            .layers
            .keys()
            .map(|id| (*id, layer(survey, lineage, lasting, &of_images, id)))
            .collect();
        let names = image_names(survey);
        let mut holders: HashMap<Digest, LayerId> = HashMap::new();
        for known in survey.known.values() {
            for blob in &known.blobs {
                let holder = holders.entry(*blob).or_insert(known.id);
                // Any of them, but always the same.
                *holder = (*holder).min(known.id);
            }
        }
        let blob = |digest: &Digest| {
            let found = &survey.blobs[digest];
            let holder = holders.get(digest);
            let description = match (holder, names.get(digest)) {
                (Some(id), _) => {
                    let made = describe(survey, lineage, id);
                    if made.is_empty() {
                        "blob of a layer".into()
                    } else {
                        format!("blob of {made}")
                    }
                }
                (None, Some(name)) => format!("document of {name}"),
                (None, None) => String::new(),
            };
            let records = holder.map_or(&[][..], |id| lineage.records_of(id));
            Item {
                id: digest.to_string(),
                kind: ItemKind::Blob,
                name: None,
                parents: Vec::new(),
                description,
                size: found.size,
                created: Some(found.changed()),
                used: records.iter().map(|index| lineage.used(*index)).max(),
                uses: 0,
                in_use: lasting.blob(digest) > 0,
                shared: of_images.contains(digest),
            }
        };
        let blobs = survey.blobs.keys().map(|digest| (*digest, blob(digest))).collect();
        Self { layers, blobs }
    }
}

fn layer(
    survey: &Survey,
    lineage: &Lineage<'_>,
    lasting: &References<'_>,
    of_images: &HashSet<Digest>,
    id: &LayerId,
) -> Item {
    let known = survey.known.get(id);
    let records = lineage.records_of(id);
    let left = survey.left.get(id);
    Item {
        id: id.to_string(),
        kind: if left.is_some() { ItemKind::Left } else { ItemKind::Layer },
        name: None,
        parents: records
            .first()
            .and_then(|index| below(lineage.record(*index), id))
            .map(|parent| vec![parent.to_string()])
            .unwrap_or_default(),
        description: describe(survey, lineage, id),
        size: survey.layers[id].size,
        created: known.map(|layer| layer.created),
        used: records.iter().map(|index| lineage.used(*index)).max().or(left.copied()),
        uses: records.iter().map(|index| lineage.record(*index).uses).sum(),
        in_use: lasting.layer(id) > 0,
        shared: known.is_some_and(|layer| layer.blobs.iter().any(|blob| of_images.contains(blob))),
    }
}

/// What made a layer, as far as that is known.
fn describe(survey: &Survey, lineage: &Lineage<'_>, id: &LayerId) -> String {
    let known = survey.known.get(id).map(|layer| layer.description.as_str()).unwrap_or_default();
    let record = lineage.records_of(id).first().map(|index| lineage.record(*index).name.as_str());
    match (known, record) {
        ("", Some(name)) => name.to_owned(),
        _ => known.to_owned(),
    }
}

/// The layer right below another one in a record.
fn below(record: &StoredRecord, id: &LayerId) -> Option<LayerId> {
    record.outputs.iter().find_map(|output| {
        let Output::Snapshot(snapshot) = output else { return None };
        let layers = snapshot.layers();
        let at = layers.iter().position(|layer| layer == id)?;
        layers.get(at.checked_sub(1)?).copied()
    })
}

/// What images call the blobs that they hold.
fn image_names(survey: &Survey) -> HashMap<Digest, String> {
    let mut names = HashMap::new();
    for (image, held) in &survey.images {
        let name = match &image.name {
            Some(name) => name.clone(),
            None => "an image without a name".to_owned(),
        };
        for digest in held {
            let known: &mut String = names.entry(*digest).or_insert_with(|| name.clone());
            if name < *known {
                known.clone_from(&name);
            }
        }
    }
    names
}
