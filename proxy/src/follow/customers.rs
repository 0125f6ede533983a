//! Customers' domains: read whole when any changed, kept on disk, handed to whoever builds the sites.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::causes::chain;
use crate::clock;
use crate::database::{self, Database, DomainsSeen, Stop, Unread};
use crate::event::UnixMillis;
use crate::links::domains::{Domains, Merged, Row, Settings, file};
use crate::links::guard::Held;
use crate::links::snapshot::Damaged;

use super::{ROWS_PER_SIGN, is_due};

/// A file of many domains is written so seldom that writing takes a twentieth of the time at most.
const REST_PER_WRITE: u32 = 20;
/// Distance of two attempts to write the file after one that failed.
const WRITE_AGAIN: Duration = Duration::from_secs(1);
/// Many domains are read so seldom that reading takes a tenth of the time at most.
const REST_PER_READ: u32 = 10;
/// Distance of two reads after one that failed; it doubles up to the longest.
const READ_AGAIN: Duration = Duration::from_secs(1);
const READ_AGAIN_MAX: Duration = Duration::from_secs(60);

/// The follower's part for domains.
#[derive(Debug)]
pub(super) struct Following {
    known: Arc<ArcSwap<Domains>>,
    folder: PathBuf,
    /// What was read last from the connection that is open.
    seen: Option<DomainsSeen>,
    /// The database changed since domains were read last.
    unread: bool,
    pub(super) held: Option<Held>,
    pub(super) accepted: Option<Held>,
    unwritten: bool,
    write_at: UnixMillis,
    /// Why domains cannot be read, as it was said in the log.
    failing: Option<String>,
    failures: u32,
    read_at: UnixMillis,
    refused: u64,
}

impl Following {
    /// Takes what `folder` has into `known`.
    ///
    /// # Blocking
    /// Reads the file.
    pub(super) fn start(folder: PathBuf, known: Arc<ArcSwap<Domains>>) -> Self {
        let read = file::read(&folder, Damaged::SetAside);
        for (path, why) in read.faults {
            tracing::error!(path = %path.display(), why, "a file of domains cannot be used; the one before it is");
        }
        known.store(Arc::new(read.domains.unwrap_or_default()));
        Self {
            known,
            folder,
            seen: None,
            unread: true,
            held: None,
            accepted: None,
            unwritten: false,
            write_at: UnixMillis(0),
            failing: None,
            failures: 0,
            read_at: UnixMillis(0),
            refused: 0,
        }
    }

    /// The database changed.
    pub(super) fn changed(&mut self) {
        self.unread = true;
    }

    /// Whether the table cannot be read, while the rest of the database can.
    pub(super) fn is_failing(&self) -> bool {
        self.failing.is_some()
    }

    /// All of them are to be read, whatever was read before: another connection, a complete load, or other
    /// bounds.
    pub(super) fn forget_seen(&mut self) {
        self.seen = None;
        self.unread = true;
    }

    /// Reads the domains where they may have changed; whether the connection is of use afterwards.
    /// `is_wanted` is asked while rows come, and ends the read with `false`.
    ///
    /// # Errors
    /// Where the database is at fault; a table that cannot be read costs domains alone, and is tried again
    /// less and less often.
    pub(super) fn follow(
        &mut self,
        database: &mut Database,
        settings: &Settings,
        now: UnixMillis,
        mut is_wanted: impl FnMut() -> bool,
    ) -> Result<bool, database::Error> {
        if !self.unread || !is_due(self.read_at, now, READ_AGAIN_MAX) {
            return Ok(true);
        }
        let known = self.known.load_full();
        let mut load = known.load(*settings);
        let begun = clock::now();
        let mut rows = 0;
        let read = database.domains(self.seen.as_ref(), &mut |row| {
            load.row(Row::from(&row));
            rows += 1;
            if rows % ROWS_PER_SIGN == 0 && !is_wanted() { Err(Stop) } else { Ok(()) }
        });
        let seen = match read {
            Ok(seen) => seen,
            Err(Unread::Database(database::Error::Stopped)) => return Ok(false),
            Err(Unread::Database(error)) => return Err(error),
            Err(Unread::Table(error)) => {
                self.fail(&error);
                return Ok(false);
            }
        };
        let ended = clock::now();
        self.unread = false;
        self.failures = 0;
        self.read_at = ended.after((ended.since(begun) * REST_PER_READ).min(READ_AGAIN_MAX));
        if self.failing.take().is_some() {
            tracing::info!("customers' domains can be read again");
        }
        let Some(seen) = seen else { return Ok(true) };
        self.seen = Some(seen);
        self.take(load.finish(self.accepted.as_ref(), now));
        Ok(true)
    }

    fn fail(&mut self, error: &database::Error) {
        let rest = READ_AGAIN.saturating_mul(1 << self.failures.min(16)).min(READ_AGAIN_MAX);
        self.failures += 1;
        // From now on: the attempt may have taken long.
        self.read_at = clock::now().after(rest);
        let failing = chain(error);
        if self.failing.as_ref() != Some(&failing) {
            tracing::error!(
                error = failing,
                "customers' domains cannot be read; those that are known go on, and everything else does"
            );
            self.failing = Some(failing);
        }
    }

    fn take(&mut self, merged: Merged) {
        if let Some(held) = merged.held.filter(|held| self.held != Some(*held)) {
            tracing::error!(
                known = held.known,
                newly_absent = held.newly_absent,
                forgotten = held.forgotten,
                "the load of domains is held back: it would drop more than `links.drop_max` allows; they go on \
                 as before; look at the table `domains`, then `holdfast links accept`"
            );
        }
        if merged.held.is_none() {
            self.accepted = None;
        }
        self.held = merged.held;
        if merged.domains.refused() > self.refused {
            let first = merged.domains.refusals().first();
            tracing::warn!(
                refused = merged.domains.refused(),
                host = first.map_or("", |refusal| &refusal.host),
                reason = first.map_or("", |refusal| &refusal.reason),
                "domains cannot be taken; see `holdfast domains list`"
            );
        }
        self.refused = merged.domains.refused();
        if merged.is_change {
            tracing::info!(domains = merged.domains.len(), "customers' domains changed");
            self.known.store(Arc::new(merged.domains));
            self.unwritten = true;
        }
    }

    /// Writes what changed, at once: the follower ends.
    pub(super) fn finish(&mut self, now: UnixMillis) {
        self.write_at = UnixMillis(0);
        self.write(now);
    }

    /// Writes what changed; others may write the folder while `self` is paused, so it is not called then.
    pub(super) fn write(&mut self, now: UnixMillis) {
        let is_due = self.write_at <= now || self.write_at > now.after(Duration::from_secs(3600));
        if !self.unwritten || !is_due {
            return;
        }
        let begun = clock::now();
        match file::write(&self.folder, &self.known.load()) {
            Ok(()) => {
                self.unwritten = false;
                self.write_at = now.after(clock::now().since(begun) * REST_PER_WRITE);
            }
            Err(error) => {
                tracing::error!(%error, "customers' domains cannot be written; a restart now would forget what changed");
                self.write_at = now.after(WRITE_AGAIN);
            }
        }
    }
}
