//! Caches that other machines use: `--cache-from` before a build, `--cache-to` after it.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use rbuild_cache::{
    BucketCache, CacheName, Compression, ImageName, LayoutImage, MountIndex, MountStore, OciLayout,
    PullProgress, Store, WantedMounts, export_mounts,
};
use rbuild_exporter::{
    CacheDocuments, CacheForm, CacheLayout, ExistingBlobs, FinishedRecords, LayerForm,
    make_bucket_document, make_cache, missing_blobs, needs, write_cache_layout,
};
use rbuild_oci::Descriptor;
use rbuild_solver::{
    CacheKey, Edge, Event, Graph, Mount, MountKind, Op, Progress, Snapshot, VertexId,
};

use super::plan::Plan;
use super::replaced;
use crate::args::BuildArgs;
use crate::cache_spec::{CacheDestination, CacheFrom, CacheSource, CacheTo, MountsTo};
use crate::error::{CommandError, Kind, chain};
use crate::paths;
use crate::s3_spec::S3Target;
use crate::wiring::Session;

/// How long a build waits for the documents of its caches, which are small: what is slower saves nothing.
const IMPORT_LIMIT: Duration = Duration::from_secs(60);

/// All caches of a build, checked before it begins.
#[derive(Clone, Debug)]
pub(super) struct CachePlan {
    from: Vec<PlannedFrom>,
    to: Vec<PlannedTo>,
    /// Whether images are to be caches too.
    inline: bool,
}

/// A cache to read.
#[derive(Clone, Debug)]
struct PlannedFrom {
    spec: CacheFrom,
    /// Its bucket, if it is in one.
    bucket: Option<S3Target>,
}

/// A cache to write.
#[derive(Clone, Debug)]
struct PlannedTo {
    spec: CacheTo,
    /// Its bucket, if it goes to one.
    bucket: Option<S3Target>,
}

/// What there is to export.
#[derive(Debug)]
pub(super) struct Finished<'a> {
    pub(super) graph: &'a Graph,
    pub(super) targets: &'a [Edge],
    /// The fast keys of vertices.
    pub(super) keyed: &'a [(VertexId, CacheKey)],
    /// The files of the images; `None` if the build failed.
    pub(super) images: Option<Vec<Snapshot>>,
    /// `SOURCE_DATE_EPOCH`, seconds since 1970.
    pub(super) epoch: Option<i64>,
}

impl CachePlan {
    /// Finds out what is used, or what is wrong with that.
    pub(super) fn new(args: &BuildArgs, outputs: &Plan) -> Result<Self, CommandError> {
        for (position, one) in args.cache_to.iter().enumerate() {
            let mut before = args.cache_to[..position].iter();
            if before.any(|other| other.destination.is_same(&one.destination)) {
                return Err(CommandError::usage(format!(
                    "two --cache-to go to {}: one would be lost",
                    one.destination
                )));
            }
        }
        for to in &args.cache_to {
            if let CacheDestination::Local(layout) = &to.destination
                && layout.reset
                && outputs.layout_folders().any(|folder| replaced::is_same(folder, &layout.folder))
            {
                return Err(CommandError::usage(format!(
                    "--cache-to ..,reset=true removes all other names in `{}`, and an output puts an image there",
                    layout.folder.display()
                )));
            }
        }
        let mut from = args.cache_from.clone();
        let mut seen = Vec::new();
        from.retain(|one| {
            let is_new = !seen.contains(one);
            seen.push(one.clone());
            is_new
        });
        let is_inline = |to: &CacheTo| to.destination == CacheDestination::Inline;
        let (inline, to): (Vec<_>, Vec<_>) = args
            .cache_to
            .iter()
            .map(|to| to.clone().with_compression(args.compression))
            .partition(is_inline);
        let to = to.into_iter().map(PlannedTo::of).collect::<Result<_, _>>()?;
        let from = from.into_iter().map(PlannedFrom::of).collect::<Result<_, _>>()?;
        if !inline.is_empty() && !outputs.has_image() {
            let message = "--cache-to type=inline writes into the image, and no output is one";
            return Err(
                CommandError::usage(message).hint("type=local and type=registry need no image")
            );
        }
        Ok(Self { from, to, inline: !inline.is_empty() })
    }

    /// The registries that may be anybody.
    pub(super) fn insecure(&self) -> Vec<String> {
        let from = self.from.iter().filter(|from| from.spec.insecure);
        let from = from.filter_map(|from| match &from.spec.source {
            CacheSource::Image(ImageName::Reference(reference)) => Some(reference),
            _ => None,
        });
        let to = self.to.iter().filter(|to| to.spec.insecure);
        let to = to.filter_map(|to| match &to.spec.destination {
            CacheDestination::Registry(reference) => Some(reference),
            _ => None,
        });
        from.chain(to).map(|reference| reference.registry().to_owned()).collect()
    }

    /// The folders that caches are in.
    pub(super) fn folders(&self) -> impl Iterator<Item = &Path> {
        let from = self.from.iter().filter_map(|from| match &from.spec.source {
            CacheSource::Image(ImageName::Layout(layout, _)) => Some(layout.folder()),
            _ => None,
        });
        from.chain(self.to.iter().filter_map(|to| match &to.spec.destination {
            CacheDestination::Local(layout) => Some(layout.folder.as_path()),
            _ => None,
        }))
    }

    /// Whether what was built goes to a cache.
    pub(super) fn is_written(&self) -> bool {
        self.inline || !self.to.is_empty()
    }

    /// How the layers of what is written are, without a latest time.
    pub(super) fn layer_forms(&self) -> impl Iterator<Item = LayerForm> {
        self.to.iter().map(|to| layer_form(&to.spec, None))
    }

    /// Whether images are to be caches too.
    pub(super) fn is_inline(&self) -> bool {
        self.inline
    }

    /// Reads the caches side by side. One that cannot be read is worth a warning, not the build.
    pub(super) async fn import(&self, session: &Session, progress: &Progress) {
        join_all(self.from.iter().map(|from| import(session, from, progress))).await;
    }

    /// Writes the caches, with what there is. Returns what went wrong.
    pub(super) async fn export(
        &self,
        session: &Arc<Session>,
        finished: &Finished<'_>,
        progress: &Progress,
    ) -> Vec<CommandError> {
        let mut failed = Vec::new();
        let is_due = |to: &&PlannedTo| to.spec.on_failure || finished.images.is_some();
        for to in self.to.iter().filter(is_due) {
            let name = match &to.spec.destination {
                CacheDestination::Local(_) => "client directory",
                CacheDestination::Registry(_) => "registry",
                CacheDestination::S3(_) => "S3",
                CacheDestination::Inline => continue,
            };
            let vertex = progress.start(&format!("exporting cache to {name}"));
            let pull = PullProgress { progress: progress.clone(), vertex };
            let exported = export(session, to, finished, &pull).await;
            match exported {
                Err(error) if to.spec.ignore_error => {
                    let message = format!("the cache was not exported: {}", error.reason());
                    progress.send(Event::Warning { vertex: Some(vertex), message });
                    progress.complete(vertex, false, None);
                }
                Err(error) => {
                    progress.complete(vertex, false, Some(error.reason()));
                    failed.push(error);
                }
                Ok(()) => progress.complete(vertex, false, None),
            }
        }
        failed
    }
}

/// Whether layers of caches could not be had for what failed, and it is worth another try without them.
pub(super) fn try_again(session: &Session, progress: &Progress) -> bool {
    match session.images.give_up_broken() {
        Ok(Some(why)) => {
            progress.warn(format!(
                "a layer that a cache promised cannot be had, so what it is for is built: {why}"
            ));
            true
        }
        Ok(None) => false,
        // What failed for it says more.
        Err(_) => false,
    }
}

impl PlannedFrom {
    fn of(spec: CacheFrom) -> Result<Self, CommandError> {
        let bucket = match &spec.source {
            CacheSource::S3(spec) => Some(spec.resolve(&paths::aws_settings()?)?),
            CacheSource::Image(_) => None,
        };
        Ok(Self { spec, bucket })
    }

    fn name(&self, session: &Session) -> Option<CacheName> {
        match (&self.spec.source, &self.bucket) {
            (CacheSource::Image(name), _) => Some(CacheName::Image(name.clone())),
            (CacheSource::S3(_), bucket) => bucket.as_ref().map(|bucket| bucket.name(session)),
        }
    }
}

impl PlannedTo {
    fn of(spec: CacheTo) -> Result<Self, CommandError> {
        let bucket = match &spec.destination {
            CacheDestination::S3(spec) => Some(spec.resolve(&paths::aws_settings()?)?),
            _ => None,
        };
        Ok(Self { spec, bucket })
    }

    /// What it is read as; `None` for what is within images.
    fn name(&self, session: &Session) -> Option<CacheName> {
        Some(match (&self.spec.destination, &self.bucket) {
            (CacheDestination::Registry(name), _) => {
                CacheName::Image(ImageName::Reference(name.clone()))
            }
            (CacheDestination::Local(layout), _) => {
                let tag = LayoutImage::Named(layout.tag.clone());
                CacheName::Image(ImageName::Layout(OciLayout::new(&layout.folder), tag))
            }
            (CacheDestination::S3(_), bucket) => bucket.as_ref()?.name(session),
            (CacheDestination::Inline, _) => return None,
        })
    }
}

impl S3Target {
    /// What it is read as, by who may.
    fn name(&self, session: &Session) -> CacheName {
        session.buckets.add(&self.client(&session.buckets));
        CacheName::S3(self.cache.clone())
    }
}

async fn import(session: &Session, from: &PlannedFrom, progress: &Progress) {
    let Some(name) = from.name(session) else { return };
    let vertex = progress.start(&format!("importing cache manifest from {}", from.spec));
    let imported = tokio::time::timeout(IMPORT_LIMIT, session.images.import_cache(&name)).await;
    let problem = match imported {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(chain(&error)),
        Err(_) => Some(format!("it did not come within {} seconds", IMPORT_LIMIT.as_secs())),
    };
    if let Some(problem) = problem {
        let message = format!("the cache is not used: {problem}");
        progress.send(Event::Warning { vertex: Some(vertex), message });
    }
    progress.complete(vertex, false, None);
}

async fn export(
    session: &Arc<Session>,
    to: &PlannedTo,
    finished: &Finished<'_>,
    pull: &PullProgress,
) -> Result<(), CommandError> {
    let mut packs = remote_mounts(session, to, pull).await;
    loop {
        match export_once(session, to, finished, &packs, pull).await {
            // Without what is broken the rest can be written.
            Err(_) if try_again(session, &pull.progress) => {}
            // A pack that is named in the cache may be gone.
            Err(_) if !packs.is_empty() => packs.clear(),
            done => return done,
        }
    }
}

/// What caches have of cache mounts: chunks that need not be sent again.
async fn remote_mounts(
    session: &Session,
    to: &PlannedTo,
    pull: &PullProgress,
) -> Vec<Arc<MountIndex>> {
    match to.spec.mounts.as_ref().and_then(|_| to.name(session)) {
        Some(name) => session.images.remote_mounts(&name, pull).await,
        None => Vec::new(),
    }
}

/// Packs the cache mounts that go along.
async fn mounts(
    session: &Arc<Session>,
    to: &CacheTo,
    finished: &Finished<'_>,
    previous: &[Arc<MountIndex>],
    pull: &PullProgress,
) -> Result<Vec<Descriptor>, CommandError> {
    let Some(MountsTo { names, most }) = to.mounts.clone() else { return Ok(Vec::new()) };
    let wanted = match names {
        Some(names) => WantedMounts::Names(names),
        None => WantedMounts::Ids(finished.mounts()),
    };
    let (session, previous) = (Arc::clone(session), previous.to_vec());
    let exported = blocking(move || {
        let Store { cache_mounts: mounts, content, .. } = &session.store;
        let store = MountStore { mounts, content, lease: session.export_store().lease };
        export_mounts(store, &wanted, &previous, most)
    });
    let exported = exported.await?;
    for message in exported.warnings {
        pull.progress.send(Event::Warning { vertex: Some(pull.vertex), message });
    }
    Ok(exported.blobs)
}

/// How the layers of a cache are written.
fn layer_form(to: &CacheTo, epoch: Option<i64>) -> LayerForm {
    let existing = match to.compression {
        // The table would make other layers of them, on which nothing that is built from the base image lies.
        Some(Compression::Estargz { .. }) => ExistingBlobs::Keep,
        _ => to.existing,
    };
    LayerForm { compression: to.compression.unwrap_or_default(), existing, epoch }
}

async fn export_once(
    session: &Arc<Session>,
    PlannedTo { spec: to, bucket }: &PlannedTo,
    finished: &Finished<'_>,
    packs: &[Arc<MountIndex>],
    pull: &PullProgress,
) -> Result<(), CommandError> {
    let mounts = mounts(session, to, finished, packs, pull).await?;
    let records = collect(session, to.max, finished)?;
    let layers = layer_form(to, finished.epoch);
    for snapshot in records.snapshots() {
        let needs = needs(session.export_store(), &snapshot, layers).map_err(export_error)?;
        for blob in needs.disputed.iter().chain(&needs.convert) {
            session
                .images
                .ensure_layer_blob(&blob.layer, blob.first, pull)
                .await
                .map_err(fetch_error)?;
        }
        let unpacked = snapshot.lowest(needs.unpacked);
        session.images.ensure_unpacked(&unpacked, pull).await.map_err(fetch_error)?;
    }
    if let Some(bucket) = bucket {
        return to_bucket(session, bucket, records, layers, mounts, pull).await;
    }
    let form = CacheForm { layers, types: to.types, image_manifest: to.image_manifest };
    let documents = {
        let session = Arc::clone(session);
        blocking(move || make_cache(session.export_store(), &records, form, mounts)).await?
    };
    match &to.destination {
        CacheDestination::Local(layout) => to_folder(session, layout, documents, pull).await,
        CacheDestination::Registry(name) => {
            let pushes = session.pushes(Vec::new());
            let pushed = pushes.push(&documents.descriptor, std::slice::from_ref(name), pull).await;
            pushed.map_err(export_error)
        }
        // The image has it, or it is written by now.
        CacheDestination::Inline | CacheDestination::S3(_) => Ok(()),
    }
}

/// The records that a cache gets.
pub(super) fn collect(
    session: &Session,
    max: bool,
    finished: &Finished<'_>,
) -> Result<FinishedRecords, CommandError> {
    let keys: Vec<CacheKey> = finished.keyed.iter().map(|(_, key)| *key).collect();
    let collected = FinishedRecords::collect(session.export_store(), &session.records(), &keys);
    let mut records = collected.map_err(export_error)?;
    if !max {
        let images = finished.images.clone().unwrap_or_else(|| finished.so_far(&records));
        records.retain_layers_of(&images);
    }
    Ok(records)
}

impl Finished<'_> {
    /// Ids of the cache mounts that steps have.
    fn mounts(&self) -> BTreeSet<String> {
        let needed = self.graph.reachable(self.targets);
        let vertices = self.graph.vertices().iter().zip(needed).filter(|(_, needed)| *needed);
        let mounts = vertices.flat_map(|(vertex, _)| match &vertex.op {
            Op::Exec(op) => op.mounts.as_slice(),
            _ => &[],
        });
        let id = |mount: &Mount| match &mount.kind {
            MountKind::Cache { id, .. } => Some(id.clone()),
            _ => None,
        };
        mounts.filter_map(id).collect()
    }

    /// The files of the images as far as they were made: of the last finished vertex on the way from each target down.
    fn so_far(&self, records: &FinishedRecords) -> Vec<Snapshot> {
        self.targets.iter().filter_map(|target| self.made_of(*target, records)).collect()
    }

    fn made_of(&self, target: Edge, records: &FinishedRecords) -> Option<Snapshot> {
        let mut vertex = target.vertex;
        loop {
            let key = self.keyed.iter().find(|(keyed, _)| *keyed == vertex);
            if let Some(found) = key.and_then(|(_, key)| records.first_output(key)) {
                return Some(found.clone());
            }
            vertex = self.graph.vertex(vertex).inputs.first()?.vertex;
        }
    }
}

async fn to_bucket(
    session: &Arc<Session>,
    target: &S3Target,
    records: FinishedRecords,
    layers: LayerForm,
    mounts: Vec<Descriptor>,
    pull: &PullProgress,
) -> Result<(), CommandError> {
    let document = {
        let session = Arc::clone(session);
        let make = move || make_bucket_document(session.export_store(), &records, layers, mounts);
        blocking(make).await?
    };
    let client = target.client(&session.buckets);
    session.buckets.add(&client);
    let (cache, touch_refresh) = (target.cache.clone(), target.touch_refresh);
    let writing = BucketCache { client, cache, touch_refresh };
    let written = writing.write(&session.images, &document.bytes, &document.blobs, pull).await;
    written.map_err(export_error)
}

async fn to_folder(
    session: &Arc<Session>,
    layout: &CacheLayout,
    documents: CacheDocuments,
    pull: &PullProgress,
) -> Result<(), CommandError> {
    let documents = Arc::new(documents);
    let missing = {
        let (layout, documents) = (layout.clone(), Arc::clone(&documents));
        blocking(move || missing_blobs(&layout, &documents)).await?
    };
    for blob in missing {
        session.images.ensure_blob_as(&blob, None, pull).await.map_err(fetch_error)?;
    }
    let (session, layout) = (Arc::clone(session), layout.clone());
    blocking(move || write_cache_layout(&session.store.content, &documents, &layout)).await
}

/// Runs an export where it may keep a thread busy.
async fn blocking<T, E>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, CommandError>
where
    T: Send + 'static,
    E: std::error::Error + Send + Sync + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(export_error),
        Err(panic) => Err(CommandError::caused(Kind::Environment, "the export stopped", panic)),
    }
}

fn export_error(error: impl std::error::Error + Send + Sync + 'static) -> CommandError {
    CommandError::caused(Kind::Environment, "failed to export the cache", error)
        .hint("with ignore-error=true in --cache-to a build does not fail for that")
}

fn fetch_error(error: rbuild_cache::ImageError) -> CommandError {
    CommandError::caused(Kind::Environment, "cannot fetch a layer for the cache", error)
}
