//! Binds of the context: the folder itself where that looks as a copy would, else a copy.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use crate::escapes::ordinary::Builder;
use crate::fixture::{Fixture, ran, read};

const NOTHING: [&str; 2] = ["-o", "type=cacheonly"];

/// What a step sees of the context: inode of a file, owners and modes, and what is there.
fn seen(fixture: &Fixture, mount: &str) -> String {
    fixture.write(
        "Dockerfile",
        format!(
            "FROM busybox\nRUN --mount={mount},target=/src stat -c %i /src/file /src/sub/deep > /inodes; \
             cd /src; find . | sort | while read f; do stat -c '%n %u:%g %a %F' $f; done > /result; (touch /src/new && echo written >> /result) 2>/dev/null; true\n"
        ),
    );
    let out = fixture.build_files(&["--no-cache"]);
    read(&out, "result")
}

fn inodes(fixture: &Fixture) -> Vec<u64> {
    read(&fixture.path("out"), "inodes")
        .lines()
        .map(|line| line.parse().expect("files and processes are made and read"))
        .collect()
}

fn context() -> Fixture {
    let fixture = Fixture::new();
    fixture.write("file", "file\n");
    fixture.write("sub/deep", "deep\n");
    fs::set_permissions(fixture.context().join("sub"), fs::Permissions::from_mode(0o711))
        .expect("files and processes are made and read");
    fixture
}

fn own_inodes(fixture: &Fixture) -> Vec<u64> {
    ["file", "sub/deep"]
        .map(|name| {
            fs::metadata(fixture.context().join(name))
                .expect("files and processes are made and read")
                .ino()
        })
        .into()
}

#[test]
fn privileged_the_folder_itself_is_mounted() {
    let fixture = context();
    let expected = ". 0:0 755 directory\n./Dockerfile 0:0 644 regular file\n./file 0:0 644 regular file\n\
                    ./sub 0:0 711 directory\n./sub/deep 0:0 644 regular file\n";
    assert_eq!(seen(&fixture, "type=bind"), expected);
    assert_eq!(inodes(&fixture), own_inodes(&fixture));
    // The mode of the folder is not the context's.
    fs::set_permissions(fixture.context(), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(seen(&fixture, "type=bind"), expected);
    assert_eq!(fs::read_dir(fixture.path("store/tmp")).unwrap().count(), 0);
}

#[test]
fn privileged_ordinary_users_have_their_folder_mounted() {
    for builder in Builder::all("privileged_ordinary_users_have_their_folder_mounted") {
        let fixture = context();
        fixture.write(".env", "hidden");
        fixture.write(".dockerignore", ".env\n");
        fixture.write(
            "Dockerfile",
            "FROM busybox\nRUN --mount=target=/src stat -c %i /src/file /src/sub/deep > /inodes; \
                 test ! -e /src/.env && ! touch /src/new 2>/dev/null && stat -c %u:%g /src/file > /owner\n",
        );
        let out = format!("type=local,dest={}", fixture.path("out").display());
        builder.build(&fixture, &["-o", &out]).ok();
        assert_eq!(inodes(&fixture), own_inodes(&fixture), "{builder:?}");
        assert_eq!(read(&fixture.path("out"), "owner"), "0:0\n", "{builder:?}");
    }
}

#[test]
fn privileged_what_is_ignored_is_hidden() {
    let fixture = context();
    for name in [".env", "sub/.env", "sub/keep.log", "sub/x.log", "all/a/b", "all/kept/c"] {
        fixture.write(name, "hidden");
    }
    fixture.write(
        ".dockerignore",
        "**/.env\n**/*.log\n!sub/keep.log\nall/*\n!all/kept\n.dockerignore\n",
    );
    let _socket = UnixListener::bind(fixture.context().join("sub/socket")).unwrap();
    let result = seen(&fixture, "type=bind");
    let names: Vec<&str> = result.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(
        names,
        [
            ".",
            "./Dockerfile",
            "./all",
            "./all/kept",
            "./all/kept/c",
            "./file",
            "./sub",
            "./sub/deep",
            "./sub/keep.log"
        ]
    );
    assert!(result.contains("./sub 0:0 711 directory\n"), "{result}");
    // What is written is thrown away.
    assert_eq!(seen(&fixture, "rw,type=bind"), result + "written\n");
    assert!(!fixture.context().join("new").exists());
}

#[test]
fn privileged_what_would_look_otherwise_is_copied() {
    let fixture = context();
    let file = fixture.context().join("file");
    std::os::unix::fs::chown(&file, Some(1234), Some(1234)).unwrap();
    assert!(seen(&fixture, "type=bind").contains("./file 0:0 644 regular file\n"));
    assert_ne!(inodes(&fixture), own_inodes(&fixture));
    std::os::unix::fs::chown(&file, Some(0), Some(0)).unwrap();
    // Through a fifo a step could speak to the machine.
    let fifo = fixture.context().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o644.into(), 0)
        .unwrap();
    assert!(seen(&fixture, "type=bind").contains("./fifo 0:0 644 fifo\n"));
    assert_ne!(inodes(&fixture), own_inodes(&fixture));
    fs::remove_file(fifo).unwrap();
    // What is not confined could mount the folder writable.
    fixture.write(
        "Dockerfile",
        "FROM busybox\nRUN --security=insecure --mount=target=/src mount -o remount,rw,bind /src; echo changed > /src/file; true\n",
    );
    fixture.build(&["-o", "type=cacheonly", "--allow", "security.insecure"]).ok();
    assert_eq!(read(&fixture.context(), "file"), "file\n");
}

/// Builds a step that waits for something to appear in the context, at most a while, and changes the context meanwhile.
fn changed_meanwhile(change: impl FnOnce(&Fixture)) -> (crate::fixture::Ran, Fixture) {
    let fixture = context();
    fixture.write(
        "Dockerfile",
        "FROM busybox\nRUN --mount=target=/src echo started; i=0; until test -e /src/go || test $i -ge 300; do i=$((i+1)); usleep 10000; done; cat /src/file\n",
    );
    let mut child = fixture
        .build_command("store", &NOTHING)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("files and processes are made and read");
    let mut seen = Vec::new();
    let mut stderr = child.stderr.take().expect("files and processes are made and read");
    let mut chunk = [0; 1024];
    while !String::from_utf8_lossy(&seen).contains(" started\n") {
        let length = stderr.read(&mut chunk).expect("files and processes are made and read");
        assert!(length > 0, "{}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&chunk[..length]);
    }
    change(&fixture);
    fixture.write("go", "");
    stderr.read_to_end(&mut seen).expect("files and processes are made and read");
    let mut output = child.wait_with_output().expect("files and processes are made and read");
    output.stderr = seen;
    (ran(output), fixture)
}

#[test]
fn privileged_a_step_whose_context_changes_runs_again_on_a_copy() {
    let (ran, _fixture) = changed_meanwhile(|_| {});
    let ran = ran.ok();
    assert!(
        ran.stderr.contains("was changed meanwhile: it runs again, on a copy"),
        "{}",
        ran.stderr
    );
    assert_eq!(ran.stderr.matches(" started\n").count(), 2, "{}", ran.stderr);
    // Nothing that the key was made of is there any more.
    let (ran, _fixture) = changed_meanwhile(|fixture| fixture.write("file", "changed\n"));
    let refused = ran.fails(1);
    assert!(refused.contains("\"/file\": file changed during the build"), "{refused}");
}
