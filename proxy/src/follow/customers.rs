//! Customers' domains: read whole when any changed, kept on disk, handed to whoever builds the sites.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::causes::chain;
use crate::clock;
use crate::database::{self, Database, DomainsSeen};
use crate::event::UnixMillis;
use crate::links::domains::{Domains, Row, Settings, file};
use crate::links::guard::Held;

/// A file of many domains is written so seldom that writing takes a twentieth of the time at most.
const REST_PER_WRITE: u32 = 20;
/// Distance of two attempts to write the file after one that failed.
const WRITE_AGAIN: Duration = Duration::from_secs(1);

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
    refused: u64,
}

impl Following {
    /// Takes what `folder` has into `known`.
    ///
    /// # Blocking
    /// Reads the file.
    pub(super) fn start(folder: PathBuf, known: Arc<ArcSwap<Domains>>) -> Self {
        let read = file::read(&folder);
        for (path, why) in read.faults {
            tracing::error!(path = %path.display(), why, "a file of domains cannot be used; the one before it is");
        }
        known.store(Arc::new(read.domains));
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
            refused: 0,
        }
    }

    /// The database changed.
    pub(super) fn changed(&mut self) {
        self.unread = true;
    }

    /// All of them are to be read, whatever was read before: another connection, or a complete load.
    pub(super) fn forget_seen(&mut self) {
        self.seen = None;
        self.unread = true;
    }

    /// Reads the domains where they may have changed.
    ///
    /// # Errors
    /// Where the database does not answer; a table that cannot be read otherwise costs domains alone.
    pub(super) fn follow(
        &mut self,
        database: &mut Database,
        settings: &Settings,
        now: UnixMillis,
    ) -> Result<(), database::Error> {
        if !std::mem::take(&mut self.unread) {
            return Ok(());
        }
        let read = match database.domains(self.seen.as_ref()) {
            Ok(read) => read,
            Err(error @ (database::Error::Unavailable(_) | database::Error::Stopped)) => {
                self.unread = true;
                return Err(error);
            }
            Err(error) => {
                let failing = chain(&error);
                if self.failing.as_ref() != Some(&failing) {
                    tracing::error!(
                        error = failing,
                        "customers' domains cannot be read; those that are known go on"
                    );
                    self.failing = Some(failing);
                }
                return Ok(());
            }
        };
        if self.failing.take().is_some() {
            tracing::info!("customers' domains can be read again");
        }
        let Some((rows, seen)) = read else { return Ok(()) };
        self.seen = Some(seen);
        let rows = rows.iter().map(Row::from);
        let merged = self.known.load().merged(rows, settings, self.accepted.as_ref(), now);
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
        Ok(())
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
