//! A snapshot as files for the user: one tar, or a folder (section 4.8 of the behaviour reference).

use std::os::fd::BorrowedFd;

use rbuild_cache::{
    DiffError, EntryKind, PlannedCopy, TarEntry, TarWriteError, TarWriter, write_tree,
};

use crate::output_file::{FileDestination, OutputFile, OutputFileError};

/// Why a tar of a snapshot could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The place it goes to.
    #[error(transparent)]
    Output(#[from] OutputFileError),
    /// The snapshot's files.
    #[error("cannot archive the result's files")]
    Files(#[from] DiffError),
    /// Ending the archive.
    #[error("cannot write the archive")]
    Write(#[from] TarWriteError),
}

/// The files of a snapshot, and where they go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlacedTree<'a> {
    /// The directory that holds them.
    pub(crate) root: BorrowedFd<'a>,
    /// The folder of the destination; empty for its top.
    pub(crate) folder: &'a str,
    /// The latest modification time, seconds since 1970.
    pub(crate) epoch: Option<i64>,
}

/// Writes what a copy makes, with times no later than `epoch`.
pub(crate) fn write_planned_tar(
    copy: &PlannedCopy,
    destination: &FileDestination,
    epoch: Option<i64>,
) -> Result<(), TreeError> {
    let mut tar = TarWriter::new(OutputFile::create(destination)?, epoch);
    copy.write(None, &mut tar)?;
    Ok(tar.finish()?.commit()?)
}

/// Writes all files of the trees, those of each sorted by name, with times no later than its epoch.
pub(crate) fn write_tar(
    trees: &[PlacedTree<'_>],
    destination: &FileDestination,
) -> Result<(), TreeError> {
    let mut out = OutputFile::create(destination)?;
    let mut trees = trees.to_vec();
    trees.sort_by_key(|tree| tree.folder);
    for tree in trees {
        let mut tar = TarWriter::new(out, tree.epoch);
        if !tree.folder.is_empty() {
            tar.append(&TarEntry {
                path: tree.folder.as_bytes(),
                kind: EntryKind::Directory,
                mode: 0o755,
                uid: 0,
                gid: 0,
                mtime: tree.epoch.unwrap_or(0),
                xattrs: &[],
            })?;
        }
        write_tree(tree.root, tree.folder, &mut tar)?;
        out = tar.into_inner();
    }
    Ok(TarWriter::new(out, None).finish()?.commit()?)
}
