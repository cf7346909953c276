//! The ARGs before the first FROM.

use std::collections::BTreeMap;

use crate::diagnostic::Diagnostic;
use crate::dockerfile::ast::{Argument, Instruction, Statement};
use crate::environment::Environment;
use crate::shell::Shell;

/// How much text all global arguments may hold: each may repeat those before it.
const MAX_SIZE: usize = 64 << 20;

/// The global arguments of a file, in order.
pub(super) fn declared(statements: &[Statement]) -> impl Iterator<Item = &Argument> {
    statements
        .iter()
        .take_while(|statement| !matches!(statement.instruction, Instruction::From(_)))
        .filter_map(|statement| match &statement.instruction {
            Instruction::Arg(arguments) => Some(arguments),
            _ => None,
        })
        .flatten()
}

/// Adds the global arguments to the predefined ones. Each sees those before it, also in one line.
pub(crate) fn evaluate(
    statements: &[Statement],
    predefined: &Environment,
    build_args: &BTreeMap<String, String>,
    shell: Shell,
    diagnostics: &mut Vec<Diagnostic>,
) -> Environment {
    let mut environment = predefined.clone();
    for argument in declared(statements) {
        let name = argument.name.text();
        if let Some(value) = build_args.get(name) {
            environment.set(name, value);
        } else if let Some(default) = &argument.default {
            match shell.expand(default.text(), &environment) {
                Ok(expansion) => environment.set(name, &expansion.value),
                Err(error) => {
                    let span = default.span_of(error.range.clone());
                    diagnostics.push(Diagnostic::error("expansion", span, error.to_string()));
                }
            }
        }
        if environment.size() > MAX_SIZE {
            let span = argument.name.span();
            let message = "the Dockerfile expands to too much text";
            diagnostics.push(Diagnostic::error("too-large", span, message));
            break;
        }
    }
    environment
}
