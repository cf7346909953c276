//! Copies of the context that only images and caches want: their archives are written while the step runs, and no file of theirs is.

use std::sync::Arc;

use rbuild_cache::DiffError;
use rbuild_exporter::{LayerCount, LayerError, LayerForm, archive_copy};
use rbuild_worker::{CopyArchiver, FileError};

use super::Plans;
use super::plan::PlannedOutput;
use super::result::layer_form;
use crate::wiring::Session;

/// What makes the archives that the outputs of a build want of such copies, `None` where an output looks at the files themselves.
pub(super) fn archiver(session: &Arc<Session>, plans: &Plans) -> Option<CopyArchiver> {
    let forms = forms(plans)?;
    let session = Arc::clone(session);
    Some(CopyArchiver::new(move |state, copy| {
        for form in &forms {
            archive_copy(session.export_store(), state, copy, *form).map_err(file_error)?;
        }
        Ok(())
    }))
}

/// The forms that layers are wanted in, each once.
fn forms(plans: &Plans) -> Option<Vec<LayerForm>> {
    // Packages are looked for in the files.
    if plans.attest.is_some() {
        return None;
    }
    let of_output = |output: &PlannedOutput| match output {
        PlannedOutput::Image { options, unpack: false, .. }
            if options.count == LayerCount::Keep && options.epoch.is_none() =>
        {
            Some(layer_form(options, None))
        }
        _ => None,
    };
    let of_outputs: Option<Vec<LayerForm>> = plans.result.outputs.iter().map(of_output).collect();
    let mut forms: Vec<LayerForm> = Vec::new();
    for form in of_outputs?.into_iter().chain(plans.cache.layer_forms()) {
        if forms.iter().all(|other| other.compression != form.compression) {
            forms.push(form);
        }
    }
    (!forms.is_empty()).then_some(forms)
}

/// What is wrong with the source is said as if the file had been copied.
fn file_error(error: LayerError) -> FileError {
    match error {
        LayerError::Files { source: DiffError::Source(source), .. } => source.into(),
        error => FileError::NotArchived(Box::new(error)),
    }
}
