//! Archives that nobody should believe.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rbuild_cache::{
    AppliedLayer, ApplyError, ApplyForm, ApplyOptions, ArchiveLimits, OverlayXattrs, TarWriter,
    apply, diff,
};
use rbuild_solver::Snapshot;

use super::archive::{Archive, names};
use super::listing::listing;
use super::namespace::privileged;
use super::world::{World, path_of};

/// A root to unpack into, beside something that must not be touched.
struct Root {
    dir: tempfile::TempDir,
    xattrs: OverlayXattrs,
}

impl Root {
    fn new(xattrs: OverlayXattrs) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/secret"), "secret").unwrap();
        Self { dir, xattrs }
    }

    fn path(&self, name: &str) -> String {
        format!("{}/root/{name}", self.dir.path().display())
    }

    fn apply(&self, archive: &[u8]) -> Result<AppliedLayer, ApplyError> {
        self.apply_limited(archive, ArchiveLimits::default())
    }

    /// Unpacks, and checks that nothing has happened outside.
    fn apply_limited(
        &self,
        archive: &[u8],
        limits: ArchiveLimits,
    ) -> Result<AppliedLayer, ApplyError> {
        let outside = format!("{}/outside", self.dir.path().display());
        let before = listing(&outside);
        let root = fs::File::open(self.path("")).unwrap();
        let options = ApplyOptions {
            form: ApplyForm::Layer(self.xattrs),
            ignore_chown_errors: false,
            owner: None,
            limits,
        };
        let applied = apply(archive, root.as_fd(), &options);
        assert_eq!(listing(&outside), before);
        assert_eq!(fs::read_dir(self.dir.path()).unwrap().count(), 2);
        applied
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }
}

fn each(name: &str, test: fn(OverlayXattrs)) {
    privileged(&format!("layers::hostile::{name}"), test);
}

fn error_of(xattrs: OverlayXattrs, archive: &[u8]) -> String {
    Root::new(xattrs).apply(archive).unwrap_err().to_string()
}

#[test]
fn privileged_names_stay_inside() {
    each("privileged_names_stay_inside", |xattrs| {
        let root = Root::new(xattrs);
        let archive = Archive::new()
            .file("../evil", "1")
            .file("/absolute", "2")
            .file("a/../../up", "3")
            .file("./../outside/secret", "4")
            .finish();
        let applied = root.apply(&archive).unwrap();
        assert_eq!(root.read("evil"), "1");
        assert_eq!(root.read("absolute"), "2");
        assert_eq!(root.read("up"), "3");
        assert_eq!(root.read("outside/secret"), "4");
        assert_eq!(applied.implicit_parents, [Path::new("outside")]);
    });
}

#[test]
fn privileged_what_is_called_as_a_deletion_is_not_written() {
    each("privileged_what_is_called_as_a_deletion_is_not_written", |xattrs| {
        let archive = Archive::new().dir("d").file("d/.wh.x/f", "1").finish();
        let root = Root::new(xattrs);
        root.apply(&archive).unwrap();
        let dir = fs::File::open(root.path("")).unwrap();
        let mut written = TarWriter::new(Vec::new(), None);
        let error = diff(dir.as_fd(), None, xattrs, &mut written).unwrap_err();
        assert!(error.to_string().contains("/.wh."), "{error}");
        assert!(error.to_string().contains("cannot be in an image"), "{error}");
    });
}

#[test]
fn privileged_bookkeeping_of_aufs_is_left_out_and_its_links_hold() {
    each("privileged_bookkeeping_of_aufs_is_left_out_and_its_links_hold", |xattrs| {
        let root = Root::new(xattrs);
        let archive = Archive::new()
            .dir(".wh..wh.plnk")
            .file(".wh..wh.plnk/101.7", "linked")
            .file(".wh..wh.plnk/102.7", "nobody's")
            .symlink(".wh..wh.plnk/103.7", "/etc/passwd")
            .file(".wh..wh.plnk/sub/104.7", "")
            .dir(".wh..wh.orph")
            .file(".wh..wh.orph/f", "")
            .file("d/.wh..wh.aufs/f", "")
            .dir("a")
            .hard_link("a/one", ".wh..wh.plnk/101.7")
            .hard_link("two", "/.wh..wh.plnk/101.7")
            .finish();
        let applied = root.apply(&archive).unwrap();
        assert!(!applied.needs_parents(), "{applied:?}");
        assert_eq!(listing(&root.path("")).lines().filter(|line| line.contains(".wh.")).count(), 0);
        assert_eq!((root.read("a/one").as_str(), root.read("two").as_str()), ("linked", "linked"));
        let links = |name: &str| fs::metadata(root.path(name)).unwrap().nlink();
        assert_eq!((links("a/one"), links("two")), (2, 2));
        assert_eq!(fs::read_dir(root.path("")).unwrap().count(), 2);

        let missing = Archive::new().hard_link("x", ".wh..wh.plnk/9.9").finish();
        assert!(
            Root::new(xattrs).apply(&missing).unwrap().needs_parents(),
            "and then it is an error"
        );
    });
}

#[test]
fn privileged_links_lead_no_further_than_the_root() {
    each("privileged_links_lead_no_further_than_the_root", |xattrs| {
        let root = Root::new(xattrs);
        let outside = format!("{}/outside", root.dir.path().display());
        let archive = Archive::new()
            .symlink("relative", "../outside")
            .file("relative/secret", "1")
            .symlink("up", "../../../..")
            .file("up/top", "2")
            .symlink("self", "/proc/self/root")
            .file("self/magic", "3")
            // The last component is replaced, not followed.
            .symlink("file", "../outside/secret")
            .file("file", "4")
            .symlink("directory", &outside)
            .dir("directory")
            .file("directory/secret", "5")
            .finish();
        root.apply(&archive).unwrap();
        assert_eq!(root.read("outside/secret"), "1");
        assert_eq!(root.read("top"), "2");
        assert_eq!(root.read("proc/self/root/magic"), "3");
        assert_eq!(root.read("file"), "4");
        assert_eq!(root.read("directory/secret"), "5");
        let archive = Archive::new().symlink("a", "b").symlink("b", "a").file("a/x", "").finish();
        let error = Root::new(xattrs).apply(&archive).unwrap_err();
        assert!(matches!(error, ApplyError::Entry { .. }), "{error:?}");
    });
}

#[test]
fn privileged_hard_links_reach_only_the_archive() {
    each("privileged_hard_links_reach_only_the_archive", |xattrs| {
        let root = Root::new(xattrs);
        let archive = Archive::new()
            .symlink("out", "../outside")
            .hard_link("a", "../outside/secret")
            .hard_link("b", "out/secret")
            .hard_link("c", "/etc/passwd")
            .symlink("link", "../outside/secret")
            .hard_link("link2", "link")
            .file("self", "x")
            .hard_link("self", "self")
            .finish();
        let applied = root.apply(&archive).unwrap();
        let left_out: Vec<_> =
            applied.outside_hardlinks.iter().map(|link| link.path.to_str().unwrap()).collect();
        assert_eq!(left_out, ["a", "b", "c"]);
        assert!(applied.needs_parents());
        assert!(fs::symlink_metadata(root.path("link2")).unwrap().is_symlink());
        assert_eq!(root.read("self"), "x");
        let to_directory = Archive::new().dir("d").hard_link("x", "d").finish();
        let message = "archive entry `x` is a hard link to `d`, which is a directory";
        assert_eq!(error_of(xattrs, &to_directory), message);
        let to_whiteout = Archive::new().file(".wh.w", "").hard_link("x", "w").finish();
        let message =
            "archive entry `x` is a hard link to `w`, which was deleted by this very layer";
        assert_eq!(error_of(xattrs, &to_whiteout), message);
    });
}

#[test]
fn privileged_whiteouts_of_nothing_are_refused() {
    each("privileged_whiteouts_of_nothing_are_refused", |xattrs| {
        for name in [".wh.", "a/.wh..", "a/.wh..."] {
            let error = error_of(xattrs, &Archive::new().file(name, "").finish());
            assert!(error.ends_with("has a bad name: it is a whiteout of nothing"), "{error}");
        }
        let root = Root::new(xattrs);
        root.apply(&Archive::new().file(".wh..wh.plnk", "").file(".wh..wh.x", "").finish())
            .unwrap();
        assert_eq!(fs::read_dir(root.path("")).unwrap().count(), 0);
        let root_as_file = Archive::new().file("./", "x").finish();
        assert_eq!(
            error_of(xattrs, &root_as_file),
            "archive entry `./` has a bad name: it is the root"
        );
        let nul = Archive::new().pax(&[("path", b"a\0b")]).file("x", "").finish();
        assert!(error_of(xattrs, &nul).ends_with("it holds a NUL"));
    });
}

#[test]
fn privileged_later_entries_replace_earlier_ones() {
    each("privileged_later_entries_replace_earlier_ones", |xattrs| {
        let world = World::new(xattrs);
        let below = world.layer(&Snapshot::default(), "below", |root| {
            for name in ["x", "y", "z"] {
                fs::create_dir(format!("{root}/{name}")).unwrap();
                fs::write(format!("{root}/{name}/below"), "").unwrap();
            }
            fs::write(format!("{root}/w"), "below").unwrap();
        });
        let archive = Archive::new()
            .file("twice", "1")
            .file("twice", "2")
            // A directory, a file, a directory: nothing from before the file shows.
            .dir("x")
            .file("x/early", "")
            .file("x", "")
            .dir("x")
            .file("x/late", "")
            // Deleted and made again, with a parent and without.
            .file(".wh.y", "")
            .dir("y")
            .file(".wh.z", "")
            .file("z/implicit", "")
            // Made and deleted.
            .file("w", "above")
            .file(".wh.w", "")
            .file("gone", "")
            .file(".wh.gone", "")
            .finish();
        let (side, applied) = world.apply(&below, "side", &archive).unwrap();
        let (top, _) = world.apply_merged(&below, "top", &archive).unwrap();
        assert_eq!(applied.implicit_parents, [Path::new("z")]);
        for snapshot in [&side, &top] {
            let view = world.view(snapshot);
            let shown: Vec<_> = listing(&path_of(&view))
                .lines()
                .map(|line| line.split(' ').next().unwrap().to_owned())
                .collect();
            assert_eq!(shown, ["/twice", "/x", "/x/late", "/y", "/z", "/z/implicit"]);
            assert_eq!(fs::read(format!("{}/twice", path_of(&view))).unwrap(), b"2");
        }
        // The archive of the one and of the other say the same.
        assert_eq!(names(&world.diff(&side)), names(&world.diff(&top)));
    });
}

#[test]
fn privileged_opaque_markers_spare_the_layer_itself() {
    each("privileged_opaque_markers_spare_the_layer_itself", |xattrs| {
        let world = World::new(xattrs);
        let below = world.layer(&Snapshot::default(), "below", |root| {
            for name in ["d", "e"] {
                fs::create_dir_all(format!("{root}/{name}/sub")).unwrap();
                fs::write(format!("{root}/{name}/below"), "").unwrap();
                fs::write(format!("{root}/{name}/sub/below"), "").unwrap();
            }
        });
        let archive = Archive::new()
            .dir("d")
            .file("d/before", "")
            .file("d/.wh..wh..opq", "")
            .file("d/after", "")
            .dir("e")
            .file("e/.wh..wh..opq", "")
            .dir("e/sub")
            .finish();
        let (side, applied) = world.apply(&below, "side", &archive).unwrap();
        assert!(!applied.needs_parents());
        let (top, _) = world.apply_merged(&below, "top", &archive).unwrap();
        for snapshot in [&side, &top] {
            let shown = listing(&path_of(&world.view(snapshot)));
            let shown: Vec<_> = shown.lines().map(|line| line.split(' ').next().unwrap()).collect();
            assert_eq!(shown, ["/d", "/d/after", "/d/before", "/e", "/e/sub"]);
        }
        // overlayfs has no opaque root: the archive has to be applied on top of what it hides.
        let archive = Archive::new().file(".wh..wh..opq", "").file("only", "").finish();
        let (_, applied) = world.apply(&below, "root side", &archive).unwrap();
        assert!(applied.opaque_root && applied.needs_parents());
        let (top, _) = world.apply_merged(&below, "root top", &archive).unwrap();
        assert!(listing(&path_of(&world.view(&top))).starts_with("/only "));
        assert_eq!(names(&world.diff(&top)), [".wh.d", ".wh.e", "only"]);
    });
}

#[test]
fn privileged_archives_without_parents_are_found_out() {
    each("privileged_archives_without_parents_are_found_out", |xattrs| {
        let world = World::new(xattrs);
        let below = world.layer(&Snapshot::default(), "below", |root| {
            use std::os::unix::fs::PermissionsExt;
            fs::create_dir_all(format!("{root}/usr/lib")).unwrap();
            fs::set_permissions(format!("{root}/usr"), fs::Permissions::from_mode(0o700)).unwrap();
            std::os::unix::fs::symlink("usr/lib", format!("{root}/lib")).unwrap();
            fs::write(format!("{root}/usr/file"), "below").unwrap();
        });
        let archive = Archive::new()
            .file("lib/a.so", "a")
            .file("usr/bin/b", "b")
            .hard_link("usr/file2", "usr/file")
            .finish();
        let (_, applied) = world.apply(&below, "side", &archive).unwrap();
        assert!(applied.needs_parents());
        assert_eq!(applied.implicit_parents, ["lib", "usr", "usr/bin"].map(Path::new));
        let (top, _) = world.apply_merged(&below, "top", &archive).unwrap();
        let view = world.view(&top);
        let root = path_of(&view);
        assert_eq!(fs::read(format!("{root}/usr/lib/a.so")).unwrap(), b"a");
        assert!(fs::symlink_metadata(format!("{root}/lib")).unwrap().is_symlink());
        assert_eq!(fs::metadata(format!("{root}/usr")).unwrap().mode() & 0o7777, 0o700);
        let inode = |name: &str| fs::metadata(format!("{root}/usr/{name}")).unwrap().ino();
        assert_eq!(inode("file"), inode("file2"));
        let missing = Archive::new().hard_link("a", "nowhere").finish();
        let error = world.apply_merged(&below, "missing", &missing).unwrap_err();
        let message = "archive entry `a` is a hard link to `nowhere`, which does not exist";
        assert_eq!(error.to_string(), message);
    });
}

#[test]
fn privileged_overlay_attributes_of_an_image_have_no_effect() {
    each("privileged_overlay_attributes_of_an_image_have_no_effect", |xattrs| {
        let world = World::new(xattrs);
        let below = world.layer(&Snapshot::default(), "below", |root| {
            fs::create_dir(format!("{root}/d")).unwrap();
            fs::write(format!("{root}/d/below"), "").unwrap();
        });
        let prefix = if xattrs == OverlayXattrs::User { "user" } else { "trusted" };
        let record = format!("SCHILY.xattr.{prefix}.overlay.opaque");
        let redirect = format!("SCHILY.xattr.{prefix}.overlay.redirect");
        let archive = Archive::new()
            .pax(&[(&record, b"y"), (&redirect, b"/etc")])
            .dir("d")
            .file("d/above", "")
            .finish();
        let (snapshot, applied) = world.apply(&below, "above", &archive).unwrap();
        assert_eq!(applied.skipped_xattrs, 0);
        let view = world.view(&snapshot);
        assert_eq!(fs::read_dir(format!("{}/d", path_of(&view))).unwrap().count(), 2);
        // And they are in the archive again.
        let archive = world.diff(&snapshot);
        let text = String::from_utf8_lossy(&archive);
        assert!(
            text.contains(&format!("{record}=y\n")) && text.contains(&format!("{redirect}=/etc\n"))
        );
    });
}

#[test]
fn privileged_devices_are_made_or_counted() {
    each("privileged_devices_are_made_or_counted", |xattrs| {
        let root = Root::new(xattrs);
        let device = |header: &mut tar::Header| {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        };
        let zero = |header: &mut tar::Header| {
            header.set_device_major(0).unwrap();
            header.set_device_minor(0).unwrap();
        };
        let archive = Archive::new()
            .with(b'3', "null", "", b"", device)
            .with(b'4', "block", "", b"", device)
            .with(b'3', "whiteout", "", b"", zero)
            .raw(b'6', "pipe", "", b"")
            .finish();
        let applied = root.apply(&archive).unwrap();
        assert!(fs::symlink_metadata(root.path("whiteout")).is_err());
        assert!(fs::symlink_metadata(root.path("pipe")).unwrap().file_type().is_fifo());
        match xattrs {
            OverlayXattrs::User => assert_eq!(applied.skipped_devices, 3),
            OverlayXattrs::Trusted => {
                assert_eq!(applied.skipped_devices, 1);
                let null = fs::symlink_metadata(root.path("null")).unwrap();
                assert_eq!((null.rdev(), null.mode() & 0o7777), (rustix::fs::makedev(1, 3), 0o755));
            }
        }
    });
}

#[test]
fn privileged_unknown_owners_are_an_error_or_ignored() {
    each("privileged_unknown_owners_are_an_error_or_ignored", |xattrs| {
        let archive =
            Archive::new().with(b'0', "a", "", b"x", |header| header.set_uid(12345)).finish();
        let root = Root::new(xattrs);
        let applied = root.apply(&archive);
        if xattrs == OverlayXattrs::Trusted {
            applied.unwrap();
            assert_eq!(fs::metadata(root.path("a")).unwrap().uid(), 12345);
            return;
        }
        let error = applied.unwrap_err().to_string();
        assert!(
            error.starts_with("archive entry `a` belongs to 12345:0, which this user namespace")
        );
        let dir = fs::File::open(root.path("")).unwrap();
        let options = ApplyOptions {
            form: ApplyForm::Layer(xattrs),
            ignore_chown_errors: true,
            owner: None,
            limits: ArchiveLimits::default(),
        };
        let applied = apply(archive.as_slice(), std::os::fd::AsFd::as_fd(&dir), &options).unwrap();
        assert_eq!(applied.skipped_owners, 1);
        assert_eq!(root.read("a"), "x");
    });
}

#[test]
fn privileged_bombs_meet_a_limit() {
    each("privileged_bombs_meet_a_limit", |xattrs| {
        let limits = ArchiveLimits { entries: 3, bytes: 20_000, header_bytes: 1000 };
        let check = |archive: Vec<u8>, message: &str| {
            let error = Root::new(xattrs).apply_limited(&archive, limits).unwrap_err();
            assert_eq!(error.to_string(), message);
        };
        let many = (0..4).fold(Archive::new(), |archive, i| archive.dir(&i.to_string()));
        check(many.finish(), "the archive has more than 3 entries");
        check(
            Archive::new().file("a", &"x".repeat(30_000)).finish(),
            "the archive has more than 20000 bytes",
        );
        check(
            Archive::new().pax(&[("comment", &[b'x'; 2000])]).file("a", "").finish(),
            "the archive has more than 1000 bytes in a header",
        );
        check(
            Archive::new().raw(b'L', "long", "", &[b'x'; 2000]).file("a", "").finish(),
            "the archive has more than 1000 bytes in a header",
        );
        // Headers that announce what never comes.
        check(
            Archive::new().with(b'x', "a", "", b"", |header| header.set_size(1 << 40)).finish(),
            "the archive has more than 1000 bytes in a header",
        );
        let hole = [
            ("GNU.sparse.major", &b"0"[..]),
            ("GNU.sparse.map", b"0,1"),
            ("GNU.sparse.size", b"1000000000000"),
        ];
        check(
            Archive::new().pax(&hole).file("a", "x").finish(),
            "the archive has more than 20000 bytes",
        );
        // Zeros after the end are read too.
        let mut trailing = Archive::new().finish();
        trailing.resize(200_000, 0);
        check(trailing, "the archive has more than 20000 bytes");
    });
}

#[test]
fn privileged_broken_archives_are_errors() {
    each("privileged_broken_archives_are_errors", |xattrs| {
        let whole = Archive::new()
            .pax(&[("path", b"long")])
            .file("a", &"x".repeat(1000))
            .dir("d")
            .symlink("d/l", "t")
            .unfinished();
        for length in (0..whole.len()).step_by(64).flat_map(|length| [length, length + 1]) {
            let applied = Root::new(xattrs).apply(&whole[..length]);
            // It may end between two entries; some tools write no end at all.
            let complete = [0, 2560, 3072].contains(&length);
            assert_eq!(applied.is_ok(), complete, "{length} of {} bytes: {applied:?}", whole.len());
        }
        Root::new(xattrs).apply(&whole).unwrap();
        let check = |archive: Vec<u8>, message: &str| {
            assert_eq!(error_of(xattrs, &archive), message);
        };
        check(vec![b'x'; 1024], "the archive is malformed at byte 512: not a tar header");
        let mut checksum = Archive::new().dir("a").finish();
        checksum[0] = b'b';
        check(checksum, "the archive is malformed at byte 512: not a tar header");
        check(
            Archive::new().with(b'0', "a", "", b"", |header| header.set_size(5000)).finish(),
            "the archive is cut off after 1536 bytes",
        );
        let negative = |header: &mut tar::Header| header.as_old_mut().size = [0xff; 12];
        check(
            Archive::new().with(b'0', "a", "", b"", negative).finish(),
            "the archive is malformed at byte 512: bad size",
        );
        check(
            Archive::new().raw(b'V', "a", "", b"").finish(),
            "archive entry `a` has the unsupported type `V`",
        );
        check(
            Archive::new().pax(&[("uid", b"4294967295")]).file("a", "").finish(),
            "the archive is malformed at byte 1024: uid out of range",
        );
        check(
            Archive::new().raw(b'x', "a", "", b"999 path=b\n").file("a", "").finish(),
            "the archive is malformed at byte 1024: bad PAX record",
        );
        check(
            Archive::new().pax(&[("path", b"a")]).finish(),
            "the archive is malformed at byte 2048: the archive ends after an extended header",
        );
        let overlapping = [("GNU.sparse.map", &b"0,2,1,2"[..]), ("GNU.sparse.size", b"9")];
        check(
            Archive::new().pax(&overlapping).file("a", "xxxx").finish(),
            "the archive is malformed at byte 1536: the parts of a sparse file overlap",
        );
        // What cannot have data has none, whatever it says: the next header is right behind.
        let root = Root::new(xattrs);
        let big = |header: &mut tar::Header| header.set_size(1 << 30);
        root.apply(&Archive::new().with(b'5', "d", "", b"", big).file("d/f", "x").finish())
            .unwrap();
        assert_eq!(root.read("d/f"), "x");
    });
}

#[test]
fn privileged_attributes_arrive() {
    each("privileged_attributes_arrive", |xattrs| {
        let root = Root::new(xattrs);
        let mode = |mode| move |header: &mut tar::Header| header.set_mode(mode);
        let archive = Archive::new()
            .with(b'5', "closed", "", b"", mode(0o000))
            .file("closed/file", "x")
            .with(b'5', "group", "", b"", mode(0o2755))
            .with(b'0', "group/setuid", "", b"x", mode(0o4711))
            .pax(&[("mtime", b"-1.25"), ("SCHILY.xattr.user.a", b"\xff\0=\n")])
            .file("file", "")
            .pax(&[("SCHILY.xattr.security.selinux", b"label"), ("mtime", b"10000000000.5")])
            .file("late", "")
            .finish();
        let applied = root.apply(&archive).unwrap();
        assert_eq!(applied.entries, 6);
        assert_eq!(applied.bytes, archive.len() as u64);
        assert_eq!((applied.skipped_xattrs, applied.needs_parents()), (0, false));
        let metadata = |name: &str| fs::symlink_metadata(root.path(name)).unwrap();
        assert_eq!(metadata("closed").mode() & 0o7777, 0);
        assert_eq!(metadata("closed").mtime(), 1000);
        assert_eq!(metadata("group").mode() & 0o7777, 0o2755);
        assert_eq!(metadata("group/setuid").mode() & 0o7777, 0o4711);
        assert_eq!((metadata("file").mtime(), metadata("file").mtime_nsec()), (-2, 750_000_000));
        assert_eq!(
            (metadata("late").mtime(), metadata("late").mtime_nsec()),
            (10_000_000_000, 500_000_000)
        );
        assert!(listing(&root.path("")).contains("user.a=\\xff\\x00=\\n"));
    });
}
