//! The tables of the configuration but for the sites: every setting, its type, default and bounds.
//!
//! A default must be one that can be defended for most; `docs/holdfast.toml` does so, and a test
//! holds the two together.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::deliver;
use crate::follow;
use crate::front::peers::Network;
use crate::journal::{self, Mode};
use crate::links::guard;
use crate::record::privacy::Address;
use crate::record::{self, WhenFull};
use crate::resolve::look_ups;

use super::database::Database;
use crate::route::HostPattern;

use super::fault::{Wrong, quoted};
use super::files::{self, Secret};
use super::foreign;
use super::reader::{Section, parse_address};
use super::tls;
use super::units::{Share, show_size, show_span};

/// `[listen]`: where requests come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Addresses for HTTP, at least one.
    pub http: Vec<SocketAddr>,
    /// Addresses for HTTP within TLS.
    pub https: Vec<SocketAddr>,
    /// Who must begin a connection with a header of the PROXY protocol.
    pub proxy_protocol: Box<[Network]>,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Box<[Network]>,
    /// The names and addresses by which clients reach the edges.
    pub public: Vec<String>,
    /// Data threads; 0 is one per core.
    pub threads: usize,
    /// Connections that wait to be accepted, per socket.
    pub backlog: u32,
    /// The site that answers for unknown hosts; without one they get 421.
    pub default_site: Option<String>,
    /// How long connections are still accepted once the edge is told to stop.
    pub drain_min: Duration,
    /// When connections that are still open are closed.
    pub drain_max: Duration,
}

impl Listen {
    pub(super) fn read(s: &mut Section<'_>) -> Self {
        let http = Self::read_addresses(s, "http", "listen.http", &["0.0.0.0:8080"]);
        if s.is_empty_list("http") {
            s.fault("http", "found no address", "allowed: at least one, such as 0.0.0.0:8080");
        }
        let listen = Self {
            http,
            https: Self::read_addresses(s, "https", "listen.https", &[]),
            proxy_protocol: tls::read_networks(s, "proxy_protocol"),
            trusted_proxies: tls::read_networks(s, "trusted_proxies"),
            public: Self::read_public(s),
            threads: s.number("threads", 0, 0..=1024),
            backlog: s.number("backlog", 4096, 16..=65_535),
            default_site: optional(s, "default_site", "the name of a site, or \"\" for none"),
            drain_min: s.span("drain_min", "5s", "0s"..="10m"),
            drain_max: s.span("drain_max", "30s", "1s"..="1h"),
        };
        if listen.drain_max < listen.drain_min {
            let (found, least) = (show_span(listen.drain_max), show_span(listen.drain_min));
            s.fault(
                "drain_max",
                format!("found {found}"),
                format!("allowed: drain_min, which is {least}, or more"),
            );
        }
        listen
    }

    fn read_public(s: &mut Section<'_>) -> Vec<String> {
        let allowed = "a list of host names and addresses such as \"edge.example.com\" or \"192.0.2.1\"";
        let parse = |text: &str| {
            let is_address = text.parse::<std::net::IpAddr>().is_ok();
            match HostPattern::parse(text) {
                _ if is_address => Ok(text.to_owned()),
                Ok(HostPattern::Exact(_)) => Ok(text.to_owned()),
                Ok(HostPattern::Below(_)) | Err(_) => Err(Wrong::new(quoted(text), allowed)),
            }
        };
        s.list("public", &[], allowed, parse).into_iter().map(|(name, _)| name).collect()
    }

    fn read_addresses(
        s: &mut Section<'_>,
        key: &'static str,
        name: &str,
        default: &[&str],
    ) -> Vec<SocketAddr> {
        let allowed = "a list of IP addresses with ports, such as [\"0.0.0.0:8080\"]";
        let mut addresses = Vec::new();
        for (address, origin) in s.list(key, default, allowed, parse_address) {
            if addresses.contains(&address) {
                let found = format!("found {address} twice");
                s.fault_at(origin, name.to_owned(), found, "name each address once");
            }
            addresses.push(address);
        }
        addresses
    }
}

/// `[links]`: what is kept of links in memory, and when a link is forgotten.
#[derive(Clone, Debug)]
pub struct Links {
    /// How the table follows the database.
    pub follow: follow::Config,
    /// How links that are not in memory are looked up and remembered.
    pub look_ups: look_ups::Config,
    pub(super) foreign: foreign::Links,
}

impl Links {
    /// Reads the table; snapshots lie in the folder `data`.
    pub(super) fn read(s: &mut Section<'_>, data: &Path, database: &Database) -> Self {
        let guard = guard::Settings {
            forget_after: s.span("forget_after", "30d", "1h"..="3650d"),
            drop_max_ppm: s.share("drop_max", "1%", "0%"..="100%").parts_per_million(),
        };
        let memory_bytes_max = s.size("memory_max", "4GiB", "16MiB"..="1TiB");
        let reload_every = s.span("reload_every", "6h", "1m"..="7d");
        let overlay_max = s.number("overlay_max", 100_000, 1_000..=100_000_000);
        let cache_entries = s.number("cache_entries", 100_000_u32, 1_000..=100_000_000);
        Self {
            foreign: foreign::read_links(s),
            follow: follow::Config {
                folder: data.join("links"),
                database: database.source.clone(),
                timeout: database.timeout,
                poll: database.poll,
                reload_every,
                overlay_max,
                memory_bytes_max,
                looked_up_max: cache_entries.into(),
                guard,
                domains_max: s.number("domains_max", 200_000_u32, 0..=2_000_000) as usize,
                brands_bytes_max: s.size("brands_max", "256MiB", "1MiB"..="64GiB"),
            },
            look_ups: look_ups::Config {
                entries: cache_entries as usize,
                miss_ttl: s.span("miss_ttl", "5s", "100ms"..="10m"),
                deadline: s.span("lookup_deadline", "250ms", "1ms"..="10s"),
                in_flight_max: s.number("lookups_max", 64, 1..=10_000),
            },
        }
    }
}

/// `[journal]`: how hits are kept on the edge's own disk.
#[derive(Clone, Debug)]
pub struct Journal {
    /// The log itself.
    pub store: journal::Config,
    /// How answers wait for it.
    pub recorder: record::Config,
    /// The share of `store.bytes_max` that one site may fill.
    pub site_share: Share,
}

impl Journal {
    /// Reads the table; journals lie in the folder `data`.
    pub(super) fn read(s: &mut Section<'_>, data: &Path) -> Self {
        let mode = s.choice("mode", Mode::Power, &[("power", Mode::Power), ("process", Mode::Process)]);
        let store = journal::Config {
            mode,
            segment_bytes: s.size("segment", "64MiB", "1MiB"..="1GiB"),
            spare_segments: s.number("spare_segments", 2, 0..=64),
            bytes_max: s.size("bytes_max", "16GiB", "16MiB"..="1024TiB"),
            retain: s.span("retain", "7d", "0s"..="365d"),
            sync_every: s.span("sync_every", "1s", "10ms"..="1s"),
            pace: s.span("pace", "1ms", "0s"..="50ms"),
            ..journal::Config::new(data.join("journal"))
        };
        let when_full = [("redirect", WhenFull::Redirect), ("refuse", WhenFull::Refuse)];
        let recorder = record::Config {
            mode,
            wait_max: Duration::from_millis(s.number("wait_ms_max", 100, 1..=10_000)),
            when_full: s.choice("when_full", WhenFull::Redirect, &when_full),
        };
        // The one being written, the spare ones, and one to compress into.
        let least = (u64::from(store.spare_segments) + 2).saturating_mul(store.segment_bytes);
        if store.bytes_max < least {
            let (found, least) = (show_size(store.bytes_max), show_size(least));
            s.fault(
                "bytes_max",
                format!("found {found}, which is too little for the segments"),
                format!("allowed: at least {least}, which is segment × (spare_segments + 2)"),
            );
        }
        if store.pace > recorder.wait_max {
            let (found, most) = (show_span(store.pace), recorder.wait_max.as_millis());
            s.fault(
                "pace",
                format!("found {found}"),
                format!("allowed: at most wait_ms_max, which is {most}ms, or no answer is synced"),
            );
        }
        Self { store, recorder, site_share: s.share("site_share", "50%", "1%"..="100%") }
    }
}

/// `[deliver]`: how hits go from the journal into the database.
#[derive(Clone, Debug)]
pub struct Deliver {
    /// What one transaction and one second may take, and when to raise an alarm.
    pub pump: deliver::Config,
    /// How often the journal is asked for new hits.
    pub every: Duration,
    pub(super) statements: Vec<String>,
}

impl Deliver {
    /// Reads the table for the edge of that name.
    pub(super) fn read(s: &mut Section<'_>, database: &Database) -> Self {
        Self {
            pump: deliver::Config {
                batch_rows: s.number("batch_rows", 50_000, 1..=1_000_000),
                batch_bytes: s.size("batch_bytes", "16MiB", "64KiB"..="256MiB") as usize,
                rows_per_second_max: s.number("rows_per_second_max", 0, 0..=10_000_000),
                reject_rate_max: s.share("reject_rate_max", "1%", "0%"..="100%").fraction(),
                retry_max: s.span("retry_max", "30s", "1s"..="10m"),
                ..deliver::Config::new(database.source.kind())
            },
            every: s.span("every", "200ms", "10ms"..="1m"),
            statements: foreign::read_statements(s),
        }
    }
}

/// `[record]`: what is recorded of a hit, and how much of hits that nobody knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Whether the target is recorded with the hit.
    pub url: bool,
    /// Hits with unknown tokens that are recorded per source and minute.
    pub unknown_per_source: u32,
    /// Hits with unknown tokens that are recorded per site and minute.
    pub unknown_per_site: u32,
}

impl Record {
    pub(super) fn read(s: &mut Section<'_>) -> Self {
        Self {
            url: s.flag("url", false),
            unknown_per_source: s.number("unknown_per_source", 6_000, 0..=1_000_000),
            unknown_per_site: s.number("unknown_per_site", 600_000, 0..=100_000_000),
        }
    }
}

/// Where the admin listener listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminAddress {
    /// An address of this machine.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

/// `[admin]`: metrics, health and the actions behind `holdfast window` and `reload`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where it listens.
    pub listen: AdminAddress,
    /// The token it asks for; always there off loopback.
    pub token: Option<Secret>,
}

/// What the name of a unix socket may take (Linux, `sun_path`, with its end).
const SOCKET_PATH_BYTES_MAX: usize = 107;

impl Admin {
    pub(super) fn read(s: &mut Section<'_>) -> Self {
        let default = "127.0.0.1:9180".to_owned();
        let allowed = "an IP address with a port, such as 127.0.0.1:9180, or unix:FILE";
        let check = |text: &str| match text.strip_prefix("unix:") {
            Some("") => Err(Wrong::new(quoted(text), allowed)),
            Some(_) => Ok(text.to_owned()),
            None => {
                parse_address(text).map(|_| text.to_owned()).map_err(|_| Wrong::new(quoted(text), allowed))
            }
        };
        let listen = s.text("listen", default, allowed, check, String::clone);
        let listen = match (listen.strip_prefix("unix:"), listen.parse()) {
            (None, Ok(address)) => AdminAddress::Tcp(address),
            (path, _) => AdminAddress::Unix(s.resolve(path.unwrap_or_default())),
        };
        if let AdminAddress::Unix(path) = &listen
            && path.as_os_str().len() > SOCKET_PATH_BYTES_MAX
        {
            let found = format!("found a path of {} bytes", path.as_os_str().len());
            s.fault("listen", found, format!("allowed: at most {SOCKET_PATH_BYTES_MAX} for a unix socket"));
        }
        let token_file = optional(s, "token_file", "the name of a file, or \"\" for none");
        let token = token_file.as_ref().and_then(|file| match files::read_token(&s.resolve(file)) {
            Ok(token) => Some(token),
            Err(wrong) => {
                // Not even the name is repeated: it may be the token itself, written in the wrong place.
                s.fault("token_file", format!("the file {}", wrong.found), wrong.advice);
                None
            }
        });
        match listen {
            AdminAddress::Tcp(address) if !address.ip().is_loopback() && token_file.is_none() => {
                let found = format!("found {address}, which others can reach, and no token_file");
                let advice =
                    "name a file with a token in admin.token_file, or listen on 127.0.0.1 or unix:FILE";
                s.fault("listen", found, advice);
            }
            _ => {}
        }
        Self { listen, token }
    }
}

/// `[limits]`: bounds of connections and requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open connections; `None` is half of what the limit of open files allows.
    pub connections_max: Option<usize>,
    /// Open connections from one source.
    pub connections_per_source: u32,
    /// Look-ups in the database per second that one source may cause.
    pub misses_per_source: u32,
    /// Size of a request's head.
    pub header_bytes_max: usize,
    /// How long a connection may be open without a request.
    pub idle_timeout: Duration,
    /// How long an answer may take to be taken.
    pub write_timeout: Duration,
    /// How old a connection may get.
    pub connection_age_max: Duration,
    /// What `Retry-After` says while nobody knows an end.
    pub retry_after: Duration,
}

impl Limits {
    pub(super) fn read(s: &mut Section<'_>) -> Self {
        Self {
            connections_max: Some(s.number("connections_max", 0, 0..=10_000_000)).filter(|&n| n > 0),
            connections_per_source: s.number("connections_per_source", 1024, 1..=10_000_000),
            misses_per_source: s.number("misses_per_source", 50, 1..=1_000_000),
            // hyper takes no buffer below 8 KiB.
            header_bytes_max: s.size("header_bytes_max", "16KiB", "8KiB"..="1MiB") as usize,
            idle_timeout: s.span("idle_timeout", "75s", "1s"..="1h"),
            write_timeout: s.span("write_timeout", "30s", "1s"..="10m"),
            connection_age_max: s.span("connection_age_max", "1h", "1s"..="7d"),
            retry_after: s.span("retry_after", "15m", "1s"..="7d"),
        }
    }
}

/// `[privacy]`: what may be kept of people.
pub(super) fn read_privacy(s: &mut Section<'_>) -> Address {
    let words = [("full", Address::Full), ("truncated", Address::Truncated), ("none", Address::None)];
    s.choice("address", Address::Truncated, &words)
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// `[log]`: what the edge says about itself, on stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// How a line looks.
    pub format: LogFormat,
    /// The least important lines that are still written.
    pub level: tracing::Level,
}

impl Log {
    pub(super) fn read(s: &mut Section<'_>) -> Self {
        use tracing::Level;
        let levels =
            [("error", Level::ERROR), ("warn", Level::WARN), ("info", Level::INFO), ("debug", Level::DEBUG)];
        let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
        Self {
            format: s.choice("format", LogFormat::Text, &formats),
            level: s.choice("level", Level::INFO, &levels),
        }
    }
}

/// A text of which "" means none.
pub(super) fn optional(s: &mut Section<'_>, key: &'static str, allowed: &str) -> Option<String> {
    let text = s.text(key, String::new(), allowed, |text| Ok(text.to_owned()), String::clone);
    Some(text).filter(|text| !text.is_empty())
}
