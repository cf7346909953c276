//! The build graph and how it is solved.
//!
//! A [`Graph`] of [`Op`]s (LLB's operations with LLB's meaning, design D1) is solved by [`solve()`]: what is
//! known by key is taken from a [`CacheStore`], the rest is handed to an [`Executor`], each vertex once, side
//! by side where nothing stands between (design D2). This crate does no I/O: no file, no network, no clock
//! other than for progress. Read [`Op`], [`Graph`] and [`solve()`] first.

mod cache_key;
mod cache_map;
mod error;
mod executor;
mod graph;
mod keys;
pub mod llb;
mod op;
mod pattern;
mod produce;
mod progress;
mod publish;
mod redact;
mod running;
mod selector;
mod snapshot;
mod solve;
mod store;
mod unstored;

pub use cache_key::{CacheKey, KeyParts};
pub use cache_map::{CacheMap, InputKeying};
pub use error::{SolveError, SolveErrorKind, chain};
pub use executor::{ExecuteCall, Executed, Executor, LastLayer};
pub use graph::{Edge, Graph, GraphBuilder, SourceLocation, Vertex, VertexId, VertexMeta};
pub use op::{
    CacheSharing, ChownSpec, CopyAction, DiffOp, ExecMeta, ExecOp, FileAction, FileActionKind,
    FileOp, HostIp, MergeOp, MkdirAction, MkfileAction, Mount, MountKind, NetworkMode, Op, Owner,
    ProxyEnv, RmAction, SecretEnv, SecurityMode, SourceOp, SymlinkAction, Ulimit, redact_url,
};
pub use pattern::{
    Decision, PathPattern, PatternError, PatternMatcher, clean_path, has_wildcards, path_match,
};
pub use progress::{Event, LogChunk, LogStream, Progress, ProgressReceiver, StatusUpdate};
pub use publish::{Secrets, published};
pub use redact::{has_secrets, redacted};
pub use selector::Selector;
pub use snapshot::{LayerId, Output, Snapshot};
pub use solve::{SolveOptions, solve, solve_keyed};
pub use store::{CacheRecord, CacheStore, NewRecord, Presence};
