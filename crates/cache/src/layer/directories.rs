//! Finding and making the directories that an archive's entries belong into.

use std::collections::{HashMap, VecDeque};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, XattrFlags};
use rustix::io::Errno;

use super::apply::{ApplyError, ApplyForm};
use super::attributes::Attributes;
use super::name::{CleanName, c_string};
use super::tar_reader::Metadata;
use super::whiteout::is_whiteout;
use super::{path_of, tree};

/// What Linux follows before it takes links for a loop.
const MAX_LINKS: u32 = 40;
/// Of directories that nobody says anything about, whatever the umask is.
const IMPLICIT_MODE: Mode = Mode::from_raw_mode(0o755);

const PLACE: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
const LISTED: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The directories of a tree that is being unpacked.
///
/// Their attributes are set at the end: filling a directory changes its time, and set-group-id would change the
/// group of what is made in it.
#[derive(Debug)]
pub(super) struct Directories<'a> {
    root: BorrowedFd<'a>,
    form: ApplyForm,
    /// Where the last entry went: mostly the next one goes there too.
    current: Current,
    explicit: Vec<Explicit>,
    /// The last word on each directory, by inode: several names may lead to one directory.
    by_inode: HashMap<u64, Known>,
}

#[derive(Debug)]
struct Current {
    path: Vec<u8>,
    /// `None` when something was removed meanwhile, and the path may lead elsewhere.
    dir: Option<OwnedFd>,
}

/// A directory that the archive has an entry for.
#[derive(Debug)]
struct Explicit {
    name: CleanName,
    inode: u64,
    metadata: Metadata,
}

#[derive(Debug)]
enum Known {
    /// Index into `explicit`.
    Explicit(usize),
    /// Its path.
    Implicit(Vec<u8>),
}

impl<'a> Directories<'a> {
    pub(super) fn new(root: BorrowedFd<'a>, form: ApplyForm) -> Self {
        let current = Current { path: Vec::new(), dir: None };
        Self { root, form, current, explicit: Vec::new(), by_inode: HashMap::new() }
    }

    /// Goes to the directory that `name` is in, and makes it if need be.
    pub(super) fn enter(&mut self, name: &CleanName) -> Result<Parent<'_>, ApplyError> {
        let path = name.parent();
        if self.current.dir.is_none() || self.current.path != path {
            let dir = match self.find(path)? {
                Some(dir) => dir,
                None => self.make_all(path, name)?,
            };
            self.current = Current { path: path.to_vec(), dir: Some(dir) };
        }
        let dir = self.current.dir.as_ref().expect("it was just set").as_fd();
        Ok(Parent { dir, last: c_string(name.last()), name: name.clone() })
    }

    /// Says that names may lead elsewhere from now on.
    pub(super) fn forget_current(&mut self) {
        self.current.dir = None;
    }

    /// The directory at `path`, links inside the root followed; `None` if there is none.
    pub(super) fn find(&self, path: &[u8]) -> Result<Option<OwnedFd>, ApplyError> {
        match open_in_root(self.root, path, PLACE) {
            Ok(dir) => Ok(Some(dir)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => {
                Err(ApplyError::Entry { action: "open", path: path_of(path), source: error.into() })
            }
        }
    }

    /// Makes what `name` stands for, and what is in its way disappear. `make` must fail if the name exists.
    pub(super) fn make<T>(
        &mut self,
        name: &CleanName,
        mut make: impl FnMut(BorrowedFd<'_>, &CStr) -> Result<T, Errno>,
    ) -> Result<T, ApplyError> {
        let parent = self.enter(name)?;
        let mut made = make(parent.dir, &parent.last);
        if matches!(made, Err(Errno::EXIST)) {
            tree::remove(parent.dir, &parent.last)
                .map_err(|source| ApplyError::entry("replace", name, source))?;
            made = make(parent.dir, &parent.last);
            self.forget_current();
        }
        made.map_err(|error| ApplyError::entry("make", name, error.into()))
    }

    /// Removes what is at `name`.
    pub(super) fn remove(&mut self, name: &CleanName) -> Result<(), ApplyError> {
        let parent = self.enter(name)?;
        tree::remove(parent.dir, &parent.last)
            .map_err(|source| ApplyError::entry("remove", name, source))?;
        self.forget_current();
        Ok(())
    }

    /// Makes a directory, or takes the one that is there.
    pub(super) fn explicit(
        &mut self,
        name: &CleanName,
        metadata: &Metadata,
    ) -> Result<(), ApplyError> {
        let form = self.form;
        let parent = self.enter(name)?;
        let cannot = |source| ApplyError::entry("make the directory", name, source);
        let (stat, replaced) = parent.make_directory(form).map_err(cannot)?;
        if replaced {
            self.forget_current();
        }
        self.by_inode.insert(stat.st_ino, Known::Explicit(self.explicit.len()));
        let (name, metadata) = (name.clone(), metadata.clone());
        self.explicit.push(Explicit { name, inode: stat.st_ino, metadata });
        Ok(())
    }

    /// Takes an entry for the root itself.
    pub(super) fn explicit_root(
        &mut self,
        name: &CleanName,
        metadata: &Metadata,
    ) -> Result<(), ApplyError> {
        let stat = rustix::fs::fstat(self.root).map_err(|error| ApplyError::Root(error.into()))?;
        self.by_inode.insert(stat.st_ino, Known::Explicit(self.explicit.len()));
        let (name, metadata) = (name.clone(), metadata.clone());
        self.explicit.push(Explicit { name, inode: stat.st_ino, metadata });
        Ok(())
    }

    /// Whether there was an entry for the root itself.
    pub(super) fn has_explicit_root(&self) -> bool {
        self.explicit.iter().any(|explicit| explicit.name.is_root())
    }

    /// Sets what the archive says about directories.
    pub(super) fn set_attributes(&self, attributes: &mut Attributes) -> Result<(), ApplyError> {
        // Children before parents, mostly: a parent's mode might close it.
        for (index, Explicit { name, inode, metadata }) in self.explicit.iter().enumerate().rev() {
            match self.by_inode.get(inode) {
                Some(Known::Explicit(last)) if *last == index => {}
                _ => continue,
            }
            let dir = match open_in_root(self.root, name.as_bytes(), LISTED) {
                Ok(dir) => dir,
                // Replaced by a later entry.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(error) => return Err(ApplyError::entry("open", name, error.into())),
            };
            let stat = rustix::fs::fstat(&dir)
                .map_err(|error| ApplyError::entry("read the metadata of", name, error.into()))?;
            if stat.st_ino == *inode {
                attributes.set_directory(&dir, metadata, name)?;
            }
        }
        Ok(())
    }

    /// The directories that were needed and have no entry.
    pub(super) fn implicit(&self) -> Vec<PathBuf> {
        let implicit = self.by_inode.values().filter_map(|known| match known {
            Known::Implicit(path) => Some(path_of(path)),
            Known::Explicit(_) => None,
        });
        let mut implicit: Vec<_> = implicit.collect();
        implicit.sort_unstable();
        implicit
    }

    /// Makes all directories of `path` that do not exist, through links as the kernel would go.
    fn make_all(&mut self, path: &[u8], name: &CleanName) -> Result<OwnedFd, ApplyError> {
        let cannot =
            |error: io::Error| ApplyError::entry("make the directories above", name, error);
        let mut ahead: VecDeque<Vec<u8>> = components(path).collect();
        let mut behind: Vec<Vec<u8>> = Vec::new();
        let mut links = 0;
        let mut dir = open_in_root(self.root, b"", PLACE).map_err(|error| cannot(error.into()))?;
        while let Some(component) = ahead.pop_front() {
            if component == b".." {
                behind.pop();
                dir = open_in_root(self.root, &behind.join(&b'/'), PLACE)
                    .map_err(|error| cannot(error.into()))?;
                continue;
            }
            let last = c_string(&component);
            let present = tree::stat(dir.as_fd(), &last).map_err(cannot)?;
            if present.is_some_and(|stat| is(&stat, FileType::Symlink)) {
                links += 1;
                if links > MAX_LINKS {
                    return Err(cannot(Errno::LOOP.into()));
                }
                let target = rustix::fs::readlinkat(&dir, &last, Vec::new())
                    .map_err(|error| cannot(error.into()))?;
                if target.as_bytes().starts_with(b"/") {
                    behind.clear();
                    dir = open_in_root(self.root, b"", PLACE)
                        .map_err(|error| cannot(error.into()))?;
                }
                for component in components(target.as_bytes()).rev() {
                    ahead.push_front(component);
                }
                continue;
            }
            behind.push(component);
            if !present.is_some_and(|stat| is(&stat, FileType::Directory)) {
                if present.is_some_and(|stat| !self.is_gone(&stat)) {
                    return Err(cannot(Errno::NOTDIR.into()));
                }
                let parent = Parent { dir: dir.as_fd(), last: last.clone(), name: name.clone() };
                let (stat, _) = parent.make_directory(self.form).map_err(cannot)?;
                rustix::fs::chmodat(&dir, &last, IMPLICIT_MODE, AtFlags::empty())
                    .map_err(|error| cannot(error.into()))?;
                self.by_inode.insert(stat.st_ino, Known::Implicit(behind.join(&b'/')));
            }
            dir = rustix::fs::openat(&dir, &last, PLACE | OFlags::NOFOLLOW, Mode::empty())
                .map_err(|error| cannot(error.into()))?;
        }
        Ok(dir)
    }

    /// Whether there is nothing, in the tree that is meant.
    fn is_gone(&self, stat: &Stat) -> bool {
        self.form.is_layer() && is_whiteout(stat)
    }
}

/// The directory that an entry belongs into, and its name there.
#[derive(Debug)]
pub(super) struct Parent<'a> {
    pub(super) dir: BorrowedFd<'a>,
    pub(super) last: std::ffi::CString,
    pub(super) name: CleanName,
}

impl Parent<'_> {
    /// Makes a directory, or takes the one that is there. Says whether it replaced something else.
    ///
    /// In a layer, a directory that replaces something must hide what is below: the file or whiteout that it
    /// replaces would have.
    fn make_directory(&self, form: ApplyForm) -> io::Result<(Stat, bool)> {
        let make = || rustix::fs::mkdirat(self.dir, &self.last, IMPLICIT_MODE);
        let mut replaced = false;
        match make() {
            Err(Errno::EXIST) => {
                let stat = tree::stat(self.dir, &self.last)?;
                if !stat.is_some_and(|stat| is(&stat, FileType::Directory)) {
                    tree::remove(self.dir, &self.last)?;
                    make()?;
                    replaced = true;
                }
            }
            made => made?,
        }
        if replaced && let ApplyForm::Layer(xattrs) = form {
            let dir = tree::open_directory(self.dir, &self.last)?;
            rustix::fs::fsetxattr(&dir, xattrs.opaque(), b"y", XattrFlags::empty())?;
        }
        let stat = tree::stat(self.dir, &self.last)?.ok_or(io::ErrorKind::NotFound)?;
        Ok((stat, replaced))
    }
}

fn is(stat: &Stat, file_type: FileType) -> bool {
    FileType::from_raw_mode(stat.st_mode) == file_type
}

fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = Vec<u8>> {
    path.split(|&byte| byte == b'/')
        .filter(|component| !matches!(*component, b"" | b"."))
        .map(<[u8]>::to_vec)
}

/// Opens a path inside `root`, which it cannot leave, whatever links say.
fn open_in_root(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    loop {
        match crate::open_in_root(root, path, flags, resolve) {
            // Something was renamed anywhere on the machine while `..` was resolved.
            Err(Errno::AGAIN | Errno::INTR) => {}
            opened => return opened,
        }
    }
}
