//! What a Dockerfile says, instruction by instruction.
//!
//! Words that the build expands later ([`Mapped`]) hold their text as written, with quotes, escapes and variables; the
//! words of a JSON form are decoded, as their quotes are JSON's.

use std::time::Duration;

use super::mapped::Mapped;
use super::mount::MountSpec;
use crate::check::Rule;
use crate::diagnostic::{Diagnostic, Level};
use crate::source::{Source, Span, Spanned};

/// A parsed file. Parsing never fails: what could not be understood is in `diagnostics`.
#[derive(Debug, Clone)]
pub struct Dockerfile {
    /// The `# key=value` lines at the top.
    pub directives: Directives,
    /// Every instruction, in order.
    pub statements: Vec<Statement>,
    /// Errors and warnings in order of the text. Lint warnings are not among them: see [`check`](crate::check()).
    pub diagnostics: Vec<Diagnostic>,
}

impl Dockerfile {
    /// The lines that BuildKit names with a message: those of the instruction that it is about, the last one for an
    /// empty line in it.
    pub fn lines(&self, source: &Source, diagnostic: &Diagnostic) -> (u32, u32) {
        let offset = diagnostic.span.start;
        let after = self.statements.partition_point(|statement| statement.span.start <= offset);
        let statement = after.checked_sub(1).map(|index| &self.statements[index]);
        match statement.filter(|statement| offset < statement.span.end) {
            Some(statement) if diagnostic.code == Rule::NoEmptyContinuation.name() => {
                let last = source.line(statement.original.span().end);
                (last, last)
            }
            Some(statement) => (statement.line, statement.end_line),
            None => (source.line(offset), source.line(offset)),
        }
    }

    /// The one line that BuildKit would print, for people and scripts that search for it:
    /// `dockerfile parse error on line 3: unknown instruction: FOO`, or `StageNameCasing: ... (line 3)`.
    ///
    /// The line of an error is only said of those that an instruction has by itself.
    pub fn compat_message(&self, source: &Source, diagnostic: &Diagnostic) -> String {
        let (line, _) = self.lines(source, diagnostic);
        match diagnostic.level {
            Level::Error if self.is_of_instruction(diagnostic) => {
                format!("dockerfile parse error on line {line}: {}", diagnostic.message)
            }
            Level::Error => diagnostic.message.to_string(),
            Level::Warning => format!("{}: {} (line {line})", diagnostic.code, diagnostic.message),
        }
    }

    /// Whether the parser found it while it read an instruction, rather than in the file as a whole.
    fn is_of_instruction(&self, diagnostic: &Diagnostic) -> bool {
        const OF_FILE: [&str; 10] = [
            "duplicate-directive",
            "empty-file",
            "invalid-escape",
            // BuildKit finds these two while it cuts lines into words, before it reads instructions.
            "invalid-pair",
            "json-form",
            "line-too-long",
            "no-stage",
            "not-utf8",
            "too-many-errors",
            "unterminated-heredoc",
        ];
        !OF_FILE.contains(&diagnostic.code) && self.diagnostics.contains(diagnostic)
    }

    /// Whether there is an error, so that building makes no sense.
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(Diagnostic::is_error)
    }
}

/// The parser directives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directives {
    /// `# syntax=`: the frontend image that should read this file.
    pub syntax: Option<Mapped>,
    /// `# check=`: which lint rules apply.
    pub check: Option<Mapped>,
    /// `# escape=`, by default a backslash.
    pub escape: Escape,
}

/// The character that continues lines and escapes characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Escape {
    /// `\`
    #[default]
    Backslash,
    /// `` ` ``, for Windows paths.
    Backtick,
}

impl Escape {
    /// The character.
    pub fn character(self) -> char {
        match self {
            Self::Backslash => '\\',
            Self::Backtick => '`',
        }
    }
}

/// One instruction and how it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// From its keyword to the end of its last line or heredoc.
    pub span: Span,
    /// The first line, from one.
    pub line: u32,
    /// The last line, the terminator of a heredoc included.
    pub end_line: u32,
    /// The keyword as written.
    pub keyword: Mapped,
    /// The logical line, from the keyword on, as BuildKit shows it in step names and `created_by`: continuation lines
    /// joined without their line breaks and comments but with their leading blanks; without heredoc bodies.
    pub original: Mapped,
    /// The comments right above it, without `#` and blanks around.
    pub comments: Vec<Mapped>,
    /// The blank lines within its continuation lines.
    pub blank_lines: Vec<Span>,
    /// The bodies that follow it, in order.
    pub heredocs: Vec<Heredoc>,
    /// What it says.
    pub instruction: Instruction,
}

/// The instructions of the language.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is documented at its type")]
pub enum Instruction {
    From(From),
    Run(Run),
    Cmd(Command),
    Label(Pairs),
    Maintainer(Mapped),
    Expose(Vec<Mapped>),
    Env(Pairs),
    Add(Add),
    Copy(Copy),
    Entrypoint(Command),
    Volume(Vec<Mapped>),
    User(Mapped),
    Workdir(Mapped),
    Arg(Vec<Argument>),
    Onbuild(Onbuild),
    Stopsignal(Mapped),
    Healthcheck(Healthcheck),
    /// The shell's words; at least one.
    Shell(Vec<Mapped>),
    /// An unknown keyword, or arguments that make no sense. An error in the file's diagnostics says which.
    Unknown(Mapped),
}

/// `FROM [--platform=P] image [AS name]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct From {
    /// The base.
    pub image: Mapped,
    /// `--platform`
    pub platform: Option<Mapped>,
    /// The whole flag, with its name.
    pub platform_flag: Option<Span>,
    /// The stage's name.
    pub alias: Option<Alias>,
}

/// The `AS name` of a FROM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    /// The `as`, as written.
    pub keyword: Mapped,
    /// The name as written.
    pub written: Mapped,
    /// The name in lower case, which is what others call it.
    pub name: String,
}

/// A command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Text for the shell, never expanded by the builder. May be empty.
    Shell(Mapped),
    /// The decoded words of a JSON array. May be empty.
    Exec(Vec<Mapped>),
}

/// `RUN`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// What to run. The bodies of its heredocs are in the [`Statement`].
    pub command: Command,
    /// `--mount`, in order.
    pub mounts: Vec<MountSpec>,
    /// `--network`
    pub network: Option<Spanned<Network>>,
    /// `--security`
    pub security: Option<Spanned<Security>>,
    /// `--device`, in order, as written.
    pub devices: Vec<Mapped>,
}

/// The network that a RUN asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Whatever the build uses.
    Default,
    /// None.
    None,
    /// The host's.
    Host,
}

/// How closed the sandbox of a RUN is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// As always.
    Sandbox,
    /// All capabilities.
    Insecure,
}

/// The sources and the destination of a COPY or an ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// Source paths, patterns or addresses.
    pub sources: Vec<Mapped>,
    /// Files written in the Dockerfile itself; they come after all paths.
    pub inline: Vec<Heredoc>,
    /// Where to.
    pub destination: Mapped,
}

/// `COPY`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// From where to where.
    pub transfer: Transfer,
    /// `--from`; not expanded.
    pub from: Option<Mapped>,
    /// `--chown`
    pub chown: Option<Mapped>,
    /// `--chmod`
    pub chmod: Option<Mapped>,
    /// `--link`
    pub link: Option<Spanned<bool>>,
    /// `--parents`
    pub parents: Option<Spanned<bool>>,
    /// `--exclude`, in order; not expanded.
    pub exclude: Vec<Mapped>,
}

/// `ADD`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Add {
    /// From where to where.
    pub transfer: Transfer,
    /// `--chown`
    pub chown: Option<Mapped>,
    /// `--chmod`
    pub chmod: Option<Mapped>,
    /// `--link`
    pub link: Option<Spanned<bool>>,
    /// `--keep-git-dir`
    pub keep_git_dir: Option<Spanned<bool>>,
    /// `--checksum`
    pub checksum: Option<Mapped>,
    /// `--unpack`
    pub unpack: Option<Spanned<bool>>,
    /// `--exclude`, in order; not expanded.
    pub exclude: Vec<Mapped>,
}

/// The `name=value` words of ENV and LABEL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pairs {
    /// At least one.
    pub pairs: Vec<Pair>,
    /// Whether it was the old form `ENV name value with blanks`, which is one pair.
    pub legacy: bool,
}

/// One pair of ENV or LABEL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The key.
    pub key: Mapped,
    /// The value.
    pub value: Mapped,
}

/// One `name[=default]` of an ARG.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    /// The name; not expanded.
    pub name: Mapped,
    /// The default.
    pub default: Option<Mapped>,
}

/// `ONBUILD`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Onbuild {
    /// The trigger's text with the bodies of its heredocs: what the image config stores, and
    /// [`parse_trigger`](crate::parse_trigger) reads.
    pub expression: String,
    /// The same, parsed; its heredocs are those of the statement.
    pub trigger: Box<Instruction>,
}

/// `HEALTHCHECK`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Healthcheck {
    /// `NONE`: take an inherited check away.
    None,
    /// `CMD`
    Check {
        /// What to run.
        command: Command,
        /// `--interval`; zero means the default, as when it is missing.
        interval: Option<Duration>,
        /// `--timeout`
        timeout: Option<Duration>,
        /// `--start-period`
        start_period: Option<Duration>,
        /// `--start-interval`
        start_interval: Option<Duration>,
        /// `--retries`
        retries: Option<u32>,
    },
}

/// A body that follows an instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The delimiter without its quotes; also the name of the file that COPY makes.
    pub name: String,
    /// The word that opened it, such as `3<<-"EOF"`.
    pub word: Mapped,
    /// The file descriptor before `<<`.
    pub file_descriptor: Option<u32>,
    /// Whether variables in it are expanded (by COPY and ADD; RUN leaves that to the shell).
    pub expand: bool,
    /// Whether it was opened by `<<-`, so that leading tabs of its lines do not count.
    pub chomp: bool,
    /// The lines between, with their line breaks, as written.
    pub body: Mapped,
    /// The bytes of the body, if some are not UTF-8.
    pub(crate) bytes: Option<Vec<u8>>,
}

impl Heredoc {
    /// The body to the byte, without the leading tabs of its lines if it was opened by `<<-`.
    pub(crate) fn content_bytes(&self) -> Vec<u8> {
        let bytes = self.bytes.as_deref().unwrap_or(self.body.text().as_bytes());
        if !self.chomp {
            return bytes.to_owned();
        }
        let lines = bytes.split_inclusive(|byte| *byte == b'\n');
        let chomped = lines.flat_map(|line| line.iter().skip_while(|byte| **byte == b'\t'));
        chomped.copied().collect()
    }

    /// The body, without the leading tabs of its lines if it was opened by `<<-`.
    pub fn content(&self) -> Mapped {
        if !self.chomp {
            return self.body.clone();
        }
        let mut content = Mapped::empty(self.body.span().start);
        let mut at = 0;
        for line in self.body.text().split_inclusive('\n') {
            let tabs = line.len() - line.trim_start_matches('\t').len();
            content.push_range(&self.body, at + tabs..at + line.len());
            at += line.len();
        }
        content
    }
}
