//! Why a solve fails.

use std::error::Error;

use crate::{Graph, SourceLocation, VertexId};

/// Why a solve failed: the first vertex that did.
#[derive(Debug, thiserror::Error)]
#[error("cannot solve `{name}`")]
pub struct SolveError<E: std::error::Error + 'static, S: std::error::Error + 'static> {
    /// The vertex.
    pub vertex: VertexId,
    /// Its name.
    pub name: String,
    /// Where it was written.
    pub location: Option<SourceLocation>,
    /// What happened.
    #[source]
    pub kind: SolveErrorKind<E, S>,
}

/// What went wrong with a vertex. `E` is the executor's error, `S` the store's.
#[derive(Debug, thiserror::Error)]
pub enum SolveErrorKind<E: std::error::Error + 'static, S: std::error::Error + 'static> {
    /// What a source is could not be found out.
    #[error(transparent)]
    Source(E),
    /// What the vertex uses of an input could not be read. The words are BuildKit's.
    #[error("failed to compute cache key")]
    Content(#[source] E),
    /// The operation failed.
    #[error(transparent)]
    Execute(E),
    /// The store failed.
    #[error("cannot use the cache")]
    Store(#[source] S),
    /// An input's output, or a target, is not there.
    #[error("output {output} of `{input}` is used, which has {count}")]
    MissingOutput {
        /// The input's name.
        input: String,
        /// Which output.
        output: u32,
        /// How many there are.
        count: usize,
    },
    /// The executor returned another number of outputs than the operation has.
    #[error("the operation has {expected} outputs, executing it gave {actual}")]
    OutputCount {
        /// What the operation has.
        expected: usize,
        /// What came.
        actual: usize,
    },
}

impl<E: Error + 'static, S: Error + 'static> SolveErrorKind<E, S> {
    /// The error of a vertex.
    pub(crate) fn of(self, graph: &Graph, vertex: VertexId) -> SolveError<E, S> {
        let meta = &graph.vertex(vertex).meta;
        SolveError { vertex, name: meta.name.clone(), location: meta.location.clone(), kind: self }
    }

    /// All messages of the chain on one line, for a progress event.
    pub(crate) fn line(&self) -> String {
        chain(self)
    }
}

/// An error and what caused it, in one line.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    let mut line: Vec<String> = causes.map(ToString::to_string).collect();
    // A wrapper that adds nothing says what its cause says.
    line.dedup();
    line.join(": ")
}
