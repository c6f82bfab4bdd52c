//! A problem of the configuration, said so that the operator can mend it.

use std::collections::BTreeSet;
use std::fmt;

/// One thing that is wrong with the configuration. Never holds a secret's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, or where the setting comes from instead, e.g. `environment`.
    pub origin: String,
    /// The line in the file, from 1.
    pub line: Option<usize>,
    /// The setting as one would search for it, e.g. `batch.max-records` or `object bookings: match-on`.
    pub key: String,
    /// What is wrong with it.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

/// `did you mean …?` for a word that is close to one of `known`, else the list of what is known.
pub(super) fn suggestion(word: &str, known: &[&str]) -> String {
    // Two objects may bear one name, which is another problem.
    let mut seen = BTreeSet::new();
    let known: Vec<&str> = known.iter().copied().filter(|word| seen.insert(*word)).collect();
    match closest(word, known.iter().copied()) {
        Some(candidate) => format!("did you mean `{candidate}`?"),
        None if known.is_empty() => "nothing is expected here".to_owned(),
        None => format!("known here: {}", known.join(", ")),
    }
}

/// The word among `known` that `word` was probably meant to be.
pub fn closest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let (edits, candidate) = known
        .map(|candidate| (distance(word, candidate), candidate))
        .min_by_key(|(edits, _)| *edits)?;
    (edits <= (candidate.len() / 3).max(1)).then_some(candidate)
}

/// How many characters must be changed, added or taken away to make one word of the other. `-` and `_` are
/// the same here: TOML keys of this program take a dash, and people forget.
fn distance(left: &str, right: &str) -> usize {
    let plain = |text: &str| -> Vec<char> { text.to_lowercase().replace('_', "-").chars().collect() };
    let (left, right) = (plain(left), plain(right));
    let mut previous: Vec<usize> = (0..=right.len()).collect();
    for (row, from) in left.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, to) in right.iter().enumerate() {
            let replaced = previous[column] + usize::from(from != to);
            current.push(replaced.min(previous[column + 1] + 1).min(current[column] + 1));
        }
        previous = current;
    }
    previous[right.len()]
}
