//! Objects, read.

use reqwest::Method;
use reqwest::header::RANGE;

use super::client::Ask;
use super::{S3Client, S3Error, S3ErrorKind};
use crate::http::{Fault, Incoming, broken};

/// An object on its way.
///
/// The stream hands out at most as many bytes as the object should have, and goes on where it was when the connection breaks. What the
/// bytes are is not verified here.
#[derive(Debug)]
pub struct ObjectStream {
    client: S3Client,
    key: String,
    size: u64,
    incoming: Incoming,
    attempt: u32,
}

impl S3Client {
    /// Starts to read an object that should have `size` bytes.
    pub async fn open(&self, key: &str, size: u64) -> Result<ObjectStream, S3Error> {
        let incoming = Incoming::new(size, self.0.retry.idle_limit);
        let mut stream =
            ObjectStream { client: self.clone(), key: key.to_owned(), size, incoming, attempt: 1 };
        while !stream.incoming.is_connected() {
            stream.connect().await?;
        }
        Ok(stream)
    }

    /// Reads an object of at most `limit` bytes; `None` if there is none.
    pub async fn read(&self, key: &str, limit: u64) -> Result<Option<Vec<u8>>, S3Error> {
        let ask = Ask::new("read", Method::GET, key);
        let mut attempt = 1;
        loop {
            let mut response = match self.send(&ask).await {
                Err(error) if matches!(*error.kind, S3ErrorKind::Missing) => return Ok(None),
                response => response?,
            };
            let (mut bytes, url) = (Vec::new(), response.url().clone());
            let broke = loop {
                match response.chunk().await {
                    Ok(Some(chunk)) if (bytes.len() + chunk.len()) as u64 > limit => {
                        return Err(self.failed(&ask, S3ErrorKind::TooLarge(limit)));
                    }
                    Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
                    Ok(None) => return Ok(Some(bytes)),
                    Err(error) => break broken(&url, error),
                }
            };
            self.wait(&ask, &mut attempt, broke.into(), None).await?;
        }
    }
}

impl ObjectStream {
    /// The next bytes; `None` when there are no more.
    pub async fn chunk(&mut self) -> Result<Option<Vec<u8>>, S3Error> {
        loop {
            if !self.incoming.is_connected() {
                self.connect().await?;
                continue;
            }
            match self.incoming.chunk().await {
                Ok(chunk) => return Ok(chunk),
                Err(fault) => self.interrupted(fault).await?,
            }
        }
    }

    /// Makes one attempt to get an answer that goes on after what was received; without an error it may be tried again.
    async fn connect(&mut self) -> Result<(), S3Error> {
        let (client, key) = (self.client.clone(), self.key.clone());
        let mut ask = Ask::new("read", Method::GET, &key);
        if let Some(range) = self.incoming.range() {
            ask.headers.insert(RANGE, range);
        }
        match client.try_send(&ask).await {
            Err((kind, asked)) => client.wait(&ask, &mut self.attempt, kind, asked).await,
            Ok(response) => match self.incoming.accept(response) {
                Ok(()) => Ok(()),
                Err(fault) => self.interrupted(fault).await,
            },
        }
    }

    async fn interrupted(&mut self, fault: Fault) -> Result<(), S3Error> {
        let ask = Ask::new("read", Method::GET, &self.key);
        let kind = match fault {
            Fault::Broken(error) => error.into(),
            Fault::Short(actual) => {
                // Without a length, an answer that is cut short ends like a complete one.
                let kind = S3ErrorKind::Size { expected: self.size, actual };
                let retry = &self.client.0.retry;
                let Some(delay) = retry.delay(self.attempt, None) else {
                    return Err(self.client.failed(&ask, kind));
                };
                self.attempt += 1;
                tokio::time::sleep(delay).await;
                return Ok(());
            }
            Fault::Size(actual) => S3ErrorKind::Size { expected: self.size, actual },
            Fault::Range => S3ErrorKind::Range,
        };
        self.client.wait(&ask, &mut self.attempt, kind, None).await
    }
}
