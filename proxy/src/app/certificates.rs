//! The certificates' owner: when the folder is read again, what is said of it, when ticket keys turn.
//!
//! Reading takes as long as the disk does, so it is done beside the control thread, one reading at a
//! time; the store goes there and comes back with what was found.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use certs::{Report, Secret, Store, TicketKeys, UnixSeconds};
use tokio::sync::oneshot::{self, error::TryRecvError};

use crate::admin::certificates::Board;
use crate::causes::chain;
use crate::config::{Config, Tls as Settings};
use crate::event::UnixMillis;
use crate::front::tls::Tls;

/// Everything of an edge with listeners for https; nothing of one without.
pub(super) struct Certificates(Option<Kept>);

struct Kept {
    settings: Settings,
    tls: Arc<Tls>,
    board: Arc<Board>,
    tickets: TicketKeys,
    /// At home, or out to read.
    store: Result<Store, oneshot::Receiver<(Store, Report)>>,
    read_at: UnixMillis,
    /// To be read again as soon as the store is at home.
    is_due: bool,
    /// Faults that were told of.
    told: BTreeSet<(PathBuf, String)>,
}

impl Certificates {
    /// Reads the folder for the first time, when anything listens for https.
    ///
    /// # Blocking
    /// Reads every file of the folder.
    pub(super) fn begin(config: &Config, now: UnixMillis) -> Self {
        if config.listen.https.is_empty() {
            return Self(None);
        }
        let settings = config.tls.clone();
        let (mut store, resolver) = certs::watch(settings.certificates.clone());
        let secret = settings.tickets.clone().unwrap_or_else(Secret::random);
        let (tickets, ticketer) = certs::tickets(secret, seconds(now));
        let report = store.reload(seconds(now));
        let mut kept = Kept {
            settings,
            tls: Arc::new(Tls::new(certs::Server::new(resolver, ticketer))),
            board: Arc::default(),
            tickets,
            store: Ok(store),
            read_at: now,
            is_due: false,
            told: BTreeSet::new(),
        };
        tracing::info!(
            certificates = report.certificates,
            names = report.names,
            folder = %kept.settings.certificates.folder.display(),
            "certificates are loaded"
        );
        kept.publish(report);
        Self(Some(kept))
    }

    pub(super) fn tls(&self) -> Option<Arc<Tls>> {
        self.0.as_ref().map(|kept| Arc::clone(&kept.tls))
    }

    pub(super) fn board(&self) -> Option<Arc<Board>> {
        self.0.as_ref().map(|kept| Arc::clone(&kept.board))
    }

    /// Looks whether it is time to read, and whether a reading has come back.
    pub(super) fn tick(&mut self, now: UnixMillis) {
        let Some(kept) = &mut self.0 else { return };
        kept.tickets.turn(seconds(now));
        if let Err(away) = &mut kept.store {
            match away.try_recv() {
                Ok((store, report)) => {
                    kept.store = Ok(store);
                    kept.publish(report);
                }
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Closed) => panic!("reading certificates panicked"),
            }
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
    }
}

impl Kept {
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
        if report.certificates > 0 && !self.tls.is_open() {
            self.tls.open();
        }
        self.board.publish(report);
    }
}

fn seconds(now: UnixMillis) -> UnixSeconds {
    UnixSeconds(i64::try_from(now.0 / 1000).unwrap_or(i64::MAX))
}
