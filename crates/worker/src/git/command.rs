//! Running git as if there were no user, no system and no questions.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use super::GitErrorKind;

/// What git may print that is read; a remote decides how much it is.
const MOST_OUTPUT: u64 = 16 << 20;
/// How much of its complaints is kept.
const MOST_WORDS: u64 = 64 << 10;
/// How much of them is shown.
const SHOWN_WORDS: usize = 1000;

/// What git works with.
#[derive(Clone, Debug)]
pub struct GitOptions {
    /// The program: a name to be found in `PATH`, or a path.
    pub program: PathBuf,
    /// Variables that it gets: those that say how to reach the network, such as `PATH`, `https_proxy`, `SSL_CERT_FILE` and
    /// `SSH_AUTH_SOCK`. None of git's own should be among them.
    pub environment: Vec<(OsString, OsString)>,
    /// The hosts that ssh may connect to.
    pub known_hosts: Option<PathBuf>,
    /// The protocols that a repository and its submodules may come by.
    pub protocols: Vec<String>,
}

impl Default for GitOptions {
    fn default() -> Self {
        Self {
            program: PathBuf::from("git"),
            environment: Vec::new(),
            known_hosts: None,
            protocols: ["http", "https", "ssh", "git"].map(str::to_owned).into(),
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
    /// What `origin` is. It is in no file and no argument, as it may have a password.
    pub(super) remote: &'a str,
}

impl Git<'_> {
    /// Runs git over the protocols that are allowed.
    pub(super) async fn run<A: AsRef<OsStr>>(
        &self,
        what: &'static str,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<String, GitErrorKind> {
        self.run_over(&self.options.protocols.join(":"), what, arguments).await
    }

    /// Runs git on this machine's files only.
    pub(super) async fn run_here<A: AsRef<OsStr>>(
        &self,
        what: &'static str,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<String, GitErrorKind> {
        self.run_over("file", what, arguments).await
    }

    async fn run_over<A: AsRef<OsStr>>(
        &self,
        protocols: &str,
        what: &'static str,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<String, GitErrorKind> {
        let mut command = Command::new(&self.options.program);
        command
            .env_clear()
            .envs(self.options.environment.iter().map(|(name, value)| (name, value)));
        self.configure(&mut command);
        command
            .env("GIT_ALLOW_PROTOCOL", protocols)
            .args(arguments)
            .current_dir(self.work_tree.unwrap_or(self.dir))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(GitErrorKind::Program)?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (output, words) = tokio::try_join!(read(stdout, MOST_OUTPUT), read(stderr, MOST_WORDS))
            .map_err(GitErrorKind::Program)?;
        if output.len() as u64 > MOST_OUTPUT {
            return Err(GitErrorKind::TooMuch(what));
        }
        let status = child.wait().await.map_err(GitErrorKind::Program)?;
        if !status.success() {
            return Err(GitErrorKind::Failed { command: what, said: self.last_words(&words) });
        }
        Ok(String::from_utf8_lossy(&output).into_owned())
    }

    fn configure(&self, command: &mut Command) {
        command.env("GIT_DIR", self.dir);
        if let Some(work_tree) = self.work_tree {
            command.env("GIT_WORK_TREE", work_tree);
        }
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
        command.env("GIT_SSH_COMMAND", self.ssh()).env("GIT_SSH_VARIANT", "ssh");
        let settings = [
            ("remote.origin.url", self.remote),
            ("core.hooksPath", "/dev/null"),
            ("core.fsmonitor", "false"),
            ("core.attributesFile", "/dev/null"),
            ("core.excludesFile", "/dev/null"),
            ("core.askPass", ""),
            ("credential.helper", ""),
            ("credential.interactive", "false"),
            // A store may belong to another id of the same user.
            ("safe.directory", "*"),
            ("gc.auto", "0"),
            ("maintenance.auto", "false"),
            ("fetch.recurseSubmodules", "false"),
            ("submodule.recurse", "false"),
            ("init.defaultBranch", "main"),
            ("advice.detachedHead", "false"),
            // A transfer that has as good as ended.
            ("http.lowSpeedLimit", "100"),
            ("http.lowSpeedTime", "60"),
        ];
        command.env("GIT_CONFIG_COUNT", settings.len().to_string());
        for (index, (name, value)) in settings.iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{index}"), name);
            command.env(format!("GIT_CONFIG_VALUE_{index}"), value);
        }
    }

    /// ssh with keys from the agent alone, to hosts that are known. git gives this to a shell.
    fn ssh(&self) -> OsString {
        let mut ssh = OsString::from(
            "ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=yes -o ConnectTimeout=15 \
             -o ServerAliveInterval=15 -o ServerAliveCountMax=4 -o PermitLocalCommand=no",
        );
        if let Some(known_hosts) = &self.options.known_hosts {
            ssh.push(" -o UserKnownHostsFile=");
            ssh.push(shell_word(&known_hosts.to_string_lossy()));
        }
        ssh
    }

    /// The end of what git complained of, without the password that it may repeat.
    fn last_words(&self, words: &[u8]) -> String {
        let words = String::from_utf8_lossy(words);
        let words = words.replace(self.remote, &rbuild_solver::redact_url(self.remote));
        let words = words.trim();
        let mut start = words.len().saturating_sub(SHOWN_WORDS);
        while !words.is_char_boundary(start) {
            start += 1;
        }
        words[start..]
            .chars()
            .map(|character| match character {
                '\n' => character,
                character if character.is_control() => ' ',
                character => character,
            })
            .collect()
    }
}

fn shell_word(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Reads to the end, and keeps one byte more than `limit` at most.
async fn read(pipe: Option<impl AsyncRead + Unpin>, limit: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        (&mut pipe).take(limit + 1).read_to_end(&mut bytes).await?;
        tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await?;
    }
    Ok(bytes)
}
