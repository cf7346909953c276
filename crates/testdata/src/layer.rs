//! Layer archives made entry by entry. Nothing is checked: hostile layers are made here too.

use std::io::Write;

use sha2::Digest as _;

/// The digest of `bytes` as `sha256:hex`.
pub fn sha256(bytes: &[u8]) -> String {
    let hex: String =
        sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file with this content.
    File(Vec<u8>),
    /// A directory.
    Directory,
    /// A symbolic link to this target.
    Symlink(String),
    /// A hard link to this name of the archive.
    Hardlink(String),
    /// A character device.
    CharDevice(u32, u32),
    /// A block device.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
}

/// One entry of a layer archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name as it stands in the archive; `..` and a leading `/` are written as they are.
    pub path: String,
    /// What it is.
    pub kind: EntryKind,
    /// The permission bits.
    pub mode: u32,
    /// The owner.
    pub uid: u64,
    /// The group.
    pub gid: u64,
    /// Seconds since 1970.
    pub mtime: u64,
    /// Extended attributes, written as PAX records in this order.
    pub xattrs: Vec<(String, Vec<u8>)>,
}

impl Entry {
    fn new(path: &str, kind: EntryKind, mode: u32) -> Self {
        let path = path.to_owned();
        Self { path, kind, mode, uid: 0, gid: 0, mtime: 1_700_000_000, xattrs: Vec::new() }
    }

    /// A regular file with mode 0644.
    pub fn file(path: &str, content: impl Into<Vec<u8>>) -> Self {
        Self::new(path, EntryKind::File(content.into()), 0o644)
    }

    /// A directory with mode 0755.
    pub fn directory(path: &str) -> Self {
        Self::new(path, EntryKind::Directory, 0o755)
    }

    /// A symbolic link.
    pub fn symlink(path: &str, target: &str) -> Self {
        Self::new(path, EntryKind::Symlink(target.to_owned()), 0o777)
    }

    /// A hard link to another name.
    pub fn hardlink(path: &str, target: &str) -> Self {
        Self::new(path, EntryKind::Hardlink(target.to_owned()), 0o644)
    }

    /// The marker that removes `path` from the layers below.
    pub fn whiteout(path: &str) -> Self {
        let marker = match path.rsplit_once('/') {
            Some((parent, name)) => format!("{parent}/.wh.{name}"),
            None => format!(".wh.{path}"),
        };
        Self::file(&marker, "")
    }

    /// The marker that hides what the layers below have in `directory`.
    pub fn opaque(directory: &str) -> Self {
        Self::file(&format!("{directory}/.wh..wh..opq"), "")
    }

    /// A device, a pipe or anything else.
    pub fn special(path: &str, kind: EntryKind) -> Self {
        Self::new(path, kind, 0o600)
    }

    /// The same entry with other permission bits.
    #[must_use]
    pub fn mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }

    /// The same entry with another owner and group.
    #[must_use]
    pub fn owner(self, uid: u64, gid: u64) -> Self {
        Self { uid, gid, ..self }
    }

    /// The same entry with another modification time.
    #[must_use]
    pub fn mtime(self, mtime: u64) -> Self {
        Self { mtime, ..self }
    }

    /// The same entry with one more extended attribute.
    #[must_use]
    pub fn xattr(mut self, name: &str, value: &[u8]) -> Self {
        self.xattrs.push((name.to_owned(), value.to_owned()));
        self
    }

    fn append_to(&self, tar: &mut tar::Builder<Vec<u8>>) {
        let mut records: Vec<(String, Vec<u8>)> = self
            .xattrs
            .iter()
            .map(|(name, value)| (format!("SCHILY.xattr.{name}"), value.clone()))
            .collect();
        let mut header = tar::Header::new_ustar();
        let (kind, link, content, device) = match &self.kind {
            EntryKind::File(content) => (tar::EntryType::Regular, "", content.as_slice(), (0, 0)),
            EntryKind::Directory => (tar::EntryType::Directory, "", &[][..], (0, 0)),
            EntryKind::Symlink(target) => {
                (tar::EntryType::Symlink, target.as_str(), &[][..], (0, 0))
            }
            EntryKind::Hardlink(target) => (tar::EntryType::Link, target.as_str(), &[][..], (0, 0)),
            EntryKind::CharDevice(major, minor) => {
                (tar::EntryType::Char, "", &[][..], (*major, *minor))
            }
            EntryKind::BlockDevice(major, minor) => {
                (tar::EntryType::Block, "", &[][..], (*major, *minor))
            }
            EntryKind::Fifo => (tar::EntryType::Fifo, "", &[][..], (0, 0)),
        };
        header.set_entry_type(kind);
        header.set_mode(self.mode);
        header.set_uid(self.uid);
        header.set_gid(self.gid);
        header.set_mtime(self.mtime);
        header.set_size(content.len() as u64);
        if device != (0, 0) {
            header.set_device_major(device.0).expect("a ustar header has device numbers");
            header.set_device_minor(device.1).expect("a ustar header has device numbers");
        }
        let mut path = self.path.clone();
        if self.kind == EntryKind::Directory && !path.ends_with('/') {
            path.push('/');
        }
        // `Header::set_path` refuses `..` and absolute names, which hostile layers need.
        let old = header.as_old_mut();
        put(&mut old.name, &path, "path", &mut records);
        put(&mut old.linkname, link, "linkpath", &mut records);
        if !records.is_empty() {
            tar.append_pax_extensions(
                records.iter().map(|(key, value)| (key.as_str(), value.as_slice())),
            )
            .expect("writing to memory succeeds");
        }
        header.set_cksum();
        tar.append(&header, content).expect("writing to memory succeeds");
    }
}

/// Writes `text` into the header's field, and as PAX record `key` too when it is too long.
fn put(field: &mut [u8; 100], text: &str, key: &str, records: &mut Vec<(String, Vec<u8>)>) {
    let fits = text.len().min(field.len());
    field[..fits].copy_from_slice(&text.as_bytes()[..fits]);
    if fits < text.len() {
        records.push((key.to_owned(), text.as_bytes().to_vec()));
    }
}

/// How a layer's blob is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

/// A layer: an archive and the blob made from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The uncompressed archive.
    pub tar: Vec<u8>,
    /// The archive as it is stored and sent.
    pub blob: Vec<u8>,
    /// How `blob` is compressed.
    pub compression: Compression,
}

impl Layer {
    /// A gzip layer of `entries`.
    pub fn new(entries: &[Entry]) -> Self {
        Self::compressed(entries, Compression::Gzip)
    }

    /// A layer of `entries`.
    pub fn compressed(entries: &[Entry], compression: Compression) -> Self {
        let mut tar = tar::Builder::new(Vec::new());
        for entry in entries {
            entry.append_to(&mut tar);
        }
        Self::from_tar(tar.into_inner().expect("writing to memory succeeds"), compression)
    }

    /// A layer of a ready archive.
    pub fn from_tar(tar: Vec<u8>, compression: Compression) -> Self {
        let blob = match compression {
            Compression::None => tar.clone(),
            Compression::Gzip => {
                let mut encoder =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(&tar).expect("writing to memory succeeds");
                encoder.finish().expect("writing to memory succeeds")
            }
            Compression::Zstd => {
                zstd::bulk::compress(&tar, 1).expect("compressing in memory succeeds")
            }
        };
        Self { tar, blob, compression }
    }

    /// The digest of the uncompressed archive.
    pub fn diff_id(&self) -> String {
        sha256(&self.tar)
    }

    /// The digest of the blob.
    pub fn digest(&self) -> String {
        sha256(&self.blob)
    }
}
