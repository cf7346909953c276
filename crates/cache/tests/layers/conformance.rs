//! What every way of making a layer has to do: the same layer for the same step, and no harm to the layers below.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use rbuild_cache::OverlayXattrs;
use rbuild_solver::Snapshot;
use rustix::fs::XattrFlags;

use super::listing::listing;
use super::namespace::privileged;
use super::world::{World, path_of};

/// A step: shell commands in the root.
fn run(root: &str, script: &str) {
    let script = format!("set -e; cd {root}; {script}");
    // The root is a descriptor of this process.
    let script = script.replace("/proc/self/", &format!("/proc/{}/", std::process::id()));
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

const LOWER: &str = "umask 022
    mkdir -p d/sub e f/g/h empty perm; chmod 751 perm
    for n in a b c keep same; do echo $n > $n; echo d$n > d/$n; echo s$n > d/sub/$n; echo e$n > e/$n; done
    echo x > f/g/h/x; ln -s a link; ln -s nowhere dangling; mkfifo pipe
    echo first > l1; ln l1 l2
    touch -h -d @1000000000 $(find . -depth)";

const UPPER: &str = "umask 022; rm c; echo changed > b; ln -s b other; rm -r f/g
    echo z > d/z; touch -h -d @1100000000 b other d/z f d .";

/// Steps, each on top of [`LOWER`] and [`UPPER`]. Times are set, so that layers can be compared.
const STEPS: [&str; 22] = [
    "true",
    "echo new > n; mkdir -p m/o; echo p > m/o/p; touch -d @1200000000 n m/o/p",
    "rm a; rm d/b; rm -r e",
    "rm -r d; mkdir d; echo only > d/only; touch -d @1200000000 d/only",
    "rm -r d; echo file > d; touch -d @1200000000 d",
    "rm a; mkdir a; echo in > a/in; touch -d @1200000000 a/in",
    "mv d moved",
    "mv e t; mv d e; mv t d",
    "mv a t; mv b a; mv t b",
    "mv a t; mv t a",
    "ln a hard; ln d/a d/hard",
    "ln a hard; rm hard",
    "echo more >> l1; touch -d @1200000000 l1",
    "chmod 600 a; chmod 4755 d/a; chmod 700 perm; chmod 750 .",
    "chmod 600 a; chmod 644 a; chmod 700 d; chmod 755 d",
    "cp -p a t; echo A > a; touch -r t a; rm t",
    "rm link; ln -s b link; rm other; ln -s b other; touch -h -d @1200000000 link other",
    "touch d/tmp; rm d/tmp; mkdir d/dir; rmdir d/dir",
    "mkdir c; echo back > c/file; touch -d @1200000000 c/file",
    "rm pipe; echo text > pipe; mkfifo d/pipe; touch -d @1200000000 pipe d/pipe",
    "rm -r d/sub/*; rmdir empty; mkdir -p f/g/h; echo y > f/g/h/y; touch -d @1200000000 f/g/h/y",
    "rm -rf ./*; echo last > last; touch -d @1200000000 last",
];

/// The archive and the files of each step, made in one world.
fn outcomes(world: &World) -> Vec<(String, Vec<u8>)> {
    let base = world.layer(&Snapshot::default(), "lower", |root| run(root, LOWER));
    let base = world.layer(&base, "upper", |root| run(root, UPPER));
    let before = listing(&path_of(&world.view(&base)));
    let outcome = |(index, step): (usize, &&str)| {
        let after = world.layer(&base, &format!("step {index}"), |root| run(root, step));
        let files = listing(&path_of(&world.view(&after)));
        (files, world.diff(&after))
    };
    let outcomes = STEPS.iter().enumerate().map(outcome).collect();
    assert_eq!(listing(&path_of(&world.view(&base))), before, "a step changed its base");
    outcomes
}

/// Directories without the times that only the run tells.
fn entries(archive: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(archive);
    let entry = |entry: std::io::Result<tar::Entry<'_, _>>| {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
        let header = entry.header();
        let kind = header.entry_type();
        let is_whiteout = entry.path_bytes().windows(4).any(|part| part == b".wh.");
        let time = if kind.is_dir() || is_whiteout { 0 } else { header.mtime().unwrap() };
        format!(
            "{} {kind:?} {:o} {}:{} @{time} {:?} {}",
            String::from_utf8_lossy(&entry.path_bytes()),
            header.mode().unwrap(),
            header.uid().unwrap(),
            header.gid().unwrap(),
            entry.link_name_bytes().map(|name| String::from_utf8_lossy(&name).into_owned()),
            String::from_utf8_lossy(&content),
        )
    };
    archive.entries().unwrap().map(entry).collect()
}

#[test]
fn privileged_every_way_makes_the_same_layer() {
    privileged("layers::conformance::privileged_every_way_makes_the_same_layer", |xattrs| {
        let worlds = World::all(xattrs);
        let mut all = worlds.iter().map(outcomes);
        let expected = all.next().unwrap();
        for found in all {
            for (index, step) in STEPS.iter().enumerate() {
                let ((files, archive), (expected_files, expected)) =
                    (&found[index], &expected[index]);
                assert_eq!(entries(archive), entries(expected), "`{step}`");
                assert_eq!(files, expected_files, "`{step}`");
            }
        }
    });
}

#[test]
fn privileged_owners_and_attributes_are_changes() {
    privileged("layers::conformance::privileged_owners_and_attributes_are_changes", |xattrs| {
        let attribute = |path: String, name: &str, value: &[u8]| {
            rustix::fs::setxattr(path, name, value, XattrFlags::empty())
        };
        for world in World::all(xattrs) {
            let base = world.layer(&Snapshot::default(), "base", |root| {
                run(root, "mkdir d; echo a > a; echo b > b; echo c > d/c");
                attribute(format!("{root}/a"), "user.mine", b"1").unwrap();
                attribute(format!("{root}/d"), "user.mine", b"1").unwrap();
            });
            let after = world.layer(&base, "after", |root| {
                attribute(format!("{root}/a"), "user.mine", b"2").unwrap();
                attribute(format!("{root}/b"), "user.mine", b"3").unwrap();
                rustix::fs::removexattr(format!("{root}/d"), "user.mine").unwrap();
                if xattrs == OverlayXattrs::Trusted {
                    run(root, "chown 5:6 d/c");
                }
            });
            let archive = String::from_utf8_lossy(&world.diff(&after)).into_owned();
            assert!(archive.contains("SCHILY.xattr.user.mine=2"), "{archive}");
            assert!(archive.contains("SCHILY.xattr.user.mine=3"), "{archive}");
            assert!(!archive.contains("user.mine=1"), "{archive}");
            let view = world.view(&after);
            let root = path_of(&view);
            let mut value = [0; 8];
            let length = rustix::fs::getxattr(format!("{root}/a"), "user.mine", &mut value);
            assert_eq!(&value[..length.unwrap()], b"2");
            assert!(rustix::fs::getxattr(format!("{root}/d"), "user.mine", &mut value).is_err());
            if xattrs == OverlayXattrs::Trusted {
                let metadata = fs::metadata(format!("{root}/d/c")).unwrap();
                assert_eq!((metadata.uid(), metadata.gid()), (5, 6));
            }
        }
    });
}

#[test]
fn privileged_attributes_of_overlays_in_a_step_hide_nothing() {
    const NAME: &str =
        "layers::conformance::privileged_attributes_of_overlays_in_a_step_hide_nothing";
    privileged(NAME, |xattrs| {
        // Other kernels than the copy refuse or take it, but never mean it.
        let worlds = World::all(xattrs);
        let world = worlds.last().unwrap();
        let name = match xattrs {
            OverlayXattrs::Trusted => "trusted.overlay.opaque",
            OverlayXattrs::User => "user.overlay.opaque",
        };
        let base =
            world.layer(&Snapshot::default(), "base", |root| run(root, "mkdir d; echo a > d/a"));
        let after = world.layer(&base, "after", |root| {
            run(root, "echo b > d/b");
            let dir = format!("{root}/d");
            rustix::fs::setxattr(dir, name, b"y", XattrFlags::empty()).unwrap();
        });
        let view = world.view(&after);
        assert!(Path::new(&format!("{}/d/a", path_of(&view))).exists());
        // And what is made on top of it has it under its own name again.
        let again = world.layer(&after, "again", |root| {
            let mut value = [0; 4];
            let length = rustix::fs::getxattr(format!("{root}/d"), name, &mut value).unwrap();
            assert_eq!(&value[..length], b"y");
            run(root, "rm d/a");
        });
        let view = world.view(&again);
        assert!(!Path::new(&format!("{}/d/a", path_of(&view))).exists());
        assert!(Path::new(&format!("{}/d/b", path_of(&view))).exists());
    });
}

#[test]
fn privileged_ways_can_be_mixed_in_one_store() {
    privileged("layers::conformance::privileged_ways_can_be_mixed_in_one_store", |xattrs| {
        let world = World::new(xattrs);
        let base = world.layer(&Snapshot::default(), "lower", |root| run(root, LOWER));
        let base = world.layer(&base, "upper", |root| run(root, "rm -r d; mkdir d; rm a"));
        let world = world.copying();
        let expected = "b\nc\nd\n";
        let view = world.view(&base);
        let names = |root: &str| {
            let output = Command::new("sh").args(["-c", "cd $0; ls -d [a-d] d/*", root]).output();
            String::from_utf8(output.unwrap().stdout).unwrap()
        };
        let path = path_of(&view).replace("self", &std::process::id().to_string());
        assert_eq!(names(&path), expected);
        let after = world.layer(&base, "after", |root| {
            run(root, "rm b; chmod 700 d");
            symlink("x", format!("{root}/d/link")).unwrap();
        });
        let world = world.mounting();
        let view = world.view(&after);
        let root = path_of(&view);
        assert!(!Path::new(&format!("{root}/b")).exists());
        assert!(Path::new(&format!("{root}/c")).exists());
        assert_eq!(fs::read_link(format!("{root}/d/link")).unwrap(), Path::new("x"));
        let mode = fs::metadata(format!("{root}/d")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700);
    });
}
