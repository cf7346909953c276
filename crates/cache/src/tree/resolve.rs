//! Following a path through the tree, symbolic links included.

use std::sync::Arc;

use super::error::{TreeError, shown};
use super::lookup::{Tree, join};
use super::node::Node;
use super::suggest;

/// How many links one path may lead through; the kernel's number.
const MOST_LINKS: usize = 40;

/// Where a path leads.
#[derive(Debug)]
pub(super) struct Found {
    /// Relative to the root, without links.
    pub(super) path: Vec<u8>,
    pub(super) node: Arc<Node>,
}

impl Tree {
    /// Follows `path` inside the tree: absolute links start again at its root and `..` does not leave it. A link
    /// at the end is followed as asked.
    pub(super) fn resolve(
        &self,
        path: &[u8],
        follow_last: bool,
    ) -> Result<Option<Found>, TreeError> {
        let mut links = 0;
        // What is ahead, the next element last.
        let mut ahead: Vec<Vec<u8>> = elements(path);
        // The directories that lead to where we are, with the length of the path to each.
        let mut above: Vec<(Arc<Node>, usize)> = Vec::new();
        let mut here = Found { path: Vec::new(), node: Arc::clone(&self.top) };
        while let Some(name) = ahead.pop() {
            if name == b".." {
                if let Some((parent, length)) = above.pop() {
                    here.path.truncate(length);
                    here.node = parent;
                }
                continue;
            }
            let Some(dir) = &here.node.dir else { return Ok(None) };
            let Some(child) = self.child(dir, &here.node, &here.path, &name)? else {
                return Ok(None);
            };
            if let Some(target) = child.link_target().filter(|_| follow_last || !ahead.is_empty()) {
                links += 1;
                if links > MOST_LINKS {
                    return Err(TreeError::TooManyLinks { path: shown(trimmed(path)) });
                }
                if target.starts_with(b"/") {
                    above.clear();
                    here = Found { path: Vec::new(), node: Arc::clone(&self.top) };
                }
                ahead.extend(elements(target));
                continue;
            }
            let length = here.path.len();
            here.path = join(&here.path, &name);
            above.push((std::mem::replace(&mut here.node, child), length));
        }
        Ok(Some(here))
    }

    /// The error for a path that is not there.
    pub(super) fn not_found(&self, path: &[u8]) -> TreeError {
        let path = trimmed(path);
        let (parent, name) = match path.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&b""[..], path),
        };
        // Only a hint: what fails here is not reported.
        let mut similar = Vec::new();
        if let Ok(Some(found)) = self.resolve(parent, true)
            && let Some(dir) = &found.node.dir
            && let Ok(listing) = self.list(dir, &found.node, &found.path)
        {
            let names = listing.children.iter().map(|child| &*child.name);
            similar = suggest::similar(name, names)
                .into_iter()
                .map(|near| shown(&join(parent, near)))
                .collect();
        }
        TreeError::NotFound { path: shown(path), ignored: self.hides(path), similar }
    }
}

/// The elements of a path, last first.
fn elements(path: &[u8]) -> Vec<Vec<u8>> {
    let named = |element: &&[u8]| !matches!(*element, b"" | b".");
    path.split(|&byte| byte == b'/').filter(named).rev().map(<[u8]>::to_vec).collect()
}

fn trimmed(path: &[u8]) -> &[u8] {
    let path = path.strip_prefix(b"/").unwrap_or(path);
    path.strip_suffix(b"/").unwrap_or(path)
}
