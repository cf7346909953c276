//! Names that somebody may have meant.

/// How many names are suggested.
const MOST: usize = 3;

/// The names that are at most a quarter of `wanted` away from it, nearest first.
pub(super) fn similar<'a>(wanted: &[u8], names: impl Iterator<Item = &'a [u8]>) -> Vec<&'a [u8]> {
    let limit = (wanted.len() / 4).max(1);
    let mut found: Vec<(usize, &[u8])> = names
        .filter(|name| name.len().abs_diff(wanted.len()) <= limit && name.len() <= 255)
        .map(|name| (distance(wanted, name), name))
        .filter(|(distance, _)| *distance <= limit)
        .collect();
    found.sort_unstable();
    found.truncate(MOST);
    found.into_iter().map(|(_, name)| name).collect()
}

/// Insertions, deletions, replacements and swaps of neighbours; a change of letter case costs nothing.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let same = a[i - 1].eq_ignore_ascii_case(&b[j - 1]);
            let mut cost = (last[j - 1] + usize::from(!same)).min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                cost = cost.min(before[j - 2] + 1);
            }
            row.push(cost);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_the_nearest_names_only() {
        let names: [&[u8]; 5] =
            [b"package.json", b"packages", b"Makefile", b"main.c", b"pakcage.json"];
        let of = |wanted: &[u8]| similar(wanted, names.into_iter());
        assert_eq!(of(b"package.jso"), [b"package.json", b"pakcage.json"]);
        assert_eq!(of(b"makefile"), [b"Makefile"]);
        assert!(of(b"nonesuch").is_empty());
    }
}
