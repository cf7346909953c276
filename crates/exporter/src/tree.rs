//! A snapshot as files for the user: one tar, or a folder (section 4.8 of the behaviour reference).

use std::os::fd::BorrowedFd;

use rbuild_cache::{DiffError, TarWriteError, TarWriter, write_tree};

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

/// Writes all files below `root`, sorted by name, with times no later than `epoch`.
pub(crate) fn write_tar(
    root: BorrowedFd<'_>,
    epoch: Option<i64>,
    destination: &FileDestination,
) -> Result<(), TreeError> {
    let mut tar = TarWriter::new(OutputFile::create(destination)?, epoch);
    write_tree(root, &mut tar)?;
    Ok(tar.finish()?.commit()?)
}
