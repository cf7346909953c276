//! Programs of this machine that a build makes use of.

use std::path::{Path, PathBuf};

use rustix::fs::Access;

/// The first file of this name in those of the folders that are absolute which can be executed.
#[must_use]
pub fn find_program(name: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    let mut candidates = folders.iter().map(|folder| folder.join(name));
    candidates.find(|file| {
        file.is_absolute()
            && file.is_file()
            && rustix::fs::access(file as &Path, Access::EXEC_OK).is_ok()
    })
}
