//! A file of the machine's that must be neither read nor changed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::fixture::{Fixture, Ran};

/// What nobody may read.
pub(super) const SECRET: &str = "bait-that-only-the-machine-may-read";

/// Larger files are not looked into.
const LARGEST: u64 = 64 << 20;

/// A folder beside the context with a secret and an empty file in it.
#[derive(Debug)]
pub(super) struct Bait {
    folder: PathBuf,
    before: Vec<(String, u64, u32, i64, Vec<u8>)>,
}

impl Bait {
    pub(super) fn new(fixture: &Fixture) -> Self {
        let folder = fixture.path("bait");
        fs::create_dir(&folder).expect("the bait's folder");
        fs::write(folder.join("secret"), SECRET).expect("the bait");
        // What cleaners of mount points take for theirs.
        fs::write(folder.join("empty"), "").expect("the bait");
        fs::create_dir(folder.join("hollow")).expect("the bait");
        let before = state(&folder);
        Self { folder, before }
    }

    /// Its path on the machine.
    pub(super) fn path(&self) -> String {
        self.folder.display().to_string()
    }

    /// Nothing of it was changed, and nothing of it is in what was printed or below `places`.
    #[track_caller]
    pub(super) fn is_untouched(&self, ran: &Ran, places: &[&Path]) {
        assert_eq!(state(&self.folder), self.before, "{}", ran.stderr);
        assert!(!ran.stderr.contains(SECRET) && !ran.text().contains(SECRET), "{}", ran.stderr);
        for place in places.iter().filter(|place| place.exists()) {
            assert_eq!(holds(place, SECRET), None, "{}", ran.stderr);
        }
    }
}

fn state(folder: &Path) -> Vec<(String, u64, u32, i64, Vec<u8>)> {
    let mut state: Vec<_> = fs::read_dir(folder)
        .expect("the bait's folder")
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let metadata = path.symlink_metadata().expect("its status");
            let bytes = fs::read(&path).unwrap_or_default();
            let name = path.display().to_string();
            (name, metadata.ino(), metadata.mode(), metadata.mtime(), bytes)
        })
        .collect();
    state.sort();
    state
}

/// The first file below `folder` that has `needle` in it.
pub(super) fn holds(folder: &Path, needle: &str) -> Option<PathBuf> {
    if folder.is_file() {
        // Nobody hides it in one that is mostly holes.
        if folder.metadata().expect("its status").len() > LARGEST {
            return None;
        }
        let bytes = fs::read(folder).expect("its bytes");
        let found = bytes.windows(needle.len()).any(|window| window == needle.as_bytes());
        return found.then(|| folder.to_owned());
    }
    fs::read_dir(folder).expect("a folder").find_map(|entry| {
        let path = entry.expect("an entry").path();
        let kind = path.symlink_metadata().expect("its status").file_type();
        if kind.is_dir() || kind.is_file() { holds(&path, needle) } else { None }
    })
}
