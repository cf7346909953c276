//! The entry: rounds, errors, and what a finished build is told with.

use rbuild_oci::{ImageConfig, Platform};
use rbuild_solver::{CopyAction, FileAction, FileActionKind, FileOp, Op, VertexMeta};

use super::lowering::{Lowering, step_count};
use super::state::State;
use crate::build::{Build, BuildOptions, Outcome, Scan, StageSummary, Stages};
use crate::diagnostic::Diagnostic;
use crate::dockerfile::ast::Dockerfile;
use crate::draft::{Draft, Node};
use crate::images::ImageSet;
use crate::source::Span;
use crate::stage::Plan;

/// Makes a graph and an image config of a file.
///
/// Pure, so in rounds: while it knows too little of the images that the target needs it asks for them; ONBUILD triggers
/// in those may ask for more. Stages that the target does not need are never looked into.
///
/// # Errors
/// All that is wrong with the file and with the stages that the target needs, warnings among it, in the order of the
/// text; no images are asked for then. A file that could not be parsed gives the parser's diagnostics.
pub fn lower(
    dockerfile: &Dockerfile,
    options: &BuildOptions,
    images: &ImageSet,
) -> Result<Outcome, Vec<Diagnostic>> {
    if dockerfile.has_errors() {
        return Err(dockerfile.diagnostics.clone());
    }
    let mut diagnostics = Vec::new();
    let mut plan = Plan::new(dockerfile, options, &mut diagnostics);
    let needed = plan.needed(Stages::Target, images, &mut diagnostics);
    let mut lowering = Lowering::new(options, images, &plan, diagnostics);
    let states = lowering.stages(&plan, &needed);
    let Lowering { mut diagnostics, mut draft, epoch, scans, .. } = lowering;
    diagnostics.sort_by_key(|diagnostic| diagnostic.span);
    if diagnostics.iter().any(Diagnostic::is_error) {
        return Err(diagnostics);
    }
    let missing = plan.missing_images(&needed, images);
    if !missing.is_empty() {
        return Ok(Outcome::NeedsImages(missing));
    }
    let (Some(target), Some(state)) = (plan.target, states) else {
        let message = "dockerfile contains no stages to build";
        return Err(vec![Diagnostic::error("no-stage", Span::at(0), message)]);
    };
    let root = state.root.map(|root| match draft.is_local(root) {
        true => own_files(&mut draft, root),
        false => root,
    });
    let (names, nodes): (Vec<String>, Vec<Node>) = scans.into_iter().unzip();
    let (graph, edge, scanned, locals) = draft.finish(root, &nodes);
    let scans = names.into_iter().zip(scanned);
    let scans = scans.map(|(name, target)| Scan { name, target }).collect();
    let summary = |index: &usize| {
        let stage = &plan.stages[*index];
        StageSummary { name: stage.label().into_owned(), steps: step_count(stage) }
    };
    Ok(Outcome::Ready(Box::new(Build {
        graph,
        target: edge,
        scans,
        base_history: state.base_history,
        platform: state.platform.clone(),
        config: finish_config(state, options),
        target_name: plan.stages[target].name.map(str::to_owned),
        stages: needed.iter().map(summary).collect(),
        locals,
        source_date_epoch: epoch.map(|(seconds, _)| seconds),
        warnings: diagnostics,
    })))
}

/// The files of a folder as those of an image: the folder itself is the user's, and cannot be exported.
fn own_files(draft: &mut Draft, folder: Node) -> Node {
    let copy = CopyAction {
        src: "/".to_owned(),
        dest: "/".to_owned(),
        dir_copy_contents: true,
        create_dest_path: true,
        ..CopyAction::default()
    };
    let action = FileAction {
        input: None,
        secondary_input: Some(0),
        output: Some(0),
        kind: FileActionKind::Copy(copy),
    };
    let name = "[internal] copy the context".to_owned();
    let meta = VertexMeta { name, ..VertexMeta::default() };
    draft.add(Op::File(FileOp { actions: vec![action] }), vec![folder], None, meta)
}

fn finish_config(state: State, options: &BuildOptions) -> ImageConfig {
    let mut config = state.into_config();
    let labels = options.labels.iter().map(|(name, value)| (name.clone(), value.clone()));
    config.config.labels.extend(labels);
    if let Some(platform) = &options.platform {
        let is_other = platform.os != config.os || platform.architecture != config.architecture;
        platform.os.clone_into(&mut config.os);
        platform.architecture.clone_into(&mut config.architecture);
        if is_other || !platform.variant.is_empty() {
            platform.variant.clone_into(&mut config.variant);
        }
        if is_other || !platform.os_version.is_empty() {
            platform.os_version.clone_into(&mut config.os_version);
        }
        if !platform.os_features.is_empty() {
            platform.os_features.clone_into(&mut config.os_features);
        }
    }
    let Platform { architecture, os, variant, .. } = config.platform().normalize();
    ImageConfig { architecture, os, variant, ..config }
}
