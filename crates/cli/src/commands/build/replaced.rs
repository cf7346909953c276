//! What `mode=delete` must leave alone: a folder is made equal to a result only if it holds nothing but results.

use std::fs::Metadata;
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

/// Refuses outputs that would delete what the build reads or writes otherwise, or where we are. `store` is the store's
/// root.
pub(super) fn check(
    args: &BuildArgs,
    (plan, on_failure, cache): (&Plan, &OnFailurePlan, &CachePlan),
    store: &Path,
) -> Result<(), CommandError> {
    let outputs: Vec<&PlannedOutput> = plan.outputs.iter().collect();
    let on_failure: Vec<&PlannedOutput> = on_failure.outputs().collect();
    // Most builds delete nothing.
    if outputs.iter().chain(&on_failure).all(|output| replaced(output).is_none()) {
        return Ok(());
    }
    let used = used(args, cache, store);
    check_outputs(&outputs, &used)?;
    check_outputs(&on_failure, &used)
}

/// Checks each of `outputs` against what is used and against the others.
fn check_outputs(outputs: &[&PlannedOutput], used: &[Used]) -> Result<(), CommandError> {
    for (position, output) in outputs.iter().enumerate() {
        let Some(folder) = replaced(output) else { continue };
        let others = outputs.iter().enumerate().filter(|(other, _)| *other != position);
        let others = others.filter_map(|(_, other)| written(other));
        let others: Vec<Used> =
            others.map(|path| Used::whole("another output", path.to_owned())).collect();
        if let Some(refusal) = used.iter().chain(&others).find_map(|used| used.refusal(folder)) {
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
fn used(args: &BuildArgs, cache: &CachePlan, store: &Path) -> Vec<Used> {
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
