//! Keeps the store within its limits while a build runs, and afterwards.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rbuild_cache::{CollectError, DiskSpace, Kept, Pruned, SpaceKeeper, SpaceLimits, Store};
use tokio::task::{JoinError, JoinHandle};

use crate::args::{BuildArgs, SpaceArgs};
use crate::commands::space::limits;
use crate::error::{CommandError, Kind, chain};
use crate::progress::format::bytes;
use crate::wiring::Session;

/// How often a running build looks at the disk.
const PAUSE: Duration = Duration::from_secs(2);

/// A collection in a thread of its own, and what it comes to.
type Collecting = JoinHandle<Collected>;
type Collected = (SpaceKeeper, Result<Kept, CollectError>);

/// The limits of the store of one build.
#[derive(Debug)]
pub(super) struct Keeping {
    root: PathBuf,
    limits: SpaceLimits,
    /// Whether the user has said so; then it matters when they cannot be kept.
    given: bool,
    kept: Mutex<Kept>,
}

impl Keeping {
    /// The limits that were given, else BuildKit's.
    pub(super) fn new(store: &Store, args: &BuildArgs) -> Result<Self, CommandError> {
        let disk = DiskSpace::of(store.root()).map_err(|error| {
            CommandError::caused(Kind::Environment, "cannot measure the disk", error)
        })?;
        let SpaceArgs { reserved_space, max_used_space, min_free_space } = &args.space;
        let given = [reserved_space, max_used_space, min_free_space];
        let mut limits = limits(store, &args.space, SpaceLimits::for_disk(disk))?;
        if let (None, Some(_), Some(most)) = (reserved_space, max_used_space, limits.max_used) {
            // What is reserved counts for more, and that was not said.
            limits.reserved = limits.reserved.map(|reserved| reserved.min(most));
        }
        Ok(Self {
            root: store.root().to_owned(),
            limits,
            given: given.iter().any(|given| given.is_some()),
            kept: Mutex::default(),
        })
    }

    /// Keeps the limits until `work` is done.
    pub(super) async fn during<T>(
        &self,
        session: &Arc<Session>,
        work: impl Future<Output = T>,
    ) -> T {
        let mut collecting = None;
        let done = tokio::select! {
            done = work => done,
            never = self.watch(session, &mut collecting) => match never {},
        };
        if let Some(collecting) = collecting {
            self.finish(collecting).await;
        }
        done
    }

    async fn watch(
        &self,
        session: &Arc<Session>,
        under_way: &mut Option<Collecting>,
    ) -> std::convert::Infallible {
        let mut keeper = SpaceKeeper::new(&self.root, self.limits);
        loop {
            tokio::time::sleep(PAUSE).await;
            // What is wrong now is said when it is still wrong in the end.
            if !keeper.is_due().unwrap_or(false) {
                continue;
            }
            let session = Arc::clone(session);
            let collecting = under_way.insert(tokio::task::spawn_blocking(move || {
                let kept = keeper.keep(&session.store);
                (keeper, kept)
            }));
            keeper = self.finish(collecting).await;
            *under_way = None;
        }
    }

    /// Waits for a collection, and notes what went.
    async fn finish(
        &self,
        collecting: impl Future<Output = Result<Collected, JoinError>>,
    ) -> SpaceKeeper {
        let (keeper, kept) = match collecting.await {
            Ok(collected) => collected,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        };
        if let Ok(kept) = kept {
            self.note(kept.pruned);
        }
        keeper
    }

    fn note(&self, pruned: Pruned) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).pruned.append(pruned);
    }

    /// Whether something may have to go now that the build is over.
    pub(super) fn is_due(&self) -> bool {
        SpaceKeeper::new(&self.root, self.limits).is_due().unwrap_or(true)
    }

    /// Keeps the limits once more when nothing of the build is in use any longer, and says what went.
    pub(super) fn after(self, is_due: bool) -> String {
        let excess = match is_due.then(|| collect(&self.root, self.limits)) {
            None => 0,
            Some(Ok(Kept { pruned, excess })) => {
                self.note(pruned);
                excess
            }
            Some(Err(problem)) => {
                return format!("WARN: cannot keep the limits of the store: {problem}\n");
            }
        };
        let pruned = self.kept.into_inner().unwrap_or_else(PoisonError::into_inner).pruned;
        let mut text = String::new();
        if !pruned.items.is_empty() {
            text = format!(
                "The store was to grow beyond its limits: {} of its least valuable things went, {}\n",
                pruned.items.len(),
                bytes(pruned.freed)
            );
        }
        if self.given && excess > 0 {
            let _ = writeln!(
                text,
                "WARN: the store takes {} more than it may; images need it: see `rbuild du`, `rbuild images` and `rbuild prune`",
                bytes(excess)
            );
        }
        text
    }
}

fn collect(root: &Path, limits: SpaceLimits) -> Result<Kept, String> {
    let store = Store::open(root).map_err(|error| chain(&error))?;
    SpaceKeeper::new(root, limits).keep(&store).map_err(|error| chain(&error))
}
