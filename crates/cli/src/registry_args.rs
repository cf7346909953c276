//! Flags of every command that speaks with registries.

use clap::Args;
use rbuild_oci::Reference;

/// How registries are reached, beside what the machine's files say.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct RegistryArgs {
    /// Ask these mirrors, in this order, before the registry: `docker.io=mirror.example.com,localhost:5000/hub`.
    #[arg(
        long,
        global = true,
        value_name = "HOST=MIRROR,..",
        value_parser = RegistryMirrors::parse,
        hide_short_help = true
    )]
    pub(crate) registry_mirror: Vec<RegistryMirrors>,

    /// Believe that this registry is who it says, and speak plain HTTP if it does not answer to HTTPS.
    #[arg(
        long,
        global = true,
        value_name = "HOST[:PORT]",
        value_parser = registry,
        hide_short_help = true
    )]
    pub(crate) insecure_registry: Vec<String>,
}

/// The mirrors of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RegistryMirrors {
    pub(crate) registry: String,
    pub(crate) mirrors: Vec<String>,
}

impl RegistryMirrors {
    fn parse(text: &str) -> Result<Self, String> {
        let Some((of, mirrors)) = text.split_once('=') else {
            return Err(format!("`{text}` is not of the form HOST=MIRROR,.."));
        };
        // So a file has no mirrors of a registry for which the machine's file has some.
        let mirrors = match mirrors {
            "" => Vec::new(),
            mirrors => mirrors.split(',').map(mirror).collect::<Result<_, _>>()?,
        };
        Ok(Self { registry: registry(of)?, mirrors })
    }
}

/// The name of a registry, as it is in full references.
fn registry(text: &str) -> Result<String, String> {
    // What has neither a dot nor a port is a repository to a reference.
    match Reference::parse(&format!("{text}/x")) {
        Ok(reference) if reference.registry() == text || text == "index.docker.io" => {
            Ok(reference.registry().to_owned())
        }
        _ => Err(format!("`{text}` is no registry: write it as registry.example.com[:PORT]")),
    }
}

/// `HOST[:PORT][/PATH]`, or that as an address.
fn mirror(text: &str) -> Result<String, String> {
    let name = match text.split_once("://") {
        Some(("http" | "https", name)) => name,
        Some(_) => return Err(format!("`{text}` is not spoken to by http or https")),
        None => text,
    };
    let (host, path) = name.split_once('/').unwrap_or((name, ""));
    // With a port, names without a dot are those of registries, too.
    let is_address = registry(host).is_ok() || registry(&format!("{host}:443")).is_ok();
    if !is_address || path.contains(['?', '#', '@', ' ']) {
        // It may hold a password.
        let shown = if text.contains('@') { "what has an `@`" } else { text };
        return Err(format!("`{shown}` is no mirror: write it as HOST[:PORT][/PATH]"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_of_a_registry() {
        let parsed =
            RegistryMirrors::parse("index.docker.io=a.b/hub/,http://localhost:5000,mirror")
                .unwrap();
        assert_eq!(parsed.registry, "docker.io");
        assert_eq!(parsed.mirrors, ["a.b/hub/", "http://localhost:5000", "mirror"]);
        assert!(RegistryMirrors::parse("docker.io=").unwrap().mirrors.is_empty());
        assert!(RegistryMirrors::parse("[::1]:5000=[::1]:5001").is_ok());
        for (text, part) in [
            ("docker.io", "not of the form HOST=MIRROR"),
            ("=a.b", "`` is no registry"),
            ("hub=a.b", "`hub` is no registry"),
            ("docker.io/library=a.b", "`docker.io/library` is no registry"),
            ("docker.io=a.b,", "`` is no mirror"),
            ("docker.io=the mirror", "`the mirror` is no mirror"),
            ("docker.io=ftp://a.b", "not spoken to by http or https"),
            ("docker.io=https://name:geheim@a.b", "`what has an `@`` is no mirror"),
            ("docker.io=a.b/x?y", "no mirror"),
        ] {
            let error = RegistryMirrors::parse(text).unwrap_err();
            assert!(error.contains(part) && !error.contains("geheim"), "{text}: {error}");
        }
    }
}
