//! What hostile Dockerfiles, images, contexts and graphs have done to build engines, done to this one.
//!
//! Each test is named for a public advisory (of BuildKit, buildah, runc, containerd, Docker or kaniko) and does for real what the attacker's
//! input would, as root, with the assertion that the machine's files are as before and that nothing of them was read. Where the fault
//! was one of words (an option that should not be there), the test is that it is refused.
//!
//! | file | about |
//! |---|---|
//! | `mounts` | sources and targets of mounts, stubs, caches, working directories, descriptors |
//! | `users` | users, groups, and the files that name them |
//! | `inputs` | images, archives, contexts, repositories and LLB |
//! | `inside` | what a step may ask of the kernel, as root and as an ordinary user |
//! | `bait` | the file of the machine's that must be neither read nor changed |
//! | `ordinary` | builds of an ordinary user |
//! | `program` | programs that make one system call |
//!
//! Of the rest of the lists: CVE-2024-23653 (a call for containers that was not asked for entitlements) concerns a service that rbuild does not
//! have, `entitlements` tests what there is; CVE-2019-5736 (overwriting the runtime's program) and CVE-2020-10696, CVE-2019-14271
//! (archives that lead out) are tested where the code is, in `worker/tests/confinement.rs` and `cache/tests/layers/hostile.rs`;
//! CVE-2026-33748 and GHSA-49p4-px3h-rq49 (links of repositories that lead out) and GHSA-hw3h-2gp9-cxpv (commands by way of git) are in `remote`;
//! GHSA-g2h8-426c-7976 is about uploads by clients, of which there are none; GHSA-7236-3392-c5c6 (a security mode of a graph that is neither of the
//! two, and so asks for no entitlement) is in `solver/tests/llb.rs`, where unknown values are errors.

mod bait;
mod inputs;
mod inside;
mod mounts;
pub(crate) mod ordinary;
mod program;
mod users;
