//! Writing logins where docker and podman keep theirs.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use serde_json::{Map, Value, json};

use super::Credential;
use super::credentials::docker_names;

/// A file of logins in docker's form (`config.json`). What is in it besides stays as it is.
///
/// A login goes to the credential helper that the file names for its registry, as with `docker login`, and else into the file,
/// which nobody but its owner may read.
#[derive(Clone, Debug)]
pub struct LoginFile {
    path: PathBuf,
}

/// Where a login went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginPlace {
    /// Into the file, as plain text.
    File,
    /// To this helper program.
    Helper(String),
}

/// Why a login is not stored, or not erased.
#[derive(Debug, thiserror::Error)]
pub enum LoginFileError {
    /// The file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is of no form that could be written again without loss.
    #[error("cannot use `{}`: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The file cannot be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A helper cannot be run.
    #[error("cannot run the credential helper `{helper}`, which `{}` names", path.display())]
    Helper {
        /// The helper.
        helper: String,
        /// The file that names it.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A helper failed. What it printed could be a secret.
    #[error("the credential helper `{helper}` did not {action} the login ({status})")]
    HelperFailed {
        /// The helper.
        helper: String,
        /// What it was to do.
        action: &'static str,
        /// How it ended.
        status: std::process::ExitStatus,
    },
}

impl LoginFile {
    /// The file at `path`, which need not exist.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Stores the login for a registry. Blocks.
    pub fn store(&self, registry: &str, login: &Credential) -> Result<LoginPlace, LoginFileError> {
        match login {
            Credential::Password { name, password } => {
                self.keep(registry, name, password, json!({"auth": auth(name, password)}))
            }
            Credential::IdentityToken(token) => {
                self.keep(registry, IDENTITY, token, json!({"identitytoken": token}))
            }
        }
    }

    /// Stores an identity token, as that of `name`: others than docker take an entry without a name for none. Blocks.
    pub fn store_identity(
        &self,
        registry: &str,
        name: &str,
        token: &str,
    ) -> Result<LoginPlace, LoginFileError> {
        let entry = json!({"auth": auth(name, ""), "identitytoken": token});
        self.keep(registry, IDENTITY, token, entry)
    }

    /// Gives a login to the helper, or puts it into the file as `entry`.
    fn keep(
        &self,
        registry: &str,
        name: &str,
        secret: &str,
        entry: Value,
    ) -> Result<LoginPlace, LoginFileError> {
        let mut document = self.read()?;
        // Docker reads the last of the names only.
        let server = docker_names(registry).pop().unwrap_or_else(|| registry.to_owned());
        let place = match helper_of(&document, registry) {
            Some(helper) => {
                let input = json!({"ServerURL": server, "Username": name, "Secret": secret});
                self.run(&helper, "store", &input.to_string())?;
                LoginPlace::Helper(helper)
            }
            None => LoginPlace::File,
        };
        let entry = match &place {
            // That there is a login is what docker and others look for.
            LoginPlace::Helper(_) => json!({}),
            LoginPlace::File => entry,
        };
        let entries = document.entry("auths").or_insert_with(|| json!({}));
        let Value::Object(entries) = entries else {
            return Err(self.format("its `auths` is no JSON object"));
        };
        entries.insert(server, entry);
        self.write(&document)?;
        Ok(place)
    }

    /// Erases the login for a registry; `false` when there is none. Blocks.
    pub fn erase(&self, registry: &str) -> Result<bool, LoginFileError> {
        let mut document = self.read()?;
        let mut erased = false;
        let names = docker_names(registry);
        let entries = document.get_mut("auths").and_then(Value::as_object_mut);
        if let Some(entries) = entries {
            for name in &names {
                erased |= entries.remove(name).is_some();
            }
        }
        if let Some(helper) = helper_of(&document, registry) {
            for name in &names {
                match self.run(&helper, "erase", name) {
                    Ok(()) => erased = true,
                    // Helpers fail for what they do not have.
                    Err(LoginFileError::HelperFailed { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        if erased {
            self.write(&document)?;
        }
        Ok(erased)
    }

    fn read(&self) -> Result<Map<String, Value>, LoginFileError> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(LoginFileError::Read { path: self.path.clone(), source }),
        };
        if bytes.trim_ascii().is_empty() {
            return Ok(Map::new());
        }
        serde_json::from_slice(&bytes).map_err(|_| self.format("it is no JSON object"))
    }

    /// Replaces the file at once, so that nobody sees half of it.
    fn write(&self, document: &Map<String, Value>) -> Result<(), LoginFileError> {
        // A link to the file is kept; what it leads to is replaced.
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let replace = || {
            let folder = path.parent().unwrap_or(Path::new("."));
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            // Such a file belongs to its owner alone, from the beginning.
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            serde_json::to_writer_pretty(&mut file, document)?;
            file.write_all(b"\n")?;
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|error| error.error)?;
            Ok(())
        };
        replace().map_err(|source| LoginFileError::Write { path: self.path.clone(), source })
    }

    fn run(&self, helper: &str, action: &'static str, input: &str) -> Result<(), LoginFileError> {
        let program = format!("docker-credential-{helper}");
        let ran = || {
            let mut child = Command::new(&program)
                .arg(action)
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()?;
            // A helper that reads nothing says by its exit code what that means.
            let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
            child.wait()
        };
        let status = ran().map_err(|source| LoginFileError::Helper {
            helper: program.clone(),
            path: self.path.clone(),
            source,
        })?;
        match status.success() {
            true => Ok(()),
            false => Err(LoginFileError::HelperFailed { helper: program, action, status }),
        }
    }

    fn format(&self, reason: &'static str) -> LoginFileError {
        LoginFileError::Format { path: self.path.clone(), reason }
    }
}

/// Whose login an identity token is, as helpers are told.
const IDENTITY: &str = "<token>";

fn auth(name: &str, password: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(format!("{name}:{password}"))
}

/// The helper that has the logins for a registry.
fn helper_of(document: &Map<String, Value>, registry: &str) -> Option<String> {
    let of_registry = docker_names(registry)
        .iter()
        .find_map(|name| document.get("credHelpers")?.get(name)?.as_str());
    let helper = of_registry.or_else(|| document.get("credsStore")?.as_str())?;
    (!helper.is_empty()).then(|| helper.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use rbuild_oci::Reference;

    use super::*;
    use crate::Credentials;

    fn login(password: &str) -> Credential {
        Credential::Password { name: "name".to_owned(), password: password.to_owned() }
    }

    #[test]
    fn keeps_everything_else_and_shows_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/config.json");
        let file = LoginFile::new(path.clone());
        assert!(!file.erase("a.b").unwrap());
        assert!(!path.exists());
        assert_eq!(file.store("a.b", &login("x:y")).unwrap(), LoginPlace::File);
        fs::write(
            &path,
            fs::read_to_string(&path).unwrap().replacen('{', r#"{"psFormat": "z","#, 1),
        )
        .unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        file.store("docker.io", &login("p")).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let find = |reference: &str| {
            let reference = Reference::parse(reference).unwrap();
            Credentials::from_files(vec![path.clone()]).find(&reference).unwrap()
        };
        assert_eq!((find("a.b/c"), find("busybox")), (Some(login("x:y")), Some(login("p"))));
        assert!(fs::read_to_string(&path).unwrap().contains("https://index.docker.io/v1/"));
        assert!(file.erase("docker.io").unwrap() && !file.erase("docker.io").unwrap());
        assert_eq!((find("a.b/c"), find("busybox")), (Some(login("x:y")), None));
        assert!(fs::read_to_string(&path).unwrap().contains("psFormat"));
    }

    #[test]
    fn follows_links_and_refuses_what_it_would_destroy() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real"), folder.path().join("link"));
        fs::write(&real, "").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        LoginFile::new(link.clone()).store("a.b", &login("p")).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(fs::read_to_string(&real).unwrap().contains("a.b"));
        for broken in ["[]", "{", r#"{"auths": []}"#] {
            fs::write(&real, broken).unwrap();
            assert!(LoginFile::new(real.clone()).store("a.b", &login("p")).is_err(), "{broken}");
            assert_eq!(fs::read_to_string(&real).unwrap(), broken);
        }
    }

    #[test]
    fn helpers_that_cannot_run_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        let text = r#"{"credsStore": "x", "credHelpers": {"a.b": "there-is-none"}}"#;
        fs::write(&path, text).unwrap();
        let error = LoginFile::new(path.clone()).store("a.b", &login("geheim")).unwrap_err();
        assert!(error.to_string().contains("docker-credential-there-is-none"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}
