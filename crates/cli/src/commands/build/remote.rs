//! Contexts and Dockerfiles that are fetched: from git, or by HTTP (sections 1.14 and 1.16 of the behaviour
//! reference). No ignore file applies to them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use rbuild_cache::View;
use rbuild_frontend::{BuildOptions, GitUrl, NamedContext, RemoteContext};
use rbuild_solver::{Output, Progress, Snapshot, SolveOptions, redact_url, solve};
use rbuild_worker::Provided;
use rustix::fs::{AtFlags, FileType, OFlags, ResolveFlags};

use super::confined;
use super::input::{DOCKERFILE, Input, LOWER_DOCKERFILE, is_archive, read_limited};
use crate::args::BuildArgs;
use crate::error::{CommandError, Kind};
use crate::wiring::{Bounds, Session};

/// As much as tells an archive.
const HEAD: u64 = 512;

/// Something that is fetched.
#[derive(Debug)]
pub(super) enum Address {
    /// A git repository.
    Git(GitUrl),
    /// A file by HTTP.
    Http(String),
}

impl Address {
    /// What a context names, unless it is on this machine.
    pub(super) fn of(text: &str) -> Result<Option<Self>, CommandError> {
        let git = GitUrl::parse(text);
        let is_path = matches!(git, Ok(None)) && !is_http(text);
        if is_path || Path::new(text).is_dir() {
            return Ok(None);
        }
        let git = git.map_err(|error| {
            let message = format!("cannot use the git repository `{}`", redact_url(text));
            CommandError::caused(Kind::Usage, message, error)
        })?;
        Ok(match git {
            Some(url) => Some(Self::Git(url)),
            None => is_http(text).then(|| Self::Http(text.to_owned())),
        })
    }

    /// The context, of which it is not known yet whether it is an archive.
    pub(super) fn context(self) -> RemoteContext {
        match self {
            Self::Git(url) => RemoteContext::git(&url),
            Self::Http(url) => RemoteContext::http(&url, false),
        }
    }
}

fn is_http(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// What a build reads if its context or its Dockerfile are fetched; else nothing.
pub(super) async fn input(
    session: &Session,
    args: &BuildArgs,
    progress: &Progress,
) -> Result<Option<Input>, CommandError> {
    let context = args.context.as_deref().unwrap_or(".");
    let address = Address::of(context)?;
    let given = match args.file.as_deref() {
        Some(url) if is_http(url) => {
            let file = RemoteContext::http(url, false);
            let files = Files::fetch(session, "dockerfile", &file, progress);
            Some(files.await?.read(RemoteContext::FILE)?)
        }
        Some("-") if address.is_some() => {
            Some(read_limited(std::io::stdin().lock(), "standard input")?)
        }
        _ => None,
    };
    let Some(address) = address else {
        return given.map(|given| Input::with_dockerfile(context, given)).transpose();
    };
    let mut context = match address {
        Address::Git(mut url) => {
            url.keep_git_dir = url.keep_git_dir.or(keeps_git_dir(args));
            RemoteContext::git(&url)
        }
        other => other.context(),
    };
    let mut files = Files::fetch(session, "context", &context, progress).await?;
    let is_http = context.source.split().0 != "git";
    if is_http && files.is_archive()? {
        context.unpack = true;
        files = Files::fetch(session, "context", &context, progress).await?;
    }
    let is_dockerfile = is_http && !context.unpack;
    let dockerfile = match (given, args.file.as_deref()) {
        (Some(given), _) => given,
        (None, None) if is_dockerfile => files.read(RemoteContext::FILE)?,
        (None, Some(name)) => files.read(name)?,
        (None, None) if !files.has(DOCKERFILE) && files.has(LOWER_DOCKERFILE) => {
            files.read(LOWER_DOCKERFILE)?
        }
        (None, None) => files.read(DOCKERFILE)?,
    };
    Ok(Some(Input::fetched(dockerfile, context)))
}

/// Finds out what the named contexts are that are fetched by HTTP.
pub(super) async fn named(
    session: &Session,
    options: &mut BuildOptions,
    progress: &Progress,
) -> Result<(), CommandError> {
    for (name, context) in &mut options.contexts {
        let NamedContext::Remote(context) = context else { continue };
        let is_http = context.source.split().0 != "git";
        if is_http {
            let files = Files::fetch(session, name, context, progress).await?;
            context.unpack = files.is_archive()?;
        }
    }
    Ok(())
}

/// When something was made, in seconds since 1970: a commit, a file by HTTP if the server says so, or else the newest
/// file in an archive.
pub(super) async fn time(
    session: &Session,
    name: &str,
    context: &RemoteContext,
    progress: &Progress,
) -> Result<Option<i64>, CommandError> {
    let packed = RemoteContext { unpack: false, ..context.clone() };
    let files = Files::fetch(session, name, &packed, progress).await?;
    if let Some(time) = files.time(session, &packed, progress).await? {
        return Ok(Some(time));
    }
    if packed.source.split().0 == "git" || !files.is_archive()? {
        return Ok(None);
    }
    let unpacked = RemoteContext { unpack: true, ..packed };
    Files::fetch(session, name, &unpacked, progress).await?.newest()
}

/// Whether the build argument says that the context keeps its `.git`.
fn keeps_git_dir(args: &BuildArgs) -> Option<bool> {
    let values = args.build_arg.iter().rev().filter_map(|arg| arg.split_once('='));
    let mut values = values.filter(|(name, _)| *name == "BUILDKIT_CONTEXT_KEEP_GIT_DIR");
    let (_, value) = values.next()?;
    Some(matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True"))
}

/// The files of a context.
struct Files {
    view: View,
    /// Where they are from, for messages.
    from: String,
}

impl Files {
    /// Fetches a context as the build itself would, so that the build finds it done.
    async fn fetch(
        session: &Session,
        name: &str,
        context: &RemoteContext,
        progress: &Progress,
    ) -> Result<Self, CommandError> {
        let from = context.source.shown();
        let message = format!("cannot fetch the context `{from}`");
        let (graph, target) = context.graph(name);
        let worker = session.worker(
            BTreeMap::new(),
            Bounds::nothing_allowed(),
            Provided::default(),
            progress,
        )?;
        let records = session.records();
        let options = SolveOptions::default();
        let solved = solve(&graph, &[target], &worker, &records, progress, options).await;
        let outputs =
            solved.map_err(|error| CommandError::caused(Kind::Environment, &message, error))?;
        let snapshot = match outputs.into_iter().next() {
            Some(Output::Snapshot(snapshot)) => snapshot,
            Some(Output::Local(_)) | None => Snapshot::default(),
        };
        let view = View::open(&session.overlay, &session.store.layers, &snapshot);
        let view =
            view.map_err(|error| CommandError::caused(Kind::Environment, &message, error))?;
        Ok(Self { view, from })
    }

    /// When it was made.
    async fn time(
        &self,
        session: &Session,
        context: &RemoteContext,
        progress: &Progress,
    ) -> Result<Option<i64>, CommandError> {
        let time = session.remotes.time(&context.source, &session.reporting(progress)).await;
        time.map_err(|error| {
            let message = format!("cannot read the time of `{}`", self.from);
            CommandError::caused(Kind::Environment, message, error)
        })
    }

    /// The time of the newest file.
    fn newest(&self) -> Result<Option<i64>, CommandError> {
        let mut folders = vec![String::from(".")];
        let mut newest = None;
        while let Some(folder) = folders.pop() {
            let entries = self.entries(&folder).map_err(|error| self.unreadable(&folder, error))?;
            for (name, is_folder, time) in entries {
                match is_folder {
                    true => folders.push(format!("{folder}/{name}")),
                    false => newest = newest.max(time),
                }
            }
        }
        Ok(newest)
    }

    /// What is in a folder: names, whether each is a folder, and the times of files.
    fn entries(&self, folder: &str) -> std::io::Result<Vec<(String, bool, Option<i64>)>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let opened = rbuild_cache::open_in_root(self.view.root(), folder, flags, resolve)?;
        let mut entries = Vec::new();
        for entry in rustix::fs::Dir::read_from(&opened)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let stat = rustix::fs::statat(&opened, name, AtFlags::SYMLINK_NOFOLLOW)?;
            let kind = FileType::from_raw_mode(stat.st_mode);
            let time = (kind == FileType::RegularFile).then_some(stat.st_mtime);
            // A folder whose name is no text is passed over.
            let is_folder = kind == FileType::Directory && name.to_str().is_ok();
            entries.push((name.to_string_lossy().into_owned(), is_folder, time));
        }
        Ok(entries)
    }

    /// Whether what came is an archive.
    fn is_archive(&self) -> Result<bool, CommandError> {
        let mut head = Vec::new();
        let file = self
            .open(RemoteContext::FILE)
            .map_err(|error| self.unreadable(RemoteContext::FILE, error))?;
        let read = file.take(HEAD).read_to_end(&mut head);
        read.map_err(|error| self.unreadable(RemoteContext::FILE, error))?;
        Ok(is_archive(&head))
    }

    fn has(&self, path: &str) -> bool {
        self.open(path).is_ok()
    }

    fn read(&self, path: &str) -> Result<Vec<u8>, CommandError> {
        let file = self.open(path).map_err(|error| self.unreadable(path, error))?;
        read_limited(file, path)
    }

    fn open(&self, path: &str) -> std::io::Result<File> {
        confined::open(self.view.root(), path)
    }

    fn unreadable(&self, path: &str, error: std::io::Error) -> CommandError {
        let message = format!("cannot read `{path}` in `{}`", self.from);
        CommandError::caused(Kind::Usage, message, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_no_address() {
        let kind = |text: &str| match Address::of(text) {
            Ok(Some(Address::Git(url))) => format!("git {}", url.remote),
            Ok(Some(Address::Http(url))) => format!("http {url}"),
            Ok(None) => "none".to_owned(),
            Err(error) => error.to_string(),
        };
        assert_eq!(kind("."), "none");
        assert_eq!(kind("no/such/folder"), "none");
        assert_eq!(kind("github.com/a/b"), "git https://github.com/a/b");
        assert_eq!(kind("git@h:a/b"), "git git@h:a/b");
        assert_eq!(kind("https://h/a.git#main"), "git https://h/a.git");
        assert_eq!(kind("https://h/a.tar.gz"), "http https://h/a.tar.gz");
        assert!(kind("https://me:secret@h/a.git?x=1").contains("xxxxx:xxxxx@h/a.git"));
    }

    #[test]
    fn the_build_argument_keeps_the_git_dir() {
        let of = |values: &[&str]| {
            let build_arg = values.iter().map(|value| (*value).to_owned()).collect();
            keeps_git_dir(&BuildArgs { build_arg, ..BuildArgs::default() })
        };
        assert_eq!(of(&["A=1"]), None);
        assert_eq!(of(&["BUILDKIT_CONTEXT_KEEP_GIT_DIR=1"]), Some(true));
        assert_eq!(of(&["BUILDKIT_CONTEXT_KEEP_GIT_DIR=0"]), Some(false));
    }
}
