//! From an answer to a layer.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use rbuild_oci::{Algorithm, Digest, Hasher};
use reqwest::Response;
use rustix::fs::{Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use tokio::sync::mpsc;

use super::{Download, DownloadErrorKind, Pace};
use crate::http::broken;
use crate::{Layers, PendingLayer};

/// How many pieces may wait to be written.
const PIECES: usize = 16;

/// What a body may be like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) limit: u64,
    pub(super) slowest: Pace,
}

/// A file that has come.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) layer: PendingLayer,
    pub(super) content: Digest,
}

/// Writes a body into a new layer. Hashing and writing are on a thread of their own: the network is not kept waiting by
/// the disk.
pub(super) async fn receive(
    mut response: Response,
    download: &Download,
    modified: Option<i64>,
    layers: &Layers,
    Bounds { limit, slowest }: Bounds,
    mut report: impl FnMut(usize),
) -> Result<Received, DownloadErrorKind> {
    if response.content_length().is_some_and(|length| length > limit) {
        return Err(DownloadErrorKind::TooLarge(limit));
    }
    let layer = layers.begin()?;
    let file = create(&layer, &download.name).map_err(write("create"))?;
    let (sender, receiver) = mpsc::channel(PIECES);
    let asked = download.checksum;
    let writing = tokio::task::spawn_blocking(move || write_all(receiver, file, asked));
    let mut length = 0;
    let (mut since, mut wanted) = (Instant::now(), slowest.bytes);
    loop {
        let piece = response.chunk().await.map_err(|error| broken(response.url(), error))?;
        let Some(piece) = piece else { break };
        length += piece.len() as u64;
        if length > limit {
            return Err(DownloadErrorKind::TooLarge(limit));
        }
        if since.elapsed() >= slowest.every {
            if length < wanted {
                return Err(DownloadErrorKind::TooSlow(slowest.bytes, slowest.every.as_secs()));
            }
            (since, wanted) = (Instant::now(), length + slowest.bytes);
        }
        report(piece.len());
        if sender.send(piece).await.is_err() {
            // It gave up, and says why below.
            break;
        }
    }
    drop(sender);
    let written = writing.await.expect("writing a file does not panic");
    let Written { file, content, checked } = written.map_err(write("write"))?;
    if let (Some(expected), Some(actual)) = (asked, checked)
        && expected != actual
    {
        return Err(DownloadErrorKind::Checksum { actual, expected });
    }
    finish(&layer, &file, download, modified).map_err(write("finish"))?;
    Ok(Received { layer, content })
}

fn write(action: &'static str) -> impl Fn(io::Error) -> DownloadErrorKind {
    move |source| DownloadErrorKind::Write { action, source }
}

fn create(layer: &PendingLayer, name: &str) -> io::Result<File> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file: OwnedFd = rustix::fs::openat(layer.dir(), name, flags, Mode::RUSR | Mode::WUSR)?;
    Ok(file.into())
}

struct Written {
    file: File,
    content: Digest,
    /// By the algorithm of the checksum.
    checked: Option<Digest>,
}

fn write_all(
    mut pieces: mpsc::Receiver<impl AsRef<[u8]>>,
    mut file: File,
    checksum: Option<Digest>,
) -> io::Result<Written> {
    let mut hasher = Hasher::default();
    let other = checksum.map(|checksum| checksum.algorithm());
    let mut other = other.filter(|algorithm| *algorithm != Algorithm::Sha256).map(Hasher::new);
    while let Some(piece) = pieces.blocking_recv() {
        let piece = piece.as_ref();
        hasher.update(piece);
        if let Some(other) = &mut other {
            other.update(piece);
        }
        file.write_all(piece)?;
    }
    let content = hasher.finish();
    let checked = checksum.map(|_| other.map_or(content, Hasher::finish));
    Ok(Written { file, content, checked })
}

/// Owner, mode and time; the directory gets the time too, so that equal files are equal layers.
fn finish(
    layer: &PendingLayer,
    file: &File,
    download: &Download,
    modified: Option<i64>,
) -> io::Result<()> {
    // The last id stands for no change, as it does for the kernel.
    let change = |id: u32| (id != u32::MAX).then_some(id);
    let (uid, gid) = (change(download.uid), change(download.gid));
    rustix::fs::fchown(file, uid.map(Uid::from_raw), gid.map(Gid::from_raw))?;
    rustix::fs::fchmod(file, Mode::from_raw_mode(download.mode))?;
    let time = Timespec { tv_sec: modified.unwrap_or(0), tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    for of in [file.as_fd(), layer.dir()] {
        rustix::fs::futimens(of, &times)?;
    }
    Ok(())
}
