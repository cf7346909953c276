//! Warnings as a SARIF 2.1.0 log, which code hosts show at the lines of a change.

use rbuild_frontend::{Diagnostic, Edit, Position, Rule, Source, Span};
use serde_json::{Value, json};

use crate::commands::build::frontend::Evaluated;

const SCHEMA: &str = "https://json.schemastore.org/sarif-2.1.0.json";
/// Where the rules are explained that BuildKit does not have.
const OWN_PAGE: &str = "docs/checks.md";

/// The log of one run over one file. `path` is the file's, relative to the root of the code.
pub(super) fn log(evaluated: &Evaluated, path: &str) -> Value {
    let rules: Vec<Value> = Rule::ALL.iter().map(|rule| self::rule(*rule)).collect();
    let found = evaluated.errors.iter().chain(&evaluated.warnings);
    let results: Vec<Value> =
        found.map(|diagnostic| result(&evaluated.source, diagnostic, path)).collect();
    json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "rbuild",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            }},
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

fn rule(rule: Rule) -> Value {
    let mut entry = json!({
        "id": rule.name(),
        "shortDescription": {"text": rule.description()},
        "defaultConfiguration": {"level": "warning", "enabled": !rule.is_experimental()},
    });
    match rule.url() {
        Some(url) => entry["helpUri"] = json!(url),
        None => {
            let name = rule.name().rsplit('/').next().unwrap_or_default();
            let text = format!("See {OWN_PAGE}#{}", name.to_lowercase());
            entry["help"] = json!({"text": text});
        }
    }
    entry
}

fn result(source: &Source, diagnostic: &Diagnostic, path: &str) -> Value {
    let mut text = diagnostic.message.to_string();
    if let Some(help) = &diagnostic.help {
        text.extend(["\n", help.as_ref()]);
    }
    let artifact = json!({"uri": uri(path)});
    let mut entry = json!({
        "ruleId": diagnostic.code,
        "level": if diagnostic.is_error() { "error" } else { "warning" },
        "message": {"text": text},
        "locations": [{"physicalLocation": {
            "artifactLocation": artifact,
            "region": region(source, diagnostic.span),
        }}],
    });
    let index = Rule::ALL.iter().position(|rule| rule.name() == diagnostic.code);
    if let Some(index) = index {
        entry["ruleIndex"] = json!(index);
    }
    if !diagnostic.labels.is_empty() {
        let related = diagnostic.labels.iter().map(|label| {
            json!({
                "message": {"text": label.text},
                "physicalLocation": {
                    "artifactLocation": artifact,
                    "region": region(source, label.span),
                },
            })
        });
        entry["relatedLocations"] = related.collect();
    }
    if !diagnostic.fixes.is_empty() {
        let replacement = |edit: &Edit| {
            json!({
                "deletedRegion": region(source, edit.span),
                "insertedContent": {"text": edit.replacement},
            })
        };
        let replacements: Vec<Value> = diagnostic.fixes.iter().map(replacement).collect();
        entry["fixes"] = json!([{
            "artifactChanges": [{"artifactLocation": artifact, "replacements": replacements}],
        }]);
    }
    entry
}

fn region(source: &Source, span: Span) -> Value {
    let (Position { line, column }, end) = (source.position(span.start), source.position(span.end));
    json!({"startLine": line, "startColumn": column, "endLine": end.line, "endColumn": end.column})
}

/// A relative path as a relative reference (RFC 3986).
fn uri(path: &str) -> String {
    let path = path.trim_start_matches("./");
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    path.bytes().fold(String::new(), |mut uri, byte| {
        match keep(byte) {
            true => uri.push(char::from(byte)),
            false => uri.extend(["%", &format!("{byte:02X}")]),
        }
        uri
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_escaped() {
        assert_eq!(uri("./a b/Dockerfile"), "a%20b/Dockerfile");
        assert_eq!(uri("caf\u{e9}"), "caf%C3%A9");
    }
}
