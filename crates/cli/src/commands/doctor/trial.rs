//! A step that is tried, since what is around rbuild may refuse any one of the many things that a sandbox is made of.

use std::os::fd::AsFd;
use std::path::Path;

use rbuild_worker::{Sandbox, SandboxError, SandboxSpec};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use super::check::Check;
use crate::commands::build::in_runtime;
use crate::error::{CommandError, chain};

/// Whether steps can be run with namespaces and mounts: a sandbox is made around an empty root, up to the step's program, which is not
/// there.
pub(super) fn step(program: &Path) -> Result<Check, CommandError> {
    const NAME: &str = "steps";
    let root = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).and_then(|context| {
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    });
    let root = match root {
        Ok(root) => root,
        Err(errno) => {
            const FIX: &str = "run rbuild as an ordinary user, or give the container CAP_SYS_ADMIN";
            let found = format!("mounts are refused: {}", std::io::Error::from(errno));
            return Ok(Check::fatal(NAME, found, Some(FIX)));
        }
    };
    let mut outcome = Ok(());
    in_runtime(async {
        let spec = SandboxSpec::new(vec!["/a program that is not there".to_owned()]);
        let sandbox = Sandbox::open(program);
        let process = sandbox.and_then(|sandbox| sandbox.spawn(&spec, root.as_fd(), &[]));
        outcome = match process {
            Ok(process) => process.wait().await.map(drop),
            Err(error) => Err(error),
        };
        Ok(())
    })?;
    Ok(match outcome {
        Ok(()) | Err(SandboxError::Command(_)) => {
            Check::good(NAME, "mounts and namespaces for one could be made")
        }
        Err(error) => {
            Check::fatal(NAME, format!("one could not be made: {}", chain(&error)), error.fix())
        }
    })
}
