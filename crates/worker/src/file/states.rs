//! The actions of a file operation and the states between them.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use rbuild_cache::{ActiveLayer, Selected, Tree};
use rbuild_oci::Digest;
use rbuild_solver::{
    ChownSpec, FileAction, FileActionKind, FileOp, LayerId, Owner, Selector, Snapshot,
};

use super::attributes::Changes;
use super::chmod::ModeChange;
use super::chown::{self, Ownership, read_below};
use super::copy_tree::{Copier, Root};
use super::error::FileError;
use super::place::Target;
use super::{copy, make, remove};
use crate::snapshots::Snapshots;

/// What an operation works on.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// A state in the store, all of whose layers are there.
    Snapshot(Snapshot),
    /// A folder of the user's.
    Context(Arc<Tree>),
}

/// Runs an operation; returns its outputs in order. Layers that are made are identified by `seed`.
pub(crate) fn run(
    op: &FileOp,
    inputs: Vec<Input>,
    snapshots: &Snapshots,
    seed: &Digest,
) -> Result<Vec<Snapshot>, FileError> {
    let states = inputs
        .into_iter()
        .map(|input| match input {
            Input::Snapshot(snapshot) => State::Snapshot(snapshot),
            Input::Context(tree) => State::Context(tree),
        })
        .collect();
    let mut run = Run { op, states, snapshots, seed };
    let mut outputs: Vec<(u32, Snapshot)> = Vec::new();
    for (position, action) in op.actions.iter().enumerate() {
        run.check(position, action)?;
        let written = run.run(action)?;
        // On to the next action without a layer in between, if nobody else wants this state.
        let state = if action.output.is_none() && run.is_continued(position) {
            State::Active(written)
        } else {
            State::Snapshot(run.commit(written, position)?)
        };
        if let (Some(output), State::Snapshot(snapshot)) = (action.output, &state) {
            outputs.push((output, snapshot.clone()));
        }
        run.states.push(state);
    }
    outputs.sort_unstable_by_key(|(output, _)| *output);
    let mut ordered = Vec::with_capacity(outputs.len());
    for (output, snapshot) in outputs {
        if output as usize != ordered.len() {
            return Err(FileError::NoSuchOutput(ordered.len() as u32));
        }
        ordered.push(snapshot);
    }
    Ok(ordered)
}

/// Makes a layer with all files of a context, for those who need it as a state.
pub(crate) fn copy_context(
    context: &Tree,
    snapshots: &Snapshots,
    id: LayerId,
) -> Result<Snapshot, FileError> {
    let base = Snapshot::default();
    let layer = snapshots.begin(&base)?;
    copy_everything(context, &layer)?;
    Ok(snapshots.commit(layer, &base, id)?)
}

/// Copies what was selected of a context to `name` in the directory `around`, for those who only look at it. The empty name is that directory
/// itself, which keeps its mode.
pub(crate) fn copy_selected(
    context: &Tree,
    selected: &Selected,
    around: BorrowedFd<'_>,
    name: &[u8],
) -> Result<(), FileError> {
    let changes = Changes { owner: None, mode: &ModeChange::Keep, mtime: None };
    let copier = Copier::new(context, Target::new(around), changes, false);
    if !selected.node.meta().is_dir() {
        return copier.copy_file(&selected.path, &selected.node, name);
    }
    let root = if name.is_empty() { Root::Existing } else { Root::New };
    copier.copy_tree(selected, name, root)
}

/// Copies a directory that `selector` picks to `name` in the directory `around`, with its owner and mode.
pub(crate) fn copy_directory(
    tree: &Tree,
    selector: &Selector,
    around: BorrowedFd<'_>,
    name: &[u8],
) -> Result<(), FileError> {
    let changes = Changes { owner: None, mode: &ModeChange::Keep, mtime: None };
    let copier = Copier::new(tree, Target::new(around), changes, false);
    for selected in &tree.select(selector)?.sources {
        if !selected.node.meta().is_dir() {
            return Err(FileError::NotADirectory(selector.path.clone()));
        }
        copier.copy_tree(selected, name, Root::New)?;
    }
    Ok(())
}

fn copy_everything(context: &Tree, layer: &ActiveLayer) -> Result<(), FileError> {
    let changes = Changes { owner: None, mode: &ModeChange::Keep, mtime: None };
    let copier = Copier::new(context, Target::new(layer.root()), changes, false);
    for selected in &context.select(&Selector::everything())?.sources {
        copier.copy_tree(selected, b"", Root::Existing)?;
    }
    Ok(())
}

enum State {
    Snapshot(Snapshot),
    Context(Arc<Tree>),
    /// Still being written: its only user is a later action that changes it further.
    Active(Written),
    /// Went into the state of a later action.
    Taken,
}

/// A layer that is being written, and what it is on top of.
struct Written {
    layer: ActiveLayer,
    base: Snapshot,
}

struct Run<'a> {
    op: &'a FileOp,
    /// The inputs, then the state after each action so far.
    states: Vec<State>,
    snapshots: &'a Snapshots,
    seed: &'a Digest,
}

impl Run<'_> {
    /// Every state that an action names must have been there before it.
    fn check(&self, position: usize, action: &FileAction) -> Result<(), FileError> {
        match states_of(action).find(|state| *state as usize >= self.states.len()) {
            Some(state) => Err(FileError::NoSuchState { action: position, state }),
            None => Ok(()),
        }
    }

    fn run(&mut self, action: &FileAction) -> Result<Written, FileError> {
        let written = self.begin(action.input)?;
        let target = Target::new(written.layer.root());
        let owner = |spec: &Option<ChownSpec>| -> Result<Option<Ownership>, FileError> {
            let Some(spec) = spec else { return Ok(None) };
            let contents = |state: u32, path: &str| {
                if action.input == Some(state) {
                    return read_below(written.layer.root(), path);
                }
                read_below(self.tree(Some(state))?.root(), path)
            };
            chown::resolve(spec, contents).map(Some)
        };
        match &action.kind {
            FileActionKind::Copy(copy) => {
                let source = self.tree(action.secondary_input)?;
                copy::run(copy, owner(&copy.owner)?, &source, target)?;
            }
            FileActionKind::Mkfile(mkfile) => {
                make::mkfile(mkfile, owner(&mkfile.owner)?.unwrap_or_default(), target)?;
            }
            FileActionKind::Mkdir(mkdir) => {
                make::mkdir(mkdir, owner(&mkdir.owner)?, target)?;
            }
            FileActionKind::Rm(rm) => remove::run(rm, target)?,
            FileActionKind::Symlink(symlink) => {
                make::symlink(symlink, owner(&symlink.owner)?.unwrap_or_default(), target)?;
            }
        }
        Ok(written)
    }

    /// A layer on top of a state, or the one that is being written on top of it already.
    fn begin(&mut self, state: Option<u32>) -> Result<Written, FileError> {
        let base = match state.map(|state| &mut self.states[state as usize]) {
            None => Snapshot::default(),
            Some(State::Snapshot(snapshot)) => snapshot.clone(),
            Some(State::Context(tree)) => {
                let base = Snapshot::default();
                let layer = self.snapshots.begin(&base)?;
                copy_everything(tree, &layer)?;
                return Ok(Written { layer, base });
            }
            Some(taken) => match std::mem::replace(taken, State::Taken) {
                State::Active(written) => return Ok(written),
                _ => unreachable!("a state goes on in place only if it is used once"),
            },
        };
        Ok(Written { layer: self.snapshots.begin(&base)?, base })
    }

    fn tree(&self, state: Option<u32>) -> Result<Arc<Tree>, FileError> {
        match state.map(|state| &self.states[state as usize]) {
            None => Ok(self.snapshots.tree(&Snapshot::default())?),
            Some(State::Snapshot(snapshot)) => Ok(self.snapshots.tree(snapshot)?),
            Some(State::Context(tree)) => Ok(Arc::clone(tree)),
            Some(State::Active(_) | State::Taken) => {
                unreachable!("a state that is also read is made a snapshot")
            }
        }
    }

    /// Whether the state after an action is used by nothing but one later action, which changes it.
    fn is_continued(&self, position: usize) -> bool {
        let state = (self.states.len()) as u32;
        let mut users = self.op.actions[position + 1..]
            .iter()
            .filter(|action| states_of(action).any(|used| used == state));
        let is_changed_by = |action: &FileAction| {
            action.input == Some(state) && action.secondary_input != Some(state)
        };
        users.next().is_some_and(is_changed_by) && users.next().is_none()
    }

    fn commit(&self, written: Written, position: usize) -> Result<Snapshot, FileError> {
        let id = layer_id(self.seed, position);
        Ok(self.snapshots.commit(written.layer, &written.base, id)?)
    }
}

/// The layer that the action at a position makes.
pub(crate) fn layer_id(seed: &Digest, position: usize) -> LayerId {
    let position = (position as u64).to_le_bytes();
    LayerId::derived("rbuild.file.v1", &[seed.as_bytes(), &position])
}

/// The states that an action names.
fn states_of(action: &FileAction) -> impl Iterator<Item = u32> {
    let owner = match &action.kind {
        FileActionKind::Copy(copy) => copy.owner.as_ref(),
        FileActionKind::Mkfile(mkfile) => mkfile.owner.as_ref(),
        FileActionKind::Mkdir(mkdir) => mkdir.owner.as_ref(),
        FileActionKind::Symlink(symlink) => symlink.owner.as_ref(),
        FileActionKind::Rm(_) => None,
    };
    let names = owner.into_iter().flat_map(|spec| [&spec.user, &spec.group]).flatten();
    let of_names = names.filter_map(|owner| match owner {
        Owner::Name { input, .. } => *input,
        Owner::Id(_) => None,
    });
    action.input.into_iter().chain(action.secondary_input).chain(of_names)
}
