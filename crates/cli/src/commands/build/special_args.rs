//! Build arguments that mean something to the build as a whole.

use std::collections::BTreeMap;

use crate::error::{CommandError, Kind};

/// Refuses those whose work cannot be done.
pub(super) fn check(build_args: &BTreeMap<String, String>) -> Result<(), CommandError> {
    let given = |name: &str| build_args.get(name).map(String::as_str);
    if given("BUILDKIT_DISABLE_FILEOP").and_then(boolean) == Some(true) {
        let message = "failed to build: failed to solve: support for \"build-arg:BUILDKIT_DISABLE_FILEOP\" was removed in BuildKit 0.11";
        return Err(CommandError::new(Kind::Build, message));
    }
    if let Some(value) = given("BUILDKIT_MULTI_PLATFORM").filter(|value| !value.is_empty())
        && boolean(value).is_none()
    {
        let message = format!("failed to build: failed to solve: invalid boolean value {value}");
        return Err(CommandError::new(Kind::Build, message));
    }
    Ok(())
}

/// Whether images are to be caches too.
pub(super) fn is_inline_cache(build_args: &BTreeMap<String, String>) -> bool {
    build_args.get("BUILDKIT_INLINE_CACHE").and_then(|value| boolean(value)) == Some(true)
}

/// Whether the result is written as that of several platforms, however many there are.
pub(super) fn is_multi_platform(build_args: &BTreeMap<String, String>) -> bool {
    let given = build_args.get("BUILDKIT_MULTI_PLATFORM");
    given.and_then(|value| boolean(value)) == Some(true)
}

/// A boolean as Go reads it.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_done_is_refused() {
        let of = |name: &str, value: &str| {
            let args = BTreeMap::from([(name.to_owned(), value.to_owned())]);
            check(&args).err().map(|error| error.to_string()).unwrap_or_default()
        };
        for (name, value, expected) in [
            (
                "BUILDKIT_DISABLE_FILEOP",
                "1",
                "support for \"build-arg:BUILDKIT_DISABLE_FILEOP\" was removed",
            ),
            ("BUILDKIT_DISABLE_FILEOP", "0", ""),
            ("BUILDKIT_MULTI_PLATFORM", "true", ""),
            ("BUILDKIT_MULTI_PLATFORM", "false", ""),
            ("BUILDKIT_MULTI_PLATFORM", "", ""),
            ("BUILDKIT_MULTI_PLATFORM", "x", "invalid boolean value x"),
            ("BUILDKIT_INLINE_CACHE", "1", ""),
            ("BUILDKIT_SBOM_SCAN_STAGE", "true", ""),
        ] {
            let found = of(name, value);
            assert!(found.contains(expected), "{name}={value}: {found}");
            assert_eq!(found.is_empty(), expected.is_empty(), "{name}={value}: {found}");
        }
    }
}
