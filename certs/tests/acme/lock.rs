//! What several edges share, in memory: who orders a name, and what was issued for it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use certs::acme::{LockFault, OrderLock, Taken, Waiting};

/// Leases end when a test says so.
#[derive(Default)]
pub(crate) struct Table {
    taken: Mutex<HashMap<String, &'static str>>,
    pub(crate) shared: Mutex<HashMap<String, Vec<u8>>>,
    pub(crate) down: AtomicBool,
}

/// The table as one edge has it.
struct Handle {
    table: Arc<Table>,
    edge: &'static str,
}

impl Table {
    pub(crate) fn of(self: &Arc<Self>, edge: &'static str) -> Arc<dyn OrderLock> {
        Arc::new(Handle { table: Arc::clone(self), edge })
    }

    pub(crate) fn end_lease(&self, name: &str) {
        self.taken.lock().unwrap().remove(name).expect("a name that is taken");
    }

    fn up(&self) -> Result<(), LockFault> {
        if self.down.load(Ordering::Relaxed) {
            Err(LockFault("the database is down".to_owned()))
        } else {
            Ok(())
        }
    }
}

impl OrderLock for Handle {
    fn take(&self, name: &str, _lease: Duration) -> Waiting<'_, Result<Taken, LockFault>> {
        let taken = self.table.up().map(|()| {
            let mut taken = self.table.taken.lock().unwrap();
            let owner = *taken.entry(name.to_owned()).or_insert(self.edge);
            if owner == self.edge { Taken::Ours } else { Taken::Theirs }
        });
        Box::pin(async { taken })
    }

    fn release(&self, name: &str) -> Waiting<'_, ()> {
        self.table.taken.lock().unwrap().remove(name);
        Box::pin(async {})
    }

    fn shared(&self, name: &str) -> Waiting<'_, Result<Option<Vec<u8>>, LockFault>> {
        let shared = self.table.up().map(|()| self.table.shared.lock().unwrap().get(name).cloned());
        Box::pin(async { shared })
    }

    fn share(&self, name: &str, sealed: Vec<u8>) -> Waiting<'_, Result<(), LockFault>> {
        let shared = self.table.up().map(|()| {
            self.table.shared.lock().unwrap().insert(name.to_owned(), sealed);
        });
        Box::pin(async { shared })
    }
}
