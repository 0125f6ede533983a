//! The certificates' owner: when the folder is read again, what is said of it, when ticket keys turn.
//!
//! Reading takes as long as the disk does, so it is done beside the control thread, one reading at a
//! time; the store goes there and comes back with what was found.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use arc_swap::ArcSwap;
use certs::acme::{Acme, OrderLock, Work};
use certs::{Certificate, Report, Secret, Store, TicketKeys, UnixSeconds};
use tokio::sync::oneshot::{self, error::TryRecvError};

use super::issuing::{self, Issuing};
use super::names::Names;
use super::{RunError, orders};
use crate::admin::Reply;
use crate::admin::certificates::{Action, Board};
use crate::causes::chain;
use crate::config::{Config, Tls as Settings};
use crate::event::UnixMillis;
use crate::front::sites::Sites;
use crate::front::tls::{self, Tls};

/// How long the start waits for the folder of certificates: ten thousand take a second.
const FIRST_READING: Duration = Duration::from_secs(5);

/// Everything of an edge with listeners for https; nothing of one without.
pub(super) struct Certificates(Option<Kept>);

struct Kept {
    settings: Settings,
    tls: Arc<Tls>,
    board: Arc<Board>,
    tickets: TicketKeys,
    /// At home, or out to read.
    store: Result<Store, oneshot::Receiver<(Store, Report)>>,
    /// What the files held when they were read last.
    files: Arc<[Certificate]>,
    /// The files were read once.
    was_read: bool,
    issuing: Option<Issuing>,
    /// Until somebody runs it.
    work: Option<Work>,
    lock: Option<orders::Lock>,
    read_at: UnixMillis,
    /// To be read again as soon as the store is at home.
    is_due: bool,
    /// Faults that were told of.
    told: BTreeSet<(PathBuf, String)>,
}

impl Certificates {
    /// Reads the folder for the first time, and what was ordered before, when anything listens for https.
    ///
    /// # Blocking
    /// Reads every file of the folder, and every record.
    ///
    /// # Errors
    /// [`RunError::Issuing`].
    pub(super) fn begin(
        config: &Config,
        now: UnixMillis,
        sites: &Arc<ArcSwap<Sites>>,
        lock: Option<orders::Lock>,
        seed: u64,
    ) -> Result<Self, RunError> {
        if config.listen.https.is_empty() {
            return Ok(Self(None));
        }
        let settings = config.tls.clone();
        let (store, resolver) = certs::watch(settings.certificates.clone());
        let secret = settings.tickets.clone().unwrap_or_else(Secret::random);
        let (tickets, ticketer) = certs::tickets(secret, seconds(now));
        let board = Arc::default();
        let mut issuing = None;
        let mut work = None;
        if let Some(acme) = &settings.acme {
            let lock = lock.clone().map(|lock| Arc::new(lock) as Arc<dyn OrderLock>);
            let names = Names::new(sites);
            let (begun, works) =
                Issuing::begin(acme, &config.data, store.issued(), names, lock, &board, seed)
                    .map_err(RunError::Issuing)?;
            issuing = Some(begun);
            work = Some(works);
        }
        let answering = settings.acme.as_ref().zip(issuing.as_ref()).map(|(settings, issuing)| {
            tls::Issuing { acme: issuing.acme.clone(), demand_wait: settings.orders.demand_wait }
        });
        let mut kept = Kept {
            settings,
            tls: Arc::new(Tls::new(certs::Server::new(resolver, ticketer), answering)),
            board,
            tickets,
            files: Arc::new([]),
            was_read: false,
            issuing,
            work,
            lock,
            store: Err(first_reading(store, now)?),
            read_at: now,
            is_due: false,
            told: BTreeSet::new(),
        };
        if kept.come_home() {
            let certificates = kept.files.len();
            if let Some(folder) = &kept.settings.certificates.folder {
                tracing::info!(certificates, folder = %folder.display(), "certificates are loaded");
            }
        } else {
            tracing::error!("the folder of certificates does not answer; https waits for it, http does not");
        }
        kept.tell_names(now);
        Ok(Self(Some(kept)))
    }

    pub(super) fn tls(&self) -> Option<Arc<Tls>> {
        self.0.as_ref().map(|kept| Arc::clone(&kept.tls))
    }

    pub(super) fn board(&self) -> Option<Arc<Board>> {
        self.0.as_ref().map(|kept| Arc::clone(&kept.board))
    }

    /// What does the ordering, to be run for as long as the edge does.
    pub(super) fn work(&mut self) -> Option<Work> {
        self.0.as_mut()?.work.take()
    }

    /// What orders, where anything does.
    pub(super) fn acme(&self) -> Option<&Acme> {
        self.0.as_ref()?.issuing.as_ref().map(|issuing| &issuing.acme)
    }

    /// Does what an operator asks for, or says why not.
    pub(super) fn carry_out(&self, action: Action, reply: oneshot::Sender<Reply>) {
        match self.acme() {
            Some(acme) => issuing::carry_out(acme, action, reply),
            None => {
                let why = "no certificates are ordered: name an authority in tls.acme.directory";
                // Whoever asked may have gone away.
                let _ = reply.send(Err(why.to_owned()));
            }
        }
    }

    /// Looks whether it is time to read, and whether a reading has come back.
    pub(super) fn tick(&mut self, now: UnixMillis) {
        let Some(kept) = &mut self.0 else { return };
        kept.tickets.turn(seconds(now));
        kept.tell_names(now);
        if !kept.come_home() {
            return;
        }
        // A clock that was set back must not put the next reading off.
        if kept.is_due || now.since(kept.read_at) >= kept.settings.poll || now < kept.read_at {
            kept.read(now);
        }
    }

    /// Takes new settings, and reads again at the next tick.
    pub(super) fn configure(&mut self, config: &Config) {
        let Some(kept) = &mut self.0 else { return };
        match &config.tls.tickets {
            Some(secret) => kept.tickets.replace(secret.clone()),
            None if kept.settings.tickets.is_some() => kept.tickets.replace(Secret::random()),
            None => {}
        }
        kept.settings = config.tls.clone();
        kept.is_due = true;
        if let Some(lock) = &kept.lock {
            lock.configure(orders::Settings::of(config));
        }
    }
}

/// Reads the folder for the first time, beside this thread: a disk that hangs must not stop the start.
fn first_reading(mut store: Store, now: UnixMillis) -> Result<oneshot::Receiver<(Store, Report)>, RunError> {
    let (home, away) = oneshot::channel();
    let (done, is_done) = sync_channel(1);
    super::spawn("certificates", move || {
        let report = store.reload(seconds(now));
        // Whoever waits may have gone on.
        let _ = home.send((store, report));
        let _ = done.try_send(());
    })
    .map_err(|error| RunError::System("a thread cannot be started", error))?;
    let _ = is_done.recv_timeout(FIRST_READING);
    Ok(away)
}

impl Kept {
    /// Takes the store and what it found when it is back; whether it is here.
    fn come_home(&mut self) -> bool {
        let Err(away) = &mut self.store else { return true };
        match away.try_recv() {
            Ok((store, report)) => {
                self.store = Ok(store);
                self.publish(report);
                true
            }
            Err(TryRecvError::Empty) => false,
            Err(TryRecvError::Closed) => panic!("reading certificates panicked"),
        }
    }

    /// Says which names are wanted, if that has changed.
    ///
    /// Not before the files were read once: what they are for must not be ordered.
    fn tell_names(&mut self, now: UnixMillis) {
        if let Some(issuing) = self.issuing.as_mut().filter(|_| self.was_read) {
            issuing.look(&self.files, seconds(now));
        }
    }

    fn read(&mut self, now: UnixMillis) {
        let (home, away) = oneshot::channel();
        let Ok(mut store) = std::mem::replace(&mut self.store, Err(away)) else { return };
        (self.is_due, self.read_at) = (false, now);
        store.configure(self.settings.certificates.clone());
        tokio::task::spawn_blocking(move || {
            let report = store.reload(seconds(now));
            // The control thread may have ended.
            let _ = home.send((store, report));
        });
    }

    fn publish(&mut self, report: Report) {
        let mut told = BTreeSet::new();
        for fault in &report.faults {
            let said = (fault.file.clone(), chain(fault));
            if !self.told.contains(&said) {
                tracing::error!(file = %fault.file.display(), fault = said.1, "a certificate file has a fault");
            }
            told.insert(said);
        }
        for (file, fault) in self.told.difference(&told) {
            tracing::info!(file = %file.display(), fault, "a certificate file has that fault no more");
        }
        self.told = told;
        // With an authority, what is not there yet can be ordered, and its check comes in by these listeners.
        if (report.certificates > 0 || self.issuing.is_some()) && !self.tls.is_open() {
            self.tls.open();
        }
        self.files = Arc::clone(&report.listing);
        self.was_read = true;
        self.board.publish(report);
    }
}

fn seconds(now: UnixMillis) -> UnixSeconds {
    UnixSeconds(i64::try_from(now.0 / 1000).unwrap_or(i64::MAX))
}
