//! A build and those before it, to be compared.

use std::collections::HashMap;

use rbuild_cache::{BuildRecord, Builds, StepRecord, StepState, Store};
use rbuild_oci::Digest;
use rbuild_solver::{CacheMap, Graph, Op, Vertex, llb};

use crate::commands::builds::{Chosen, unreadable};
use crate::error::CommandError;

/// How many builds of other projects are looked at.
const OTHERS: usize = 32;

/// A build and its graph.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) project: String,
    pub(super) record: BuildRecord,
    pub(super) graph: Graph,
    steps: HashMap<Digest, usize>,
}

/// A step of one of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Of<'a> {
    pub(super) build: &'a Loaded,
    pub(super) step: &'a StepRecord,
    pub(super) vertex: &'a Vertex,
}

/// A build and what was built before it.
#[derive(Debug)]
pub(super) struct History {
    pub(super) builds: Builds,
    pub(super) this: Loaded,
    /// The latest first; those of the same project before those of others.
    pub(super) earlier: Vec<Loaded>,
}

impl Loaded {
    fn load(builds: &Builds, project: &str, record: BuildRecord) -> Option<Self> {
        let bytes = builds.graph(project, &record.graph?).ok()??;
        let (graph, _) = llb::from_bytes(&bytes).ok()?;
        let steps = record.steps.iter().enumerate();
        let steps = steps.map(|(index, step)| (step.stored(), index)).collect();
        Some(Self { project: project.to_owned(), record, graph, steps })
    }

    /// The vertices that were steps.
    pub(super) fn steps(&self) -> impl Iterator<Item = Of<'_>> {
        self.graph.vertices().iter().filter_map(|vertex| self.of(vertex))
    }

    pub(super) fn of<'a>(&'a self, vertex: &'a Vertex) -> Option<Of<'a>> {
        let step = &self.record.steps[*self.steps.get(&vertex.digest)?];
        Some(Of { build: self, step, vertex })
    }

    pub(super) fn find(&self, step: &StepRecord) -> Option<Of<'_>> {
        let stored = step.stored();
        let vertex = self.graph.vertices().iter().find(|vertex| vertex.digest == stored)?;
        self.of(vertex)
    }
}

impl<'a> Of<'a> {
    /// The step that an input is.
    pub(super) fn input(&self, position: usize) -> Option<Self> {
        let edge = self.vertex.inputs.get(position)?;
        self.build.of(self.build.graph.vertex(edge.vertex))
    }

    /// What the operation is by itself, without its inputs; of a source, what it is a source of.
    fn itself(&self) -> Itself {
        match (&self.vertex.op, CacheMap::of(self.vertex)) {
            (Op::Source(source), _) => {
                let name = source.identifier.split('@').next().unwrap_or_default();
                Itself::Source(name.to_owned())
            }
            (_, Some(map)) => Itself::Operation(map.digest),
            (_, None) => Itself::Operation(self.vertex.digest),
        }
    }

    /// Whether it came to an end that says something about a later run.
    fn has_ended(&self) -> bool {
        matches!(self.step.state, StepState::Cached | StepState::Done | StepState::Failed)
    }
}

#[derive(PartialEq, Eq)]
enum Itself {
    Source(String),
    Operation(Digest),
}

/// Where a step stands, by its name: `[stage 2/5] RUN make`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) stage: String,
    number: u32,
    keyword: String,
}

impl Place {
    pub(super) fn of(name: &str) -> Option<Self> {
        let (inside, rest) = name.strip_prefix('[')?.split_once("] ")?;
        let (stage, count) = inside.rsplit_once(' ').unwrap_or(("", inside));
        let number = count.split_once('/')?.0.trim().parse().ok()?;
        let keyword = rest.split(' ').next()?.to_owned();
        Some(Self { stage: stage.trim().to_owned(), number, keyword })
    }
}

impl History {
    /// Loads a build, and all that are remembered from before it.
    pub(super) fn load(store: &Store, chosen: &Chosen) -> Result<Self, CommandError> {
        let builds = store.builds.clone();
        let this = Loaded::load(&builds, &chosen.project, chosen.record.clone());
        let this = this.unwrap_or_else(|| Loaded {
            project: chosen.project.clone(),
            record: chosen.record.clone(),
            graph: Graph::default(),
            steps: HashMap::new(),
        });
        let mut earlier = Vec::new();
        let (own, others): (Vec<_>, Vec<_>) = builds
            .all()
            .map_err(unreadable)?
            .into_iter()
            .filter(|(_, id)| *id < chosen.record.id)
            .partition(|(project, _)| *project == chosen.project);
        for (project, id) in own.into_iter().chain(others.into_iter().take(OTHERS)) {
            // One that cannot be read is as good as none.
            let Ok(Some(record)) = builds.read(&project, &id) else { continue };
            earlier.extend(Loaded::load(&builds, &project, record));
        }
        Ok(Self { builds, this, earlier })
    }

    /// The step of an earlier build with the same key.
    pub(super) fn same_key(&self, step: &StepRecord) -> Option<Of<'_>> {
        let steps = self.earlier.iter().flat_map(Loaded::steps);
        steps.into_iter().find(|of| of.step.key == step.key && of.has_ended())
    }

    /// The step of an earlier build that this one was there: the same operation in a stage of the same name, or else what
    /// stood at the same place.
    pub(super) fn counterpart(&self, of: Of<'_>) -> Option<Of<'_>> {
        let place = Place::of(&of.step.name);
        let stage = place.as_ref().map(|place| place.stage.clone());
        let itself = of.itself();
        let same_stage = |old: &Of<'_>| Place::of(&old.step.name).map(|place| place.stage) == stage;
        for same_name in [true, false] {
            for build in &self.earlier {
                let equal = |old: &Of<'_>| {
                    old.has_ended()
                        && old.itself() == itself
                        && same_stage(old)
                        && (!same_name || old.step.name == of.step.name)
                };
                if let Some(old) = build.steps().find(equal) {
                    return Some(old);
                }
            }
        }
        let place = place?;
        let own = self.earlier.iter().filter(|build| build.project == self.this.project);
        for build in own {
            let at_place = |old: &Of<'_>| {
                old.has_ended() && Place::of(&old.step.name).as_ref() == Some(&place)
            };
            if let Some(old) = build.steps().find(at_place) {
                let old_itself = old.itself();
                // What only moved is no earlier form of what came in its place.
                let moved =
                    self.this.steps().any(|new| new.itself() == old_itself && same_stage(&new));
                return (!moved).then_some(old);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_from_names() {
        let place = |name| Place::of(name).map(|p| (p.stage, p.number, p.keyword));
        let expected = |stage: &str, number, keyword: &str| {
            Some((stage.to_owned(), number, keyword.to_owned()))
        };
        assert_eq!(place("[build  2/15] RUN make"), expected("build", 2, "RUN"));
        assert_eq!(place("[2/3] COPY a b"), expected("", 2, "COPY"));
        assert_eq!(place("[linux/amd64 b 1/2] FROM x"), expected("linux/amd64 b", 1, "FROM"));
        assert_eq!(place("[internal] load build context"), None);
        assert_eq!(place("exporting to image"), None);
    }
}
