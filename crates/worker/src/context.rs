//! The user's folders that a build reads: `local://` sources.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rbuild_cache::{StatCache, StatCacheError, Tree, TreeError};
use rbuild_solver::{PatternMatcher, SourceOp};
use rustix::fs::{CWD, Mode, OFlags};

/// A folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// No folder was given under this name.
    #[error("there is no local source `{0}`")]
    Unknown(String),
    /// It cannot be opened.
    #[error("cannot open the folder `{}`", path.display())]
    Open {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// An attribute of the source is malformed.
    #[error("attribute `{name}` is no list of texts")]
    Attribute {
        /// Which.
        name: &'static str,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// It cannot be read.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// The folders by the names that the graph gives them. Each is opened when somebody reads it, and its entries are
/// looked at once per build.
#[derive(Debug)]
pub struct Contexts {
    folders: BTreeMap<String, PathBuf>,
    /// Folders in here were unpacked for the build: nobody changes them, and their files have owners.
    unpacked: PathBuf,
    /// Where the store keeps what is remembered of folders.
    stat_caches: PathBuf,
    opened: Mutex<Opened>,
}

#[derive(Debug, Default)]
struct Opened {
    /// By name and ignore patterns: two sources of one folder may differ in what of it is there.
    trees: BTreeMap<(String, Vec<String>), Arc<Tree>>,
    stat_caches: BTreeMap<PathBuf, Arc<StatCache>>,
}

impl Contexts {
    /// Makes the registry of folders, given by absolute paths. What is below `unpacked` came in an archive, with its owners.
    /// `stat_caches` is the store's directory for what is remembered of the others between builds.
    pub fn new(
        folders: BTreeMap<String, PathBuf>,
        unpacked: PathBuf,
        stat_caches: PathBuf,
    ) -> Self {
        Self { folders, unpacked, stat_caches, opened: Mutex::default() }
    }

    /// The files of a `local://` source.
    pub(crate) fn tree(&self, source: &SourceOp) -> Result<Arc<Tree>, ContextError> {
        let name = source.local_name().unwrap_or_default();
        let path = self.folders.get(name);
        let path = path.ok_or_else(|| ContextError::Unknown(name.to_owned()))?;
        let patterns = ignore_patterns(source)?;
        let key = (name.to_owned(), patterns);
        // Held while opening, so that two who ask at once get the same tree.
        let mut opened = self.opened();
        if let Some(tree) = opened.trees.get(&key) {
            return Ok(Arc::clone(tree));
        }
        let root = open_folder(path)?;
        if path.starts_with(&self.unpacked) && key.1.is_empty() {
            let tree = Arc::new(Tree::of_snapshot(root)?);
            opened.trees.insert(key, Arc::clone(&tree));
            return Ok(tree);
        }
        let ignore = PatternMatcher::new(&key.1)
            .map_err(|error| ContextError::Tree(TreeError::Pattern { source: error }))?;
        let cache = opened
            .stat_caches
            .entry(path.clone())
            .or_insert_with(|| Arc::new(StatCache::load(&self.stat_caches, path)));
        let tree = Arc::new(Tree::of_context(root, ignore, Some(Arc::clone(cache)))?);
        opened.trees.insert(key, Arc::clone(&tree));
        Ok(tree)
    }

    /// Writes what was learned of the folders, so that the next build need not read unchanged files. To be called at
    /// the end of a build, also of one that failed.
    ///
    /// # Errors
    /// The first one; all folders are tried. A build is not worse for it.
    pub fn save(&self) -> Result<(), StatCacheError> {
        let opened = self.opened();
        let mut result = Ok(());
        for cache in opened.stat_caches.values() {
            result = result.and(cache.save());
        }
        result
    }

    fn opened(&self) -> MutexGuard<'_, Opened> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Contexts {
    fn drop(&mut self) {
        let opened = std::mem::take(&mut *self.opened());
        if opened.stat_caches.values().any(|cache| cache.is_large()) {
            // Nobody need wait for it, least of all a process that is about to end.
            rayon::spawn(move || drop(opened));
        }
    }
}

/// What of a source is not there, as one list of patterns: all but what its include patterns say, then what its
/// exclude patterns say. (`local.followpaths` only spares a remote client work; selectors do that here.)
fn ignore_patterns(source: &SourceOp) -> Result<Vec<String>, ContextError> {
    let list = |name: &'static str| match source.attrs.get(name) {
        None => Ok(Vec::new()),
        Some(text) => serde_json::from_str::<Vec<String>>(text)
            .map_err(|source| ContextError::Attribute { name, source }),
    };
    let mut patterns = Vec::new();
    let include = list("local.includepattern")?;
    if !include.is_empty() {
        patterns.push("*".to_owned());
        patterns.extend(include.iter().map(|pattern| format!("!{pattern}")));
    }
    patterns.extend(list("local.excludepatterns")?);
    Ok(patterns)
}

fn open_folder(path: &Path) -> Result<std::os::fd::OwnedFd, ContextError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty())
        .map_err(|errno| ContextError::Open { path: path.to_owned(), source: errno.into() })
}

#[cfg(test)]
mod tests {
    use rbuild_solver::Selector;

    use super::*;

    fn source(attrs: &[(&str, &str)]) -> SourceOp {
        let mut source = SourceOp::new("local://context");
        source.attrs.extend(attrs.iter().map(|(name, value)| ((*name).into(), (*value).into())));
        source
    }

    fn names(contexts: &Contexts, source: &SourceOp) -> Vec<String> {
        let tree = contexts.tree(source).unwrap();
        let selection = tree.select(&Selector::everything()).unwrap();
        let entries = selection.sources[0].entries.iter();
        entries.map(|entry| String::from_utf8_lossy(entry.relative()).into_owned()).collect()
    }

    #[test]
    fn sources_of_one_folder_may_show_different_files() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("folder");
        std::fs::create_dir_all(folder.join("src")).unwrap();
        for file in ["a", "b.o", "src/c", "src/d.o"] {
            std::fs::write(folder.join(file), file).unwrap();
        }
        let folders = BTreeMap::from([("context".to_owned(), folder)]);
        let contexts = Contexts::new(folders, "/none".into(), dir.path().to_owned());
        let check = |attrs: &[(&str, &str)], expected: &[&str]| {
            assert_eq!(names(&contexts, &source(attrs)), expected);
        };
        check(&[], &["a", "b.o", "src", "src/c", "src/d.o"]);
        check(&[("local.excludepatterns", r#"["**/*.o"]"#)], &["a", "src", "src/c"]);
        check(&[("local.includepattern", r#"["src"]"#)], &["src", "src/c", "src/d.o"]);
        let both =
            [("local.includepattern", r#"["src"]"#), ("local.excludepatterns", r#"["**/*.o"]"#)];
        check(&both, &["src", "src/c"]);
        assert!(Arc::ptr_eq(
            &contexts.tree(&source(&both)).unwrap(),
            &contexts.tree(&source(&both)).unwrap()
        ));
        contexts.save().unwrap();
    }

    #[test]
    fn unknown_folders_and_wrong_attributes_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let contexts = Contexts::new(BTreeMap::new(), "/none".into(), dir.path().to_owned());
        let error = contexts.tree(&source(&[])).unwrap_err();
        assert_eq!(error.to_string(), "there is no local source `context`");
        let folders = BTreeMap::from([("context".to_owned(), dir.path().join("none"))]);
        let contexts = Contexts::new(folders, "/none".into(), dir.path().to_owned());
        let error = contexts.tree(&source(&[("local.excludepatterns", "x")])).unwrap_err();
        assert_eq!(error.to_string(), "attribute `local.excludepatterns` is no list of texts");
        assert!(matches!(contexts.tree(&source(&[])), Err(ContextError::Open { .. })));
    }
}
