//! `rbuild doctor`: what this machine gives, why, and the command that would get more out of it.
//!
//! `check` is what a finding is, `machine`, `trial` and `tools` find out by trying, `report` draws.

mod check;
mod machine;
mod report;
mod tools;
mod trial;

use std::path::PathBuf;

use rbuild_worker::{Identity, Platforms, UserNamespaceError};

use self::check::{Check, Tier};
use crate::args::{DoctorArgs, Snapshotter};
use crate::error::CommandError;
use crate::paths;

/// Everything that was found out.
#[derive(Debug)]
struct Diagnosis {
    tier: Tier,
    checks: Vec<Check>,
    platforms: Vec<tools::PlatformLine>,
}

impl Diagnosis {
    /// The first thing to do, the most helpful first.
    fn improvement(&self) -> Option<&str> {
        self.checks.iter().find_map(|check| check.fix.as_deref())
    }
}

/// Where to look.
#[derive(Debug)]
pub(crate) struct Surroundings {
    /// This program.
    pub(crate) program: PathBuf,
    /// Where the store is or would be.
    pub(crate) root: PathBuf,
    pub(crate) snapshotter: Snapshotter,
}

/// Looks at the machine. `entered` is how it went to become root.
pub(crate) fn doctor(
    args: &DoctorArgs,
    surroundings: &Surroundings,
    entered: &Result<Identity, UserNamespaceError>,
) -> Result<(), CommandError> {
    let user = machine::user_namespace(entered);
    let mut checks = vec![user];
    let mut tier = if rbuild_worker::can_chroot() { Tier::Chroot } else { Tier::None };
    if entered.is_ok() {
        let (layers, with_layers) = machine::layers(&surroundings.root, surroundings.snapshotter);
        checks.extend(machine::sub_ids(entered.as_ref().ok()));
        checks.push(trial::step(&surroundings.program)?);
        checks.push(layers);
        checks.extend(machine::store_options(&surroundings.root));
        tier = match with_layers {
            // Nothing else that steps need is wrong.
            Some(best) if checks.iter().all(|check| !check.is_fatal) => best,
            Some(_) => tier,
            None => Tier::None,
        };
    }
    let programs = paths::programs();
    let platforms =
        tools::platforms(&Platforms::new(programs.clone()), machine::can_have_emulators());
    checks.push(machine::kernel());
    let runs_steps = matches!(tier, Tier::Overlay | Tier::Copy);
    checks.push(tools::network(runs_steps, &surroundings.program)?);
    checks.push(machine::control_groups());
    checks.push(tools::git(&programs));
    checks.push(tools::emulators(&platforms));
    let diagnosis = Diagnosis { tier, checks, platforms };
    let text = if args.json { report::json(&diagnosis) } else { report::text(&diagnosis) };
    super::images::print(text.as_bytes())?;
    match diagnosis.tier.exit_code() {
        0 => Ok(()),
        code => Err(CommandError::told_with(code)),
    }
}
