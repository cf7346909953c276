//! How many descriptors this process may have open.

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::sandbox::{Rlimit, RlimitResource};

/// The limit of open descriptors, as it was and as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFiles {
    /// What the process was started with: what its steps get, for programs that close, or make a table of, all
    /// descriptors that there may be take long with a high limit.
    pub inherited: Rlimit,
    /// What holds for the process now; `None` is no limit.
    pub limit: Option<u64>,
}

/// Lets this process open as many descriptors as it may.
///
/// The limit that processes are usually started with, 1024, is there for programs that use `select`. A build
/// opens every layer of a snapshot to mount it, and some ten descriptors for each step that runs.
pub fn raise_open_files() -> OpenFiles {
    let inherited = getrlimit(Resource::Nofile);
    let raised = rustix::process::Rlimit { current: inherited.maximum, ..inherited };
    let is_raised =
        raised.current == inherited.current || setrlimit(Resource::Nofile, raised).is_ok();
    let limit = if is_raised { raised.current } else { inherited.current };
    OpenFiles {
        inherited: Rlimit {
            resource: RlimitResource::Nofile,
            soft: inherited.current,
            hard: inherited.maximum,
        },
        limit,
    }
}
