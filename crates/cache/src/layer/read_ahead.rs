//! Reading in one thread while another uses what was read.

use std::io::{self, Read};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Mutex, PoisonError};
use std::thread;

const PIECE: usize = 128 << 10;
const PIECES_WAITING: usize = 8;

/// Calls `with` with a reader of what is in `from`, which a thread of its own reads some pieces ahead, if the system has one
/// more. How far `from` was read is certain only when `with` read to the end.
pub(crate) fn read_ahead<R: Read + Send, T>(
    from: &mut R,
    with: impl FnOnce(&mut dyn Read) -> T,
) -> T {
    // Never waited for: it is the thread's, or there is no thread.
    let from = Mutex::new(from);
    let lock = || from.lock().unwrap_or_else(PoisonError::into_inner);
    thread::scope(|scope| {
        let (sender, pieces) = mpsc::sync_channel(PIECES_WAITING);
        let read = move || {
            let mut from = lock();
            loop {
                let piece = read_piece(&mut *from);
                let is_last = !matches!(&piece, Ok(piece) if !piece.is_empty());
                // Nobody wants more when the reader is gone.
                if sender.send(piece).is_err() || is_last {
                    return;
                }
            }
        };
        match thread::Builder::new().name("read".to_owned()).spawn_scoped(scope, read) {
            Ok(_) => {
                with(&mut ReadAhead { pieces, piece: Vec::new(), position: 0, is_at_end: false })
            }
            Err(_) => with(&mut *lock()),
        }
    })
}

/// As much as a piece holds, or less at the end.
fn read_piece(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut piece = Vec::with_capacity(PIECE);
    from.take(PIECE as u64).read_to_end(&mut piece)?;
    Ok(piece)
}

/// See [`read_ahead`].
#[derive(Debug)]
struct ReadAhead {
    pieces: Receiver<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    position: usize,
    is_at_end: bool,
}

impl Read for ReadAhead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position == self.piece.len() && !self.is_at_end {
            let lost = || Err(io::Error::other("the reading thread panicked"));
            self.piece = self.pieces.recv().unwrap_or_else(|_| lost())?;
            self.position = 0;
            self.is_at_end = self.piece.is_empty();
        }
        let length = buffer.len().min(self.piece.len() - self.position);
        buffer[..length].copy_from_slice(&self.piece[self.position..][..length]);
        self.position += length;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Failing;

    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("broken"))
        }
    }

    #[test]
    fn everything_arrives_and_then_the_end_or_the_error() {
        let content: Vec<u8> = (0..PIECE * 20 + 3).map(|at| (at * at / 7) as u8).collect();
        let mut read = Vec::new();
        read_ahead(&mut content.as_slice(), |ahead| {
            ahead.read_to_end(&mut read).unwrap();
            assert_eq!(ahead.read(&mut [0]).unwrap(), 0, "an end is an end");
        });
        assert!(read == content);
        let mut read = Vec::new();
        let error = read_ahead(&mut content[..PIECE].chain(Failing), |ahead| {
            ahead.read_to_end(&mut read).unwrap_err()
        });
        assert_eq!(error.to_string(), "broken");
        assert!(read == content[..PIECE]);
    }

    #[test]
    fn who_stops_early_waits_for_nothing() {
        let mut endless = io::repeat(7);
        let first = read_ahead(&mut endless, |ahead| {
            let mut first = [0; 3];
            ahead.read_exact(&mut first).map(|()| first)
        });
        assert_eq!(first.unwrap(), [7; 3]);
    }
}
