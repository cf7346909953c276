//! Reading small files in few calls.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Bytes that are read at once; more than small files have.
const AT_ONCE: usize = 8 << 10;

/// Reads all of a file that is expected to be small.
pub(crate) fn read_small(path: &Path) -> io::Result<Vec<u8>> {
    let bytes = read_at_most(&mut File::open(path)?, u64::MAX)?;
    Ok(bytes.expect("no file has more bytes than can be counted"))
}

/// Reads a file; `None` if it has more bytes than `limit`. Asks for no size first: the second reading, which finds the end, is needed
/// anyway.
pub(crate) fn read_at_most(file: &mut File, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::with_capacity(AT_ONCE);
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= limit).then_some(bytes))
}
