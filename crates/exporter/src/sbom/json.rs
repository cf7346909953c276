//! What lock files in JSON have in common: names, versions and licences. All else in them is passed over without being held, so that
//! what stands in memory is not many times the file.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// An entry of a lock file, or the file of a package. What has another form than this is without fields.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) name: Option<String>,
    pub(super) version: Option<String>,
    pub(super) licence: Option<String>,
    /// Whether it only says where the package is.
    pub(super) is_link: bool,
    /// What npm's first form has below it.
    pub(super) dependencies: Entries,
}

/// The entries of an object or a list that have a version, or such entries below them; those of a list have no names here.
#[derive(Debug, Default)]
pub(super) struct Entries(pub(super) Vec<(String, Entry)>);

/// A text; `true`; the texts of a list with `OR` between them; or the `type` of an object. Anything else is none.
#[derive(Debug, Default)]
struct Text(Option<String>);

/// Numbers, and null.
macro_rules! pass_over_numbers {
    () => {
        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("anything")
        }

        fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }

        fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }

        fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
    };
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EntryVisitor)
    }
}

struct EntryVisitor;

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = Entry;

    pass_over_numbers!();

    fn visit_bool<E>(self, _: bool) -> Result<Entry, E> {
        Ok(Entry::default())
    }

    fn visit_str<E>(self, _: &str) -> Result<Entry, E> {
        Ok(Entry::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Entry, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Entry::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entry, A::Error> {
        let mut entry = Entry::default();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "name" => entry.name = map.next_value::<Text>()?.0,
                "version" => entry.version = map.next_value::<Text>()?.0,
                "license" => entry.licence = map.next_value::<Text>()?.0,
                "link" => entry.is_link = map.next_value::<Text>()?.0.is_some(),
                "dependencies" => entry.dependencies = map.next_value()?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(entry)
    }
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    pass_over_numbers!();

    fn visit_bool<E>(self, _: bool) -> Result<Entries, E> {
        Ok(Entries::default())
    }

    fn visit_str<E>(self, _: &str) -> Result<Entries, E> {
        Ok(Entries::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Entries, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = list.next_element::<Entry>()? {
            entries.extend(entry.is_something().then(|| (String::new(), entry)));
        }
        Ok(Entries(entries))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, entry)) = map.next_entry::<String, Entry>()? {
            entries.extend(entry.is_something().then_some((key, entry)));
        }
        Ok(Entries(entries))
    }
}

impl Entry {
    fn is_something(&self) -> bool {
        self.version.is_some() || !self.dependencies.0.is_empty()
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text;

    pass_over_numbers!();

    fn visit_bool<E>(self, flag: bool) -> Result<Text, E> {
        Ok(Text(flag.then(|| "true".to_owned())))
    }

    fn visit_str<E>(self, text: &str) -> Result<Text, E> {
        Ok(Text(Some(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Text, A::Error> {
        let mut joined: Option<String> = None;
        while let Some(text) = list.next_element::<Text>()? {
            let Some(text) = text.0 else { continue };
            joined = Some(match joined {
                Some(joined) => joined + " OR " + &text,
                None => text,
            });
        }
        Ok(Text(joined))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Text, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "type" => found = map.next_value::<Self::Value>()?.0,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Text(found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_forms_are_passed_over() {
        for other in ["null", "true", "1", "-1", "1.5", "\"x\"", "[[{}, 1]]", "{\"x\": [{}]}"] {
            let entry: Entry = serde_json::from_str(other).unwrap();
            assert!(!entry.is_something(), "{other}");
            let of = |key: &str| format!(r#"{{"a": {{"{key}": {other}, "version": "1"}}}}"#);
            for key in ["name", "license", "link", "dependencies", "else"] {
                let Entries(entries) = serde_json::from_str(&of(key)).unwrap();
                assert_eq!(entries[0].1.version.as_deref(), Some("1"), "{key}: {other}");
            }
        }
        let found: Entries = serde_json::from_str(
            r#"[0, {}, {"version": "1", "license": ["MIT", 1, {"type": "ISC"}]}, {"name": "a"}]"#,
        )
        .unwrap();
        assert_eq!(found.0.len(), 1);
        assert_eq!(found.0[0].1.licence.as_deref(), Some("MIT OR ISC"));
    }

    #[test]
    fn what_is_not_wanted_is_not_held() {
        let nothing = format!("{{\"packages\": [{}0]}}", "[{\"\":0}],".repeat(100_000));
        let entries: Entries = serde_json::from_str(&nothing).unwrap();
        assert!(entries.0.is_empty() && entries.0.capacity() == 0);
    }
}
