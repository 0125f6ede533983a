//! Text → checked configuration, with every fault at once; composes what each module asks for.
//!
//! Invariants:
//! - A [`Config`] exists only when the file, the environment and all files they name have no fault.
//! - It is plain and never changes; what changes at run time is elsewhere.
//! - No fault, listing or `Debug` output holds a secret.
//!
//! It reads the configuration file, the files it names and the machine's name; it writes nothing and
//! asks neither the network nor the clock nor the database.

mod acme;
mod database;
mod fault;
mod files;
mod foreign;
mod listing;
mod nearest;
mod node;
mod reader;
mod sites;
mod tables;
mod tls;
mod units;
mod windows;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::policy::Window;
use crate::record::privacy::Address;

pub use acme::Acme;
pub use database::Database;
pub use fault::{Fault, Origin};
pub use files::Secret;
pub use listing::{Listing, Setting};
pub use sites::Site;
pub use tables::{Admin, AdminAddress, Deliver, Journal, Limits, Links, Listen, Log, LogFormat, Record};
pub use tls::{SiteTls, Tls};
pub use units::{Share, parse_moment, parse_span};

use fault::{Faults, Wrong, quoted};
use reader::{Reader, Section};

/// A checked configuration.
#[derive(Debug)]
pub struct Config {
    /// The name of this edge, which no other edge of the same database has.
    pub edge: String,
    /// The folder that this edge alone keeps its journals and snapshots in.
    pub data: PathBuf,
    /// Where requests come in.
    pub listen: Listen,
    /// Where links come from and hits go to.
    pub database: Database,
    /// What is kept of links in memory.
    pub links: Links,
    /// How hits are kept on the edge's own disk.
    pub journal: Journal,
    /// How hits go into the database.
    pub deliver: Deliver,
    /// What is recorded of a hit.
    pub record: Record,
    /// What may be kept of a client's address.
    pub address: Address,
    /// HTTP within TLS.
    pub tls: Tls,
    /// Metrics, health and actions.
    pub admin: Admin,
    /// Bounds of connections and requests.
    pub limits: Limits,
    /// At least one, each with a name of its own and hosts that no other has.
    pub sites: Vec<Site>,
    /// Planned maintenance.
    pub windows: Vec<Window>,
    /// What the edge says about itself.
    pub log: Log,
    /// Every setting as it took effect.
    pub listing: Listing,
}

/// A configuration is written by people; a longer file is another kind of file.
const FILE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Reads and checks the configuration in `path` with the settings of `env` laid over it.
///
/// Of `env` only the variables that begin with `HOLDFAST__` are looked at.
///
/// # Errors
/// Every fault, in the order of the file, those of the environment last.
pub fn load(path: &Path, env: &[(String, String)]) -> Result<Config, Vec<Fault>> {
    match files::read_text(path, FILE_BYTES_MAX) {
        Ok(text) => parse(&text, path, env),
        Err(wrong) => {
            let advice = match path.exists() {
                true => wrong.advice,
                false => "name it with --config, or make one with `holdfast init`".to_owned(),
            };
            let mut faults = Faults::new(path);
            faults.push(Origin::File, "", wrong.found, advice);
            Err(faults.into_sorted())
        }
    }
}

/// As [`load`], for a configuration that must take effect while `running` does.
///
/// # Errors
/// Every fault; a changed setting that takes effect only at a start is one.
pub fn reload(path: &Path, env: &[(String, String)], running: &Config) -> Result<Config, Vec<Fault>> {
    let config = load(path, env)?;
    let changed = restart_needed(running, &config);
    if changed.is_empty() {
        return Ok(config);
    }
    let mut faults = Faults::new(path);
    for key in changed {
        let (old, new) = (running.listing.find(key), config.listing.find(key));
        let value =
            |setting: Option<&Setting>| setting.map_or_else(String::new, |setting| setting.value.clone());
        let origin = new.and_then(|setting| setting.origin.clone()).unwrap_or(Origin::File);
        let found = format!("found {}, running with {}", value(new), value(old));
        let advice = "it takes effect at a start only: restart, or put the old value back to reload the rest";
        faults.push(origin, key, found, advice);
    }
    Err(faults.into_sorted())
}

/// The settings that differ and cannot take effect in a running edge.
#[must_use]
pub fn restart_needed(old: &Config, new: &Config) -> Vec<&'static str> {
    let value = |config: &Config, key| config.listing.find(key).map(|setting| setting.value.clone());
    START_ONLY.iter().copied().filter(|key| value(old, key) != value(new, key)).collect()
}

/// Settings that are used once, when the edge starts: its identity, sockets, threads, journal and authority.
const START_ONLY: &[&str] = &[
    "edge",
    "data",
    "listen.http",
    "listen.https",
    "listen.threads",
    "listen.backlog",
    "database.down_after",
    "database.up_after",
    "database.probe_every",
    "links.cache_entries",
    "links.miss_ttl",
    "links.lookup_deadline",
    "links.lookups_max",
    "journal.mode",
    "journal.segment",
    "journal.spare_segments",
    "journal.bytes_max",
    "journal.retain",
    "journal.wait_ms_max",
    "journal.sync_every",
    "journal.pace",
    "journal.when_full",
    "journal.site_share",
    "tls.acme.directory",
    "tls.acme.terms_agreed",
    "tls.acme.contact",
    "tls.acme.roots_file",
    "tls.acme.eab_kid",
    "tls.acme.eab_key",
    "tls.acme.eab_key_file",
    "tls.acme.profile",
    "tls.acme.ways",
    "tls.acme.lock",
    "tls.acme.orders_max",
    "tls.acme.domain_orders_per_week",
    "tls.acme.orders_per_3h",
    "tls.acme.demand_wait",
    "tls.acme.demanded_max",
    "tls.acme.request_timeout",
    "tls.acme.order_timeout",
    "tls.acme.ask.url",
    "tls.acme.ask.roots_file",
    "tls.acme.ask.timeout",
    "tls.acme.ask.at_once",
    "tls.acme.ask.refused_max",
    "tls.acme.ask.refused_for",
    "admin.listen",
    "admin.token_file",
    "log.format",
    "log.level",
];

impl Config {
    /// The configuration as it took effect, as a file that could stand in its place; without secrets.
    #[must_use]
    pub fn effective_toml(&self) -> String {
        self.listing.to_toml()
    }
}

/// Checks the text of the configuration file at `path`.
fn parse(text: &str, path: &Path, env: &[(String, String)]) -> Result<Config, Vec<Fault>> {
    let mut faults = Faults::new(path);
    let mut tree = node::parse(text, &mut faults);
    node::overlay(&mut tree, env, &mut faults);
    let mut reader = Reader::new(faults, path.parent().unwrap_or_else(|| Path::new("")));
    let config = reader.root(tree, read);
    if !reader.faults.is_empty() {
        return Err(reader.faults.into_sorted());
    }
    Ok(Config { listing: reader.listing, ..config })
}

fn read(s: &mut Section<'_>) -> Config {
    let edge = read_edge(s);
    let data = read_data(s);
    let listen = s.table("listen", Listen::read);
    let database = s.table("database", |s| Database::read(s, &edge));
    let mut config = Config {
        links: s.table("links", |s| Links::read(s, &data, &database)),
        journal: s.table("journal", |s| Journal::read(s, &data)),
        deliver: s.table("deliver", |s| Deliver::read(s, &database)),
        record: s.table("record", Record::read),
        address: s.table("privacy", tables::read_privacy),
        tls: s.table("tls", |s| Tls::read(s, !listen.https.is_empty())),
        admin: s.table("admin", Admin::read),
        limits: s.table("limits", Limits::read),
        log: s.table("log", Log::read),
        sites: sites::read(s),
        windows: s.tables("window", windows::read).into_iter().flatten().collect(),
        listing: Listing::default(),
        edge,
        data,
        listen,
        database,
    };
    let links = std::mem::take(&mut config.links.foreign);
    let statements = std::mem::take(&mut config.deliver.statements);
    let preset = config.database.preset.take();
    foreign::compose(s, &mut config, links, statements, preset);
    check_listeners(s, &config);
    check_redirects(s, &config);
    check_default_site(s, &config);
    config
}

fn read_edge(s: &mut Section<'_>) -> String {
    let host = files::host_name().and_then(|name| parse_name(&name).ok());
    if host.is_none() && !s.has("edge") {
        s.missing("edge", &format!("{NAME}; this machine has no name to take instead"));
    }
    s.text("edge", host.unwrap_or_default(), NAME, parse_name, String::clone)
}

fn read_data(s: &mut Section<'_>) -> PathBuf {
    let data = s.text("data", "data".to_owned(), "a folder", |text| Ok(text.to_owned()), String::clone);
    let folder = s.resolve(&data);
    if let Err(wrong) = files::check_folder(&folder) {
        s.fault("data", format!("{} {}", quoted(&data), wrong.found), wrong.advice);
    }
    folder
}

const NAME: &str = "a name of 1 to 64 letters, digits, - _ or .";

/// Names of edges and sites stand in metrics, tables and variables.
fn parse_name(text: &str) -> Result<String, Wrong> {
    let is_part = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    match (1..=64).contains(&text.len()) && text.bytes().all(is_part) {
        true => Ok(text.to_owned()),
        false => Err(Wrong::new(quoted(text), NAME)),
    }
}

fn check_listeners(s: &mut Section<'_>, config: &Config) {
    let is_same = |one: &SocketAddr, other: &SocketAddr| {
        one.port() == other.port()
            && one.port() != 0
            && (one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified())
    };
    let mut pairs = Vec::new();
    let public = [("listen.http", &config.listen.http), ("listen.https", &config.listen.https)];
    if let AdminAddress::Tcp(admin) = config.admin.listen {
        for (key, addresses) in public {
            pairs.extend(addresses.iter().map(|&address| (key, address, "admin.listen", admin)));
        }
    }
    for &https in &config.listen.https {
        pairs.extend(config.listen.http.iter().map(|&http| ("listen.http", http, "listen.https", https)));
    }
    for (first, one, second, other) in pairs {
        if is_same(&one, &other) {
            // Whoever wrote only one of the two wrote the one to change.
            let key = if s.setting_origin(second) == Origin::File { first } else { second };
            s.fault_at(
                s.setting_origin(key),
                key.to_owned(),
                format!("found {one} for {first} and {other} for {second}"),
                "give each listener a port of its own",
            );
        }
    }
}

/// Nobody is sent where nothing listens.
fn check_redirects(s: &mut Section<'_>, config: &Config) {
    if !config.listen.https.is_empty() {
        return;
    }
    for (at, site) in config.sites.iter().enumerate() {
        if site.tls.redirect.is_some() {
            let key = format!("site[{}].https_redirect", at + 1);
            let found = "found a redirect, and no address in listen.https".to_owned();
            let advice = "name the addresses for https in listen.https, or \"off\" here";
            s.fault_at(s.setting_origin(&key), key, found, advice);
        }
    }
}

fn check_default_site(s: &mut Section<'_>, config: &Config) {
    let Some(wanted) = &config.listen.default_site else { return };
    if !config.sites.iter().any(|site| site.name == *wanted) {
        let names: Vec<&str> = config.sites.iter().map(|site| site.name.as_str()).collect();
        let Wrong { found, advice } = Wrong::word(wanted, &names);
        let origin = s.setting_origin("listen.default_site");
        s.fault_at(origin, "listen.default_site".to_owned(), format!("{found}, which is no site"), advice);
    }
}
