//! An image with fewer layers than the build has: the uppermost become one (`layers=squash` and `layers=max:N`).
//!
//! Only the image changes. The layers that were merged stay in the store as they are, and so does the cache. The merged layer's
//! blob is noted under a name made of theirs, so that it is made once.

use std::io::BufWriter;
use std::num::NonZeroUsize;

use rbuild_cache::{LayerBlobWriter, TarWriter, View, diff_merged};
use rbuild_oci::{History, ImageConfig};
use rbuild_solver::{LayerId, Snapshot};

use crate::export::BuildResult;
use crate::image::{ImageLayer, fill_times, match_history, rfc3339};
use crate::layers::{ExportStore, LayerError, LayerForm, keep, made_by, milliseconds};

/// How many layers an image has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LayerCount {
    /// As many as the build.
    #[default]
    Keep,
    /// Those of the base image, and one with all that the build did.
    Squash,
    /// No more than this: what is too many is merged, from the top.
    Max(NonZeroUsize),
}

impl LayerCount {
    /// How many of a result's layers stay. If those are not all, the others, which are two at least, become one.
    pub(crate) fn kept(self, result: &BuildResult) -> usize {
        let all = result.snapshot.layers().len();
        let kept = match self {
            Self::Keep => all,
            Self::Squash => base_layers(result),
            Self::Max(most) if all > most.get() => most.get() - 1,
            Self::Max(_) => all,
        };
        if kept + 1 >= all { all } else { kept }
    }
}

/// How many layers the base image has: all for which no step of the build accounts. Without any history, as of a graph, all
/// layers are the build's.
fn base_layers(result: &BuildResult) -> usize {
    let all = result.snapshot.layers().len();
    let history = &result.config.history;
    if history.is_empty() {
        return 0;
    }
    let own = history.iter().skip(result.base_history).filter(|entry| !entry.empty_layer).count();
    all.saturating_sub(own)
}

/// Whether the merged layer is yet to be made.
pub(crate) fn is_missing(
    store: ExportStore<'_>,
    snapshot: &Snapshot,
    kept: usize,
    form: LayerForm,
) -> Result<bool, LayerError> {
    Ok(known(store, name(snapshot, kept), form)?.is_none())
}

/// All layers above the lowest `kept` as one; when it was made is said by [`times`].
pub(crate) fn merged_layer(
    store: ExportStore<'_>,
    snapshot: &Snapshot,
    kept: usize,
    form: LayerForm,
) -> Result<ImageLayer, LayerError> {
    const BUFFER: usize = 256 << 10;
    let layer = name(snapshot, kept);
    let encoder = Some(form.encoder());
    if let Some((descriptor, diff_id)) = known(store, layer, form)? {
        return Ok(ImageLayer { descriptor, diff_id, created: None, encoder });
    }
    let view = |layers: &[LayerId]| {
        View::open(store.overlay, store.layers, &Snapshot::new(layers.to_vec()))
            .map_err(|source| LayerError::Merge { layer, source })
    };
    let (below, above) = snapshot.layers().split_at(kept);
    let (changed, all) = (view(above)?, view(snapshot.layers())?);
    let below = if below.is_empty() { None } else { Some(view(below)?) };

    let blob = store.content.begin().map_err(|source| LayerError::Store { layer, source })?;
    let compress = |source| LayerError::Compress { layer, source };
    let blob = match from_elsewhere(store, above)? {
        true => LayerBlobWriter::anew(blob, form.compression),
        false => LayerBlobWriter::new(blob, form.compression),
    };
    let blob = blob.map_err(compress)?;
    let mut archive = TarWriter::new(BufWriter::with_capacity(BUFFER, blob), form.epoch);
    let under = below.as_ref().map(|below| (below.root(), all.root()));
    diff_merged(changed.root(), under, &mut archive)
        .map_err(|source| LayerError::Files { layer, source })?;
    let buffer = archive.finish().map_err(|source| LayerError::Archive { layer, source })?;
    let blob = buffer.into_inner().map_err(|error| compress(error.into_error()))?;
    let blob = blob.finish().map_err(compress)?;
    let diff_id = blob.diff_id;
    let descriptor = keep(store, layer, blob, form, form.encoder())?;
    Ok(ImageLayer { descriptor, diff_id, created: None, encoder })
}

/// Whether there are layers of base images among these.
fn from_elsewhere(store: ExportStore<'_>, layers: &[LayerId]) -> Result<bool, LayerError> {
    for layer in layers {
        let layer = *layer;
        let facts = store.index.layer(&layer);
        let facts = facts.map_err(|source| LayerError::Index { layer, source })?;
        if facts.is_some_and(|facts| facts.diff_id.is_some()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What the merged layer is known by: its layers, and those that they lie on, which decide what is deleted.
fn name(snapshot: &Snapshot, kept: usize) -> LayerId {
    let kept = (kept as u64).to_le_bytes();
    let layers = snapshot.layers().iter().map(|layer| &layer.as_bytes()[..]);
    let parts: Vec<&[u8]> = std::iter::once(&kept[..]).chain(layers).collect();
    LayerId::derived("squashed", &parts)
}

fn known(
    store: ExportStore<'_>,
    layer: LayerId,
    form: LayerForm,
) -> Result<Option<(rbuild_oci::Descriptor, rbuild_oci::DiffId)>, LayerError> {
    let facts = store.index.layer(&layer).map_err(|source| LayerError::Index { layer, source })?;
    made_by(store, layer, &facts.unwrap_or_default(), &form.encoder())
}

/// When each layer was made, milliseconds since 1970; `None` for those of base images. What the index does not know, as no
/// image has it by itself, or came to know later, is as old as the merged layer, which must be made already.
pub(crate) fn times(
    store: ExportStore<'_>,
    snapshot: &Snapshot,
    kept: usize,
) -> Result<Vec<Option<i64>>, LayerError> {
    let facts = |layer: &LayerId| {
        let layer = *layer;
        store.index.layer(&layer).map_err(|source| LayerError::Index { layer, source })
    };
    let merged = milliseconds(&facts(&name(snapshot, kept))?.unwrap_or_default());
    let time = |layer: &LayerId| {
        let Some(facts) = facts(layer)? else { return Ok(Some(merged)) };
        // Only what came from elsewhere has a diff id of its own.
        let own = facts.diff_id.is_none().then(|| milliseconds(&facts).min(merged));
        Ok(facts.made().or(own))
    };
    snapshot.layers().iter().map(time).collect()
}

/// The history of what is merged: the steps remain, without layers, and one entry has the merged layer.
pub(crate) fn merge_history(
    config: &mut ImageConfig,
    base_history: usize,
    times: &[Option<i64>],
    kept: usize,
    epoch: Option<i64>,
) -> usize {
    let surplus = match_history(&mut config.history, times.len());
    fill_times(&mut config.history, base_history, times, epoch);
    let with_layers = config.history.iter_mut().filter(|entry| !entry.empty_layer);
    with_layers.skip(kept).for_each(|entry| entry.empty_layer = true);
    let epoch = epoch.map(|seconds| seconds.saturating_mul(1000));
    let clamp = |time: i64| epoch.map_or(time, |epoch| time.min(epoch));
    let created = times[kept..].iter().flatten().max().copied().map(clamp).map(rfc3339);
    config.history.push(History {
        created: created.or_else(|| config.history.last().and_then(|last| last.created.clone())),
        comment: format!("rbuild: {} layers merged to one", times.len() - kept),
        ..History::default()
    });
    surplus
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(empty_layer: bool) -> History {
        History { empty_layer, ..History::default() }
    }

    /// What stays of this many layers, where `base` entries of the history are the base image's.
    fn kept(count: LayerCount, layers: u8, base: usize, history: &[bool]) -> usize {
        let layers = (0..layers).map(|byte| LayerId::new([byte; 32])).collect();
        let history = history.iter().map(|empty| entry(*empty)).collect();
        count.kept(&BuildResult {
            snapshot: Snapshot::new(layers),
            config: ImageConfig { history, ..ImageConfig::default() },
            base_history: base,
            epoch: None,
            inline_cache: None,
        })
    }

    #[test]
    fn what_is_merged() {
        let max = |most| LayerCount::Max(NonZeroUsize::new(most).unwrap());
        let history = [false, true, false, true, false, false];
        assert_eq!(kept(LayerCount::Keep, 4, 2, &history), 4);
        assert_eq!(kept(LayerCount::Squash, 4, 2, &history), 1);
        // The base image has layers that its history does not know.
        assert_eq!(kept(LayerCount::Squash, 6, 2, &history), 3);
        assert_eq!(kept(LayerCount::Squash, 3, 0, &[]), 0);
        // One layer is one already.
        assert_eq!(kept(LayerCount::Squash, 2, 1, &[false, false]), 2);
        assert_eq!(kept(max(4), 4, 2, &history), 4);
        assert_eq!(kept(max(3), 4, 2, &history), 2);
        assert_eq!(kept(max(1), 4, 2, &history), 0);
    }

    #[test]
    fn the_history_keeps_all_steps() {
        let history = vec![entry(false), entry(true), entry(false), entry(false)];
        let mut config = ImageConfig { history, ..ImageConfig::default() };
        merge_history(&mut config, 1, &[None, Some(50_000), Some(70_000)], 1, Some(60));
        let shown: Vec<_> = config
            .history
            .iter()
            .map(|entry| (entry.empty_layer, entry.created.as_deref().unwrap_or_default()))
            .collect();
        let (at_50, at_60) = ("1970-01-01T00:00:50Z", "1970-01-01T00:01:00Z");
        assert_eq!(
            shown,
            [(false, ""), (true, at_50), (true, at_50), (true, at_60), (false, at_60)]
        );
        assert_eq!(config.history[4].comment, "rbuild: 2 layers merged to one");
    }
}
