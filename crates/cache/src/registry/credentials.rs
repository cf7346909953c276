//! The logins that docker and podman have stored.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use docker_credential::{CredentialRetrievalError, DockerCredential};
use rbuild_oci::Reference;

/// Where logins are looked for: docker's `config.json` and podman's `auth.json` have one format, with plain logins, a
/// `credsStore` and `credHelpers`.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    files: Vec<PathBuf>,
    /// One for a registry, which no file says otherwise.
    given: Option<(String, Credential)>,
    /// Helpers that failed; clones have the same.
    failed: Arc<Mutex<BTreeSet<String>>>,
}

/// What docker's helpers print when they have no login for a server.
const NO_LOGIN: &str = "credentials not found";

/// How to tell a registry who is asking.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A name and a password.
    Password {
        /// The name.
        name: String,
        /// The password.
        password: String,
    },
    /// An identity token, which is exchanged for access tokens.
    IdentityToken(String),
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Password { .. } => "Password(..)",
            Self::IdentityToken(_) => "IdentityToken(..)",
        })
    }
}

/// Why stored logins cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The file is there and cannot be opened.
    #[error("cannot open `{}`", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file or what a helper said cannot be understood, or a helper cannot be run.
    #[error("cannot use the login for `{registry}` in `{}`: {reason}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Whose login.
        registry: String,
        /// Why, without anything that a helper printed: that could be a secret.
        reason: String,
    },
}

impl Credentials {
    /// No logins: everything is asked for anonymously.
    pub fn none() -> Self {
        Self::default()
    }

    /// Looks into these files, in this order; those that do not exist are passed over.
    pub fn from_files(files: Vec<PathBuf>) -> Self {
        Self { files, ..Self::default() }
    }

    /// This login for this registry, and none for any other.
    pub fn given(registry: &str, login: Credential) -> Self {
        Self { given: Some((registry.to_owned(), login)), ..Self::default() }
    }

    /// The login for a repository, or `None`. Blocks: it reads files and may run a helper program.
    pub fn find(&self, of: &Reference) -> Result<Option<Credential>, CredentialsError> {
        if let Some((registry, login)) = &self.given
            && registry == of.registry()
        {
            return Ok(Some(login.clone()));
        }
        for path in &self.files {
            for server in server_names(of) {
                if let Some(credential) = self.look_up(path, &server)? {
                    return Ok(Some(credential));
                }
            }
        }
        Ok(None)
    }
}

/// The names under which a login may be stored: podman knows logins of a part of a registry, docker calls Docker Hub by the
/// address of its first version.
fn server_names(of: &Reference) -> Vec<String> {
    let mut names = Vec::new();
    let full = of.name();
    let mut name = full.as_str();
    while let Some((shorter, _)) = name.rsplit_once('/') {
        names.push(name.to_owned());
        name = shorter;
    }
    names.extend(docker_names(name));
    names
}

/// The names that docker has for a registry; the last one is that which it writes.
pub(super) fn docker_names(registry: &str) -> Vec<String> {
    let mut names = vec![registry.to_owned()];
    if registry == "docker.io" {
        names.push("https://index.docker.io/v1/".to_owned());
    }
    names
}

impl Credentials {
    /// The helpers that failed, and not in the words for having no login.
    pub(super) fn failed_helpers(&self) -> String {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
    }

    fn look_up(&self, path: &Path, server: &str) -> Result<Option<Credential>, CredentialsError> {
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(CredentialsError::Open { path: path.to_owned(), source }),
        };
        let unusable = |reason: &str| {
            let (path, registry) = (path.to_owned(), server.to_owned());
            CredentialsError::Unusable { path, registry, reason: reason.to_owned() }
        };
        let reason = match with_helper(&text, server) {
            // `docker logout` leaves an entry without a login.
            Ok(DockerCredential::UsernamePassword(name, _)) if name.is_empty() => {
                return Ok(None);
            }
            Ok(DockerCredential::UsernamePassword(name, password)) => {
                return Ok(Some(Credential::Password { name, password }));
            }
            Ok(DockerCredential::IdentityToken(token)) => {
                return Ok(Some(Credential::IdentityToken(token)));
            }
            Err(
                CredentialRetrievalError::NoCredentialConfigured
                | CredentialRetrievalError::ConfigNotFound,
            ) => return Ok(None),
            // One that has no login for this server fails, and not all have the words of docker's for that.
            Err(CredentialRetrievalError::HelperFailure { helper, stdout, .. }) => {
                if !stdout.contains(NO_LOGIN) {
                    let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
                    failed.insert(format!("`{helper}`"));
                }
                return Ok(None);
            }
            Err(CredentialRetrievalError::HelperCommunicationError) => {
                let reason = format!("{} cannot be run, or fails", helper(path, server));
                return Err(unusable(&reason));
            }
            Err(CredentialRetrievalError::MalformedHelperResponse) => {
                "its credential helper printed no login"
            }
            Err(CredentialRetrievalError::CredentialDecodingError) => {
                "its `auth` is not the base64 of `name:password`"
            }
            Err(CredentialRetrievalError::CredentialMismatchError) => {
                "its `auth` contradicts its `username` and `password`"
            }
            Err(CredentialRetrievalError::ConfigReadError) => "the file is not JSON of this format",
        };
        Err(unusable(reason))
    }
}

/// How often a helper is run that could not be told what to look up: one that does not read that may be gone before it is written.
const HELPER_RUNS: usize = 3;

/// The login for a server that a file has, or that its helper prints.
fn with_helper(text: &[u8], server: &str) -> Result<DockerCredential, CredentialRetrievalError> {
    let mut found = Err(CredentialRetrievalError::HelperCommunicationError);
    for _ in 0..HELPER_RUNS {
        found = docker_credential::get_credential_from_reader(text, server);
        if !matches!(found, Err(CredentialRetrievalError::HelperCommunicationError)) {
            break;
        }
    }
    found
}

/// The program that a file names for the logins of a server.
fn helper(path: &Path, server: &str) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let config: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    let name = config["credHelpers"][server].as_str().or(config["credsStore"].as_str());
    match name {
        Some(name) => format!("its credential helper `docker-credential-{name}`"),
        None => "its credential helper".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(config: &str, reference: &str) -> Result<Option<Credential>, CredentialsError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        std::fs::write(&path, config).unwrap();
        let missing = folder.path().join("missing.json");
        Credentials::from_files(vec![missing, path]).find(&Reference::parse(reference).unwrap())
    }

    #[test]
    fn finds_logins_as_docker_and_podman_store_them() {
        // base64 of `name:secret`.
        let auth = "bmFtZTpzZWNyZXQ=";
        let login =
            Some(Credential::Password { name: "name".to_owned(), password: "secret".to_owned() });
        for (server, reference, found) in [
            ("https://index.docker.io/v1/", "busybox", true),
            ("docker.io", "busybox", true),
            ("quay.io", "quay.io/a/b", true),
            ("quay.io/a", "quay.io/a/b", true),
            ("quay.io/x", "quay.io/a/b", false),
            ("localhost:5000", "localhost:5000/x", true),
            ("localhost", "localhost:5000/x", false),
        ] {
            let config = format!(r#"{{"auths": {{"{server}": {{"auth": "{auth}"}}}}}}"#);
            let expected = login.clone().filter(|_| found);
            assert_eq!(find(&config, reference).unwrap(), expected, "{server}");
        }
        let token = r#"{"auths": {"a.b": {"identitytoken": "t"}}}"#;
        let expected = Some(Credential::IdentityToken("t".to_owned()));
        assert_eq!(find(token, "a.b/x").unwrap(), expected);
        assert_eq!(find(r#"{"auths": {"a.b": {}}}"#, "a.b/x").unwrap(), None);
    }

    #[test]
    fn says_what_it_cannot_use_without_the_secret() {
        let said = |config| find(config, "a.b/x").unwrap_err().to_string();
        assert!(said("{").contains("is not JSON"));
        let wrong = said(r#"{"auths": {"a.b": {"auth": "geheim!"}}}"#);
        assert!(wrong.contains("`auth`") && !wrong.contains("geheim"), "{wrong}");
        let missing = said(r#"{"credsStore": "there-is-none"}"#);
        assert!(missing.contains("`docker-credential-there-is-none` cannot be run"), "{missing}");
    }
}
