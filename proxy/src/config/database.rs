//! `[database]`: where links come from and hits go to, and when it counts as down.

use std::time::Duration;

use super::fault::{Wrong, quoted};
use super::reader::Section;
use super::tables::optional;
use super::{files, foreign};
use crate::database::postgres::{self, AddressFault, Pooler, Settings};
use crate::database::{Migrate, Source};
use crate::policy;
use crate::route::presets;

/// What an address may look like.
const ALLOWED: &str = "\"sqlite:FILE\", FILE relative to the configuration's folder, or ";
const SCHEMA: &str = "a name of 1 to 63 letters, digits or _, which begins with none of the digits";

/// `[database]`: where links come from and hits go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    /// Which database, and how to reach it.
    pub source: Source,
    /// Whether the schema is brought up to date at start.
    pub migrate: Migrate,
    /// How often changed links are asked for.
    pub poll: Duration,
    /// The longest that one statement may take, waits for locks included.
    pub timeout: Duration,
    /// When it counts as down and as up again.
    pub health: policy::Config,
    pub(super) preset: Option<presets::Schema>,
}

impl Database {
    /// Reads the table for the edge of that name.
    pub(super) fn read(s: &mut Section<'_>, edge: &str) -> Self {
        let source = read_source(s);
        let schema = s.text("schema", "holdfast".to_owned(), SCHEMA, parse_schema, String::clone);
        let poolers = [("none", Pooler::None), ("transaction", Pooler::Transaction)];
        let pooler = s.choice("pooler", Pooler::None, &poolers);
        let password = read_password(s, &source);
        let source = match source {
            Source::Postgres(settings) => {
                let settings = settings.with_schema(schema).with_pooler(pooler).with_edge(edge.to_owned());
                let settings = match password {
                    Some(password) => settings.with_password(password.expose()),
                    None => settings,
                };
                Source::Postgres(Box::new(settings))
            }
            file => file,
        };
        Self {
            source,
            migrate: s.choice(
                "migrate",
                Migrate::Auto,
                &[("auto", Migrate::Auto), ("never", Migrate::Never)],
            ),
            poll: s.span("poll", "200ms", "10ms"..="1m"),
            timeout: s.span("timeout", "2s", "10ms"..="5m"),
            health: read_health(s),
            preset: foreign::read_preset(s),
        }
    }
}

fn read_source(s: &mut Section<'_>) -> Source {
    let allowed = format!("{ALLOWED}{}", postgres::ADDRESS);
    let default = "sqlite:holdfast.db".to_owned();
    let url = s.text("url", default, &allowed, |url| check_url(url, &allowed), |url| postgres::masked(url));
    let Some(file) = url.strip_prefix("sqlite:") else {
        let parsed = Settings::parse(&url, |file| s.resolve(file));
        match parsed.and_then(|settings| settings.check_files().map(|()| settings)) {
            Ok(settings) => return Source::Postgres(Box::new(settings)),
            Err(AddressFault { found, allowed }) => {
                s.fault("url", format!("found {found}"), format!("allowed: {allowed}"));
                return Source::Sqlite(s.resolve("holdfast.db"));
            }
        }
    };
    Source::Sqlite(s.resolve(file))
}

fn read_password(s: &mut Section<'_>, source: &Source) -> Option<files::Secret> {
    let file = optional(s, "password_file", "the name of a file, or \"\" for none")?;
    if let Source::Sqlite(_) = source {
        s.fault("password_file", "found a file", "leave it out: only a postgres:// address has a password");
        return None;
    }
    match files::read_password(&s.resolve(&file)) {
        Ok(password) => Some(password),
        Err(wrong) => {
            // Not even the name is repeated: it may be the password itself, written in the wrong place.
            s.fault("password_file", format!("the file {}", wrong.found), wrong.advice);
            None
        }
    }
}

fn read_health(s: &mut Section<'_>) -> policy::Config {
    let default = policy::Config::default();
    let down_after = s.number("down_after", 3, 1..=1000);
    let up_after = s.number("up_after", 2, 1..=1000);
    let probe_every = s.span("probe_every", "1s", "100ms"..="10m");
    policy::Config {
        down_after,
        up_after,
        probe_every,
        probe_every_max: default.probe_every_max.max(probe_every),
    }
}

fn check_url(url: &str, allowed: &str) -> Result<String, Wrong> {
    match url.split_once(':') {
        Some(("sqlite", file)) if !file.is_empty() && !file.starts_with("//") && !file.contains('\0') => {
            Ok(url.to_owned())
        }
        // What follows is looked at when it is taken apart.
        Some(("postgres" | "postgresql", rest)) if rest.starts_with("//") => Ok(url.to_owned()),
        // An address may hold a password, so none is repeated.
        Some((scheme, _)) if !scheme.is_empty() && scheme.len() < 20 => {
            Err(Wrong::new(format!("an address that begins with {}", quoted(&format!("{scheme}:"))), allowed))
        }
        _ => Err(Wrong::new("no such address", allowed)),
    }
}

fn parse_schema(text: &str) -> Result<String, Wrong> {
    let is_part = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let begins = text.bytes().next().is_some_and(|b| !b.is_ascii_digit());
    match begins && text.len() <= 63 && text.bytes().all(is_part) {
        true => Ok(text.to_owned()),
        false => Err(Wrong::new(quoted(text), SCHEMA)),
    }
}
