//! What is fetched: files by HTTP and git repositories, from servers on the loopback, also hostile ones.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rbuild_testdata::{Reply, Scripted};

use crate::fixture::{Fixture, Ran, ran, read};
use crate::servers::{GitServer, Repository, SECONDS, git_over_http};

const TIME: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// `rbuild build ARGS` with files as its result.
fn build(fixture: &Fixture, args: &[&str]) -> (Ran, PathBuf) {
    let out = fixture.path("out");
    let _ = fs::remove_dir_all(&out);
    let spec = format!("type=local,dest={}", out.display());
    let all = [&["build", "--progress=plain", "-o", &spec], args].concat();
    (ran(fixture.command("store").args(all).output().expect("rbuild starts")), out)
}

#[track_caller]
fn built(fixture: &Fixture, args: &[&str]) -> PathBuf {
    let (ran, out) = build(fixture, args);
    ran.ok();
    out
}

/// Builds the context folder with a Dockerfile of these lines on scratch.
#[track_caller]
fn added(fixture: &Fixture, lines: &str) -> PathBuf {
    fixture.write("Dockerfile", format!("FROM scratch\n{lines}"));
    built(fixture, &["context"])
}

fn archive() -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, text) in
        [("Dockerfile", "FROM scratch\nCOPY . /all\n"), (".dockerignore", "f\n"), ("f", "in it")]
    {
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, text.as_bytes()).expect("an entry");
    }
    archive.into_inner().expect("an archive")
}

fn compressed(program: &str, bytes: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .arg("-c")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a compressor");
    child.stdin.take().expect("a pipe").write_all(bytes).expect("it reads");
    child.wait_with_output().expect("it ends").stdout
}

fn digest(bytes: &[u8]) -> String {
    rbuild_testdata::sha256(bytes)
}

#[test]
fn privileged_rule_30_files_are_added_with_name_mode_and_time() {
    let server = Scripted::start(|request, _| match request.path.as_str() {
        "/missing" => Reply::new(404, ""),
        _ => Reply::new(200, "content").header("Last-Modified", TIME).header("ETag", "\"1\""),
    });
    let url = |path: &str| format!("http://{}/{path}", server.address());
    let fixture = Fixture::new();
    let [dir, query, own] = ["dir/a%20b", "q?x", "own"].map(url);
    let out = added(
        &fixture,
        &format!("ADD {dir} {query} /d/\nADD --chmod=755 --chown=1:2 {own} /new/name\n"),
    );
    assert_eq!(read(&out, "d/a b"), "content");
    assert_eq!(read(&out, "d/q"), "content");
    let [plain, changed] =
        ["d/q", "new/name"].map(|name| fs::metadata(out.join(name)).expect("a file"));
    assert_eq!((plain.mode() & 0o7777, plain.mtime()), (0o600, SECONDS));
    assert_eq!(changed.mode() & 0o7777, 0o755);

    let (again, _) = build(&fixture, &["context"]);
    assert_eq!(again.ok().steps_cached().len(), 2);
    fixture.write("Dockerfile", format!("FROM scratch\nADD {} /\n", url("missing")));
    let error = build(&fixture, &["context"]).0.fails(1);
    assert!(error.contains("invalid response status 404"), "{error}");
}

#[test]
fn privileged_checksums_and_archives_by_http() {
    let bytes = compressed("xz", &archive());
    let sum = digest(&bytes);
    let server = Scripted::start(move |_, _| Reply::new(200, bytes.clone()));
    let url = format!("http://{}/a.tar.xz", server.address());
    let fixture = Fixture::new();
    let out =
        added(&fixture, &format!("ADD --checksum={sum} --unpack=true {url} /x\nADD {url} /y/\n"));
    assert_eq!(read(&out, "x/f"), "in it");
    assert!(out.join("y/a.tar.xz").is_file());
    let wrong = digest(b"");
    fixture.write("Dockerfile", format!("FROM scratch\nADD --checksum={wrong} {url} /\n"));
    let error = build(&fixture, &["context"]).0.fails(1);
    assert!(error.contains("digest mismatch"), "{error}");
}

#[test]
fn privileged_contexts_by_http() {
    for program in ["cat", "gzip", "bzip2", "xz", "zstd"] {
        let bytes = match program {
            "cat" => archive(),
            program => compressed(program, &archive()),
        };
        let server = Scripted::start(move |_, _| Reply::new(200, bytes.clone()));
        let fixture = Fixture::new();
        let out = built(&fixture, &[&format!("http://{}/ctx", server.address())]);
        // No ignore file applies.
        assert_eq!(read(&out, "all/f"), "in it", "{program}");
        assert!(out.join("all/.dockerignore").exists());
    }
}

#[test]
fn privileged_dockerfiles_by_http_and_named_contexts() {
    let server = Scripted::start(|request, _| match request.path.as_str() {
        "/Dockerfile" => {
            Reply::new(200, "FROM scratch\nCOPY --from=lib f /lib\nCOPY --from=one context /one\n")
        }
        "/local" => Reply::new(200, "FROM scratch\nCOPY here /\n"),
        "/lib.tar" => Reply::new(200, archive()),
        _ => Reply::new(200, "one"),
    });
    let url = |path: &str| format!("http://{}/{path}", server.address());
    let fixture = Fixture::new();
    let (lib, one) = (format!("lib={}", url("lib.tar")), format!("one={}", url("one")));
    let contexts = ["--build-context", &lib, "--build-context", &one];
    let out = built(&fixture, &[&contexts[..], &[&url("Dockerfile")]].concat());
    assert_eq!((read(&out, "lib"), read(&out, "one")), ("in it".to_owned(), "one".to_owned()));
    fixture.write("here", "local");
    let out = built(&fixture, &["-f", &url("local"), "context"]);
    assert_eq!(read(&out, "here"), "local");
    // Questions are answered too.
    let asked = |args: &[&str]| fixture.run([&["build", "--call=targets"], args].concat()).ok();
    for args in [&[&*url("Dockerfile")][..], &["-f", &url("local"), "context"]] {
        assert!(asked(args).text().contains("(default)"), "{args:?}");
    }
}

#[test]
fn privileged_repositories_are_added() {
    let server = GitServer::start();
    let repository = server
        .repository("r", &[("a", "one"), ("d/b", "two"), (".gitattributes", "a filter=evil\n")]);
    let first = repository.git(&["rev-parse", "HEAD"]);
    repository.git(&["tag", "-a", "-m", "t", "v1"]);
    let second = repository.commit(&[("a", "changed")]);
    repository.git(&["branch", "other", &first]);
    let url = server.url("r");
    let fixture = Fixture::new();
    let out = added(
        &fixture,
        &format!(
            "ADD {url} /head\nADD {url}#v1 /tag\nADD {url}#other:d /folder\nADD {url}#{first} /commit\n\
             ADD --checksum={} {url}?branch=main /sum\nADD --keep-git-dir=true {url}#main /kept\n",
            &second[..8]
        ),
    );
    assert_eq!(read(&out, "head/a"), "changed");
    assert_eq!(read(&out, "tag/a"), "one");
    assert_eq!(read(&out, "commit/a"), "one");
    assert_eq!(read(&out, "sum/a"), "changed");
    assert_eq!(read(&out, "folder/b"), "two");
    assert!(!out.join("folder/a").exists() && !out.join("head/.git").exists());
    let kept = Repository { folder: out.join("kept") };
    assert_eq!(kept.git(&["-c", "safe.directory=*", "rev-parse", "HEAD"]), second);
    assert_eq!(kept.git(&["-c", "safe.directory=*", "status", "--porcelain"]), "");
    assert_eq!(kept.git(&["-c", "safe.directory=*", "config", "remote.origin.url"]), url);

    // The branch's commit is the same, and nothing runs; then it is another.
    let lines = format!("FROM scratch\nADD {url}#main /x\n");
    fixture.write("Dockerfile", &lines);
    build(&fixture, &["context"]).0.ok();
    assert_eq!(
        build(&fixture, &["context"]).0.ok().steps_cached(),
        [format!("[1/1] ADD {url}#main /x")]
    );
    repository.commit(&[("a", "newest")]);
    let out = built(&fixture, &["context"]);
    assert_eq!(read(&out, "x/a"), "newest");

    for (line, words) in [
        (format!("ADD {url}#none /"), "repository does not contain ref none"),
        (format!("ADD --checksum=00 {url}#main /"), "expected checksum to match 00"),
        (format!("ADD {url}#main:none /"), "has no folder \"none\""),
        (format!("ADD {} /", server.url("missing")), "git ls-remote failed"),
    ] {
        fixture.write("Dockerfile", format!("FROM scratch\n{line}\n"));
        let error = build(&fixture, &["context"]).0.fails(1);
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn privileged_repositories_are_contexts() {
    let server = GitServer::start();
    let dockerfile = "FROM scratch\nCOPY . /all\n";
    let repository = server.repository(
        "r.git",
        &[
            ("sub/Dockerfile", dockerfile),
            ("sub/other", dockerfile),
            ("sub/f", "in it"),
            ("sub/.dockerignore", "f\n"),
        ],
    );
    let url = server.url("r.git");
    let fixture = Fixture::new();
    let out = built(&fixture, &[&format!("{url}#main:sub")]);
    assert_eq!(read(&out, "all/f"), "in it");
    let out = built(&fixture, &["-f", "other", &format!("{url}#:sub")]);
    assert_eq!(read(&out, "all/f"), "in it");
    let context = format!("lib={url}#main:sub");
    fixture.write("Dockerfile", "FROM scratch\nCOPY --from=lib f /\n");
    let out = built(&fixture, &["--build-context", &context, "context"]);
    assert_eq!(read(&out, "f"), "in it");
    repository.commit(&[("Dockerfile", "FROM scratch\nCOPY .git /git\n")]);
    let keep = ["--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1", &url];
    let out = built(&fixture, &keep);
    assert!(out.join("git/HEAD").is_file());
    // The time of the commit is the epoch.
    let (ran, _) =
        build(&fixture, &["--build-arg", "SOURCE_DATE_EPOCH=context", &format!("{url}#main:sub")]);
    ran.ok();
    let error = build(&fixture, &[&format!("{url}#main:none")]).0.fails(1);
    assert!(error.contains("has no folder"), "{error}");
    // Questions are answered too.
    let stages = fixture.run(["build", "--call=targets", &format!("{url}#main:sub")]).ok();
    assert!(stages.text().contains("(default)"), "{}", stages.text());
    let checked = fixture.run(["build", "--check", &url]).ok();
    assert!(checked.text().contains("Check complete"), "{}", checked.text());
}

#[test]
fn privileged_submodules_come_along() {
    let server = GitServer::start();
    let inner = server.repository("inner", &[("i", "inner")]);
    let outer = server.repository("outer", &[("o", "outer")]);
    let (inner_url, outer_url) = (server.url("inner"), server.url("outer"));
    outer.git(&["-c", "protocol.git.allow=always", "submodule", "--quiet", "add", &inner_url, "m"]);
    // A relative address is that of a sibling.
    outer.git(&["config", "-f", ".gitmodules", "submodule.m.url", "../inner"]);
    outer.commit(&[]);
    let id = inner.git(&["rev-parse", "HEAD"]);
    let fixture = Fixture::new();
    let out = added(
        &fixture,
        &format!(
            "ADD {outer_url}#main /with\nADD {outer_url}?submodules=false /without\nADD --keep-git-dir=true {outer_url} /kept\n"
        ),
    );
    assert_eq!(read(&out, "with/m/i"), "inner");
    assert!(!out.join("with/m/.git").exists());
    assert!(!out.join("without/m/i").exists());
    let kept = Repository { folder: out.join("kept/m") };
    assert_eq!(kept.git(&["-c", "safe.directory=*", "rev-parse", "HEAD"]), id);
}

#[test]
fn privileged_hostile_repositories_do_no_harm() {
    let server = GitServer::start();
    let fixture = Fixture::new();
    let proof = fixture.path("proof");
    let touch = format!("touch {}", proof.display());
    let check = |name: &str| {
        fixture.write("Dockerfile", format!("FROM scratch\nADD {} /x\n", server.url(name)));
        build(&fixture, &["context"]).0.ok();
        assert!(!proof.exists(), "{name}");
    };
    // Hooks and filters of the repository's are nobody's.
    let hooks = server.repository(
        "hooks",
        &[("f", "x"), (".gitattributes", "* filter=x\n"), ("hooks/post-checkout", &touch)],
    );
    for hook in ["post-checkout", "post-update", "pre-receive"] {
        let path = hooks.folder.join(".git/hooks").join(hook);
        fs::write(&path, format!("#!/bin/sh\n{touch}\n")).expect("a hook");
    }
    hooks.git(&["config", "filter.x.smudge", &touch]);
    check("hooks");
    // Submodules from where they may not be, and with commands.
    let inner = server.repository("inner", &[("i", "inner")]);
    let id = inner.git(&["rev-parse", "HEAD"]);
    for (name, url) in [
        ("ext", format!("ext::sh -c '{touch}'")),
        ("file", format!("file://{}", inner.folder.display())),
        ("path", inner.folder.display().to_string()),
        ("option", format!("--upload-pack={touch}")),
        ("ssh", format!("ssh://-oProxyCommand={}/x", touch.replace(' ', "${IFS}"))),
    ] {
        let repository = server.repository(name, &[]);
        repository.git(&["config", "-f", ".gitmodules", "submodule.m.path", "m"]);
        repository.git(&["config", "-f", ".gitmodules", "submodule.m.url", &url]);
        repository.git(&["config", "-f", ".gitmodules", "submodule.m.update", "checkout"]);
        repository.git(&["add", ".gitmodules"]);
        repository.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{id},m")]);
        repository.git(&["commit", "--quiet", "-m", "m"]);
        fixture.write("Dockerfile", format!("FROM scratch\nADD {} /x\n", server.url(name)));
        let (ran, out) = build(&fixture, &["context"]);
        assert!(!proof.exists(), "{name}");
        assert!(ran.code != 0 || !out.join("x/m/i").exists(), "{name}: {}", ran.stderr);
        assert!(
            ran.code == 0 || ran.stderr.contains("failed to load git source"),
            "{name}: {}",
            ran.stderr
        );
    }
    let command = server.repository("command", &[]);
    for (key, value) in
        [("path", "m"), ("url", &server.url("inner")), ("update", &format!("!{touch}"))]
    {
        command.git(&["config", "-f", ".gitmodules", &format!("submodule.m.{key}"), value]);
    }
    command.git(&["add", ".gitmodules"]);
    command.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{id},m")]);
    command.git(&["commit", "--quiet", "-m", "m"]);
    fixture.write("Dockerfile", format!("FROM scratch\nADD {} /x\n", server.url("command")));
    build(&fixture, &["context"]);
    assert!(!proof.exists());
    // Names of submodules and of files that lead out of where they belong.
    let climbing = server.repository("climbing", &[]);
    for (key, value) in [("path", "m"), ("url", &server.url("inner"))] {
        climbing.git(&[
            "config",
            "-f",
            ".gitmodules",
            &format!("submodule.../../../x.{key}"),
            value,
        ]);
    }
    climbing.git(&["add", ".gitmodules"]);
    climbing.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{id},m")]);
    climbing.git(&["commit", "--quiet", "-m", "m"]);
    let blob = climbing.git(&["hash-object", "-w", ".gitmodules"]);
    for (name, path) in [("dot-git", ".git"), ("climbs", ".."), ("case", ".GIT")] {
        let tree = format!("100644 blob {blob}\t{path}\n");
        climbing.branch_of_tree(name, &tree);
    }
    for name in ["main", "dot-git", "climbs", "case"] {
        let line = format!("FROM scratch\nADD {}#{name} /x\n", server.url("climbing"));
        fixture.write("Dockerfile", line);
        let (ran, out) = build(&fixture, &["context"]);
        assert!(!fixture.path("x").exists() && !out.join("x/m/i").exists(), "{name}");
        assert!(ran.code != 0 || name == "main", "{name}");
    }
    // A folder that is a link leads no further than the checkout.
    let links = server.repository("links", &[("f", "x")]);
    std::os::unix::fs::symlink("/etc", links.folder.join("out")).expect("a link");
    links.commit(&[]);
    fixture.write("Dockerfile", format!("FROM scratch\nADD {}#main:out /x\n", server.url("links")));
    let error = build(&fixture, &["context"]).0.fails(1);
    assert!(error.contains("has no folder"), "{error}");
    // Names like options.
    for address in [
        format!("{}#--upload-pack={touch}", server.url("hooks")).replace(' ', "%20"),
        "ssh://-oProxyCommand=x/y.git".to_owned(),
    ] {
        fixture.write("Dockerfile", format!("FROM scratch\nADD {address} /x\n"));
        let error = build(&fixture, &["context"]).0.fails(1);
        assert!(error.contains("failed to parse git ref"), "{error}");
    }
}

#[test]
fn privileged_a_killed_build_leaves_nothing_to_repair() {
    let base = tempfile::tempdir().expect("a folder");
    let folder = base.path().to_owned();
    let repository = Repository::make(base.path(), "r.git", &[("f", "x")]);
    let (asked, was_asked) = std::sync::mpsc::channel();
    let asked = std::sync::Mutex::new(asked);
    let (go_on, goes_on) = std::sync::mpsc::channel::<()>();
    let goes_on = std::sync::Mutex::new(goes_on);
    let server = Scripted::start(move |request, _| {
        // Until the first fetch of objects: then the build is killed.
        if request.body.windows(4).any(|bytes| bytes == b"want") {
            let _ = asked.lock().expect("a sender").send(());
            let _ = goes_on.lock().expect("a receiver").recv();
        }
        git_over_http(&folder, request)
    });
    let url = format!("http://{}/r.git", server.address());
    let fixture = Fixture::new();
    fixture.write("Dockerfile", format!("FROM scratch\nADD {url} /x\n"));
    let mut child = fixture
        .command("store")
        .args(["build", "-o", "type=cacheonly", "context"])
        .stderr(Stdio::null())
        .spawn()
        .expect("rbuild starts");
    was_asked.recv().expect("git asks");
    child.kill().expect("rbuild is killed");
    child.wait().expect("rbuild ends");
    // What a git that is killed leaves behind.
    let mirrors = fs::read_dir(fixture.path("store/git")).expect("mirrors");
    for mirror in mirrors.flatten() {
        fs::write(mirror.path().join("shallow.lock"), "").expect("a lock");
        fs::write(mirror.path().join("HEAD"), "").expect("half a file");
    }
    drop(go_on);
    let out = built(&fixture, &["context"]);
    assert_eq!(read(&out, "x/f"), "x");
    // Two at once, of a commit that neither has.
    repository.commit(&[("f", "y")]);
    let mut builds: Vec<_> = ["one", "two"]
        .map(|out| {
            let spec = format!("type=local,dest={}", fixture.path(out).display());
            let mut command = fixture.command("store");
            command.args(["build", "-o", &spec, "context"]).stderr(Stdio::piped());
            (out, command.spawn().expect("rbuild starts"))
        })
        .into();
    for (out, build) in builds.drain(..) {
        ran(build.wait_with_output().expect("rbuild ends")).ok();
        assert_eq!(read(&fixture.path(out), "x/f"), "y");
    }
}

/// A server that gives only what has a name is asked for all of it, also when a part is there already.
#[test]
fn privileged_commits_without_a_name_are_found() {
    let base = tempfile::tempdir().expect("a folder");
    let folder = base.path().to_owned();
    let repository = Repository::make(base.path(), "r.git", &[("f", "old")]);
    let old = repository.git(&["rev-parse", "HEAD"]);
    repository.commit(&[("f", "new")]);
    let server = Scripted::start(move |request, _| {
        // The protocol in which a server may refuse.
        let mut request = request.clone();
        request.headers.remove("git-protocol");
        git_over_http(&folder, &request)
    });
    let url = format!("http://{}/r.git", server.address());
    let fixture = Fixture::new();
    let out = added(&fixture, &format!("ADD {url}#main /x\n"));
    assert_eq!(read(&out, "x/f"), "new");
    let out = added(&fixture, &format!("ADD {url}#{old} /x\n"));
    assert_eq!(read(&out, "x/f"), "old");
    let none = "0".repeat(40);
    fixture.write("Dockerfile", format!("FROM scratch\nADD {url}#{none} /x\n"));
    let error = build(&fixture, &["context"]).0.fails(1);
    assert!(error.contains("failed to load git source"), "{error}");
}

#[test]
fn privileged_questions_are_answered_of_what_is_fetched() {
    let server = GitServer::start();
    server.repository("r.git", &[("Dockerfile", "FROM scratch AS one\nFROM scratch AS two\n")]);
    let fixture = Fixture::new();
    let url = server.url("r.git");
    let told = fixture.run(["build", "--call=targets", &url]).ok().text();
    assert!(told.contains("one") && told.contains("two"), "{told}");
}
