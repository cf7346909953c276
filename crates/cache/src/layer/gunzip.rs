//! Reading gzip (RFC 1952), as many members as there are: pigz, bgzip and eStargz write many.

use std::io::{self, BufRead, Read};

use flate2::{Decompress, FlushDecompress, Status};

/// Bits of the header's flags (section 2.3.1).
const HEADER_CHECKSUM: u8 = 1 << 1;
const EXTRA: u8 = 1 << 2;
const NAME: u8 = 1 << 3;
const COMMENT: u8 = 1 << 4;
const RESERVED: u8 = 0b1110_0000;
/// So long may the name and the comment be, in bytes; the format has no limit.
const LONGEST_TEXT: usize = 65_535;
/// The only method that there is.
const DEFLATE: u8 = 8;

/// What is in the members, one after the other. The checksum and length of each are verified.
///
/// Not flate2's reader of members: its checksum takes a tenth of the time.
pub(super) struct Gunzip<R> {
    from: R,
    inflate: Decompress,
    checksum: crc32fast::Hasher,
    place: Place,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    FirstMember,
    Body,
    /// Another member, or the end.
    NextMember,
}

impl<R: BufRead> Gunzip<R> {
    pub(super) fn new(from: R) -> Self {
        let (inflate, checksum) = (Decompress::new(false), crc32fast::Hasher::new());
        Self { from, inflate, checksum, place: Place::FirstMember }
    }

    fn header(&mut self) -> io::Result<()> {
        let mut head = Header { from: &mut self.from, checksum: crc32fast::Hasher::new() };
        let [magic @ .., method, flags] = head.take::<4>()?;
        if magic != super::compression::GZIP || method != DEFLATE || flags & RESERVED != 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "invalid gzip header"));
        }
        // The time, and what and where it was made.
        head.take::<6>()?;
        if flags & EXTRA != 0 {
            let length = u16::from_le_bytes(head.take()?);
            (0..length).try_for_each(|_| head.take::<1>().map(drop))?;
        }
        for text in [NAME, COMMENT] {
            if flags & text != 0 {
                head.skip_text()?;
            }
        }
        let expected = head.checksum.clone().finalize() as u16;
        if flags & HEADER_CHECKSUM != 0 && u16::from_le_bytes(head.take()?) != expected {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "corrupt gzip header"));
        }
        Ok(())
    }

    /// Verifies what was read of a member, and makes ready for another one.
    fn trailer(&mut self) -> io::Result<()> {
        let mut trailer = [[0; 4]; 2];
        read_whole(&mut self.from, trailer.as_flattened_mut())?;
        let [checksum, length] = trailer.map(u32::from_le_bytes);
        let read = std::mem::take(&mut self.checksum);
        // The length counts modulo 2^32.
        if read.finalize() != checksum || self.inflate.total_out() as u32 != length {
            let message = "corrupt gzip stream does not have a matching checksum";
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        self.inflate.reset(false);
        Ok(())
    }
}

impl<R: BufRead> Read for Gunzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if self.place != Place::Body {
                if self.place == Place::NextMember && self.from.fill_buf()?.is_empty() {
                    return Ok(0);
                }
                self.header()?;
                self.place = Place::Body;
            }
            let input = self.from.fill_buf()?;
            let is_at_end = input.is_empty();
            let before = (self.inflate.total_in(), self.inflate.total_out());
            let status = self.inflate.decompress(input, buffer, FlushDecompress::None);
            let consumed = self.inflate.total_in() - before.0;
            let length = (self.inflate.total_out() - before.1) as usize;
            self.from.consume(consumed as usize);
            let status = status.map_err(|_| {
                io::Error::new(io::ErrorKind::InvalidData, "corrupt deflate stream")
            })?;
            self.checksum.update(&buffer[..length]);
            if status == Status::StreamEnd {
                self.trailer()?;
                self.place = Place::NextMember;
            } else if is_at_end && length == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if length > 0 {
                return Ok(length);
            }
        }
    }
}

/// A header while it is read.
struct Header<'a, R> {
    from: &'a mut R,
    checksum: crc32fast::Hasher,
}

impl<R: Read> Header<'_, R> {
    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        read_whole(self.from, &mut bytes)?;
        self.checksum.update(&bytes);
        Ok(bytes)
    }

    fn skip_text(&mut self) -> io::Result<()> {
        for _ in 0..=LONGEST_TEXT {
            if self.take()? == [0] {
                return Ok(());
            }
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "gzip header field too long"))
    }
}

/// As `read_exact`, which speaks of buffers where the end is too early.
fn read_whole(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<()> {
    from.read_exact(buffer).map_err(|error| match error.kind() {
        kind @ io::ErrorKind::UnexpectedEof => kind.into(),
        _ => error,
    })
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Write as _};

    use flate2::{Compression, GzBuilder};

    use super::*;

    fn member(content: &[u8], head: GzBuilder) -> Vec<u8> {
        let mut encoder = head.write(Vec::new(), Compression::new(6));
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn read(gzip: &[u8], piece: usize) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        Gunzip::new(BufReader::with_capacity(piece, gzip)).read_to_end(&mut content)?;
        Ok(content)
    }

    fn content(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at * at / 977) as u8).collect()
    }

    #[test]
    fn members_of_every_kind_are_read_in_any_pieces() {
        let first = content(300_000);
        let long = GzBuilder::new().filename("a").comment("b").extra(vec![7; 70]).mtime(3);
        let mut all = member(&first, long);
        all.extend(member(b"", GzBuilder::new()));
        all.extend(member(b"last", GzBuilder::new().filename("c")));
        let expected = [&first[..], b"last"].concat();
        for piece in [1, 7, 100, 128 << 10] {
            assert!(read(&all, piece).unwrap() == expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn a_checksum_of_the_header_is_verified() {
        let mut gzip = member(b"x", GzBuilder::new());
        gzip[3] = HEADER_CHECKSUM;
        let checksum = crc32fast::hash(&gzip[..10]) as u16;
        gzip.splice(10..10, checksum.to_le_bytes());
        assert_eq!(read(&gzip, 64).unwrap(), b"x");
        gzip[4] ^= 1;
        assert_eq!(read(&gzip, 64).unwrap_err().to_string(), "corrupt gzip header");
    }

    #[test]
    fn a_name_without_end_is_refused() {
        let named = |length| member(b"x", GzBuilder::new().filename(vec![b'n'; length]));
        assert_eq!(read(&named(LONGEST_TEXT), 512).unwrap(), b"x");
        let error = read(&named(LONGEST_TEXT + 1), 512).unwrap_err();
        assert_eq!(error.to_string(), "gzip header field too long");
    }

    #[test]
    fn whatever_is_damaged_or_missing_is_an_error() {
        let content = content(5000);
        let gzip = member(&content, GzBuilder::new().filename("name"));
        for end in 0..gzip.len() {
            let error = read(&gzip[..end], 512).unwrap_err();
            assert_eq!(error.to_string(), "unexpected end of file", "the first {end} bytes");
        }
        // But for the time and the like, and the name; and the last byte of the content has bits that mean nothing.
        for at in (0..4).chain(15..gzip.len()) {
            let mut damaged = gzip.clone();
            damaged[at] ^= 0x10;
            let read = read(&damaged, 512);
            let is_the_same =
                at < gzip.len() - 8 && read.as_ref().is_ok_and(|read| *read == content);
            assert!(read.is_err() || is_the_same, "at {at}");
        }
        let garbage = [&gzip[..], b"garbage"].concat();
        assert_eq!(read(&garbage, 512).unwrap_err().to_string(), "invalid gzip header");
    }
}
