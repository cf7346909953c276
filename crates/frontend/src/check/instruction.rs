//! The words of rules about single instructions, which lowering applies to those that are built.

use super::{Rule, warning};
use crate::diagnostic::Diagnostic;
use crate::dockerfile::ast::{Pairs, Statement};
use crate::dockerfile::mapped::Mapped;
use crate::source::Span;

/// Of two instructions of which only one can count. The earlier one is marked, because that is the one without effect.
pub(crate) fn only_once(name: &str, earlier: Span, later: Span) -> Diagnostic {
    let message = format!(
        "Multiple {name} instructions should not be used in the same stage because only the last one will be used"
    );
    warning(Rule::MultipleInstructionsDisallowed, earlier, message)
        .with_other(later, "used instead")
}

/// Of a CMD or an ENTRYPOINT in the shell form.
pub(crate) fn shell_form(statement: &Statement, name: &str, command: &Mapped) -> Diagnostic {
    let message = format!(
        "JSON arguments recommended for {name} to prevent unintended behavior related to OS signals"
    );
    let diagnostic = warning(Rule::JsonArgsRecommended, statement.original.span(), message);
    // Comments between its lines would be lost.
    let is_whole = command.span().range().len() == command.text().len();
    match json_form(command.text()).filter(|_| is_whole) {
        Some(json) => diagnostic.with_fix(command.span(), json),
        None => diagnostic,
    }
}

/// The JSON form of a command that means the same without a shell: plain words and nothing else.
fn json_form(command: &str) -> Option<String> {
    // What a shell would do something about; a word with `=` in front sets a variable.
    let is_plain = |c: char| c.is_ascii_alphanumeric() || " ./-_:,+@%".contains(c);
    let mut words = command.split_ascii_whitespace();
    let program = words.next()?;
    // A builtin, or a keyword, is no program.
    const BUILTINS: [&str; 22] = [
        "exec", "cd", "export", "set", "unset", "source", ".", ":", "eval", "if", "for", "while",
        "until", "case", "trap", "ulimit", "umask", "wait", "exit", "read", "alias", "command",
    ];
    if BUILTINS.contains(&program)
        || !command.chars().all(|c| is_plain(c) || c == '=')
        || program.contains('=')
    {
        return None;
    }
    let words: Vec<String> =
        std::iter::once(program).chain(words).map(|word| format!("\"{word}\"")).collect();
    Some(format!("[{}]", words.join(", ")))
}

/// Of `ENV name value`.
pub(crate) fn legacy_pairs(statement: &Statement, pairs: &Pairs) -> Option<Diagnostic> {
    let pair = pairs.pairs.first().filter(|_| pairs.legacy)?;
    let keyword = statement.keyword.text().to_uppercase();
    let message = format!(
        "\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format"
    );
    let diagnostic = warning(Rule::LegacyKeyValueFormat, statement.original.span(), message);
    // A value with quotes or escapes of its own, or over several lines, is better left to people.
    let value = pair.value.text();
    let span = pair.key.span().to(pair.value.span());
    let is_simple = !value.contains(['"', '\'', '\\', '`'])
        && span.range().len() <= statement.original.text().len();
    Some(match is_simple {
        true if value.contains(char::is_whitespace) => {
            diagnostic.with_fix(span, format!("{}=\"{value}\"", pair.key.text()))
        }
        true => diagnostic.with_fix(span, format!("{}={value}", pair.key.text())),
        false => diagnostic,
    })
}

/// Of one port, after expansion.
pub(crate) fn exposed(port: &str, written: &Mapped) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let (address, protocol) = port.split_once('/').unwrap_or((port, ""));
    if let Some((_, container)) = address.rsplit_once(':') {
        let message = format!(
            "EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
        );
        let diagnostic = warning(Rule::ExposeInvalidFormat, written.span(), message);
        found.push(match written.text() == port {
            true => {
                let protocol = port.find('/').map_or("", |at| &port[at..]);
                diagnostic
                    .with_fix(written.span(), format!("{container}{}", protocol.to_lowercase()))
            }
            false => diagnostic,
        });
    }
    if protocol != protocol.to_lowercase() {
        let message =
            format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase");
        let diagnostic = warning(Rule::ExposeProtoCasing, written.span(), message);
        found.push(match written.text() == port {
            true => diagnostic
                .with_fix(written.span(), format!("{address}/{}", protocol.to_lowercase())),
            false => diagnostic,
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_forms_of_plain_commands_only() {
        for (command, expected) in [
            ("serve --port 80", Some("[\"serve\", \"--port\", \"80\"]")),
            ("/bin/app", Some("[\"/bin/app\"]")),
            ("app --key=value", Some("[\"app\", \"--key=value\"]")),
            ("A=1 app", None),
            ("app $PORT", None),
            ("a && b", None),
            ("a | b", None),
            ("app 'x y'", None),
            ("exec app", None),
            ("cd /x", None),
            ("", None),
        ] {
            assert_eq!(json_form(command).as_deref(), expected, "{command}");
        }
    }
}
