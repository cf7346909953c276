//! OCI image layout folders.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::{Blob, Published};

/// An OCI image layout folder being written.
#[derive(Debug)]
pub struct Layout {
    directory: PathBuf,
    entries: Vec<Value>,
}

impl Layout {
    /// Starts an empty layout in `directory`, which is made if it is missing.
    pub fn create(directory: &Path) -> Self {
        let layout = Self { directory: directory.to_owned(), entries: Vec::new() };
        fs::create_dir_all(directory.join("blobs/sha256")).expect("the layout's folder is made");
        fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)
            .expect("`oci-layout` is written");
        layout.write_index();
        layout
    }

    /// Adds an image or index under the name `tag`, or without a name.
    pub fn add(&mut self, tag: Option<&str>, published: &Published) {
        self.add_annotated("org.opencontainers.image.ref.name", tag, published);
    }

    /// As [`Layout::add`], with the name in another annotation.
    pub fn add_annotated(&mut self, annotation: &str, name: Option<&str>, published: &Published) {
        for blob in published.blobs.iter().chain(&published.manifests).chain([&published.top]) {
            fs::write(self.blob_path(&blob.digest()), &blob.bytes).expect("a blob is written");
        }
        self.add_entry(annotation, name, &published.top);
        self.write_index();
    }

    /// Where the blob `digest` (`sha256:hex`) lies.
    pub fn blob_path(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").expect("fixtures use sha256");
        self.directory.join("blobs/sha256").join(hex)
    }

    fn add_entry(&mut self, annotation: &str, name: Option<&str>, top: &Blob) {
        let mut descriptor = top.descriptor();
        if let Some(name) = name {
            descriptor["annotations"] = json!({annotation: name});
        }
        self.entries.push(descriptor);
    }

    fn write_index(&self) {
        let index = json!({"schemaVersion": 2, "manifests": self.entries});
        fs::write(self.directory.join("index.json"), index.to_string())
            .expect("`index.json` is written");
    }
}
