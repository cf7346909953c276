//! What is said of a result beside itself: in-toto statements, and the manifest that holds them in an index (sections 4.2 and 4.7
//! of the behaviour reference).

use std::collections::BTreeMap;

use rbuild_oci::{Descriptor, Digest, Manifest, MediaType, Platform, Reference};
use serde_json::{Value, json};

use crate::export::ExportError;
use crate::layers::ExportStore;

/// The type of provenance, version 1 of SLSA.
pub const PROVENANCE_V1: &str = "https://slsa.dev/provenance/v1";
/// The type of bills of materials.
pub const SPDX_DOCUMENT: &str = "https://spdx.dev/Document";

const STATEMENT_TYPE: &str = "application/vnd.in-toto+json";
const ARTIFACT_TYPE: &str = "application/vnd.docker.attestation.manifest.v1+json";
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
const EMPTY: &[u8] = b"{}";

/// Something that is said of a result.
#[derive(Clone, Debug, PartialEq)]
pub struct Attestation {
    /// What kind of thing it says.
    pub predicate_type: &'static str,
    /// What it says.
    pub predicate: Value,
    /// How it is called as a file.
    pub file_name: String,
}

/// What a statement is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// A package URL, a path, or `_`.
    pub name: String,
    /// Its digest.
    pub digest: Digest,
}

/// How attestations are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttestationForm {
    /// As an artifact that names the image as its subject, which registries list with the image.
    Artifact,
    /// As something that looks like an image, as BuildKit wrote it before artifacts.
    Image,
}

impl Attestation {
    /// The statement about `subjects`, as JSON.
    pub fn statement(&self, subjects: &[Subject]) -> Vec<u8> {
        let subjects: Vec<Value> = subjects
            .iter()
            .map(|Subject { name, digest }| {
                json!({ "name": name, "digest": { digest.algorithm().name(): digest.hex() } })
            })
            .collect();
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v1",
            "predicateType": self.predicate_type,
            "subject": subjects,
            "predicate": self.predicate,
        });
        let mut bytes = serde_json::to_vec_pretty(&statement).expect("a JSON value serialises");
        bytes.push(b'\n');
        bytes
    }
}

/// The subjects that an image is: one a name.
pub fn image_subjects(image: &Descriptor, names: &[Reference]) -> Vec<Subject> {
    let digest = image.digest;
    let platform = image.platform.as_ref();
    if names.is_empty() {
        return vec![Subject { name: "_".to_owned(), digest }];
    }
    names.iter().map(|name| Subject { name: image_purl(name, platform), digest }).collect()
}

/// The package URL of an image: `pkg:docker/NAME@TAG?platform=..`.
pub fn image_purl(name: &Reference, platform: Option<&Platform>) -> String {
    let familiar = name.familiar();
    let familiar = familiar.split('@').next().unwrap_or_default();
    let (path, tag) = match name.tag() {
        Some(tag) => (familiar.strip_suffix(&format!(":{tag}")).unwrap_or(familiar), Some(tag)),
        None => (familiar, (name.digest().is_none()).then_some("latest")),
    };
    // A registry's port is the only thing here that a package URL writes otherwise.
    let mut purl = format!("pkg:docker/{}", path.replace(':', "%3A"));
    if let Some(tag) = tag {
        purl.push('@');
        purl.push_str(tag);
    }
    let digest = name.digest().map(|digest| format!("digest={digest}"));
    let platform =
        platform.map(|platform| format!("platform={}", platform.to_string().replace('/', "%2F")));
    let qualifiers: Vec<String> = [digest, platform].into_iter().flatten().collect();
    if !qualifiers.is_empty() {
        purl.push('?');
        purl.push_str(&qualifiers.join("&"));
    }
    purl
}

/// Puts attestations of `image` and the manifest that names them into the content store. Returns the entry for the index that
/// names the image.
pub fn make_attestation_manifest(
    store: ExportStore<'_>,
    image: &Descriptor,
    names: &[Reference],
    attestations: &[Attestation],
    form: AttestationForm,
) -> Result<Descriptor, ExportError> {
    let subjects = image_subjects(image, names);
    let mut blobs = Vec::new();
    let mut layers = Vec::new();
    for attestation in attestations {
        let bytes = attestation.statement(&subjects);
        let mut layer = described(STATEMENT_TYPE, &bytes);
        let kind = attestation.predicate_type.to_owned();
        layer.annotations.insert("in-toto.io/predicate-type".to_owned(), kind);
        layers.push(layer);
        blobs.push(bytes);
    }
    let (config_type, config) = match form {
        AttestationForm::Artifact => (EMPTY_TYPE, EMPTY.to_vec()),
        AttestationForm::Image => (MediaType::OciConfig.as_str(), config_of_nothing(&layers)),
    };
    let mut manifest = Manifest::new(described(config_type, &config), layers);
    blobs.push(config);
    if form == AttestationForm::Artifact {
        manifest.artifact_type = Some(ARTIFACT_TYPE.to_owned());
        manifest.subject =
            Some(Descriptor::new(image.media_type.clone(), image.digest, image.size));
    }
    let bytes = serde_json::to_vec_pretty(&manifest).expect("a manifest always serialises");
    let mut entry = described(MediaType::OciManifest.as_str(), &bytes);
    blobs.push(bytes);
    let digests: Vec<Digest> = blobs.iter().map(|bytes| Digest::of(bytes)).collect();
    store.lease.pin_blobs(&digests)?;
    for bytes in &blobs {
        store.content.put(bytes)?;
    }
    // So that nobody takes it for an image of their platform.
    entry.platform = Some(Platform::new("unknown", "unknown", ""));
    entry.annotations = BTreeMap::from([
        ("vnd.docker.reference.digest".to_owned(), image.digest.to_string()),
        ("vnd.docker.reference.type".to_owned(), "attestation-manifest".to_owned()),
    ]);
    Ok(entry)
}

fn described(media_type: &str, bytes: &[u8]) -> Descriptor {
    Descriptor::new(MediaType::from(media_type), Digest::of(bytes), bytes.len() as u64)
}

/// The configuration of an image of no platform, whose layers are statements.
fn config_of_nothing(layers: &[Descriptor]) -> Vec<u8> {
    let diff_ids: Vec<_> = layers.iter().map(|layer| layer.digest).collect();
    let config = json!({
        "architecture": "unknown",
        "os": "unknown",
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    config.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_images() {
        let amd64 = Platform::new("linux", "amd64", "");
        let digest = Digest::of(b"x");
        for (name, expected) in [
            ("app", "pkg:docker/app@latest?platform=linux%2Famd64"),
            ("docker.io/library/app:1", "pkg:docker/app@1?platform=linux%2Famd64"),
            ("localhost:5000/a/b:1", "pkg:docker/localhost%3A5000/a/b@1?platform=linux%2Famd64"),
        ] {
            let name = Reference::parse(name).unwrap();
            assert_eq!(image_purl(&name, Some(&amd64)), expected);
        }
        let pinned = Reference::parse("app:1").unwrap().pinned(digest);
        assert_eq!(image_purl(&pinned, None), format!("pkg:docker/app@1?digest={digest}"));
        let image = Descriptor::new(MediaType::OciManifest, digest, 1);
        assert_eq!(image_subjects(&image, &[]), [Subject { name: "_".to_owned(), digest }]);
    }

    #[test]
    fn statements() {
        let attestation = Attestation {
            predicate_type: PROVENANCE_V1,
            predicate: json!({ "a": 1 }),
            file_name: "provenance.json".to_owned(),
        };
        let digest = Digest::of(b"x");
        let bytes = attestation.statement(&[Subject { name: "_".to_owned(), digest }]);
        let value: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(value["_type"], "https://in-toto.io/Statement/v1");
        assert_eq!(value["subject"][0]["digest"]["sha256"], digest.hex());
        assert_eq!(value["predicate"]["a"], 1);
    }
}
