//! The oracle: rereads an exported image and recomputes every digest, diff id and size.
//!
//! It reads an OCI layout folder, an OCI archive or a Docker archive, follows everything from its entry points, and
//! returns what it found for further assertions. What nothing points to is an error too: exporters write no waste.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

use crate::sha256;

/// Why an export is not valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid(String);

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Invalid {}

macro_rules! ensure {
    ($condition:expr, $($message:tt)*) => {
        if !$condition {
            return Err(Invalid(format!($($message)*)));
        }
    };
}

/// One image of an export.
#[derive(Clone, Debug)]
pub struct ValidImage {
    /// The names under which the export offers the image, or the index that holds it.
    pub names: Vec<String>,
    /// `os/architecture[/variant]` of the configuration.
    pub platform: String,
    /// The digest of the manifest; empty in a Docker archive, which has none.
    pub manifest_digest: String,
    /// The manifest; null in a Docker archive.
    pub manifest: Value,
    /// The digest of the configuration.
    pub config_digest: String,
    /// The configuration.
    pub config: Value,
    /// The layers, bottom first.
    pub layers: Vec<ValidLayer>,
}

/// One layer of an image.
#[derive(Clone, Debug)]
pub struct ValidLayer {
    /// The blob's media type; empty in a Docker archive.
    pub media_type: String,
    /// The blob's digest.
    pub digest: String,
    /// The digest of the uncompressed archive.
    pub diff_id: String,
    /// The blob's size.
    pub size: u64,
    /// What the archive holds, in its order.
    pub entries: Vec<ValidEntry>,
}

impl ValidLayer {
    /// The names of the entries, in order.
    pub fn paths(&self) -> Vec<&str> {
        self.entries.iter().map(|entry| entry.path.as_str()).collect()
    }

    /// The entry with this name.
    pub fn entry(&self, path: &str) -> Option<&ValidEntry> {
        self.entries.iter().find(|entry| entry.path == path)
    }
}

/// One entry of a layer's archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidEntry {
    /// The name as it stands in the archive.
    pub path: String,
    /// The type as `ls` writes it: `-`, `d`, `l`, `c`, `b`, `p`, and `h` for a hard link.
    pub kind: char,
    /// The permission bits.
    pub mode: u32,
    /// The owner.
    pub uid: u64,
    /// The group.
    pub gid: u64,
    /// The size of the content.
    pub size: u64,
    /// Seconds since 1970, from the header.
    pub mtime: u64,
    /// The target of a link; empty for everything else.
    pub link: String,
    /// Device numbers.
    pub device: Option<(u32, u32)>,
    /// The extended attributes.
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// PAX records that are not extended attributes.
    pub records: BTreeMap<String, String>,
    /// The content of a regular file.
    pub content: Vec<u8>,
}

impl fmt::Display for ValidEntry {
    /// `-0644 0:0 12 etc/motd`, with ` -> target` after links.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, mode, uid, gid, size, path, .. } = self;
        write!(f, "{kind}{mode:04o} {uid}:{gid} {size} {path}")?;
        if !self.link.is_empty() {
            write!(f, " -> {}", self.link)?;
        }
        Ok(())
    }
}

/// Reads an OCI image layout folder.
pub fn oci_layout(folder: &Path) -> Result<Vec<ValidImage>, Invalid> {
    let mut files = BTreeMap::new();
    read_folder(folder, "", &mut files)?;
    oci_files(&files)
}

/// Reads an OCI archive: a tar of an image layout.
pub fn oci_archive(bytes: &[u8]) -> Result<Vec<ValidImage>, Invalid> {
    let mut files = archive_files(bytes)?;
    // Docker and BuildKit may add the Docker archive's list to an OCI archive.
    files.remove("manifest.json");
    oci_files(&files)
}

/// Reads a Docker archive, as `docker load` does.
pub fn docker_archive(bytes: &[u8]) -> Result<Vec<ValidImage>, Invalid> {
    let files = archive_files(bytes)?;
    let list = json(&files, "manifest.json")?;
    let images = list.as_array().ok_or_else(|| invalid("`manifest.json` is no list"))?;
    images.iter().map(|image| docker_image(&files, image)).collect()
}

fn docker_image(files: &BTreeMap<String, Vec<u8>>, image: &Value) -> Result<ValidImage, Invalid> {
    let config_name = text(&image["Config"], "Config")?;
    let config_bytes = file(files, config_name)?;
    let config_digest = sha256(config_bytes);
    ensure!(
        config_name.contains(&config_digest["sha256:".len()..]),
        "the configuration `{config_name}` has digest {config_digest}"
    );
    let config = parse(config_bytes, config_name)?;
    let mut layers = Vec::new();
    for name in strings(&image["Layers"]) {
        let bytes = file(files, &name)?;
        layers.push(read_layer("", bytes)?);
    }
    let mut image = ValidImage {
        names: strings(&image["RepoTags"]),
        platform: String::new(),
        manifest_digest: String::new(),
        manifest: Value::Null,
        config_digest,
        config,
        layers,
    };
    check_config(&mut image)?;
    Ok(image)
}

fn oci_files(files: &BTreeMap<String, Vec<u8>>) -> Result<Vec<ValidImage>, Invalid> {
    let marker = json(files, "oci-layout")?;
    ensure!(marker["imageLayoutVersion"] == "1.0.0", "`oci-layout` says {marker}");
    let index = json(files, "index.json")?;
    ensure!(index["schemaVersion"] == 2, "`index.json` has another schema version");
    let mut walk = Walk { files, seen: BTreeSet::new(), images: Vec::new() };
    for entry in list(&index["manifests"], "manifests")? {
        let annotations = &entry["annotations"];
        let names: Vec<String> = ["io.containerd.image.name", "org.opencontainers.image.ref.name"]
            .iter()
            .filter_map(|key| annotations[*key].as_str())
            .map(str::to_owned)
            .collect();
        walk.descriptor(entry, &names)?;
    }
    for name in files.keys().filter(|name| name.starts_with("blobs/")) {
        ensure!(walk.seen.contains(name), "nothing points to `{name}`");
    }
    Ok(walk.images)
}

struct Walk<'a> {
    files: &'a BTreeMap<String, Vec<u8>>,
    seen: BTreeSet<String>,
    images: Vec<ValidImage>,
}

impl<'a> Walk<'a> {
    /// The blob of a descriptor, after its digest and size were checked.
    fn blob(&mut self, descriptor: &Value) -> Result<&'a [u8], Invalid> {
        let digest = text(&descriptor["digest"], "digest")?;
        let name = format!("blobs/{}", digest.replacen(':', "/", 1));
        let bytes = file(self.files, &name)?;
        ensure!(sha256(bytes) == digest, "`{name}` has digest {}", sha256(bytes));
        ensure!(
            descriptor["size"] == bytes.len(),
            "`{name}` has {} bytes, its descriptor says {}",
            bytes.len(),
            descriptor["size"]
        );
        self.seen.insert(name);
        Ok(bytes)
    }

    fn descriptor(&mut self, descriptor: &Value, names: &[String]) -> Result<(), Invalid> {
        let bytes = self.blob(descriptor)?;
        let document = parse(bytes, "a manifest")?;
        ensure!(document["schemaVersion"] == 2, "a manifest has another schema version");
        let media_type = text(&descriptor["mediaType"], "mediaType")?;
        ensure!(
            document["mediaType"].is_null() || document["mediaType"] == media_type,
            "a document of type {} is described as {media_type}",
            document["mediaType"]
        );
        if media_type.contains("index") || media_type.contains("manifest.list") {
            for entry in list(&document["manifests"], "manifests")? {
                self.descriptor(entry, names)?;
            }
            return Ok(());
        }
        let first_image = self.images.len();
        self.image(document, text(&descriptor["digest"], "digest")?, names)?;
        let platform = &descriptor["platform"];
        if let Some(image) = self.images.get(first_image).filter(|_| !platform.is_null()) {
            ensure!(
                platform_of(platform) == image.platform,
                "an index describes an image for {} as one for {}",
                image.platform,
                platform_of(platform)
            );
        }
        Ok(())
    }

    fn image(&mut self, manifest: Value, digest: &str, names: &[String]) -> Result<(), Invalid> {
        let config_bytes = self.blob(&manifest["config"])?;
        let descriptors = list(&manifest["layers"], "layers")?.clone();
        let attestation =
            descriptors.iter().any(|layer| layer["mediaType"] == "application/vnd.in-toto+json");
        if attestation {
            for layer in &descriptors {
                self.blob(layer)?;
            }
            return Ok(());
        }
        let mut layers = Vec::new();
        for layer in &descriptors {
            let media_type = text(&layer["mediaType"], "mediaType")?;
            layers.push(read_layer(media_type, self.blob(layer)?)?);
        }
        let mut image = ValidImage {
            names: names.to_vec(),
            platform: String::new(),
            manifest_digest: digest.to_owned(),
            config_digest: text(&manifest["config"]["digest"], "digest")?.to_owned(),
            config: parse(config_bytes, "the configuration")?,
            manifest,
            layers,
        };
        check_config(&mut image)?;
        self.images.push(image);
        Ok(())
    }
}

fn check_config(image: &mut ValidImage) -> Result<(), Invalid> {
    let config = &image.config;
    for key in ["os", "architecture"] {
        ensure!(
            config[key].as_str().is_some_and(|value| !value.is_empty()),
            "the configuration has no `{key}`"
        );
    }
    ensure!(config["rootfs"]["type"] == "layers", "`rootfs.type` is {}", config["rootfs"]["type"]);
    let promised = strings(&config["rootfs"]["diff_ids"]);
    let actual: Vec<String> = image.layers.iter().map(|layer| layer.diff_id.clone()).collect();
    ensure!(promised == actual, "the diff ids are {promised:?}, the layers have {actual:?}");
    let history = config["history"].as_array().map_or(&[][..], Vec::as_slice);
    let with_layer = history.iter().filter(|entry| entry["empty_layer"] != true).count();
    ensure!(
        history.is_empty() || with_layer == image.layers.len(),
        "{with_layer} history entries made a layer, there are {} layers",
        image.layers.len()
    );
    image.platform = platform_of(config);
    Ok(())
}

fn platform_of(document: &Value) -> String {
    ["os", "architecture", "variant"]
        .iter()
        .filter_map(|key| document[*key].as_str())
        .filter(|value| !value.is_empty())
        .collect::<Vec<_>>()
        .join("/")
}

/// Unpacks a layer blob. In a Docker archive, whose layers have no type, the compression is told from the first bytes.
fn read_layer(media_type: &str, blob: &[u8]) -> Result<ValidLayer, Invalid> {
    let compression = match media_type {
        "" if blob.starts_with(&[0x1f, 0x8b]) => "gzip",
        "" if blob.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) => "zstd",
        other => other,
    };
    let mut archive = Vec::new();
    let read = if compression.ends_with("gzip") {
        flate2::read::MultiGzDecoder::new(blob).read_to_end(&mut archive)
    } else if compression.ends_with("zstd") {
        zstd::stream::read::Decoder::new(blob)
            .and_then(|mut decoder| decoder.read_to_end(&mut archive))
    } else {
        archive = blob.to_vec();
        Ok(archive.len())
    };
    read.map_err(|error| Invalid(format!("a layer of type `{media_type}`: {error}")))?;
    Ok(ValidLayer {
        media_type: media_type.to_owned(),
        digest: sha256(blob),
        diff_id: sha256(&archive),
        size: blob.len() as u64,
        entries: tar_entries(&archive)?,
    })
}

/// Lists a tar archive.
pub fn tar_entries(archive: &[u8]) -> Result<Vec<ValidEntry>, Invalid> {
    let broken = |error: std::io::Error| Invalid(format!("an archive is broken: {error}"));
    let mut reader = tar::Archive::new(archive);
    let mut entries = Vec::new();
    for entry in reader.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let link = entry.link_name_bytes();
        let link = link.map_or_else(String::new, |link| String::from_utf8_lossy(&link).into());
        let (mut xattrs, mut records) = (BTreeMap::new(), BTreeMap::new());
        for record in entry.pax_extensions().map_err(broken)?.into_iter().flatten() {
            let record = record.map_err(broken)?;
            let key = String::from_utf8_lossy(record.key_bytes()).into_owned();
            match key.strip_prefix("SCHILY.xattr.") {
                Some(name) => {
                    xattrs.insert(name.to_owned(), record.value_bytes().to_vec());
                }
                None => {
                    let value = String::from_utf8_lossy(record.value_bytes()).into_owned();
                    records.insert(key, value);
                }
            }
        }
        let header = entry.header().clone();
        let kind = match header.entry_type() {
            tar::EntryType::Regular | tar::EntryType::Continuous => '-',
            tar::EntryType::Directory => 'd',
            tar::EntryType::Symlink => 'l',
            tar::EntryType::Link => 'h',
            tar::EntryType::Char => 'c',
            tar::EntryType::Block => 'b',
            tar::EntryType::Fifo => 'p',
            other => return Err(Invalid(format!("`{path}` has entry type {other:?}"))),
        };
        let device = match (kind, header.device_major(), header.device_minor()) {
            ('c' | 'b', Ok(Some(major)), Ok(Some(minor))) => Some((major, minor)),
            _ => None,
        };
        let size = entry.size();
        // Ids that do not fit the header's octal digits stand in PAX records.
        let uid = number(&records, "uid").map_or_else(|| header.uid(), Ok).map_err(broken)?;
        let gid = number(&records, "gid").map_or_else(|| header.gid(), Ok).map_err(broken)?;
        let mut content = Vec::new();
        entry.read_to_end(&mut content).map_err(broken)?;
        entries.push(ValidEntry {
            path,
            kind,
            mode: header.mode().map_err(broken)?,
            uid,
            gid,
            size,
            mtime: header.mtime().map_err(broken)?,
            link,
            device,
            xattrs,
            records,
            content,
        });
    }
    Ok(entries)
}

fn number(records: &BTreeMap<String, String>, key: &str) -> Option<u64> {
    records.get(key)?.parse().ok()
}

/// The regular files of an archive by name.
fn archive_files(bytes: &[u8]) -> Result<BTreeMap<String, Vec<u8>>, Invalid> {
    let mut files = BTreeMap::new();
    for entry in tar_entries(bytes)?.into_iter().filter(|entry| entry.kind == '-') {
        let ValidEntry { path, content, .. } = entry;
        ensure!(files.insert(path.clone(), content).is_none(), "`{path}` is there twice");
    }
    Ok(files)
}

fn read_folder(
    folder: &Path,
    prefix: &str,
    files: &mut BTreeMap<String, Vec<u8>>,
) -> Result<(), Invalid> {
    let broken = |error| Invalid(format!("cannot read `{}`: {error}", folder.display()));
    for entry in fs::read_dir(folder).map_err(broken)? {
        let entry = entry.map_err(broken)?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type().map_err(broken)?.is_dir() {
            read_folder(&entry.path(), &format!("{name}/"), files)?;
        } else {
            files.insert(name, fs::read(entry.path()).map_err(broken)?);
        }
    }
    Ok(())
}

fn invalid(message: &str) -> Invalid {
    Invalid(message.to_owned())
}

fn file<'a>(files: &'a BTreeMap<String, Vec<u8>>, name: &str) -> Result<&'a [u8], Invalid> {
    files.get(name).map(Vec::as_slice).ok_or_else(|| Invalid(format!("there is no `{name}`")))
}

fn json(files: &BTreeMap<String, Vec<u8>>, name: &str) -> Result<Value, Invalid> {
    parse(file(files, name)?, name)
}

fn parse(bytes: &[u8], name: &str) -> Result<Value, Invalid> {
    serde_json::from_slice(bytes).map_err(|error| Invalid(format!("{name} is no JSON: {error}")))
}

fn text<'a>(value: &'a Value, name: &str) -> Result<&'a str, Invalid> {
    value.as_str().ok_or_else(|| Invalid(format!("`{name}` is {value}, not a text")))
}

fn list<'a>(value: &'a Value, name: &str) -> Result<&'a Vec<Value>, Invalid> {
    value.as_array().ok_or_else(|| Invalid(format!("`{name}` is {value}, not a list")))
}

fn strings(value: &Value) -> Vec<String> {
    let items = value.as_array().into_iter().flatten();
    items.filter_map(Value::as_str).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Compression, Entry, Image, ImageIndex, Layer, Layout};

    fn image(platform: &str) -> Image {
        let upper = [Entry::whiteout("a/b"), Entry::symlink("c", "a").owner(7, 8)];
        Image::new(platform)
            .layer(Layer::new(&[
                Entry::directory("a"),
                Entry::file("a/b", "hi").xattr("user.x", b"\0y"),
            ]))
            .layer(Layer::compressed(&upper, Compression::Zstd))
    }

    #[test]
    fn reads_back_a_layout() {
        let folder = tempfile::tempdir().unwrap();
        let mut layout = Layout::create(folder.path());
        let index = ImageIndex::new().image(&image("linux/amd64")).image(&image("linux/arm64/v8"));
        layout.add(Some("x"), &index.publish());
        let images = oci_layout(folder.path()).unwrap();
        assert_eq!(images.len(), 2);
        assert_eq!((images[1].platform.as_str(), images[1].names.len()), ("linux/arm64/v8", 1));
        let listing: Vec<String> = images[0]
            .layers
            .iter()
            .flat_map(|layer| layer.entries.iter().map(ToString::to_string))
            .collect();
        assert_eq!(
            listing,
            ["d0755 0:0 0 a/", "-0644 0:0 2 a/b", "-0644 0:0 0 a/.wh.b", "l0777 7:8 0 c -> a"]
        );
        assert_eq!(images[0].layers[0].entry("a/b").unwrap().xattrs["user.x"], b"\0y");
    }

    #[test]
    fn finds_every_lie() {
        type Damage = fn(&Layout, &Path, &str);
        let published = image("linux/amd64").publish();
        let layer = published.blobs[0].digest();
        for (damage, expected) in [
            (
                (|layout, _, layer| fs::write(layout.blob_path(layer), "x").unwrap()) as Damage,
                "has digest",
            ),
            (|layout, _, layer| fs::remove_file(layout.blob_path(layer)).unwrap(), "there is no"),
            (
                |layout, _, _| fs::write(layout.blob_path(&sha256(b"")), "").unwrap(),
                "nothing points to",
            ),
            (|_, folder, _| fs::write(folder.join("index.json"), "{").unwrap(), "is no JSON"),
            (|_, folder, _| fs::remove_file(folder.join("oci-layout")).unwrap(), "there is no"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let mut layout = Layout::create(folder.path());
            layout.add(None, &published);
            damage(&layout, folder.path(), &layer);
            let error = oci_layout(folder.path()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        for (broken, expected) in [
            (
                image("linux/amd64")
                    .configured(|config| config["history"] = serde_json::json!([{}])),
                "1 history entries",
            ),
            (
                image("linux/amd64")
                    .configured(|config| config["rootfs"]["diff_ids"] = serde_json::json!([])),
                "the diff ids are",
            ),
            (image("linux/amd64").configured(|config| config["os"] = "".into()), "no `os`"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            Layout::create(folder.path()).add(None, &broken.publish());
            let error = oci_layout(folder.path()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
