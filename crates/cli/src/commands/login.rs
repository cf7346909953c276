//! `rbuild login` and `rbuild logout`.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};

use rbuild_cache::{
    Credential, Credentials, LoggedIn, LoginFile, LoginPlace, RegistryClient, Standing,
};
use rbuild_oci::Reference;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::build::in_runtime;
use super::images::print;
use crate::args::{LoginArgs, LogoutArgs};
use crate::error::{CommandError, Kind};
use crate::registry_args::RegistryArgs;
use crate::{paths, wiring};

/// Passwords are short; a stream that never ends is none.
const LONGEST_PASSWORD: u64 = 64 << 10;

/// Asks the registry whether it accepts a login, and stores it.
pub(crate) fn login(args: &LoginArgs, registries: &RegistryArgs) -> Result<(), CommandError> {
    let of = registry(args.registry.as_deref())?;
    let host = of.registry().to_owned();
    let file = login_file()?;
    if args.password_stdin && args.username.is_none() {
        return Err(CommandError::usage("--password-stdin needs --username"));
    }
    if args.password.is_some() && args.username.is_none() {
        return Err(CommandError::usage("--password needs --username"));
    }
    if args.password.is_some() {
        note(
            "a password among the arguments can be seen by others on this machine, and the shell may keep it: \
             --password-stdin reads it from standard input"
                .to_owned(),
        );
    } else if !args.password_stdin && !io::stdin().is_terminal() {
        return Err(CommandError::usage("standard input is no terminal to ask for a password on")
            .hint("give the password with --username NAME --password-stdin"));
    }
    in_runtime(async {
        let (name, password) = if let (Some(name), true) = (&args.username, args.password_stdin) {
            (name.clone(), reading(piped_password).await?)
        } else if let (Some(name), Some(password)) = (&args.username, &args.password) {
            (name.clone(), password.clone())
        } else {
            asked_for(args.username.clone()).await?
        };
        if name.is_empty() || password.is_empty() {
            return Err(CommandError::usage("a login needs a name and a password"));
        }
        if name.contains(':') {
            return Err(CommandError::usage("the name in a login cannot have a colon"));
        }
        let login = Credential::Password { name: name.clone(), password };
        let mut options = wiring::registry_options(registries);
        options.credentials = Credentials::given(&host, login.clone());
        let failed = |error| {
            CommandError::caused(Kind::Environment, format!("cannot log in to {host}"), error)
        };
        let LoggedIn { standing, identity } =
            RegistryClient::new(options).log_in(&of).await.map_err(failed)?;
        let (place, what) = match &identity {
            Some(Credential::IdentityToken(token)) => {
                (file.store_identity(&host, &name, token), "identity token")
            }
            _ => (file.store(&host, &login), "password"),
        };
        if place.map_err(not_stored)? == LoginPlace::File {
            note(format!(
                "the {what} is stored as plain text in `{}`; a credential helper would keep it safer",
                file.path().display()
            ));
        }
        match standing {
            Standing::NotAsked => {
                note(format!("{host} did not ask for a login, so nobody has verified this one"));
                print(b"Login stored\n")
            }
            Standing::LoggedIn | Standing::Anonymous => print(b"Login succeeded\n"),
        }
    })
}

/// Erases a login.
pub(crate) fn logout(args: &LogoutArgs) -> Result<(), CommandError> {
    let of = registry(args.registry.as_deref())?;
    let host = of.registry();
    let erased = login_file()?.erase(host).map_err(not_stored)?;
    let others = Credentials::from_files(paths::credential_files());
    if let Ok(Some(_)) = others.find(&of) {
        note(format!("another file still has a login for {host}"));
    }
    print(
        match erased {
            true => format!("Removed the login for {host}\n"),
            false => format!("There is no login for {host}\n"),
        }
        .as_bytes(),
    )
}

/// Some repository of the registry that is meant; docker's own without a word.
pub(super) fn registry(typed: Option<&str>) -> Result<Reference, CommandError> {
    let typed = typed.unwrap_or("docker.io");
    let host = typed.strip_prefix("https://").or_else(|| typed.strip_prefix("http://"));
    let host = host.unwrap_or(typed).trim_end_matches('/');
    match Reference::parse(&format!("{host}/of/registry")) {
        Ok(of) if of.registry() == host || host == "index.docker.io" => Ok(of),
        _ => Err(CommandError::usage(format!("`{typed}` is no registry"))
            .hint("a registry is a host name, with a dot or a port: `registry.example.com`")),
    }
}

fn login_file() -> Result<LoginFile, CommandError> {
    let path = paths::login_file().ok_or_else(|| {
        CommandError::new(Kind::Environment, "HOME does not say where logins are stored")
            .hint("name a folder with DOCKER_CONFIG")
    })?;
    Ok(LoginFile::new(path))
}

fn not_stored(error: rbuild_cache::LoginFileError) -> CommandError {
    CommandError::caused(Kind::Environment, "cannot change the stored logins", error)
}

/// Runs what waits for the user where it may be left behind when the user has enough of it.
async fn reading<T: Send + 'static>(
    read: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, CommandError> {
    match tokio::task::spawn_blocking(read).await {
        Ok(Ok(read)) => Ok(read),
        Ok(Err(error)) => {
            Err(CommandError::caused(Kind::Environment, "cannot read the login", error))
        }
        Err(panic) => Err(CommandError::caused(Kind::Environment, "cannot read the login", panic)),
    }
}

fn piped_password() -> io::Result<String> {
    let mut text = String::new();
    let read = io::stdin().lock().take(LONGEST_PASSWORD + 1).read_to_string(&mut text)?;
    if read as u64 > LONGEST_PASSWORD {
        return Err(io::Error::other("it is too long for a password"));
    }
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

async fn asked_for(name: Option<String>) -> Result<(String, String), CommandError> {
    let name = match name {
        Some(name) => name,
        None => {
            prompt("Username: ");
            reading(line).await?
        }
    };
    prompt("Password: ");
    // It goes with this future, also when that is interrupted.
    let silent = Silent::enter().map_err(|error| {
        CommandError::caused(Kind::Environment, "cannot keep the terminal from showing it", error)
    })?;
    let password = reading(line).await;
    drop(silent);
    prompt("\n");
    Ok((name, password?))
}

fn line() -> io::Result<String> {
    let mut text = String::new();
    io::stdin().lock().take(LONGEST_PASSWORD).read_line(&mut text)?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Says something on standard error; that nobody reads it is no failure.
fn prompt(text: &str) {
    let mut stderr = io::stderr();
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

fn note(text: String) {
    prompt(&format!("NOTE: {}\n", crate::printable::line(&text)));
}

/// The user's terminal, which does not show what is typed until this is dropped.
struct Silent(Termios);

impl Silent {
    fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that is gone.
        let _ = tcsetattr(io::stdin(), OptionalActions::Drain, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ways_to_name_a_registry() {
        for (typed, expected) in [
            (None, "docker.io"),
            (Some("index.docker.io"), "docker.io"),
            (Some("https://quay.io/"), "quay.io"),
            (Some("localhost:5000"), "localhost:5000"),
            (Some("localhost"), "localhost"),
        ] {
            assert_eq!(registry(typed).unwrap().registry(), expected, "{typed:?}");
        }
        for wrong in ["", "name", "a.b/c", "a b.c", "name@a.b", "ftp://a.b"] {
            assert!(registry(Some(wrong)).is_err(), "{wrong}");
        }
    }
}
