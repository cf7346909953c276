//! `--ssh` with key files: git over ssh, against OpenSSH's own server.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::fixture::{Fixture, Ran, ran, read, skipped};
use crate::servers::GitServer;

const SSHD: &str = "/usr/sbin/sshd";

/// OpenSSH's server, one process a connection, and keys that it lets in.
struct SshServer {
    server: GitServer,
    keys: tempfile::TempDir,
}

impl SshServer {
    /// `None` when the server is not installed or cannot run here.
    fn start(test: &str) -> Option<Self> {
        if !Path::new(SSHD).exists() || !rustix::process::geteuid().is_root() {
            skipped(test, "needs openssh-server, and root to run it");
            return None;
        }
        // Where it puts an empty root for its own processes; Debian makes it when the service starts.
        let _ = fs::create_dir("/run/sshd");
        let keys = tempfile::tempdir().expect("a folder");
        make_key(&keys.path().join("host"), &["-t", "ed25519"]);
        let config = keys.path().join("config");
        let folder = keys.path().display();
        let lines = format!(
            "HostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\nStrictModes no\nUsePAM no\n\
             PasswordAuthentication no\nPermitRootLogin yes\nPidFile none\nLogLevel QUIET\n"
        );
        fs::write(&config, lines).expect("a file");
        let server = GitServer::start_with(move |_| {
            let mut sshd = Command::new(SSHD);
            sshd.args(["-i", "-f"]).arg(&config);
            sshd
        });
        Some(Self { server, keys })
    }

    /// Makes a key that is let in.
    fn key(&self, name: &str, how: &[&str]) -> PathBuf {
        let path = self.keys.path().join(name);
        make_key(&path, how);
        let public = fs::read_to_string(path.with_extension("pub")).expect("the public key");
        fs::write(self.keys.path().join("authorized"), public).expect("a file");
        path
    }

    fn url(&self, name: &str) -> String {
        let folder = self.server.base.path().display();
        format!("ssh://root@127.0.0.1:{}{folder}/{name}", self.server.port)
    }

    /// A fixture whose user knows the host.
    fn fixture(&self) -> Fixture {
        let fixture = Fixture::new();
        let host = fs::read_to_string(self.keys.path().join("host.pub")).expect("the host's key");
        fs::create_dir(fixture.path(".ssh")).expect("a folder");
        let line = format!("[127.0.0.1]:{} {host}", self.server.port);
        fs::write(fixture.path(".ssh/known_hosts"), line).expect("a file");
        fixture
    }
}

fn make_key(path: &Path, how: &[&str]) {
    let made = Command::new("ssh-keygen")
        .args(["-q", "-C", "a comment", "-f"])
        .arg(path)
        .args(how)
        .args(if how.contains(&"-N") { &[][..] } else { &["-N", ""] })
        .stdin(Stdio::null())
        .status();
    assert!(made.expect("ssh-keygen runs").success());
}

fn build(fixture: &Fixture, line: &str, ssh: &[&str]) -> (Ran, PathBuf) {
    fixture.write("Dockerfile", format!("FROM scratch\n{line}\n"));
    let out = fixture.path("out");
    let _ = fs::remove_dir_all(&out);
    let mut command = fixture.command("store");
    command.args(["build", "--progress=plain", "-o"]);
    command.arg(format!("type=local,dest={}", out.display()));
    for ssh in ssh {
        command.args(["--ssh", ssh]);
    }
    (ran(command.arg("context").output().expect("rbuild starts")), out)
}

#[test]
fn privileged_repositories_behind_ssh_come_with_key_files() {
    let Some(server) = SshServer::start("privileged_repositories_behind_ssh_come_with_key_files")
    else {
        return;
    };
    server.server.repository("r.git", &[("f", "x")]);
    let line = format!("ADD {} /x", server.url("r.git"));
    for (name, how) in [
        ("ed25519", &["-t", "ed25519"][..]),
        ("rsa", &["-t", "rsa", "-b", "2048"]),
        ("pem", &["-t", "rsa", "-b", "3072", "-m", "PEM"]),
        ("pkcs8", &["-t", "ecdsa", "-b", "384", "-m", "PKCS8"]),
        ("p256", &["-t", "ecdsa", "-b", "256"]),
    ] {
        let key = server.key(name, how);
        let fixture = server.fixture();
        let (ran, out) = build(&fixture, &line, &[&format!("default={}", key.display())]);
        ran.ok();
        assert_eq!(read(&out, "x/f"), "x", "{name}");
    }

    // Several keys, of which the second opens; and none, or for somebody else.
    let other = server.key("other", &["-t", "ed25519"]);
    let key = server.key("last", &["-t", "ed25519"]);
    let both = format!("default={},{}", other.display(), key.display());
    build(&server.fixture(), &line, &[&both]).0.ok();
    let other = format!("default={}", other.display());
    for (ssh, words) in [
        (&[][..], "no SSH agent was given: name one, or a key, with --ssh default"),
        (&[other.as_str()], "the agent given with --ssh has no key that the host takes"),
    ] {
        let error = build(&server.fixture(), &line, ssh).0.fails(1);
        assert!(error.contains(words), "{error}");
    }
    let error = build(&Fixture::new(), &line, &[&both]).0.fails(1);
    assert!(error.contains("the host is not in ~/.ssh/known_hosts"), "{error}");
}

#[test]
fn privileged_an_agent_is_only_used_when_it_is_given() {
    let test = "privileged_an_agent_is_only_used_when_it_is_given";
    let Some(server) = SshServer::start(test) else { return };
    server.server.repository("r.git", &[("f", "x"), ("Dockerfile", "FROM scratch\nCOPY f /\n")]);
    let key = server.key("key", &["-t", "ed25519"]);
    let fixture = server.fixture();
    let socket = fixture.path("agent");
    let mut agent = Command::new("ssh-agent")
        .args(["-D", "-a"])
        .arg(&socket)
        .stdout(Stdio::null())
        .spawn()
        .expect("ssh-agent starts");
    let added = || {
        let mut command = Command::new("ssh-add");
        command.arg("-q").arg(&key).env("SSH_AUTH_SOCK", &socket).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    while !added() {
        assert!(agent.try_wait().expect("a child").is_none(), "the agent has ended");
        std::thread::yield_now();
    }
    fixture.write("Dockerfile", format!("FROM scratch\nADD {} /x\n", server.url("r.git")));
    let run = |args: &[&str]| {
        let mut command = fixture.command("store");
        command.args(["build", "--progress=plain", "-o", "type=cacheonly"]).args(args);
        ran(command.env("SSH_AUTH_SOCK", &socket).output().expect("rbuild starts"))
    };
    let error = run(&["context"]).fails(1);
    assert!(error.contains("no SSH agent was given"), "{error}");
    run(&["--ssh", "default", "context"]).ok();
    // A repository that the user typed.
    run(&[&server.url("r.git")]).ok();
    agent.kill().expect("the agent ends");
    agent.wait().expect("the agent ends");
}

#[test]
fn keys_that_cannot_be_used_are_refused() {
    let fixture = Fixture::with("FROM scratch\nCOPY . /\n");
    let make = |name: &str, how: &[&str]| {
        let path = fixture.path(name);
        make_key(&path, how);
        path
    };
    let plain = make("plain", &["-t", "ed25519"]);
    let garbage = fixture.path("garbage");
    let text = fs::read_to_string(&plain).expect("a key");
    fs::write(&garbage, text.replace('A', "B")).expect("a file");
    fs::set_permissions(&garbage, fs::Permissions::from_mode(0o600)).expect("a mode");
    for (path, words) in [
        (make("locked", &["-t", "ed25519", "-N", "secret"]), "the key is encrypted"),
        (make("pem", &["-t", "rsa", "-m", "PEM", "-N", "secret"]), "the key is encrypted"),
        (make("pkcs8", &["-t", "rsa", "-m", "PKCS8", "-N", "secret"]), "the key is encrypted"),
        (make("p521", &["-t", "ecdsa", "-b", "521"]), "keys of type ecdsa-sha2-nistp521 cannot"),
        (make("short", &["-t", "rsa", "-b", "1024"]), "RSA keys have 2048 to 4096 bits"),
        (plain.with_extension("pub"), "it is no private key of SSH"),
        (garbage, "`"),
        (fixture.path("none"), "cannot read `"),
    ] {
        let spec = format!("default={}", path.display());
        let error = fixture.run(["build", "--ssh", &spec, "context"]).fails(2);
        assert!(error.contains(words) && error.contains(&spec), "{error}");
    }
}
