//! The solve: a memo with two keys (design D2).

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroUsize;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::timeout;

use crate::keys::{Keys, is_local_folder, local_folder};
use crate::unstored::{self, Unstored};
use crate::{
    CacheKey, CacheStore, Edge, Event, Executor, Graph, Op, Output, Presence, Progress, SolveError,
    SolveErrorKind, VertexId,
};

/// How a graph is solved.
#[derive(Clone, Copy, Debug, Default)]
pub struct SolveOptions {
    /// How many vertices are worked on at the same time; `None` is as many as are ready. The executor limits
    /// what is scarce (processes, downloads) by itself.
    pub max_parallelism: Option<NonZeroUsize>,
    /// What the caller needs of the targets' layers. Those that only a target has may not be made as directories where it needs less.
    pub need: Presence,
}

/// Brings about the outputs `targets` of a graph and returns them in order.
///
/// Fast keys are computed for all that the targets build on; nothing runs for them and nothing is pulled. From
/// the targets down, vertices are looked up by them; what is found needs no inputs. What is missing is worked
/// on as soon as its inputs are there: it is looked up once more by what the inputs turned out to be (its slow
/// key), then executed, and stored under both keys. Who else wants the same vertex waits for it at the
/// store's lock.
///
/// A vertex that ignores the cache runs, and what builds on it is not looked up by its fast key, which would
/// find the outcome of the earlier run. It is by its slow key: a copy of the same files is a hit.
///
/// The first error ends the solve; what runs at that time is cancelled, as all is when the returned future is
/// dropped. Nothing of a vertex that failed is stored.
///
/// # Panics
///
/// When a target is not of this graph, and outside of a tokio runtime that has timers.
pub async fn solve<E: Executor, S: CacheStore>(
    graph: &Graph,
    targets: &[Edge],
    executor: &E,
    store: &S,
    progress: &Progress,
    options: SolveOptions,
) -> Result<Vec<Output>, SolveError<E::Error, S::Error>> {
    solve_keyed(graph, targets, executor, store, progress, options, &mut Vec::new()).await
}

/// As [`solve`]. `keyed` gets the fast key of each vertex that has one, before anything runs: under it is what
/// became of the vertex, also where the solve fails later, or found what builds on the vertex and never came to it.
///
/// # Panics
///
/// When a target is not of this graph, and outside of a tokio runtime that has timers.
pub async fn solve_keyed<E: Executor, S: CacheStore>(
    graph: &Graph,
    targets: &[Edge],
    executor: &E,
    store: &S,
    progress: &Progress,
    options: SolveOptions,
    keyed: &mut Vec<(VertexId, CacheKey)>,
) -> Result<Vec<Output>, SolveError<E::Error, S::Error>> {
    let reachable = graph.reachable(targets);
    let order: Vec<VertexId> = graph.ids().filter(|id| reachable[id.index()]).collect();
    check_outputs(graph, &order, targets)?;
    announce(graph, &order, progress);
    let keys = Keys::compute(graph, &order, executor, progress).await?;
    *keyed = keys.all_fast(graph).collect();
    let mut solve = Solve {
        graph,
        executor,
        store,
        progress,
        keys,
        outdated: outdated(graph, &order),
        needs: Vec::new(),
        nonce: nonce(),
        unstored: Unstored::default(),
    };
    let mut outputs = vec![None; graph.vertices().len()];
    let missing = solve.look_up(&order, (targets, options.need), &mut outputs)?;
    solve.show_cached(&order, &missing);
    solve.run(&missing, &mut outputs, options).await?;
    Ok(targets.iter().map(|target| output(&outputs, *target)).collect())
}

/// A solve whose keys are known.
pub(crate) struct Solve<'a, E: Executor, S: CacheStore> {
    pub(crate) graph: &'a Graph,
    pub(crate) executor: &'a E,
    pub(crate) store: &'a S,
    pub(crate) progress: &'a Progress,
    pub(crate) keys: Keys,
    /// By position: vertices that ignore the cache or build on one that does, so that what is stored under
    /// their fast key is what came out of an earlier run.
    pub(crate) outdated: Vec<bool>,
    /// By position: what is needed of the vertex's outputs, `None` where nothing is.
    pub(crate) needs: Vec<Option<Presence>>,
    /// Makes executions of this solve different from those of any other.
    pub(crate) nonce: [u64; 2],
    pub(crate) unstored: Unstored<S::Guard>,
}

impl<E: Executor, S: CacheStore> Drop for Solve<'_, E, S> {
    /// What is made stays made, also where the solve fails or is given up.
    fn drop(&mut self) {
        // There is no more that could be done with it, and nobody to tell.
        let _ = self.store_all();
    }
}

/// Outputs by position of the vertex; `None` where there are none yet, or none needed.
type Outputs = [Option<Vec<Output>>];

fn output(outputs: &Outputs, edge: Edge) -> Output {
    let outputs = outputs[edge.vertex.index()].as_ref().expect("vertices run after their inputs");
    outputs[edge.output as usize].clone()
}

pub(crate) type ErrorOf<E, S> = SolveError<<E as Executor>::Error, <S as CacheStore>::Error>;

impl<E: Executor, S: CacheStore> Solve<'_, E, S> {
    /// Looks up from the targets down; returns what has to be worked on, inputs first.
    fn look_up(
        &mut self,
        order: &[VertexId],
        (targets, need): (&[Edge], Presence),
        outputs: &mut Outputs,
    ) -> Result<Vec<VertexId>, ErrorOf<E, S>> {
        self.needs = vec![None; outputs.len()];
        for target in targets {
            self.needs[target.vertex.index()] = Some(need);
        }
        let mut missing = Vec::new();
        for id in order.iter().rev() {
            let Some(need) = self.needs[id.index()] else { continue };
            let vertex = self.graph.vertex(*id);
            let found = match local_folder(vertex) {
                Some(folder) => Some(vec![folder]),
                None => self.find_by_definition(*id).map_err(|kind| kind.of(self.graph, *id))?,
            };
            if found.is_none() {
                let of_inputs = match &vertex.op {
                    // States on top of one another: what they are made of is not looked at.
                    Op::Merge(_) => need,
                    _ => Presence::Files,
                };
                for edge in &vertex.inputs {
                    let input = &mut self.needs[edge.vertex.index()];
                    *input = (*input).max(Some(of_inputs));
                }
                missing.push(*id);
            }
            outputs[id.index()] = found;
        }
        // The loop sees a vertex only after all its users, so `needs` is complete for it.
        missing.reverse();
        Ok(missing)
    }

    /// Reports what is not worked on as cached, whether it was looked up or only what found things build on.
    fn show_cached(&self, order: &[VertexId], missing: &[VertexId]) {
        let mut missing = missing.iter().peekable();
        for id in order {
            let vertex = self.graph.vertex(*id);
            if missing.next_if_eq(&id).is_none() && !is_local_folder(vertex) {
                self.start(*id).complete(true);
            }
        }
    }

    /// Works on `missing`, each vertex as soon as its inputs are there.
    async fn run(
        &self,
        missing: &[VertexId],
        outputs: &mut Outputs,
        options: SolveOptions,
    ) -> Result<(), ErrorOf<E, S>> {
        let mut users: Vec<Vec<VertexId>> = vec![Vec::new(); outputs.len()];
        let mut waits_for = vec![0_usize; outputs.len()];
        for id in missing {
            for edge in &self.graph.vertex(*id).inputs {
                if outputs[edge.vertex.index()].is_none() {
                    users[edge.vertex.index()].push(*id);
                    waits_for[id.index()] += 1;
                }
            }
        }
        let ready = missing.iter().copied().filter(|id| waits_for[id.index()] == 0);
        let mut ready: VecDeque<VertexId> = ready.collect();
        let limit = options.max_parallelism.map_or(usize::MAX, NonZeroUsize::get);
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < limit
                && let Some(id) = ready.pop_front()
            {
                let inputs = self.graph.vertex(id).inputs.iter();
                let inputs = inputs.map(|edge| output(outputs, *edge)).collect();
                running.push(self.work_on(id, inputs));
            }
            let next = match self.unstored.is_empty() {
                true => Ok(running.next().await),
                false => timeout(unstored::IDLE, running.next()).await,
            };
            let done = match next {
                Ok(Some(done)) => done,
                Ok(None) => return self.store_all(),
                Err(_) => {
                    self.store_all()?;
                    continue;
                }
            };
            let (id, made) = done?;
            if self.unstored.is_due() {
                self.store_all()?;
            }
            outputs[id.index()] = Some(made);
            for user in &users[id.index()] {
                waits_for[user.index()] -= 1;
                if waits_for[user.index()] == 0 {
                    ready.push_back(*user);
                }
            }
        }
    }
}

/// Checks that all that is used is there, so that outputs can be taken by number later.
fn check_outputs<E: std::error::Error + 'static, S: std::error::Error + 'static>(
    graph: &Graph,
    order: &[VertexId],
    targets: &[Edge],
) -> Result<(), SolveError<E, S>> {
    let check = |user: VertexId, edge: &Edge| {
        let input = graph.vertex(edge.vertex);
        let (output, count) = (edge.output, input.op.output_count());
        if (output as usize) < count {
            return Ok(());
        }
        let input = input.meta.name.clone();
        Err(SolveErrorKind::MissingOutput { input, output, count }.of(graph, user))
    };
    targets.iter().try_for_each(|target| check(target.vertex, target))?;
    order
        .iter()
        .try_for_each(|id| graph.vertex(*id).inputs.iter().try_for_each(|edge| check(*id, edge)))
}

fn announce(graph: &Graph, order: &[VertexId], progress: &Progress) {
    for id in order {
        let vertex = graph.vertex(*id);
        let inputs = vertex.inputs.iter().map(|edge| graph.vertex(edge.vertex).digest);
        progress.send(Event::Added {
            vertex: vertex.digest,
            name: vertex.meta.name.clone(),
            inputs: inputs.collect(),
        });
    }
}

/// See [`Solve::outdated`].
fn outdated(graph: &Graph, order: &[VertexId]) -> Vec<bool> {
    let mut outdated = vec![false; graph.vertices().len()];
    for id in order {
        let vertex = graph.vertex(*id);
        outdated[id.index()] = vertex.meta.ignore_cache
            || vertex.inputs.iter().any(|edge| outdated[edge.vertex.index()]);
    }
    outdated
}

/// The standard library seeds each `RandomState` from the operating system; that saves a dependency for
/// sixteen bytes that must be different each time but need not be secret.
fn nonce() -> [u64; 2] {
    [0_u64, 1].map(|number| RandomState::new().hash_one(number))
}
