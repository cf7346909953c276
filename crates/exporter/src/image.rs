//! Puts layers, history and configuration together to a manifest (sections 4.2 and 4.3 of the behaviour
//! reference). Pure: no file is touched.

use rbuild_cache::{TOC_DIGEST, UNCOMPRESSED_SIZE};
use rbuild_oci::{Descriptor, DiffId, History, ImageConfig, Manifest, MediaType};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Comment of history entries that are added for layers which no instruction accounts for.
const ADDED_COMMENT: &str = "buildkit.exporter.image.v0";

/// A layer as an image names it.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageLayer {
    /// The blob.
    pub descriptor: Descriptor,
    /// The digest of its archive.
    pub diff_id: DiffId,
    /// When it was made, milliseconds since 1970; `None` for a layer of the base image, whose history says it.
    pub created: Option<i64>,
    /// What compressed it, if that is known ([`rbuild_cache::BlobFacts::encoder`]).
    pub encoder: Option<String>,
}

/// What becomes of layers that their owner wants nobody else to distribute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForeignLayers {
    /// They are layers as all others, so that the image works wherever it is.
    #[default]
    Include,
    /// They stay where their owner has them (`prefer-nondist-layers`).
    Refer,
}

/// Which documents are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DocumentTypes {
    /// `application/vnd.oci.image.*`.
    Oci,
    /// `application/vnd.docker.*`.
    Docker,
}

/// A finished image: its documents' bytes, and what they describe.
#[derive(Clone, Debug)]
pub struct Image {
    /// The manifest.
    pub manifest: Manifest,
    /// Its bytes.
    pub manifest_bytes: Vec<u8>,
    /// Describes the manifest.
    pub descriptor: Descriptor,
    /// The configuration's bytes.
    pub config_bytes: Vec<u8>,
    /// When the image was made, RFC 3339, if anything says so.
    pub created: Option<String>,
    /// History entries that claimed a layer which is not there, for a warning.
    pub surplus_history: usize,
}

impl Image {
    /// The layers' archives, as the configuration lists them.
    pub fn diff_ids(&self) -> Vec<DiffId> {
        // It is our own document; where it comes from elsewhere it may say nothing.
        serde_json::from_slice(&self.config_bytes)
            .map(|config: ImageConfig| config.rootfs.diff_ids)
            .unwrap_or_default()
    }
}

/// Assembles an image.
///
/// `config` has its history but no `rootfs.diff_ids`; its history before `base_history` belongs to the base
/// image and is left as it is. `epoch` (`SOURCE_DATE_EPOCH`, in seconds) is the latest time that the rest may have.
pub fn assemble(
    mut config: ImageConfig,
    base_history: usize,
    layers: &[ImageLayer],
    (types, foreign): (DocumentTypes, ForeignLayers),
    epoch: Option<i64>,
) -> Image {
    let surplus_history = match_history(&mut config.history, layers.len());
    let times: Vec<_> = layers.iter().map(|layer| layer.created).collect();
    fill_times(&mut config.history, base_history, &times, epoch);
    config.created = config.history.last().and_then(|entry| entry.created.clone());
    config.rootfs.diff_ids = layers.iter().map(|layer| layer.diff_id).collect();

    let (manifest_type, config_type) = match types {
        DocumentTypes::Oci => (MediaType::OciManifest, MediaType::OciConfig),
        DocumentTypes::Docker => (MediaType::DockerManifest, MediaType::DockerConfig),
    };
    let (config_descriptor, config_bytes) = config.to_blob(config_type);
    let descriptors =
        layers.iter().map(|layer| in_types(&layer.descriptor, types, foreign)).collect();
    let mut manifest = Manifest::new(config_descriptor, descriptors);
    manifest.media_type = Some(manifest_type.clone());
    let manifest_bytes = serde_json::to_vec(&manifest).expect("a manifest always serialises");
    let digest = rbuild_oci::Digest::of(&manifest_bytes);
    let mut descriptor = Descriptor::new(manifest_type, digest, manifest_bytes.len() as u64);
    descriptor.platform = Some(config.platform());
    Image {
        manifest,
        manifest_bytes,
        descriptor,
        config_bytes,
        created: config.created,
        surplus_history,
    }
}

/// A layer's descriptor with the media type that these documents use, and none of our notes but those of eStargz.
pub(crate) fn in_types(
    descriptor: &Descriptor,
    types: DocumentTypes,
    foreign: ForeignLayers,
) -> Descriptor {
    let media_type = &descriptor.media_type;
    let (media_type, urls) = match media_type.layer_compression() {
        // Only its own type says that it may not be distributed.
        Some(_) if foreign == ForeignLayers::Refer && media_type.is_foreign() => {
            (media_type.clone(), descriptor.urls.clone())
        }
        Some(compression) => match types {
            DocumentTypes::Oci => (MediaType::oci_layer(compression), Vec::new()),
            DocumentTypes::Docker => (MediaType::docker_layer(compression), Vec::new()),
        },
        None => (media_type.clone(), descriptor.urls.clone()),
    };
    // Without these a runtime does not know that it can fetch single files.
    let of_table = descriptor.annotations.iter();
    let of_table =
        of_table.filter(|(key, _)| [TOC_DIGEST, UNCOMPRESSED_SIZE].contains(&key.as_str()));
    let annotations = of_table.map(|(key, value)| (key.clone(), value.clone())).collect();
    let described = Descriptor::new(media_type, descriptor.digest, descriptor.size);
    Descriptor { urls, annotations, ..described }
}

/// Makes the number of layer-making entries equal to the number of layers; returns how many were too many.
pub(crate) fn match_history(history: &mut Vec<History>, layers: usize) -> usize {
    let mut claimed = 0;
    let mut surplus = 0;
    for entry in history.iter_mut().filter(|entry| !entry.empty_layer) {
        if claimed == layers {
            entry.empty_layer = true;
            surplus += 1;
        } else {
            claimed += 1;
        }
    }
    let added = History { comment: ADDED_COMMENT.to_owned(), ..History::default() };
    history.resize(history.len() + (layers - claimed), added);
    surplus
}

/// Gives each entry without a time that of its layer, or of the layer before; entries before the first new
/// layer get that layer's. Only a build that adds no layer to a base with no times is left without any.
pub(crate) fn fill_times(
    history: &mut [History],
    base_history: usize,
    times: &[Option<i64>],
    epoch: Option<i64>,
) {
    let epoch = epoch.map(|seconds| seconds.saturating_mul(1000));
    let clamp = |time: i64| epoch.map_or(time, |epoch| time.min(epoch));
    let first_new = times.iter().find_map(|time| *time).map(clamp).or(epoch).map(rfc3339);
    let base_end = base_history.min(history.len());
    let last_of_base = history[..base_end].iter().rev().find_map(|entry| entry.created.clone());
    let mut time = first_new.or(last_of_base);
    let mut next_layer = 0;
    for (index, entry) in history.iter_mut().enumerate() {
        if !entry.empty_layer {
            if let Some(created) = times.get(next_layer).copied().flatten() {
                time = Some(rfc3339(clamp(created)));
            }
            next_layer += 1;
        }
        if index < base_end {
            continue;
        }
        match (&entry.created, epoch) {
            (None, _) => entry.created.clone_from(&time),
            (Some(created), Some(epoch)) if is_after(created, epoch) => {
                entry.created = Some(rfc3339(epoch));
            }
            _ => {}
        }
    }
}

/// Whether a time, as a history has it, is after another, which is milliseconds since 1970.
fn is_after(text: &str, milliseconds: i64) -> bool {
    let limit = i128::from(milliseconds) * 1_000_000;
    OffsetDateTime::parse(text, &Rfc3339).is_ok_and(|time| time.unix_timestamp_nanos() > limit)
}

/// Seconds since 1970 as RFC 3339 in UTC.
pub(crate) fn rfc3339_of_seconds(seconds: i64) -> String {
    rfc3339(seconds.saturating_mul(1000))
}

/// Milliseconds since 1970 as RFC 3339 in UTC, with as many digits as there are; years outside 0 to 9999 become the
/// nearest one that has a form.
pub(crate) fn rfc3339(milliseconds: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(milliseconds) * 1_000_000)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok());
    time.unwrap_or_else(|| {
        if milliseconds < 0 { "0000-01-01T00:00:00Z" } else { "9999-12-31T23:59:59Z" }.to_owned()
    })
}

#[cfg(test)]
mod tests {
    use rbuild_oci::Digest;

    use super::*;

    fn layer(name: &str, created: Option<i64>) -> ImageLayer {
        let digest = Digest::of(name.as_bytes());
        ImageLayer {
            descriptor: Descriptor::new(MediaType::OciLayerGzip, digest, 7),
            diff_id: DiffId(digest),
            created,
            encoder: None,
        }
    }

    fn entry(by: &str, empty_layer: bool, created: Option<&str>) -> History {
        History {
            created_by: by.to_owned(),
            empty_layer,
            created: created.map(str::to_owned),
            ..History::default()
        }
    }

    fn times(
        history: Vec<History>,
        base: usize,
        layers: &[ImageLayer],
        epoch: Option<i64>,
    ) -> Vec<String> {
        let config = ImageConfig { history, ..ImageConfig::default() };
        let form = (DocumentTypes::Oci, ForeignLayers::Include);
        let image = assemble(config, base, layers, form, epoch);
        let config: ImageConfig =
            serde_json::from_slice(&image.config_bytes).expect("our own document");
        config.history.into_iter().map(|entry| entry.created.unwrap_or_default()).collect()
    }

    const BASE_TIME: &str = "2020-01-01T00:00:00Z";

    #[test]
    fn entries_take_the_times_of_layers() {
        let history = vec![
            entry("base", false, Some(BASE_TIME)),
            entry("ENV", true, None),
            entry("RUN", false, None),
            entry("LABEL", true, None),
            entry("COPY", false, None),
        ];
        let layers =
            [layer("base", None), layer("run", Some(100_250)), layer("copy", Some(200_000))];
        let (at_100, at_200, at_50) =
            ("1970-01-01T00:01:40.25Z", "1970-01-01T00:03:20Z", "1970-01-01T00:00:50Z");
        assert_eq!(
            times(history.clone(), 1, &layers, None),
            [BASE_TIME, at_100, at_100, at_100, at_200]
        );
        let mut history = history;
        history[1].created = Some(at_100.to_owned());
        assert_eq!(times(history, 1, &layers, Some(50)), [BASE_TIME, at_50, at_50, at_50, at_50]);
    }

    #[test]
    fn a_build_without_layers_is_as_old_as_its_base() {
        let history = vec![entry("base", false, Some(BASE_TIME)), entry("ENV", true, None)];
        assert_eq!(times(history, 1, &[layer("base", None)], None), [BASE_TIME, BASE_TIME]);
    }

    #[test]
    fn history_is_made_to_match() {
        let mut history = vec![entry("a", false, None), entry("b", false, None)];
        assert_eq!(match_history(&mut history, 1), 1);
        assert!(history[1].empty_layer);
        assert_eq!(match_history(&mut history, 3), 0);
        assert_eq!(history.iter().filter(|entry| entry.comment == ADDED_COMMENT).count(), 2);
    }

    #[test]
    fn docker_documents_name_docker_layers() {
        let image = assemble(
            ImageConfig::default(),
            0,
            &[layer("a", Some(0))],
            (DocumentTypes::Docker, ForeignLayers::Include),
            None,
        );
        assert_eq!(image.manifest.layers[0].media_type, MediaType::DockerLayerGzip);
        assert_eq!(image.manifest.config.media_type, MediaType::DockerConfig);
        let theirs: Result<oci_spec::image::ImageManifest, _> =
            serde_json::from_slice(&image.manifest_bytes);
        assert!(theirs.is_ok());
    }

    #[test]
    fn foreign_layers_are_as_all_others_unless_told() {
        let foreign = Descriptor {
            urls: vec!["https://example.com/layer".to_owned()],
            ..Descriptor::new(MediaType::DockerForeignLayerGzip, Digest::of(b"a"), 7)
        };
        let as_all = in_types(&foreign, DocumentTypes::Oci, ForeignLayers::Include);
        assert_eq!((as_all.media_type, as_all.urls.len()), (MediaType::OciLayerGzip, 0));
        assert_eq!(in_types(&foreign, DocumentTypes::Oci, ForeignLayers::Refer), foreign);
    }

    #[test]
    fn times_far_away_have_a_form() {
        assert_eq!(rfc3339(i64::MAX), "9999-12-31T23:59:59Z");
        assert_eq!(rfc3339(i64::MIN), "0000-01-01T00:00:00Z");
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(-1), "1969-12-31T23:59:59.999Z");
    }
}
