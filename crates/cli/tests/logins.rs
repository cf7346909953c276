//! Secrets for servers: each gets its own, nobody else does, and nothing keeps or tells them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rbuild_testdata::{Reply, Request, Scripted};

use crate::fixture::{Fixture, Ran, ran, read};
use crate::servers::{Repository, git_over_http};

const TOKEN: &str = "hunter2-and-more";
/// `x-access-token:hunter2-and-more`
const TOKEN_HEADER: &str = "Basic eC1hY2Nlc3MtdG9rZW46aHVudGVyMi1hbmQtbW9yZQ==";
const ENCODED: &str = "eC1hY2Nlc3MtdG9rZW46aHVudGVyMi1hbmQtbW9yZQ==";

/// Repositories behind HTTP that want a header.
struct Guarded {
    server: Scripted,
    folder: Arc<tempfile::TempDir>,
}

impl Guarded {
    fn start(wanted: &'static str) -> Self {
        let folder = Arc::new(tempfile::tempdir().expect("a folder"));
        let base = Arc::clone(&folder);
        let server = Scripted::start(move |request, _| {
            assert_no_process_shows_it();
            match request.headers.get("authorization").map(String::as_str) {
                given if given == Some(wanted) || wanted.is_empty() => {
                    git_over_http(base.path(), request)
                }
                // As servers do that want to be helpful.
                Some(given) => Reply::new(403, format!("you said {given}\n"))
                    .header("Content-Type", "text/plain"),
                None => Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\""),
            }
        });
        Self { server, folder }
    }

    fn repository(&self, name: &str, files: &[(&str, &str)]) -> Repository {
        Repository::make(self.folder.path(), name, files)
    }

    fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.server.address())
    }

    fn said(&self) -> Vec<String> {
        authorizations(&self.server.requests())
    }
}

fn authorizations(requests: &[Request]) -> Vec<String> {
    requests.iter().filter_map(|request| request.headers.get("authorization").cloned()).collect()
}

/// While git is at work, its arguments are there for everybody to read.
fn assert_no_process_shows_it() {
    for process in fs::read_dir("/proc").expect("/proc").flatten() {
        let arguments = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&arguments);
        assert!(!arguments.contains(TOKEN) && !arguments.contains(ENCODED), "{arguments}");
    }
}

fn contains(path: &Path, text: &[u8]) -> bool {
    fs::read(path).is_ok_and(|bytes| bytes.windows(text.len()).any(|part| part == text))
}

/// No file below a folder has the token, in either form.
fn assert_not_kept(folder: &Path) {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder").flatten() {
            let (path, kind) = (entry.path(), entry.file_type().expect("a type"));
            match kind.is_dir() {
                true => folders.push(path),
                false => assert!(
                    !contains(&path, TOKEN.as_bytes()) && !contains(&path, ENCODED.as_bytes()),
                    "{}",
                    path.display()
                ),
            }
        }
    }
}

/// Adds an address to nothing, with secrets whose value is [`TOKEN`].
fn add(fixture: &Fixture, lines: &str, secrets: &[String]) -> (Ran, PathBuf) {
    fixture.write("Dockerfile", format!("FROM scratch\n{lines}\n"));
    let out = fixture.path("out");
    let _ = fs::remove_dir_all(&out);
    let mut command = fixture.command("store");
    command.args(["build", "--progress=plain", "-o"]);
    command.arg(format!("type=local,dest={}", out.display())).env("TOKEN", TOKEN).arg("context");
    for id in secrets {
        command.arg(format!("--secret=id={id},env=TOKEN"));
    }
    let ran = ran(command.output().expect("rbuild starts"));
    assert!(!ran.stderr.contains(TOKEN) && !ran.stderr.contains(ENCODED), "{}", ran.stderr);
    assert_not_kept(&fixture.path("store"));
    (ran, out)
}

#[test]
fn privileged_git_gets_the_token_of_its_host() {
    let server = Guarded::start(TOKEN_HEADER);
    server.repository("r.git", &[("f", "private")]);
    let fixture = Fixture::new();
    let line = format!("ADD --keep-git-dir=true {} /x", server.url("r.git"));

    let error = add(&fixture, &line, &[]).0.fails(1);
    assert!(error.contains("the repository needs a login: give a token"), "{error}");
    let other = ["GIT_AUTH_TOKEN.127.0.0.1".to_owned(), "GIT_AUTH_TOKEN.127.0.0.1:1".to_owned()];
    add(&fixture, &line, &other).0.fails(1);
    assert_eq!(server.said(), [""; 0]);

    for id in ["GIT_AUTH_TOKEN".to_owned(), format!("GIT_AUTH_TOKEN.{}", server.server.address())] {
        let (ran, out) = add(&Fixture::new(), &line, &[id]);
        drop((ran.ok(), out));
    }
    let (ran, out) = add(&fixture, &line, &["GIT_AUTH_TOKEN".to_owned()]);
    ran.ok();
    assert_eq!(read(&out, "x/f"), "private");
    assert_not_kept(&out);
    // A header that the server does not take, and repeats.
    let error = add(&Fixture::new(), &line, &["GIT_AUTH_HEADER".to_owned()]).0.fails(1);
    assert!(error.contains("the host does not take the login"), "{error}");
    assert!(error.contains("you said ****"), "{error}");
}

#[test]
fn privileged_git_takes_names_and_passwords_out_of_addresses() {
    let server = Guarded::start(TOKEN_HEADER);
    server.repository("r.git", &[("f", "private")]);
    let address = server.server.address();
    let fixture = Fixture::new();
    let url = format!("http://x-access-token:{TOKEN}@{address}/r.git");
    let out = fixture.path("out");
    // On the command line it is in the arguments of rbuild itself; in a file it is in none.
    fixture.write("Dockerfile", format!("FROM scratch\nADD --keep-git-dir=true {url} /x\n"));
    let spec = format!("type=local,dest={}", out.display());
    let ran = fixture.run(["build", "--progress=plain", "-o", &spec, "context"]).ok();
    assert_eq!(read(&out, "x/f"), "private");
    assert!(!ran.stderr.contains(TOKEN), "{}", ran.stderr);
    assert_not_kept(&fixture.path("store"));
    assert_not_kept(&out);
}

#[test]
fn privileged_git_says_nothing_to_others() {
    let server = Guarded::start(TOKEN_HEADER);
    let other = Guarded::start("");
    let inner = other.repository("inner.git", &[("i", "inner")]);
    let outer = server.repository("outer.git", &[("o", "outer")]);
    let id = inner.git(&["rev-parse", "HEAD"]);
    for (key, value) in [("path", "m"), ("url", &*other.url("inner.git"))] {
        outer.git(&["config", "-f", ".gitmodules", &format!("submodule.m.{key}"), value]);
    }
    outer.git(&["add", ".gitmodules"]);
    outer.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{id},m")]);
    outer.git(&["commit", "--quiet", "-m", "m"]);
    let line = format!("ADD {} /x", server.url("outer.git"));
    for secret in
        ["GIT_AUTH_TOKEN".to_owned(), format!("GIT_AUTH_TOKEN.{}", server.server.address())]
    {
        let fixture = Fixture::new();
        let (ran, out) = add(&fixture, &line, &[secret]);
        ran.ok();
        assert_eq!(read(&out, "x/m/i"), "inner");
        assert_eq!(other.said(), [""; 0]);
    }
    // A secret of its own it does get.
    let both = [&server, &other].map(|it| format!("GIT_AUTH_TOKEN.{}", it.server.address()));
    add(&Fixture::new(), &line, &both).0.ok();
    assert!(!other.said().is_empty());

    // A redirect leads nowhere with a login, and without one it does.
    let target = Arc::new(Guarded::start(""));
    target.repository("r.git", &[("f", "x")]);
    let address = target.server.address();
    let redirecting = Scripted::start(move |request, _| {
        Reply::new(302, "").header("Location", &format!("http://{address}{}", request.path))
    });
    let line = format!("ADD http://{}/r.git /x", redirecting.address());
    let error = add(&Fixture::new(), &line, &["GIT_AUTH_TOKEN".to_owned()]).0.fails(1);
    assert!(error.contains("never carried on to another host"), "{error}");
    assert_eq!(target.server.lines(), [""; 0]);
    add(&Fixture::new(), &line, &[]).0.ok();
    assert_eq!(target.said(), [""; 0]);
}

#[test]
fn privileged_git_follows_a_host_to_itself_with_its_login() {
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    let base = Arc::clone(&folder);
    let server = Scripted::start(move |request, _| {
        match (request.headers.get("authorization"), request.path.strip_prefix("/old/")) {
            (None, _) => Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\""),
            (Some(_), None) => git_over_http(base.path(), request),
            // Two redirects, one of them without a host.
            (Some(_), Some(path)) => {
                let there = match path.strip_prefix("older/") {
                    Some(path) => format!("http://{}/old/{path}", request.headers["host"]),
                    None => format!("/{path}").replace("plain/", "plain.git/"),
                };
                Reply::new(301, "").header("Location", &there)
            }
        }
    });
    let inner = Repository::make(folder.path(), "plain.git", &[("i", "inner")]);
    let outer = Repository::make(folder.path(), "outer.git", &[("o", "outer")]);
    let address = server.address();
    let id = inner.git(&["rev-parse", "HEAD"]);
    for (key, value) in [("path", "m"), ("url", &format!("http://{address}/old/plain"))] {
        outer.git(&["config", "-f", ".gitmodules", &format!("submodule.m.{key}"), value]);
    }
    outer.git(&["add", ".gitmodules"]);
    outer.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{id},m")]);
    outer.git(&["commit", "--quiet", "-m", "m"]);
    let line = format!("ADD http://{address}/old/older/outer.git /x");
    let fixture = Fixture::new();
    let (ran, out) = add(&fixture, &line, &["GIT_AUTH_TOKEN".to_owned()]);
    ran.ok();
    assert_eq!((read(&out, "x/o"), read(&out, "x/m/i")), ("outer".into(), "inner".into()));

    let round = Scripted::start(|request, _| {
        let there = request.path.replace("/a.git", "/c.git").replace("/b.git", "/a.git");
        Reply::new(302, "").header("Location", &there.replace("/c.git", "/b.git"))
    });
    let line = format!("ADD http://{}/a.git /x", round.address());
    let error = add(&Fixture::new(), &line, &["GIT_AUTH_TOKEN".to_owned()]).0.fails(1);
    assert!(error.contains("returned error: 302"), "{error}");
}

#[test]
fn privileged_files_by_http_get_the_login_of_their_host() {
    let other = Scripted::start(|_, _| Reply::new(200, "other"));
    let elsewhere = format!("http://{}/f", other.address());
    let server = Scripted::start(move |request, _| {
        match (request.path.as_str(), request.headers.get("authorization")) {
            ("/moved", _) => Reply::new(302, "").header("Location", &elsewhere),
            (_, Some(_)) => Reply::new(200, "private"),
            _ => Reply::new(401, ""),
        }
    });
    let (address, fixture) = (server.address(), Fixture::new());
    let lines = format!("ADD http://{address}/f http://{address}/moved /x/");
    let error = add(&fixture, &lines, &[]).0.fails(1);
    assert!(error.contains("invalid response status 401"), "{error}");
    let (ran, out) = add(&fixture, &lines, &[format!("HTTP_AUTH_TOKEN_{address}")]);
    ran.ok();
    assert_eq!((read(&out, "x/f"), read(&out, "x/moved")), ("private".into(), "other".into()));
    assert_eq!(authorizations(&other.requests()), [""; 0]);
    assert!(
        authorizations(&server.requests()).iter().all(|said| *said == format!("Bearer {TOKEN}"))
    );

    let (header, token) =
        (format!("HTTP_AUTH_HEADER_{address}"), format!("HTTP_AUTH_TOKEN_{address}"));
    add(&Fixture::new(), &lines, &[header, token]).0.ok();
    assert_eq!(authorizations(&server.requests()).last().map(String::as_str), Some(TOKEN));
}
