//! Every setting as it took effect, with its default and where it was written; prints as TOML.
//!
//! It holds no secrets: a setting only names the file that holds one.

use std::collections::{BTreeMap, BTreeSet};

use super::fault::Origin;
use super::reader::unnumbered;

/// One setting as it took effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The table it belongs to, such as `site[2].brand`, counted from 1; empty at the top.
    pub table: String,
    /// Its name in that table.
    pub key: &'static str,
    /// Its value as TOML.
    pub value: String,
    /// Its default as TOML; `None` where there is none.
    pub default: Option<String>,
    /// Where it was written; `None` when nobody wrote it.
    pub origin: Option<Origin>,
}

impl Setting {
    /// The setting's full name, such as `journal.wait_ms_max`.
    #[must_use]
    pub fn name(&self) -> String {
        if self.table.is_empty() { self.key.to_owned() } else { format!("{}.{}", self.table, self.key) }
    }
}

/// All settings in the order in which they are read, a table's own before those of its tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    settings: Vec<Setting>,
}

impl Listing {
    /// Every setting.
    #[must_use]
    pub fn settings(&self) -> &[Setting] {
        &self.settings
    }

    /// The setting of that full name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Setting> {
        self.settings.iter().find(|setting| setting.name() == name)
    }

    /// The full names of the settings whose value differs, those that only one of the two has included.
    #[must_use]
    pub fn changes(&self, other: &Self) -> Vec<String> {
        let values = |listing: &Self| -> BTreeMap<String, String> {
            listing.settings.iter().map(|setting| (setting.name(), setting.value.clone())).collect()
        };
        let (before, after) = (values(self), values(other));
        let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        names.into_iter().filter(|&name| before.get(name) != after.get(name)).cloned().collect()
    }

    /// A file that sets every setting to the value it has, each with the place it comes from.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        let mut table = "";
        for setting in &self.settings {
            if setting.table != table {
                table = &setting.table;
                let name = unnumbered(table);
                let header = if table.ends_with(']') { format!("[[{name}]]") } else { format!("[{name}]") };
                text.push_str(&format!("\n{header}\n"));
            }
            let origin = match &setting.origin {
                None => "default".to_owned(),
                Some(Origin::File) => "file".to_owned(),
                Some(Origin::Line(line)) => format!("line {line}"),
                Some(Origin::Variable(name)) => name.to_string(),
            };
            text.push_str(&format!("{} = {} # {origin}\n", setting.key, setting.value));
        }
        text
    }

    pub(super) fn push(&mut self, setting: Setting) {
        self.settings.push(setting);
    }

    /// Says that the setting noted last has no default.
    pub(super) fn without_default(&mut self) {
        if let Some(setting) = self.settings.last_mut() {
            setting.default = None;
        }
    }
}

/// A text as a TOML string.
pub(super) fn toml_text(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Texts as a TOML array.
pub(super) fn toml_list<'a>(items: impl Iterator<Item = &'a str>) -> String {
    format!("[{}]", items.map(toml_text).collect::<Vec<_>>().join(", "))
}
