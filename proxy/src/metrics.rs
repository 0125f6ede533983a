//! Every metric's name, unit, labels and handle, and the plain counters that the data threads keep.
//!
//! Invariants:
//! - No label ever holds a host, token, URL or address.
//! - Counting on the data plane touches memory that only this thread writes; totals are made when
//!   somebody scrapes.
//! - A series that is known beforehand is exported with a zero from the first scrape on.
//!
//! The page is rendered by metrics-exporter-prometheus; histograms are rendered here, for the
//! exporter keeps every sample until it is drained, which a burst of clicks would turn into memory.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use crate::event::{Class, Kind, Outcome};

/// Upper bounds in microseconds for answers, which take from a few microseconds to a slow disk's second.
pub const ANSWER_BOUNDS_US: &[u64] = &[
    50, 100, 200, 400, 700, 1_000, 2_000, 4_000, 7_000, 10_000, 20_000, 50_000, 100_000, 250_000, 1_000_000,
];

/// A count that one thread raises and others read.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds one.
    pub fn one(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// The total so far.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A histogram of durations with fixed bounds, cheap enough for the way of a click.
#[derive(Debug)]
pub struct Histogram {
    bounds_us: &'static [u64],
    counts: Box<[AtomicU64]>,
    sum_ns: AtomicU64,
}

impl Histogram {
    /// An empty histogram; `bounds_us` are rising upper bounds in microseconds, one more bucket takes the rest.
    #[must_use]
    pub fn new(bounds_us: &'static [u64]) -> Self {
        let counts = (0..=bounds_us.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds_us, counts, sum_ns: AtomicU64::new(0) }
    }

    /// Counts one duration.
    pub fn observe(&self, span: Duration) {
        let us = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        let bucket = self.bounds_us.partition_point(|&bound| bound < us);
        if let Some(count) = self.counts.get(bucket) {
            count.fetch_add(1, Relaxed);
        }
        self.sum_ns.fetch_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// How many durations were counted.
    #[must_use]
    pub fn observed(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Relaxed)).sum()
    }
}

/// What one data thread counts for one site.
#[derive(Debug, Default)]
#[repr(align(128))] // two cache lines: neighbours of other threads must not share one
pub struct SiteCore {
    requests: [[Count; Outcome::ALL.len()]; Kind::ALL.len()],
    answers: [Count; Class::ALL.len()],
    /// Hits that were answered but not recorded: beyond the budget or the site's share of the journal.
    pub unrecorded: Count,
    /// Hits that were answered though the journal could not take them.
    pub waived: Count,
    /// Hits whose client left before the answer; they are recorded.
    pub abandoned: Count,
    /// Requests of this site's hosts that match no route.
    pub unrouted: Count,
    /// Requests that were sent to https.
    pub upgraded: Count,
}

impl SiteCore {
    /// Counts one answered hit.
    pub fn answered(&self, kind: Kind, outcome: Outcome) {
        if let Some(count) =
            self.requests.get(kind as usize - 1).and_then(|row| row.get(outcome as usize - 1))
        {
            count.one();
        }
    }

    /// Counts the class of one hit's answer.
    pub fn promised(&self, class: Class) {
        if let Some(count) = self.answers.get(class as usize - 1) {
            count.one();
        }
    }
}

/// One site's counters, one set for each data thread; they outlive a reload.
pub type SiteCounters = Arc<[SiteCore]>;

/// The counters of all sites, by name.
#[derive(Debug)]
pub struct Sites {
    cores: usize,
    // Taken at reload and scrape only; held for a map look-up or one walk.
    by_name: Mutex<BTreeMap<String, SiteCounters>>,
}

impl Sites {
    /// No sites yet, for `cores` data threads.
    #[must_use]
    pub fn new(cores: usize) -> Self {
        Self { cores, by_name: Mutex::default() }
    }

    /// The counters of the site `name`; the same ones for the same name.
    pub fn site(&self, name: &str) -> SiteCounters {
        let mut sites = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(
            sites
                .entry(name.to_owned())
                .or_insert_with(|| (0..self.cores).map(|_| SiteCore::default()).collect()),
        )
    }

    /// Hits of the class, summed over all sites and threads.
    #[must_use]
    pub fn promised(&self, class: Class) -> u64 {
        let sites = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        sites
            .values()
            .flat_map(|cores| cores.iter())
            .filter_map(|core| core.answers.get(class as usize - 1))
            .map(Count::total)
            .sum()
    }

    /// Unrecorded hits, summed over all sites and threads.
    #[must_use]
    pub fn unrecorded(&self) -> u64 {
        let sites = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        sites.values().flat_map(|cores| cores.iter()).map(|core| core.unrecorded.total()).sum()
    }

    fn write(&self, page: &Page) {
        let sites = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, cores) in sites.iter() {
            let sum = |pick: &dyn Fn(&SiteCore) -> &Count| cores.iter().map(|core| pick(core).total()).sum();
            for (row, kind) in Kind::ALL.iter().enumerate() {
                for (column, outcome) in Outcome::ALL.iter().enumerate() {
                    let total = sum(&|core| &core.requests[row][column]);
                    page.counter(
                        "requests",
                        &[("site", name), ("kind", kind.label()), ("outcome", outcome.label())],
                        total,
                    );
                }
            }
            for (row, class) in Class::ALL.iter().enumerate() {
                page.counter(
                    "answers",
                    &[("site", name), ("class", class.label())],
                    sum(&|core| &core.answers[row]),
                );
            }
            page.counter("unrecorded_events", &[("site", name)], sum(&|core| &core.unrecorded));
            page.counter("waived_events", &[("site", name)], sum(&|core| &core.waived));
            page.counter("abandoned_events", &[("site", name)], sum(&|core| &core.abandoned));
            page.counter("unrouted_requests", &[("site", name)], sum(&|core| &core.unrouted));
            page.counter("upgraded_requests", &[("site", name)], sum(&|core| &core.upgraded));
        }
    }
}

/// Why a request or connection was turned away before it became a hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not a request that HTTP allows, or not one with a single valid host.
    BadRequest,
    /// The global cap on connections.
    ConnectionsMax,
    /// The cap on connections of one source.
    ConnectionsPerSource,
    /// No free file descriptor.
    Descriptors,
    /// The cap on TLS handshakes under way.
    Handshakes,
    /// The journal is full and the configuration says to refuse.
    Journal,
    /// A method that no route answers.
    Method,
    /// Too many look-ups of unknown tokens from one source.
    MissesPerSource,
    /// A host of another site than the one whose certificate was asked for.
    OtherSite,
    /// A request without TLS, by a listener for TLS, that cannot be sent to https.
    PlainOnTls,
    /// No sound header of the PROXY protocol from a load balancer that must send one.
    ProxyHeader,
    /// No site has this host.
    UnknownHost,
}

impl Refusal {
    /// Every reason with its label.
    pub const ALL: &'static [(Self, &'static str)] = &[
        (Self::BadRequest, "bad_request"),
        (Self::ConnectionsMax, "connections_max"),
        (Self::ConnectionsPerSource, "connections_per_source"),
        (Self::Descriptors, "descriptors"),
        (Self::Handshakes, "handshakes"),
        (Self::Journal, "journal"),
        (Self::Method, "method"),
        (Self::MissesPerSource, "misses_per_source"),
        (Self::OtherSite, "other_site"),
        (Self::PlainOnTls, "plain_on_tls"),
        (Self::ProxyHeader, "proxy_header"),
        (Self::UnknownHost, "unknown_host"),
    ];
}

/// How one cold look-up ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookUp {
    /// The database knows the token.
    Found,
    /// The database does not know it.
    Absent,
    /// Too many look-ups were under way.
    Busy,
    /// No answer within the deadline.
    Late,
    /// The database failed.
    Failed,
    /// Not asked: the database is down or in a window.
    Barred,
}

impl LookUp {
    /// Every outcome with its label.
    pub const ALL: &'static [(Self, &'static str)] = &[
        (Self::Found, "found"),
        (Self::Absent, "absent"),
        (Self::Busy, "busy"),
        (Self::Late, "late"),
        (Self::Failed, "failed"),
        (Self::Barred, "barred"),
    ];
}

/// How one TLS handshake ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// With a connection, for a client that was new.
    Full,
    /// With a connection, for a client that was known by its ticket.
    Resumed,
    /// An authority's check, answered.
    Challenge,
    /// No version, cipher or signature in common.
    Incompatible,
    /// No hello within its deadline.
    LateHello,
    /// No end within its deadline.
    Late,
    /// The client went away.
    Left,
    /// What came is no TLS, or breaks its rules.
    Malformed,
    /// HTTP without TLS.
    Plain,
    /// The client did not want this server, mostly for its certificate.
    Refused,
    /// No certificate for the name that was asked for.
    UnknownName,
}

impl Handshake {
    /// Every end with its labels, outcome and whether the client was known.
    pub const ALL: &'static [(Self, &'static str, &'static str)] = &[
        (Self::Full, "done", "no"),
        (Self::Resumed, "done", "yes"),
        (Self::Challenge, "challenge", "no"),
        (Self::Incompatible, "incompatible", "no"),
        (Self::LateHello, "late_hello", "no"),
        (Self::Late, "late", "no"),
        (Self::Left, "left", "no"),
        (Self::Malformed, "malformed", "no"),
        (Self::Plain, "plain", "no"),
        (Self::Refused, "refused", "no"),
        (Self::UnknownName, "unknown_name", "no"),
    ];
}

/// How the wait of one TLS handshake for a certificate ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// Too many handshakes wait, too many names are there by demand, or another program takes over.
    Busy,
    /// It did not come in time.
    Late,
    /// It can't be ordered yet, for it failed before.
    Later,
    /// The client went away, or the edge ends.
    Left,
    /// Nobody said in time whether the name may have one.
    NoAnswer,
    /// No authority has a certificate for such a name.
    NoName,
    /// It is there.
    Ready,
    /// The name may have none.
    Refused,
}

impl Demand {
    /// Every end with its label.
    pub const ALL: &'static [(Self, &'static str)] = &[
        (Self::Busy, "busy"),
        (Self::Late, "late"),
        (Self::Later, "later"),
        (Self::Left, "left"),
        (Self::NoAnswer, "no_answer"),
        (Self::NoName, "no_name"),
        (Self::Ready, "ready"),
        (Self::Refused, "refused"),
    ];
}

/// What one data thread counts for all sites together.
#[derive(Debug)]
#[repr(align(128))]
pub struct Core {
    refused: [Count; Refusal::ALL.len()],
    look_ups: [Count; LookUp::ALL.len()],
    handshakes: [Count; Handshake::ALL.len()],
    demands: [Count; Demand::ALL.len()],
    /// Authorities' checks that were answered with a page.
    pub proofs: Count,
    /// From the parsed request to the finished answer.
    pub answer_time: Histogram,
    /// Connections accepted.
    pub accepted: Count,
    /// Connections ended.
    pub closed: Count,
    /// Tokens found in the cache of looked-up links, misses included.
    pub cache_hits: Count,
    /// Tokens not found there.
    pub cache_misses: Count,
    /// Panics in a handler: each cost one request.
    pub panics: Count,
}

impl Default for Core {
    fn default() -> Self {
        Self {
            refused: Default::default(),
            look_ups: Default::default(),
            handshakes: Default::default(),
            demands: Default::default(),
            proofs: Count::default(),
            answer_time: Histogram::new(ANSWER_BOUNDS_US),
            accepted: Count::default(),
            closed: Count::default(),
            cache_hits: Count::default(),
            cache_misses: Count::default(),
            panics: Count::default(),
        }
    }
}

impl Core {
    /// Counts one refusal.
    pub fn refused(&self, reason: Refusal) {
        if let Some(count) = self.refused.get(reason as usize) {
            count.one();
        }
    }

    /// Counts one TLS handshake.
    pub fn shook_hands(&self, end: Handshake) {
        if let Some(count) = self.handshakes.get(end as usize) {
            count.one();
        }
    }

    /// Counts one wait of a TLS handshake for a certificate.
    pub fn demanded(&self, end: Demand) {
        if let Some(count) = self.demands.get(end as usize) {
            count.one();
        }
    }

    /// Counts one cold look-up.
    pub fn looked_up(&self, outcome: LookUp) {
        if let Some(count) = self.look_ups.get(outcome as usize) {
            count.one();
        }
    }
}

/// All counters of the data plane.
#[derive(Debug)]
pub struct Plane {
    /// Per site.
    pub sites: Sites,
    /// Per data thread.
    pub cores: Arc<[Core]>,
}

impl Plane {
    /// Zeroes for `cores` data threads.
    #[must_use]
    pub fn new(cores: usize) -> Self {
        Self { sites: Sites::new(cores), cores: (0..cores).map(|_| Core::default()).collect() }
    }

    /// Connections open now.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.cores.iter().map(|core| core.accepted.total().saturating_sub(core.closed.total())).sum()
    }

    /// Requests or connections turned away for this reason.
    #[must_use]
    pub fn refused(&self, reason: Refusal) -> u64 {
        self.cores.iter().filter_map(|core| core.refused.get(reason as usize)).map(Count::total).sum()
    }

    /// Writes all of it on `page`.
    pub fn write(&self, page: &Page) {
        self.sites.write(page);
        let sum = |pick: &dyn Fn(&Core) -> &Count| self.cores.iter().map(|core| pick(core).total()).sum();
        for &(reason, label) in Refusal::ALL {
            page.counter("refused", &[("reason", label)], self.refused(reason));
        }
        for &(outcome, label) in LookUp::ALL {
            page.counter("look_ups", &[("outcome", label)], sum(&|core| &core.look_ups[outcome as usize]));
        }
        for &(end, outcome, resumed) in Handshake::ALL {
            let labels = [("outcome", outcome), ("resumed", resumed)];
            page.counter("tls_handshakes", &labels, sum(&|core| &core.handshakes[end as usize]));
        }
        for &(end, label) in Demand::ALL {
            page.counter(
                "certificate_demands",
                &[("outcome", label)],
                sum(&|core| &core.demands[end as usize]),
            );
        }
        page.counter("acme_proofs", &[], sum(&|core| &core.proofs));
        page.counter("connections", &[], sum(&|core| &core.accepted));
        page.gauge("open_connections", &[], self.connections() as f64);
        page.counter("cache_hits", &[], sum(&|core| &core.cache_hits));
        page.counter("cache_misses", &[], sum(&|core| &core.cache_misses));
        page.counter("panics", &[], sum(&|core| &core.panics));
        page.histogram("answer_duration_seconds", self.cores.iter().map(|core| &core.answer_time));
    }
}

/// One scrape in the making: the exporter's recorder, filled with totals, and the histograms' text.
pub struct Page {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    histograms: Mutex<String>,
}

impl Default for Page {
    fn default() -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        let page = Self { recorder, handle, histograms: Mutex::default() };
        page.describe();
        page
    }
}

impl Page {
    /// Sets the counter `holdfast_<name>_total`.
    pub fn counter(&self, name: &str, labels: &[(&'static str, &str)], total: u64) {
        let name = format!("holdfast_{name}_total");
        metrics::with_local_recorder(&self.recorder, || {
            metrics::counter!(name, &owned(labels)).absolute(total)
        });
    }

    /// Sets the gauge `holdfast_<name>`; the name carries the unit.
    pub fn gauge(&self, name: &str, labels: &[(&'static str, &str)], value: f64) {
        let name = format!("holdfast_{name}");
        metrics::with_local_recorder(&self.recorder, || metrics::gauge!(name, &owned(labels)).set(value));
    }

    /// Writes the histogram `holdfast_<name>` summed over `parts`, which share their bounds.
    pub fn histogram<'a>(&self, name: &str, parts: impl Iterator<Item = &'a Histogram>) {
        let parts: Vec<&Histogram> = parts.collect();
        let Some(first) = parts.first() else { return };
        let mut text = self.histograms.lock().unwrap_or_else(PoisonError::into_inner);
        let help = HELP.iter().find(|(known, ..)| *known == name).map_or("", |(_, help)| help);
        let mut below = 0u64;
        let mut lines = format!("# HELP holdfast_{name} {help}\n# TYPE holdfast_{name} histogram\n");
        for bucket in 0..first.counts.len() {
            below += parts
                .iter()
                .filter_map(|part| part.counts.get(bucket))
                .map(|count| count.load(Relaxed))
                .sum::<u64>();
            let le = first
                .bounds_us
                .get(bucket)
                .map_or_else(|| "+Inf".to_owned(), |&us| (us as f64 / 1e6).to_string());
            let _ = writeln!(lines, "holdfast_{name}_bucket{{le=\"{le}\"}} {below}");
        }
        let sum: u64 = parts.iter().map(|part| part.sum_ns.load(Relaxed)).sum();
        let _ = writeln!(lines, "holdfast_{name}_sum {}\nholdfast_{name}_count {below}\n", sum as f64 / 1e9);
        text.push_str(&lines);
    }

    /// The finished page in Prometheus' text format.
    #[must_use]
    pub fn render(self) -> String {
        let mut text = self.handle.render();
        text.push_str(&self.histograms.into_inner().unwrap_or_else(PoisonError::into_inner));
        text
    }

    fn describe(&self) {
        metrics::with_local_recorder(&self.recorder, || {
            for &(name, help) in HELP {
                // The kind of a series is fixed by its first value; the text stands for both names.
                metrics::describe_counter!(format!("holdfast_{name}_total"), help);
                metrics::describe_gauge!(format!("holdfast_{name}"), help);
            }
        });
    }
}

fn owned(labels: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
    labels.iter().map(|&(key, value)| (key, value.to_owned())).collect()
}

/// The help text of every metric, without prefix and `_total`.
const HELP: &[(&str, &str)] = &[
    ("abandoned_events", "Hits whose client left before the answer; they are recorded."),
    ("acme_asking", "Questions under way whether a name may have a certificate."),
    ("acme_certificates", "Names with a certificate that was ordered; they are among the certificates."),
    ("acme_events", "What happened to orders, questions, the account and the stored records, by event."),
    ("acme_names", "Names that are known to what orders certificates."),
    (
        "acme_paused_until_timestamp_seconds",
        "Until when nothing is ordered, for the authority is down or asked to wait; 0 when it is not.",
    ),
    ("acme_proofs", "Checks by an authority that were answered with a page (HTTP-01)."),
    ("acme_refused_names", "Names that may have no certificate, as far as they are remembered."),
    ("acme_renewal_timestamp_seconds", "When the next renewal is due, 0 without any."),
    ("acme_running", "Orders under way."),
    ("acme_waiting", "Names that wait for their first certificate."),
    ("answer_duration_seconds", "Time from the parsed request to the finished answer."),
    ("answers", "Answers to recorded hits by what they promise of the record."),
    ("appended_events", "Events written to the journal."),
    ("build_info", "Version of the running program; always 1."),
    ("cache_hits", "Tokens answered from the cache of looked-up links, misses included."),
    ("cache_misses", "Tokens not in the table, the overlay nor the cache."),
    ("certificate_demands", "Waits of TLS handshakes for a certificate, by how they ended."),
    ("certificate_end_timestamp_seconds", "When the certificate that ends first ends, 0 without any."),
    ("certificate_faults", "Faults of certificate files, the folder's included; each has a log line."),
    ("certificates", "Certificates that are served."),
    ("clock_fault", "1 while the clock is behind the snapshot's own time; expiry is then ignored."),
    ("config_last_reload_success_timestamp_seconds", "When a configuration was last applied."),
    ("config_last_reload_successful", "1 when the last reload was applied, 0 when it was refused."),
    ("config_reloads", "Reloads of the configuration by outcome."),
    ("connections", "Connections accepted."),
    ("delivered_events", "Events delivered, by sink."),
    ("doubled_events", "Events found in the database above its cursor, by sink."),
    ("delivery_failures", "Deliveries that failed and are tried again, by sink."),
    ("delivery_lag_events", "Synced events that the sink does not have yet."),
    ("delivery_lag_seconds", "Age of the oldest event that the sink does not have yet."),
    ("delivery_standing", "1 while a pump stands still and needs an operator, by sink."),
    ("journal_bytes", "Bytes of all journals on disk."),
    ("journal_failures", "Writes and syncs of the journal that failed."),
    ("journal_gap_events", "Events lost to damage, reported as gaps."),
    ("journal_refused_events", "Events that the journal did not take: behind, degraded or stopped."),
    ("journal_segments", "Segments of all journals on disk."),
    ("journal_spare_segments", "Segments prepared ahead."),
    ("journal_sync_duration_seconds", "Time of one fdatasync of the journal."),
    ("journal_torn_bytes", "Bytes cut from torn tails at start."),
    (
        "domains",
        "Customers' domains: served, of these absent from the last load, switched off, and rows not served as they ask.",
    ),
    ("domains_failing", "1 while customers' domains cannot be read, though the rest of the database can."),
    ("domains_load_held", "1 while a load of domains is held back by the guard."),
    ("links", "Links known, by where they are kept."),
    ("links_absent", "Links that the last complete load did not have; they are still served."),
    ("links_log_bytes", "Bytes of the log of changed links."),
    ("links_memory_bytes", "Memory of the links' table and overlay."),
    ("links_load_held", "1 while a complete load is held back by the guard."),
    ("links_refused", "Links of the database whose target cannot be approved."),
    (
        "links_withheld_changes",
        "New links not taken because links.memory_max was reached; they are looked up.",
    ),
    ("links_table_timestamp_seconds", "When the table was built."),
    ("look_ups", "Cold look-ups in the database by outcome."),
    ("missing_events", "Events that were damaged in the journal and could not be delivered, by sink."),
    ("open_connections", "Connections open now."),
    ("panics", "Panics in a handler; each cost one request."),
    ("part_up", "Health of each needed part: 1 up, 0 down or in a window."),
    ("part_window", "1 while a part is in a planned maintenance window."),
    ("ready", "1 while the edge may be sent traffic."),
    ("refused", "Requests and connections turned away, by reason."),
    ("rejected_events", "Events that the sink rejected for what they are."),
    ("requests", "Hits answered by site, kind and outcome."),
    ("start_timestamp_seconds", "When this process started."),
    ("synced_events", "Events known to survive a power cut."),
    ("tls_handshakes", "TLS handshakes by outcome, and whether the client was known by a ticket."),
    ("unrecorded_events", "Hits answered but not recorded: beyond the budget or the site's share."),
    ("unrouted_requests", "Requests of a site's host that match no route."),
    ("upgraded_requests", "Requests without TLS that were sent to https."),
    ("waived_events", "Hits answered though the journal could not take their record."),
    ("window_end_timestamp_seconds", "End of the current maintenance window, 0 without one."),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn page_of(write: impl FnOnce(&Page)) -> String {
        let page = Page::default();
        write(&page);
        page.render()
    }

    #[test]
    fn every_known_series_starts_at_zero() {
        let plane = Plane::new(2);
        plane.sites.site("shop");
        let text = page_of(|page| plane.write(page));
        assert!(
            text.contains("holdfast_requests_total{site=\"shop\",kind=\"click\",outcome=\"redirected\"} 0"),
            "{text}"
        );
        assert!(text.contains("holdfast_refused_total{reason=\"unknown_host\"} 0"), "{text}");
        assert!(text.contains("# HELP holdfast_requests_total "), "{text}");
    }

    #[test]
    fn totals_are_summed_over_threads_and_survive_a_reload() {
        let plane = Plane::new(2);
        let site = plane.sites.site("shop");
        site[0].answered(Kind::Click, Outcome::Redirected);
        site[1].answered(Kind::Click, Outcome::Redirected);
        plane.sites.site("shop")[0].promised(Class::Waived);
        let text = page_of(|page| plane.write(page));
        assert!(text.contains("kind=\"click\",outcome=\"redirected\"} 2"), "{text}");
        assert!(text.contains("class=\"waived\"} 1"), "{text}");
    }

    #[test]
    fn histograms_are_cumulative_and_in_seconds() {
        let histogram = Histogram::new(&[50, 100]);
        for us in [10, 50, 60, 1_000] {
            histogram.observe(Duration::from_micros(us));
        }
        let text = page_of(|page| page.histogram("answer_duration_seconds", [&histogram].into_iter()));
        for line in [
            "_bucket{le=\"0.00005\"} 2",
            "_bucket{le=\"0.0001\"} 3",
            "_bucket{le=\"+Inf\"} 4",
            "_count 4",
            "_sum 0.00112",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }

    #[test]
    fn reasons_and_their_labels_stand_in_the_order_of_the_counters() {
        for (at, &(reason, _)) in Refusal::ALL.iter().enumerate() {
            assert_eq!(reason as usize, at);
        }
        for (at, &(outcome, _)) in LookUp::ALL.iter().enumerate() {
            assert_eq!(outcome as usize, at);
        }
        for (at, &(end, ..)) in Handshake::ALL.iter().enumerate() {
            assert_eq!(end as usize, at);
        }
        for (at, &(end, _)) in Demand::ALL.iter().enumerate() {
            assert_eq!(end as usize, at);
        }
    }
}
