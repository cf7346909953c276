//! Graphs as LLB definitions.

use std::collections::{BTreeMap, HashMap};

use bollard_buildkit_proto::pb;
use prost::Message;
use rbuild_oci::Digest;

use super::decode::{self, OpError};
use super::encode::{self, SourceOpMessage};
use crate::{
    Edge, FileActionKind, Graph, GraphBuilder, Op, SourceLocation, Vertex, VertexId, VertexMeta,
};

/// The key in a vertex's description under which people's name for it stands.
const CUSTOM_NAME: &str = "llb.customname";

/// Why a definition is refused.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    /// The bytes are no protobuf message of the kind.
    #[error("cannot decode the LLB definition")]
    Definition(#[source] prost::DecodeError),
    /// There is nothing in it.
    #[error("the LLB definition is empty")]
    Empty,
    /// The last operation does not just name the result.
    #[error("the last operation of the LLB definition is not one that names the result")]
    NoTerminal,
    /// An operation is no protobuf message of the kind.
    #[error("cannot decode operation `{digest}`")]
    Operation {
        /// Its digest.
        digest: Digest,
        /// What is wrong.
        source: prost::DecodeError,
    },
    /// An operation has fields that this version does not know, so it would do something else without them.
    #[error("operation `{0}` has fields that are not known to this version")]
    UnknownFields(Digest),
    /// An operation says something that cannot be done.
    #[error("operation `{digest}` cannot be used")]
    Unusable {
        /// Its digest.
        digest: Digest,
        /// Why.
        source: OpError,
    },
    /// What an operation may use is limited (`linux_resources` of its metadata).
    #[error(
        "operation `{0}` limits what it may use of the machine (linux_resources), which only flags such as --memory can do here"
    )]
    Limited(String),
    /// An operation's input is not in the definition.
    #[error("operation `{digest}` needs `{input}`, which is not in the definition")]
    MissingInput {
        /// The operation.
        digest: Digest,
        /// What it names.
        input: String,
    },
    /// An operation's input has no such output.
    #[error("operation `{digest}` needs output {output} of `{input}`, which does not have it")]
    MissingOutput {
        /// The operation.
        digest: Digest,
        /// What it names.
        input: String,
        /// Which of its outputs.
        output: i64,
    },
}

/// Encodes what `target` needs of `graph`.
pub fn to_bytes(graph: &Graph, target: Edge) -> Vec<u8> {
    to_definition(graph, target).encode_to_vec()
}

/// Decodes a definition; the edge is its result.
pub fn from_bytes(bytes: &[u8]) -> Result<(Graph, Edge), DefinitionError> {
    let limits = Limits::decode(bytes).map_err(DefinitionError::Definition)?;
    if let Some((name, _)) = limits.metadata.iter().find(|(_, of)| of.linux_resources.is_some()) {
        return Err(DefinitionError::Limited(name.clone()));
    }
    from_definition(&pb::Definition::decode(bytes).map_err(DefinitionError::Definition)?)
}

/// What [`pb::Definition`] leaves out, as it is younger than the crate's.
#[derive(Clone, PartialEq, Message)]
struct Limits {
    #[prost(btree_map = "string, message", tag = "2")]
    metadata: BTreeMap<String, OpLimits>,
}

#[derive(Clone, PartialEq, Message)]
struct OpLimits {
    /// Whatever it says.
    #[prost(message, optional, tag = "7")]
    linux_resources: Option<()>,
}

/// The definition of what `target` needs of `graph`.
pub fn to_definition(graph: &Graph, target: Edge) -> pb::Definition {
    let reachable = graph.reachable(&[target]);
    let mut definition = pb::Definition::default();
    let mut source = SourceWriter::default();
    for vertex in
        graph.vertices().iter().zip(reachable).filter_map(|(v, needed)| needed.then_some(v))
    {
        let inputs =
            vertex.inputs.iter().map(|edge| (graph.vertex(edge.vertex).digest, edge.output));
        definition.def.push(encode::encode_op(&vertex.op, inputs, vertex.platform.as_ref()));
        definition.metadata.insert(vertex.digest.to_string(), metadata(&vertex.meta));
        if let Some(location) = &vertex.meta.location {
            source.add(vertex.digest, location);
        }
    }
    let target = pb::Input {
        digest: graph.vertex(target.vertex).digest.to_string(),
        index: target.output.into(),
    };
    let terminal = pb::Op { inputs: vec![target], ..pb::Op::default() };
    definition.def.push(terminal.encode_to_vec());
    definition.source = Some(source.message);
    definition
}

fn metadata(meta: &VertexMeta) -> pb::OpMetadata {
    let mut description = BTreeMap::new();
    if !meta.name.is_empty() {
        description.insert(CUSTOM_NAME.to_owned(), meta.name.clone());
    }
    pb::OpMetadata { ignore_cache: meta.ignore_cache, description, ..pb::OpMetadata::default() }
}

/// Collects source locations; each file is listed once.
#[derive(Default)]
struct SourceWriter<'a> {
    message: pb::Source,
    files: HashMap<&'a str, i32>,
}

impl<'a> SourceWriter<'a> {
    fn add(&mut self, vertex: Digest, location: &'a SourceLocation) {
        let infos = &mut self.message.infos;
        let source_index = *self.files.entry(&location.file).or_insert_with(|| {
            infos.push(pb::SourceInfo { filename: location.file.clone(), ..Default::default() });
            infos.len() as i32 - 1
        });
        let position = |line: u32| {
            Some(pb::Position { line: i32::try_from(line).unwrap_or(i32::MAX), character: 0 })
        };
        let range =
            pb::Range { start: position(location.first_line), end: position(location.last_line) };
        let location = pb::Location { source_index, ranges: vec![range] };
        self.message
            .locations
            .insert(vertex.to_string(), pb::Locations { locations: vec![location] });
    }
}

/// The graph of a definition, and the edge that is its result. What the result does not need is left out.
pub fn from_definition(definition: &pb::Definition) -> Result<(Graph, Edge), DefinitionError> {
    let (last, rest) = definition.def.split_last().ok_or(DefinitionError::Empty)?;
    let terminal = decode(last)?;
    let [target] = terminal.inputs.as_slice() else { return Err(DefinitionError::NoTerminal) };
    if terminal.op.is_some() {
        return Err(DefinitionError::NoTerminal);
    }
    let encoded = rest.iter().map(|bytes| (Digest::of(bytes).to_string(), bytes.as_slice()));
    let mut reader = Reader {
        definition,
        encoded: encoded.collect(),
        builder: GraphBuilder::new(),
        ids: HashMap::new(),
    };
    reader.add_all(target, Digest::of(last))?;
    let target = reader.edge(target, Digest::of(last))?;
    Ok((reader.builder.finish(), target))
}

/// Decodes an operation, and checks that nothing was lost by that.
fn decode(bytes: &[u8]) -> Result<pb::Op, DefinitionError> {
    let digest = || Digest::of(bytes);
    let failed = |source| DefinitionError::Operation { digest: digest(), source };
    let op = pb::Op::decode(bytes).map_err(failed)?;
    let understood = match op.op {
        Some(pb::op::Op::Source(_)) => {
            SourceOpMessage::decode(bytes).map_err(failed)?.encoded_len()
        }
        _ => op.encoded_len(),
    };
    // An operation of a later version decodes to one without a kind, which has its own message.
    if bytes.len() > understood && op.op.is_some() {
        return Err(DefinitionError::UnknownFields(digest()));
    }
    Ok(op)
}

struct Reader<'a> {
    definition: &'a pb::Definition,
    /// Operations by the digest of their encoding as given.
    encoded: HashMap<String, &'a [u8]>,
    builder: GraphBuilder,
    /// The vertices made, by the digest of the encoding as given: ours may be another, when whoever wrote the
    /// definition left fields out that our encoding has.
    ids: HashMap<String, VertexId>,
}

impl Reader<'_> {
    /// Adds what `target` needs, inputs first, without recursion: a definition may be a long chain.
    fn add_all(&mut self, target: &pb::Input, user: Digest) -> Result<(), DefinitionError> {
        enum Visit {
            /// A vertex that another one needs.
            Enter(String, Digest),
            /// A vertex whose inputs are there.
            Leave(String, Digest, Box<pb::Op>),
        }
        let mut stack = vec![Visit::Enter(target.digest.clone(), user)];
        while let Some(visit) = stack.pop() {
            match visit {
                Visit::Enter(name, _) if self.ids.contains_key(&name) => {}
                Visit::Enter(name, user) => {
                    let Some(bytes) = self.encoded.get(&name) else {
                        return Err(DefinitionError::MissingInput { digest: user, input: name });
                    };
                    // Nothing can be its own input: a name is the digest of what contains the names of its inputs.
                    let op = decode(bytes)?;
                    let digest = Digest::of(bytes);
                    let inputs = op.inputs.iter().map(|input| input.digest.clone());
                    let inputs: Vec<_> = inputs.map(|input| Visit::Enter(input, digest)).collect();
                    stack.push(Visit::Leave(name, digest, Box::new(op)));
                    stack.extend(inputs);
                }
                Visit::Leave(name, digest, op) => self.add(name, digest, *op)?,
            }
        }
        Ok(())
    }

    fn add(&mut self, name: String, digest: Digest, op: pb::Op) -> Result<(), DefinitionError> {
        let inputs = op.inputs.iter().map(|input| self.edge(input, digest));
        let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
        let unusable = |source| DefinitionError::Unusable { digest, source };
        let constraints = op.constraints.unwrap_or_default();
        if !constraints.filter.is_empty() {
            return Err(unusable(OpError::Unsupported("constraints")));
        }
        let kind = op.op.ok_or_else(|| unusable(OpError::UnknownKind))?;
        let kind = decode::op(kind, inputs.len()).map_err(unusable)?;
        let meta = self.meta(&name, &kind);
        let id = self.builder.add(kind, inputs, op.platform.map(decode::platform), meta);
        self.ids.insert(name, id);
        Ok(())
    }

    /// The vertex and output that an input names.
    fn edge(&self, input: &pb::Input, user: Digest) -> Result<Edge, DefinitionError> {
        let vertex = *self.ids.get(&input.digest).ok_or_else(|| DefinitionError::MissingInput {
            digest: user,
            input: input.digest.clone(),
        })?;
        let Vertex { op, .. } = self.builder.graph().vertex(vertex);
        let output = u32::try_from(input.index).ok();
        match output.filter(|output| (*output as usize) < op.output_count()) {
            Some(output) => Ok(Edge { vertex, output }),
            None => Err(DefinitionError::MissingOutput {
                digest: user,
                input: input.digest.clone(),
                output: input.index,
            }),
        }
    }

    fn meta(&self, name: &str, op: &Op) -> VertexMeta {
        let given = self.definition.metadata.get(name);
        let custom = given.and_then(|given| given.description.get(CUSTOM_NAME));
        VertexMeta {
            name: custom.cloned().unwrap_or_else(|| default_name(op)),
            ignore_cache: given.is_some_and(|given| given.ignore_cache),
            location: self.location(name),
        }
    }

    /// The first source location of a vertex. Locations are for people: a broken one is no error.
    fn location(&self, name: &str) -> Option<SourceLocation> {
        let source = self.definition.source.as_ref()?;
        let location = source.locations.get(name)?.locations.first()?;
        let range = location.ranges.first()?;
        let line = |position: Option<pb::Position>| u32::try_from(position?.line).ok();
        let info = source.infos.get(usize::try_from(location.source_index).ok()?)?;
        let first_line = line(range.start)?;
        Some(SourceLocation {
            file: info.filename.clone(),
            first_line,
            last_line: line(range.end).unwrap_or(first_line).max(first_line),
        })
    }
}

/// What a vertex is called that nobody named.
fn default_name(op: &Op) -> String {
    match op {
        Op::Source(source) => source.identifier.clone(),
        Op::Exec(exec) => exec.meta.args.join(" "),
        Op::Merge(_) => "merge".to_owned(),
        Op::Diff(_) => "diff".to_owned(),
        Op::File(file) => {
            let names = file.actions.iter().map(|action| match &action.kind {
                FileActionKind::Copy(copy) => format!("copy {} {}", copy.src, copy.dest),
                FileActionKind::Mkfile(mkfile) => format!("mkfile {}", mkfile.path),
                FileActionKind::Mkdir(mkdir) => format!("mkdir {}", mkdir.path),
                FileActionKind::Rm(rm) => format!("rm {}", rm.path),
                FileActionKind::Symlink(symlink) => {
                    format!("symlink {} -> {}", symlink.path, symlink.target)
                }
            });
            names.collect::<Vec<_>>().join(", ")
        }
    }
}
