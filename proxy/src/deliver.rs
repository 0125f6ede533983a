//! The pump that moves hits from the journals to a sink, exactly once.
//!
//! Invariants:
//! - What was delivered is what the sink's cursor says, read from the sink after every start, failure
//!   and surprise, and again every few seconds; nothing local is believed.
//! - Only durable records are read, and each sequence from the cursor on is accounted for: a row, a
//!   reject with its reason, or a gap that is reported.
//! - A cursor that went back is delivered from again. One that is ahead of its journal, or that is
//!   gone where there was one, stops its journal and no other.
//! - Oldest journal first; within a journal in the order of the sequences.
//!
//! The pump has no thread, no clock and no log: a thread of `app` calls [`Pump::step`] in a loop,
//! waits as told, and logs what [`Pump::take_alarms`] gives.

mod adopt;
mod alarm;
mod backoff;
mod batch;
mod database;
mod reconcile;
mod remembered;
mod sink;
mod source;
mod stats;

#[cfg(test)]
mod memory;
#[cfg(test)]
mod tests;

pub use adopt::{AdoptError, AdoptFrom};
pub use alarm::{Alarm, Standing};
pub use database::DatabaseSink;
pub use reconcile::{JournalReport, Ranges, ReconcileError, Report, reconcile};
pub use remembered::Remembered;
pub use sink::{Fault, Holding, Rest, Sink};
pub use source::{JournalReader, Kept, Read, ReadFault, Source};
pub use stats::{JournalStatus, Stats, Status};

use crate::database::Held;
use crate::event::UnixMillis;
use crate::journal::{JournalId, Sequence};
use alarm::Alarms;
use backoff::Backoff;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// How long cursors are believed while nothing contradicts them. A database that went back while
/// nobody clicked is noticed after this time.
const BELIEF: Duration = Duration::from_secs(10);
/// Hits that are counted again at once; more would take longer than a statement may.
const AUDIT_HITS_MAX: u64 = 500_000;
/// However often a sink fails, a batch has so many rows.
const BATCH_ROWS_MIN: usize = 64;

/// The pump's settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The sink's name, as in metrics.
    pub sink: String,
    /// Most rows of one transaction.
    pub batch_rows: usize,
    /// Most bytes of events of one transaction.
    pub batch_bytes: usize,
    /// Most rows in a second, so that catching up leaves the database some air; 0 for no limit.
    pub rows_per_second_max: u32,
    /// The share of rejected hits above which an alarm is given.
    pub reject_rate_max: f64,
    /// The longest wait after failures.
    pub retry_max: Duration,
}

impl Config {
    /// The defaults.
    #[must_use]
    pub fn new(sink: &str) -> Self {
        Self {
            sink: sink.to_owned(),
            batch_rows: 50_000,
            batch_bytes: 16 << 20,
            rows_per_second_max: 0,
            reject_rate_max: 0.01,
            retry_max: Duration::from_secs(30),
        }
    }
}

/// What one step did, and when to take the next.
#[derive(Debug)]
#[must_use]
pub enum Step {
    /// A batch was taken.
    Delivered(Delivered),
    /// The sink failed; what became of a batch is read from it the next time.
    Failed {
        /// Why.
        error: Fault,
        /// When to step again.
        retry_after: Duration,
    },
    /// The sink has everything.
    Idle,
    /// The limit of rows per second is reached.
    Paced {
        /// When to step again.
        wait: Duration,
    },
    /// The sink was let go and is not touched.
    Released,
    /// The sink has everything but of journals that wait for somebody's decision.
    Standing {
        /// The oldest of them.
        reason: Standing,
    },
}

/// One batch that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// Whose hits.
    pub journal: JournalId,
    /// The sink's new cursor.
    pub through: Sequence,
    /// Rows that were inserted.
    pub rows: u64,
    /// Hits that were rejected.
    pub rejected: u64,
    /// Rows that were there already.
    pub skipped: u64,
    /// Sequences that the journal could not give.
    pub missing: u64,
    /// Whether this journal has more: step again at once.
    pub more: bool,
}

/// The way from the journals to one sink.
#[derive(Debug)]
pub struct Pump<R: Source, S> {
    config: Config,
    source: R,
    sink: S,
    remembered: Remembered,
    places: HashMap<JournalId, Place>,
    /// When the first of `places` was read.
    believed_since: Option<UnixMillis>,
    /// The open reader and the sequence it stands after.
    reader: Option<(JournalId, Sequence, R::Reader)>,
    /// Readers that failed: they count their failures, and in the end give up the place that fails.
    failing: HashMap<JournalId, (Sequence, R::Reader)>,
    /// What was decided about journals that stand still: the sequence to go on after.
    adoptions: HashMap<JournalId, Sequence>,
    /// Up to here rows may be there already, for the cursor was not the sink's own.
    overlaps: HashMap<JournalId, Sequence>,
    /// How far the sink was seen to be, believed or not; for the lag and for telling a step back.
    reached: HashMap<JournalId, Sequence>,
    unaudited: HashMap<JournalId, Stretch>,
    reject_rate: batch::RejectRate,
    /// The database that was asked last.
    store: Option<Uuid>,
    /// What it holds is known of its books only.
    by_books: bool,
    /// Most rows of the next batch: fewer after a failure, for it may have taken too long.
    rows_max: usize,
    pace_until: Option<UnixMillis>,
    backoff: Backoff,
    alarms: Alarms,
    stats: Arc<Stats>,
    lag: stats::Lag,
}

/// Where the sink is in a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    At {
        /// The cursor as it stands in the sink.
        expected: Option<u64>,
        after: Sequence,
    },
    Standing(Standing),
}

/// What was delivered and not yet counted in the sink.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    first: u64,
    last: u64,
    rows: u64,
    rejected: u64,
}

impl<R: Source, S: Sink> Pump<R, S> {
    /// A pump; `seed` spreads the retries of several edges over time.
    pub fn new(config: Config, source: R, sink: S, remembered: Remembered, seed: u64) -> Self {
        let backoff = Backoff::new(config.retry_max, seed);
        Self {
            config,
            source,
            sink,
            remembered,
            places: HashMap::new(),
            believed_since: None,
            reader: None,
            failing: HashMap::new(),
            adoptions: HashMap::new(),
            overlaps: HashMap::new(),
            reached: HashMap::new(),
            unaudited: HashMap::new(),
            reject_rate: batch::RejectRate::default(),
            store: None,
            by_books: false,
            rows_max: usize::MAX,
            pace_until: None,
            backoff,
            alarms: Alarms::default(),
            stats: Arc::default(),
            lag: stats::Lag::default(),
        }
    }

    /// Goes on with other settings into another sink; what was known of the old one is forgotten.
    pub fn reconfigure(&mut self, config: Config, sink: S) {
        self.forget();
        self.adoptions.clear();
        self.backoff.limit(config.retry_max);
        self.config = config;
        self.sink = sink;
    }

    /// Moves at most one batch. While `allowed` is false the sink is let go.
    ///
    /// Blocks for as long as the sink takes.
    pub fn step(&mut self, now: UnixMillis, allowed: bool) -> Step {
        if !allowed {
            self.forget();
            self.sink.rest(Rest::Long);
            return Step::Released;
        }
        if let Some(wait) = self.paced(now) {
            return Step::Paced { wait };
        }
        let mut outcome = self.advance(now);
        if let Err(Fault::Moved { .. }) = outcome {
            // Somebody else delivers, or the database went back: its cursors say which.
            Stats::count(&self.stats.moved, 1);
            self.forget();
            outcome = self.advance(now);
        }
        match outcome {
            Ok(step) => {
                self.backoff.reset();
                if let Step::Delivered(_) = step {
                    self.rows_max = self.rows_max.saturating_mul(2);
                }
                step
            }
            Err(error) => {
                Stats::count(&self.stats.failures, 1);
                self.rows_max = (self.rows_max.min(self.config.batch_rows) / 2).max(BATCH_ROWS_MIN);
                self.forget();
                self.sink.rest(Rest::Long);
                Step::Failed { error, retry_after: self.backoff.next() }
            }
        }
    }

    /// What was found since the last call that somebody should know.
    pub fn take_alarms(&mut self) -> Vec<Alarm> {
        self.alarms.take()
    }

    /// Counters, to be gathered by whoever scrapes.
    #[must_use]
    pub fn stats(&self) -> Arc<Stats> {
        Arc::clone(&self.stats)
    }

    /// How far the sink is, by what is known without asking it.
    #[must_use]
    pub fn status(&self, now: UnixMillis) -> Status {
        let journals: Vec<_> =
            self.source.journals().into_iter().map(|kept| self.journal_status(&kept)).collect();
        let pending = journals.iter().map(|journal| journal.pending).sum();
        Status { pending, lag: self.lag.measure(pending, now), journals }
    }

    /// The oldest journal that has something moves; the others wait for the next steps.
    fn advance(&mut self, now: UnixMillis) -> Result<Step, Fault> {
        self.doubt(now);
        self.audit(AUDIT_HITS_MAX)?;
        let mut standing = None;
        for kept in self.source.journals() {
            match self.place(&kept, now)? {
                Place::Standing(reason) => standing = standing.or(Some(reason)),
                Place::At { expected, after } if after < kept.end => {
                    if let Some(delivered) = self.deliver(&kept, expected, after, now)? {
                        return Ok(Step::Delivered(delivered));
                    }
                }
                Place::At { .. } => {}
            }
        }
        self.audit(0)?;
        Ok(match standing {
            Some(reason) => Step::Standing { reason },
            None => {
                self.lag.idle(now);
                Step::Idle
            }
        })
    }

    /// Reads the cursors anew from time to time, whatever the clock does.
    fn doubt(&mut self, now: UnixMillis) {
        let since = *self.believed_since.get_or_insert(now);
        if now < since || now.since(since) >= BELIEF {
            self.places.clear();
            self.believed_since = Some(now);
            self.sink.rest(Rest::Brief);
        }
    }

    /// Where the sink is in one journal, asking it where that is not known.
    fn place(&mut self, kept: &Kept, now: UnixMillis) -> Result<Place, Fault> {
        if let Some(place) = self.places.get(&kept.id) {
            return Ok(place.clone());
        }
        let holding = self.sink.holds(kept.id)?;
        self.store = Some(holding.store);
        let known = self.remembered.knows(holding.store, kept.id);
        self.by_books = holding.booked.is_some();
        let mut place = match holding.held {
            Held::Nothing if self.may_lack_books(&holding, kept.id) => {
                Place::Standing(Standing::CursorLost { journal: kept.id })
            }
            held => decide(kept, held, known),
        };
        if let Place::Standing(reason) = &place {
            match self.adoptions.get(&kept.id).copied() {
                Some(after) => place = self.write_adoption(kept, holding.held, after, now)?,
                None => self.alarms.raise(Alarm::Standing(reason.clone())),
            }
        }
        if let Place::At { expected, after } = place {
            // What was decided of a journal that stood is not for one that goes on by itself.
            self.adoptions.remove(&kept.id);
            if expected.is_some() {
                self.remember(kept.id);
            }
            self.alarms.settled(kept.id);
            self.reach(kept.id, after, known, now);
        }
        self.places.insert(kept.id, place.clone());
        Ok(place)
    }

    /// Whether a platform's tables may have rows of a journal that our books beside them do not know:
    /// the tables were restored without the books, or the books were emptied. A copy of both from
    /// before the journal was opened knows older journals.
    fn may_lack_books(&self, holding: &Holding, journal: JournalId) -> bool {
        let Some(booked) = &holding.booked else { return false };
        let is_older_copy = self.remembered.knows(holding.store, journal)
            && self.remembered.knows_one_of(holding.store, booked);
        self.remembered.knows_anywhere(journal) && !is_older_copy
    }

    /// Takes note of where the sink is, and of whether that is less than before.
    fn reach(&mut self, journal: JournalId, after: Sequence, known: bool, now: UnixMillis) {
        let before = self.reached.insert(journal, after);
        let back = match before {
            Some(before) => after < before,
            None => known && after.0 == 0,
        };
        if back {
            Stats::count(&self.stats.rewound, 1);
            self.alarms.raise(Alarm::Rewound { journal, from: before, to: after });
            self.unaudited.remove(&journal);
        }
        self.source.delivered(journal, &self.config.sink, after, now);
    }

    /// Remembers that the database that was asked last holds something of a journal.
    fn remember(&mut self, journal: JournalId) {
        let Some(store) = self.store else { return };
        if let Err(error) = self.remembered.note(store, journal) {
            self.alarms.raise(Alarm::NotRemembered { error: error.to_string() });
        }
    }

    /// Holds what was delivered against what is there: while nothing else is to be done, and when
    /// more than `hits_min` are waiting for it.
    fn audit(&mut self, hits_min: u64) -> Result<(), Fault> {
        let is_due = |stretch: &Stretch| stretch.last - stretch.first >= hits_min;
        while let Some(journal) = self.unaudited.iter().find(|(_, s)| is_due(s)).map(|(&journal, _)| journal)
        {
            let Some(stretch) = self.unaudited.remove(&journal) else { break };
            let found = self.sink.count(journal, stretch.first, stretch.last)?;
            Stats::count(&self.stats.audited, stretch.rows + stretch.rejected);
            if (found.rows, found.rejected) != (stretch.rows, stretch.rejected) {
                Stats::count(&self.stats.miscounted, 1);
                self.alarms.raise(Alarm::Miscounted {
                    journal,
                    first: Sequence(stretch.first),
                    last: Sequence(stretch.last),
                    rows: stretch.rows,
                    rejected: stretch.rejected,
                    found,
                });
            }
        }
        Ok(())
    }

    fn paced(&mut self, now: UnixMillis) -> Option<Duration> {
        let until = self.pace_until?;
        let wait = until.since(now);
        // A clock that was set back must not stop delivery.
        if wait.is_zero() || wait > Duration::from_secs(60) {
            self.pace_until = None;
            return None;
        }
        Some(wait)
    }

    /// Nothing that was read from the sink is believed any longer.
    fn forget(&mut self) {
        self.places.clear();
        self.believed_since = None;
        self.reader = None;
        self.unaudited.clear();
    }

    fn journal_status(&self, kept: &Kept) -> JournalStatus {
        let delivered = self.reached.get(&kept.id).copied();
        let standing = match self.places.get(&kept.id) {
            Some(Place::Standing(reason)) => Some(reason.clone()),
            _ => None,
        };
        let pending = kept.end.0.saturating_sub(delivered.unwrap_or_default().0);
        JournalStatus { journal: kept.id, delivered, end: kept.end, pending, standing }
    }
}

/// Where to go on in a journal, given what the sink holds of it and whether it held some before.
fn decide(kept: &Kept, held: Held, known: bool) -> Place {
    match held {
        Held::Cursor(cursor) if cursor > kept.end.0 => {
            let (cursor, end) = (Sequence(cursor), kept.end);
            Place::Standing(Standing::CursorAhead { journal: kept.id, cursor, end })
        }
        Held::Cursor(cursor) => Place::At { expected: Some(cursor), after: Sequence(cursor) },
        Held::Absent if known => Place::Standing(Standing::CursorLost { journal: kept.id }),
        // Either it never held anything, or it is a copy from before this journal was opened.
        Held::Absent | Held::Nothing => Place::At { expected: None, after: Sequence(0) },
    }
}
