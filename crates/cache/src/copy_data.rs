//! Copying the bytes of files, the cheapest way that the file system knows.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// Files up to this size are read and written: for them that is faster than the calls that copy in the kernel.
const SMALL: usize = 64 << 10;

/// Most bytes that the kernel is asked to copy at once.
const CHUNK: usize = 1 << 30;

/// What has turned out not to work between two file systems, so that it is not tried for each file.
#[derive(Debug, Default)]
pub struct DataCopier {
    no_clone: AtomicBool,
    no_kernel_copy: AtomicBool,
}

impl DataCopier {
    /// Copies a file of about `size` bytes into an empty one: shares its blocks (`FICLONE`), else copies in the
    /// kernel, else reads and writes. `buffer` is kept by the caller from one file to the next. Goes to the end of
    /// the file, wherever that is; returns how many bytes that were.
    ///
    /// # Errors
    ///
    /// Of reading or writing.
    pub fn copy(
        &self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        size: u64,
        buffer: &mut Vec<u8>,
    ) -> Result<u64, Errno> {
        if size > SMALL as u64 {
            if !self.no_clone.load(Ordering::Relaxed) {
                match rustix::fs::ioctl_ficlone(to, from) {
                    Ok(()) => return Ok(size),
                    Err(errno) if is_unsupported(errno) => {
                        self.no_clone.store(true, Ordering::Relaxed);
                    }
                    Err(errno) => return Err(errno),
                }
            }
            if !self.no_kernel_copy.load(Ordering::Relaxed)
                && let Some(copied) = self.copy_in_kernel(from, to)?
            {
                return Ok(copied);
            }
        }
        read_and_write(from, to, size, buffer)
    }

    /// `None` when that does not work here. Holes stay holes: a file may be far larger than any disk.
    fn copy_in_kernel(
        &self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
    ) -> Result<Option<u64>, Errno> {
        let mut position = 0;
        loop {
            let data = match rustix::fs::seek(from, SeekFrom::Data(position)) {
                Ok(data) => data,
                // Nothing but a hole is left.
                Err(Errno::NXIO) => {
                    let end = rustix::fs::seek(from, SeekFrom::End(0))?;
                    rustix::fs::ftruncate(to, end)?;
                    return Ok(Some(end));
                }
                Err(errno) => return Err(errno),
            };
            let hole = rustix::fs::seek(from, SeekFrom::Hole(data))?;
            position = data;
            while position < hole {
                let (mut read, mut written) = (position, position);
                let length = usize::try_from(hole - position).unwrap_or(CHUNK).min(CHUNK);
                let copied = rustix::fs::copy_file_range(
                    from,
                    Some(&mut read),
                    to,
                    Some(&mut written),
                    length,
                );
                match copied {
                    // It became shorter meanwhile, which whoever compares it with its digest sees.
                    Ok(0) => return Ok(Some(position)),
                    Ok(length) => position += length as u64,
                    Err(Errno::INTR) => {}
                    Err(errno) if position == data && is_unsupported(errno) => {
                        self.no_kernel_copy.store(true, Ordering::Relaxed);
                        rustix::fs::seek(from, SeekFrom::Start(0))?;
                        return Ok(None);
                    }
                    Err(errno) => return Err(errno),
                }
            }
        }
    }
}

fn is_unsupported(errno: Errno) -> bool {
    [Errno::OPNOTSUPP, Errno::XDEV, Errno::NOTTY, Errno::INVAL, Errno::NOSYS, Errno::PERM]
        .contains(&errno)
}

fn read_and_write(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    size: u64,
    buffer: &mut Vec<u8>,
) -> Result<u64, Errno> {
    buffer.resize(SMALL + 1, 0);
    let mut copied = 0;
    loop {
        let length = match rustix::io::read(from, &mut buffer[..]) {
            Err(Errno::INTR) => continue,
            length => length?,
        };
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            match rustix::io::write(to, rest) {
                Err(Errno::INTR) => {}
                written => rest = &rest[written?..],
            }
        }
        copied += length as u64;
        // A read that was not filled and ended where the file should end needs no other one to see the end.
        if length == 0 || (length < buffer.len() && copied == size) {
            return Ok(copied);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::{FileExt as _, MetadataExt as _};

    use super::*;

    #[test]
    fn holes_stay_holes() {
        const SIZE: u64 = 1 << 40;
        let folder = tempfile::tempdir().unwrap();
        let open = |name: &str| {
            let path = folder.path().join(name);
            File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap()
        };
        let from = open("from");
        from.write_all_at(b"middle", 1 << 30).unwrap();
        from.write_all_at(b"later", SIZE / 2).unwrap();
        from.set_len(SIZE).unwrap();
        let to = open("to");
        let copied =
            DataCopier::default().copy(from.as_fd(), to.as_fd(), SIZE, &mut Vec::new()).unwrap();
        assert_eq!((copied, to.metadata().unwrap().len()), (SIZE, SIZE));
        assert!(to.metadata().unwrap().blocks() * 512 < 1 << 20);
        let mut text = [0; 6];
        to.read_exact_at(&mut text, 1 << 30).unwrap();
        assert_eq!(&text, b"middle");
    }
}
