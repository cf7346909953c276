//! Arguments of a command that clap is told of only when the command is used: all commands have hundreds, and one start uses
//! those of one.

use std::ffi::OsStr;
use std::ops::Deref;

use clap::builder::Resettable;
use clap::{ArgMatches, Args, Command, CommandFactory as _, FromArgMatches};

use crate::args::{
    BuildArgs, CheckArgs, Cli, ConfigShowArgs, ContextLsArgs, DebugArgs, DoctorArgs, DuArgs,
    ExplainArgs, ImagesArgs, ImagetoolsCreateArgs, ImagetoolsInspectArgs, InspectArgs, LoginArgs,
    LogoutArgs, LogsArgs, PruneArgs, PullArgs, PushArgs, RegistryCheckArgs, RmiArgs, SaveArgs,
    TagArgs,
};

/// Arguments of a command. What looks at them without parsing takes [`whole_command`].
#[derive(Debug)]
pub(crate) struct Deferred<T>(Box<T>);

impl<T: Args> Deferred<T> {
    /// A command that was made with these arguments, with them in it, so that they can be changed.
    pub(crate) fn made(command: Command) -> Command {
        describe::<T>(command).defer(|command| command)
    }
}

impl<T> Deref for Deferred<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Args> Args for Deferred<T> {
    fn augment_args(command: Command) -> Command {
        command.defer(describe::<T>)
    }

    fn augment_args_for_update(command: Command) -> Command {
        T::augment_args_for_update(command)
    }
}

impl<T: Args> FromArgMatches for Deferred<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        T::from_arg_matches(matches).map(Box::new).map(Self)
    }

    fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Self, clap::Error> {
        T::from_arg_matches_mut(matches).map(Box::new).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.update_from_arg_matches(matches)
    }
}

/// All that can be typed, with the arguments of all commands.
pub(crate) fn whole_command() -> Command {
    fn made(command: Command, path: &str) -> Command {
        let command = match path {
            " build" | " debug dump-llb" => Deferred::<BuildArgs>::made(command),
            " check" => Deferred::<CheckArgs>::made(command),
            " config show" => Deferred::<ConfigShowArgs>::made(command),
            " context ls" => Deferred::<ContextLsArgs>::made(command),
            " debug" => Deferred::<DebugArgs>::made(command),
            " doctor" => Deferred::<DoctorArgs>::made(command),
            " du" => Deferred::<DuArgs>::made(command),
            " explain" => Deferred::<ExplainArgs>::made(command),
            " images" => Deferred::<ImagesArgs>::made(command),
            " imagetools create" => Deferred::<ImagetoolsCreateArgs>::made(command),
            " imagetools inspect" => Deferred::<ImagetoolsInspectArgs>::made(command),
            " inspect" => Deferred::<InspectArgs>::made(command),
            " login" => Deferred::<LoginArgs>::made(command),
            " logout" => Deferred::<LogoutArgs>::made(command),
            " logs" => Deferred::<LogsArgs>::made(command),
            " prune" => Deferred::<PruneArgs>::made(command),
            " pull" => Deferred::<PullArgs>::made(command),
            " push" => Deferred::<PushArgs>::made(command),
            " registry check" => Deferred::<RegistryCheckArgs>::made(command),
            " rmi" => Deferred::<RmiArgs>::made(command),
            " save" => Deferred::<SaveArgs>::made(command),
            " tag" => Deferred::<TagArgs>::made(command),
            _ => command,
        };
        command.mut_subcommands(|of| {
            let path = format!("{path} {}", of.get_name());
            made(of, &path)
        })
    }
    made(Cli::command(), "")
}

fn describe<T: Args>(command: Command) -> Command {
    // What the type says of itself is not for users, and would be said after what the command says.
    let about = Resettable::from(command.get_about().cloned());
    let long_about = Resettable::from(command.get_long_about().cloned());
    without_empty_variables(T::augment_args(command)).about(about).long_about(long_about)
}

/// Has a variable of the environment that is empty count as absent: so CI systems hand on what is not configured.
pub(crate) fn without_empty_variables(command: Command) -> Command {
    let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    let has_empty = |argument: &clap::Arg| argument.get_env().is_some_and(is_empty);
    if !command.get_arguments().any(has_empty) {
        return command;
    }
    command.mut_args(|argument| match has_empty(&argument) {
        true => argument.env(Resettable::Reset),
        false => argument,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_command_lacks_no_arguments() {
        fn check(command: &Command) {
            assert!(
                command.has_subcommands() || command.get_arguments().next().is_some(),
                "`{}` has none",
                command.get_name()
            );
            command.get_subcommands().for_each(check);
        }
        check(&whole_command());
    }
}
