//! What steps have printed, kept after the build.
//!
//! ```text
//! logs/<id>/               one build. <id> is <date>-<time in UTC>-<milliseconds><4 letters>: in the order of time
//!           build.jsonl    what is known of it and its steps, as lines of JSON; flock'ed while the build lives
//!           <n>.zst        what its step <n> printed: zstd frames, each of them whole, of records
//!
//! record:   stream         1 byte: 1 standard output, 2 standard error, 0 a remark of rbuild's
//!           time           8 bytes, little endian: milliseconds since 1970
//!           length         4 bytes, little endian
//!           bytes          as they were written, cut anywhere
//!
//! build.jsonl, all fields optional, times in milliseconds since 1970:
//!   {"version":1,"started":1700000000000,"title":"."}          the build begins
//!   {"step":3,"vertex":"sha256:..","key":"..","name":"[2/3] RUN make","number":7,
//!    "started":..,"completed":..,"cached":true,"error":"..","bytes":123}
//!                                                              all that is known of a step; later lines replace earlier ones
//!   {"ended":..,"failed":false}                                the build is over
//! ```
//!
//! Nothing is written in place, so a build that is killed leaves what it had written: a last line or frame that was cut is
//! not read. Output waits in memory for at most 128 KiB or a quarter of a second. Whatever goes wrong with a log is no
//! reason to fail a build.
//!
//! Logs of all builds together are bounded; the oldest go first. A step's output is in its log as it is, with whatever
//! secrets the step prints.

mod builds;
mod format;
mod output;
mod writer;

pub use builds::{KeptBuild, KeptStep, Logs};
pub use output::{OutputReader, Printed, PrintedBy};
pub use writer::BuildLog;
