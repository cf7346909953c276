//! `rbuild pull`.

use futures_util::future::try_join_all;
use rbuild_cache::{ImageName, PullMode, PullProgress, Store};
use rbuild_oci::{Platform, Reference};
use rbuild_worker::Provided;

use super::build::in_runtime;
use super::images::print;
use crate::args::PullArgs;
use crate::error::{CommandError, Kind};
use crate::machine::Machine;
use crate::progress::ByteBars;
use crate::wiring::Session;

/// Fetches an image, with its layers, for one platform, and gives it its name in the local image store.
pub(crate) fn pull(store: Store, args: &PullArgs, machine: &Machine) -> Result<(), CommandError> {
    let reference = Reference::parse(&args.image).map_err(|error| {
        CommandError::caused(Kind::Usage, format!("cannot pull `{}`", args.image), error)
    })?;
    let platform = args.platform.as_deref().map_or_else(|| Ok(Platform::host()), platform)?;
    let session = Session::open(store, machine, &Provided::default())?;
    in_runtime(async {
        let name = ImageName::Reference(reference.clone());
        let image = session.images.resolve(&name, &platform, PullMode::Always).await;
        let cannot_pull = |error| {
            CommandError::caused(Kind::Environment, format!("cannot pull `{}`", args.image), error)
        };
        let (bars, progress) = ByteBars::start();
        session.images.warn_of_mirrors(&session.reporting(&progress));
        let image = match image {
            Ok(image) => image,
            Err(error) => {
                drop(progress);
                bars.finish().await;
                return Err(cannot_pull(error));
            }
        };
        let progress = PullProgress { progress, vertex: image.manifest.digest };
        let layers = image.layers.iter();
        let layers = layers.map(|layer| session.images.ensure_blob(&layer.descriptor, &progress));
        let fetched = try_join_all(layers).await;
        drop(progress);
        bars.finish().await;
        fetched.map_err(cannot_pull)?;
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
            let message = format!("cannot keep `{}` in the local image store", args.image);
            CommandError::new(Kind::Environment, format!("{message}: {error}"))
        };
        // The name must not point to what a power cut could still take.
        session.store.content.sync().map_err(|error| failed(error.into()))?;
        let named = reference.with_default_tag();
        session
            .store
            .index
            .tag_image(&named.to_string(), &image.manifest)
            .map_err(|error| failed(error.into()))?;
        match args.quiet {
            true => Ok(()),
            false => print(format!("{}\n", reference.pinned(image.digest())).as_bytes()),
        }
    })
}

/// A platform as it is typed.
pub(super) fn platform(text: &str) -> Result<Platform, CommandError> {
    text.parse().map_err(|error| {
        CommandError::caused(Kind::Usage, format!("invalid platform `{text}`"), error)
    })
}
