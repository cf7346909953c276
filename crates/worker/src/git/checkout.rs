//! From a mirror to files.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rbuild_cache::PendingLayer;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

use super::access::Access;
use super::command::{Git, Reach};
use super::tidy::{Tidy, tidy};
use super::{GitErrorKind, GitOptions, GitRequest};

const GIT_DIR: &str = ".git";
/// Below the work directory.
const REPOSITORY: &str = "repository";
const FILES: &str = "files";

/// Checks a commit out into a layer. Returns the layer, with nothing in it but what is wanted.
///
/// The repository is a new one: submodules write into its configuration, and one commit's must not be another's.
pub(super) async fn run(
    options: &GitOptions,
    access: &Access,
    mirror: &Path,
    request: &GitRequest,
    commit: &str,
    time: i64,
    mut layer: PendingLayer,
) -> Result<PendingLayer, GitErrorKind> {
    let work = layer.work_path()?.to_owned();
    let files = match request.subdir.as_str() {
        "" => layer.path().to_owned(),
        _ => work.join(FILES),
    };
    fs::create_dir_all(&files).map_err(GitErrorKind::disk("make", &files))?;
    let dir = if request.keep_git_dir { files.join(GIT_DIR) } else { work.join(REPOSITORY) };
    fs::create_dir(&dir).map_err(GitErrorKind::disk("make", &dir))?;
    let git = Git { options, dir: &dir, work_tree: Some(&files), remote: &request.remote, access };
    let hash = if commit.len() == 64 { "sha256" } else { "sha1" };
    let format = format!("--object-format={hash}");
    git.run_here("init", ["init", "--quiet", "--template=", &format]).await?;
    take(&git, mirror, request, commit).await?;
    git.run_here("read-tree", ["read-tree", "--reset", "-u", commit]).await?;
    if request.submodules && is_file(&files.join(".gitmodules")) {
        let arguments = ["submodule", "update", "--progress", "--init", "--recursive", "--depth=1"];
        git.run(Reach::Submodules, "submodule update", arguments).await?;
    }
    if request.keep_git_dir {
        detach(&git, request).await?;
    }
    let tidying =
        Tidy { keep_git_dir: request.keep_git_dir, time: request.commit_times.then_some(time) };
    let subdir = request.subdir.clone();
    let tidied = tokio::task::spawn_blocking(move || {
        if !subdir.is_empty() {
            move_folder(&files, &subdir, &layer)?;
        }
        tidy(layer.path(), tidying)?;
        Ok(layer)
    });
    tidied.await.expect("tidying files does not panic")
}

/// Brings a commit from the mirror: its objects if the repository is to be kept, else the way to them.
async fn take(
    git: &Git<'_>,
    mirror: &Path,
    request: &GitRequest,
    commit: &str,
) -> Result<(), GitErrorKind> {
    if request.keep_git_dir {
        let mirror = mirror.as_os_str();
        let spec = OsString::from(commit);
        let fixed = ["fetch", "--quiet", "--depth=1", "--no-tags", "--"].map(OsStr::new);
        let arguments = fixed.into_iter().chain([mirror, spec.as_os_str()]);
        git.run_here("fetch", arguments).await?;
        return Ok(());
    }
    let info = git.dir.join("objects/info");
    let alternates = info.join("alternates");
    let mut text = mirror.join("objects").into_os_string().into_encoded_bytes();
    text.push(b'\n');
    fs::create_dir_all(&info).map_err(GitErrorKind::disk("make", &info))?;
    fs::write(&alternates, text).map_err(GitErrorKind::disk("write", &alternates))?;
    // What the mirror does not have of the history is missing here, too.
    let (from, to) = (mirror.join("shallow"), git.dir.join("shallow"));
    if from.exists() {
        fs::copy(&from, &to).map_err(GitErrorKind::disk("copy", &from))?;
    }
    Ok(())
}

/// Makes a repository that can be anywhere: at its commit, with a remote, and without traces of the mirror.
async fn detach(git: &Git<'_>, request: &GitRequest) -> Result<(), GitErrorKind> {
    git.run_here("update-ref", ["update-ref", "--no-deref", "HEAD", "FETCH_HEAD"]).await?;
    for (name, value) in [
        ("remote.origin.url", request.remote.as_str()),
        ("remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*"),
    ] {
        git.run_here("config", ["config", "--local", name, value]).await?;
    }
    // Where it was checked out; absent if git found the two beside one another.
    let _ = git.run_here("config", ["config", "--local", "--unset", "core.worktree"]).await;
    for name in ["FETCH_HEAD", "ORIG_HEAD", "logs"] {
        let path = git.dir.join(name);
        let removed =
            if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(GitErrorKind::disk("remove", &path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn is_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file())
}

/// Moves what is in a folder of the checkout into the layer. Links lead no further than the checkout.
fn move_folder(files: &Path, subdir: &str, layer: &PendingLayer) -> Result<(), GitErrorKind> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let cannot = |error: rustix::io::Errno| GitErrorKind::disk("open", files)(error.into());
    let root = rustix::fs::openat(CWD, files, flags, Mode::empty()).map_err(cannot)?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let folder: OwnedFd = rbuild_cache::open_in_root(&root, subdir, flags, resolve)
        .map_err(|_| GitErrorKind::NoFolder(subdir.to_owned()))?;
    let cannot =
        |error: rustix::io::Errno| GitErrorKind::disk("move files of", files)(error.into());
    let listed = rustix::fs::Dir::read_from(&folder).map_err(cannot)?;
    for entry in listed {
        let entry = entry.map_err(cannot)?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            rustix::fs::renameat(folder.as_fd(), name, layer.dir(), name).map_err(cannot)?;
        }
    }
    Ok(())
}
