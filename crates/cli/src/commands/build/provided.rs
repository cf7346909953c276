//! `--secret` and `--ssh`: what steps may use of the user's.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use rbuild_frontend::GitUrl;
use rbuild_worker::{Provided, Secrets, SshAgent, SshKeyError, SshKeys};

use crate::args::BuildArgs;
use crate::error::{CommandError, Kind};

/// The agent that is meant where none is named.
const DEFAULT_AGENT: &str = "default";
/// No key file is larger.
const LARGEST_KEY: u64 = 64 << 10;

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
        let (id, agent) = agent(text, &environment)?;
        if agents.contains_key(&id) {
            let error = CommandError::usage(format!("`--ssh {text}`: `{id}` was given before"));
            return Err(
                error.hint("several keys of one id are separated by commas: --ssh default=KEY,KEY")
            );
        }
        agents.insert(id, agent);
    }
    // As buildx does: who types the address of a repository lets it be fetched.
    if agents.is_empty() && names_ssh(args) && agent_of_environment(&environment).is_some() {
        let (id, agent) = agent(DEFAULT_AGENT, &environment)?;
        agents.insert(id, agent);
    }
    Ok(Provided { secrets, agents })
}

/// The files and sockets that `--secret` and `--ssh` name, as far as they can be understood.
pub(super) fn paths(
    args: &BuildArgs,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Vec<PathBuf> {
    let secrets = args.secret.iter().filter_map(|text| match SecretSpec::parse(text).ok()?.from {
        SecretSource::File(path) => Some(path),
        SecretSource::Variable(_) => None,
        SecretSource::Either(name) => environment(&name).is_none().then(|| name.into()),
    });
    let given = args.ssh.iter().filter_map(|text| text.split_once('='));
    let given = given.flat_map(|(_, paths)| paths.split(',')).map(PathBuf::from);
    let agent = (!args.ssh.is_empty()).then(|| environment("SSH_AUTH_SOCK")).flatten();
    let paths = secrets.chain(given).chain(agent.map(PathBuf::from));
    paths.filter(|path| !path.as_os_str().is_empty()).collect()
}

/// Whether a context is a git repository behind ssh.
fn names_ssh(args: &BuildArgs) -> bool {
    let named = args.build_context.iter().filter_map(|named| named.split_once('='));
    let mut contexts = args.context.as_deref().into_iter().chain(named.map(|(_, source)| source));
    contexts.any(|context| {
        let url = GitUrl::parse(context).ok().flatten();
        url.is_some_and(|url| url.remote.starts_with("ssh://") || !url.remote.contains("://"))
    })
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

/// `default` or `ID[=SOCKET|KEY[,KEY..]]`.
fn agent(
    text: &str,
    environment: impl Fn(&str) -> Option<Vec<u8>>,
) -> Result<(String, SshAgent), CommandError> {
    let (id, paths) = text.split_once('=').unwrap_or((text, ""));
    let paths: Vec<PathBuf> =
        paths.split(',').filter(|path| !path.is_empty()).map(PathBuf::from).collect();
    let paths = match paths.as_slice() {
        [] => vec![agent_of_environment(&environment).ok_or_else(|| {
            CommandError::usage(format!("`--ssh {text}`: SSH_AUTH_SOCK is not set")).hint(
                "start an agent: eval $(ssh-agent) && ssh-add; or give a key: --ssh default=PATH",
            )
        })?],
        _ => paths,
    };
    let is_socket =
        |path: &PathBuf| path.metadata().is_ok_and(|metadata| metadata.file_type().is_socket());
    let agent = match paths.as_slice() {
        // The build may be in another folder than the one that is typed from.
        [path] if is_socket(path) => {
            SshAgent::Socket(std::path::absolute(path).unwrap_or_else(|_| path.clone()))
        }
        paths if paths.iter().any(is_socket) => {
            let message = format!("`--ssh {text}`: it is either one socket or keys");
            return Err(CommandError::usage(message));
        }
        paths => SshAgent::Keys(Arc::new(keys(text, paths)?)),
    };
    let id = if id.is_empty() { DEFAULT_AGENT } else { id };
    Ok((id.to_owned(), agent))
}

fn agent_of_environment(environment: impl Fn(&str) -> Option<Vec<u8>>) -> Option<PathBuf> {
    let path = environment("SSH_AUTH_SOCK").filter(|path| !path.is_empty())?;
    Some(PathBuf::from(OsString::from_vec(path)))
}

/// Reads key files.
fn keys(text: &str, paths: &[PathBuf]) -> Result<SshKeys, CommandError> {
    let mut keys = SshKeys::default();
    for path in paths {
        let fail = |what: &str| format!("`--ssh {text}`: {what} `{}`", path.display());
        let mut file = Vec::new();
        let read = File::open(path).and_then(|it| it.take(LARGEST_KEY).read_to_end(&mut file));
        read.map_err(|error| CommandError::caused(Kind::Usage, fail("cannot read"), error))?;
        keys.add(&file).map_err(|error| {
            let hint = match error {
                SshKeyError::NotAKey => {
                    "name the socket of an agent, or private keys (not the .pub file beside one)"
                }
                SshKeyError::Encrypted => {
                    "give the key to an agent, which asks for the passphrase: ssh-add PATH; then --ssh default"
                }
                _ => "ssh-keygen -p -f PATH writes a key anew in OpenSSH's form; others go into an agent: ssh-add PATH",
            };
            CommandError::caused(Kind::Usage, fail("cannot use"), error).hint(hint)
        })?;
    }
    Ok(keys)
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
    fn agents_are_sockets_or_keys() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let text = socket.display().to_string();
        let environment = |name: &str| (name == "SSH_AUTH_SOCK").then(|| text.clone().into_bytes());
        for (given, expected) in [("default", "default"), ("x", "x"), (&*format!("y={text}"), "y")]
        {
            let (id, agent) = agent(given, environment).unwrap();
            let SshAgent::Socket(path) = agent else { panic!("{given}") };
            assert_eq!((id.as_str(), &path), (expected, &socket));
        }
        assert!(agent("default", |_| None).unwrap_err().to_string().contains("SSH_AUTH_SOCK"));
        let key = dir.path().join("key");
        std::fs::write(&key, "").unwrap();
        let key = key.display();
        for (given, words) in [
            (format!("a={key}"), "it is no private key"),
            (format!("a={key},{text}"), "either one socket or keys"),
            ("a=/no/such/key".to_owned(), "cannot read `/no/such/key`"),
        ] {
            let error = agent(&given, |_| None).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_repository_that_is_typed_may_use_the_agent() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let path = socket.into_os_string().into_vec();
        let of = |context: &str, named: &str| {
            let args = BuildArgs {
                context: Some(context.to_owned()),
                build_context: vec![named.to_owned()],
                ..BuildArgs::default()
            };
            let environment = |name: &str| (name == "SSH_AUTH_SOCK").then(|| path.clone());
            provided(&args, environment).unwrap().agents.len()
        };
        assert_eq!(of(".", "a=."), 0);
        assert_eq!(of("https://h/r.git", "a=."), 0);
        assert_eq!(of("git@h:r", "a=."), 1);
        assert_eq!(of(".", "a=ssh://git@h/r#main"), 1);
    }
}
