//! Fast keys of all vertices that a solve may need.

use std::collections::HashMap;

use futures_util::future::try_join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use rbuild_oci::{Digest, Hasher};

use crate::running::Running;
use crate::{
    CacheKey, CacheMap, Edge, Event, Executor, Graph, InputKeying, KeyParts, Op, Output, Progress,
    Selector, SolveError, SolveErrorKind, Vertex, VertexId,
};

/// How many sources and selections are looked at side by side. The executor has limits of its own for what
/// is scarce; this one only keeps a huge graph from beginning everything at once.
const PARALLEL: usize = 256;

/// How the vertices of a graph are keyed; by position, `None` where a solve does not come.
pub(crate) struct Keys {
    /// `None` also for sources.
    pub(crate) maps: Vec<Option<CacheMap>>,
    /// `None` also for local folders: only the use of one has a key.
    fast: Vec<Option<(CacheKey, KeyParts)>>,
}

/// The folder that a vertex is, if it is one.
pub(crate) fn local_folder(vertex: &Vertex) -> Option<Output> {
    match &vertex.op {
        Op::Source(source) if source.local_name().is_some() => {
            Some(Output::Local(source.clone().into()))
        }
        _ => None,
    }
}

/// Whether a vertex is a folder of the user's.
pub(crate) fn is_local_folder(vertex: &Vertex) -> bool {
    matches!(&vertex.op, Op::Source(source) if source.local_name().is_some())
}

/// The digest of what `selectors` pick of an input. One selection is not hashed again, so that the same
/// content has the same digest however it came.
pub(crate) async fn content<E: Executor>(
    executor: &E,
    output: &Output,
    keying: &InputKeying,
    consumer: &Vertex,
) -> Result<Digest, E::Error> {
    let everything = [Selector::everything()];
    let selectors = if keying.content.is_empty() { &everything } else { &keying.content[..] };
    if let [selector] = selectors {
        return executor.content_digest(output, selector, consumer).await;
    }
    let digests = selectors.iter().map(|one| executor.content_digest(output, one, consumer));
    // On the heap, so that the futures of the many that have one selection are small.
    let digests = Box::pin(try_join_all(digests)).await?;
    Ok(combined(b"rbuild.contents.v1", &digests))
}

fn combined(domain: &[u8], digests: &[Digest]) -> Digest {
    let mut hasher = Hasher::default();
    hasher.update(domain);
    digests.iter().for_each(|digest| hasher.update(digest.as_bytes()));
    hasher.finish()
}

/// One thing that has to be asked before keys can be computed.
#[derive(Clone, Copy)]
enum Question {
    /// What a source is.
    Source(VertexId),
    /// What a vertex uses of its input number `input`, which is the folder `folder`.
    Folder { consumer: VertexId, input: usize, folder: VertexId },
}

/// Answers by vertex and input; that of a source has input 0.
type Answers = HashMap<(VertexId, usize), Digest>;

impl Keys {
    /// Computes the keys of `order`, which has inputs before their users.
    pub(crate) async fn compute<E: Executor, S: std::error::Error + 'static>(
        graph: &Graph,
        order: &[VertexId],
        executor: &E,
        progress: &Progress,
    ) -> Result<Self, SolveError<E::Error, S>> {
        let mut maps = vec![None; graph.vertices().len()];
        for id in order {
            maps[id.index()] = CacheMap::of(graph.vertex(*id));
        }
        let inquiry = Inquiry { graph, maps: &maps, executor, progress };
        let answers = inquiry.answers(order).await?;
        let mut fast: Vec<Option<(CacheKey, KeyParts)>> = vec![None; maps.len()];
        for id in order {
            let vertex = graph.vertex(*id);
            let (op, inputs) = match &maps[id.index()] {
                Some(map) => {
                    let inputs = vertex.inputs.iter().zip(&map.inputs).enumerate();
                    let inputs =
                        inputs.map(|(position, (edge, keying))| match &fast[edge.vertex.index()] {
                            Some((key, _)) => definition(key, *edge, keying),
                            None => answers[&(*id, position)],
                        });
                    (map.digest, inputs.collect())
                }
                None if is_local_folder(vertex) => continue,
                None => (answers[&(*id, 0)], Vec::new()),
            };
            let parts = KeyParts { op, inputs, by_content: false };
            let key = parts.key();
            progress.send(Event::Keyed {
                vertex: vertex.digest,
                key,
                folders: folders_of(graph, vertex, &parts),
                ignores_cache: vertex.meta.ignore_cache,
            });
            fast[id.index()] = Some((key, parts));
        }
        Ok(Self { maps, fast })
    }

    /// The fast key of a vertex that is no local folder.
    pub(crate) fn fast(&self, id: VertexId) -> (&CacheKey, &KeyParts) {
        let (key, parts) = self.fast[id.index()].as_ref().expect("the solve comes to the vertex");
        (key, parts)
    }

    /// The fast keys that there are.
    pub(crate) fn all_fast(&self, graph: &Graph) -> impl Iterator<Item = (VertexId, CacheKey)> {
        let keyed = graph.ids().zip(&self.fast);
        keyed.filter_map(|(id, fast)| fast.as_ref().map(|(key, _)| (id, *key)))
    }
}

/// The parts of a key that are of local folders.
fn folders_of(graph: &Graph, vertex: &Vertex, parts: &KeyParts) -> Vec<(usize, Digest)> {
    let inputs = vertex.inputs.iter().zip(&parts.inputs).enumerate();
    let folders = inputs.filter(|(_, (edge, _))| is_local_folder(graph.vertex(edge.vertex)));
    folders.map(|(position, (_, digest))| (position, *digest)).collect()
}

/// What stands for an input by its definition: its key, which output of it, and which part of that.
fn definition(key: &CacheKey, edge: Edge, keying: &InputKeying) -> Digest {
    if edge.output == 0 && keying.content.is_empty() {
        return key.0;
    }
    let mut hasher = Hasher::default();
    hasher.update(b"rbuild.input.v1");
    hasher.update(key.0.as_bytes());
    hasher.update(&edge.output.to_le_bytes());
    keying.content.iter().for_each(|selector| hasher.update(selector.digest().as_bytes()));
    hasher.finish()
}

/// Asks an executor what keys have to be made of, many questions at a time.
struct Inquiry<'a, E> {
    graph: &'a Graph,
    maps: &'a [Option<CacheMap>],
    executor: &'a E,
    progress: &'a Progress,
}

impl<E: Executor> Inquiry<'_, E> {
    async fn answers<S: std::error::Error + 'static>(
        &self,
        order: &[VertexId],
    ) -> Result<Answers, SolveError<E::Error, S>> {
        let questions = self.questions(order);
        // A folder is at work from the first question about it to the last answer.
        let mut open: HashMap<VertexId, usize> = HashMap::new();
        let mut folders: HashMap<VertexId, Output> = HashMap::new();
        for question in &questions {
            if let Question::Folder { folder, .. } = question {
                *open.entry(*folder).or_default() += 1;
                folders.entry(*folder).or_insert_with(|| {
                    local_folder(self.graph.vertex(*folder)).expect("the question is about one")
                });
            }
        }
        let mut running = HashMap::new();
        let mut answers = Answers::with_capacity(questions.len());
        let mut waiting = questions.into_iter();
        let mut asked = FuturesUnordered::new();
        loop {
            while asked.len() < PARALLEL
                && let Some(question) = waiting.next()
            {
                if let Question::Folder { folder, .. } = question {
                    running.entry(folder).or_insert_with(|| {
                        Running::start(self.progress, self.graph.vertex(folder).digest, None)
                    });
                }
                asked.push(self.ask(question, &folders));
            }
            let Some(answer) = asked.next().await else { return Ok(answers) };
            let (question, digest) = answer.map_err(|(vertex, kind)| {
                let digest = self.graph.vertex(vertex).digest;
                Running::start(self.progress, digest, None).fail(kind.line());
                kind.of(self.graph, vertex)
            })?;
            match question {
                Question::Source(id) => answers.insert((id, 0), digest),
                Question::Folder { consumer, input, folder } => {
                    let left = open.entry(folder).or_default();
                    *left -= 1;
                    if *left == 0
                        && let Some(running) = running.remove(&folder)
                    {
                        running.complete(false);
                    }
                    answers.insert((consumer, input), digest)
                }
            };
        }
    }

    fn questions(&self, order: &[VertexId]) -> Vec<Question> {
        let mut questions = Vec::new();
        for id in order {
            let vertex = self.graph.vertex(*id);
            if self.maps[id.index()].is_none() && !is_local_folder(vertex) {
                questions.push(Question::Source(*id));
            }
            for (input, edge) in vertex.inputs.iter().enumerate() {
                if is_local_folder(self.graph.vertex(edge.vertex)) {
                    let folder = edge.vertex;
                    questions.push(Question::Folder { consumer: *id, input, folder });
                }
            }
        }
        questions
    }

    async fn ask<S: std::error::Error + 'static>(
        &self,
        question: Question,
        folders: &HashMap<VertexId, Output>,
    ) -> Result<(Question, Digest), (VertexId, SolveErrorKind<E::Error, S>)> {
        let answer = match question {
            Question::Source(id) => {
                // There are few sources and thousands of folders' parts: their futures must not have this one's size.
                let digest = Box::pin(self.executor.source_key(self.graph.vertex(id))).await;
                digest.map_err(|error| (id, SolveErrorKind::Source(error)))
            }
            Question::Folder { consumer, input, folder } => {
                let folder = &folders[&folder];
                let keying = self.maps[consumer.index()].as_ref().map(|map| &map.inputs[input]);
                let keying = keying.expect("sources have no inputs");
                let vertex = self.graph.vertex(consumer);
                let digest = content(self.executor, folder, keying, vertex).await;
                digest.map_err(|error| (consumer, SolveErrorKind::Content(error)))
            }
        };
        answer.map(|digest| (question, digest))
    }
}
