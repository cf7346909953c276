//! Shows nothing but some warnings, and still knows what failed.

use rbuild_solver::Event;

use super::print_after;
use super::vertex::Vertices;
use crate::printable;

/// A build that is not shown.
#[derive(Debug, Default)]
pub(crate) struct Quiet {
    vertices: Vertices,
}

impl Quiet {
    pub(crate) fn vertices(&self) -> &Vertices {
        &self.vertices
    }

    pub(crate) fn event(&mut self, event: Event) {
        let vertices = &mut self.vertices;
        match event {
            Event::Added { vertex, name, inputs } => {
                vertices.add(vertex, name, inputs);
            }
            Event::Started { vertex, at, .. } => {
                if let Some(index) = vertices.index(&vertex) {
                    vertices.start(index, at);
                }
            }
            Event::Completed { vertex, at, cached, error } => {
                if let Some(index) = vertices.index(&vertex) {
                    vertices.complete(index, at, cached, error);
                }
            }
            Event::Log(chunk) => {
                if let Some(index) = vertices.index(&chunk.vertex) {
                    vertices.log(index, chunk.stream, &chunk.bytes, |_| {});
                }
            }
            // What some part of the build could not do as it was told is not progress.
            Event::Warning { vertex: Some(_), message } => {
                print_after(&format!("WARN: {}\n", printable::line(&message)));
            }
            Event::Warning { vertex: None, .. } | Event::Status(_) | Event::Keyed { .. } => {}
        }
    }
}
