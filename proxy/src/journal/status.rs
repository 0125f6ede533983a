//! What the journal tells about itself: its state, its counters, its size.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

use super::shared::Shared;
use super::shelf::Summary;
use super::{JournalId, Sequence};
use crate::event::UnixMillis;
use crate::metrics::Histogram;

const SYNC_BOUNDS_US: &[u64] = &[
    100, 200, 350, 500, 700, 1_000, 1_500, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000, 2_000_000,
];

/// How the journal is.
#[derive(Clone, Debug)]
pub struct Status {
    /// The journal of this process.
    pub id: JournalId,
    /// Whether it can be written.
    pub state: State,
    /// The last sequence given.
    pub appended: Sequence,
    /// The last sequence that survives the end of the process.
    pub written: Sequence,
    /// The last sequence that survives power loss.
    pub synced: Sequence,
    /// Segment files of all journals that this process owns.
    pub segments: usize,
    /// Bytes on disk of all journals of this edge, those of other processes included.
    pub bytes: u64,
    /// Prepared segments.
    pub spare_segments: usize,
    /// Each journal, oldest first.
    pub journals: Vec<Summary>,
}

/// Whether the journal can be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Records are staged, written and synced.
    Up,
    /// Writing failed twice in a row: staging is refused; what was staged is kept in memory and
    /// written when a new segment can be opened, which is tried again and again.
    Degraded {
        /// Why.
        reason: Reason,
        /// Since when.
        since: UnixMillis,
    },
}

/// Why the journal can't be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The disk failed; what it said.
    Failed(String),
    /// The disk is full, or the journals would exceed `bytes_max`.
    Full,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(said) => write!(f, "the disk failed: {said}"),
            Self::Full => f.write_str("the disk is full or journal.bytes_max is reached"),
        }
    }
}

/// Counters since the start, and how long syncs took.
#[derive(Debug)]
pub struct Stats {
    /// Records that were given a sequence.
    pub appended: AtomicU64,
    /// Records covered by a good sync.
    pub synced: AtomicU64,
    /// Records written again after a failed write or sync.
    pub reappended: AtomicU64,
    /// Bytes written, headers and second writings included.
    pub bytes: AtomicU64,
    /// Group commits.
    pub groups: AtomicU64,
    /// Good syncs.
    pub syncs: AtomicU64,
    /// Failed writes, syncs and openings of segments.
    pub failures: AtomicU64,
    /// Times that the journal became degraded.
    pub degraded: AtomicU64,
    /// Segments opened.
    pub segments: AtomicU64,
    /// Segments opened without a prepared one, so short ones.
    pub short_segments: AtomicU64,
    /// Records that were staged but could not be written before the end.
    pub abandoned: AtomicU64,
    /// Records staged and refused: too long, too far behind, degraded, stopped.
    pub refused: AtomicU64,
    /// How long syncs took.
    pub sync_time: Histogram,
}

impl Stats {
    pub(super) fn new() -> Self {
        Self {
            appended: AtomicU64::new(0),
            synced: AtomicU64::new(0),
            reappended: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            groups: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            degraded: AtomicU64::new(0),
            segments: AtomicU64::new(0),
            short_segments: AtomicU64::new(0),
            abandoned: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            sync_time: Histogram::new(SYNC_BOUNDS_US),
        }
    }
}

/// Adds to a counter that only sums matter of.
pub(super) fn count(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Relaxed);
}

pub(super) fn of(shared: &Shared) -> Status {
    let synced = shared.synced.load(Acquire);
    let state = shared.state();
    let shelf = shared.shelf();
    Status {
        id: shared.id,
        state,
        appended: Sequence(shared.appended.load(Acquire)),
        written: Sequence(shared.written.load(Acquire)),
        synced: Sequence(synced),
        segments: shelf.segment_count(),
        bytes: shelf.bytes(),
        spare_segments: shelf.spare_count(),
        journals: shelf.summaries(synced),
    }
}
