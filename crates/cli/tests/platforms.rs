//! Steps for other platforms than the machine's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rbuild_testdata::{
    Image, ImageIndex, Layout, Registry, busybox_image, foreign_busybox_image, validate,
};

use crate::fixture::{Fixture, Ran, have, ran, read, skipped, valid};

const FOREIGN: &str = "linux/arm64";

/// The folder of a layout with a base image for this machine and one for [`FOREIGN`]; says why if there is none.
fn base(test: &str, fixture: &Fixture) -> Option<PathBuf> {
    if std::env::consts::ARCH == "aarch64" {
        skipped(test, "arm64 is not foreign here");
        return None;
    }
    // What `make test` puts beside the binaries.
    let foreign = foreign_image(test)?;
    let folder = fixture.path("base");
    let images = ImageIndex::new().image(&busybox_image()).image(&foreign);
    Layout::create(&folder).add(Some("latest"), &images.publish());
    Some(folder)
}

/// The base image for [`FOREIGN`].
fn foreign_image(test: &str) -> Option<Image> {
    let binaries = Path::new(env!("CARGO_BIN_EXE_rbuild")).parent().expect("a folder");
    let Ok(program) = fs::read(binaries.join("../foreign/busybox-arm64")) else {
        skipped(
            test,
            "no busybox for arm64: run scripts/foreign-busybox arm64 target/foreign/busybox-arm64",
        );
        return None;
    };
    if !Path::new("/usr/bin/qemu-aarch64-static").exists() {
        skipped(test, "no /usr/bin/qemu-aarch64-static (Debian package qemu-user-static)");
        return None;
    }
    Some(foreign_busybox_image(FOREIGN, program))
}

/// A build with `base` as a named context.
fn command(fixture: &Fixture, base: &Path, args: &[&str]) -> Command {
    let context = format!("base=oci-layout://{}:latest", base.display());
    let mut command = fixture.build_command("store", &["--build-context", &context]);
    command.args(args);
    command
}

fn build(fixture: &Fixture, base: &Path, args: &[&str]) -> Ran {
    ran(command(fixture, base, args).output().expect("rbuild starts"))
}

/// Whether this kernel lets a user namespace have emulators of its own; since Linux 6.7.
fn can_emulate(test: &str, ran: &Ran) -> bool {
    let can = !ran.stderr.contains("Linux before 6.7");
    if !can {
        skipped(test, "the kernel has one binfmt_misc for the whole machine only");
    }
    can
}

#[test]
fn privileged_foreign_steps_are_emulated_and_leave_no_trace() {
    const TEST: &str = "privileged_foreign_steps_are_emulated_and_leave_no_trace";
    let fixture = Fixture::with(
        "FROM base\n\
         ARG TARGETPLATFORM\nARG TARGETARCH\nARG BUILDARCH\n\
         RUN uname -m > /facts; sh -c 'uname -m; env uname -m' >> /facts; \
         echo $TARGETPLATFORM $TARGETARCH >> /facts; (exec -a named sh -c 'echo $0') >> /facts 2>&1 || true\n\
         RUN [\"/bin/busybox\", \"touch\", \"/direct\"]\n\
         USER nobody\n\
         RUN id -un > /tmp/user\n",
    );
    let Some(base) = base(TEST, &fixture) else { return };
    let before = fs::read_dir("/proc/sys/fs/binfmt_misc").map(Iterator::count).unwrap_or(0);
    let archive = fixture.path("out.tar");
    let spec = format!("type=oci,dest={}", archive.display());
    let files = fixture.path("out");
    let local = format!("type=local,dest={}", files.display());
    let built = build(&fixture, &base, &["--platform", FOREIGN, "-o", &spec, "-o", &local]);
    if !can_emulate(TEST, &built) {
        return;
    }
    built.ok();
    assert_eq!(
        read(&files, "facts"),
        format!("aarch64\naarch64\naarch64\n{FOREIGN} arm64\nnamed: applet not found\n")
    );
    assert_eq!(read(&files, "tmp/user"), "nobody\n");
    let image = valid("oci", &archive);
    assert_eq!(image.config["architecture"], "arm64");
    let paths = image.layers.iter().skip(1).flat_map(|layer| layer.paths());
    let files: Vec<&str> = paths.filter(|path| !path.ends_with('/')).collect();
    assert_eq!(files, ["facts", "direct", "tmp/user"]);
    let after = fs::read_dir("/proc/sys/fs/binfmt_misc").map(Iterator::count).unwrap_or(0);
    assert_eq!(before, after, "the machine's binfmt_misc has changed");
}

#[test]
fn privileged_build_stages_run_on_the_machine() {
    const TEST: &str = "privileged_build_stages_run_on_the_machine";
    let fixture = Fixture::with(
        "FROM --platform=$BUILDPLATFORM base AS build\n\
         ARG TARGETARCH\n\
         RUN uname -m > /native; echo for $TARGETARCH >> /native\n\
         FROM base\n\
         COPY --from=build /native /\n\
         RUN uname -m > /foreign\n",
    );
    let Some(base) = base(TEST, &fixture) else { return };
    let files = fixture.path("out");
    let local = format!("type=local,dest={}", files.display());
    let built = build(&fixture, &base, &["--platform", FOREIGN, "-o", &local]);
    if !can_emulate(TEST, &built) {
        return;
    }
    built.ok();
    assert_eq!(read(&files, "native"), format!("{}\nfor arm64\n", std::env::consts::ARCH));
    assert_eq!(read(&files, "foreign"), "aarch64\n");
    // The two platforms do not share results.
    let native = build(&fixture, &base, &["-o", &local]).ok();
    assert!(native.stderr.contains("RUN uname -m > /foreign"), "{}", native.stderr);
    assert_eq!(read(&files, "foreign"), format!("{}\n", std::env::consts::ARCH));
}

#[test]
fn privileged_foreign_steps_run_in_a_user_namespace() {
    const TEST: &str = "privileged_foreign_steps_run_in_a_user_namespace";
    let fixture =
        Fixture::with("FROM base\nRUN uname -m > /machine; sh -c 'uname -m' >> /machine\n");
    let Some(base) = base(TEST, &fixture) else { return };
    let files = fixture.path("out");
    let local = format!("type=local,dest={}", files.display());
    let inner = command(&fixture, &base, &["--platform", FOREIGN, "-o", &local]);
    let mut outer = Command::new("unshare");
    outer.args(["--user", "--map-root-user", "--mount"]).arg(inner.get_program());
    outer.args(inner.get_args()).env_clear().current_dir(fixture.context());
    outer.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let built = ran(outer.output().expect("unshare starts"));
    if built.stderr.starts_with("unshare:") {
        return skipped(TEST, built.stderr.trim());
    }
    if !can_emulate(TEST, &built) {
        return;
    }
    built.ok();
    assert_eq!(read(&files, "machine"), "aarch64\naarch64\n");
}

#[test]
fn privileged_an_image_for_another_platform_only_is_used_for_that() {
    const TEST: &str = "privileged_an_image_for_another_platform_only_is_used_for_that";
    if std::env::consts::ARCH == "aarch64" || !have(TEST, "docker-registry") {
        return;
    }
    let Some(foreign) = foreign_image(TEST) else { return };
    let registry = Registry::start();
    registry.push("base", "v1", &foreign.publish());
    let fixture =
        Fixture::with(&format!("FROM {}/base:v1\nRUN uname -m > /machine\n", registry.address()));
    let archive = fixture.path("out.tar");
    let spec = format!("type=oci,dest={}", archive.display());
    let built = fixture.build(&["-o", &spec]);
    if can_emulate(TEST, &built) {
        let stderr = built.ok().stderr;
        assert!(!stderr.contains("InvalidBaseImagePlatform"), "{stderr}");
        let image = valid("oci", &archive);
        assert_eq!(image.config["architecture"], "arm64");
        let entry = image.layers.iter().rev().find_map(|layer| layer.entry("machine"));
        assert_eq!(entry.expect("a file").content, b"aarch64\n");
    }
}

#[test]
fn privileged_what_is_missing_for_a_platform_is_said() {
    const TEST: &str = "privileged_what_is_missing_for_a_platform_is_said";
    let fixture = Fixture::with("FROM base\nRUN true\n");
    let Some(base) = base(TEST, &fixture) else { return };
    if Path::new("/proc/sys/fs/binfmt_misc/qemu-aarch64").exists() {
        return skipped(TEST, "the machine has an emulator in its binfmt_misc");
    }
    let mut command = command(&fixture, &base, &["--platform", FOREIGN]);
    let text =
        ran(command.env("PATH", fixture.path("none")).output().expect("rbuild starts")).fails(1);
    assert!(
        text.contains("cannot run programs of linux/arm64: there is no static `qemu-aarch64`"),
        "{text}"
    );
    assert!(text.contains("install Debian's `qemu-user-static`"), "{text}");
    assert!(text.contains("exec format error"), "{text}");
    // What runs nothing needs no emulator.
    fixture.write("Dockerfile", "FROM base\nCOPY Dockerfile /\n");
    let context = format!("base=oci-layout://{}:latest", base.display());
    fixture.build(&["--build-context", &context, "--platform", FOREIGN]).ok();
}

#[test]
fn privileged_an_emulated_step_is_confined() {
    const TEST: &str = "privileged_an_emulated_step_is_confined";
    let fixture = Fixture::with("FROM base\nRUN --security=insecure true\n");
    let Some(base) = base(TEST, &fixture) else { return };
    let args = ["--platform", FOREIGN, "--allow", "security.insecure"];
    let text = build(&fixture, &base, &args).fails(1);
    assert!(text.contains("with `--security=insecure` cannot be emulated by rbuild"), "{text}");
    fixture.write(
        "Dockerfile",
        "FROM base\nRUN for command in 'mount -t tmpfs x /mnt' 'unshare -U true' 'mknod /n c 1 3'; do \
         $command 2> /dev/null && echo $command >> /did; done; touch /did\n",
    );
    let files = fixture.path("out");
    let local = format!("type=local,dest={}", files.display());
    let built = build(&fixture, &base, &["--platform", FOREIGN, "-o", &local]);
    if can_emulate(TEST, &built) {
        built.ok();
        assert_eq!(read(&files, "did"), "");
    }
}

#[test]
fn privileged_narrow_platforms_see_a_narrow_machine() {
    const TEST: &str = "privileged_narrow_platforms_see_a_narrow_machine";
    if std::env::consts::ARCH != "x86_64" {
        return skipped(TEST, "not on amd64");
    }
    // The programs are those of amd64: `uname` is what it is about.
    let fixture = Fixture::with("FROM busybox\nRUN uname -m > /machine\n");
    let files = fixture.path("out");
    let local = format!("type=local,dest={}", files.display());
    fixture.build(&["--platform", "linux/386", "-o", &local]).ok();
    if read(&files, "machine") == "x86_64\n" {
        return skipped(TEST, "the kernel runs no programs of 386");
    }
    assert_eq!(read(&files, "machine"), "i686\n");
}

#[test]
fn privileged_a_build_for_two_platforms_runs_the_steps_of_both() {
    const TEST: &str = "privileged_a_build_for_two_platforms_runs_the_steps_of_both";
    let fixture = Fixture::with(
        "FROM base AS made\n\
         RUN uname -m > /machine\n\
         FROM base\n\
         ARG TARGETARCH\n\
         COPY --from=made /machine /\n\
         RUN test \"$(uname -m)\" = \"$(cat /machine)\" && echo $TARGETARCH > /arch\n",
    );
    let Some(base) = base(TEST, &fixture) else { return };
    let archive = fixture.path("out.tar");
    let spec = format!("type=oci,dest={}", archive.display());
    let files = fixture.path("out");
    let local = format!("type=local,dest={}", files.display());
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        other => other,
    };
    let native = format!("linux/{architecture}");
    let both = format!("{native},{FOREIGN}");
    let built = build(&fixture, &base, &["--platform", &both, "-o", &spec, "-o", &local]);
    if !can_emulate(TEST, &built) {
        return;
    }
    built.ok();
    let bytes = fs::read(&archive).expect("the archive");
    let images = validate::oci_archive(&bytes).unwrap_or_else(|error| panic!("{error}"));
    let platforms: Vec<&str> = images.iter().map(|image| image.platform.as_str()).collect();
    assert_eq!(platforms, [native.as_str(), FOREIGN]);
    for (platform, machine) in [(native.as_str(), std::env::consts::ARCH), (FOREIGN, "aarch64")] {
        let folder = files.join(platform.replace('/', "_"));
        assert_eq!(read(&folder, "machine").trim(), machine);
        assert_eq!(read(&folder, "arch").trim(), &platform["linux/".len()..]);
        let image = images.iter().find(|image| image.platform == platform).expect("the image");
        let last = image.layers.last().and_then(|layer| layer.entry("arch")).expect("the file");
        assert_eq!(last.content, format!("{}\n", &platform["linux/".len()..]).as_bytes());
    }
    // What ran is known for both.
    let again = build(&fixture, &base, &["--platform", &both, "-o", "type=cacheonly"]).ok();
    assert!(!again.steps_run().iter().any(|step| step.contains("RUN")), "{}", again.stderr);
}
