//! Event → journal: stages a hit in this turn's batch and waits, within bounds, for its proof.
//!
//! Invariants:
//! - [`Recorded`] is made only here; it says what the answer may promise of the record.
//! - A hit waits at most `wait_max`; while the oldest batch waits longer than that, hits do not
//!   wait at all (`waived`). A slow disk never stops a data thread.
//! - All hits of one turn of the event loop leave in one batch, before any of them is answered.
//!
//! One recorder belongs to one data thread and is not shared. It does not decide what a hit is
//! answered with, nor where the journal's bytes go.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::event::{Class, Event, UnixMillis};
use crate::journal::{Acknowledged, Batch, Journal, Mode, Refusal, Stager, Tag};

pub mod budget;
pub mod privacy;
pub mod verdict;

/// What to do with a known click while the journal cannot take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// People still arrive; the answer is `waived` and counted.
    Redirect,
    /// 503 until there is room: no click is lost unseen, but people do not arrive.
    Refuse,
}

/// How often lateness is looked for within the longest wait of an answer.
const LOOKS_PER_WAIT: u32 = 8;

/// How hits are recorded.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Which acknowledgement an answer waits for.
    pub mode: Mode,
    /// The longest wait of one answer for the disk.
    pub wait_max: Duration,
    /// What happens when the journal cannot take a hit.
    pub when_full: WhenFull,
}

/// The proof that a hit was handed to the journal, and how far it got before the answer.
#[derive(Debug)]
#[must_use = "an answer is built from it"]
pub struct Recorded {
    class: Class,
    fate: Fate,
}

impl Recorded {
    /// What the answer promises of the record.
    #[must_use]
    pub fn class(&self) -> Class {
        self.class
    }

    /// Whether there is a record.
    #[must_use]
    pub fn fate(&self) -> Fate {
        self.fate
    }
}

/// What became of a hit's record when it was handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The journal has it; an answer that did not wait for the disk is `waived` all the same.
    Taken,
    /// The journal could not take it.
    Lost,
    /// The hit's site fills more than its share of the journal.
    OverShare,
}

#[cfg(test)]
impl Recorded {
    /// A proof for tests of what is built from one.
    pub(crate) fn sample() -> Self {
        Self { class: Class::Synced, fate: Fate::Taken }
    }
}

/// The journal is full or failing and the configuration says to refuse rather than to redirect.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused;

/// A hit on its way to the disk.
#[derive(Debug)]
#[must_use = "await it with `settle`"]
pub enum Staged {
    /// In this batch, waiting for the acknowledgement.
    Waiting(Batch),
    /// Not waited for.
    Waived(Fate),
}

/// One data thread's end of the journal.
pub struct Recorder {
    config: Config,
    stager: RefCell<Stager>,
    bell: Arc<Notify>,
    flush: Turn,
    /// Batches handed over and not acknowledged, oldest first.
    groups: RefCell<VecDeque<Group>>,
    spare_wakers: RefCell<Vec<Vec<Waker>>>,
    settled: Cell<Batch>,
    waived: Cell<Batch>,
    behind: Cell<bool>,
    released_at: Cell<Instant>,
}

struct Group {
    batch: Batch,
    since: Instant,
    wakers: Vec<Waker>,
}

/// A flag that is raised during a turn of the event loop and seen at its end, until it is lowered:
/// waking a local task puts it behind all tasks that are ready now.
#[derive(Default)]
struct Turn {
    due: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Turn {
    fn raise(&self) {
        if !self.due.replace(true)
            && let Some(waker) = self.waker.borrow().as_ref()
        {
            waker.wake_by_ref();
        }
    }

    async fn end(&self) {
        poll_fn(|context| {
            if self.due.get() {
                return Poll::Ready(());
            }
            let mut waker = self.waker.borrow_mut();
            if !waker.as_ref().is_some_and(|known| known.will_wake(context.waker())) {
                *waker = Some(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}

impl Recorder {
    /// A recorder of `journal` for the calling thread.
    #[must_use]
    pub fn new(journal: &Journal, config: Config) -> Self {
        let bell = Arc::new(Notify::new());
        let ring = Arc::clone(&bell);
        Self {
            config,
            stager: RefCell::new(journal.stager(Arc::new(move || ring.notify_one()))),
            bell,
            flush: Turn::default(),
            groups: RefCell::default(),
            spare_wakers: RefCell::default(),
            settled: Cell::new(Batch(0)),
            waived: Cell::new(Batch(0)),
            behind: Cell::new(false),
            released_at: Cell::new(Instant::now()),
        }
    }

    /// Puts a hit into this turn's batch.
    ///
    /// `event` is asked for the hit with the class that its answer is meant to have.
    /// Does not block and does not wait.
    ///
    /// # Errors
    /// [`Refused`] when the journal does not take the hit and clicks are to be refused then.
    pub fn stage<'e>(
        &self,
        now: UnixMillis,
        tag: Tag,
        event: impl FnOnce(Class) -> Event<'e>,
    ) -> Result<Staged, Refused> {
        let behind = self.behind.get();
        let class = match (behind, self.config.mode) {
            (true, _) => Class::Waived,
            (false, Mode::Power) => Class::Synced,
            (false, Mode::Process) => Class::Written,
        };
        let staged = self.stager.borrow_mut().stage(now, tag, |out| event(class).encode(out));
        match staged {
            Ok(batch) => {
                self.join(batch);
                Ok(if behind { Staged::Waived(Fate::Taken) } else { Staged::Waiting(batch) })
            }
            Err(Refusal::Behind | Refusal::TooLong) => Ok(Staged::Waived(Fate::Lost)),
            Err(Refusal::Degraded | Refusal::Stopped) => match self.config.when_full {
                WhenFull::Redirect => Ok(Staged::Waived(Fate::Lost)),
                WhenFull::Refuse => Err(Refused),
            },
        }
    }

    fn join(&self, batch: Batch) {
        let mut groups = self.groups.borrow_mut();
        if groups.back().is_none_or(|group| group.batch != batch) {
            if groups.is_empty() {
                self.bell.notify_one(); // arms the deadline
            }
            let wakers = self.spare_wakers.borrow_mut().pop().unwrap_or_default();
            groups.push_back(Group { batch, since: Instant::now(), wakers });
        }
        self.flush.raise();
    }

    /// Waits until the disk has the hit, or until the wait's bound.
    ///
    /// # Cancel safety
    /// Dropping the future loses the proof, not the record.
    pub async fn settle(&self, staged: Staged) -> Recorded {
        let batch = match staged {
            Staged::Waiting(batch) => batch,
            Staged::Waived(fate) => return Recorded { class: Class::Waived, fate },
        };
        let mut registered: Option<Waker> = None;
        let class = poll_fn(|context| {
            if self.settled.get() >= batch {
                return Poll::Ready(match self.config.mode {
                    Mode::Power => Class::Synced,
                    Mode::Process => Class::Written,
                });
            }
            if self.waived.get() >= batch {
                return Poll::Ready(Class::Waived);
            }
            if !registered.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                registered = Some(context.waker().clone());
                self.wake_after(batch, context.waker().clone());
            }
            Poll::Pending
        })
        .await;
        Recorded { class, fate: Fate::Taken }
    }

    /// Does `last` at the end of each turn that called for it, and hands the turn's batch over; runs as a
    /// task of the data thread until it is dropped.
    pub async fn hand_over(&self, last: impl Fn()) {
        loop {
            self.flush.end().await;
            last();
            self.flush.due.set(false);
            self.stager.borrow_mut().flush();
        }
    }

    /// Has [`Self::hand_over`] work at the end of this turn, whether or not anything is staged in it.
    pub fn call_end_of_turn(&self) {
        self.flush.raise();
    }

    /// Wakes `waker` when `batch`, which was staged in this turn, need not be waited for any more.
    pub fn wake_after(&self, batch: Batch, waker: Waker) {
        let mut groups = self.groups.borrow_mut();
        // Usually the last one: a hit waits in the turn in which it was staged.
        match groups.iter_mut().rev().find(|group| group.batch == batch) {
            Some(group) => group.wakers.push(waker),
            None => waker.wake(),
        }
    }

    /// Wakes the hits whose batch was acknowledged or whose time is up; a task like [`Self::hand_over`].
    ///
    /// Lateness is looked for a few times within the longest wait, by one timer that is armed anew
    /// only when it fired: a timer for each batch would cost the event loop a wake-up each.
    pub async fn acknowledge(&self) {
        let step = self.config.wait_max / LOOKS_PER_WAIT;
        let mut look = pin!(sleep(step));
        loop {
            let waiting = !self.groups.borrow().is_empty();
            tokio::select! {
                biased;
                () = self.bell.notified() => {}
                () = look.as_mut(), if waiting => look.as_mut().reset(Instant::now() + step),
            }
            let acknowledged = self.stager.borrow().acknowledged();
            self.release(acknowledged, Instant::now());
        }
    }

    fn release(&self, acknowledged: Acknowledged, now: Instant) {
        let through = match self.config.mode {
            Mode::Power => acknowledged.synced,
            Mode::Process => acknowledged.written,
        };
        self.settled.set(through);
        self.released_at.set(now);
        let mut groups = self.groups.borrow_mut();
        while groups.front().is_some_and(|group| group.batch <= through) {
            if let Some(mut group) = groups.pop_front() {
                group.wakers.drain(..).for_each(Waker::wake);
                self.spare_wakers.borrow_mut().push(group.wakers);
            }
        }
        let late = |group: &Group| now >= group.since + self.config.wait_max;
        self.behind.set(groups.front().is_some_and(late));
        for group in groups.iter_mut().take_while(|group| late(group)) {
            self.waived.set(group.batch);
            group.wakers.drain(..).for_each(Waker::wake);
        }
    }

    /// When acknowledgements or lateness were last seen: the time at which a wait that is over ended.
    #[must_use]
    pub fn released_at(&self) -> Instant {
        self.released_at.get()
    }

    /// Whether hits go out unwaited because the disk is behind.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.behind.get()
    }
}

#[cfg(test)]
mod tests;
