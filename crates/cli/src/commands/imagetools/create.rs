//! `rbuild imagetools create`: an index of what other names stand for.

use std::path::Path;
use std::sync::Arc;

use rbuild_cache::{PullProgress, Store, WholeImage};
use rbuild_oci::{Descriptor, Digest, Reference};
use rbuild_worker::Provided;

use super::entries::merged;
use super::update::{Addition, add_to_index, make, preview};
use crate::annotation::{Annotation, AnnotationKind, annotations_of};
use crate::args::ImagetoolsCreateArgs;
use crate::commands::build::in_runtime;
use crate::commands::build::result::push_error;
use crate::commands::images::{DOCUMENT_LIMIT, image_name, print};
use crate::error::{CommandError, Kind};
use crate::machine::Machine;
use crate::progress::ByteBars;
use crate::wiring::Session;

/// What the configurations of caches are called, without their version.
const CACHE_CONFIG: &str = "application/vnd.buildkit.cacheconfig.";

/// Makes an index of several images, or adds to one. What other repositories have is mounted or copied.
pub(crate) fn create(
    store: Store,
    args: &ImagetoolsCreateArgs,
    machine: &Machine,
) -> Result<(), CommandError> {
    let tags: Vec<Reference> =
        args.tag.iter().map(|tag| image_name(tag)).collect::<Result<_, _>>()?;
    if tags.is_empty() && !args.dry_run {
        return Err(CommandError::usage(
            "can't push with no tags specified, please set --tag or --dry-run",
        ));
    }
    if tags.is_empty() && args.append {
        return Err(CommandError::usage("--append adds to what --tag names"));
    }
    let annotations = annotations(&args.annotation)?;
    let sources = sources(args, tags.first())?;
    if sources.is_empty() {
        return Err(CommandError::usage("name at least one image").hint("or a file, with -f"));
    }
    let session = Arc::new(Session::open(store, machine, &Provided::default())?);
    in_runtime(async {
        let mut found = Vec::new();
        for source in &sources {
            found.push(read(&session, source).await?);
        }
        let work = Work { session: &session, args, tags: &tags, annotations: &annotations };
        work.write(&sources, &found).await
    })
}

/// Where something that is listed comes from.
#[derive(Debug)]
struct Source {
    reference: Reference,
    /// What a file says of it.
    described: Option<Descriptor>,
}

fn sources(
    args: &ImagetoolsCreateArgs,
    tag: Option<&Reference>,
) -> Result<Vec<Source>, CommandError> {
    let in_repository = |digest: Digest, what: &str| match tag {
        Some(tag) => Ok(tag.pinned(digest)),
        None => Err(CommandError::usage(format!(
            "`{what}` is in the repository of --tag, which is missing"
        ))),
    };
    let mut sources = Vec::new();
    for path in &args.file {
        let described = descriptor(path)?;
        let reference = in_repository(described.digest, &path.display().to_string())?;
        sources.push(Source { reference, described: Some(described) });
    }
    for text in &args.sources {
        let reference = match Digest::parse(text) {
            Ok(digest) => in_repository(digest, text)?,
            Err(_) => Reference::parse(text).map_err(|error| {
                CommandError::caused(Kind::Usage, format!("invalid image `{text}`"), error)
            })?,
        };
        sources.push(Source { reference, described: None });
    }
    Ok(sources)
}

/// A file with a descriptor, as the one that `--metadata-file` writes under `containerimage.descriptor`.
fn descriptor(path: &Path) -> Result<Descriptor, CommandError> {
    let fail = |error: Box<dyn std::error::Error + Send + Sync>| {
        CommandError::usage(format!("cannot read a descriptor from `{}`: {error}", path.display()))
    };
    let bytes = std::fs::read(path).map_err(|error| fail(error.into()))?;
    if bytes.len() as u64 > DOCUMENT_LIMIT {
        return Err(fail("it is too large".into()));
    }
    serde_json::from_slice(&bytes).map_err(|error| fail(error.into()))
}

fn annotations(texts: &[String]) -> Result<Vec<Annotation>, CommandError> {
    let mut all = Vec::new();
    for text in texts {
        let parsed = Annotation::parse(text, AnnotationKind::Index).map_err(CommandError::usage)?;
        if let Some(other) = parsed.iter().find(|annotation| {
            !matches!(annotation.kind, AnnotationKind::Index | AnnotationKind::ManifestDescriptor)
        }) {
            let what = match other.kind {
                AnnotationKind::IndexDescriptor => "what describes the index",
                _ => "a manifest",
            };
            let message =
                format!("--annotation `{text}`: {what} gets none, for only an index is made");
            return Err(CommandError::usage(message)
                .hint("index and manifest-descriptor are the types that can be given"));
        }
        all.extend(parsed);
    }
    Ok(all)
}

async fn read(session: &Session, source: &Source) -> Result<WholeImage, CommandError> {
    let cannot = |error| {
        CommandError::caused(
            Kind::Environment,
            format!("cannot read `{}`", source.reference),
            error,
        )
    };
    let mut whole = session.images.whole(&source.reference).await.map_err(cannot)?;
    if whole.blobs.iter().any(|blob| blob.media_type.as_str().starts_with(CACHE_CONFIG)) {
        let message = format!("`{}` is a build cache, and no image", source.reference.familiar());
        return Err(CommandError::usage(message).hint("--cache-from takes it"));
    }
    if let (Some(described), [manifest]) = (&source.described, &mut whole.manifests[..]) {
        if described.platform.is_some() {
            manifest.platform.clone_from(&described.platform);
        }
        // What `--metadata-file` notes there is about the image, and not for the index.
        let is_ours = |key: &String| key == "config.digest";
        let annotations = described.annotations.iter().filter(|(key, _)| !is_ours(key));
        let annotations = annotations.map(|(key, value)| (key.clone(), value.clone()));
        manifest.annotations.extend(annotations);
    }
    Ok(whole)
}

struct Work<'a> {
    session: &'a Arc<Session>,
    args: &'a ImagetoolsCreateArgs,
    tags: &'a [Reference],
    annotations: &'a [Annotation],
}

impl Work<'_> {
    async fn write(&self, sources: &[Source], found: &[WholeImage]) -> Result<(), CommandError> {
        let Self { session, args, tags, annotations } = *self;
        let own = annotations_of(annotations, AnnotationKind::Index, None);
        let mut entries = Vec::new();
        for whole in found {
            entries = merged(entries, &whole.manifests);
        }
        for entry in &mut entries {
            let platform = entry.platform.clone().map(rbuild_oci::Platform::normalize);
            let kind = AnnotationKind::ManifestDescriptor;
            entry.annotations.extend(annotations_of(annotations, kind, platform.as_ref()));
        }
        let (bars, progress) = ByteBars::start(false);
        let pull = PullProgress { progress, vertex: found[0].top.digest };
        let done = if args.append {
            self.append(Addition { entries, annotations: own }, &pull).await
        } else {
            let top = match (sources, found) {
                // What is an index stays that, with its digest.
                ([source], [whole])
                    if whole.top.media_type.is_index()
                        && annotations.is_empty()
                        && source.described.is_none() =>
                {
                    whole.top.clone()
                }
                _ => make(session, entries, own).await?.descriptor,
            };
            self.push(&top, tags, &pull).await.map(|()| vec![top])
        };
        drop(pull);
        bars.finish().await;
        let tops = done?;
        if args.dry_run {
            let digest = tops[0].digest;
            let bytes = session.store.content.read(&digest, DOCUMENT_LIMIT).map_err(|error| {
                CommandError::caused(Kind::Environment, "cannot read the index", error)
            })?;
            print(&bytes)?;
            return print(b"\n");
        }
        let lines: String = tags
            .iter()
            .zip(tops.iter().cycle())
            .map(|(tag, top)| format!("{}\n", tag.pinned(top.digest)))
            .collect();
        print(lines.as_bytes())
    }

    async fn append(
        &self,
        addition: Addition,
        pull: &PullProgress,
    ) -> Result<Vec<Descriptor>, CommandError> {
        let pushes = self.session.pushes(Vec::new());
        let mut tops = Vec::new();
        for tag in self.tags {
            let index = match self.args.dry_run {
                true => preview(self.session, &pushes, tag, &addition).await?,
                false => add_to_index(self.session, &pushes, tag, &addition, pull).await?,
            };
            tops.push(index.descriptor);
        }
        Ok(tops)
    }

    async fn push(
        &self,
        top: &Descriptor,
        tags: &[Reference],
        pull: &PullProgress,
    ) -> Result<(), CommandError> {
        if self.args.dry_run {
            return Ok(());
        }
        let pushes = self.session.pushes(Vec::new());
        pushes.push(top, tags, pull).await.map_err(push_error)
    }
}
