//! Certificates that are ordered: which names are wanted, what is said of events, what operators ask for.
//!
//! The work is done on the control thread's runtime; everything here is quick but for what says that it blocks.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use certs::acme::{self, Acme, Blame, Event, Folder, OrderLock, Parts, StartFault, Work};
use certs::{Certificate, Issued, UnixSeconds};
use serde_json::json;
use tokio::sync::oneshot;

use super::names::{Known, Names};
use crate::admin::Reply;
use crate::admin::certificates::{Action, Board, FOLDER, Ordering, Which};
use crate::causes::chain;
use crate::clock;
use crate::config;

/// What orders, and what it was told last.
pub(super) struct Issuing {
    pub(super) acme: Acme,
    names: Names,
    told: Option<Told>,
    /// Hosts that no certificate is ordered for, as they were said.
    unordered: BTreeSet<String>,
}

/// What the wanted names were made of.
struct Told {
    known: Known,
    files: Arc<[Certificate]>,
}

impl Issuing {
    /// Reads what is stored, and serves it.
    ///
    /// # Blocking
    /// Reads every record.
    pub(super) fn begin(
        settings: &config::Acme,
        data: &Path,
        issued: Issued,
        names: Names,
        lock: Option<Arc<dyn OrderLock>>,
        board: &Arc<Board>,
        seed: u64,
    ) -> Result<(Self, Work), StartFault> {
        let storage = Folder::open(data.join(FOLDER)).map_err(StartFault::Storage)?;
        let parts = Parts {
            storage: Arc::new(storage),
            issued,
            lock,
            known: {
                let names = names.clone();
                Arc::new(move |name| names.is_known(name))
            },
            clock: Arc::new(|| UnixSeconds(i64::try_from(clock::now().0 / 1000).unwrap_or(i64::MAX))),
            events: {
                let (board, said) = (Arc::clone(board), Mutex::default());
                Arc::new(move |event| tell(event, &board, &said))
            },
            seed,
        };
        let (acme, work) = acme::start(settings.orders.clone(), parts)?;
        let authority = settings.orders.authority.directory.clone();
        tracing::info!(certificates = acme.status().held, authority, "ordered certificates are loaded");
        board.order(Ordering { acme: acme.clone(), authority });
        Ok((Self { acme, names, told: None, unordered: BTreeSet::new() }, work))
    }

    /// Says which names are wanted, if anything that decides it has changed: all hosts of the sites but
    /// those that a certificate from a file is for.
    pub(super) fn look(&mut self, files: &Arc<[Certificate]>, now: UnixSeconds) {
        let known = self.names.now();
        let is_same = |told: &Told| told.known.is(&known) && Arc::ptr_eq(&told.files, files);
        if self.told.as_ref().is_some_and(is_same) {
            return;
        }
        let valid = files.iter().filter(|file| file.from() <= now && now <= file.until());
        let covered: HashSet<&str> = valid.flat_map(Certificate::names).collect();
        let is_covered = |host: &str| {
            let below = host.split_once('.').map(|(_, parent)| format!("*.{parent}"));
            covered.contains(host) || below.is_some_and(|below| covered.contains(below.as_str()))
        };
        let faults = self.acme.wanted(known.hosts().filter(|host| !is_covered(host)), is_covered);
        let mut unordered = BTreeSet::new();
        for (host, why) in &faults {
            if !self.unordered.contains(host) {
                tracing::info!(host, %why, "no certificate is ordered for this host");
            }
            unordered.insert(host.clone());
        }
        for host in known.wildcards().filter(|host| !covered.contains(host.as_str())) {
            if !self.unordered.contains(&host) {
                tracing::info!(
                    host,
                    "no certificate is ordered for a wildcard; hosts below it get their own in their first handshake"
                );
            }
            unordered.insert(host);
        }
        self.unordered = unordered;
        self.told = Some(Told { known, files: Arc::clone(files) });
    }
}

/// Does what an operator asks for; what takes its time answers later.
pub(super) fn carry_out(acme: &Acme, action: Action, reply: oneshot::Sender<Reply>) {
    let acme = acme.clone();
    // Whoever asked may have gone away.
    match action {
        Action::Renew(which) => {
            let _ = reply.send(renew(&acme, &which));
        }
        Action::Import(pem) => {
            tokio::task::spawn_blocking(move || {
                let imported = acme.import(pem.expose());
                let named = imported.map(|name| json!({ "imported": name.as_str() }));
                let _ = reply.send(named.map_err(|fault| format!("not imported: {}", chain(&fault))));
            });
        }
        Action::ChangeAccountKey => {
            tokio::spawn(async move {
                let changed = acme.change_account_key().await;
                let _ = reply.send(changed.map(|()| json!({ "changed": true })));
            });
        }
    }
}

fn renew(acme: &Acme, which: &Which) -> Reply {
    match which {
        Which::Name(name) if acme.renew(name) => Ok(json!({ "renewed": [name] })),
        Which::Name(name) => Err(format!(
            "no certificate is ordered for \"{name}\": it is no host of a site that is named whole, nor has it come on demand; see `holdfast certs list`"
        )),
        Which::All => {
            let listed = acme.list();
            let names = listed.iter().map(|listed| listed.name.as_str()).filter(|name| acme.renew(name));
            Ok(json!({ "renewed": names.collect::<Vec<_>>() }))
        }
    }
}

/// Counts an event and says it; what every name meets is said once.
fn tell(event: &Event, board: &Board, lock_fault: &Mutex<Option<String>>) {
    board.happened(event.label());
    match event {
        Event::Asked { .. } | Event::Failed { blame: Blame::Another | Blame::Cut, .. } => {
            tracing::debug!("{event}");
        }
        Event::Failed { blame: Blame::Lock, why, .. } => {
            let mut said = lock_fault.lock().unwrap_or_else(PoisonError::into_inner);
            if said.as_ref() == Some(why) {
                tracing::debug!("{event}");
            } else {
                tracing::warn!("{event}; it is tried again until it can be had");
                *said = Some(why.clone());
            }
        }
        Event::Failed { .. } => {
            tracing::error!("{event}; it is tried again later, and what was served before is served on");
        }
        Event::Fault { .. } => tracing::error!("{event}"),
        Event::Adopted { .. } | Event::Issued { .. } => {
            *lock_fault.lock().unwrap_or_else(PoisonError::into_inner) = None;
            tracing::info!("{event}");
        }
        Event::NotPermitted { .. } => tracing::warn!("{event}"),
        Event::Account(_) | Event::Stored { .. } => tracing::info!("{event}"),
    }
}
