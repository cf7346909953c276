//! `rbuild check --fix`: applies what warnings propose, looks again, and writes the file once it is done.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use rbuild_frontend::{Source, apply_fixes};

use super::Checker;
use crate::commands::build::frontend::Evaluated;
use crate::error::{CommandError, Kind};

/// How often fixes are applied: those that collide wait for the next time, and one may call for another.
const MAX_ROUNDS: usize = 20;

/// Mends a file as far as that goes; gives what is left to say of it. The file is written whole or not at all, and only
/// if there is something to change.
pub(super) fn fix(
    checker: &Checker,
    mut evaluated: Evaluated,
    path: &Path,
) -> Result<Evaluated, CommandError> {
    let was = evaluated.source.clone();
    if !was.not_utf8().is_empty() {
        return Err(CommandError::new(
            Kind::Build,
            format!("`{}` is not valid UTF-8, so that it cannot be mended", path.display()),
        ));
    }
    if !evaluated.dockerfile.has_errors() {
        for _ in 0..MAX_ROUNDS {
            let fixed = apply_fixes(&evaluated.source, &evaluated.warnings);
            if fixed.applied == 0 || fixed.text == evaluated.source.text() {
                break;
            }
            let next = look(checker, was.name(), &fixed.text)?;
            // What a fix breaks is a bug of ours, and the file is worth more than the fix.
            if next.errors.len() > evaluated.errors.len() {
                break;
            }
            evaluated = next;
        }
    }
    if evaluated.source.text() != was.text() {
        write(path, evaluated.source.text(), was.text())?;
    }
    Ok(evaluated)
}

fn look(checker: &Checker, name: &str, text: &str) -> Result<Evaluated, CommandError> {
    let source = Source::new(name, text).map_err(|error| {
        CommandError::caused(Kind::Build, format!("cannot read `{name}`"), error)
    })?;
    let dockerfile = rbuild_frontend::parse(&source);
    Ok(checker.look(source, dockerfile))
}

/// Replaces the file, with its mode and owner, unless somebody changed it meanwhile.
fn write(path: &Path, text: &str, was: &str) -> Result<(), CommandError> {
    let fail = |error: std::io::Error| {
        CommandError::caused(Kind::Environment, format!("cannot write `{}`", path.display()), error)
    };
    if std::fs::read(path).map_err(fail)? != was.as_bytes() {
        let message = format!("`{}` changed while it was looked at", path.display());
        return Err(CommandError::new(Kind::Environment, message).hint("run the command again"));
    }
    let metadata = std::fs::metadata(path).map_err(fail)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".rbuild-").tempfile_in(folder).map_err(fail)?;
    std::io::Write::write_all(&mut file, text.as_bytes()).map_err(fail)?;
    // Whoever may not give files away keeps the new one.
    let _ = std::os::unix::fs::chown(file.path(), Some(metadata.uid()), Some(metadata.gid()));
    let mode = std::fs::Permissions::from_mode(metadata.mode() & 0o7777);
    file.as_file().set_permissions(mode).map_err(fail)?;
    file.as_file().sync_all().map_err(fail)?;
    file.persist(path).map_err(|error| fail(error.error))?;
    Ok(())
}
