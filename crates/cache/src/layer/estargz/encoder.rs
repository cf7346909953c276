//! From an archive, as it is written, to members and a table.

use std::io::{self, Write};

use rbuild_oci::{Digest, Hasher};
use tar::Header;

use super::members::{Chunk, Members};
use super::toc::Toc;
use super::{CHUNK, TOC_NAME};
use crate::layer::background_hasher::BackgroundHasher;
use crate::layer::tar_reader::{ArchiveLimits, Entry, TarReader, unsigned};
use crate::layer::tar_writer::BLOCK;
use crate::layer::{EntryKind, TarEntry, TarWriter};

/// Takes an archive and writes an eStargz blob.
#[derive(Debug)]
pub(in crate::layer) struct EstargzEncoder<W> {
    members: Members<W>,
    toc: Toc,
    archive: BackgroundHasher,
    length: u64,
    state: State,
    /// The header block that is being read.
    block: Vec<u8>,
    /// The extended headers before it.
    extended: Vec<u8>,
    /// What the next member will have, and with what it begins.
    member: Vec<u8>,
    chunk: Option<Chunk>,
    leaves_out_table: bool,
}

/// What comes next.
#[derive(Debug)]
enum State {
    Header,
    /// This much of an extended header, filling included.
    Extended(u64),
    Content(Box<Content>),
    /// What fills the last block of a file.
    Filling(u64),
    /// What is left of a file that is left out.
    LeftOut(u64),
    /// Nothing more is of use.
    Ended,
}

/// A file that is being read.
#[derive(Debug)]
struct Content {
    /// Its place in the table.
    entry: usize,
    size: u64,
    left: u64,
    /// Of a file that has more than one chunk.
    hasher: Option<Hasher>,
}

/// A blob that is written.
#[derive(Debug)]
pub(in crate::layer) struct Finished<W> {
    pub(in crate::layer) out: W,
    /// Of all that the blob decompresses to.
    pub(in crate::layer) archive: Digest,
    /// Its length.
    pub(in crate::layer) length: u64,
    pub(in crate::layer) toc: Digest,
}

impl<W: Write> EstargzEncoder<W> {
    pub(in crate::layer) fn new(out: W, level: u32) -> Self {
        Self {
            members: Members::new(out, level),
            toc: Toc::new(),
            archive: BackgroundHasher::default(),
            length: 0,
            state: State::Header,
            block: Vec::with_capacity(BLOCK),
            extended: Vec::new(),
            member: Vec::new(),
            chunk: None,
            leaves_out_table: false,
        }
    }

    /// A table of contents that is in the archive does not come along.
    pub(in crate::layer) fn leave_out_table(&mut self) {
        self.leaves_out_table = true;
    }

    /// Ends the archive, and writes the table and where it is.
    pub(in crate::layer) fn finish(mut self) -> io::Result<Finished<W>> {
        let is_whole = match self.state {
            State::Header => self.block.is_empty() && self.extended.is_empty(),
            State::Ended => true,
            State::Extended(_) | State::Content(_) | State::Filling(_) | State::LeftOut(_) => false,
        };
        if !is_whole {
            let kind = io::ErrorKind::UnexpectedEof;
            return Err(io::Error::new(kind, "the archive ends in the middle of an entry"));
        }
        self.emit(&[0; 2 * BLOCK])?;
        self.end_member()?;
        let position = self.members.write_all(&mut self.toc)?;
        let json = self.toc.to_json();
        let table = archive_of(&json)?;
        self.archive.update(&table)?;
        let length = self.length + table.len() as u64;
        self.members.add(table, None, &mut self.toc)?;
        self.members.write_all(&mut self.toc)?;
        let mut out = self.members.into_inner();
        out.write_all(&footer(position))?;
        Ok(Finished { out, archive: self.archive.finish()?, length, toc: Digest::of(&json) })
    }

    /// A whole header block.
    fn header(&mut self) -> io::Result<()> {
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK));
        if block.iter().all(|&byte| byte == 0) {
            self.state = State::Ended;
            return Ok(());
        }
        let header = Header::from_byte_slice(&block);
        let is_extended = matches!(header.entry_type().as_byte(), b'x' | b'X' | b'g' | b'L' | b'K');
        let size = unsigned(&header.as_old().size).filter(|_| is_extended);
        self.extended.extend_from_slice(&block);
        if let Some(size) = size {
            if self.extended.len() as u64 + size > ArchiveLimits::default().header_bytes {
                return Err(unusable("a header of it is too long"));
            }
            self.state = extended(size.next_multiple_of(BLOCK as u64));
            return Ok(());
        }
        let headers = std::mem::take(&mut self.extended);
        let entry = parse(&headers)?;
        if is_table(&entry) {
            let EntryKind::File { size } = entry.kind() else { return Err(taken_name()) };
            if !self.leaves_out_table {
                return Err(taken_name());
            }
            self.state = left_out(size.next_multiple_of(BLOCK as u64));
            return Ok(());
        }
        self.emit(&headers)?;
        let place = self.toc.add(&entry);
        self.state = State::Header;
        match entry.kind() {
            EntryKind::File { size } if size > 0 => {
                let hasher = (size > CHUNK as u64).then(Hasher::default);
                self.state =
                    State::Content(Box::new(Content { entry: place, size, left: size, hasher }));
                self.begin_chunk(place, size)?;
            }
            // Content begins a member; what has none need not.
            _ if self.member.len() >= CHUNK => self.end_member()?,
            _ => {}
        }
        Ok(())
    }

    /// Begins a member with a chunk, of a file of which `left` bytes are still to come.
    fn begin_chunk(&mut self, entry: usize, left: u64) -> io::Result<()> {
        self.end_member()?;
        if left > CHUNK as u64 {
            self.toc.set_chunk_size(entry, CHUNK as u64);
        }
        self.chunk = Some(Chunk { entry, length: 0 });
        Ok(())
    }

    fn end_member(&mut self) -> io::Result<()> {
        let (content, chunk) = (std::mem::take(&mut self.member), self.chunk.take());
        match content.is_empty() {
            true => Ok(()),
            false => self.members.add(content, chunk, &mut self.toc),
        }
    }

    /// Puts a part of the archive into the member.
    fn emit(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.archive.update(bytes)?;
        self.length += bytes.len() as u64;
        self.member.extend_from_slice(bytes);
        Ok(())
    }

    /// Takes some of a file's content, and says how much.
    fn content(&mut self, mut content: Box<Content>, bytes: &[u8]) -> io::Result<usize> {
        let filled = self.chunk.map_or(0, |chunk| chunk.length);
        if filled == CHUNK {
            let chunk = self.toc.add_chunk(content.entry, content.size - content.left);
            self.begin_chunk(chunk, content.left)?;
            return self.content(content, bytes);
        }
        let taken = up_to(bytes, content.left.min((CHUNK - filled) as u64));
        self.emit(taken)?;
        if let Some(chunk) = &mut self.chunk {
            chunk.length += taken.len();
        }
        if let Some(hasher) = &mut content.hasher {
            hasher.update(taken);
        }
        content.left -= taken.len() as u64;
        if content.left > 0 {
            self.state = State::Content(content);
            return Ok(taken.len());
        }
        if let Some(hasher) = content.hasher {
            self.toc.set_digest(content.entry, hasher.finish());
        }
        self.state = filling(content.size.next_multiple_of(BLOCK as u64) - content.size);
        Ok(taken.len())
    }
}

impl<W: Write> Write for EstargzEncoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        match std::mem::replace(&mut self.state, State::Header) {
            State::Header => {
                let taken = up_to(bytes, (BLOCK - self.block.len()) as u64);
                self.block.extend_from_slice(taken);
                if self.block.len() == BLOCK {
                    self.header()?;
                }
                Ok(taken.len())
            }
            State::Extended(left) => {
                let taken = up_to(bytes, left);
                self.extended.extend_from_slice(taken);
                self.state = extended(left - taken.len() as u64);
                Ok(taken.len())
            }
            State::Content(content) => self.content(content, bytes),
            State::Filling(left) => {
                let taken = up_to(bytes, left);
                self.emit(taken)?;
                self.state = filling(left - taken.len() as u64);
                Ok(taken.len())
            }
            State::LeftOut(left) => {
                let taken = up_to(bytes, left);
                self.state = left_out(left - taken.len() as u64);
                Ok(taken.len())
            }
            State::Ended => {
                self.state = State::Ended;
                Ok(bytes.len())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn extended(left: u64) -> State {
    if left == 0 { State::Header } else { State::Extended(left) }
}

fn filling(left: u64) -> State {
    if left == 0 { State::Header } else { State::Filling(left) }
}

fn left_out(left: u64) -> State {
    if left == 0 { State::Header } else { State::LeftOut(left) }
}

fn up_to(bytes: &[u8], most: u64) -> &[u8] {
    &bytes[..bytes.len().min(usize::try_from(most).unwrap_or(usize::MAX))]
}

fn unusable(what: &'static str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("no eStargz can be made of the archive: {what}"),
    )
}

/// The entry that these headers are for.
fn parse(headers: &[u8]) -> io::Result<Entry> {
    let entry = TarReader::new(headers, ArchiveLimits::default()).next_entry();
    let entry = entry.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let entry = entry.ok_or_else(|| unusable("a header has no entry"))?;
    if entry.sparse.is_some() {
        return Err(unusable("it has a file with holes"));
    }
    Ok(entry)
}

/// Whether an entry has the name of the table.
fn is_table(entry: &Entry) -> bool {
    let name = entry.path.strip_prefix(b"./").unwrap_or(&entry.path);
    name == TOC_NAME || name.strip_prefix(b"/") == Some(TOC_NAME)
}

fn taken_name() -> io::Error {
    unusable("it has a file `stargz.index.json`, a name that the format needs")
}

/// The archive that has the table.
fn archive_of(json: &[u8]) -> io::Result<Vec<u8>> {
    let mut archive = TarWriter::new(Vec::new(), None);
    let entry = TarEntry {
        path: TOC_NAME,
        kind: EntryKind::File { size: json.len() as u64 },
        mode: 0o444,
        uid: 0,
        gid: 0,
        mtime: 0,
        xattrs: &[],
    };
    let written = archive.append_file(&entry, &mut &*json).and_then(|()| archive.finish());
    written.map_err(io::Error::other)
}

/// An empty gzip member with an extra field that says where the table's member begins.
fn footer(position: u64) -> Vec<u8> {
    const MARK: &str = "STARGZ";
    let said = format!("{position:016x}{MARK}");
    let mut footer = vec![0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255];
    let length = said.len() as u16;
    footer.extend((length + 4).to_le_bytes());
    footer.extend(b"SG");
    footer.extend(length.to_le_bytes());
    footer.extend(said.as_bytes());
    // An empty stored block, which is the last; checksum and length of nothing.
    footer.extend([1, 0, 0, 0xff, 0xff]);
    footer.extend([0; 8]);
    footer
}
