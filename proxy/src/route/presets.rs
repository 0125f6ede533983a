//! The routes of known systems by name, as data compiled in.

use serde::Deserialize;

use super::{Image, Manner, RawRoute, Redirect, Unknown};
use crate::event::Kind;

const PRESETS: &[(&str, &str)] = &[
    ("dotdigital", include_str!("presets/dotdigital.toml")),
    ("listmonk", include_str!("presets/listmonk.toml")),
];

/// The names of all presets.
pub fn names() -> impl Iterator<Item = &'static str> {
    PRESETS.iter().map(|(name, _)| *name)
}

/// The routes of a system, in the order in which they are tried; `None` for an unknown name.
#[must_use]
pub fn routes(name: &str) -> Option<Vec<RawRoute>> {
    Some(file(name)?.route.into_iter().map(Entry::into_raw).collect())
}

/// The statements for a system's own tables, each as the setting of the same name; see
/// `docs/holdfast.toml`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schema {
    /// `links.preload`.
    pub preload: String,
    /// `links.changed`.
    pub changed: String,
    /// `links.lookup`.
    pub lookup: String,
    /// `deliver.statements`.
    pub statements: Vec<String>,
}

/// The statements of a system; `None` for an unknown name and for a system whose tables are not known.
#[must_use]
pub fn schema(name: &str) -> Option<Schema> {
    file(name)?.schema
}

/// The names of the presets that have statements.
pub fn with_schema() -> impl Iterator<Item = &'static str> {
    names().filter(|name| schema(name).is_some())
}

fn file(name: &str) -> Option<File> {
    let (_, text) = PRESETS.iter().find(|(own, _)| *own == name)?;
    Some(toml::from_str(text).expect("a test reads every preset"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    route: Vec<Entry>,
    schema: Option<Schema>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    kind: String,
    path: String,
    #[serde(default)]
    token: Vec<String>,
    #[serde(default)]
    append: String,
    redirect: Option<u16>,
    unknown: Option<u16>,
    image: Option<String>,
}

impl Entry {
    fn into_raw(self) -> RawRoute {
        let kind = Kind::from_label(&self.kind).expect("a test reads every preset");
        let usual = Manner::default();
        let known = "a test reads every preset";
        let redirect = |status| Redirect::ALL.iter().find(|all| all.status() == status).expect(known);
        let unknown = |status| Unknown::ALL.iter().find(|all| all.status() == status).expect(known);
        let image = |label| Image::ALL.iter().find(|all| all.label() == label).expect(known);
        let manner = Manner {
            redirect: self.redirect.map_or(usual.redirect, |status| *redirect(status)),
            unknown: self.unknown.map_or(usual.unknown, |status| *unknown(status)),
            image: self.image.map_or(usual.image, |label| *image(label)),
        };
        RawRoute { kind, path: self.path, token: self.token, append: self.append, manner }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{Route, Routes};

    #[test]
    fn every_preset_is_whole() {
        for name in names() {
            let routes: Vec<_> = routes(name)
                .expect("preset")
                .iter()
                .map(|raw| Route::new(raw).unwrap_or_else(|faults| panic!("{name}: {faults:?}")))
                .collect();
            assert!(!routes.is_empty(), "{name}");
            assert_eq!(Routes::new(routes).shadowed(), [], "{name}");
        }
        assert_eq!(routes("unheard-of"), None);
    }
}
