//! What a Dockerfile can be asked to build, and what it can be given.

use std::collections::HashSet;

use crate::diagnostic::MAX_WARNINGS;
use crate::dockerfile::ast::{Argument, Dockerfile, Instruction, Statement};
use crate::source::Span;
use crate::suggest::nearest;

/// What the build of a target can be given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outline {
    /// The target's name, if it has one.
    pub name: Option<String>,
    /// What the comment above it says.
    pub description: Option<String>,
    /// Its build arguments, each once, in the order of the text.
    pub arguments: Vec<OutlineArgument>,
    /// The secrets that its steps mount.
    pub secrets: Vec<OutlineMount>,
    /// The SSH agents that its steps mount.
    pub agents: Vec<OutlineMount>,
    /// The caches that its steps mount; none of them is required.
    pub caches: Vec<OutlineMount>,
}

/// A build argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlineArgument {
    /// Its name.
    pub name: String,
    /// Its value: as given, or the default.
    pub value: Option<String>,
    /// What the comment above it says.
    pub description: Option<String>,
    /// The instruction that declares it.
    pub span: Span,
}

/// Something that steps mount by a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlineMount {
    /// The name.
    pub id: String,
    /// Whether a step fails without it.
    pub required: bool,
    /// The instruction that mounts it first.
    pub span: Span,
}

/// A stage that can be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// What the comment above it says.
    pub description: Option<String>,
    /// What it stands on, as written.
    pub base: String,
    /// The platform that its FROM names, as written.
    pub platform: Option<String>,
    /// Whether it is built when nobody names one.
    pub is_default: bool,
    /// Its FROM.
    pub span: Span,
}

/// The stages of a file, in order.
pub fn targets(dockerfile: &Dockerfile) -> Vec<Target> {
    let mut targets: Vec<Target> = dockerfile
        .statements
        .iter()
        .filter_map(|statement| match &statement.instruction {
            Instruction::From(from) => {
                let name = from.alias.as_ref().map(|alias| alias.name.clone());
                Some(Target {
                    description: name.as_deref().and_then(|name| description(statement, name)),
                    name,
                    base: from.image.text().to_owned(),
                    platform: from.platform.as_ref().map(|platform| platform.text().to_owned()),
                    is_default: false,
                    span: statement.span,
                })
            }
            _ => None,
        })
        .collect();
    if let Some(last) = targets.last_mut() {
        last.is_default = true;
    }
    targets
}

/// The stage that was probably meant by a name which is that of no stage, and is taken for an image's.
pub fn similar_stage<'a>(dockerfile: &'a Dockerfile, name: &str) -> Option<&'a str> {
    let names = dockerfile.statements.iter().filter_map(|statement| match &statement.instruction {
        Instruction::From(from) => from.alias.as_ref().map(|alias| alias.name.as_str()),
        _ => None,
    });
    nearest(name, names.take(MAX_WARNINGS))
}

/// The image that everybody knows which `name`, that cannot be had, was perhaps meant to be.
pub fn similar_image(name: &str) -> Option<&'static str> {
    let name = name.split(':').next().unwrap_or(name);
    nearest(name, ["alpine", "busybox", "centos", "debian", "fedora", "golang", "ubuntu"])
}

/// What a comment line right above a statement says of `name`: the line that begins with it.
pub(crate) fn description(statement: &Statement, name: &str) -> Option<String> {
    let after = |line: &str| Some(line.strip_prefix(name)?.strip_prefix(' ')?.to_owned());
    statement.comments.iter().find_map(|line| after(line.text()))
}

impl Outline {
    /// Notes an argument.
    pub(crate) fn add_argument(
        &mut self,
        statement: &Statement,
        argument: &Argument,
        value: Option<&str>,
        span: Span,
    ) {
        let name = argument.name.text();
        self.arguments.push(OutlineArgument {
            name: name.to_owned(),
            value: value.map(str::to_owned),
            description: description(statement, name),
            span,
        });
    }

    /// Puts all in the order of the text, each name once.
    pub(crate) fn finish(mut self) -> Self {
        let mut seen = HashSet::new();
        self.arguments.sort_by_key(|argument| argument.span);
        self.arguments.retain(|argument| seen.insert(argument.name.clone()));
        for mounts in [&mut self.secrets, &mut self.agents, &mut self.caches] {
            let mut seen = HashSet::new();
            mounts.sort_by_key(|mount| mount.span);
            // Whoever needs it once needs it.
            let required: HashSet<String> = mounts
                .iter()
                .filter(|mount| mount.required)
                .map(|mount| mount.id.clone())
                .collect();
            mounts.retain(|mount| seen.insert(mount.id.clone()));
            for mount in mounts {
                mount.required = required.contains(&mount.id);
            }
        }
        self
    }
}
