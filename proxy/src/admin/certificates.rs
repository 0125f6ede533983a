//! What is said of certificates: on the status screen, on the metrics' page, in a list of them all.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock, PoisonError};

use certs::Report;
use certs::acme::{Acme, Event};
use serde::{Deserialize, Serialize};
use zeroize::Zeroize as _;

use crate::metrics::Page;

/// The folder of ordered certificates and the account, inside the data folder.
pub const FOLDER: &str = "acme";

/// What an operator may ask of what orders certificates.
#[derive(Debug)]
pub enum Action {
    /// Give the account another key.
    ChangeAccountKey,
    /// Serve a certificate that was made elsewhere, and renew it.
    Import(Pem),
    /// Order anew.
    Renew(Which),
}

/// Which certificates.
#[derive(Debug)]
pub enum Which {
    /// All that may be ordered.
    All,
    /// That of one name.
    Name(String),
}

/// A private key with its chain, which no log shows; it is overwritten when it is dropped.
pub struct Pem(String);

impl From<&str> for Pem {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl Drop for Pem {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl Pem {
    /// The text itself, for the one place that reads it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pem(***)")
    }
}

/// What the certificates' owner found last.
#[derive(Debug, Default)]
pub struct Board {
    // Taken by the control thread after each reading and by readers; held for a copy.
    report: Mutex<Option<Report>>,
    ordering: OnceLock<Ordering>,
    /// In the order of [`Event::LABELS`].
    events: [AtomicU64; Event::LABELS.len()],
}

/// What orders certificates.
#[derive(Debug)]
pub struct Ordering {
    /// The end for everybody.
    pub acme: Acme,
    /// The address of the authority's directory.
    pub authority: String,
}

impl Board {
    /// Shows what was found.
    pub fn publish(&self, report: Report) {
        *self.report.lock().unwrap_or_else(PoisonError::into_inner) = Some(report);
    }

    /// Shows what orders, from now on.
    pub fn order(&self, ordering: Ordering) {
        // It begins once.
        let _ = self.ordering.set(ordering);
    }

    /// Counts an event by its label.
    pub fn happened(&self, label: &str) {
        let known = Event::LABELS.iter().zip(&self.events).find(|(known, _)| **known == label);
        if let Some((_, count)) = known {
            count.fetch_add(1, Relaxed);
        }
    }

    fn report(&self) -> Option<Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn summary(&self) -> Summary {
        let files = self.report().map_or_else(Summary::default, |report| Summary {
            certificates: report.certificates as u64,
            names: report.names as u64,
            ends_first_s: report.ends_first.map(|end| end.0),
            faults: report.faults.len() as u64,
            ordered: None,
        });
        let Some(ordered) = self.ordered() else { return files };
        Summary {
            certificates: files.certificates + ordered.certificates,
            ends_first_s: files.ends_first_s.into_iter().chain(ordered.ends_first_s).min(),
            ordered: Some(ordered),
            ..files
        }
    }

    fn ordered(&self) -> Option<Ordered> {
        let Ordering { acme, authority } = self.ordering.get()?;
        let status = acme.status();
        Some(Ordered {
            authority: authority.clone(),
            names: status.names as u64,
            certificates: status.held as u64,
            waiting: status.waiting as u64,
            running: status.running as u64,
            refused: status.refused as u64,
            asking: status.asking as u64,
            paused_until_s: status.paused_until.map(|at| at.0),
            ends_first_s: status.ends_first.map(|at| at.0),
            renewal_next_s: status.renewal_next.map(|at| at.0),
        })
    }

    pub(super) fn listing(&self) -> Listing {
        let mut listing = self.files();
        if let Some(ordering) = self.ordering.get() {
            listing.orders = ordering.acme.list().iter().map(Order::of).collect();
            listing.ordered = self.ordered();
        }
        listing
    }

    fn files(&self) -> Listing {
        let Some(report) = self.report() else { return Listing::default() };
        let certificates = report.listing.iter().map(|certificate| Listed {
            names: certificate.names().map(str::to_owned).collect(),
            key: certificate.key_type().label().to_owned(),
            from_s: certificate.from().0,
            until_s: certificate.until().0,
            file: certificate.file().display().to_string(),
        });
        let faults = report.faults.iter().map(|fault| Flaw {
            file: fault.file.display().to_string(),
            problem: crate::causes::chain(&fault.problem),
            consequence: fault.consequence.to_string(),
        });
        let (certificates, faults) = (certificates.collect(), faults.collect());
        Listing { certificates, faults, ..Listing::default() }
    }

    pub(super) fn write(&self, page: &Page) {
        let summary = self.summary();
        page.gauge("certificates", &[], summary.certificates as f64);
        page.gauge("certificate_faults", &[], summary.faults as f64);
        page.gauge("certificate_end_timestamp_seconds", &[], moment(summary.ends_first_s));
        let ordered = summary.ordered.unwrap_or_default();
        page.gauge("acme_names", &[], ordered.names as f64);
        page.gauge("acme_certificates", &[], ordered.certificates as f64);
        page.gauge("acme_waiting", &[], ordered.waiting as f64);
        page.gauge("acme_running", &[], ordered.running as f64);
        page.gauge("acme_refused_names", &[], ordered.refused as f64);
        page.gauge("acme_asking", &[], ordered.asking as f64);
        page.gauge("acme_paused_until_timestamp_seconds", &[], moment(ordered.paused_until_s));
        page.gauge("acme_renewal_timestamp_seconds", &[], moment(ordered.renewal_next_s));
        for (label, count) in Event::LABELS.iter().zip(&self.events) {
            page.counter("acme_events", &[("event", label)], count.load(Relaxed));
        }
    }
}

/// Zero where there is none.
fn moment(seconds: Option<i64>) -> f64 {
    seconds.unwrap_or(0) as f64
}

/// The certificates in one line.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Summary {
    /// How many are served.
    pub certificates: u64,
    /// For how many names; a wildcard is one.
    pub names: u64,
    /// When the one that ends first ends, Unix seconds.
    pub ends_first_s: Option<i64>,
    /// Faults of files.
    pub faults: u64,
    /// Those that are ordered; `None` without an authority.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ordered: Option<Ordered>,
}

/// The state of what orders certificates.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Ordered {
    /// The address of the authority's directory.
    pub authority: String,
    /// Names that are known to it.
    pub names: u64,
    /// Names with a certificate.
    pub certificates: u64,
    /// Names that wait for their first one.
    pub waiting: u64,
    /// Orders under way.
    pub running: u64,
    /// Names that may have none, as far as they are remembered.
    pub refused: u64,
    /// Questions under way whether a name may have one.
    pub asking: u64,
    /// Until when nothing is ordered, Unix seconds.
    pub paused_until_s: Option<i64>,
    /// When the one that ends first ends, Unix seconds.
    pub ends_first_s: Option<i64>,
    /// When the next renewal is due, Unix seconds.
    pub renewal_next_s: Option<i64>,
}

/// The answer of `/certificates`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Listing {
    /// What is served from files, in their order.
    pub certificates: Vec<Listed>,
    /// What is wrong with files.
    pub faults: Vec<Flaw>,
    /// Names whose certificates are ordered, in the order of the names.
    #[serde(default)]
    pub orders: Vec<Order>,
    /// The state of what orders; `None` without an authority.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ordered: Option<Ordered>,
}

/// One certificate.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Listed {
    /// Its names; a wildcard with its `*.`.
    pub names: Vec<String>,
    /// What its key signs with.
    pub key: String,
    /// First second of validity, Unix.
    pub from_s: i64,
    /// Last second of validity, Unix.
    pub until_s: i64,
    /// Its file.
    pub file: String,
}

/// One name whose certificate is ordered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    /// The name.
    pub name: String,
    /// Whether a site has it; otherwise it came on demand, or is served to its end.
    pub wanted: bool,
    /// First second of the certificate that is served, Unix.
    pub from_s: Option<i64>,
    /// Its last second.
    pub until_s: Option<i64>,
    /// Whether it is being ordered.
    pub running: bool,
    /// When it is ordered next, Unix seconds; `None` while it runs, or when there will be none.
    pub due_s: Option<i64>,
    /// Failures since the last success.
    pub failures: u32,
    /// When it failed last, Unix seconds.
    pub failed_s: Option<i64>,
    /// Why.
    pub failure: Option<String>,
}

impl Order {
    fn of(listed: &certs::acme::Listed) -> Self {
        let (failed_s, failure) = listed.last_error.as_ref().map(|(at, why)| (at.0, why.clone())).unzip();
        Self {
            name: listed.name.to_string(),
            wanted: listed.wanted,
            from_s: listed.validity.map(|(from, _)| from.0),
            until_s: listed.validity.map(|(_, until)| until.0),
            running: listed.running,
            due_s: listed.due_at.map(|at| at.0),
            failures: listed.failures,
            failed_s,
            failure,
        }
    }
}

/// What is wrong with one file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Flaw {
    /// The file, or the folder.
    pub file: String,
    /// What is wrong with it.
    pub problem: String,
    /// What is served all the same.
    pub consequence: String,
}
