//! Unpacking archives that are copied: `ADD` of a local tar file.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::AsFd;

use rbuild_cache::{ApplyForm, ApplyOptions, ArchiveLimits, Decoder, Selected, Tree, apply};
use rbuild_solver::Selector;
use rustix::fs::FileType;

use super::attributes::Changes;
use super::chmod::ModeChange;
use super::chown::Ownership;
use super::copy_tree::{Copier, Root};
use super::error::{FileError, shown};
use super::place::{NewDirectory, Target, join};
use super::remove::remove_path;

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
    /// Unpacks into the directory at `path`. Owners and times are the archive's where none are given.
    pub(super) fn unpack(
        self,
        target: Target<'_>,
        path: &[u8],
        owner: Option<Ownership>,
        mtime: Option<i64>,
    ) -> Result<(), FileError> {
        if owner.is_none() && mtime.is_none() {
            return self.apply(target, path);
        }
        // Unpacked beside and then copied, because only then is it known what the archive has.
        let aside = join(path, format!(".rbuild-unpack-{}", std::process::id()).as_bytes());
        let new = NewDirectory { mode: 0o700, owner: Ownership::default(), mtime: None };
        target.make_dir(&aside, &new)?;
        self.apply(target, &aside)?;
        let unpacked = Tree::of_snapshot(target.open_dir(&aside)?)?;
        let everything = unpacked.select(&Selector::everything())?;
        let changes = Changes { owner, mode: &ModeChange::Keep, mtime };
        for selected in &everything.sources {
            Copier::new(&unpacked, target, changes, true).copy_tree(
                selected,
                path,
                Root::Existing,
            )?;
        }
        remove_path(target, &aside)
    }

    fn apply(&self, target: Target<'_>, path: &[u8]) -> Result<(), FileError> {
        let decoder = Decoder::for_archive(&self.file)
            .map_err(|error| FileError::io("decompress", &self.selected.path, error))?;
        let options = ApplyOptions {
            form: ApplyForm::Plain,
            ignore_chown_errors: false,
            limits: ArchiveLimits::default(),
        };
        let root = target.open_dir(path)?;
        apply(decoder, root.as_fd(), &options)
            .map_err(|source| FileError::Archive { path: shown(&self.selected.path), source })?;
        Ok(self.source.verify(&self.selected.path, &self.selected.node, self.file.as_fd())?)
    }
}
