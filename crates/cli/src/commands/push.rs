//! `rbuild push`.

use std::collections::BTreeMap;
use std::sync::Arc;

use rbuild_cache::{ImagePush, PullProgress, PushedPlatforms, Store, names_of_entries};
use rbuild_oci::{Descriptor, Digest, Reference};
use rbuild_worker::Provided;

use super::build::in_runtime;
use super::build::result::push_error;
use super::documents;
use super::images::{find, print};
use super::imagetools::{Addition, add_to_index};
use super::pull::platform;
use crate::args::PushArgs;
use crate::error::CommandError;
use crate::machine::Machine;
use crate::progress::ByteBars;
use crate::wiring::Session;

/// Pushes an image of the local image store to where its name says.
pub(crate) fn push(store: Store, args: &PushArgs, machine: &Machine) -> Result<(), CommandError> {
    let image = find(&store, &args.image)?;
    let name = image.name.as_deref().and_then(|name| Reference::parse(name).ok());
    let name = name.ok_or_else(|| {
        CommandError::usage(format!(
            "image `{}` has no name that says where to push it",
            args.image
        ))
        .hint("give it one with `rbuild tag`")
    })?;
    let platforms = match (&args.platform, args.all_platforms) {
        (Some(text), _) => PushedPlatforms::One(platform(text)?),
        (None, true) => PushedPlatforms::All,
        (None, false) => PushedPlatforms::Available,
    };
    let session = Arc::new(Session::open(store, machine, &Provided::default())?);
    let pushes = session.pushes(Vec::new());
    let top = pushes.select(&image.descriptor, &platforms).map_err(push_error)?;
    in_runtime(async {
        if !args.partial && args.platform.is_none() {
            refuse_to_hide(&pushes, &top, &name, args.all_platforms).await?;
        }
        let (bars, progress) = ByteBars::start(args.quiet);
        let progress = PullProgress { progress, vertex: top.digest };
        let pushed = match args.partial {
            true => add(&session, &pushes, &top, &name, &progress).await,
            false => {
                let pushed = pushes.push(&top, std::slice::from_ref(&name), &progress).await;
                pushed.map(|()| top.digest).map_err(push_error)
            }
        };
        drop(progress);
        bars.finish().await;
        let digest = pushed?;
        match args.quiet {
            true => Ok(()),
            false => print(format!("{}\n", name.pinned(digest)).as_bytes()),
        }
    })
}

/// Refuses to put an image in the place of the index that it came from, which lists more than is here.
async fn refuse_to_hide(
    pushes: &ImagePush,
    top: &Descriptor,
    name: &Reference,
    all: bool,
) -> Result<(), CommandError> {
    let beside = pushes.listed_beside(top, name).await.map_err(push_error)?;
    if beside.is_empty() {
        return Ok(());
    }
    let (name, lost) = (name.familiar(), names_of_entries(&beside));
    let error = if all {
        CommandError::usage(format!(
            "not all of `{name}` is in the local image store: the registry also has {lost}"
        ))
        .hint("rbuild pull --all-platforms takes all of it; rbuild imagetools create -t NEW OLD copies it between registries")
    } else {
        CommandError::usage(format!(
            "`{name}` is an index at the registry, and this image is one of those in it: in its place, it would hide {lost}"
        ))
        .hint("--all-platforms pushes an index, where all of it is in the local image store")
    };
    Err(error
        .hint("--partial puts the image into the index, beside the others")
        .hint("--platform=PLATFORM pushes this one in the place of all"))
}

/// Adds an image to the index that `name` stands for. Returns that index's digest.
async fn add(
    session: &Arc<Session>,
    pushes: &ImagePush,
    top: &Descriptor,
    name: &Reference,
    progress: &PullProgress,
) -> Result<Digest, CommandError> {
    let mut entries = Vec::new();
    for one in documents::manifests(&session.store, top)? {
        let platform = match one.descriptor.platform.clone() {
            Some(platform) => Some(platform),
            None => one.platform(&session.store),
        };
        entries.push(Descriptor { platform, ..one.descriptor });
    }
    let addition = Addition { entries, annotations: BTreeMap::new() };
    Ok(add_to_index(session, pushes, name, &addition, progress).await?.descriptor.digest)
}
