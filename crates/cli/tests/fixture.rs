//! A store, a base image and a context folder of one test's own, and the binary to run on them.

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rbuild_testdata::{Layout, busybox_image, validate};
use tempfile::TempDir;

/// Everything that one test uses; gone with it.
#[derive(Debug)]
pub(crate) struct Fixture {
    folder: TempDir,
}

/// What a run of rbuild gave.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ran {
    /// The run, which must have succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{}", self.stderr);
        self
    }

    /// What the run, which must have failed with this exit code, says.
    #[track_caller]
    pub(crate) fn fails(self, code: i32) -> String {
        assert_eq!(self.code, code, "{}", self.stderr);
        self.stderr
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The names of the vertices that were neither cached nor internal, in the order of their numbers.
    pub(crate) fn steps_run(&self) -> Vec<String> {
        self.steps("DONE")
    }

    /// The names of the vertices that were cached.
    pub(crate) fn steps_cached(&self) -> Vec<String> {
        self.steps("CACHED")
    }

    fn steps(&self, how: &str) -> Vec<String> {
        let mut names = std::collections::BTreeMap::new();
        let mut found = Vec::new();
        for line in self.stderr.lines().filter_map(|line| line.strip_prefix('#')) {
            let Some((number, rest)) = line.split_once(' ') else { continue };
            if rest.starts_with('[') && !names.contains_key(number) {
                names.insert(number.to_owned(), rest.to_owned());
            } else if rest.split(' ').next() == Some(how)
                && let Some(name) = names.get(number)
                && !name.contains("internal] ")
            {
                found.push(name.clone());
            }
        }
        found
    }
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test");
        fs::create_dir(folder.path().join("context")).expect("a context folder");
        Self { folder }
    }

    /// A fixture with the Dockerfile of this text.
    pub(crate) fn with(dockerfile: &str) -> Self {
        let fixture = Self::new();
        fixture.write("Dockerfile", dockerfile);
        fixture
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn context(&self) -> PathBuf {
        self.path("context")
    }

    /// Writes a file of the context, with its folders.
    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.context().join(name);
        fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("its folders");
        fs::write(path, text).expect("the file");
    }

    /// The folder of an OCI layout with a busybox image, made at the first call.
    pub(crate) fn busybox(&self) -> PathBuf {
        let folder = self.path("busybox");
        if !folder.exists() {
            let mut layout = Layout::create(&folder);
            layout.add(Some("latest"), &busybox_image().publish());
        }
        folder
    }

    /// `rbuild` on this fixture's store; nothing of the caller's environment reaches it but PATH.
    pub(crate) fn command(&self, store: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rbuild"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.folder.path())
            .env("RBUILD_ROOT", self.path(store))
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs `rbuild ARGS`.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Ran {
        ran(self.command("store").args(args).output().expect("rbuild starts"))
    }

    /// Runs `rbuild build --progress=plain`, with busybox as a named context, on the context folder.
    pub(crate) fn build(&self, args: &[&str]) -> Ran {
        self.build_in("store", args)
    }

    /// As [`Fixture::build`], with another store.
    pub(crate) fn build_in(&self, store: &str, args: &[&str]) -> Ran {
        ran(self.build_command(store, args).output().expect("rbuild starts"))
    }

    /// The command of [`Fixture::build`].
    pub(crate) fn build_command(&self, store: &str, args: &[&str]) -> Command {
        let busybox = format!("busybox=oci-layout://{}:latest", self.busybox().display());
        let mut command = self.command(store);
        command
            .args(["build", "--progress=plain", "--build-context", &busybox])
            .args(args)
            .arg(self.context());
        command
    }

    /// Builds and writes the files to a folder, whose path is returned.
    #[track_caller]
    pub(crate) fn build_files(&self, args: &[&str]) -> PathBuf {
        let out = self.path("out");
        let spec = format!("type=local,dest={}", out.display());
        self.build(&[&["-o", &spec], args].concat()).ok();
        out
    }

    /// Runs a command under strace with these options; gives what was traced as well.
    pub(crate) fn traced(&self, command: &Command, options: &[&str]) -> (Ran, String) {
        let trace = self.path("trace");
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-o"]).arg(&trace).args(options);
        strace.arg(command.get_program()).args(command.get_args()).env_clear();
        strace.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
        let done = strace.current_dir(self.folder.path()).stdin(Stdio::null()).output();
        (ran(done.expect("strace starts")), fs::read_to_string(&trace).expect("the trace"))
    }

    /// Runs `rbuild ARGS` with this on standard input.
    pub(crate) fn run_with_input(&self, args: &[&str], input: &[u8]) -> Ran {
        let mut child = self
            .command("store")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("rbuild starts");
        // A program that refuses its input early closes the pipe.
        let _ = child.stdin.take().expect("a pipe").write_all(input);
        ran(child.wait_with_output().expect("rbuild ends"))
    }
}

pub(crate) fn ran(output: Output) -> Ran {
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Reads a file of an exported folder.
#[track_caller]
pub(crate) fn read(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Whether a program of another project is there; says so, loudly, when the test cannot run without it.
pub(crate) fn have(test: &str, program: &str) -> bool {
    let found = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok();
    if !found {
        skipped(test, &format!("{program} is not installed"));
    }
    found
}

/// Compiles a C program; says so, loudly, when the test cannot run without it.
pub(crate) fn compiled(test: &str, source: &str, program: &Path) -> bool {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("program.c");
    fs::write(&file, source).expect("the source");
    let compiler =
        Command::new("cc").args(["-static", "-D_GNU_SOURCE", "-o"]).args([program, &file]).output();
    match compiler {
        Ok(output) if output.status.success() => return true,
        Ok(output) => skipped(test, &String::from_utf8_lossy(&output.stderr)),
        Err(error) => skipped(test, &format!("no C compiler: {error}")),
    }
    false
}

/// The one image of an archive (`oci` or `docker`), every digest, diff id and size of which is right.
#[track_caller]
pub(crate) fn valid(kind: &str, archive: &Path) -> validate::ValidImage {
    let bytes = fs::read(archive).expect("the archive");
    let images = match kind {
        "oci" => validate::oci_archive(&bytes),
        _ => validate::docker_archive(&bytes),
    };
    images.unwrap_or_else(|error| panic!("{kind}: {error}")).into_iter().next().expect("an image")
}

/// Says, loudly and where `make test` counts it, that a test could not run.
#[expect(clippy::print_stderr, reason = "tests have no other way to say it")]
pub(crate) fn skipped(test: &str, why: &str) {
    eprintln!("SKIPPED {test}: {why}");
}
