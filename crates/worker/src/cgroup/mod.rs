//! Limits of what a step may use, by control groups of both versions.
//!
//! ```text
//! cgroup v2:  <base>/rbuild-<pid>-<n>/{memory.max, cpu.max, ..}           one directory for all controllers
//! cgroup v1:  <base of memory>/rbuild-<pid>-<n>/memory.limit_in_bytes     one in each hierarchy
//!             <base of cpu>/rbuild-<pid>-<n>/cpu.shares
//! ```
//!
//! `<base>` is the build's own control group, so that limits of the surroundings hold for steps too; where groups cannot
//! be made in it, the root of the hierarchy; or the parent that the build names. Each controller is looked for in v2
//! first. A step without limits has no group of its own.
//!
//! A group is `flock`ed by the build that made it. It is removed when the step ends; if the build is killed, by the
//! step's sandbox process; if that is killed too, by the next build that limits something.
//!
//! Read `limits` and `settings` (pure), `hierarchy` (what there is), `groups` (what a build can do), `group` (of one step).

mod error;
mod group;
mod groups;
mod hierarchy;
mod limits;
mod oom;
mod settings;

pub use error::CgroupError;
pub(crate) use group::{StepGroup, remove_abandoned};
pub use groups::ControlGroups;
pub use limits::{ResourceLimits, SwapLimit};
pub(crate) use oom::OomKills;
