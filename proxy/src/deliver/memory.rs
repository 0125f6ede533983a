//! Journals and a database in memory that suffer what real ones do, from a seed.

use super::source::{Kept, Read, ReadFault, Source};
use super::{Fault, Holding, Rest, Sink};
use crate::database::{Audit, Committed, Delivery, Held, Refusal, Twice};
use crate::event::{Class, Event, Kind, Method, Outcome, UnixMillis, Verdict};
use crate::journal::{JournalId, Sequence};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::rc::Rc;
use uuid::Uuid;

/// A token that the sink refuses for what it is.
pub(super) const POISON: &[u8] = b"poison";

/// SplitMix64.
#[derive(Clone, Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(super) fn one_in(&mut self, n: u64) -> bool {
        n > 0 && self.below(n) == 0
    }
}

pub(super) fn event(token: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Event {
        kind: Kind::Click,
        method: Method::Get,
        outcome: Outcome::Redirected,
        class: Class::Synced,
        verdict: Verdict::Person,
        status: 302,
        site: b"shop",
        namespace: b"acme",
        host: b"click.example.com",
        token,
        campaign: b"spring",
        captures: b"",
        query: b"",
        url: b"",
        address: &[192, 0, 2, 0],
        user_agent: b"Mozilla/5.0",
        referrer: b"",
    }
    .encode(&mut out);
    out
}

/// One journal: what was appended, how much of it is durable, what was dropped or damaged.
#[derive(Clone, Debug)]
pub(super) struct Log {
    pub(super) id: JournalId,
    pub(super) records: Vec<Vec<u8>>,
    pub(super) damaged: Vec<bool>,
    pub(super) synced: u64,
    pub(super) first: u64,
    pub(super) unreadable: bool,
    /// What the pump last said that the sink holds.
    pub(super) delivered: u64,
}

/// The journals of one edge.
#[derive(Clone, Debug, Default)]
pub(super) struct Shelf(pub(super) Rc<RefCell<Vec<Log>>>);

impl Shelf {
    pub(super) fn open(&self, id: u8) -> JournalId {
        let id = JournalId::from_bytes([id; 16]);
        let log = Log {
            id,
            records: Vec::new(),
            damaged: Vec::new(),
            synced: 0,
            first: 1,
            unreadable: false,
            delivered: 0,
        };
        self.0.borrow_mut().push(log);
        id
    }

    /// Appends to the newest journal, durably.
    pub(super) fn append(&self, payload: Vec<u8>) {
        let mut logs = self.0.borrow_mut();
        let log = logs.last_mut().unwrap();
        log.records.push(payload);
        log.damaged.push(false);
        log.synced = log.records.len() as u64;
    }

    pub(super) fn with<T>(&self, journal: JournalId, change: impl FnOnce(&mut Log) -> T) -> T {
        change(self.0.borrow_mut().iter_mut().find(|log| log.id == journal).unwrap())
    }
}

impl Source for Shelf {
    type Reader = Cursor;

    fn journals(&self) -> Vec<Kept> {
        let kept = |log: &Log| Kept {
            id: log.id,
            edge: "edge-1".to_owned(),
            opened_at: UnixMillis(1),
            first: Sequence(log.first),
            end: Sequence(log.synced),
        };
        self.0.borrow().iter().map(kept).collect()
    }

    fn reader(&self, journal: JournalId, after: Sequence) -> Result<Cursor, ReadFault> {
        if self.with(journal, |log| log.unreadable) {
            return Err("the disk fails".into());
        }
        Ok(Cursor { shelf: self.clone(), journal, after: after.0, read: Vec::new() })
    }

    fn delivered(&self, journal: JournalId, _sink: &str, through: Sequence, _now: UnixMillis) {
        self.with(journal, |log| log.delivered = through.0);
    }
}

#[derive(Debug)]
pub(super) struct Cursor {
    shelf: Shelf,
    journal: JournalId,
    after: u64,
    read: Vec<(Sequence, UnixMillis, Vec<u8>)>,
}

impl Read for Cursor {
    fn fill(&mut self, records_max: usize, bytes_max: usize) -> Result<Sequence, ReadFault> {
        self.read.clear();
        let logs = self.shelf.0.borrow();
        let log = logs.iter().find(|log| log.id == self.journal).unwrap();
        if log.unreadable {
            return Err("the disk fails".into());
        }
        let mut bytes = 0;
        while self.after < log.synced && self.read.len() < records_max && bytes < bytes_max {
            let index = self.after as usize;
            self.after += 1;
            if self.after >= log.first && !log.damaged[index] {
                bytes += log.records[index].len();
                self.read.push((Sequence(self.after), UnixMillis(self.after), log.records[index].clone()));
            }
        }
        Ok(Sequence(self.after))
    }

    fn records(&self) -> impl Iterator<Item = (Sequence, UnixMillis, &[u8])> {
        self.read.iter().map(|(sequence, at, payload)| (*sequence, *at, payload.as_slice()))
    }
}

/// What a database holds of one journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Shelved {
    pub(super) cursor: Option<u64>,
    pub(super) rows: BTreeMap<u64, Vec<u8>>,
    pub(super) rejected: BTreeMap<u64, Vec<u8>>,
}

/// A database's content, as a snapshot or a failover would carry it.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    pub(super) journals: BTreeMap<[u8; 16], Shelved>,
}

/// How often what goes wrong: one time in so many, 0 for never.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    pub(super) before_commit: u64,
    pub(super) after_commit: u64,
    pub(super) reading: u64,
}

/// The database that pumps share.
#[derive(Debug)]
pub(super) struct World {
    pub(super) content: Content,
    pub(super) faults: Faults,
    pub(super) random: Random,
    /// Whether a refused row ends the whole transaction, or is found by the sink itself.
    pub(super) finds_refused: bool,
    pub(super) commits: u64,
    pub(super) doubled: u64,
}

#[derive(Clone, Debug)]
pub(super) struct MemorySink(pub(super) Rc<RefCell<World>>);

impl MemorySink {
    pub(super) fn new(seed: u64) -> Self {
        Self(Rc::new(RefCell::new(World {
            content: Content::default(),
            faults: Faults::default(),
            random: Random(seed),
            finds_refused: false,
            commits: 0,
            doubled: 0,
        })))
    }

    pub(super) fn of(&self, journal: JournalId) -> Shelved {
        self.0.borrow().content.journals.get(journal.as_bytes()).cloned().unwrap_or_default()
    }
}

fn failed() -> Fault {
    Fault::Failed("the connection was lost".into())
}

impl Sink for MemorySink {
    fn holds(&mut self, journal: JournalId) -> Result<Holding, Fault> {
        let mut world = self.0.borrow_mut();
        let one_in = world.faults.reading;
        if world.random.one_in(one_in) {
            return Err(failed());
        }
        let held = match world.content.journals.get(journal.as_bytes()) {
            Some(Shelved { cursor: Some(cursor), .. }) => Held::Cursor(*cursor),
            Some(Shelved { cursor: None, .. }) => Held::Absent,
            None => Held::Nothing,
        };
        Ok(Holding { store: Uuid::from_bytes([9; 16]), held, booked: None })
    }

    fn take(&mut self, batch: &Delivery<'_>) -> Result<Committed, Fault> {
        let mut world = self.0.borrow_mut();
        let Faults { before_commit, after_commit, .. } = world.faults;
        if world.random.one_in(before_commit) {
            return Err(failed());
        }
        let mut there =
            world.content.journals.get(batch.journal.uuid.as_bytes()).cloned().unwrap_or_default();
        if there.cursor != batch.expected {
            return Err(Fault::Moved { found: there.cursor });
        }
        there.cursor = Some(batch.last);
        let mut done = Committed::default();
        if batch.first <= batch.last {
            let stale: Vec<u64> = there.rejected.range(batch.first..=batch.last).map(|(&s, _)| s).collect();
            stale.iter().for_each(|sequence| drop(there.rejected.remove(sequence)));
        }
        for hit in batch.hits {
            if hit.event.token == POISON {
                if !world.finds_refused {
                    return Err(Fault::Content { reason: "poison".to_owned() });
                }
                there.rejected.insert(hit.sequence, hit.payload.into());
                done.refused.push(Refusal { sequence: hit.sequence, reason: "poison".to_owned() });
                continue;
            }
            match there.rows.entry(hit.sequence) {
                Entry::Vacant(free) => {
                    free.insert(hit.payload.into());
                    done.rows += 1;
                }
                Entry::Occupied(_) if batch.twice == Twice::Skip => done.skipped += 1,
                Entry::Occupied(_) => {
                    world.doubled += 1;
                    return Err(Fault::Doubled);
                }
            }
        }
        for reject in batch.rejects {
            there.rejected.insert(reject.sequence, reject.payload.into());
        }
        world.content.journals.insert(*batch.journal.uuid.as_bytes(), there);
        world.commits += 1;
        if world.random.one_in(after_commit) { Err(failed()) } else { Ok(done) }
    }

    fn count(&mut self, journal: JournalId, first: u64, last: u64) -> Result<Audit, Fault> {
        let there = self.of(journal);
        let rows = there.rows.range(first..=last).count() as u64;
        Ok(Audit { rows, rejected: there.rejected.range(first..=last).count() as u64 })
    }

    fn rest(&mut self, _rest: Rest) {}
}
