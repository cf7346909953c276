//! `rbuild context ls`: what a build sees of a folder, and which pattern decides. Without the store and root.

use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use rbuild_frontend::{IgnoreLine, parse_dockerignore_lines};
use rbuild_solver::{Decision, PatternMatcher, clean_path};
use serde_json::json;

use super::build::input::{dockerfile_path, ignore_file};
use super::images::print;
use crate::args::{BuildArgs, ContextLsArgs};
use crate::error::{CommandError, Kind};
use crate::progress::format::bytes;

/// `rbuild context ls`.
pub(crate) fn ls(args: &ContextLsArgs) -> Result<(), CommandError> {
    let folder = Path::new(&args.context).canonicalize().map_err(|error| {
        CommandError::caused(
            Kind::Usage,
            format!("cannot use `{}` as the build context", args.context),
            error,
        )
    })?;
    let build_args = BuildArgs { file: args.file.clone(), ..BuildArgs::default() };
    let dockerfile = dockerfile_path(&build_args, &folder);
    let ignore = Ignore::read(&dockerfile, &folder)?;
    let answer = match args.why.as_slice() {
        paths @ [_, ..] => {
            paths.iter().flat_map(|path| why(&ignore, &folder, path, args.json)).collect()
        }
        [] => {
            let mut entries = walk(&folder, &ignore)?;
            match args.size {
                true => entries.sort_by(|a, b| b.size.cmp(&a.size).then(a.path.cmp(&b.path))),
                false => entries.sort_by(|a, b| a.path.cmp(&b.path)),
            }
            list(&entries, &ignore, args)
        }
    };
    print(&answer)
}

/// The ignore file of a context, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Ignore {
    file: PathBuf,
    lines: Vec<IgnoreLine>,
    matcher: PatternMatcher,
}

impl Ignore {
    fn read(dockerfile: &Path, folder: &Path) -> Result<Self, CommandError> {
        match ignore_file(Some(dockerfile), folder)? {
            None => Ok(Self::default()),
            Some(file) => Self::parse(file.path, &file.text),
        }
    }

    /// Reads an ignore file's text.
    pub(crate) fn parse(file: PathBuf, text: &str) -> Result<Self, CommandError> {
        let lines = parse_dockerignore_lines(text);
        let patterns = lines.iter().map(|line| &line.pattern);
        let matcher = PatternMatcher::new(patterns).map_err(|error| {
            CommandError::caused(Kind::Usage, format!("cannot use `{}`", file.display()), error)
        })?;
        Ok(Self { file, lines, matcher })
    }

    /// The line that decides about a path relative to the context.
    pub(crate) fn line_of(&self, path: &[u8]) -> Option<&IgnoreLine> {
        self.line(&self.matcher.find(path))
    }

    fn line(&self, decision: &Decision) -> Option<&IgnoreLine> {
        self.lines.get(decision.decided_by()?)
    }

    /// How messages call a line of it.
    pub(crate) fn shown(&self, line: &IgnoreLine) -> String {
        let name = self.file.file_name().unwrap_or_default().to_string_lossy();
        format!("line {} of {name}: {}", line.number, line.written)
    }
}

/// Something in the context's folder.
struct Entry {
    /// Relative to the folder.
    path: Vec<u8>,
    is_directory: bool,
    size: u64,
    decision: Decision,
}

/// Everything in the folder, but what is below an ignored directory without exceptions.
fn walk(folder: &Path, ignore: &Ignore) -> Result<Vec<Entry>, CommandError> {
    let mut entries = Vec::new();
    let mut pending: Vec<(Vec<u8>, Decision)> = vec![(Vec::new(), Decision::default())];
    while let Some((directory, decision)) = pending.pop() {
        let path = folder.join(std::ffi::OsStr::from_bytes(&directory));
        let fail = |error: io::Error| {
            CommandError::caused(
                Kind::Environment,
                format!("cannot list `{}`", path.display()),
                error,
            )
        };
        for child in fs::read_dir(&path).map_err(fail)? {
            let child = child.map_err(fail)?;
            let metadata = match child.path().symlink_metadata() {
                // Gone in the meantime.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                metadata => metadata.map_err(fail)?,
            };
            // A socket is in no layer.
            if metadata.file_type().is_socket() {
                continue;
            }
            let mut path = directory.clone();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend(child.file_name().into_vec());
            let decision = ignore.matcher.decide(&decision, &path);
            let is_directory = metadata.is_dir();
            if is_directory
                && (!decision.excluded()
                    || ignore.matcher.may_have_exceptions_below(&decision, &path))
            {
                pending.push((path.clone(), decision.clone()));
            }
            let size = if metadata.is_file() { metadata.len() } else { 0 };
            entries.push(Entry { path, is_directory, size, decision });
        }
    }
    Ok(entries)
}

fn list(entries: &[Entry], ignore: &Ignore, args: &ContextLsArgs) -> Vec<u8> {
    let mut text = Vec::new();
    let (mut files, mut size, mut ignored) = (0_usize, 0, 0_usize);
    for entry in entries {
        let is_ignored = entry.decision.excluded();
        ignored += usize::from(is_ignored);
        if !is_ignored {
            files += usize::from(!entry.is_directory);
            size += entry.size;
        }
        if is_ignored && !args.ignored {
            continue;
        }
        let line = ignore.line(&entry.decision);
        if args.json {
            let mut document = json!({
                "path": String::from_utf8_lossy(&entry.path),
                "type": if entry.is_directory { "directory" } else { "file" },
                "size": entry.size,
                "ignored": is_ignored,
            });
            if let Some(line) = line {
                document["decidedBy"] = decided_by(ignore, line);
            }
            text.extend(format!("{document}\n").into_bytes());
            continue;
        }
        let shown = if entry.is_directory { "-".to_owned() } else { bytes(entry.size) };
        text.extend(format!("{shown:>9}  ").into_bytes());
        text.extend(&entry.path);
        text.extend(if entry.is_directory { &b"/"[..] } else { b"" });
        if let Some(line) = line.filter(|_| is_ignored) {
            text.extend(format!("   (ignored by {})", ignore.shown(line)).into_bytes());
        }
        text.push(b'\n');
    }
    if !args.json {
        let plural = if files == 1 { "" } else { "s" };
        text.extend(
            format!("{files} file{plural}, {}; {ignored} ignored\n", bytes(size)).into_bytes(),
        );
    }
    text
}

fn why(ignore: &Ignore, folder: &Path, path: &str, json: bool) -> Vec<u8> {
    // A path may be given as the shell completes it, from the folder or from the root.
    let relative =
        Path::new(path).strip_prefix(folder).map_or(path, |path| path.to_str().unwrap_or_default());
    let relative = clean_path(&format!("/{relative}"));
    let relative = &relative[1..];
    let exists = folder.join(relative).symlink_metadata().is_ok();
    let decision = ignore.matcher.find(relative.as_bytes());
    let line = ignore.line(&decision);
    if json {
        let mut document =
            json!({"path": relative, "exists": exists, "ignored": decision.excluded()});
        if let Some(line) = line {
            document["decidedBy"] = decided_by(ignore, line);
        }
        return format!("{document}\n").into_bytes();
    }
    let said = match line {
        None => "the build sees it: no pattern matches it".to_owned(),
        Some(line) if decision.excluded() => format!("ignored by {}", ignore.shown(line)),
        Some(line) => format!("the build sees it because of {}", ignore.shown(line)),
    };
    let missing = if exists { "" } else { " (there is no such file)" };
    format!("{relative}: {said}{missing}\n").into_bytes()
}

fn decided_by(ignore: &Ignore, line: &IgnoreLine) -> serde_json::Value {
    json!({"file": ignore.file.display().to_string(), "line": line.number, "pattern": line.written})
}
