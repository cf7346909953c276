//! The binary as a user runs it: real namespaces, real layouts, a real registry, other people's readers.

mod app;
mod architecture;
mod caching;
mod checks;
mod context_ls;
mod contexts;
mod entitlements;
mod escapes;
mod failures;
mod fixture;
mod in_place;
mod limits;
mod logins;
mod logs;
mod mounts;
mod outputs;
mod push;
mod remote;
mod rules;
mod servers;
mod special_arguments;
mod ssh;
mod steps;
