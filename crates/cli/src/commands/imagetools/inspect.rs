//! `rbuild imagetools inspect`: what a name stands for at its registry.

use std::fmt::Write as _;

use rbuild_cache::{Document, RegistryClient};
use rbuild_oci::{Descriptor, Index, Reference};
use serde_json::{Value, json};

use super::template;
use crate::args::ImagetoolsInspectArgs;
use crate::commands::build::in_runtime;
use crate::commands::images::print;
use crate::error::{CommandError, Kind};
use crate::registry_args::RegistryArgs;
use crate::{printable, wiring};

/// Shows the manifest or index that a name stands for.
pub(crate) fn inspect(
    args: &ImagetoolsInspectArgs,
    registries: &RegistryArgs,
) -> Result<(), CommandError> {
    let reference = Reference::parse(&args.image).map_err(|error| {
        CommandError::caused(Kind::Usage, format!("cannot inspect `{}`", args.image), error)
    })?;
    let client = RegistryClient::new(wiring::registry_options(registries));
    in_runtime(async {
        let document = client.manifest(&reference).await.map_err(|error| {
            let message = format!("cannot inspect `{}`", args.image);
            CommandError::caused(Kind::Environment, message, error)
        })?;
        match &args.format {
            _ if args.raw => print(&document.bytes),
            Some(template) => print(formatted(template, &reference, &document)?.as_bytes()),
            None => print(text(&reference, &document)?.as_bytes()),
        }
    })
}

/// What a template names of the document: the fields that buildx has, as far as they need nothing else to be fetched.
fn formatted(
    template: &str,
    reference: &Reference,
    document: &Document,
) -> Result<String, CommandError> {
    let mut manifest = json!({
        "mediaType": document.media_type,
        "digest": document.digest,
        "size": document.bytes.len(),
    });
    if document.media_type.is_index() {
        let parsed: Value = serde_json::from_slice(&document.bytes).unwrap_or_default();
        for key in ["schemaVersion", "manifests", "annotations"] {
            if let Some(value) = parsed.get(key) {
                manifest[key] = value.clone();
            }
        }
    }
    let fields = json!({ "name": reference.with_default_tag().to_string(), "manifest": manifest });
    match template::expand(template, &fields) {
        Ok(text) => Ok(format!("{}\n", printable::text(&text))),
        Err(why) => Err(CommandError::usage(format!("cannot use --format '{template}': {why}")).hint(
            "these are known: {{.Name}}, {{json .Manifest}}, and its fields, such as {{.Manifest.Digest}}; --raw prints \
             the document",
        )),
    }
}

/// As `docker buildx imagetools inspect` writes it.
fn text(reference: &Reference, document: &Document) -> Result<String, CommandError> {
    let name = reference.with_default_tag();
    let mut text = format!(
        "Name:      {name}\nMediaType: {}\nDigest:    {}\n",
        printable::line(document.media_type.as_str()),
        document.digest
    );
    if !document.media_type.is_index() {
        return Ok(text);
    }
    let index: Index = serde_json::from_slice(&document.bytes).map_err(|error| {
        CommandError::caused(Kind::Environment, format!("the index of `{name}` is none"), error)
    })?;
    text.push_str("           \nManifests: \n");
    let entries: Vec<String> =
        index.manifests.iter().map(|entry| entry_text(reference, entry)).collect();
    text.push_str(&entries.join("             \n"));
    Ok(text)
}

fn entry_text(reference: &Reference, entry: &Descriptor) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: &str| {
        let _ = writeln!(text, "  {key:<12} {}", printable::line(value));
    };
    line("Name:", &format!("{}@{}", reference.name(), entry.digest));
    line("MediaType:", entry.media_type.as_str());
    if let Some(platform) = &entry.platform {
        line("Platform:", &platform.full_name());
    }
    if !entry.annotations.is_empty() {
        line("Annotations:", "");
        for (key, value) in &entry.annotations {
            let _ = writeln!(text, "    {}", printable::line(&format!("{key}: {value}")));
        }
    }
    text
}
