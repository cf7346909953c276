//! Adds to the index that a tag names, although others may do so at the same time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rbuild_cache::{ImagePush, PullProgress, WholeImage};
use rbuild_exporter::{DocumentTypes, IndexContents, NamedDocument, make_index};
use rbuild_oci::{Descriptor, Digest, Index, Reference};

use super::entries::{are_kept, merged};
use crate::commands::build::result::{blocking, push_error};
use crate::commands::images::DOCUMENT_LIMIT;
use crate::error::{CommandError, Kind};
use crate::wiring::Session;

/// How often it is tried again because the tag has changed meanwhile.
const ATTEMPTS: u32 = 20;
/// After what time at least nobody who compared before we wrote still writes: one request lies between the two.
const SETTLED: Duration = Duration::from_millis(1500);
/// How many times as long as our own comparison and write took, where that is longer: others may be further away.
const SLOWER: u32 = 4;

/// What is added.
#[derive(Clone, Debug)]
pub(crate) struct Addition {
    /// The entries, whose documents are in the store.
    pub(crate) entries: Vec<Descriptor>,
    /// Annotations of the index, beside those that it has.
    pub(crate) annotations: BTreeMap<String, String>,
}

/// Adds entries to the index that `tag` names; makes one where there is none. Returns the index.
///
/// No registry lets a tag be changed only if it names what it did. So all but the tag is written first, then the tag is
/// compared and written in two requests that follow each other, and looked at once more after a while: where another's
/// write came in between, both are put together again.
pub(crate) async fn add_to_index(
    session: &Arc<Session>,
    pushes: &ImagePush,
    tag: &Reference,
    addition: &Addition,
    progress: &PullProgress,
) -> Result<NamedDocument, CommandError> {
    let by_digest = Reference::parse(&tag.name()).map_err(|error| {
        CommandError::caused(Kind::Usage, format!("cannot push to `{tag}`"), error)
    })?;
    for _ in 0..ATTEMPTS {
        let there = at_registry(session, pushes, tag).await?;
        let index = index_of(session, there.as_ref(), addition).await?;
        let names = std::slice::from_ref(&by_digest);
        pushes.push(&index.descriptor, names, progress).await.map_err(push_error)?;
        let expected = there.as_ref().map(|there| there.top.digest);
        let began = Instant::now();
        let written = pushes.tag(&index.descriptor, tag, expected).await.map_err(push_error)?;
        if !written {
            continue;
        }
        tokio::time::sleep(SETTLED.max(began.elapsed() * SLOWER)).await;
        let now = at_registry(session, pushes, tag).await?;
        let listed = |whole: Option<WholeImage>| whole.map_or(Vec::new(), |whole| whole.manifests);
        if are_kept(&addition.entries, &listed(there), &listed(now)) {
            return Ok(index);
        }
    }
    let message =
        format!("`{tag}` is changed by others again and again: it was tried {ATTEMPTS} times");
    Err(CommandError::new(Kind::Environment, message).hint("try it again later"))
}

/// The index that [`add_to_index`] would write now.
pub(super) async fn preview(
    session: &Arc<Session>,
    pushes: &ImagePush,
    tag: &Reference,
    addition: &Addition,
) -> Result<NamedDocument, CommandError> {
    let there = at_registry(session, pushes, tag).await?;
    index_of(session, there.as_ref(), addition).await
}

/// What a tag stands for, if there is such a tag.
async fn at_registry(
    session: &Session,
    pushes: &ImagePush,
    tag: &Reference,
) -> Result<Option<WholeImage>, CommandError> {
    let unreadable = || format!("cannot read what `{tag}` is at the moment");
    let tagged = pushes.tagged(tag).await;
    let tagged =
        tagged.map_err(|error| CommandError::caused(Kind::Environment, unreadable(), error))?;
    let Some(digest) = tagged else { return Ok(None) };
    let whole = session.images.whole(&tag.pinned(digest)).await;
    whole.map(Some).map_err(|error| CommandError::caused(Kind::Environment, unreadable(), error))
}

async fn index_of(
    session: &Arc<Session>,
    there: Option<&WholeImage>,
    addition: &Addition,
) -> Result<NamedDocument, CommandError> {
    let mut annotations = match there {
        Some(there) if there.top.media_type.is_index() => {
            annotations_of(session, &there.top.digest)?
        }
        _ => BTreeMap::new(),
    };
    annotations.extend(addition.annotations.clone());
    let there = there.map(|there| there.manifests.clone()).unwrap_or_default();
    let entries = merged(there, &addition.entries);
    make(session, entries, annotations).await
}

/// Makes an index; of Docker's kind where all that it lists is, and says no more than such can.
pub(super) async fn make(
    session: &Arc<Session>,
    entries: Vec<Descriptor>,
    annotations: BTreeMap<String, String>,
) -> Result<NamedDocument, CommandError> {
    let is_docker = |entry: &Descriptor| {
        entry.media_type == rbuild_oci::MediaType::DockerManifest && entry.annotations.is_empty()
    };
    let types = match annotations.is_empty() && entries.iter().all(is_docker) {
        true => DocumentTypes::Docker,
        false => DocumentTypes::Oci,
    };
    let session = Arc::clone(session);
    let contents = IndexContents { entries, annotations, types };
    blocking(move || make_index(session.export_store(), contents)).await
}

/// The annotations of an index in the store.
fn annotations_of(
    session: &Session,
    digest: &Digest,
) -> Result<BTreeMap<String, String>, CommandError> {
    let unreadable = "cannot read the index";
    let bytes = session
        .store
        .content
        .read(digest, DOCUMENT_LIMIT)
        .map_err(|error| CommandError::caused(Kind::Environment, unreadable, error))?;
    let index: Index = serde_json::from_slice(&bytes)
        .map_err(|error| CommandError::caused(Kind::Environment, unreadable, error))?;
    Ok(index.annotations)
}
