//! Running git as if there were no user, no system and no questions.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use super::GitErrorKind;
use super::access::Access;
use super::redirect::{self, Redirect};
use super::words;

/// What git may print that is read; a remote decides how much it is.
const MOST_OUTPUT: usize = 16 << 20;
/// How much of its complaints is kept: the end.
const KEPT_WORDS: usize = 64 << 10;
/// The memory of a git that lists references, which it does before it prints the first; a remote decides how many there are.
const MOST_LISTED: u64 = 1 << 30;

/// What git works with.
#[derive(Clone, Debug)]
pub struct GitOptions {
    /// The program: a name to be found in `PATH`, or a path.
    pub program: PathBuf,
    /// Variables that it gets: those that say how to reach the network, such as `PATH`, `https_proxy` and `SSL_CERT_FILE`.
    /// None of git's own should be among them.
    pub environment: Vec<(OsString, OsString)>,
    /// The hosts that ssh may connect to.
    pub known_hosts: Option<PathBuf>,
    /// The protocols that a repository and its submodules may come by.
    pub protocols: Vec<String>,
    /// How long a remote may say nothing at all.
    pub patience: Duration,
}

impl Default for GitOptions {
    fn default() -> Self {
        Self {
            program: PathBuf::from("git"),
            environment: Vec::new(),
            known_hosts: None,
            protocols: ["http", "https", "ssh", "git"].map(str::to_owned).into(),
            patience: Duration::from_secs(300),
        }
    }
}

/// A repository that git works on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Git<'a> {
    pub(super) options: &'a GitOptions,
    /// The repository itself.
    pub(super) dir: &'a Path,
    /// Its files.
    pub(super) work_tree: Option<&'a Path>,
    /// What `origin` is.
    pub(super) remote: &'a str,
    /// What it may use to get there.
    pub(super) access: &'a Access,
}

/// What git tells of its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trace {
    /// Complaints.
    Nothing,
    /// The headers that it gets, too.
    Headers,
}

/// Where git may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// To this machine's files.
    Here,
    /// To the remote, by the protocol that its address names or an encrypted one: a redirect cannot lead to one that is not.
    Remote,
    /// To submodules, by all protocols that are allowed; what they are is said by their commits.
    Submodules,
}

impl Git<'_> {
    /// Runs git on this machine's files only.
    pub(super) async fn run_here<A: AsRef<OsStr>>(
        &self,
        what: &'static str,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<String, GitErrorKind> {
        self.run(Reach::Here, what, arguments).await
    }

    /// Runs git; again where a host that gets a login sends it to itself. Whoever drops the future ends it, and all that it
    /// has started.
    pub(super) async fn run<A: AsRef<OsStr>>(
        &self,
        reach: Reach,
        what: &'static str,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<String, GitErrorKind> {
        let arguments: Vec<OsString> =
            arguments.into_iter().map(|argument| argument.as_ref().to_owned()).collect();
        loop {
            let words = match self.once(reach, what, &arguments, Trace::Nothing).await? {
                Ok(output) => return Ok(output),
                Err(words) => words,
            };
            let said = words::last(&self.access.hide_in(&words));
            if reach != Reach::Here && redirect::is_refused(&said) {
                let trace = match self.once(reach, what, &arguments, Trace::Headers).await? {
                    Ok(output) => return Ok(output),
                    Err(trace) => trace,
                };
                if Redirect::of(&trace).is_some_and(|redirect| self.access.follow(&redirect)) {
                    continue;
                }
            }
            let advice = words::advice(&said, self.access);
            return Err(GitErrorKind::Failed { command: what, said, advice });
        }
    }

    /// Runs git once; an error of its own is what it complains of.
    async fn once(
        &self,
        reach: Reach,
        what: &'static str,
        arguments: &[OsString],
        trace: Trace,
    ) -> Result<Result<String, String>, GitErrorKind> {
        let mut command = Command::new(&self.options.program);
        command
            .env_clear()
            .envs(self.options.environment.iter().map(|(name, value)| (name, value)));
        self.configure(&mut command, reach);
        if trace == Trace::Headers {
            command.env("GIT_TRACE_CURL", "1").env("GIT_TRACE_CURL_NO_DATA", "1");
        }
        command
            .args(arguments)
            .current_dir(self.work_tree.unwrap_or(self.dir))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        self.access.serving(self.attend(command, reach, what)).await
    }

    /// Starts git and waits for its end.
    async fn attend(
        &self,
        mut command: Command,
        reach: Reach,
        what: &'static str,
    ) -> Result<Result<String, String>, GitErrorKind> {
        let mut child = command.spawn().map_err(GitErrorKind::Program)?;
        let mut group = Group(child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)));
        if what == "ls-remote" {
            group.limit_memory(MOST_LISTED);
        }
        let heard = Heard::default();
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let reading = async {
            let output = async {
                let read = read(stdout, MOST_OUTPUT, Excess::Ends, &heard).await;
                let output = read.map_err(GitErrorKind::Program)?;
                match output.len() > MOST_OUTPUT {
                    true => Err(GitErrorKind::TooMuch(what)),
                    false => Ok(output),
                }
            };
            let words = async {
                let read = read(stderr, KEPT_WORDS, Excess::LetGo, &heard).await;
                read.map_err(GitErrorKind::Program)
            };
            tokio::try_join!(output, words)
        };
        let (output, words) = match reach {
            Reach::Here => reading.await?,
            _ => tokio::select! {
                read = reading => read?,
                () = heard.silence(self.options.patience) => {
                    return Err(GitErrorKind::Silent(what, self.options.patience.as_secs()));
                }
            },
        };
        let status = child.wait().await.map_err(GitErrorKind::Program)?;
        group.0 = None;
        Ok(match status.success() {
            true => Ok(String::from_utf8_lossy(&output).into_owned()),
            false => Err(String::from_utf8_lossy(&words).into_owned()),
        })
    }

    fn configure(&self, command: &mut Command, reach: Reach) {
        // Relative, so that a git that outlives its build writes into no mirror that is made in its place.
        match self.work_tree {
            None => command.env("GIT_DIR", "."),
            Some(work_tree) => command.env("GIT_DIR", self.dir).env("GIT_WORK_TREE", work_tree),
        };
        for (name, value) in [
            ("LC_ALL", "C"),
            // No ~/.netrc and no ~/.ssh either.
            ("HOME", "/nonexistent"),
            ("XDG_CONFIG_HOME", "/nonexistent"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_ATTR_NOSYSTEM", "1"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_ASKPASS", ""),
            ("SSH_ASKPASS", ""),
            ("GIT_TEMPLATE_DIR", ""),
        ] {
            command.env(name, value);
        }
        let remotes_own = protocol(self.remote);
        let is_allowed = |protocol: &&String| match reach {
            Reach::Here => false,
            Reach::Remote => {
                **protocol == remotes_own || (*protocol == "https" && remotes_own == "http")
            }
            Reach::Submodules => true,
        };
        let protocols: Vec<&str> =
            self.options.protocols.iter().filter(is_allowed).map(String::as_str).collect();
        let protocols = if reach == Reach::Here { "file".to_owned() } else { protocols.join(":") };
        command
            .env("GIT_ALLOW_PROTOCOL", protocols)
            .env("GIT_SSH_COMMAND", self.ssh())
            .env("GIT_SSH_VARIANT", "ssh");
        // Of this repository only; submodules have a remote of their own.
        command
            .env("GIT_CONFIG_COUNT", "1")
            .env("GIT_CONFIG_KEY_0", "remote.origin.url")
            .env("GIT_CONFIG_VALUE_0", self.remote);
        // What is given so goes along to the gits that are started for submodules.
        for setting in [
            "core.hooksPath=/dev/null",
            "core.fsmonitor=false",
            "core.attributesFile=/dev/null",
            "core.excludesFile=/dev/null",
            "core.askPass=",
            "credential.helper=",
            "credential.interactive=false",
            // A store may belong to another id of the same user.
            "safe.directory=*",
            "gc.auto=0",
            "maintenance.auto=false",
            "fetch.recurseSubmodules=false",
            "submodule.recurse=false",
            "init.defaultBranch=main",
            "advice.detachedHead=false",
            // A transfer that has as good as ended.
            "http.lowSpeedLimit=100",
            "http.lowSpeedTime=60",
        ] {
            command.arg("-c").arg(setting);
        }
        if reach == Reach::Here {
            return;
        }
        if let Some(agent) = self.access.agent_path() {
            command.env("SSH_AUTH_SOCK", agent);
        }
        for moved in self.access.moved() {
            command.arg("-c").arg(format!("url.{}.insteadOf={}", moved.to, moved.from));
        }
        // git says a header to whom a redirect leads to, too, so there must be none.
        for (index, (address, login)) in self.access.logins.iter().enumerate() {
            let variable = format!("RBUILD_LOGIN_{index}");
            command
                .arg("-c")
                .arg(format!("http.{address}.followRedirects=false"))
                .arg(format!("--config-env=http.{address}.extraHeader={variable}"))
                .env(variable, format!("Authorization: {}", login.value()));
        }
    }

    /// ssh with keys from the agent alone, to hosts that are known. git gives this to a shell.
    fn ssh(&self) -> OsString {
        let mut ssh = OsString::from(
            "ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=yes -o ConnectTimeout=15 \
             -o ServerAliveInterval=15 -o ServerAliveCountMax=4 -o PermitLocalCommand=no \
             -o IdentityFile=none -o ForwardAgent=no",
        );
        if let Some(known_hosts) = &self.options.known_hosts {
            ssh.push(" -o UserKnownHostsFile=");
            ssh.push(shell_word(&known_hosts.to_string_lossy()));
        }
        ssh
    }
}

/// By which protocol git reaches an address.
fn protocol(remote: &str) -> String {
    remote.split_once("://").map_or("ssh".to_owned(), |(scheme, _)| scheme.to_ascii_lowercase())
}

fn shell_word(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The processes of a git that runs; they end with this.
struct Group(Option<Pid>);

impl Group {
    /// Limits the memory of git, and of what it has yet to start.
    fn limit_memory(&self, bytes: u64) {
        let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
        // It may have ended already.
        let _ = rustix::process::prlimit(self.0, Resource::Data, limit);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // There may be none left.
            let _ = rustix::process::kill_process_group(leader, Signal::KILL);
        }
    }
}

/// When something was heard last.
struct Heard(Mutex<Instant>);

impl Default for Heard {
    fn default() -> Self {
        Self(Mutex::new(Instant::now()))
    }
}

impl Heard {
    fn something(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Waits until nothing was heard for so long.
    async fn silence(&self, patience: Duration) {
        loop {
            let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(left) = patience.checked_sub(last.elapsed()) else { return };
            tokio::time::sleep(left).await;
        }
    }
}

/// What becomes of more bytes than the limit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Excess {
    /// Reading ends.
    Ends,
    /// The oldest are let go.
    LetGo,
}

/// Reads a pipe to its end.
async fn read(
    pipe: Option<impl AsyncRead + Unpin>,
    limit: usize,
    excess: Excess,
    heard: &Heard,
) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let Some(mut pipe) = pipe else { return Ok(bytes) };
    while pipe.read_buf(&mut bytes).await? > 0 {
        heard.something();
        match excess {
            Excess::Ends if bytes.len() > limit => break,
            Excess::LetGo if bytes.len() > 2 * limit => drop(bytes.drain(..bytes.len() - limit)),
            _ => {}
        }
    }
    Ok(bytes)
}
