//! Writes archives whose bytes follow from the entries alone.
//!
//! ustar headers, with a PAX header in front where ustar is too narrow: a name or link over 100 bytes, an id of
//! 2^21 or more, a size of 8 GiB or more, a time before 1970 or after 2242, extended attributes. Records are in
//! the order of their keys. No user or group names, no access or change times, whole seconds only (BuildKit
//! truncates too: a cache hit must not hang on nanoseconds that other tools drop). Two empty blocks end the
//! archive, without padding to a record of 10 KiB. `tar::Builder` was not used: it writes long names in the GNU
//! form and leaves PAX to its caller.

use std::io::{self, Read, Write};
use std::path::PathBuf;

use thiserror::Error;

use super::path_of;

pub(crate) const BLOCK: usize = 512;
/// The longest name and link that fit into a ustar header.
const NAME_LIMIT: usize = 100;
/// The first values that do not fit into seven and eleven octal digits.
const ID_LIMIT: u64 = 1 << 21;
const SIZE_LIMIT: u64 = 1 << 33;
const COPY_BUFFER: usize = 128 * 1024;
/// What the key of a PAX record with an extended attribute starts with.
pub(crate) const XATTR_RECORD: &[u8] = b"SCHILY.xattr.";

/// One file of an archive.
#[derive(Debug, Clone)]
pub struct TarEntry<'a> {
    /// Relative, without `.` and `..`, without a slash at the end. Empty for the root itself.
    pub path: &'a [u8],
    /// What it is.
    pub kind: EntryKind<'a>,
    /// Permission bits with set-id and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time in seconds since 1970.
    pub mtime: i64,
    /// Extended attributes, in any order. Names with `=` cannot be written in PAX and are left out.
    pub xattrs: &'a [Xattr],
}

/// The name and value of an extended attribute.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Xattr {
    /// With its namespace: `security.capability`.
    pub name: Vec<u8>,
    /// Any bytes.
    pub value: Vec<u8>,
}

/// What an archive's entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind<'a> {
    /// A regular file with this many bytes of content.
    File {
        /// Length of the content.
        size: u64,
    },
    /// A directory.
    Directory,
    /// A symbolic link to any bytes.
    Symlink {
        /// What it says.
        target: &'a [u8],
    },
    /// Another name of an earlier entry.
    HardLink {
        /// The earlier entry's path.
        target: &'a [u8],
    },
    /// A character device.
    CharacterDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

/// Writes an archive.
#[derive(Debug)]
pub struct TarWriter<W> {
    out: W,
    latest_mtime: Option<i64>,
    buffer: Vec<u8>,
}

impl<W: Write> TarWriter<W> {
    /// Times after `latest_mtime` (`SOURCE_DATE_EPOCH`) are written as that time.
    pub fn new(out: W, latest_mtime: Option<i64>) -> Self {
        Self { out, latest_mtime, buffer: Vec::new() }
    }

    /// Writes an entry without content: anything but a file, or an empty one.
    pub fn append(&mut self, entry: &TarEntry<'_>) -> Result<(), TarWriteError> {
        self.append_file(entry, &mut io::empty())
    }

    /// Writes an entry and, of a file, exactly as many bytes as its size says.
    pub fn append_file(
        &mut self,
        entry: &TarEntry<'_>,
        content: &mut dyn Read,
    ) -> Result<(), TarWriteError> {
        let size = match entry.kind {
            EntryKind::File { size } => size,
            _ => 0,
        };
        self.header(entry).map_err(TarWriteError::Write)?;
        self.content(entry.path, size, content)
    }

    /// Writes an entry of a file whose content `copy` writes, in one go: exactly as many bytes as its size says. It returns how many.
    pub fn append_copied(
        &mut self,
        entry: &TarEntry<'_>,
        copy: impl FnOnce(&mut W, u64) -> io::Result<u64>,
    ) -> Result<(), TarWriteError> {
        let EntryKind::File { size } = entry.kind else { return self.append(entry) };
        self.header(entry).map_err(TarWriteError::Write)?;
        let copied = copy(&mut self.out, size).map_err(TarWriteError::Write)?;
        match size - copied {
            0 => self.pad(size).map_err(TarWriteError::Write),
            missing => Err(TarWriteError::Short { path: path_of(entry.path), missing }),
        }
    }

    /// Writes the entry that deletes `name` in `directory` from the layers below.
    pub fn whiteout(&mut self, path: &[u8]) -> Result<(), TarWriteError> {
        let name_start = path.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
        let path = [&path[..name_start], super::whiteout::PREFIX, &path[name_start..]].concat();
        self.append(&TarEntry {
            path: &path,
            kind: EntryKind::File { size: 0 },
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: 0,
            xattrs: &[],
        })
    }

    /// Returns the writer under it without ending the archive: another may go on with it.
    pub fn into_inner(self) -> W {
        self.out
    }

    /// Ends the archive and returns the writer under it.
    pub fn finish(mut self) -> Result<W, TarWriteError> {
        self.out.write_all(&[0; 2 * BLOCK]).map_err(TarWriteError::Write)?;
        Ok(self.out)
    }

    fn header(&mut self, entry: &TarEntry<'_>) -> io::Result<()> {
        let mtime = self.latest_mtime.map_or(entry.mtime, |latest| entry.mtime.min(latest));
        let mut name = if entry.path.is_empty() { b".".to_vec() } else { entry.path.to_vec() };
        if entry.kind == EntryKind::Directory {
            name.push(b'/');
        }
        let records = pax_records(entry, &name, mtime);
        if !records.is_empty() {
            let mut header = Header::new(b'x');
            let base = name
                .strip_suffix(b"/")
                .unwrap_or(&name)
                .rsplit(|&byte| byte == b'/')
                .next()
                .unwrap_or(b"");
            header.text(0, NAME_LIMIT, &[b"PaxHeaders.0/", base].concat());
            header.numbers(0o644, 0, 0, records.len() as u64, 0);
            self.out.write_all(&header.seal())?;
            self.out.write_all(&records)?;
            self.pad(records.len() as u64)?;
        }
        let mut header = Header::new(type_flag(entry.kind));
        header.text(0, NAME_LIMIT, &name);
        let size = match entry.kind {
            EntryKind::File { size } if size < SIZE_LIMIT => size,
            _ => 0,
        };
        header.numbers(entry.mode & 0o7777, fit(entry.uid), fit(entry.gid), size, fit_time(mtime));
        match entry.kind {
            EntryKind::Symlink { target } | EntryKind::HardLink { target } => {
                header.text(157, NAME_LIMIT, target);
            }
            EntryKind::CharacterDevice { major, minor }
            | EntryKind::BlockDevice { major, minor } => {
                header.octal(329, 8, major.into());
                header.octal(337, 8, minor.into());
            }
            _ => {}
        }
        self.out.write_all(&header.seal())
    }

    fn content(
        &mut self,
        path: &[u8],
        size: u64,
        content: &mut dyn Read,
    ) -> Result<(), TarWriteError> {
        let mut remaining = size;
        if remaining > 0 && self.buffer.is_empty() {
            self.buffer = vec![0; COPY_BUFFER];
        }
        while remaining > 0 {
            let want = usize::try_from(remaining).unwrap_or(COPY_BUFFER).min(COPY_BUFFER);
            match content.read(&mut self.buffer[..want]) {
                Ok(0) => {
                    return Err(TarWriteError::Short { path: path_of(path), missing: remaining });
                }
                Ok(length) => {
                    self.out.write_all(&self.buffer[..length]).map_err(TarWriteError::Write)?;
                    remaining -= length as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(TarWriteError::Read { path: path_of(path), source }),
            }
        }
        self.pad(size).map_err(TarWriteError::Write)
    }

    fn pad(&mut self, length: u64) -> io::Result<()> {
        let over = (length % BLOCK as u64) as usize;
        if over == 0 { Ok(()) } else { self.out.write_all(&[0; BLOCK][over..]) }
    }
}

fn type_flag(kind: EntryKind<'_>) -> u8 {
    match kind {
        EntryKind::File { .. } => b'0',
        EntryKind::HardLink { .. } => b'1',
        EntryKind::Symlink { .. } => b'2',
        EntryKind::CharacterDevice { .. } => b'3',
        EntryKind::BlockDevice { .. } => b'4',
        EntryKind::Directory => b'5',
        EntryKind::Fifo => b'6',
    }
}

fn fit(id: u32) -> u64 {
    if u64::from(id) < ID_LIMIT { id.into() } else { 0 }
}

fn fit_time(mtime: i64) -> u64 {
    u64::try_from(mtime).ok().filter(|&seconds| seconds < SIZE_LIMIT).unwrap_or(0)
}

/// The records that say what does not fit into the ustar header.
fn pax_records(entry: &TarEntry<'_>, name: &[u8], mtime: i64) -> Vec<u8> {
    let mut records: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut add = |key: &[u8], value: Vec<u8>| records.push((key.to_vec(), value));
    if name.len() > NAME_LIMIT {
        add(b"path", name.to_vec());
    }
    match entry.kind {
        EntryKind::Symlink { target } | EntryKind::HardLink { target }
            if target.len() > NAME_LIMIT =>
        {
            add(b"linkpath", target.to_vec());
        }
        EntryKind::File { size } if size >= SIZE_LIMIT => {
            add(b"size", size.to_string().into_bytes());
        }
        _ => {}
    }
    for (key, id) in [(b"uid", entry.uid), (b"gid", entry.gid)] {
        if u64::from(id) >= ID_LIMIT {
            add(key, id.to_string().into_bytes());
        }
    }
    if mtime < 0 || mtime as u64 >= SIZE_LIMIT {
        add(b"mtime", mtime.to_string().into_bytes());
    }
    for xattr in entry.xattrs.iter().filter(|xattr| !xattr.name.contains(&b'=')) {
        add(&[XATTR_RECORD, &xattr.name].concat(), xattr.value.clone());
    }
    records.sort();
    records.iter().flat_map(|(key, value)| pax_record(key, value)).collect()
}

/// `<length> <key>=<value>\n`, where the length counts itself.
fn pax_record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() > length {
        length += 1;
    }
    let mut record = format!("{length} ").into_bytes();
    record.extend_from_slice(key);
    record.push(b'=');
    record.extend_from_slice(value);
    record.push(b'\n');
    record
}

struct Header([u8; BLOCK]);

impl Header {
    fn new(type_flag: u8) -> Self {
        let mut header = Self([0; BLOCK]);
        header.0[156] = type_flag;
        header.text(257, 8, b"ustar\x0000");
        header.octal(329, 8, 0);
        header.octal(337, 8, 0);
        header
    }

    fn numbers(&mut self, mode: u32, uid: u64, gid: u64, size: u64, mtime: u64) {
        self.octal(100, 8, mode.into());
        self.octal(108, 8, uid);
        self.octal(116, 8, gid);
        self.octal(124, 12, size);
        self.octal(136, 12, mtime);
    }

    /// As many bytes of `text` as the field holds; the whole is in a PAX record then.
    fn text(&mut self, offset: usize, width: usize, text: &[u8]) {
        let length = text.len().min(width);
        self.0[offset..offset + length].copy_from_slice(&text[..length]);
    }

    fn octal(&mut self, offset: usize, width: usize, value: u64) {
        let digits = format!("{value:0width$o}", width = width - 1);
        self.text(offset, width - 1, digits.as_bytes());
    }

    /// Fills in the checksum, which counts its own field as blanks.
    fn seal(mut self) -> [u8; BLOCK] {
        self.text(148, 8, b"        ");
        let sum: u64 = self.0.iter().map(|&byte| u64::from(byte)).sum();
        self.octal(148, 7, sum);
        self.0[154] = 0;
        self.0
    }
}

/// An archive that could not be written.
#[derive(Debug, Error)]
pub enum TarWriteError {
    /// What is under the archive took no more.
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
    /// A file's content could not be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// In the archive.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file ended before the size that it had a moment before.
    #[error("`{}` became shorter while it was read: {missing} bytes are missing", path.display())]
    Short {
        /// In the archive.
        path: PathBuf,
        /// How many.
        missing: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry<'a>(path: &'a [u8], kind: EntryKind<'a>) -> TarEntry<'a> {
        TarEntry { path, kind, mode: 0o644, uid: 0, gid: 0, mtime: 1_700_000_000, xattrs: &[] }
    }

    fn write(latest: Option<i64>, entries: &[TarEntry<'_>]) -> Vec<u8> {
        let mut writer = TarWriter::new(Vec::new(), latest);
        for entry in entries {
            let content = vec![b'x'; 700];
            writer.append_file(entry, &mut content.as_slice()).unwrap();
        }
        writer.finish().unwrap()
    }

    #[test]
    fn the_length_of_a_record_counts_itself() {
        assert_eq!(pax_record(b"a", b"b"), b"6 a=b\n");
        assert_eq!(pax_record(b"aaaa", b"b"), b"9 aaaa=b\n");
        assert_eq!(pax_record(b"aaaaa", b"b"), b"11 aaaaa=b\n");
        for length in 0..1200 {
            let record = pax_record(b"path", &vec![b'x'; length]);
            let digits =
                String::from_utf8(record.split(|&byte| byte == b' ').next().unwrap().to_vec())
                    .unwrap();
            assert_eq!(digits.parse::<usize>().unwrap(), record.len());
        }
    }

    #[test]
    fn a_plain_entry_needs_one_header() {
        let bytes = write(None, &[entry(b"a/b", EntryKind::File { size: 700 })]);
        assert_eq!(bytes.len(), BLOCK + 2 * BLOCK + 2 * BLOCK);
        let header = tar::Header::from_byte_slice(&bytes[..BLOCK]);
        assert_eq!(&*header.path_bytes(), b"a/b");
        assert_eq!(header.entry_size().unwrap(), 700);
        assert_eq!(header.mtime().unwrap(), 1_700_000_000);
        assert!(header.as_ustar().is_some());
        let mut copy = header.clone();
        copy.set_cksum();
        assert_eq!(copy.cksum().unwrap(), header.cksum().unwrap());
        assert_eq!(&bytes[154..156], b"\0 ");
    }

    #[test]
    fn times_are_clamped() {
        let bytes = write(Some(1_600_000_000), &[entry(b"a", EntryKind::Fifo)]);
        assert_eq!(tar::Header::from_byte_slice(&bytes[..BLOCK]).mtime().unwrap(), 1_600_000_000);
        let bytes = write(Some(1_800_000_000), &[entry(b"a", EntryKind::Fifo)]);
        assert_eq!(tar::Header::from_byte_slice(&bytes[..BLOCK]).mtime().unwrap(), 1_700_000_000);
    }

    #[test]
    fn wide_values_go_into_sorted_records() {
        let name = [b'n'; 150];
        let target = [b't'; 150];
        let xattrs = [
            Xattr { name: b"user.b".to_vec(), value: vec![0, b'=', 0xff] },
            Xattr { name: b"user.a".to_vec(), value: Vec::new() },
            Xattr { name: b"user.a=b".to_vec(), value: Vec::new() },
        ];
        let bytes = write(
            None,
            &[TarEntry {
                uid: 4_000_000_000,
                mtime: -5,
                xattrs: &xattrs,
                ..entry(&name, EntryKind::Symlink { target: &target })
            }],
        );
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
        let records: Vec<_> = entry
            .pax_extensions()
            .unwrap()
            .unwrap()
            .map(|record| {
                let record = record.unwrap();
                (record.key().unwrap().to_owned(), record.value_bytes().to_vec())
            })
            .collect();
        assert_eq!(
            records,
            [
                ("SCHILY.xattr.user.a".to_owned(), Vec::new()),
                ("SCHILY.xattr.user.b".to_owned(), vec![0, b'=', 0xff]),
                ("linkpath".to_owned(), target.to_vec()),
                ("mtime".to_owned(), b"-5".to_vec()),
                ("path".to_owned(), name.to_vec()),
                ("uid".to_owned(), b"4000000000".to_vec()),
            ]
        );
        assert_eq!(&*entry.path_bytes(), name);
    }

    #[test]
    fn a_file_that_shrinks_is_an_error() {
        let mut writer = TarWriter::new(Vec::new(), None);
        let error = writer
            .append_file(&entry(b"a", EntryKind::File { size: 9 }), &mut &b"1234"[..])
            .unwrap_err();
        assert_eq!(error.to_string(), "`a` became shorter while it was read: 5 bytes are missing");
        let short = |out: &mut Vec<u8>, size| io::copy(&mut io::repeat(1).take(size - 2), out);
        let file = entry(b"a", EntryKind::File { size: 9 });
        let error = writer.append_copied(&file, short).unwrap_err();
        assert_eq!(error.to_string(), "`a` became shorter while it was read: 2 bytes are missing");
    }

    #[test]
    fn it_is_the_same_who_copies() {
        let file = entry(b"a", EntryKind::File { size: 700 });
        let mut writer = TarWriter::new(Vec::new(), None);
        let copy = |out: &mut Vec<u8>, size| io::copy(&mut io::repeat(b'x').take(size), out);
        writer.append_copied(&file, copy).unwrap();
        assert_eq!(writer.finish().unwrap(), write(None, &[file]));
    }
}
