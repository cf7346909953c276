//! What a step is called: `[stage 2/5] RUN make`.

use rbuild_oci::Platform;
use rbuild_solver::redact_url;

use crate::environment::Environment;
use crate::shell::Shell;

/// Numbers a stage's steps.
#[derive(Debug)]
pub(super) struct StepNames {
    /// The stage's name; empty for the only one.
    pub(super) label: String,
    pub(super) total: usize,
    pub(super) done: usize,
    /// Whether names say the platform.
    pub(super) with_platform: bool,
}

impl StepNames {
    /// The name of the next step.
    pub(super) fn next(
        &mut self,
        command: &str,
        is_trigger: bool,
        platform: &Platform,
        environment: &Environment,
    ) -> String {
        if self.total == 0 {
            return command.to_owned();
        }
        self.done += 1;
        let mut name = String::with_capacity(self.label.len() + command.len() + 32);
        name.push('[');
        if self.with_platform {
            name.push_str(&platform.full_name());
            name.push_str(&cross(platform, environment));
            name.push(' ');
        }
        if !self.label.is_empty() {
            name.push_str(&self.label);
            name.push(' ');
        }
        let width = self.total.ilog10() as usize + 1;
        let (done, total) = (self.done, self.total);
        let onbuild = if is_trigger { "ONBUILD " } else { "" };
        name.extend([&format!("{done:width$}/{total}] "), onbuild, command]);
        name
    }
}

/// `->arm64` for a step that builds for another platform than the one it runs on, as its TARGET arguments say.
fn cross(platform: &Platform, environment: &Environment) -> String {
    let get = |name| environment.get(name);
    let parsed = get("TARGETPLATFORM").and_then(|text| Platform::parse_with(text, platform).ok());
    let target = match parsed {
        Some(target) => target,
        None => {
            let (os, architecture) = (get("TARGETOS"), get("TARGETARCH"));
            let variant = get("TARGETVARIANT");
            if os.or(architecture).or(variant).is_none() {
                return String::new();
            }
            let or = |value: Option<&str>, default: &str| match value {
                None | Some("") => default.to_owned(),
                Some(value) => value.to_owned(),
            };
            Platform::new(
                &or(os, &platform.os),
                &or(architecture, &platform.architecture),
                variant.unwrap_or_default(),
            )
        }
    };
    if target.os != platform.os {
        return format!("->{}", target.full_name());
    }
    if target.architecture == platform.architecture {
        return String::new();
    }
    match target.variant.as_str() {
        "" => format!("->{}", target.architecture),
        variant => format!("->{}/{variant}", target.architecture),
    }
}

/// A command whose addresses say nobody's name and password.
pub(super) fn without_passwords(command: &str) -> String {
    command.split_inclusive(char::is_whitespace).map(redact_url).collect()
}

/// A command as it is shown: the keyword in upper case, variables replaced where that works.
pub(super) fn shown(command: &str, shell: Shell, environment: &Environment) -> String {
    let expanded = shell.expand(command, environment);
    let command = expanded.map_or_else(|_| command.to_owned(), |expansion| expansion.value);
    match command.split_once(' ') {
        Some((keyword, rest)) => format!("{} {rest}", keyword.to_uppercase()),
        None => command.to_uppercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        let command = "ADD  https://a:b@h/x [\"http://t@h/y\", \"/\"]";
        let shown = "ADD  https://xxxxx:xxxxx@h/x [\"http://xxxxx@h/y\", \"/\"]";
        assert_eq!(without_passwords(command), shown);
    }

    #[test]
    fn numbers_are_padded_and_platforms_shown() {
        let mut names = StepNames { label: "b".into(), total: 12, done: 0, with_platform: true };
        let platform = Platform::new("linux", "amd64", "");
        let none = Environment::default();
        assert_eq!(names.next("RUN x", false, &platform, &none), "[linux/amd64 b  1/12] RUN x");
        let of = |entry: &str| Environment::from_entries(&[entry.to_owned()]);
        for (entry, expected) in [
            ("TARGETPLATFORM=linux/arm64", "[linux/amd64->arm64 b  2/12] ONBUILD RUN x"),
            ("TARGETARCH=arm", "[linux/amd64->arm/v7 b  2/12] ONBUILD RUN x"),
            ("TARGETOS=darwin", "[linux/amd64->darwin/amd64 b  2/12] ONBUILD RUN x"),
            ("TARGETPLATFORM=linux/amd64", "[linux/amd64 b  2/12] ONBUILD RUN x"),
        ] {
            names.done = 1;
            assert_eq!(names.next("RUN x", true, &platform, &of(entry)), expected);
        }
        names = StepNames { label: String::new(), total: 0, done: 0, with_platform: false };
        assert_eq!(names.next("RUN x", false, &platform, &none), "RUN x");
    }
}
