//! Text and environment → one tree of values, each of which knows where it was written.
//!
//! It knows TOML and the form of the variables' names, not one setting.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::fault::{Faults, Origin, quoted};
use super::nearest::nearest;

/// Variables with this prefix are settings; all others are not ours.
pub(super) const PREFIX: &str = "HOLDFAST__";
/// Lines that are not TOML are reported up to this number: a file of another kind has only such lines.
const SYNTAX_FAULTS_MAX: usize = 20;
/// No setting lies deeper.
const DEPTH_MAX: usize = 8;

/// A table's entries by key.
pub(super) type Table = BTreeMap<String, Node>;

/// A value and where it was written.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// A value as near to what was written as possible.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// `true` or `false`.
    Flag(bool),
    List(Vec<Node>),
    /// What no setting is made of, as it was written: a fraction, a date, a huge number.
    Other(String),
    /// An environment variable's text: read as TOML where that fits, else as it is.
    Raw(String),
    Table(Table),
    Text(String),
    Whole(i64),
}

impl Node {
    /// This value as text.
    pub(super) fn text(&self) -> Option<Cow<'_, str>> {
        match &self.value {
            Value::Text(text) => Some(Cow::Borrowed(text)),
            Value::Raw(raw) => match DeValue::parse(raw).map(toml::Spanned::into_inner) {
                Ok(DeValue::String(text)) => Some(Cow::Owned(text.into_owned())),
                _ => Some(Cow::Borrowed(raw)),
            },
            _ => None,
        }
    }

    /// This value as a whole number.
    pub(super) fn whole(&self) -> Option<i64> {
        match &self.value {
            Value::Whole(number) => Some(*number),
            Value::Raw(raw) => match DeValue::parse(raw).ok()?.get_ref() {
                DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok(),
                _ => None,
            },
            _ => None,
        }
    }

    /// This value as yes or no.
    pub(super) fn flag(&self) -> Option<bool> {
        match &self.value {
            Value::Flag(flag) => Some(*flag),
            Value::Raw(raw) => raw.parse().ok(),
            _ => None,
        }
    }

    /// This value as a list: a single text is a list of one, a variable may separate by commas.
    pub(super) fn list(&self) -> Option<Vec<Self>> {
        let node = |value| Self { value, origin: self.origin.clone() };
        match &self.value {
            Value::List(items) => Some(items.clone()),
            Value::Text(text) => Some(vec![node(Value::Text(text.clone()))]),
            Value::Raw(raw) => match DeValue::parse(raw).map(toml::Spanned::into_inner) {
                Ok(DeValue::Array(items)) => {
                    let place = |_| self.origin.clone();
                    Some(
                        items
                            .into_iter()
                            .map(|item| from_toml(item.into_inner(), self.origin.clone(), &place))
                            .collect(),
                    )
                }
                Ok(DeValue::String(text)) => Some(vec![node(Value::Text(text.into_owned()))]),
                _ => Some(raw.split(',').map(|part| node(Value::Text(part.trim().to_owned()))).collect()),
            },
            _ => None,
        }
    }

    /// This value as it is shown in a fault.
    pub(super) fn shown(&self) -> String {
        match &self.value {
            Value::Flag(flag) => flag.to_string(),
            Value::List(_) => "a list".to_owned(),
            Value::Other(text) => text.chars().take(60).collect(),
            Value::Raw(text) | Value::Text(text) => quoted(text),
            Value::Table(_) => "a table".to_owned(),
            Value::Whole(number) => number.to_string(),
        }
    }
}

/// Reads TOML; a line that is none is reported and left out, so that the rest is still checked.
pub(super) fn parse(text: &str, faults: &mut Faults) -> Table {
    let mut text = text.to_owned();
    for _ in 0..SYNTAX_FAULTS_MAX {
        let (table, errors) = DeTable::parse_recoverable(&text);
        let at = |error: &toml::de::Error| error.span().map_or(text.len(), |span| span.start.min(text.len()));
        let Some(first) = errors.iter().min_by_key(|error| at(error)) else {
            let lines = Lines::of(&text);
            let place = |offset| Origin::Line(lines.number(offset));
            return entries(table.into_inner(), &place);
        };
        let offset = at(first);
        faults.push_syntax(Lines::of(&text).number(offset), first.message());
        let Some(shorter) = without_line(&text, offset) else { break };
        text = shorter;
    }
    Table::new()
}

/// Lays the variables that are settings over the file's values; each may replace a value or a table.
pub(super) fn overlay(root: &mut Table, env: &[(String, String)], faults: &mut Faults) {
    let mut ours: Vec<_> = env.iter().filter(|(name, _)| name.starts_with(PREFIX)).collect();
    // A table's own variable comes before those of its entries, whatever order the system gives them in.
    ours.sort();
    for (name, text) in ours {
        let origin = Origin::Variable(Arc::from(name.as_str()));
        let segments: Vec<String> =
            name.get(PREFIX.len()..).unwrap_or_default().split("__").map(str::to_lowercase).collect();
        if segments.len() > DEPTH_MAX || segments.iter().any(String::is_empty) {
            let advice = "allowed: names of tables and settings, such as HOLDFAST__LISTEN__HTTP";
            faults.push(origin, "", "found a name that cannot be one of a setting", advice);
            continue;
        }
        place(root, &segments, "", Node { value: from_variable(text, &origin), origin }, faults);
    }
}

/// Puts `node` at `segments` below `table`, which is called `path` in faults.
fn place(table: &mut Table, segments: &[String], path: &str, node: Node, faults: &mut Faults) {
    let Some((key, rest)) = segments.split_first() else { return };
    if rest.is_empty() {
        table.insert(key.clone(), node);
        return;
    }
    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
    let origin = node.origin.clone();
    let below = table.entry(key.clone()).or_insert(Node { value: Value::Table(Table::new()), origin });
    match &mut below.value {
        Value::Table(table) => place(table, rest, &path, node, faults),
        Value::List(items) => {
            let (wanted, rest) = (&rest[0], rest.get(1..).unwrap_or_default());
            match item(items, wanted) {
                Ok((number, table)) if !rest.is_empty() => {
                    place(table, rest, &format!("{path}[{number}]"), node, faults);
                }
                Ok(_) => faults.push(
                    node.origin,
                    path,
                    "found no setting after the entry's name",
                    format!("allowed: {PREFIX}{}__{}__SETTING", key.to_uppercase(), wanted.to_uppercase()),
                ),
                Err(advice) => faults.push(
                    node.origin,
                    path,
                    format!("found no entry called {}", quoted(wanted)),
                    advice,
                ),
            }
        }
        // The value there is of the wrong type and is reported as such when it is read.
        _ => {}
    }
}

/// The entry of an array of tables that a variable means: by its `name`, else by its number from 1.
fn item<'n>(items: &'n mut [Node], wanted: &str) -> Result<(usize, &'n mut Table), String> {
    let names: Vec<Option<String>> = items.iter().map(|item| folded_name(&item.value)).collect();
    let mut same = names.iter().enumerate().filter(|(_, name)| name.as_deref() == Some(wanted));
    let index = match (same.next(), same.next()) {
        (Some((index, _)), None) => index,
        (Some(_), Some(_)) => return Err("several entries have this name; give each its own".to_owned()),
        (None, _) => match wanted.parse::<usize>().ok().and_then(|number| number.checked_sub(1)) {
            Some(index) if index < items.len() => index,
            _ => {
                let known: Vec<&str> = names.iter().flatten().map(String::as_str).collect();
                let meant = nearest(wanted, known.iter().copied());
                let meant = meant
                    .map_or_else(String::new, |name| format!(" (did you mean {}?)", name.to_uppercase()));
                let known = known.iter().map(|name| format!("{}, ", name.to_uppercase())).collect::<String>();
                return Err(match items.len() {
                    0 => "there is none in the file".to_owned(),
                    count => format!("allowed: {known}or a number from 1 to {count}{meant}"),
                });
            }
        },
    };
    match items.get_mut(index).map(|node| &mut node.value) {
        Some(Value::Table(table)) => Ok((index + 1, table)),
        _ => Err("it is no table in the file".to_owned()),
    }
}

/// An entry's `name` as a variable can hold it: lower case, with `_` for all but letters and digits.
fn folded_name(value: &Value) -> Option<String> {
    let Value::Table(table) = value else { return None };
    let name = table.get("name")?.text()?;
    Some(name.chars().map(|c| if c.is_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect())
}

/// Tables and arrays of tables become part of the tree; all else waits for the setting's type.
fn from_variable(text: &str, origin: &Origin) -> Value {
    let place = |_| origin.clone();
    match DeValue::parse(text).map(|value| from_toml(value.into_inner(), origin.clone(), &place).value) {
        Ok(Value::Table(table)) => Value::Table(table),
        Ok(Value::List(items)) if items.iter().any(|item| matches!(item.value, Value::Table(_))) => {
            Value::List(items)
        }
        _ => Value::Raw(text.to_owned()),
    }
}

fn from_toml(value: DeValue<'_>, origin: Origin, place: &dyn Fn(usize) -> Origin) -> Node {
    let value = match value {
        DeValue::Array(items) => Value::List(
            items
                .into_iter()
                .map(|item| {
                    let origin = place(item.span().start);
                    from_toml(item.into_inner(), origin, place)
                })
                .collect(),
        ),
        DeValue::Boolean(flag) => Value::Flag(flag),
        DeValue::Datetime(time) => Value::Other(time.to_string()),
        DeValue::Float(number) => Value::Other(number.as_str().to_owned()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(whole) => Value::Whole(whole),
            Err(_) => Value::Other(number.to_string()),
        },
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Table(table) => Value::Table(entries(table, place)),
    };
    Node { value, origin }
}

fn entries(table: DeTable<'_>, place: &dyn Fn(usize) -> Origin) -> Table {
    let node = |(key, value): (toml::Spanned<Cow<'_, str>>, toml::Spanned<DeValue<'_>>)| {
        let origin = place(key.span().start);
        (key.into_inner().into_owned(), from_toml(value.into_inner(), origin, place))
    };
    table.into_iter().map(node).collect()
}

/// `text` with the line at `offset` emptied; with a table's header goes all up to the next header,
/// for it would be read as part of the table before. `None` when nothing is left to empty.
fn without_line(text: &str, offset: usize) -> Option<String> {
    let mut lines: Vec<&str> = text.split('\n').collect();
    let at = Lines::of(text).number(offset) as usize;
    // What is left open may be noticed on a later, empty line.
    let start = (0..at.min(lines.len())).rev().find(|&i| !lines[i].trim().is_empty())?;
    let is_header = |line: &str| line.trim_start().starts_with('[');
    let end = if is_header(lines[start]) {
        (start + 1..lines.len()).find(|&i| is_header(lines[i])).unwrap_or(lines.len())
    } else {
        start + 1
    };
    lines[start..end].fill("");
    Some(lines.join("\n"))
}

/// The offsets at which lines begin.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect())
    }

    /// The number, from 1, of the line that holds the byte at `offset`.
    fn number(&self, offset: usize) -> u32 {
        u32::try_from(self.0.partition_point(|&start| start <= offset)).unwrap_or(u32::MAX)
    }
}
