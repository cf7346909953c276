//! Finding the heredocs that a line opens.

use super::mapped::Mapped;

/// What announces a body: the word `3<<-"EOF"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Opener {
    pub(crate) name: String,
    pub(crate) word: Mapped,
    pub(crate) file_descriptor: Option<u32>,
    pub(crate) expand: bool,
    pub(crate) chomp: bool,
}

/// The heredocs that a line opens, in order.
pub(crate) fn openers(line: &Mapped) -> Vec<Opener> {
    if !line.text().contains("<<") {
        return Vec::new();
    }
    shell_words(line).into_iter().filter_map(opener).collect()
}

/// The heredoc that a word opens, if it does: digits, `<<`, perhaps `-`, and a delimiter.
pub(crate) fn opener(word: Mapped) -> Option<Opener> {
    let text = word.text();
    let after_digits = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let digits = &text[..text.len() - after_digits.len()];
    let rest = after_digits.strip_prefix("<<")?;
    let (chomp, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let delimiter = rest.trim_start();
    if delimiter.is_empty() || delimiter.contains('<') {
        return None;
    }
    // Unlike in a shell, a backslash in the delimiter does not keep the body from being expanded.
    let expand = !delimiter.contains(['\'', '"']);
    let name = unquote(delimiter)?;
    let file_descriptor = digits.parse().ok();
    Some(Opener { name, file_descriptor, expand, chomp, word })
}

/// The text without quotes and escapes; `None` if a quote is not closed.
fn unquote(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    let mut quote = None;
    while let Some(character) = chars.next() {
        match (quote, character) {
            (None, '\'' | '"') => quote = Some(character),
            (Some(open), character) if open == character => quote = None,
            (None, '\\') => plain.extend(chars.next()),
            (Some('"'), '\\') => match chars.next_if(|next| matches!(next, '"' | '$' | '\\')) {
                Some(escaped) => plain.push(escaped),
                None => plain.push('\\'),
            },
            _ => plain.push(character),
        }
    }
    quote.is_none().then_some(plain)
}

/// What encloses the current character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Enclosure {
    Double,
    Brace,
}

/// The line as a shell would cut it into words, with quotes and escapes still in them. None at all if a quote or a
/// brace is left open: BuildKit then sees no heredocs either.
fn shell_words(line: &Mapped) -> Vec<Mapped> {
    let text = line.text();
    let mut words = Vec::new();
    let mut start = None;
    // A stack instead of recursion: a hostile line may be nested as deep as it is long.
    let mut open: Vec<Enclosure> = Vec::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, character)) = chars.next() {
        if open.is_empty() && character.is_whitespace() {
            words.extend(start.take().map(|start| line.slice(start..at)));
            continue;
        }
        start.get_or_insert(at);
        let innermost = open.last().copied();
        match (innermost, character) {
            (Some(Enclosure::Double), '"') | (Some(Enclosure::Brace), '}') => {
                open.pop();
            }
            (Some(Enclosure::Double), '\\') => {
                chars.next_if(|(_, next)| matches!(next, '"' | '$' | '\\'));
            }
            (_, '$') if chars.peek().is_some_and(|(_, next)| *next == '{') => {
                chars.next();
                open.push(Enclosure::Brace);
            }
            (Some(Enclosure::Double), _) => {}
            (_, '\\') => {
                chars.next();
            }
            (_, '"') => open.push(Enclosure::Double),
            (_, '\'') => {
                let closing = chars.find(|(_, next)| *next == '\'');
                if closing.is_none() {
                    return Vec::new();
                }
            }
            _ => {}
        }
    }
    if !open.is_empty() {
        return Vec::new();
    }
    words.extend(start.map(|start| line.slice(start..text.len())));
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Source, Span};

    fn mapped(text: &str) -> Mapped {
        let source = Source::new("Dockerfile", text).unwrap();
        Mapped::verbatim(&source, Span::new(0, source.len()))
    }

    /// The openers as `fd name flags`.
    fn check(line: &str, expected: &[&str]) {
        let found: Vec<_> = openers(&mapped(line))
            .iter()
            .map(|opener| {
                let fd = opener.file_descriptor.map(|fd| fd.to_string()).unwrap_or_default();
                let chomp = if opener.chomp { " chomp" } else { "" };
                let raw = if opener.expand { "" } else { " raw" };
                format!("{fd}[{}]{chomp}{raw}", opener.name)
            })
            .collect();
        assert_eq!(found, expected, "{line}");
    }

    #[test]
    fn forms() {
        check("RUN <<EOF", &["[EOF]"]);
        check("RUN <<-EOF", &["[EOF] chomp"]);
        check("RUN <<'EOF'", &["[EOF] raw"]);
        check("RUN <<\"EOF\"", &["[EOF] raw"]);
        check("RUN <<E\"O\"F", &["[EOF] raw"]);
        check("RUN <<\\EOF", &["[EOF]"]);
        check("RUN <<\"E F\" x", &["[E F] raw"]);
        check("RUN <<''", &["[] raw"]);
        check("RUN 3<<EOF <<-'X' cat /dev/fd/3", &["3[EOF]", "[X] chomp raw"]);
        check("RUN cat <<EOF > /a && cat <<EOT > /b", &["[EOF]", "[EOT]"]);
        check("RUN echo $(cat <<EOF)", &["[EOF)]"]);
        check("RUN a\\ b <<EOF", &["[EOF]"]);
        check("RUN echo 'it'\\''s' <<EOF", &["[EOF]"]);
        check("RUN echo ${x:-a b} <<EOF", &["[EOF]"]);
        check("RUN 99999999999<<EOF", &["[EOF]"]);
    }

    #[test]
    fn what_is_no_heredoc() {
        check("RUN echo \"<<EOF\"", &[]);
        check("RUN echo '<<EOF'", &[]);
        check("RUN echo \\<<EOF", &[]);
        check("RUN cat <<<EOF", &[]);
        check("RUN cat << EOF", &[]);
        check("RUN cat <<", &[]);
        check("RUN echo a<<EOF", &[]);
        check("RUN echo $((1<<4))", &[]);
        check("RUN echo ${x:-<<EOF}", &[]);
        check("RUN echo it's <<EOF", &[]);
        check("RUN echo \"open <<EOF", &[]);
        check("RUN echo \"${x:-\" <<EOF", &[]);
    }

    #[test]
    fn deep_nesting_is_no_recursion() {
        check(&format!("RUN <<EOF {}", "\"${".repeat(100_000)), &[]);
    }
}
