//! Copying what a path or a wildcard names (section 7 of the behaviour reference, rules 1 to 9).

use std::os::fd::AsFd as _;

use rbuild_cache::{Selected, Tree};
use rbuild_solver::{CopyAction, Selector, clean_path};

use super::archive;
use super::attributes::{Changes, set_times};
use super::chmod::ModeChange;
use super::chown::Ownership;
use super::copy_tree::{Copier, Root};
use super::error::{FileError, shown};
use super::place::{Look, NewDirectory, Place, Target, join, parent};
use super::remove::remove_path;

/// Copies.
///
/// * A file goes to `dest`, or into it when that ends in a slash or is a directory.
/// * Of a directory the contents go into `dest` (with `dir_copy_contents`, which Dockerfiles always have); its own
///   mode and owner do not. What is made on the way is 0755, or what an octal mode says.
/// * Links in `dest` are followed, within the root.
pub(super) fn run(
    action: &CopyAction,
    owner: Option<Ownership>,
    source: &Tree,
    target: Target<'_>,
) -> Result<(), FileError> {
    let mode = ModeChange::new(action.mode, &action.mode_str)?;
    let copy = Copy {
        action,
        source,
        target,
        changes: Changes { owner, mode: &mode, mtime: action.timestamp },
    };
    let selection = source.select(&selector(action))?;
    if selection.sources.is_empty() && !action.allow_empty_wildcard {
        return Err(FileError::NoMatch(action.src.clone()));
    }
    for selected in &selection.sources {
        if !(action.attempt_unpack && copy.unpack(selected)?) {
            copy.copy(selected)?;
        }
    }
    Ok(())
}

/// Whether a destination is written as a directory.
pub(super) fn names_directory(dest: &str) -> bool {
    ["/", "/.", "/.."].iter().any(|end| dest.ends_with(end)) || matches!(dest, "" | "." | "..")
}

pub(super) fn selector(action: &CopyAction) -> Selector {
    Selector {
        path: action.src.clone(),
        wildcard: action.allow_wildcard,
        follow_symlink: action.follow_symlink,
        contents_only: action.dir_copy_contents,
        include: action.include_patterns.clone(),
        exclude: action.exclude_patterns.clone(),
        required: action.required_paths.clone(),
    }
}

struct Copy<'a> {
    action: &'a CopyAction,
    source: &'a Tree,
    target: Target<'a>,
    changes: Changes<'a>,
}

impl Copy<'_> {
    fn copy(&self, selected: &Selected) -> Result<(), FileError> {
        let written = clean_path(&format!("/{}", self.action.dest));
        let Some(mtime) = self.changes.mtime else {
            return self.copy_to(written.as_bytes(), selected).map(drop);
        };
        let mut there = self.target.resolve(written.as_bytes(), true)?;
        while there.found.is_none() {
            let path = parent(&there.path).to_vec();
            there = Place { found: self.target.stat(&path)?, path };
        }
        let path = self.copy_to(written.as_bytes(), selected)?;
        // What was made in the directories on the way has given them another time.
        let mut made = parent(&path);
        while made.len() > there.path.len() {
            set_times(self.target.open_dir(made)?.as_fd(), mtime, made)?;
            made = parent(made);
        }
        Ok(())
    }

    /// Copies to where a path of the user's leads. Returns that.
    fn copy_to(&self, written: &[u8], selected: &Selected) -> Result<Vec<u8>, FileError> {
        self.make_parents(written)?;
        let place = self.target.resolve(written, true)?;
        let is_dir = selected.node.meta().is_dir();
        let inside = if is_dir {
            !self.action.dir_copy_contents && place.found.is_some()
        } else {
            place.is_dir()
        };
        let (path, found) = if inside {
            let path = join(&place.path, selected.base_name());
            let found = self.target.stat(&path)?;
            (path, found)
        } else {
            (place.path, place.found)
        };
        if path.is_empty() && !is_dir {
            return Err(FileError::IsADirectory(shown(&path)));
        }
        let copier = Copier::new(self.source, self.target, self.changes, self.replaces());
        if !is_dir {
            self.make_dirs(parent(&path), 0o755)?;
            copier.copy_file(&selected.path, &selected.node, &path)?;
            return Ok(path);
        }
        let found = found.map(|stat| super::place::file_type(&stat));
        let root = match found {
            Some(rustix::fs::FileType::Directory) => Root::Existing,
            Some(_) if self.replaces() => {
                remove_path(self.target, &path)?;
                Root::New
            }
            Some(_) => return Err(FileError::NotADirectory(shown(&path))),
            None if self.action.dir_copy_contents => {
                self.make_dirs(&path, 0o755)?;
                Root::Existing
            }
            None => {
                self.make_dirs(parent(&path), 0o755)?;
                Root::New
            }
        };
        copier.copy_tree(selected, &path, root)?;
        Ok(path)
    }

    fn replaces(&self) -> bool {
        self.action.always_replace_existing
    }

    /// Makes the directories that `dest` says there should be: those in front of its last name, or all when it ends
    /// in a slash.
    fn make_parents(&self, written: &[u8]) -> Result<(), FileError> {
        let names_directory = names_directory(&self.action.dest);
        let directory = if names_directory { written } else { parent(written) };
        let place = self.target.resolve(directory, true)?;
        if place.found.is_none() && !self.action.create_dest_path {
            return Err(FileError::NotFound(shown(&place.path)));
        }
        self.make_dirs(&place.path, self.changes.mode.of_parents())
    }

    fn make_dirs(&self, path: &[u8], mode: u32) -> Result<(), FileError> {
        let owner = self.changes.owner;
        self.target.make_dirs(path, &NewDirectory { mode, owner, mtime: self.changes.mtime })
    }

    /// Unpacks an archive into `dest`, which becomes a directory; whether it was one.
    fn unpack(&self, selected: &Selected) -> Result<bool, FileError> {
        let Some(archive) = archive::open(self.source, selected)? else { return Ok(false) };
        let written = clean_path(&format!("/{}", self.action.dest));
        let place = self.target.resolve(written.as_bytes(), true)?;
        self.make_dirs(&place.path, 0o755)?;
        archive.unpack(self.target, &place.path, self.changes.owner)?;
        Ok(true)
    }
}
