//! The lock between edges that order certificates: rows of the database that they share.
//!
//! Invariants:
//! - Nobody waits for the database but the thread that is here for it; it connects when it is asked for
//!   something, and lets go soon after.
//! - In a window, and while the database is down, it is left alone: an order then waits. When it could not
//!   be used, it is left alone for some seconds: as many orders may wait as there are names.
//! - A file (SQLite) has one edge, which needs no lock.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use arc_swap::ArcSwap;
use certs::acme::{LockFault, OrderLock, Taken, Waiting};
use tokio::sync::oneshot;

use crate::causes::chain;
use crate::clock;
use crate::config;
use crate::database::{self, Access, Database, Error, Migrate, Source};
use crate::event::UnixMillis;
use crate::vitals::{Holding, Vitals};

/// Questions that wait; no more orders run at once, each with one question at a time.
const QUESTIONS_MAX: usize = 128;
/// How soon an idle connection notices that the database is to be let go.
const LOOK: Duration = Duration::from_millis(100);
/// How long a database that could not be used is left alone.
const PAUSE: Duration = Duration::from_secs(2);
/// After so many looks without a question the connection is closed.
const LOOKS_MAX: u32 = 50;

/// Where the rows are, and who this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    source: Source,
    timeout: Duration,
    migrate: Migrate,
    edge: String,
}

impl Settings {
    pub(super) fn of(config: &config::Config) -> Self {
        let config::Database { source, timeout, migrate, .. } = &config.database;
        Self { source: source.bare(), timeout: *timeout, migrate: *migrate, edge: config.edge.clone() }
    }
}

/// Something to ask the database. Whoever asked is told; and so is who holds the connection, if it failed.
type Question = Box<dyn FnOnce(Result<&mut Database, LockFault>) -> Result<(), String> + Send>;

/// The end for orders.
#[derive(Clone)]
pub(super) struct Lock {
    questions: SyncSender<Question>,
    settings: Arc<ArcSwap<Settings>>,
}

/// The end for a thread of its own.
pub(super) struct Clerk {
    questions: Receiver<Question>,
    settings: Arc<ArcSwap<Settings>>,
    vitals: Arc<Vitals>,
}

/// The two ends.
pub(super) fn lock(settings: Settings, vitals: &Arc<Vitals>) -> (Lock, Clerk) {
    let (sender, questions) = sync_channel(QUESTIONS_MAX);
    let settings = Arc::new(ArcSwap::from_pointee(settings));
    let clerk = Clerk { questions, settings: Arc::clone(&settings), vitals: Arc::clone(vitals) };
    (Lock { questions: sender, settings }, clerk)
}

impl Lock {
    /// Asks another database from now on.
    pub(super) fn configure(&self, settings: Settings) {
        self.settings.store(Arc::new(settings));
    }

    /// Puts a question; `alone` is the answer where there is one edge.
    fn ask<T: Send + 'static>(
        &self,
        alone: T,
        question: impl FnOnce(&mut Database, &str) -> Result<T, Error> + Send + 'static,
    ) -> Waiting<'_, Result<T, LockFault>> {
        let settings = self.settings.load_full();
        if let Source::Sqlite(_) = settings.source {
            return Box::pin(async { Ok(alone) });
        }
        let (reply, answer) = oneshot::channel();
        let asked = self.questions.try_send(Box::new(move |database| {
            if reply.is_closed() {
                return Ok(()); // nobody waits for it any more
            }
            let told = database.and_then(|database| {
                question(database, &settings.edge).map_err(|error| LockFault(chain(&error)))
            });
            let fault = told.as_ref().map(drop).map_err(|fault| fault.0.clone());
            let _ = reply.send(told);
            fault
        }));
        Box::pin(async move {
            let fault = |why: &str| LockFault(why.to_owned());
            asked.map_err(|_| fault("too many orders ask the database at once"))?;
            answer.await.map_err(|_| fault("the edge is ending"))?
        })
    }
}

impl OrderLock for Lock {
    fn take(&self, name: &str, lease: Duration) -> Waiting<'_, Result<Taken, LockFault>> {
        let name = name.to_owned();
        let take = move |database: &mut Database, edge: &str| database.take_order(&name, edge, lease);
        let taken = self.ask(true, take);
        Box::pin(async { Ok(if taken.await? { Taken::Ours } else { Taken::Theirs }) })
    }

    fn release(&self, name: &str) -> Waiting<'_, ()> {
        let name = name.to_owned();
        let released = self.ask((), move |database, edge| database.release_order(&name, edge));
        Box::pin(async {
            // It ends with its lease.
            let _ = released.await;
        })
    }

    fn shared(&self, name: &str) -> Waiting<'_, Result<Option<Vec<u8>>, LockFault>> {
        let name = name.to_owned();
        self.ask(None, move |database, _| database.shared_certificate(&name))
    }

    fn share(&self, name: &str, sealed: Vec<u8>) -> Waiting<'_, Result<(), LockFault>> {
        let name = name.to_owned();
        self.ask((), move |database, _| database.share_certificate(&name, &sealed))
    }
}

/// An open connection, and what it was opened for.
struct Open {
    settings: Arc<Settings>,
    database: Database,
    _holding: Holding,
}

/// The way to the database.
#[derive(Default)]
struct Way {
    open: Option<Open>,
    /// When and how it failed last.
    failed: Option<(UnixMillis, String)>,
}

impl Clerk {
    /// Answers until nobody is left to ask.
    ///
    /// # Blocking
    /// The whole life of its thread.
    pub(super) fn serve(self) {
        let mut way = Way::default();
        let mut looks = 0;
        loop {
            let question = match &way.open {
                None => self.questions.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(_) => self.questions.recv_timeout(LOOK),
            };
            match question {
                Ok(question) => {
                    looks = 0;
                    if let Err(fault) = question(self.connected(&mut way))
                        && way.open.take().is_some()
                    {
                        way.failed = Some((clock::now(), fault));
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    looks += 1;
                    if looks >= LOOKS_MAX || !self.vitals.database_is_up() {
                        way.open = None;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// The connection, opened if it is not.
    fn connected<'a>(&self, way: &'a mut Way) -> Result<&'a mut Database, LockFault> {
        let settings = self.settings.load_full();
        let holding = if self.vitals.database_is_up() { self.vitals.hold() } else { None };
        let Some(holding) = holding else {
            *way = Way::default();
            return Err(LockFault("the database is down or in a window".to_owned()));
        };
        let open = match way.open.take().filter(|open| open.settings == settings) {
            Some(open) => open,
            None => {
                let now = clock::now();
                // A clock that was set back ends the pause, too.
                way.failed.take_if(|(at, _)| now < *at || now.since(*at) >= PAUSE);
                if let Some((_, fault)) = &way.failed {
                    return Err(LockFault(fault.clone()));
                }
                let opened = database::open(&settings.source, Access::ReadWrite, settings.timeout).and_then(
                    |mut database| {
                        // A missing table says so itself when it is asked.
                        database.migrate_or_make_do(settings.migrate).map(|_| database)
                    },
                );
                let database = opened.map_err(|error| {
                    let fault = chain(&error);
                    way.failed = Some((now, fault.clone()));
                    LockFault(fault)
                })?;
                Open { settings, database, _holding: holding }
            }
        };
        Ok(&mut way.open.insert(open).database)
    }
}
