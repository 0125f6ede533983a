//! The Prometheus page: gathers every counter and gauge of the edge when somebody scrapes.

use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;

use super::status::{View, gap_events};
use crate::clock::Expiry;
use crate::event::UnixMillis;
use crate::journal;
use crate::metrics::Page;
use crate::policy::Health;

/// Renders the page as of `now`.
#[must_use]
pub fn render(view: &View, now: UnixMillis) -> String {
    let page = Page::default();
    page.gauge("build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    page.gauge("start_timestamp_seconds", &[], view.started_at.0 as f64 / 1000.0);
    view.shared.plane.write(&page);
    links(view, &page);
    journal(view, &page);
    delivery(view, &page);
    health(view, &page, now);
    // An edge without https has zeroes: no series appears with a reload or a restart.
    view.certificates.clone().unwrap_or_default().write(&page);
    let reloads = &view.reloads;
    page.counter("config_reloads", &[("outcome", "applied")], reloads.applied.load(Relaxed));
    page.counter("config_reloads", &[("outcome", "refused")], reloads.refused.load(Relaxed));
    let successful = if reloads.last_refused.load(Relaxed) { 0.0 } else { 1.0 };
    page.gauge("config_last_reload_successful", &[], successful);
    let applied_at = reloads.applied_at_ms.load(Relaxed) as f64 / 1000.0;
    page.gauge("config_last_reload_success_timestamp_seconds", &[], applied_at);
    page.render()
}

fn links(view: &View, page: &Page) {
    let status = view.links.status();
    page.gauge("links", &[("place", "table")], status.table as f64);
    page.gauge("links", &[("place", "overlay")], status.overlay as f64);
    page.gauge("links", &[("place", "cache")], view.shared.look_ups.remembered() as f64);
    page.gauge("links_memory_bytes", &[], status.memory_bytes as f64);
    page.gauge("links_log_bytes", &[], status.log_bytes as f64);
    page.gauge("links_table_timestamp_seconds", &[], status.made_at.0 as f64 / 1000.0);
    page.gauge("links_load_held", &[], f64::from(u8::from(status.held.is_some())));
    page.gauge("links_absent", &[], status.absent as f64);
    page.gauge("links_refused", &[], view.links.refused() as f64);
    let domains = view.domains_status();
    for (state, count) in [
        ("served", domains.served),
        ("disabled", domains.disabled),
        ("absent", domains.absent),
        ("refused", domains.refused),
    ] {
        page.gauge("domains", &[("state", state)], count as f64);
    }
    page.gauge("domains_load_held", &[], f64::from(u8::from(domains.held.is_some())));
    page.gauge("domains_failing", &[], f64::from(u8::from(domains.failing)));
    page.counter("links_withheld_changes", &[], view.links.withheld_changes());
}

fn journal(view: &View, page: &Page) {
    let status = view.journal.status();
    let stats = view.journal.stats();
    page.counter("appended_events", &[], stats.appended.load(Relaxed));
    page.counter("synced_events", &[], stats.synced.load(Relaxed));
    page.counter("journal_failures", &[], stats.failures.load(Relaxed));
    page.counter("journal_refused_events", &[], stats.refused.load(Relaxed));
    page.gauge("journal_bytes", &[], status.bytes as f64);
    page.gauge("journal_segments", &[], status.segments as f64);
    page.gauge("journal_spare_segments", &[], status.spare_segments as f64);
    page.gauge("journal_gap_events", &[], status.journals.iter().map(gap_events).sum::<u64>() as f64);
    let torn: u64 =
        status.journals.iter().filter_map(|journal| Some(journal.report.as_ref()?.torn_bytes)).sum();
    page.gauge("journal_torn_bytes", &[], torn as f64);
    let up = matches!(status.state, journal::State::Up);
    page.gauge("part_up", &[("part", "journal")], f64::from(u8::from(up)));
    page.histogram("journal_sync_duration_seconds", [&stats.sync_time].into_iter());
}

fn delivery(view: &View, page: &Page) {
    for board in &view.sinks {
        let sink = &[("sink", board.name())][..];
        page.counter("delivered_events", sink, board.stats.rows.load(Relaxed));
        page.counter("rejected_events", sink, board.stats.rejected.load(Relaxed));
        page.counter("delivery_failures", sink, board.stats.failures.load(Relaxed));
        page.counter("missing_events", sink, board.stats.missing.load(Relaxed));
        page.counter("doubled_events", sink, board.stats.doubled.load(Relaxed));
        let status = board.status.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (pending, lag, standing) = status.map_or((0, 0.0, 0), |status| {
            let standing = status.journals.iter().filter(|journal| journal.standing.is_some()).count();
            (status.pending, status.lag.as_secs_f64(), standing)
        });
        page.gauge("delivery_lag_events", sink, pending as f64);
        page.gauge("delivery_lag_seconds", sink, lag);
        page.gauge("delivery_standing", sink, standing as f64);
    }
}

fn health(view: &View, page: &Page, now: UnixMillis) {
    let vital = view.shared.vitals.published().load();
    let database = &[("part", "database")][..];
    page.gauge("part_up", database, f64::from(u8::from(vital.database.is_up())));
    page.gauge("part_window", database, f64::from(u8::from(matches!(vital.database, Health::Window { .. }))));
    let end = view.shared.vitals.active(now).map_or(0.0, |window| window.until.0 as f64 / 1000.0);
    page.gauge("window_end_timestamp_seconds", database, end);
    page.gauge("clock_fault", &[], f64::from(u8::from(vital.expiry == Expiry::Ignored)));
    page.gauge("ready", &[], f64::from(u8::from(view.ready().is_ok())));
}
