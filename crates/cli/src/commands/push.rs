//! `rbuild push`.

use rbuild_cache::{PullProgress, PushedPlatforms, Store};
use rbuild_oci::Reference;
use rbuild_worker::Provided;

use super::build::in_runtime;
use super::build::result::push_error;
use super::images::{find, print};
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
    let session = Session::open(store, machine, &Provided::default())?;
    let pushes = session.pushes(Vec::new());
    let top = pushes.select(&image.descriptor, &platforms).map_err(push_error)?;
    in_runtime(async {
        let (bars, progress) = ByteBars::start();
        let progress = PullProgress { progress, vertex: top.digest };
        let pushed = pushes.push(&top, std::slice::from_ref(&name), &progress).await;
        drop(progress);
        bars.finish().await;
        pushed.map_err(push_error)?;
        match args.quiet {
            true => Ok(()),
            false => print(format!("{}\n", name.pinned(top.digest)).as_bytes()),
        }
    })
}
