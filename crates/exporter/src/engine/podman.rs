//! The program podman, which takes an image from a folder: it reads only the blobs that its storage lacks.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rbuild_cache::Content;
use rbuild_oci::Reference;

use super::EngineError;
use crate::image::Image;

/// A program that keeps images and runs containers.
#[derive(Clone, Debug)]
pub struct Podman {
    /// The program.
    pub program: PathBuf,
}

impl Podman {
    pub(super) fn load(
        &self,
        image: &Image,
        names: &[Reference],
        content: &Content,
        scratch: &Path,
    ) -> Result<(), EngineError> {
        let folder = tempfile::Builder::new()
            .prefix("podman-")
            .tempdir_in(scratch)
            .map_err(EngineError::Folder)?;
        // What is loaded is named after the folder, as it is given.
        let name = format!("rbuild-{}", &image.manifest.config.digest.hex()[..32]);
        lay_out(&folder.path().join(&name), image, content).map_err(EngineError::Folder)?;
        self.run(folder.path(), &["load", "--quiet", "--input", &name])?;
        let own = format!("localhost/{name}:latest");
        let names: Vec<String> =
            names.iter().map(|name| name.with_default_tag().to_string()).collect();
        if !names.is_empty() {
            let names = names.iter().map(String::as_str);
            let tag: Vec<&str> = ["tag", &own].into_iter().chain(names).collect();
            self.run(folder.path(), &tag)?;
        }
        self.run(folder.path(), &["untag", &own, &own])
    }

    fn run(&self, folder: &Path, args: &[&str]) -> Result<(), EngineError> {
        let program = self.program.display().to_string();
        let output = Command::new(&self.program)
            .args(args)
            .current_dir(folder)
            .stdin(Stdio::null())
            .output()
            .map_err(|source| EngineError::Start { program: program.clone(), source })?;
        if output.status.success() {
            return Ok(());
        }
        let command = format!("podman {}", args.join(" "));
        let said = String::from_utf8_lossy(&output.stderr);
        let message = match said.trim() {
            "" => output.status.to_string(),
            said => said.to_owned(),
        };
        Err(EngineError::Failed { command, message })
    }
}

/// An OCI image layout with the image alone; its layers are links to the store.
fn lay_out(folder: &Path, image: &Image, content: &Content) -> io::Result<()> {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let index = rbuild_oci::Index::new(vec![image.descriptor.clone()]);
    fs::write(folder.join("index.json"), serde_json::to_vec(&index)?)?;
    fs::write(blobs.join(image.descriptor.digest.hex()), &image.manifest_bytes)?;
    fs::write(blobs.join(image.manifest.config.digest.hex()), &image.config_bytes)?;
    for layer in &image.manifest.layers {
        match symlink(
            std::path::absolute(content.path(&layer.digest))?,
            blobs.join(layer.digest.hex()),
        ) {
            // An image may name one layer twice.
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
