//! A root to run steps in, and ways to run them.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rbuild_worker::{
    Exit, ExitStatus, Mount, MountAttributes, MountKind, OutputStream, Sandbox, SandboxError,
    SandboxSpec,
};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{OpenTreeFlags, open_tree};
use tempfile::TempDir;

pub(crate) const FIXTURE: &str = env!("CARGO_BIN_EXE_rbuild-sandbox-fixture");

const APPLETS: [&str; 28] = [
    "sh", "cat", "ls", "sleep", "true", "false", "id", "mkdir", "rm", "touch", "stat", "hostname",
    "mount", "umount", "unshare", "env", "kill", "dd", "setsid", "mkfifo", "ps", "chown", "head",
    "grep", "chmod", "wc", "readlink", "mknod",
];

/// Returns from a test, loudly, when it cannot be run.
macro_rules! require_root {
    () => {
        if let Err(why) = crate::support::can_run() {
            eprintln!("SKIPPED {}: {why}", std::thread::current().name().unwrap_or_default());
            return;
        }
    };
}
pub(crate) use require_root;

pub(crate) fn can_run() -> Result<(), &'static str> {
    if !rustix::process::geteuid().is_root() {
        return Err("needs root");
    }
    if !Path::new("/bin/busybox").exists() {
        return Err("needs /bin/busybox (Debian package busybox-static)");
    }
    Ok(())
}

/// A temporary directory that holds a root with busybox, and room beside it.
pub(crate) struct Root {
    pub(crate) directory: TempDir,
    pub(crate) path: PathBuf,
}

/// What a step did.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) exit: Exit,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Root {
    /// The usual directories and files of a small image.
    pub(crate) fn new() -> Self {
        let root = Self::bare();
        for directory in ["etc", "proc", "sys", "dev", "tmp", "run"] {
            fs::create_dir(root.path.join(directory)).unwrap();
        }
        root.write(
            "etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n",
        );
        root.write("etc/group", "root:x:0:\napp:x:1001:\nstaff:x:50:app\n");
        root.write("etc/hosts", "");
        root.write("etc/resolv.conf", "");
        root
    }

    /// Nothing but busybox.
    pub(crate) fn bare() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let path = directory.path().join("root");
        fs::create_dir_all(path.join("bin")).unwrap();
        fs::copy("/bin/busybox", path.join("bin/busybox")).unwrap();
        for applet in APPLETS {
            symlink("busybox", path.join("bin").join(applet)).unwrap();
        }
        Self { directory, path }
    }

    pub(crate) fn write(&self, path: &str, contents: impl AsRef<[u8]>) {
        let path = self.path.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }

    pub(crate) fn write_program(&self, path: &str, contents: impl AsRef<[u8]>) {
        self.write(path, contents);
        fs::set_permissions(self.path.join(path), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// The root as a detached mount.
    pub(crate) fn mount(&self) -> OwnedFd {
        let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        open_tree(CWD, &self.path, clone).unwrap()
    }

    /// Runs a step.
    pub(crate) fn try_run(
        &self,
        spec: &SandboxSpec,
        binds: &[&Path],
    ) -> Result<Done, SandboxError> {
        let binds: Vec<OwnedFd> = binds.iter().map(|path| open_path(path)).collect();
        let binds: Vec<BorrowedFd<'_>> = binds.iter().map(AsFd::as_fd).collect();
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let sandbox = sandbox();
        let mount = self.mount();
        let exit =
            runtime().block_on(sandbox.run(spec, mount.as_fd(), &binds, |stream, bytes| {
                match stream {
                    OutputStream::Stdout => stdout.extend_from_slice(bytes),
                    OutputStream::Stderr => stderr.extend_from_slice(bytes),
                }
            }))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Done { exit, stdout: text(&stdout), stderr: text(&stderr) })
    }

    pub(crate) fn run(&self, spec: &SandboxSpec) -> Done {
        self.try_run(spec, &[]).unwrap()
    }

    /// Runs a script that must succeed, and returns what it printed.
    pub(crate) fn output(&self, spec: &SandboxSpec) -> String {
        let done = self.run(spec);
        assert_eq!(done.exit.status, ExitStatus::Code(0), "{}{}", done.stdout, done.stderr);
        done.stdout
    }
}

pub(crate) fn open_path(path: &Path) -> OwnedFd {
    openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

pub(crate) fn sandbox() -> Sandbox {
    Sandbox::open_program(Path::new(FIXTURE)).unwrap()
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

pub(crate) fn command(args: &[&str]) -> SandboxSpec {
    let mut spec = SandboxSpec::new(args.iter().map(|arg| (*arg).to_owned()).collect());
    spec.env.push("PATH=/usr/bin:/bin".to_owned());
    spec
}

pub(crate) fn script(text: &str) -> SandboxSpec {
    command(&["/bin/sh", "-c", text])
}

/// A bind of the first descriptor.
pub(crate) fn bind(destination: &str, read_only: bool) -> Mount {
    Mount {
        destination: destination.to_owned(),
        kind: MountKind::Bind { descriptor: 0 },
        attributes: MountAttributes { read_only, ..MountAttributes::default() },
    }
}
