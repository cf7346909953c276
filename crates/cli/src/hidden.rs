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

/// Attributes with the values left out whose key sounds like a secret: it may be misspelt.
pub(crate) fn hide_secrets(text: &str) -> String {
    let hide = |field: &str| match field.split_once('=') {
        // Messages quote what they repeat so.
        Some((key, value)) if is_secret(key) => {
            let after = value.find('`').map_or("", |end| &value[end..]);
            format!("{key}=***{after}")
        }
        _ => field.to_owned(),
    };
    text.split(',').map(hide).collect::<Vec<_>>().join(",")
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
    }
}
