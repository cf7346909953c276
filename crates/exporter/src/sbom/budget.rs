//! How much is read of files that somebody else has made, and kept of them.

use super::package::Package;

/// The most packages that are listed.
const MOST_PACKAGES: usize = 100_000;
/// The most memory that they and their paths take, about.
const MOST_KEPT: usize = 64 << 20;
/// The most bytes that are read of a layer's files.
const MOST_READ: u64 = 512 << 20;

/// What may still be read and kept: of one layer, or of all layers of a snapshot.
#[derive(Debug)]
pub(super) struct Budget {
    packages: usize,
    kept: usize,
    read: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { packages: MOST_PACKAGES, kept: MOST_KEPT, read: MOST_READ }
    }
}

impl Budget {
    /// Takes a package that stands in a file of this path; false if there is no room for it.
    pub(super) fn keep_package(&mut self, package: &Package, path: &str) -> bool {
        let texts = [
            &package.name,
            &package.version,
            &package.architecture,
            &package.upstream,
            &package.licence,
            &package.supplier,
        ];
        let texts: usize = texts.into_iter().map(|text| written(text)).sum();
        let has_room = self.packages > 0
            && self.keep(size_of::<Package>() + texts + size_of::<String>() + path.len());
        self.packages -= usize::from(has_room);
        has_room
    }

    /// Takes a file of this path and what else is said of it; false if there is no room for it.
    pub(super) fn keep_file(&mut self, path: &str, said: &str) -> bool {
        self.keep(256 + written(path) + written(said))
    }

    fn keep(&mut self, bytes: usize) -> bool {
        let rest = self.kept.checked_sub(bytes);
        self.kept = rest.unwrap_or(self.kept);
        rest.is_some()
    }

    /// Takes bytes that are about to be read; false if they are too many.
    pub(super) fn read(&mut self, bytes: u64) -> bool {
        let rest = self.read.checked_sub(bytes);
        self.read = rest.unwrap_or(self.read);
        rest.is_some()
    }
}

/// How long a text is where it is kept, as JSON.
fn written(text: &str) -> usize {
    text.bytes().map(|byte| if byte < b' ' { 6 } else { 1 }).sum()
}

#[cfg(test)]
mod tests {
    use super::super::package::Ecosystem;
    use super::*;

    #[test]
    fn what_is_full_takes_no_more() {
        let mut budget = Budget::default();
        let package = Package::new(Ecosystem::Deb, "a", "1");
        let taken = (0..=MOST_PACKAGES).take_while(|_| budget.keep_package(&package, "p")).count();
        assert_eq!(taken, MOST_PACKAGES);
        assert!(budget.keep_file("p", "") && budget.read(1));
        let long = Package::new(Ecosystem::Deb, "\0".repeat(MOST_KEPT / 10), "1");
        let mut budget = Budget::default();
        assert!(budget.keep_package(&long, "p") && !budget.keep_package(&long, "p"));
        assert!(budget.keep_package(&package, "p"), "a smaller one has room");
        assert!(!budget.keep_package(&package, &"p".repeat(MOST_KEPT)));
        assert!(budget.read(MOST_READ) && !budget.read(1));
    }
}
