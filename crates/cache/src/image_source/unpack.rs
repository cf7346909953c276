//! From blobs to layer directories.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::os::fd::AsFd;

use futures_util::future::try_join_all;
use rbuild_oci::{Descriptor, DiffId};
use rbuild_solver::{LayerId, Snapshot};
use tokio::sync::watch;

use super::fetch::blocking;
use super::{ImageError, ImageSource, PullProgress};
use crate::view::copy_root;
use crate::{
    ActiveLayer, AppliedLayer, ApplyForm, ApplyOptions, LayerBlobReader, LayerFacts, Layers,
    LockName, PendingLayer, ViewError, apply,
};

/// Of larger blobs, what is read is hashed and decompressed in one thread while another makes files of it.
const WORTH_A_THREAD: u64 = 256 << 10;

/// A layer that has to be made.
#[derive(Debug)]
struct Job {
    id: LayerId,
    facts: LayerFacts,
    parent: Option<LayerId>,
    done: watch::Sender<bool>,
    /// When the layer below will be there; `None` when it is there already, or there is none.
    parent_done: Option<watch::Receiver<bool>>,
}

impl ImageSource {
    /// Makes sure that every layer of a snapshot has its directory: fetches and unpacks those that are missing, side by
    /// side, and makes those that were deferred. What is there already costs a system call a layer.
    ///
    /// Layers that steps made have no blob until they are exported; when one is gone without, this fails with
    /// [`ImageError::Unavailable`].
    pub async fn ensure_unpacked(
        &self,
        snapshot: &Snapshot,
        progress: &PullProgress,
    ) -> Result<(), ImageError> {
        self.lease.pin_layers(snapshot.layers())?;
        if self.deferred.has_any(snapshot.layers()) {
            let (deferred, layers) = (self.deferred.clone(), snapshot.layers().to_vec());
            blocking(move || deferred.make(&layers).map_err(ImageError::Deferred)).await?;
        }
        let jobs = self.plan(snapshot)?;
        try_join_all(jobs.into_iter().map(|job| self.unpack(job, progress))).await?;
        Ok(())
    }

    /// The missing layers, and those missing below them: a snapshot may hold the upper part of an image only, and a layer takes
    /// at least its root directory's mode from the one below.
    fn plan(&self, snapshot: &Snapshot) -> Result<Vec<Job>, ImageError> {
        let mut jobs: Vec<Job> = Vec::new();
        let mut receivers = HashMap::new();
        let mut seen: HashSet<LayerId> = HashSet::new();
        let mut wanted: Vec<LayerId> = snapshot.layers().to_vec();
        while let Some(id) = wanted.pop() {
            if !seen.insert(id) || self.layers.contains(&id)? {
                continue;
            }
            let facts = self.index.layer(&id)?.ok_or(ImageError::Unavailable(id))?;
            let parent = facts.parent();
            if let Some(parent) = parent {
                self.lease.pin_layers(&[parent])?;
                wanted.push(parent);
            }
            let (done, receiver) = watch::channel(false);
            receivers.insert(id, receiver);
            jobs.push(Job { id, facts, parent, done, parent_done: None });
        }
        for job in &mut jobs {
            job.parent_done = job.parent.and_then(|parent| receivers.get(&parent).cloned());
        }
        Ok(jobs)
    }

    async fn unpack(&self, job: Job, progress: &PullProgress) -> Result<(), ImageError> {
        let _lock = self.locks.lock(LockName::Layer(&job.id)).await?;
        if !self.layers.contains(&job.id)? {
            let (descriptor, (pending, applied)) = self
                .any_blob(job.id, &job.facts, None, |blob| async {
                    let unpacked = self.unpack_alone(&job, &blob.descriptor, progress).await?;
                    Ok((blob.descriptor, unpacked))
                })
                .await?;
            if let Some(mut parent_done) = job.parent_done.clone() {
                // When the layer below fails, its error ends this future too.
                if parent_done.wait_for(|done| *done).await.is_err() {
                    return std::future::pending().await;
                }
            }
            report_skipped(&descriptor, &applied, progress);
            self.put_on_parents(&job, &descriptor, pending, applied).await?;
        }
        job.done.send_replace(true);
        Ok(())
    }

    /// Unpacks a layer into a directory that does not know of the layers below.
    async fn unpack_alone(
        &self,
        job: &Job,
        descriptor: &Descriptor,
        progress: &PullProgress,
    ) -> Result<(PendingLayer, AppliedLayer), ImageError> {
        let unpack = Unpack {
            descriptor: descriptor.clone(),
            diff_id: job.facts.diff_id,
            must_fit: job.facts.is_from_cache(),
            options: self.apply_options(ApplyForm::Layer(self.overlay.xattrs())),
        };
        let layers = self.layers.clone();
        let lock = self.locks.lock(LockName::Blob(&descriptor.digest)).await?;
        if self.content.contains(&descriptor.digest, descriptor.size)? {
            drop(lock);
            let _permit = self.transfers.acquire().await.expect("the semaphore is never closed");
            let content = self.content.clone();
            return blocking(move || {
                let Descriptor { digest, size, .. } = unpack.descriptor;
                unpack.apply_to_new(&layers, content.open(&digest, Some(size))?)
            })
            .await;
        }
        self.fetch(descriptor, progress, move |mut blob| {
            let unpacked = unpack.apply_to_new(&layers, &mut blob);
            blob.finish(unpacked)
        })
        .await
    }

    /// Makes the layer what it is on top of its parents, and visible.
    async fn put_on_parents(
        &self,
        job: &Job,
        descriptor: &Descriptor,
        pending: PendingLayer,
        applied: AppliedLayer,
    ) -> Result<(), ImageError> {
        let (id, layers) = (job.id, self.layers.clone());
        let Some(parent) = job.parent else {
            // Nothing is below: what the archive leaves out is as it was made, but links to what is not there are broken.
            if applied.outside_hardlinks.is_empty() {
                return Ok(pending.commit(&id)?);
            }
            return self.unpack_merged(job, descriptor, Snapshot::default()).await;
        };
        if applied.needs_parents() {
            drop(pending);
            let below = Snapshot::new(self.chain(parent)?);
            return self.unpack_merged(job, descriptor, below).await;
        }
        blocking(move || {
            if !applied.explicit_root {
                copy_root(layers.open(&parent)?.as_fd(), pending.dir()).map_err(ViewError::Root)?;
            }
            Ok(pending.commit(&id)?)
        })
        .await
    }

    /// Unpacks a layer that cannot stand alone through an overlay of the layers below.
    async fn unpack_merged(
        &self,
        job: &Job,
        descriptor: &Descriptor,
        below: Snapshot,
    ) -> Result<(), ImageError> {
        let unpack = Unpack {
            descriptor: descriptor.clone(),
            diff_id: job.facts.diff_id,
            must_fit: job.facts.is_from_cache(),
            options: self.apply_options(ApplyForm::Merged),
        };
        let (id, content) = (job.id, self.content.clone());
        let (layers, overlay) = (self.layers.clone(), self.overlay.clone());
        blocking(move || {
            let Descriptor { digest, size, .. } = unpack.descriptor;
            let active = ActiveLayer::begin(&overlay, &layers, &below)?;
            unpack.apply_to(active.root(), content.open(&digest, Some(size))?)?;
            Ok(active.commit(&id)?)
        })
        .await
    }

    /// The layers from the lowest up to `top`.
    fn chain(&self, top: LayerId) -> Result<Vec<LayerId>, ImageError> {
        let mut chain = vec![top];
        let mut below = Some(top);
        while let Some(id) = below {
            let facts = self.index.layer(&id)?.ok_or(ImageError::Unavailable(id))?;
            below = facts.parent();
            chain.extend(below);
        }
        chain.reverse();
        Ok(chain)
    }

    fn apply_options(&self, form: ApplyForm) -> ApplyOptions {
        ApplyOptions {
            form,
            ignore_chown_errors: self.options.ignore_chown_errors,
            owner: None,
            limits: self.options.limits,
        }
    }
}

/// How a blob becomes files.
#[derive(Clone, Debug)]
struct Unpack {
    descriptor: Descriptor,
    diff_id: Option<DiffId>,
    /// Whether it must be compressed as its type says.
    must_fit: bool,
    options: ApplyOptions,
}

impl Unpack {
    fn apply_to_new(
        &self,
        layers: &Layers,
        blob: impl Read + Send,
    ) -> Result<(PendingLayer, AppliedLayer), ImageError> {
        let pending = layers.begin()?;
        let applied = self.apply_to(pending.dir(), blob)?;
        Ok((pending, applied))
    }

    /// Applies the blob to a directory, and checks the diff id.
    fn apply_to(
        &self,
        root: std::os::fd::BorrowedFd<'_>,
        blob: impl Read + Send,
    ) -> Result<AppliedLayer, ImageError> {
        let digest = self.descriptor.digest;
        let mut archive = LayerBlobReader::new(blob)
            .map_err(|source| ImageError::Compression { digest, source })?;
        if self.must_fit && !archive.fits(&self.descriptor.media_type) {
            return Err(ImageError::MediaType {
                digest,
                media_type: self.descriptor.media_type.clone(),
            });
        }
        let applied = if self.descriptor.size < WORTH_A_THREAD {
            apply(&mut archive, root, &self.options)
        } else {
            archive.read_ahead(|archive| apply(archive, root, &self.options))
        };
        let applied = applied.map_err(|source| ImageError::Unpack { digest, source })?;
        let actual = archive.diff_id();
        match self.diff_id {
            Some(expected) if expected != actual => {
                Err(ImageError::DiffId { digest, expected, actual })
            }
            _ => Ok(applied),
        }
    }
}

/// Says what of a layer could not be had without root.
fn report_skipped(descriptor: &Descriptor, applied: &AppliedLayer, progress: &PullProgress) {
    for (count, what) in [
        (applied.skipped_devices, "device nodes, which this process may not make"),
        (applied.skipped_xattrs, "extended attributes, which cannot be set here"),
        (applied.skipped_owners, "files' owners, which this user namespace does not have"),
    ] {
        if count > 0 {
            progress.warn(format!("layer {}: left out {count} {what}", descriptor.digest));
        }
    }
}
