//! Bytes that arrive in a task and are read in a thread.

use std::io::{self, Read};

use tokio::sync::mpsc;

/// Chunks that may wait: some hundred kilobytes, so that neither side waits for the other's every hiccup.
const CHUNKS: usize = 32;

#[derive(Debug)]
enum Message {
    Bytes(Vec<u8>),
    /// Only this is an end. A sender that vanishes was cancelled, and what was read is a part.
    End,
}

/// The end for the task that fetches.
#[derive(Debug)]
pub(super) struct ChunkSender(mpsc::Sender<Message>);

/// The end for the thread that reads.
#[derive(Debug)]
pub(super) struct ChunkReader {
    receiver: mpsc::Receiver<Message>,
    chunk: io::Cursor<Vec<u8>>,
    ended: bool,
}

pub(super) fn chunks() -> (ChunkSender, ChunkReader) {
    let (sender, receiver) = mpsc::channel(CHUNKS);
    (ChunkSender(sender), ChunkReader { receiver, chunk: io::Cursor::default(), ended: false })
}

impl ChunkSender {
    /// Passes bytes on. Whether anybody still reads.
    pub(super) async fn send(&self, bytes: Vec<u8>) -> bool {
        self.0.send(Message::Bytes(bytes)).await.is_ok()
    }

    /// Says that everything was sent.
    pub(super) async fn end(self) {
        // A reader that is gone needs no end.
        let _ = self.0.send(Message::End).await;
    }
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.chunk.read(buffer)?;
            if read > 0 || buffer.is_empty() || self.ended {
                return Ok(read);
            }
            match self.receiver.blocking_recv() {
                Some(Message::Bytes(bytes)) => self.chunk = io::Cursor::new(bytes),
                Some(Message::End) => self.ended = true,
                None => return Err(io::Error::other("the transfer was interrupted")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_read() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (sender, mut reader) = chunks();
        let thread = std::thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).map(|_| text)
        });
        runtime.block_on(async {
            for word in ["a", "", "bc"] {
                assert!(sender.send(word.into()).await);
            }
            sender.end().await;
        });
        assert_eq!(thread.join().unwrap().unwrap(), "abc");
    }

    #[test]
    fn an_interrupted_transfer_is_no_end() {
        let (sender, mut reader) = chunks();
        drop(sender);
        let error = reader.read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.to_string(), "the transfer was interrupted");
    }
}
