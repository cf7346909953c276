//! `--annotation` of a build, checked.

use rbuild_exporter::DocumentTypes;
use rbuild_oci::Platform;

use super::plan::{Plan, PlannedOutput};
use crate::annotation::{Annotation, AnnotationKind};
use crate::error::CommandError;

/// The annotations that are typed, for the images of these outputs.
pub(super) fn annotations(texts: &[String], plan: &Plan) -> Result<Vec<Annotation>, CommandError> {
    let mut all = Vec::new();
    for text in texts {
        let parsed = Annotation::parse(text, AnnotationKind::Manifest);
        all.extend(parsed.map_err(CommandError::usage)?);
    }
    if all.is_empty() {
        return Ok(all);
    }
    let types = plan.outputs.iter().filter_map(|output| match output {
        PlannedOutput::Image { types, .. } => Some(*types),
        PlannedOutput::Files { .. } => None,
    });
    let types: Vec<DocumentTypes> = types.collect();
    if types.is_empty() {
        return Err(CommandError::usage("--annotation is for images, and no output is one"));
    }
    if types.contains(&DocumentTypes::Docker) {
        let message = "--annotation needs OCI's documents: oci-mediatypes=true";
        return Err(CommandError::usage(message));
    }
    Ok(all)
}

/// Refuses what has no place in a result for these platforms.
pub(super) fn check<'a>(
    annotations: &[Annotation],
    platforms: impl Iterator<Item = &'a Platform> + Clone,
    is_index: bool,
) -> Result<(), CommandError> {
    for annotation in annotations {
        if annotation.kind.is_of_index() && !is_index {
            return Err(CommandError::usage(
                "index annotations not supported for single platform export",
            )
            .hint("--build-arg BUILDKIT_MULTI_PLATFORM=1 makes an index of one"));
        }
        if let Some(wanted) = &annotation.platform
            && !platforms.clone().any(|platform| platform == wanted)
        {
            let message = format!("--annotation is for {wanted}, which is not built");
            return Err(CommandError::usage(message));
        }
    }
    Ok(())
}
