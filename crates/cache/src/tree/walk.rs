//! Walking a directory, many of its directories at the same time.

use std::sync::Arc;

use rayon::prelude::*;
use rbuild_solver::{Decision, PatternMatcher};

use super::error::TreeError;
use super::lookup::{Tree, join};
use super::node::Node;
use super::resolve::Found;
use super::select::Entry;

/// So few directories are not worth waking other threads for.
const WALKED_ALONE: usize = 4;

/// What counts below a selected directory.
#[derive(Debug)]
pub(super) struct Filter {
    /// Without it, everything is included.
    pub(super) include: Option<PatternMatcher>,
    pub(super) exclude: Option<PatternMatcher>,
}

/// What both lists say of a path.
#[derive(Clone, Default)]
struct Verdict {
    include: Decision,
    exclude: Decision,
}

impl Filter {
    fn decide(&self, parent: &Verdict, path: &[u8]) -> Verdict {
        let decide = |matcher: &Option<PatternMatcher>, parent: &Decision| match matcher {
            Some(matcher) => matcher.decide(parent, path),
            None => Decision::default(),
        };
        Verdict {
            include: decide(&self.include, &parent.include),
            exclude: decide(&self.exclude, &parent.exclude),
        }
    }

    fn picks(&self, verdict: &Verdict) -> bool {
        (self.include.is_none() || verdict.include.excluded()) && !verdict.exclude.excluded()
    }

    /// Whether something below an unpicked directory may be picked.
    fn may_pick_below(&self, verdict: &Verdict, path: &[u8]) -> bool {
        match &self.exclude {
            Some(exclude) if verdict.exclude.excluded() => {
                exclude.may_have_exceptions_below(&verdict.exclude, path)
            }
            _ => true,
        }
    }
}

/// A directory that is being walked.
struct Walked {
    path: Vec<u8>,
    node: Arc<Node>,
    verdict: Verdict,
    entries: Vec<WalkedEntry>,
}

struct WalkedEntry {
    entry: Entry,
    /// What was said of it, if it is a directory to walk.
    descend: Option<Box<Verdict>>,
}

impl Tree {
    /// Everything below a directory that `filter` picks. Level by level rather than by recursion: a hostile image
    /// can have directories two thousand levels deep.
    pub(super) fn walk(&self, top: &Found, filter: &Filter) -> Result<Vec<Entry>, TreeError> {
        let prefix = if top.path.is_empty() { 0 } else { top.path.len() + 1 };
        let first = Walked {
            path: top.path.clone(),
            node: Arc::clone(&top.node),
            verdict: Verdict::default(),
            entries: Vec::new(),
        };
        let mut levels = vec![vec![first]];
        while let Some(level) = levels.last_mut().filter(|level| !level.is_empty()) {
            if level.len() <= WALKED_ALONE {
                level.iter_mut().try_for_each(|dir| self.walk_one(dir, prefix, filter))?;
            } else {
                level.par_iter_mut().try_for_each(|dir| self.walk_one(dir, prefix, filter))?;
            }
            let next = level
                .iter()
                .flat_map(|dir| &dir.entries)
                .filter_map(|entry| Some((&entry.entry, entry.descend.as_deref()?)))
                .map(|(entry, verdict)| Walked {
                    path: entry.path.clone(),
                    node: Arc::clone(&entry.node),
                    verdict: verdict.clone(),
                    entries: Vec::new(),
                })
                .collect();
            levels.push(next);
        }
        Ok(in_order(levels))
    }

    fn walk_one(&self, dir: &mut Walked, prefix: usize, filter: &Filter) -> Result<(), TreeError> {
        let Some(directory) = &dir.node.dir else { return Ok(()) };
        let listing = self.list(directory, &dir.node, &dir.path)?;
        dir.entries.reserve_exact(listing.children.len());
        for child in &listing.children {
            let path = join(&dir.path, &child.name);
            let verdict = filter.decide(&dir.verdict, &path[prefix..]);
            let is_dir = child.node.dir.is_some();
            let picked = filter.picks(&verdict) && !child.node.is_ignored();
            let descend = is_dir && (picked || filter.may_pick_below(&verdict, &path[prefix..]));
            if picked || descend {
                let entry = Entry { path, prefix, node: Arc::clone(&child.node), picked };
                let descend = descend.then(|| Box::new(verdict));
                dir.entries.push(WalkedEntry { entry, descend });
            }
        }
        Ok(())
    }
}

/// The entries of all levels, each directory before what is in it. Directories that are not picked stay only where
/// they lead to something that is.
fn in_order(levels: Vec<Vec<Walked>>) -> Vec<Entry> {
    let total = levels.iter().flatten().map(|dir| dir.entries.len()).sum();
    let mut ordered = Vec::with_capacity(total);
    // The directories of a level are met in the order in which they stand there.
    let mut levels: Vec<_> = levels.into_iter().map(Vec::into_iter).collect();
    let mut open: Vec<std::vec::IntoIter<WalkedEntry>> = Vec::new();
    // Directories that are there only for what may be picked below, with the number of directories open around them.
    let mut waiting: Vec<(usize, Entry)> = Vec::new();
    let mut enter = |depth: usize| {
        levels.get_mut(depth).and_then(Iterator::next).map(|dir| dir.entries.into_iter())
    };
    open.extend(enter(0));
    while let Some(entries) = open.last_mut() {
        let Some(WalkedEntry { entry, descend, .. }) = entries.next() else {
            open.pop();
            // If the directory that ends here still waits, nothing below it was picked.
            waiting.truncate(waiting.partition_point(|(around, _)| *around < open.len()));
            continue;
        };
        if entry.picked {
            ordered.extend(waiting.drain(..).map(|(_, directory)| directory));
            ordered.push(entry);
        } else {
            waiting.push((open.len(), entry));
        }
        if descend.is_some() {
            open.extend(enter(open.len()));
        }
    }
    ordered
}
