//! The networks of steps: the one that the steps of a build have for themselves, and what they are told about names.
//!
//! A network namespace belongs to a *keeper*: a small process, this program with a hidden argument, that makes the namespace, runs
//! pasta for it, and hands the descriptor to the build. The way out is pasta's: it takes packets from a device in the namespace and
//! makes them connections of ordinary sockets in the build's own network. Nothing is listened to on either side for the other. What
//! may leave by that device is decided by a filter that the device itself has.
//!
//! # Who kills whom
//!
//! * The build ends, or is killed (`kill -9` too): its end of the control socket closes, and the keeper kills its *guard*.
//! * The keeper is killed: the guard has a parent death signal on it.
//! * The guard ends: it is the first process of a PID namespace, so the kernel ends pasta and all that pasta started. Pasta alone cannot
//!   be relied on for this: it goes into the background, and a change of its user would clear a parent death signal.

mod build_network;
mod hosts;
mod keeper;
mod packets;
mod pasta;
mod resolv_conf;
mod tun;

pub(crate) use build_network::{BuildNetwork, StepNetwork};
pub use build_network::{NetworkError, NetworkFinding, try_network};
pub(crate) use hosts::extra_hosts;
pub(crate) use keeper::keeper_main_if_requested;
