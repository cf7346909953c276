//! An instruction's text to its typed form, one function each.
//!
//! Each gives `None` after it has put an error into the sink; then the instruction is [`Instruction::Unknown`].

use super::ast::{Alias, Escape, From, Heredoc, Instruction, Onbuild};
use super::flags::{Flags, Kind};
use super::keyword::Keyword;
use super::lexer::clip;
use super::mapped::Mapped;
use super::parts::Parts;
use super::sink::Sink;
use super::words;
use crate::diagnostic::Diagnostic;
use crate::suggest::{nearest, suggest};

/// An instruction before its arguments are looked at.
#[derive(Debug)]
pub(crate) struct Written<'a> {
    /// The logical line.
    pub(crate) text: &'a Mapped,
    pub(crate) heredocs: &'a [Heredoc],
    pub(crate) escape: Escape,
}

/// Reads one instruction.
pub(crate) fn build(written: &Written<'_>, sink: &mut Sink) -> Instruction {
    let (word, rest) = words::split_first(written.text);
    let Some(keyword) = Keyword::parse(word.text()) else {
        sink.push(unknown_instruction(&word));
        return Instruction::Unknown(rest);
    };
    let (flag_words, arguments) = words::split_flags(&rest);
    let flags = match looks_at_flags(keyword, &arguments) {
        true => Flags::parse(flag_words, known_flags(keyword), sink),
        false => {
            sink.extend(flag_words.iter().map(without_effect));
            Flags::default()
        }
    };
    let name = keyword.name();
    let parts = Parts {
        name,
        keyword: word,
        flags,
        arguments,
        heredocs: written.heredocs,
        escape: written.escape,
    };
    let instruction = match keyword {
        Keyword::From => parts.from(sink).map(Instruction::From),
        Keyword::Run => parts.run(sink).map(Instruction::Run),
        Keyword::Cmd => parts.command(sink).map(Instruction::Cmd),
        Keyword::Entrypoint => parts.command(sink).map(Instruction::Entrypoint),
        Keyword::Shell => parts.shell(sink).map(Instruction::Shell),
        Keyword::Env => parts.pairs(sink).map(Instruction::Env),
        Keyword::Label => parts.pairs(sink).map(Instruction::Label),
        Keyword::Arg => parts.arguments(sink).map(Instruction::Arg),
        Keyword::Copy => parts.copy(sink).map(Instruction::Copy),
        Keyword::Add => parts.add(sink).map(Instruction::Add),
        Keyword::Expose => parts
            .at_least_one(sink)
            .map(|()| Instruction::Expose(words::split_blanks(&parts.arguments))),
        Keyword::Volume => parts.volume(sink).map(Instruction::Volume),
        Keyword::User => parts.exactly_one(sink).map(Instruction::User),
        Keyword::Workdir => parts.exactly_one(sink).map(Instruction::Workdir),
        Keyword::Stopsignal => parts.exactly_one(sink).map(Instruction::Stopsignal),
        Keyword::Maintainer => parts.exactly_one(sink).map(Instruction::Maintainer),
        Keyword::Healthcheck => parts.healthcheck(sink).map(Instruction::Healthcheck),
        Keyword::Onbuild => parts.onbuild(written, sink).map(Instruction::Onbuild),
    };
    instruction.unwrap_or(Instruction::Unknown(parts.arguments))
}

fn unknown_instruction(keyword: &Mapped) -> Diagnostic {
    let text = keyword.text();
    let message = suggest(format!("unknown instruction: {}", clip(text)), text, Keyword::names());
    let error = Diagnostic::error("unknown-instruction", keyword.span(), message);
    match nearest(text, Keyword::names()) {
        Some(name) => error.with_fix(keyword.span(), name),
        None => error,
    }
}

/// Whether BuildKit reads the flags of an instruction; where it does not, any is let through and has no effect.
fn looks_at_flags(keyword: Keyword, arguments: &Mapped) -> bool {
    match keyword {
        Keyword::Arg | Keyword::Stopsignal => false,
        Keyword::Healthcheck => {
            !words::split_first(arguments).0.text().eq_ignore_ascii_case("NONE")
        }
        _ => true,
    }
}

fn without_effect(flag: &Mapped) -> Diagnostic {
    let message = format!("flag {} has no effect here", clip(flag.text()));
    Diagnostic::warning("flag-without-effect", flag.span(), message)
}

fn known_flags(keyword: Keyword) -> &'static [(&'static str, Kind)] {
    match keyword {
        Keyword::From => &[("platform", Kind::Text)],
        Keyword::Run => &[
            ("mount", Kind::List),
            ("network", Kind::Text),
            ("security", Kind::Text),
            ("device", Kind::List),
        ],
        Keyword::Copy => &[
            ("from", Kind::Text),
            ("chown", Kind::Text),
            ("chmod", Kind::Text),
            ("link", Kind::Bool),
            ("parents", Kind::Bool),
            ("exclude", Kind::List),
        ],
        Keyword::Add => &[
            ("chown", Kind::Text),
            ("chmod", Kind::Text),
            ("link", Kind::Bool),
            ("keep-git-dir", Kind::Bool),
            ("checksum", Kind::Text),
            ("unpack", Kind::Bool),
            ("exclude", Kind::List),
        ],
        Keyword::Healthcheck => &[
            ("interval", Kind::Text),
            ("timeout", Kind::Text),
            ("start-period", Kind::Text),
            ("start-interval", Kind::Text),
            ("retries", Kind::Text),
        ],
        _ => &[],
    }
}

impl Parts<'_> {
    fn from(&self, sink: &mut Sink) -> Option<From> {
        let words = words::split_blanks(&self.arguments);
        let alias = match words.as_slice() {
            [_] => None,
            [_, keyword, written] if keyword.text().eq_ignore_ascii_case("as") => {
                let name = written.text().to_lowercase();
                let is_tail = |c: char| {
                    c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.')
                };
                if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(is_tail)
                {
                    let message = format!(
                        "invalid name for build stage: {:?}, name can't start with a number or contain symbols",
                        clip(written.text())
                    );
                    self.error(written, message, sink);
                    return None;
                }
                Some(Alias { keyword: keyword.clone(), written: written.clone(), name })
            }
            _ => {
                self.error(
                    &self.arguments,
                    "FROM requires either one or three arguments".into(),
                    sink,
                );
                return None;
            }
        };
        let image = words.into_iter().next()?;
        let platform_flag = self.flags.word("platform").map(Mapped::span);
        Some(From { image, platform: self.flags.text("platform"), platform_flag, alias })
    }

    fn onbuild(&self, written: &Written<'_>, sink: &mut Sink) -> Option<Onbuild> {
        self.at_least_one(sink)?;
        let (keyword, _) = words::split_first(&self.arguments);
        let forbidden = match Keyword::parse(keyword.text()) {
            Some(Keyword::Onbuild) => {
                Some("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".to_owned())
            }
            Some(inner @ (Keyword::Maintainer | Keyword::From)) => {
                Some(format!("{} isn't allowed as an ONBUILD trigger", inner.name()))
            }
            _ => None,
        };
        if let Some(message) = forbidden {
            self.error(&keyword, message, sink);
            return None;
        }
        // Not the trimmed text: blanks at the end are stored too.
        let whole = written.text;
        let tail = whole.text();
        let after_keyword = tail.trim_start().get(self.keyword.text().len()..)?.trim_start();
        let inner = whole.slice(tail.len() - after_keyword.len()..tail.len());
        let mut expression = inner.text().to_owned();
        for heredoc in self.heredocs {
            expression.push('\n');
            expression.push_str(heredoc.body.text());
            expression.push_str(&heredoc.name);
        }
        let mut found = Sink::default();
        let trigger = Box::new(build(&Written { text: &self.arguments, ..*written }, &mut found));
        // BuildKit reads a trigger only when an image is built on this one; this image can be built.
        sink.absorb(found, |error| !matches!(error.code, "json-form" | "invalid-pair"));
        Some(Onbuild { expression, trigger })
    }
}
