//! What a name that is no stage's stands for.

use std::collections::HashMap;
use std::sync::Arc;

use rbuild_oci::{Platform, Reference};

use crate::build::{BuildOptions, NamedContext};
use crate::diagnostic::Diagnostic;
use crate::images::{ImageLocation, ImageQuery};
use crate::source::Span;

/// Where the files of a stage or a copy come from.
#[derive(Debug, Clone)]
pub(crate) enum Origin {
    /// Nothing.
    Scratch,
    /// A stage of the file.
    Stage(usize),
    /// An image. Shared, because any number of copies can mean one by its number.
    Image(Arc<ImageUse>),
    /// A named context that is a folder, or that is fetched.
    Local(String),
}

/// An image and how it came to be meant.
#[derive(Debug, Clone)]
pub(crate) struct ImageUse {
    pub(crate) query: ImageQuery,
    /// The name as written, after expansion.
    pub(crate) written: String,
    /// The named context that stands in for the name, if one does.
    pub(crate) context: Option<String>,
}

/// Tells what names stand for: named contexts come before images.
#[derive(Debug)]
pub(crate) struct Origins<'a> {
    /// By familiar name without `:latest`, perhaps with `::platform`.
    contexts: HashMap<String, (&'a str, &'a NamedContext)>,
}

impl<'a> Origins<'a> {
    pub(crate) fn new(options: &'a BuildOptions) -> Self {
        let contexts = options.contexts.iter().map(|(name, context)| {
            let (base, platform) = match name.split_once("::") {
                Some((base, platform)) => (base, format!("::{platform}")),
                None => (name.as_str(), String::new()),
            };
            let key = Reference::parse(base).map_or_else(|_| base.to_owned(), |base| key(&base));
            (key + &platform, (name.as_str(), context))
        });
        Self { contexts: contexts.collect() }
    }

    /// The named context that replaces a stage or an image of this name.
    pub(crate) fn context(&self, name: &str, platform: &Platform, span: Span) -> Option<Origin> {
        let (context, value) = self.find(name, platform)?;
        let location = match value {
            // Who knows the stages asks for it by `target`.
            NamedContext::Stage(_) => return None,
            NamedContext::Scratch => return Some(Origin::Scratch),
            NamedContext::Local { .. } | NamedContext::Remote(_) => {
                return Some(Origin::Local((*context).to_owned()));
            }
            NamedContext::Image(reference) => ImageLocation::Registry(reference.with_default_tag()),
            NamedContext::OciLayout(layout) => {
                ImageLocation::OciLayout { context: (*context).to_owned(), layout: layout.clone() }
            }
        };
        Some(Origin::Image(Arc::new(ImageUse {
            query: ImageQuery { location, platform: platform.clone(), span },
            written: name.to_owned(),
            context: Some((*context).to_owned()),
        })))
    }

    /// The stage that a named context puts in the place of this name.
    pub(crate) fn target(&self, name: &str, platform: &Platform) -> Option<&'a str> {
        match self.find(name, platform)? {
            (_, NamedContext::Stage(stage)) => Some(stage),
            _ => None,
        }
    }

    fn find(&self, name: &str, platform: &Platform) -> Option<(&'a str, &'a NamedContext)> {
        if self.contexts.is_empty() {
            return None;
        }
        if ["scratch", "context"].iter().any(|reserved| name.eq_ignore_ascii_case(reserved)) {
            return None;
        }
        let key = key(&Reference::parse(name).ok()?);
        let with_platform = format!("{key}::{}", platform.clone().normalize().full_name());
        self.contexts.get(&with_platform).or_else(|| self.contexts.get(&key)).copied()
    }

    /// What a name that is no stage's stands for.
    pub(crate) fn external(
        &self,
        name: &str,
        platform: &Platform,
        span: Span,
    ) -> Result<Origin, Box<Diagnostic>> {
        if name == "scratch" {
            return Ok(Origin::Scratch);
        }
        if let Some(origin) = self.context(name, platform, span) {
            return Ok(origin);
        }
        let reference = Reference::parse(name).map_err(|error| {
            let message = format!("failed to parse stage name {name:?}: {error}");
            Box::new(Diagnostic::error("image-reference", span, message))
        })?;
        let location = ImageLocation::Registry(reference.with_default_tag());
        let query = ImageQuery { location, platform: platform.clone(), span };
        Ok(Origin::Image(Arc::new(ImageUse { query, written: name.to_owned(), context: None })))
    }
}

fn key(reference: &Reference) -> String {
    let familiar = reference.familiar();
    familiar.strip_suffix(":latest").unwrap_or(&familiar).to_owned()
}
