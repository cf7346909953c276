//! Files with holes, in the three ways in which GNU tar writes them into PAX archives.
//!
//! 0.0 repeats `GNU.sparse.offset` and `GNU.sparse.numbytes`; 0.1 has one `GNU.sparse.map`; 1.0 has the map at
//! the start of the entry's data. The old GNU form with maps in header blocks ends up in the same
//! [`SparseMap`].

use super::tar_reader::decimal;

/// A run of data in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// Where the data of a file with holes belongs.
#[derive(Debug)]
pub(crate) struct SparseMap {
    /// In order, apart from each other, within the size.
    pub(crate) segments: Vec<Segment>,
    /// Of the file, holes included.
    pub(crate) size: u64,
    /// The file's name, where the header holds another.
    pub(crate) name: Option<Vec<u8>>,
}

/// What is wrong with a map.
#[derive(Debug)]
pub(crate) struct SparseError(pub(crate) &'static str);

impl SparseMap {
    /// `stored` is how much data the archive has for the segments.
    pub(crate) fn new(
        segments: Vec<Segment>,
        size: u64,
        stored: u64,
        name: Option<Vec<u8>>,
    ) -> Result<Self, SparseError> {
        let mut end = 0;
        let mut total = 0_u64;
        for segment in &segments {
            if segment.offset < end {
                return Err(SparseError("the parts of a sparse file overlap"));
            }
            end = segment
                .offset
                .checked_add(segment.length)
                .filter(|&end| end <= size && end <= i64::MAX as u64)
                .ok_or(SparseError("a part of a sparse file lies beyond its end"))?;
            total += segment.length;
        }
        if total != stored || size > i64::MAX as u64 {
            return Err(SparseError("a sparse file has more or less data than its map"));
        }
        Ok(Self { segments, size, name })
    }
}

/// The `GNU.sparse.*` records of an entry.
#[derive(Debug, Default)]
pub(crate) struct SparseRecords {
    major: u64,
    size: Option<u64>,
    name: Option<Vec<u8>>,
    /// Offset and length alternate.
    numbers: Vec<u64>,
    present: bool,
}

impl SparseRecords {
    pub(crate) fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), SparseError> {
        let Some(key) = key.strip_prefix(b"GNU.sparse.") else { return Ok(()) };
        let number = |text| decimal(text).ok_or(SparseError("bad sparse record"));
        self.present = true;
        match key {
            b"major" => self.major = number(value)?,
            b"realsize" | b"size" => self.size = Some(number(value)?),
            b"name" => self.name = Some(value.to_vec()),
            b"offset" | b"numbytes" => self.numbers.push(number(value)?),
            b"map" => {
                self.numbers =
                    value.split(|&byte| byte == b',').map(number).collect::<Result<_, _>>()?;
            }
            _ => {}
        }
        Ok(())
    }

    pub(crate) fn is_present(&self) -> bool {
        self.present
    }

    pub(crate) fn is_in_data(&self) -> bool {
        self.major == 1
    }

    pub(crate) fn segments(&self) -> Result<Vec<Segment>, SparseError> {
        let (pairs, rest) = self.numbers.as_chunks();
        match rest {
            [] => Ok(pairs.iter().map(|&[offset, length]| Segment { offset, length }).collect()),
            _ => Err(SparseError("a sparse map has an offset without a length")),
        }
    }

    pub(crate) fn size(&self) -> Result<u64, SparseError> {
        self.size.ok_or(SparseError("a sparse file without a size"))
    }

    pub(crate) fn into_name(self) -> Option<Vec<u8>> {
        self.name
    }
}
