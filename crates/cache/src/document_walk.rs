//! The manifests and indexes that one leads to.
//!
//! An index is a stranger's word: it may list indexes that list indexes, thousands of times the same. Whoever follows one does it
//! with a [`DocumentWalk`], which comes to an end. Reading the documents, from the store or a registry, is the caller's.

use std::collections::HashSet;

use rbuild_oci::{Descriptor, Digest, Index, Platform};

/// An index may list an index; beyond that it is no use to anybody.
const DEEPEST_INDEX: usize = 3;
/// The most entries that all indexes have together.
const MOST_ENTRIES: usize = 1000;
/// The most bytes that all documents have together.
const MOST_BYTES: u64 = 64 << 20;

/// Goes over documents from the top, an index before its entries, these in their order.
///
/// For each, the caller says with [`Self::read`] how large it is, and with [`Self::enter`] what it lists, if it is an index. A
/// document that is listed several times comes once for each platform that it is listed for.
#[derive(Debug)]
pub struct DocumentWalk {
    /// What is next is last. Each has the number of indexes above it.
    waiting: Vec<(Descriptor, usize)>,
    seen: HashSet<(Digest, Option<Platform>)>,
    /// The number of indexes above what came last.
    depth: usize,
    entries: usize,
    bytes: u64,
}

/// Why documents are not gone over to the end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentWalkError {
    /// Indexes in indexes.
    #[error("it is an index of indexes, nested too deeply")]
    Nesting,
    /// More platforms than there are.
    #[error("its indexes have more than {MOST_ENTRIES} entries")]
    Entries,
    /// More than honest documents have.
    #[error("its manifests have more than {} MiB together", MOST_BYTES >> 20)]
    Bytes,
    /// An index says something else than what is there.
    #[error("`{digest}` has {actual} bytes, its descriptor says {said}")]
    Size {
        /// Which document.
        digest: Digest,
        /// What its descriptor says.
        said: u64,
        /// What it has.
        actual: u64,
    },
}

impl DocumentWalk {
    /// A walk from a manifest or an index.
    pub fn new(top: Descriptor) -> Self {
        Self { waiting: vec![(top, 0)], seen: HashSet::new(), depth: 0, entries: 0, bytes: 0 }
    }

    /// How many indexes are above the document that came last.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Notes that the document that came last, as `descriptor`, has so many bytes.
    pub fn read(&mut self, descriptor: &Descriptor, bytes: u64) -> Result<(), DocumentWalkError> {
        if descriptor.size != bytes {
            let Descriptor { digest, size: said, .. } = *descriptor;
            return Err(DocumentWalkError::Size { digest, said, actual: bytes });
        }
        self.bytes += bytes;
        if self.bytes > MOST_BYTES {
            return Err(DocumentWalkError::Bytes);
        }
        Ok(())
    }

    /// Goes on with the entries of the index that came last.
    pub fn enter(&mut self, index: &Index) -> Result<(), DocumentWalkError> {
        let depth = self.depth + 1;
        if depth > DEEPEST_INDEX {
            return Err(DocumentWalkError::Nesting);
        }
        self.entries += index.manifests.len();
        if self.entries > MOST_ENTRIES {
            return Err(DocumentWalkError::Entries);
        }
        self.waiting.extend(index.manifests.iter().rev().map(|entry| (entry.clone(), depth)));
        Ok(())
    }
}

impl Iterator for DocumentWalk {
    type Item = Descriptor;

    fn next(&mut self) -> Option<Descriptor> {
        // Only what comes is seen: what waits below an index must come before the same beside that.
        loop {
            let (descriptor, depth) = self.waiting.pop()?;
            if self.seen.insert((descriptor.digest, descriptor.platform.clone())) {
                self.depth = depth;
                return Some(descriptor);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rbuild_oci::MediaType;

    use super::*;

    fn descriptor(name: &str) -> Descriptor {
        Descriptor::new(MediaType::OciManifest, Digest::of(name.as_bytes()), 1)
    }

    fn for_arm(name: &str, variant: &str) -> Descriptor {
        let platform = Some(Platform::new("linux", "arm", variant));
        Descriptor { platform, ..descriptor(name) }
    }

    #[test]
    fn each_once_in_order() {
        let mut walk = DocumentWalk::new(descriptor("top"));
        let mut came = Vec::new();
        while let Some(next) = walk.next() {
            walk.read(&next, 1).unwrap();
            let entries = match next.digest {
                digest if digest == Digest::of(b"top") => {
                    vec![descriptor("a"), descriptor("below"), descriptor("b"), descriptor("a")]
                }
                digest if digest == Digest::of(b"below") => {
                    vec![descriptor("b"), for_arm("c", "v6"), for_arm("c", "v7")]
                }
                _ => Vec::new(),
            };
            walk.enter(&Index::new(entries)).unwrap();
            came.push((next.digest, walk.depth()));
        }
        let expected = [("top", 0), ("a", 1), ("below", 1), ("b", 2), ("c", 2), ("c", 2)];
        assert_eq!(came, expected.map(|(name, depth)| (Digest::of(name.as_bytes()), depth)));
    }

    #[test]
    fn every_walk_ends() {
        let mut deep = DocumentWalk::new(descriptor("0"));
        let mut failed = None;
        for level in 1.. {
            deep.next().unwrap();
            let below = Index::new(vec![descriptor(&level.to_string())]);
            if let Err(error) = deep.enter(&below) {
                failed = Some((level, error));
                break;
            }
        }
        assert_eq!(failed, Some((4, DocumentWalkError::Nesting)));

        let mut wide = DocumentWalk::new(descriptor("top"));
        wide.next();
        wide.enter(&Index::new(vec![descriptor("a"); 1000])).unwrap();
        wide.next();
        let one_more = Index::new(vec![descriptor("b")]);
        assert_eq!(wide.enter(&one_more), Err(DocumentWalkError::Entries));
        assert_eq!(wide.next(), None, "all others were the same");
    }

    #[test]
    fn sizes_are_compared() {
        let mut walk = DocumentWalk::new(descriptor("top"));
        let top = walk.next().unwrap();
        let error = walk.read(&top, 400).unwrap_err();
        assert!(error.to_string().ends_with("has 400 bytes, its descriptor says 1"), "{error}");
        let large = Descriptor { size: MOST_BYTES, ..top.clone() };
        walk.read(&large, MOST_BYTES).unwrap();
        assert_eq!(walk.read(&top, 1), Err(DocumentWalkError::Bytes));
    }
}
