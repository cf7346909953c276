//! `--secret` and `--ssh`: what steps may use of the user's.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;

use rbuild_worker::{Provided, Secrets, check_agent_socket};

use crate::args::BuildArgs;
use crate::error::{CommandError, Kind};

/// Reads the secrets and finds the agents. `environment` looks up a variable.
pub(crate) fn provided(
    args: &BuildArgs,
    environment: impl Fn(&str) -> Option<Vec<u8>>,
) -> Result<Provided, CommandError> {
    let mut secrets = Secrets::default();
    for text in &args.secret {
        let secret = SecretSpec::parse(text)?;
        let value = secret.read(&environment)?;
        if value.len() > Secrets::MAX_SIZE {
            let limit = Secrets::MAX_SIZE / 1024;
            let message = format!("secret {} is too big; the most is {limit} KiB", secret.id);
            return Err(CommandError::usage(message));
        }
        secrets.insert(secret.id, value);
    }
    let mut agents = BTreeMap::new();
    for text in &args.ssh {
        let (id, path) = agent(text, &environment)?;
        agents.insert(id, path);
    }
    Ok(Provided { secrets, agents })
}

/// Where a secret is.
#[derive(Debug, PartialEq, Eq)]
struct SecretSpec {
    id: String,
    from: SecretSource,
}

#[derive(Debug, PartialEq, Eq)]
enum SecretSource {
    File(PathBuf),
    Variable(String),
    /// The variable of the secret's name, or else the file.
    Either(String),
}

impl SecretSpec {
    /// `id=NAME[,src=PATH|env=NAME][,type=file|env]`
    fn parse(text: &str) -> Result<Self, CommandError> {
        let wrong = |reason: &str| {
            CommandError::usage(format!("`--secret {text}`: {reason}"))
                .hint("write it as id=NAME, id=NAME,src=PATH or id=NAME,env=VARIABLE")
        };
        let (mut id, mut src, mut env, mut kind) = (None, None, None, None);
        for field in text.split(',') {
            let (key, value) =
                field.split_once('=').ok_or_else(|| wrong("a field has no value"))?;
            let slot = match key.to_lowercase().as_str() {
                "id" => &mut id,
                "src" | "source" => &mut src,
                "env" => &mut env,
                "type" => &mut kind,
                _ => return Err(wrong(&format!("unexpected key `{key}`"))),
            };
            *slot = Some(value.to_owned()).filter(|value| !value.is_empty());
        }
        let id = id.ok_or_else(|| wrong("it has no id"))?;
        let from = match (kind.as_deref(), src, env) {
            (None | Some("file" | "env"), Some(_), Some(_)) => {
                return Err(wrong("it is either a file or a variable"));
            }
            (None | Some("env"), None, Some(name)) | (Some("env"), Some(name), None) => {
                SecretSource::Variable(name)
            }
            (None | Some("file"), Some(path), None) => SecretSource::File(path.into()),
            (None, None, None) => SecretSource::Either(id.clone()),
            (Some("env"), None, None) => SecretSource::Variable(id.clone()),
            (Some("file"), None, None) => SecretSource::File(id.clone().into()),
            (Some("file"), None, Some(_)) => return Err(wrong("a file has no variable")),
            (Some(_), ..) => return Err(wrong("its type is neither file nor env")),
        };
        Ok(Self { id, from })
    }

    fn read(&self, environment: impl Fn(&str) -> Option<Vec<u8>>) -> Result<Vec<u8>, CommandError> {
        let path = match &self.from {
            SecretSource::Variable(name) => {
                let message = format!("secret {}: the variable `{name}` is not set", self.id);
                return environment(name).ok_or_else(|| CommandError::usage(message));
            }
            SecretSource::Either(name) => match environment(name) {
                Some(value) => return Ok(value),
                None => PathBuf::from(name),
            },
            SecretSource::File(path) => path.clone(),
        };
        let mut value = Vec::new();
        // One byte more than may be says that it is too big.
        let limit = Secrets::MAX_SIZE as u64 + 1;
        File::open(&path).and_then(|file| file.take(limit).read_to_end(&mut value)).map_err(
            |error| {
                let message = format!("secret {}: cannot read `{}`", self.id, path.display());
                CommandError::caused(Kind::Usage, message, error)
            },
        )?;
        Ok(value)
    }
}

/// `default` or `ID[=SOCKET]`.
fn agent(
    text: &str,
    environment: impl Fn(&str) -> Option<Vec<u8>>,
) -> Result<(String, PathBuf), CommandError> {
    let (id, path) = match text.split_once('=') {
        Some((id, path)) if !path.is_empty() => (id, Some(PathBuf::from(path))),
        Some((id, _)) => (id, None),
        None => (text, None),
    };
    let path = match path {
        Some(path) => path,
        None => environment("SSH_AUTH_SOCK")
            .filter(|path| !path.is_empty())
            .map(|path| {
                use std::os::unix::ffi::OsStringExt;
                PathBuf::from(std::ffi::OsString::from_vec(path))
            })
            .ok_or_else(|| {
                CommandError::usage(format!("`--ssh {text}`: SSH_AUTH_SOCK is not set"))
                    .hint("start an agent: eval $(ssh-agent) && ssh-add")
            })?,
    };
    check_agent_socket(&path).map_err(|error| {
        let message = format!("`--ssh {text}`: `{}` is not the socket of an agent", path.display());
        CommandError::caused(Kind::Usage, message, error).hint(
            "key files are not supported yet: give them to an agent (ssh-add) and name its socket",
        )
    })?;
    // The build may be in another folder than the one that is typed from.
    let path = std::path::absolute(&path).unwrap_or(path);
    let id = if id.is_empty() { "default" } else { id };
    Ok((id.to_owned(), path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_all_forms() {
        let check = |text: &str, from: SecretSource| {
            let expected = SecretSpec { id: "a".to_owned(), from };
            assert_eq!(SecretSpec::parse(text).unwrap(), expected, "{text}");
        };
        check("id=a", SecretSource::Either("a".to_owned()));
        check("id=a,src=b/c", SecretSource::File("b/c".into()));
        check("source=b,id=a", SecretSource::File("b".into()));
        check("id=a,type=file,src=b", SecretSource::File("b".into()));
        check("id=a,env=B", SecretSource::Variable("B".to_owned()));
        check("id=a,type=env", SecretSource::Variable("a".to_owned()));
        check("id=a,type=env,src=B", SecretSource::Variable("B".to_owned()));
        for bad in ["a", "src=b", "id=", "id=a,x=y", "id=a,src=b,env=C", "id=a,type=other"] {
            assert!(SecretSpec::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_not_there_or_too_big_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let try_with = |size: usize| {
            std::fs::write(&path, vec![b'x'; size]).unwrap();
            let secret = vec![format!("id=a,src={}", path.display())];
            provided(&BuildArgs { secret, ..BuildArgs::default() }, |_| None)
        };
        assert!(try_with(Secrets::MAX_SIZE).is_ok());
        let error = try_with(Secrets::MAX_SIZE + 1).unwrap_err();
        assert!(error.to_string().contains("secret a is too big; the most is 500 KiB"), "{error}");
        for text in ["id=/no/such/file", "id=a,env=NONE"] {
            let secret = vec![text.to_owned()];
            assert!(provided(&BuildArgs { secret, ..BuildArgs::default() }, |_| None).is_err());
        }
        let environment = |name: &str| (name == "a").then(|| b"from the variable".to_vec());
        let secret = SecretSpec::parse("id=a").unwrap();
        assert_eq!(secret.read(environment).unwrap(), b"from the variable");
    }

    #[test]
    fn agents_are_sockets() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let text = socket.display().to_string();
        let environment = |name: &str| (name == "SSH_AUTH_SOCK").then(|| text.clone().into_bytes());
        for (given, id) in [("default", "default"), ("x", "x"), (&*format!("y={text}"), "y")] {
            assert_eq!(agent(given, environment).unwrap(), (id.to_owned(), socket.clone()));
        }
        assert!(agent("default", |_| None).unwrap_err().to_string().contains("SSH_AUTH_SOCK"));
        let key = dir.path().join("key");
        std::fs::write(&key, "").unwrap();
        let error = agent(&format!("a={}", key.display()), |_| None).unwrap_err().to_string();
        assert!(error.contains("is not the socket of an agent"), "{error}");
    }
}
