//! One build for several platforms: what is wanted of it, and what it made.

use std::sync::Arc;

use rbuild_exporter::{BuildResult, FinishedRecords};
use rbuild_frontend::{Build, Scan};
use rbuild_oci::{ImageConfig, Platform};
use rbuild_solver::{Edge, Graph, Snapshot};

use super::attest::Attesting;

/// A graph, and what is wanted of it.
#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) graph: Graph,
    /// Builds on the targets of all platforms; `None` if there are no files.
    pub(crate) all: Option<Edge>,
    /// In the order in which the platforms were asked for.
    pub(crate) wanted: Vec<Wanted>,
}

/// What is wanted for one platform.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) platform: Platform,
    /// The files; `None` if there are none.
    pub(crate) target: Option<Edge>,
    /// What is looked into for packages beside it.
    pub(crate) scans: Vec<Scan>,
    pub(crate) config: ImageConfig,
    pub(crate) base_history: usize,
    pub(crate) epoch: Option<i64>,
}

impl Joined {
    /// Joins builds of one file, one a platform. `asked` are their platforms, or nothing.
    pub(crate) fn new(mut builds: Vec<Build>, asked: &[Platform]) -> Self {
        let (graph, targets, all) = match &mut builds[..] {
            [build] => (std::mem::take(&mut build.graph), vec![build.target], build.target),
            builds => {
                let joined = rbuild_frontend::join(builds);
                for (build, scans) in builds.iter_mut().zip(joined.scans) {
                    build.scans = scans;
                }
                (joined.graph, joined.targets, joined.all)
            }
        };
        let wanted = |(number, (build, target)): (usize, (Build, Option<Edge>))| Wanted {
            platform: asked.get(number).cloned().unwrap_or(build.platform),
            target,
            scans: build.scans,
            config: build.config,
            base_history: build.base_history,
            epoch: build.source_date_epoch,
        };
        let wanted = builds.into_iter().zip(targets).enumerate().map(wanted).collect();
        Self { graph, all, wanted }
    }
}

impl Wanted {
    /// What came of it.
    pub(crate) fn result(
        &self,
        snapshot: Snapshot,
        inline_cache: Option<FinishedRecords>,
    ) -> PlatformResult {
        let result = BuildResult {
            snapshot,
            config: self.config.clone(),
            base_history: self.base_history,
            epoch: self.epoch,
            inline_cache,
        };
        PlatformResult { platform: self.platform.clone(), result: Arc::new(result) }
    }
}

/// What a build made.
#[derive(Clone, Debug)]
pub(crate) struct Results {
    /// In the order in which the platforms were asked for; at least one.
    pub(crate) each: Vec<PlatformResult>,
    /// Whether its image is an index and its files have folders, also if there is only one.
    pub(crate) is_split: bool,
    /// What is to be said of them.
    pub(crate) attesting: Option<Attesting>,
}

/// What a build made for one platform.
#[derive(Clone, Debug)]
pub(crate) struct PlatformResult {
    pub(crate) platform: Platform,
    pub(crate) result: Arc<BuildResult>,
}

impl Results {
    /// One result, whatever it is for.
    pub(crate) fn single(result: BuildResult) -> Self {
        let platform = result.config.platform();
        let each = vec![PlatformResult { platform, result: Arc::new(result) }];
        Self { each, is_split: false, attesting: None }
    }

    /// The same with another `SOURCE_DATE_EPOCH`.
    pub(crate) fn no_later_than(&self, epoch: i64) -> Self {
        let mut results = self.clone();
        for platform in &mut results.each {
            let result = BuildResult::clone(&platform.result);
            platform.result = Arc::new(BuildResult { epoch: Some(epoch), ..result });
        }
        results
    }
}

impl PlatformResult {
    /// The folder of the platform's files, as BuildKit calls it: `linux_arm_v7`.
    pub(crate) fn folder(&self) -> String {
        // An image may say anything of itself.
        let is_wrong = |c: char| c == '/' || c.is_control();
        self.platform.full_name().replace(is_wrong, "_")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_named_for_platforms() {
        for (platform, expected) in [
            (Platform::new("linux", "arm", "v6"), "linux_arm_v6"),
            (Platform::new("linux", "aarch64", ""), "linux_arm64"),
            (Platform::new("..", "..", "a\0/b"), ".._.._a__b"),
        ] {
            let result = BuildResult {
                snapshot: Snapshot::default(),
                config: ImageConfig::default(),
                base_history: 0,
                epoch: None,
                inline_cache: None,
            };
            let result = PlatformResult { platform, result: Arc::new(result) };
            assert_eq!(result.folder(), expected);
        }
    }
}
