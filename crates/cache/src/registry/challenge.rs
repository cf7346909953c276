//! The grammar of `WWW-Authenticate` (RFC 9110, section 11.6.1).
//!
//! A file of its own, without any other of the crate: it is what a registry says before anybody trusts it, and the
//! fuzzer compiles it alone.

/// Splits `scheme name=value, name="quoted", scheme2 ...`; names and schemes in lower case. What cannot be read is
/// passed over.
pub(super) fn split_challenges(text: &str) -> Vec<(String, Vec<(String, String)>)> {
    let mut challenges: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let word = word.to_ascii_lowercase();
        let value = after.trim_start().strip_prefix('=');
        rest = match (value, challenges.last_mut()) {
            (Some(value), Some((_, parameters))) => {
                let (value, after) = take_value(value.trim_start());
                parameters.push((word, value));
                after
            }
            (Some(value), None) => take_value(value.trim_start()).1,
            (None, _) => {
                if !word.is_empty() {
                    challenges.push((word, Vec::new()));
                }
                after
            }
        };
        rest = rest.trim_start_matches([' ', '\t', ',']);
    }
    challenges
}

/// A token or quoted string at the start of `text`, and what follows.
fn take_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}
