//! Lowering a text with images that a test makes up.

use std::collections::BTreeMap;

use rbuild_frontend::{
    Build, BuildOptions, Diagnostic, ImageLocation, ImageQuery, ImageSet, Outcome, ResolvedImage,
    Source, lower, parse,
};
use rbuild_oci::{DiffId, Digest, ImageConfig, Platform};
use rbuild_solver::SourceOp;
use serde_json::Value;

use super::dump;

/// The platform that tests build on.
pub(crate) fn amd64() -> Platform {
    Platform::new("linux", "amd64", "")
}

/// No options.
pub(crate) fn options() -> BuildOptions {
    BuildOptions::new(amd64())
}

/// Options with build arguments.
pub(crate) fn with_args(args: &[(&str, &str)]) -> BuildOptions {
    let args = args.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    BuildOptions { build_args: args.collect(), ..options() }
}

/// The images that are there, by repository and tag as written.
#[derive(Debug, Default)]
pub(crate) struct Images {
    configs: BTreeMap<String, ImageConfig>,
}

impl Images {
    /// `base`, which is like any small image.
    pub(crate) fn new() -> Self {
        Self::default().with("base", r#"{"config":{"Env":["PATH=/bin","BASE=1"],"Cmd":["sh"]}}"#)
    }

    /// An image with more; it is for linux/amd64 and has one layer unless it says otherwise.
    pub(crate) fn with(mut self, name: &str, config: &str) -> Self {
        let given: Value = serde_json::from_str(config).unwrap();
        let mut whole = serde_json::json!({
            "architecture": "amd64",
            "os": "linux",
            "created": "2020-01-01T00:00:00Z",
            "rootfs": {"type": "layers", "diff_ids": [DiffId(Digest::of(name.as_bytes()))]},
            "history": [{"created_by": "base layer"}],
        });
        for (key, value) in given.as_object().unwrap() {
            whole[key] = value.clone();
        }
        self.configs.insert(name.to_owned(), serde_json::from_value(whole).unwrap());
        self
    }

    /// The answers to queries for some of them, by tag `latest` and for the platform that tests build on.
    pub(crate) fn known(&self, names: &[&str]) -> ImageSet {
        let mut known = ImageSet::new();
        for name in names {
            let reference = rbuild_oci::Reference::parse(name).unwrap().with_default_tag();
            let location = ImageLocation::Registry(reference);
            let query =
                ImageQuery { location, platform: amd64(), span: rbuild_frontend::Span::at(0) };
            known.insert(&query, self.find(&query));
        }
        known
    }

    /// What a query finds.
    fn find(&self, query: &ImageQuery) -> ResolvedImage {
        let (name, source) = match &query.location {
            ImageLocation::Registry(reference) => {
                let familiar = reference.familiar();
                let name = familiar.strip_suffix(":latest").unwrap_or(&familiar).to_owned();
                (name, SourceOp::new(format!("docker-image://{reference}@pinned")))
            }
            ImageLocation::OciLayout { context, layout } => {
                (context.clone(), SourceOp::new(format!("oci-layout://{layout}@pinned")))
            }
        };
        let config = self.configs.get(&name).unwrap_or_else(|| panic!("asked for {name}"));
        ResolvedImage { source, config: config.clone() }
    }
}

/// Lowers in rounds; gives what was asked for in each, too.
pub(crate) fn rounds(
    text: &str,
    options: &BuildOptions,
    images: &Images,
) -> (Vec<Vec<String>>, Result<Build, Vec<Diagnostic>>) {
    let source = Source::new("Dockerfile", text).unwrap();
    let dockerfile = parse(&source);
    let mut known = ImageSet::new();
    let mut asked = Vec::new();
    loop {
        let queries = match lower(&dockerfile, options, &known) {
            Ok(Outcome::Ready(build)) => return (asked, Ok(*build)),
            Ok(Outcome::NeedsImages(queries)) => queries,
            Err(diagnostics) => return (asked, Err(diagnostics)),
        };
        assert!(!queries.is_empty(), "a round without a question would never end");
        let show = |query: &ImageQuery| match &query.location {
            ImageLocation::Registry(reference) => format!("{reference} {}", query.platform),
            ImageLocation::OciLayout { context, layout } => format!("{context}={layout}"),
        };
        asked.push(queries.iter().map(show).collect());
        for query in &queries {
            assert!(known.get(query).is_none(), "asked twice for {query:?}");
            known.insert(query, images.find(query));
        }
    }
}

/// Lowers what has no error.
pub(crate) fn build_with(text: &str, options: &BuildOptions, images: &Images) -> Build {
    let (_, result) = rounds(text, options, images);
    result.unwrap_or_else(|diagnostics| panic!("{text}\n{diagnostics:#?}"))
}

/// Lowers what has no error, without options.
pub(crate) fn build(text: &str) -> Build {
    build_with(text, &options(), &Images::new())
}

/// Compares the graph.
pub(crate) fn check_with(text: &str, options: &BuildOptions, expected: &str) {
    let build = build_with(text, options, &Images::new());
    let found = dump::graph(&build);
    let expected: Vec<&str> = expected.lines().skip(1).collect();
    let indent = expected.first().map_or(0, |line| line.len() - line.trim_start().len());
    let expected: String = expected
        .iter()
        .map(|line| line.get(indent..).unwrap_or(line.trim_start()).to_owned() + "\n")
        .collect();
    assert_eq!(found.trim_end(), expected.trim_end(), "\n--- found\n{found}---");
}

/// Compares the graph that is made without options.
pub(crate) fn check(text: &str, expected: &str) {
    check_with(text, &options(), expected);
}

/// The `created_by` of the history, those of empty layers in parentheses.
pub(crate) fn history(build: &Build) -> Vec<String> {
    let entries = build.config.history.iter().skip(build.base_history);
    let show = |entry: &rbuild_oci::History| {
        assert_eq!(entry.comment, "buildkit.dockerfile.v0");
        match entry.empty_layer {
            true => format!("({})", entry.created_by),
            false => entry.created_by.clone(),
        }
    };
    entries.map(show).collect()
}

/// Compares the `config` of the config.
pub(crate) fn check_config(text: &str, expected: Value) {
    let build = build(text);
    assert_eq!(serde_json::to_value(&build.config.config).unwrap(), expected, "{text}");
}

/// Each error or warning with its line and the marked text.
pub(crate) fn messages(text: &str, diagnostics: &[Diagnostic]) -> Vec<String> {
    let source = Source::new("Dockerfile", text).unwrap();
    let show = |diagnostic: &Diagnostic| {
        let marked = source.slice(diagnostic.span).lines().next().unwrap_or_default();
        let line = source.line(diagnostic.span.start);
        match diagnostic.is_error() {
            true => format!("line {line}: {} <{marked}>", diagnostic.message),
            false => {
                format!("{}: {} (line {line}) <{marked}>", diagnostic.code, diagnostic.message)
            }
        }
    };
    diagnostics.iter().map(show).collect()
}

/// Compares the errors.
pub(crate) fn check_errors_with(
    text: &str,
    options: &BuildOptions,
    images: &Images,
    expected: &[&str],
) {
    let (_, result) = rounds(text, options, images);
    let diagnostics = result.err().unwrap_or_else(|| panic!("it has no errors:\n{text}"));
    let errors: Vec<_> = diagnostics.into_iter().filter(Diagnostic::is_error).collect();
    assert_eq!(messages(text, &errors), expected, "{text}");
}

/// Compares the errors that come without options.
pub(crate) fn check_errors(text: &str, expected: &[&str]) {
    check_errors_with(text, &options(), &Images::new(), expected);
}

/// Compares the warnings.
pub(crate) fn check_warnings_with(
    text: &str,
    options: &BuildOptions,
    images: &Images,
    expected: &[&str],
) {
    let build = build_with(text, options, images);
    assert_eq!(messages(text, &build.warnings), expected, "{text}");
}
