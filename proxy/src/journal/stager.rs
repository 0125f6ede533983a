//! The data thread's side: encoding into a buffer of its own, handing it over, seeing what is safe.
//!
//! Invariants:
//! - Nothing here waits for the disk. The one lock is held to swap or append a buffer, by the data
//!   thread and the committer, never during I/O.
//! - A stager holds at most `staged_bytes_max`, counted until the committer has taken it.
//! - In steady state three buffers go round per stager and nothing is allocated.

use std::fmt;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::shared::Shared;
use super::status::count;
use super::{Batch, Tag, frame};
use crate::event::UnixMillis;

/// Collects the records of one data thread, turn by turn.
#[derive(Debug)]
pub struct Stager {
    shared: Arc<Shared>,
    slot: Arc<Slot>,
    buffer: Vec<u8>,
    /// The end of the last whole frame: what an encoder that panicked left behind it is cut off.
    whole: usize,
    records: u64,
    batch: u64,
    seed: u32,
}

/// Up to where this stager's batches are safe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Acknowledged {
    /// They survive the end of the process.
    pub written: Batch,
    /// They survive power loss.
    pub synced: Batch,
}

/// Why a record was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The committer is too far behind: `staged_bytes_max` is reached.
    Behind,
    /// The journal can't be written now.
    Degraded,
    /// The journal was stopped.
    Stopped,
    /// The record is longer than `record_bytes_max`.
    TooLong,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Behind => "the journal's committer is too far behind",
            Self::Degraded => "the journal can't be written now",
            Self::Stopped => "the journal was stopped",
            Self::TooLong => "the record is longer than allowed",
        })
    }
}

impl std::error::Error for Refusal {}

impl Stager {
    pub(super) fn new(shared: &Arc<Shared>, wake: Arc<dyn Fn() + Send + Sync>) -> Self {
        let slot = Arc::new(Slot::new(wake));
        shared.register(Arc::clone(&slot));
        Self {
            shared: Arc::clone(shared),
            slot,
            buffer: Vec::new(),
            whole: 0,
            records: 0,
            batch: 1,
            seed: frame::payload_seed(shared.id),
        }
    }

    /// Adds a record to this turn's batch; `encode` appends its bytes. Says which batch that is.
    ///
    /// # Errors
    /// When the record was not taken; nothing of it is kept then.
    pub fn stage(
        &mut self,
        at: UnixMillis,
        tag: Tag,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Batch, Refusal> {
        self.buffer.truncate(self.whole);
        let staged = self.admit().and_then(|()| {
            let most = self.shared.config.record_bytes_max;
            frame::append(&mut self.buffer, self.seed, (at, tag), most, encode).map_err(|_| Refusal::TooLong)
        });
        match staged {
            Ok(_) => {
                self.records += 1;
                self.whole = self.buffer.len();
                Ok(Batch(self.batch))
            }
            Err(refusal) => {
                count(&self.shared.stats.refused, 1);
                Err(refusal)
            }
        }
    }

    /// Hands this turn's batch to the committer. Does nothing when nothing was staged.
    pub fn flush(&mut self) {
        if self.records == 0 {
            return;
        }
        self.buffer.truncate(self.whole);
        self.whole = 0;
        self.slot.put(&mut self.buffer, std::mem::take(&mut self.records), self.batch);
        self.batch += 1;
        self.shared.bell.ring();
    }

    /// Up to where this stager's batches are safe: two atomic loads.
    #[must_use]
    pub fn acknowledged(&self) -> Acknowledged {
        // The synced mark first: the written one, read later, can only be further on.
        let synced = Batch(self.slot.synced.load(Acquire));
        Acknowledged { written: Batch(self.slot.written.load(Acquire)).max(synced), synced }
    }

    fn admit(&self) -> Result<(), Refusal> {
        if self.shared.stopping.load(Relaxed) {
            return Err(Refusal::Stopped);
        }
        if self.shared.degraded.load(Relaxed) {
            return Err(Refusal::Degraded);
        }
        let most = frame::frame_bytes(self.shared.config.record_bytes_max as usize);
        let held = self.buffer.len() + self.slot.waiting_bytes.load(Relaxed);
        if held + most > self.shared.config.staged_bytes_max && held > 0 {
            return Err(Refusal::Behind);
        }
        Ok(())
    }
}

impl Drop for Stager {
    fn drop(&mut self) {
        self.flush();
        self.slot.closed.store(true, Release);
    }
}

/// Where one stager and the committer meet.
pub(super) struct Slot {
    /// Guards the batches that wait to be taken; held for a swap or a copy, never during I/O.
    waiting: Mutex<Waiting>,
    waiting_bytes: AtomicUsize,
    pub(super) written: AtomicU64,
    pub(super) synced: AtomicU64,
    pub(super) closed: AtomicBool,
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("written", &self.written)
            .field("synced", &self.synced)
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    records: u64,
    batch: u64,
}

/// What the committer took from a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) records: u64,
    /// The last batch in it.
    pub(super) batch: u64,
}

impl Slot {
    fn new(wake: Arc<dyn Fn() + Send + Sync>) -> Self {
        Self {
            waiting: Mutex::default(),
            waiting_bytes: AtomicUsize::new(0),
            written: AtomicU64::new(0),
            synced: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            wake,
        }
    }

    fn put(&self, buffer: &mut Vec<u8>, records: u64, batch: u64) {
        let mut waiting = self.lock();
        if waiting.bytes.is_empty() {
            std::mem::swap(&mut waiting.bytes, buffer);
        } else {
            waiting.bytes.extend_from_slice(buffer);
            buffer.clear();
        }
        waiting.records += records;
        waiting.batch = batch;
        self.waiting_bytes.store(waiting.bytes.len(), Relaxed);
    }

    /// Swaps what waits for the empty `buffer`; nothing when it is more than `bytes_max`.
    pub(super) fn take(&self, buffer: &mut Vec<u8>, bytes_max: usize) -> Result<Option<Taken>, TooMuch> {
        debug_assert!(buffer.is_empty());
        let mut waiting = self.lock();
        if waiting.records == 0 {
            return Ok(None);
        }
        if waiting.bytes.len() > bytes_max {
            return Err(TooMuch);
        }
        std::mem::swap(&mut waiting.bytes, buffer);
        self.waiting_bytes.store(0, Relaxed);
        Ok(Some(Taken { records: std::mem::take(&mut waiting.records), batch: waiting.batch }))
    }

    pub(super) fn has_waiting(&self) -> bool {
        self.waiting_bytes.load(Relaxed) > 0
    }

    pub(super) fn wake(&self) {
        (self.wake)();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// More waits than there is room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMuch;

/// Wakes the committer. Ringing costs one atomic swap while it is awake.
#[derive(Debug, Default)]
pub(super) struct Bell {
    rung: AtomicBool,
    /// Guards nothing but the moment between looking at `rung` and falling asleep.
    asleep: Mutex<()>,
    woken: Condvar,
}

impl Bell {
    pub(super) fn ring(&self) {
        if !self.rung.swap(true, AcqRel) {
            drop(self.asleep.lock().unwrap_or_else(PoisonError::into_inner));
            self.woken.notify_one();
        }
    }

    /// Forgets a ring; what was put before it must be looked for after this.
    pub(super) fn hush(&self) {
        self.rung.swap(false, AcqRel);
    }

    /// Sleeps until it rings or `at_most` has passed.
    pub(super) fn wait(&self, at_most: Option<Duration>) {
        let mut asleep = self.asleep.lock().unwrap_or_else(PoisonError::into_inner);
        while !self.rung.load(Acquire) {
            asleep = match at_most {
                None => self.woken.wait(asleep).unwrap_or_else(PoisonError::into_inner),
                Some(span) => {
                    drop(self.woken.wait_timeout(asleep, span));
                    return;
                }
            };
        }
    }
}
