//! From a place to a blob in the store, or past it on the way.

use std::fmt;
use std::io::{self, Read, Write};

use rbuild_oci::{Descriptor, Reference};

use super::error::FetchError;
use super::progress::BlobProgress;
use super::reader::chunks;
use super::{ImageError, ImageSource, PullProgress};
use crate::disk_error::DiskError;
use crate::{
    BlobSource, BlobStream, BlobWriter, Content, ContentError, LockName, ObjectStream, OciLayout,
    RegistryErrorKind, S3Bucket,
};

/// Where blobs come from.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    Registry(Reference),
    Layout(OciLayout),
    Bucket { bucket: S3Bucket, prefix: String },
}

impl Origin {
    /// `None` for a place that was noted by another version and is not understood.
    fn from_blob_source(source: &BlobSource) -> Option<Self> {
        match source {
            BlobSource::Registry { registry, repository } => {
                Reference::parse(&format!("{registry}/{repository}")).ok().map(Self::Registry)
            }
            BlobSource::OciLayout { path } => Some(Self::Layout(OciLayout::new(path))),
            BlobSource::S3 { bucket, prefix } => {
                Some(Self::Bucket { bucket: bucket.clone(), prefix: prefix.clone() })
            }
        }
    }

    pub(super) fn to_blob_source(&self) -> BlobSource {
        match self {
            Self::Registry(reference) => BlobSource::Registry {
                registry: reference.registry().to_owned(),
                repository: reference.repository().to_owned(),
            },
            Self::Layout(layout) => BlobSource::OciLayout { path: layout.folder().to_owned() },
            Self::Bucket { bucket, prefix } => {
                BlobSource::S3 { bucket: bucket.clone(), prefix: prefix.clone() }
            }
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(reference) => write!(f, "`{}`", reference.name()),
            Self::Layout(layout) => write!(f, "`{}`", layout.folder().display()),
            Self::Bucket { bucket, prefix } => write!(f, "`{bucket}/{prefix}`"),
        }
    }
}

impl ImageSource {
    /// Makes sure that a layer's blob is in the store.
    ///
    /// `descriptor` is one of those that the layer's facts list. Nothing is unpacked.
    pub async fn ensure_blob(
        &self,
        descriptor: &Descriptor,
        progress: &PullProgress,
    ) -> Result<(), ImageError> {
        self.lease.pin_blobs(&[descriptor.digest])?;
        if self.content.contains(&descriptor.digest, descriptor.size)? {
            return Ok(());
        }
        let _lock = self.locks.lock(LockName::Blob(&descriptor.digest)).await?;
        if self.content.contains(&descriptor.digest, descriptor.size)? {
            return Ok(());
        }
        self.fetch(descriptor, progress, |blob| blob.finish(Ok(()))).await
    }

    /// Fetches a blob that is not in the store from the first place that gives it, and lets `read` have it on the way, in
    /// a thread. `read` ends with [`IncomingBlob::finish`]. The caller holds the blob's lock.
    pub(super) async fn fetch<T: Send + 'static>(
        &self,
        descriptor: &Descriptor,
        progress: &PullProgress,
        read: impl FnOnce(IncomingBlob) -> Result<T, ImageError> + Clone + Send + 'static,
    ) -> Result<T, ImageError> {
        let _permit = self.transfers.acquire().await.expect("the semaphore is never closed");
        let sources = self.index.blob_sources(&descriptor.digest)?;
        let mut failed = None;
        for source in &sources {
            let Some(origin) = Origin::from_blob_source(source) else { continue };
            let bar = progress.blob(descriptor);
            let fetched = self.fetch_from(origin, descriptor, bar, read.clone()).await;
            self.warn_of_mirrors(progress);
            match fetched {
                Ok(value) => return Ok(value),
                // The bytes were right; another place has the same.
                Err(
                    error @ (ImageError::Unpack { .. }
                    | ImageError::DiffId { .. }
                    | ImageError::MediaType { .. }),
                ) => return Err(error),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        Err(failed.unwrap_or_else(|| ContentError::Missing(descriptor.digest).into()))
    }

    async fn fetch_from<T: Send + 'static>(
        &self,
        origin: Origin,
        descriptor: &Descriptor,
        progress: BlobProgress,
        read: impl FnOnce(IncomingBlob) -> Result<T, ImageError> + Clone + Send + 'static,
    ) -> Result<T, ImageError> {
        let from = origin.to_string();
        match origin {
            Origin::Layout(layout) => {
                let incoming = self.incoming(descriptor, from)?;
                let descriptor = descriptor.clone();
                blocking(move || {
                    let file = layout.open_file(&descriptor)?;
                    read(incoming.reading(Box::new(file), Some(progress)))
                })
                .await
            }
            Origin::Registry(reference) => {
                let mut stream = self.registry.blob(&reference, descriptor).await?;
                loop {
                    let incoming = self.incoming(descriptor, from.clone())?;
                    let coming = Stream::Blob(&mut stream);
                    let received = receive(coming, incoming, progress.clone(), read.clone()).await;
                    let wrong = received.as_ref().err().and_then(what_is_wrong);
                    match wrong {
                        Some(reason) if stream.leave_mirror(&reason) => {}
                        _ => return received,
                    }
                }
            }
            Origin::Bucket { bucket, prefix } => {
                let key = format!("{prefix}{}", descriptor.digest);
                let object = self.buckets.of(&bucket).open(&key, descriptor.size).await?;
                let incoming = self.incoming(descriptor, from)?;
                receive(Stream::Object(Box::new(object)), incoming, progress, read).await
            }
        }
    }

    fn incoming(&self, descriptor: &Descriptor, from: String) -> Result<Incoming, ImageError> {
        let writer = self.content.begin_with(descriptor.digest.algorithm())?;
        Ok(Incoming { writer, content: self.content.clone(), descriptor: descriptor.clone(), from })
    }

    /// Tells which mirrors have sent something wrong since this was called last.
    pub fn warn_of_mirrors(&self, progress: &PullProgress) {
        for fault in self.registry.take_mirror_faults() {
            progress.warn(fault.to_string());
        }
    }
}

/// A blob that comes over the network.
enum Stream<'a> {
    Blob(&'a mut BlobStream),
    Object(Box<ObjectStream>),
}

impl Stream<'_> {
    async fn chunk(&mut self) -> Result<Option<Vec<u8>>, ImageError> {
        Ok(match self {
            Self::Blob(blob) => blob.chunk().await?,
            Self::Object(object) => object.chunk().await?,
        })
    }
}

/// Passes what a server sends to a thread that reads it.
async fn receive<T: Send + 'static>(
    mut stream: Stream<'_>,
    incoming: Incoming,
    mut progress: BlobProgress,
    read: impl FnOnce(IncomingBlob) -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    let (sender, reader) = chunks();
    let reading = blocking(move || read(incoming.reading(Box::new(reader), None)));
    let sending = async move {
        while let Some(chunk) = stream.chunk().await? {
            progress.add(chunk.len());
            if !sender.send(chunk).await {
                return Ok(());
            }
        }
        sender.end().await;
        progress.complete();
        Ok::<_, ImageError>(())
    };
    // The reader's error is only an echo of the sender's, if there is one.
    let (read, sent) = tokio::join!(reading, sending);
    sent.and(read)
}

/// How the bytes are wrong that were sent, if that is what failed.
fn what_is_wrong(error: &ImageError) -> Option<String> {
    match error {
        ImageError::Fetch {
            source: FetchError::Content(ContentError::Mismatch { source, .. }),
            ..
        } => Some(source.to_string()),
        ImageError::Registry(error) => match &*error.kind {
            kind @ RegistryErrorKind::BlobSize { .. } => Some(kind.to_string()),
            _ => None,
        },
        _ => None,
    }
}

/// Runs file work on a thread where it may block. A panic there goes on here.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Where a blob goes that nobody has begun to read.
struct Incoming {
    writer: BlobWriter,
    content: Content,
    descriptor: Descriptor,
    from: String,
}

impl Incoming {
    fn reading(self, inner: Box<dyn Read + Send>, progress: Option<BlobProgress>) -> IncomingBlob {
        let Self { writer, content, descriptor, from } = self;
        IncomingBlob { inner, writer, content, descriptor, from, progress, write_error: None }
    }
}

/// A blob on its way into the store: what is read from it is written there.
pub(super) struct IncomingBlob {
    inner: Box<dyn Read + Send>,
    writer: BlobWriter,
    content: Content,
    descriptor: Descriptor,
    from: String,
    /// Where the reading is the transfer.
    progress: Option<BlobProgress>,
    write_error: Option<io::Error>,
}

impl Read for IncomingBlob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        // A file may grow while it is read; what is too long is too long after one byte.
        if self.writer.written() <= self.descriptor.size {
            self.writer.write_all(&buffer[..read]).map_err(|error| {
                let message = io::Error::new(error.kind(), "cannot keep a copy");
                self.write_error = Some(error);
                message
            })?;
        }
        if let Some(progress) = &mut self.progress {
            progress.add(read);
        }
        Ok(read)
    }
}

impl IncomingBlob {
    /// Reads what is left and puts the blob into the store. `used` is what its reader made of it.
    ///
    /// A blob that is not what was promised may well have made no sense to its reader: that it is another blob is then
    /// the better explanation.
    pub(super) fn finish<T>(mut self, used: Result<T, ImageError>) -> Result<T, ImageError> {
        let Descriptor { digest, size, .. } = self.descriptor;
        let limit = size.saturating_sub(self.writer.written()).saturating_add(1);
        let drained = io::copy(&mut self.by_ref().take(limit), &mut io::sink());
        if let Some(error) = self.write_error {
            let error = DiskError::new("write", &self.content.path(&digest), error);
            return Err(ContentError::from(error).into());
        }
        let failed = |source| ImageError::Fetch { digest, from: self.from.clone(), source };
        drained.map_err(|error| failed(FetchError::Read(error)))?;
        self.writer
            .commit(Some((digest, size)))
            .map_err(|error| failed(FetchError::Content(error)))?;
        if let Some(progress) = self.progress {
            progress.complete();
        }
        used
    }
}
