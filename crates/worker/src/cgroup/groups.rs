//! What control groups a build can make.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::CgroupError;
use super::group::{GroupDirectory, StepGroup, sweep, write};
use super::hierarchy::{Hierarchy, hierarchies};
use super::limits::{Controller, ResourceLimits};
use super::settings::{Version, settings};

/// Makes the control groups of steps.
#[derive(Debug)]
pub struct ControlGroups {
    limits: ResourceLimits,
    hierarchies: Vec<Hierarchy>,
    /// A parent below which no group can be made, so that its steps do without.
    given_up_parent: Option<String>,
    next: AtomicU64,
    /// The group that this process moved to, to make room for those of steps.
    moved: Mutex<Option<GroupDirectory>>,
}

impl ControlGroups {
    /// Groups that limit nothing: steps get one only if they name a parent.
    #[must_use]
    pub fn unlimited() -> Self {
        Self {
            limits: ResourceLimits::default(),
            hierarchies: Vec::new(),
            given_up_parent: None,
            next: AtomicU64::new(0),
            moved: Mutex::new(None),
        }
    }

    /// Finds out how each of the limits can be kept, and whether steps can be in `parent` (if it is not empty), by trying, so that a
    /// build fails before it begins. Removes the groups that dead builds have left.
    ///
    /// With `best_effort`, limits that cannot be kept and a parent that cannot be used are given up; the errors say why.
    ///
    /// # Errors
    ///
    /// For the first limit that cannot be kept, and for a parent that is no path of a group.
    pub fn open(
        limits: ResourceLimits,
        parent: &str,
        best_effort: bool,
    ) -> Result<(Self, Vec<CgroupError>), CgroupError> {
        let mut groups = Self { limits, hierarchies: hierarchies(), ..Self::unlimited() };
        for hierarchy in &groups.hierarchies {
            sweep(&hierarchy.own);
            sweep(&hierarchy.mount);
        }
        let mut given_up = Vec::new();
        for controller in groups.limits.controllers() {
            match groups.make("", &[controller]) {
                Ok(_) => {}
                Err(error) if best_effort => {
                    given_up.push(error);
                    groups.give_up(controller);
                }
                Err(error) => return Err(error),
            }
        }
        if !parent.is_empty() {
            relative(parent)?;
            if let Err(source) = groups.group(parent) {
                let error =
                    CgroupError::InParent { parent: parent.to_owned(), source: Box::new(source) };
                if !best_effort {
                    return Err(error);
                }
                given_up.push(error);
                groups.given_up_parent = Some(parent.to_owned());
            }
        }
        Ok((groups, given_up))
    }

    /// Finds out which controllers steps can be limited by, in the way in which [`ControlGroups::open`] does.
    #[must_use]
    pub fn tried() -> Vec<(&'static str, Result<(), CgroupError>)> {
        let groups = Self { hierarchies: hierarchies(), ..Self::unlimited() };
        let tried = Controller::ALL.into_iter();
        tried.map(|each| (each.name(), groups.make("", &[each]).map(drop))).collect()
    }

    fn give_up(&mut self, controller: Controller) {
        let limits = std::mem::take(&mut self.limits);
        self.limits = match controller {
            Controller::Memory => ResourceLimits { memory: None, memory_swap: None, ..limits },
            Controller::Cpu => {
                ResourceLimits { cpu_shares: None, cpu_period: None, cpu_quota: None, ..limits }
            }
            Controller::Cpuset => ResourceLimits { cpuset_cpus: None, cpuset_mems: None, ..limits },
        };
    }

    /// The limits that are kept.
    pub(crate) fn limits(&self) -> &ResourceLimits {
        &self.limits
    }

    /// Makes the groups of a step, below `parent` if it names one. None are needed without limits and parent.
    pub(crate) fn group(&self, parent: &str) -> Result<Option<StepGroup>, CgroupError> {
        let parent = if self.given_up_parent.as_deref() == Some(parent) { "" } else { parent };
        match (parent, self.limits.controllers()) {
            ("", needed) if needed.is_empty() => Ok(None),
            ("", needed) => self.make("", &needed).map(Some),
            (parent, needed) => {
                // A parent is there for its own limits, of whatever kind they are.
                let mut group = self.make(parent, &needed)?;
                for controller in Controller::ALL {
                    if !needed.contains(&controller) {
                        match self.add(&mut group, parent, controller) {
                            Err(CgroupError::Missing { .. }) => {}
                            added => added?,
                        }
                    }
                }
                if group.directories.is_empty() {
                    return Err(CgroupError::Missing { controller: Controller::Memory.name() });
                }
                Ok(Some(group))
            }
        }
    }

    fn make(&self, parent: &str, needed: &[Controller]) -> Result<StepGroup, CgroupError> {
        let mut group = StepGroup::default();
        for controller in needed {
            self.add(&mut group, parent, *controller)?;
        }
        Ok(group)
    }

    /// Adds a controller's directory to a step's groups, unless one of another controller will do, and sets its limits.
    fn add(
        &self,
        group: &mut StepGroup,
        parent: &str,
        controller: Controller,
    ) -> Result<(), CgroupError> {
        let found;
        let hierarchies = if self.hierarchies.is_empty() {
            found = hierarchies();
            &found
        } else {
            &self.hierarchies
        };
        let mut failure = CgroupError::Missing { controller: controller.name() };
        for hierarchy in hierarchies {
            for base in bases(hierarchy, parent)? {
                if !hierarchy.has(controller, &existing(&base)) {
                    continue;
                }
                match self.add_in(group, hierarchy, &base, controller) {
                    Ok(()) => return Ok(()),
                    Err(error @ CgroupError::Refused { .. }) => return Err(error),
                    // The first place is the one to be told of.
                    Err(error) if matches!(failure, CgroupError::Missing { .. }) => {
                        failure = error;
                    }
                    Err(_) => {}
                }
            }
        }
        Err(failure)
    }

    fn add_in(
        &self,
        group: &mut StepGroup,
        hierarchy: &Hierarchy,
        base: &Path,
        controller: Controller,
    ) -> Result<(), CgroupError> {
        let not_writable = |source| CgroupError::NotWritable {
            controller: controller.name(),
            path: base.to_owned(),
            can_be_delegated: hierarchy.version == Version::V2,
            source,
        };
        make_parents(hierarchy, base, controller).map_err(not_writable)?;
        if hierarchy.version == Version::V2 {
            self.enable(base, controller)?;
        }
        let position =
            group.directories.iter().position(|directory| directory.path.parent() == Some(base));
        let index = match position {
            Some(index) => index,
            None => {
                let number = self.next.fetch_add(1, Ordering::Relaxed);
                let made = GroupDirectory::make(base, number).map_err(not_writable)?;
                if hierarchy.version == Version::V1 {
                    inherit_cpuset(base, &made.path).map_err(not_writable)?;
                }
                group.directories.push(made);
                group.directories.len() - 1
            }
        };
        let directory = &group.directories[index];
        if controller == Controller::Memory {
            group.memory = Some((directory.path.clone(), hierarchy.version));
        }
        for setting in settings(&self.limits, controller, hierarchy.version) {
            directory.set(&setting).map_err(|source| CgroupError::Refused {
                path: directory.path.join(setting.file),
                text: setting.text.clone(),
                source,
            })?;
        }
        Ok(())
    }

    /// Lets the groups in a v2 group have a controller. If only this process is in that, it moves to one of its own, as a
    /// group has either processes or groups with controllers.
    fn enable(&self, base: &Path, controller: Controller) -> Result<(), CgroupError> {
        let file = base.join("cgroup.subtree_control");
        let enabled = fs::read_to_string(&file).unwrap_or_default();
        if enabled.split_whitespace().any(|name| name == controller.name()) {
            return Ok(());
        }
        let text = format!("+{}", controller.name());
        let failed = |source| CgroupError::NotWritable {
            controller: controller.name(),
            path: base.to_owned(),
            can_be_delegated: true,
            source,
        };
        match write(&file, &text) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                self.move_out_of(base, controller)?;
                write(&file, &text).map_err(failed)
            }
            written => written.map_err(failed),
        }
    }

    fn move_out_of(&self, base: &Path, controller: Controller) -> Result<(), CgroupError> {
        let processes = fs::read_to_string(base.join("cgroup.procs")).unwrap_or_default();
        if processes.trim() != std::process::id().to_string() {
            let path = base.to_owned();
            return Err(CgroupError::NotAlone { controller: controller.name(), path });
        }
        let failed = |source| CgroupError::NotWritable {
            controller: controller.name(),
            path: base.to_owned(),
            can_be_delegated: true,
            source,
        };
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let own = GroupDirectory::make(base, number).map_err(failed)?;
        write(&own.path.join("cgroup.procs"), "0").map_err(failed)?;
        *self.moved.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(own);
        Ok(())
    }
}

/// Where groups may be made in a hierarchy, best first.
fn bases(hierarchy: &Hierarchy, parent: &str) -> Result<Vec<PathBuf>, CgroupError> {
    if parent.is_empty() {
        let mut bases = vec![hierarchy.own.clone()];
        if hierarchy.mount != hierarchy.own {
            bases.push(hierarchy.mount.clone());
        }
        return Ok(bases);
    }
    Ok(vec![hierarchy.mount.join(relative(parent)?)])
}

/// The path of a parent below the root of a hierarchy. A systemd slice `a-b.slice` is `a.slice/a-b.slice`.
fn relative(parent: &str) -> Result<PathBuf, CgroupError> {
    let wrong = |reason| CgroupError::Parent { parent: parent.to_owned(), reason };
    if let Some(slice) = parent.strip_suffix(".slice").filter(|name| !name.contains('/')) {
        let parts: Vec<&str> = slice.split('-').collect();
        if parts.iter().any(|part| part.is_empty()) {
            return Err(wrong("it is no name of a slice"));
        }
        return Ok((1..=parts.len()).map(|end| parts[..end].join("-") + ".slice").collect());
    }
    let path = Path::new(parent.trim_start_matches('/'));
    let is_plain = |part| matches!(part, std::path::Component::Normal(_));
    if path.as_os_str().is_empty() || !path.components().all(is_plain) {
        return Err(wrong("write a path below the root of the hierarchy, without `..`"));
    }
    Ok(path.to_owned())
}

/// The nearest ancestor that is there.
fn existing(path: &Path) -> PathBuf {
    path.ancestors().find(|path| path.exists()).unwrap_or(path).to_owned()
}

/// Makes the directories that lead to `base`, each with the controller in v2.
fn make_parents(hierarchy: &Hierarchy, base: &Path, controller: Controller) -> io::Result<()> {
    if base.exists() {
        return Ok(());
    }
    let mut path = hierarchy.mount.clone();
    for part in base.strip_prefix(&hierarchy.mount).into_iter().flatten() {
        if hierarchy.version == Version::V2 {
            write(&path.join("cgroup.subtree_control"), &format!("+{}", controller.name()))?;
        }
        let above = path.clone();
        path.push(part);
        match fs::create_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => {
                made?;
                if hierarchy.version == Version::V1 {
                    inherit_cpuset(&above, &path)?;
                }
            }
        }
    }
    Ok(())
}

/// A new v1 `cpuset` group has no processor and no memory node, and takes no process before it has both.
fn inherit_cpuset(parent: &Path, group: &Path) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let (from, to) = (parent.join(file), group.join(file));
        if to.exists() && fs::read_to_string(&to)?.trim().is_empty() {
            write(&to, fs::read_to_string(from)?.trim())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_are_paths_or_slices() {
        for (parent, path) in [
            ("/ci/jobs", "ci/jobs"),
            ("ci", "ci"),
            ("ci-jobs.slice", "ci.slice/ci-jobs.slice"),
            ("/ci.slice/x", "ci.slice/x"),
        ] {
            assert_eq!(relative(parent).unwrap(), Path::new(path));
        }
        for wrong in ["/", "..", "/a/../b", "-a.slice", "a--b.slice"] {
            assert!(relative(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_missing_controller_is_named() {
        let groups = ControlGroups::unlimited();
        let hierarchy = Hierarchy {
            version: Version::V1,
            controllers: vec!["pids".to_owned()],
            mount: PathBuf::from("/nowhere"),
            own: PathBuf::from("/nowhere"),
        };
        let groups = ControlGroups { hierarchies: vec![hierarchy], ..groups };
        let error = groups.make("", &[Controller::Memory]).unwrap_err();
        assert!(error.to_string().contains("controller `memory`"), "{error}");
        assert!(error.hint().unwrap().contains("best-effort"));
    }
}
