//! `--cache-from` and `--cache-to`: caches that other machines use (section 2.7 of the behaviour reference).

use std::path::{Path, PathBuf};

use rbuild_cache::{Compression, ImageName, LayoutImage, OciLayout};
use rbuild_exporter::{CacheLayout, DocumentTypes, ExistingBlobs};
use rbuild_oci::{Digest, Reference};

use crate::commands::amounts::space;
use crate::fields::{Fields, csv_fields, with_nearest};
use crate::hidden::hide_secrets;
use crate::output::{oci_types, told_compression};
use crate::s3_spec::{S3_ATTRIBUTES, S3_WRITE_ATTRIBUTES, S3Spec};

/// Types that buildx has and rbuild does not.
const OTHERS: [&str; 2] = ["gha", "azblob"];
/// Types that are read.
const READ: [&str; 4] = ["local", "registry", "inline", "s3"];
const INSECURE: &str = "registry.insecure";
const TAG: &str = "latest";
/// What `mounts-max` is unless it is given.
const MOST_OF_MOUNTS: u64 = 2_000_000_000;

/// One `--cache-from`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CacheFrom {
    /// Where it is.
    pub(crate) source: CacheSource,
    /// Whether its registry may be anybody, and speak plain HTTP.
    pub(crate) insecure: bool,
}

/// Where a cache is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CacheSource {
    /// At a registry, or in a folder.
    Image(ImageName),
    /// In a bucket.
    S3(Box<S3Spec>),
}

/// One `--cache-to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CacheTo {
    /// Where it goes.
    pub(crate) destination: CacheDestination,
    /// Whether its registry may be anybody, and speak plain HTTP.
    pub(crate) insecure: bool,
    /// Whether it has all that was built, or only what the image consists of.
    pub(crate) max: bool,
    /// Whether it is written when the build fails, with what was finished.
    pub(crate) on_failure: bool,
    /// Whether the build goes on when it cannot be written.
    pub(crate) ignore_error: bool,
    /// How layers without a blob are compressed; `None` leaves it to `--compression`.
    pub(crate) compression: Option<Compression>,
    /// What becomes of blobs that base images and other caches have.
    pub(crate) existing: ExistingBlobs,
    pub(crate) types: DocumentTypes,
    /// Whether it has the form of an image.
    pub(crate) image_manifest: bool,
    /// Cache mounts that go along.
    pub(crate) mounts: Option<MountsTo>,
}

/// Cache mounts that go along with a cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MountsTo {
    /// Their names; `None` for all that the steps of the build have.
    pub(crate) names: Option<Vec<String>>,
    /// The most bytes that they may have.
    pub(crate) most: u64,
}

/// Where a cache goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CacheDestination {
    /// A folder.
    Local(CacheLayout),
    /// A name at a registry.
    Registry(Reference),
    /// A bucket.
    S3(Box<S3Spec>),
    /// The images that the build writes.
    Inline,
}

impl CacheDestination {
    /// Whether both are the same place.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Local(one), Self::Local(other)) => {
                one.folder == other.folder && (one.tag == other.tag || one.reset || other.reset)
            }
            (Self::Registry(one), Self::Registry(other)) => one == other,
            (Self::S3(one), Self::S3(other)) => one.is_same(other),
            (Self::Inline, Self::Inline) => true,
            _ => false,
        }
    }
}

impl std::fmt::Display for CacheDestination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Local(layout) => write!(f, "`{}`", layout.folder.display()),
            Self::Registry(reference) => write!(f, "`{}`", reference.familiar()),
            Self::S3(spec) => write!(f, "`{spec}`"),
            Self::Inline => f.write_str("the image"),
        }
    }
}

impl CacheFrom {
    /// Parses `type=local,src=FOLDER[,tag=NAME|,digest=DIGEST]`, `type=registry,ref=NAME`, `type=s3,bucket=NAME,..` or a bare name.
    /// An error repeats no secret.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        Self::parse_fields(text).map_err(|error| hide_secrets(&error))
    }

    fn parse_fields(text: &str) -> Result<Self, String> {
        let (mut fields, kind) = parsed(text, &READ)?;
        if kind == "inline" {
            return Err(
                "a cache in an image is read with type=registry,ref=IMAGE or type=local,src=FOLDER"
                    .to_owned(),
            );
        }
        if kind == "registry" {
            let source = CacheSource::Image(ImageName::Reference(reference(&mut fields)?));
            let insecure = fields.boolean(INSECURE, false)?;
            fields.end(&["ref", INSECURE])?;
            return Ok(Self { source, insecure });
        }
        if kind == "s3" {
            let source = CacheSource::S3(Box::new(S3Spec::to_read(&mut fields)?));
            fields.end(&S3_ATTRIBUTES)?;
            return Ok(Self { source, insecure: false });
        }
        let source = fields.needed("src", "FOLDER")?;
        let image = match (fields.take("digest"), fields.take("tag")) {
            (Some(_), Some(_)) => return Err("give `digest` or `tag`, not both".to_owned()),
            (Some(digest), None) => {
                let digest = Digest::parse(&digest);
                LayoutImage::Digest(digest.map_err(|error| format!("digest: {error}"))?)
            }
            (None, tag) => LayoutImage::Named(tag.unwrap_or_else(|| TAG.to_owned())),
        };
        fields.end(&["src", "digest", "tag"])?;
        let layout = OciLayout::new(&absolute(&source)?);
        let source = CacheSource::Image(ImageName::Layout(layout, image));
        Ok(Self { source, insecure: false })
    }
}

impl std::fmt::Display for CacheFrom {
    /// As people read it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.source {
            CacheSource::Image(ImageName::Layout(layout, _)) => {
                write!(f, "local:{}", layout.folder().display())
            }
            CacheSource::Image(ImageName::Reference(reference)) => {
                f.write_str(&reference.familiar())
            }
            CacheSource::S3(spec) => spec.fmt(f),
        }
    }
}

impl CacheTo {
    /// The same, compressed like this where it does not say how, and has no media types that forbid it.
    pub(crate) fn with_compression(self, otherwise: Option<Compression>) -> Self {
        let is_oci = Some(self.types == DocumentTypes::Oci);
        let fit = otherwise.filter(|kind| oci_types(Some(*kind), is_oci).is_ok());
        Self { compression: self.compression.or(fit), ..self }
    }

    /// Parses `type=local,dest=FOLDER[,key=value...]`, `type=registry,ref=NAME[,key=value...]`, `type=s3,bucket=NAME[,key=value..]` or a
    /// bare name. An error repeats no secret.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        Self::parse_fields(text).map_err(|error| hide_secrets(&error))
    }

    fn parse_fields(text: &str) -> Result<Self, String> {
        const KNOWN: [&str; 15] = [
            "ref",
            INSECURE,
            "dest",
            "tag",
            "reset",
            "mode",
            "on-failure",
            "ignore-error",
            "compression",
            "compression-level",
            "force-compression",
            "oci-mediatypes",
            "image-manifest",
            "mounts",
            "mounts-max",
        ];
        let (mut fields, kind) = parsed(text, &READ)?;
        let mut insecure = false;
        let destination = match kind.as_str() {
            "inline" => return Self::inline(fields),
            "registry" => {
                insecure = fields.boolean(INSECURE, false)?;
                let reference = reference(&mut fields)?;
                if reference.digest().is_some() {
                    let name = reference.familiar();
                    return Err(format!("`{name}` has a digest: a cache is written under a tag"));
                }
                CacheDestination::Registry(reference)
            }
            "s3" => CacheDestination::S3(Box::new(S3Spec::to_write(&mut fields)?)),
            _ => {
                let folder = absolute(&fields.needed("dest", "FOLDER")?)?;
                let tag = fields.take("tag").unwrap_or_else(|| TAG.to_owned());
                if tag.is_empty() {
                    return Err("`tag` is empty".to_owned());
                }
                let reset = fields.boolean("reset", false)?;
                CacheDestination::Local(CacheLayout { folder, tag, reset })
            }
        };
        let max = match fields.take("mode").as_deref() {
            None | Some("min") => false,
            Some("max") => true,
            Some(other) => return Err(format!("mode is min or max, not `{other}`")),
        };
        let on_failure = fields.boolean("on-failure", true)?;
        let ignore_error = fields.boolean("ignore-error", false)?;
        let level = fields.number("compression-level")?;
        let existing = match fields.boolean("force-compression", false)? {
            false => ExistingBlobs::Keep,
            true if level.is_some() => ExistingBlobs::All,
            true => ExistingBlobs::OtherFormats,
        };
        let compression = told_compression(&mut fields, level)?;
        if matches!(destination, CacheDestination::S3(_)) {
            let form = ["oci-mediatypes", "image-manifest"];
            if let Some(key) = form.iter().find(|key| !fields.is_missing(key)) {
                return Err(format!("there is no `{key}` with type=s3: a bucket has no manifests"));
            }
        }
        let oci = oci_types(compression, fields.switch("oci-mediatypes")?)?.unwrap_or(true);
        let image_manifest = fields.boolean("image-manifest", oci)?;
        if image_manifest && !oci {
            return Err("image-manifest=true needs oci-mediatypes=true".to_owned());
        }
        if !image_manifest && matches!(destination, CacheDestination::Registry(_)) {
            let message = "type=registry has the form of an image only: image-manifest=false and oci-mediatypes=false are \
                           not supported yet";
            return Err(message.to_owned());
        }
        let mounts = mounts(&mut fields)?;
        fields.end(&[&KNOWN[..], &S3_ATTRIBUTES, &S3_WRITE_ATTRIBUTES].concat())?;
        Ok(Self {
            mounts,
            insecure,
            destination,
            max,
            on_failure,
            ignore_error,
            compression,
            existing,
            types: if oci { DocumentTypes::Oci } else { DocumentTypes::Docker },
            image_manifest,
        })
    }

    /// What the image has for a cache is written as the image is.
    fn inline(mut fields: Fields) -> Result<Self, String> {
        if let Some(mode) = fields.take("mode").filter(|mode| mode != "min") {
            return Err(format!(
                "type=inline has the layers of the image only, so there is no mode={mode}"
            ));
        }
        fields.end(&["mode"])?;
        Ok(Self {
            destination: CacheDestination::Inline,
            insecure: false,
            max: false,
            on_failure: false,
            ignore_error: false,
            compression: None,
            existing: ExistingBlobs::Keep,
            types: DocumentTypes::Oci,
            image_manifest: true,
            mounts: None,
        })
    }
}

/// A path that means the same from everywhere: it is remembered as the place to fetch from.
fn absolute(path: &str) -> Result<PathBuf, String> {
    std::path::absolute(Path::new(path)).map_err(|error| format!("`{path}`: {error}"))
}

/// The type of a cache; a bare name is one at a registry.
fn parsed(text: &str, known: &[&str]) -> Result<(Fields, String), String> {
    let given = with_lists(csv_fields(text)?);
    if let [reference] = given.as_slice()
        && !reference.contains('=')
    {
        let mut fields = Fields::default();
        fields.add("ref", reference)?;
        return Ok((fields, "registry".to_owned()));
    }
    let mut fields = Fields::of(&given)?;
    let kind = fields.take("type");
    let kind = kind.ok_or_else(|| format!("type is required, such as type={}", known[0]))?;
    if known.contains(&kind.as_str()) {
        return Ok((fields, kind));
    }
    if OTHERS.contains(&kind.as_str()) {
        return Err(format!(
            "type={kind} is not supported yet: use type=registry with a name beside the image's, or type=local with a folder \
             that the CI system keeps"
        ));
    }
    Err(with_nearest(format!("unknown type `{kind}`: {}", known.join(", ")), &kind, known))
}

/// Puts lists together again, of which there is one: what is no `key=value` belongs to the `mounts` before it.
fn with_lists(given: Vec<String>) -> Vec<String> {
    let mut joined: Vec<String> = Vec::new();
    for field in given {
        match joined.last_mut() {
            Some(list) if list.starts_with("mounts=") && !field.contains('=') => {
                list.extend([",", &field]);
            }
            _ => joined.push(field),
        }
    }
    joined
}

fn mounts(fields: &mut Fields) -> Result<Option<MountsTo>, String> {
    let most = fields.take("mounts-max");
    let Some(list) = fields.take("mounts") else {
        return match most {
            Some(_) => Err("mounts-max needs mounts=ID,.. or mounts=all".to_owned()),
            None => Ok(None),
        };
    };
    let names: Vec<String> = list.split(',').map(str::to_owned).collect();
    if names.iter().any(String::is_empty) {
        return Err(
            "mounts is a list of ids of cache mounts, or all; one of them is empty".to_owned()
        );
    }
    let names = (names != ["all"]).then_some(names);
    let most = most.map_or(Ok(MOST_OF_MOUNTS), |text| {
        let wrong = || format!("mounts-max is a size such as 2GB, not `{text}`");
        // Nothing is known here of a disk that it could be a part of.
        match space(&text, 0).ok().flatten() {
            Some(most) if !text.contains('%') => Ok(most),
            _ => Err(wrong()),
        }
    });
    Ok(Some(MountsTo { names, most: most? }))
}

fn reference(fields: &mut Fields) -> Result<Reference, String> {
    let text = fields.needed("ref", "NAME")?;
    let reference = Reference::parse(&text).map_err(|error| format!("`{text}`: {error}"))?;
    Ok(reference.with_default_tag())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_a_cache() {
        let from = CacheFrom::parse("type=local,src=/c").unwrap();
        let layout = OciLayout::new(Path::new("/c"));
        let latest = LayoutImage::Named("latest".to_owned());
        assert_eq!(from.source, CacheSource::Image(ImageName::Layout(layout, latest)));
        assert_eq!(from.to_string(), "local:/c");
        let to = CacheTo::parse("type=local,dest=/c,mode=max,tag=x,compression=zstd").unwrap();
        let layout = CacheLayout { folder: PathBuf::from("/c"), tag: "x".to_owned(), reset: false };
        assert_eq!(to.destination, CacheDestination::Local(layout));
        assert_eq!(to.compression, Some(Compression::Zstd { level: 3 }));
        assert!(to.max && to.on_failure && to.image_manifest && !to.ignore_error);
        let bare = CacheTo::parse("localhost:5000/a").unwrap();
        assert_eq!(bare, CacheTo::parse("type=registry,ref=localhost:5000/a:latest").unwrap());
        let from = CacheFrom::parse("localhost:5000/a").unwrap();
        assert_eq!(from.to_string(), "localhost:5000/a:latest");
        let mounts = |text: &str| CacheTo::parse(text).unwrap().mounts;
        let names = vec!["cargo".to_owned(), "/root/.npm".to_owned()];
        let some = Some(MountsTo { names: Some(names), most: 2_000_000_000 });
        assert_eq!(mounts("type=local,mounts=cargo,/root/.npm,dest=/c"), some);
        assert_eq!(mounts("type=local,dest=/c,\"mounts=cargo,/root/.npm\""), some);
        let all = Some(MountsTo { names: None, most: 5_000_000 });
        assert_eq!(mounts("type=local,dest=/c,mounts=all,mounts-max=5MB"), all);
        let insecure = "type=registry,ref=localhost:5000/a,registry.insecure=true";
        assert!(CacheTo::parse(insecure).unwrap().insecure);
        assert!(CacheFrom::parse(insecure).unwrap().insecure);
        let to = CacheTo::parse("type=local,dest=/c,oci-mediatypes=false").unwrap();
        assert!(!to.image_manifest);
        let s3 =
            "type=s3,bucket=b,region=r,name=main;feature/x,access_key_id=A,secret_access_key=B";
        assert_eq!(CacheFrom::parse(s3).unwrap().to_string(), "s3:b/manifests/main;feature/x");
        let to = CacheTo::parse(&format!("{s3},mode=max,compression=zstd,mounts=all")).unwrap();
        assert!(to.max && to.mounts.is_some() && matches!(to.destination, CacheDestination::S3(_)));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, expected) in [
            ("type=inline,mode=max", "there is no mode=max"),
            ("type=inline,ref=a", "there is no attribute `ref`"),
            ("type=local", "dest=FOLDER is needed"),
            ("dest=/c", "type is required"),
            ("type=loca,dest=/c", "did you mean `local`?"),
            ("type=gha", "type=gha is not supported yet: use type=registry"),
            ("type=azblob,name=x", "type=azblob is not supported yet: use type=registry"),
            (
                "type=local,dest=/c,registry.insecure=true",
                "there is no attribute `registry.insecure`",
            ),
            ("type=local,dest=/c,mod=max", "no attribute `mod`; did you mean `mode`?"),
            ("type=local,dest=/c,ignore_error=true", "did you mean `ignore-error`?"),
            ("type=local,dest=/c,bucket=x", "there is no attribute `bucket`"),
            ("type=local,dest=/c,mode=most", "mode is min or max"),
            ("type=local,dest=/c,reset=maybe", "`reset` is true or false"),
            ("type=local,dest=/c,dest=/d", "`dest` is given twice"),
            ("type=local,dest=/c,tag=", "`tag` is empty"),
            ("type=local,dest=/c,image-manifest=true,oci-mediatypes=false", "needs oci-media"),
            ("type=local,dest=/c,compression=lzma", "compression `lzma` is not supported"),
            ("type=local,dest=/c,x", "not of the form key=value"),
            ("type=registry,ref=a,image-manifest=false", "has the form of an image only"),
            ("type=local,dest=/c,mounts=", "one of them is empty"),
            ("type=local,dest=/c,mounts=a,,b", "one of them is empty"),
            ("type=local,dest=/c,mounts=a,mounts-max=much", "a size such as 2GB, not `much`"),
            ("type=local,dest=/c,mounts=a,mounts-max=20%", "a size such as 2GB, not `20%`"),
            ("type=local,dest=/c,mounts-max=1GB", "mounts-max needs mounts="),
            ("type=inline,mounts=all", "there is no attribute `mounts`"),
            ("type=registry,ref=a,tag=b", "there is no attribute `tag`"),
            ("type=registry,ref=a,bucket=b", "there is no attribute `bucket`"),
            ("type=s3,ref=a", "there is no attribute `ref`"),
            ("type=s3,buckt=a", "no attribute `buckt`; did you mean `bucket`?"),
            ("type=s3,endpoint-url=http://x", "did you mean `endpoint_url`?"),
            ("type=s3,endpoint_url=minio:9000", "an address such as https://"),
            ("type=s3,name=", "one of them is empty"),
            ("type=s3,name=a;;b", "one of them is empty"),
            ("type=s3,bucket=", "`bucket` is empty"),
            ("type=s3,prefix=../", "without `.` and `..`"),
            ("type=s3,access_key_id=A", "belong together"),
            ("type=s3,session_token=A", "belong together"),
            ("type=s3,upload_parallelism=0", "a number from 1 to 64, not 0"),
            ("type=s3,retry_max_attempts=x", "`retry_max_attempts` is a number"),
            ("type=s3,retry_mode=adaptive", "retry_mode=adaptive is not supported"),
            ("type=s3,touch_refresh=day", "a time such as 24h, not `day`"),
            ("type=s3,use_path_style=yes", "`use_path_style` is true or false"),
            ("type=s3,image-manifest=true", "a bucket has no manifests"),
            ("type=s4", "did you mean `s3`?"),
        ] {
            let error = CacheTo::parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        for (text, expected) in [
            ("type=local", "src=FOLDER is needed"),
            ("type=local,src=/c,dest=/c", "there is no attribute `dest`"),
            ("type=local,src=/c,digest=x", "digest: "),
            ("type=registry", "ref=NAME is needed"),
            ("type=inline", "is read with type=registry,ref=IMAGE"),
            ("UPPER", "`UPPER`: "),
            ("type=s3,bucket=b,touch_refresh=1h", "an attribute of --cache-to"),
            ("type=s3,bucket=b,mode=max", "there is no attribute `mode`"),
            ("type=s3,\"secret_access_key=x", "secret_access_key=***"),
            ("type=registry,ref=a,src=/c", "there is no attribute `src`"),
        ] {
            let error = CacheFrom::parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
