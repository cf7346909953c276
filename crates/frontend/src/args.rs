//! Build arguments: those of the file, of the platform, and those that need no ARG.

use std::collections::BTreeMap;

use rbuild_solver::ProxyEnv;

use crate::build::BuildOptions;
use crate::environment::Environment;

/// Arguments that never become variables of a step.
pub(crate) const NOT_IN_STEPS: [&str; 2] =
    ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// Whether the build gives an argument of this name by itself.
pub(crate) fn is_predefined(name: &str) -> bool {
    name == "TARGETSTAGE"
        || ["BUILD", "TARGET"]
            .iter()
            .filter_map(|of| name.strip_prefix(of))
            .any(|of| ["PLATFORM", "OS", "OSVERSION", "ARCH", "VARIANT"].contains(&of))
}

/// The arguments that FROM knows without an ARG. `target` is the wanted stage's name.
pub(crate) fn predefined(options: &BuildOptions, target: Option<&str>) -> Environment {
    let (build, platform) = (&options.build_platform, options.target_platform());
    let target = target.filter(|target| !target.is_empty()).unwrap_or("default");
    let mut environment = Environment::default();
    for (name, value) in [
        ("BUILDPLATFORM", build.to_string().as_str()),
        ("BUILDOS", &build.os),
        ("BUILDOSVERSION", &build.os_version),
        ("BUILDARCH", &build.architecture),
        ("BUILDVARIANT", &build.variant),
        ("TARGETPLATFORM", &platform.full_name()),
        ("TARGETOS", &platform.os),
        ("TARGETOSVERSION", &platform.os_version),
        ("TARGETARCH", &platform.architecture),
        ("TARGETVARIANT", &platform.variant),
        ("TARGETSTAGE", target),
    ] {
        let given = options.build_args.get(name).map_or(value, String::as_str);
        environment.set(name, given);
    }
    environment
}

/// The proxy variables among the build arguments, in either letter case.
pub(crate) fn proxy(build_args: &BTreeMap<String, String>) -> Option<ProxyEnv> {
    let mut proxy = ProxyEnv::default();
    let mut found = false;
    // In order, so that a name in lower case counts more than the same in upper case.
    for (name, value) in build_args {
        let variable = match name.to_ascii_lowercase().as_str() {
            "http_proxy" => &mut proxy.http,
            "https_proxy" => &mut proxy.https,
            "ftp_proxy" => &mut proxy.ftp,
            "no_proxy" => &mut proxy.no,
            "all_proxy" => &mut proxy.all,
            _ => continue,
        };
        value.clone_into(variable);
        found = true;
    }
    found.then_some(proxy)
}

/// Whether a name looks like that of a secret: one of its words is `key`, `token` and the like, and none says that it is
/// public.
pub(crate) fn is_secret_name(name: &str) -> bool {
    const SECRET: [&str; 10] = [
        "apikey",
        "auth",
        "credential",
        "credentials",
        "key",
        "password",
        "pword",
        "passwd",
        "secret",
        "token",
    ];
    has_word(name, &SECRET)
}

/// Whether the value of a variable of this name is for nobody else to read: that of a secret's name, or of one that a build
/// would not warn of, such as `DB_PASS` or `GITHUB_PAT`.
pub fn is_private_name(name: &str) -> bool {
    is_secret_name(name) || has_word(name, &["cred", "creds", "pass", "passphrase", "pat"])
}

/// Whether one of the words of a name is among these, and none says that it is public.
fn has_word(name: &str, words: &[&str]) -> bool {
    const HARMLESS: [&str; 3] = ["public", "file", "version"];
    let name = name.to_lowercase();
    let has = |words: &[&str]| name.split('_').any(|word| words.contains(&word));
    has(words) && !has(&HARMLESS)
}

#[cfg(test)]
mod tests {
    use rbuild_oci::Platform;

    use super::*;

    #[test]
    fn platform_arguments_can_be_overridden() {
        let mut options = BuildOptions::new(Platform::new("linux", "amd64", ""));
        options.platform = Some(Platform::new("linux", "arm", "v7"));
        options.build_args.insert("TARGETARCH".into(), "mine".into());
        let environment = predefined(&options, Some("app"));
        for (name, value) in [
            ("BUILDPLATFORM", "linux/amd64"),
            ("BUILDVARIANT", ""),
            ("TARGETPLATFORM", "linux/arm/v7"),
            ("TARGETARCH", "mine"),
            ("TARGETVARIANT", "v7"),
            ("TARGETSTAGE", "app"),
        ] {
            assert_eq!(environment.get(name), Some(value), "{name}");
        }
        assert_eq!(predefined(&options, None).get("TARGETSTAGE"), Some("default"));
    }

    #[test]
    fn proxies_in_both_cases() {
        assert_eq!(proxy(&BTreeMap::from([("A".into(), "1".into())])), None);
        let given = BTreeMap::from([
            ("HTTP_PROXY".into(), "upper".into()),
            ("http_proxy".into(), "lower".into()),
            ("No_Proxy".into(), "x".into()),
        ]);
        let found = proxy(&given).unwrap_or_default();
        assert_eq!(
            (found.http.as_str(), found.no.as_str(), found.all.as_str()),
            ("lower", "x", "")
        );
    }

    #[test]
    fn names_of_secrets() {
        for name in
            ["API_KEY", "apikey", "DATABASE_PASSWORD", "secret_MESSAGE", "AUTH", "GITHUB_TOKEN"]
        {
            assert!(is_secret_name(name), "{name}");
        }
        for name in ["PUBLIC_KEY", "KEY_FILE", "TOKEN_VERSION", "MONKEY", "authors", "PATH", ""] {
            assert!(!is_secret_name(name), "{name}");
            assert!(!is_private_name(name), "{name}");
        }
        for name in ["API_KEY", "DB_PASS", "GITHUB_PAT"] {
            assert!(is_private_name(name), "{name}");
        }
    }
}
