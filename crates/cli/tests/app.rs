//! The demo's application, and a C program that is compiled on Debian.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::fixture::{Fixture, have, read, skipped, valid};

fn app() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/app")
}

#[test]
fn privileged_the_application_builds_and_answers() {
    let fixture = Fixture::new();
    let layout = format!("base=oci-layout://{}:latest", fixture.busybox().display());
    let app = app().display().to_string();
    let common =
        ["build", "--progress=plain", "--build-context", &layout, "--build-arg", "BASE=base"];
    let archive = fixture.path("app.tar");
    let oci = format!("type=oci,dest={}", archive.display());
    let local = format!("type=local,dest={}", fixture.path("files").display());
    fixture.run(common.iter().copied().chain(["-t", "app", "-o", &oci, "-o", &local, &app])).ok();

    let image = valid("oci", &archive);
    let config = &image.config["config"];
    assert_eq!(config["User"], "65534:65534");
    assert_eq!(config["WorkingDir"], "/srv/www");
    assert!(config["ExposedPorts"]["8080/tcp"].is_object());
    assert_eq!(config["Healthcheck"]["Interval"], 10_000_000_000_i64);
    let files = fixture.path("files");
    for (_, bytes) in walk(&files) {
        assert!(!contains(&bytes, b"hidden by .dockerignore"), "an ignored file is in the image");
    }

    let again = fixture.run(common.iter().copied().chain(["-o", "type=cacheonly", &app])).ok();
    assert_eq!(again.steps_run(), [""; 0], "{}", again.stderr);

    let server = Server::start(&files);
    assert!(server.fetch("/index.html").contains("Built by rbuild"));
    assert!(server.fetch("/cgi-bin/hello").contains("hello from busybox"));
}

/// The web server that was built.
struct Server {
    process: Child,
    port: u16,
}

impl Server {
    fn start(files: &Path) -> Self {
        // The port is free now; that somebody else takes it in between would show as a failure to answer.
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|socket| socket.local_addr())
            .expect("a port")
            .port();
        let process = Command::new(files.join("bin/busybox"))
            .args(["httpd", "-f", "-p", &format!("127.0.0.1:{port}"), "-h"])
            .arg(files.join("srv/www"))
            .stdin(Stdio::null())
            .spawn()
            .expect("the server starts");
        Self { process, port }
    }

    fn fetch(&self, path: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match TcpStream::connect(("127.0.0.1", self.port)) {
                Ok(mut stream) => {
                    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").expect("a request");
                    let mut answer = String::new();
                    stream.read_to_string(&mut answer).expect("an answer");
                    return answer;
                }
                Err(error) => {
                    assert!(Instant::now() < deadline, "the server does not answer: {error}");
                }
            }
            std::thread::yield_now();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn walk(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let entry = entry.expect("an entry");
            let kind = entry.file_type().expect("a type");
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                found.push((entry.path(), fs::read(entry.path()).expect("a file")));
            }
        }
    }
    found
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn privileged_a_c_program_is_compiled_on_debian() {
    const TEST: &str = "privileged_a_c_program_is_compiled_on_debian";
    if !have(TEST, "mmdebstrap") {
        return;
    }
    if TcpStream::connect("deb.debian.org:80").is_err() && std::env::var_os("http_proxy").is_none()
    {
        skipped(TEST, "Debian's packages cannot be reached");
        return;
    }
    let fixture = Fixture::new();
    let bootstrap = Command::new("mmdebstrap")
        .args(["--quiet", "--variant=minbase", "bookworm"])
        .arg(fixture.context().join("debian.tar"))
        .output()
        .expect("mmdebstrap runs");
    crate::fixture::ran(bootstrap).ok();
    fixture.write("Dockerfile", "FROM scratch\nADD debian.tar /\nCMD [\"bash\"]\n");
    fixture.build(&["-t", "debian:bookworm"]).ok();
    fs::remove_file(fixture.context().join("debian.tar")).expect("the archive");

    fixture.write(
        "hello.c",
        "#include <stdio.h>\nint main(void) { puts(\"hello from C\"); return 0; }\n",
    );
    fixture.write("Makefile", "hello: hello.c\n\tgcc -O2 -static -o $@ $<\n");
    fixture.write(
        "Dockerfile",
        "FROM debian:bookworm AS build\n\
         RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev make\n\
         WORKDIR /src\n\
         COPY hello.c Makefile ./\n\
         RUN make\n\
         FROM scratch\n\
         COPY --from=build /src/hello /hello\n\
         ENTRYPOINT [\"/hello\"]\n",
    );
    let out = fixture.build_files(&[]);
    let hello = Command::new(out.join("hello")).output().expect("the program runs");
    assert_eq!(String::from_utf8_lossy(&hello.stdout), "hello from C\n");
    assert_eq!(fs::read_dir(&out).expect("the files").count(), 1);
    assert_eq!(read(&out, "../context/hello.c").lines().count(), 2);
}
