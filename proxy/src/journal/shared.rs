//! What stagers, committer, mill and readers of one process share: marks, flags, and three small locks.
//!
//! Invariants:
//! - `appended` ≥ `written` ≥ `synced`, and none of them goes back.
//! - No lock is held during I/O, nor while another one is taken.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::disk::Disk;
use super::shelf::Shelf;
use super::stager::{Bell, Slot};
use super::status::{State, Stats};
use super::{Config, JournalId};
use crate::event::UnixMillis;

/// What the parts of one process's journal share.
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) id: JournalId,
    pub(super) edge: String,
    pub(super) opened_at: UnixMillis,
    pub(super) stats: Stats,
    pub(super) appended: AtomicU64,
    pub(super) written: AtomicU64,
    pub(super) synced: AtomicU64,
    pub(super) degraded: AtomicBool,
    pub(super) stopping: AtomicBool,
    pub(super) bell: Bell,
    /// Guards the reason of `degraded`; held for a copy.
    state: Mutex<State>,
    /// Guards the list of stagers; held for a copy when one comes or goes.
    slots: Mutex<Vec<Arc<Slot>>>,
    /// Rises when `slots` changes.
    pub(super) slots_version: AtomicU64,
    /// Guards the catalogue; held for a look-up or an entry, by readers, committer and mill.
    shelf: Mutex<Shelf>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(
        config: Config,
        disk: Arc<dyn Disk>,
        id: JournalId,
        edge: String,
        now: UnixMillis,
    ) -> Self {
        let shelf = Shelf::new(id, edge.clone(), now);
        Self {
            config,
            disk,
            id,
            edge,
            opened_at: now,
            stats: Stats::new(),
            appended: AtomicU64::new(0),
            written: AtomicU64::new(0),
            synced: AtomicU64::new(0),
            degraded: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            bell: Bell::default(),
            state: Mutex::new(State::Up),
            slots: Mutex::default(),
            slots_version: AtomicU64::new(0),
            shelf: Mutex::new(shelf),
        }
    }

    pub(super) fn home(&self, id: JournalId) -> PathBuf {
        self.config.folder.join(id.to_string())
    }

    pub(super) fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn state(&self) -> State {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_state(&self, state: State) {
        self.degraded.store(state != State::Up, Release);
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Acquire)
    }

    pub(super) fn register(&self, slot: Arc<Slot>) {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).push(slot);
        self.slots_version.fetch_add(1, Release);
    }

    pub(super) fn slots(&self) -> Vec<Arc<Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn forget_slot(&self, gone: &Arc<Slot>) {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).retain(|slot| !Arc::ptr_eq(slot, gone));
        self.slots_version.fetch_add(1, Release);
    }
}
