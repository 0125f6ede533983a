//! A platform's own tables: the statements of `[links]` and `[deliver]`, or those of a preset.

use crate::database::Source;
use crate::database::postgres::Reading;
use crate::route::presets;

use super::Config;
use super::fault::{Wrong, quoted};
use super::reader::Section;
use super::tables::optional;

const SQL: &str = "a statement in PostgreSQL's SQL, or \"\" for none";

/// `links.preload`, `links.changed`, `links.lookup` and `links.namespace` as they stand.
#[derive(Clone, Debug, Default)]
pub(super) struct Links {
    preload: Option<String>,
    changed: Option<String>,
    lookup: Option<String>,
    namespace: Option<String>,
}

/// Reads what `[links]` says of a platform's own tables.
pub(super) fn read_links(s: &mut Section<'_>) -> Links {
    Links {
        preload: optional(s, "preload", SQL),
        changed: optional(s, "changed", SQL),
        lookup: optional(s, "lookup", SQL),
        namespace: optional(s, "namespace", "a namespace, or \"\" for the one that all sites share"),
    }
}

/// Reads `deliver.statements`.
pub(super) fn read_statements(s: &mut Section<'_>) -> Vec<String> {
    let parse = |text: &str| match text.trim() {
        "" => Err(Wrong::new(quoted(text), SQL)),
        _ => Ok(text.to_owned()),
    };
    let statements = s.list("statements", &[], "a list of statements in PostgreSQL's SQL", parse);
    statements.into_iter().map(|(statement, _)| statement).collect()
}

/// Reads `database.preset`.
pub(super) fn read_preset(s: &mut Section<'_>) -> Option<presets::Schema> {
    let parse = |name: &str| match presets::schema(name) {
        Some(schema) => Ok(Some((name.to_owned(), schema))),
        None if name.is_empty() => Ok(None),
        None => Err(Wrong::word(name, &presets::with_schema().collect::<Vec<_>>())),
    };
    let show = |preset: &Option<(String, presets::Schema)>| {
        preset.as_ref().map_or_else(String::new, |(name, _)| name.clone())
    };
    let preset = s.text("preset", None, "the name of a system whose tables are used, or \"\"", parse, show);
    preset.map(|(_, schema)| schema)
}

/// Puts everything together: what is written counts before the preset.
pub(super) fn compose(
    s: &mut Section<'_>,
    config: &mut Config,
    links: Links,
    statements: Vec<String>,
    preset: Option<presets::Schema>,
) {
    let preset = preset.unwrap_or_default();
    let or =
        |written: Option<String>, preset: String| written.or_else(|| (!preset.is_empty()).then_some(preset));
    let statements = if statements.is_empty() { preset.statements } else { statements };
    let preload = or(links.preload, preset.preload);
    let changed = or(links.changed, preset.changed);
    let lookup = or(links.lookup, preset.lookup);
    if preload.is_none() && changed.is_none() && lookup.is_none() && statements.is_empty() {
        return;
    }
    let mut fault = |name: &str, found: &str, advice: &str| {
        s.fault_at(s.setting_origin(name), name.to_owned(), found, advice);
    };
    let reading = match (preload, lookup) {
        (Some(preload), Some(lookup)) => Some((preload, lookup)),
        (None, None) if changed.is_none() => None,
        (None, _) => {
            fault(
                "links.preload",
                "missing, though links.changed or links.lookup is there",
                "add it: it gives every link",
            );
            return;
        }
        (Some(_), None) => {
            fault("links.lookup", "missing, though links.preload is there", "add it: it gives one link");
            return;
        }
    };
    let Source::Postgres(settings) = config.database.source.clone() else {
        let setting = if reading.is_some() { "links.preload" } else { "deliver.statements" };
        fault(
            setting,
            "found statements",
            "leave them out: only a postgres:// database has a platform's own tables",
        );
        return;
    };
    let reading = match reading {
        None => None,
        Some((preload, lookup)) => {
            let mut shared: Vec<&str> = config.sites.iter().map(|site| site.namespace.as_str()).collect();
            shared.sort_unstable();
            shared.dedup();
            let namespace = match (links.namespace, shared.as_slice()) {
                (Some(namespace), _) => namespace,
                (None, [one]) => (*one).to_owned(),
                (None, _) => {
                    let advice = "name the namespace of links for which links.preload gives none";
                    fault("links.namespace", "missing, and the sites have several", advice);
                    return;
                }
            };
            Some(Reading { namespace, preload, changed, lookup })
        }
    };
    let source = Source::Postgres(Box::new(settings.with_reading(reading).with_statements(statements)));
    config.links.follow.database = source.clone();
    config.database.source = source;
}
