//! The mill: builds tables, writes their snapshots, and drops the last reference to old ones.
//!
//! Building ten million links takes seconds of one core and megabytes of disk; it happens on a
//! thread of low priority, and no data thread ever frees a table.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

use arc_swap::ArcSwap;

use super::{Config, Event, builder_settings, row};
use crate::causes::chain;
use crate::clock;
use crate::database::{self, Access, Stop};
use crate::links::Links;
use crate::links::builder::{self, Builder, Finished, Refusal, TooLarge};
use crate::links::guard::{Counts, Held, Verdict, decide};
use crate::links::namespaces::Namespaces;
use crate::links::snapshot::{self, Meta};
use crate::links::table::Table;
use crate::vitals::Vitals;

/// Rows between two looks at whether the database may still be used.
const ROWS_PER_LOOK: u64 = 4096;
/// How often old links are looked through for those that nobody uses any more.
const SWEEP: Duration = Duration::from_millis(500);

/// What the mill is to do.
#[derive(Debug)]
pub(super) enum Job {
    /// Load everything from the database.
    Load { basis: Links, generation: u64, accepted: Option<Held>, asked: u64, config: Config },
    /// Build a table of what is known.
    Fold { basis: Links, generation: u64, meta: Meta, config: Config },
}

/// What became of a job.
#[derive(Debug)]
pub enum Built {
    /// A table to publish.
    Taken {
        table: Arc<Table>,
        basis: Links,
        meta: Meta,
        counts: Counts,
        refusals: Vec<Refusal>,
        /// Which request it answers, when it is a complete load.
        loaded: Option<u64>,
    },
    /// The guard holds the load.
    Held { held: Held, meta: Meta },
    /// It could not be built.
    Failed { error: String },
    /// The database was to be let go.
    Stopped,
}

/// The mill's state; [`Mill::run`] is the whole life of its thread.
#[derive(Debug)]
pub struct Mill {
    pub(super) namespaces: Namespaces,
    pub(super) vitals: Arc<Vitals>,
    pub(super) links: Arc<ArcSwap<Links>>,
    pub(super) jobs: Receiver<Job>,
    pub(super) events: SyncSender<Event>,
    pub(super) seeds: fn() -> u64,
    /// Another process writes the folder.
    pub(super) halt: Arc<AtomicBool>,
}

impl Mill {
    /// Works until the follower is gone.
    ///
    /// # Blocking
    /// The whole life of its thread.
    pub fn run(self) {
        let mut seen = self.links.load_full();
        let mut old: Vec<Arc<Links>> = Vec::new();
        loop {
            match self.jobs.recv_timeout(SWEEP) {
                Ok(job) => {
                    let built = self.build(job);
                    if self.events.send(Event::Built(Box::new(built))).is_err() {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let now = self.links.load_full();
            if !Arc::ptr_eq(now.table(), seen.table()) {
                old.push(std::mem::replace(&mut seen, now));
            }
            // A table is shared by all links since it was built; ours is then the last reference.
            old.retain(|links| Arc::strong_count(links.table()) > 1);
        }
    }

    fn build(&self, job: Job) -> Built {
        match job {
            Job::Load { basis, generation, accepted, asked, config } => {
                self.load(basis, generation, accepted, asked, &config)
            }
            Job::Fold { basis, generation, meta, config } => {
                let settings = builder_settings(&config, (self.seeds)());
                match builder::fold(basis, self.namespaces.clone(), settings, clock::now()) {
                    Ok(finished) => self.keep(finished, generation, meta, &config, None),
                    Err(error) => Built::Failed { error: error.to_string() },
                }
            }
        }
    }

    fn load(
        &self,
        basis: Links,
        generation: u64,
        accepted: Option<Held>,
        asked: u64,
        config: &Config,
    ) -> Built {
        let Some(holding) = self.vitals.hold() else { return Built::Stopped };
        let settings = builder_settings(config, (self.seeds)());
        let mut builder = Builder::new(basis, self.namespaces.clone(), settings);
        let mut rows = 0u64;
        let mut too_large: Option<TooLarge> = None;
        let loaded =
            database::open(&config.database, Access::ReadOnly, config.timeout).and_then(|mut database| {
                let loaded = database.load(&mut |link| {
                    rows += 1;
                    if rows.is_multiple_of(ROWS_PER_LOOK) && !self.may_go_on() {
                        return Err(Stop);
                    }
                    builder.push(&row(&link)).map_err(|error| {
                        too_large = Some(error);
                        Stop
                    })
                })?;
                Ok((database.identity().uuid.to_string(), loaded.watermark.0))
            });
        drop(holding);
        let (database, watermark) = match (loaded, too_large) {
            (Ok(loaded), _) => loaded,
            (Err(_), Some(error)) => return Built::Failed { error: error.to_string() },
            (Err(database::Error::Stopped), None) => return Built::Stopped,
            (Err(error), None) => return Built::Failed { error: chain(&error) },
        };
        let finished = match builder.finish(clock::now()) {
            Ok(finished) => finished,
            Err(error) => return Built::Failed { error: error.to_string() },
        };
        let meta = Meta { watermark, database };
        match decide(&finished.counts, &config.guard, accepted.as_ref()) {
            Verdict::Take => self.keep(finished, generation, meta, config, Some(asked)),
            Verdict::Hold(held) => Built::Held { held, meta },
        }
    }

    /// Writes the snapshot; a table whose snapshot cannot be written is served all the same.
    fn keep(
        &self,
        finished: Finished,
        generation: u64,
        meta: Meta,
        config: &Config,
        loaded: Option<u64>,
    ) -> Built {
        if self.halt.load(Relaxed) {
            return Built::Stopped;
        }
        let Finished { table, counts, refusals, basis } = finished;
        if let Err(error) = snapshot::write(&config.folder, generation, &table, &meta) {
            tracing::error!(error = %chain(&error), "the snapshot of links was not written; a restart would begin from the one before");
        }
        Built::Taken { table: Arc::new(table), basis, meta, counts, refusals, loaded }
    }

    fn may_go_on(&self) -> bool {
        self.vitals.database_is_up() && !self.halt.load(Relaxed)
    }
}
