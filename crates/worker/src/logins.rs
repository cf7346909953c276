//! What is said to hosts so that they give what is asked for (section 1.16 of the behaviour reference).
//!
//! | secret | what it is | who gets it |
//! |---|---|---|
//! | `GIT_AUTH_HEADER.<host>`, `GIT_AUTH_TOKEN.<host>` | an `Authorization` header, a token | git, for that host |
//! | `GIT_AUTH_HEADER`, `GIT_AUTH_TOKEN` | the same | git, for the host of the repository that is named |
//! | `HTTP_AUTH_HEADER_<host>`, `HTTP_AUTH_TOKEN_<host>` | a header, a bearer's token | files by HTTP, for that host |
//!
//! The first one that is there counts. `<host>` has the port, if the address has one.

use std::fmt;

use base64::Engine as _;

use crate::secrets::Secrets;

/// The name that goes with a token. GitHub's; the others take any.
const TOKEN_USER: &str = "x-access-token";

/// The value of an `Authorization` header.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Login(String);

/// A secret that no header can hold.
#[derive(Debug, thiserror::Error)]
#[error("secret {0:?} is no login: it has to be one line of printable ASCII")]
pub struct LoginError(String);

impl Login {
    /// A name and a password.
    pub(crate) fn basic(name: &[u8], password: &[u8]) -> Self {
        let pair = [name, b":", password].concat();
        Self(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair)))
    }

    pub(crate) fn value(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(..)")
    }
}

/// The secrets that git is told, as a source may name them itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct GitSecretNames {
    pub(crate) header: String,
    pub(crate) token: String,
}

impl Default for GitSecretNames {
    fn default() -> Self {
        Self { header: "GIT_AUTH_HEADER".to_owned(), token: "GIT_AUTH_TOKEN".to_owned() }
    }
}

impl GitSecretNames {
    /// What git says to the host of a repository.
    pub(crate) fn login(&self, secrets: &Secrets, host: &str) -> Result<Option<Login>, LoginError> {
        if let Some(login) = self.login_of(secrets, host)? {
            return Ok(Some(login));
        }
        first(secrets, &[(self.header.clone(), header), (self.token.clone(), git_token)])
    }

    /// What git says to a host that has a secret of its own.
    pub(crate) fn login_of(
        &self,
        secrets: &Secrets,
        host: &str,
    ) -> Result<Option<Login>, LoginError> {
        let (of_header, of_token) =
            (format!("{}.{host}", self.header), format!("{}.{host}", self.token));
        first(secrets, &[(of_header, header), (of_token, git_token)])
    }

    /// The hosts that have secrets of their own.
    pub(crate) fn hosts<'a>(&'a self, secrets: &'a Secrets) -> impl Iterator<Item = &'a str> {
        secrets.ids().filter_map(|id| {
            let rest = id.strip_prefix(&self.header).or_else(|| id.strip_prefix(&self.token));
            rest?.strip_prefix('.').filter(|host| is_host(host))
        })
    }
}

/// What is said to a host that is asked for a file.
pub(crate) fn http_login(secrets: &Secrets, host: &str) -> Result<Option<Login>, LoginError> {
    let (of_header, of_token) =
        (format!("HTTP_AUTH_HEADER_{host}"), format!("HTTP_AUTH_TOKEN_{host}"));
    first(secrets, &[(of_header, header), (of_token, bearer)])
}

/// A secret as the whole header.
pub(crate) fn header_login(secrets: &Secrets, id: &str) -> Result<Option<Login>, LoginError> {
    first(secrets, &[(id.to_owned(), header)])
}

/// Whether a text is a host, perhaps with a port, and nothing that could mean more.
pub(crate) fn is_host(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']')
        })
}

fn header(value: &str) -> Login {
    Login(value.to_owned())
}

fn git_token(value: &str) -> Login {
    Login::basic(TOKEN_USER.as_bytes(), value.as_bytes())
}

fn bearer(value: &str) -> Login {
    Login(format!("Bearer {value}"))
}

/// What is made of a secret's value.
type Form = fn(&str) -> Login;

/// The first secret that is there and not empty.
fn first(secrets: &Secrets, kinds: &[(String, Form)]) -> Result<Option<Login>, LoginError> {
    for (id, login) in kinds {
        let Some(value) = secrets.get(id) else { continue };
        // A file ends with a line's end that nobody means.
        let value = value.trim_ascii();
        if value.is_empty() {
            continue;
        }
        let is_printable = |byte: &u8| matches!(byte, b' '..=b'~');
        let text = std::str::from_utf8(value).ok().filter(|_| value.iter().all(is_printable));
        return text.map(|text| Some(login(text))).ok_or_else(|| LoginError(id.clone()));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(of: &[(&str, &str)]) -> Secrets {
        let mut secrets = Secrets::default();
        for (id, value) in of {
            secrets.insert((*id).to_owned(), value.as_bytes().to_vec());
        }
        secrets
    }

    #[test]
    fn a_host_gets_what_is_its_own() {
        let all = secrets(&[
            ("GIT_AUTH_TOKEN", "any\n"),
            ("GIT_AUTH_TOKEN.a", "of-a"),
            ("GIT_AUTH_HEADER.b:1", "of b"),
            ("GIT_AUTH_TOKEN.b:1", "not this"),
            ("GIT_AUTH_HEADER./", "no host"),
            ("HTTP_AUTH_TOKEN_a", "t"),
            ("HTTP_AUTH_HEADER_b:1", "Digest x"),
        ]);
        let names = GitSecretNames::default();
        let git = |host| names.login(&all, host).unwrap().unwrap().value().to_owned();
        let encoded = |token: &str| Login::basic(b"x-access-token", token.as_bytes()).0;
        assert_eq!(git("a"), encoded("of-a"));
        assert_eq!(git("b:1"), "of b");
        assert_eq!(git("b"), encoded("any"));
        assert_eq!(names.login_of(&all, "b").unwrap(), None);
        assert_eq!(names.hosts(&all).collect::<Vec<_>>(), ["b:1", "a", "b:1"]);
        let http = |host| http_login(&all, host).unwrap().map(|login| login.0);
        assert_eq!(http("a").as_deref(), Some("Bearer t"));
        assert_eq!(http("b:1").as_deref(), Some("Digest x"));
        assert_eq!(http("c"), None);
    }

    #[test]
    fn what_no_header_can_hold_is_refused_and_not_shown() {
        for bad in ["hunter2\nX-Other: 1", "hunter2\u{e9}", "hunter2\0"] {
            let all = secrets(&[("GIT_AUTH_TOKEN", bad)]);
            let error = GitSecretNames::default().login(&all, "h").unwrap_err().to_string();
            assert!(error.contains("GIT_AUTH_TOKEN") && !error.contains("hunter2"), "{error}");
        }
        assert_eq!(format!("{:?}", Login::basic(b"a", b"b")), "Login(..)");
    }
}
