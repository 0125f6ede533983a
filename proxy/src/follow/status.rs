//! What the follower says of itself, for the admin listener.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::event::UnixMillis;
use crate::links::Links;
use crate::links::builder::Refusal;
use crate::links::guard::{Counts, Held};

/// Shared by the follower and whoever wants to know.
#[derive(Debug, Default)]
pub struct Board {
    ready: AtomicBool,
    refused_changes: AtomicU64,
    withheld_changes: AtomicU64,
    /// Since when the database has been asked for something and has not answered; zero when it has.
    asking_since: AtomicU64,
    // Taken by the follower several times a second and by readers when asked; held for a copy.
    status: Mutex<Status>,
}

/// The links at one moment.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Links in the table.
    pub table: u64,
    /// Of these, absent from the last complete load.
    pub absent: u64,
    /// Different targets.
    pub targets: u64,
    /// Changes since the table was built.
    pub overlay: u64,
    /// Bytes of the log of changes.
    pub log_bytes: u64,
    /// Memory of table and overlay in bytes.
    pub memory_bytes: u64,
    /// When the table was built.
    pub made_at: UnixMillis,
    /// The load that the guard holds back.
    pub held: Option<Held>,
    /// The load of domains that the guard holds back.
    pub domains_held: Option<Held>,
    /// Whether domains cannot be read, while the rest of the database can.
    pub domains_failing: bool,
    /// Rows of the last complete load, and those whose target cannot be approved.
    pub counts: Counts,
    /// The first refused rows of the last complete load.
    pub refusals: usize,
    /// Whether a table is being built.
    pub building: bool,
}

impl Board {
    /// Whether any links were loaded, from disk or from the database.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.load(Relaxed)
    }

    /// The last report.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changed rows that could not be taken since the start, and refused rows of the last load.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused_changes.load(Relaxed) + self.status().counts.refused
    }

    /// How long the database has kept the follower waiting.
    #[must_use]
    pub fn waits_for_database(&self, now: UnixMillis) -> Duration {
        match self.asking_since.load(Relaxed) {
            0 => Duration::ZERO,
            since => now.since(UnixMillis(since)),
        }
    }

    pub(super) fn asks(&self, now: UnixMillis) {
        self.asking_since.store(now.0, Relaxed);
    }

    pub(super) fn answered(&self) {
        self.asking_since.store(0, Relaxed);
    }

    pub(super) fn ready(&self) {
        self.ready.store(true, Relaxed);
    }

    pub(super) fn withheld(&self, changes: usize) {
        self.withheld_changes.fetch_add(changes as u64, Relaxed);
    }

    /// New links that were not taken since the start, because `links.memory_max` was reached.
    #[must_use]
    pub fn withheld_changes(&self) -> u64 {
        self.withheld_changes.load(Relaxed)
    }

    pub(super) fn refused_change(&self) {
        self.refused_changes.fetch_add(1, Relaxed);
    }

    pub(super) fn loaded(&self, counts: &Counts, refusals: Vec<Refusal>) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.counts = *counts;
        status.refusals = refusals.len();
        self.refused_changes.store(0, Relaxed);
    }

    pub(super) fn report(
        &self,
        links: &Links,
        log_bytes: u64,
        (held, domains_held): (Option<Held>, Option<Held>),
        domains_failing: bool,
        building: bool,
    ) {
        let stats = links.table().stats();
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.table = stats.links;
        status.absent = stats.absent;
        status.targets = stats.targets;
        status.overlay = links.overlay().len() as u64;
        status.log_bytes = log_bytes;
        status.memory_bytes = links.bytes();
        status.made_at = links.table().made_at();
        status.held = held;
        status.domains_held = domains_held;
        status.domains_failing = domains_failing;
        status.building = building;
    }
}
