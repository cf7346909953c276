//! `--output`: where the result of a build goes (section 4.1 of the behaviour reference).

use std::path::PathBuf;

use rbuild_cache::Compression;
use rbuild_exporter::FileDestination;

/// One `--output`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OutputSpec {
    /// The local image store and registries, under these names beside those of `--tag`.
    Image { names: Vec<String>, options: ImageOptions, store: bool, push: PushOptions },
    /// An archive with an image.
    Archive {
        form: ArchiveKind,
        destination: FileDestination,
        names: Vec<String>,
        options: ImageOptions,
    },
    /// The files, as an archive.
    Tar(FileDestination),
    /// The files, in a folder.
    Local(PathBuf),
    /// Nowhere: only the cache is filled.
    CacheOnly,
}

/// The kinds of image archives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ArchiveKind {
    Oci,
    Docker,
}

/// How an image is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ImageOptions {
    /// How new layers are compressed.
    pub(crate) compression: Compression,
    /// Whether documents have OCI's media types; `None` leaves it to the kind of output.
    pub(crate) oci_types: Option<bool>,
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
        let options = ImageOptions { compression: Compression::GZIP, oci_types: None };
        Self::Image { names: Vec::new(), options, store: true, push: PushOptions::default() }
    }

    /// Parses `type=...,key=value,...`, a folder, or `-`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text == "-" {
            return Ok(Self::Tar(FileDestination::Stdout));
        }
        let fields = csv_fields(text)?;
        Self::of_fields(&fields)
    }

    fn of_fields(fields: &[String]) -> Result<Self, String> {
        if let [field] = fields
            && !field.contains('=')
        {
            return Ok(Self::Local(PathBuf::from(field)));
        }
        let mut kind = None;
        let mut attributes = Attributes::default();
        for field in fields {
            let Some((key, value)) = field.split_once('=') else {
                return Err(format!("`{field}` is not of the form key=value"));
            };
            match key.to_ascii_lowercase().as_str() {
                "type" => kind = Some(value.to_owned()),
                key => attributes.set(key, value)?,
            }
        }
        let kind = kind.ok_or("type is required, such as type=oci")?;
        attributes.build(&kind)
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
        let is_files = matches!(output, OutputSpec::Local(_) | OutputSpec::Tar(_));
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

/// The attributes as given; [`Attributes::build`] takes those that the type has and refuses what is left.
#[derive(Default)]
struct Attributes {
    dest: Option<String>,
    names: Vec<String>,
    compression: Option<String>,
    compression_level: Option<i32>,
    oci_types: Option<bool>,
    store: Option<bool>,
    push: Option<bool>,
    push_by_digest: Option<bool>,
    insecure: Option<bool>,
}

impl Attributes {
    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let boolean = || match value {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(format!("`{key}` is true or false, not `{value}`")),
        };
        match key {
            "dest" => self.dest = Some(value.to_owned()),
            "name" => self.names.extend(value.split(',').map(str::to_owned)),
            "compression" => self.compression = Some(value.to_owned()),
            "compression-level" => {
                let level =
                    value.parse().map_err(|_| format!("`{key}` is a number, not `{value}`"))?;
                self.compression_level = Some(level);
            }
            "oci-mediatypes" => self.oci_types = Some(boolean()?),
            "store" => self.store = Some(boolean()?),
            "push" => self.push = Some(boolean()?),
            "push-by-digest" => self.push_by_digest = Some(boolean()?),
            "registry.insecure" => self.insecure = Some(boolean()?),
            // The only behaviour there is, asked for by name.
            "tar" | "unpack" if boolean()? == (key != "unpack") => {}
            "mode" if value == "copy" => {}
            _ => return Err(format!("`{key}={value}` is not supported yet")),
        }
        Ok(())
    }

    fn build(mut self, kind: &str) -> Result<OutputSpec, String> {
        let spec = match kind {
            "image" | "registry" => OutputSpec::Image {
                options: self.image_options()?,
                names: std::mem::take(&mut self.names),
                store: self.store.take().unwrap_or(true),
                push: PushOptions {
                    push: self.push.take().unwrap_or(kind == "registry"),
                    by_digest: self.push_by_digest.take().unwrap_or(false),
                    insecure: self.insecure.take().unwrap_or(false),
                },
            },
            "oci" | "docker" => {
                let form = if kind == "oci" { ArchiveKind::Oci } else { ArchiveKind::Docker };
                let destination = self.file(kind)?;
                OutputSpec::Archive {
                    form,
                    destination,
                    options: self.image_options()?,
                    names: std::mem::take(&mut self.names),
                }
            }
            "tar" => OutputSpec::Tar(self.file(kind)?),
            "local" => match self.dest.take() {
                Some(dest) if dest != "-" => OutputSpec::Local(PathBuf::from(dest)),
                _ => return Err("type=local needs dest=FOLDER".to_owned()),
            },
            "cacheonly" => OutputSpec::CacheOnly,
            other => {
                return Err(format!(
                    "unknown type `{other}`: image, registry, oci, docker, tar, local or cacheonly"
                ));
            }
        };
        let left = [
            ("dest", self.dest.is_some()),
            ("name", !self.names.is_empty()),
            ("compression", self.compression.is_some()),
            ("compression-level", self.compression_level.is_some()),
            ("oci-mediatypes", self.oci_types.is_some()),
            // Archives and folders are kept wherever they go.
            ("store", self.store == Some(false)),
            ("push", self.push.is_some()),
            ("push-by-digest", self.push_by_digest.is_some()),
            ("registry.insecure", self.insecure.is_some()),
        ];
        match left.iter().find(|(_, given)| *given) {
            Some((key, _)) => Err(format!("type={kind} has no `{key}`")),
            None => Ok(spec),
        }
    }

    fn file(&mut self, kind: &str) -> Result<FileDestination, String> {
        match self.dest.take() {
            None => Err(format!("type={kind} needs dest=FILE, or dest=- for standard output")),
            Some(dest) if dest == "-" => Ok(FileDestination::Stdout),
            Some(dest) => Ok(FileDestination::Path(PathBuf::from(dest))),
        }
    }

    fn image_options(&mut self) -> Result<ImageOptions, String> {
        let level = self.compression_level.take();
        let compression = compression(self.compression.take().as_deref(), level)?;
        Ok(ImageOptions { compression, oci_types: self.oci_types.take() })
    }
}

/// The compression that the attributes `compression` and `compression-level` say.
pub(crate) fn compression(kind: Option<&str>, level: Option<i32>) -> Result<Compression, String> {
    let within = |least: i32, most: i32, default: i32| match level {
        None => Ok(default),
        Some(level) if (least..=most).contains(&level) => Ok(level),
        Some(level) => Err(format!("compression-level is {least} to {most}, not {level}")),
    };
    match kind {
        None | Some("gzip") => Ok(Compression::Gzip { level: within(0, 9, 6)?.cast_unsigned() }),
        Some("zstd") => Ok(Compression::Zstd { level: within(1, 22, 3)? }),
        Some("uncompressed") if level.is_none() => Ok(Compression::Uncompressed),
        Some(other) => {
            Err(format!("compression `{other}` is not supported: gzip, zstd or uncompressed"))
        }
    }
}

/// Splits at commas outside double quotes; a field in quotes may hold commas, and `""` is a quote (RFC 4180).
pub(crate) fn csv_fields(text: &str) -> Result<Vec<String>, String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let field = fields.last_mut().expect("there is always one");
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' if quoted || field.is_empty() => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => field.push(c),
        }
    }
    if quoted { Err(format!("`{text}` has a quote without an end")) } else { Ok(fields) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GZIP: ImageOptions = ImageOptions { compression: Compression::GZIP, oci_types: None };

    #[test]
    fn the_forms_of_output() {
        let path = |path: &str| FileDestination::Path(PathBuf::from(path));
        for (text, expected) in [
            ("-", OutputSpec::Tar(FileDestination::Stdout)),
            ("out", OutputSpec::Local(PathBuf::from("out"))),
            ("type=local,dest=a b", OutputSpec::Local(PathBuf::from("a b"))),
            ("type=tar,dest=-", OutputSpec::Tar(FileDestination::Stdout)),
            ("type=cacheonly", OutputSpec::CacheOnly),
            (
                "type=oci,\"dest=a,b.tar\",compression=zstd,compression-level=5",
                OutputSpec::Archive {
                    form: ArchiveKind::Oci,
                    destination: path("a,b.tar"),
                    names: Vec::new(),
                    options: ImageOptions {
                        compression: Compression::Zstd { level: 5 },
                        oci_types: None,
                    },
                },
            ),
            (
                "type=image,name=a:1",
                OutputSpec::Image {
                    names: vec!["a:1".to_owned()],
                    options: GZIP,
                    store: true,
                    push: PushOptions::default(),
                },
            ),
            (
                "type=registry,name=a,push-by-digest=true,registry.insecure=true,store=false",
                OutputSpec::Image {
                    names: vec!["a".to_owned()],
                    options: GZIP,
                    store: false,
                    push: PushOptions { push: true, by_digest: true, insecure: true },
                },
            ),
        ] {
            assert_eq!(OutputSpec::parse(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_failed_goes_in_parts_too() {
        let parse = OnFailure::parse;
        let local = OutputSpec::Local(PathBuf::from("out"));
        let expected = OnFailure { output: local.clone(), src: Some("/app/r".to_owned()) };
        assert_eq!(parse("type=local,dest=out,src=/app/r").unwrap(), expected);
        assert_eq!(parse("out,src=/app/r").unwrap(), expected);
        assert_eq!(parse("out").unwrap(), OnFailure { output: local, src: None });
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
            ("type=oci", "needs dest=FILE"),
            ("dest=x,foo=y", "`foo=y` is not supported yet"),
            ("type=nope", "unknown type `nope`"),
            ("type=tar,dest=x,compression=gzip", "type=tar has no `compression`"),
            ("type=image,compression=lzma", "compression `lzma` is not supported"),
            ("type=image,compression-level=99", "compression-level is 0 to 9"),
            ("type=image,push=maybe", "`push` is true or false, not `maybe`"),
            ("type=oci,dest=x,push=true", "type=oci has no `push`"),
            ("type=local,\"dest=x", "quote without an end"),
            ("type=image,x", "not of the form key=value"),
        ] {
            let error = OutputSpec::parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
