//! Counters of a pump, its lag, and its state for people.

use super::alarm::Standing;
use crate::event::UnixMillis;
use crate::journal::{JournalId, Sequence};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Counters since the start.
#[derive(Debug, Default)]
pub struct Stats {
    /// Hits counted again in the sink after delivery.
    pub audited: AtomicU64,
    /// Transactions.
    pub batches: AtomicU64,
    /// Batches with a row that was there already though the cursor said it was not.
    pub doubled: AtomicU64,
    /// Steps that failed.
    pub failures: AtomicU64,
    /// Sequences that the journal could not give.
    pub missing: AtomicU64,
    /// Stretches of which the sink held more or less than it took.
    pub miscounted: AtomicU64,
    /// Times that the cursor was not where it was expected.
    pub moved: AtomicU64,
    /// Hits that were rejected.
    pub rejected: AtomicU64,
    /// Times that a sink went back.
    pub rewound: AtomicU64,
    /// Rows that were inserted.
    pub rows: AtomicU64,
    /// Rows that were there already.
    pub skipped: AtomicU64,
}

impl Stats {
    pub(super) fn count(counter: &AtomicU64, more: u64) {
        counter.fetch_add(more, Relaxed);
    }
}

/// How far a sink is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Durable hits that the sink does not have.
    pub pending: u64,
    /// At most how old the oldest of them is.
    pub lag: Duration,
    /// Each journal, oldest first.
    pub journals: Vec<JournalStatus>,
}

/// How far a sink is in one journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalStatus {
    /// Which.
    pub journal: JournalId,
    /// The sink's cursor when it was last seen; `None` when it was not yet asked.
    pub delivered: Option<Sequence>,
    /// The journal's last durable sequence.
    pub end: Sequence,
    /// How many hits lie between.
    pub pending: u64,
    /// Why it is not delivered, where it is not.
    pub standing: Option<Standing>,
}

/// The age of what is pending, from the last hit that was delivered and the last time that nothing
/// was pending: the oldest pending hit is younger than both.
#[derive(Debug, Default)]
pub(super) struct Lag {
    since: Option<UnixMillis>,
}

impl Lag {
    pub(super) fn idle(&mut self, now: UnixMillis) {
        self.since = Some(now);
    }

    /// The newest hit of a batch that was delivered.
    pub(super) fn delivered(&mut self, at: UnixMillis) {
        self.since = Some(self.since.map_or(at, |since| since.max(at)));
    }

    /// The age of the first hit to be delivered, where nothing is known yet.
    pub(super) fn begin(&mut self, at: UnixMillis) {
        self.since.get_or_insert(at);
    }

    pub(super) fn measure(&self, pending: u64, now: UnixMillis) -> Duration {
        match self.since {
            Some(since) if pending > 0 => now.since(since),
            _ => Duration::ZERO,
        }
    }
}
