//! WORKDIR.

use rbuild_solver::{FileAction, FileActionKind, FileOp, MkdirAction, Op, VertexMeta};

use super::lowering::Lowering;
use super::ownership::parse_chown;
use super::place::{Fallible, Place, Scope};
use super::state::join;
use super::step_name::shown;
use crate::check::Rule;
use crate::dockerfile::mapped::Mapped;

impl<'a> Lowering<'a> {
    /// Makes the directory now, owned by the current user; never run again only because of `--no-cache`.
    pub(super) fn workdir(
        &mut self,
        place: &Place<'_, 'a>,
        scope: &mut Scope,
        path: &Mapped,
    ) -> Fallible<()> {
        let expanded = self.expand(place, &scope.state, path)?;
        // Where a base image's directory is may change, so only the first one has to be absolute.
        if !scope.state.has_workdir && !expanded.starts_with('/') {
            let message = format!(
                "Relative workdir {expanded:?} can have unexpected results if the base image changes"
            );
            self.warn(Rule::WorkdirRelativePath, place.step.place(path.span()), message);
        }
        scope.state.has_workdir = true;
        let directory = join(scope.state.directory(), &expanded);
        scope.state.config.config.working_dir.clone_from(&directory);
        let has_layer = directory != "/";
        if has_layer {
            let state = &mut scope.state;
            let command =
                shown(place.step.statement.original.text(), self.shell, &state.environment);
            let name = scope.names.next(
                &command,
                place.step.trigger_of.is_some(),
                &state.platform,
                &state.environment,
            );
            let names_from = state.root.map(|_| 0);
            let mkdir = MkdirAction {
                path: directory.clone(),
                mode: 0o755,
                make_parents: true,
                owner: parse_chown(&state.config.config.user, names_from),
                timestamp: self.timestamp(),
            };
            let kind = FileActionKind::Mkdir(mkdir);
            let action =
                FileAction { input: names_from, secondary_input: None, output: Some(0), kind };
            let meta = VertexMeta { ignore_cache: false, ..self.meta(place, name) };
            let op = Op::File(FileOp { actions: vec![action] });
            let inputs = state.root.into_iter().collect();
            state.root = Some(self.draft.add(op, inputs, None, meta));
        }
        self.commit(place, &mut scope.state, format!("WORKDIR {directory}"), has_layer)
    }
}
