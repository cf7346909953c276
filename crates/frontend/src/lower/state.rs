//! What a stage is after some of its instructions.

use rbuild_oci::{ImageConfig, Platform};

use crate::draft::Node;
use crate::environment::Environment;

pub(super) const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What an empty image for Windows begins with.
const WINDOWS_PATH: &str = "c:\\Windows\\System32;c:\\Windows";

/// A stage so far.
#[derive(Debug, Clone)]
pub(super) struct State {
    /// Its files; `None` for none at all.
    pub(super) root: Option<Node>,
    /// The variables of its steps: ENV and ARG, in the order in which they were set last.
    pub(super) environment: Environment,
    /// The config of its image, but for the variables.
    pub(super) config: ImageConfig,
    /// The variables of its image, in the order in which they were set first.
    pub(super) image_environment: Environment,
    /// How much of the history is the base image's.
    pub(super) base_history: usize,
    /// How many layers its files are made of.
    pub(super) layers: usize,
    pub(super) platform: Platform,
    /// Every ARG so far, where it was declared first, with the value that it was declared with last.
    pub(super) arguments: Environment,
    /// Whether a WORKDIR of this file was seen, here or in a stage that it stands on.
    pub(super) has_workdir: bool,
    /// Whether variables may be missing that will be there: the base image is not known yet, or an ENV had an error.
    /// Then an error of an instruction with unset variables may be no error.
    pub(super) is_assumed: bool,
}

impl State {
    /// A stage that stands on an image with this config.
    pub(super) fn new(root: Option<Node>, mut config: ImageConfig, platform: Platform) -> Self {
        config.created = None;
        let layers = config.rootfs.diff_ids.len();
        config.rootfs.diff_ids.clear();
        let image_environment = Environment::from_entries(&std::mem::take(&mut config.config.env));
        Self {
            root,
            environment: Environment::default(),
            base_history: config.history.len(),
            layers,
            config,
            image_environment,
            platform,
            arguments: Environment::default(),
            has_workdir: false,
            is_assumed: false,
        }
    }

    /// A config that only says for which platform it is.
    pub(super) fn bare_config(platform: &Platform) -> ImageConfig {
        ImageConfig {
            os: platform.os.clone(),
            architecture: platform.architecture.clone(),
            variant: platform.variant.clone(),
            os_version: platform.os_version.clone(),
            os_features: platform.os_features.clone(),
            ..ImageConfig::default()
        }
    }

    /// The config of an image without files.
    pub(super) fn empty_config(platform: &Platform) -> ImageConfig {
        let mut config = Self::bare_config(platform);
        config.config.working_dir = "/".to_owned();
        let path = if platform.os == "windows" { WINDOWS_PATH } else { DEFAULT_PATH };
        config.config.env = vec![format!("PATH={path}")];
        config
    }

    /// Makes it what the first instruction of a stage finds.
    pub(super) fn begin_stage(&mut self) {
        // Triggers are for whoever stands on this, and that is now.
        self.config.config.on_build.clear();
        if !self.image_environment.contains("PATH") && self.platform.os != "windows" {
            self.image_environment.set("PATH", DEFAULT_PATH);
        }
        for (name, value) in self.image_environment.iter() {
            self.environment.set(name, value);
        }
        let directory = &self.config.config.working_dir;
        if !directory.is_empty() {
            self.config.config.working_dir = join("/", directory);
        }
    }

    /// How much text it holds.
    pub(super) fn size(&self) -> usize {
        let history = self.config.history.iter().map(|entry| entry.created_by.len());
        self.environment.size() + self.image_environment.size() + history.sum::<usize>()
    }

    /// Where steps run and relative destinations are.
    pub(super) fn directory(&self) -> &str {
        match self.config.config.working_dir.as_str() {
            "" => "/",
            directory => directory,
        }
    }

    /// The config with its variables.
    pub(super) fn into_config(mut self) -> ImageConfig {
        self.config.config.env = self.image_environment.to_entries();
        self.config
    }
}

/// `path` as seen from `directory`: clean and absolute.
pub(super) fn join(directory: &str, path: &str) -> String {
    match path.starts_with('/') {
        true => rbuild_solver::clean_path(path),
        false => rbuild_solver::clean_path(&format!("/{directory}/{path}")),
    }
}
