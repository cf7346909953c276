//! Servers on the loopback that have repositories.

use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use rbuild_testdata::{Reply, Request};

/// When all commits are made.
pub(crate) const SECONDS: i64 = 784_111_777;

/// Repositories, served by git's own daemon, one process a connection.
pub(crate) struct GitServer {
    pub(crate) port: u16,
    listener: TcpListener,
    thread: Option<thread::JoinHandle<()>>,
    pub(crate) base: tempfile::TempDir,
}

impl GitServer {
    pub(crate) fn start() -> Self {
        Self::start_with(|folder| {
            let mut daemon = Command::new("git");
            daemon
                .args(["daemon", "--inetd", "--export-all", "--informative-errors"])
                .arg(format!("--base-path={}", folder.display()))
                .env("GIT_CONFIG_COUNT", "1")
                .env("GIT_CONFIG_KEY_0", "safe.directory")
                .env("GIT_CONFIG_VALUE_0", "*");
            daemon
        })
    }

    /// Repositories in a folder, served by what `daemon` makes of it for each connection.
    pub(crate) fn start_with(daemon: impl Fn(&Path) -> Command + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let port = listener.local_addr().expect("an address").port();
        let base = tempfile::tempdir().expect("a folder");
        let accepting = listener.try_clone().expect("a socket");
        let folder = base.path().to_owned();
        let thread = thread::spawn(move || {
            while let Ok((stream, _)) = accepting.accept() {
                serve(stream, daemon(&folder));
            }
        });
        Self { port, listener, thread: Some(thread), base }
    }

    pub(crate) fn url(&self, name: &str) -> String {
        format!("git://127.0.0.1:{}/{name}", self.port)
    }

    /// Makes a repository with these files in one commit.
    pub(crate) fn repository(&self, name: &str, files: &[(&str, &str)]) -> Repository {
        Repository::make(self.base.path(), name, files)
    }
}

impl Drop for GitServer {
    fn drop(&mut self) {
        let _ = self.listener.set_nonblocking(true);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(stream: TcpStream, mut daemon: Command) {
    let Ok(output) = stream.try_clone() else { return };
    let _ = daemon
        .stdin(OwnedFd::from(stream))
        .stdout(OwnedFd::from(output))
        .stderr(Stdio::null())
        .status();
}

pub(crate) struct Repository {
    pub(crate) folder: PathBuf,
}

impl Repository {
    /// Makes a repository with these files in one commit.
    pub(crate) fn make(base: &Path, name: &str, files: &[(&str, &str)]) -> Self {
        let repository = Self { folder: base.join(name) };
        fs::create_dir_all(&repository.folder).expect("a folder");
        repository.git(&["init", "--quiet", "--initial-branch=main"]);
        repository.commit(files);
        repository
    }

    pub(crate) fn git(&self, args: &[&str]) -> String {
        let output = Command::new("git")
            .args(["-c", "user.name=n", "-c", "user.email=e", "-c", "protocol.file.allow=always"])
            .args(args)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_COMMITTER_DATE", format!("{SECONDS} +0000"))
            .env("GIT_AUTHOR_DATE", format!("{SECONDS} +0000"))
            .current_dir(&self.folder)
            .output()
            .expect("git runs");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Makes a branch with a tree that git itself would not make, given as `git ls-tree` writes one.
    pub(crate) fn branch_of_tree(&self, name: &str, tree: &str) {
        let mut object = Vec::new();
        for line in tree.lines() {
            let (head, path) = line.split_once('\t').expect("a tab");
            let [mode, _, id] = head.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            object.extend(format!("{mode} {path}\0").into_bytes());
            let digits = id.as_bytes().chunks(2).map(|pair| {
                let pair = std::str::from_utf8(pair).expect("digits");
                u8::from_str_radix(pair, 16).expect("digits")
            });
            object.extend(digits);
        }
        let file = self.folder.join(".git/tree");
        fs::write(&file, object).expect("a file");
        let file = file.display().to_string();
        let tree = self.git(&["hash-object", "-w", "-t", "tree", "--literally", &file]);
        let commit = self.git(&["commit-tree", "-m", "m", &tree]);
        self.git(&["branch", name, &commit]);
    }

    /// Writes files and commits them; the commit's id.
    pub(crate) fn commit(&self, files: &[(&str, &str)]) -> String {
        for (name, text) in files {
            let path = self.folder.join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("its folders");
            fs::write(path, text).expect("a file");
        }
        self.git(&["add", "--all", "--force"]);
        self.git(&["commit", "--quiet", "--allow-empty", "-m", "m"]);
        self.git(&["rev-parse", "HEAD"])
    }
}

/// Answers as a web server does that leaves repositories to git's own program for it.
pub(crate) fn git_over_http(folder: &Path, request: &Request) -> Reply {
    let header = |name: &str| request.headers.get(name).cloned().unwrap_or_default();
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let mut child = Command::new("git")
        .args(["-c", "safe.directory=*", "http-backend"])
        .env("GIT_PROJECT_ROOT", folder)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", &request.method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", header("content-type"))
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("git runs");
    child.stdin.take().expect("a pipe").write_all(&request.body).expect("git reads");
    let output = child.wait_with_output().expect("git ends").stdout;
    let end = output.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("headers");
    let head = String::from_utf8_lossy(&output[..end]).into_owned();
    let headers = head.lines().filter_map(|line| line.split_once(": "));
    headers.fold(Reply::new(200, &output[end + 4..]), |reply, (name, value)| match name {
        "Status" => Reply { status: value[..3].parse().expect("a status"), ..reply },
        _ => reply.header(name, value),
    })
}
