//! apply(diff(tree)) == tree.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rbuild_cache::{OverlayXattrs, TarWriter, write_tree};
use rbuild_solver::Snapshot;
use rustix::fs::{CWD, FileType, Mode, XattrFlags};
use rustix::process::{Resource, Rlimit, setrlimit};

use super::archive;
use super::listing::{listing, without_links};
use super::namespace::privileged;
use super::world::{World, path_of};

#[test]
fn privileged_a_tree_survives_its_archives() {
    privileged("layers::round_trip::privileged_a_tree_survives_its_archives", |xattrs| {
        let world = World::new(xattrs);
        let number = std::cell::Cell::new(0);
        let strategy = (
            prop::collection::vec(change(), 0..40),
            prop::collection::vec(change(), 0..40),
            prop::collection::vec(change(), 0..20),
        );
        let mut runner =
            TestRunner::new(Config { cases: 24, failure_persistence: None, ..Config::default() });
        let result = runner.run(&strategy, |steps| {
            number.set(number.get() + 1);
            check(&world, number.get(), &[steps.0, steps.1, steps.2]);
            Ok(())
        });
        result.unwrap();
    });
}

#[test]
fn privileged_trees_deeper_than_the_limit_of_descriptors_survive() {
    privileged(
        "layers::round_trip::privileged_trees_deeper_than_the_limit_of_descriptors_survive",
        |xattrs| {
            const DEPTH: usize = 300;
            // In a user namespace this process runs no other test.
            if xattrs == OverlayXattrs::User {
                let few = Some(100);
                let limit = Rlimit { current: few, maximum: few };
                setrlimit(Resource::Nofile, limit).unwrap();
            }
            let world = World::new(xattrs);
            let path = |root: &str, depth| format!("{root}{}", "/d".repeat(depth));
            let lower = world.layer(&Snapshot::default(), "lower", |root| {
                fs::create_dir_all(path(root, DEPTH)).unwrap();
                fs::write(format!("{}/f", path(root, DEPTH)), "lower").unwrap();
                fs::write(format!("{root}/z"), "lower").unwrap();
            });
            // Deeper than what is below, a change on the way back, and one at the top.
            let upper = world.layer(&lower, "upper", |root| {
                fs::create_dir_all(path(root, 2 * DEPTH)).unwrap();
                fs::remove_file(format!("{}/f", path(root, DEPTH))).unwrap();
                fs::write(format!("{}/f", path(root, DEPTH / 2)), "upper").unwrap();
                fs::remove_file(format!("{root}/z")).unwrap();
            });
            let mut copy = Snapshot::default();
            for (name, snapshot) in [("lower copy", &lower), ("upper copy", &upper)] {
                (copy, _) = world.apply(&copy, name, &world.diff(snapshot)).unwrap();
                let shown = |snapshot| {
                    let view = world.view(snapshot);
                    let mut whole = TarWriter::new(Vec::new(), None);
                    write_tree(view.root(), "", &mut whole).unwrap();
                    whole.finish().unwrap()
                };
                assert!(shown(snapshot) == shown(&copy), "{name}");
            }
            let names = archive::names(&world.diff(&upper));
            let expected = [
                path("", DEPTH / 2)[1..].to_owned() + "/f",
                path("", DEPTH)[1..].to_owned() + "/.wh.f",
                ".wh.z".to_owned(),
            ];
            assert!(expected.iter().all(|name| names.contains(name)), "{names:?}");
        },
    );
}

/// Makes a layer of each list of changes, and images of them in two other ways.
fn check(world: &World, number: u32, steps: &[Vec<Change>]) {
    let mut original = Snapshot::default();
    let mut side_by_side = Snapshot::default();
    let mut on_top = Snapshot::default();
    for (step, changes) in steps.iter().enumerate() {
        original = world.layer(&original, &format!("{number} {step} original"), |root| {
            changes.iter().for_each(|change| change.make(Path::new(root)));
        });
        let archive = world.diff(&original);
        let applied;
        (side_by_side, applied) =
            world.apply(&side_by_side, &format!("{number} {step} side"), &archive).unwrap();
        assert!(!applied.needs_parents(), "{applied:?}");
        (on_top, _) =
            world.apply_merged(&on_top, &format!("{number} {step} top"), &archive).unwrap();
        // A step that touches one of several names of a file below, and changes nothing, parts it from the
        // others. That is not worth a copy of the file in the archive, so from the second layer on links are
        // not compared.
        let shown = |snapshot| {
            let listing = listing(&path_of(&world.view(snapshot)));
            if step == 0 { listing } else { without_links(&listing) }
        };
        assert_eq!(shown(&side_by_side), shown(&original), "step {step}, side by side");
        assert_eq!(shown(&on_top), shown(&original), "step {step}, on top");
    }
    let view = world.view(&original);
    let mut whole = TarWriter::new(Vec::new(), None);
    write_tree(view.root(), "", &mut whole).unwrap();
    let (flat, _) = world
        .apply(&Snapshot::default(), &format!("{number} flat"), &whole.finish().unwrap())
        .unwrap();
    assert_eq!(listing(&path_of(&world.view(&flat))), listing(&path_of(&view)), "as one archive");
}

/// Something that a step does to a file; nothing happens where it cannot be done.
#[derive(Debug, Clone)]
struct Change {
    path: PathBuf,
    action: Action,
}

#[derive(Debug, Clone)]
enum Action {
    Write { length: usize, mtime: i64 },
    MakeDirectory,
    Clear,
    Remove,
    Symlink(PathBuf),
    HardLink(PathBuf),
    Rename(PathBuf),
    Mode(u32),
    Owner(u32, u32),
    Xattr(Vec<u8>),
    Pipe,
    Device,
}

fn name() -> impl Strategy<Value = OsString> {
    prop::sample::select(vec![
        b"a".to_vec(),
        b"b".to_vec(),
        b"c d".to_vec(),
        "\u{e9}".into(),
        vec![0xff, b'\n', 0xfe],
        vec![b'l'; 120],
        b".wh".to_vec(),
        b"...".to_vec(),
    ])
    .prop_map(OsString::from_vec)
}

fn path() -> impl Strategy<Value = PathBuf> {
    prop::collection::vec(name(), 1..4).prop_map(PathBuf::from_iter)
}

fn change() -> impl Strategy<Value = Change> {
    let action = prop_oneof![
        4 => (0..2000_usize, -1000..2_000_000_000_i64).prop_map(|(length, mtime)| Action::Write { length, mtime }),
        5 => Just(Action::MakeDirectory),
        2 => Just(Action::Clear),
        2 => Just(Action::Remove),
        1 => path().prop_map(Action::Symlink),
        3 => path().prop_map(Action::HardLink),
        1 => path().prop_map(Action::Rename),
        1 => (0..0o10000_u32).prop_map(Action::Mode),
        1 => (0..5_000_000_u32, 0..3_u32).prop_map(|(uid, gid)| Action::Owner(uid, gid)),
        1 => prop::collection::vec(any::<u8>(), 0..5).prop_map(Action::Xattr),
        1 => Just(Action::Pipe),
        1 => Just(Action::Device),
    ];
    (path(), action).prop_map(|(path, action)| Change { path, action })
}

impl Change {
    /// What cannot be done is not.
    fn make(&self, root: &Path) {
        let path = root.join(&self.path);
        let inside = path.strip_prefix(root).unwrap();
        // A link may lead out of the test's tree, and a test must not go there.
        let mut parents =
            inside.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty());
        if parents.any(|parent| root.join(parent).is_symlink()) {
            return;
        }
        let _ = self.try_make(root, &path);
    }

    fn try_make(&self, root: &Path, path: &Path) -> std::io::Result<()> {
        if path.is_symlink() && !matches!(self.action, Action::Remove | Action::HardLink(_)) {
            return lchown(path, Some(0), Some(0));
        }
        match &self.action {
            Action::Write { length, mtime } => {
                if fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
                    return Ok(());
                }
                fs::write(path, "content ".repeat(*length))?;
                let time = match u64::try_from(*mtime) {
                    Ok(after) => UNIX_EPOCH + Duration::from_secs(after),
                    Err(_) => UNIX_EPOCH - Duration::from_secs(mtime.unsigned_abs()),
                };
                fs::File::options().write(true).open(path)?.set_modified(time)
            }
            Action::MakeDirectory => fs::create_dir_all(path),
            Action::Clear => {
                fs::remove_dir_all(path)?;
                fs::create_dir(path)
            }
            Action::Remove => fs::remove_dir_all(path).or_else(|_| fs::remove_file(path)),
            Action::Symlink(target) => symlink(target, path),
            Action::HardLink(from) => fs::hard_link(root.join(from), path),
            Action::Rename(to) => fs::rename(path, root.join(to)),
            Action::Mode(mode) => fs::set_permissions(path, fs::Permissions::from_mode(*mode)),
            Action::Owner(uid, gid) => chown(path, Some(*uid), Some(*gid)),
            Action::Xattr(value) => {
                Ok(rustix::fs::setxattr(path, "user.test", value, XattrFlags::empty())?)
            }
            Action::Pipe => Ok(rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::RUSR, 0)?),
            Action::Device => {
                let null = rustix::fs::makedev(1, 3);
                Ok(rustix::fs::mknodat(CWD, path, FileType::CharacterDevice, Mode::RUSR, null)?)
            }
        }
    }
}
