//! On which platforms steps can run here: `machine` (the architectures, and a smallest program of each), `registered` (what the
//! machine's binfmt_misc runs), `support` (the answer for one platform, and the list of all), `step` (what it means for a step).

mod machine;
mod registered;
mod step;
mod support;

pub(crate) use step::StepPlatform;
pub use support::{Emulator, PlatformSupport, Platforms};
