//! `SOURCE_DATE_EPOCH`: a number, or the time of something that is fetched.

use crate::args;
use crate::build::{BuildOptions, NamedContext, RemoteContext};
use crate::diagnostic::Diagnostic;
use crate::dockerfile::ast::{Add, Dockerfile, From, Instruction, Statement};
use crate::dockerfile::mapped::Mapped;
use crate::environment::Environment;
use crate::lower::{Remote, remote};
use crate::shell::Shell;
use crate::source::Span;
use crate::stage::{global_arguments, last_stage_name};

/// The argument.
pub(crate) const NAME: &str = "SOURCE_DATE_EPOCH";

/// What the argument says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Epoch {
    /// A number of seconds since 1970.
    Seconds(i64),
    /// The time of something that is fetched, with a name for it.
    Of(Box<EpochSource>),
    /// That of something that has no time, or none is asked for.
    None,
}

/// Something that is fetched, for its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochSource {
    /// What the Dockerfile or the command line calls it.
    pub name: String,
    /// Where it comes from.
    pub context: RemoteContext,
}

/// What has to be fetched to know the epoch of a build; its time belongs into [`BuildOptions::epoch_time`].
///
/// `None` if there is nothing to fetch. What is wrong with the argument [`lower`](crate::lower()) says.
pub fn epoch_source(dockerfile: &Dockerfile, options: &BuildOptions) -> Option<EpochSource> {
    let statements = &dockerfile.statements;
    let shell = Shell::new(dockerfile.directives.escape);
    let target = options.target.as_deref().or_else(|| last_stage_name(statements));
    let predefined = args::predefined(options, target);
    let globals =
        global_arguments(statements, &predefined, &options.build_args, shell, &mut Vec::new());
    match read(statements, options, &globals, shell) {
        Ok(Epoch::Of(source)) => Some(*source),
        _ => None,
    }
}

/// Reads the argument, which is a build argument or a global one.
pub(crate) fn read(
    statements: &[Statement],
    options: &BuildOptions,
    globals: &Environment,
    shell: Shell,
) -> Result<Epoch, Box<Diagnostic>> {
    let given = options.build_args.get(NAME).map(String::as_str);
    let value = given.or_else(|| globals.get(NAME)).unwrap_or_default();
    if value.is_empty() {
        return Ok(Epoch::None);
    }
    if let Ok(seconds) = value.parse() {
        return Ok(Epoch::Seconds(seconds));
    }
    let of = |context: &RemoteContext| {
        Epoch::Of(Box::new(EpochSource { name: value.to_owned(), context: context.clone() }))
    };
    if value == "context" {
        // A folder has no time of its own.
        return Ok(options.context.as_ref().map_or(Epoch::None, of));
    }
    match options.contexts.get(value) {
        Some(NamedContext::Remote(context)) => return Ok(of(context)),
        Some(_) => return Ok(Epoch::None),
        None => {}
    }
    let stage = Stage::find(statements, value).ok_or_else(|| {
        let message = format!("invalid SOURCE_DATE_EPOCH: {value}");
        let help = "it is a number of seconds since 1970, `context`, or the name of a context or of a stage that only adds one thing by its address";
        Box::new(Diagnostic::error("source-date-epoch", Span::at(0), message).with_help(help))
    })?;
    let mut environment = globals.clone();
    environment.remove(NAME);
    Ok(of(&stage.source(options, environment, shell)?))
}

/// A stage that stands for what it adds.
struct Stage<'a> {
    from: &'a From,
    statement: &'a Statement,
    body: &'a [Statement],
}

impl<'a> Stage<'a> {
    /// The first stage of that name.
    fn find(statements: &'a [Statement], name: &str) -> Option<Self> {
        let named = |statement: &'a Statement| match &statement.instruction {
            Instruction::From(from) => {
                let alias = from.alias.as_ref()?;
                alias.name.eq_ignore_ascii_case(name).then_some((statement, from))
            }
            _ => None,
        };
        let (at, (statement, from)) =
            statements.iter().enumerate().find_map(|(at, one)| Some((at, named(one)?)))?;
        let body = &statements[at + 1..];
        let is_from = |statement: &Statement| matches!(statement.instruction, Instruction::From(_));
        let end = body.iter().position(is_from).unwrap_or(body.len());
        Some(Self { from, statement, body: &body[..end] })
    }

    /// The one thing that it adds: it may have ARGs besides, and nothing else.
    fn source(
        &self,
        options: &BuildOptions,
        mut environment: Environment,
        shell: Shell,
    ) -> Result<RemoteContext, Box<Diagnostic>> {
        if expand(shell, &self.from.image, &environment)? != "scratch" {
            let message = "SOURCE_DATE_EPOCH stage must use FROM scratch";
            return Err(error(self.from.image.span(), message));
        }
        let mut found = None;
        for statement in self.body {
            match &statement.instruction {
                Instruction::Arg(arguments) => {
                    for argument in arguments {
                        let name = argument.name.text();
                        if let Some(given) = options.build_args.get(name) {
                            environment.set(name, given);
                        } else if let Some(default) = &argument.default {
                            let value = expand(shell, default, &environment)?;
                            environment.set(name, &value);
                        }
                    }
                }
                Instruction::Add(add) if found.is_none() => {
                    found = Some(added(statement, add, &environment, shell)?);
                }
                Instruction::Add(_) => {
                    let message = "SOURCE_DATE_EPOCH stage must contain exactly one remote ADD";
                    return Err(error(statement.original.span(), message));
                }
                _ => {
                    let message = format!(
                        "SOURCE_DATE_EPOCH stage does not meet source-only requirements: unsupported {} instruction",
                        statement.keyword.text().to_uppercase()
                    );
                    return Err(error(statement.original.span(), message));
                }
            }
        }
        found.ok_or_else(|| {
            let message = "SOURCE_DATE_EPOCH stage must contain exactly one remote ADD";
            error(self.statement.original.span(), message)
        })
    }
}

/// What an ADD fetches.
fn added(
    statement: &Statement,
    add: &Add,
    environment: &Environment,
    shell: Shell,
) -> Result<RemoteContext, Box<Diagnostic>> {
    let ([written], []) = (add.transfer.sources.as_slice(), add.transfer.inline.as_slice()) else {
        let message = "SOURCE_DATE_EPOCH stage must contain exactly one remote ADD source";
        return Err(error(statement.original.span(), message));
    };
    let source = expand(shell, written, environment)?;
    let checksum = match &add.checksum {
        Some(checksum) => Some(expand(shell, checksum, environment)?),
        None => None,
    };
    match remote(&source) {
        Ok(Some(Remote::Http { .. })) => {
            let mut context = RemoteContext::http(&source, false);
            if let Some(checksum) = checksum {
                context.source.attrs.insert("http.checksum".to_owned(), checksum);
            }
            Ok(context)
        }
        Ok(Some(Remote::Git(mut url))) => {
            url.keep_git_dir = add.keep_git_dir.map(|keep| keep.value).or(url.keep_git_dir);
            url.checksum = checksum.or(url.checksum);
            Ok(RemoteContext::git(&url))
        }
        Ok(None) => {
            let message = "SOURCE_DATE_EPOCH stage source must be a single HTTP(S) or Git ADD";
            Err(error(written.span(), message))
        }
        Err(reason) => Err(error(written.span(), format!("failed to parse git ref: {reason}"))),
    }
}

fn expand(
    shell: Shell,
    text: &Mapped,
    environment: &Environment,
) -> Result<String, Box<Diagnostic>> {
    let expanded = shell.expand(text.text(), environment);
    expanded.map(|expansion| expansion.value).map_err(|error| {
        let span = text.span_of(error.range.clone());
        Box::new(Diagnostic::error("expansion", span, error.to_string()))
    })
}

fn error(span: Span, message: impl Into<std::borrow::Cow<'static, str>>) -> Box<Diagnostic> {
    Box::new(Diagnostic::error("source-date-epoch", span, message))
}
