//! Signals → published health: what every step may ask about the needed parts, and when to try again.
//!
//! Invariants:
//! - The published value is replaced whole; readers never see half a change.
//! - A window that was begun by hand is on disk before it is published, so that it survives a restart.
//! - Each transition is logged once, here.
//!
//! It decides nothing: `policy` does. It knows no database; whoever holds a connection says so, so
//! that "let go" in a window is a fact and not a hope.

use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{
    AtomicBool, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;

use crate::clock::Expiry;
use crate::event::UnixMillis;
use crate::policy::{
    Active, Cause, Health, Listed, Monitor, NotOpen, Part, Signal, Transition, Window, WindowFault, Windows,
};

/// The health of the needed parts at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vital {
    /// The database.
    pub database: Health,
    /// Whether the clock can be trusted with ending links.
    pub expiry: Expiry,
}

/// The monitors and windows behind the published health.
#[derive(Debug)]
pub struct Vitals {
    published: ArcSwap<Vital>,
    // Guards monitor and windows together; held for a step of each, and for one small file's write
    // when a window begins or ends by hand.
    state: Mutex<State>,
    windows_file: PathBuf,
    holders: AtomicUsize,
    probe: AtomicBool,
}

#[derive(Debug)]
struct State {
    monitor: Monitor,
    windows: Windows,
}

/// Why a window cannot begin or end.
#[derive(Debug)]
pub enum WindowError {
    /// What was asked for is no window.
    Fault(WindowFault),
    /// There is none to end.
    NotOpen(NotOpen),
    /// It could not be written to disk; nothing has changed.
    Store(PathBuf, io::Error),
}

impl fmt::Display for WindowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(fault) => fault.fmt(f),
            Self::NotOpen(not_open) => not_open.fmt(f),
            Self::Store(path, _) => write!(f, "cannot write {}", path.display()),
        }
    }
}

impl std::error::Error for WindowError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Fault(_) | Self::NotOpen(_) => None,
            Self::Store(_, error) => Some(error),
        }
    }
}

/// One open connection to the database; dropping it says that it is closed.
#[derive(Debug)]
pub struct Holding(Arc<Vitals>);

impl Drop for Holding {
    fn drop(&mut self) {
        self.0.holders.fetch_sub(1, SeqCst);
    }
}

impl Vitals {
    /// The health at a start: everything up, but for what the windows say.
    ///
    /// Windows by hand are read from `windows_file`; a file that cannot be read is set aside and logged.
    #[must_use]
    pub fn new(
        monitor: Monitor,
        configured: Vec<Window>,
        windows_file: PathBuf,
        now: UnixMillis,
    ) -> Arc<Self> {
        let windows = restore(configured, &windows_file);
        let published = Vital { database: monitor.health(), expiry: Expiry::Counts };
        let vitals = Arc::new(Self {
            published: ArcSwap::from_pointee(published),
            state: Mutex::new(State { monitor, windows }),
            windows_file,
            holders: AtomicUsize::new(0),
            probe: AtomicBool::new(false),
        });
        vitals.tick(now, Expiry::Counts);
        vitals
    }

    /// The published value, for a reader that keeps its own copy of the pointer.
    #[must_use]
    pub fn published(&self) -> &ArcSwap<Vital> {
        &self.published
    }

    /// Whether the database may be used for ordinary work.
    #[must_use]
    pub fn database_is_up(&self) -> bool {
        self.published.load().database.is_up()
    }

    /// Whether the follower may try the database: it is up, or down and a probe is due. In a window never.
    #[must_use]
    pub fn may_probe(&self) -> bool {
        match self.published.load().database {
            Health::Up => true,
            Health::Down { .. } => self.probe.swap(false, Relaxed),
            Health::Window { .. } => false,
        }
    }

    /// Whether work on the database that has begun may go on: everywhere but in a window.
    #[must_use]
    pub fn may_go_on(&self) -> bool {
        !matches!(self.published.load().database, Health::Window { .. })
    }

    /// Tells how an attempt on the database ended.
    pub fn observe(&self, signal: Signal, now: UnixMillis) {
        let mut state = self.lock();
        let transition = state.monitor.observe(signal, now);
        self.publish(&state, transition);
    }

    /// Looks at the clock: windows begin and end, probes fall due. Called several times a second.
    pub fn tick(&self, now: UnixMillis, expiry: Expiry) {
        let mut state = self.lock();
        self.look(&mut state, now);
        if self.published.load().expiry != expiry {
            match expiry {
                Expiry::Ignored => tracing::error!(
                    "the clock is behind the time of the links' table; links do not expire until it is right"
                ),
                Expiry::Counts => tracing::info!("the clock is right again; links expire as usual"),
            }
            let database = state.monitor.health();
            self.published.store(Arc::new(Vital { database, expiry }));
        }
    }

    /// Begins a window by hand; it is on disk when this returns.
    ///
    /// # Errors
    /// [`WindowError`]; nothing has changed then.
    pub fn begin(
        &self,
        part: Part,
        until: Option<UnixMillis>,
        reason: &str,
        now: UnixMillis,
    ) -> Result<Active, WindowError> {
        self.change(now, |windows| windows.begin(part, until, reason, now).map_err(WindowError::Fault))
    }

    /// Ends a window, one of the configuration too.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub fn end(&self, part: Part, now: UnixMillis) -> Result<Active, WindowError> {
        self.change(now, |windows| windows.end(part, now).map_err(WindowError::NotOpen))
    }

    /// All windows, for people.
    #[must_use]
    pub fn windows(&self, now: UnixMillis) -> Vec<Listed> {
        self.lock().windows.list(now)
    }

    /// The database's open window.
    #[must_use]
    pub fn active(&self, now: UnixMillis) -> Option<Active> {
        self.lock().windows.active(Part::Database, now)
    }

    /// Takes the windows of a new configuration.
    pub fn reload(&self, configured: Vec<Window>) {
        self.lock().windows.reload(configured);
    }

    /// Says that a connection to the database is about to be opened; `None` in a window, when it must not be.
    ///
    /// Said first and looked at then, so that a database which is shown as let go stays so.
    #[must_use]
    pub fn hold(self: &Arc<Self>) -> Option<Holding> {
        self.holders.fetch_add(1, SeqCst);
        let holding = Holding(Arc::clone(self));
        let in_window = matches!(self.published.load().database, Health::Window { .. });
        (!in_window).then_some(holding)
    }

    /// Connections to the database that are open now.
    #[must_use]
    pub fn holders(&self) -> usize {
        self.holders.load(SeqCst)
    }

    fn change<T>(
        &self,
        now: UnixMillis,
        change: impl FnOnce(&mut Windows) -> Result<T, WindowError>,
    ) -> Result<T, WindowError> {
        let mut state = self.lock();
        let mut windows = state.windows.clone();
        let done = change(&mut windows)?;
        store(&self.windows_file, &windows.to_json())
            .map_err(|error| WindowError::Store(self.windows_file.clone(), error))?;
        state.windows = windows;
        self.look(&mut state, now);
        Ok(done)
    }

    fn look(&self, state: &mut State, now: UnixMillis) {
        let window = state.windows.active(Part::Database, now);
        let tick = state.monitor.tick(window, now);
        if tick.probe {
            self.probe.store(true, Relaxed);
        }
        self.publish(state, tick.transition);
    }

    fn publish(&self, state: &State, transition: Option<Transition>) {
        let Some(transition) = transition else { return };
        let (from, to, cause) = (transition.from.label(), transition.to.label(), &transition.cause);
        match (&transition.to, cause) {
            (Health::Down { .. }, Cause::Failures(_) | Cause::Gone) => {
                tracing::error!(from, to, %cause, "the database is down; links go on from memory")
            }
            _ => tracing::info!(from, to, %cause, "the database's health changed"),
        }
        let expiry = self.published.load().expiry;
        self.published.store(Arc::new(Vital { database: state.monitor.health(), expiry }));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn restore(configured: Vec<Window>, file: &Path) -> Windows {
    let text = match fs::read(file) {
        Ok(text) => text,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::error!(file = %file.display(), %error, "windows by hand cannot be read; begin them again where needed");
            }
            return Windows::new(configured);
        }
    };
    match Windows::restore(configured.clone(), &text) {
        Ok((windows, ignored)) => {
            for reason in ignored {
                tracing::warn!(file = %file.display(), %reason, "a window by hand was passed over");
            }
            windows
        }
        Err(fault) => {
            let aside = file.with_extension("json.damaged");
            let kept = fs::rename(file, &aside).is_ok();
            tracing::error!(
                file = %aside.display(), %fault, kept,
                "windows by hand are damaged and were set aside; begin them again where needed"
            );
            Windows::new(configured)
        }
    }
}

/// Replaces the file whole: written beside it, synced, renamed, and the rename synced.
fn store(file: &Path, text: &str) -> io::Result<()> {
    let fresh = file.with_extension("json.new");
    let mut out = fs::File::create(&fresh)?;
    out.write_all(text.as_bytes())?;
    out.sync_all()?;
    fs::rename(&fresh, file)?;
    match file.parent() {
        Some(folder) => fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const NOW: UnixMillis = UnixMillis(1_000_000_000_000);

    fn vitals(file: &Path, now: UnixMillis) -> Arc<Vitals> {
        Vitals::new(Monitor::new(Default::default(), 1), Vec::new(), file.to_owned(), now)
    }

    #[test]
    fn a_window_by_hand_survives_a_restart_and_ends_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("windows.json");
        let until = NOW.after(Duration::from_secs(3600));
        vitals(&file, NOW).begin(Part::Database, Some(until), "move", NOW).unwrap();

        let again = vitals(&file, NOW.after(Duration::from_secs(60)));
        assert!(
            matches!(again.published().load().database, Health::Window { until: end, .. } if end == until)
        );
        assert!(!again.may_probe(), "nobody touches the database in a window");
        again.tick(until.after(Duration::from_millis(1)), Expiry::Counts);
        assert!(matches!(again.published().load().database, Health::Down { .. }), "not yet seen to be back");
        assert!(again.may_probe());
        again.observe(Signal::Succeeded, until.after(Duration::from_millis(2)));
        assert!(again.database_is_up());
    }

    #[test]
    fn a_damaged_file_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("windows.json");
        fs::write(&file, "{").unwrap();
        assert!(vitals(&file, NOW).database_is_up());
        assert!(folder.path().join("windows.json.damaged").exists());
    }

    #[test]
    fn ending_what_is_not_open_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let vitals = vitals(&folder.path().join("windows.json"), NOW);
        assert!(matches!(vitals.end(Part::Database, NOW), Err(WindowError::NotOpen(_))));
    }

    #[test]
    fn nobody_takes_hold_in_a_window() {
        let folder = tempfile::tempdir().unwrap();
        let vitals = vitals(&folder.path().join("windows.json"), NOW);
        vitals.begin(Part::Database, None, "", NOW).unwrap();
        assert!(vitals.hold().is_none());
        assert_eq!(vitals.holders(), 0);
    }

    #[test]
    fn who_holds_a_connection_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let vitals = vitals(&folder.path().join("windows.json"), NOW);
        let held = vitals.hold();
        assert!(held.is_some());
        assert_eq!(vitals.holders(), 1);
        drop(held);
        assert_eq!(vitals.holders(), 0);
    }
}
