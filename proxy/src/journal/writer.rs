//! The deciding core of the committer: gives sequences, writes, syncs, acknowledges, and heals.
//!
//! Invariants:
//! - `tail` holds every record that is not yet covered by a good sync, so it can be written again.
//! - After a failed write or sync the segment is left for good; the tail goes whole to a new one and
//!   is synced there before anything of it is acknowledged further.
//! - A second failure in a row is the degraded state. It is left only by such a good sync.
//! - A segment is used only when its header and its name are durable; one that is left for another
//!   after success ends with a seal.
//!
//! It is synchronous and knows time only as an argument, so that the model test drives it.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

use super::frame;
use super::live::{Live, Origin};
use super::segment::{Header, Name};
use super::shared::Shared;
use super::shelf::Ended;
use super::stager::{Slot, TooMuch};
use super::status::{Reason, State, count};
use super::tail::Tail;
use super::{Mode, Sequence};
use crate::event::UnixMillis;

/// What the committer makes itself when no spare is ready is so much smaller, for somebody waits.
const SHORT_SEGMENT_PART: u64 = 64;
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// What the committer should do after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Something was committed; more may have come meanwhile.
    Worked,
    /// Nothing to do before the bell rings, or before this much time has passed.
    Rest(Option<Duration>),
}

/// Time as the writer sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// Since some start; never goes back.
    pub(super) monotonic: Duration,
    /// For the headers and the status; never decides anything.
    pub(super) wall: UnixMillis,
}

/// The committer's state between two steps.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    slots: Vec<Arc<Slot>>,
    slots_version: u64,
    /// Where the next round of taking begins, so that no stager is always last.
    turn: usize,
    buffer: Vec<u8>,
    tail: Tail,
    live: Option<Live>,
    number_next: u64,
    housed: bool,
    sync_due: Option<Duration>,
    trouble: Option<Trouble>,
    /// Segments left after a failure, until what they may hold alone is synced elsewhere.
    left: Vec<Left>,
    stopwatch: Stopwatch,
}

/// Since when and how often opening a new segment has failed.
#[derive(Clone, Copy, Debug)]
struct Trouble {
    attempts: u32,
    retry_at: Duration,
}

/// A segment left after a failure, or not even begun. Up to `through` it may hold the only copy on
/// disk of records that were acknowledged as written.
#[derive(Clone, Copy, Debug)]
struct Left {
    number: u64,
    through: u64,
    /// Whether synced records are read from it; if none are, it is removed in the end.
    read: bool,
}

/// A monotonic clock that only measures.
struct Stopwatch(Box<dyn Fn() -> Duration + Send>);

impl Stopwatch {
    fn read(&self) -> Duration {
        (self.0)()
    }
}

impl fmt::Debug for Stopwatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stopwatch")
    }
}

/// Why writing failed.
#[derive(Debug)]
struct Fault {
    reason: Reason,
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        let full = matches!(error.kind(), StorageFull | QuotaExceeded);
        Self { reason: if full { Reason::Full } else { Reason::Failed(error.to_string()) } }
    }
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            slots: Vec::new(),
            slots_version: 0,
            turn: 0,
            buffer: Vec::new(),
            tail: Tail::new(),
            live: None,
            number_next: 1,
            housed: false,
            sync_due: None,
            trouble: None,
            left: Vec::new(),
            stopwatch: Stopwatch(Box::new(Duration::default)),
        }
    }

    /// Gives the clock by which syncs are measured; without one they take no time.
    pub(super) fn with_stopwatch(mut self, now: Box<dyn Fn() -> Duration + Send>) -> Self {
        self.stopwatch = Stopwatch(now);
        self
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Makes the journal's folder and first segment. When either fails the writer is degraded and
    /// tries again by itself; the error is that of the folder.
    pub(super) fn start(&mut self, now: UnixMillis) -> io::Result<()> {
        let at = Moment { monotonic: Duration::ZERO, wall: now };
        if let Err(error) = self.house() {
            let fault = Fault::from(io::Error::new(error.kind(), error.to_string()));
            self.degrade(fault.reason, at);
            return Err(error);
        }
        if let Err(fault) = self.open_segment(at) {
            self.degrade(fault.reason, at);
        }
        Ok(())
    }

    /// One round: takes what was handed over, writes it, syncs when it is time, acknowledges.
    pub(super) fn step(&mut self, now: Moment) -> Step {
        if let Some(trouble) = self.trouble
            && now.monotonic < trouble.retry_at
        {
            self.shared.bell.hush();
            return Step::Rest(Some(trouble.retry_at.checked_sub(now.monotonic).unwrap_or_default()));
        }
        let took = self.take();
        let unwritten = self.tail.written < self.tail.bytes.len();
        let due = self.sync_due.is_some_and(|due| now.monotonic >= due) || took.is_err();
        if !unwritten && !due && self.trouble.is_none() {
            let rest = self.sync_due.map(|due| due.checked_sub(now.monotonic).unwrap_or_default());
            return Step::Rest(rest);
        }
        count(&self.shared.stats.groups, 1);
        self.commit(now, due || self.shared.config.mode == Mode::Power);
        Step::Worked
    }

    /// Writes and syncs everything, seals the segment, and gives up what can't be written.
    pub(super) fn finish(&mut self, now: Moment) {
        loop {
            let took = self.take();
            self.commit(now, true);
            // A tail that can't be written leaves no room for what still waits.
            let stuck = self.trouble.is_some();
            if stuck || (took == Ok(0) && !self.slots.iter().any(|slot| slot.has_waiting())) {
                break;
            }
        }
        if self.trouble.is_none() {
            // Everything is synced: a seal that fails costs only the proof of a clean end.
            let _ = self.seal(now);
        }
        count(&self.shared.stats.abandoned, self.tail.next - self.tail.first);
    }

    /// Takes what the stagers handed over and gives it sequences. `Err` when something was left
    /// because the tail is full.
    fn take(&mut self) -> Result<u64, TooMuch> {
        self.shared.bell.hush();
        let version = self.shared.slots_version.load(Acquire);
        if version != self.slots_version {
            self.slots = self.shared.slots();
            self.slots_version = version;
        }
        let most = self.shared.config.unsynced_bytes_max;
        let (mut records, mut full) = (0, false);
        for place in 0..self.slots.len() {
            let slot = Arc::clone(&self.slots[(self.turn + place) % self.slots.len()]);
            // Read before taking: nothing comes after it.
            let closed = slot.closed.load(Acquire);
            match slot.take(&mut self.buffer, most.saturating_sub(self.tail.bytes.len())) {
                Err(TooMuch) => full = true,
                Ok(None) if closed => self.shared.forget_slot(&slot),
                Ok(None) => {}
                Ok(Some(taken)) => {
                    records += taken.records;
                    self.tail.add(&mut self.buffer, taken, slot);
                }
            }
        }
        self.turn = self.turn.wrapping_add(1);
        count(&self.shared.stats.appended, records);
        self.shared.appended.store(self.tail.next - 1, Release);
        if full { Err(TooMuch) } else { Ok(records) }
    }

    fn commit(&mut self, now: Moment, sync: bool) {
        let first_try = if self.trouble.is_none() { self.push(now, sync) } else { self.push_afresh(now) };
        let Err(fault) = first_try else {
            self.healed();
            return;
        };
        count(&self.shared.stats.failures, 1);
        self.leave();
        if self.trouble.is_some() {
            self.degrade(fault.reason, now);
            return;
        }
        match self.push_afresh(now) {
            Ok(()) => self.healed(),
            Err(fault) => {
                count(&self.shared.stats.failures, 1);
                self.leave();
                self.degrade(fault.reason, now);
            }
        }
    }

    /// Writes the tail again from its first record and syncs it, which proves the new segment.
    fn push_afresh(&mut self, now: Moment) -> Result<(), Fault> {
        self.house()?;
        if self.live.is_none() {
            self.open_segment(now)?;
        }
        self.push(now, true)
    }

    fn healed(&mut self) {
        if self.trouble.take().is_some() {
            self.shared.set_state(State::Up);
            self.wake_all();
        }
    }

    fn degrade(&mut self, reason: Reason, now: Moment) {
        let attempts = self.trouble.map_or(0, |trouble| trouble.attempts);
        let pause = RETRY_FIRST.saturating_mul(1 << attempts.min(10)).min(RETRY_MAX);
        self.trouble =
            Some(Trouble { attempts: attempts.saturating_add(1), retry_at: now.monotonic + pause });
        let since = match self.shared.state() {
            State::Degraded { since, .. } => since,
            State::Up => {
                count(&self.shared.stats.degraded, 1);
                now.wall
            }
        };
        self.shared.set_state(State::Degraded { reason, since });
        self.wake_all();
    }

    fn wake_all(&self) {
        for slot in &self.slots {
            slot.wake();
        }
    }

    /// Writes what is unwritten, into as many segments as it needs, and syncs if asked to.
    fn push(&mut self, now: Moment, sync: bool) -> Result<(), Fault> {
        while self.tail.written < self.tail.bytes.len() {
            if self.live.is_none() {
                self.open_segment(now)?;
            }
            if self.write_some()? == 0 {
                self.rotate(now)?;
            }
        }
        if sync {
            self.sync()?;
        } else {
            self.shared.written.fetch_max(self.tail.written_next - 1, Release);
            self.tail.acknowledge_written();
            if self.sync_due.is_none() {
                self.sync_due = Some(now.monotonic + self.shared.config.sync_every);
            }
        }
        Ok(())
    }

    /// Writes as many frames as still fit in the live segment; says how many bytes.
    fn write_some(&mut self) -> Result<usize, Fault> {
        let live = self.live.as_mut().expect("a segment was opened");
        let wrote = live.write(&mut self.tail.bytes[self.tail.written..], self.tail.written_next)?;
        self.tail.written += wrote.bytes;
        self.tail.written_next += wrote.records;
        count(&self.shared.stats.bytes, wrote.bytes as u64);
        Ok(wrote.bytes)
    }

    fn sync(&mut self) -> Result<(), Fault> {
        self.sync_due = None;
        let Some(live) = self.live.as_mut().filter(|live| !live.is_synced()) else { return Ok(()) };
        let started = self.stopwatch.read();
        let more = live.sync()?;
        self.shared.stats.sync_time.observe(self.stopwatch.read().saturating_sub(started));
        let through = self.tail.written_next - 1;
        count(&self.shared.stats.syncs, 1);
        count(&self.shared.stats.synced, self.tail.written_next - self.tail.first);
        self.tail.drop_written();
        self.shared.written.fetch_max(through, Release);
        self.shared.synced.store(through, Release);
        self.shared.shelf().add_usage(&more);
        self.tail.acknowledge_synced(through);
        self.release_left(through);
        Ok(())
    }

    /// Ends the live segment after success and opens the next.
    fn rotate(&mut self, now: Moment) -> Result<(), Fault> {
        self.sync()?;
        if self.seal(now).is_err() {
            // All of it is synced; the header of the next segment proves as much as the seal.
            count(&self.shared.stats.failures, 1);
        }
        self.open_segment(now)
    }

    /// Closes the live segment with its seal.
    fn seal(&mut self, now: Moment) -> Result<(), Fault> {
        let Some(mut live) = self.live.take() else { return Ok(()) };
        let sealed = live.seal(self.tail.first - 1, now.wall);
        self.close(live, Ended::InOrder);
        Ok(sealed?)
    }

    /// Leaves the live segment after a failure: what is synced stays, the rest is written again.
    fn leave(&mut self) {
        count(&self.shared.stats.reappended, self.tail.written_next - self.tail.first);
        self.tail.rewind();
        self.sync_due = None;
        let Some(live) = self.live.take() else { return };
        let left = Left { number: live.number, through: self.tail.next - 1, read: false };
        if self.close(live, Ended::AfterFailure) {
            self.left.push(Left { read: true, ..left });
        } else if self.left.is_empty() || !self.remove(left.number) {
            // Of those without a synced record the first stays, for it may hold records that were
            // acknowledged as written; further ones hold nothing else and would fill the disk.
            self.left.push(left);
        }
    }

    fn close(&mut self, live: Live, end: Ended) -> bool {
        let last = self.shared.synced.load(Relaxed);
        let tags = live.tags.into_iter().collect();
        self.shared.shelf().close_segment(live.number, last, tags, end)
    }

    fn release_left(&mut self, through: u64) {
        for left in std::mem::take(&mut self.left) {
            if left.through > through {
                self.left.push(left);
            } else if left.read {
                self.shared.shelf().release_segment(left.number);
            } else if !self.remove(left.number) {
                self.left.push(left);
            }
        }
    }

    fn remove(&self, number: u64) -> bool {
        let path = self.shared.home(self.shared.id).join(Name::log(number));
        let gone = match self.shared.disk.remove(&path) {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        if gone {
            self.shared.shelf().current().remains.remove(&number);
        }
        gone
    }

    /// Makes the journal's folder, locked before it can be seen under its name.
    fn house(&mut self) -> io::Result<()> {
        if self.housed {
            return Ok(());
        }
        let (disk, folder) = (&self.shared.disk, &self.shared.config.folder);
        let home = self.shared.home(self.shared.id);
        let early = folder.join(format!("{}.new", self.shared.id));
        let held = self.shared.shelf().current().lock.is_some();
        if !held {
            disk.make_folder(folder)?;
            disk.sync_folder(parent_of(folder))?;
            disk.make_folder(&early)?;
            let lock = disk.create_lock(&early.join(LOCK))?;
            self.shared.shelf().current().lock = Some(lock);
        }
        match disk.rename(&early, &home) {
            Ok(()) => {}
            // A try before this one got that far.
            Err(error) if error.kind() == io::ErrorKind::NotFound && held => {}
            Err(error) => return Err(error),
        }
        if let Err(error) = disk.sync_folder(folder) {
            // A second sync of the same entry would prove nothing: the next try makes it anew.
            let _ = disk.rename(&home, &early);
            return Err(error);
        }
        self.housed = true;
        Ok(())
    }

    /// Opens the next segment: a spare or a short new one gets its header, is synced, gets its name,
    /// and the folder is synced.
    fn open_segment(&mut self, now: Moment) -> Result<(), Fault> {
        let home = self.shared.home(self.shared.id);
        let number = self.number_next;
        self.number_next += 1;
        let spare = self.shared.shelf().spares.pop();
        let (early, capacity, origin) = match spare {
            Some((spare, bytes)) => (home.join(Name::spare(spare)), bytes, Origin::Spare),
            None => (home.join(format!("{}.new", Name::log(number))), self.short_bytes()?, Origin::Scratch),
        };
        let header = Header {
            id: self.shared.id,
            number,
            first: Sequence(self.tail.written_next),
            capacity,
            block_bytes: self.shared.config.block_bytes,
            opened_at: self.shared.opened_at,
            created_at: now.wall,
            edge: self.shared.edge.clone(),
        };
        match Live::open(&*self.shared.disk, &early, &home.join(Name::log(number)), &header, origin) {
            Ok(live) => {
                self.shared.shelf().open_segment(number, self.tail.written_next, capacity);
                count(&self.shared.stats.segments, 1);
                count(&self.shared.stats.short_segments, u64::from(origin == Origin::Scratch));
                self.live = Some(live);
                Ok(())
            }
            Err(error) => {
                // Nothing was written to it: wherever it got to, it may go.
                let _ = self.shared.disk.remove(&early);
                if !self.remove(number) {
                    self.shared.shelf().current().remains.insert(number);
                    self.left.push(Left { number, through: self.tail.first - 1, read: false });
                }
                Err(error.into())
            }
        }
    }

    /// The size of a segment made while somebody waits, if `bytes_max` allows one.
    fn short_bytes(&self) -> Result<u64, Fault> {
        let config = &self.shared.config;
        let record_bytes = frame::frame_bytes(config.record_bytes_max as usize) as u64;
        let least =
            record_bytes.next_multiple_of(u64::from(config.block_bytes)) + 2 * u64::from(config.block_bytes);
        let bytes = config.segment_bytes.min(least.max(config.segment_bytes / SHORT_SEGMENT_PART));
        if self.shared.shelf().bytes() + bytes > config.bytes_max {
            return Err(Fault { reason: Reason::Full });
        }
        Ok(bytes)
    }
}

fn parent_of(folder: &Path) -> &Path {
    match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => folder,
    }
}

/// The lock file of a journal's folder.
pub(super) const LOCK: &str = "lock";
