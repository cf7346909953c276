//! The nearest of some known words, for "did you mean".

/// A word further away than this is another word.
const MAX_DISTANCE: usize = 2;

/// The known word that `word` was probably meant to be, without regard to case; `None` if it is one of them, or none is
/// near. Of equally near ones, the first.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word.chars().take(64).map(|c| c.to_ascii_lowercase()).collect();
    let mut best = None;
    let mut best_distance = MAX_DISTANCE + 1;
    for candidate in known {
        let distance = distance(&word, candidate);
        if distance == 0 {
            return None;
        }
        if distance < best_distance {
            (best, best_distance) = (Some(candidate), distance);
        }
    }
    best
}

/// `message` with the nearest known word: `unknown instruction: FOO (did you mean FROM?)`.
pub(crate) fn suggest<'a>(
    message: String,
    word: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> String {
    match nearest(word, known) {
        Some(candidate) => format!("{message} (did you mean {candidate}?)"),
        None => message,
    }
}

/// How many characters to insert, remove or replace to make one of the other; more than [`MAX_DISTANCE`] if the
/// lengths alone say so.
fn distance(word: &[char], other: &str) -> usize {
    let other: Vec<char> = other.chars().map(|c| c.to_ascii_lowercase()).collect();
    if word.len().abs_diff(other.len()) > MAX_DISTANCE {
        return MAX_DISTANCE + 1;
    }
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in word.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found() {
        let known = ["FROM", "RUN", "WORKDIR", "COPY"];
        assert_eq!(nearest("FOO", known), Some("FROM"));
        assert_eq!(nearest("wrkdir", known), Some("WORKDIR"));
        assert_eq!(nearest("copy", known), None, "it is known");
        assert_eq!(nearest("something", known), None);
        assert_eq!(nearest("", known), None);
        assert_eq!(nearest(&"x".repeat(1 << 20), known), None);
        assert_eq!(suggest("unknown".into(), "RUNN", known), "unknown (did you mean RUN?)");
    }
}
