//! Secrets that are written in the file: tokens that can be told by their form.

use regex::Regex;

use crate::check::{Rule, warning};
use crate::diagnostic::Diagnostic;
use crate::dockerfile::ast::Dockerfile;
use crate::source::{Source, Span};

/// What a token is called, and its form. Only forms that nothing else has.
const FORMS: [(&str, &str); 7] = [
    ("a private key", "-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----"),
    ("an AWS access key", "(?:^|[^A-Za-z0-9])((?:AKIA|ASIA)[0-9A-Z]{16})(?:$|[^A-Za-z0-9])"),
    ("a GitHub token", "gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{60}"),
    ("a GitLab token", "glpat-[A-Za-z0-9_-]{20}"),
    ("a Slack token", "xox[abprs]-[A-Za-z0-9-]{20}"),
    ("a Stripe key", "[sr]k_live_[A-Za-z0-9]{20}"),
    ("an npm token", "npm_[A-Za-z0-9]{36}"),
];

pub(super) fn check(source: &Source, dockerfile: &Dockerfile, found: &mut Vec<Diagnostic>) {
    // AWS's documentation uses these as examples.
    const EXAMPLE: &str = "EXAMPLE";
    for (what, form) in FORMS {
        let form = Regex::new(form).expect("a pattern of ours");
        for statement in &dockerfile.statements {
            let text = source.slice(statement.span);
            let Some(place) =
                form.captures(text).and_then(|captures| captures.get(1).or(captures.get(0)))
            else {
                continue;
            };
            if place.as_str().contains(EXAMPLE) {
                continue;
            }
            let start = statement.span.start + place.start() as u32;
            let span = Span::new(start, start + place.len() as u32);
            let message = format!("The file holds what looks like {what}");
            let help = "take it out, and make it invalid: whoever has the file or the image has it; \
                        a step can have a secret with RUN --mount=type=secret";
            found.push(warning(Rule::SecretCopied, span, message).with_help(help));
        }
    }
}
