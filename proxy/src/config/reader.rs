//! Tree → typed values: takes settings by key and type, collects faults, and notes what was read.
//!
//! Invariants:
//! - Reading never stops at a fault: a wrong value counts as its default, so that all faults are
//!   found at once. Who called must not use what was read when there are faults.
//! - What nobody asked for is a fault, with the setting that was probably meant.
//! - Each setting that is read is noted in the listing, with its value, default and origin.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::fault::{Faults, Origin, Wrong, quoted};
use super::listing::{Listing, Setting, toml_list, toml_text};
use super::nearest::{distance, slips_max};
use super::node::{Node, PREFIX, Table, Value};
use super::units::{Share, parse_share, parse_size, parse_span, show_share, show_size, show_span};

/// What one pass over a configuration collects.
pub(super) struct Reader {
    pub(super) faults: Faults,
    pub(super) listing: Listing,
    /// Paths in the file are relative to this folder.
    folder: PathBuf,
    /// Every setting and table that this release knows, as far as it was asked for.
    known: BTreeSet<String>,
    unknown: Vec<(String, Origin)>,
}

impl Reader {
    pub(super) fn new(faults: Faults, folder: &Path) -> Self {
        let (known, unknown) = (BTreeSet::new(), Vec::new());
        Self { faults, listing: Listing::default(), folder: folder.to_owned(), known, unknown }
    }

    /// Reads the whole tree by `read`.
    pub(super) fn root<T>(&mut self, table: Table, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
        let value = self.section(String::new(), table, Origin::File, read);
        self.report_unknown();
        value
    }

    /// Reads one table and notes the keys in it that nobody asked for.
    fn section<T>(
        &mut self,
        path: String,
        table: Table,
        origin: Origin,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> T {
        let mut section = Section { reader: self, path, table, origin, asked: BTreeSet::new() };
        let value = read(&mut section);
        let Section { path, table, asked, .. } = section;
        for (key, node) in table {
            if !asked.contains(key.as_str()) {
                self.note_unknown(join(&path, &key), node);
            }
        }
        value
    }

    /// A table that only variables made is not what was misspelled: each of its variables is.
    fn note_unknown(&mut self, path: String, node: Node) {
        match (node.value, node.origin) {
            (Value::Table(table), Origin::Variable(_)) if !table.is_empty() => {
                for (key, node) in table {
                    self.note_unknown(join(&path, &key), node);
                }
            }
            (_, origin) => self.unknown.push((path, origin)),
        }
    }

    fn report_unknown(&mut self) {
        for (path, origin) in std::mem::take(&mut self.unknown) {
            let plain = unnumbered(&path);
            let advice = match (self.meant(&plain), &origin) {
                (None, _) => self.allowed_beside(&plain),
                (Some(known), Origin::Variable(_)) => {
                    format!("did you mean {PREFIX}{}?", known.to_uppercase().replace('.', "__"))
                }
                (Some(known), _) => match split(known).0 {
                    table if table == split(&plain).0 => format!("did you mean {known}?"),
                    "" => format!("did you mean {known}? it belongs above the first [table]"),
                    table => format!("did you mean {known}? it belongs under [{table}]"),
                },
            };
            self.faults.push(origin, path, "unknown setting", advice);
        }
    }

    /// The known setting that `path` was probably meant to be: misspelled, or in the wrong table.
    fn meant(&self, path: &str) -> Option<&str> {
        let (table, key) = split(path);
        let near = |word: &str, known: &str| distance(word, known).filter(|&slips| slips <= slips_max(word));
        let cost = |known: &str| match split(known) {
            (known_table, known_key) if known_table == table => near(key, known_key).map(|slips| 2 * slips),
            // A word that exists elsewhere is likelier meant than one here with two slips.
            (known_table, known_key) if known_key == key => {
                Some(if near(table, known_table).is_some() { 2 } else { 3 })
            }
            _ => None,
        };
        let costs = self.known.iter().filter_map(|known| Some((cost(known)?, known)));
        costs.min_by_key(|&(cost, _)| cost).map(|(_, known)| known.as_str())
    }

    fn allowed_beside(&self, path: &str) -> String {
        let (table, _) = split(path);
        let known = self.known.iter().map(|known| split(known));
        let beside: Vec<&str> = known.filter(|&(other, _)| other == table).map(|(_, key)| key).collect();
        match (table, beside.is_empty()) {
            ("", _) => format!("allowed at the top: {}", beside.join(", ")),
            (_, true) => "see docs/holdfast.toml for all settings".to_owned(),
            (_, false) => format!("allowed in {table}: {}", beside.join(", ")),
        }
    }
}

/// One table while it is read.
pub(super) struct Section<'r> {
    reader: &'r mut Reader,
    /// As faults name it: `site[2].route[1]`; empty at the top.
    path: String,
    table: Table,
    origin: Origin,
    asked: BTreeSet<&'static str>,
}

impl Section<'_> {
    /// `true` or `false`.
    pub(super) fn flag(&mut self, key: &'static str, default: bool) -> bool {
        let parse = |node: &Node| node.flag().ok_or_else(|| Wrong::new(node.shown(), "true or false"));
        self.take(key, default, parse, bool::to_string)
    }

    /// A whole number within `range`.
    pub(super) fn number<N>(&mut self, key: &'static str, default: N, range: RangeInclusive<N>) -> N
    where
        N: Copy + PartialOrd + std::fmt::Display + TryFrom<i64>,
    {
        let parse = |node: &Node| {
            let number = node.whole().and_then(|number| N::try_from(number).ok());
            number.filter(|number| range.contains(number)).ok_or_else(|| {
                Wrong::new(node.shown(), format!("a whole number from {} to {}", range.start(), range.end()))
            })
        };
        self.take(key, default, parse, N::to_string)
    }

    /// A duration; default and bounds are written as in the file.
    pub(super) fn span(&mut self, key: &'static str, default: &str, range: RangeInclusive<&str>) -> Duration {
        self.measure(key, default, range, "a duration", parse_span, |span| show_span(*span))
    }

    /// A size in bytes; default and bounds are written as in the file.
    pub(super) fn size(&mut self, key: &'static str, default: &str, range: RangeInclusive<&str>) -> u64 {
        self.measure(key, default, range, "a size", parse_size, |bytes| show_size(*bytes))
    }

    /// A percentage; default and bounds are written as in the file.
    pub(super) fn share(&mut self, key: &'static str, default: &str, range: RangeInclusive<&str>) -> Share {
        self.measure(key, default, range, "a percentage", parse_share, |share| show_share(*share))
    }

    /// One of a closed set of words.
    pub(super) fn choice<T: Copy + PartialEq>(
        &mut self,
        key: &'static str,
        default: T,
        words: &[(&'static str, T)],
    ) -> T {
        let parse = |node: &Node| {
            let known: Vec<&str> = words.iter().map(|&(word, _)| word).collect();
            let Some(text) = node.text() else {
                let list = known.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(", ");
                return Err(Wrong::new(node.shown(), list));
            };
            let value = words.iter().find(|&&(word, _)| word == text).map(|&(_, value)| value);
            value.ok_or_else(|| Wrong::word(&text, &known))
        };
        let show = |value: &T| {
            toml_text(words.iter().find(|(_, known)| known == value).map_or("", |&(word, _)| word))
        };
        self.take(key, default, parse, show)
    }

    /// One of a few HTTP statuses.
    pub(super) fn status<T: Copy + PartialEq>(
        &mut self,
        key: &'static str,
        default: T,
        statuses: &[(u16, T)],
    ) -> T {
        let parse = |node: &Node| {
            let known = |number| statuses.iter().find(|&&(status, _)| i64::from(status) == number);
            node.whole().and_then(known).map(|&(_, value)| value).ok_or_else(|| {
                let all: Vec<String> = statuses.iter().map(|(status, _)| status.to_string()).collect();
                Wrong::new(node.shown(), all.join(", "))
            })
        };
        let show = |value: &T| {
            statuses.iter().find(|(_, known)| known == value).map_or_else(String::new, |(s, _)| s.to_string())
        };
        self.take(key, default, parse, show)
    }

    /// A text that `parse` makes into a value.
    pub(super) fn text<T: Clone>(
        &mut self,
        key: &'static str,
        default: T,
        allowed: &str,
        parse: impl FnOnce(&str) -> Result<T, Wrong>,
        show: impl Fn(&T) -> String,
    ) -> T {
        let parse = |node: &Node| match node.text() {
            Some(text) => parse(&text),
            None => Err(Wrong::new(node.shown(), allowed)),
        };
        self.take(key, default, parse, |value| toml_text(&show(value)))
    }

    /// A text without which the table means nothing; `None` after a fault.
    pub(super) fn required<T: Clone>(
        &mut self,
        key: &'static str,
        allowed: &str,
        parse: impl FnOnce(&str) -> Result<T, Wrong>,
        show: impl Fn(&T) -> String,
    ) -> Option<T> {
        if !self.table.contains_key(key) {
            self.missing(key, allowed);
        }
        let value = self.text(
            key,
            None,
            allowed,
            |text| parse(text).map(Some),
            |value| value.as_ref().map_or_else(String::new, &show),
        );
        self.without_default();
        value
    }

    /// A list of texts of which `parse` makes values, each with the place where it stands; those
    /// that it refuses are reported one by one.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        default: &[&str],
        allowed: &str,
        mut parse: impl FnMut(&str) -> Result<T, Wrong>,
    ) -> Vec<(T, Origin)> {
        self.ask(key);
        let written = self.table.get(key).map(|node| (node.list(), node.shown(), node.origin.clone()));
        let origin = written.as_ref().map(|(_, _, origin)| origin.clone());
        let items = match written {
            None => {
                let unwritten = |text: &&str| (Some((*text).to_owned()), String::new(), self.origin.clone());
                default.iter().map(unwritten).collect()
            }
            Some((Some(items), ..)) => items
                .iter()
                .map(|item| (item.text().map(String::from), item.shown(), item.origin.clone()))
                .collect(),
            Some((None, shown, origin)) => vec![(None, shown, origin)],
        };
        let mut texts = Vec::new();
        let mut values = Vec::new();
        for (text, shown, origin) in items {
            let parsed = text.as_deref().map_or_else(|| Err(Wrong::new(shown, allowed)), &mut parse);
            texts.extend(text);
            match parsed {
                Ok(value) => values.push((value, origin)),
                Err(wrong) => self.push(origin, key, wrong),
            }
        }
        let default = Some(toml_list(default.iter().copied()));
        self.note(key, toml_list(texts.iter().map(String::as_str)), default, origin);
        values
    }

    /// Reads `[key]`, which may be absent.
    pub(super) fn table<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
        self.ask(key);
        let path = join(&self.path, key);
        let (table, origin) = match self.table.remove(key) {
            None => (Table::new(), self.origin.clone()),
            Some(Node { value: Value::Table(table), origin }) => (table, origin),
            Some(node) => {
                let wrong = Wrong::new(node.shown(), format!("a table, [{}]", unnumbered(&path)));
                self.push(node.origin.clone(), key, wrong);
                (Table::new(), node.origin)
            }
        };
        self.reader.section(path, table, origin, read)
    }

    /// Reads every `[[key]]`, with the table's origin.
    pub(super) fn tables<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Section<'_>) -> T,
    ) -> Vec<T> {
        self.ask(key);
        let path = join(&self.path, key);
        let array = format!("tables, each headed [[{}]]", unnumbered(&path));
        let items = match self.table.remove(key) {
            None => return Vec::new(),
            Some(Node { value: Value::List(items), .. }) => items,
            Some(Node { value: Value::Table(_), origin: origin @ Origin::Variable(_) }) => {
                let found = format!("found no [[{}]] in the file", unnumbered(&path));
                let advice = format!("write it there, or set {PREFIX}{} to [{{ … }}]", key.to_uppercase());
                self.reader.faults.push(origin, path, found, advice);
                return Vec::new();
            }
            Some(node) => {
                self.push(node.origin.clone(), key, Wrong::new(node.shown(), array));
                return Vec::new();
            }
        };
        let mut values = Vec::new();
        for (index, item) in items.into_iter().enumerate() {
            let shown = item.shown();
            match item.value {
                Value::Table(table) => {
                    let path = format!("{path}[{}]", index + 1);
                    values.push(self.reader.section(path, table, item.origin, &mut read));
                }
                _ => self.push(item.origin, key, Wrong::new(shown, &array)),
            }
        }
        values
    }

    /// Reports something about `key` that its type alone does not say.
    pub(super) fn fault(&mut self, key: &'static str, found: impl Into<String>, advice: impl Into<String>) {
        let origin = self.origin_of(key);
        self.reader.faults.push(origin, join(&self.path, key), found, advice);
    }

    /// Reports something about a setting that was read before, in whatever table.
    pub(super) fn fault_at(
        &mut self,
        origin: Origin,
        path: String,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.reader.faults.push(origin, path, found, advice);
    }

    /// Reports that `key` is not there.
    pub(super) fn missing(&mut self, key: &'static str, allowed: &str) {
        let path = join(&self.path, key);
        self.reader.faults.push_missing(self.origin.clone(), path, format!("allowed: {allowed}"));
    }

    /// Where `key` stands, else where its table begins.
    pub(super) fn origin_of(&self, key: &str) -> Origin {
        self.table.get(key).map_or_else(|| self.origin.clone(), |node| node.origin.clone())
    }

    /// Where the setting of that full name stands, which was read before.
    pub(super) fn setting_origin(&self, name: &str) -> Origin {
        let setting = self.reader.listing.find(name);
        setting.and_then(|setting| setting.origin.clone()).unwrap_or(Origin::File)
    }

    /// Says that the setting read last has no default.
    pub(super) fn without_default(&mut self) {
        self.reader.listing.without_default();
    }

    /// Whether `key` is written anywhere.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Whether `key` is written as a list of nothing.
    pub(super) fn is_empty_list(&self, key: &str) -> bool {
        self.table.get(key).and_then(Node::list).is_some_and(|items| items.is_empty())
    }

    /// `path` as seen from the file's folder.
    pub(super) fn resolve(&self, path: &str) -> PathBuf {
        self.reader.folder.join(path)
    }

    /// The name of this table as faults show it.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    fn measure<T: Copy + PartialOrd>(
        &mut self,
        key: &'static str,
        default: &str,
        range: RangeInclusive<&str>,
        noun: &str,
        read: impl Fn(&str) -> Option<T>,
        show: impl Fn(&T) -> String,
    ) -> T {
        let ours = |text| read(text).expect("defaults and bounds in the code are well formed");
        let (low, high) = (ours(range.start()), ours(range.end()));
        let default = ours(default);
        let parse = |node: &Node| {
            let value = node.text().and_then(|text| read(&text));
            value.filter(|value| (low..=high).contains(value)).ok_or_else(|| {
                Wrong::new(
                    node.shown(),
                    format!("{noun} from {} to {}", quoted(&show(&low)), quoted(&show(&high))),
                )
            })
        };
        self.take(key, default, parse, |value| toml_text(&show(value)))
    }

    fn take<T: Clone>(
        &mut self,
        key: &'static str,
        default: T,
        parse: impl FnOnce(&Node) -> Result<T, Wrong>,
        show: impl Fn(&T) -> String,
    ) -> T {
        self.ask(key);
        let shown = show(&default);
        let (value, origin) = match self.table.get(key) {
            None => (default, None),
            Some(node) => {
                let origin = node.origin.clone();
                let value = parse(node).unwrap_or_else(|wrong| {
                    self.push(origin.clone(), key, wrong);
                    default
                });
                (value, Some(origin))
            }
        };
        self.note(key, show(&value), Some(shown), origin);
        value
    }

    fn ask(&mut self, key: &'static str) {
        self.asked.insert(key);
        self.reader.known.insert(join(&unnumbered(&self.path), key));
    }

    fn note(&mut self, key: &'static str, value: String, default: Option<String>, origin: Option<Origin>) {
        self.reader.listing.push(Setting { table: self.path.clone(), key, value, default, origin });
    }

    fn push(&mut self, origin: Origin, key: &str, wrong: Wrong) {
        self.reader.faults.push(origin, join(&self.path, key), wrong.found, wrong.advice);
    }
}

/// Reads an IP address with its port.
pub(super) fn parse_address(text: &str) -> Result<SocketAddr, Wrong> {
    text.parse().map_err(|_| {
        let meant = match text.strip_prefix(':').or_else(|| text.strip_prefix("*:")) {
            Some(port) if port.parse::<u16>().is_ok() => {
                format!("; for all addresses, 0.0.0.0:{port} or [::]:{port}")
            }
            _ => String::new(),
        };
        Wrong::new(
            quoted(text),
            format!("an IP address with a port, such as 0.0.0.0:8080 or [::]:8080{meant}"),
        )
    })
}

/// `site[2].route[1]` without its numbers.
pub(super) fn unnumbered(path: &str) -> String {
    let mut inside = false;
    path.chars()
        .filter(|&c| {
            inside = c == '[' || inside && c != ']';
            !inside && c != ']'
        })
        .collect()
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('.').unwrap_or(("", path))
}
