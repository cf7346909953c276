//! Unpacking archives that are copied: `ADD` of a local tar file.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::AsFd;

use rbuild_cache::{ApplyForm, ApplyOptions, ArchiveLimits, Decoder, Selected, Tree, apply};
use rustix::fs::FileType;

use super::chown::Ownership;
use super::error::{FileError, shown};
use super::place::Target;

const BLOCK: usize = 512;

/// A file that is a tar archive, perhaps compressed: by its content, whatever its name is.
pub(super) struct Archive<'a> {
    source: &'a Tree,
    selected: &'a Selected,
    file: File,
}

/// Opens what a copy selects if it is an archive.
pub(super) fn open<'a>(
    source: &'a Tree,
    selected: &'a Selected,
) -> Result<Option<Archive<'a>>, FileError> {
    if selected.node.meta().file_type() != FileType::RegularFile {
        return Ok(None);
    }
    let mut file = File::from(source.open(&selected.path, &selected.node)?);
    let mut block = Vec::with_capacity(BLOCK);
    let decoder = Decoder::for_archive(&file);
    let decoder = decoder.map_err(|error| FileError::io("read", &selected.path, error))?;
    // What cannot be decompressed only looks compressed, and is copied as it is.
    if decoder.take(BLOCK as u64).read_to_end(&mut block).is_err() {
        return Ok(None);
    }
    if !is_tar_header(&block) {
        return Ok(None);
    }
    file.rewind().map_err(|error| FileError::io("read", &selected.path, error))?;
    Ok(Some(Archive { source, selected, file }))
}

/// Whether a block has the checksum of a tar header.
fn is_tar_header(block: &[u8]) -> bool {
    let (Ok(block), true) = (<&[u8; BLOCK]>::try_from(block), block.iter().any(|byte| *byte != 0))
    else {
        return false;
    };
    let header = tar::Header::from_byte_slice(block);
    let checksum_field = 148..156;
    let sum = block
        .iter()
        .enumerate()
        .map(|(at, byte)| u32::from(if checksum_field.contains(&at) { b' ' } else { *byte }));
    header.cksum().is_ok_and(|expected| expected == sum.sum::<u32>())
}

impl Archive<'_> {
    /// Unpacks into the directory at `path`. The owner is that of the archive's entries, not of directories that they
    /// only imply, which are root's; times are always the archive's.
    pub(super) fn unpack(
        self,
        target: Target<'_>,
        path: &[u8],
        owner: Option<Ownership>,
    ) -> Result<(), FileError> {
        let decoder = Decoder::for_archive(&self.file)
            .map_err(|error| FileError::io("decompress", &self.selected.path, error))?;
        let options = ApplyOptions {
            form: ApplyForm::Plain,
            ignore_chown_errors: false,
            owner: owner.map(|owner| (owner.uid, owner.gid)),
            limits: ArchiveLimits::default(),
        };
        let root = target.open_dir(path)?;
        apply(decoder, root.as_fd(), &options)
            .map_err(|source| FileError::Archive { path: shown(&self.selected.path), source })?;
        Ok(self.source.verify(&self.selected.path, &self.selected.node, self.file.as_fd())?)
    }
}
