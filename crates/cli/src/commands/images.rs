//! The local image store: `images`, `inspect`, `tag`, `rmi`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::time::SystemTime;

use rbuild_cache::{Image as StoredImage, Index, Store};
use rbuild_oci::{Digest, Manifest, Reference};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::documents::{self, ManifestDocument};
use crate::args::{ImagesArgs, InspectArgs, RmiArgs, TagArgs};
use crate::error::{CommandError, Kind};
use crate::printable;
use crate::progress::format;

/// The largest document of an image that is read.
pub(crate) const DOCUMENT_LIMIT: u64 = 8 << 20;

/// `rbuild images`.
pub(crate) fn images(store: &Store, args: &ImagesArgs) -> Result<(), CommandError> {
    let images = store.index.images().map_err(index_error)?;
    let out: String = if args.quiet {
        let mut digests: Vec<String> =
            images.iter().map(|image| shorten(image, args.no_trunc)).collect();
        digests.dedup();
        digests.into_iter().map(|digest| digest + "\n").collect()
    } else if args.json {
        let line = |image: &StoredImage| {
            let line = json!({
                "name": image.name,
                "digest": image.descriptor.digest,
                "created": timestamp(image.created),
                "size": size_of(store, image),
                "platforms": platforms(store, image),
            });
            line.to_string() + "\n"
        };
        images.iter().map(line).collect()
    } else {
        let rows: Vec<[String; 5]> = images
            .iter()
            .map(|image| {
                let name = image.name.as_deref().and_then(|name| Reference::parse(name).ok());
                let tag = name.as_ref().and_then(|name| name.tag().map(str::to_owned));
                [
                    name.map_or_else(|| "<none>".to_owned(), |name| repository(&name)),
                    tag.unwrap_or_else(|| "<none>".to_owned()),
                    shorten(image, args.no_trunc),
                    age(image.created),
                    size_of(store, image).map_or_else(|| "?".to_owned(), format::bytes),
                ]
            })
            .collect();
        table(["REPOSITORY", "TAG", "DIGEST", "CREATED", "SIZE"], &rows)
    };
    print(out.as_bytes())
}

/// `rbuild inspect`.
pub(crate) fn inspect(store: &Store, args: &InspectArgs) -> Result<(), CommandError> {
    let wanted = args.platform.as_deref().map(super::pull::platform).transpose()?;
    let documents = args.images.iter().map(|name| {
        let image = find(store, name)?;
        let top = documents::select(store, &image, wanted.as_ref())?;
        let manifests = documents::manifests(store, &top)?;
        let mut shown = json!({
            "Names": names_of(&store.index, &image)?,
            "Digest": top.digest,
            "MediaType": top.media_type,
            "Created": timestamp(image.created),
            "Size": size(&manifests),
            "Manifest": documents::document(store, &top.digest)?,
            "Config": Value::Null,
        });
        match &manifests[..] {
            [only] if only.descriptor.digest == top.digest => {
                shown["Config"] = documents::document(store, &only.manifest.config.digest)?;
            }
            several => {
                let images = several.iter().filter_map(|one| {
                    let platform = one.platform(store)?.to_string();
                    Some(inspect_one(store, one, &platform))
                });
                shown["Images"] = images.collect::<Result<_, CommandError>>()?;
            }
        }
        Ok(shown)
    });
    let documents = documents.collect::<Result<Vec<_>, CommandError>>()?;
    let mut text = serde_json::to_string_pretty(&documents).expect("JSON values serialise");
    text.push('\n');
    print(text.as_bytes())
}

/// An image of an index.
fn inspect_one(
    store: &Store,
    one: &ManifestDocument,
    platform: &str,
) -> Result<Value, CommandError> {
    Ok(json!({
        "Platform": platform,
        "Digest": one.descriptor.digest,
        "Size": size(std::slice::from_ref(one)),
        "Manifest": documents::document(store, &one.descriptor.digest)?,
        "Config": documents::document(store, &one.manifest.config.digest)?,
    }))
}

/// `rbuild tag`.
pub(crate) fn tag(store: &Store, args: &TagArgs) -> Result<(), CommandError> {
    let image = find(store, &args.image)?;
    let name = image_name(&args.name)?;
    store.index.tag_image(&name.to_string(), &image.descriptor).map_err(index_error)
}

/// `rbuild rmi`: each name goes by itself; a digest takes all names with it. All or nothing is looked up first.
pub(crate) fn rmi(store: &Store, args: &RmiArgs) -> Result<(), CommandError> {
    let found = args.images.iter().map(|name| Ok((name, find(store, name)?)));
    let found = found.collect::<Result<Vec<_>, CommandError>>()?;
    let mut out = String::new();
    for (given, image) in found {
        let by_name = Reference::parse(given).ok().map(|name| name.with_default_tag().to_string());
        if by_name.is_some() && by_name == image.name {
            store
                .index
                .remove_image(image.name.as_deref().unwrap_or_default())
                .map_err(index_error)?;
        } else {
            store.index.remove_image_digest(&image.descriptor.digest).map_err(index_error)?;
        }
        out.extend(["Removed: ", given.as_str(), "\n"]);
    }
    print(out.as_bytes())
}

/// An image's full name with its tag, for something that is to be named.
pub(crate) fn image_name(text: &str) -> Result<Reference, CommandError> {
    let name = Reference::parse(text).map_err(|error| {
        CommandError::caused(Kind::Usage, format!("invalid tag `{text}`"), error)
    })?;
    if name.digest().is_some() {
        return Err(CommandError::usage(format!(
            "invalid tag `{text}`: a name to give cannot have a digest"
        )));
    }
    Ok(name.with_default_tag())
}

/// Finds an image by name, by its digest or its id (the digest of its configuration, which `build -q` prints), or by
/// at least four characters of the beginning of one of them.
pub(crate) fn find(store: &Store, text: &str) -> Result<StoredImage, CommandError> {
    const LEAST: usize = 4;
    if let Ok(name) = Reference::parse(text)
        && let Some(image) =
            store.index.image(&name.with_default_tag().to_string()).map_err(index_error)?
    {
        return Ok(image);
    }
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    let missing = || {
        CommandError::new(Kind::Usage, format!("no image `{text}` in the local image store"))
            .hint("`rbuild images` lists what there is")
    };
    if hex.len() < LEAST || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(missing());
    }
    let images = store.index.images().map_err(index_error)?;
    let is_meant = |image: &StoredImage| {
        image.descriptor.digest.hex().starts_with(hex)
            || manifest(store, image)
                .is_some_and(|manifest| manifest.config.digest.hex().starts_with(hex))
    };
    let mut matching = images.into_iter().filter(is_meant);
    let first = matching.next().ok_or_else(missing)?;
    if matching.any(|other| other.descriptor.digest != first.descriptor.digest) {
        return Err(CommandError::usage(format!(
            "`{text}` begins the digests of several images: give more of it"
        )));
    }
    Ok(first)
}

fn names_of(index: &Index, image: &StoredImage) -> Result<Vec<String>, CommandError> {
    let images = index.images().map_err(index_error)?;
    let same =
        images.into_iter().filter(|other| other.descriptor.digest == image.descriptor.digest);
    Ok(same.filter_map(|other| other.name).collect())
}

/// The manifest of an image; none for an index, or when it cannot be read.
fn manifest(store: &Store, image: &StoredImage) -> Option<Manifest> {
    if image.descriptor.media_type.is_index() {
        return None;
    }
    let bytes = store.content.read(&image.descriptor.digest, DOCUMENT_LIMIT).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// What a pull of all of it would transfer, each blob once.
fn size(manifests: &[ManifestDocument]) -> u64 {
    let blobs = manifests
        .iter()
        .flat_map(|one| std::iter::once(&one.manifest.config).chain(&one.manifest.layers));
    let blobs: BTreeMap<Digest, u64> = blobs.map(|blob| (blob.digest, blob.size)).collect();
    blobs.into_values().sum()
}

/// The same of an image, if its documents can be read.
fn size_of(store: &Store, image: &StoredImage) -> Option<u64> {
    documents::manifests(store, &image.descriptor).ok().map(|manifests| size(&manifests))
}

/// What an image is for, as far as that can be read.
fn platforms(store: &Store, image: &StoredImage) -> Vec<String> {
    let manifests = documents::manifests(store, &image.descriptor).unwrap_or_default();
    manifests.iter().filter_map(|one| Some(one.platform(store)?.to_string())).collect()
}

fn repository(name: &Reference) -> String {
    // Without the digest, which has a column of its own.
    let familiar = name.familiar();
    let familiar = familiar.split_once('@').map_or(familiar.as_str(), |(name, _)| name);
    match familiar.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository.to_owned(),
        _ => familiar.to_owned(),
    }
}

fn shorten(image: &StoredImage, in_full: bool) -> String {
    if in_full {
        image.descriptor.digest.to_string()
    } else {
        image.descriptor.digest.hex()[..12].to_owned()
    }
}

fn timestamp(at: SystemTime) -> String {
    OffsetDateTime::from(at).format(&Rfc3339).unwrap_or_default()
}

/// How long ago something was.
pub(crate) fn age(at: SystemTime) -> String {
    let seconds = SystemTime::now().duration_since(at).unwrap_or_default().as_secs();
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" })
}

/// Columns that are as wide as their widest text.
pub(crate) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let rows: Vec<[Cow<'_, str>; N]> =
        rows.iter().map(|row| row.each_ref().map(|cell| printable::line(cell))).collect();
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .chain([head[column].len()])
            .max()
            .unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |cells: [&str; N]| {
        let cells = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("   ").trim_end().to_owned() + "\n"
    };
    let rows = rows.iter().map(|row| line(std::array::from_fn(|column| &*row[column])));
    std::iter::once(line(head)).chain(rows).collect()
}

/// Writes to standard output; a reader that is gone is no failure.
pub(crate) fn print(bytes: &[u8]) -> Result<(), CommandError> {
    match io::stdout().write_all(bytes) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(CommandError::caused(Kind::Environment, "cannot write to standard output", error))
        }
        _ => Ok(()),
    }
}

fn index_error(error: rbuild_cache::IndexError) -> CommandError {
    CommandError::caused(Kind::Environment, "cannot read or write the local image store", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_has_neither_tag_nor_digest() {
        let digest = "0".repeat(64);
        for (name, expected) in [
            ("n6:latest", "n6"),
            (&*format!("n6:latest@sha256:{digest}"), "n6"),
            (&*format!("localhost:5000/pfx@sha256:{digest}"), "localhost:5000/pfx"),
            ("localhost:5000/a/b:1", "localhost:5000/a/b"),
        ] {
            assert_eq!(repository(&Reference::parse(name).unwrap()), expected, "{name}");
        }
    }
}
