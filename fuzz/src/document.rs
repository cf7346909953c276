//! Manifests, indexes, configurations and descriptors of images.

use rbuild_oci::{Digest, ImageConfig, MediaType, Platform};
use serde_json::Value;

#[path = "../../crates/cache/src/image_source/document.rs"]
mod source;

use source::ImageDocument;

/// JSON as large as it is written, with white space and escapes.
const GROWTH: usize = 6;

/// A document is what it says it is or refused, and loses nothing when it is read and written.
pub fn check(data: &[u8]) {
    let declared = [MediaType::OciManifest, MediaType::OciIndex, MediaType::from("")];
    let read = declared.map(|declared| ImageDocument::parse(&declared, data));
    // No two readers may see two things in one document.
    let kinds = read.iter().filter_map(|read| match read {
        Ok(ImageDocument::Manifest(_)) => Some(true),
        Ok(ImageDocument::Index(_)) => Some(false),
        Err(error) => {
            assert!(!error.to_string().is_empty());
            None
        }
    });
    let kinds: Vec<bool> = kinds.collect();
    assert!(kinds.windows(2).all(|pair| pair[0] == pair[1]), "both a manifest and an index");
    for document in read.into_iter().flatten() {
        let (written, again) = match &document {
            ImageDocument::Manifest(manifest) => {
                let written = serde_json::to_vec(manifest).expect("it was JSON");
                let again = serde_json::from_slice(&written).expect("it is what we wrote");
                assert_eq!(**manifest, again);
                (written, serde_json::to_vec(&again))
            }
            ImageDocument::Index(index) => {
                for wanted in [Platform::new("linux", "arm", "v7"), Platform::host()] {
                    let chosen = index.select(&wanted);
                    assert!(chosen.is_none_or(|chosen| index.manifests.contains(chosen)));
                }
                let written = serde_json::to_vec(index).expect("it was JSON");
                let again = serde_json::from_slice(&written).expect("it is what we wrote");
                assert_eq!(**index, again);
                (written, serde_json::to_vec(&again))
            }
        };
        assert!(written.len() <= GROWTH * data.len() + 100);
        assert_eq!(again.expect("it was JSON"), written);
    }
    check_config(data);
}

/// What a base image's configuration says is kept, known to us or not.
fn check_config(data: &[u8]) {
    let Ok(config) = serde_json::from_slice::<ImageConfig>(data) else { return };
    let (descriptor, written) = config.to_blob(MediaType::OciConfig);
    assert_eq!(descriptor.digest, Digest::of(&written));
    let again: ImageConfig = serde_json::from_slice(&written).expect("it is what we wrote");
    assert_eq!(again.to_blob(MediaType::OciConfig).1, written);
    let (Ok(Value::Object(before)), Ok(Value::Object(after))) =
        (serde_json::from_slice::<Value>(data), serde_json::from_slice::<Value>(&written))
    else {
        return;
    };
    for (key, value) in before {
        let is_empty = match &value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(list) => list.is_empty(),
            _ => false,
        };
        assert!(is_empty || after.contains_key(&key), "`{key}` was lost");
    }
    let platform = config.platform().normalize();
    assert_eq!(platform.clone().normalize(), platform);
}
