//! Overlay mounts, views and active layers.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use rbuild_cache::{MAX_LAYERS, OverlayError, View};
use rbuild_solver::Snapshot;

use super::archive::names;
use super::namespace::privileged;
use super::world::{World, path_of};

#[test]
fn privileged_views_of_no_one_and_many_layers() {
    privileged("layers::overlay::privileged_views_of_no_one_and_many_layers", |xattrs| {
        for world in World::both(xattrs) {
            let none = Snapshot::default();
            assert_eq!(fs::read_dir(path_of(&world.view(&none))).unwrap().count(), 0);
            let one = world.layer(&none, "one", |root| {
                fs::write(format!("{root}/a"), "one").unwrap();
                fs::write(format!("{root}/gone"), "one").unwrap();
                fs::set_permissions(root, fs::Permissions::from_mode(0o750)).unwrap();
            });
            let two = world.layer(&one, "two", |root| {
                fs::write(format!("{root}/b"), "two").unwrap();
                fs::remove_file(format!("{root}/gone")).unwrap();
            });
            let view = world.view(&two);
            let root = path_of(&view);
            assert_eq!(fs::read(format!("{root}/a")).unwrap(), b"one");
            assert_eq!(fs::read(format!("{root}/b")).unwrap(), b"two");
            assert!(!Path::new(&format!("{root}/gone")).exists());
            // The root of the merged tree is that of the topmost layer, which was made to look like the one below.
            assert_eq!(fs::metadata(format!("{root}/.")).unwrap().mode() & 0o7777, 0o750);
            // A view cannot be written to, not even that of one layer.
            for snapshot in [&one, &two] {
                let view = world.view(snapshot);
                let error = fs::write(format!("{}/a", path_of(&view)), "").unwrap_err();
                assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::ROFS.raw_os_error()));
            }
            // A whiteout is no file, though the layer is alone.
            let top = Snapshot::new(vec![two.layers()[1]]);
            let view = world.view(&top);
            assert!(fs::symlink_metadata(format!("{}/gone", path_of(&view))).is_err());
        }
    });
}

#[test]
fn privileged_nothing_is_mounted_where_others_see_it() {
    privileged("layers::overlay::privileged_nothing_is_mounted_where_others_see_it", |xattrs| {
        for world in World::both(xattrs) {
            let one = world.layer(&Snapshot::default(), "one", |root| {
                fs::write(format!("{root}/a"), "").unwrap();
            });
            let before = fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
            let view = world.view(&one);
            world.layer(&one, "two", |root| {
                fs::write(format!("{root}/b"), "").unwrap();
                assert_eq!(
                    fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count(),
                    before
                );
            });
            drop(view);
        }
    });
}

#[test]
fn privileged_more_layers_than_one_overlay_takes() {
    privileged("layers::overlay::privileged_more_layers_than_one_overlay_takes", |xattrs| {
        for world in World::both(xattrs) {
            let mut directories = Vec::new();
            for i in 0..=MAX_LAYERS {
                let pending = world.layers.begin().unwrap();
                fs::write(pending.path().join(format!("file{i}")), "").unwrap();
                fs::write(pending.path().join("last"), i.to_string()).unwrap();
                let id = rbuild_solver::LayerId::derived("layer", &[i.to_string().as_bytes()]);
                pending.commit(&id).unwrap();
                directories.push(id);
            }
            for count in [500, 501, MAX_LAYERS] {
                let snapshot = Snapshot::new(directories[..count].to_vec());
                let view = world.view(&snapshot);
                assert_eq!(fs::read_dir(path_of(&view)).unwrap().count(), count + 1);
                assert_eq!(
                    fs::read_to_string(format!("{}/last", path_of(&view))).unwrap(),
                    (count - 1).to_string()
                );
                let more = world.layer(&snapshot, &format!("on {count}"), |root| {
                    fs::remove_file(format!("{root}/file0")).unwrap();
                });
                assert_eq!(
                    names(&world.diff_on(more.layers().last().unwrap(), Some(&view))),
                    [".wh.file0"]
                );
            }
            let error =
                View::open(&world.overlay, &world.layers, &Snapshot::new(directories)).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!(
                    "cannot merge {} layers; the kernel takes at most {MAX_LAYERS}",
                    MAX_LAYERS + 1
                )
            );
        }
    });
}

#[test]
fn privileged_a_file_system_that_refuses_is_named() {
    privileged("layers::overlay::privileged_a_file_system_that_refuses_is_named", |xattrs| {
        for world in World::both(xattrs) {
            // procfs cannot hold an upper directory.
            let proc = fs::File::open("/proc").unwrap();
            let lower = fs::File::open("/usr").unwrap();
            let upper = rbuild_cache::Upper { dir: proc.as_fd(), work: proc.as_fd() };
            let error = world.overlay.mount(&[lower.as_fd()], Some(upper)).unwrap_err();
            assert!(matches!(error, OverlayError::Refused { .. }), "{error:?}");
            assert!(error.to_string().contains("the store must be on a file system"), "{error}");
        }
    });
}

fn build(root: &str) {
    fs::create_dir_all(format!("{root}/etc/deep")).unwrap();
    fs::create_dir(format!("{root}/cleared")).unwrap();
    for name in ["etc/a", "etc/b", "etc/deep/c", "etc/unchanged", "cleared/x", "cleared/y", "moved"]
    {
        fs::write(format!("{root}/{name}"), name).unwrap();
    }
    fs::hard_link(format!("{root}/etc/a"), format!("{root}/etc/a2")).unwrap();
    symlink("etc", format!("{root}/link")).unwrap();
}

#[test]
fn privileged_an_archive_holds_what_changed() {
    privileged("layers::overlay::privileged_an_archive_holds_what_changed", |xattrs| {
        for world in World::both(xattrs) {
            let base = world.layer(&Snapshot::default(), "base", build);
            assert_eq!(
                names(&world.diff(&base)),
                [
                    "cleared/",
                    "cleared/x",
                    "cleared/y",
                    "etc/",
                    "etc/a",
                    "etc/a2 -> etc/a",
                    "etc/b",
                    "etc/deep/",
                    "etc/deep/c",
                    "etc/unchanged",
                    "link -> etc",
                    "moved",
                ]
            );
            let mut number = 0;
            let mut check = |change: &dyn Fn(&str), expected: &[&str]| {
                number += 1;
                let snapshot = world.layer(&base, &format!("change {number}"), |root| change(root));
                assert_eq!(names(&world.diff(&snapshot)), expected, "change {number}");
            };
            check(&|_| {}, &[]);
            // A deletion, with the parents of the name.
            check(
                &|root| fs::remove_file(format!("{root}/etc/deep/c")).unwrap(),
                &["etc/", "etc/deep/", "etc/deep/.wh.c"],
            );
            check(&|root| fs::remove_dir_all(format!("{root}/etc")).unwrap(), &[".wh.etc"]);
            // Made and deleted again.
            check(
                &|root| {
                    fs::write(format!("{root}/new"), "").unwrap();
                    fs::remove_file(format!("{root}/new")).unwrap();
                },
                &[],
            );
            // An opaque directory is enumerated, in order with what it holds.
            check(
                &|root| {
                    fs::remove_dir_all(format!("{root}/cleared")).unwrap();
                    fs::create_dir(format!("{root}/cleared")).unwrap();
                    fs::write(format!("{root}/cleared/xx"), "").unwrap();
                },
                &["cleared/", "cleared/.wh.x", "cleared/xx", "cleared/.wh.y"],
            );
            // A new directory needs no such thing.
            check(&|root| fs::create_dir(format!("{root}/fresh")).unwrap(), &["fresh/"]);
            // A directory becomes a file, a file a directory.
            check(
                &|root| {
                    fs::remove_dir_all(format!("{root}/cleared")).unwrap();
                    fs::write(format!("{root}/cleared"), "").unwrap();
                    fs::remove_file(format!("{root}/moved")).unwrap();
                    fs::create_dir(format!("{root}/moved")).unwrap();
                },
                &["cleared", "moved/"],
            );
            // Copied up, and yet the same.
            check(
                &|root| {
                    std::os::unix::fs::chown(format!("{root}/etc/b"), Some(0), Some(0)).unwrap();
                    fs::rename(format!("{root}/moved"), format!("{root}/t")).unwrap();
                    fs::rename(format!("{root}/t"), format!("{root}/moved")).unwrap();
                },
                &[],
            );
            // The same size and time, but another content.
            check(
                &|root| {
                    let path = format!("{root}/etc/b");
                    let time = fs::metadata(&path).unwrap().modified().unwrap();
                    fs::write(&path, "etc/B").unwrap();
                    fs::File::options()
                        .write(true)
                        .open(&path)
                        .unwrap()
                        .set_modified(time)
                        .unwrap();
                },
                &["etc/", "etc/b"],
            );
            // A new name of an old file brings the file along.
            check(
                &|root| {
                    fs::hard_link(format!("{root}/etc/unchanged"), format!("{root}/z")).unwrap();
                },
                &["etc/", "etc/unchanged", "z -> etc/unchanged"],
            );
            // Deletions are hard links of one device to each other, but not in the archive.
            check(
                &|root| {
                    fs::remove_file(format!("{root}/etc/a")).unwrap();
                    fs::remove_file(format!("{root}/etc/b")).unwrap();
                },
                &["etc/", "etc/.wh.a", "etc/.wh.b"],
            );
            check(
                &|root| fs::set_permissions(root, fs::Permissions::from_mode(0o700)).unwrap(),
                &["./"],
            );
            check(
                &|root| {
                    fs::set_permissions(format!("{root}/etc"), fs::Permissions::from_mode(0o700))
                        .unwrap();
                },
                &["etc/"],
            );
            check(
                &|root| {
                    drop(std::os::unix::net::UnixListener::bind(format!("{root}/socket")).unwrap());
                },
                &[],
            );
        }
    });
}
