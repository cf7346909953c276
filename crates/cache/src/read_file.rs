//! Reading small files in few calls.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::buffer::spare_capacity;
use rustix::io::retry_on_intr;

/// Bytes that are read at once; more than small files have.
const AT_ONCE: usize = 8 << 10;

/// Reads all of a file of the store that is expected to be small.
pub(crate) fn read_small(path: &Path) -> io::Result<Vec<u8>> {
    let bytes = read_own(&File::open(path)?, u64::MAX)?;
    Ok(bytes.expect("no file has more bytes than can be counted"))
}

/// Reads a file of the store; `None` if it has more bytes than `limit`. It is a regular file, so what gives less than was asked
/// for has come to its end.
pub(crate) fn read_own(file: &File, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::with_capacity(AT_ONCE);
    while bytes.len() as u64 <= limit {
        bytes.reserve(AT_ONCE);
        let room = bytes.capacity() - bytes.len();
        let read = retry_on_intr(|| rustix::io::read(file, spare_capacity(&mut bytes)))?;
        if read < room {
            break;
        }
    }
    Ok((bytes.len() as u64 <= limit).then_some(bytes))
}

/// Reads a file; `None` if it has more bytes than `limit`. Asks for no size first: the second reading, which finds the end, is needed
/// anyway.
pub(crate) fn read_at_most(file: &mut File, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::with_capacity(AT_ONCE);
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= limit).then_some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_any_length_are_read_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for length in [0, 1, AT_ONCE - 1, AT_ONCE, AT_ONCE + 1, 5 * AT_ONCE] {
            let bytes: Vec<u8> = (0..length).map(|at| at as u8).collect();
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(read_small(&path).unwrap(), bytes);
            let file = || File::open(&path).unwrap();
            assert_eq!(read_own(&file(), length as u64).unwrap(), Some(bytes.clone()));
            assert_eq!(read_at_most(&mut file(), length as u64).unwrap(), Some(bytes));
            if let Some(less) = length.checked_sub(1) {
                assert_eq!(read_own(&file(), less as u64).unwrap(), None);
                assert_eq!(read_at_most(&mut file(), less as u64).unwrap(), None);
            }
        }
    }
}
