//! The rules of copying, each on real directories.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rbuild_cache::{
    ApplyForm, ApplyOptions, ArchiveLimits, Below, DiffError, Overlay, OverlayXattrs, PlannedCopy,
    Store, TarWriter, Tree, TreeError, View, apply, write_tree,
};
use rbuild_solver::{CopyAction, MkdirAction, MkfileAction, RmAction, SymlinkAction};
use rustix::fs::{CWD, FileType, Mode, OFlags, Timespec, Timestamps, XattrFlags};

use super::attributes::Changes;
use super::chmod::ModeChange;
use super::chown::Ownership;
use super::error::FileError;
use super::place::Target;
use super::{copy, make, plan, remove, write};

fn open(path: &Path) -> OwnedFd {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty()).unwrap()
}

/// Makes what lines say: `DIR/ MODE`, `LINK -> TARGET`, `FILE MODE CONTENT`, or `FILE`, with the name as content.
fn fill(dir: &Path, lines: &[&str]) {
    for line in lines {
        if let Some((link, target)) = line.split_once(" -> ") {
            let link = dir.join(link);
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            symlink(target, link).unwrap();
            continue;
        }
        let mut words = line.split(' ');
        let name = words.next().unwrap();
        let mode = words.next().map_or(if name.ends_with('/') { 0o755 } else { 0o644 }, |mode| {
            u32::from_str_radix(mode, 8).unwrap()
        });
        let path = dir.join(name.trim_end_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if name.ends_with('/') {
            fs::create_dir_all(&path).unwrap();
        } else {
            fs::write(&path, words.next().unwrap_or(name)).unwrap();
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
}

/// What is in a directory, in the form of [`fill`], sorted, without modes that are usual.
fn listing(dir: &Path) -> Vec<String> {
    fn list(top: &Path, dir: &Path, lines: &mut Vec<String>) {
        let mut paths: Vec<_> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        for path in paths {
            let name = path.strip_prefix(top).unwrap().display().to_string();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let mode = metadata.mode() & 0o7777;
            let shown =
                |usual: u32| if mode == usual { String::new() } else { format!(" {mode:o}") };
            if metadata.is_symlink() {
                lines.push(format!("{name} -> {}", fs::read_link(&path).unwrap().display()));
            } else if metadata.is_dir() {
                lines.push(format!("{name}/{}", shown(0o755)));
                list(top, &path, lines);
            } else if metadata.is_file() {
                let content = fs::read_to_string(&path).unwrap();
                lines.push(format!("{name}{}={content}", shown(0o644)));
            } else {
                lines.push(format!("{name}|{}", shown(0o644)));
            }
        }
    }
    let mut lines = Vec::new();
    list(dir, dir, &mut lines);
    lines
}

/// A copy as Dockerfiles have it.
fn action(src: &str, dest: &str) -> CopyAction {
    CopyAction {
        src: src.to_owned(),
        dest: dest.to_owned(),
        follow_symlink: true,
        dir_copy_contents: true,
        create_dest_path: true,
        allow_wildcard: true,
        allow_empty_wildcard: true,
        ..CopyAction::default()
    }
}

struct Trees {
    dir: tempfile::TempDir,
}

impl Trees {
    fn new(source: &[&str], dest: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, lines) in [("source", source), ("dest", dest)] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fill(&dir.path().join(name), lines);
        }
        Self { dir }
    }

    fn source(&self) -> std::path::PathBuf {
        self.dir.path().join("source")
    }

    fn dest(&self) -> std::path::PathBuf {
        self.dir.path().join("dest")
    }

    fn copy(&self, action: &CopyAction) -> Result<(), FileError> {
        self.copy_as(action, None)
    }

    /// Copies. What is planned must come to the same, whether it is written as a layer or as an archive.
    fn copy_as(&self, action: &CopyAction, owner: Option<Ownership>) -> Result<(), FileError> {
        let tree = Arc::new(Tree::of_snapshot(open(&self.source())).unwrap());
        let root = open(&self.dest());
        let below = Below::of_directories(&[root.as_fd()], OverlayXattrs::User).unwrap();
        let planned = plan::plan(action, owner, Arc::clone(&tree), &below).ok().flatten();
        let planned = planned.map(|planned| {
            let mode = ModeChange::new(action.mode, &action.mode_str).unwrap();
            let changes = Changes { owner, mode: &mode, mtime: action.timestamp };
            (self.with_layer(&planned, changes, &below), self.with_archive(&planned))
        });
        let copied = copy::run(action, owner, &tree, Target::new(root.as_fd()));
        if let Some((with_layer, with_archive)) = planned {
            copied.as_ref().expect("what is planned is certain to succeed");
            let copied = archive_of(root.as_fd());
            assert_eq!(copied, archive_of(open(&with_archive).as_fd()), "{action:?}");
            assert_eq!(copied, with_layer, "{action:?}");
        }
        copied
    }

    /// The destination with the archive of a copy.
    fn with_archive(&self, copy: &PlannedCopy) -> PathBuf {
        let mut archive = TarWriter::new(Vec::new(), None);
        copy.write(Some(open(&self.dest()).as_fd()), &mut archive).unwrap();
        let archive = archive.finish().unwrap();
        // Left to the directory that it is in.
        let twin = tempfile::tempdir_in(&self.dir).unwrap().keep().join("twin");
        let status = Command::new("cp").arg("-a").args([&self.dest(), &twin]).status().unwrap();
        assert!(status.success());
        let options = ApplyOptions {
            form: ApplyForm::Merged,
            ignore_chown_errors: false,
            owner: None,
            limits: ArchiveLimits::default(),
        };
        apply(archive.as_slice(), open(&twin).as_fd(), &options).unwrap();
        twin
    }

    /// The archive of the destination with the layer of a copy on top.
    fn with_layer(&self, copy: &PlannedCopy, changes: Changes<'_>, below: &Below) -> Vec<u8> {
        let store = tempfile::tempdir_in(&self.dir).unwrap();
        let store = Store::open(store.path()).unwrap();
        let overlay = Overlay::new(OverlayXattrs::User, &store.layers).copying();
        let layer = below.begin_layer(&store.layers).unwrap();
        write::write(copy, changes, below, layer.dir()).unwrap();
        let dest = open(&self.dest());
        let view = View::of_directories(&overlay, &[dest.as_fd(), layer.dir()]).unwrap();
        archive_of(view.root())
    }
}

/// Everything in a directory. No time is later than that at which this year began: two directories may be made in different seconds.
fn archive_of(dir: BorrowedFd<'_>) -> Vec<u8> {
    const YEAR: i64 = 1_767_225_600;
    let mut archive = TarWriter::new(Vec::new(), Some(YEAR));
    write_tree(dir, "", &mut archive).unwrap();
    archive.finish().unwrap()
}

#[track_caller]
fn check(source: &[&str], dest: &[&str], action: &CopyAction, expected: &[&str]) {
    let trees = Trees::new(source, dest);
    trees.copy(action).unwrap();
    assert_eq!(listing(&trees.dest()), expected, "{} to {}", action.src, action.dest);
}

#[track_caller]
fn check_refused(source: &[&str], dest: &[&str], action: &CopyAction, expected: &str) {
    let error = Trees::new(source, dest).copy(action).unwrap_err();
    assert_eq!(error.to_string(), expected, "{} to {}", action.src, action.dest);
}

#[test]
fn a_slash_at_the_end_makes_a_directory_of_dest() {
    check(&["f"], &[], &action("/f", "/x"), &["x=f"]);
    check(&["f"], &[], &action("/f", "/x/"), &["x/", "x/f=f"]);
    check(&["f"], &[], &action("/f", "/x/."), &["x/", "x/f=f"]);
    check(&["f"], &[], &action("/f", "/"), &["f=f"]);
    check(&["f"], &[], &action("/f", "/a/b/x"), &["a/", "a/b/", "a/b/x=f"]);
    check(&["f"], &["x/"], &action("/f", "/x"), &["x/", "x/f=f"]);
    check(&["f"], &["x 600 old"], &action("/f", "/x"), &["x=f"]);
    check(&["f"], &["d/"], &action("f", "d/../x"), &["d/", "x=f"]);
}

#[test]
fn of_a_directory_the_contents_are_copied() {
    let source = ["d/ 700", "d/a", "d/sub/ 711", "d/sub/b 600 b"];
    check(&source, &[], &action("/d", "/x"), &["x/", "x/a=d/a", "x/sub/ 711", "x/sub/b 600=b"]);
    check(
        &source,
        &["x/ 750", "x/sub/ 700", "x/sub/c"],
        &action("/d/", "/x/"),
        &["x/ 750", "x/a=d/a", "x/sub/ 711", "x/sub/b 600=b", "x/sub/c=x/sub/c"],
    );
    check(&["a", "b/c"], &[], &action("/", "/"), &["a=a", "b/", "b/c=b/c"]);
    let named = CopyAction { dir_copy_contents: false, ..action("/d", "/x") };
    check(
        &source,
        &["x/"],
        &named,
        &["x/", "x/d/ 700", "x/d/a=d/a", "x/d/sub/ 711", "x/d/sub/b 600=b"],
    );
    check(&source, &[], &named, &["x/ 700", "x/a=d/a", "x/sub/ 711", "x/sub/b 600=b"]);
}

#[test]
fn types_that_do_not_fit_are_refused() {
    check_refused(&["d/a"], &["x"], &action("/d", "/x"), "cannot copy to non-directory: /x");
    check_refused(&["d/n/a"], &["x/n"], &action("/d", "/x"), "cannot copy to non-directory: /x/n");
    check_refused(
        &["d/n"],
        &["x/n/"],
        &action("/d", "/x"),
        "cannot replace to directory /x/n with file",
    );
    check_refused(
        &["f"],
        &["x/f/"],
        &action("/f", "/x"),
        "cannot replace to directory /x/f with file",
    );
    check_refused(&["f"], &["x"], &action("/f", "/x/"), "cannot copy to non-directory: /x");
    let replacing = |src, dest| CopyAction { always_replace_existing: true, ..action(src, dest) };
    check(&["d/a"], &["x"], &replacing("/d", "/x"), &["x/", "x/a=d/a"]);
    check(&["d/n/a"], &["x/n"], &replacing("/d", "/x"), &["x/", "x/n/", "x/n/a=d/n/a"]);
    check(&["d/n"], &["x/n/deep/f"], &replacing("/d", "/x"), &["x/", "x/n=d/n"]);
}

#[test]
fn wildcards_may_match_nothing_and_plain_paths_may_not() {
    check(&["a.c", "b.c", "d.h"], &[], &action("/*.c", "/x/"), &["x/", "x/a.c=a.c", "x/b.c=b.c"]);
    check(&["a.c", "b.c"], &[], &action("/*.c", "/x"), &["x=b.c"]);
    check(&["d1/a", "d2/b"], &[], &action("/d*", "/x/"), &["x/", "x/a=d1/a", "x/b=d2/b"]);
    check(&["a"], &["k"], &action("/*.none", "/x/"), &["k=k"]);
    let strict = CopyAction { allow_empty_wildcard: false, ..action("/*.none", "/x/") };
    check_refused(&["a"], &[], &strict, "/*.none not found");
    check_refused(&["a"], &[], &action("/none", "/x/"), "\"/none\": not found");
    let literal = CopyAction { allow_wildcard: false, ..action("/[a]", "/x") };
    check(&["[a]"], &[], &literal, &["x=[a]"]);
}

#[test]
fn links_are_followed_where_they_are_named_and_copied_where_they_are_met() {
    check(&["f", "l -> f"], &[], &action("/l", "/x/"), &["x/", "x/l=f"]);
    check(&["d/a", "l -> d"], &[], &action("/l/a", "/x"), &["x=d/a"]);
    check(&["d/l -> ../f", "f"], &[], &action("/d", "/x"), &["x/", "x/l -> ../f"]);
    check(&["d/a", "l -> /d"], &[], &action("/l", "/x"), &["x/", "x/a=d/a"]);
    let kept = CopyAction { follow_symlink: false, ..action("/l", "/x") };
    check(&["f", "l -> f"], &[], &kept, &["x -> f"]);
}

#[test]
fn links_in_dest_are_followed_within_the_root() {
    check(
        &["f"],
        &["real/", "l -> /real"],
        &action("/f", "/l/"),
        &["l -> /real", "real/", "real/f=f"],
    );
    check(
        &["f"],
        &["l -> ../../../out"],
        &action("/f", "/l/x"),
        &["l -> ../../../out", "out/", "out/x=f"],
    );
    check(&["f"], &["l -> target"], &action("/f", "/l"), &["l -> target", "target=f"]);
    check(
        &["d/a"],
        &["l -> none/deep"],
        &action("/d", "/l"),
        &["l -> none/deep", "none/", "none/deep/", "none/deep/a=d/a"],
    );
    check(
        &["f"],
        &["x/f -> ../other", "other"],
        &action("/f", "/x/"),
        &["other=other", "x/", "x/f=f"],
    );
    check_refused(
        &["f"],
        &["l -> l"],
        &action("/f", "/l/x"),
        "/l: too many levels of symbolic links",
    );
}

#[test]
fn modes_are_changed_for_files_directories_and_made_parents() {
    let octal = |src, dest| CopyAction { mode: Some(0o640), ..action(src, dest) };
    check(
        &["d/a 777 a", "d/s/"],
        &[],
        &octal("/d", "/n/x"),
        &["n/ 640", "n/x/", "n/x/a 640=a", "n/x/s/ 640"],
    );
    let symbolic = |mode: &str| CopyAction { mode_str: mode.to_owned(), ..action("/d", "/x") };
    check(
        &["d/a 600 a", "d/b 700 b", "d/s/ 700"],
        &[],
        &symbolic("u=rwX,go=rX"),
        &["x/", "x/a=a", "x/b 755=b", "x/s/"],
    );
    let refused = Trees::new(&["d/a"], &[]).copy(&symbolic("q")).unwrap_err();
    assert!(refused.to_string().starts_with("invalid mode `q`"));
    check(&["f 4755 x"], &[], &action("/f", "/y"), &["y 4755=x"]);
}

#[test]
fn patterns_choose_what_is_copied() {
    let source = ["d/a.c", "d/s/ 700", "d/s/b.c", "d/s/b.h", "d/t/c.h"];
    let include = CopyAction { include_patterns: vec!["**/*.c".into()], ..action("/d", "/x") };
    check(&source, &[], &include, &["x/", "x/a.c=d/a.c", "x/s/ 700", "x/s/b.c=d/s/b.c"]);
    let exclude = CopyAction { exclude_patterns: vec!["**/*.h".into()], ..action("/d", "/x") };
    check(&source, &[], &exclude, &["x/", "x/a.c=d/a.c", "x/s/ 700", "x/s/b.c=d/s/b.c", "x/t/"]);
    let required = CopyAction { required_paths: vec!["/d/none".into()], ..include };
    check_refused(&source, &[], &required, "\"/d/none\": not found");
}

/// Times in nanoseconds, of a path below the destination.
fn mtime(trees: &Trees, path: &str) -> i64 {
    let metadata = fs::symlink_metadata(trees.dest().join(path)).unwrap();
    metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec()
}

#[test]
fn times_are_kept_to_the_nanosecond() {
    let trees = Trees::new(&["d/s/a", "d/l -> a"], &["x/"]);
    let set = |path: &str, nanoseconds: i64| {
        let time = Timespec { tv_sec: 1_000_000_000, tv_nsec: nanoseconds };
        let times = Timestamps { last_access: time, last_modification: time };
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(CWD, trees.source().join(path), &times, flags).unwrap();
    };
    for (nanoseconds, path) in [(1, "d/s/a"), (2, "d/l"), (3, "d/s"), (4, "d")] {
        set(path, nanoseconds);
    }
    trees.copy(&action("/d", "/x")).unwrap();
    let times =
        ["x/s/a", "x/l", "x/s", "x"].map(|path| mtime(&trees, path) - 1_000_000_000_000_000_000);
    assert_eq!(times, [1, 2, 3, 4]);
    let fixed = CopyAction { timestamp: Some(7), ..action("/d", "/y/z") };
    trees.copy(&fixed).unwrap();
    let times = ["y/z/s/a", "y/z/l", "y/z/s", "y/z"].map(|path| mtime(&trees, path));
    assert_eq!(times, [7; 4]);
}

#[test]
fn hard_links_stay_links() {
    let trees = Trees::new(&["d/a", "d/s/"], &["x/b"]);
    fs::hard_link(trees.source().join("d/a"), trees.source().join("d/b")).unwrap();
    fs::hard_link(trees.source().join("d/a"), trees.source().join("d/s/c")).unwrap();
    fs::hard_link(trees.source().join("d/a"), trees.source().join("outside")).unwrap();
    trees.copy(&action("/d", "/x")).unwrap();
    let inode = |path: &str| fs::metadata(trees.dest().join(path)).unwrap().ino();
    assert_eq!([inode("x/b"), inode("x/s/c")], [inode("x/a"); 2]);
    assert_eq!(fs::metadata(trees.dest().join("x/a")).unwrap().nlink(), 3);
    assert_ne!(inode("x/a"), fs::metadata(trees.source().join("d/a")).unwrap().ino());
}

#[test]
fn special_files_and_attributes_are_copied() {
    let trees = Trees::new(&["d/a"], &[]);
    rustix::fs::mknodat(CWD, trees.source().join("d/fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let file = fs::File::open(trees.source().join("d/a")).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    let has_xattrs = rustix::fs::fsetxattr(&file, c"user.rbuild", b"1", flags).is_ok();
    trees.copy(&action("/d", "/x")).unwrap();
    assert_eq!(listing(&trees.dest()), ["x/", "x/a=d/a", "x/fifo| 400"]);
    if has_xattrs {
        let mut value = [0; 8];
        let copied = fs::File::open(trees.dest().join("x/a")).unwrap();
        let length = rustix::fs::fgetxattr(&copied, c"user.rbuild", &mut value[..]).unwrap();
        assert_eq!(&value[..length], b"1");
    }
}

#[test]
fn privileged_owners_are_given_and_kept() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED privileged_owners_are_given_and_kept: needs root");
        return;
    }
    let trees = Trees::new(&["d/a", "d/s/"], &[]);
    std::os::unix::fs::chown(trees.source().join("d/a"), Some(5), Some(6)).unwrap();
    trees.copy(&action("/d", "/kept")).unwrap();
    let owner = |path: &str| {
        let metadata = fs::symlink_metadata(trees.dest().join(path)).unwrap();
        (metadata.uid(), metadata.gid())
    };
    assert_eq!([owner("kept"), owner("kept/a"), owner("kept/s")], [(0, 0), (5, 6), (0, 0)]);
    let given = Ownership { uid: 7, gid: 8 };
    trees.copy_as(&action("/d", "/n/given/"), Some(given)).unwrap();
    for path in ["n", "n/given", "n/given/a", "n/given/s"] {
        assert_eq!(owner(path), (7, 8), "{path}");
    }
    // Directories with set-group-id give their group to what is made in them.
    fs::create_dir(trees.dest().join("g")).unwrap();
    std::os::unix::fs::chown(trees.dest().join("g"), None, Some(9)).unwrap();
    fs::set_permissions(trees.dest().join("g"), fs::Permissions::from_mode(0o2755)).unwrap();
    trees.copy(&action("/d/s", "/g/s")).unwrap();
    trees.copy(&action("/d/a", "/g/a")).unwrap();
    assert_eq!([owner("g/s"), owner("g/a")], [(0, 9), (5, 6)]);
}

#[test]
fn large_files_and_many_files_are_copied_whole() {
    let trees = Trees::new(&[], &[]);
    let large: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    fs::create_dir_all(trees.source().join("many")).unwrap();
    fs::write(trees.source().join("large"), &large).unwrap();
    for n in 0..600 {
        fs::write(trees.source().join(format!("many/{n}")), format!("{n}")).unwrap();
    }
    trees.copy(&action("/", "/")).unwrap();
    assert_eq!(fs::read(trees.dest().join("large")).unwrap(), large);
    for n in 0..600 {
        assert_eq!(
            fs::read_to_string(trees.dest().join(format!("many/{n}"))).unwrap(),
            format!("{n}")
        );
    }
}

#[test]
fn a_file_that_changes_between_its_digest_and_its_copy_is_an_error() {
    let trees = Trees::new(&["f 644 before"], &[]);
    let ignore = rbuild_solver::PatternMatcher::default();
    let tree = Arc::new(Tree::of_context(open(&trees.source()), ignore, None).unwrap());
    let selector =
        rbuild_solver::Selector { path: "/f".to_owned(), ..rbuild_solver::Selector::default() };
    tree.content_digest(&selector).unwrap();
    fs::write(trees.source().join("f"), "behind").unwrap();
    let root = open(&trees.dest());
    let below = Below::of_directories(&[root.as_fd()], OverlayXattrs::User).unwrap();
    let planned =
        plan::plan(&action("/f", "/x"), None, Arc::clone(&tree), &below).unwrap().unwrap();
    let mut archive = TarWriter::new(Vec::new(), None);
    let error = planned.write(Some(root.as_fd()), &mut archive).unwrap_err();
    assert!(matches!(error, DiffError::Source(TreeError::Changed { .. })), "{error}");
    let changes = Changes { owner: None, mode: &ModeChange::Keep, mtime: None };
    let layer = tempfile::tempdir().unwrap();
    let error = write::write(&planned, changes, &below, open(layer.path()).as_fd()).unwrap_err();
    assert!(matches!(error, FileError::Source(TreeError::Changed { .. })), "{error}");
    let error = copy::run(&action("/f", "/x"), None, &tree, Target::new(root.as_fd())).unwrap_err();
    assert!(matches!(error, FileError::Source(TreeError::Changed { .. })), "{error}");
}

/// An archive with a directory, a file and a link that leads out.
fn archive() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |name: &str, kind: tar::EntryType, content: &str| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(if kind.is_dir() { 0o750 } else { 0o640 });
        header.set_mtime(1_000_000_000);
        if kind.is_symlink() {
            header.set_size(0);
            builder.append_link(&mut header, name, content).unwrap();
        } else {
            builder.append_data(&mut header, name, content.as_bytes()).unwrap();
        }
    };
    add("dir/", tar::EntryType::Directory, "");
    add("dir/file", tar::EntryType::Regular, "content");
    add("out", tar::EntryType::Symlink, "/etc");
    builder.into_inner().unwrap()
}

#[test]
fn archives_are_known_by_their_content_and_unpacked() {
    let trees = Trees::new(&["plain.tar", "short.tar.gz"], &[]);
    fs::write(trees.source().join("data"), archive()).unwrap();
    fs::write(trees.source().join("bz"), b"BZh91AY&SY and so on").unwrap();
    fs::write(trees.source().join("broken"), [0x1f, 0x8b, 8, 0, 1, 2, 3]).unwrap();
    let unpacking = |src, dest| CopyAction { attempt_unpack: true, ..action(src, dest) };
    trees.copy(&unpacking("/data", "/x")).unwrap();
    trees.copy(&unpacking("/plain.tar", "/")).unwrap();
    trees.copy(&unpacking("/broken", "/")).unwrap();
    assert!(trees.dest().join("broken").exists());
    fs::remove_file(trees.dest().join("broken")).unwrap();
    assert_eq!(
        listing(&trees.dest()),
        ["plain.tar=plain.tar", "x/", "x/dir/ 750", "x/dir/file 640=content", "x/out -> /etc"]
    );
    assert_eq!(mtime(&trees, "x/dir/file"), 1_000_000_000_000_000_000);
    let timed = CopyAction { timestamp: Some(5), ..unpacking("/data", "/y/") };
    trees.copy(&timed).unwrap();
    assert_eq!(mtime(&trees, "y/dir/file"), 1_000_000_000_000_000_000);
    assert_eq!(fs::read_dir(trees.dest().join("y")).unwrap().count(), 2);
    trees.copy(&unpacking("/bz", "/z")).unwrap();
    assert_eq!(fs::read(trees.dest().join("z")).unwrap(), b"BZh91AY&SY and so on");
    trees.copy(&action("/data", "/not-unpacked")).unwrap();
    assert_eq!(fs::read(trees.dest().join("not-unpacked")).unwrap(), archive());
}

/// What a program makes of `input`.
fn piped(program: &str, input: &[u8]) -> Vec<u8> {
    use std::io::{Read as _, Write as _};
    use std::process::{Command, Stdio};
    let mut child = Command::new(program)
        .arg("-c")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let mut output = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut output).unwrap();
    assert!(child.wait().unwrap().success());
    output
}

#[test]
fn rule_33_archives_of_every_compression_are_unpacked_and_other_files_are_not() {
    for program in ["gzip", "bzip2", "xz", "zstd"] {
        let trees = Trees::new(&[], &[]);
        fs::write(trees.source().join("a"), piped(program, &archive())).unwrap();
        let text = piped(program, b"no archive");
        fs::write(trees.source().join("t"), &text).unwrap();
        let unpacking = |src, dest| CopyAction { attempt_unpack: true, ..action(src, dest) };
        trees.copy(&unpacking("/a", "/x")).unwrap();
        trees.copy(&unpacking("/t", "/t")).unwrap();
        assert_eq!(fs::read_to_string(trees.dest().join("x/dir/file")).unwrap(), "content");
        assert_eq!(fs::read(trees.dest().join("t")).unwrap(), text, "{program}");
    }
}

#[test]
fn rule_33_names_of_whiteouts_are_ordinary_in_archives_that_are_no_layers() {
    let mut builder = tar::Builder::new(Vec::new());
    for name in ["kept", ".wh.kept", ".wh..wh..opq", ".wh.", "d/.wh..wh.aufs"] {
        let mut header = tar::Header::new_ustar();
        header.set_size(1);
        header.set_mode(0o600);
        builder.append_data(&mut header, name, &b"x"[..]).unwrap();
    }
    let trees = Trees::new(&[], &["k"]);
    fs::write(trees.source().join("a"), builder.into_inner().unwrap()).unwrap();
    // Neither a mode nor a pattern has a say in what is in the archive.
    let unpacking = CopyAction {
        attempt_unpack: true,
        mode: Some(0o777),
        exclude_patterns: vec!["**/kept".to_owned()],
        ..action("/a", "/")
    };
    trees.copy(&unpacking).unwrap();
    assert_eq!(
        listing(&trees.dest()),
        [
            ".wh. 600=x",
            ".wh..wh..opq 600=x",
            ".wh.kept 600=x",
            "d/",
            "d/.wh..wh.aufs 600=x",
            "k=k",
            "kept 600=x"
        ]
    );
}

#[test]
fn privileged_a_directory_may_hand_on_its_group() {
    let trees = Trees::new(&[], &["shared/"]);
    let root = open(&trees.dest());
    let target = Target::new(root.as_fd());
    let shared = trees.dest().join("shared");
    std::os::unix::fs::chown(&shared, None, Some(9)).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o2775)).unwrap();
    let mkdir = |path: &str, owner| {
        let action = MkdirAction {
            path: path.into(),
            mode: 0o755,
            make_parents: true,
            owner: None,
            timestamp: None,
        };
        make::mkdir(&action, owner, target).unwrap();
        let found = fs::metadata(trees.dest().join(path.trim_start_matches('/'))).unwrap();
        (found.mode() & 0o7777, found.uid(), found.gid())
    };
    assert_eq!(mkdir("/shared/a/b", None), (0o2755, 0, 9));
    assert_eq!(mkdir("/shared/c", Some(Ownership { uid: 5, gid: 6 })), (0o2755, 5, 6));
    assert_eq!(mkdir("/d", None), (0o755, 0, 0));
}

#[test]
fn directories_files_and_links_are_made() {
    let trees = Trees::new(&[], &["real/", "l -> real", "old 600 x"]);
    let root = open(&trees.dest());
    let target = Target::new(root.as_fd());
    let owner = Ownership::default();
    let mkdir = |path: &str, make_parents| {
        let action = MkdirAction {
            path: path.into(),
            mode: 0o711,
            make_parents,
            owner: None,
            timestamp: Some(9),
        };
        make::mkdir(&action, None, target)
    };
    mkdir("/a/b", true).unwrap();
    mkdir("/l", true).unwrap();
    mkdir("/l/in", false).unwrap();
    assert!(matches!(mkdir("/old", false), Err(FileError::NoDirectory(_))));
    assert!(mkdir("/none/x", false).is_err());
    let mkfile = |path: &str| {
        let action = MkfileAction {
            path: path.into(),
            mode: 0o604,
            data: b"data".to_vec(),
            owner: None,
            timestamp: Some(9),
        };
        make::mkfile(&action, owner, target)
    };
    mkfile("/old").unwrap();
    mkfile("/l/new").unwrap();
    assert!(matches!(mkfile("/real"), Err(FileError::IsADirectory(_))));
    let link =
        SymlinkAction { target: "x".into(), path: "/a/s".into(), owner: None, timestamp: Some(9) };
    make::symlink(&link, owner, target).unwrap();
    assert!(make::symlink(&link, owner, target).is_err());
    assert_eq!(
        listing(&trees.dest()),
        [
            "a/ 711",
            "a/b/ 711",
            "a/s -> x",
            "l -> real",
            "old 604=data",
            "real/",
            "real/in/ 711",
            "real/new 604=data"
        ]
    );
    assert_eq!([mtime(&trees, "a/b"), mtime(&trees, "a/s"), mtime(&trees, "old")], [9; 3]);
}

#[test]
fn removing_takes_trees_links_and_patterns() {
    let trees = Trees::new(&[], &["a/b/c/d", "a/e", "x1/f", "x2", "y", "l -> y", "m -> a"]);
    let mut at = open(&trees.dest());
    for _ in 0..1200 {
        rustix::fs::mkdirat(&at, "deep", Mode::RWXU).unwrap();
        at = rustix::fs::openat(&at, "deep", OFlags::RDONLY, Mode::empty()).unwrap();
    }
    let root = open(&trees.dest());
    let remove = |path: &str, allow_not_found, allow_wildcard| {
        let action = RmAction { path: path.into(), allow_not_found, allow_wildcard };
        remove::run(&action, Target::new(root.as_fd()))
    };
    remove("/x*", false, true).unwrap();
    remove("/l", false, false).unwrap();
    remove("/m/b", false, false).unwrap();
    remove("/deep", false, false).unwrap();
    remove("/none", true, false).unwrap();
    remove("/none*", true, true).unwrap();
    let missing = remove("/none", false, false).unwrap_err();
    assert_eq!(missing.to_string(), "/none: no such file or directory");
    assert!(remove("/none*", false, true).is_err());
    assert!(matches!(remove("/", false, false), Err(FileError::Root(_))));
    assert_eq!(listing(&trees.dest()), ["a/", "a/e=a/e", "m -> a", "y=y"]);
}

#[test]
fn a_directory_that_is_copied_onto_another_gets_attributes_of_both() {
    let trees = Trees::new(&["d/sub/f"], &["x/sub/g", "x/other/h"]);
    let set = |path: PathBuf, name: &str, value: &str| {
        let flags = XattrFlags::empty();
        rustix::fs::setxattr(&path, name, value.as_bytes(), flags).unwrap();
    };
    set(trees.source().join("d/sub"), "user.both", "new");
    set(trees.source().join("d/sub"), "user.new", "new");
    set(trees.dest().join("x/sub"), "user.both", "old");
    set(trees.dest().join("x/sub"), "user.old", "old");
    set(trees.dest().join("x"), "user.parent", "old");
    trees.copy(&action("/d", "/x")).unwrap();
    let has = |name: &str| {
        let mut value = [0; 8];
        let length = rustix::fs::getxattr(trees.dest().join("x/sub"), name, &mut value).unwrap();
        String::from_utf8(value[..length].to_vec()).unwrap()
    };
    assert_eq!([has("user.both"), has("user.new"), has("user.old")], ["new", "new", "old"]);
}

#[test]
fn what_is_certain_is_planned() {
    let source = ["f", "d/", "d/x", "d/link -> x", "d/sub/", "d/sub/y", "d/sub-y"];
    let is_planned = |dest: &[&str], action: &CopyAction| {
        let trees = Trees::new(&source, dest);
        let tree = Arc::new(Tree::of_snapshot(open(&trees.source())).unwrap());
        let root = open(&trees.dest());
        let below = Below::of_directories(&[root.as_fd()], OverlayXattrs::User).unwrap();
        let is_planned = plan::plan(action, None, tree, &below).unwrap().is_some();
        // Compares.
        let copied = trees.copy(action);
        assert!(!is_planned || copied.is_ok());
        is_planned
    };
    for (dest, src, to) in [
        (&[][..], "/", "/"),
        (&[], "/", "/a/b"),
        (&[], "/f", "/a/b"),
        (&[], "/f", "/a/b/"),
        (&["a/"], "/f", "/a"),
        (&["a/f"], "/f", "/a/"),
        (&["a/f -> /none"], "/f", "/a/"),
        (&["a/", "b -> a"], "/d", "/b/c"),
        (&["a/sub/ 700", "a/x 4711 old", "a/link"], "/d", "/a"),
        (&["a/sub/", "a/sub/y 644 d/sub/y"], "/d", "/a"),
    ] {
        assert!(is_planned(dest, &action(src, to)), "{src} to {to} with {dest:?}");
    }
    for (dest, src, to) in [
        // What cannot be done is not put off.
        (&["a"][..], "/d", "/a"),
        (&["a"], "/f", "/a/"),
        (&["a"], "/f", "/a/b"),
        (&["a/f/"], "/f", "/a/"),
        (&["a/sub"], "/d", "/a"),
        (&["a/x/"], "/d", "/a"),
        (&["a -> a"], "/f", "/a/"),
        // What several sources come to shows when they are copied.
        (&[], "/*", "/a/"),
    ] {
        assert!(!is_planned(dest, &action(src, to)), "{src} to {to} with {dest:?}");
    }
    // A directory that hands on its group does so to those in it.
    let set_gid = CopyAction { mode: Some(0o2775), ..action("/d", "/a/b") };
    assert!(!is_planned(&[], &set_gid));
    assert!(is_planned(&["a/b/"], &set_gid));
    let long = format!("/{}", ["x".repeat(250).as_str(); 16].join("/"));
    assert!(is_planned(&[], &action("/f", &long)));
    let longer = format!("{long}/{}", "y".repeat(78));
    assert!(is_planned(&[], &action("/f", &longer)));
    assert!(!is_planned(&[], &action("/d", &longer)));
}

#[test]
fn access_control_lists_stay() {
    // `ACL_VERSION`, and entries for the owner, a group, its mask and others: acl(5), and the kernel's posix_acl_xattr.h.
    let entry = |tag: u16, mode: u16, id: u32| {
        [&tag.to_le_bytes()[..], &mode.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let none = u32::MAX;
    let entries = [(1, 7, none), (4, 5, none), (8, 7, 1234), (16, 7, none), (32, 0, none)];
    let entries = entries.map(|(tag, mode, id)| entry(tag, mode, id)).concat();
    let acl = [&2_u32.to_le_bytes()[..], &entries].concat();
    for (source, to) in [("/f", "/x/f"), ("/f", "/x/new/f"), ("/d", "/"), ("/d/x", "/x")] {
        let trees = Trees::new(&["f", "d/x/f"], &["x/old"]);
        for name in ["system.posix_acl_access", "system.posix_acl_default"] {
            let (path, flags) = (trees.dest().join("x"), XattrFlags::empty());
            rustix::fs::setxattr(&path, name, &acl, flags).unwrap();
        }
        let tree = Arc::new(Tree::of_snapshot(open(&trees.source())).unwrap());
        let root = open(&trees.dest());
        let below = Below::of_directories(&[root.as_fd()], OverlayXattrs::User).unwrap();
        let action = action(source, to);
        assert!(plan::plan(&action, None, tree, &below).unwrap().is_none(), "{source} to {to}");
        trees.copy(&action).unwrap();
    }
}
