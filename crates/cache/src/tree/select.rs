//! What a [`Selector`] picks.

use std::sync::Arc;

use rbuild_solver::{PathPattern, PatternMatcher, Selector, clean_path, has_wildcards};

use super::error::TreeError;
use super::lookup::{Tree, join};
use super::node::Node;
use super::walk::Filter;

/// The files that a selector picks, in the order in which they are hashed and copied.
#[derive(Debug)]
pub struct Selection {
    /// One per path that the selector names; several, or none, only for a wildcard.
    pub sources: Vec<Selected>,
    /// Whether the sources were found by a wildcard.
    pub by_wildcard: bool,
}

/// One path that a selector names.
#[derive(Debug)]
pub struct Selected {
    /// As it is named: links not followed, wildcards replaced. Relative to the root, which is the empty path.
    pub name: Vec<u8>,
    /// Where that leads: relative to the root, without links.
    pub path: Vec<u8>,
    /// What is there.
    pub node: Arc<Node>,
    /// For a directory: what is picked below it, each directory before its entries, entries by name.
    pub entries: Vec<Entry>,
}

/// Something below a selected directory.
#[derive(Debug)]
pub struct Entry {
    /// Relative to the root of the tree, without links.
    pub path: Vec<u8>,
    /// How much of `path` leads to the selected directory: what comes after it is relative to that.
    pub prefix: usize,
    /// What is there.
    pub node: Arc<Node>,
    /// Whether it is picked itself, rather than a directory on the way to something that is.
    pub picked: bool,
}

impl Selected {
    /// The last element of the name, which a copy into a directory takes; empty for the root.
    pub fn base_name(&self) -> &[u8] {
        self.name.rsplit(|&byte| byte == b'/').next().unwrap_or_default()
    }
}

impl Entry {
    /// Relative to the selected directory.
    pub fn relative(&self) -> &[u8] {
        &self.path[self.prefix..]
    }
}

impl Tree {
    /// Finds what `selector` picks. Directories are walked side by side, files are not opened.
    ///
    /// # Errors
    /// A plain path, or one that is required, that is not there; what cannot be read; a malformed pattern.
    pub fn select(&self, selector: &Selector) -> Result<Selection, TreeError> {
        let rooted = clean_path(&format!("/{}", selector.path));
        let path = &rooted[1..];
        let by_wildcard = selector.wildcard && has_wildcards(path);
        let names = if by_wildcard { self.expand(path)? } else { vec![path.as_bytes().to_vec()] };
        let filter = Filter::new(selector)?;
        let mut sources = Vec::with_capacity(names.len());
        for name in names {
            let found = self.resolve(&name, selector.follow_symlink)?;
            let found = found.ok_or_else(|| self.not_found(&name))?;
            let entries = match &found.node.dir {
                Some(_) => self.walk(&found, &filter)?,
                None => Vec::new(),
            };
            // An ignored directory is there for the exceptions below it only.
            if found.node.is_ignored() && entries.is_empty() {
                return Err(self.not_found(&name));
            }
            sources.push(Selected { name, path: found.path, node: found.node, entries });
        }
        for required in &selector.required {
            let required = clean_path(&format!("/{required}"));
            let required = &required.as_bytes()[1..];
            let is_there = |source: &Selected| {
                let mut below = source.entries.iter().map(Entry::relative);
                source.name == required || below.any(|name| join(&source.name, name) == required)
            };
            if !sources.iter().any(is_there) {
                return Err(self.not_found(required));
            }
        }
        Ok(Selection { sources, by_wildcard })
    }

    /// The names that a path with wildcards stands for, in order. Links before the first wildcard are followed,
    /// links that a wildcard matches are not directories.
    fn expand(&self, path: &str) -> Result<Vec<Vec<u8>>, TreeError> {
        let mut elements = path.split('/').peekable();
        let mut plain: Vec<&str> = Vec::new();
        while let Some(element) = elements.next_if(|element| !has_wildcards(element)) {
            plain.push(element);
        }
        let named = plain.join("/").into_bytes();
        let Some(start) = self.resolve(&named, true)? else { return Ok(Vec::new()) };
        let mut found = vec![(named, start.path, start.node)];
        for element in elements {
            let pattern = PathPattern::parse(element)?;
            let mut matched = Vec::new();
            for (name, path, node) in found {
                let Some(dir) = &node.dir else { continue };
                for child in &self.list(dir, &node, &path)?.children {
                    if pattern.matches(&child.name) {
                        let below = |parent: &[u8]| join(parent, &child.name);
                        matched.push((below(&name), below(&path), Arc::clone(&child.node)));
                    }
                }
            }
            found = matched;
        }
        Ok(found.into_iter().map(|(name, ..)| name).collect())
    }
}

impl Filter {
    fn new(selector: &Selector) -> Result<Self, TreeError> {
        let matcher = |patterns: &[String]| match patterns {
            [] => Ok(None),
            patterns => PatternMatcher::new(patterns).map(Some),
        };
        Ok(Self { include: matcher(&selector.include)?, exclude: matcher(&selector.exclude)? })
    }
}
