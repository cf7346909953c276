//! What `mode=delete` must leave alone: a folder is made equal to a result only if it holds nothing but results.

use std::ffi::OsString;
use std::fs::Metadata;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use rbuild_cache::ImageName;
use rbuild_exporter::{FileDestination, FilesDestination, FolderMode, ImageDestination};

use super::cache::CachePlan;
use super::input::dockerfile_path;
use super::on_failure::OnFailurePlan;
use super::plan::{Plan, PlannedOutput};
use super::provided;
use crate::args::BuildArgs;
use crate::error::CommandError;
use crate::paths;

/// Refuses outputs that would delete what the build reads or writes otherwise, or where we are. `store` is the store's
/// root, `settings` the file with defaults of flags that was named.
pub(super) fn check(
    args: &BuildArgs,
    (plan, on_failure, cache): (&Plan, &OnFailurePlan, &CachePlan),
    (store, settings): (&Path, Option<&Path>),
) -> Result<(), CommandError> {
    let outputs: Vec<&PlannedOutput> = plan.outputs.iter().collect();
    let on_failure: Vec<&PlannedOutput> = on_failure.outputs().collect();
    // Most builds delete nothing.
    if outputs.iter().chain(&on_failure).all(|output| replaced(output).is_none()) {
        return Ok(());
    }
    let used = used(args, cache, (store, settings));
    // What a failure has left is to outlive the build that succeeds.
    let kept = written_by(&on_failure);
    check_outputs(&outputs, used.iter().chain(&kept))?;
    check_outputs(&on_failure, used.iter())?;
    let replaced = outputs.iter().chain(&on_failure).filter_map(|output| replaced(output));
    check_mounts(replaced, &std::fs::read("/proc/self/mountinfo").unwrap_or_default())
}

fn written_by(outputs: &[&PlannedOutput]) -> Vec<Used> {
    let paths = outputs.iter().filter_map(|output| written(output));
    paths.map(|path| Used::whole("another output", path.to_owned())).collect()
}

/// Refuses folders in which something is mounted: that has files of another place. `mounts` is as in proc(5).
fn check_mounts<'a>(
    folders: impl Iterator<Item = &'a Path>,
    mounts: &[u8],
) -> Result<(), CommandError> {
    for folder in folders {
        let resolved = resolved(folder);
        let inside = |place: &PathBuf| place.starts_with(&resolved) && *place != resolved;
        let places = mounts.split(|byte| *byte == b'\n').filter_map(mount_point);
        if let Some(mount) = places.into_iter().find(inside) {
            return Err(CommandError::usage(format!(
                "mode=delete would delete what is in `{}` beside the result, and `{}` is mounted in it",
                folder.display(),
                mount.display()
            ))
            .hint("give the result a folder of its own"));
        }
    }
    Ok(())
}

/// The fifth word of a line, in which blanks and backslashes are written as numbers.
fn mount_point(line: &[u8]) -> Option<PathBuf> {
    let word = line.split(|byte| *byte == b' ').nth(4)?;
    let (mut path, mut rest) = (Vec::new(), word);
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| *first == b'\\');
        let number =
            octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match number {
            Some(byte) => {
                path.push(byte);
                rest = &after[3..];
            }
            None => {
                path.push(*first);
                rest = after;
            }
        }
    }
    Some(PathBuf::from(OsString::from_vec(path)))
}

/// Whether two paths lead to one place.
pub(super) fn is_same(one: &Path, other: &Path) -> bool {
    resolved(one) == resolved(other)
}

/// Checks each of `outputs` against what is used and against the others.
fn check_outputs<'a>(
    outputs: &[&PlannedOutput],
    used: impl Iterator<Item = &'a Used> + Clone,
) -> Result<(), CommandError> {
    for (position, output) in outputs.iter().enumerate() {
        let Some(folder) = replaced(output) else { continue };
        let others = outputs.iter().enumerate().filter(|(other, _)| *other != position);
        let others = others.filter_map(|(_, other)| written(other));
        let others: Vec<Used> =
            others.map(|path| Used::whole("another output", path.to_owned())).collect();
        let refusal = |used: &Used| used.refusal(folder);
        let mut of_used = used.clone();
        if let Some(refusal) = of_used.find_map(refusal).or_else(|| others.iter().find_map(refusal))
        {
            return Err(CommandError::usage(refusal).hint("give the result a folder of its own"));
        }
    }
    Ok(())
}

/// The folder that is made equal to a result.
fn replaced(output: &PlannedOutput) -> Option<&Path> {
    match output {
        PlannedOutput::Files {
            destination: FilesDestination::Folder { path, mode: FolderMode::Replace, .. },
            ..
        } => Some(path),
        _ => None,
    }
}

/// The file or folder that an output is written to.
fn written(output: &PlannedOutput) -> Option<&Path> {
    match output {
        PlannedOutput::Image {
            destination:
                Some(ImageDestination::Archive { file: FileDestination::Path(path), .. })
                | Some(ImageDestination::Folder { folder: path, .. }),
            ..
        }
        | PlannedOutput::Files {
            destination:
                FilesDestination::Tar(FileDestination::Path(path))
                | FilesDestination::Folder { path, .. },
            ..
        } => Some(path),
        _ => None,
    }
}

/// A file or folder that must not be deleted.
#[derive(Debug)]
struct Used {
    what: &'static str,
    path: PathBuf,
    /// Whether also no part of it may be. A result in a context, on the other hand, is where many keep it.
    is_whole: bool,
}

impl Used {
    fn part(what: &'static str, path: PathBuf) -> Self {
        Self { what, path, is_whole: false }
    }

    fn whole(what: &'static str, path: PathBuf) -> Self {
        Self { what, path, is_whole: true }
    }

    /// Why what is in `folder` cannot be deleted.
    fn refusal(&self, folder: &Path) -> Option<String> {
        let Self { what, path, is_whole } = self;
        let (deleted, shown) = (resolved(folder), folder.display());
        if holds(&deleted, path) {
            return Some(format!(
                "mode=delete would delete what is in `{shown}` beside the result, and that is, or holds, {what}: `{}`",
                path.display()
            ));
        }
        (*is_whole && holds(&resolved(path), folder)).then(|| {
            format!(
                "mode=delete would delete what is in `{shown}` beside the result, and that is part of {what}: `{}`",
                path.display()
            )
        })
    }
}

/// All that a build uses beside its outputs.
fn used(
    args: &BuildArgs,
    cache: &CachePlan,
    (store, settings): (&Path, Option<&Path>),
) -> Vec<Used> {
    let mut used = vec![
        Used::whole("the store", store.to_owned()),
        Used::part("the working directory", PathBuf::from(".")),
    ];
    used.extend(std::env::home_dir().map(|home| Used::part("your home directory", home)));
    let context = PathBuf::from(args.context.as_deref().unwrap_or("."));
    // Contexts and Dockerfiles may also be addresses.
    let mut read = vec![
        Used::part("the Dockerfile", dockerfile_path(args, &context)),
        Used::part("the build context", context),
    ];
    read.extend(args.llb.iter().map(|llb| Used::part("the graph", llb.clone())));
    for context in &args.build_context {
        let source = context.split_once('=').map_or("", |(_, source)| source);
        read.push(match source.strip_prefix("oci-layout://").map(ImageName::layout) {
            Some(Ok(ImageName::Layout(layout, _))) => {
                Used::whole("a layout that is read", layout.folder().to_owned())
            }
            _ => Used::part("a build context", PathBuf::from(source)),
        });
    }
    let environment = |name: &str| std::env::var_os(name);
    let configured = paths::config_files().into_iter().chain(settings.map(Path::to_owned));
    read.extend(configured.map(|path| Used::part("settings", path)));
    let named = [
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "AWS_CA_BUNDLE",
        "AWS_CONFIG_FILE",
        "AWS_SHARED_CREDENTIALS_FILE",
    ];
    let named = named.iter().filter_map(|name| environment(name)).map(PathBuf::from);
    read.extend(named.map(|path| Used::part("what a variable names", path)));
    let private = provided::paths(args, environment).into_iter();
    read.extend(private.map(|path| Used::part("what is given to steps", path)));
    used.extend(read.into_iter().filter(|used| used.path.exists()));
    used.extend(cache.folders().map(|folder| Used::whole("a cache", folder.to_owned())));
    used
}

/// Whether a path leads to `folder`, which has no links in it, or to something in it, also by way of a link there.
fn holds(folder: &Path, path: &Path) -> bool {
    // A folder may be in two places by a bind mount.
    let id = |metadata: Metadata| (metadata.dev(), metadata.ino());
    let folder_id = folder.metadata().ok().map(id);
    let is_folder = |other: &Path| {
        other == folder || folder_id.is_some() && other.metadata().ok().map(id) == folder_id
    };
    let named = path.parent().zip(path.file_name());
    let link = named.map(|(parent, name)| resolved(parent).join(name));
    [Some(resolved(path)), link].iter().flatten().any(|path| path.ancestors().any(is_folder))
}

/// The path without links; what is not there yet is taken as it will be made.
fn resolved(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let (mut there, mut missing) = (path.as_path(), Vec::new());
    loop {
        if let Ok(mut found) = there.canonicalize() {
            for part in missing.iter().rev() {
                match part {
                    Component::ParentDir => _ = found.pop(),
                    part => found.push(part),
                }
            }
            return found;
        }
        match (there.parent(), there.components().next_back()) {
            (Some(parent), Some(last)) => {
                missing.push(last);
                there = parent;
            }
            _ => return path,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_is_mounted_in_a_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap();
        let line = |place: &str| {
            format!("36 35 98:0 / {}{place} rw,noatime - ext4 /dev/root rw\n", path.display())
        };
        let check = |mounts: &str| {
            check_mounts(std::iter::once(folder.path()), mounts.as_bytes())
                .map_err(|error| error.reason())
        };
        check(&(line("") + &line("-beside") + "short\n")).unwrap();
        let refusal = check(&line("/a\\040b/c\\134")).unwrap_err();
        let mount = format!("`{}/a b/c\\` is mounted in it", path.display());
        assert!(refusal.ends_with(&mount), "{refusal}");
    }

    #[test]
    fn paths_are_compared_where_they_lead() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir_all(path("out/inner")).unwrap();
        fs::create_dir(path("other")).unwrap();
        fs::write(path("other/file"), "").unwrap();
        symlink(path("out"), path("link")).unwrap();
        symlink(path("other"), path("out/away")).unwrap();
        let out = resolved(&path("link"));
        assert_eq!(out, path("out").canonicalize().unwrap());
        for inside in ["out", "out/inner", "link/inner/new", "other/../out/x", "new/../link"] {
            assert!(holds(&out, &path(inside)), "{inside}");
        }
        assert!(holds(&out, &path("out/away")), "the link itself would be deleted");
        for outside in ["other", "other/file", "outer", ".", "out/away/file"] {
            assert!(!holds(&out, &path(outside)), "{outside}");
        }
        assert!(holds(&resolved(&path("new")), &path("new/file")), "it need not be there yet");
    }
}
