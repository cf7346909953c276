//! Copies that are known to succeed.
//!
//! What a copy will do is found out by looking at what it goes on top of. Whatever is unusual about one, or wrong with it, shows when it
//! is [run](super::run).

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rbuild_cache::{
    Below, Entry, Meta, PlannedAttributes, PlannedCopy, PlannedDirectory, Selected, Tree,
};
use rbuild_solver::{CopyAction, FileActionKind, FileOp, Snapshot, clean_path};
use rustix::fs::{FileType, Mode, Stat};

use super::attributes::Changes;
use super::chmod::ModeChange;
use super::chown::{self, Ownership, read_below};
use super::copy::{names_directory, selector};
use super::error::FileError;
use super::place::{self, Look, base_name, file_type, join, parent};
use super::states::Input;
use crate::snapshots::Snapshots;
use crate::userns::in_user_namespace;

/// What stands for the deletion of a file where it begins a name in an archive.
const WHITEOUT_PREFIX: &[u8] = b".wh.";

/// An operation that makes one layer with one copy.
#[derive(Clone, Debug)]
pub(crate) struct PlannedOp {
    pub(super) base: Snapshot,
    pub(super) action: CopyAction,
    pub(super) owner: Option<Ownership>,
    pub(super) copy: Arc<PlannedCopy>,
}

/// What an operation will do, and what it will do it to. `None`: it has to be run.
///
/// # Errors
/// What cannot be read of its inputs.
pub(crate) fn plan_op(
    op: &FileOp,
    inputs: &[Input],
    snapshots: &Snapshots,
) -> Result<Option<(PlannedOp, Below)>, FileError> {
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
    let contents = |state: u32, path: &str| match input(Some(state)) {
        Some(Input::Snapshot(snapshot)) => read_below(snapshots.tree(snapshot)?.root(), path),
        _ => Ok(Vec::new()),
    };
    let Ok(owner) = copy.owner.as_ref().map(|spec| chown::resolve(spec, contents)).transpose()
    else {
        return Ok(None);
    };
    let below = snapshots.below(&base)?;
    let planned = plan(copy, owner, source, &below)?;
    let op = |planned| PlannedOp { base, action: copy.clone(), owner, copy: Arc::new(planned) };
    Ok(planned.map(|planned| (op(planned), below)))
}

/// So long may a path be (`PATH_MAX`, without its last byte).
const LONGEST_PATH: usize = 4095;

/// What a copy will do to a state; `None` where that is not certain, or an error.
pub(super) fn plan(
    action: &CopyAction,
    owner: Option<Ownership>,
    source: Arc<Tree>,
    below: &Below,
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
    let Ok(Some(place)) = Destination::find(action, &selected, below) else { return Ok(None) };
    let longest = selected.entries.iter().map(|entry| entry.relative().len() + 1).max();
    if place.path.len() + longest.unwrap_or(0) > LONGEST_PATH {
        return Ok(None);
    }
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

impl Look for Below {
    fn stat(&self, path: &[u8]) -> Result<Option<Stat>, FileError> {
        self.stat(path).map_err(|error| FileError::io("inspect", path, error))
    }

    fn read_link(&self, path: &[u8]) -> Result<Vec<u8>, FileError> {
        self.read_link(path).map_err(|error| FileError::io("read link", path, error))
    }
}

fn has_acl(below: &Below, path: &[u8]) -> Result<bool, FileError> {
    below.has_acl(path).map_err(|error| FileError::io("read attributes of", path, error))
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
        below: &Below,
    ) -> Result<Option<Self>, FileError> {
        let cleaned = clean_path(&format!("/{}", action.dest));
        let written = cleaned.as_bytes();
        let names_directory = names_directory(&action.dest);
        let directory = if names_directory { written } else { parent(written) };
        let directory = place::resolve(below, directory, true)?;
        if directory.found.is_none() && !action.create_dest_path {
            return Ok(None);
        }
        let place = place::resolve(below, written, true)?;
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
        let found = Look::stat(below, &path)?;
        let has_names = selected.node.meta().nlink > 1;
        let is_in_the_way =
            found.is_some_and(|stat| has_names || file_type(&stat) == FileType::Directory);
        let is_usual = !base_name(&path).starts_with(WHITEOUT_PREFIX);
        let is_certain = !path.is_empty() && !is_in_the_way && is_usual;
        Ok(is_certain.then_some(Self { path, written: directory.path }))
    }
}

/// The directories of a path. `None` where something else is in the way, or where a directory hands on its group or has an access control
/// list.
fn parents(
    path: &[u8],
    written: &[u8],
    changes: &Changes<'_>,
    below: &Below,
) -> Result<Option<Vec<PlannedDirectory>>, FileError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX);
    let owner = changes.owner.unwrap_or_default();
    let mut parents = Vec::new();
    let mut here: Vec<u8> = Vec::new();
    let Some(mut last) = Look::stat(below, &here)? else { return Ok(None) };
    let mut is_there = true;
    if has_acl(below, &here)? {
        return Ok(None);
    }
    for name in path.split(|&byte| byte == b'/').filter(|name| !name.is_empty()) {
        here = join(&here, name);
        let found = if is_there { Look::stat(below, &here)? } else { None };
        is_there = found.is_some();
        parents.push(match found {
            Some(stat) if file_type(&stat) == FileType::Directory => {
                if has_acl(below, &here)? {
                    return Ok(None);
                }
                last = stat;
                there(name, &stat)
            }
            Some(_) => return Ok(None),
            None => {
                if name.starts_with(WHITEOUT_PREFIX) {
                    return Ok(None);
                }
                let is_written = written == here || place::is_in(written, &here);
                let mode = if is_written { changes.mode.of_parents() & 0o7777 } else { 0o755 };
                if mode & Mode::SGID.as_raw_mode() != 0 {
                    return Ok(None);
                }
                let attributes = PlannedAttributes {
                    mode,
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
fn fits(selected: &Selected, path: &[u8], below: &Below) -> Result<bool, FileError> {
    each_there(selected.entries.iter(), path, below, |entry, path, found| {
        let meta = entry.node.meta();
        let is_dir = file_type(found) == FileType::Directory;
        if is_dir != meta.is_dir() || meta.nlink > 1 && !is_dir {
            return Ok(false);
        }
        // One that only leads to what is picked keeps what it has; and it may hand on its group.
        let hands_on = found.st_mode & Mode::SGID.as_raw_mode() != 0;
        Ok(!(is_dir && (!entry.picked || hands_on || has_acl(below, path)?)))
    })
}

/// Calls `look` with each of these entries that is copied onto something, where it goes and what is there, until it says no; whether it
/// never does.
pub(super) fn each_there<'a>(
    entries: impl Iterator<Item = &'a Entry>,
    path: &[u8],
    below: &Below,
    mut look: impl FnMut(&Entry, &[u8], &Stat) -> Result<bool, FileError>,
) -> Result<bool, FileError> {
    // The directory that was missing last, with what is below it still ahead.
    let mut missing: Option<&[u8]> = None;
    for entry in entries {
        let relative = entry.relative();
        if missing.is_some_and(|missing| place::is_in(relative, missing)) {
            continue;
        }
        let path = join(path, relative);
        match Look::stat(below, &path)? {
            Some(found) if !look(entry, &path, &found)? => return Ok(false),
            Some(_) => {}
            None => missing = entry.node.meta().is_dir().then_some(relative),
        }
    }
    Ok(true)
}
