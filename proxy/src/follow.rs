//! Database → links: loads them, follows their changes, and keeps them on disk.
//!
//! ```text
//!   database ──load──▶ mill ──table──▶ follower ──▶ published links
//!            ──changes──────────────▶     │
//!   look-up thread ──looked-up links──▶   └──▶ links-<g>.log, table-<g>.links
//! ```
//!
//! Invariants:
//! - One follower owns the published links, the log and the generation; all changes pass through it.
//! - What is published is in the log already, and the log is synced within a second.
//! - A load that the guard holds changes nothing; the links in service go on (promise P9).
//! - Nothing touches the database while `vitals` says so, and who holds a connection has said it there.
//!
//! It decides neither answers nor health; it tells `vitals` how its attempts end.

mod look_up;
mod mill;
mod start;
mod status;

pub use look_up::serve_look_ups;
pub use mill::Mill;
pub use start::{StartError, Started, start};
pub use status::{Board, Status};

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::clock;
use crate::database::{self, Access, Database, LinkRow, Watermark};
use crate::event::UnixMillis;
use crate::links::entry::{Entry, Reason};
use crate::links::guard::Held;
use crate::links::log::{Log, Record};
use crate::links::namespaces::Namespaces;
use crate::links::overlay::Change;
use crate::links::{Links, Origin, Row, State, builder, guard, snapshot};
use crate::policy::Signal;
use crate::resolve::look_ups::{Key, LookUps};
use crate::vitals::{Holding, Vitals};
use mill::{Built, Job};

/// Changes taken from the database in one step.
const CHANGES_MAX: u32 = 10_000;
/// Distance of two attempts to load after one that failed or was held.
const LOAD_AGAIN: Duration = Duration::from_secs(30);
/// Distance of two attempts to write a log after one that failed.
const LOG_AGAIN: Duration = Duration::from_secs(1);
/// Events that may wait for the follower; whoever sends more waits or, on the look-up thread, drops them.
pub const EVENTS_MAX: usize = 4096;

/// How links are followed.
#[derive(Clone, Debug)]
pub struct Config {
    /// The folder of snapshots and logs.
    pub folder: PathBuf,
    /// The database file.
    pub database: PathBuf,
    /// The longest time of one statement.
    pub timeout: Duration,
    /// Distance of two looks for changes.
    pub poll: Duration,
    /// Age of the table at which it is loaded anew.
    pub reload_every: Duration,
    /// Entries of the overlay at which it is folded into a new table.
    pub overlay_max: usize,
    /// Bound on the memory of tables.
    pub memory_bytes_max: u64,
    /// Looked-up links that a table keeps.
    pub looked_up_max: u64,
    /// The guard of P9.
    pub guard: guard::Settings,
}

/// What the follower waits for.
#[derive(Debug)]
pub enum Event {
    /// A link was looked up.
    LookedUp(Key, Arc<Entry>),
    /// The mill is done.
    Built(Box<Built>),
    /// An operator accepts the held load.
    Accept(SyncSender<Result<Held, NothingHeld>>),
    /// Another process takes over: write nothing more until told to.
    Pause(SyncSender<()>),
    /// The other process went away: go on.
    Resume,
    /// A new configuration.
    Configure(Box<Config>),
    /// The edge ends.
    Stop,
}

/// No load is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NothingHeld;

/// The follower's state; [`Follower::run`] is the whole life of its thread.
pub struct Follower {
    config: Config,
    links: Arc<ArcSwap<Links>>,
    namespaces: Namespaces,
    look_ups: Arc<LookUps>,
    vitals: Arc<Vitals>,
    board: Arc<Board>,
    jobs: SyncSender<Job>,
    generation: u64,
    log: Option<Log>,
    log_again_at: UnixMillis,
    unsynced: bool,
    connection: Option<(Database, Holding)>,
    /// The database that the links come from, and up to where its changes were taken.
    basis: Option<(String, Watermark)>,
    building: bool,
    load_at: Option<UnixMillis>,
    held: Option<Held>,
    accepted: Option<Held>,
    paused: bool,
    failing: bool,
}

impl Follower {
    /// Follows until it is told to stop.
    ///
    /// # Blocking
    /// The whole life of its thread.
    pub fn run(mut self, events: &Receiver<Event>) {
        loop {
            if !self.paused {
                self.step(clock::now());
            }
            match events.recv_timeout(self.config.poll) {
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(event) => {
                    self.handle(event);
                    while let Ok(event) = events.try_recv() {
                        if matches!(event, Event::Stop) {
                            self.sync_log();
                            return;
                        }
                        self.handle(event);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
        self.sync_log();
    }

    fn step(&mut self, now: UnixMillis) {
        self.mend_log(now);
        self.sync_log();
        if self.vitals.may_probe() {
            let signal = match self.follow(now) {
                Ok(()) => {
                    if std::mem::take(&mut self.failing) {
                        tracing::info!("the database answers again");
                    }
                    Signal::Succeeded
                }
                Err(error) => self.fail(&error),
            };
            self.vitals.observe(signal, now);
            self.sync_log();
        } else if !self.vitals.database_is_up() {
            self.connection = None;
        }
        self.report();
    }

    /// One look at the database: what changed, and whether a complete load is due.
    fn follow(&mut self, now: UnixMillis) -> Result<(), database::Error> {
        if self.connection.is_none() {
            let holding = self.vitals.hold();
            let database = database::open(&self.config.database, Access::ReadOnly, self.config.timeout)?;
            let uuid = database.identity().uuid.to_string();
            if self.basis.as_ref().is_none_or(|(known, _)| *known != uuid) {
                if self.basis.is_some() {
                    tracing::warn!(
                        database = uuid,
                        "the database is another one than the links came from; all of it is loaded, through the guard"
                    );
                    self.look_ups.forget_all();
                }
                self.load_at = Some(now);
                self.basis = Some((uuid, Watermark(i64::MAX)));
            }
            self.connection = Some((database, holding));
        }
        self.take_changes(now)?;
        let table = Arc::clone(self.links.load().table());
        let old = table.made_at().after(self.config.reload_every) <= now;
        let due = self.load_at.is_some_and(|at| at <= now) || (old && self.load_at.is_none());
        if due && !self.building {
            self.build(now, Build::Load);
        } else if self.links.load().overlay().len() >= self.config.overlay_max && !self.building {
            self.build(now, Build::Fold);
        }
        Ok(())
    }

    fn take_changes(&mut self, now: UnixMillis) -> Result<(), database::Error> {
        let (Some((database, _)), Some((_, watermark))) = (&mut self.connection, &mut self.basis) else {
            return Ok(());
        };
        if !database.changed()? {
            return Ok(());
        }
        // Before the first complete load of a database its changes mean nothing.
        if watermark.0 == i64::MAX {
            return Ok(());
        }
        loop {
            let mut taken = 0;
            let mut changes = Vec::new();
            let namespaces = &self.namespaces;
            let board = &self.board;
            let next = database.changes(*watermark, CHANGES_MAX, &mut |row| {
                taken += 1;
                match change(&row, namespaces) {
                    Ok(change) => changes.push(change),
                    Err(reason) => {
                        board.refused_change();
                        tracing::warn!(namespace = %row.namespace.escape_ascii(), %reason, "a changed link cannot be taken; see `holdfast links refused`");
                    }
                }
                Ok(())
            })?;
            if next < *watermark {
                tracing::warn!(
                    "the database knows less than before: it is an older copy; all of it is loaded, through the guard"
                );
                self.load_at = Some(now);
                *watermark = Watermark(i64::MAX);
                return Ok(());
            }
            *watermark = next;
            let look_ups = Arc::clone(&self.look_ups);
            for change in &changes {
                look_ups.forget(&Key { namespace: change.namespace, token: change.token[..].into() });
            }
            publish(&self.links, &self.namespaces, self.log.as_mut(), &mut self.unsynced, changes);
            if taken < CHANGES_MAX {
                return Ok(());
            }
        }
    }

    fn fail(&mut self, error: &database::Error) -> Signal {
        if !std::mem::replace(&mut self.failing, true) {
            tracing::error!(error = %chain(error), "the database cannot be followed; links go on from memory");
        }
        self.connection = None;
        match error {
            database::Error::Unavailable(_) | database::Error::Stopped => Signal::Failed,
            database::Error::Corrupt(_)
            | database::Error::Missing(_)
            | database::Error::NotOurs(_)
            | database::Error::Refused(_)
            | database::Error::Replaced(_) => {
                // Whatever comes back in its place is loaded whole before anything of it is believed.
                self.load_at = Some(UnixMillis(0));
                Signal::Gone
            }
        }
    }

    /// Begins a new generation: its log first, then the links as they are, then the job.
    fn build(&mut self, now: UnixMillis, what: Build) {
        let Some(basis) = self.begin_generation(now) else { return };
        let generation = self.generation;
        let job = match (what, &self.basis) {
            (Build::Load, _) => {
                Job::Load { basis, generation, accepted: self.accepted, config: self.config.clone() }
            }
            (Build::Fold, Some((database, watermark))) => {
                let meta = snapshot::Meta { watermark: watermark.0, database: database.clone() };
                Job::Fold { basis, generation, meta, config: self.config.clone() }
            }
            (Build::Fold, None) => return,
        };
        if self.jobs.try_send(job).is_ok() {
            self.building = true;
            self.load_at = Some(now.after(LOAD_AGAIN)).filter(|_| matches!(what, Build::Load));
        }
    }

    fn begin_generation(&mut self, now: UnixMillis) -> Option<Links> {
        match Log::create(&self.config.folder, self.generation + 1) {
            Ok(log) => {
                self.generation += 1;
                self.log = Some(log);
                Some(Links::clone(&self.links.load()))
            }
            Err(error) => {
                tracing::error!(error = %chain(&error), "no new log of links; the table is not rebuilt");
                self.load_at = Some(now.after(LOAD_AGAIN));
                None
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::LookedUp(key, entry) => {
                let change = Change { namespace: key.namespace, token: key.token.into(), entry };
                publish(&self.links, &self.namespaces, self.log.as_mut(), &mut self.unsynced, vec![change]);
            }
            Event::Built(built) => self.built(*built),
            Event::Accept(reply) => {
                let answer = self.held.ok_or(NothingHeld);
                if let Ok(held) = answer {
                    self.accepted = Some(held);
                    self.load_at = Some(UnixMillis(0));
                }
                // Whoever asked may have gone away.
                let _ = reply.send(answer);
            }
            Event::Pause(reply) => {
                self.sync_log();
                self.paused = true;
                self.log = None;
                self.connection = None;
                let _ = reply.send(());
            }
            Event::Resume => {
                self.paused = false;
                self.generation = snapshot::newest_generation(&self.config.folder).unwrap_or(self.generation);
                self.log_again_at = UnixMillis(0);
            }
            Event::Configure(config) => {
                if config.database != self.config.database {
                    self.connection = None;
                }
                self.config = *config;
            }
            Event::Stop => {}
        }
    }

    fn built(&mut self, built: Built) {
        self.building = false;
        if self.paused {
            return;
        }
        match built {
            Built::Taken { table, basis, meta, counts, refusals, loaded } => {
                let stats = table.stats();
                tracing::info!(
                    links = stats.links,
                    targets = stats.targets,
                    bytes = table.bytes(),
                    refused = counts.refused,
                    absent = stats.absent,
                    generation = self.generation,
                    "the table of links was built"
                );
                self.links.rcu(|links| Arc::new(links.rebuilt(Arc::clone(&table), &basis)));
                if loaded {
                    self.load_at = None;
                    self.held = None;
                    self.accepted = None;
                    self.basis = Some((meta.database, Watermark(meta.watermark)));
                    self.board.loaded(&counts, refusals);
                }
                self.board.ready();
            }
            Built::Held { held, meta } => {
                if self.held != Some(held) {
                    tracing::error!(
                        known = held.known,
                        newly_absent = held.newly_absent,
                        forgotten = held.forgotten,
                        "the load is held back: it would drop more links than `links.drop_max` allows; \
                         links go on as before; look at the database, then `holdfast links accept`"
                    );
                }
                self.held = Some(held);
                // New links of that database are followed all the same.
                self.basis = Some((meta.database, Watermark(meta.watermark)));
            }
            Built::Failed { error } => {
                tracing::error!(error, "the table of links was not built; links go on as before");
            }
            Built::Stopped => {}
        }
        self.report();
    }

    /// After a fault the log begins anew with all that only memory is sure to have.
    fn mend_log(&mut self, now: UnixMillis) {
        if self.log.is_some() || now < self.log_again_at {
            return;
        }
        let attempt = Log::create(&self.config.folder, self.generation + 1).and_then(|mut log| {
            let links = self.links.load();
            append(&mut log, &self.namespaces, links.overlay().iter())?;
            log.sync()?;
            Ok(log)
        });
        self.generation += 1;
        match attempt {
            Ok(log) => self.log = Some(log),
            Err(error) => {
                tracing::error!(error = %chain(&error), "changes of links cannot be logged; a restart now would forget them");
                self.log_again_at = now.after(LOG_AGAIN);
            }
        }
    }

    fn sync_log(&mut self) {
        if !std::mem::take(&mut self.unsynced) {
            return;
        }
        if let Some(log) = &mut self.log
            && let Err(error) = log.sync()
        {
            tracing::error!(error = %chain(&error), "the log of links failed; it is begun anew");
            self.log = None;
        }
    }

    fn report(&self) {
        self.board.report(
            &self.links.load(),
            self.log.as_ref().map_or(0, Log::bytes),
            self.held,
            self.building,
        );
    }
}

#[derive(Clone, Copy)]
enum Build {
    Load,
    Fold,
}

/// Logs the changes, then publishes them.
fn publish(
    links: &ArcSwap<Links>,
    namespaces: &Namespaces,
    log: Option<&mut Log>,
    unsynced: &mut bool,
    changes: Vec<Change>,
) {
    if changes.is_empty() {
        return;
    }
    if let Some(log) = log {
        if let Err(error) = append(log, namespaces, changes.iter().cloned()) {
            // The log takes nothing more now; the next sync finds it and begins anew.
            tracing::error!(error = %chain(&error), "a change of links was not logged");
        }
        *unsynced = true;
    }
    let changed = Arc::new(links.load().with(changes));
    links.store(changed);
}

fn append(
    log: &mut Log,
    namespaces: &Namespaces,
    changes: impl Iterator<Item = Change>,
) -> Result<(), snapshot::Error> {
    for change in changes {
        let namespace = namespaces.name(change.namespace);
        let row = change.entry.row(&namespace, &change.token);
        log.append([Record { row, origin: change.entry.origin() }])?;
    }
    Ok(())
}

/// A database's row as `links` takes it.
fn row<'a>(row: &LinkRow<'a>) -> Row<'a> {
    let state = match (row.deleted, row.disabled) {
        (true, _) => State::Deleted,
        (false, true) => State::Disabled,
        (false, false) => State::Live,
    };
    Row {
        namespace: row.namespace,
        token: row.token,
        url: row.url,
        campaign: row.campaign.as_bytes(),
        append: row.append,
        expires_at: row.expires_at,
        state,
    }
}

fn change(changed: &LinkRow<'_>, namespaces: &Namespaces) -> Result<Change, Reason> {
    let entry = Entry::approve(&row(changed), Origin::Change)?;
    let namespace = namespaces.intern(changed.namespace).map_err(Reason::Namespace)?;
    Ok(Change { namespace, token: changed.token.into(), entry: Arc::new(entry) })
}

fn builder_settings(config: &Config, seed: u64) -> builder::Settings {
    builder::Settings {
        seed,
        memory_bytes_max: config.memory_bytes_max,
        looked_up_max: config.looked_up_max,
        guard: config.guard,
    }
}

/// An error with all its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
