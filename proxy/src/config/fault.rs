//! One fault of a configuration: where it stands, what was found there, and what to do about it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::nearest::nearest;

/// Where a setting was written; faults are sorted by it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The file as a whole.
    File,
    /// A line of the file, counted from 1.
    Line(u32),
    /// An environment variable.
    Variable(Arc<str>),
}

/// One thing that is wrong with a configuration; prints as one line that can stand for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The configuration file.
    pub file: PathBuf,
    /// Where in the file, or which environment variable.
    pub origin: Origin,
    /// The setting, such as `site[2].route[1].path`, counted from 1; empty for the file itself.
    pub key: String,
    /// What was found there, such as `found "many"`; never a secret.
    pub found: String,
    /// What is allowed or what to do, such as `allowed: a whole number from 1 to 64`.
    pub advice: String,
}

impl Fault {
    /// The line of the file, where the fault has one.
    #[must_use]
    pub fn line(&self) -> Option<u32> {
        match self.origin {
            Origin::Line(line) => Some(line),
            Origin::File | Origin::Variable(_) => None,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::File => write!(f, "{}: ", self.file.display())?,
            Origin::Line(line) => write!(f, "{}:{line}: ", self.file.display())?,
            Origin::Variable(name) => write!(f, "environment {name}: ")?,
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}; {}", self.found, self.advice)
    }
}

impl std::error::Error for Fault {}

/// The faults found so far, of one file and the environment laid over it.
#[derive(Debug)]
pub(super) struct Faults {
    file: PathBuf,
    list: Vec<Fault>,
    /// A part of the file could not be read, so that what seems missing may only be unread.
    partial: bool,
}

impl Faults {
    pub(super) fn new(file: &Path) -> Self {
        Self { file: file.to_owned(), list: Vec::new(), partial: false }
    }

    /// Adds a fault.
    pub(super) fn push(
        &mut self,
        origin: Origin,
        key: impl Into<String>,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) {
        let (key, found, advice) = (key.into(), found.into(), advice.into());
        self.list.push(Fault { file: self.file.clone(), origin, key, found, advice });
    }

    /// Adds a line that is not TOML.
    pub(super) fn push_syntax(&mut self, line: u32, message: &str) {
        self.partial = true;
        let advice = "correct the line; the format is TOML, see https://toml.io";
        self.push(Origin::Line(line), "", format!("not TOML: {message}"), advice);
    }

    /// Adds a setting that has no default and is not there.
    pub(super) fn push_missing(&mut self, origin: Origin, key: impl Into<String>, advice: impl Into<String>) {
        if !self.partial {
            self.push(origin, key, "missing", advice);
        }
    }

    /// All faults, in the order of the file, those of the environment last.
    pub(super) fn into_sorted(mut self) -> Vec<Fault> {
        self.list.sort_by(|a, b| a.origin.cmp(&b.origin));
        self.list
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

/// A value that is not what its setting allows: what it is, and what would be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) found: String,
    pub(super) advice: String,
}

impl Wrong {
    pub(super) fn new(found: impl fmt::Display, allowed: impl fmt::Display) -> Self {
        Self { found: format!("found {found}"), advice: format!("allowed: {allowed}") }
    }

    /// As [`Wrong::new`], for a word of a known set: names the word that was probably meant.
    pub(super) fn word(found: &str, known: &[&str]) -> Self {
        let list = known.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(", ");
        let meant = nearest(found, known.iter().copied());
        let meant = meant.map_or_else(String::new, |word| format!(" (did you mean {}?)", quoted(word)));
        Self::new(quoted(found), format!("{list}{meant}"))
    }
}

/// A text as it is shown in a fault: quoted, control characters escaped, its end cut when it is long.
pub(super) fn quoted(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 60;
    let mut shown = String::from("\"");
    for c in text.chars().take(SHOWN_CHARS_MAX) {
        match c {
            '\'' => shown.push(c),
            _ => shown.extend(c.escape_debug()),
        }
    }
    shown.push_str(if text.chars().nth(SHOWN_CHARS_MAX).is_some() { "…\"" } else { "\"" });
    shown
}
