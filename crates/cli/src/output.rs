//! `--output`: where the result of a build goes (section 4.1 of the behaviour reference).

use std::path::PathBuf;

use rbuild_cache::Compression;
use rbuild_exporter::{
    DanglingName, ExistingBlobs, FileDestination, FolderMode, ForeignLayers, LayerCount,
};

use crate::annotation::Annotation;
use crate::fields::{Fields, csv_fields, with_nearest};

const TYPES: [&str; 7] = ["image", "registry", "oci", "docker", "tar", "local", "cacheonly"];
/// What every image can be given.
const OF_IMAGES: [&str; 10] = [
    "name",
    "layers",
    "compression",
    "compression-level",
    "force-compression",
    "oci-mediatypes",
    "oci-artifact",
    "prefer-nondist-layers",
    "rewrite-timestamp",
    "source-date-epoch",
];
const OF_STORE: [&str; 9] = [
    "store",
    "store-allow-incomplete",
    "unpack",
    "push",
    "push-by-digest",
    "registry.insecure",
    "name-canonical",
    "dangling-name-prefix",
    "dangling-name-empty-only",
];
const UNCOMPRESSED: Compression = Compression::Uncompressed;
/// As BuildKit spells it.
const EMPTY_ONLY: &str = "danging-name-empty-only";
/// Attributes that BuildKit has and rbuild does not.
const LATER: [&str; 1] = ["attestation-inline"];

/// One `--output`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OutputSpec {
    /// The local image store and registries, under these names beside those of `--tag`.
    Image {
        names: Vec<String>,
        options: ImageOptions,
        store: Option<StoreOptions>,
        push: PushOptions,
    },
    /// An archive, or a folder, with an image.
    Archive { form: ArchiveKind, place: ArchivePlace, names: Vec<String>, options: ImageOptions },
    /// An engine that runs containers.
    Load { names: Vec<String>, options: ImageOptions },
    /// The files, as an archive.
    Tar { file: FileDestination, options: FilesOptions },
    /// The files, in a folder.
    Local { folder: PathBuf, mode: FolderMode, options: FilesOptions },
    /// Nowhere: only the cache is filled.
    CacheOnly,
}

/// The kinds of image archives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ArchiveKind {
    Oci,
    Docker,
}

/// Where an image goes that is not for the image store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ArchivePlace {
    File(FileDestination),
    /// A folder that is an OCI image layout (`tar=false`).
    Folder(PathBuf),
}

/// How an image is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ImageOptions {
    /// How new layers are compressed; `None` leaves it to `--compression`.
    pub(crate) compression: Option<Compression>,
    /// What becomes of the blobs of base images.
    pub(crate) existing: ExistingBlobs,
    /// Whether documents have OCI's media types; `None` leaves it to the kind of output.
    pub(crate) oci_types: Option<bool>,
    /// Whether attestations look like an image, as BuildKit wrote them before artifacts.
    pub(crate) attestation_image: bool,
    pub(crate) foreign: ForeignLayers,
    /// How many layers there are.
    pub(crate) count: LayerCount,
    /// Whether times in new layers are no later than `SOURCE_DATE_EPOCH`; `None` where nothing is said of it.
    pub(crate) rewrite_timestamp: Option<bool>,
    /// In place of the build's `SOURCE_DATE_EPOCH`.
    pub(crate) epoch: Option<i64>,
    /// What its documents say beside.
    pub(crate) annotations: Vec<Annotation>,
}

/// How files are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FilesOptions {
    /// In place of the build's `SOURCE_DATE_EPOCH`.
    pub(crate) epoch: Option<i64>,
    /// Whether each platform has a folder; `None` where that depends on how many there are.
    pub(crate) split: Option<bool>,
    /// What the names of attestations begin with.
    pub(crate) attestation_prefix: String,
}

/// How an image is kept in the local image store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StoreOptions {
    /// Whether layers that only a cache has are left there.
    pub(crate) allow_incomplete: bool,
    /// Whether layers of base images are unpacked, which else is left to the first step that reads them.
    pub(crate) unpack: bool,
    /// Whether its names with its digest are names, too.
    pub(crate) canonical: bool,
    /// A name that is made of its digest.
    pub(crate) dangling: Option<DanglingName>,
}

/// Whether and how an image goes to registries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PushOptions {
    pub(crate) push: bool,
    /// Whether it gets no tag there.
    pub(crate) by_digest: bool,
    /// Whether registries are spoken to without encryption.
    pub(crate) insecure: bool,
}

impl OutputSpec {
    /// Where a result goes when nothing is said.
    pub(crate) fn default_image() -> Self {
        Self::Image {
            names: Vec::new(),
            options: ImageOptions::default(),
            store: Some(StoreOptions::default()),
            push: PushOptions::default(),
        }
    }

    /// What `--load` stands for. What stays on this machine is not worth compressing.
    pub(crate) fn load() -> Self {
        let options = ImageOptions { compression: Some(UNCOMPRESSED), ..ImageOptions::default() };
        Self::Load { names: Vec::new(), options }
    }

    /// The same, compressed like this where it does not say how, and has no media types that forbid it.
    pub(crate) fn with_compression(mut self, otherwise: Option<Compression>) -> Self {
        if let Some(options) = self.image_options() {
            let fit = otherwise.filter(|kind| oci_types(Some(*kind), options.oci_types).is_ok());
            options.compression = options.compression.or(fit);
        }
        self
    }

    fn image_options(&mut self) -> Option<&mut ImageOptions> {
        match self {
            Self::Image { options, .. }
            | Self::Archive { options, .. }
            | Self::Load { options, .. } => Some(options),
            Self::Tar { .. } | Self::Local { .. } | Self::CacheOnly => None,
        }
    }

    /// Parses `type=...,key=value,...`, a folder, or `-`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text == "-" {
            let file = FileDestination::Stdout;
            return Ok(Self::Tar { file, options: FilesOptions::default() });
        }
        if text.is_empty() {
            return Err("it is empty: say a folder, `-`, or type=..".to_owned());
        }
        Self::of_fields(&csv_fields(text)?)
    }

    fn of_fields(given: &[String]) -> Result<Self, String> {
        if let [field] = given
            && !field.contains('=')
        {
            let folder = PathBuf::from(field);
            let options = FilesOptions::default();
            return Ok(Self::Local { folder, mode: FolderMode::Add, options });
        }
        // Names of annotations are not those of attributes: either case counts.
        let (mut annotations, mut attributes) = (Vec::new(), Vec::new());
        for field in given {
            match Annotation::of_attribute(field) {
                Some(annotation) => annotations.push(annotation?),
                None => attributes.push(field.clone()),
            }
        }
        let mut fields = Fields::of(&attributes)?;
        let kind = fields.take("type").ok_or("type is required, such as type=oci")?;
        let mut spec = match kind.as_str() {
            "image" | "registry" => image(&mut fields, kind == "registry")?,
            "oci" => archive(&mut fields, ArchiveKind::Oci)?,
            "docker" => archive(&mut fields, ArchiveKind::Docker)?,
            "tar" => {
                let options = files_options(&mut fields)?;
                Self::Tar { file: file(&mut fields)?, options }
            }
            "local" => local(&mut fields)?,
            // Where a result would go makes no difference.
            "cacheonly" => Self::CacheOnly,
            other => {
                let message = format!("unknown type `{other}`: {}", TYPES.join(", "));
                return Err(with_nearest(message, other, &TYPES));
            }
        };
        if let Some(key) = fields.left() {
            return Err(refused(&kind, key));
        }
        match spec.image_options() {
            Some(options) => options.annotations = annotations,
            None if annotations.is_empty() => {}
            None => return Err(format!("type={kind} is no image, which annotations are for")),
        }
        Ok(spec)
    }
}

/// What is wrong with an attribute that the type does not take.
fn refused(kind: &str, key: &str) -> String {
    if LATER.contains(&key) {
        return format!("`{key}` is not supported yet");
    }
    let own: Vec<&str> = match kind {
        "image" | "registry" => OF_IMAGES.into_iter().chain(OF_STORE).collect(),
        "oci" | "docker" => OF_IMAGES.into_iter().chain(["dest", "tar"]).collect(),
        "local" => {
            vec!["dest", "mode", "platform-split", "source-date-epoch", "attestation-prefix"]
        }
        "tar" => vec!["dest", "platform-split", "source-date-epoch", "attestation-prefix"],
        _ => Vec::new(),
    };
    with_nearest(format!("type={kind} has no `{key}`"), key, &own)
}

fn image(fields: &mut Fields, push: bool) -> Result<OutputSpec, String> {
    let options = image_options(fields)?;
    let prefix = fields.take("dangling-name-prefix");
    let empty_only = match fields.switch("dangling-name-empty-only")? {
        None => fields.boolean(EMPTY_ONLY, false)?,
        Some(empty_only) => empty_only,
    };
    if prefix.is_none() && empty_only {
        return Err("dangling-name-empty-only=true needs dangling-name-prefix".to_owned());
    }
    let dangling = prefix.map(|prefix| DanglingName { prefix, only_without_name: empty_only });
    let kept = StoreOptions {
        allow_incomplete: fields.boolean("store-allow-incomplete", false)?,
        unpack: fields.boolean("unpack", false)?,
        canonical: fields.boolean("name-canonical", false)?,
        dangling,
    };
    if kept.unpack && options.rewrite_timestamp == Some(true) {
        let message = "rewrite-timestamp=true conflicts with unpack=true: what is unpacked has the times of the build";
        return Err(message.to_owned());
    }
    let store = fields.boolean("store", true)?;
    let of_store = [
        ("store-allow-incomplete", kept.allow_incomplete),
        ("unpack", kept.unpack),
        ("name-canonical", kept.canonical),
        ("dangling-name-prefix", kept.dangling.is_some()),
    ];
    if let Some((key, _)) = of_store.iter().find(|(_, given)| *given && !store) {
        return Err(format!("`{key}` is of the image store, and store=false leaves that out"));
    }
    Ok(OutputSpec::Image {
        names: names(fields)?,
        options,
        store: store.then_some(kept),
        push: PushOptions {
            push: fields.boolean("push", push)?,
            by_digest: fields.boolean("push-by-digest", false)?,
            insecure: fields.boolean("registry.insecure", false)?,
        },
    })
}

fn archive(fields: &mut Fields, form: ArchiveKind) -> Result<OutputSpec, String> {
    if !fields.is_missing("store") {
        return Err(
            "`store` is for type=image and type=registry; -t keeps the image, too".to_owned()
        );
    }
    let place = match fields.boolean("tar", true)? {
        // As with buildx: the engine is Docker's own place.
        true if form == ArchiveKind::Docker && fields.is_missing("dest") => None,
        true => Some(ArchivePlace::File(file(fields)?)),
        false => Some(ArchivePlace::Folder(folder(fields, "tar=false")?)),
    };
    let options = image_options(fields)?;
    if form == ArchiveKind::Oci && options.oci_types == Some(false) {
        return Err(
            "type=oci has OCI's media types: oci-mediatypes=false is for type=docker".to_owned()
        );
    }
    let names = names(fields)?;
    Ok(match place {
        Some(place) => OutputSpec::Archive { form, place, options, names },
        None => {
            let compression = options.compression.or(Some(UNCOMPRESSED));
            OutputSpec::Load { names, options: ImageOptions { compression, ..options } }
        }
    })
}

fn local(fields: &mut Fields) -> Result<OutputSpec, String> {
    let folder = folder(fields, "type=local")?;
    let mode = match fields.take("mode").as_deref() {
        None | Some("copy") => FolderMode::Add,
        Some("delete") => FolderMode::Replace,
        Some(other) => return Err(format!("`mode` is copy or delete, not `{other}`")),
    };
    let options = files_options(fields)?;
    Ok(OutputSpec::Local { folder, mode, options })
}

fn files_options(fields: &mut Fields) -> Result<FilesOptions, String> {
    let epoch = fields.number("source-date-epoch")?;
    let attestation_prefix = fields.take("attestation-prefix").unwrap_or_default();
    if attestation_prefix.contains('/') {
        return Err(format!(
            "`attestation-prefix` is the beginning of a file's name, not `{attestation_prefix}`"
        ));
    }
    Ok(FilesOptions { epoch, split: fields.switch("platform-split")?, attestation_prefix })
}

fn folder(fields: &mut Fields, what: &str) -> Result<PathBuf, String> {
    match fields.take("dest") {
        Some(dest) if dest != "-" && !dest.is_empty() => Ok(PathBuf::from(dest)),
        _ => Err(format!("{what} needs dest=FOLDER")),
    }
}

/// As with buildx, what says no place goes to standard output.
fn file(fields: &mut Fields) -> Result<FileDestination, String> {
    match fields.take("dest") {
        None => Ok(FileDestination::Stdout),
        Some(dest) if dest == "-" => Ok(FileDestination::Stdout),
        Some(dest) if dest.is_empty() => {
            Err("`dest` is empty: say a file, or `-` for standard output".to_owned())
        }
        Some(dest) => Ok(FileDestination::Path(PathBuf::from(dest))),
    }
}

fn names(fields: &mut Fields) -> Result<Vec<String>, String> {
    let names = fields.take("name").unwrap_or_default();
    let names: Vec<String> = names
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect();
    if names.iter().any(|name| name == "*") {
        let message = "name=* is a name that the frontend gives, and Dockerfiles give none: name the image with -t";
        return Err(message.to_owned());
    }
    Ok(names)
}

fn image_options(fields: &mut Fields) -> Result<ImageOptions, String> {
    let level = fields.number("compression-level")?;
    let compression = told_compression(fields, level)?;
    let existing = match fields.boolean("force-compression", false)? {
        false => ExistingBlobs::Keep,
        true if level.is_some() => ExistingBlobs::All,
        true => ExistingBlobs::OtherFormats,
    };
    let oci_types = oci_types(compression, fields.switch("oci-mediatypes")?)?;
    let foreign = match fields.boolean("prefer-nondist-layers", false)? {
        false => ForeignLayers::Include,
        true => ForeignLayers::Refer,
    };
    Ok(ImageOptions {
        compression,
        existing,
        foreign,
        count: layer_count(fields)?,
        oci_types,
        attestation_image: !fields.boolean("oci-artifact", true)?,
        rewrite_timestamp: fields.switch("rewrite-timestamp")?,
        epoch: fields.number("source-date-epoch")?,
        annotations: Vec::new(),
    })
}

fn layer_count(fields: &mut Fields) -> Result<LayerCount, String> {
    let Some(text) = fields.take("layers") else { return Ok(LayerCount::Keep) };
    match (text.as_str(), text.strip_prefix("max:").map(str::parse)) {
        ("keep", _) => Ok(LayerCount::Keep),
        ("squash", _) => Ok(LayerCount::Squash),
        (_, Some(Ok(most))) => Ok(LayerCount::Max(most)),
        _ => Err(format!("`layers` is keep, squash or max:N (1 or more), not `{text}`")),
    }
}

/// What the attributes say of compression, if anything.
pub(crate) fn told_compression(
    fields: &mut Fields,
    level: Option<i32>,
) -> Result<Option<Compression>, String> {
    match (fields.take("compression"), level) {
        (None, None) => Ok(None),
        (kind, level) => compression(kind.as_deref(), level).map(Some),
    }
}

/// `--compression`: `zstd`, `gzip:9`.
pub(crate) fn compression_and_level(text: &str) -> Result<Compression, String> {
    let Some((kind, level)) = text.split_once(':') else { return compression(Some(text), None) };
    let level = level.parse().map_err(|_| format!("the level is a number, not `{level}`"))?;
    compression(Some(kind), Some(level))
}

/// What `oci-mediatypes` says, where the compression leaves a choice.
pub(crate) fn oci_types(
    compression: Option<Compression>,
    said: Option<bool>,
) -> Result<Option<bool>, String> {
    match (compression, said) {
        (Some(Compression::Estargz { .. }), Some(false)) => {
            Err("compression=estargz needs OCI's media types: leave out oci-mediatypes=false"
                .to_owned())
        }
        (Some(Compression::Estargz { .. }), _) => Ok(Some(true)),
        _ => Ok(said),
    }
}

/// The compression that the attributes `compression` and `compression-level` say.
fn compression(kind: Option<&str>, level: Option<i32>) -> Result<Compression, String> {
    let within = |least: i32, most: i32, default: i32| match level {
        None => Ok(default),
        Some(level) if (least..=most).contains(&level) => Ok(level),
        Some(level) => Err(format!("compression-level is {least} to {most}, not {level}")),
    };
    match kind {
        None | Some("gzip") => Ok(Compression::Gzip { level: within(0, 9, 6)?.cast_unsigned() }),
        // To the library, 0 is its default.
        Some("zstd") => Ok(match within(0, 22, 0)? {
            0 => Compression::ZSTD,
            level => Compression::Zstd { level },
        }),
        Some("uncompressed") if level.is_none() => Ok(Compression::Uncompressed),
        Some("uncompressed") => Err("compression=uncompressed has no compression-level".to_owned()),
        Some("estargz") => Ok(Compression::Estargz { level: within(0, 9, 6)?.cast_unsigned() }),
        Some(other) => {
            const KNOWN: [&str; 4] = ["gzip", "zstd", "estargz", "uncompressed"];
            let message = format!("compression `{other}` is not supported: {}", KNOWN.join(", "));
            Err(with_nearest(message, other, &KNOWN))
        }
    }
}

/// One `--on-failure`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OnFailure {
    /// Where it goes.
    pub(crate) output: OutputSpec,
    /// The part that goes there, as a COPY names it; all of it if missing.
    pub(crate) src: Option<String>,
}

impl OnFailure {
    /// Parses what [`OutputSpec::parse`] does, with `src=PATH`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (mut fields, mut src) = (csv_fields(text)?, None);
        fields.retain(|field| match field.strip_prefix("src=") {
            Some(path) => {
                src = Some(path.to_owned());
                false
            }
            None => true,
        });
        let output = match text {
            "-" => OutputSpec::parse(text)?,
            _ => OutputSpec::of_fields(&fields)?,
        };
        let is_files = matches!(output, OutputSpec::Local { .. } | OutputSpec::Tar { .. });
        match src.as_deref() {
            _ if output == OutputSpec::CacheOnly => {
                Err("type=cacheonly writes nothing: what failed is in no cache".to_owned())
            }
            Some("") => Err("src needs a path".to_owned()),
            Some(_) if !is_files => Err("src is for type=local and type=tar".to_owned()),
            _ => Ok(Self { output, src }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: FilesOptions =
        FilesOptions { epoch: None, split: None, attestation_prefix: String::new() };

    fn local(folder: &str) -> OutputSpec {
        OutputSpec::Local { folder: PathBuf::from(folder), mode: FolderMode::Add, options: FILES }
    }

    fn options(text: &str) -> ImageOptions {
        match OutputSpec::parse(text) {
            Ok(OutputSpec::Image { options, .. } | OutputSpec::Archive { options, .. }) => options,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn the_forms_of_output() {
        let stdout = FileDestination::Stdout;
        let tar = |options| OutputSpec::Tar { file: stdout.clone(), options };
        for (text, expected) in [
            ("-", tar(FILES)),
            ("out", local("out")),
            ("type=local,dest=a b", local("a b")),
            ("type=local,dest=out,mode=copy", local("out")),
            (
                "type=local,dest=out,mode=delete,source-date-epoch=5,platform-split=false",
                OutputSpec::Local {
                    folder: PathBuf::from("out"),
                    mode: FolderMode::Replace,
                    options: FilesOptions { epoch: Some(5), split: Some(false), ..FILES },
                },
            ),
            ("type=tar,dest=-,platform-split=1", tar(FilesOptions { split: Some(true), ..FILES })),
            ("type=tar,source-date-epoch=-7", tar(FilesOptions { epoch: Some(-7), ..FILES })),
            ("type=cacheonly", OutputSpec::CacheOnly),
            ("type=docker", OutputSpec::load()),
            (
                "type=docker,name=a,compression=gzip",
                OutputSpec::Load {
                    names: vec!["a".to_owned()],
                    options: ImageOptions {
                        compression: Some(Compression::default()),
                        ..ImageOptions::default()
                    },
                },
            ),
            (
                "type=oci,\"dest=a,b.tar\",compression=zstd,compression-level=5",
                OutputSpec::Archive {
                    form: ArchiveKind::Oci,
                    place: ArchivePlace::File(FileDestination::Path(PathBuf::from("a,b.tar"))),
                    names: Vec::new(),
                    options: ImageOptions {
                        compression: Some(Compression::Zstd { level: 5 }),
                        ..ImageOptions::default()
                    },
                },
            ),
            (
                "type=docker,dest=d,tar=false",
                OutputSpec::Archive {
                    form: ArchiveKind::Docker,
                    place: ArchivePlace::Folder(PathBuf::from("d")),
                    names: Vec::new(),
                    options: ImageOptions::default(),
                },
            ),
            (
                "type=image,\"name=a:1, b\",store-allow-incomplete=true,unpack=true,name-canonical=true,dangling-name-prefix=x,danging-name-empty-only=1",
                OutputSpec::Image {
                    names: vec!["a:1".to_owned(), "b".to_owned()],
                    options: ImageOptions::default(),
                    store: Some(StoreOptions {
                        allow_incomplete: true,
                        unpack: true,
                        canonical: true,
                        dangling: Some(DanglingName {
                            prefix: "x".to_owned(),
                            only_without_name: true,
                        }),
                    }),
                    push: PushOptions::default(),
                },
            ),
            (
                "type=registry,name=a,push-by-digest=true,registry.insecure=true,store=false",
                OutputSpec::Image {
                    names: vec!["a".to_owned()],
                    options: ImageOptions::default(),
                    store: None,
                    push: PushOptions { push: true, by_digest: true, insecure: true },
                },
            ),
        ] {
            assert_eq!(OutputSpec::parse(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn how_images_are_written() {
        assert_eq!(options("type=image"), ImageOptions::default());
        let all = options(
            "type=oci,dest=x,compression=zstd,compression-level=0,force-compression=true,\
             oci-mediatypes=true,prefer-nondist-layers=true,layers=squash,rewrite-timestamp=false,source-date-epoch=9",
        );
        let expected = ImageOptions {
            compression: Some(Compression::ZSTD),
            existing: ExistingBlobs::All,
            oci_types: Some(true),
            attestation_image: false,
            foreign: ForeignLayers::Refer,
            count: LayerCount::Squash,
            rewrite_timestamp: Some(false),
            epoch: Some(9),
            annotations: Vec::new(),
        };
        assert_eq!(all, expected);
        let noted = options("type=registry,name=a,annotation.org.X=1,\"annotation-index.b=2,3\"");
        assert_eq!(noted.annotations.len(), 2);
        let force = options("type=docker,dest=x,force-compression=true");
        assert_eq!(force.existing, ExistingBlobs::OtherFormats);
    }

    #[test]
    fn what_failed_goes_in_parts_too() {
        let parse = OnFailure::parse;
        let output = local("out");
        let expected = OnFailure { output: output.clone(), src: Some("/app/r".to_owned()) };
        assert_eq!(parse("type=local,dest=out,src=/app/r").unwrap(), expected);
        assert_eq!(parse("out,src=/app/r").unwrap(), expected);
        assert_eq!(parse("out").unwrap(), OnFailure { output, src: None });
        assert!(parse("-").is_ok());
        for (text, reason) in [
            ("type=oci,dest=x,src=/a", "src is for type=local"),
            ("type=local,dest=x,src=", "src needs a path"),
            ("type=cacheonly", "writes nothing"),
            ("src=/a", "type is required"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, expected) in [
            ("type=docker,tar=false", "tar=false needs dest=FOLDER"),
            ("type=local,dest=-", "type=local needs dest=FOLDER"),
            ("type=local,dest=x,mode=move", "`mode` is copy or delete, not `move`"),
            ("type=image,foo=y", "type=image has no `foo`"),
            ("type=image,push-by-diges=true", "did you mean `push-by-digest`?"),
            ("type=oci,dest=x,compresion=zstd", "did you mean `compression`?"),
            ("type=local,dest=x,mod=copy", "did you mean `mode`?"),
            ("type=nope", "unknown type `nope`"),
            ("type=imag", "did you mean `image`?"),
            ("type=image,annotation-layer.a=b", "unknown annotation type `layer`"),
            ("type=image,annotations=b", "type=image has no `annotations`"),
            ("type=local,dest=x,annotation.a=b", "type=local is no image"),
            ("type=cacheonly,annotation.a=b", "type=cacheonly is no image"),
            ("type=tar,dest=x,compression=gzip", "type=tar has no `compression`"),
            ("type=tar,dest=x,dest=y", "`dest` is given twice"),
            ("type=image,compression=lzma", "compression `lzma` is not supported"),
            (
                "type=image,compression=estargz,oci-mediatypes=false",
                "estargz needs OCI's media types",
            ),
            ("type=image,compression=uncompressed,compression-level=1", "has no compression-level"),
            ("type=image,compression-level=99", "compression-level is 0 to 9"),
            ("type=image,compression-level=high", "`compression-level` is a number, not `high`"),
            ("type=image,source-date-epoch=now", "`source-date-epoch` is a number"),
            ("type=image,push=maybe", "`push` is true or false, not `maybe`"),
            ("type=image,layers=max:0", "`layers` is keep, squash or max:N"),
            ("type=image,layers=max", "`layers` is keep, squash or max:N"),
            ("type=image,name=*", "name the image with -t"),
            ("type=image,unpack=true,rewrite-timestamp=true", "conflicts with unpack=true"),
            ("type=image,store=false,unpack=true", "store=false leaves that out"),
            ("type=image,store=false,store-allow-incomplete=true", "store=false leaves that out"),
            ("type=image,dangling-name-empty-only=true", "needs dangling-name-prefix"),
            ("", "it is empty"),
            ("type=oci,dest=", "`dest` is empty"),
            ("type=oci,dest=x,store=false", "`store` is for type=image"),
            ("type=oci,dest=x,oci-mediatypes=false", "oci-mediatypes=false is for type=docker"),
            ("type=oci,dest=x,push=true", "type=oci has no `push`"),
            ("type=oci,dest=x,platform-split=true", "type=oci has no `platform-split`"),
            ("type=local,\"dest=x", "quote without an end"),
            ("type=image,x", "not of the form key=value"),
        ] {
            let error = OutputSpec::parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
