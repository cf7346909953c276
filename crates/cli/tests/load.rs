//! `--load` and `type=docker` without a place: images in Docker's daemon and podman's storage, as those see them.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::fixture::{Fixture, Ran, have, ran, skipped};

const APP: &str = "FROM busybox\nCOPY one /one\nCOPY two /two\nCMD [\"/bin/busybox\", \"cat\", \"/one\", \"/two\"]\n";

fn app() -> Fixture {
    let fixture = Fixture::with(APP);
    fixture.write("one", "1");
    fixture.write("two", "2");
    fixture
}

/// Debian's dockerd on a socket of the test's own, with its files in a folder of its own.
struct Docker {
    process: Child,
    folder: PathBuf,
}

impl Docker {
    /// Starts it; says, loudly, when that cannot be.
    fn start(test: &str, fixture: &Fixture) -> Option<Self> {
        if !have(test, "dockerd") {
            return None;
        }
        let folder = fixture.path("docker");
        fs::create_dir(&folder).expect("a folder");
        let option = |name: &str, value: &str| format!("--{name}={}", folder.join(value).display());
        let process = Command::new("dockerd")
            .args([
                option("data-root", "root"),
                option("exec-root", "exec"),
                option("pidfile", "pid"),
            ])
            .arg(format!("--host=unix://{}", folder.join("socket").display()))
            .args([
                "--storage-driver=vfs",
                "--bridge=none",
                "--iptables=false",
                "--ip6tables=false",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let mut docker = match process {
            Ok(process) => Self { process, folder },
            Err(error) => {
                skipped(test, &format!("dockerd does not start: {error}"));
                return None;
            }
        };
        let mut log = BufReader::new(docker.process.stderr.take().expect("a pipe"));
        let (mut line, mut last) = (String::new(), String::new());
        while log.read_line(&mut line).is_ok_and(|read| read > 0) {
            if line.contains("API listen on") {
                std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
                return Some(docker);
            }
            last = std::mem::take(&mut line);
        }
        skipped(test, &format!("dockerd does not run here: {last}"));
        None
    }

    fn host(&self) -> String {
        format!("unix://{}", self.folder.join("socket").display())
    }

    fn run(&self, args: &[&str]) -> Ran {
        let docker = Command::new("docker").arg("--host").arg(self.host()).args(args).output();
        ran(docker.expect("docker starts"))
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let id = rustix::process::Pid::from_child(&self.process);
        let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        let _ = self.process.wait();
    }
}

fn load(fixture: &Fixture, host: &str, args: &[&str]) -> Ran {
    let mut command = fixture.build_command("store", args);
    ran(command.env("DOCKER_HOST", host).output().expect("rbuild starts"))
}

#[test]
fn privileged_docker_runs_what_is_loaded() {
    const TEST: &str = "privileged_docker_runs_what_is_loaded";
    let fixture = app();
    let Some(docker) = Docker::start(TEST, &fixture) else { return };
    let id =
        load(&fixture, &docker.host(), &["--load", "-q", "-t", "app:1", "-t", "other.example/x"]);
    let id = id.ok().text();
    for name in ["app:1", "other.example/x:latest"] {
        let inspected = docker.run(&["image", "inspect", "--format", "{{.Id}}", name]).ok().text();
        assert_eq!(inspected, id, "{name}");
    }
    let run = docker.run(&["run", "--rm", "--network=none", "app:1"]);
    assert_eq!(run.ok().text(), "12");

    // Only what the engine lacks is sent.
    fixture.write("two", "changed");
    load(&fixture, &docker.host(), &["-t", "app:2", "-o", "type=docker"]).ok();
    let run = docker.run(&["run", "--rm", "--network=none", "app:2"]);
    assert_eq!(run.ok().text(), "1changed");
    docker.run(&["image", "rm", "--force", "app:1", "app:2", "other.example/x"]).ok();
    load(
        &fixture,
        &docker.host(),
        &["-t", "app:2", "--load", "-o", "type=docker,compression=gzip"],
    )
    .ok();
    let run = docker.run(&["run", "--rm", "--network=none", "app:2"]);
    assert_eq!(run.ok().text(), "1changed");
}

#[test]
fn privileged_podman_runs_what_is_loaded() {
    const TEST: &str = "privileged_podman_runs_what_is_loaded";
    let fixture = app();
    // As an ordinary user rbuild is root in a namespace, where podman has another storage.
    if !have(TEST, "podman") || !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = fixture.path("podman");
    fs::create_dir(&folder).expect("a folder");
    let storage = format!(
        "[storage]\ndriver = \"vfs\"\ngraphroot = \"{0}/root\"\nrunroot = \"{0}/run\"\n",
        folder.display()
    );
    fs::write(folder.join("storage.conf"), storage).expect("a file");
    if Path::new("/var/run/docker.sock").exists() || Path::new("/run/podman/podman.sock").exists() {
        skipped(TEST, "an engine of this machine would be found before it");
        return;
    }
    let podman = |args: &[&str]| {
        let mut podman = Command::new("podman");
        podman.args(args).env("CONTAINERS_STORAGE_CONF", folder.join("storage.conf"));
        ran(podman.output().expect("podman starts"))
    };
    let load = |args: &[&str]| {
        let mut build = fixture.build_command("store", args);
        build.env("CONTAINERS_STORAGE_CONF", folder.join("storage.conf"));
        ran(build.output().expect("rbuild starts"))
    };
    let id = load(&["--load", "-q", "-t", "app:1", "-t", "other.example/x"]).ok().text();
    for name in ["docker.io/library/app:1", "other.example/x:latest"] {
        let shown = podman(&["image", "inspect", "--format", "{{.Id}}", name]).ok().text();
        assert_eq!(format!("sha256:{}", shown.trim()), id.trim(), "{name}");
    }
    fixture.write("two", "changed");
    let id = load(&["-o", "type=docker", "-q"]).ok().text();
    let shown = podman(&["image", "inspect", "--format", "{{.RepoTags}}", id.trim()]).ok().text();
    assert_eq!(shown.trim(), "[]");
    let images = podman(&["images", "--format", "{{.Repository}}"]).ok().text();
    assert!(!images.contains("rbuild"), "{images}");
}

/// An engine that has one layer, and says no as often as told.
fn scripted(
    socket: &Path,
    has: String,
    mut refusals: usize,
) -> std::thread::JoinHandle<Vec<Vec<u8>>> {
    let listener = UnixListener::bind(socket).expect("a socket");
    std::thread::spawn(move || {
        let mut archives = Vec::new();
        loop {
            let (stream, _) = listener.accept().expect("a connection");
            let mut reader = BufReader::new(stream);
            let mut head = Vec::new();
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).expect("a line");
                match line.trim_end() {
                    "" => break,
                    line => head.push(line.to_owned()),
                }
            }
            let answer = match head[0].split(' ').nth(1).expect("a path") {
                "/_ping" => "OK".to_owned(),
                "/info" => r#"{"DriverStatus":null}"#.to_owned(),
                "/images/json?all=1" => r#"[{"Id":"sha256:a"}]"#.to_owned(),
                "/images/sha256:a/json" => format!(r#"{{"RootFS":{{"Layers":["{has}"]}}}}"#),
                "/images/load?quiet=1" => {
                    archives.push(chunks(&mut reader));
                    match refusals {
                        0 => r#"{"stream":"Loaded"}"#.to_owned(),
                        _ => r#"{"stream":"x"}{"error":"no such layer"}"#.to_owned(),
                    }
                }
                other => panic!("{other}"),
            };
            let text =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{answer}", answer.len());
            reader.get_mut().write_all(text.as_bytes()).expect("an answer");
            if head[0].starts_with("POST") {
                if refusals == 0 {
                    return archives;
                }
                refusals -= 1;
            }
        }
    })
}

fn chunks(reader: &mut impl std::io::BufRead) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let mut size = String::new();
        reader.read_line(&mut size).expect("a length");
        let size = u64::from_str_radix(size.trim(), 16).expect("a number");
        reader.by_ref().take(size).read_to_end(&mut body).expect("a chunk");
        reader.read_line(&mut String::new()).expect("its end");
        if size == 0 {
            return body;
        }
    }
}

/// The names of the blobs in an archive.
fn blobs(archive: &[u8]) -> Vec<String> {
    let entries = rbuild_testdata::validate::tar_entries(archive).expect("a whole archive");
    let names = entries.into_iter().map(|entry| entry.path);
    names.filter(|name| name.starts_with("blobs/") && !name.ends_with('/')).collect()
}

#[test]
fn privileged_layers_that_the_engine_has_are_not_sent() {
    let fixture = app();
    let archive = fixture.path("app.tar");
    fixture.build(&["-o", &format!("type=docker,dest={}", archive.display())]).ok();
    let base = crate::fixture::valid("docker", &archive).layers[0].diff_id.clone();
    for (number, has, refusals, expected) in [
        (0, base.clone(), 0, vec![4]),
        // It has lost it.
        (1, base, 1, vec![4, 5]),
        (2, "sha256:other".to_owned(), 0, vec![5]),
    ] {
        let socket = fixture.path(&format!("socket{number}"));
        let engine = scripted(&socket, has, refusals);
        load(&fixture, &format!("unix://{}", socket.display()), &["--load", "-t", "a"]).ok();
        let sent = engine.join().expect("the engine ends");
        let counts: Vec<usize> = sent.iter().map(|archive| blobs(archive).len()).collect();
        assert_eq!(counts, expected);
    }
    let socket = fixture.path("refusing");
    let engine = scripted(&socket, "none".to_owned(), 1);
    let host = format!("unix://{}", socket.display());
    let error = load(&fixture, &host, &["--load", "-t", "a"]).fails(1);
    assert!(error.contains("says: no such layer"), "{error}");
    load(&fixture, &host, &["--load", "-t", "a"]).ok();
    engine.join().expect("the engine ends");
}

/// An engine that answers with `early` before it has read the image, or with what is no answer when it has.
fn odd(socket: &Path, early: Option<&'static str>) {
    let listener = UnixListener::bind(socket).expect("a socket");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.expect("a connection"));
            let mut head = String::new();
            reader.read_line(&mut head).expect("a line");
            let mut line = String::new();
            while line != "\r\n" {
                line.clear();
                reader.read_line(&mut line).expect("a line");
            }
            let body = match head.split(' ').nth(1).expect("a path") {
                "/_ping" => "OK",
                "/info" => "{}",
                "/images/json?all=1" => "[]",
                _ => early.unwrap_or_else(|| {
                    chunks(&mut reader);
                    "<html>It works</html>"
                }),
            };
            let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            // Who goes away does not hear it.
            let _ = reader.get_mut().write_all(text.as_bytes());
        }
    });
}

#[test]
fn privileged_what_was_not_loaded_is_not_said_to_be() {
    let fixture = app();
    // More than a socket holds, so that who closes it early is noticed.
    fixture.write("one", "x".repeat(4 << 20));
    for (name, early, expected) in [
        ("html", None, "its answer to /images/load?quiet=1 is not JSON"),
        (
            "early",
            Some(r#"{"stream":"Loaded"}"#),
            "cannot send the whole image, before it answers, to",
        ),
        ("early-words", Some(r#"{"error":"no space"}"#), "says: no space"),
    ] {
        let socket = fixture.path(name);
        odd(&socket, early);
        let host = format!("unix://{}", socket.display());
        let error = load(&fixture, &host, &["--load", "-t", "a"]).fails(1);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn without_an_engine_is_said_what_was_tried() {
    let fixture = app();
    let error = load(&fixture, "unix:///no/such/socket", &["--load"]).fails(1);
    assert!(error.contains("no engine answers for DOCKER_HOST=unix:///no/such/socket"), "{error}");
    let error = load(&fixture, "ssh://nowhere.example", &["-o", "type=docker"]).fails(2);
    assert!(error.contains("is reached by ssh, which is not supported yet"), "{error}");
    if Path::new("/var/run/docker.sock").exists() || Path::new("/run/podman/podman.sock").exists() {
        return;
    }
    let mut build = fixture.build_command("store", &["--load"]);
    let error = ran(build.env("PATH", "/nowhere").output().expect("rbuild starts")).fails(1);
    assert!(error.contains("`unix:///var/run/docker.sock`"), "{error}");
    assert!(error.contains("podman: it is not installed"), "{error}");
}
