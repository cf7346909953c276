//! The binary as a user runs it: real namespaces, real layouts, a real registry, other people's readers.

mod app;
mod architecture;
mod caching;
mod checks;
mod context_ls;
mod contexts;
mod debug;
mod entitlements;
mod escapes;
mod explain;
mod failures;
mod fixture;
mod in_place;
mod limits;
mod logins;
mod logs;
mod mounts;
mod outputs;
mod platforms;
mod remote;
mod rules;
mod servers;
mod special_arguments;
mod ssh;
mod steps;
mod tiers;
