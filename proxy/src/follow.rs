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

mod customers;
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
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::causes::chain;
use crate::clock;
use crate::database::{self, Access, Database, LinkRow, Watermark};
use crate::event::UnixMillis;
use crate::links::domains;
use crate::links::entry::{Entry, Reason};
use crate::links::guard::Held;
use crate::links::log::{Log, Record};
use crate::links::namespaces::Namespaces;
use crate::links::overlay::Change;
use crate::links::{Links, Origin, Row, State, builder, guard, snapshot};
use crate::policy::{Health, Signal};
use crate::resolve::look_ups::{Key, LookUps};
use crate::vitals::{Holding, Vitals};
use customers::Following;
use mill::{Built, Job};

/// Changes taken from the database in one step.
const CHANGES_MAX: u32 = 10_000;
/// Rows after which a database that gives them counts as one that answers.
const ROWS_PER_SIGN: u32 = 256;
/// Distance of two builds after one that failed or was held; it doubles up to the longest.
const BUILD_AGAIN: Duration = Duration::from_secs(30);
const BUILD_AGAIN_MAX: Duration = Duration::from_secs(3600);
/// How often a database that announces changes is listened to between two looks.
const ANNOUNCED: Duration = Duration::from_millis(50);
/// The watermark of a database of which nothing was loaded yet.
const NOTHING_LOADED: Watermark = Watermark(i64::MAX);
/// Distance of two complete loads because more changed than is taken link by link.
const RELOAD_AGAIN: Duration = Duration::from_secs(300);
/// Distance of two attempts at a platform's statement for changes that does not work.
const UNFIT_AGAIN: Duration = Duration::from_secs(10);
/// Distance of two attempts to write a log after one that failed.
const LOG_AGAIN: Duration = Duration::from_secs(1);
/// Events that may wait for the follower; whoever sends more waits or, on the look-up thread, drops them.
pub const EVENTS_MAX: usize = 4096;

/// How links are followed.
#[derive(Clone, Debug)]
pub struct Config {
    /// The folder of snapshots and logs.
    pub folder: PathBuf,
    /// Which database.
    pub database: database::Source,
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
    /// How many customers' domains are kept.
    pub domains_max: usize,
    /// The bytes of all their different brands together.
    pub brands_bytes_max: u64,
}

impl Config {
    fn domains(&self) -> domains::Settings {
        let Self { guard, domains_max, brands_bytes_max, .. } = *self;
        domains::Settings { guard, domains_max, brands_bytes_max }
    }
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
    /// Where the database was that was opened last.
    place: Option<database::Place>,
    /// The database changed since its changes were taken last.
    unread: bool,
    /// The last step took as many changes as it may; more wait.
    more: bool,
    /// The database was in a window since it was opened last.
    after_window: bool,
    building: bool,
    build_failures: u32,
    build_again_at: UnixMillis,
    /// How often a complete load was asked for.
    asked: u64,
    load_at: Option<UnixMillis>,
    /// More changed than is taken link by link: changes wait for a complete load.
    reloading: bool,
    /// The platform's statement for changes does not work, so they come with complete loads; when it is
    /// tried again.
    unfit: Option<UnixMillis>,
    /// When the last complete load was taken.
    loaded_at: UnixMillis,
    held: Option<Held>,
    accepted: Option<Held>,
    paused: bool,
    /// Tells the mill that another process writes the folder.
    halt: Arc<AtomicBool>,
    /// Who waits for the mill to rest.
    pausing: Option<SyncSender<()>>,
    /// Why the database cannot be followed, as it was said in the log.
    failing: Option<String>,
    /// The bound on memory keeps new links from being taken.
    full: bool,
    domains: Following,
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
            match self.wait(events) {
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(event) => {
                    self.handle(event);
                    while let Ok(event) = events.try_recv() {
                        if matches!(event, Event::Stop) {
                            return self.finish();
                        }
                        self.handle(event);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
        self.finish();
    }

    fn finish(&mut self) {
        self.sync_log();
        if !self.paused {
            self.domains.finish(clock::now());
        }
    }

    /// Waits for an event, the next look, or the database's word that something changed.
    fn wait(&mut self, events: &Receiver<Event>) -> Result<Event, RecvTimeoutError> {
        let mut rest = if self.more { Duration::ZERO } else { self.config.poll };
        loop {
            let slice = rest.min(ANNOUNCED);
            rest -= slice;
            match events.recv_timeout(slice) {
                Err(RecvTimeoutError::Timeout) if !rest.is_zero() && !self.announced() => {}
                other => return other,
            }
        }
    }

    fn announced(&self) -> bool {
        !self.paused && self.connection.as_ref().is_some_and(|(database, _)| database.announced())
    }

    fn step(&mut self, now: UnixMillis) {
        self.more = false;
        self.mend_log(now);
        self.sync_log();
        if self.vitals.may_probe() {
            self.board.asks(now);
            let followed = self.follow(now);
            self.board.answered();
            let signal = match followed {
                Ok(()) => {
                    if self.failing.take().is_some() {
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
            // Whatever was done to the database in a window is seen by a complete load only.
            self.after_window |= matches!(self.vitals.published().load().database, Health::Window { .. });
        }
        self.domains.write(now);
        self.report();
    }

    /// One look at the database: what changed, and whether a complete load is due.
    fn follow(&mut self, now: UnixMillis) -> Result<(), database::Error> {
        if self.connection.is_none() {
            let Some(holding) = self.vitals.hold() else { return Ok(()) };
            let database = database::open(&self.config.database, Access::ReadOnly, self.config.timeout)?;
            let identity = database.identity();
            let uuid = identity.uuid.to_string();
            let place = identity.place;
            let other_place = self.place.replace(place).is_some_and(|known| known != place);
            if self.basis.as_ref().is_none_or(|(known, _)| *known != uuid) {
                if self.basis.is_some() {
                    tracing::warn!(
                        database = uuid,
                        "the database is another one than the links came from; all of it is loaded, through the guard"
                    );
                    self.look_ups.forget_all();
                }
                self.ask_load(now);
                self.basis = Some((uuid, NOTHING_LOADED));
            } else if other_place {
                tracing::warn!(
                    "the database is in another place than before; all of it is loaded, through the guard"
                );
                self.look_ups.forget_all();
                self.ask_load(now);
                self.basis = Some((uuid, NOTHING_LOADED));
            } else if std::mem::take(&mut self.after_window) {
                self.ask_load(now);
            }
            self.after_window = false;
            self.connection = Some((database, holding));
            self.domains.forget_seen();
        }
        self.take_changes(now)?;
        if let Some((database, _)) = &mut self.connection {
            let (vitals, board) = (&self.vitals, &self.board);
            let is_sound = self.domains.follow(database, &self.config.domains(), now, || {
                board.asks(clock::now());
                vitals.may_go_on()
            })?;
            self.board.answered();
            if !is_sound {
                self.connection = None;
                return Ok(());
            }
        }
        if self.building || !is_due(self.build_again_at, now, BUILD_AGAIN_MAX) {
            return Ok(());
        }
        let old = is_due(self.loaded_at.after(self.config.reload_every), now, self.config.reload_every);
        if old || self.load_at.is_some_and(|at| is_due(at, now, BUILD_AGAIN_MAX)) {
            self.build(now, Build::Load);
        } else if self.links.load().overlay().len() >= self.config.overlay_max {
            self.build(now, Build::Fold);
        }
        Ok(())
    }

    fn take_changes(&mut self, now: UnixMillis) -> Result<(), database::Error> {
        let (Some((database, _)), Some((_, watermark))) = (&mut self.connection, &mut self.basis) else {
            return Ok(());
        };
        if database.changed()? {
            self.unread = true;
            self.domains.changed();
        }
        // Before the first complete load of a database its changes mean nothing; they are read then.
        let is_unfit = self.unfit.is_some_and(|again| !is_due(again, now, UNFIT_AGAIN));
        if !self.unread || self.reloading || is_unfit || *watermark == NOTHING_LOADED {
            return Ok(());
        }
        let mut taken = 0;
        let mut changes = Vec::new();
        let namespaces = &self.namespaces;
        let board = &self.board;
        let changed = database.changes(*watermark, CHANGES_MAX, &mut |row| {
            taken += 1;
            if taken % ROWS_PER_SIGN == 0 {
                board.asks(clock::now()); // it is slow, perhaps, and not silent
            }
            match change(&row, namespaces) {
                Ok(change) => changes.push(change),
                Err(reason) => {
                    board.refused_change();
                    tracing::warn!(namespace = %row.namespace.escape_ascii(), %reason, "a changed link cannot be taken; see `holdfast links refused`");
                }
            }
            Ok(())
        })?;
        self.board.answered();
        if let Some(error) = &changed.unfit {
            if self.unfit.replace(now.after(UNFIT_AGAIN)).is_none() {
                tracing::error!(error = %chain(error), "changed links cannot be read; they come with complete loads (links.reload_every) until they can");
            }
            return Ok(());
        }
        if changed.next < *watermark {
            tracing::warn!(
                "the database knows less than before: it is an older copy; all of it is loaded, through the guard"
            );
            *watermark = NOTHING_LOADED;
            self.ask_load(now);
            return Ok(());
        }
        *watermark = changed.next;
        if changed.reload {
            tracing::info!("more links changed than are taken one by one; all of them are loaded");
            self.asked += 1;
            self.load_at = Some(now);
            self.reloading = true;
        }
        if self.unfit.take().is_some() {
            tracing::info!("changed links can be read again; all of them are loaded");
            self.ask_load(now);
        }
        // First of all, and of those that are not kept, too: what was looked up of them is outdated.
        for change in &changes {
            self.look_ups.forget(&Key { namespace: change.namespace, token: change.token[..].into() });
        }
        let was_full = self.full;
        let links = self.links.load();
        if is_full(&links, &self.config, &mut self.full) {
            // What is known must still be changed and ended; the rest is found by look-ups.
            let all = changes.len();
            changes.retain(|change| links.get(change.namespace, &change.token).is_some());
            self.board.withheld(all - changes.len());
        } else if was_full {
            self.ask_load(now);
        }
        publish(&self.links, &self.namespaces, self.log.as_mut(), &mut self.unsynced, changes);
        // One chunk in a step: the log is synced and windows are seen in between.
        self.more = changed.more;
        self.unread = self.more;
        Ok(())
    }

    /// Asks for a complete load; one that is under way does not count, for it may have begun before.
    fn ask_load(&mut self, at: UnixMillis) {
        self.asked += 1;
        self.load_at = Some(at);
        self.build_again_at = UnixMillis(0);
    }

    fn fail(&mut self, error: &database::Error) -> Signal {
        let failing = chain(error);
        if self.failing.as_ref() != Some(&failing) {
            tracing::error!(error = failing, "the database cannot be followed; links go on from memory");
            self.failing = Some(failing);
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
                if let Some((_, watermark)) = &mut self.basis {
                    *watermark = NOTHING_LOADED;
                }
                self.ask_load(UnixMillis(0));
                Signal::Gone
            }
        }
    }

    /// Begins a new generation: its log first, then the links as they are, then the job.
    fn build(&mut self, now: UnixMillis, what: Build) {
        let Some(basis) = self.begin_generation(now) else { return };
        let generation = self.generation;
        let job = match (what, &self.basis) {
            (Build::Load, _) => Job::Load {
                basis,
                generation,
                accepted: self.accepted,
                asked: self.asked,
                config: self.config.clone(),
            },
            (Build::Fold, Some((database, watermark)))
                if *watermark != NOTHING_LOADED && self.held.is_none() =>
            {
                let meta = snapshot::Meta { watermark: watermark.0, database: database.clone() };
                Job::Fold { basis, generation, meta, config: self.config.clone() }
            }
            (Build::Fold, _) => return,
        };
        if self.jobs.try_send(job).is_ok() {
            self.building = true;
        }
    }

    fn begin_generation(&mut self, now: UnixMillis) -> Option<Links> {
        // Counted before the attempt: one that failed may have left its file.
        self.generation += 1;
        match Log::create(&self.config.folder, self.generation) {
            Ok(log) => {
                self.log = Some(log);
                Some(Links::clone(&self.links.load()))
            }
            Err(error) => {
                tracing::error!(error = %chain(&error), "no new log of links; the table is not rebuilt");
                self.build_again_at = now.after(BUILD_AGAIN);
                None
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::LookedUp(key, entry) => {
                // What came by a change since is newer than what was looked up before it.
                let links = self.links.load();
                if links.get(key.namespace, &key.token).is_some()
                    || is_full(&links, &self.config, &mut self.full)
                {
                    return;
                }
                let change = Change { namespace: key.namespace, token: key.token.into(), entry };
                publish(&self.links, &self.namespaces, self.log.as_mut(), &mut self.unsynced, vec![change]);
            }
            Event::Built(built) => self.built(*built),
            Event::Accept(reply) => {
                let answer = self.held.or(self.domains.held).ok_or(NothingHeld);
                if let Some(held) = self.held {
                    self.accepted = Some(held);
                    self.ask_load(UnixMillis(0));
                }
                if let Some(held) = self.domains.held {
                    self.domains.accepted = Some(held);
                    self.domains.forget_seen();
                }
                // Whoever asked may have gone away.
                let _ = reply.send(answer);
            }
            Event::Pause(reply) => {
                self.finish();
                self.paused = true;
                self.log = None;
                self.connection = None;
                self.halt.store(true, Relaxed);
                self.pausing = Some(reply);
                self.rest();
            }
            Event::Resume if self.paused => {
                self.paused = false;
                self.halt.store(false, Relaxed);
                self.generation = snapshot::newest_generation(&self.config.folder).unwrap_or(self.generation);
                self.log_again_at = UnixMillis(0);
            }
            Event::Configure(config) => {
                if config.database != self.config.database {
                    self.connection = None;
                    // Whatever is read now, and however, is loaded whole before its changes are believed.
                    if let Some((_, watermark)) = &mut self.basis {
                        *watermark = NOTHING_LOADED;
                    }
                    self.ask_load(UnixMillis(0));
                }
                if config.domains() != self.config.domains() {
                    self.domains.forget_seen();
                }
                self.config = *config;
            }
            Event::Resume | Event::Stop => {}
        }
    }

    fn built(&mut self, built: Built) {
        self.building = false;
        if self.paused {
            return self.rest();
        }
        match built {
            Built::Taken { table, basis, meta, counts, refusals, loaded } => {
                self.build_failures = 0;
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
                if let Some(asked) = loaded {
                    self.domains.forget_seen();
                    self.held = None;
                    self.board.loaded(&counts, refusals);
                    if asked == self.asked && self.is_basis(&meta.database) {
                        self.loaded_at = table.made_at();
                        self.load_at = None;
                        self.accepted = None;
                        self.follow_from(meta);
                    }
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
                if self.is_basis(&meta.database) {
                    self.follow_from(meta);
                }
                self.rest_from_building();
            }
            Built::Failed { error } => {
                self.rest_from_building();
                tracing::error!(error, "the table of links was not built; links go on as before");
            }
            Built::Stopped => {}
        }
        self.report();
    }

    /// Says that nothing is written any more, once the mill does not.
    fn rest(&mut self) {
        if !self.building
            && let Some(reply) = self.pausing.take()
        {
            // Whoever asked may have gone away.
            let _ = reply.send(());
        }
    }

    fn is_basis(&self, database: &str) -> bool {
        self.basis.as_ref().is_none_or(|(known, _)| known == database)
    }

    /// Changes are followed from the load on, or from before it where they were not all taken yet.
    fn follow_from(&mut self, meta: snapshot::Meta) {
        // What changed in the last minute may be as much again.
        if std::mem::take(&mut self.reloading) {
            self.build_again_at = clock::now().after(RELOAD_AGAIN);
        }
        let loaded = Watermark(meta.watermark);
        let from = self.basis.take().map_or(loaded, |(_, taken)| taken.min(loaded));
        self.basis = Some((meta.database, from));
        self.unread = true;
    }

    /// A build that failed or was held is tried again later and later: it reads the whole database.
    fn rest_from_building(&mut self) {
        let rest = BUILD_AGAIN.saturating_mul(1 << self.build_failures.min(16)).min(BUILD_AGAIN_MAX);
        self.build_failures += 1;
        self.build_again_at = clock::now().after(rest);
    }

    /// After a fault the log begins anew with all that only memory is sure to have.
    fn mend_log(&mut self, now: UnixMillis) {
        if self.log.is_some() || !is_due(self.log_again_at, now, LOG_AGAIN) {
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
            (self.held, self.domains.held),
            self.domains.is_failing(),
            self.building,
        );
    }
}

#[derive(Clone, Copy)]
enum Build {
    Load,
    Fold,
}

/// Whether the links in service leave no room for new ones; said once in the log.
///
/// The overlay is folded long before, unless no table can be built: while a load is held, or the
/// database holds more than fits.
fn is_full(links: &Links, config: &Config, said: &mut bool) -> bool {
    let full = links.bytes() >= config.memory_bytes_max;
    if full && !*said {
        tracing::error!(
            bytes = links.bytes(),
            memory_max = config.memory_bytes_max,
            "`links.memory_max` is reached: new links are looked up one by one, not kept; raise it"
        );
    }
    *said = full;
    full
}

/// Whether `at` has come; a moment farther ahead than anybody waits is left from a clock that jumped.
fn is_due(at: UnixMillis, now: UnixMillis, wait_max: Duration) -> bool {
    at <= now || at > now.after(wait_max)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::links::Found;
    use crate::policy::{Monitor, Part};
    use crate::resolve::look_ups;

    const NOW: UnixMillis = UnixMillis(1_000_000_000_000);

    fn started(folder: &std::path::Path) -> (Started, Arc<ArcSwap<Links>>, Namespaces) {
        let config = Config {
            folder: folder.join("links"),
            database: database::Source::Sqlite(folder.join("holdfast.db")),
            timeout: Duration::from_secs(1),
            poll: Duration::from_millis(10),
            reload_every: Duration::from_secs(3600),
            overlay_max: 1000,
            memory_bytes_max: 1 << 30,
            looked_up_max: 100,
            guard: guard::Settings { forget_after: Duration::from_secs(3600), drop_max_ppm: 10_000 },
            domains_max: 100,
            brands_bytes_max: 1 << 20,
        };
        std::fs::create_dir_all(&config.folder).unwrap();
        let links = Arc::new(ArcSwap::from_pointee(Links::empty(1)));
        let namespaces = Namespaces::default();
        let look_ups = look_ups::Config {
            entries: 100,
            miss_ttl: Duration::from_secs(5),
            deadline: Duration::from_secs(1),
            in_flight_max: 4,
        };
        let (look_ups, _queue) = LookUps::new(look_ups, 1);
        let vitals =
            Vitals::new(Monitor::new(Default::default(), 1), Vec::new(), folder.join("windows.json"), NOW);
        let domains = Arc::default();
        let started =
            start(config, Arc::clone(&links), domains, namespaces.clone(), look_ups, vitals, || 1).unwrap();
        (started, links, namespaces)
    }

    fn entry(state: State, url: &str, origin: Origin) -> Arc<Entry> {
        let row =
            Row { namespace: b"n", token: b"t", url, campaign: b"", append: true, expires_at: None, state };
        Arc::new(Entry::approve(&row, origin).unwrap())
    }

    /// A look-up read a link, the link was deleted, the deletion was followed, and then the look-up's
    /// answer arrived: the link came back and redirected until the next complete load.
    #[test]
    fn a_look_up_that_arrives_late_does_not_bring_a_deleted_link_back() {
        let folder = tempfile::tempdir().unwrap();
        let (Started { mut follower, .. }, links, namespaces) = started(folder.path());
        let namespace = namespaces.intern(b"n").unwrap();
        let tombstone = entry(State::Deleted, "", Origin::Change);
        let change = Change { namespace, token: b"t"[..].into(), entry: tombstone };
        publish(&links, &namespaces, follower.log.as_mut(), &mut follower.unsynced, vec![change]);
        let key = Key { namespace, token: b"t"[..].into() };
        follower.handle(Event::LookedUp(key, entry(State::Live, "https://example.com/", Origin::LookUp)));
        assert_eq!(links.load().get(namespace, b"t"), Some(Found::Deleted));
    }

    /// A disk that was full for a moment left an empty log behind, and every later build found it in
    /// its way until the edge was restarted.
    #[test]
    fn a_log_that_is_in_the_way_costs_one_attempt() {
        let folder = tempfile::tempdir().unwrap();
        let (Started { mut follower, .. }, ..) = started(folder.path());
        drop(Log::create(&follower.config.folder, follower.generation + 1).unwrap());
        assert!(follower.begin_generation(NOW).is_none());
        assert!(follower.begin_generation(NOW).is_some());
    }

    #[test]
    fn a_load_is_asked_for_again_while_an_older_one_is_under_way() {
        let folder = tempfile::tempdir().unwrap();
        let (Started { mut follower, .. }, links, _) = started(folder.path());
        follower.ask_load(NOW);
        let before = follower.asked;
        follower.ask_load(NOW);
        let built = Built::Taken {
            table: Arc::clone(links.load().table()),
            basis: Links::clone(&links.load()),
            meta: snapshot::Meta { watermark: 7, database: "old".to_owned() },
            counts: guard::Counts::default(),
            refusals: Vec::new(),
            loaded: Some(before),
        };
        follower.built(built);
        assert_eq!(follower.load_at, Some(NOW), "the load that was asked for later is still due");
        assert_eq!(follower.basis, None);
    }

    #[test]
    fn moments_left_from_a_clock_that_jumped_are_due() {
        let wait = Duration::from_secs(30);
        assert!(is_due(NOW, NOW, wait));
        assert!(!is_due(NOW.after(wait), NOW, wait));
        assert!(is_due(NOW.after(wait * 2), NOW, wait));
    }

    #[test]
    fn in_a_window_the_follower_opens_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (Started { mut follower, .. }, ..) = started(folder.path());
        follower.vitals.begin(Part::Database, None, "", NOW).unwrap();
        assert!(follower.follow(NOW).is_ok());
        assert!(follower.connection.is_none());
        assert_eq!(follower.vitals.holders(), 0);
    }
}
