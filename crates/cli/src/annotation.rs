//! `--annotation`, and `annotation.KEY` of `--output`: notes in the documents of an image (section 4.1 of the behaviour reference).

use std::collections::BTreeMap;

use rbuild_oci::Platform;

/// Which document, or which entry of one, gets an annotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnnotationKind {
    /// The manifest of an image.
    Manifest,
    /// What describes it: its entry in an index, or in that of an archive.
    ManifestDescriptor,
    /// The index.
    Index,
    /// What describes that: its entry in the index of an archive.
    IndexDescriptor,
}

/// An annotation, and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Annotation {
    pub(crate) kind: AnnotationKind,
    /// For which platform; all if missing.
    pub(crate) platform: Option<Platform>,
    key: String,
    value: String,
}

impl Annotation {
    /// Parses `[TYPE[PLATFORM],..:]KEY=VALUE`, with the type that counts where none is said; one for each type.
    pub(crate) fn parse(text: &str, default: AnnotationKind) -> Result<Vec<Self>, String> {
        let wrong = |why: String| format!("invalid annotation `{text}`: {why}");
        let Some((key, value)) = text.split_once('=') else {
            return Err(wrong("expected KEY=VALUE".to_owned()));
        };
        let (types, key) = match key.split_once(':') {
            None => (vec![(default, None)], key),
            Some((types, key)) => {
                let types = types.split(',').map(kind_and_platform).collect::<Result<_, _>>();
                (types.map_err(wrong)?, key)
            }
        };
        if key.is_empty() {
            return Err(wrong("it has no key".to_owned()));
        }
        let of = |(kind, platform)| Self {
            kind,
            platform,
            key: key.to_owned(),
            value: value.to_owned(),
        };
        Ok(types.into_iter().map(of).collect())
    }

    /// Parses an attribute `annotation[-TYPE][[PLATFORM]].KEY=VALUE`; `None` for one of another name.
    pub(crate) fn of_attribute(field: &str) -> Option<Result<Self, String>> {
        let (name, value) = field.split_once('=')?;
        let place = name.trim().strip_prefix("annotation")?;
        if !place.starts_with(['-', '[', '.']) {
            return None;
        }
        let annotation = || {
            let (place, key) = place.split_once('.').unwrap_or((place, ""));
            if key.is_empty() || key.contains(char::is_whitespace) {
                return Err("it is `annotation.KEY`, or `annotation-TYPE[PLATFORM].KEY`".to_owned());
            }
            // The type is a word of its own only behind a dash.
            let (kind, platform) = match place.strip_prefix('-') {
                Some(kind) if kind.is_empty() || kind.starts_with('[') => {
                    return Err("a `-` without a type".to_owned());
                }
                Some(kind) => kind_and_platform(kind)?,
                None => kind_and_platform(place)?,
            };
            Ok(Self { kind, platform, key: key.to_owned(), value: value.to_owned() })
        };
        Some(annotation().map_err(|why| format!("invalid attribute `{}`: {why}", name.trim())))
    }
}

/// `manifest-descriptor[linux/arm64]`
fn kind_and_platform(text: &str) -> Result<(AnnotationKind, Option<Platform>), String> {
    let (name, platform) = match text.split_once('[') {
        None => (text, None),
        Some((name, rest)) => {
            let platform = rest.strip_suffix(']').ok_or("a `[` without a `]`")?;
            (name, Some(platform.parse::<Platform>().map_err(|error| error.to_string())?))
        }
    };
    let kind = match name {
        "manifest" | "" => AnnotationKind::Manifest,
        "manifest-descriptor" => AnnotationKind::ManifestDescriptor,
        "index" => AnnotationKind::Index,
        "index-descriptor" => AnnotationKind::IndexDescriptor,
        other => return Err(format!("unknown annotation type `{other}`")),
    };
    if kind.is_of_index() && platform.is_some() {
        return Err("an index is for all platforms".to_owned());
    }
    Ok((kind, platform))
}

impl AnnotationKind {
    /// Whether there is none where there is no index.
    pub(crate) fn is_of_index(self) -> bool {
        matches!(self, Self::Index | Self::IndexDescriptor)
    }
}

/// The annotations of one place; the last of a key counts.
pub(crate) fn annotations_of(
    all: &[Annotation],
    kind: AnnotationKind,
    platform: Option<&Platform>,
) -> BTreeMap<String, String> {
    let is_for = |annotation: &&Annotation| {
        annotation.kind == kind
            && annotation.platform.as_ref().is_none_or(|wanted| Some(wanted) == platform)
    };
    let pair = |annotation: &Annotation| (annotation.key.clone(), annotation.value.clone());
    all.iter().filter(is_for).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_places_of_annotations() {
        let texts = [
            "a=1",
            "manifest[linux/arm64]:a=2",
            "index,manifest-descriptor[linux/amd64]:org.b=x=y",
            "index-descriptor:c=",
        ];
        let parse = |text: &&str| Annotation::parse(text, AnnotationKind::Manifest).unwrap();
        let all: Vec<Annotation> = texts.iter().flat_map(parse).collect();
        let of = |kind, platform: &str| {
            let platform = platform.parse().ok();
            let found = annotations_of(&all, kind, platform.as_ref());
            found.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(of(AnnotationKind::Manifest, "linux/amd64"), "a=1");
        assert_eq!(of(AnnotationKind::Manifest, "linux/arm64"), "a=2");
        assert_eq!(of(AnnotationKind::ManifestDescriptor, "linux/amd64"), "org.b=x=y");
        assert_eq!(of(AnnotationKind::ManifestDescriptor, "linux/arm64"), "");
        assert_eq!(of(AnnotationKind::Index, ""), "org.b=x=y");
        assert_eq!(of(AnnotationKind::IndexDescriptor, ""), "c=");
    }

    #[test]
    fn attributes_of_outputs() {
        let parse = |text| Annotation::of_attribute(text).unwrap();
        for (attribute, same) in [
            ("annotation.org.x.Title=a,b=c", "org.x.Title=a,b=c"),
            ("annotation[linux/arm/v7].a=1", "manifest[linux/arm/v7]:a=1"),
            ("annotation-manifest.a=", "manifest:a="),
            ("annotation-manifest[linux/amd64].a=1", "manifest[linux/amd64]:a=1"),
            ("annotation-manifest-descriptor.a.b=1", "manifest-descriptor:a.b=1"),
            ("annotation-index.a=1", "index:a=1"),
            ("annotation-index-descriptor.a=1", "index-descriptor:a=1"),
        ] {
            let same = Annotation::parse(same, AnnotationKind::Manifest).unwrap();
            assert_eq!([parse(attribute).unwrap()], same[..], "{attribute}");
        }
        for (attribute, part) in [
            ("annotation.=b", "it is `annotation.KEY`"),
            ("annotation-index=b", "invalid attribute `annotation-index`: it is"),
            ("annotation.a b=c", "it is `annotation.KEY`"),
            ("annotation-.a=b", "a `-` without a type"),
            ("annotation-layer.a=b", "unknown annotation type `layer`"),
            ("annotation[linux/amd64.a=b", "a `[` without a `]`"),
            ("annotation-index[linux/amd64].a=b", "an index is for all platforms"),
        ] {
            let error = parse(attribute).unwrap_err();
            assert!(error.contains(part), "{attribute}: {error}");
        }
        assert_eq!(Annotation::of_attribute("annotations=x"), None);
        assert_eq!(Annotation::of_attribute("dest=annotation.a"), None);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, reason) in [
            ("a", "expected KEY=VALUE"),
            ("=b", "it has no key"),
            ("nope:a=b", "unknown annotation type `nope`"),
            ("manifest[x:a=b", "a `[` without a `]`"),
            ("manifest[nonsense]:a=b", "platform `nonsense`"),
            ("index[linux/amd64]:a=b", "an index is for all platforms"),
        ] {
            let error = Annotation::parse(text, AnnotationKind::Manifest).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
