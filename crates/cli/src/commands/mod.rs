//! What each command does.

mod amounts;
mod build;
mod check;
mod context;
mod images;
mod logs;
mod pull;
mod push;
mod space;

use clap::CommandFactory as _;
use rbuild_cache::Store;
use rbuild_worker::Identity;

use crate::args::{Cli, Command, ContextCommand, DebugCommand};
use crate::error::{CommandError, Kind};
use crate::paths;

/// Does what was typed.
pub(crate) fn run(cli: Cli) -> Result<(), CommandError> {
    match &cli.command {
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "rbuild", &mut script);
            return images::print(&script);
        }
        Command::Man { command } => return manual(command.as_deref()),
        // Neither needs the store.
        Command::Check(args) => return check::check(args),
        Command::Context(ContextCommand::Ls(args)) => return context::ls(args),
        _ => {}
    }
    let root = paths::store_root(cli.root.as_deref())?;
    // Layers belong to sub-ids of the user, so every command that touches the store runs where those are ids of
    // its own; and before any thread exists, for the kernel takes no process with threads into a namespace.
    let identity = rbuild_worker::enter_user_namespace().map_err(|error| {
        CommandError::caused(Kind::Environment, "cannot become root in a user namespace", error)
            .hint("run rbuild as root, or allow user namespaces to your user")
    })?;
    let store = Store::open(&root)
        .map_err(|error| CommandError::caused(Kind::Environment, "cannot open the store", error))?;
    let done = match cli.command {
        Command::Build(args) => build::build(store, &args, &identity),
        Command::Images(args) => images::images(&store, &args),
        Command::Inspect(args) => images::inspect(&store, &args),
        Command::Tag(args) => images::tag(&store, &args),
        Command::Rmi(args) => images::rmi(&store, &args),
        Command::Save(args) => build::save(store, &args, &identity),
        Command::Logs(args) => logs::logs(&store, &args),
        Command::Push(args) => push::push(store, &args, &identity),
        Command::Pull(args) => pull::pull(store, &args, &identity),
        Command::Du(args) => space::du(&store, &args),
        Command::Prune(args) => space::prune(&store, &args),
        Command::Debug(DebugCommand::DumpLlb(args)) => build::dump_llb(store, &args, &identity),
        Command::Completions { .. }
        | Command::Man { .. }
        | Command::Check(_)
        | Command::Context(_) => Ok(()),
    };
    match identity {
        Identity::SingleId { reason } => done.map_err(|error| {
            if error.is_about_owners() {
                return error.hint(format!("files can have no other owner than you: {reason}"));
            }
            error
        }),
        _ => done,
    }
}

/// `rbuild man [COMMAND]`.
fn manual(command: Option<&str>) -> Result<(), CommandError> {
    let all = Cli::command();
    let page = match command {
        None => all,
        Some(name) => match all.find_subcommand(name) {
            Some(command) => {
                command.clone().name(format!("rbuild-{name}")).disable_help_subcommand(true)
            }
            None => return Err(CommandError::usage(format!("there is no command `{name}`"))),
        },
    };
    let mut text = Vec::new();
    clap_mangen::Man::new(page).render(&mut text).expect("memory takes all that is written");
    images::print(&text)
}
