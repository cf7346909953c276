//! Variables in an order that counts.

use std::collections::HashMap;

/// Names and values in order, found by name in constant time.
///
/// There are two orders, and BuildKit uses both: a process sees a variable where it was set last, an image config
/// keeps it where it was set first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment {
    /// `None` where a variable has moved away.
    slots: Vec<Option<(String, String)>>,
    index: HashMap<String, usize>,
    size: usize,
}

impl Environment {
    /// Reads `NAME=value` entries; of a repeated name the last value counts.
    pub(crate) fn from_entries(entries: &[String]) -> Self {
        let mut environment = Self::default();
        for entry in entries {
            let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
            environment.replace(name, value);
        }
        environment
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let slot = self.slots.get(*self.index.get(name)?)?;
        slot.as_ref().map(|(_, value)| value.as_str())
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }

    /// Sets a variable and moves it to the end.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.remove(name);
        self.index.insert(name.to_owned(), self.slots.len());
        self.size += name.len() + value.len();
        self.slots.push(Some((name.to_owned(), value.to_owned())));
    }

    /// Sets a variable where it is; a new one at the end.
    pub(crate) fn replace(&mut self, name: &str, value: &str) {
        let slot = self.index.get(name).and_then(|index| self.slots[*index].as_mut());
        match slot {
            Some((_, old)) => {
                self.size = self.size - old.len() + value.len();
                value.clone_into(old);
            }
            None => self.set(name, value),
        }
    }

    pub(crate) fn remove(&mut self, name: &str) {
        let Some(index) = self.index.remove(name) else { return };
        if let Some((name, value)) = self.slots[index].take() {
            self.size -= name.len() + value.len();
        }
        if self.slots.len() > 2 * self.index.len() + 16 {
            self.close_gaps();
        }
    }

    fn close_gaps(&mut self) {
        self.slots.retain(Option::is_some);
        for (index, slot) in self.slots.iter().enumerate() {
            if let Some((name, _)) = slot
                && let Some(at) = self.index.get_mut(name)
            {
                *at = index;
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.slots.iter().flatten().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.iter().map(|(name, _)| name)
    }

    /// `NAME=value` each.
    pub(crate) fn to_entries(&self) -> Vec<String> {
        self.iter().map(|(name, value)| [name, "=", value].concat()).collect()
    }

    /// How many variables there are.
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// How many bytes names and values have together.
    pub(crate) fn size(&self) -> usize {
        self.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_orders() {
        let mut environment = Environment::from_entries(&["A=1".into(), "B=2".into(), "C".into()]);
        environment.replace("A", "10");
        assert_eq!(environment.to_entries(), ["A=10", "B=2", "C="]);
        environment.set("A", "11");
        assert_eq!(environment.to_entries(), ["B=2", "C=", "A=11"]);
        environment.remove("C");
        assert_eq!((environment.get("A"), environment.get("C")), (Some("11"), None));
        assert_eq!(environment.size(), 5);
    }

    #[test]
    fn setting_one_name_again_and_again_takes_no_room() {
        let mut environment = Environment::default();
        environment.set("B", "x");
        for round in 0..10_000 {
            environment.set("A", &round.to_string());
        }
        assert!(environment.slots.len() < 100);
        assert_eq!(environment.to_entries(), ["B=x", "A=9999"]);
    }
}
