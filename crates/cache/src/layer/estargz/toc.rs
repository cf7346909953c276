//! The table of contents.

use std::collections::BTreeMap;

use base64::Engine as _;
use rbuild_oci::Digest;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::layer::EntryKind;
use crate::layer::tar_reader::Entry;

/// What is where in the blob.
#[derive(Debug, Serialize)]
pub(super) struct Toc {
    version: u32,
    entries: Vec<TocEntry>,
}

/// A file, or a further chunk of the file before it. What is empty or zero is left out.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct TocEntry {
    name: String,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "is_zero")]
    size: u64,
    #[serde(rename = "modtime", skip_serializing_if = "String::is_empty")]
    modification_time: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    link_name: String,
    #[serde(skip_serializing_if = "is_zero")]
    mode: u64,
    #[serde(skip_serializing_if = "is_zero")]
    uid: u64,
    #[serde(skip_serializing_if = "is_zero")]
    gid: u64,
    /// Where the member with the content begins.
    #[serde(skip_serializing_if = "is_zero")]
    offset: u64,
    #[serde(skip_serializing_if = "is_zero")]
    dev_major: u64,
    #[serde(skip_serializing_if = "is_zero")]
    dev_minor: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    xattrs: BTreeMap<String, String>,
    /// Of the whole file.
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    #[serde(skip_serializing_if = "is_zero")]
    chunk_offset: u64,
    /// Missing in the last chunk of a file.
    #[serde(skip_serializing_if = "is_zero")]
    chunk_size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    chunk_digest: Option<Digest>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Toc {
    pub(super) fn new() -> Self {
        Self { version: 1, entries: Vec::new() }
    }

    /// Lists an entry of the archive; its position in the table.
    pub(super) fn add(&mut self, entry: &Entry) -> usize {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let metadata = &entry.metadata;
        let base64 = &base64::engine::general_purpose::STANDARD;
        let xattrs = metadata.xattrs.iter();
        let mut listed = TocEntry {
            name: text(&entry.path),
            modification_time: time_text(metadata.mtime.seconds),
            mode: metadata.mode.into(),
            uid: metadata.uid.into(),
            gid: metadata.gid.into(),
            xattrs: xattrs.map(|xattr| (text(&xattr.name), base64.encode(&xattr.value))).collect(),
            ..TocEntry::default()
        };
        let mut device = |major: u32, minor: u32| {
            (listed.dev_major, listed.dev_minor) = (major.into(), minor.into());
        };
        listed.kind = match entry.kind() {
            EntryKind::File { size } => {
                listed.size = size;
                listed.digest = (size == 0).then(|| Digest::of(b""));
                "reg"
            }
            EntryKind::Directory => "dir",
            EntryKind::Symlink { target } => {
                listed.link_name = text(target);
                "symlink"
            }
            EntryKind::HardLink { target } => {
                listed.link_name = text(target);
                "hardlink"
            }
            EntryKind::CharacterDevice { major, minor } => {
                device(major, minor);
                "char"
            }
            EntryKind::BlockDevice { major, minor } => {
                device(major, minor);
                "block"
            }
            EntryKind::Fifo => "fifo",
        };
        self.entries.push(listed);
        self.entries.len() - 1
    }

    /// Lists a further chunk of a file, from `offset` in it on; its position in the table.
    pub(super) fn add_chunk(&mut self, file: usize, offset: u64) -> usize {
        let name = self.entries[file].name.clone();
        let chunk = TocEntry { name, kind: "chunk", chunk_offset: offset, ..TocEntry::default() };
        self.entries.push(chunk);
        self.entries.len() - 1
    }

    /// Says that more chunks of the file follow on this one.
    pub(super) fn set_chunk_size(&mut self, chunk: usize, size: u64) {
        self.entries[chunk].chunk_size = size;
    }

    /// Says what a file of several chunks is.
    pub(super) fn set_digest(&mut self, file: usize, digest: Digest) {
        self.entries[file].digest = Some(digest);
    }

    /// Says where a chunk is, and what.
    pub(super) fn place(&mut self, chunk: usize, offset: u64, digest: Digest) {
        let entry = &mut self.entries[chunk];
        entry.offset = offset;
        entry.chunk_digest = Some(digest);
        // The only chunk of a file is the file.
        if entry.kind == "reg" && entry.chunk_size == 0 {
            entry.digest = Some(digest);
        }
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and numbers always serialise")
    }
}

/// As RFC 3339; nothing for the beginning of time, and for what has no form.
fn time_text(seconds: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp(seconds).ok().filter(|_| seconds != 0);
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default()
}
