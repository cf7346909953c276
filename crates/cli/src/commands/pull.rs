//! `rbuild pull`.

use std::collections::HashSet;

use futures_util::future::try_join_all;
use rbuild_cache::{ImageName, PullMode, PullProgress, Store};
use rbuild_oci::{Platform, Reference};
use rbuild_worker::Provided;

use super::build::in_runtime;
use super::images::print;
use crate::args::PullArgs;
use crate::error::{CommandError, Kind};
use crate::machine::Machine;
use crate::printable;
use crate::progress::{ByteBars, print_after};
use crate::wiring::Session;

/// Fetches an image, with its layers, for one platform or all, and gives it its name in the local image store.
pub(crate) fn pull(store: Store, args: &PullArgs, machine: &Machine) -> Result<(), CommandError> {
    let reference = Reference::parse(&args.image).map_err(|error| {
        CommandError::caused(Kind::Usage, format!("cannot pull `{}`", args.image), error)
    })?;
    let platform = args.platform.as_deref().map_or_else(|| Ok(Platform::host()), platform)?;
    let session = Session::open(store, machine, &Provided::default())?;
    in_runtime(async {
        let name = ImageName::Reference(reference.clone());
        let image = match args.all_platforms {
            true => {
                session.images.whole(&reference).await.map(|whole| (whole.top, whole.blobs, None))
            }
            false => {
                let image = session.images.resolve(&name, &platform, PullMode::Always).await;
                image.map(|image| {
                    let layers = image.layers.iter().map(|layer| layer.descriptor.clone());
                    (image.manifest.clone(), layers.collect(), Some(image.config.platform()))
                })
            }
        };
        let cannot_pull = |error| {
            CommandError::caused(Kind::Environment, format!("cannot pull `{}`", args.image), error)
        };
        let (bars, progress) = ByteBars::start(args.quiet);
        session.images.warn_of_mirrors(&session.reporting(&progress));
        let (top, mut blobs, is_for) = match image {
            Ok(image) => image,
            Err(error) => {
                drop(progress);
                bars.finish().await;
                return Err(cannot_pull(error));
            }
        };
        let progress = PullProgress { progress, vertex: top.digest };
        // Platforms share blobs.
        let mut seen = HashSet::new();
        blobs.retain(|blob| seen.insert(blob.digest));
        let blobs = blobs.iter().map(|blob| session.images.ensure_blob(blob, &progress));
        let fetched = try_join_all(blobs).await;
        drop(progress);
        bars.finish().await;
        fetched.map_err(cannot_pull)?;
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
            let message = format!("cannot keep `{}` in the local image store", args.image);
            CommandError::new(Kind::Environment, format!("{message}: {error}"))
        };
        if let Some(is_for) = is_for.filter(|is_for| platform.distance(is_for).is_none()) {
            let message = format!("`{}` is for {is_for}, not for {platform}", args.image);
            print_after(&format!("WARN: {}\n", printable::line(&message)));
        }
        // The name must not point to what a power cut could still take.
        session.store.content.sync().map_err(|error| failed(error.into()))?;
        let named = reference.with_default_tag();
        session
            .store
            .index
            .tag_image(&named.to_string(), &top)
            .map_err(|error| failed(error.into()))?;
        match args.quiet {
            true => Ok(()),
            false => print(format!("{}\n", reference.pinned(top.digest)).as_bytes()),
        }
    })
}

/// A platform as it is typed.
pub(super) fn platform(text: &str) -> Result<Platform, CommandError> {
    if text == "local" {
        return Ok(Platform::host());
    }
    text.parse().map_err(|error| {
        CommandError::caused(Kind::Usage, format!("invalid platform `{text}`"), error)
    })
}
