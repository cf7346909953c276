//! `--format` of `rbuild imagetools inspect`: the templates that scripts for docker use. The language as such, Go's, is not here.

use serde_json::Value;

/// Writes what a template names of `document`: one expression of the form `{{.A.B}}` or `{{json .A.B}}`.
pub(super) fn expand(template: &str, document: &Value) -> Result<String, String> {
    let inner = template.trim().strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}"));
    let inner = inner.filter(|inner| !inner.contains("{{"));
    let inner = inner.ok_or_else(|| "it is not one expression in {{ }}".to_owned())?.trim();
    let (as_json, path) = match inner.strip_prefix("json ") {
        Some(path) => (true, path.trim()),
        None => (false, inner),
    };
    let names = path.strip_prefix('.').filter(|names| {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '.';
        !names.is_empty() && names.chars().all(is_plain)
    });
    let names = names.ok_or_else(|| format!("`{inner}` is more than the name of a field"))?;
    let mut value = document;
    for name in names.split('.') {
        // Go's fields begin with a capital letter, those of JSON do not.
        let mut letters = name.chars();
        let first = letters.next().map(|letter| letter.to_ascii_lowercase());
        let key: String = first.into_iter().chain(letters).collect();
        value = value.get(&key).ok_or_else(|| format!("there is no `.{names}`"))?;
    }
    match value {
        value if as_json => Ok(value.to_string()),
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err(format!("`.{names}` is no text: write {{{{json .{names}}}}}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_field_is_written() {
        let document = json!({
            "name": "a.example/b:1",
            "manifest": {"mediaType": "x", "size": 7, "manifests": [{"digest": "y"}]},
        });
        for (template, expected) in [
            ("{{.Name}}", "a.example/b:1"),
            (" {{ json .Name }} ", "\"a.example/b:1\""),
            ("{{.Manifest.MediaType}}", "x"),
            ("{{.Manifest.Size}}", "7"),
            ("{{json .Manifest.Manifests}}", "[{\"digest\":\"y\"}]"),
        ] {
            assert_eq!(expand(template, &document).unwrap(), expected, "{template}");
        }
        for (template, why) in [
            ("", "not one expression"),
            ("a {{.Name}}", "not one expression"),
            ("{{.Name}} {{.Name}}", "not one expression"),
            ("{{range .Manifest.Manifests}}", "more than the name"),
            ("{{json .}}", "more than the name"),
            ("{{.Manifest}}", "write {{json .Manifest}}"),
            ("{{json .Image}}", "there is no `.Image`"),
        ] {
            let error = expand(template, &document).unwrap_err();
            assert!(error.contains(why), "{template}: {error}");
        }
    }
}
