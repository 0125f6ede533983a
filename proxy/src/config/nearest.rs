//! Which known word a misspelled one was probably meant to be.

/// Longer words are not compared: nobody misspells those, and the work grows with the square.
const COMPARED_CHARS_MAX: usize = 128;

/// The candidate that is nearest to `word`, when it is near enough to be worth a suggestion.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let slips_max = slips_max(word);
    candidates
        .into_iter()
        .filter_map(|candidate| Some((distance(word, candidate)?, candidate)))
        .filter(|&(slips, _)| slips <= slips_max)
        .min_by_key(|&(slips, _)| slips)
        .map(|(_, candidate)| candidate)
}

/// How many slips of the keyboard a word of this length may have and still be recognised.
pub(super) fn slips_max(word: &str) -> usize {
    (word.chars().count() / 3).clamp(1, 3)
}

/// Letters inserted, left out, changed or swapped with their neighbour to turn `a` into `b`,
/// regardless of case; `None` when one is too long to compare.
pub(super) fn distance(a: &str, b: &str) -> Option<usize> {
    let a: Vec<char> = a.chars().take(COMPARED_CHARS_MAX + 1).flat_map(char::to_lowercase).collect();
    let b: Vec<char> = b.chars().take(COMPARED_CHARS_MAX + 1).flat_map(char::to_lowercase).collect();
    if a.len().max(b.len()) > COMPARED_CHARS_MAX {
        return None;
    }
    let mut before_last = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let change = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = change.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before_last[j - 2] + 1);
            }
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last.last().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_slips() {
        for (a, b, slips) in [
            ("", "", 0),
            ("", "abc", 3),
            ("listen", "Listen", 0),
            ("lsiten", "listen", 1),
            ("databse", "database", 1),
            ("kitten", "sitting", 3),
            ("müller", "muller", 1),
        ] {
            assert_eq!(distance(a, b), Some(slips), "{a} {b}");
            assert_eq!(distance(b, a), Some(slips), "{b} {a}");
        }
        assert_eq!(distance(&"a".repeat(1000), "a"), None);
    }

    #[test]
    fn suggests_only_what_is_near() {
        let words = ["click", "open"];
        assert_eq!(nearest("clik", words), Some("click"));
        assert_eq!(nearest("opne", words), Some("open"));
        assert_eq!(nearest("page", words), None);
        assert_eq!(nearest("", words), None);
    }
}
