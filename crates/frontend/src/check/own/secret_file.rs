//! Files that look like secrets, copied into the image.

use super::{ContextFiles, Stage, from_context, is_everything};
use crate::check::{Rule, warning};
use crate::diagnostic::Diagnostic;

/// How many names a message has.
const MOST: usize = 3;

pub(super) fn check(stage: &Stage<'_>, files: &ContextFiles, found: &mut Vec<Diagnostic>) {
    for statement in stage.statements {
        let Some(transfer) = from_context(statement) else { continue };
        for source in &transfer.sources {
            let path = source.text();
            let (names, takes): (Vec<&str>, &str) = match is_everything(path) {
                true => {
                    let secrets =
                        files.top.iter().map(String::as_str).filter(|name| is_secret(name));
                    (secrets.take(MOST).collect(), "The copy takes along ")
                }
                false => (Vec::from_iter(is_secret(path).then_some(path)), "The image gets "),
            };
            if names.is_empty() {
                continue;
            }
            let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
            let look = if names.len() == 1 { "looks like a secret" } else { "look like secrets" };
            let message = format!("{takes}{}, which {look}", names.join(", "));
            let help = match is_everything(path) {
                true => {
                    "list it in .dockerignore; a step that needs it can have it with RUN --mount=type=secret"
                }
                false => {
                    "a step that needs it can have it with RUN --mount=type=secret, and the image does not keep it"
                }
            };
            found.push(warning(Rule::SecretCopied, source.span(), message).with_help(help));
        }
    }
}

/// Whether a file with this path is likely to hold a secret, by its name.
fn is_secret(path: &str) -> bool {
    const NAMES: [&str; 14] = [
        ".env",
        ".npmrc",
        ".pypirc",
        ".netrc",
        "_netrc",
        ".git-credentials",
        ".dockercfg",
        ".htpasswd",
        ".pgpass",
        ".my.cnf",
        "id_rsa",
        "id_dsa",
        "id_ecdsa",
        "id_ed25519",
    ];
    const PATHS: [&str; 4] =
        [".docker/config.json", ".aws/credentials", ".kube/config", ".config/gcloud"];
    const EXAMPLES: [&str; 7] =
        ["example", "sample", "template", "dist", "defaults", "schema", "test"];
    const PUBLIC: [&str; 6] = ["cert", "chain", "public", "pub", "bundle", "root"];
    let path = path.trim_end_matches('/').to_ascii_lowercase();
    let name = path.rsplit('/').next().unwrap_or_default();
    if NAMES.contains(&name) || PATHS.iter().any(|end| path.ends_with(end)) {
        return true;
    }
    if let Some(kind) = name.strip_prefix(".env.") {
        return !kind.split('.').any(|part| EXAMPLES.contains(&part)) && !kind.contains('*');
    }
    let Some((stem, extension)) = name.rsplit_once('.') else { return false };
    let is_public = PUBLIC.iter().any(|word| stem.contains(word))
        || stem.split(['-', '_', '.']).any(|word| word == "ca");
    match extension {
        "pem" | "key" => !is_public && !stem.is_empty(),
        "p12" | "pfx" | "ppk" | "kdbx" => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_by_their_names() {
        for path in [
            ".env",
            "app/.env",
            ".env.production",
            "id_rsa",
            "keys/server.key",
            "tls.pem",
            "a.p12",
            ".npmrc",
            "home/.aws/credentials",
        ] {
            assert!(is_secret(path), "{path}");
        }
        for path in [
            "env",
            ".env.example",
            ".env.sample",
            ".envrc",
            "id_rsa.pub",
            "ca.pem",
            "fullchain.pem",
            "cert.pem",
            "public.key",
            "package.json",
            "config.json",
            "keys",
            "monkey",
            "",
            "internal-ca.pem",
        ] {
            assert!(!is_secret(path), "{path}");
        }
    }
}
