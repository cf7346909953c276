//! Secrets among arguments, which no message repeats.

use clap::error::{ContextKind, ContextValue};

/// The error of a wrong argument, without the secrets in it.
pub(crate) fn without_secrets(mut error: clap::Error) -> clap::Error {
    if let Some(ContextValue::String(value)) = error.get(ContextKind::InvalidValue) {
        let hidden = ContextValue::String(hide_secrets(value));
        error.insert(ContextKind::InvalidValue, hidden);
    }
    error
}

/// Attributes with the values left out whose key sounds like a secret: it may be misspelt. Logins in addresses, too.
pub(crate) fn hide_secrets(text: &str) -> String {
    let hide = |field: &str| match field.split_once('=') {
        // Messages quote what they repeat so.
        Some((key, value)) if is_secret(key) => {
            let after = value.find('`').map_or("", |end| &value[end..]);
            format!("{key}=***{after}")
        }
        _ => without_login(field),
    };
    fields(text).into_iter().map(hide).collect::<Vec<_>>().join(",")
}

/// The fields between commas, in the form of RFC 4180: in a field that begins with a quote, they are text. Where a quote is out
/// of place nobody knows what belongs to a value, so all that follows does.
fn fields(text: &str) -> Vec<&str> {
    let mut fields = Vec::new();
    let (mut start, mut is_quoted) = (0, false);
    for (at, character) in text.char_indices() {
        match character {
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => {
                fields.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    fields.push(&text[start..]);
    fields
}

/// `http://***@host` for `http://user:password@host`.
fn without_login(field: &str) -> String {
    let mut shown = String::new();
    let mut rest = field;
    while let Some((before, after)) = rest.split_once("://") {
        let authority = after.split(['/', '?', '#', '`', '"']).next().unwrap_or(after);
        shown.push_str(before);
        shown.push_str("://");
        rest = match authority.rfind('@') {
            Some(end) if before.ends_with("http") || before.ends_with("https") => {
                shown.push_str("***");
                &after[end..]
            }
            _ => after,
        };
    }
    shown + rest
}

fn is_secret(key: &str) -> bool {
    let key = key.rsplit([' ', '`', '"']).next().unwrap_or(key).to_ascii_lowercase();
    // `key=value` is how messages say what a field has to be.
    key != "key" && ["secret", "token", "key"].iter().any(|word| key.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_secrets_are_left_out() {
        let text = "type=s3,bucket=b,secret_acces_key=abc/=,session_token=t\"";
        assert_eq!(hide_secrets(text), "type=s3,bucket=b,secret_acces_key=***,session_token=***");
        assert_eq!(hide_secrets("`a,token=x` is wrong"), "`a,token=***` is wrong");
        assert_eq!(hide_secrets("not of the form key=value"), "not of the form key=value");
        assert_eq!(hide_secrets("localhost:5000/a"), "localhost:5000/a");
        let quoted = r#"type=s3,"secret_access_key=abc,""TAIL",bucket=b"#;
        assert_eq!(hide_secrets(quoted), r#"type=s3,"secret_access_key=***,bucket=b"#);
        assert_eq!(hide_secrets(r#"secret_access_key=a"b,TAIL"#), "secret_access_key=***");
        let login = "endpoint_url=http://me:s3:cr@t@host:1/x,name=a@b";
        assert_eq!(hide_secrets(login), "endpoint_url=http://***@host:1/x,name=a@b");
        assert_eq!(
            hide_secrets("ssh://git@host, `https://t@h`"),
            "ssh://git@host, `https://***@h`"
        );
    }
}
