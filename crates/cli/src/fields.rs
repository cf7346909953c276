//! Attributes as flags take them: `key=value,key=value`, in the form of RFC 4180.

/// Attributes as given; what is left at the end is refused.
#[derive(Debug, Default)]
pub(crate) struct Fields(Vec<(String, String)>);

impl Fields {
    pub(crate) fn of(given: &[String]) -> Result<Self, String> {
        let mut fields = Self::default();
        for field in given {
            let Some((key, value)) = field.split_once('=') else {
                return Err(format!("`{field}` is not of the form key=value"));
            };
            fields.add(key, value)?;
        }
        Ok(fields)
    }

    pub(crate) fn add(&mut self, key: &str, value: &str) -> Result<(), String> {
        let key = key.trim().to_ascii_lowercase();
        if self.0.iter().any(|(known, _)| *known == key) {
            return Err(format!("`{key}` is given twice"));
        }
        self.0.push((key, value.to_owned()));
        Ok(())
    }

    pub(crate) fn take(&mut self, key: &str) -> Option<String> {
        let position = self.0.iter().position(|(known, _)| known == key)?;
        Some(self.0.remove(position).1)
    }

    pub(crate) fn is_missing(&self, key: &str) -> bool {
        self.0.iter().all(|(known, _)| known != key)
    }

    pub(crate) fn needed(&mut self, key: &str, what: &str) -> Result<String, String> {
        let value = self.take(key).filter(|value| !value.is_empty());
        value.ok_or_else(|| format!("{key}={what} is needed"))
    }

    /// What a switch says; `None` if it is not given.
    pub(crate) fn switch(&mut self, key: &str) -> Result<Option<bool>, String> {
        match self.take(key).as_deref() {
            None => Ok(None),
            Some("true" | "1") => Ok(Some(true)),
            Some("false" | "0") => Ok(Some(false)),
            Some(other) => Err(format!("`{key}` is true or false, not `{other}`")),
        }
    }

    pub(crate) fn boolean(&mut self, key: &str, default: bool) -> Result<bool, String> {
        Ok(self.switch(key)?.unwrap_or(default))
    }

    pub(crate) fn number<T: std::str::FromStr>(&mut self, key: &str) -> Result<Option<T>, String> {
        let number =
            |text: String| text.parse().map_err(|_| format!("`{key}` is a number, not `{text}`"));
        self.take(key).map(number).transpose()
    }

    /// The first of what nobody took.
    pub(crate) fn left(&self) -> Option<&str> {
        self.0.first().map(|(key, _)| key.as_str())
    }

    pub(crate) fn end(self, known: &[&str]) -> Result<(), String> {
        match self.left() {
            None => Ok(()),
            Some(key) => Err(with_nearest(format!("there is no attribute `{key}`"), key, known)),
        }
    }
}

/// A message with the known word that was probably meant: one of which it is the beginning or the end, or that has most
/// letters in the same places.
pub(crate) fn with_nearest(message: String, word: &str, known: &[&str]) -> String {
    let alike = |known: &&&str| {
        let from_start = known.chars().zip(word.chars()).take_while(|(a, b)| a == b).count();
        let from_end =
            known.chars().rev().zip(word.chars().rev()).take_while(|(a, b)| a == b).count();
        from_start + from_end
    };
    let nearest = known.iter().max_by_key(alike);
    match nearest.filter(|known| **known != word && alike(known) + 1 >= known.len().max(word.len()))
    {
        Some(nearest) => format!("{message}; did you mean `{nearest}`?"),
        None => message,
    }
}

/// Splits at commas outside double quotes; a field in quotes may hold commas, and `""` is a quote (RFC 4180).
pub(crate) fn csv_fields(text: &str) -> Result<Vec<String>, String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let field = fields.last_mut().expect("there is always one");
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' if quoted || field.is_empty() => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => field.push(c),
        }
    }
    if quoted { Err(format!("`{text}` has a quote without an end")) } else { Ok(fields) }
}
