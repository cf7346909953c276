//! Overlay mounts that no mount table ever sees.
//!
//! `fsopen`, `fsconfig` and `fsmount` make a *detached* mount: its file descriptor is the root directory of the
//! merged tree and is handed straight to `openat2`. Closing it unmounts, so that a killed process leaves
//! nothing behind. Layers are passed by descriptor (`lowerdir+`), which spares `mount(2)`'s limit of one page
//! of options (45 layers) and all quoting of `:` and `,`. Kernels before 6.7 know no `lowerdir+`; on them the
//! same kind of mount comes about in another way (`overlay_by_path`).
//!
//! Where the kernel refuses overlays altogether, [`Overlay::copying`] makes views and layers without them (`copied`).
//!
//! `redirect_dir=nofollow,metacopy=off,index=off` is always given: it is accepted with and without `userxattr`,
//! and it keeps the upper directory readable as a layer on its own (no redirects, no files without their
//! content).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use thiserror::Error;

use crate::layer::OverlayXattrs;
use crate::overlay_by_path::{Stacks, mount_detached};
use crate::{Layers, LayersError, PendingLayer, ViewError};

/// The most lower directories that the kernel takes in one overlay (`OVL_MAX_STACK`).
const KERNEL_LOWER_LIMIT: usize = 500;

/// What every overlay is mounted with; see the module's documentation.
const OPTIONS: [(&str, &str); 3] =
    [("redirect_dir", "nofollow"), ("metacopy", "off"), ("index", "off")];

/// The most layers that can be merged: one full overlay below another, the kernel's greatest depth.
pub const MAX_LAYERS: usize = 2 * KERNEL_LOWER_LIMIT - 1;

/// How layers are put on top of one another on this machine. Made once and shared.
#[derive(Debug)]
pub struct Overlay {
    xattrs: OverlayXattrs,
    layers: Layers,
    copying: Copying,
    /// Stays empty: the merged tree of no layers, and what a lone layer is mounted over. Made when it is needed.
    empty: OnceLock<PendingLayer>,
    /// Whether the kernel takes no layer by descriptor; found out when it refuses the first.
    by_path: AtomicBool,
}

/// When files are copied instead of mounted.
#[derive(Debug)]
enum Copying {
    Never,
    Always,
    /// What the kernel said, if it refused, once it was asked.
    IfRefused(OnceLock<Option<ViewError>>),
}

/// Where writes to an overlay go.
#[derive(Debug, Clone, Copy)]
pub struct Upper<'a> {
    /// Receives the changes; becomes the layer.
    pub dir: BorrowedFd<'a>,
    /// The kernel's scratch directory: empty, on the same file system as `dir`, used by one mount at a time.
    pub work: BorrowedFd<'a>,
}

impl Overlay {
    /// Prepares to mount the layers of a store, with attributes in the namespace that this process may use.
    #[must_use]
    pub fn new(xattrs: OverlayXattrs, layers: &Layers) -> Self {
        Self {
            xattrs,
            layers: layers.clone(),
            copying: Copying::Never,
            empty: OnceLock::new(),
            by_path: AtomicBool::new(false),
        }
    }

    /// Makes it mount as it has to on kernels before 6.7, which also works on later ones, but takes longer.
    #[must_use]
    pub fn by_path(mut self) -> Self {
        *self.by_path.get_mut() = true;
        self
    }

    /// Makes it copy files where it would mount.
    #[must_use]
    pub fn copying(mut self) -> Self {
        self.copying = Copying::Always;
        self
    }

    /// Makes it copy files where it would mount if the kernel refuses overlays, which is found out when the first is needed.
    #[must_use]
    pub fn copying_if_refused(mut self) -> Self {
        self.copying = Copying::IfRefused(OnceLock::new());
        self
    }

    /// Whether files are copied instead of mounted.
    pub fn copies(&self) -> bool {
        match &self.copying {
            Copying::Never => false,
            Copying::Always => true,
            Copying::IfRefused(refusal) => refusal.get_or_init(|| self.probe().err()).is_some(),
        }
    }

    /// Why files were copied instead of mounted, if they were because of a refusal.
    pub fn refusal(&self) -> Option<&ViewError> {
        match &self.copying {
            Copying::IfRefused(refusal) => refusal.get()?.as_ref(),
            Copying::Never | Copying::Always => None,
        }
    }

    /// Tries whether the kernel mounts an overlay that can be written to, with its layers where the store is.
    ///
    /// # Errors
    ///
    /// When it does not.
    pub fn probe(&self) -> Result<(), ViewError> {
        let mut pending = self.layers.begin()?;
        let work = pending.work_dir()?.try_clone_to_owned().map_err(ViewError::Root)?;
        let upper = Upper { dir: pending.dir(), work: work.as_fd() };
        self.mount(&[self.empty()?], Some(upper))?;
        Ok(())
    }

    /// The layer directories of the store.
    pub(crate) fn layers(&self) -> &Layers {
        &self.layers
    }

    /// Where overlayfs keeps its own attributes.
    pub fn xattrs(&self) -> OverlayXattrs {
        self.xattrs
    }

    /// The directory that stays empty.
    pub(crate) fn empty(&self) -> Result<BorrowedFd<'_>, OverlayError> {
        if let Some(empty) = self.empty.get() {
            return Ok(empty.dir());
        }
        let made = self.layers.begin().map_err(OverlayError::Empty)?;
        // Of two that were made at once one goes.
        Ok(self.empty.get_or_init(|| made).dir())
    }

    /// Mounts `lowers` (bottom first, at least one), read only unless there is an `upper`, and returns the root
    /// of the merged tree.
    ///
    /// A lone layer without an upper is mounted over an empty directory, which the kernel would otherwise
    /// refuse: so whiteouts in it are not seen, and nothing can be written into a finished layer.
    pub fn mount(
        &self,
        lowers: &[BorrowedFd<'_>],
        upper: Option<Upper<'_>>,
    ) -> Result<OwnedFd, OverlayError> {
        if lowers.len() > MAX_LAYERS {
            return Err(OverlayError::TooManyLayers { count: lowers.len() });
        }
        if self.by_path.load(Ordering::Relaxed) {
            return self.mount_by_path(lowers, upper);
        }
        match self.mount_by_descriptor(lowers, upper) {
            Err(refused) if refused.is_invalid() => {
                // Either that is true, or the kernel is an older one and does not know the question.
                let Ok(root) = self.mount_by_path(lowers, upper) else { return Err(refused) };
                // A kernel that knows it may still want the lower one of two overlays attached.
                let is_old = lowers.len() <= KERNEL_LOWER_LIMIT;
                self.by_path.store(is_old, Ordering::Relaxed);
                Ok(root)
            }
            result => result,
        }
    }

    fn mount_by_descriptor(
        &self,
        lowers: &[BorrowedFd<'_>],
        upper: Option<Upper<'_>>,
    ) -> Result<OwnedFd, OverlayError> {
        let (below, top) = stacks(self.over_two(lowers, upper.is_some())?);
        let below = below.map(|below| self.mount_stack(&below, None)).transpose()?;
        let below = below.as_ref().map(AsFd::as_fd);
        let stack: Vec<_> = below.into_iter().chain(top).collect();
        self.mount_stack(&stack, upper)
    }

    fn mount_by_path(
        &self,
        lowers: &[BorrowedFd<'_>],
        upper: Option<Upper<'_>>,
    ) -> Result<OwnedFd, OverlayError> {
        let (below, top) = stacks(self.over_two(lowers, upper.is_some())?);
        let lowers = below.into_iter().chain([top]).collect();
        let mut options: Vec<String> =
            OPTIONS.iter().map(|(key, value)| format!("{key}={value}")).collect();
        if self.xattrs == OverlayXattrs::User {
            options.push("userxattr".to_owned());
        }
        let stacks = Stacks { lowers, upper, place: self.empty()?, options: options.join(",") };
        mount_detached(&stacks).map_err(refused_mount)
    }

    /// The layers, with the empty directory below a lone one that nothing is written over: the kernel wants two.
    fn over_two<'a>(
        &'a self,
        lowers: &[BorrowedFd<'a>],
        has_upper: bool,
    ) -> Result<Vec<BorrowedFd<'a>>, OverlayError> {
        Ok(match lowers {
            [lone] if !has_upper => vec![self.empty()?, *lone],
            _ => lowers.to_vec(),
        })
    }

    fn mount_stack(
        &self,
        lowers: &[BorrowedFd<'_>],
        upper: Option<Upper<'_>>,
    ) -> Result<OwnedFd, OverlayError> {
        let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
            .map_err(|error| OverlayError::Unavailable { source: error.into() })?;
        let set = |key: &'static str, value: &str| {
            rustix::mount::fsconfig_set_string(&context, key, value)
                .map_err(|error| refused(&context, key, error))
        };
        for (key, value) in OPTIONS {
            set(key, value)?;
        }
        set("source", "rbuild")?;
        if self.xattrs == OverlayXattrs::User {
            rustix::mount::fsconfig_set_flag(&context, "userxattr")
                .map_err(|error| refused(&context, "userxattr", error))?;
        }
        // The kernel wants the topmost layer first.
        for lower in lowers.iter().rev() {
            set_directory(&context, "lowerdir+", *lower)?;
        }
        if let Some(upper) = upper {
            set_directory(&context, "upperdir", upper.dir)?;
            set_directory(&context, "workdir", upper.work)?;
            // Without it every unmount syncs the file system; layers are synced once, when they are committed.
            rustix::mount::fsconfig_set_flag(&context, "volatile")
                .map_err(|error| refused(&context, "volatile", error))?;
        }
        rustix::mount::fsconfig_create(&context)
            .map_err(|error| refused(&context, "create", error))?;
        let attributes = match upper {
            Some(_) => MountAttrFlags::empty(),
            None => MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV,
        };
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
            .map_err(|error| refused(&context, "fsmount", error))
    }
}

/// The layers as the kernel takes them: what has to be an overlay of its own below the others, and those others.
fn stacks(mut lowers: Vec<BorrowedFd<'_>>) -> (Option<Vec<BorrowedFd<'_>>>, Vec<BorrowedFd<'_>>) {
    if lowers.len() <= KERNEL_LOWER_LIMIT {
        return (None, lowers);
    }
    let rest = lowers.split_off(lowers.len() - (KERNEL_LOWER_LIMIT - 1));
    (Some(lowers), rest)
}

/// Gives overlayfs a directory by descriptor, and by its name in `/proc` where the kernel (before 6.13) takes
/// no descriptors.
fn set_directory(
    context: &OwnedFd,
    key: &'static str,
    dir: BorrowedFd<'_>,
) -> Result<(), OverlayError> {
    match rustix::mount::fsconfig_set_fd(context, key, dir) {
        Err(Errno::INVAL) => {
            let path = format!("/proc/self/fd/{}", dir.as_raw_fd());
            rustix::mount::fsconfig_set_string(context, key, path)
                .map_err(|error| refused(context, key, error))
        }
        other => other.map_err(|error| refused(context, key, error)),
    }
}

fn refused(context: &OwnedFd, step: &'static str, error: Errno) -> OverlayError {
    OverlayError::Refused {
        step,
        explanation: Explanation(kernel_messages(context)),
        source: error.into(),
    }
}

fn refused_mount(error: Errno) -> OverlayError {
    let explanation = Explanation(Vec::new());
    OverlayError::Refused { step: "mount", explanation, source: error.into() }
}

/// What the kernel says about a failed configuration: one message a read, prefixed with its severity (`e `, `w
/// `, `i `).
fn kernel_messages(context: &OwnedFd) -> Vec<String> {
    let mut messages = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(length) = rustix::io::read(context, &mut buffer) {
        if length == 0 {
            break;
        }
        let text = String::from_utf8_lossy(&buffer[..length]);
        messages.push(text.get(2..).unwrap_or(&text).trim_end().to_owned());
    }
    messages
}

/// The kernel's own words about a refused mount; may be empty.
#[derive(Debug)]
pub struct Explanation(Vec<String>);

impl std::fmt::Display for Explanation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.as_slice() {
            [] => Ok(()),
            messages => write!(f, " ({})", messages.join("; ")),
        }
    }
}

/// An overlay that could not be mounted.
#[derive(Debug, Error)]
pub enum OverlayError {
    /// The kernel has no overlayfs, or no new mount API, or does not let this process mount.
    #[error("cannot use overlayfs; it needs Linux 5.12 or later, and root or a user namespace")]
    Unavailable {
        /// The kernel's answer to `fsopen`.
        source: io::Error,
    },
    /// The kernel refused a layer, an option, or the file system that the layers are on.
    #[error(
        "the kernel refused an overlay mount at `{step}`{explanation}; \
         the store must be on a file system that can hold overlay layers (ext4, xfs, btrfs, tmpfs; not NFS, not an overlay itself)"
    )]
    Refused {
        /// The mount option or call that failed.
        step: &'static str,
        /// What the kernel had to say.
        explanation: Explanation,
        /// The error number.
        source: io::Error,
    },
    /// More layers than two overlays on top of each other can take.
    #[error("cannot merge {count} layers; the kernel takes at most {MAX_LAYERS}")]
    TooManyLayers {
        /// How many there are.
        count: usize,
    },
    /// The directory that stays empty could not be made.
    #[error("cannot make an empty directory")]
    Empty(#[source] LayersError),
    /// It could not be opened.
    #[error("cannot open the empty directory")]
    Open {
        /// Why.
        source: io::Error,
    },
}

impl OverlayError {
    /// Whether the kernel did not understand what it was asked for, as one says.
    fn is_invalid(&self) -> bool {
        let invalid = Errno::INVAL.raw_os_error();
        matches!(self, Self::Refused { source, .. } if source.raw_os_error() == Some(invalid))
    }
}
