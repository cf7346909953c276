//! What is told of a finished build: `--metadata-file`, `--iidfile`, `-q` (section 4.6 of the behaviour
//! reference).

use std::io;
use std::path::Path;

use rbuild_exporter::NamedDocument;
use rbuild_oci::Platform;
use serde_json::{Map, Value, json};

use crate::error::{CommandError, Kind};

/// The metadata document of an image or index with these names; without an image it is empty.
pub(crate) fn document(
    image: Option<&NamedDocument>,
    names: &[String],
    provenance: &[(Platform, Value)],
) -> Value {
    let mut keys = Map::new();
    for (platform, said) in provenance {
        let key = match provenance {
            [_] => "buildx.build.provenance".to_owned(),
            _ => format!("buildx.build.provenance/{platform}"),
        };
        keys.insert(key, said.clone());
    }
    if let Some(image) = image {
        let mut descriptor = image.descriptor.clone();
        if let Some(config) = &image.config {
            descriptor.annotations.insert("config.digest".to_owned(), config.to_string());
            keys.insert("containerimage.config.digest".to_owned(), json!(config));
        }
        keys.insert("containerimage.descriptor".to_owned(), json!(descriptor));
        keys.insert("containerimage.digest".to_owned(), json!(image.descriptor.digest));
        if !names.is_empty() {
            keys.insert("image.name".to_owned(), json!(names.join(",")));
        }
    }
    Value::Object(keys)
}

/// Writes a small file whole or not at all.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), CommandError> {
    let fail = |error: io::Error| {
        CommandError::caused(Kind::Environment, format!("cannot write `{}`", path.display()), error)
    };
    if path.exists() && !path.is_file() {
        return std::fs::write(path, bytes).map_err(fail);
    }
    let folder =
        path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(".rbuild-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(folder)
        .map_err(fail)?;
    io::Write::write_all(&mut file, bytes).map_err(fail)?;
    file.persist(path).map_err(|error| fail(error.error))?;
    Ok(())
}
