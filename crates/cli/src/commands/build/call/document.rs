//! Answers as JSON, in the form of BuildKit's `result.json`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rbuild_frontend::{Diagnostic, OutlineMount, Rule, Span};
use serde_json::{Map, Value, json};

use crate::commands::build::frontend::Evaluated;

/// A document as text.
pub(crate) fn pretty(document: &Value) -> String {
    format!("{document:#}\n")
}

/// `{warnings, sources, buildError}`
pub(crate) fn check(evaluated: &Evaluated) -> Value {
    let warnings: Vec<Value> =
        evaluated.warnings.iter().map(|warning| self::warning(evaluated, warning)).collect();
    let mut document = json!({
        "warnings": warnings,
        "sources": [{
            "filename": evaluated.source.name(),
            "language": "Dockerfile",
            "data": STANDARD.encode(evaluated.source.text()),
        }],
    });
    if let Some(error) = evaluated.errors.first() {
        document["buildError"] = json!({
            "message": evaluated.dockerfile.compat_message(&evaluated.source, error),
            "location": location_of(evaluated, error),
        });
    }
    document
}

fn warning(evaluated: &Evaluated, warning: &Diagnostic) -> Value {
    let rule = Rule::parse(warning.code);
    let mut entry = json!({
        "ruleName": warning.code,
        "detail": warning.message,
        "location": location_of(evaluated, warning),
    });
    if let Some(rule) = rule {
        entry["description"] = json!(rule.description());
    }
    if let Some(url) = warning.url {
        entry["url"] = json!(url);
    }
    entry
}

/// `{name, description, args, secrets, ssh, cache, sources}`
pub(crate) fn outline(evaluated: &Evaluated) -> Value {
    let outline = &evaluated.outline;
    let mut document = Map::new();
    let mut text = |key: &str, value: &Option<String>| {
        if let Some(value) = value {
            document.insert(key.to_owned(), json!(value));
        }
    };
    text("name", &outline.name);
    text("description", &outline.description);
    let arguments = outline.arguments.iter().map(|argument| {
        let mut entry =
            json!({"name": argument.name, "location": location(evaluated, argument.span)});
        for (key, value) in [("description", &argument.description), ("value", &argument.value)] {
            if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
                entry[key] = json!(value);
            }
        }
        entry
    });
    let arguments: Vec<Value> = arguments.collect();
    let lists = [
        ("args", arguments),
        ("secrets", mounts(evaluated, &outline.secrets, "name")),
        ("ssh", mounts(evaluated, &outline.agents, "name")),
        ("cache", mounts(evaluated, &outline.caches, "ID")),
    ];
    let lists = lists.into_iter().filter(|(_, list)| !list.is_empty());
    document.extend(lists.map(|(key, list)| (key.to_owned(), Value::Array(list))));
    document.insert("sources".to_owned(), json!([STANDARD.encode(evaluated.source.text())]));
    Value::Object(document)
}

fn mounts(evaluated: &Evaluated, mounts: &[OutlineMount], key: &str) -> Vec<Value> {
    let entry = |mount: &OutlineMount| {
        let mut entry = json!({key: mount.id, "location": location(evaluated, mount.span)});
        if mount.required {
            entry["required"] = json!(true);
        }
        entry
    };
    mounts.iter().map(entry).collect()
}

/// `{targets, sources}`
pub(crate) fn targets(evaluated: &Evaluated) -> Value {
    let targets = rbuild_frontend::targets(&evaluated.dockerfile).into_iter().map(|target| {
        let mut entry = json!({"base": target.base, "location": location(evaluated, target.span)});
        let texts = [
            ("name", target.name),
            ("description", target.description),
            ("platform", target.platform),
        ];
        for (key, value) in texts {
            if let Some(value) = value {
                entry[key] = json!(value);
            }
        }
        if target.is_default {
            entry["default"] = json!(true);
        }
        entry
    });
    let targets: Vec<Value> = targets.collect();
    json!({"targets": targets, "sources": [STANDARD.encode(evaluated.source.text())]})
}

fn location_of(evaluated: &Evaluated, diagnostic: &Diagnostic) -> Value {
    let (first, last) = evaluated.dockerfile.lines(&evaluated.source, diagnostic);
    lines(first, last)
}

fn location(evaluated: &Evaluated, span: Span) -> Value {
    let source = &evaluated.source;
    lines(source.line(span.start), source.line(span.end))
}

/// As protobuf's JSON leaves out what is zero, so is the index of the only source.
fn lines(first: u32, last: u32) -> Value {
    json!({"ranges": [{"start": {"line": first}, "end": {"line": last}}]})
}
