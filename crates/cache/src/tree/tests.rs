use std::ffi::OsStr;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use rbuild_oci::Digest;
use rbuild_solver::{PatternMatcher, Selector};
use rustix::fs::{CWD, FileType, Mode, OFlags, Timespec, Timestamps};

use super::*;

fn open(path: &Path) -> OwnedFd {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty()).unwrap()
}

fn context(path: &Path, ignore: &[&str]) -> Tree {
    Tree::of_context(open(path), PatternMatcher::new(ignore).unwrap(), None).unwrap()
}

/// Makes files: `dir/` is a directory, `link -> target` a link, everything else a file with its name in it.
fn folder(entries: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in entries {
        match entry.split_once(" -> ") {
            Some((name, target)) => symlink(target, dir.path().join(name)).unwrap(),
            None if entry.ends_with('/') => fs::create_dir_all(dir.path().join(entry)).unwrap(),
            None => {
                let path = dir.path().join(entry);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, entry).unwrap();
            }
        }
    }
    dir
}

fn plain(path: &str) -> Selector {
    Selector { path: path.to_owned(), follow_symlink: true, ..Selector::default() }
}

fn wildcard(path: &str) -> Selector {
    Selector { wildcard: true, ..plain(path) }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What is selected, each source as `name=>path` and its entries as `+entry`, or `(entry)` when only on the way.
fn picked(tree: &Tree, selector: &Selector) -> Vec<String> {
    let mut picked = Vec::new();
    for source in tree.select(selector).unwrap().sources {
        picked.push(format!("{}=>{}", text(&source.name), text(&source.path)));
        for entry in &source.entries {
            let relative = text(entry.relative());
            picked.push(if entry.picked {
                format!("+{relative}")
            } else {
                format!("({relative})")
            });
        }
    }
    picked
}

#[test]
fn directories_are_walked_in_the_order_of_names() {
    let dir = folder(&["b/z", "b/a/deep/x", "b-x", "a", "empty/"]);
    let tree = context(dir.path(), &[]);
    assert_eq!(
        picked(&tree, &Selector::everything()),
        ["=>", "+a", "+b", "+b/a", "+b/a/deep", "+b/a/deep/x", "+b/z", "+b-x", "+empty"]
            .map(str::to_owned)
    );
    assert_eq!(picked(&tree, &plain("/b/a")), ["b/a=>b/a", "+deep", "+deep/x"]);
    assert_eq!(picked(&tree, &plain("./b/../a")), ["a=>a"]);
    assert_eq!(picked(&tree, &plain("../../a")), ["a=>a"]);
}

#[test]
fn links_of_the_named_path_are_followed_inside_the_root() {
    let dir = folder(&[
        "real/file",
        "real/inner -> /etc/passwd",
        "link -> real",
        "abs -> /real",
        "up -> ../../../real/file",
        "etc/passwd",
        "loop -> loop",
        "dangling -> none",
    ]);
    let tree = context(dir.path(), &[]);
    assert_eq!(picked(&tree, &plain("link")), ["link=>real", "+file", "+inner"]);
    assert_eq!(picked(&tree, &plain("abs/file")), ["abs/file=>real/file"]);
    assert_eq!(picked(&tree, &plain("up")), ["up=>real/file"]);
    assert_eq!(picked(&tree, &plain("link/inner")), ["link/inner=>etc/passwd"]);
    let kept = Selector { follow_symlink: false, ..plain("link") };
    assert_eq!(picked(&tree, &kept), ["link=>link"]);
    assert!(matches!(tree.select(&plain("loop")), Err(TreeError::TooManyLinks { .. })));
    assert!(matches!(tree.select(&plain("dangling")), Err(TreeError::NotFound { .. })));
    assert!(matches!(tree.select(&plain("real/file/x")), Err(TreeError::NotFound { .. })));
}

#[test]
fn wildcards_match_by_element() {
    let dir = folder(&["a1/x.c", "a1/y.h", "a2/x.c", "b/x.c", "a3 -> b", "x.c", "[z]"]);
    let tree = context(dir.path(), &[]);
    assert_eq!(picked(&tree, &wildcard("a*/x.c")), ["a1/x.c=>a1/x.c", "a2/x.c=>a2/x.c"]);
    assert_eq!(picked(&tree, &wildcard("*.c")), ["x.c=>x.c"]);
    assert_eq!(picked(&tree, &wildcard("a3/*")), ["a3/x.c=>b/x.c"]);
    assert_eq!(picked(&tree, &wildcard("a[3]")), ["a3=>b", "+x.c"]);
    assert_eq!(picked(&tree, &wildcard("[[]z]")), ["[z]=>[z]"]);
    assert!(picked(&tree, &wildcard("none/*")).is_empty());
    assert!(picked(&tree, &wildcard("*.none")).is_empty());
    assert!(matches!(tree.select(&wildcard("a[")), Err(TreeError::Pattern { .. })));
    assert_eq!(picked(&tree, &plain("[z]")), ["[z]=>[z]"]);
}

#[test]
fn include_and_exclude_patterns_choose_below_a_directory() {
    let dir = folder(&["d/a/x.c", "d/a/x.h", "d/b/y.h", "d/c.c", "d/e/"]);
    let tree = context(dir.path(), &[]);
    let select = |include: &[&str], exclude: &[&str]| Selector {
        include: include.iter().map(|pattern| (*pattern).to_owned()).collect(),
        exclude: exclude.iter().map(|pattern| (*pattern).to_owned()).collect(),
        ..plain("d")
    };
    assert_eq!(
        picked(&tree, &select(&["**/*.c"], &[])),
        ["d=>d", "(a)", "+a/x.c", "+c.c"].map(str::to_owned)
    );
    assert_eq!(
        picked(&tree, &select(&[], &["**/*.h"])),
        ["d=>d", "+a", "+a/x.c", "+b", "+c.c", "+e"]
    );
    assert_eq!(picked(&tree, &select(&["a"], &["a/x.h"])), ["d=>d", "+a", "+a/x.c"]);
    assert_eq!(
        picked(&tree, &select(&[], &["a", "!a/x.h", "b", "c.c", "e"])),
        ["d=>d", "(a)", "+a/x.h"]
    );
    let mut required = select(&["a"], &[]);
    required.required = vec!["/d/a/x.c".to_owned()];
    tree.select(&required).unwrap();
    required.required = vec!["/d/a/none".to_owned()];
    let error = tree.select(&required).unwrap_err();
    assert_eq!(error.to_string(), "\"/d/a/none\": not found");
}

#[test]
fn ignored_files_are_not_there() {
    let dir = folder(&["docs/README.md", "docs/deep/x", "src/a.c", "src/a.o", "node_modules/x/y"]);
    let ignore = ["docs", "!docs/README.md", "**/*.o", "node_modules"];
    let tree = context(dir.path(), &ignore);
    assert_eq!(
        picked(&tree, &Selector::everything()),
        ["=>", "(docs)", "+docs/README.md", "+src", "+src/a.c"]
    );
    assert_eq!(picked(&tree, &plain("docs")), ["docs=>docs", "+README.md"]);
    for (path, hidden) in [("src/a.o", true), ("docs/deep", true), ("src/b.o", false)] {
        match tree.select(&plain(path)).unwrap_err() {
            TreeError::NotFound { ignored, path: named, .. } => {
                assert_eq!((ignored, named), (hidden, format!("/{path}")));
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn a_missing_path_is_said_in_buildkits_words_with_names_like_it() {
    let dir = folder(&["package.json", "src/main.c"]);
    let tree = context(dir.path(), &[]);
    let error = tree.select(&plain("/packge.json")).unwrap_err();
    assert_eq!(error.to_string(), "\"/packge.json\": not found");
    let TreeError::NotFound { similar, ignored, .. } = error else { panic!("{error}") };
    assert_eq!((similar, ignored), (vec!["/package.json".to_owned()], false));
    let TreeError::NotFound { similar, .. } = tree.select(&plain("src/mian.c")).unwrap_err() else {
        panic!("found")
    };
    assert_eq!(similar, ["/src/main.c"]);
}

fn digest(path: &Path, selector: &Selector) -> Digest {
    context(path, &[]).content_digest(selector).unwrap()
}

#[test]
fn the_digest_counts_what_is_content_and_nothing_else() {
    let dir = folder(&["d/a", "d/sub/b", "d/l -> a", "other"]);
    let path = dir.path();
    let all = |selector: &Selector| digest(path, selector);
    let before = all(&plain("d"));
    let contents = Selector { contents_only: true, ..plain("d") };
    let contents_before = all(&contents);

    let time = Timespec { tv_sec: 1, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path.join("d/a"), &times, rustix::fs::AtFlags::empty()).unwrap();
    fs::write(path.join("other"), "changed").unwrap();
    assert_eq!(all(&plain("d")), before, "times and other files do not count");

    fs::rename(path.join("d"), path.join("renamed")).unwrap();
    assert_eq!(all(&plain("renamed")), before, "nor does where it lies");
    fs::rename(path.join("renamed"), path.join("d")).unwrap();

    fs::set_permissions(path.join("d"), fs::Permissions::from_mode(0o700)).unwrap();
    assert_ne!(all(&plain("d")), before, "the mode of a directory counts");
    assert_eq!(all(&contents), contents_before, "but not when only its contents are selected");
    fs::set_permissions(path.join("d"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(all(&plain("d")), before);

    let changes: [(&str, &dyn Fn()); 5] = [
        ("mode", &|| {
            fs::set_permissions(path.join("d/a"), fs::Permissions::from_mode(0o755)).unwrap();
        }),
        ("bytes", &|| fs::write(path.join("d/a"), "x/y").unwrap()),
        ("name", &|| fs::rename(path.join("d/a"), path.join("d/c")).unwrap()),
        ("link target", &|| {
            fs::remove_file(path.join("d/l")).unwrap();
            symlink("sub", path.join("d/l")).unwrap();
        }),
        ("empty directory", &|| fs::create_dir(path.join("d/sub/new")).unwrap()),
    ];
    let mut last = before;
    for (what, change) in changes {
        change();
        let now = all(&plain("d"));
        assert_ne!(now, last, "{what}");
        last = now;
    }
}

#[test]
fn a_single_file_has_the_digest_of_its_content_under_any_name() {
    let dir = folder(&["a"]);
    fs::copy(dir.path().join("a"), dir.path().join("b")).unwrap();
    assert_eq!(digest(dir.path(), &plain("a")), digest(dir.path(), &plain("b")));
    assert_ne!(digest(dir.path(), &wildcard("a*")), digest(dir.path(), &wildcard("b*")));
    assert_eq!(digest(dir.path(), &wildcard("n*")), digest(dir.path(), &wildcard("m*")));
}

#[test]
fn attributes_count_unless_they_are_the_systems() {
    let dir = folder(&["a"]);
    let before = digest(dir.path(), &plain("a"));
    let flags = rustix::fs::XattrFlags::empty();
    let file = fs::File::open(dir.path().join("a")).unwrap();
    if let Err(error) = rustix::fs::fsetxattr(&file, c"user.rbuild", b"1", flags) {
        eprintln!("SKIPPED attributes_count_unless_they_are_the_systems: {error}");
        return;
    }
    let with = digest(dir.path(), &plain("a"));
    assert_ne!(with, before);
    rustix::fs::fsetxattr(&file, c"user.rbuild", b"2", flags).unwrap();
    assert_ne!(digest(dir.path(), &plain("a")), with);
}

#[test]
fn sockets_are_left_out_and_fifos_not_opened() {
    let dir = folder(&["file"]);
    let _socket = UnixListener::bind(dir.path().join("socket")).unwrap();
    let fifo = dir.path().join("fifo");
    rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).unwrap();
    let tree = context(dir.path(), &[]);
    assert_eq!(picked(&tree, &Selector::everything()), ["=>", "+fifo", "+file"]);
    assert!(matches!(tree.select(&plain("socket")), Err(TreeError::NotFound { .. })));
    // Opening the fifo would wait for a writer for ever.
    tree.content_digest(&Selector::everything()).unwrap();
}

#[test]
fn names_need_not_be_text() {
    let dir = folder(&["d/a"]);
    fs::write(dir.path().join("d").join(OsStr::from_bytes(b"\xff\xfe")), "x").unwrap();
    let tree = context(dir.path(), &[]);
    let selection = tree.select(&wildcard("d/*")).unwrap();
    let names: Vec<&[u8]> = selection.sources.iter().map(Selected::base_name).collect();
    assert_eq!(names, [&b"a"[..], b"\xff\xfe"]);
    let before = tree.content_digest(&plain("d")).unwrap();
    let other = OsStr::from_bytes(b"\xff\xfd");
    fs::rename(
        dir.path().join("d").join(OsStr::from_bytes(b"\xff\xfe")),
        dir.path().join("d").join(other),
    )
    .unwrap();
    assert_ne!(digest(dir.path(), &plain("d")), before);
}

#[test]
fn trees_deeper_than_a_stack_are_walked() {
    let dir = tempfile::tempdir().unwrap();
    let mut at = open(dir.path());
    for _ in 0..1500 {
        rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
        at = rustix::fs::openat(&at, "d", OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    let tree = context(dir.path(), &[]);
    assert_eq!(tree.select(&Selector::everything()).unwrap().sources[0].entries.len(), 1500);
    tree.content_digest(&Selector::everything()).unwrap();
}

#[test]
fn a_change_after_the_first_look_is_noticed() {
    let dir = folder(&["a", "b", "c"]);
    let tree = context(dir.path(), &[]);
    let selection = tree.select(&Selector::everything()).unwrap();
    fs::write(dir.path().join("a"), "longer than before").unwrap();
    fs::remove_file(dir.path().join("b")).unwrap();
    for entry in &selection.sources[0].entries {
        let opened = tree.open(&entry.path, &entry.node);
        match entry.path.as_slice() {
            b"c" => drop(opened.unwrap()),
            _ => assert!(matches!(opened, Err(TreeError::Changed { .. }))),
        }
    }
    let error = tree.content_digest(&plain("a")).unwrap_err();
    assert_eq!(error.to_string(), "\"/a\": file changed during the build");
}

#[test]
fn unreadable_files_are_named_and_only_if_selected() {
    let dir = folder(&["ok", "closed/x", "secret"]);
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for name in ["closed", "secret"] {
        fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(0o000)).unwrap();
    }
    // Whether the superuser's right to read everything holds is a matter of the thread that asks.
    let unprivileged = std::thread::scope(|scope| {
        scope
            .spawn(|| {
                if rustix::process::geteuid().is_root()
                    && rustix::thread::set_thread_uid(rustix::fs::Uid::from_raw(65_534)).is_err()
                {
                    return None;
                }
                let tree = context(dir.path(), &[]);
                // Without rayon's threads, which are still root: lookups and single files only.
                let listed = tree.select(&wildcard("closed/*")).map(drop);
                let ok = tree.content_digest(&plain("ok")).map(drop);
                let secret = tree.content_digest(&plain("secret")).map(drop);
                Some((listed, ok, secret))
            })
            .join()
            .unwrap()
    });
    let Some((listed, ok, secret)) = unprivileged else {
        eprintln!(
            "SKIPPED unreadable_files_are_named_and_only_if_selected: cannot change the user"
        );
        return;
    };
    ok.unwrap();
    assert_eq!(listed.unwrap_err().to_string(), "cannot read directory \"/closed\"");
    assert_eq!(secret.unwrap_err().to_string(), "cannot open \"/secret\"");
}

/// A context with a stat cache in `caches`.
fn cached(path: &Path, caches: &Path) -> (Tree, Arc<StatCache>) {
    let cache = Arc::new(StatCache::load(caches, path));
    let ignore = PatternMatcher::default();
    (Tree::of_context(open(path), ignore, Some(Arc::clone(&cache))).unwrap(), cache)
}

/// Gives a file a modification time of long ago. Its change time stays new.
fn age(path: &Path) {
    let time = Timespec { tv_sec: 1_000_000_000, tv_nsec: 5 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, rustix::fs::AtFlags::empty()).unwrap();
}

#[test]
fn a_quick_change_of_the_same_size_is_never_missed() {
    let dir = folder(&["file"]);
    let caches = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    // No build may take the digest of the one before it, however fast they follow each other.
    for round in 0..200 {
        let content = format!("{round:05}");
        fs::write(&file, &content).unwrap();
        age(&file);
        let (tree, cache) = cached(dir.path(), caches.path());
        let digest = tree.content_digest(&plain("file")).unwrap();
        cache.save().unwrap();
        assert_eq!(digest, self::digest(dir.path(), &plain("file")), "round {round}");
    }
}

#[test]
fn settled_files_are_not_read_again() {
    let caches = tempfile::tempdir().unwrap();
    // A tree that has been there for long: the tests' own sources.
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (tree, cache) = cached(&sources, caches.path());
    let digest = tree.content_digest(&Selector::everything()).unwrap();
    cache.save().unwrap();
    let (again, cache) = cached(&sources, caches.path());
    assert_eq!(again.content_digest(&Selector::everything()).unwrap(), digest);
    let selection = again.select(&Selector::everything()).unwrap();
    let files: Vec<&Entry> = selection.sources[0]
        .entries
        .iter()
        .filter(|entry| entry.node.meta().file_type() == FileType::RegularFile)
        .collect();
    assert!(!files.is_empty());
    for entry in files {
        assert!(cache.lookup(entry.node.meta()).is_some(), "{}", text(&entry.path));
    }
}

#[test]
fn many_threads_see_one_tree() {
    let names: Vec<String> = (0..40).map(|n| format!("d{}/e{}/f{n}", n % 4, n % 7)).collect();
    let dir = folder(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let tree = context(dir.path(), &[]);
    let expected = digest(dir.path(), &Selector::everything());
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (tree, names) = (&tree, &names);
            scope.spawn(move || {
                for name in names.iter().cycle().skip(thread * 5).take(names.len()) {
                    tree.content_digest(&plain(name)).unwrap();
                }
                assert_eq!(tree.content_digest(&Selector::everything()).unwrap(), expected);
            });
        }
    });
    let first = tree.select(&plain("d0")).unwrap();
    let second = tree.select(&plain("d0")).unwrap();
    assert!(Arc::ptr_eq(&first.sources[0].node, &second.sources[0].node));
}

#[test]
fn snapshots_keep_owners() {
    let dir = folder(&["a"]);
    let owner = fs::metadata(dir.path().join("a")).unwrap();
    let tree = Tree::of_snapshot(open(dir.path())).unwrap();
    let selection = tree.select(&plain("a")).unwrap();
    let meta = selection.sources[0].node.meta();
    assert_eq!(meta.uid, std::os::unix::fs::MetadataExt::uid(&owner));
}
