//! Applies what diagnostics propose.

use crate::diagnostic::{Diagnostic, Edit};
use crate::source::{Source, Span};

/// A text after some fixes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fixed {
    /// The new text.
    pub text: String,
    /// How many diagnostics were mended.
    pub applied: usize,
    /// How many have fixes that collide with others: they can be applied after looking at the new text.
    pub postponed: usize,
}

/// Applies the fixes of all diagnostics, each whole or not at all; of two that touch the same place the first one wins.
///
/// A line of which a fix leaves nothing goes with its line break.
pub fn apply_fixes(source: &Source, diagnostics: &[Diagnostic]) -> Fixed {
    let mut accepted: Vec<Edit> = Vec::new();
    let (mut applied, mut postponed) = (0, 0);
    for diagnostic in diagnostics.iter().filter(|diagnostic| !diagnostic.fixes.is_empty()) {
        let edits: Vec<Edit> = diagnostic.fixes.iter().map(|edit| widened(source, edit)).collect();
        if edits.iter().any(|edit| accepted.iter().any(|other| touch(edit.span, other.span))) {
            postponed += 1;
        } else {
            accepted.extend(edits);
            applied += 1;
        }
    }
    // From the end, so that places before stay where they are; stable, so that several insertions keep their order.
    accepted.sort_by_key(|edit| edit.span);
    let mut text = source.text().to_owned();
    for edit in accepted.iter().rev() {
        text.replace_range(edit.span.range(), &edit.replacement);
    }
    Fixed { text, applied, postponed }
}

/// An edit that takes a whole line out takes its line break, too.
fn widened(source: &Source, edit: &Edit) -> Edit {
    let lines = (source.line(edit.span.start), source.line(edit.span.end));
    let (Some(first), Some(last)) = (source.line_span(lines.0), source.line_span(lines.1)) else {
        return edit.clone();
    };
    let around =
        [Span::new(first.start, edit.span.start), Span::new(edit.span.end.min(last.end), last.end)];
    // One that ends where a line begins has its line break already.
    let is_whole = edit.span.end > last.start
        && !edit.span.is_empty()
        && edit.replacement.is_empty()
        && edit.span.end <= last.end
        && around.iter().all(|span| source.slice(*span).trim().is_empty());
    if !is_whole {
        return edit.clone();
    }
    let end = source.line_span(lines.1 + 1).map_or(last.end, |next| next.start);
    Edit { span: Span::new(first.start, end), replacement: String::new() }
}

/// Whether two edits cannot be told apart or overlap.
fn touch(a: Span, b: Span) -> bool {
    a.start < b.end && b.start < a.end
        || a.start == b.start
        || a.is_empty() && a.start == b.end
        || b.is_empty() && b.start == a.end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixed(text: &str, fixes: &[&[(u32, u32, &str)]]) -> (String, usize, usize) {
        let source = Source::new("Dockerfile", text).unwrap();
        let diagnostics: Vec<_> = fixes
            .iter()
            .map(|edits| {
                let warning = Diagnostic::warning("x", Span::at(0), "x");
                edits.iter().fold(warning, |warning, (start, end, replacement)| {
                    warning.with_fix(Span::new(*start, *end), *replacement)
                })
            })
            .collect();
        let Fixed { text, applied, postponed } = apply_fixes(&source, &diagnostics);
        (text, applied, postponed)
    }

    #[test]
    fn edits_that_do_not_touch_are_applied_together() {
        let found = fixed("abcdef", &[&[(0, 1, "X")], &[(3, 3, "--")], &[(5, 6, "")]]);
        assert_eq!(found, ("Xbc--de".to_owned(), 3, 0));
    }

    #[test]
    fn of_two_that_overlap_the_second_waits_whole() {
        let found = fixed("abcdef", &[&[(0, 3, "X")], &[(2, 4, "Y"), (5, 6, "Z")], &[(4, 5, "W")]]);
        assert_eq!(found, ("XdWf".to_owned(), 2, 1));
    }

    #[test]
    fn a_line_that_is_taken_out_leaves_no_blank_one() {
        assert_eq!(fixed("a\r\n  b\r\nc", &[&[(5, 6, "")]]).0, "a\r\nc");
        assert_eq!(fixed("a\nb c\n", &[&[(2, 3, "")]]).0, "a\n c\n");
        assert_eq!(fixed("a\nb", &[&[(2, 3, "")]]).0, "a\n");
        assert_eq!(
            fixed("a\n\nb", &[&[(2, 3, "")]]).0,
            "a\nb",
            "an edit that is a line break itself"
        );
    }
}
