//! Owner, mode, extended attributes and time of what an archive holds.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Gid, Mode, Uid, XattrFlags};
use rustix::io::Errno;

use super::apply::{ApplyError, ApplyForm, timestamps};
use super::directories::Parent;
use super::name::CleanName;
use super::tar_reader::Metadata;
use super::tree;
use crate::tree::is_kept_xattr;

/// Sets attributes, in the order in which they survive each other: a change of owner clears set-id bits and
/// capabilities.
#[derive(Debug)]
pub(super) struct Attributes {
    form: ApplyForm,
    /// Whom new files belong to, where that is certain; spares a call for each file.
    creator: Option<(u32, u32)>,
    ignore_chown_errors: bool,
    pub(super) skipped: Skipped,
}

/// What could not be set.
#[derive(Debug, Default)]
pub(super) struct Skipped {
    pub(super) xattrs: u64,
    pub(super) owners: u64,
}

impl Attributes {
    pub(super) fn new(form: ApplyForm, owner_is_ours: bool, ignore_chown_errors: bool) -> Self {
        let ours = || (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Self {
            form,
            creator: owner_is_ours.then(ours),
            ignore_chown_errors,
            skipped: Skipped::default(),
        }
    }

    /// Of an open directory, which may have been there before and then loses what the archive does not mention.
    pub(super) fn set_directory(
        &mut self,
        dir: &OwnedFd,
        metadata: &Metadata,
        name: &CleanName,
    ) -> Result<(), ApplyError> {
        if !self.form.is_layer() {
            let cannot =
                |source| ApplyError::entry("replace the extended attributes of", name, source);
            for present in tree::xattrs(dir).map_err(cannot)? {
                let is_given = metadata.xattrs.iter().any(|given| given.name == present.name);
                if !is_given && is_kept_xattr(&present.name) {
                    match rustix::fs::fremovexattr(dir, &*present.name) {
                        Ok(()) | Err(Errno::PERM | Errno::NODATA | Errno::OPNOTSUPP) => {}
                        Err(error) => return Err(cannot(error.into())),
                    }
                }
            }
        }
        self.set(dir, metadata, name)
    }

    /// Of an open file.
    pub(super) fn set(
        &mut self,
        file: impl AsFd,
        metadata: &Metadata,
        name: &CleanName,
    ) -> Result<(), ApplyError> {
        let file = file.as_fd();
        self.owner(metadata, name, |uid, gid| rustix::fs::fchown(file, uid, gid))?;
        rustix::fs::fchmod(file, Mode::from_raw_mode(metadata.mode))
            .map_err(|error| ApplyError::entry("set the mode of", name, error.into()))?;
        for xattr in &metadata.xattrs {
            if xattr.name == b"security.selinux" {
                // The label is the host's business, not the image's.
                continue;
            }
            let key = match self.form {
                ApplyForm::Layer(overlay) => overlay.escape(&xattr.name),
                ApplyForm::Merged | ApplyForm::Plain => xattr.name.clone(),
            };
            match rustix::fs::fsetxattr(file, key, &xattr.value, XattrFlags::empty()) {
                Ok(()) => {}
                Err(Errno::PERM | Errno::OPNOTSUPP) => self.skipped.xattrs += 1,
                Err(error) => {
                    let action = "set an extended attribute of";
                    return Err(ApplyError::entry(action, name, error.into()));
                }
            }
        }
        rustix::fs::futimens(file, &timestamps(metadata.mtime))
            .map_err(|error| ApplyError::entry("set the time of", name, error.into()))
    }

    /// Of what cannot be opened. Its extended attributes are none that an image may have.
    pub(super) fn set_at(
        &mut self,
        Parent { dir, last, name }: &Parent<'_>,
        metadata: &Metadata,
        has_mode: bool,
    ) -> Result<(), ApplyError> {
        let last = last.as_c_str();
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        self.owner(metadata, name, |uid, gid| rustix::fs::chownat(dir, last, uid, gid, flags))?;
        if has_mode {
            // Follows links, but this is none: it was made a moment ago, and nobody else is here.
            rustix::fs::chmodat(dir, last, Mode::from_raw_mode(metadata.mode), AtFlags::empty())
                .map_err(|error| ApplyError::entry("set the mode of", name, error.into()))?;
        }
        rustix::fs::utimensat(dir, last, &timestamps(metadata.mtime), flags)
            .map_err(|error| ApplyError::entry("set the time of", name, error.into()))
    }

    fn owner(
        &mut self,
        metadata: &Metadata,
        name: &CleanName,
        chown: impl FnOnce(Option<Uid>, Option<Gid>) -> Result<(), Errno>,
    ) -> Result<(), ApplyError> {
        let (uid, gid) = (metadata.uid, metadata.gid);
        if self.creator == Some((uid, gid)) {
            return Ok(());
        }
        // The last id stands for no change, as it does for the kernel.
        let change = |id: u32| (id != u32::MAX).then_some(id);
        match chown(change(uid).map(Uid::from_raw), change(gid).map(Gid::from_raw)) {
            Ok(()) => Ok(()),
            Err(Errno::INVAL | Errno::PERM) if self.ignore_chown_errors => {
                self.skipped.owners += 1;
                Ok(())
            }
            Err(Errno::INVAL) => Err(ApplyError::Owner {
                path: name.path(),
                uid,
                gid,
                source: io::Error::from(Errno::INVAL),
            }),
            Err(error) => Err(ApplyError::entry("change the owner of", name, error.into())),
        }
    }
}
