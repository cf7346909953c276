//! Lines of comma-separated values, as Go reads them.

use super::mapped::Mapped;
use crate::diagnostic::Diagnostic;

/// The fields of one line of CSV, where `"` begins a quoted field and `""` is a quote within one.
pub(super) fn split_csv(line: &Mapped) -> Result<Vec<Mapped>, Diagnostic> {
    let text = line.text();
    let error = |at: usize, what: &str| {
        let span = line.span_of(at..text.len());
        Diagnostic::error("invalid-mount", span, format!("failed to parse csv mounts: {what}"))
    };
    if text.is_empty() {
        return Err(error(0, "EOF"));
    }
    let mut fields = Vec::new();
    let mut at = 0;
    loop {
        let mut field = line.slice(at..at);
        if text[at..].starts_with('"') {
            let opened = at;
            at += 1;
            loop {
                let Some(quote) = text[at..].find('"').map(|offset| at + offset) else {
                    return Err(error(opened, "extraneous or missing \" in quoted-field"));
                };
                field.push_range(line, at..quote);
                at = quote + 1;
                if !text[at..].starts_with('"') {
                    break;
                }
                field.push_range(line, at..at + 1);
                at += 1;
            }
            if at < text.len() && !text[at..].starts_with(',') {
                return Err(error(at, "extraneous or missing \" in quoted-field"));
            }
        } else {
            let end = text[at..].find(',').map_or(text.len(), |offset| at + offset);
            if let Some(quote) = text[at..end].find('"') {
                return Err(error(at + quote, "bare \" in non-quoted-field"));
            }
            field.push_range(line, at..end);
            at = end;
        }
        fields.push(field);
        if at == text.len() {
            return Ok(fields);
        }
        at += 1;
    }
}
