//! Reads archives that may be hostile.
//!
//! ustar, PAX and GNU, with long names and sparse files. `tar::Header` gives the fields of a header block; what
//! headers mean together is decided here and not by `tar::Archive`, because a PAX or long-name header must have
//! a limit before it is read into memory, and because the size of an entry must be counted exactly as Go's
//! reader counts it: two readers that disagree on where an entry ends see different files in one archive.

use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;

use tar::{GnuExtSparseHeader, GnuSparseHeader, Header};
use thiserror::Error;

use super::sparse::{Segment, SparseError, SparseMap, SparseRecords};
use super::tar_writer::{BLOCK, XATTR_RECORD};
use super::{EntryKind, Xattr, path_of};

const BUFFER: usize = 128 * 1024;

/// How much of an archive is believed. What exceeds a limit is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchiveLimits {
    /// The most entries.
    pub entries: u64,
    /// The most bytes, of the archive itself and of the files in it, holes included.
    pub bytes: u64,
    /// The most bytes of one PAX or long-name header or sparse map.
    pub header_bytes: u64,
}

impl Default for ArchiveLimits {
    /// Far above every image that was ever published, far below what hurts.
    fn default() -> Self {
        Self { entries: 10_000_000, bytes: 256 << 30, header_bytes: 1 << 20 }
    }
}

/// An entry's headers, put together.
#[derive(Debug)]
pub(crate) struct Entry {
    /// As in the archive: may be absolute, hold `..` and end in slashes.
    pub(crate) path: Vec<u8>,
    link: Vec<u8>,
    kind: Kind,
    pub(crate) metadata: Metadata,
    /// Where the data goes, of a file with holes.
    pub(crate) sparse: Option<Vec<Segment>>,
}

/// What an entry says about its file, besides what it is.
#[derive(Debug, Clone)]
pub(crate) struct Metadata {
    /// Permission bits with set-id and sticky.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Time,
    pub(crate) xattrs: Vec<Xattr>,
}

/// A modification time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Time {
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: u32,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    File { size: u64 },
    HardLink,
    Symlink,
    Directory,
    CharacterDevice { major: u32, minor: u32 },
    BlockDevice { major: u32, minor: u32 },
    Fifo,
}

impl Entry {
    /// What the entry is. The size of a file is its size on disk, holes included.
    pub(crate) fn kind(&self) -> EntryKind<'_> {
        match self.kind {
            Kind::File { size } => EntryKind::File { size },
            Kind::HardLink => EntryKind::HardLink { target: &self.link },
            Kind::Symlink => EntryKind::Symlink { target: &self.link },
            Kind::Directory => EntryKind::Directory,
            Kind::CharacterDevice { major, minor } => EntryKind::CharacterDevice { major, minor },
            Kind::BlockDevice { major, minor } => EntryKind::BlockDevice { major, minor },
            Kind::Fifo => EntryKind::Fifo,
        }
    }
}

/// Reads an archive's entries in order.
#[derive(Debug)]
pub(crate) struct TarReader<R> {
    source: BufReader<R>,
    limits: ArchiveLimits,
    /// How far into the archive we are.
    position: u64,
    /// What the files of the archive will take on disk beyond the archive's own bytes.
    holes: u64,
    entries: u64,
    /// Data of the current entry that nobody has read, and what fills its last block.
    unread: u64,
    padding: u64,
}

impl<R: Read> TarReader<R> {
    pub(crate) fn new(source: R, limits: ArchiveLimits) -> Self {
        let source = BufReader::with_capacity(BUFFER, source);
        Self { source, limits, position: 0, holes: 0, entries: 0, unread: 0, padding: 0 }
    }

    /// How many entries there were.
    pub(crate) fn entries(&self) -> u64 {
        self.entries
    }

    /// How many bytes of the archive were read.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The next entry. Skips what was not read of the one before.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, TarReadError> {
        let mut long = LongFields::default();
        loop {
            self.skip_data()?;
            let Some(block) = self.header_block()? else {
                if !long.is_empty() {
                    return Err(self.malformed("the archive ends after an extended header"));
                }
                return Ok(None);
            };
            let header = Header::from_byte_slice(&block);
            let size = unsigned(&header.as_old().size).ok_or_else(|| self.malformed("bad size"))?;
            match header.entry_type().as_byte() {
                b'x' | b'X' => long.pax = self.extended(size)?,
                // git writes one with the commit in it; like containerd we believe nothing else that is said
                // globally.
                b'g' => drop(self.extended(size)?),
                b'L' => long.path = until_nul(self.extended(size)?),
                b'K' => long.link = until_nul(self.extended(size)?),
                _ => return self.entry(header, size, long).map(Some),
            }
        }
    }

    /// Data of the current entry, of at most `most` bytes, as it lies in the buffer. Empty at its end.
    pub(crate) fn data(&mut self, most: u64) -> Result<&[u8], TarReadError> {
        let most = most.min(self.unread);
        if most == 0 {
            return Ok(&[]);
        }
        let position = self.position;
        let chunk = loop {
            match self.source.fill_buf() {
                // Borrowed anew below: the checker cannot see that this one would do.
                Ok(chunk) => break chunk.len(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(TarReadError::Read(error)),
            }
        };
        if chunk == 0 {
            return Err(TarReadError::Truncated { position });
        }
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        Ok(&self.source.buffer()[..most.min(chunk)])
    }

    /// Says how much of what [`TarReader::data`] gave is dealt with.
    pub(crate) fn consume(&mut self, length: usize) {
        self.source.consume(length);
        self.position += length as u64;
        self.unread -= length as u64;
    }

    /// Reads what follows the end of the archive, so that a digest of the stream is one of all of it.
    pub(crate) fn drain(&mut self) -> Result<(), TarReadError> {
        self.skip_data()?;
        loop {
            self.unread = BUFFER as u64;
            let length = match self.data(u64::MAX) {
                Ok(chunk) => chunk.len(),
                Err(TarReadError::Truncated { .. }) => return Ok(()),
                Err(error) => return Err(error),
            };
            self.consume(length);
            self.check_bytes(0)?;
        }
    }

    fn entry(
        &mut self,
        header: &Header,
        size: u64,
        long: LongFields,
    ) -> Result<Entry, TarReadError> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(TarReadError::Limit { what: "entries", limit: self.limits.entries });
        }
        let old = header.as_old();
        let bad = |what| TarReadError::Malformed { position: self.position - BLOCK as u64, what };
        let mut fields = Fields {
            path: header.path_bytes().into_owned(),
            link: until_nul(old.linkname.to_vec()),
            size,
            uid: unsigned(&old.uid).ok_or_else(|| bad("bad uid"))?,
            gid: unsigned(&old.gid).ok_or_else(|| bad("bad gid"))?,
            mtime: Time {
                seconds: number(&old.mtime).ok_or_else(|| bad("bad time"))?,
                nanoseconds: 0,
            },
            xattrs: Vec::new(),
            sparse: SparseRecords::default(),
        };
        if !long.path.is_empty() {
            fields.path = long.path;
        }
        if !long.link.is_empty() {
            fields.link = long.link;
        }
        fields.pax(&long.pax).map_err(bad)?;
        let id = |id: u64, what| match u32::try_from(id) {
            // The kernel takes this one for "leave it as it is".
            Ok(u32::MAX) | Err(_) => Err(bad(what)),
            Ok(id) => Ok(id),
        };
        let (uid, gid) = (id(fields.uid, "uid out of range")?, id(fields.gid, "gid out of range")?);
        let mode = number(&old.mode).ok_or_else(|| bad("bad mode"))? as u32 & 0o7777;
        let device = || {
            let ustar = header.as_ustar().map(|ustar| (ustar.dev_major, ustar.dev_minor));
            let gnu = header.as_gnu().map(|gnu| (gnu.dev_major, gnu.dev_minor));
            let (major, minor) = ustar.or(gnu).ok_or_else(|| bad("a device without numbers"))?;
            let half = |field: &[u8]| unsigned(field).and_then(|value| u32::try_from(value).ok());
            half(&major).zip(half(&minor)).ok_or_else(|| bad("bad device number"))
        };
        let kind = match header.entry_type().as_byte() {
            // Before POSIX a directory was a file with a slash at the end.
            b'\0' if fields.path.ends_with(b"/") => Kind::Directory,
            b'0' | b'\0' | b'7' | b'S' => Kind::File { size: fields.size },
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => device().map(|(major, minor)| Kind::CharacterDevice { major, minor })?,
            b'4' => device().map(|(major, minor)| Kind::BlockDevice { major, minor })?,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => return Err(self.unsupported(&fields.path, other)),
        };
        let mut entry = Entry {
            path: fields.path,
            link: fields.link,
            kind,
            metadata: Metadata { mode, uid, gid, mtime: fields.mtime, xattrs: fields.xattrs },
            sparse: None,
        };
        // Like Go's reader: what cannot have data has none, whatever its size says.
        let type_flag = header.entry_type().as_byte();
        if matches!(type_flag, b'0' | b'\0' | b'7' | b'S') {
            self.begin_data(fields.size)?;
        }
        if let Kind::File { .. } = kind
            && let Some(map) = self.sparse_map(header, fields.sparse)?
        {
            self.check_bytes(map.size)?;
            self.holes += map.size;
            entry.kind = Kind::File { size: map.size };
            entry.sparse = Some(map.segments);
            if let Some(name) = map.name {
                entry.path = name;
            }
        }
        Ok(entry)
    }

    /// Everything with data has it counted before it is read.
    fn begin_data(&mut self, size: u64) -> Result<(), TarReadError> {
        self.check_bytes(size)?;
        self.unread = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        Ok(())
    }

    fn check_bytes(&self, more: u64) -> Result<(), TarReadError> {
        let total = self.position.saturating_add(self.holes).saturating_add(more);
        if total > self.limits.bytes {
            return Err(TarReadError::Limit { what: "bytes", limit: self.limits.bytes });
        }
        Ok(())
    }

    /// The map of a file with holes, from wherever its format puts it.
    fn sparse_map(
        &mut self,
        header: &Header,
        records: SparseRecords,
    ) -> Result<Option<SparseMap>, TarReadError> {
        let position = self.position;
        let malformed = |SparseError(what)| TarReadError::Malformed { position, what };
        if header.entry_type().as_byte() == b'S' {
            return self.gnu_sparse_map(header).map(Some);
        }
        if !records.is_present() {
            return Ok(None);
        }
        let mut map = if records.is_in_data() {
            self.sparse_map_in_data()?
        } else {
            records.segments().map_err(malformed)?
        };
        map.sort_unstable_by_key(|segment| segment.offset);
        SparseMap::new(map, records.size().map_err(malformed)?, self.unread, records.into_name())
            .map(Some)
            .map_err(malformed)
    }

    /// The old GNU form: the map is in the header and in the blocks after it.
    fn gnu_sparse_map(&mut self, header: &Header) -> Result<SparseMap, TarReadError> {
        let position = self.position;
        let malformed = |what| TarReadError::Malformed { position, what };
        let gnu = header.as_gnu().ok_or_else(|| malformed("a sparse file without a GNU header"))?;
        let size = unsigned(&gnu.realsize).ok_or_else(|| malformed("bad sparse size"))?;
        let mut segments = Vec::new();
        let mut add = |sparse: &[GnuSparseHeader]| {
            for segment in sparse.iter().filter(|segment| !segment.is_empty()) {
                let offset = unsigned(&segment.offset)?;
                segments.push(Segment { offset, length: unsigned(&segment.numbytes)? });
            }
            Some(())
        };
        add(&gnu.sparse).ok_or_else(|| malformed("bad sparse map"))?;
        let mut more = gnu.isextended[0] == 1;
        let mut map_bytes = 0;
        while more {
            map_bytes += BLOCK as u64;
            if map_bytes > self.limits.header_bytes {
                return Err(self.header_limit());
            }
            let mut extended = GnuExtSparseHeader::new();
            self.read_exact(extended.as_mut_bytes())?;
            add(&extended.sparse).ok_or_else(|| malformed("bad sparse map"))?;
            more = extended.isextended[0] == 1;
        }
        SparseMap::new(segments, size, self.unread, None)
            .map_err(|SparseError(what)| malformed(what))
    }

    /// PAX sparse format 1.0: decimal numbers, one a line, before the data.
    fn sparse_map_in_data(&mut self) -> Result<Vec<Segment>, TarReadError> {
        let mut consumed = 0;
        let count = self.sparse_number(&mut consumed)?;
        let mut segments = Vec::new();
        for _ in 0..count {
            let offset = self.sparse_number(&mut consumed)?;
            segments.push(Segment { offset, length: self.sparse_number(&mut consumed)? });
        }
        let fill = consumed.next_multiple_of(BLOCK as u64) - consumed;
        self.skip(fill)?;
        Ok(segments)
    }

    fn sparse_number(&mut self, consumed: &mut u64) -> Result<u64, TarReadError> {
        let mut value = 0_u64;
        loop {
            let &[byte] = self.data(1)? else {
                return Err(self.malformed("the sparse map has no end"));
            };
            self.consume(1);
            *consumed += 1;
            if *consumed > self.limits.header_bytes {
                return Err(self.header_limit());
            }
            value = match byte {
                b'\n' => return Ok(value),
                b'0'..=b'9' => value
                    .checked_mul(10)
                    .and_then(|value| value.checked_add(u64::from(byte - b'0')))
                    .ok_or_else(|| self.malformed("bad sparse map"))?,
                _ => return Err(self.malformed("bad sparse map")),
            };
        }
    }

    /// The content of a PAX or long-name header.
    fn extended(&mut self, size: u64) -> Result<Vec<u8>, TarReadError> {
        if size > self.limits.header_bytes {
            return Err(self.header_limit());
        }
        self.begin_data(size)?;
        let mut content = Vec::new();
        while self.unread > 0 {
            let chunk = self.data(u64::MAX)?;
            let length = chunk.len();
            content.extend_from_slice(chunk);
            self.consume(length);
        }
        Ok(content)
    }

    /// The next header, `None` at the end of the archive: two empty blocks, one at the end of the stream, or
    /// none.
    fn header_block(&mut self) -> Result<Option<[u8; BLOCK]>, TarReadError> {
        let mut block = [0; BLOCK];
        for empty_before in [false, true] {
            if !self.read_block(&mut block)? {
                return Ok(None);
            }
            if block.iter().any(|&byte| byte != 0) {
                if empty_before || !checksum_holds(&block) {
                    return Err(self.malformed("not a tar header"));
                }
                return Ok(Some(block));
            }
        }
        Ok(None)
    }

    /// Fills `block`, or says that the stream has ended.
    fn read_block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool, TarReadError> {
        self.check_bytes(BLOCK as u64)?;
        self.unread = 1;
        match self.data(1) {
            Ok(_) => {}
            Err(TarReadError::Truncated { .. }) => {
                self.unread = 0;
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        self.unread = 0;
        self.read_exact(block)?;
        Ok(true)
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> Result<(), TarReadError> {
        let position = self.position;
        self.source.read_exact(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => TarReadError::Truncated { position },
            _ => TarReadError::Read(error),
        })?;
        self.position += buffer.len() as u64;
        Ok(())
    }

    fn skip_data(&mut self) -> Result<(), TarReadError> {
        self.unread += self.padding;
        self.padding = 0;
        self.skip(self.unread)
    }

    fn skip(&mut self, length: u64) -> Result<(), TarReadError> {
        let mut remaining = length;
        while remaining > 0 {
            let skipped = self.data(remaining)?.len();
            if skipped == 0 {
                return Err(self.malformed("an entry is shorter than its map"));
            }
            self.consume(skipped);
            remaining -= skipped as u64;
        }
        Ok(())
    }

    fn malformed(&self, what: &'static str) -> TarReadError {
        TarReadError::Malformed { position: self.position, what }
    }

    fn header_limit(&self) -> TarReadError {
        TarReadError::Limit { what: "bytes in a header", limit: self.limits.header_bytes }
    }

    fn unsupported(&self, path: &[u8], type_flag: u8) -> TarReadError {
        TarReadError::UnsupportedType { path: path_of(path), type_flag: char::from(type_flag) }
    }
}

/// What the headers before an entry's own say.
#[derive(Default)]
struct LongFields {
    path: Vec<u8>,
    link: Vec<u8>,
    pax: Vec<u8>,
}

impl LongFields {
    fn is_empty(&self) -> bool {
        self.path.is_empty() && self.link.is_empty() && self.pax.is_empty()
    }
}

/// An entry's fields while PAX records override them.
struct Fields {
    path: Vec<u8>,
    link: Vec<u8>,
    size: u64,
    uid: u64,
    gid: u64,
    mtime: Time,
    xattrs: Vec<Xattr>,
    sparse: SparseRecords,
}

impl Fields {
    /// Reads the records `<length> <key>=<value>\n`.
    fn pax(&mut self, mut records: &[u8]) -> Result<(), &'static str> {
        while !records.is_empty() {
            let (record, rest) = split_record(records).ok_or("bad PAX record")?;
            records = rest;
            let equals = record.iter().position(|&byte| byte == b'=').ok_or("bad PAX record")?;
            self.record(&record[..equals], &record[equals + 1..])?;
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        if let Some(name) = key.strip_prefix(XATTR_RECORD) {
            let name = name.to_vec();
            self.xattrs.retain(|xattr| xattr.name != name);
            self.xattrs.push(Xattr { name, value: value.to_vec() });
            return Ok(());
        }
        // An empty value takes back what a global header said; we did not believe it in the first place.
        if value.is_empty() {
            return Ok(());
        }
        match key {
            b"path" => self.path = value.to_vec(),
            b"linkpath" => self.link = value.to_vec(),
            b"size" => self.size = decimal(value).ok_or("bad size")?,
            b"uid" => self.uid = decimal(value).ok_or("bad uid")?,
            b"gid" => self.gid = decimal(value).ok_or("bad gid")?,
            b"mtime" => self.mtime = pax_time(value).ok_or("bad time")?,
            _ => self.sparse.record(key, value).map_err(|SparseError(what)| what)?,
        }
        Ok(())
    }
}

fn split_record(records: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = records.iter().take(20).position(|&byte| byte == b' ')?;
    let length = usize::try_from(decimal(&records[..space])?).ok()?;
    if length > records.len() || length < space + 2 || records[length - 1] != b'\n' {
        return None;
    }
    Some((&records[space + 1..length - 1], &records[length..]))
}

pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// `[-]seconds[.fraction]`; a negative time with a fraction lies before its whole second.
fn pax_time(text: &[u8]) -> Option<Time> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let dot = text.iter().position(|&byte| byte == b'.').unwrap_or(text.len());
    let seconds = i64::try_from(decimal(&text[..dot])?).ok()?;
    let fraction = text.get(dot + 1..).unwrap_or_default();
    let digits = &fraction[..fraction.len().min(9)];
    let scale = 10_u64.pow(9 - digits.len() as u32);
    let fraction = if digits.is_empty() { 0 } else { decimal(digits)? * scale };
    let nanoseconds = u32::try_from(fraction).ok()?;
    Some(match (negative, nanoseconds) {
        (false, _) => Time { seconds, nanoseconds },
        (true, 0) => Time { seconds: -seconds, nanoseconds: 0 },
        (true, _) => Time { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

/// A numeric field: octal digits between blanks and NULs, or, marked by the first bit, big-endian two's
/// complement.
fn number(field: &[u8]) -> Option<i64> {
    let (&first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        let sign_extended = if first & 0x40 == 0 { first & 0x7f } else { first };
        let value = rest
            .iter()
            .fold(i128::from(sign_extended as i8), |value, &byte| value << 8 | i128::from(byte));
        return i64::try_from(value).ok();
    }
    let blank = |byte: &u8| matches!(byte, b' ' | b'\0');
    let start = field.iter().position(|byte| !blank(byte)).unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(blank).unwrap_or(digits.len());
    digits[..end].iter().try_fold(0_i64, |value, &byte| match byte {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(byte - b'0')),
        _ => None,
    })
}

/// A number in a header's field that is not negative.
pub(crate) fn unsigned(field: &[u8]) -> Option<u64> {
    u64::try_from(number(field)?).ok()
}

fn until_nul(mut text: Vec<u8>) -> Vec<u8> {
    if let Some(end) = text.iter().position(|&byte| byte == 0) {
        text.truncate(end);
    }
    text
}

/// Whether a header's checksum is right; old writers summed signed bytes.
fn checksum_holds(block: &[u8; BLOCK]) -> bool {
    let Some(stored) = number(&block[148..156]) else { return false };
    let bytes = || block[..148].iter().chain(b"        ").chain(&block[156..]);
    let unsigned: i64 = bytes().map(|&byte| i64::from(byte)).sum();
    let signed: i64 = bytes().map(|&byte| i64::from(byte as i8)).sum();
    stored == unsigned || stored == signed
}

/// An archive that cannot be read.
#[derive(Debug, Error)]
pub enum TarReadError {
    /// What is under the archive failed.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// The archive ends within an entry.
    #[error("the archive is cut off after {position} bytes")]
    Truncated {
        /// How many bytes there are, at least.
        position: u64,
    },
    /// It is no archive, or not from here on.
    #[error("the archive is malformed at byte {position}: {what}")]
    Malformed {
        /// Where.
        position: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// An entry that is neither a file nor a directory, link, device or pipe.
    #[error("archive entry `{}` has the unsupported type `{type_flag}`", path.display())]
    UnsupportedType {
        /// Its name.
        path: PathBuf,
        /// Its type.
        type_flag: char,
    },
    /// More of something than is believed.
    #[error("the archive has more than {limit} {what}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// How much is allowed.
        limit: u64,
    },
}
