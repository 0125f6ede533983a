//! One batch: records read and decoded, written whole, halved where a row is refused.

use super::alarm::Alarm;
use super::sink::{Fault, Sink};
use super::source::{Kept, Read, ReadFault, Source};
use super::stats::Stats;
use super::{Delivered, Place, Pump, Standing, Stretch};
use crate::courtesy::Courtesy;
use crate::database::{Committed, Delivery, Hit, KnownJournal, Reject, Twice};
use crate::event::{Event, UnixMillis};
use crate::journal::{JournalId, Sequence};
use crate::record::verdict::judge;
use std::time::Duration;
use uuid::Uuid;

/// Below so many hits a share says nothing.
const RATE_HITS_MIN: u64 = 100;
/// Hits that the share of rejected ones is taken of; then both counts are halved.
const RATE_HITS_MAX: u64 = 100_000;

/// What was read for one batch. Nothing between `after` and `through` is outside `hits`, `rejects`
/// and the gaps that were reported.
struct Portion<'a> {
    kept: &'a Kept,
    after: Sequence,
    through: Sequence,
    hits: Vec<Hit<'a>>,
    rejects: Vec<Reject<'a>>,
    missing: u64,
}

/// Rejected hits among the last ones.
#[derive(Debug, Default)]
pub(super) struct RejectRate {
    hits: u64,
    rejected: u64,
    alarmed: bool,
}

impl<R: Source, S: Sink> Pump<R, S> {
    /// Delivers the next batch of one journal; `None` where nothing can be read now.
    pub(super) fn deliver(
        &mut self,
        kept: &Kept,
        expected: Option<u64>,
        after: Sequence,
        now: UnixMillis,
    ) -> Result<Option<Delivered>, Fault> {
        // What lies before `first` is gone, and says so below as a gap.
        let from = Sequence(after.0.max(kept.first.0.saturating_sub(1)).min(kept.end.0));
        let mut reader = match self.reader_at(kept.id, from) {
            Ok(reader) => reader,
            Err(error) => return Ok(self.stand(kept.id, &error.to_string())),
        };
        let through = match reader.fill(self.config.batch_rows.min(self.rows_max), self.config.batch_bytes) {
            Ok(through) => through,
            Err(error) => {
                self.failing.insert(kept.id, (from, reader));
                return Ok(self.stand(kept.id, &error.to_string()));
            }
        };
        if through <= after {
            return Ok(None);
        }
        let mut portion = Portion { kept, after, through, hits: Vec::new(), rejects: Vec::new(), missing: 0 };
        for (first, last) in portion.decode(&reader) {
            let (journal, first, last) = (kept.id, Sequence(first), Sequence(last));
            self.alarms.raise(if first < kept.first {
                Alarm::Expired { journal, first, last }
            } else {
                Alarm::Gap { journal, first, last }
            });
        }
        if let Some(hit) = portion.hits.first() {
            self.lag.begin(hit.at);
        }
        let done = self.write(&portion, expected, now)?;
        if let Some(hit) = portion.hits.last() {
            self.lag.delivered(hit.at);
        }
        drop(portion);
        self.reader = Some((kept.id, through, reader));
        self.pace(done.rows, now);
        Ok(Some(done))
    }

    /// The reader that stands there, or a new one.
    fn reader_at(&mut self, journal: JournalId, from: Sequence) -> Result<R::Reader, ReadFault> {
        match (self.reader.take(), self.failing.remove(&journal)) {
            (Some((of, at, reader)), _) if of == journal && at == from => Ok(reader),
            (_, Some((at, reader))) if at == from => Ok(reader),
            _ => self.source.reader(journal, from),
        }
    }

    /// Writes what was read, in one transaction where the sink refuses nothing.
    fn write(
        &mut self,
        portion: &Portion<'_>,
        expected: Option<u64>,
        now: UnixMillis,
    ) -> Result<Delivered, Fault> {
        let journal = portion.kept.id;
        let mut done = Delivered {
            journal,
            through: portion.through,
            rows: 0,
            rejected: 0,
            skipped: 0,
            missing: portion.missing,
            more: portion.through < portion.kept.end,
        };
        let mut order = delivery(portion.kept, now);
        order.expected = expected;
        let (mut after, mut left, mut size) = (portion.after, portion.hits.as_slice(), portion.hits.len());
        loop {
            let (part, rest) = left.split_at(size);
            let last = match part.last() {
                Some(hit) if !rest.is_empty() => Sequence(hit.sequence),
                _ => portion.through,
            };
            order.first = after.0 + 1;
            order.last = last.0;
            order.hits = part;
            let rejects = portion.rejects_within(after, last);
            order.rejects = rejects;
            order.twice = self.twice(journal);
            let taken = match (self.take(&order), part) {
                (Err(Fault::Content { .. }), [_, _, ..]) => {
                    size = part.len() / 2;
                    continue;
                }
                (Err(Fault::Content { reason }), [alone]) => {
                    let taken = self.take_rejected(&order, alone, reason.clone())?;
                    self.account(&order, &taken, rejects.len() as u64 + 1, Some(&reason), &mut done);
                    taken
                }
                (taken, _) => {
                    let taken = taken?;
                    let rejected = (rejects.len() + taken.refused.len()) as u64;
                    let reason =
                        taken.refused.last().map(|r| &r.reason).or_else(|| rejects.last().map(|r| &r.reason));
                    self.account(&order, &taken, rejected, reason.map(String::as_str), &mut done);
                    taken
                }
            };
            debug_assert!(taken.rows <= part.len() as u64, "a sink inserts what it was given");
            self.settle(journal, order.expected.is_none(), last, now);
            (after, left, order.expected) = (last, rest, Some(last.0));
            if left.is_empty() {
                Stats::count(&self.stats.missing, portion.missing);
                return Ok(done);
            }
            size = (size * 2).min(left.len());
        }
    }

    /// One transaction; rows that are there already are told once and left as they are.
    fn take(&mut self, order: &Delivery<'_>) -> Result<Committed, Fault> {
        match self.sink.take(order) {
            Err(Fault::Doubled) if order.twice == Twice::Refuse => {
                let again = Delivery { twice: Twice::Skip, ..order.clone() };
                let taken = self.sink.take(&again)?;
                Stats::count(&self.stats.doubled, 1);
                self.alarms.raise(Alarm::Doubled {
                    journal: JournalId::from_bytes(*order.journal.uuid.as_bytes()),
                    first: Sequence(order.first),
                    last: Sequence(order.last),
                    rows: taken.skipped,
                });
                Ok(taken)
            }
            other => other,
        }
    }

    /// The same transaction with its only hit among the rejects.
    fn take_rejected(
        &mut self,
        order: &Delivery<'_>,
        alone: &Hit<'_>,
        reason: String,
    ) -> Result<Committed, Fault> {
        let mut rejects = order.rejects.to_vec();
        rejects.push(Reject { sequence: alone.sequence, at: alone.at, payload: alone.payload, reason });
        rejects.sort_by_key(|reject| reject.sequence);
        self.sink.take(&Delivery { hits: &[], rejects: &rejects, ..order.clone() })
    }

    fn account(
        &mut self,
        order: &Delivery<'_>,
        taken: &Committed,
        rejected: u64,
        reason: Option<&str>,
        done: &mut Delivered,
    ) {
        done.rows += taken.rows;
        done.skipped += taken.skipped;
        done.rejected += rejected;
        Stats::count(&self.stats.batches, 1);
        Stats::count(&self.stats.rows, taken.rows);
        Stats::count(&self.stats.skipped, taken.skipped);
        Stats::count(&self.stats.rejected, rejected);
        let hits = taken.rows + taken.skipped + rejected;
        if let Some(alarm) = self.reject_rate.add(hits, rejected, self.config.reject_rate_max, reason) {
            self.alarms.raise(alarm);
        }
        if self.by_books && taken.skipped > 0 {
            // Other batches account for what was there, and need not lie within this stretch.
            self.unaudited.remove(&done.journal);
            return;
        }
        let rows = taken.rows + taken.skipped;
        self.unaudited
            .entry(done.journal)
            .and_modify(|stretch| {
                stretch.last = order.last;
                stretch.rows += rows;
                stretch.rejected += rejected;
            })
            .or_insert(Stretch { first: order.first, last: order.last, rows, rejected });
    }

    /// The sink has everything up to `last`.
    fn settle(&mut self, journal: JournalId, is_first: bool, last: Sequence, now: UnixMillis) {
        if is_first {
            self.remember(journal);
        }
        if self.overlaps.get(&journal).is_some_and(|&until| until <= last) {
            self.overlaps.remove(&journal);
        }
        self.places.insert(journal, Place::At { expected: Some(last.0), after: last });
        self.reached.insert(journal, last);
        self.source.delivered(journal, &self.config.sink, last, now);
    }

    fn twice(&self, journal: JournalId) -> Twice {
        if self.overlaps.contains_key(&journal) { Twice::Skip } else { Twice::Refuse }
    }

    /// One unreadable journal must not hold up the others.
    fn stand(&mut self, journal: JournalId, error: &str) -> Option<Delivered> {
        let reason = Standing::Unreadable { journal, error: error.to_owned() };
        self.alarms.raise(Alarm::Standing(reason.clone()));
        self.places.insert(journal, Place::Standing(reason));
        None
    }

    fn pace(&mut self, rows: u64, now: UnixMillis) {
        if self.config.rows_per_second_max > 0 {
            let ms = rows * 1000 / u64::from(self.config.rows_per_second_max);
            self.pace_until = Some(now.after(Duration::from_millis(ms)));
        }
    }
}

impl<'a> Portion<'a> {
    /// Decodes what was read, and returns the sequences that are not there.
    fn decode(&mut self, reader: &'a impl Read) -> Vec<(u64, u64)> {
        let mut gaps = Vec::new();
        let mut next = self.after.0 + 1;
        let mut courtesy = Courtesy::default();
        for (sequence, at, payload) in reader.records() {
            courtesy.step();
            let sequence = sequence.0;
            assert!(
                sequence >= next && sequence <= self.through.0,
                "a reader gives each record once, in order"
            );
            if sequence > next {
                gaps.push((next, sequence - 1));
            }
            next = sequence + 1;
            match Event::decode(payload) {
                Ok(event) => {
                    let event = Event { verdict: judge(&event), ..event };
                    self.hits.push(Hit { sequence, at, payload, event });
                }
                Err(damaged) => {
                    self.rejects.push(Reject { sequence, at, payload, reason: damaged.to_string() });
                }
            }
        }
        if next <= self.through.0 {
            gaps.push((next, self.through.0));
        }
        self.missing = gaps.iter().map(|(first, last)| last - first + 1).sum();
        gaps
    }

    fn rejects_within(&self, after: Sequence, last: Sequence) -> &[Reject<'a>] {
        let from = self.rejects.partition_point(|reject| reject.sequence <= after.0);
        let to = self.rejects.partition_point(|reject| reject.sequence <= last.0);
        &self.rejects[from..to]
    }
}

impl RejectRate {
    fn add(&mut self, hits: u64, rejected: u64, max: f64, reason: Option<&str>) -> Option<Alarm> {
        self.hits += hits;
        self.rejected += rejected;
        let above = self.hits >= RATE_HITS_MIN && self.rejected as f64 > self.hits as f64 * max;
        let alarm = (above && !self.alarmed).then(|| Alarm::RejectRate {
            rejected: self.rejected,
            hits: self.hits,
            reason: reason.unwrap_or_default().to_owned(),
        });
        if self.hits >= RATE_HITS_MIN {
            self.alarmed = above;
        }
        if self.hits >= RATE_HITS_MAX {
            self.hits /= 2;
            self.rejected /= 2;
        }
        alarm
    }
}

/// An order that writes nothing yet.
pub(super) fn delivery(kept: &Kept, now: UnixMillis) -> Delivery<'_> {
    Delivery {
        journal: KnownJournal {
            uuid: Uuid::from_bytes(*kept.id.as_bytes()),
            edge: &kept.edge,
            opened_at: kept.opened_at,
        },
        expected: None,
        first: 1,
        last: 0,
        hits: &[],
        rejects: &[],
        twice: Twice::Refuse,
        at: now,
    }
}
