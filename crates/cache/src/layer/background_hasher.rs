//! A digest that is made while its bytes are compressed and written.

use std::io;
use std::mem;
use std::sync::mpsc::{self, SyncSender};
use std::thread::{self, JoinHandle};

use rbuild_oci::{Digest, Hasher};

const PIECE: usize = 256 << 10;
const PIECES_WAITING: usize = 4;

/// Hashes what it is given, in a thread of its own once that is worth one. Holds at most a few pieces of 256 KiB.
#[derive(Debug, Default)]
pub(super) struct BackgroundHasher {
    filling: Vec<u8>,
    /// None for short content.
    hashing: Option<Hashing>,
}

#[derive(Debug)]
enum Hashing {
    Elsewhere {
        pieces: SyncSender<Vec<u8>>,
        hasher: JoinHandle<Hasher>,
    },
    /// The system has no thread to give.
    Here(Box<Hasher>),
}

impl BackgroundHasher {
    pub(super) fn update(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(PIECE - self.filling.len()));
            self.filling.extend_from_slice(now);
            bytes = later;
            if self.filling.len() == PIECE {
                self.send()?;
            }
        }
        Ok(())
    }

    fn send(&mut self) -> io::Result<()> {
        let piece = mem::replace(&mut self.filling, Vec::with_capacity(PIECE));
        match self.hashing.get_or_insert_with(Hashing::start) {
            Hashing::Elsewhere { pieces, .. } => pieces.send(piece).map_err(|_| lost())?,
            Hashing::Here(hasher) => hasher.update(&piece),
        }
        Ok(())
    }

    /// The digest of all bytes.
    pub(super) fn finish(self) -> io::Result<Digest> {
        let mut hasher = match self.hashing {
            None => Hasher::default(),
            Some(Hashing::Here(hasher)) => *hasher,
            Some(Hashing::Elsewhere { pieces, hasher }) => {
                drop(pieces);
                hasher.join().map_err(|_| lost())?
            }
        };
        hasher.update(&self.filling);
        Ok(hasher.finish())
    }
}

impl Hashing {
    fn start() -> Self {
        let (pieces, received) = mpsc::sync_channel::<Vec<u8>>(PIECES_WAITING);
        let hash = move || {
            let mut hasher = Hasher::default();
            received.iter().for_each(|piece| hasher.update(&piece));
            hasher
        };
        match thread::Builder::new().name("hash".to_owned()).spawn(hash) {
            Ok(hasher) => Self::Elsewhere { pieces, hasher },
            Err(_) => Self::Here(Box::default()),
        }
    }
}

fn lost() -> io::Error {
    io::Error::other("the hashing thread panicked")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_length_in_any_pieces_has_its_digest() {
        let content: Vec<u8> = (0..PIECE * 7 + 5).map(|at| (at * at / 7) as u8).collect();
        let here = || Some(Hashing::Here(Box::default()));
        for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, content.len()] {
            for (piece, hashing) in [(1000, None), (PIECE, here()), (PIECE * 3 + 1, None)] {
                let mut hasher = BackgroundHasher { hashing, ..BackgroundHasher::default() };
                for piece in content[..length].chunks(piece) {
                    hasher.update(piece).unwrap();
                }
                assert_eq!(hasher.finish().unwrap(), Digest::of(&content[..length]), "{length}");
            }
        }
    }
}
