//! ARG and ENV.

use super::lowering::Lowering;
use super::place::{Fallible, Place, Scope};
use crate::args::{NOT_IN_STEPS, is_secret_name};
use crate::check::Rule;
use crate::dockerfile::ast::{Argument, Pair, Pairs};
use crate::dockerfile::mapped::Mapped;

impl<'a> Lowering<'a> {
    /// Each argument sees those before it, also in one instruction.
    pub(super) fn arg(
        &mut self,
        place: &Place<'_, 'a>,
        scope: &mut Scope,
        arguments: &[Argument],
    ) -> Fallible<()> {
        let mut created_by = String::from("ARG");
        for argument in arguments {
            let name = argument.name.text();
            self.lint_secret("ARG", place, &argument.name, name);
            let given = place.plan.given(name);
            let value = match (given, &argument.default) {
                (Some(given), _) => Some(given),
                (None, Some(default)) => Some(self.expand(place, &scope.state, default)?),
                (None, None) => place.plan.globals.get(name).map(str::to_owned),
            };
            self.note_argument(place, argument, value.as_deref());
            created_by.extend([" ", name]);
            if let Some(value) = &value {
                self.spend(value.len(), place)?;
                created_by.extend(["=", value]);
                if !NOT_IN_STEPS.contains(&name) {
                    self.set_variable(scope, name, value);
                }
            }
            scope.state.arguments.replace(name, &value.unwrap_or_default());
        }
        self.commit(place, &mut scope.state, created_by, false)
    }

    /// All pairs of an instruction see the values from before it.
    pub(super) fn env(
        &mut self,
        place: &Place<'_, 'a>,
        scope: &mut Scope,
        pairs: &Pairs,
    ) -> Fallible<()> {
        self.lint_legacy(place, pairs);
        let expanded = self.pairs(place, scope, pairs)?;
        let mut created_by = String::from("ENV");
        for ((name, value), pair) in expanded.iter().zip(&pairs.pairs) {
            self.lint_secret("ENV", place, &pair.key, name);
            created_by.extend([" ", name, "=", value]);
            self.set_variable(scope, name, value);
            scope.state.image_environment.replace(name, value);
        }
        self.commit(place, &mut scope.state, created_by, false)
    }

    /// The expanded pairs of ENV or LABEL.
    pub(super) fn pairs(
        &mut self,
        place: &Place<'_, 'a>,
        scope: &Scope,
        pairs: &Pairs,
    ) -> Fallible<Vec<(String, String)>> {
        let expand = |pair: &Pair| {
            let key = self.expand(place, &scope.state, &pair.key)?;
            let value = self.expand(place, &scope.state, &pair.value)?;
            Ok((key, value))
        };
        pairs.pairs.iter().map(expand).collect()
    }

    fn set_variable(&self, scope: &mut Scope, name: &str, value: &str) {
        match self.is_guessing(&scope.state) {
            // What depends on an unknown variable is unknown too.
            true => scope.state.environment.remove(name),
            false => scope.state.environment.set(name, value),
        }
    }

    fn lint_secret(
        &mut self,
        instruction: &str,
        place: &Place<'_, 'a>,
        written: &Mapped,
        name: &str,
    ) {
        if is_secret_name(name) {
            let message = format!(
                "Do not use ARG or ENV instructions for sensitive data ({instruction} {name:?})"
            );
            self.warn(Rule::SecretsUsedInArgOrEnv, place.step.place(written.span()), message);
        }
    }
}
