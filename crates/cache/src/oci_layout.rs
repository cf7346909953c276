//! OCI image layout folders, to read from: section "OCI Image Layout" of the image specification.
//!
//! The folder is the user's, may change while it is read, and may lie: every blob is read with its digest and size
//! verified. Blobs may be symbolic links, as some build systems make them; whatever is not a regular file in the end is refused.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rbuild_oci::{Descriptor, Digest, Index, VerifyError, VerifyingReader};
use rustix::fs::OFlags;

/// What an `index.json` may have; ten thousand images fit.
const LARGEST_INDEX: u64 = 16 * 1024 * 1024;
const NAME_ANNOTATIONS: [&str; 2] =
    ["org.opencontainers.image.ref.name", "io.containerd.image.name"];

/// An OCI image layout folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OciLayout {
    folder: PathBuf,
}

/// Which image of a layout.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LayoutImage {
    /// The only one.
    Only,
    /// The one with this name: a tag, or a whole reference.
    Named(String),
    /// The one with this digest, which `index.json` need not list.
    Digest(Digest),
}

/// A layout cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// It is not one.
    #[error("`{}` is not an OCI image layout: {reason}", folder.display())]
    NotALayout {
        /// The folder.
        folder: PathBuf,
        /// Why.
        reason: String,
    },
    /// It has no image of this name or digest.
    #[error("the OCI layout `{}` has no image `{wanted}`; it has {offered}", folder.display())]
    NoSuchImage {
        /// The folder.
        folder: PathBuf,
        /// What was asked for.
        wanted: String,
        /// The names that it has.
        offered: String,
    },
    /// No name was given and there is not exactly one image.
    #[error("the OCI layout `{}` has {count} images: name one of {offered}", folder.display())]
    NotOne {
        /// The folder.
        folder: PathBuf,
        /// How many.
        count: usize,
        /// Their names.
        offered: String,
    },
    /// A blob is not there.
    #[error("the OCI layout `{}` has no blob `{digest}`", folder.display())]
    MissingBlob {
        /// The folder.
        folder: PathBuf,
        /// The blob.
        digest: Digest,
    },
    /// A blob is not what its descriptor says.
    #[error("blob `{digest}` of the OCI layout `{}` is damaged", folder.display())]
    DamagedBlob {
        /// The folder.
        folder: PathBuf,
        /// The blob.
        digest: Digest,
        /// How.
        source: VerifyError,
    },
    /// The disk.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl OciLayout {
    /// The layout in `folder`, which is made absolute by the caller: it is remembered as the place to fetch from.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Finds an image: the descriptor of its manifest or index.
    pub fn find(&self, image: &LayoutImage) -> Result<Descriptor, LayoutError> {
        let entries = self.index()?.manifests;
        let by = |wanted: &dyn Fn(&Descriptor) -> bool| {
            // A layout that is appended to lists the newest last.
            entries.iter().rev().find(|entry| wanted(entry)).cloned()
        };
        let found = match image {
            LayoutImage::Only => match entries.as_slice() {
                [only] => return Ok(only.clone()),
                // As where images have names, the one that is called so is meant if nothing is said.
                entries => match by(&|entry| names(entry).any(|known| is_name(known, "latest"))) {
                    Some(latest) => return Ok(latest),
                    None => {
                        return Err(LayoutError::NotOne {
                            folder: self.folder.clone(),
                            count: entries.len(),
                            offered: offered(entries),
                        });
                    }
                },
            },
            LayoutImage::Named(name) => by(&|entry| names(entry).any(|known| is_name(known, name))),
            LayoutImage::Digest(digest) => by(&|entry| entry.digest == *digest),
        };
        if let Some(found) = found {
            return Ok(found);
        }
        if let LayoutImage::Digest(digest) = image
            && let Some(found) = self.unlisted(digest)?
        {
            return Ok(found);
        }
        Err(LayoutError::NoSuchImage {
            folder: self.folder.clone(),
            wanted: match image {
                LayoutImage::Named(name) => name.clone(),
                LayoutImage::Digest(digest) => digest.to_string(),
                LayoutImage::Only => String::new(),
            },
            offered: offered(&entries),
        })
    }

    /// A manifest that an index lists, for example. What it is shows when it is read.
    fn unlisted(&self, digest: &Digest) -> Result<Option<Descriptor>, LayoutError> {
        match self.open_regular(&self.blob_path(digest)) {
            Ok((_, size)) => Ok(Some(Descriptor::new("".into(), *digest, size))),
            Err(LayoutError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn index(&self) -> Result<Index, LayoutError> {
        let fail = |reason: String| LayoutError::NotALayout { folder: self.folder.clone(), reason };
        let read = |name: &str| match self.read_whole(&self.folder.join(name)) {
            Err(LayoutError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Err(fail(format!("it has no `{name}`")))
            }
            result => result,
        };
        let marker: serde_json::Value =
            serde_json::from_slice(&read("oci-layout")?).unwrap_or_default();
        let version = marker["imageLayoutVersion"].as_str().unwrap_or_default();
        if !version.starts_with("1.") {
            return Err(fail("its `oci-layout` does not say version 1".to_owned()));
        }
        serde_json::from_slice(&read("index.json")?)
            .map_err(|error| fail(format!("its `index.json` cannot be understood: {error}")))
    }

    fn read_whole(&self, path: &Path) -> Result<Vec<u8>, LayoutError> {
        let (file, size) = self.open_regular(path)?;
        let cannot = |source| LayoutError::Read { path: path.to_owned(), source };
        if size > LARGEST_INDEX {
            return Err(cannot(io::Error::from(io::ErrorKind::FileTooLarge)));
        }
        let mut bytes = Vec::new();
        file.take(LARGEST_INDEX).read_to_end(&mut bytes).map_err(cannot)?;
        Ok(bytes)
    }

    /// Opens a blob. Reading it to its end fails unless it is what `descriptor` says.
    pub fn open(&self, descriptor: &Descriptor) -> Result<VerifyingReader<File>, LayoutError> {
        let file = self.open_file(descriptor)?;
        Ok(VerifyingReader::new(file, descriptor.digest, descriptor.size))
    }

    /// Opens a blob of the right size, whose digest the caller verifies.
    pub(crate) fn open_file(&self, descriptor: &Descriptor) -> Result<File, LayoutError> {
        let (file, size) = self.open_regular(&self.blob_path(&descriptor.digest)).map_err(
            |error| match error {
                LayoutError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                    self.missing(descriptor)
                }
                error => error,
            },
        )?;
        let expected = descriptor.size;
        let source = match size {
            size if size < expected => VerifyError::Short { expected, actual: size },
            size if size > expected => VerifyError::Long { expected },
            _ => return Ok(file),
        };
        Err(self.damaged(descriptor, source))
    }

    /// Reads a blob whole. The caller has found its size sensible.
    pub fn read(&self, descriptor: &Descriptor) -> Result<Vec<u8>, LayoutError> {
        let mut bytes = Vec::new();
        match self.open(descriptor)?.read_to_end(&mut bytes) {
            Ok(_) => Ok(bytes),
            Err(error) => Err(self.failed_reading(descriptor, error)),
        }
    }

    /// What an error while reading from [`OciLayout::open`] means.
    fn failed_reading(&self, descriptor: &Descriptor, error: io::Error) -> LayoutError {
        match error.downcast::<VerifyError>() {
            Ok(source) => self.damaged(descriptor, source),
            Err(source) => LayoutError::Read { path: self.blob_path(&descriptor.digest), source },
        }
    }

    fn missing(&self, descriptor: &Descriptor) -> LayoutError {
        LayoutError::MissingBlob { folder: self.folder.clone(), digest: descriptor.digest }
    }

    fn damaged(&self, descriptor: &Descriptor, source: VerifyError) -> LayoutError {
        let (folder, digest) = (self.folder.clone(), descriptor.digest);
        LayoutError::DamagedBlob { folder, digest, source }
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.folder.join("blobs").join(digest.algorithm().name()).join(digest.hex())
    }

    /// Opens a file without waiting for somebody to write into it, which a pipe would do.
    fn open_regular(&self, path: &Path) -> Result<(File, u64), LayoutError> {
        let cannot = |source| LayoutError::Read { path: path.to_owned(), source };
        let flags = OFlags::NONBLOCK.bits() as i32;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(cannot)?;
        let metadata = file.metadata().map_err(cannot)?;
        if !metadata.is_file() {
            return Err(cannot(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is not a regular file",
            )));
        }
        Ok((file, metadata.len()))
    }
}

fn names(entry: &Descriptor) -> impl Iterator<Item = &str> {
    NAME_ANNOTATIONS.iter().filter_map(|key| entry.annotations.get(*key)).map(String::as_str)
}

/// Whether an image that calls itself `known` is meant by `wanted`. Some tools write the tag, some the whole reference.
fn is_name(known: &str, wanted: &str) -> bool {
    known == wanted
        || known.strip_suffix(wanted).is_some_and(|rest| rest.ends_with(':') && rest.len() > 1)
}

fn offered(entries: &[Descriptor]) -> String {
    const MOST: usize = 20;
    let mut list: Vec<String> = entries
        .iter()
        .take(MOST)
        .map(|entry| names(entry).next().map_or_else(|| entry.digest.to_string(), str::to_owned))
        .map(|name| format!("`{name}`"))
        .collect();
    if entries.len() > MOST {
        list.push(format!("{} more", entries.len() - MOST));
    }
    if list.is_empty() { "no images".to_owned() } else { list.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rbuild_testdata::{Image, Layout};

    fn layout(names: &[(&str, Option<&str>)]) -> (tempfile::TempDir, OciLayout) {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = Layout::create(folder.path());
        for (number, (annotation, name)) in names.iter().enumerate() {
            let image = Image::new("linux/amd64")
                .configured(|config| config["author"] = number.to_string().into());
            writer.add_annotated(annotation, *name, &image.publish());
        }
        let layout = OciLayout::new(folder.path());
        (folder, layout)
    }

    const REF: &str = NAME_ANNOTATIONS[0];
    const CONTAINERD: &str = NAME_ANNOTATIONS[1];

    #[test]
    fn finds_images_by_name_and_digest() {
        let (_folder, layout) = layout(&[
            (REF, Some("a")),
            (CONTAINERD, Some("docker.io/library/b:b1")),
            (REF, Some("a")),
            (REF, None),
        ]);
        let at = |place: usize| layout.index().unwrap().manifests[place].clone();
        let named = |name: &str| layout.find(&LayoutImage::Named(name.to_owned()));
        assert_eq!(named("a").unwrap(), at(2));
        assert_eq!(named("b1").unwrap(), at(1));
        assert_eq!(named("docker.io/library/b:b1").unwrap(), at(1));
        assert_eq!(layout.find(&LayoutImage::Digest(at(3).digest)).unwrap(), at(3));
        let error = named("library/b").unwrap_err().to_string();
        assert!(error.contains("no image `library/b`; it has `a`, `docker.io/"), "{error}");
        let error = layout.find(&LayoutImage::Only).unwrap_err().to_string();
        assert!(error.contains("has 4 images: name one of"), "{error}");
        let (_other, with_latest) =
            self::layout(&[(REF, Some("a")), (REF, Some("latest")), (REF, None)]);
        let latest = with_latest.index().unwrap().manifests[1].clone();
        assert_eq!(with_latest.find(&LayoutImage::Only).unwrap(), latest);
        let config = layout.index().unwrap().manifests[0].clone();
        let bytes = layout.read(&config).unwrap();
        let document: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        let unlisted = Digest::parse(document["config"]["digest"].as_str().unwrap()).unwrap();
        assert_eq!(layout.find(&LayoutImage::Digest(unlisted)).unwrap().digest, unlisted);
        assert!(layout.find(&LayoutImage::Digest(Digest::of(b"?"))).is_err());
    }

    #[test]
    fn says_which_blob_is_wrong() {
        let (folder, layout) = layout(&[(REF, None)]);
        let only = layout.find(&LayoutImage::Only).unwrap();
        let path = layout.blob_path(&only.digest);
        let right = std::fs::read(&path).unwrap();
        let damages: [(&dyn Fn(), &str); 5] = [
            (&|| std::fs::write(&path, &right[1..]).unwrap(), "content ends after"),
            (&|| std::fs::write(&path, [&right[..], b" "].concat()).unwrap(), "goes on after"),
            (&|| std::fs::write(&path, vec![b' '; right.len()]).unwrap(), "has digest"),
            (&|| std::fs::remove_file(&path).unwrap(), "has no blob"),
            (&|| std::fs::create_dir(&path).unwrap(), "not a regular file"),
        ];
        for (damage, expected) in damages {
            damage();
            let error = layout.read(&only).unwrap_err();
            let source = std::error::Error::source(&error).map(ToString::to_string);
            let said = format!("{error}: {}", source.unwrap_or_default());
            assert!(said.contains(expected), "{said}");
            assert!(said.contains(&only.digest.hex()), "{said}");
            assert!(said.contains(folder.path().to_str().unwrap()), "{said}");
        }
    }

    #[test]
    fn what_is_no_layout_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let find = || {
            let error = OciLayout::new(folder.path()).find(&LayoutImage::Only).unwrap_err();
            error.to_string()
        };
        assert!(find().contains("it has no `oci-layout`"));
        std::fs::write(folder.path().join("oci-layout"), "{}").unwrap();
        assert!(find().contains("does not say version 1"));
        let marker = r#"{"imageLayoutVersion":"1.0.0"}"#;
        std::fs::write(folder.path().join("oci-layout"), marker).unwrap();
        assert!(find().contains("it has no `index.json`"));
        std::fs::write(folder.path().join("index.json"), "[]").unwrap();
        assert!(find().contains("cannot be understood"));
        let empty = r#"{"schemaVersion":2,"manifests":[]}"#;
        std::fs::write(folder.path().join("index.json"), empty).unwrap();
        assert!(find().contains("has 0 images: name one of no images"));
    }
}
