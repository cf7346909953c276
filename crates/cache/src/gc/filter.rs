//! Which items are meant: `key`, `key=value`, `key!=value` or `key~=pattern`, as buildx writes them.
//!
//! All conditions must hold; of one key, several values with `=` are alternatives.

use regex::Regex;

use super::item::{Item, ItemKind};

/// A choice among items. By default all are meant.
#[derive(Clone, Debug, Default)]
pub struct ItemFilter {
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug)]
struct Condition {
    key: Key,
    test: Test,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Id,
    Parents,
    Description,
    Type,
    InUse,
    Mutable,
    Immutable,
    Shared,
    Private,
}

#[derive(Clone, Debug)]
enum Test {
    /// Of a text: any of these.
    Is(Vec<String>),
    IsNot(String),
    Matches(Regex),
    /// Of what is or is not so.
    Holds(bool),
}

/// A filter cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// Nothing can be asked by this key.
    #[error(
        "cannot filter by `{0}`: only by id, parents, description, type, until, inuse, mutable, immutable, shared \
         and private"
    )]
    Key(String),
    /// There is no such kind.
    #[error(
        "the store has nothing of the type `{0}`: it is one of {kinds}",
        kinds = ItemKind::ALL.map(ItemKind::name).join(", ")
    )]
    Kind(String),
    /// The key needs a value.
    #[error("`{0}` is no filter: write it as {0}=VALUE, {0}!=VALUE or {0}~=PATTERN")]
    NoValue(String),
    /// The key is yes or no.
    #[error("`{key}` holds or does not: write {key}, {key}=true or {key}=false, not `{value}`")]
    NotTrueOrFalse {
        /// The key.
        key: String,
        /// What was given.
        value: String,
    },
    /// The pattern is no regular expression.
    #[error("`{pattern}` is no regular expression")]
    Pattern {
        /// What was given.
        pattern: String,
        /// What is wrong with it.
        source: regex::Error,
    },
}

impl Key {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "id" => Self::Id,
            "parents" | "parent" => Self::Parents,
            "description" => Self::Description,
            "type" => Self::Type,
            "inuse" => Self::InUse,
            "mutable" => Self::Mutable,
            "immutable" => Self::Immutable,
            "shared" => Self::Shared,
            "private" => Self::Private,
            _ => return None,
        })
    }
}

/// How a key and a value are held against one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Matches,
}

/// Cuts `key=value` and its kin.
fn cut(text: &str) -> (&str, Option<(Operator, &str)>) {
    let Some((key, value)) = text.split_once('=') else { return (text, None) };
    let (key, operator) = match key.as_bytes().last() {
        Some(b'!') => (&key[..key.len() - 1], Operator::NotEqual),
        Some(b'~') => (&key[..key.len() - 1], Operator::Matches),
        _ => (key, Operator::Equal),
    };
    // Doubled where it is written for BuildKit's own client.
    let doubled = operator == Operator::Equal;
    let value = value.strip_prefix('=').filter(|_| doubled).unwrap_or(value);
    (key, Some((operator, value)))
}

impl ItemFilter {
    /// Adds a condition.
    ///
    /// # Errors
    ///
    /// When it cannot be understood.
    pub fn add(&mut self, text: &str) -> Result<(), FilterError> {
        let (name, tail) = cut(text);
        let key = Key::parse(name).ok_or_else(|| FilterError::Key(name.to_owned()))?;
        let test = match key {
            Key::Id | Key::Parents | Key::Description | Key::Type => {
                let (operator, value) =
                    tail.ok_or_else(|| FilterError::NoValue(name.to_owned()))?;
                if key == Key::Type
                    && operator != Operator::Matches
                    && ItemKind::parse(value).is_none()
                {
                    return Err(FilterError::Kind(value.to_owned()));
                }
                match operator {
                    Operator::Equal => return self.also(key, value),
                    Operator::NotEqual => Test::IsNot(value.to_owned()),
                    Operator::Matches => Test::Matches(Regex::new(value).map_err(|source| {
                        FilterError::Pattern { pattern: value.to_owned(), source }
                    })?),
                }
            }
            _ => Test::Holds(match tail {
                None
                | Some((Operator::Equal, "true" | "1") | (Operator::NotEqual, "false" | "0")) => {
                    true
                }
                Some((Operator::Equal, "false" | "0") | (Operator::NotEqual, "true" | "1")) => {
                    false
                }
                Some((_, value)) => {
                    return Err(FilterError::NotTrueOrFalse {
                        key: name.to_owned(),
                        value: value.to_owned(),
                    });
                }
            }),
        };
        self.conditions.push(Condition { key, test });
        Ok(())
    }

    /// Adds a value that a key may have instead of others.
    fn also(&mut self, key: Key, value: &str) -> Result<(), FilterError> {
        let alternatives =
            self.conditions.iter_mut().find_map(|condition| match &mut condition.test {
                Test::Is(values) if condition.key == key => Some(values),
                _ => None,
            });
        match alternatives {
            Some(values) => values.push(value.to_owned()),
            None => {
                let test = Test::Is(vec![value.to_owned()]);
                self.conditions.push(Condition { key, test });
            }
        }
        Ok(())
    }

    /// The items of these kinds.
    pub fn of_kinds(kinds: &[ItemKind]) -> Self {
        let names = kinds.iter().map(|kind| kind.name().to_owned()).collect();
        Self { conditions: vec![Condition { key: Key::Type, test: Test::Is(names) }] }
    }

    /// Whether all items are meant.
    pub fn is_empty(&self) -> bool {
        self.conditions.is_empty()
    }

    /// Whether an item is meant.
    pub fn matches(&self, item: &Item) -> bool {
        self.conditions.iter().all(|condition| condition.holds(item))
    }

    /// Whether items of this kind are meant by its name, and not only for what they have in common with others.
    pub(super) fn names(&self, kind: ItemKind) -> bool {
        self.conditions.iter().any(|condition| match &condition.test {
            Test::Is(values) if condition.key == Key::Type => {
                values.iter().any(|value| value == kind.name())
            }
            Test::Matches(pattern) if condition.key == Key::Type => pattern.is_match(kind.name()),
            _ => false,
        })
    }
}

impl Condition {
    fn holds(&self, item: &Item) -> bool {
        if let Test::Holds(expected) = self.test {
            let is = match self.key {
                Key::InUse => item.in_use,
                Key::Mutable => item.kind.is_mutable(),
                Key::Immutable => !item.kind.is_mutable(),
                Key::Shared => item.shared,
                _ => !item.shared,
            };
            return is == expected;
        }
        match self.key {
            // An id is as good as its beginning.
            Key::Id => {
                let ids = std::iter::once(item.id.as_str()).chain(item.name.as_deref());
                self.holds_of(ids, |id, value| id.starts_with(value))
            }
            Key::Parents => {
                let parents = item.parents.iter().map(String::as_str);
                self.holds_of(parents, |id, value| value.split(';').any(|one| id.starts_with(one)))
            }
            Key::Description => {
                self.holds_of([item.description.as_str()], |text, value| text.contains(value))
            }
            _ => self.holds_of([item.kind.name()], |kind, value| kind == value),
        }
    }

    fn holds_of<'a>(
        &self,
        texts: impl IntoIterator<Item = &'a str>,
        is: impl Fn(&str, &str) -> bool,
    ) -> bool {
        let mut texts = texts.into_iter();
        match &self.test {
            Test::Is(values) => texts.any(|text| values.iter().any(|value| is(text, value))),
            Test::IsNot(value) => !texts.any(|text| is(text, value)),
            Test::Matches(pattern) => texts.any(|text| pattern.is_match(text)),
            Test::Holds(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item() -> Item {
        Item {
            id: "abcdef".into(),
            kind: ItemKind::CacheMount,
            name: Some("apt".into()),
            parents: vec!["1234".into(), "5678".into()],
            description: "cached mount `apt`".into(),
            size: 0,
            created: None,
            used: None,
            uses: 0,
            in_use: false,
            shared: true,
        }
    }

    fn parse(texts: &[&str]) -> Result<ItemFilter, FilterError> {
        let mut filter = ItemFilter::default();
        texts.iter().try_for_each(|text| filter.add(text))?;
        Ok(filter)
    }

    #[test]
    fn conditions_hold_together() {
        for yes in [
            &[][..],
            &["id=abc"],
            &["id=apt"],
            &["id!=b"],
            &["id~=^a.c"],
            &["parents=5678"],
            &["parents=9;12"],
            &["description=mount"],
            &["description~=^cached .*apt"],
            &["type=exec.cachemount"],
            &["type==exec.cachemount"],
            &["type=regular", "type=exec.cachemount"],
            &["type!=regular"],
            &["type~=^exec"],
            &["shared"],
            &["shared=true", "mutable", "inuse=false", "immutable!=true"],
        ] {
            assert!(parse(yes).unwrap().matches(&item()), "{yes:?}");
        }
        for no in [
            &["id=bcd"][..],
            &["id!=abc"],
            &["parents=34"],
            &["type=regular"],
            &["type=exec.cachemount", "inuse"],
            &["private"],
            &["description~=^mount"],
        ] {
            assert!(!parse(no).unwrap().matches(&item()), "{no:?}");
        }
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for (bad, said) in [
            ("id", "write it as id=VALUE"),
            ("size=1", "cannot filter by `size`"),
            ("type=frontend", "nothing of the type `frontend`"),
            ("type!=frontend", "nothing of the type `frontend`"),
            ("inuse=maybe", "not `maybe`"),
            ("shared~=x", "not `x`"),
            ("id~=(", "no regular expression"),
        ] {
            let error = parse(&[bad]).unwrap_err().to_string();
            assert!(error.contains(said), "{bad}: {error}");
        }
    }
}
