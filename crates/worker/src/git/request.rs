//! What a `git://` source asks for.

use rbuild_oci::Digest;
use rbuild_solver::{LayerId, SourceOp, clean_path};

use super::{GitError, GitErrorKind};
use crate::logins::{GitSecretNames, Login, is_host};

/// A repository, and what of it is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct GitRequest {
    /// Without a name and a password, if it is one of HTTP.
    pub(super) remote: String,
    /// The name and the password.
    pub(super) login: Option<Login>,
    pub(super) secret_names: GitSecretNames,
    /// The SSH agent that is used, by its id.
    pub(super) agent: String,
    /// A branch, a tag, a full reference or a commit; empty for the default branch.
    pub(super) reference: String,
    /// Clean; empty for all.
    pub(super) subdir: String,
    pub(super) checksum: Option<String>,
    pub(super) keep_git_dir: bool,
    pub(super) submodules: bool,
    /// Whether files get the time of the commit.
    pub(super) commit_times: bool,
}

impl GitRequest {
    /// Reads a source's identifier and its `git.*` attributes.
    pub(crate) fn of(source: &SourceOp) -> Result<Self, GitError> {
        Self::parse(source)
            .map_err(|kind| GitError { remote: source.shown(), kind: Box::new(kind) })
    }

    fn parse(source: &SourceOp) -> Result<Self, GitErrorKind> {
        let attribute = |name| source.attrs.get(name).map(String::as_str);
        let (place, fragment) = source.split().1.split_once('#').unwrap_or((source.split().1, ""));
        let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
        let given = match attribute("git.fullurl") {
            Some(url) => url.to_owned(),
            None => format!("https://{place}"),
        };
        let (remote, login) = split_login(&given);
        let named = |name, usual: String| {
            attribute(name).filter(|it| !it.is_empty()).map_or(usual, str::to_owned)
        };
        let usual = GitSecretNames::default();
        let secret_names = GitSecretNames {
            header: named("git.authheadersecret", usual.header),
            token: named("git.authtokensecret", usual.token),
        };
        let is_true = |name| attribute(name) == Some("true");
        let subdir = clean_path(&format!("/{subdir}")).trim_start_matches('/').to_owned();
        let request = Self {
            reference: reference.to_owned(),
            checksum: attribute("git.checksum").filter(|it| !it.is_empty()).map(str::to_owned),
            // What is below a folder has no repository of its own.
            keep_git_dir: is_true("git.keepgitdir") && subdir.is_empty(),
            submodules: !is_true("git.skipsubmodules"),
            commit_times: attribute("git.mtime") == Some("commit"),
            agent: named("git.mountsshsock", "default".to_owned()),
            secret_names,
            login,
            subdir,
            remote,
        };
        let suspicious = |text: &str| text.starts_with('-') || text.contains(char::is_control);
        let wrong = |what, value: &str| GitErrorKind::Unsafe { what, value: value.to_owned() };
        if suspicious(&request.remote) || request.remote.is_empty() {
            return Err(wrong("the address", &source.shown()));
        }
        if suspicious(&request.reference)
            || request.reference.contains([' ', '*', '?', '[', '^', '~', ':', '\\'])
        {
            return Err(wrong("the reference", &request.reference));
        }
        Ok(request)
    }

    /// The scheme and the host, with the port, of an address of HTTP.
    pub(super) fn web_host(&self) -> Option<(&str, &str)> {
        let (scheme, rest) = self.remote.split_once("://")?;
        let host = rest.split(['/', '?', '#']).next().filter(|host| is_host(host))?;
        is_web(scheme).then_some((scheme, host))
    }

    /// The mirror of the remote.
    pub(super) fn mirror_id(&self) -> Digest {
        Digest::of(self.remote.as_bytes())
    }

    /// The commit, if that is what the reference is: the remote need not be asked.
    pub(super) fn commit(&self) -> Option<String> {
        is_commit(&self.reference).then(|| self.reference.clone())
    }

    /// The layer with what is wanted of a commit. A kept `.git` says where it is from.
    pub(super) fn layer(&self, commit: &str) -> LayerId {
        let flags = [self.keep_git_dir, self.submodules, self.commit_times].map(u8::from);
        let remote = if self.keep_git_dir { self.remote.as_str() } else { "" };
        let parts = [commit.as_bytes(), self.subdir.as_bytes(), &flags, remote.as_bytes()];
        LayerId::derived("rbuild.git.v1", &parts)
    }

    /// Whether a commit is the one that it has to be.
    pub(super) fn check(&self, found: &[&str]) -> Result<(), GitErrorKind> {
        match &self.checksum {
            Some(expected) if !found.iter().any(|id| id.starts_with(expected.as_str())) => {
                Err(GitErrorKind::Checksum {
                    expected: expected.clone(),
                    actual: found.join(" or "),
                })
            }
            _ => Ok(()),
        }
    }
}

fn is_web(scheme: &str) -> bool {
    ["http", "https"].iter().any(|web| scheme.eq_ignore_ascii_case(web))
}

/// An address of HTTP without the name and password before its host, and these. A name alone says nothing that a host
/// could use; with ssh it is the user.
fn split_login(url: &str) -> (String, Option<Login>) {
    let Some((scheme, rest)) = url.split_once("://").filter(|(scheme, _)| is_web(scheme)) else {
        return (url.to_owned(), None);
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let Some((user, host)) = rest[..end].rsplit_once('@') else { return (url.to_owned(), None) };
    let login = user.split_once(':').map(|(name, password)| {
        let [name, password] = [name, password].map(rbuild_cache::percent_decoded);
        Login::basic(&name, &password)
    });
    (format!("{scheme}://{host}{}", &rest[end..]), login)
}

/// Whether a text is the whole id of a commit, by SHA-1 or SHA-256.
pub(super) fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64)
        && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(identifier: &str, attrs: &[(&str, &str)]) -> Result<GitRequest, GitError> {
        let mut source = SourceOp::new(identifier);
        source.attrs.extend(attrs.iter().map(|(name, value)| ((*name).into(), (*value).into())));
        GitRequest::of(&source)
    }

    #[test]
    fn attributes_of_llb_are_honoured() {
        let plain = of("git://h/r.git#main:/a/../b/", &[]).unwrap();
        assert_eq!((plain.remote.as_str(), plain.reference.as_str()), ("https://h/r.git", "main"));
        assert_eq!(plain.subdir, "b");
        assert!(plain.submodules && !plain.keep_git_dir && !plain.commit_times);
        let all = [
            ("git.fullurl", "git@h:r"),
            ("git.keepgitdir", "true"),
            ("git.checksum", "ab"),
            ("git.skipsubmodules", "true"),
            ("git.mtime", "commit"),
        ];
        let given = of("git://h/r", &all).unwrap();
        assert_eq!((given.remote.as_str(), given.checksum.as_deref()), ("git@h:r", Some("ab")));
        assert!(!given.submodules && given.keep_git_dir && given.commit_times);
        assert!(!of("git://h/r#:d", &all).unwrap().keep_git_dir);
        assert_ne!(given.layer("c"), plain.layer("c"));
    }

    #[test]
    fn logins_are_taken_out_of_addresses() {
        for (url, remote, login) in [
            ("https://a:b@h/r.git", "https://h/r.git", Some(("a", "b"))),
            ("https://a:p%40@b@h:1/r@x", "https://h:1/r@x", Some(("a", "p@@b"))),
            ("HTTPS://t:@h/r", "HTTPS://h/r", Some(("t", ""))),
            ("https://a@h/r", "https://h/r", None),
            ("https://h/a:b@r", "https://h/a:b@r", None),
            ("ssh://git@h/r", "ssh://git@h/r", None),
            ("git@h:r", "git@h:r", None),
        ] {
            let login = login.map(|(name, password): (&str, &str)| {
                Login::basic(name.as_bytes(), password.as_bytes())
            });
            assert_eq!(split_login(url), (remote.to_owned(), login), "{url}");
        }
        let request = of("git://h/r", &[("git.fullurl", "https://a:hunter2@h:1/r")]).unwrap();
        assert_eq!(request.web_host(), Some(("https", "h:1")));
        assert!(!format!("{request:?}").contains("hunter2"));
        let other = of("git://h/r", &[("git.fullurl", "https://h:1/r")]).unwrap();
        assert_eq!(request.mirror_id(), other.mirror_id());
    }

    #[test]
    fn nothing_can_be_an_option() {
        for (identifier, url) in [
            ("git://h/r#--upload-pack=x", "https://h/r"),
            ("git://h/r#+a b", "https://h/r"),
            ("git://h/r", "--upload-pack=x"),
            ("git://h/r", "https://h/\n"),
            ("git://h/r", ""),
        ] {
            assert!(of(identifier, &[("git.fullurl", url)]).is_err(), "{identifier} {url}");
        }
    }

    #[test]
    fn commits_are_known_by_their_form() {
        assert!(is_commit(&"a1".repeat(20)) && is_commit(&"0".repeat(64)));
        assert!(!is_commit(&"A1".repeat(20)) && !is_commit("abc") && !is_commit(&"g".repeat(40)));
    }
}
