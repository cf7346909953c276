//! Addresses of git repositories (section 1.16 of the behaviour reference).
//!
//! ```text
//! https://host/path.git[?ref=..&subdir=..&..][#ref[:subdir]]      also http://
//! ssh://[user@]host/path  git://host/path                         with the same ends
//! user@host:path                                                  with the same ends
//! github.com/owner/repository                                     where it cannot be a path
//! ```
//!
//! An address over HTTP is one of git only when its path ends in `.git`.

use std::borrow::Cow;

use rbuild_solver::{SourceOp, clean_path};

/// How a path of GitHub's may be written without a scheme.
const BARE_GITHUB: &str = "github.com/";

/// A repository, and what of it is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitUrl {
    /// What git fetches from: without query and fragment.
    pub remote: String,
    /// A branch, a tag, a full reference or a commit; empty for the default branch.
    pub reference: String,
    /// The folder in it, clean and without slashes around; empty for all.
    pub subdir: String,
    /// The commit that it has to be, or the beginning of its id.
    pub checksum: Option<String>,
    /// Whether `.git` stays, if the address says so.
    pub keep_git_dir: Option<bool>,
    /// Whether submodules are fetched, if the address says so.
    pub submodules: Option<bool>,
    /// Whether files have the commit's time instead of that of the checkout.
    pub commit_times: bool,
    /// Whether it could as well be a path.
    pub is_ambiguous: bool,
}

/// An address that is git's and cannot be used. The words are BuildKit's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GitUrlError {
    /// A parameter without a value.
    #[error("query {0:?} has no value")]
    NoValue(String),
    /// A parameter that is given twice.
    #[error("query {0:?} has multiple values")]
    ManyValues(String),
    /// A parameter that means nothing.
    #[error("unexpected query {0:?}")]
    Unexpected(String),
    /// A parameter with a value that it cannot have.
    #[error("invalid {name} value: {value:?}")]
    Value {
        /// Which parameter.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// Two parts of the address that contradict one another.
    #[error("{name} conflicts: {first:?} vs {second:?}")]
    Conflict {
        /// What they say.
        name: &'static str,
        /// The one.
        first: String,
        /// The other.
        second: String,
    },
    /// A branch and a tag.
    #[error("branch conflicts with tag")]
    BranchAndTag,
    /// `%` without two digits, or bytes that are no text.
    #[error("invalid URL escape in {0:?}")]
    Escape(String),
    /// A reference that git could not have.
    #[error("invalid git ref {0:?}")]
    Reference(String),
    /// A host or user that a program could take for an option.
    #[error("invalid host in git URL {0:?}")]
    Host(String),
}

impl GitUrl {
    /// Reads an address; `None` for what is none of git's.
    pub fn parse(text: &str) -> Result<Option<Self>, GitUrlError> {
        if text.starts_with("./") || text.starts_with("../") {
            return Ok(None);
        }
        let Some(form) = Form::of(text) else { return Ok(None) };
        let (rest, fragment) = split_off(text, '#');
        let (remote, query) = split_off(rest, '?');
        if form == Form::Web && !path_of(remote).ends_with(".git") {
            return Ok(None);
        }
        if has_option_like_host(remote, form) {
            return Err(GitUrlError::Host(remote.to_owned()));
        }
        let remote = match form {
            Form::BareGithub => format!("https://{remote}"),
            _ => remote.to_owned(),
        };
        let fragment = decode(fragment, false)?;
        let (reference, subdir) = fragment.split_once(':').unwrap_or((&fragment, ""));
        let mut url = Self {
            remote,
            reference: reference.to_owned(),
            subdir: subdir.to_owned(),
            checksum: None,
            keep_git_dir: None,
            submodules: None,
            commit_times: false,
            is_ambiguous: form == Form::BareGithub,
        };
        url.read_query(query)?;
        url.subdir = clean_path(&format!("/{}", url.subdir)).trim_start_matches('/').to_owned();
        for name in [&url.reference].into_iter().chain(&url.checksum) {
            if !is_reference(name) {
                return Err(GitUrlError::Reference(name.clone()));
            }
        }
        Ok(Some(url))
    }

    fn read_query(&mut self, query: &str) -> Result<(), GitUrlError> {
        let mut seen: Vec<String> = Vec::new();
        let (mut tag, mut branch) = (None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name, true)?, decode(value, true)?.into_owned());
            if seen.iter().any(|seen| *seen == *name) {
                return Err(GitUrlError::ManyValues(name.into_owned()));
            }
            if value.is_empty() {
                return Err(GitUrlError::NoValue(name.into_owned()));
            }
            match &*name {
                "ref" => agree("ref", &mut self.reference, value)?,
                "subdir" => agree("subdir", &mut self.subdir, value)?,
                "tag" => tag = Some(prefixed("refs/tags/", &value)),
                "branch" => branch = Some(prefixed("refs/heads/", &value)),
                "checksum" | "commit" => {
                    let mut checksum = self.checksum.take().unwrap_or_default();
                    agree("checksum", &mut checksum, value)?;
                    self.checksum = Some(checksum);
                }
                "keep-git-dir" => self.keep_git_dir = Some(boolean("keep-git-dir", value)?),
                "submodules" => self.submodules = Some(boolean("submodules", value)?),
                "mtime" => match value.as_str() {
                    "checkout" => {}
                    "commit" => self.commit_times = true,
                    _ => return Err(GitUrlError::Value { name: "mtime", value }),
                },
                // Which of the two it is makes no difference here.
                "fetch-by-commit" => {
                    boolean("fetch-by-commit", value)?;
                }
                _ => return Err(GitUrlError::Unexpected(name.into_owned())),
            }
            seen.push(name.into_owned());
        }
        match (tag, branch) {
            (Some(_), Some(_)) => return Err(GitUrlError::BranchAndTag),
            (Some(name), None) | (None, Some(name)) => agree("ref", &mut self.reference, name)?,
            (None, None) => {}
        }
        if let Some(checksum) = self.checksum.as_ref().filter(|_| self.reference.is_empty()) {
            self.reference.clone_from(checksum);
        }
        Ok(())
    }

    /// The source that fetches it, as BuildKit's client writes it.
    pub fn source(&self) -> SourceOp {
        let place = match Form::of(&self.remote) {
            Some(Form::Short) => {
                let host = self.remote.split_once('@').map_or(&*self.remote, |(_, host)| host);
                let (host, path) = host.split_once(':').unwrap_or((host, ""));
                format!("{host}/{}", path.trim_start_matches('/'))
            }
            _ => {
                let place = self.remote.split_once("://").map_or(&*self.remote, |(_, rest)| rest);
                let end = place.find('/').unwrap_or(place.len());
                let host = place[..end].rsplit('@').next().unwrap_or_default();
                format!("{host}{}", &place[end..])
            }
        };
        let mut identifier = format!("git://{place}");
        if !self.reference.is_empty() || !self.subdir.is_empty() {
            identifier.extend(["#", &self.reference]);
        }
        if !self.subdir.is_empty() {
            identifier.extend([":", &self.subdir]);
        }
        let mut source = SourceOp::new(identifier);
        let mut set = |name: &str, value: &str| {
            source.attrs.insert(format!("git.{name}"), value.to_owned());
        };
        set("fullurl", &self.remote);
        if self.keep_git_dir == Some(true) {
            set("keepgitdir", "true");
        }
        if self.submodules == Some(false) {
            set("skipsubmodules", "true");
        }
        if let Some(checksum) = &self.checksum {
            set("checksum", checksum);
        }
        if self.commit_times {
            set("mtime", "commit");
        }
        source
    }
}

/// How an address is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `http://`, `https://`
    Web,
    /// `ssh://`, `git://`
    Git,
    /// `user@host:path`
    Short,
    /// `github.com/..`
    BareGithub,
}

impl Form {
    fn of(text: &str) -> Option<Self> {
        if let Some((scheme, _)) = text.split_once("://")
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric())
        {
            return match scheme.to_ascii_lowercase().as_str() {
                "http" | "https" => Some(Self::Web),
                "ssh" | "git" => Some(Self::Git),
                _ => None,
            };
        }
        if text.starts_with(BARE_GITHUB) {
            return Some(Self::BareGithub);
        }
        let (user, rest) = text.split_once('@')?;
        let (host, _) = rest.split_once(':')?;
        let is_made_of = |text: &str, more: &[u8]| {
            let mut bytes = text.bytes();
            !text.is_empty()
                && bytes.all(|byte| byte.is_ascii_alphanumeric() || more.contains(&byte))
        };
        (is_made_of(user, b"-_") && is_made_of(host, b"-.")).then_some(Self::Short)
    }
}

/// What is before a character, and what is behind it.
fn split_off(text: &str, at: char) -> (&str, &str) {
    text.split_once(at).unwrap_or((text, ""))
}

/// The path of `scheme://host/path`.
fn path_of(remote: &str) -> &str {
    let rest = remote.split_once("://").map_or(remote, |(_, rest)| rest);
    rest.find('/').map_or("", |slash| &rest[slash..])
}

/// Whether the host or the user begins with a dash, or there is none.
fn has_option_like_host(remote: &str, form: Form) -> bool {
    let authority = match form {
        Form::Short => remote.split(':').next().unwrap_or(remote),
        Form::BareGithub => return false,
        Form::Web | Form::Git => {
            let rest = remote.split_once("://").map_or("", |(_, rest)| rest);
            rest.split('/').next().unwrap_or_default()
        }
    };
    let host = authority.rsplit('@').next().unwrap_or_default();
    host.is_empty() || [authority, host].iter().any(|part| part.starts_with('-'))
}

/// Sets what is not set yet, or checks that it is the same.
fn agree(name: &'static str, value: &mut String, given: String) -> Result<(), GitUrlError> {
    if !value.is_empty() && *value != given {
        return Err(GitUrlError::Conflict { name, first: value.clone(), second: given });
    }
    *value = given;
    Ok(())
}

fn prefixed(prefix: &str, name: &str) -> String {
    format!("{prefix}{}", name.strip_prefix(prefix).unwrap_or(name))
}

/// As Go reads one.
fn boolean(name: &'static str, value: String) -> Result<bool, GitUrlError> {
    match value.as_str() {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(GitUrlError::Value { name, value }),
    }
}

/// Whether git could have such a reference (git-check-ref-format(1)), and no program takes it for an option.
fn is_reference(name: &str) -> bool {
    let forbidden = |character: char| {
        character.is_control()
            || matches!(character, ' ' | '~' | '^' | ':' | '?' | '*' | '[' | '\\')
    };
    !name.starts_with(['-', '+', '/'])
        && !name.ends_with(['/', '.'])
        && !["..", "@{", "//"].iter().any(|part| name.contains(part))
        && !name.contains(forbidden)
}

/// Undoes `%41`, and `+` for a blank where it means that.
pub(crate) fn decode(text: &str, is_query: bool) -> Result<Cow<'_, str>, GitUrlError> {
    if !text.contains(['%', '+']) {
        return Ok(Cow::Borrowed(text));
    }
    let wrong = || GitUrlError::Escape(text.to_owned());
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' if is_query => b' ',
            b'%' => {
                let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
                let (Some(high), Some(low)) = (digit(), digit()) else { return Err(wrong()) };
                (high * 16 + low) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).map(Cow::Owned).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An address in short: `remote ref subdir` and what else it says.
    fn shown(text: &str) -> String {
        let url = match GitUrl::parse(text) {
            Ok(Some(url)) => url,
            Ok(None) => return "none".to_owned(),
            Err(error) => return format!("error: {error}"),
        };
        let mut shown = format!("{} {:?} {:?}", url.remote, url.reference, url.subdir);
        for (name, value) in [("keep", url.keep_git_dir), ("modules", url.submodules)] {
            if let Some(value) = value {
                shown.extend([" ", name, "=", if value { "true" } else { "false" }]);
            }
        }
        if let Some(checksum) = &url.checksum {
            shown.extend([" sum=", checksum]);
        }
        for (name, is_set) in [("times", url.commit_times), ("ambiguous", url.is_ambiguous)] {
            if is_set {
                shown.extend([" ", name]);
            }
        }
        shown
    }

    #[test]
    fn addresses() {
        for (text, expected) in [
            ("a", "none"),
            ("./https://x/y.git", "none"),
            ("a@b", "none"),
            ("dir/a@b:c", "none"),
            ("https://x/y", "none"),
            ("https://x/y#z.git", "none"),
            ("https://x/y.tar?x.git", "none"),
            ("https://y.git", "none"),
            ("ftp://x/y.git", "none"),
            ("file:///x/y.git", "none"),
            ("ext::sh -c x", "none"),
            ("https://x/y.git", r#"https://x/y.git "" """#),
            ("HTTPS://x/y.git", r#"HTTPS://x/y.git "" """#),
            ("https://u:p@x:1/y.git#", r#"https://u:p@x:1/y.git "" """#),
            ("https://x/y.git#main", r#"https://x/y.git "main" """#),
            ("https://x/y.git#main:a/../b/", r#"https://x/y.git "main" "b""#),
            ("https://x/y.git#:a/b", r#"https://x/y.git "" "a/b""#),
            ("https://x/y.git#:../../etc", r#"https://x/y.git "" "etc""#),
            ("https://x/y.git#a%2Fb:c%20d", r#"https://x/y.git "a/b" "c d""#),
            ("git://x/y", r#"git://x/y "" """#),
            ("ssh://git@x:22/y#v1", r#"ssh://git@x:22/y "v1" """#),
            ("git@github.com:a/b", r#"git@github.com:a/b "" """#),
            ("my-user@host:a/b.git#c:d", r#"my-user@host:a/b.git "c" "d""#),
            ("github.com/a/b", r#"https://github.com/a/b "" "" ambiguous"#),
            ("github.com/a/b#c", r#"https://github.com/a/b "c" "" ambiguous"#),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn queries() {
        for (query, expected) in [
            ("?ref=main&subdir=/d/", r#""main" "d""#),
            ("?tag=v1", r#""refs/tags/v1" """#),
            ("?tag=refs/tags/v1", r#""refs/tags/v1" """#),
            ("?branch=a%2Bb", r#""refs/heads/a+b" """#),
            ("?commit=abcd", r#""abcd" "" sum=abcd"#),
            ("?ref=v1&checksum=abcd&commit=abcd", r#""v1" "" sum=abcd"#),
            (
                "?keep-git-dir=1&submodules=false&mtime=commit",
                r#""" "" keep=true modules=false times"#,
            ),
            ("?mtime=checkout&fetch-by-commit=true", r#""" """#),
            ("?ref=main#main", r#""main" """#),
        ] {
            assert_eq!(shown(&format!("git@h:r{query}")), format!("git@h:r {expected}"), "{query}");
        }
        for (query, expected) in [
            ("?ref", r#"query "ref" has no value"#),
            ("?ref=", r#"query "ref" has no value"#),
            ("?ref=a&ref=b", r#"query "ref" has multiple values"#),
            ("?x=1", r#"unexpected query "x""#),
            ("?keep-git-dir=maybe", r#"invalid keep-git-dir value: "maybe""#),
            ("?mtime=now", r#"invalid mtime value: "now""#),
            ("?ref=a#b", r#"ref conflicts: "b" vs "a""#),
            ("?subdir=a#:b", r#"subdir conflicts: "b" vs "a""#),
            ("?tag=a#b", r#"ref conflicts: "b" vs "refs/tags/a""#),
            ("?tag=a&branch=b", "branch conflicts with tag"),
            ("?ref=%2", r#"invalid URL escape in "%2""#),
            ("#%ff", r#"invalid URL escape in "%ff""#),
        ] {
            let text = format!("git@h:r{query}");
            assert_eq!(shown(&text), format!("error: {expected}"), "{query}");
        }
    }

    #[test]
    fn nothing_looks_like_an_option() {
        for text in [
            "https://x/y.git#--upload-pack=x",
            "https://x/y.git#+main",
            "https://x/y.git#a b",
            "https://x/y.git#a..b",
            "https://x/y.git#a%0Ab",
            "https://x/y.git?ref=a:b",
            "git@h:r?commit=-x",
            "ssh://-oProxyCommand=x/y",
            "ssh://-oProxyCommand=x@h/y",
            "ssh://u@-oProxyCommand=x/y",
            "-oProxyCommand@host:path",
            "ssh:///y",
        ] {
            assert!(shown(text).starts_with("error: invalid"), "{text}: {}", shown(text));
        }
    }

    #[test]
    fn sources() {
        for (text, identifier) in [
            ("https://u:p@x/y.git", "git://x/y.git"),
            ("https://x/y.git#main:d", "git://x/y.git#main:d"),
            ("git@x:a/y.git#:d", "git://x/a/y.git#:d"),
            ("ssh://git@x:22/y", "git://x:22/y"),
        ] {
            let url = GitUrl::parse(text).unwrap().unwrap();
            let source = url.source();
            assert_eq!(source.identifier, identifier);
            assert_eq!(source.attrs["git.fullurl"], url.remote);
            assert_eq!(source.attrs.len(), 1);
        }
        let all = "git@x:y?keep-git-dir=true&submodules=0&commit=ab&mtime=commit";
        let source = GitUrl::parse(all).unwrap().unwrap().source();
        let attrs: Vec<_> =
            source.attrs.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            attrs,
            [
                "git.checksum=ab",
                "git.fullurl=git@x:y",
                "git.keepgitdir=true",
                "git.mtime=commit",
                "git.skipsubmodules=true"
            ]
        );
    }
}
