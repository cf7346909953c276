//! An inventory as a document of SPDX 2.3, in its JSON form.

use std::collections::{BTreeMap, BTreeSet};

use rbuild_oci::Digest;
use serde_json::{Value, json};

use super::inventory::{Found, Inventory};
use super::licence::{Declared, declared};
use crate::image::rfc3339_of_seconds;

const NOTHING: &str = "NOASSERTION";
const DOCUMENT: &str = "SPDXRef-DOCUMENT";
const ROOT: &str = "SPDXRef-Subject";
const DISTRIBUTION: &str = "SPDXRef-Distribution";
/// How many places of one package are written down.
const MOST_PLACES: usize = 20;
/// How many files that were not read are named.
const MOST_UNREAD: usize = 1000;

/// What a document is about.
#[derive(Clone, Copy, Debug)]
pub struct Described<'a> {
    /// Its name.
    pub name: &'a str,
    /// Whether it is an image, or files.
    pub is_image: bool,
    /// When the document was made, seconds since 1970.
    pub created: i64,
}

/// The document: the subject, the distribution, and each package once, whatever the number of its places.
///
/// Equal inventories at one time give equal documents, also in the name that tells documents apart.
pub fn spdx_document(inventory: &Inventory, described: Described<'_>) -> Value {
    let distribution = inventory.distribution.as_ref();
    let mut by_purl: BTreeMap<String, Vec<&Found>> = BTreeMap::new();
    for found in &inventory.found {
        by_purl.entry(found.package.purl(distribution)).or_default().push(found);
    }
    let mut packages = vec![json!({
        "SPDXID": ROOT,
        "name": described.name,
        "downloadLocation": NOTHING,
        "filesAnalyzed": false,
        "licenseConcluded": NOTHING,
        "licenseDeclared": NOTHING,
        "copyrightText": NOTHING,
        "primaryPackagePurpose": if described.is_image { "CONTAINER" } else { "FILE" },
    })];
    let mut relationships = vec![relationship(DOCUMENT, "DESCRIBES", ROOT)];
    if let Some(distribution) = distribution {
        let name = if distribution.name.is_empty() { &distribution.id } else { &distribution.name };
        let mut package = json!({
            "SPDXID": DISTRIBUTION,
            "name": distribution.id,
            "description": name,
            "downloadLocation": NOTHING,
            "filesAnalyzed": false,
            "licenseConcluded": NOTHING,
            "licenseDeclared": NOTHING,
            "copyrightText": NOTHING,
            "primaryPackagePurpose": "OPERATING-SYSTEM",
        });
        if !distribution.version.is_empty() {
            package["versionInfo"] = json!(distribution.version);
        }
        packages.push(package);
        relationships.push(relationship(ROOT, "CONTAINS", DISTRIBUTION));
    }
    let mut quoted = BTreeMap::new();
    for (purl, places) in &by_purl {
        let package = package(purl, places, &mut quoted);
        let id = package["SPDXID"].as_str().unwrap_or_default();
        relationships.push(relationship(ROOT, "CONTAINS", id));
        packages.push(package);
    }
    let mut document = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": DOCUMENT,
        "name": described.name,
        "creationInfo": {
            "created": rfc3339_of_seconds(described.created),
            "creators": [concat!("Tool: rbuild-", env!("CARGO_PKG_VERSION"))],
        },
        "packages": packages,
        "relationships": relationships,
    });
    if !quoted.is_empty() {
        let licences = quoted
            .into_iter()
            .map(|(id, text)| json!({ "licenseId": id, "extractedText": text, "name": text }));
        document["hasExtractedLicensingInfos"] = licences.collect();
    }
    if !inventory.unread.is_empty() {
        let mut lines = vec!["Not read:".to_owned()];
        let unread = inventory.unread.iter().take(MOST_UNREAD);
        lines.extend(unread.map(|(path, why)| format!("/{path}: {why}")));
        if let Some(more) = inventory.unread.len().checked_sub(MOST_UNREAD).filter(|more| *more > 0)
        {
            lines.push(format!("and {more} more files"));
        }
        document["comment"] = json!(lines.join("\n"));
    }
    document["documentNamespace"] = json!(namespace(&document));
    document
}

fn package(purl: &str, places: &[&Found], quoted: &mut BTreeMap<String, String>) -> Value {
    // What several files tell is the same but for what some of them leave out.
    let field = |of: fn(&Found) -> &str| {
        places.iter().map(|found| of(found)).find(|text| !text.is_empty()).unwrap_or_default()
    };
    let first = &places[0].package;
    let licence = field(|found| &found.package.licence);
    let licence = match declared(licence) {
        Declared::Nothing => NOTHING.to_owned(),
        Declared::Expression(expression) => expression,
        Declared::Reference { id } => {
            quoted.insert(id.clone(), licence.to_owned());
            id
        }
    };
    let mut package = json!({
        "SPDXID": format!("SPDXRef-Package-{}-{}", first.ecosystem.purl_type(), short_hash(purl)),
        "name": first.name,
        "downloadLocation": NOTHING,
        "filesAnalyzed": false,
        "licenseConcluded": NOTHING,
        "licenseDeclared": licence,
        "copyrightText": NOTHING,
        "sourceInfo": source_info(places),
        "externalRefs": [{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": purl,
        }],
    });
    if !first.version.is_empty() {
        package["versionInfo"] = json!(first.version);
    }
    let supplier = field(|found| &found.package.supplier);
    if !supplier.is_empty() {
        package["supplier"] = json!(agent(supplier));
    }
    let layers: BTreeSet<String> =
        places.iter().filter_map(|found| found.layer).map(|layer| layer.0.to_string()).collect();
    if !layers.is_empty() {
        let layers: Vec<_> = layers.into_iter().collect();
        package["comment"] = json!(format!("layerID: {}", layers.join(", ")));
    }
    package
}

fn source_info(places: &[&Found]) -> String {
    let paths: BTreeSet<&str> = places.iter().map(|found| found.path.as_str()).collect();
    let shown: Vec<_> = paths.iter().take(MOST_PLACES).map(|path| format!("/{path}")).collect();
    let more = paths.len().saturating_sub(MOST_PLACES);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("found in {}{more}", shown.join(", "))
}

/// `NAME <ADDRESS>` as SPDX writes it.
fn agent(text: &str) -> String {
    let text: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.trim_end_matches('>').split_once(" <") {
        Some((name, address)) if address.contains('@') && !address.contains(['<', '(', ' ']) => {
            format!("Person: {} ({address})", name.replace(['(', ')'], ""))
        }
        _ => format!("Person: {}", text.replace(['(', ')', '<', '>'], "")),
    }
}

fn relationship(from: &str, kind: &str, to: &str) -> Value {
    json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to })
}

fn short_hash(text: &str) -> String {
    Digest::of(text.as_bytes()).hex()[..16].to_owned()
}

/// A name of its own for each content, in the form of RFC 9562's version 8, which leaves the bits to us.
fn namespace(document: &Value) -> String {
    let hash = Digest::of(document.to_string().as_bytes()).hex();
    format!(
        "urn:uuid:{}-{}-8{}-8{}-{}",
        &hash[..8],
        &hash[8..12],
        &hash[13..16],
        &hash[17..20],
        &hash[20..32]
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sbom::{Distribution, Ecosystem, Package};

    fn inventory() -> Inventory {
        let found =
            |package: Package, path: &str| Found { package, path: path.to_owned(), layer: None };
        let musl = Package {
            licence: "MIT".to_owned(),
            supplier: "A (B) <a@b.c>".to_owned(),
            ..Package::new(Ecosystem::Apk, "musl", "1.2")
        };
        let npm = |licence: &str| Package {
            licence: licence.to_owned(),
            ..Package::new(Ecosystem::Npm, "a", "1.0.0")
        };
        Inventory {
            distribution: Some(Distribution {
                id: "alpine".to_owned(),
                version: "3.20".to_owned(),
                name: "Alpine".to_owned(),
            }),
            found: vec![
                found(npm(""), "app/package-lock.json"),
                found(npm("my own"), "app/node_modules/a/package.json"),
                found(musl, "lib/apk/db/installed"),
            ],
            unread: vec![("x/Cargo.lock".to_owned(), "it is too large".to_owned())],
        }
    }

    #[test]
    fn one_document() {
        let described = Described { name: "app", is_image: true, created: 0 };
        let document = spdx_document(&inventory(), described);
        assert_eq!(document["creationInfo"]["created"], "1970-01-01T00:00:00Z");
        let packages = document["packages"].as_array().unwrap();
        let names: Vec<_> = packages.iter().map(|it| it["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["app", "alpine", "musl", "a"]);
        assert_eq!(packages[2]["supplier"], "Person: A B (a@b.c)");
        assert_eq!(packages[2]["licenseDeclared"], "MIT");
        assert_eq!(
            packages[3]["sourceInfo"],
            "found in /app/node_modules/a/package.json, /app/package-lock.json"
        );
        let id = packages[3]["licenseDeclared"].as_str().unwrap();
        assert_eq!(document["hasExtractedLicensingInfos"][0]["licenseId"], id);
        assert_eq!(document["comment"], "Not read:\n/x/Cargo.lock: it is too large");
        assert_eq!(document, spdx_document(&inventory(), described), "the same each time");
        // Every relationship is between elements that are there, and every package is in one.
        let ids: BTreeSet<_> = packages.iter().map(|it| it["SPDXID"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), packages.len());
        let relationships = document["relationships"].as_array().unwrap();
        assert_eq!(relationships.len(), packages.len());
        for relationship in relationships {
            assert!(ids.contains(relationship["relatedSpdxElement"].as_str().unwrap()));
        }
    }
}
