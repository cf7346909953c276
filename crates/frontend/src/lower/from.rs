//! FROM: what a stage begins with.

use rbuild_oci::{ImageConfig, Platform};
use rbuild_solver::{Op, SourceLocation, VertexMeta};

use super::copy::CONTEXT;
use super::lowering::Lowering;
use super::state::State;
use super::step_name::StepNames;
use crate::build::NamedContext;
use crate::check::Rule;
use crate::draft::Node;
use crate::environment::Environment;
use crate::images::ResolvedImage;
use crate::stage::{ImageUse, Origin, Stage};

impl Lowering<'_> {
    /// The state before a stage's first instruction. `parent` is that of the stage that it stands on.
    pub(super) fn base(
        &mut self,
        stage: &Stage<'_>,
        parent: Option<State>,
        names: &mut StepNames,
    ) -> State {
        let target = self.options.target_platform().clone();
        let wanted = stage.platform.clone().unwrap_or_else(|| target.clone());
        match (&stage.base, parent) {
            (Some(Origin::Stage(_)), Some(parent)) => parent,
            (Some(Origin::Image(image)), _) => match self.images.get(&image.query) {
                Some(found) => self.base_image(stage, image, found, wanted, names),
                None => unknown(wanted),
            },
            (Some(Origin::Local(name)), _) => {
                let root = self.local(name);
                self.draft.follow(name, "/");
                let config = match stage.is_replaced {
                    // A folder has no configuration, and nothing of the stage's own counts.
                    true => State::bare_config(&wanted),
                    false => State::empty_config(&wanted),
                };
                State::new(Some(root), config, wanted)
            }
            (Some(Origin::Scratch), _) if stage.is_replaced => {
                State::new(None, State::bare_config(&wanted), wanted)
            }
            // `FROM --platform=x scratch` is for the target platform all the same.
            (Some(Origin::Scratch), _) => State::new(None, State::empty_config(&target), target),
            // A stage that stands on a later one, or an error that was told.
            (Some(Origin::Stage(_)) | None, _) => unknown(wanted),
        }
    }

    fn base_image(
        &mut self,
        stage: &Stage<'_>,
        image: &ImageUse,
        found: &ResolvedImage,
        mut wanted: Platform,
        names: &mut StepNames,
    ) -> State {
        let mut config = found.config.clone();
        if stage.is_replaced && !config.os.is_empty() && !config.architecture.is_empty() {
            let platform = config.platform();
            let root = self.image(image, found, &wanted, stage, names);
            return State::new(root, config, platform);
        }
        if config.os.is_empty() && config.architecture.is_empty() {
            let empty = State::empty_config(&wanted);
            config = ImageConfig {
                os: empty.os,
                architecture: empty.architecture,
                variant: empty.variant,
                ..config
            };
        }
        if self.options.platform.is_none() && stage.platform.is_none() && image.context.is_none() {
            let is_its = |platform: &&Platform| {
                platform.os == config.os && platform.architecture == config.architecture
            };
            let other = self.options.emulated.iter().find(is_its);
            wanted = other.filter(|_| !is_its(&&wanted)).cloned().unwrap_or(wanted);
        }
        let root = self.image(image, found, &wanted, stage, names);
        let is_other = config.os != wanted.os || config.architecture != wanted.architecture;
        if root.is_some() && image.context.is_none() && is_other {
            let message = format!(
                "Base image {} was pulled with platform {:?}, expected {:?} for current build",
                image.written,
                config.platform().normalize().full_name(),
                wanted.full_name(),
            );
            self.warn(Rule::InvalidBaseImagePlatform, stage.from.image.span(), message);
        }
        State::new(root, config, wanted)
    }

    /// The vertex of a base image; none if it has no files.
    fn image(
        &mut self,
        image: &ImageUse,
        found: &ResolvedImage,
        platform: &Platform,
        stage: &Stage<'_>,
        names: &mut StepNames,
    ) -> Option<Node> {
        if has_no_layers(&found.config) && image.context.is_none() {
            return None;
        }
        let name = match &image.context {
            Some(_) => source_name(image, found),
            None => {
                let command = format!("FROM {}", found.source.split().1);
                names.next(&command, false, platform, &Environment::default())
            }
        };
        let location = SourceLocation {
            file: self.options.file_name.clone(),
            first_line: stage.statement.line,
            last_line: stage.statement.end_line,
        };
        let meta = VertexMeta { name, location: Some(location), ..VertexMeta::default() };
        let op = Op::Source(found.source.clone());
        Some(self.draft.add(op, Vec::new(), Some(platform.clone()), meta))
    }

    /// The vertex of an image that is copied from; `None` if it has no files or is not known yet.
    pub(super) fn copied_image(&mut self, image: &ImageUse) -> Option<Node> {
        let found = self.images.get(&image.query)?;
        if has_no_layers(&found.config) && image.context.is_none() {
            return None;
        }
        let name = source_name(image, found);
        let meta = VertexMeta { name, ..VertexMeta::default() };
        let op = Op::Source(found.source.clone());
        Some(self.draft.add(op, Vec::new(), Some(image.query.platform.clone()), meta))
    }

    /// The vertex of the main context.
    pub(super) fn main_context(&mut self) -> Node {
        match &self.options.context {
            Some(context) => self.remote_context(CONTEXT, context),
            None => self.draft.local(CONTEXT, &self.options.context_ignore),
        }
    }

    /// The vertex of a named context that is no image.
    pub(super) fn local(&mut self, name: &str) -> Node {
        let ignore = match self.options.contexts.get(name) {
            Some(NamedContext::Local { ignore }) => ignore.as_slice(),
            Some(NamedContext::Remote(context)) => return self.remote_context(name, context),
            _ => &[],
        };
        self.draft.local(name, ignore)
    }
}

/// A stage of whose base nothing is known: what it says of variables may be wrong.
fn unknown(platform: Platform) -> State {
    let config = State::empty_config(&platform);
    State { is_assumed: true, ..State::new(None, config, platform) }
}

fn has_no_layers(config: &ImageConfig) -> bool {
    config.rootfs.diff_ids.is_empty() && config.history.iter().all(|entry| entry.empty_layer)
}

/// What an image is called where it is no stage's base.
fn source_name(image: &ImageUse, found: &ResolvedImage) -> String {
    let (scheme, identifier) = found.source.split();
    match (&image.context, scheme) {
        (Some(context), "oci-layout") => format!("[context {context}] OCI load from client"),
        (Some(context), _) => format!("[context {context}] {identifier}"),
        (None, _) => format!("FROM {identifier}"),
    }
}
