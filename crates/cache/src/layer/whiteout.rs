//! How a layer says that something below it is gone.
//!
//! | | in an archive | in a layer directory |
//! |---|---|---|
//! | one name is gone | an entry `.wh.<name>` | a character device 0:0 called `<name>` |
//! | all names below are gone | an entry `.wh..wh..opq` in the directory | the directory's xattr `overlay.opaque` = `y` |
//!
//! Where the surroundings of the process let nobody make even such a device (a filter of system calls, a kernel before 5.8 without
//! `CAP_MKNOD`), the name is an empty file with the attribute `overlay.whiteout`, in a directory whose `overlay.opaque` is `x`. That is
//! overlayfs's other form, which Linux mounts from 6.8 on and rbuild reads everywhere.
//!
//! overlayfs keeps its attributes under `trusted.`, or under `user.` when it is mounted in a user namespace. An
//! image may itself contain attributes of that name (somebody stored an overlay in it). They are *escaped* on
//! the way in, `trusted.overlay.x` becoming `trusted.overlay.overlay.x`, so that an image cannot redirect or
//! hide files of the layers below; and unescaped on the way out.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, Mode, OFlags, Stat, XattrFlags};
use rustix::io::Errno;

use super::tree;

/// What the name of a deletion starts with in an archive.
pub(crate) const PREFIX: &[u8] = b".wh.";
/// The name that makes its directory opaque in an archive.
pub(crate) const OPAQUE: &[u8] = b".wh..wh..opq";
/// Names that start so belong to AUFS and mean nothing here (`.wh..wh.orph`, `.wh..wh.aufs`), nor does what is below.
const AUFS_PREFIX: &[u8] = b".wh..wh.";
/// Where AUFS keeps, in the root, the files that hard links between its branches lead to.
pub(crate) const AUFS_LINKS: &[u8] = b".wh..wh.plnk";

/// The namespace in which overlayfs keeps its extended attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverlayXattrs {
    /// `trusted.overlay.*`: mounted by root.
    Trusted,
    /// `user.overlay.*`: mounted in a user namespace (`userxattr`).
    User,
}

impl OverlayXattrs {
    pub(crate) fn prefix(self) -> &'static [u8] {
        match self {
            Self::Trusted => b"trusted.overlay.",
            Self::User => b"user.overlay.",
        }
    }

    pub(crate) fn opaque(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.overlay.opaque",
            Self::User => "user.overlay.opaque",
        }
    }

    pub(crate) fn whiteout(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.overlay.whiteout",
            Self::User => "user.overlay.whiteout",
        }
    }

    /// The name under which a layer directory holds the archive's attribute `name`.
    pub(crate) fn escape(self, name: &[u8]) -> Vec<u8> {
        match name.strip_prefix(self.prefix()) {
            Some(rest) => [self.prefix(), b"overlay.", rest].concat(),
            None => name.to_vec(),
        }
    }

    /// What an attribute found in a layer directory is.
    pub(crate) fn classify(self, name: &[u8]) -> LayerXattr {
        let Some(rest) = name.strip_prefix(self.prefix()) else { return LayerXattr::Plain };
        match rest {
            b"opaque" => LayerXattr::Opaque,
            b"whiteout" => LayerXattr::Whiteout,
            b"redirect" => LayerXattr::Redirect,
            b"metacopy" => LayerXattr::Metacopy,
            _ => match rest.strip_prefix(b"overlay.") {
                Some(original) => LayerXattr::Escaped([self.prefix(), original].concat()),
                None => LayerXattr::Internal,
            },
        }
    }
}

/// What an extended attribute in a layer directory means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum LayerXattr {
    /// Nothing to do with overlayfs.
    Plain,
    /// `overlay.opaque`.
    Opaque,
    /// `overlay.whiteout`: a whiteout without a device node, in a directory with `opaque` = `x`.
    Whiteout,
    /// `overlay.redirect`: the content of the directory is elsewhere.
    Redirect,
    /// `overlay.metacopy`: the content of the file is below.
    Metacopy,
    /// The image's own attribute of this name.
    Escaped(Vec<u8>),
    /// overlayfs's bookkeeping (`impure`, `origin`, `uuid`, ..).
    Internal,
}

/// What the last component of an archive's name asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Marker<'a> {
    /// An ordinary file.
    None,
    /// Delete this name.
    Whiteout(&'a [u8]),
    /// Delete what the directory holds below.
    Opaque,
    /// AUFS's bookkeeping: skip.
    Aufs,
    /// A deletion of nothing, of `.` or of `..`.
    Invalid,
}

impl<'a> Marker<'a> {
    pub(crate) fn parse(name: &'a [u8]) -> Self {
        let Some(target) = name.strip_prefix(PREFIX) else { return Self::None };
        match target {
            _ if name == OPAQUE => Self::Opaque,
            b"" | b"." | b".." => Self::Invalid,
            _ if name.starts_with(AUFS_PREFIX) => Self::Aufs,
            _ => Self::Whiteout(target),
        }
    }
}

/// Whether a directory of this path in an archive is AUFS's bookkeeping, or below that.
pub(crate) fn is_aufs(directory: &[u8]) -> bool {
    directory.split(|&byte| byte == b'/').any(|component| component.starts_with(AUFS_PREFIX))
}

/// Makes a whiteout in a directory of a layer, where nothing has the name.
pub(crate) fn place_whiteout(
    dir: BorrowedFd<'_>,
    name: &CStr,
    xattrs: OverlayXattrs,
) -> Result<(), Errno> {
    match rustix::fs::mknodat(dir, name, FileType::CharacterDevice, Mode::empty(), 0) {
        Err(Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP | Errno::NOSYS) => {
            place_xattr_whiteout(dir, name, xattrs)
        }
        made => made,
    }
}

fn place_xattr_whiteout(
    dir: BorrowedFd<'_>,
    name: &CStr,
    xattrs: OverlayXattrs,
) -> Result<(), Errno> {
    // The descriptor may be one of a place only.
    let dir = tree::open_directory(dir, c".")
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    match rustix::fs::fsetxattr(&dir, xattrs.opaque(), b"x", XattrFlags::CREATE) {
        // Nothing below shows through it anyway.
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&dir, name, flags, Mode::RUSR)?;
    rustix::fs::fsetxattr(&file, xattrs.whiteout(), b"y", XattrFlags::empty())
}

/// Whether a file in a layer directory is a whiteout.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

#[cfg(test)]
#[expect(clippy::print_stderr, reason = "says what is skipped")]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_whiteout_without_a_device_is_read_as_one() {
        let folder = tempfile::tempdir().unwrap();
        let dir = std::fs::File::open(folder.path()).unwrap();
        if place_xattr_whiteout(dir.as_fd(), c"gone", OverlayXattrs::User) == Err(Errno::OPNOTSUPP)
        {
            eprintln!("SKIPPED a_whiteout_without_a_device_is_read_as_one: no extended attributes");
            return;
        }
        place_xattr_whiteout(dir.as_fd(), c"too", OverlayXattrs::User).unwrap();
        std::fs::write(folder.path().join("empty"), "").unwrap();
        let merged = crate::copied::Merged::root(&[dir.as_fd()], OverlayXattrs::User).unwrap();
        let names: Vec<_> = merged.entries().unwrap().into_keys().collect();
        assert_eq!(names, [c"empty".to_owned()]);
        assert!(merged.lookup(c"gone").unwrap().is_none());
    }

    #[test]
    fn markers() {
        assert_eq!(Marker::parse(b"file"), Marker::None);
        assert_eq!(Marker::parse(b".whfile"), Marker::None);
        assert_eq!(Marker::parse(b".wh.file"), Marker::Whiteout(b"file"));
        assert_eq!(Marker::parse(b".wh..hidden"), Marker::Whiteout(b".hidden"));
        assert_eq!(Marker::parse(b".wh..wh..opq"), Marker::Opaque);
        assert_eq!(Marker::parse(b".wh..wh.plnk"), Marker::Aufs);
        assert_eq!(Marker::parse(b".wh..wh.x"), Marker::Aufs);
        assert_eq!(Marker::parse(b".wh."), Marker::Invalid);
        assert_eq!(Marker::parse(b".wh.."), Marker::Invalid);
        assert_eq!(Marker::parse(b".wh..."), Marker::Invalid);
    }

    #[test]
    fn escaping_is_undone_and_touches_only_its_own_namespace() {
        let xattrs = OverlayXattrs::Trusted;
        assert_eq!(xattrs.escape(b"trusted.overlay.opaque"), b"trusted.overlay.overlay.opaque");
        assert_eq!(xattrs.escape(b"user.overlay.opaque"), b"user.overlay.opaque");
        for name in
            [&b"trusted.overlay.opaque"[..], b"trusted.overlay.overlay.opaque", b"trusted.overlay."]
        {
            assert_eq!(xattrs.classify(&xattrs.escape(name)), LayerXattr::Escaped(name.to_vec()));
        }
        assert_eq!(xattrs.classify(b"user.mime"), LayerXattr::Plain);
        assert_eq!(xattrs.classify(b"trusted.overlay.origin"), LayerXattr::Internal);
        assert_eq!(OverlayXattrs::User.classify(b"user.overlay.opaque"), LayerXattr::Opaque);
    }
}
