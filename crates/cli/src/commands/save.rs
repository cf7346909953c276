//! `rbuild save`: an image of the local image store as an archive.

use std::sync::Arc;

use futures_util::future::try_join_all;
use rbuild_cache::{Image as StoredImage, ImageError, PullProgress, Store};
use rbuild_exporter::{
    ArchiveForm, FileDestination, ImageDestination, NamedDocument, export_image,
};
use rbuild_oci::{Descriptor, Reference};
use rbuild_worker::Provided;

use super::build::in_runtime;
use super::build::result::{blocking, fetch_error};
use super::documents::{self, ManifestDocument};
use super::images::find;
use super::pull::platform;
use crate::args::SaveArgs;
use crate::error::CommandError;
use crate::machine::Machine;
use crate::progress::ByteBars;
use crate::wiring::Session;

/// Writes an image, or the images of an index.
pub(crate) fn save(store: Store, args: &SaveArgs, machine: &Machine) -> Result<(), CommandError> {
    let image = find(&store, &args.image)?;
    let wanted = args.platform.as_deref().map(platform).transpose()?;
    let form = if args.format == "oci" { ArchiveForm::Oci } else { ArchiveForm::Docker };
    let mut top = documents::select(&store, &image, wanted.as_ref())?;
    let manifests = documents::manifests(&store, &top)?;
    if form == ArchiveForm::Docker && top.media_type.is_index() {
        top = only_image(&store, &manifests)?;
    }
    let session = Arc::new(Session::open(store, machine, &Provided::default())?);
    in_runtime(write(session, image, top, manifests, (form, args)))
}

/// The one image of an index, for an archive that holds but one.
fn only_image(store: &Store, manifests: &[ManifestDocument]) -> Result<Descriptor, CommandError> {
    let images: Vec<_> =
        manifests.iter().filter_map(|one| Some((one.platform(store)?, one))).collect();
    match &images[..] {
        [(_, only)] => Ok(only.descriptor.clone()),
        several => {
            let names: Vec<String> =
                several.iter().map(|(platform, _)| platform.to_string()).collect();
            let message = "docker exporter does not currently support exporting manifest lists";
            Err(CommandError::usage(message).hint(format!(
                "--format=oci takes all; --platform takes one of {}",
                names.join(", ")
            )))
        }
    }
}

async fn write(
    session: Arc<Session>,
    image: StoredImage,
    top: Descriptor,
    manifests: Vec<ManifestDocument>,
    (form, args): (ArchiveForm, &SaveArgs),
) -> Result<(), CommandError> {
    let is_wanted =
        |one: &&ManifestDocument| top.media_type.is_index() || one.descriptor.digest == top.digest;
    let wanted: Vec<&ManifestDocument> = manifests.iter().filter(is_wanted).collect();
    let (bars, progress) = ByteBars::start(false);
    let pull = PullProgress { progress, vertex: top.digest };
    let fetched = fetch(&session, &wanted, &pull).await;
    drop(pull);
    bars.finish().await;
    fetched.map_err(unfetched)?;
    let document = match &wanted[..] {
        [only] if !top.media_type.is_index() => {
            let config = Some(only.manifest.config.digest);
            NamedDocument { descriptor: top, config }.created(only.config(&session.store)?.created)
        }
        _ => NamedDocument { descriptor: top, config: None },
    };
    let names =
        image.name.as_deref().and_then(|name| Reference::parse(name).ok()).into_iter().collect();
    let file = match args.output.as_str() {
        "-" => FileDestination::Stdout,
        path => FileDestination::Path(path.into()),
    };
    let destination = ImageDestination::Archive { form, names, file };
    blocking(move || export_image(session.export_store(), &document, &destination, None)).await
}

/// Makes sure that all blobs are here, and the layers are what the configurations say.
async fn fetch(
    session: &Session,
    wanted: &[&ManifestDocument],
    pull: &PullProgress,
) -> Result<(), ImageError> {
    let configs = wanted.iter().map(|one| &one.manifest.config);
    try_join_all(configs.map(|config| session.images.ensure_blob(config, pull))).await?;
    let layers = wanted.iter().flat_map(|one| {
        let diff_ids = one.diff_ids(&session.store);
        one.manifest.layers.iter().zip(diff_ids)
    });
    let ensured =
        layers.map(|(layer, diff_id)| session.images.ensure_blob_as(layer, diff_id, pull));
    try_join_all(ensured).await?;
    Ok(())
}

fn unfetched(error: ImageError) -> CommandError {
    fetch_error(error).hint(
        "build the image again: what a cache does not have any more is then made anew (--no-cache-filter=STAGE makes all of \
         a stage)",
    )
}
