//! One screen of the truth: the health of each part, the links, the journals, the delivery.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::certificates::{Board, Listing, Summary};
use crate::clock::Expiry;
use crate::database::{escape, unescape};
use crate::deliver;
use crate::event::{Class, UnixMillis};
use crate::follow;
use crate::front::Shared;
use crate::front::sites::Customers;
use crate::journal::{self, Journal};
use crate::links::{Found, guard};
use crate::policy::Health;
use crate::resolve::Resolution;
use crate::route::Host;

/// Everything that may be looked at.
pub struct View {
    /// The edge's name.
    pub edge: String,
    /// When the process started.
    pub started_at: UnixMillis,
    /// The data plane's shared things.
    pub shared: Arc<Shared>,
    /// The journal.
    pub journal: Journal,
    /// The follower's board.
    pub links: Arc<follow::Board>,
    /// The names of namespaces.
    pub namespaces: crate::links::namespaces::Namespaces,
    /// Each sink's board.
    pub sinks: Vec<Arc<SinkBoard>>,
    /// What was found of certificates; `None` without a listener for https.
    pub certificates: Option<Arc<Board>>,
    /// Reloads.
    pub reloads: Reloads,
    /// Raised when the edge begins to end.
    pub draining: AtomicBool,
}

/// What a sink's thread says of its pump.
#[derive(Debug)]
pub struct SinkBoard {
    // Changed by a reload that moves to another kind of database; held for a copy.
    /// The sink's name.
    pub name: Mutex<&'static str>,
    /// The pump's counters.
    pub stats: Arc<deliver::Stats>,
    // Taken by the sink's thread after each step and by readers; held for a copy.
    /// The pump's last status.
    pub status: Mutex<Option<deliver::Status>>,
}

impl SinkBoard {
    pub(super) fn name(&self) -> &'static str {
        *self.name.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn status(&self) -> Option<deliver::Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Counts of reloads.
#[derive(Debug, Default)]
pub struct Reloads {
    /// Configurations that were applied.
    pub applied: AtomicU64,
    /// Configurations that were refused.
    pub refused: AtomicU64,
    /// When one was applied last.
    pub applied_at_ms: AtomicU64,
    /// Whether the last one was refused.
    pub last_refused: AtomicBool,
}

/// The answer of `/status`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
    /// The edge's name.
    pub edge: String,
    /// The program's version.
    pub version: String,
    /// Seconds since the start.
    pub up_s: u64,
    /// Whether it is ready for traffic, or why not.
    pub ready: String,
    /// The database's health.
    pub database: Part,
    /// Whether the clock is behind the links' own time.
    pub clock_fault: bool,
    /// The links.
    pub links: Links,
    /// The journal being written.
    pub journal: JournalStatus,
    /// Each sink.
    pub delivery: Vec<Delivery>,
    /// Answers by class.
    pub answers: BTreeMap<String, u64>,
    /// Hits answered but not recorded.
    pub unrecorded: u64,
    /// Connections open now.
    pub connections: u64,
    /// Customers' domains.
    #[serde(default)]
    pub domains: Domains,
    /// The certificates; `None` without a listener for https.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub certificates: Option<Summary>,
}

/// One needed part.
#[derive(Debug, Serialize, Deserialize)]
pub struct Part {
    /// `up`, `down` or `window`.
    pub state: String,
    /// Unix milliseconds since when it is down.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub since_ms: Option<u64>,
    /// Unix milliseconds until when the window lasts.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub until_ms: Option<u64>,
    /// The window's reason, or why it counts as down.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// Whether no connection to it is open.
    pub released: bool,
}

/// The links.
#[derive(Debug, Serialize, Deserialize)]
pub struct Links {
    /// In the table.
    pub table: u64,
    /// Changed since the table was built.
    pub overlay: u64,
    /// Different targets in the table.
    pub targets: u64,
    /// Absent from the last complete load, still served.
    pub absent: u64,
    /// Rows whose target cannot be approved.
    pub refused: u64,
    /// Looked-up links and misses in the cache.
    pub cached: u64,
    /// Memory of table and overlay.
    pub memory_bytes: u64,
    /// The log of changes.
    pub log_bytes: u64,
    /// When the table was built, Unix milliseconds; 0 before the first.
    pub made_at_ms: u64,
    /// Whether one is being built.
    pub building: bool,
    /// The load that the guard holds back.
    pub held: Option<Held>,
}

/// Customers' domains.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Domains {
    /// Answered for.
    pub served: u64,
    /// Switched off.
    pub disabled: u64,
    /// Absent from the last load, still answered for.
    pub absent: u64,
    /// Rows that are not served, or not as they ask.
    pub refused: u64,
    /// Whether the table cannot be read, though the rest of the database can.
    #[serde(default)]
    pub failing: bool,
    /// The load that the guard holds back.
    pub held: Option<Held>,
}

/// One customer's domain, as `/domains` lists it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Domain {
    /// The host.
    pub host: String,
    /// The name of its site.
    pub site: String,
    /// The namespace of its tokens, escaped; empty for its site's.
    pub namespace: String,
    /// `served`, `disabled`, `absent` (and served) or `refused`.
    pub state: String,
    /// Why it is not served, or not as it asks.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub reason: String,
}

/// A held load.
#[derive(Debug, Serialize, Deserialize)]
pub struct Held {
    /// Links known.
    pub known: u64,
    /// Of these, absent from the load for the first time.
    pub newly_absent: u64,
    /// Of these, about to be forgotten.
    pub forgotten: u64,
}

impl Held {
    fn of(held: guard::Held) -> Self {
        let guard::Held { known, newly_absent, forgotten, .. } = held;
        Self { known, newly_absent, forgotten }
    }
}

/// The journal.
#[derive(Debug, Serialize, Deserialize)]
pub struct JournalStatus {
    /// `up` or `degraded`.
    pub state: String,
    /// Why it is degraded.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// The journal being written.
    pub id: String,
    /// Events handed to it.
    pub appended: u64,
    /// Events that survive a power cut.
    pub synced: u64,
    /// Bytes of all journals.
    pub bytes: u64,
    /// Segments of all journals.
    pub segments: u64,
    /// Journals on disk, this one included.
    pub journals: u64,
    /// Events lost to damage.
    pub gap_events: u64,
}

/// One sink.
#[derive(Debug, Serialize, Deserialize)]
pub struct Delivery {
    /// Its name.
    pub sink: String,
    /// Events delivered since the start.
    pub delivered: u64,
    /// Events rejected since the start.
    pub rejected: u64,
    /// Failures since the start.
    pub failures: u64,
    /// Synced events that it does not have.
    pub lag_events: u64,
    /// Age of the oldest of them.
    pub lag_s: f64,
    /// Why a pump stands still.
    pub standing: Option<String>,
}

impl View {
    /// Whether the edge may be sent traffic.
    ///
    /// # Errors
    /// Why not.
    pub fn ready(&self) -> Result<(), &'static str> {
        if self.draining.load(Relaxed) {
            return Err("draining\n");
        }
        if !self.links.is_ready() {
            return Err("links are not loaded yet\n");
        }
        if self.shared.tls.as_ref().is_some_and(|tls| !tls.is_open()) {
            return Err("no certificate is loaded yet; see `holdfast certs list`\n");
        }
        Ok(())
    }

    /// The whole status.
    #[must_use]
    pub fn status(&self, now: UnixMillis) -> Status {
        let vital = self.shared.vitals.published().load();
        let plane = &self.shared.plane;
        Status {
            edge: self.edge.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            up_s: now.since(self.started_at).as_secs(),
            ready: self.ready().map_or_else(|why| why.trim().to_owned(), |()| "ready".to_owned()),
            database: part(&vital.database, self.shared.vitals.holders() == 0),
            clock_fault: vital.expiry == Expiry::Ignored,
            links: self.links_status(),
            journal: self.journal_status(),
            delivery: self.sinks.iter().map(|board| delivery(board)).collect(),
            answers: Class::ALL
                .iter()
                .map(|&class| (class.label().to_owned(), plane.sites.promised(class)))
                .collect(),
            unrecorded: plane.sites.unrecorded(),
            connections: plane.connections(),
            domains: self.domains_status(),
            certificates: self.certificates.as_ref().map(|board| board.summary()),
        }
    }

    /// Every customer's domain, in the order of hosts, then the rows of which there is none. A row that could not
    /// be taken while its host goes on as it was says why on the host's own line.
    #[must_use]
    pub fn domains(&self) -> Vec<Domain> {
        let sites = self.shared.sites.load();
        let Customers { domains, refusals, .. } = &sites.customers;
        let reasons: HashMap<&str, &str> =
            domains.refusals().iter().chain(refusals).map(|row| (&*row.host, &*row.reason)).collect();
        let listed = domains.iter().map(|(host, domain)| {
            let reason = reasons.get(host).copied().unwrap_or_default();
            let mut scratch = Vec::new();
            let is_served = Host::parse(host.as_bytes(), &mut scratch)
                .is_ok_and(|host| sites.find(host).is_some_and(|site| *site.name == *domain.site));
            let state = match (domain.disabled, is_served, domain.absent_since) {
                (true, ..) => "disabled",
                (_, false, _) => "refused",
                (_, _, Some(_)) => "absent",
                (_, _, None) => "served",
            };
            Domain {
                host: host.to_owned(),
                site: domain.site.to_string(),
                namespace: escape(&domain.namespace).into_owned(),
                state: state.to_owned(),
                reason: reason.to_owned(),
            }
        });
        let refused = domains.refusals().iter().filter(|refusal| domains.get(&refusal.host).is_none());
        let refused = refused.map(|refusal| Domain {
            host: refusal.host.to_string(),
            site: String::new(),
            namespace: String::new(),
            state: "refused".to_owned(),
            reason: refusal.reason.to_string(),
        });
        listed.chain(refused).collect()
    }

    pub(super) fn domains_status(&self) -> Domains {
        let sites = self.shared.sites.load();
        let customers = &sites.customers;
        let followed = self.links.status();
        Domains {
            served: customers.served,
            disabled: customers.disabled,
            absent: customers.absent,
            refused: customers.refused + customers.domains.refused(),
            failing: followed.domains_failing,
            held: followed.domains_held.map(Held::of),
        }
    }

    /// All certificates and all that is wrong with their files.
    #[must_use]
    pub fn certificates(&self) -> Listing {
        self.certificates.as_ref().map_or_else(Listing::default, |board| board.listing())
    }

    fn links_status(&self) -> Links {
        let status = self.links.status();
        Links {
            table: status.table,
            overlay: status.overlay,
            targets: status.targets,
            absent: status.absent,
            refused: self.links.refused(),
            cached: self.shared.look_ups.remembered() as u64,
            memory_bytes: status.memory_bytes,
            log_bytes: status.log_bytes,
            made_at_ms: status.made_at.0,
            building: status.building,
            held: status.held.map(Held::of),
        }
    }

    fn journal_status(&self) -> JournalStatus {
        let status = self.journal.status();
        let (state, reason) = match &status.state {
            journal::State::Up => ("up", None),
            journal::State::Degraded { reason, .. } => ("degraded", Some(reason.to_string())),
        };
        JournalStatus {
            state: state.to_owned(),
            reason,
            id: status.id.to_string(),
            appended: status.appended.0,
            synced: status.synced.0,
            bytes: status.bytes,
            segments: status.segments as u64,
            journals: status.journals.len() as u64,
            gap_events: status.journals.iter().map(gap_events).sum(),
        }
    }

    /// All windows, for people.
    #[must_use]
    pub fn windows(&self, now: UnixMillis) -> Value {
        let windows = self.shared.vitals.windows(now);
        Value::Array(
            windows
                .iter()
                .map(|listed| {
                    json!({
                        "of": listed.window.part().to_string(),
                        "from_ms": listed.window.from().0,
                        "until_ms": listed.window.until().0,
                        "reason": listed.window.reason(),
                        "by_hand": listed.by_hand,
                        "stage": listed.stage.label(),
                    })
                })
                .collect(),
        )
    }

    /// What this edge knows of one link.
    #[must_use]
    pub fn link(&self, namespace: &str, token: &str, now: UnixMillis) -> Value {
        let token = unescape(token);
        let known = self.namespaces.find(namespace.as_bytes()).and_then(|id| {
            let links = self.shared.links.load();
            let in_overlay = links.overlay().get(id, &token).is_some();
            let found = links.get(id, &token)?;
            let expiry = self.shared.vitals.published().load().expiry;
            let state = match Resolution::of(found, now, expiry) {
                Resolution::Live(_) => "live",
                Resolution::Expired => "expired",
                Resolution::Disabled => "disabled",
                Resolution::Deleted => "deleted",
                Resolution::Absent | Resolution::Unasked => "unknown",
            };
            let (url, expires_at) = match found {
                Found::Live(link) => {
                    (String::from_utf8_lossy(link.target.as_bytes()).into_owned(), link.expires_at)
                }
                Found::Disabled | Found::Deleted => (String::new(), None),
            };
            Some(json!({
                "state": state, "url": url, "place": if in_overlay { "overlay" } else { "table" },
                "expires_at_ms": expires_at.map(|at| at.0),
            }))
        });
        known.unwrap_or_else(|| json!({ "state": "unknown" }))
    }
}

fn part(health: &Health, released: bool) -> Part {
    let state = health.label().to_owned();
    let bare = Part { state, since_ms: None, until_ms: None, reason: None, released };
    match health {
        Health::Up => bare,
        Health::Down { since, cause } => {
            Part { since_ms: Some(since.0), reason: Some(cause.to_string()), ..bare }
        }
        Health::Window { until, reason } => {
            Part { until_ms: Some(until.0), reason: Some(reason.to_string()), ..bare }
        }
    }
}

fn delivery(board: &SinkBoard) -> Delivery {
    let status = board.status();
    let standing = status.as_ref().and_then(|status| {
        status.journals.iter().find_map(|journal| journal.standing.as_ref()).map(ToString::to_string)
    });
    Delivery {
        sink: board.name().to_owned(),
        delivered: board.stats.rows.load(Relaxed),
        rejected: board.stats.rejected.load(Relaxed),
        failures: board.stats.failures.load(Relaxed),
        // Before the first look nobody knows; a number that is no number would be read as zero.
        lag_events: status.as_ref().map_or(u64::MAX, |status| status.pending),
        lag_s: status.as_ref().map_or(0.0, |status| status.lag.as_secs_f64()),
        standing,
    }
}

/// Events of a journal that are lost to damage.
pub(super) fn gap_events(summary: &journal::Summary) -> u64 {
    summary.gaps.iter().map(|gap| gap.last.0 + 1 - gap.first.0).sum()
}
