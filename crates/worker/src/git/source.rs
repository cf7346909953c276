//! From a request to a commit, and to the layer with its files.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rbuild_cache::{Layers, Lease, LockName, Locks, Store};
use rbuild_oci::Digest;
use rbuild_solver::LayerId;

use super::access::Access;
use super::command::{Git, Reach};
use super::request::is_commit;
use super::{GitError, GitErrorKind, GitOptions, GitRequest, checkout};
use crate::secrets::Provided;

/// The file in a mirror that says that somebody was writing into it, and did not come to the end.
const UNFINISHED: &str = "rbuild-unfinished";

/// Fetches repositories into the store. Clones know what the others know.
#[derive(Clone, Debug)]
pub(crate) struct GitSource(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: GitOptions,
    provided: Provided,
    mirrors: PathBuf,
    layers: Layers,
    locks: Locks,
    lease: Lease,
    /// What this build knows: it sees one state of each repository.
    resolved: Mutex<HashMap<GitRequest, Resolved>>,
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Resolved {
    commit: String,
    /// The remote's full name for it, if it was asked.
    full_name: Option<String>,
}

impl GitSource {
    /// Fetches into `store` with what of `provided` is meant for git.
    pub(crate) fn new(
        store: &Store,
        lease: Lease,
        options: GitOptions,
        provided: Provided,
    ) -> Self {
        Self(Arc::new(Inner {
            options,
            provided,
            mirrors: store.git_mirrors(),
            layers: store.layers.clone(),
            locks: store.locks.clone(),
            lease,
            resolved: Mutex::default(),
        }))
    }

    /// The identity of what is asked for: equal identities, equal files. Fetches no files.
    pub(crate) async fn key(&self, request: &GitRequest) -> Result<Digest, GitError> {
        let resolved = self.0.resolve(request).await.map_err(|kind| error(request, kind))?;
        Ok(Digest::Sha256(*request.layer(&resolved.commit).as_bytes()))
    }

    /// The id of the commit that is asked for. Fetches no files.
    pub(crate) async fn commit(&self, request: &GitRequest) -> Result<String, GitError> {
        let resolved = self.0.resolve(request).await.map_err(|kind| error(request, kind))?;
        Ok(resolved.commit)
    }

    /// The layer with the files of a commit.
    pub(crate) async fn fetch(&self, request: &GitRequest) -> Result<LayerId, GitError> {
        self.0.fetch(request).await.map_err(|kind| error(request, kind))
    }

    /// When the commit was made, in seconds since 1970.
    pub(crate) async fn time(&self, request: &GitRequest) -> Result<i64, GitError> {
        self.0.time(request).await.map_err(|kind| error(request, kind))
    }
}

fn error(request: &GitRequest, kind: GitErrorKind) -> GitError {
    GitError { remote: rbuild_solver::redact_url(&request.remote), kind: Box::new(kind) }
}

impl Inner {
    fn git<'a>(&'a self, dir: &'a Path, request: &'a GitRequest, access: &'a Access) -> Git<'a> {
        Git { options: &self.options, dir, work_tree: None, remote: &request.remote, access }
    }

    fn access(&self, request: &GitRequest) -> Result<Access, GitErrorKind> {
        Access::new(request, &self.provided, &self.layers)
    }

    async fn resolve(&self, request: &GitRequest) -> Result<Resolved, GitErrorKind> {
        let known = || self.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(resolved) = known().get(request) {
            return Ok(resolved.clone());
        }
        let resolved = match request.commit() {
            Some(commit) => {
                request.check(&[&commit])?;
                Resolved { commit, full_name: None }
            }
            None => self.ask(request).await?,
        };
        known().insert(request.clone(), resolved.clone());
        Ok(resolved)
    }

    /// Asks the remote what a name stands for.
    async fn ask(&self, request: &GitRequest) -> Result<Resolved, GitErrorKind> {
        let name = match request.reference.as_str() {
            "" => "HEAD",
            name => name,
        };
        let peeled = format!("{name}^{{}}");
        // Needs no repository; there need not be one yet.
        let access = self.access(request)?;
        let nowhere = self.git(Path::new("/"), request, &access);
        let arguments = ["ls-remote", "--", "origin", name, &peeled];
        let listed = nowhere.run(Reach::Remote, "ls-remote", arguments).await?;
        let Found { full_name, commit, tag } =
            find(&listed, name).ok_or_else(|| GitErrorKind::NoReference(name.to_owned()))?;
        let ids: Vec<&str> = [commit.as_str()].into_iter().chain(tag.as_deref()).collect();
        request.check(&ids)?;
        Ok(Resolved { commit, full_name: Some(full_name) })
    }

    async fn fetch(&self, request: &GitRequest) -> Result<LayerId, GitErrorKind> {
        let resolved = self.resolve(request).await?;
        let id = request.layer(&resolved.commit);
        self.lease.pin_layers(&[id])?;
        if self.layers.contains(&id)? {
            return Ok(id);
        }
        let mirror_id = request.mirror_id();
        let _lock = self.locks.lock(LockName::Git(&mirror_id)).await?;
        if self.layers.contains(&id)? {
            return Ok(id);
        }
        let access = self.access(request)?;
        let mirror = self.mirror(request, &access, &resolved).await?;
        let git = self.git(&mirror, request, &access);
        let time = commit_time(&mirror, &git, &resolved.commit).await?;
        let layer = self.layers.begin()?;
        let (options, commit) = (&self.options, &resolved.commit);
        let layer = checkout::run(options, &access, &mirror, request, commit, time, layer).await?;
        layer.commit(&id)?;
        Ok(id)
    }

    async fn time(&self, request: &GitRequest) -> Result<i64, GitErrorKind> {
        let resolved = self.resolve(request).await?;
        let mirror_id = request.mirror_id();
        let _lock = self.locks.lock(LockName::Git(&mirror_id)).await?;
        let access = self.access(request)?;
        let mirror = self.mirror(request, &access, &resolved).await?;
        commit_time(&mirror, &self.git(&mirror, request, &access), &resolved.commit).await
    }

    /// The mirror of a remote, with a commit in it. The caller has its lock.
    async fn mirror(
        &self,
        request: &GitRequest,
        access: &Access,
        resolved: &Resolved,
    ) -> Result<PathBuf, GitErrorKind> {
        let path = self.mirrors.join(request.mirror_id().hex());
        let unfinished = path.join(UNFINISHED);
        if unfinished.exists() {
            // A git that was killed leaves locks behind, on which the next one would fail.
            let mut grave = self.layers.begin()?;
            std::fs::rename(&path, grave.work_path()?.join("mirror"))
                .map_err(GitErrorKind::disk("remove", &path))?;
        }
        let git = self.git(&path, request, access);
        let mark =
            || std::fs::write(&unfinished, "").map_err(GitErrorKind::disk("write", &unfinished));
        if !path.join("HEAD").exists() {
            std::fs::create_dir_all(&path).map_err(GitErrorKind::disk("make", &path))?;
            mark()?;
            let hash = if resolved.commit.len() == 64 { "sha256" } else { "sha1" };
            let format = format!("--object-format={hash}");
            git.run_here("init", ["init", "--quiet", "--bare", "--template=", &format]).await?;
        }
        let commit = resolved.commit.as_str();
        if has_commit(&git, commit).await {
            return finished(path, &unfinished);
        }
        mark()?;
        let get = |depth: Option<&'static str>, specs: Vec<String>| {
            let fixed = ["fetch", "--progress", "--force", "--no-tags", "--no-write-fetch-head"];
            let arguments: Vec<String> = fixed
                .into_iter()
                .chain(depth)
                .chain(["--", "origin"])
                .map(str::to_owned)
                .chain(specs)
                .collect();
            async move { git.run(Reach::Remote, "fetch", arguments).await }
        };
        // The reference keeps the commit, and says to the remote what is here already.
        let kept = format!("refs/commits/{commit}");
        let depth = Some("--depth=1");
        let mut failed = get(depth, vec![format!("+{commit}:{kept}")]).await.err();
        // Some servers give what has a name, and a few (static files by HTTP) all or nothing.
        if !has_commit(&git, commit).await
            && let Some(name) = &resolved.full_name
        {
            failed = get(depth, vec![format!("+{name}:{kept}")]).await.err();
        }
        if !has_commit(&git, commit).await {
            let all = ["heads", "tags"].map(|kind| format!("+refs/{kind}/*:refs/all/{kind}/*"));
            let depth = path.join("shallow").exists().then_some("--unshallow");
            failed = get(depth, all.into()).await.err();
        }
        match (has_commit(&git, commit).await, failed) {
            (true, _) => finished(path, &unfinished),
            (false, Some(error)) => Err(error),
            (false, None) => Err(GitErrorKind::NoReference(commit.to_owned())),
        }
    }
}

/// Takes the mark away.
fn finished(mirror: PathBuf, mark: &Path) -> Result<PathBuf, GitErrorKind> {
    match std::fs::remove_file(mark) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(GitErrorKind::disk("remove", mark)(error))
        }
        _ => Ok(mirror),
    }
}

async fn has_commit(git: &Git<'_>, commit: &str) -> bool {
    let commit = format!("{commit}^{{commit}}");
    git.run_here("cat-file", ["cat-file", "-e", &commit]).await.is_ok()
}

async fn commit_time(path: &Path, git: &Git<'_>, commit: &str) -> Result<i64, GitErrorKind> {
    let shown = git.run_here("show", ["show", "--no-patch", "--format=%ct", commit]).await?;
    shown.trim().parse().map_err(|error| {
        GitErrorKind::disk("read the time of a commit in", path)(std::io::Error::new(
            std::io::ErrorKind::InvalidData,
            error,
        ))
    })
}

/// What a remote has under a name.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    full_name: String,
    commit: String,
    /// The annotated tag that leads to the commit.
    tag: Option<String>,
}

/// Finds a name in what `ls-remote` lists. As with BuildKit, the name itself comes first, then a branch, then a tag.
fn find(listed: &str, name: &str) -> Option<Found> {
    let entries: HashMap<&str, &str> = listed
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(id, name)| (name, id))
        .filter(|(_, id)| is_commit(id))
        .collect();
    let names = [
        if name == "HEAD" { name.to_owned() } else { String::new() },
        format!("refs/{}", name.strip_prefix("refs/").unwrap_or(name)),
        format!("refs/heads/{name}"),
        format!("refs/tags/{name}"),
    ];
    names.into_iter().find_map(|full_name| {
        let id = (*entries.get(full_name.as_str())?).to_owned();
        Some(match entries.get(format!("{full_name}^{{}}").as_str()) {
            Some(commit) => Found { full_name, commit: (*commit).to_owned(), tag: Some(id) },
            None => Found { full_name, commit: id, tag: None },
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_as_buildkit_finds_them() {
        let id = |digit: char| digit.to_string().repeat(40);
        let listed = [
            ('1', "HEAD"),
            ('1', "refs/heads/main"),
            ('2', "refs/heads/both"),
            ('3', "refs/tags/both"),
            ('4', "refs/tags/v1"),
            ('5', "refs/tags/v1^{}"),
            ('6', "refs/pull/1/head"),
            ('7', "refs/heads/refs/heads/x"),
        ]
        .map(|(digit, name)| format!("{}\t{name}\n", id(digit)))
        .concat();
        for (name, full_name, commit, tag) in [
            ("HEAD", "HEAD", '1', None),
            ("main", "refs/heads/main", '1', None),
            ("heads/main", "refs/heads/main", '1', None),
            ("refs/heads/main", "refs/heads/main", '1', None),
            ("both", "refs/heads/both", '2', None),
            ("v1", "refs/tags/v1", '5', Some('4')),
            ("refs/pull/1/head", "refs/pull/1/head", '6', None),
        ] {
            let expected =
                Found { full_name: full_name.to_owned(), commit: id(commit), tag: tag.map(id) };
            assert_eq!(find(&listed, name), Some(expected), "{name}");
        }
        assert_eq!(find(&listed, "none"), None);
        assert_eq!(find("x\trefs/heads/main\n--evil\trefs/heads/main", "main"), None);
    }
}
