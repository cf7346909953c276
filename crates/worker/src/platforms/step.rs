//! What the platform of a step means for its sandbox.

use rbuild_oci::Platform;
use rustix::io::Errno;

use super::{PlatformSupport, Platforms};
use crate::exec::ExecError;
use crate::sandbox::{CommandError, SandboxSpec, SecurityMode};

/// A platform, and how its steps run here.
#[derive(Debug)]
pub(crate) struct StepPlatform {
    platform: Platform,
    support: PlatformSupport,
}

impl StepPlatform {
    /// Of a step that names this one, or none. Not for an async thread.
    pub(crate) fn new(platforms: &Platforms, platform: Option<Platform>) -> Self {
        let platform = platform.unwrap_or_else(Platform::host);
        Self { support: platforms.support(&platform), platform }
    }

    /// Lets the sandbox know. What is missing is none of its business: perhaps the step's program is one of this machine's.
    pub(crate) fn describe(&self, spec: &mut SandboxSpec) -> Result<(), ExecError> {
        match &self.support {
            PlatformSupport::Emulated(_) if spec.security == SecurityMode::Insecure => {
                return Err(ExecError::EmulatedInsecure { platform: self.platform.clone() });
            }
            PlatformSupport::Emulated(emulator) => spec.emulators.push(emulator.clone()),
            PlatformSupport::Native { is_32_bit } => spec.is_32_bit = *is_32_bit,
            PlatformSupport::Registered { .. } | PlatformSupport::Missing { .. } => {}
        }
        Ok(())
    }

    /// Says of a program that the kernel does not know what it lacks.
    pub(crate) fn explain(&self, error: ExecError) -> ExecError {
        match (&self.support, &error) {
            (
                PlatformSupport::Missing { reason },
                ExecError::Start { reason: CommandError::Exec { errno, .. }, .. },
            ) if Errno::from_raw_os_error(*errno) == Errno::NOEXEC => ExecError::NoEmulator {
                platform: self.platform.clone(),
                reason: reason.clone(),
                source: Box::new(error),
            },
            _ => error,
        }
    }
}
