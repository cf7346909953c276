//! A cache in a folder: an OCI layout that grows.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::PathBuf;

use rbuild_cache::Content;
use rbuild_oci::{Descriptor, Digest};

use super::CacheDocuments;
use crate::layout_folder::{LayoutFolder, LayoutFolderError, at};

const NAME: &str = "org.opencontainers.image.ref.name";

/// A folder for caches.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CacheLayout {
    /// Where; it is made when missing.
    pub folder: PathBuf,
    /// The name of this cache in it.
    pub tag: String,
    /// Whether all other caches in it are removed.
    pub reset: bool,
}

/// The blobs of layers that are not in the folder, or are damaged there.
pub fn missing_blobs(
    layout: &CacheLayout,
    documents: &CacheDocuments,
) -> Result<Vec<Descriptor>, LayoutFolderError> {
    let mut folder = LayoutFolder::open(&layout.folder)?;
    let missing = documents.blobs.iter().filter(|blob| !folder.has(blob)).cloned().collect();
    folder.remember();
    Ok(missing)
}

/// Writes a cache to a folder. Blobs that are there stay, unless they are damaged; the others must be in `content`.
pub fn write_cache_layout(
    content: &Content,
    documents: &CacheDocuments,
    layout: &CacheLayout,
) -> Result<(), LayoutFolderError> {
    let mut folder = LayoutFolder::open(&layout.folder)?;
    documents.blobs.iter().try_for_each(|blob| folder.copy(content, blob))?;
    folder.put(&documents.config, &documents.config_bytes)?;
    folder.put(&documents.descriptor, &documents.manifest_bytes)?;
    let mut entries = if layout.reset { Vec::new() } else { folder.entries()? };
    let mut entry = documents.descriptor.clone();
    entry.annotations.insert(NAME.to_owned(), layout.tag.clone());
    entries.retain(|other| other.annotations.get(NAME) != Some(&layout.tag));
    entries.push(entry);
    folder.set_entries(entries)?;
    if layout.reset {
        layout.remove_others(documents)?;
    }
    Ok(())
}

impl CacheLayout {
    /// Removes blobs that the cache does not have. What is not called like a blob stays.
    fn remove_others(&self, documents: &CacheDocuments) -> Result<(), LayoutFolderError> {
        let own = [documents.config.digest, documents.descriptor.digest];
        let keep: HashSet<String> =
            documents.blobs.iter().map(|blob| blob.digest).chain(own).map(|d| d.hex()).collect();
        let folder = self.folder.join("blobs/sha256");
        for entry in fs::read_dir(&folder).map_err(at("read", &folder))? {
            let entry = entry.map_err(at("read", &folder))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_blob = Digest::parse(&format!("sha256:{name}")).is_ok();
            if is_blob && !keep.contains(&name) {
                let path = entry.path();
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(at("remove", &path)(error));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}
