//! What several edges share, in memory: who orders a name, and what was issued for it.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use certs::acme::{LockFault, OrderLock, Taken, Waiting};

#[derive(Default)]
pub(crate) struct Table {
    taken: Mutex<HashSet<String>>,
    pub(crate) shared: Mutex<HashMap<String, Vec<u8>>>,
    pub(crate) down: AtomicBool,
}

impl Table {
    fn up(&self) -> Result<(), LockFault> {
        if self.down.load(Ordering::Relaxed) {
            Err(LockFault("the database is down".to_owned()))
        } else {
            Ok(())
        }
    }
}

impl OrderLock for Table {
    fn take(&self, name: &str, _lease: Duration) -> Waiting<'_, Result<Taken, LockFault>> {
        let taken = self.up().map(|()| {
            if self.taken.lock().unwrap().insert(name.to_owned()) { Taken::Ours } else { Taken::Theirs }
        });
        Box::pin(async { taken })
    }

    fn release(&self, name: &str) -> Waiting<'_, ()> {
        self.taken.lock().unwrap().remove(name);
        Box::pin(async {})
    }

    fn shared(&self, name: &str) -> Waiting<'_, Result<Option<Vec<u8>>, LockFault>> {
        let shared = self.up().map(|()| self.shared.lock().unwrap().get(name).cloned());
        Box::pin(async { shared })
    }

    fn share(&self, name: &str, sealed: Vec<u8>) -> Waiting<'_, Result<(), LockFault>> {
        let shared = self.up().map(|()| {
            self.shared.lock().unwrap().insert(name.to_owned(), sealed);
        });
        Box::pin(async { shared })
    }
}
