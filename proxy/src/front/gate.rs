//! Who may open a connection: the global cap and the cap per source.
//!
//! These are the only limits that can keep a known link from redirecting (design, P1); each refusal
//! is counted.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use crate::metrics::Refusal;
use crate::record::privacy;

const SHARDS: usize = 16;

/// The connections that are open, by source; shared by all data threads.
///
/// The locks are taken once when a connection opens and once when it ends, each for one step in a
/// map, never during I/O.
#[derive(Debug)]
pub struct Gate {
    open: AtomicUsize,
    open_max: AtomicUsize,
    per_source_max: AtomicU32,
    sources: [Mutex<HashMap<u64, u32>>; SHARDS],
}

impl Gate {
    /// A gate for at most `open_max` connections, `per_source_max` of them from one source.
    #[must_use]
    pub fn new(open_max: usize, per_source_max: u32) -> Arc<Self> {
        Arc::new(Self {
            open: AtomicUsize::new(0),
            open_max: AtomicUsize::new(open_max),
            per_source_max: AtomicU32::new(per_source_max),
            sources: Default::default(),
        })
    }

    /// Changes the caps; connections that are open stay.
    pub fn limit(&self, open_max: usize, per_source_max: u32) {
        self.open_max.store(open_max, Relaxed);
        self.per_source_max.store(per_source_max, Relaxed);
    }

    /// Lets a connection in; it counts as open until the pass is dropped.
    ///
    /// # Errors
    /// The cap that was reached.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Result<Pass, Refusal> {
        let mut pass = self.enter_unnamed()?;
        pass.name(address)?;
        Ok(pass)
    }

    /// The same for a connection whose source a load balancer has yet to name.
    ///
    /// # Errors
    /// The cap that was reached.
    pub fn enter_unnamed(self: &Arc<Self>) -> Result<Pass, Refusal> {
        if self.open.fetch_add(1, Relaxed) >= self.open_max.load(Relaxed) {
            self.open.fetch_sub(1, Relaxed);
            return Err(Refusal::ConnectionsMax);
        }
        Ok(Pass { gate: Arc::clone(self), source: None })
    }

    /// Connections open now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    fn shard(&self, source: u64) -> &Mutex<HashMap<u64, u32>> {
        &self.sources[(source.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60) as usize]
    }
}

/// One open connection.
#[derive(Debug)]
pub struct Pass {
    gate: Arc<Gate>,
    source: Option<u64>,
}

impl Pass {
    /// Says whose connection it is, once.
    ///
    /// # Errors
    /// The cap that was reached.
    pub fn name(&mut self, address: IpAddr) -> Result<(), Refusal> {
        debug_assert!(self.source.is_none(), "a connection has one source");
        let source = privacy::source(address);
        let mut shard = self.gate.shard(source).lock().unwrap_or_else(PoisonError::into_inner);
        let count = shard.entry(source).or_insert(0);
        if *count >= self.gate.per_source_max.load(Relaxed) {
            return Err(Refusal::ConnectionsPerSource);
        }
        *count += 1;
        self.source = Some(source);
        Ok(())
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.gate.open.fetch_sub(1, Relaxed);
        let Some(source) = self.source else { return };
        let mut shard = self.gate.shard(source).lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = shard.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                shard.remove(&source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caps_hold_and_free_themselves() {
        let gate = Gate::new(3, 2);
        let from = |last| IpAddr::from([192, 0, 2, last]);
        let first = gate.enter(from(1)).unwrap();
        let _second = gate.enter(from(1)).unwrap();
        assert_eq!(gate.enter(from(1)).unwrap_err(), Refusal::ConnectionsPerSource);
        let _third = gate.enter(from(2)).unwrap();
        assert_eq!(gate.enter(from(3)).unwrap_err(), Refusal::ConnectionsMax);
        drop(first);
        assert!(gate.enter(from(1)).is_ok());
    }

    #[test]
    fn a_source_that_left_costs_no_memory() {
        let gate = Gate::new(10, 10);
        for last in 0..=255 {
            drop(gate.enter(IpAddr::from([198, 51, 100, last])));
        }
        assert_eq!(gate.open(), 0);
        assert!(gate.sources.iter().all(|shard| shard.lock().unwrap().is_empty()));
    }
}
