//! A folder of the user's from a copy that is not done: its files go there straight from where they come from.

use std::ffi::CString;
use std::os::fd::{AsFd as _, OwnedFd};

use rbuild_cache::{Meta, PlannedCopy};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::local::{Copier, FileName, Finished, LocalError};

/// A directory of the destination that is being filled.
struct Level {
    opened: OwnedFd,
    name: CString,
    finished: Finished,
}

/// So deep may what is copied be: its directories are open one in another.
const MOST_DEPTH: usize = 32;

/// Whether a copy can go to a folder as it is.
pub(crate) fn fits(copy: &PlannedCopy) -> bool {
    let depth = |path: &[u8]| path.iter().filter(|byte| **byte == b'/').count();
    copy.entries().all(|entry| depth(&entry.path) < MOST_DEPTH)
}

impl Copier<'_> {
    /// Does a copy. Nothing is below what it makes.
    pub(crate) fn run_planned(&mut self, copy: &PlannedCopy) -> Result<(), LocalError> {
        let mut buffer = Vec::new();
        let mut levels: Vec<Level> = Vec::new();
        for directory in &copy.parents {
            self.open_level(&mut levels, &directory.name, Finished::from(directory.attributes))?;
        }
        for entry in copy.entries() {
            let mut names = entry.path.split(|&byte| byte == b'/');
            let name = names.next_back().unwrap_or_default();
            let depth = names.count();
            self.close_levels(&mut levels, depth)?;
            let finished = Finished::from(entry.attributes);
            if entry.node.meta().is_dir() {
                self.open_level(&mut levels, name, finished)?;
                continue;
            }
            let name = self.c_name(name)?;
            self.enter(&name);
            let to = levels.last().map_or(self.top, |level| level.opened.as_fd());
            let Meta { dev, ino, nlink, .. } = *entry.node.meta();
            if self.begin_file(to, &name, &FileName { id: (dev, ino), names: nlink })? {
                let opened = match entry.node.meta().file_type() {
                    FileType::Symlink => {
                        let target = entry.node.link_target().unwrap_or_default();
                        rustix::fs::symlinkat(target, to, &name)
                            .map_err(|error| self.fail("create the link", error))?;
                        None
                    }
                    _ => {
                        let flags = OFlags::RDWR
                            | OFlags::CREATE
                            | OFlags::EXCL
                            | OFlags::NOFOLLOW
                            | OFlags::CLOEXEC;
                        let made = rustix::fs::openat(to, &name, flags, Mode::from_raw_mode(0o600))
                            .map_err(|error| self.fail("create", error))?;
                        copy.copy_content(&entry, made.as_fd(), (&self.data, &mut buffer))
                            .map_err(|source| self.fail_with("write", source))?;
                        Some(made)
                    }
                };
                self.finish(to, &name, &finished, opened.as_ref().map(OwnedFd::as_fd))?;
            }
            self.leave(&name);
        }
        self.close_levels(&mut levels, 0)
    }

    fn open_level(
        &mut self,
        levels: &mut Vec<Level>,
        name: &[u8],
        finished: Finished,
    ) -> Result<(), LocalError> {
        let name = self.c_name(name)?;
        self.enter(&name);
        let to = levels.last().map_or(self.top, |level| level.opened.as_fd());
        let opened = self.make_directory(to, &name)?;
        levels.push(Level { opened, name, finished });
        Ok(())
    }

    /// Ends directories until so many are open.
    fn close_levels(&mut self, levels: &mut Vec<Level>, depth: usize) -> Result<(), LocalError> {
        while levels.len() > depth
            && let Some(level) = levels.pop()
        {
            let to = levels.last().map_or(self.top, |level| level.opened.as_fd());
            self.finish(to, &level.name, &level.finished, Some(level.opened.as_fd()))?;
            self.leave(&level.name);
        }
        Ok(())
    }

    fn c_name(&self, name: &[u8]) -> Result<CString, LocalError> {
        CString::new(name).map_err(|_| self.fail("name", Errno::INVAL))
    }
}
