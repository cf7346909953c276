//! What a step sees of the user's folders.
//!
//! A copy of the whole folder would cost more than most steps. So the folder itself is mounted, read-only, where that looks as a copy would
//! ([`Tree::in_place`]): what is ignored is hidden by an overlay of whiteouts on top, and what the step writes goes to an upper
//! directory. The user may be working in the folder meanwhile; whether anything changed is asked when the step is done
//! ([`InPlace::is_unchanged`]), and if so the step runs again on a copy. A step that is not confined could mount the folder writable, and
//! always gets a copy.

use std::os::fd::{AsFd, BorrowedFd};

use rbuild_cache::{ActiveLayer, InPlace, PendingLayer, Selected, Tree};
use rbuild_solver::{Mount, Selector, Snapshot};
use rustix::fs::{AtFlags, FileType, Mode, Timespec, Timestamps, mknodat, utimensat};
use rustix::io::Errno;

use crate::exec::ExecError;
use crate::file;
use crate::mounts::{Changed, Mounts, duplicate};
use crate::sandbox::MountKind;
use crate::snapshots::SnapshotError;

/// The mode that a context's own directory has, whatever the folder's is; BuildKit's.
const CONTEXT_MODE: u32 = 0o755;

/// Where a copy of something else than the whole folder lies.
const PART: &str = "part";

/// What has to stay as long as the mount of a folder is used.
#[derive(Debug)]
pub(crate) enum LocalMount {
    InPlace(InPlace),
    /// With a layer of whiteouts.
    Covered(InPlace, #[expect(dead_code, reason = "to keep it")] PendingLayer),
    Copy(#[expect(dead_code, reason = "to keep it")] ActiveLayer),
}

impl LocalMount {
    /// Whether the step has seen what its key was made of.
    pub(crate) fn is_unchanged(&self) -> bool {
        match self {
            Self::InPlace(place) | Self::Covered(place, _) => place.is_unchanged(),
            Self::Copy(_) => true,
        }
    }
}

impl Mounts<'_> {
    /// Opens a bind of a folder of the user's, nothing of which stays.
    pub(crate) fn open_local(
        &mut self,
        mount: &Mount,
        tree: &Tree,
    ) -> Result<MountKind, ExecError> {
        let selector =
            Selector { path: mount.selector.clone(), follow_symlink: true, ..Selector::default() };
        let selection = tree.select(&selector).map_err(SnapshotError::Tree)?;
        let selected = selection.sources.first().expect("a plain path that is there is one source");
        if self.in_place
            && let Some(place) = tree.in_place(selected)
            && let Some(kind) = self.show(mount, selected, place)?
        {
            return Ok(kind);
        }
        self.copy(mount, selected, tree)
    }

    /// Mounts a folder or file as it lies there; `None` if the kernel does not.
    fn show(
        &mut self,
        mount: &Mount,
        selected: &Selected,
        place: InPlace,
    ) -> Result<Option<MountKind>, ExecError> {
        let meta = *selected.node.meta();
        let mode = match selected.path.as_slice() {
            b"" => CONTEXT_MODE,
            _ => meta.permissions(),
        };
        let is_covered =
            !mount.readonly || !place.hidden().is_empty() || mode != meta.permissions();
        if !is_covered {
            let descriptor = self.descriptors.len();
            self.descriptors.push(duplicate(place.mount())?);
            self.locals.push(LocalMount::InPlace(place));
            return Ok(Some(MountKind::Attach { descriptor }));
        }
        if !meta.is_dir() {
            return Ok(None);
        }
        let cover = self.snapshots.scratch()?;
        hide(&place, cover.dir(), mode)
            .map_err(|errno| SnapshotError::Root { source: errno.into() })?;
        let stack = [place.mount(), cover.dir()];
        let Ok(kind) = self.stack(mount, &stack) else { return Ok(None) };
        self.locals.push(LocalMount::Covered(place, cover));
        Ok(Some(kind))
    }

    fn copy(
        &mut self,
        mount: &Mount,
        selected: &Selected,
        tree: &Tree,
    ) -> Result<MountKind, ExecError> {
        let whole = selected.path.is_empty();
        let layer = self.snapshots.begin(&Snapshot::default())?;
        let name = if whole { "" } else { PART };
        file::copy_selected(tree, selected, layer.root(), name.as_bytes())?;
        let kind = self.stack(mount, &[layer.root()])?;
        self.locals.push(LocalMount::Copy(layer));
        Ok(match kind {
            MountKind::Attach { descriptor } if !whole => {
                MountKind::Part { descriptor, path: PART.to_owned() }
            }
            kind => kind,
        })
    }

    /// Mounts directories, bottom first; for a mount that is written to with another one on top.
    fn stack(
        &mut self,
        mount: &Mount,
        directories: &[BorrowedFd<'_>],
    ) -> Result<MountKind, ExecError> {
        let descriptor = self.descriptors.len();
        if mount.readonly {
            let view = self.snapshots.view_of(directories)?;
            self.descriptors.push(duplicate(view.root())?);
            self.views.push(view);
        } else {
            let layer = self.snapshots.begin_on(directories)?;
            self.descriptors.push(duplicate(layer.root())?);
            self.layers.push(Changed { layer, base: Snapshot::default(), output: None });
        }
        Ok(MountKind::Attach { descriptor })
    }
}

/// Fills a directory that is put on top of a folder: with whiteouts for what is hidden, and the directories that they are in, which look as
/// those below.
fn hide(place: &InPlace, cover: BorrowedFd<'_>, mode: u32) -> Result<(), Errno> {
    let mut directories: Vec<&[u8]> = Vec::new();
    for path in place.hidden() {
        for (end, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            let directory = &path[..end];
            match rustix::fs::mkdirat(cover, directory, Mode::RWXU) {
                Ok(()) => directories.push(directory),
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
        }
        let whiteout = rustix::fs::makedev(0, 0);
        mknodat(cover, path.as_slice(), FileType::CharacterDevice, Mode::empty(), whiteout)?;
    }
    let finish = |path: &[u8], mode: u32| {
        let mode = Mode::from_raw_mode(mode);
        let at = if path.is_empty() { b"." } else { path };
        rustix::fs::chmodat(cover, at, mode, AtFlags::empty())?;
        let mtime = place.meta(path).map_or(0, |meta| meta.mtime);
        let time = Timespec {
            tv_sec: mtime.div_euclid(1_000_000_000),
            tv_nsec: mtime.rem_euclid(1_000_000_000),
        };
        utimensat(
            cover.as_fd(),
            at,
            &Timestamps { last_access: time, last_modification: time },
            AtFlags::empty(),
        )
    };
    // What is made in a directory changes its time.
    for directory in directories.iter().rev() {
        let mode = place.meta(directory).map_or(CONTEXT_MODE, |meta| meta.permissions());
        finish(directory, mode)?;
    }
    finish(b"", mode)
}
