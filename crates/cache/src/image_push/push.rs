//! One image, into repositories.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use futures_util::stream::{self, TryStreamExt as _};
use rbuild_oci::{Descriptor, DiffId, Digest, Reference};
use rbuild_solver::{Event, StatusUpdate};

use super::PushError;
use super::contents::{Contents, PushedPlatforms, select};
use crate::{
    BlobSource, Content, Document, ImageSource, Index, Lease, Mount, PullProgress, RegistryClient,
    RegistryError, RegistryErrorKind, Store,
};

/// Blobs that are looked for, fetched or sent at a time, for one repository.
const PARALLEL: usize = 6;
/// How many repositories are asked to give a blob that is not in the store.
const MOST_MOUNTS: usize = 3;
/// How often an image is sent to a repository that does not find all of it.
const ATTEMPTS: u32 = 3;

/// Pushes images of a store. Clones share their limits and connections.
#[derive(Clone, Debug)]
pub struct ImagePush {
    pub(super) content: Content,
    index: Index,
    lease: Lease,
    images: ImageSource,
    pub(super) registry: RegistryClient,
}

impl ImagePush {
    /// Pushes what is in `store` to registries as `registry` reaches them; `images` fetches what is missing.
    pub fn new(store: &Store, lease: Lease, images: ImageSource, registry: RegistryClient) -> Self {
        let (content, index) = (store.content.clone(), store.index.clone());
        Self { content, index, lease, images, registry }
    }

    /// What of an image is to be pushed, for [`ImagePush::push`].
    pub fn select(
        &self,
        top: &Descriptor,
        platforms: &PushedPlatforms,
    ) -> Result<Descriptor, PushError> {
        select(&self.content, top, platforms)
    }

    /// Pushes an image to each of `names`; one without a tag gets it by its digest only. A name that means the image already
    /// costs one request.
    pub async fn push(
        &self,
        top: &Descriptor,
        names: &[Reference],
        progress: &PullProgress,
    ) -> Result<(), PushError> {
        self.lease.pin_blobs(&[top.digest])?;
        let contents = Contents::read(&self.content, top)?;
        let blobs: Vec<Digest> = contents.blobs.iter().map(|blob| blob.digest).collect();
        self.lease.pin_blobs(&blobs)?;
        for names in by_repository(names) {
            self.push_to_repository(&contents, &names, progress).await?;
        }
        Ok(())
    }

    /// Pushes to names in one repository.
    async fn push_to_repository(
        &self,
        contents: &Contents,
        names: &[Reference],
        progress: &PullProgress,
    ) -> Result<(), PushError> {
        let digest = contents.top.digest;
        let mut targets = Vec::new();
        for name in names {
            let target = match name.tag() {
                Some(_) => name.clone(),
                None => name.pinned(digest),
            };
            let there = self.registry.manifest_descriptor(&target).await?;
            if there.is_none_or(|there| there.digest != digest) {
                targets.push(target);
            }
        }
        let Some(repository) = targets.first() else { return Ok(()) };
        let mut attempt = 1;
        loop {
            match self.send(contents, repository, &targets, progress).await {
                // Somebody who sends the same at the same time may have been in the way, or have deleted a part of it since.
                Err(PushError::Registry(error)) if attempt < ATTEMPTS && is_incomplete(&error) => {
                    attempt += 1;
                }
                done => return done,
            }
        }
    }

    /// Sends what a repository does not have, and gives the names.
    async fn send(
        &self,
        contents: &Contents,
        repository: &Reference,
        targets: &[Reference],
        progress: &PullProgress,
    ) -> Result<(), PushError> {
        let layers = Part::begin(progress, "pushing layers".to_owned());
        stream::iter(contents.blobs.iter().map(Ok))
            .try_for_each_concurrent(PARALLEL, |blob| {
                let diff_ids = contents.diff_ids.get(&blob.digest);
                let diff_ids = diff_ids.into_iter().flatten().copied().collect();
                self.push_blob(repository, (blob, diff_ids), progress)
            })
            .await?;
        let blobs: Vec<Digest> = contents.blobs.iter().map(|blob| blob.digest).collect();
        self.index.add_blob_source(&blobs, &place(repository))?;
        layers.complete();
        for manifest in &contents.manifests {
            let target = repository.pinned(manifest.digest);
            let there = self.registry.manifest_descriptor(&target).await?;
            if there.is_none_or(|there| there.digest != manifest.digest) {
                self.put(&target, manifest, progress).await?;
            }
        }
        for target in targets {
            self.put(target, &contents.top, progress).await?;
        }
        Ok(())
    }

    async fn put(
        &self,
        target: &Reference,
        document: &Document,
        progress: &PullProgress,
    ) -> Result<(), PushError> {
        let digest = document.digest;
        let name = match target.digest() {
            Some(_) => format!("{}@{digest}", target.name()),
            None => target.pinned(digest).to_string(),
        };
        let part = Part::begin(progress, format!("pushing manifest for {name}"));
        self.registry.put_manifest(target, document).await?;
        part.complete();
        Ok(())
    }

    async fn push_blob(
        &self,
        to: &Reference,
        (blob, diff_ids): (&Descriptor, Vec<DiffId>),
        progress: &PullProgress,
    ) -> Result<(), PushError> {
        let digest = blob.digest;
        // A registry may have a blob, and give it, that is not the layer.
        for diff_id in &diff_ids {
            if diff_ids.len() > 1 || self.images.is_disputed(blob, *diff_id)? {
                self.ensure(blob, Some(*diff_id), progress).await?;
            }
        }
        if self.registry.has_blob(to, &digest).await? {
            return Ok(());
        }
        let read = |source| PushError::Content { digest, source: Box::new(source) };
        let is_here = self.content.contains(&digest, blob.size).map_err(read)?;
        let places = self.index.blob_sources(&digest)?;
        let most = if is_here { 1 } else { MOST_MOUNTS };
        let mut session = None;
        for from in repositories(to, &places).take(most) {
            // What goes wrong here costs a transfer; what is really wrong shows when that is tried.
            match self.registry.mount_blob(to, &digest, from).await {
                Ok(Mount::Done) => return Ok(()),
                Ok(Mount::Refused(new)) => {
                    if let Some(old) = session.replace(new) {
                        self.registry.cancel_upload(to, old).await;
                    }
                }
                Err(_) => {}
            }
        }
        self.ensure(blob, diff_ids.first().copied(), progress).await?;
        let bar = Arc::new(Mutex::new(progress.blob(blob)));
        let body = {
            let bar = Arc::clone(&bar);
            self.content.body(digest, blob.size).reporting(move |sent| {
                bar.lock().unwrap_or_else(PoisonError::into_inner).set(sent);
            })
        };
        self.registry.put_blob(to, blob, &body, session).await?;
        // The connection may hold on to the body for a while.
        let bar = bar.lock().unwrap_or_else(PoisonError::into_inner).clone();
        bar.complete();
        Ok(())
    }

    /// Makes sure that a blob is here, and is what it is pushed as.
    async fn ensure(
        &self,
        blob: &Descriptor,
        diff_id: Option<DiffId>,
        progress: &PullProgress,
    ) -> Result<(), PushError> {
        let digest = blob.digest;
        let ensured = self.images.ensure_blob_as(blob, diff_id, progress).await;
        ensured.map_err(|source| PushError::Fetch { digest, source: Box::new(source) })
    }
}

/// Whether a registry says that it lacks what a manifest refers to, or that what it has written is not what was sent.
fn is_incomplete(error: &RegistryError) -> bool {
    let RegistryErrorKind::Status { status: 400 | 404, method: "PUT", path, message } =
        &*error.kind
    else {
        return false;
    };
    let said = ["blob unknown", "BLOB_UNKNOWN", "manifest unknown", "did not match"];
    path.contains("/manifests/") && said.iter().any(|said| message.contains(said))
}

/// Names by repository, in the order of their first.
fn by_repository(names: &[Reference]) -> Vec<Vec<Reference>> {
    let mut groups: Vec<Vec<Reference>> = Vec::new();
    for name in names {
        match groups.iter_mut().find(|group| group[0].name() == name.name()) {
            Some(group) if group.contains(name) => {}
            Some(group) => group.push(name.clone()),
            None => groups.push(vec![name.clone()]),
        }
    }
    groups
}

fn place(of: &Reference) -> BlobSource {
    BlobSource::Registry {
        registry: of.registry().to_owned(),
        repository: of.repository().to_owned(),
    }
}

/// The other repositories of the same registry that may have a blob.
fn repositories<'a>(
    to: &'a Reference,
    places: &'a [BlobSource],
) -> impl Iterator<Item = &'a str> + 'a {
    places.iter().filter_map(|place| match place {
        BlobSource::Registry { registry, repository }
            if registry == to.registry() && repository != to.repository() =>
        {
            Some(repository.as_str())
        }
        _ => None,
    })
}

/// A part of the work, as a display shows it.
struct Part<'a> {
    progress: &'a PullProgress,
    status: StatusUpdate,
}

impl<'a> Part<'a> {
    fn begin(progress: &'a PullProgress, id: String) -> Self {
        let status = StatusUpdate {
            vertex: progress.vertex,
            id,
            current: 0,
            total: 0,
            started: SystemTime::now(),
            completed: None,
        };
        progress.progress.send(Event::Status(status.clone()));
        Self { progress, status }
    }

    fn complete(mut self) {
        self.status.completed = Some(SystemTime::now());
        self.progress.progress.send(Event::Status(self.status));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_by_repository() {
        let names = ["a:1", "b:1", "a:2", "a:1", "localhost:1/a"];
        let names: Vec<Reference> =
            names.iter().map(|name| Reference::parse(name).unwrap()).collect();
        let groups: Vec<Vec<String>> = by_repository(&names)
            .iter()
            .map(|group| group.iter().map(Reference::familiar).collect())
            .collect();
        assert_eq!(groups, [vec!["a:1", "a:2"], vec!["b:1"], vec!["localhost:1/a"]]);
    }
}
