//! What a step without namespaces and mounts cannot have.

use rbuild_solver::{ExecOp, MountKind, NetworkMode, SecurityMode};

use crate::sandbox::SandboxSpec;

/// A step asks for what takes namespaces or mounts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} takes namespaces, which steps do not have with `--isolation=chroot`")]
pub struct NotInChroot(String);

/// Whether an operation can be run without.
///
/// Nothing is copied in and out in place of a mount: what a step has changed would have to be told from what was put there, and a
/// secret must not be on a disk at all.
pub(crate) fn check(op: &ExecOp, spec: &SandboxSpec) -> Result<(), NotInChroot> {
    let refused = |what: String| Err(NotInChroot(what));
    if let Some(mount) = op.mounts.iter().find(|mount| mount.dest != "/") {
        let kind = match &mount.kind {
            MountKind::Bind => "bind",
            MountKind::Tmpfs { .. } => "tmpfs",
            MountKind::Cache { .. } => "cache",
            MountKind::Secret { .. } => "secret",
            MountKind::Ssh { .. } => "ssh",
        };
        return refused(format!("the {kind} mount at `{}`", mount.dest));
    }
    if op.mounts.iter().any(|mount| mount.dest == "/" && mount.readonly) {
        return refused("a read-only root".to_owned());
    }
    if op.network == NetworkMode::None {
        return refused("`--network=none`".to_owned());
    }
    if op.security == SecurityMode::Insecure {
        return refused("`--security=insecure`".to_owned());
    }
    if !op.meta.hostname.is_empty() {
        return refused(format!("the host name `{}`", op.meta.hostname));
    }
    if let Some(emulator) = spec.emulators.first() {
        return refused(format!("the emulator `{}`", emulator.path().display()));
    }
    Ok(())
}
