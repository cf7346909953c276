//! What a solve does for one vertex whose inputs are there.

use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use rbuild_oci::{Digest, Hasher};

use crate::keys;
use crate::running::Running;
use crate::solve::{ErrorOf, Solve};
use crate::unstored::UnstoredRecord;
use crate::{
    CacheKey, CacheStore, ExecuteCall, Executed, Executor, KeyParts, LastLayer, NewRecord, Output,
    Presence, SolveErrorKind, Vertex, VertexId,
};

type KindOf<E, S> = SolveErrorKind<<E as Executor>::Error, <S as CacheStore>::Error>;

impl<E: Executor, S: CacheStore> Solve<'_, E, S> {
    /// Brings about a vertex's outputs, and reports how that goes.
    pub(crate) async fn work_on(
        &self,
        id: VertexId,
        inputs: Vec<Output>,
    ) -> Result<(VertexId, Vec<Output>), ErrorOf<E, S>> {
        let running = self.start(id);
        match self.produce(id, &inputs).await {
            Ok((outputs, cached)) => {
                running.complete(cached);
                Ok((id, outputs))
            }
            Err(kind) => {
                running.fail(kind.line());
                Err(kind.of(self.graph, id))
            }
        }
    }

    /// Reports that work on a vertex begins.
    pub(crate) fn start(&self, id: VertexId) -> Running<'_> {
        let CacheKey(key) = self.keys.fast(id).0;
        Running::start(self.progress, self.graph.vertex(id).digest, Some(*key))
    }

    /// The outputs of a vertex whose inputs are there, and whether they were known.
    async fn produce(
        &self,
        id: VertexId,
        inputs: &[Output],
    ) -> Result<(Vec<Output>, bool), KindOf<E, S>> {
        let slow = self.slow_key(id, inputs).await?;
        if self.graph.vertex(id).meta.ignore_cache {
            return Ok((self.execute(id, inputs, slow.as_ref()).await?.outputs, false));
        }
        if let Some(found) = self.find_by_content(id, slow.as_ref())? {
            return Ok((found, true));
        }
        let (fast, _) = self.keys.fast(id);
        let executing = self.store.lock(fast).await.map_err(SolveErrorKind::Store)?;
        // Whoever had the lock until now may have made it.
        if let Some(found) = self.find_by_definition(id)? {
            return Ok((found, true));
        }
        if let Some(found) = self.find_by_content(id, slow.as_ref())? {
            return Ok((found, true));
        }
        let is_known = self.is_known(id)?;
        let Executed { outputs, last } = self.execute(id, inputs, slow.as_ref()).await?;
        self.unstored.hold(executing);
        // Nothing was done for it, now or before.
        Ok((outputs, is_known && last == LastLayer::Nothing))
    }

    /// Whether the outputs of a vertex of which not all is needed are stored, however little of them is there.
    fn is_known(&self, id: VertexId) -> Result<bool, KindOf<E, S>> {
        if self.need(id) == Presence::Files || self.outdated[id.index()] {
            return Ok(false);
        }
        let record = self.store.lookup(self.keys.fast(id).0).map_err(SolveErrorKind::Store)?;
        Ok(record.is_some())
    }

    /// The key of a vertex by what its inputs turned out to be; a source has none.
    async fn slow_key(
        &self,
        id: VertexId,
        inputs: &[Output],
    ) -> Result<Option<(CacheKey, KeyParts)>, KindOf<E, S>> {
        let Some(map) = &self.keys.maps[id.index()] else { return Ok(None) };
        let (_, fast) = self.keys.fast(id);
        let digests = inputs.iter().zip(&map.inputs).zip(&fast.inputs);
        let digests = digests.map(async |((output, keying), fast)| match output {
            // The fast key has the content of folders already.
            Output::Local(_) => Ok(*fast),
            Output::Snapshot(snapshot) if keying.content.is_empty() => Ok(snapshot.digest()),
            Output::Snapshot(_) => {
                keys::content(self.executor, output, keying, self.graph.vertex(id)).await
            }
        });
        let inputs = try_join_all(digests).await.map_err(SolveErrorKind::Content)?;
        let parts = KeyParts { op: map.digest, inputs, by_content: true };
        Ok(Some((parts.key(), parts)))
    }

    /// Looks up by fast key.
    pub(crate) fn find_by_definition(
        &self,
        id: VertexId,
    ) -> Result<Option<Vec<Output>>, KindOf<E, S>> {
        if self.outdated[id.index()] {
            return Ok(None);
        }
        self.find(id, self.keys.fast(id).0)
    }

    /// Looks up by slow key; what is found is linked to the fast key, where the next solve finds it.
    fn find_by_content(
        &self,
        id: VertexId,
        slow: Option<&(CacheKey, KeyParts)>,
    ) -> Result<Option<Vec<Output>>, KindOf<E, S>> {
        let Some((key, _)) = slow else { return Ok(None) };
        let found = self.find(id, key)?;
        if let Some(outputs) = &found {
            self.remember(id, self.keys.fast(id), (outputs, LastLayer::Files), Duration::ZERO);
        }
        Ok(found)
    }

    /// A record with other outputs than the operation has is none of this vertex; and one of which there is less than is needed is
    /// as good as none.
    fn find(&self, id: VertexId, key: &CacheKey) -> Result<Option<Vec<Output>>, KindOf<E, S>> {
        let record = match self.unstored.get(key) {
            Some(record) => Some(record),
            None => self.store.lookup(key).map_err(SolveErrorKind::Store)?,
        };
        let expected = self.graph.vertex(id).op.output_count();
        let record = record.filter(|record| record.presence >= self.need(id));
        Ok(record.map(|record| record.outputs).filter(|outputs| outputs.len() == expected))
    }

    async fn execute(
        &self,
        id: VertexId,
        inputs: &[Output],
        slow: Option<&(CacheKey, KeyParts)>,
    ) -> Result<Executed, KindOf<E, S>> {
        let vertex = self.graph.vertex(id);
        let layer_seed = self.layer_seed(vertex);
        let started = Instant::now();
        let (need, progress) = (self.need(id), self.progress);
        let call = ExecuteCall { id, vertex, inputs, layer_seed, need, progress };
        let executed = self.executor.execute(call).await.map_err(SolveErrorKind::Execute)?;
        let Executed { outputs, last } = executed;
        let (expected, actual) = (vertex.op.output_count(), outputs.len());
        if actual != expected {
            return Err(SolveErrorKind::OutputCount { expected, actual });
        }
        let fast = self.keys.fast(id);
        for key in std::iter::once(fast).chain(slow.map(|(key, parts)| (key, parts))) {
            self.remember(id, key, (&outputs, last), started.elapsed());
        }
        Ok(Executed { outputs, last })
    }

    fn need(&self, id: VertexId) -> Presence {
        self.needs[id.index()].unwrap_or_default()
    }

    /// Stores a record, sooner or later: see [`Solve::store_all`].
    fn remember(
        &self,
        vertex: VertexId,
        (key, parts): (&CacheKey, &KeyParts),
        (outputs, last): (&[Output], LastLayer),
        duration: Duration,
    ) {
        let (key, parts, outputs) = (*key, parts.clone(), outputs.to_vec());
        self.unstored.add(UnstoredRecord { vertex, key, parts, outputs, last, duration });
    }

    /// Stores what waits for that.
    pub(crate) fn store_all(&self) -> Result<(), ErrorOf<E, S>> {
        let waiting = self.unstored.take();
        let records = waiting.records.iter().map(|record| NewRecord {
            key: record.key,
            parts: &record.parts,
            outputs: &record.outputs,
            deferred: record.last != LastLayer::Files,
            name: &self.graph.vertex(record.vertex).meta.name,
            duration: record.duration,
        });
        let records: Vec<NewRecord<'_>> = records.collect();
        let Some(first) = waiting.records.first() else { return Ok(()) };
        let stored = self.store.store(&records).map_err(SolveErrorKind::Store);
        stored.map_err(|kind| kind.of(self.graph, first.vertex))
    }

    /// Different for each execution there ever is.
    fn layer_seed(&self, vertex: &Vertex) -> Digest {
        let mut hasher = Hasher::default();
        hasher.update(b"rbuild.execution.v1");
        self.nonce.iter().for_each(|part| hasher.update(&part.to_le_bytes()));
        hasher.update(vertex.digest.as_bytes());
        hasher.finish()
    }
}
