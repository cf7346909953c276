//! What registries ask for in `WWW-Authenticate`.

#[path = "../../crates/cache/src/registry/challenge.rs"]
mod source;

use source::split_challenges;

/// Whatever a header says, no more comes of it than is in it.
pub fn check(data: &[u8]) {
    // A header field's value has no control characters, and is read as ASCII.
    let text: String = data
        .iter()
        .filter(|byte| (b' '..0x7f).contains(*byte))
        .map(|byte| char::from(*byte))
        .collect();
    let challenges = split_challenges(&text);
    let size: usize = challenges
        .iter()
        .map(|(scheme, parameters)| {
            assert!(!scheme.is_empty() && *scheme == scheme.to_ascii_lowercase());
            let parameters = parameters.iter().map(|(name, value)| name.len() + value.len());
            scheme.len() + parameters.sum::<usize>()
        })
        .sum();
    assert!(size <= text.len(), "{size} bytes of {}", text.len());
    check_written(&challenges);
}

/// What was understood is understood again when it is written by the book.
fn check_written(challenges: &[(String, Vec<(String, String)>)]) {
    let is_token =
        |text: &String| text.bytes().all(|byte| byte.is_ascii_alphanumeric()) && !text.is_empty();
    let mut parameters = challenges.iter().flat_map(|(_, parameters)| parameters);
    if !challenges.iter().all(|(scheme, _)| is_token(scheme))
        || !parameters.all(|(name, _)| is_token(name))
    {
        return;
    }
    let written: Vec<String> = challenges
        .iter()
        .map(|(scheme, parameters)| {
            let quoted = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"");
            let parameters =
                parameters.iter().map(|(name, value)| format!("{name}=\"{}\"", quoted(value)));
            format!("{scheme} {}", parameters.collect::<Vec<_>>().join(", "))
        })
        .collect();
    assert_eq!(split_challenges(&written.join(", ")), challenges);
}
