//! Rates per source and per site for what unknown tokens may cost: records on disk, look-ups in the database.
//!
//! Invariants:
//! - Memory is bounded: the sources seen longest ago are forgotten first.
//! - No budget ever stands in the way of a known link.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use lru::LruCache;

use crate::event::UnixMillis;

/// Sources remembered in each of the shards; 16 shards of 4,096 are about 4 MiB.
const SOURCES_PER_SHARD: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");
const SHARDS: usize = 16;

/// A rate, and how much of it may be used at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// What a source that was silent may take at once.
    pub burst: f64,
    /// What comes back in a second.
    pub per_second: f64,
}

impl Rate {
    /// `count` in any minute, all of them at once when need be.
    #[must_use]
    pub fn per_minute(count: u32) -> Self {
        Self { burst: f64::from(count), per_second: f64::from(count) / 60.0 }
    }

    /// `count` a second, twice as many at once.
    #[must_use]
    pub fn per_second(count: u32) -> Self {
        Self { burst: 2.0 * f64::from(count), per_second: f64::from(count) }
    }
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: f64,
    at: UnixMillis,
}

impl Bucket {
    fn take(&mut self, rate: Rate, now: UnixMillis) -> bool {
        let gained = now.since(self.at).as_secs_f64() * rate.per_second;
        self.left = (self.left + gained).min(rate.burst);
        // A clock that jumped back starts the count anew from there, without a gift.
        self.at = now;
        if self.left < 1.0 {
            return false;
        }
        self.left -= 1.0;
        true
    }
}

/// A budget per key, for a bounded number of keys; shared by all data threads.
///
/// Only hits with unknown tokens come here, so the locks are off the way of a known click; each is
/// held for one look-up in memory.
#[derive(Debug)]
pub struct Budget {
    rate: Rate,
    shards: [Mutex<LruCache<u64, Bucket>>; SHARDS],
}

impl Budget {
    /// A budget of `rate` for each key.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        Self { rate, shards: std::array::from_fn(|_| Mutex::new(LruCache::new(SOURCES_PER_SHARD))) }
    }

    /// Takes one from the budget of `key`; false when it is spent.
    #[must_use]
    pub fn take(&self, key: u64, now: UnixMillis) -> bool {
        let mixed = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let shard = &self.shards[(mixed >> 60) as usize];
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = Bucket { left: self.rate.burst, at: now };
        shard.get_or_insert_mut(mixed, || fresh).take(self.rate, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spent_budget_comes_back_with_time_and_only_for_its_key() {
        let budget = Budget::new(Rate::per_minute(3));
        let taken = |key, at| budget.take(key, UnixMillis(at));
        assert_eq!([taken(1, 0), taken(1, 0), taken(1, 0), taken(1, 0)], [true, true, true, false]);
        assert!(taken(2, 0));
        assert!(!taken(1, 19_000));
        assert!(taken(1, 41_000));
    }

    #[test]
    fn a_clock_that_jumps_back_neither_panics_nor_refills() {
        let budget = Budget::new(Rate::per_minute(1));
        assert!(budget.take(7, UnixMillis(1_000_000)));
        assert!(!budget.take(7, UnixMillis(10)));
        assert!(budget.take(7, UnixMillis(70_000)));
    }

    #[test]
    fn many_sources_do_not_grow_memory() {
        let budget = Budget::new(Rate::per_minute(1));
        for key in 0..200_000 {
            let _ = budget.take(key, UnixMillis(0));
        }
        let kept: usize = budget.shards.iter().map(|shard| shard.lock().unwrap().len()).sum();
        assert!(kept <= SHARDS * SOURCES_PER_SHARD.get());
    }
}
