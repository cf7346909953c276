//! Notes what becomes of a build's vertices, for the record of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rbuild_cache::{StepRecord, StepState};
use rbuild_oci::Digest;
use rbuild_solver::Event;

use super::vertex::CANCELLED;

/// What was noted so far. Clones are the same notes; they stay when the display is gone.
#[derive(Clone, Debug, Default)]
pub(crate) struct StepNotes(Arc<Mutex<Notes>>);

#[derive(Debug, Default)]
struct Notes {
    steps: Vec<StepRecord>,
    by_vertex: HashMap<Digest, usize>,
    begun: u32,
}

impl StepNotes {
    /// Notes an event.
    pub(crate) fn event(&self, event: &Event) {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Added { vertex, name, .. } => notes.add(*vertex, name),
            Event::Keyed { vertex, key, folders, ignores_cache } => {
                if let Some(step) = notes.step(vertex) {
                    step.key = Some(key.0);
                    step.folders = folders.iter().copied().collect();
                    step.ignored_cache = *ignores_cache;
                }
            }
            Event::Started { vertex, at, .. } => {
                let next = notes.begun + 1;
                let Some(step) = notes.step(vertex) else { return };
                if step.error.take().is_some() {
                    // It is tried again.
                    step.state = StepState::Waiting;
                    step.ended = None;
                }
                if step.number.is_none() {
                    step.number = Some(next);
                    step.started = Some((*at).into());
                    notes.begun = next;
                }
            }
            Event::Completed { vertex, at, cached, error } => {
                if let Some(step) = notes.step(vertex)
                    && step.state != StepState::Failed
                {
                    step.ended = Some((*at).into());
                    step.state = match error.as_deref() {
                        Some(CANCELLED) => StepState::Canceled,
                        Some(_) => StepState::Failed,
                        None if *cached => StepState::Cached,
                        None => StepState::Done,
                    };
                    step.error.clone_from(error);
                }
            }
            Event::Status(_) | Event::Log(_) | Event::Warning { .. } => {}
        }
    }

    /// Takes the steps as they are now, for the record.
    pub(crate) fn take(&self) -> Vec<StepRecord> {
        let Notes { mut steps, .. } =
            std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for step in &mut steps {
            step.state = state_now(step);
        }
        steps
    }

    /// The steps that ran, or were to, and use parts of folders.
    pub(crate) fn ran_on_folders(&self) -> Vec<StepRecord> {
        let notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ran = |step: &&StepRecord| {
            matches!(state_now(step), StepState::Done | StepState::Failed | StepState::Canceled)
                && !step.folders.is_empty()
        };
        notes.steps.iter().filter(ran).cloned().collect()
    }
}

/// How it stands with a step; what is at work counts as stopped.
fn state_now(step: &StepRecord) -> StepState {
    match step.started.is_some() && step.ended.is_none() {
        true => StepState::Canceled,
        false => step.state,
    }
}

impl Notes {
    fn add(&mut self, vertex: Digest, name: &str) {
        if self.by_vertex.contains_key(&vertex) {
            return;
        }
        self.by_vertex.insert(vertex, self.steps.len());
        self.steps.push(StepRecord {
            number: None,
            vertex,
            stored_vertex: None,
            name: name.to_owned(),
            state: StepState::Waiting,
            started: None,
            ended: None,
            error: None,
            key: None,
            folders: Default::default(),
            ignored_cache: false,
            inputs: Vec::new(),
            left: Vec::new(),
        });
    }

    fn step(&mut self, vertex: &Digest) -> Option<&mut StepRecord> {
        self.by_vertex.get(vertex).map(|index| &mut self.steps[*index])
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn steps_have_the_numbers_and_ends_that_were_shown() {
        let recorder = StepNotes::default();
        let id = |name: &str| Digest::of(name.as_bytes());
        let at = SystemTime::UNIX_EPOCH;
        for name in ["a", "b", "c", "d"] {
            let name = name.to_owned();
            recorder.event(&Event::Added { vertex: id(&name), name, inputs: Vec::new() });
        }
        let end = |name, cached, error: Option<&str>| Event::Completed {
            vertex: id(name),
            at,
            cached,
            error: error.map(str::to_owned),
        };
        recorder.event(&Event::Started { vertex: id("b"), key: None, at });
        recorder.event(&Event::Started { vertex: id("a"), key: None, at });
        recorder.event(&Event::Started { vertex: id("c"), key: None, at });
        recorder.event(&end("b", true, None));
        recorder.event(&end("a", false, Some("exit code: 1")));
        let steps = recorder.take();
        let steps: Vec<_> = steps.iter().map(|step| (step.number, step.state)).collect();
        let expected = [
            (Some(2), StepState::Failed),
            (Some(1), StepState::Cached),
            (Some(3), StepState::Canceled),
            (None, StepState::Waiting),
        ];
        assert_eq!(steps, expected);
    }
}
