//! Notes in the images of a build: those of `--annotation` and of each output, checked.

use rbuild_exporter::DocumentTypes;
use rbuild_oci::Platform;

use super::plan::{Plan, PlannedOutput};
use crate::annotation::{Annotation, AnnotationKind};
use crate::error::CommandError;

/// Adds what is typed for all images to what outputs say themselves, of which it counts more.
pub(super) fn add(texts: &[String], plan: &mut Plan) -> Result<(), CommandError> {
    let mut all = Vec::new();
    for text in texts {
        let parsed = Annotation::parse(text, AnnotationKind::Manifest);
        all.extend(parsed.map_err(CommandError::usage)?);
    }
    if !all.is_empty() && !plan.has_image() {
        return Err(CommandError::usage("--annotation is for images, and no output is one"));
    }
    for output in &mut plan.outputs {
        if let PlannedOutput::Image { options, .. } = output {
            options.annotations.extend(all.iter().cloned());
        }
        check_types(output)?;
    }
    Ok(())
}

/// Refuses what the documents of an output have no place for.
pub(super) fn check_types(output: &PlannedOutput) -> Result<(), CommandError> {
    match output {
        PlannedOutput::Image { types: DocumentTypes::Docker, .. } if !of(output).is_empty() => {
            Err(CommandError::usage("an annotation needs OCI's documents: oci-mediatypes=true"))
        }
        _ => Ok(()),
    }
}

/// What an output says.
pub(super) fn of(output: &PlannedOutput) -> &[Annotation] {
    match output {
        PlannedOutput::Image { options, .. } => &options.annotations,
        PlannedOutput::Files { .. } => &[],
    }
}

/// Refuses what has no place in a result for these platforms.
pub(super) fn check<'a>(
    plan: &Plan,
    platforms: impl Iterator<Item = &'a Platform> + Clone,
    is_index: bool,
) -> Result<(), CommandError> {
    for annotation in plan.outputs.iter().flat_map(of) {
        check_index(annotation, is_index)?;
        if let Some(wanted) = &annotation.platform
            && !platforms.clone().any(|platform| platform == wanted)
        {
            let message = format!("an annotation is for {wanted}, which is not built");
            return Err(CommandError::usage(message));
        }
    }
    Ok(())
}

/// Refuses what is for an index where there is none.
pub(super) fn check_index(annotation: &Annotation, is_index: bool) -> Result<(), CommandError> {
    if annotation.kind.is_of_index() && !is_index {
        return Err(CommandError::usage(
            "index annotations not supported for single platform export",
        )
        .hint("--build-arg BUILDKIT_MULTI_PLATFORM=1 makes an index of one"));
    }
    Ok(())
}
