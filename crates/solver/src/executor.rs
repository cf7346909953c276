//! Who does what a solve finds missing.

use rbuild_oci::Digest;

use crate::{Output, Presence, Progress, Selector, Vertex, VertexId};

/// Does operations. One call of [`Executor::execute`] per vertex and solve at most.
///
/// A solve calls, for a vertex that it needs:
///
/// 1. for a source, [`Executor::source_key`]; sources end the recursion of keys;
/// 2. for an input that is a local folder, [`Executor::content_digest`] of what the vertex selects of it;
/// 3. on a miss, [`Executor::content_digest`] of inputs whose content may stand for them, once they are made;
/// 4. on a miss again, [`Executor::execute`].
///
/// Dropping a returned future cancels the work and leaves nothing half made that anybody would see.
pub trait Executor: Sync {
    /// Why it failed.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The key of a source: equal keys, equal content. Fetches the content only where nothing else tells what it is,
    /// as with a file by HTTP. For an image it is the chain id of its layers, for a git repository its commit; never
    /// called for a `local://` source.
    fn source_key(
        &self,
        vertex: &Vertex,
    ) -> impl Future<Output = Result<Digest, Self::Error>> + Send;

    /// The content digest of what `selector` picks of `output`, for `consumer`, whose name is for messages.
    /// A path that must exist and does not is an error.
    fn content_digest(
        &self,
        output: &Output,
        selector: &Selector,
        consumer: &Vertex,
    ) -> impl Future<Output = Result<Digest, Self::Error>> + Send;

    /// Does the operation on its inputs' outputs. `layer_seed` identifies the result: layers that are made derive their
    /// id from it.
    fn execute(
        &self,
        call: ExecuteCall<'_>,
    ) -> impl Future<Output = Result<Executed, Self::Error>> + Send;
}

/// What an execution yields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executed {
    /// The outputs of the operation, in order.
    pub outputs: Vec<Output>,
    /// What is made of the last layer of each.
    pub last: LastLayer,
}

/// What an execution has made of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastLayer {
    /// Its files.
    Files,
    /// Its archive, and no files.
    Archive,
    /// Nothing yet. If files or an archive are needed, whoever executed the operation can make them for as long as the solve's caller
    /// runs.
    Nothing,
}

impl Executed {
    /// Outputs all of whose layers are made.
    pub fn now(outputs: Vec<Output>) -> Self {
        Self { outputs, last: LastLayer::Files }
    }
}

/// The arguments of [`Executor::execute`].
#[derive(Debug)]
pub struct ExecuteCall<'a> {
    /// Which vertex of the graph.
    pub id: VertexId,
    /// The vertex.
    pub vertex: &'a Vertex,
    /// Per input of the vertex, the output that it names.
    pub inputs: &'a [Output],
    /// Unique for this execution: layers that are made derive their ids from it, so that a step that runs
    /// again (`--no-cache`) never takes the layer of its earlier run.
    pub layer_seed: Digest,
    /// What is needed of the outputs. Where that is less than files, making the last layer may be deferred: nobody in this solve reads
    /// it. The operation must be known to succeed.
    pub need: Presence,
    /// Where logs and statuses go.
    pub progress: &'a Progress,
}
