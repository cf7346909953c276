//! The programs that rbuild uses, and the platforms that can run here.

use std::path::{Path, PathBuf};

use rbuild_worker::{NetworkFinding, PlatformSupport, Platforms, Sandbox};

use super::check::Check;
use crate::commands::build::in_runtime;
use crate::error::{CommandError, chain};
use crate::paths;

/// How the steps of one platform run.
#[derive(Debug)]
pub(super) struct PlatformLine {
    pub(super) platform: String,
    pub(super) can_run: bool,
    /// `native`, `binfmt_misc`, `qemu` or `none`.
    pub(super) by: &'static str,
    /// The emulator, or what is missing.
    pub(super) detail: Option<String>,
}

/// `emulates` is whether an emulator is of use that the machine has not registered.
pub(super) fn platforms(platforms: &Platforms, emulates: bool) -> Vec<PlatformLine> {
    let line = |(platform, support): (rbuild_oci::Platform, PlatformSupport)| {
        let (by, detail) = match support {
            PlatformSupport::Native { .. } => ("native", None),
            PlatformSupport::Registered { interpreter } => ("binfmt_misc", interpreter),
            PlatformSupport::Emulated(_) if !emulates => {
                const REASON: &str =
                    "Linux before 6.7 has emulators for the whole machine only; register one there";
                ("none", Some(REASON.to_owned()))
            }
            PlatformSupport::Emulated(emulator) => {
                ("qemu", Some(emulator.path().display().to_string()))
            }
            PlatformSupport::Missing { reason } => ("none", Some(reason)),
        };
        PlatformLine { platform: platform.to_string(), can_run: by != "none", by, detail }
    };
    platforms.all().into_iter().map(line).collect()
}

pub(super) fn emulators(platforms: &[PlatformLine]) -> Check {
    const NAME: &str = "emulators";
    let emulated =
        platforms.iter().filter(|line| matches!(line.by, "qemu" | "binfmt_misc")).count();
    if emulated == 0 {
        let fix = Some("apt-get install qemu-user-static");
        return Check::poor(NAME, "none, so steps run for this machine's platforms only", fix);
    }
    Check::good(NAME, format!("for {emulated} foreign platforms"))
}

/// What network steps have. Made as a build makes it, unless steps cannot run anyway.
pub(super) fn network(runs_steps: bool, program: &Path) -> Result<Check, CommandError> {
    const NAME: &str = "network";
    let pasta = paths::program("pasta");
    let mut found = None;
    if runs_steps {
        in_runtime(async {
            let sandbox = Sandbox::open(program).map_err(|error| chain(&error));
            found = Some(match sandbox {
                Ok(sandbox) => {
                    let tried = rbuild_worker::try_network(&sandbox, pasta.as_deref()).await;
                    tried.map_err(|error| chain(&error))
                }
                Err(error) => Err(error),
            });
            Ok(())
        })?;
    }
    Ok(match (found, pasta) {
        (Some(Ok(NetworkFinding::Private)), _) => {
            Check::good(NAME, "steps have one of their own, by pasta")
        }
        (Some(Ok(other)), _) => Check::poor(NAME, other.to_string(), other.fix()),
        (Some(Err(error)), _) => Check::poor(NAME, error, None::<String>),
        (None, Some(path)) => {
            Check::good(NAME, format!("there is {}, but no step to use it", path.display()))
        }
        (None, None) => Check::poor(NAME, "pasta is not installed", Some("apt-get install passt")),
    })
}

pub(super) fn git(programs: &[PathBuf]) -> Check {
    const NAME: &str = "git";
    match find("git", programs) {
        Some(path) => Check::good(NAME, path.display().to_string()),
        None => Check::poor(
            NAME,
            "not installed, so neither contexts nor ADD can be of git repositories",
            Some("apt-get install git"),
        ),
    }
}

fn find(name: &str, programs: &[PathBuf]) -> Option<PathBuf> {
    let may_run = |path: &Path| {
        path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
    };
    programs.iter().map(|folder| folder.join(name)).find(|path| may_run(path))
}
