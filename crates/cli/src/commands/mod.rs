//! What each command does.

pub(crate) mod amounts;
mod build;
mod builds;
mod check;
mod config;
mod context;
mod debug;
mod doctor;
mod documents;
mod explain;
mod images;
mod imagetools;
mod login;
mod logs;
mod pull;
mod push;
mod registry_check;
mod save;
mod space;

pub(crate) use self::build::checked_resource;

use std::process::ExitCode;

use rbuild_cache::Store;
use rbuild_worker::{Identity, UserNamespaceError};

use crate::args::{
    Command, ConfigCommand, ContextCommand, DebugCommand, ImagetoolsCommand, Isolation,
    RegistryCommand, Typed,
};
use crate::deferred::whole_command;
use crate::error::{CommandError, Kind};
use crate::machine::Machine;
use crate::paths;

/// Does what was typed.
pub(crate) fn run(typed: Typed) -> Result<ExitCode, CommandError> {
    let Typed { cli, config, matches } = typed;
    match &cli.command {
        Command::Config(ConfigCommand::Show(args)) => {
            return config::show(&config, &whole_command(), &matches, args)
                .map(|()| ExitCode::SUCCESS);
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut whole_command(), "rbuild", &mut script);
            return images::print(&script).map(|()| ExitCode::SUCCESS);
        }
        Command::Man { command } => {
            return manual(command.as_deref()).map(|()| ExitCode::SUCCESS);
        }
        // None of these needs the store.
        Command::Check(args) => return check::check(args).map(|()| ExitCode::SUCCESS),
        Command::Login(args) => {
            return login::login(args, &cli.registries).map(|()| ExitCode::SUCCESS);
        }
        Command::Logout(args) => return login::logout(args).map(|()| ExitCode::SUCCESS),
        Command::Registry(RegistryCommand::Check(args)) => {
            return registry_check::check(args, &cli.registries).map(|()| ExitCode::SUCCESS);
        }
        Command::Imagetools(ImagetoolsCommand::Inspect(args)) => {
            return imagetools::inspect(args, &cli.registries).map(|()| ExitCode::SUCCESS);
        }
        Command::Context(ContextCommand::Ls(args)) => {
            return context::ls(args).map(|()| ExitCode::SUCCESS);
        }
        _ => {}
    }
    let root = paths::store_root(cli.root.as_deref())?;
    // Layers belong to sub-ids of the user, so every command that touches the store runs where those are ids of
    // its own; and before any thread exists, for the kernel takes no process with threads into a namespace.
    // Afterwards nobody may be able to tell where this program is.
    let program = paths::own_program();
    let entered = rbuild_worker::enter_user_namespace();
    if let Command::Doctor(args) = &cli.command {
        let surroundings = doctor::Surroundings { program, root, snapshotter: cli.snapshotter };
        return doctor::doctor(args, &surroundings, &entered).map(|()| ExitCode::SUCCESS);
    }
    let isolation = Isolation::of(&cli.command);
    let identity = match entered {
        Err(_) if does_without(&cli.command, isolation) && rbuild_worker::can_chroot() => {
            Identity::Root
        }
        entered => entered.map_err(cannot_be_root)?,
    };
    let machine = Machine {
        program,
        identity,
        snapshotter: cli.snapshotter,
        isolation,
        registries: cli.registries,
        config: cli.config,
    };
    if cli.root.is_some() && asks(&cli.command) && !Store::exists(&root) {
        let message = format!("there is no store in `{}`", root.display());
        let hint = "`rbuild build` makes one; is --root or RBUILD_ROOT what was meant?";
        return Err(CommandError::usage(message).hint(hint));
    }
    let store = Store::open(&root)
        .map_err(|error| CommandError::caused(Kind::Environment, "cannot open the store", error))?;
    let mut code = ExitCode::SUCCESS;
    let done = match cli.command {
        Command::Build(args) => build::build(store, &args, &machine),
        Command::Images(args) => images::images(&store, &args),
        Command::Inspect(args) => images::inspect(&store, &args),
        Command::Tag(args) => images::tag(&store, &args),
        Command::Rmi(args) => images::rmi(&store, &args),
        Command::Save(args) => save::save(store, &args, &machine),
        Command::Logs(args) => logs::logs(&store, &args),
        Command::Push(args) => push::push(store, &args, &machine),
        Command::Imagetools(ImagetoolsCommand::Create(args)) => {
            imagetools::create(store, &args, &machine)
        }
        Command::Pull(args) => pull::pull(store, &args, &machine),
        Command::Du(args) => space::du(&store, &args),
        Command::Prune(args) => space::prune(&store, &args),
        Command::Debug(args) => match &args.inner {
            Some(DebugCommand::DumpLlb(args)) => build::dump_llb(store, args, &machine),
            None => debug::debug(store, &args, &machine).map(|of_command| code = of_command),
        },
        Command::Explain(args) => explain::explain(&store, &args),
        Command::Completions { .. }
        | Command::Config(_)
        | Command::Man { .. }
        | Command::Login(_)
        | Command::Logout(_)
        | Command::Registry(_)
        | Command::Imagetools(ImagetoolsCommand::Inspect(_))
        | Command::Check(_)
        | Command::Doctor(_)
        | Command::Context(_) => Ok(()),
    };
    let done = done.map(|()| code);
    match machine.identity {
        Identity::SingleId { reason } => done.map_err(|error| {
            if error.is_about_owners() {
                return error.hint(format!("files can have no other owner than you: {reason}"));
            }
            error
        }),
        _ => done,
    }
}

/// Whether a command is about what is in a store already, so that a new one would be a mistake.
fn asks(command: &Command) -> bool {
    match command {
        Command::Images(_)
        | Command::Inspect(_)
        | Command::Tag(_)
        | Command::Rmi(_)
        | Command::Save(_)
        | Command::Logs(_)
        | Command::Push(_)
        | Command::Du(_)
        | Command::Prune(_)
        | Command::Explain(_) => true,
        Command::Debug(args) => args.inner.is_none(),
        _ => false,
    }
}

/// Whether root can do a command without namespaces: if it runs no steps, or those are to have none.
fn does_without(command: &Command, isolation: Isolation) -> bool {
    match command {
        Command::Build(_) => isolation == Isolation::Chroot,
        Command::Debug(args) => args.inner.is_some() || isolation == Isolation::Chroot,
        _ => true,
    }
}

/// What is left where there can be no namespaces.
const WITHOUT_NAMESPACES: &str = "`rbuild build --isolation=chroot` does without, and hardly protects this machine from what is built";

fn cannot_be_root(error: UserNamespaceError) -> CommandError {
    let (what, hint) = match &error {
        UserNamespaceError::Steps { .. } => ("cannot run steps", "`rbuild doctor` says more"),
        _ => (
            "cannot become root in a user namespace",
            "run rbuild as root, or allow user namespaces to your user; `rbuild doctor` says more",
        ),
    };
    let error = CommandError::caused(Kind::Environment, what, error).hint(hint);
    if !rbuild_worker::can_chroot() {
        return error;
    }
    error.hint(WITHOUT_NAMESPACES)
}

/// `rbuild man [COMMAND]`.
fn manual(command: Option<&str>) -> Result<(), CommandError> {
    let all = whole_command();
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
