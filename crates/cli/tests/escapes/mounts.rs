//! Sources and targets of mounts, stubs, caches, working directories and descriptors.

use std::fs;
use std::os::unix::fs::symlink;

use rbuild_testdata::{Entry, EntryKind, Layer, Layout, busybox_image};

use super::bait::{Bait, SECRET};
use crate::fixture::{Fixture, Ran, read};

pub(super) const NOTHING: [&str; 2] = ["-o", "type=cacheonly"];

/// Builds, and shows that the machine's files are untouched and in no file of the store or the output.
#[track_caller]
pub(super) fn harmless(fixture: &Fixture, bait: &Bait, args: &[&str]) -> Ran {
    let ran = fixture.build(args);
    bait.is_untouched(&ran, &[&fixture.path("store"), &fixture.path("out")]);
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
    ran
}

/// A fixture whose Dockerfile has `@` for the bait's path.
pub(super) fn attack(dockerfile: &str) -> (Fixture, Bait) {
    let fixture = Fixture::new();
    let bait = Bait::new(&fixture);
    fixture.write("Dockerfile", dockerfile.replace('@', &bait.path()));
    (fixture, bait)
}

/// An image of busybox and these entries on top, as the named context `hostile`.
fn hostile_image(fixture: &Fixture, entries: &[Entry]) -> String {
    let folder = fixture.path("hostile");
    let mut layout = Layout::create(&folder);
    layout.add(Some("latest"), &busybox_image().layer(Layer::new(entries)).publish());
    format!("hostile=oci-layout://{}:latest", folder.display())
}

/// Working directories behind links of the image, which were made, and given away, on the machine (podman).
#[test]
fn privileged_cve_2026_55686_working_directories_are_made_in_the_root() {
    for link in ["@/hollow", "../../../../../../../../../../..@/hollow", "@"] {
        for owner in ["root", "1000:1000"] {
            let (fixture, bait) = attack(&format!(
                "FROM busybox\nRUN ln -s {link} /w && ln -s /proc/self/root@ /magic\nUSER {owner}\n\
                 WORKDIR /w/made\nRUN touch here; pwd -P; true\n\
                 WORKDIR /w\nRUN touch there; true\n\
                 WORKDIR /magic/made\nRUN touch here\n"
            ));
            harmless(&fixture, &bait, &NOTHING);
        }
    }
}

/// A working directory, and a program, that are named by a descriptor which the runtime has left open.
#[test]
fn privileged_cve_2024_21626_descriptors_lead_nowhere() {
    // A cache mount makes the runtime hold a directory of the machine's.
    let (fixture, bait) = attack("FROM busybox\n");
    let up = "../".repeat(20);
    let path = bait.path();
    for descriptor in 3..14 {
        for dockerfile in [
            format!(
                "FROM busybox\nWORKDIR /proc/self/fd/{descriptor}\n\
                 RUN --mount=type=cache,target=/c cat {up}{path}/secret; echo x > {up}{path}/secret; true\n"
            ),
            format!(
                "FROM busybox\nRUN mkdir -p /proc/self && ln -s /proc/self/fd/{descriptor} /link\nWORKDIR /link\n\
                 RUN --mount=type=cache,target=/c cat {up}{path}/secret; echo x > {up}{path}/secret; true\n"
            ),
            format!(
                "FROM busybox\nRUN --mount=type=cache,target=/c [\"/proc/self/fd/{descriptor}/{up}{path}/../busybox/x\"]\n"
            ),
            format!(
                "FROM busybox\nRUN --mount=type=cache,target=/c [\"/proc/self/fd/{descriptor}/{up}bin/sh\", \"-c\", \"echo ran\"]\n"
            ),
        ] {
            fixture.write("Dockerfile", dockerfile);
            let ran = harmless(&fixture, &bait, &NOTHING);
            assert!(!ran.stderr.contains(" ran\n"), "{}", ran.stderr);
        }
    }
}

/// Descriptors of the build that a step inherits.
#[test]
fn privileged_cve_2024_21626_no_descriptor_is_inherited() {
    // Only with what the shell does itself: it is the step's program.
    let fixture = Fixture::with(
        "FROM busybox\n\
         RUN --mount=type=cache,target=/c --mount=target=/src --mount=type=tmpfs,target=/t --mount=type=secret,id=s \
             i=0; while test $i -lt 256; do test -e /proc/self/fd/$i && echo open $i; i=$((i+1)); done; test $$ = 2\n",
    );
    fixture.write("file", "");
    let ran = fixture.build(&["-o", "type=cacheonly", "--secret", "id=s,src=context/file"]).ok();
    let open: Vec<&str> = ran
        .stderr
        .lines()
        .filter_map(|line| line.split_once(" open "))
        .map(|(_, number)| number)
        .filter(|number| number.len() < 4)
        .collect();
    assert_eq!(open, ["0", "1", "2"], "{}", ran.stderr);
}

/// Two steps share a cache, and one exchanges what is in it for links while the other has parts of it mounted; also CVE-2024-45310 (runc), where the places
/// of those mounts were made at the other end of the link.
#[test]
fn privileged_cve_2024_23651_races_in_shared_caches() {
    let (fixture, bait) = attack(
        "FROM busybox AS swap\n\
         RUN --mount=type=cache,id=race,target=/c i=0; mkdir -p /c/a; while [ $i -lt 3000 ]; do \
             mv /c/a /c/b 2>/dev/null; ln -s @ /c/a 2>/dev/null; rm -f /c/a; mv /c/b /c/a 2>/dev/null; i=$((i+1)); done; touch /done\n\
         FROM busybox AS use\n\
         RUN --mount=type=cache,id=race,target=/c --mount=type=tmpfs,target=/c/a/x true; true\n\
         RUN --mount=type=cache,id=race,target=/c --mount=type=cache,id=other,source=a,target=/d cat /d/secret /c/a/secret; true\n\
         RUN --mount=type=cache,id=race,target=/c --mount=target=/c/a/y echo; true\n\
         FROM scratch\nCOPY --from=swap /done /\nCOPY --from=use /etc/passwd /\n",
    );
    harmless(&fixture, &bait, &NOTHING);
}

/// The cleaner of mount points follows a link that the step has put in the place of a directory.
#[test]
fn privileged_cve_2024_23652_stubs_are_removed_without_links() {
    for target in ["/x/y/empty", "/x/y/hollow"] {
        let kind = if target.ends_with("empty") { "source=file," } else { "" };
        let (fixture, bait) = attack(&format!(
            "FROM busybox\n\
             RUN --mount={kind}target={target} mv /x /z; mkdir /x; ln -s @ /x/y\n\
             RUN --mount={kind}target={target} mv /x/y /x/z; ln -s ../../../../../../../../..@ /x/y; true\n"
        ));
        fixture.write("file", "");
        harmless(&fixture, &bait, &NOTHING);
    }
    // A file of the layer's that was hidden by a mount is not taken for the stub that was made in the mount.
    let fixture = Fixture::with(
        "FROM busybox\nRUN mkdir /c && touch /c/stub\n\
         RUN --mount=type=cache,target=/c --mount=source=file,target=/c/stub true\n",
    );
    fixture.write("file", "");
    let out = fixture.build_files(&[]);
    assert_eq!(read(&out, "c/stub"), "");
}

/// A bind whose source, in another stage, is a link out of it (buildah).
#[test]
fn privileged_cve_2024_1753_sources_are_resolved_in_their_root() {
    let (fixture, bait) = attack(
        "FROM busybox AS hostile\n\
         RUN ln -s @ /link && ln -s / /root-link && mkdir /d && ln -s ../../../../../../../..@ /d/up && ln -s /proc/1/root /d/proc\n\
         FROM busybox\n\
         RUN --mount=type=bind,from=hostile,source=/root-link,target=/m,rw cat /m@/secret; echo x > /m@/secret; true\n",
    );
    harmless(&fixture, &bait, &NOTHING);
    for source in ["/link", "/d/up", "/d/proc", "link/secret", "../../../../../..@/secret"] {
        for kind in ["bind,rw", "cache", "cache,mode=0777"] {
            let (fixture, bait) = attack(&format!(
                "FROM busybox AS hostile\n\
                 RUN ln -s @ /link && mkdir /d && ln -s ../../../../../../../..@ /d/up && ln -s /proc/1/root /d/proc\n\
                 FROM busybox\n\
                 RUN --mount=type={kind},from=hostile,source={source},target=/m cat /m /m/secret /m@/secret; echo x > /m/secret; true\n"
            ));
            harmless(&fixture, &bait, &NOTHING);
        }
    }
}

/// The same for the context, which is mounted in place: links of the user's lead nowhere outside, and nothing can be written.
#[test]
fn privileged_cve_2024_1753_links_of_the_context() {
    for source in ["link", "up", "sub/../up", "proc", "../bait", "link/secret"] {
        let (fixture, bait) = attack(&format!(
            "FROM busybox\n\
             RUN --mount=source={source},target=/m cat /m /m/secret; true\n\
             RUN --mount=target=/m cat /m/link/secret /m/up/secret /m/proc/secret /m/../bait/secret; true\n"
        ));
        fixture.write("sub/file", "");
        symlink(bait.path(), fixture.context().join("link")).unwrap();
        symlink("../bait", fixture.context().join("up")).unwrap();
        symlink("/proc/self/cwd/../bait", fixture.context().join("proc")).unwrap();
        harmless(&fixture, &bait, &NOTHING);
    }
}

/// Options that make a mount of the machine's propagate, or give it another label (buildah).
#[test]
fn cve_2024_9407_mounts_have_no_other_options() {
    for option in
        ["bind-propagation=shared", "Z", "relabel=private", "idmap", "U", "rslave", "nodev"]
    {
        let fixture = Fixture::with(&format!(
            "FROM busybox\nRUN --mount=type=bind,{option},target=/m true\n"
        ));
        let refused = fixture.build(&NOTHING).fails(1);
        assert!(
            refused.contains("unexpected key") || refused.contains("must be a key=value pair"),
            "{refused}"
        );
    }
}

/// A cache whose name leads out of where caches are (buildah).
#[test]
fn privileged_cve_2024_9675_names_of_caches_are_no_paths() {
    for id in ["../../../../../../../..@", "@", "..", ".", "/", "a/../../../bait", "../../bait"] {
        let (fixture, bait) = attack(&format!(
            "FROM busybox\n\
             RUN --mount=type=cache,id={id},target=/c cat /c/secret; echo x > /c/secret; rm -f /c/empty; true\n"
        ));
        harmless(&fixture, &bait, &NOTHING);
        harmless(
            &fixture,
            &bait,
            &["-o", "type=cacheonly", "--build-arg", "BUILDKIT_CACHE_MOUNT_NS=../../bait"],
        );
        fixture.run(["prune", "--all"]).ok();
        bait.is_untouched(&fixture.run(["du", "-v"]).ok(), &[]);
    }
}

/// Stages that are built at the same time, one of which changes what the other mounts (buildah).
#[test]
fn privileged_cve_2024_11218_stages_that_are_mounted_do_not_change() {
    let (fixture, bait) = attack(
        "FROM busybox AS source\nRUN mkdir /d && echo fine > /d/secret\n\
         FROM busybox AS one\n\
         RUN --mount=from=source,source=/d,target=/m,rw i=0; while [ $i -lt 300 ]; do mv /m/secret /m/s2; ln -s @/secret /m/secret; rm /m/secret; mv /m/s2 /m/secret; i=$((i+1)); done; rm -r /m/*; true\n\
         FROM busybox AS two\n\
         RUN --mount=from=source,source=/d,target=/m cat /m/secret > /got\n\
         RUN --mount=from=source,source=/d/secret,target=/m cat /m >> /got\n\
         FROM scratch\nCOPY --from=two /got /\nCOPY --from=one /etc/passwd /\n",
    );
    let out = fixture.path("out");
    let spec = format!("type=local,dest={}", out.display());
    harmless(&fixture, &bait, &["-o", &spec]).ok();
    assert_eq!(read(&out, "got"), "fine\nfine\n");
}

/// Targets of mounts that are links to the machine's files, in the image or by the step before (runc).
#[test]
fn privileged_cve_2021_30465_targets_are_found_in_the_root() {
    let (fixture, bait) = attack(
        "FROM busybox\n\
         RUN ln -s @ /m && ln -s ../../../../../../../../../.. /up && ln -s /proc/1/root /proc-root && ln -s @/empty /etc/hosts2\n\
         RUN --mount=type=tmpfs,target=/m echo x > /m/secret\n\
         RUN --mount=type=cache,target=/up@ echo x > /up@/secret\n\
         RUN --mount=target=/m/new --mount=type=secret,id=s,target=/m/empty true\n\
         RUN rm -f /etc/resolv.conf; ln -s @/empty /etc/resolv.conf; true\nRUN true\n\
         RUN --mount=type=tmpfs,target=/proc-root/x true; true\n",
    );
    harmless(&fixture, &bait, &["-o", "type=cacheonly", "--secret", "id=s,src=context/Dockerfile"]);
}

/// `/dev/null` of the image is a link, which must not be what is mounted over masked files (runc).
#[test]
fn privileged_cve_2025_31133_masks_are_of_the_machines_null() {
    let (fixture, bait) = attack(
        "FROM hostile\n\
         RUN cat /proc/kcore /proc/timer_list /proc/keys | head -c 100; (echo x > /proc/sys/kernel/core_pattern) 2>/dev/null && echo wrote; true\n",
    );
    let before = fs::read("/proc/sys/kernel/core_pattern").unwrap();
    let hostile = hostile_image(
        &fixture,
        &[
            Entry::directory("dev"),
            Entry::symlink("dev/null", "/proc/sys/kernel/core_pattern"),
            Entry::symlink("dev/console", "/proc/sysrq-trigger"),
            Entry::symlink("dev/pts", "/proc"),
            Entry::symlink("dev/shm", &format!("{}/hollow", bait.path())),
        ],
    );
    let ran = harmless(&fixture, &bait, &["-o", "type=cacheonly", "--build-context", &hostile]);
    let ran = ran.ok();
    assert!(!ran.stderr.lines().any(|line| line.ends_with(" wrote")), "{}", ran.stderr);
    assert_eq!(fs::read("/proc/sys/kernel/core_pattern").unwrap(), before);
}

/// `/dev`, `/proc` or `/sys` of the image is a link to somewhere else (runc: also CVE-2019-19921, CVE-2023-27561).
#[test]
fn privileged_cve_2025_52565_system_mounts_need_directories() {
    for (name, target) in [
        ("dev", "proc"),
        ("proc", "tmp"),
        ("sys", "/tmp"),
        ("dev", "@"),
        ("proc", "@"),
        ("sys", "@/secret"),
    ] {
        let (fixture, bait) =
            attack("FROM hostile\nRUN cat /proc/kcore; echo x > /dev/secret; true\n");
        let target = target.replace('@', &bait.path());
        let entries = [Entry::whiteout(name), Entry::symlink(name, &target)];
        // The whiteout is of the layer below, the link of this one.
        let hostile = hostile_image(&fixture, &entries);
        let ran = harmless(&fixture, &bait, &["-o", "type=cacheonly", "--build-context", &hostile]);
        assert_eq!(ran.code, 1, "{name} -> {target}: {}", ran.stderr);
        assert!(ran.stderr.contains(&format!("/{name}")), "{}", ran.stderr);
    }
}

/// The same in a chroot, where what is mounted elsewhere is written into the root; also a `/dev` that is a link (runc).
#[test]
fn privileged_cve_2026_41579_nothing_is_put_outside_of_the_root() {
    for setup in [
        "rm -rf /dev; ln -s @ /dev",
        "rm -rf /dev; ln -s ../../../../../../../../..@/hollow /dev",
        "rm -rf /dev; mkdir /dev; ln -s @/secret /dev/null",
        "rm -rf /etc; ln -s @ /etc",
        "mkdir -p /etc; ln -sf @/empty /etc/hosts; ln -sf /proc/self/root@/secret /etc/resolv.conf",
    ] {
        let (fixture, bait) =
            attack(&format!("FROM busybox\nRUN {setup}; true\nRUN echo x > /dev/null; true\n"));
        let args = ["--isolation=chroot", "-o", "type=cacheonly"];
        harmless(&fixture, &bait, &args);
        harmless(&fixture, &bait, &NOTHING);
    }
}

/// Mounts over `/proc`, which would catch what the runtime writes there (runc).
#[test]
fn privileged_cve_2025_52881_nothing_is_written_through_a_covered_proc() {
    for target in
        ["/proc", "/proc/self", "/proc/self/attr", "/proc/sys", "/proc/1/attr/exec", "/sys", "/dev"]
    {
        let (fixture, bait) = attack(&format!(
            "FROM busybox AS fake\n\
             RUN mkdir -p /fake/self /fake/attr && ln -s @/secret /fake/exec && ln -s @/empty /fake/self/exec && ln -s @/secret /fake/core_pattern\n\
             FROM busybox\n\
             RUN --mount=from=fake,source=/fake,target={target},rw echo x > {target}/exec; true\n\
             RUN --mount=type=tmpfs,target={target} true; true\n"
        ));
        harmless(&fixture, &bait, &NOTHING);
    }
}

/// A volume whose path leads out, from which other engines copy (containerd).
#[test]
fn privileged_cve_2022_23648_volumes_are_only_names() {
    let (fixture, bait) = attack(
        "FROM busybox\nVOLUME /../../../../../../../..@\nVOLUME [\"/proc/1/root@\"]\nRUN ls /../../..@; true\n",
    );
    harmless(&fixture, &bait, &NOTHING);
}

/// Other users of the machine reach programs with set-user-id bits in the layers (Docker).
#[test]
fn privileged_cve_2021_41091_the_store_is_for_its_owner() {
    use std::os::unix::fs::PermissionsExt;
    let fixture = Fixture::with("FROM busybox\nRUN cp /bin/busybox /suid && chmod 4755 /suid\n");
    fixture.build(&NOTHING).ok();
    let mode = fs::metadata(fixture.path("store")).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "{mode:o}");
}

/// Variables and groups of who builds that reach a step (buildah, podman: also CVE-2022-2990, CVE-2020-14370).
#[test]
fn privileged_cve_2021_3602_nothing_of_the_builder_is_inherited() {
    let fixture = Fixture::with(
        "FROM busybox\nRUN env > /env; id -G > /groups\nUSER 1234:1234\nRUN id -G > /tmp/groups\n",
    );
    let out = fixture.path("out");
    let spec = format!("type=local,dest={}", out.display());
    let mut command = fixture.build_command("store", &["-o", &spec]);
    let output =
        command.env("AWS_SECRET_ACCESS_KEY", SECRET).env("LD_PRELOAD_X", SECRET).output().unwrap();
    crate::fixture::ran(output).ok();
    assert!(!read(&out, "env").contains(SECRET));
    assert_eq!(read(&out, "groups"), "0\n");
    assert_eq!(read(&out, "tmp/groups"), "1234\n");
}

/// Device nodes that an image brings along, for instance of the machine's disk.
#[test]
fn privileged_cve_2022_0811_devices_and_settings_of_the_kernel() {
    let (fixture, bait) = attack(
        "FROM hostile\n\
         RUN for d in /disk /memory; do (head -c 1 $d) 2>/dev/null && echo opened $d; done; \
             for f in kernel/core_pattern kernel/modprobe kernel/hotplug vm/overcommit_memory net/ipv4/ip_forward fs/binfmt_misc/register; do \
                 (echo x > /proc/sys/$f) 2>/dev/null && echo wrote $f; done; \
             (echo b > /proc/sysrq-trigger) 2>/dev/null && echo wrote; \
             (echo x > /sys/kernel/uevent_helper) 2>/dev/null && echo wrote; \
             find / -xdev -name release_agent; find /sys/fs/cgroup -name release_agent 2>/dev/null; \
             grep -E ' cgroup ' /proc/mounts; true\n",
    );
    let hostile = hostile_image(
        &fixture,
        &[
            Entry::special("disk", EntryKind::BlockDevice(253, 0)).mode(0o666),
            Entry::special("memory", EntryKind::CharDevice(1, 1)).mode(0o666),
        ],
    );
    let ran =
        harmless(&fixture, &bait, &["-o", "type=cacheonly", "--build-context", &hostile]).ok();
    for word in [" opened", " wrote", "release_agent\n", " cgroup rw"] {
        let said: Vec<&str> = ran.stderr.lines().filter(|line| !line.contains("RUN ")).collect();
        assert!(!said.iter().any(|line| format!("{line}\n").contains(word)), "{}", ran.stderr);
    }
}
