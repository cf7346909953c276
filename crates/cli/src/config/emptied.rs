//! Lists that are typed as empty.

use std::ffi::OsString;

use super::settings::{Form, NOTHING, SETTINGS, Setting};

/// Takes the flags away that say that a list is empty, `--cache-to=` or `--cache-to none`: they add no value, and what is set
/// for every run does not count. An empty text is also how scripts hand on what they have not got.
///
/// Returns the other words, and the settings that were emptied.
pub(crate) fn without_emptied(words: Vec<OsString>) -> (Vec<OsString>, Vec<&'static Setting>) {
    let mut rest: Vec<OsString> = Vec::with_capacity(words.len());
    let mut emptied = Vec::new();
    let mut words = words.into_iter().peekable();
    while let Some(word) = words.next() {
        let is_end = word == "--";
        let value = match word.to_str().and_then(|word| word.split_once('=')) {
            Some((_, value)) => Some(value),
            None => words.peek().and_then(|next| next.to_str()),
        };
        let is_nothing = value.is_some_and(|value| value.is_empty() || value == NOTHING);
        match list(&word, &rest).filter(|_| is_nothing) {
            Some(setting) => {
                emptied.push(setting);
                if !word.to_string_lossy().contains('=') {
                    words.next();
                }
            }
            None => rest.push(word),
        }
        if is_end {
            break;
        }
    }
    rest.extend(words);
    (rest, emptied)
}

/// The list that a flag is of, if the words before it have the command of the flag.
fn list(word: &OsString, before: &[OsString]) -> Option<&'static Setting> {
    let flag = word.to_str()?.strip_prefix("--")?;
    let flag = flag.split('=').next().unwrap_or(flag);
    let setting = SETTINGS.iter().find(|setting| setting.flag == flag)?;
    let is_here = setting.command.is_none_or(|of| before.iter().any(|word| *word == *of));
    (setting.form != Form::One && is_here).then_some(setting)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(typed: &str, rest: &str, emptied: &[&str]) {
        let words = typed.split(' ').map(OsString::from).collect();
        let (left, settings) = without_emptied(words);
        let left: Vec<_> = left.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        assert_eq!(left.join(" "), rest, "{typed}");
        assert_eq!(settings.iter().map(|one| one.flag).collect::<Vec<_>>(), emptied, "{typed}");
    }

    #[test]
    fn flags_that_empty_a_list_have_no_value() {
        check("rbuild build --cache-to= .", "rbuild build .", &["cache-to"]);
        check("rbuild build --cache-to none .", "rbuild build .", &["cache-to"]);
        // An empty word.
        check("rbuild build --cache-from  .", "rbuild build .", &["cache-from"]);
        check("rbuild --registry-mirror= build .", "rbuild build .", &["registry-mirror"]);
        check(
            "rbuild build --cache-to=none --cache-to a/b .",
            "rbuild build --cache-to a/b .",
            &["cache-to"],
        );
        // Those of one value have words for their defaults.
        check("rbuild build --timeout= .", "rbuild build --timeout= .", &[]);
        check("rbuild images --cache-to=", "rbuild images --cache-to=", &[]);
        check("rbuild build -- --cache-to=", "rbuild build -- --cache-to=", &[]);
    }
}
