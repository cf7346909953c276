//! Copies that are not done yet: nobody reads what they make (design D4).
//!
//! What a copy would do is found out by looking at what it would do it to. Only one that is known to succeed is deferred; whatever is
//! unusual about one, or wrong with it, shows when it is done at once.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rbuild_cache::{
    DeferredLayer, Entry, Meta, PlannedAttributes, PlannedCopy, PlannedDirectory, Selected, Tree,
};
use rbuild_oci::Digest;
use rbuild_solver::{CopyAction, FileActionKind, FileOp, Snapshot, clean_path};
use rustix::fs::{FileType, Mode, Stat};

use super::attributes::Changes;
use super::chmod::ModeChange;
use super::chown::{self, Ownership, read_below};
use super::copy::{names_directory, selector};
use super::error::FileError;
use super::place::{Target, base_name, file_type, join, parent};
use super::states::{Input, layer_id, run};
use crate::snapshots::Snapshots;
use crate::userns::in_user_namespace;

/// What stands for the deletion of a file where it begins a name in an archive.
const WHITEOUT_PREFIX: &[u8] = b".wh.";

/// Whether what an operation copies must not be read after it, for an output.
///
/// A folder of the user's may be another one by then, and the outputs of a build may go to where it is read from. A fixed time comes
/// with `SOURCE_DATE_EPOCH`, whose archives are not taken for the layer: it would be archived again by each build.
pub(crate) fn must_be_read_now(op: &FileOp, inputs: &[Input]) -> bool {
    op.actions.iter().any(|action| {
        let source = action.secondary_input.and_then(|source| inputs.get(source as usize));
        let has_time =
            matches!(&action.kind, FileActionKind::Copy(copy) if copy.timestamp.is_some());
        has_time || matches!(source, Some(Input::Context(_)))
    })
}

/// Defers an operation of one copy: the state that it makes, and the last layer of that, which is not made. `None`: it has to be run.
///
/// # Errors
/// What cannot be read of its inputs.
pub(crate) fn defer(
    op: &FileOp,
    inputs: &[Input],
    snapshots: &Arc<Snapshots>,
    seed: &Digest,
) -> Result<Option<(Snapshot, DeferredLayer)>, FileError> {
    let [action] = op.actions.as_slice() else { return Ok(None) };
    let FileActionKind::Copy(copy) = &action.kind else { return Ok(None) };
    if action.output != Some(0) {
        return Ok(None);
    }
    let input = |state: Option<u32>| state.and_then(|state| inputs.get(state as usize));
    let base = match (action.input, input(action.input)) {
        (None, _) => Snapshot::default(),
        (_, Some(Input::Snapshot(base))) => base.clone(),
        _ => return Ok(None),
    };
    let source = match input(action.secondary_input) {
        Some(Input::Snapshot(snapshot)) => snapshots.tree(snapshot)?,
        Some(Input::Context(tree)) => Arc::clone(tree),
        None => return Ok(None),
    };
    let below = snapshots.tree(&base)?;
    let contents = |state: u32, path: &str| match input(Some(state)) {
        Some(Input::Snapshot(snapshot)) => read_below(snapshots.tree(snapshot)?.root(), path),
        _ => Ok(Vec::new()),
    };
    let Ok(owner) = copy.owner.as_ref().map(|spec| chown::resolve(spec, contents)).transpose()
    else {
        return Ok(None);
    };
    let Some(copy) = plan(copy, owner, source, below.root())? else { return Ok(None) };
    let id = layer_id(seed, 0);
    let (op, inputs, snapshots, seed) = (op.clone(), inputs.to_vec(), Arc::clone(snapshots), *seed);
    let make = move || run(&op, inputs.clone(), &snapshots, &seed).map(|_| ());
    Ok(Some((base.with(id), DeferredLayer::new(copy, make))))
}

/// What a copy will do to the state with the root `below`; `None` where that is not certain, or an error.
pub(super) fn plan(
    action: &CopyAction,
    owner: Option<Ownership>,
    source: Arc<Tree>,
    below: BorrowedFd<'_>,
) -> Result<Option<PlannedCopy>, FileError> {
    if action.attempt_unpack || action.always_replace_existing {
        return Ok(None);
    }
    let Ok(mode) = ModeChange::new(action.mode, &action.mode_str) else { return Ok(None) };
    let changes = Changes { owner, mode: &mode, mtime: action.timestamp };
    let mut sources = source.select(&selector(action))?.sources;
    let (Some(selected), true) = (sources.pop(), sources.is_empty()) else { return Ok(None) };
    let is_dir = selected.node.meta().is_dir();
    let is_usual = selected.entries.iter().all(is_usual)
        && (is_dir || selected.node.meta().file_type() == FileType::RegularFile)
        && (!is_dir || action.dir_copy_contents);
    if !is_usual || !owners_exist(&selected, &changes) {
        return Ok(None);
    }
    let below = Target::new(below);
    let Ok(Some(place)) = Destination::find(action, &selected, below) else { return Ok(None) };
    let directory = if is_dir { &place.path[..] } else { parent(&place.path) };
    let Ok(Some(mut parents)) = parents(directory, &place.written, &changes, below) else {
        return Ok(None);
    };
    if is_dir {
        if let Some(last) = parents.last_mut() {
            last.attributes.mtime = changes.mtime(selected.node.meta());
        }
        let is_there = parents.last().is_none_or(|last| last.is_there);
        if is_there && !matches!(fits(&selected, &place.path, below), Ok(true)) {
            return Ok(None);
        }
    }
    let mode_of = |meta: &Meta| match meta.file_type() {
        // A link has no mode that anybody could change.
        FileType::Symlink => meta.permissions(),
        _ => changes.mode(meta),
    };
    let modes = match is_dir {
        true => selected.entries.iter().map(|entry| mode_of(entry.node.meta())).collect(),
        false => vec![mode_of(selected.node.meta())],
    };
    Ok(Some(PlannedCopy {
        parents,
        source,
        selected,
        target: place.path,
        owner: owner.map(|owner| (owner.uid, owner.gid)),
        mtime: action.timestamp,
        modes,
    }))
}

/// Whether an entry of a selection is of a kind that can be made everywhere.
fn is_usual(entry: &Entry) -> bool {
    let kind = entry.node.meta().file_type();
    matches!(kind, FileType::RegularFile | FileType::Directory | FileType::Symlink)
        && !base_name(&entry.path).starts_with(WHITEOUT_PREFIX)
}

/// Whether whoever is to own what is copied is sure to exist here.
fn owners_exist(selected: &Selected, changes: &Changes<'_>) -> bool {
    let limited = in_user_namespace();
    let exists = |owner: Ownership| match limited {
        true => owner == Ownership::default(),
        // Stands for no change where it is set.
        false => owner.uid != u32::MAX && owner.gid != u32::MAX,
    };
    let nodes = selected.entries.iter().map(|entry| &entry.node).chain([&selected.node]);
    match changes.owner {
        Some(owner) => exists(owner),
        None => nodes.map(|node| changes.owner(node.meta())).all(exists),
    }
}

/// Where a copy goes.
struct Destination {
    /// The directory that is copied to, or the file that is made.
    path: Vec<u8>,
    /// The directory that the destination names: what is missing on the way to it is made with the mode of the copy.
    written: Vec<u8>,
}

impl Destination {
    /// As the copy itself finds it; `None` where it fails, or depends on what is made on the way.
    fn find(
        action: &CopyAction,
        selected: &Selected,
        below: Target<'_>,
    ) -> Result<Option<Self>, FileError> {
        let cleaned = clean_path(&format!("/{}", action.dest));
        let written = cleaned.as_bytes();
        let names_directory = names_directory(&action.dest);
        let directory = if names_directory { written } else { parent(written) };
        let directory = below.resolve(directory, true)?;
        if directory.found.is_none() && !action.create_dest_path {
            return Ok(None);
        }
        let place = below.resolve(written, true)?;
        let is_beside = place.path == join(&directory.path, base_name(written));
        if !names_directory && place.found.is_none() && !is_beside {
            return Ok(None);
        }
        let is_there = place.found.is_some();
        if selected.node.meta().is_dir() {
            let path = (!is_there || place.is_dir()).then_some(place.path);
            return Ok(path.map(|path| Self { path, written: directory.path }));
        }
        if names_directory && is_there && !place.is_dir() {
            return Ok(None);
        }
        let is_into = place.is_dir() || names_directory;
        let path = if is_into { join(&place.path, selected.base_name()) } else { place.path };
        let found = below.stat(&path)?;
        let has_names = selected.node.meta().nlink > 1;
        let is_in_the_way =
            found.is_some_and(|stat| has_names || file_type(&stat) == FileType::Directory);
        let is_usual = !base_name(&path).starts_with(WHITEOUT_PREFIX);
        let is_certain = !path.is_empty() && !is_in_the_way && is_usual;
        Ok(is_certain.then_some(Self { path, written: directory.path }))
    }
}

/// The directories of a path. `None` where something else is in the way, or where a directory hands on its group.
fn parents(
    path: &[u8],
    written: &[u8],
    changes: &Changes<'_>,
    below: Target<'_>,
) -> Result<Option<Vec<PlannedDirectory>>, FileError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX);
    let owner = changes.owner.unwrap_or_default();
    let mut parents = Vec::new();
    let mut here: Vec<u8> = Vec::new();
    let Some(mut last) = below.stat(&here)? else { return Ok(None) };
    let mut is_there = true;
    for name in path.split(|&byte| byte == b'/').filter(|name| !name.is_empty()) {
        here = join(&here, name);
        let found = if is_there { below.stat(&here)? } else { None };
        is_there = found.is_some();
        parents.push(match found {
            Some(stat) if file_type(&stat) == FileType::Directory => {
                last = stat;
                there(name, &stat)
            }
            Some(_) => return Ok(None),
            None => {
                if name.starts_with(WHITEOUT_PREFIX) {
                    return Ok(None);
                }
                let is_written = written == here
                    || written.strip_prefix(&here[..]).is_some_and(|rest| rest.starts_with(b"/"));
                let attributes = PlannedAttributes {
                    mode: if is_written { changes.mode.of_parents() & 0o7777 } else { 0o755 },
                    owner: (owner.uid, owner.gid),
                    mtime: changes.mtime.unwrap_or(now),
                };
                PlannedDirectory { name: name.to_vec(), is_there: false, attributes }
            }
        });
    }
    // Something is made in the last one that is there; of a directory that is copied, the caller knows better.
    if let Some(last) = parents.iter_mut().rfind(|parent: &&mut PlannedDirectory| parent.is_there) {
        last.attributes.mtime = now;
    }
    let hands_on = last.st_mode & Mode::SGID.as_raw_mode() != 0;
    Ok((!hands_on).then_some(parents))
}

fn there(name: &[u8], stat: &Stat) -> PlannedDirectory {
    let meta = Meta::from(stat);
    let attributes = PlannedAttributes {
        mode: meta.permissions(),
        owner: (meta.uid, meta.gid),
        mtime: meta.mtime,
    };
    PlannedDirectory { name: name.to_vec(), is_there: true, attributes }
}

/// Whether nothing in a directory that is there is in the way of what is copied into it, and no file with several names, of which it
/// shows only at the end how many it has, has to be compared with one.
fn fits(selected: &Selected, path: &[u8], below: Target<'_>) -> Result<bool, FileError> {
    // The directory that was missing last, with what is below it still ahead.
    let mut missing: Option<&[u8]> = None;
    for entry in &selected.entries {
        let relative = entry.relative();
        let is_in = |missing: &[u8]| {
            relative.strip_prefix(missing).is_some_and(|rest| rest.starts_with(b"/"))
        };
        if missing.is_some_and(is_in) {
            continue;
        }
        let meta = entry.node.meta();
        let found = below.stat(&join(path, relative))?;
        let Some(found) = found else {
            missing = meta.is_dir().then_some(relative);
            continue;
        };
        let is_dir = file_type(&found) == FileType::Directory;
        if is_dir != meta.is_dir() || meta.nlink > 1 && !is_dir {
            return Ok(false);
        }
        // One that only leads to what is picked keeps what it has; and it may hand on its group.
        if is_dir && (!entry.picked || found.st_mode & Mode::SGID.as_raw_mode() != 0) {
            return Ok(false);
        }
    }
    Ok(true)
}
