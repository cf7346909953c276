//! Reads a Dockerfile and says what to build.
//!
//! The crate is pure: text in; instructions, a graph, image configs and diagnostics out. It does no I/O, never prints,
//! and knows nothing of the terminal or the environment.
//!
//! Start at [`parse`], [`Dockerfile`] (what a file says), [`Mapped`] (text that knows where it came from) and
//! [`Diagnostic`] (what is wrong with it); then at [`lower()`], which makes a [`Build`] of a file.

mod diagnostic;
mod source;
mod suggest;

mod dockerfile;

mod check;
mod fix;
mod render;

mod args;
mod build;
mod dockerignore;
mod draft;
mod environment;
mod epoch;
mod git_url;
mod history;
mod images;
mod join;
mod lower;
mod outline;
mod shell;
mod stage;
mod syntax;

pub use args::is_private_name;
pub use build::{
    Build, BuildOptions, LocalUse, NamedContext, NoCache, Outcome, RemoteContext, Scan,
    StageSummary, Stages,
};
pub use check::{CheckOptionError, Checks, ContextFiles, Rule, check, check_own};
pub use diagnostic::{Diagnostic, Edit, Label, Level};
pub use dockerfile::ast::{
    Add, Alias, Argument, Command, Copy, Directives, Dockerfile, Escape, From, Healthcheck,
    Heredoc, Instruction, Network, Onbuild, Pair, Pairs, Run, Security, Statement, Transfer,
};
pub use dockerfile::mapped::Mapped;
pub use dockerfile::mount::{Attributes, Mount, MountSpec, Sharing};
pub use dockerfile::parser::{parse, parse_trigger};
pub use dockerignore::{IgnoreLine, parse_dockerignore, parse_dockerignore_lines};
pub use epoch::{EpochSource, epoch_source};
pub use fix::{Fixed, apply_fixes};
pub use git_url::{GitUrl, GitUrlError};
pub use images::{ImageLocation, ImageQuery, ImageSet, ResolvedImage};
pub use join::{Joined, join};
pub use lower::{Evaluation, evaluate, lower};
pub use outline::{
    Outline, OutlineArgument, OutlineMount, Target, similar_image, similar_stage, targets,
};
pub use render::{RenderOptions, render};
pub use source::{Position, Source, SourceError, Span, Spanned};
pub use syntax::foreign_frontend;
