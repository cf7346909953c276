//! The instructions of names and values: ENV, LABEL and ARG.

use super::ast::{Argument, Pair, Pairs};
use super::lexer::clip;
use super::parts::Parts;
use super::sink::Sink;
use super::words;
use crate::diagnostic::Diagnostic;

impl Parts<'_> {
    pub(super) fn pairs(&self, sink: &mut Sink) -> Option<Pairs> {
        self.at_least_one(sink)?;
        let words = words::split_quoted(&self.arguments, self.escape);
        let legacy = words.first().is_some_and(|word| !word.text().contains('='));
        if legacy {
            let (key, value) = words::split_first(&self.arguments);
            if value.is_empty() {
                let message = format!("{} must have two arguments", self.name);
                sink.push(Diagnostic::error("invalid-pair", key.span(), message));
                return None;
            }
            return Some(Pairs { pairs: vec![Pair { key, value }], legacy });
        }
        let mut pairs = Vec::with_capacity(words.len());
        for word in words {
            let text = word.text();
            let Some(equals) = text.find('=') else {
                let message = format!(
                    "Syntax error - can't find = in {:?}. Must be of the form: name=value",
                    clip(text)
                );
                sink.push(Diagnostic::error("invalid-pair", word.span(), message));
                return None;
            };
            if equals == 0 {
                self.error(&word, format!("{} names can not be blank", self.name), sink);
                return None;
            }
            pairs.push(Pair {
                key: word.slice(0..equals),
                value: word.slice(equals + 1..text.len()),
            });
        }
        Some(Pairs { pairs, legacy })
    }

    pub(super) fn arguments(&self, sink: &mut Sink) -> Option<Vec<Argument>> {
        self.at_least_one(sink)?;
        let mut arguments = Vec::new();
        for word in words::split_quoted(&self.arguments, self.escape) {
            let text = word.text();
            arguments.push(match text.find('=') {
                None => Argument { name: word, default: None },
                Some(0) => {
                    self.error(&word, "ARG names can not be blank".into(), sink);
                    return None;
                }
                Some(at) => Argument {
                    name: word.slice(0..at),
                    default: Some(word.slice(at + 1..text.len())),
                },
            });
        }
        Some(arguments)
    }
}
