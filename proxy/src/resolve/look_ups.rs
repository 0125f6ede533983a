//! Looked-up links: the cache, misses included, and one bounded, coalesced look-up for the rest.
//!
//! Invariants:
//! - A token is looked up by one request at a time; the others wait for its answer.
//! - At most `in_flight_max` look-ups are under way, and nobody waits longer than `deadline`.
//! - After one that took longer nobody waits at all, until the database has answered one. Meanwhile one
//!   at a time is asked all the same, to learn when it does.
//! - Nothing is looked up while the caller says that the database may not be asked.
//! - Memory is bounded: `entries` links and misses, the least recently used go first.
//! - A remembered miss ends after `miss_ttl`, and at once when the link arrives by another way.
//!
//! The data threads share one cache: a link that one of them looked up is known to all, and a miss
//! is purged once. Only tokens that the table does not know come here.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lru::LruCache;
use tokio::sync::oneshot;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::event::UnixMillis;
use crate::links::entry::Entry;
use crate::links::namespaces::NamespaceId;
use crate::metrics::LookUp;

const SHARDS: usize = 16;

/// Bounds of the cache and of the look-ups.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Links and misses kept, over all shards.
    pub entries: usize,
    /// How long a miss is remembered.
    pub miss_ttl: Duration,
    /// The longest wait of one request.
    pub deadline: Duration,
    /// Look-ups under way at once.
    pub in_flight_max: usize,
}

/// A token in its namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The namespace.
    pub namespace: NamespaceId,
    /// The token's bytes.
    pub token: Box<[u8]>,
}

/// What a look-up brought.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The link, or its tombstone.
    Found(Arc<Entry>),
    /// The database does not know the token.
    Absent,
    /// The database could not be asked, or not in time.
    Unasked(LookUp),
}

/// What the cache says of a token.
#[derive(Clone, Debug)]
pub enum Cached {
    /// The link was looked up before.
    Found(Arc<Entry>),
    /// The database did not know it a moment ago.
    Absent,
    /// Nothing.
    Nothing,
}

/// The cache and the look-ups under way; shared by all data threads and the look-up thread.
#[derive(Debug)]
pub struct LookUps {
    config: Config,
    seed: u64,
    // Off the way of a known click. Each lock is held for one step in a map, never during a look-up.
    shards: [Mutex<Shard>; SHARDS],
    in_flight: AtomicUsize,
    /// A deadline passed, and the database has answered nothing since.
    hangs: AtomicBool,
    asks: SyncSender<Key>,
}

#[derive(Debug)]
struct Shard {
    cache: LruCache<Key, Remembered>,
    waiting: HashMap<Key, Vec<oneshot::Sender<Answer>>>,
}

#[derive(Clone, Debug)]
enum Remembered {
    Found(Arc<Entry>),
    Absent { until: UnixMillis },
}

impl LookUps {
    /// An empty cache and the queue that the look-up thread serves; `seed` spreads the shards.
    #[must_use]
    pub fn new(config: Config, seed: u64) -> (Arc<Self>, Receiver<Key>) {
        let (asks, queue) = sync_channel(config.in_flight_max.max(1));
        let per_shard = NonZeroUsize::new(config.entries / SHARDS).unwrap_or(NonZeroUsize::MIN);
        let shards = std::array::from_fn(|_| {
            Mutex::new(Shard { cache: LruCache::new(per_shard), waiting: HashMap::new() })
        });
        let look_ups = Self {
            config,
            seed,
            shards,
            in_flight: AtomicUsize::new(0),
            hangs: AtomicBool::new(false),
            asks,
        };
        (Arc::new(look_ups), queue)
    }

    /// What is remembered of `key` at `now`.
    #[must_use]
    pub fn cached(&self, key: &Key, now: UnixMillis) -> Cached {
        let mut shard = self.shard(key);
        match shard.cache.get(key) {
            Some(Remembered::Found(entry)) => Cached::Found(Arc::clone(entry)),
            Some(Remembered::Absent { until }) if now < *until => Cached::Absent,
            Some(Remembered::Absent { .. }) => {
                shard.cache.pop(key);
                Cached::Nothing
            }
            None => Cached::Nothing,
        }
    }

    /// Looks `key` up in the database, together with whoever else wants it now.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the wait; the look-up's answer is remembered all the same.
    pub async fn ask(&self, key: Key) -> Answer {
        if self.hangs() {
            self.ask_unawaited(key);
            return Answer::Unasked(LookUp::Late);
        }
        let (answer, wait) = oneshot::channel();
        {
            let mut shard = self.shard(&key);
            if let Some(others) = shard.waiting.get_mut(&key) {
                others.push(answer);
            } else {
                if self.in_flight.fetch_add(1, Relaxed) >= self.config.in_flight_max {
                    self.in_flight.fetch_sub(1, Relaxed);
                    return Answer::Unasked(LookUp::Busy);
                }
                if self.asks.try_send(key.clone()).is_err() {
                    self.in_flight.fetch_sub(1, Relaxed);
                    return Answer::Unasked(LookUp::Busy);
                }
                shard.waiting.insert(key.clone(), vec![answer]);
            }
        }
        match tokio::time::timeout(self.config.deadline, wait).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Answer::Unasked(LookUp::Failed),
            Err(_) => {
                let shard = self.shard(&key);
                // Under the lock: an answer that has come by now has taken the key away, and one
                // that comes later says again that the database answers.
                if shard.waiting.contains_key(&key) {
                    self.hangs.store(true, Relaxed);
                }
                Answer::Unasked(LookUp::Late)
            }
        }
    }

    /// Asks whether the database answers again, unless somebody does already; nobody waits for it.
    fn ask_unawaited(&self, key: Key) {
        if self.in_flight.compare_exchange(0, 1, Relaxed, Relaxed).is_ok() {
            let mut shard = self.shard(&key);
            match self.asks.try_send(key.clone()) {
                Ok(()) => drop(shard.waiting.insert(key, Vec::new())),
                Err(_) => drop(self.in_flight.fetch_sub(1, Relaxed)),
            }
        }
    }

    /// Nobody may ask for the present, so what was silent is asked anew afterwards.
    pub fn barred(&self) {
        self.hangs.store(false, Relaxed);
    }

    /// Whether a look-up took longer than anybody waits, and the database has not answered since.
    #[must_use]
    pub fn hangs(&self) -> bool {
        self.hangs.load(Relaxed)
    }

    /// Gives the answer to all who wait for `key` and remembers it; called by the look-up thread.
    pub fn answer(&self, key: &Key, answer: &Answer, now: UnixMillis) {
        let waiting = {
            let mut shard = self.shard(key);
            match answer {
                Answer::Found(entry) => self.remember(&mut shard, key, Remembered::Found(Arc::clone(entry))),
                Answer::Absent => {
                    self.remember(
                        &mut shard,
                        key,
                        Remembered::Absent { until: now.after(self.config.miss_ttl) },
                    );
                }
                Answer::Unasked(_) => {}
            }
            shard.waiting.remove(key)
        };
        self.in_flight.fetch_sub(1, Relaxed);
        // One that failed after everybody had gone is as silent as before.
        if !matches!(answer, Answer::Unasked(_)) {
            self.hangs.store(false, Relaxed);
        }
        for one in waiting.into_iter().flatten() {
            // Whoever gave up waiting is no fault.
            let _ = one.send(answer.clone());
        }
    }

    /// Forgets what is remembered of `key`: a change brought something newer.
    pub fn forget(&self, key: &Key) {
        self.shard(key).cache.pop(key);
    }

    /// Forgets all misses and links: the database is another one.
    pub fn forget_all(&self) {
        for shard in &self.shards {
            shard.lock().unwrap_or_else(PoisonError::into_inner).cache.clear();
        }
    }

    /// Links and misses remembered.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).cache.len()).sum()
    }

    fn remember(&self, shard: &mut Shard, key: &Key, what: Remembered) {
        shard.cache.put(key.clone(), what);
    }

    fn shard(&self, key: &Key) -> std::sync::MutexGuard<'_, Shard> {
        let hash = xxh3_64_with_seed(&key.token, self.seed);
        self.shards[(hash >> 60) as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::links::namespaces::Namespaces;
    use crate::links::{Origin, Row, State};

    fn config() -> Config {
        Config {
            entries: 64,
            miss_ttl: Duration::from_secs(5),
            deadline: Duration::from_secs(5),
            in_flight_max: 2,
        }
    }

    fn key(token: &str) -> Key {
        let namespace = Namespaces::default().intern(b"n").unwrap();
        Key { namespace, token: token.as_bytes().into() }
    }

    fn found() -> Answer {
        let row = Row {
            namespace: b"n",
            token: b"t",
            url: "https://example.com/",
            campaign: b"",
            append: true,
            expires_at: None,
            state: State::Live,
        };
        Answer::Found(Arc::new(Entry::approve(&row, Origin::LookUp).unwrap()))
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
    }

    #[test]
    fn those_who_want_the_same_wait_for_one_look_up() {
        let (look_ups, queue) = LookUps::new(config(), 1);
        block_on(async {
            let answering = async {
                let asked = queue.try_recv().unwrap();
                assert_eq!(asked, key("t"));
                assert!(queue.try_recv().is_err(), "the second one waits for the first");
                look_ups.answer(&asked, &found(), UnixMillis(0));
            };
            let (first, second, ()) = tokio::join!(look_ups.ask(key("t")), look_ups.ask(key("t")), answering);
            assert!(matches!((first, second), (Answer::Found(_), Answer::Found(_))));
        });
        assert!(matches!(look_ups.cached(&key("t"), UnixMillis(0)), Cached::Found(_)));
    }

    #[test]
    fn look_ups_under_way_are_bounded() {
        let (look_ups, queue) = LookUps::new(config(), 1);
        block_on(async {
            let answering = async {
                while let Ok(asked) = queue.try_recv() {
                    look_ups.answer(&asked, &Answer::Absent, UnixMillis(0));
                }
            };
            let (a, b, c, ()) = tokio::join!(
                look_ups.ask(key("a")),
                look_ups.ask(key("b")),
                look_ups.ask(key("c")),
                answering
            );
            assert!(matches!((a, b), (Answer::Absent, Answer::Absent)));
            assert!(matches!(c, Answer::Unasked(LookUp::Busy)));
            let (d, ()) = tokio::join!(look_ups.ask(key("d")), async {
                let asked = queue.try_recv().unwrap();
                look_ups.answer(&asked, &Answer::Absent, UnixMillis(0));
            });
            assert!(matches!(d, Answer::Absent), "places come back");
        });
    }

    #[test]
    fn a_database_that_hangs_costs_the_deadline() {
        let slow = Config { deadline: Duration::from_millis(10), ..config() };
        let (look_ups, queue) = LookUps::new(slow, 1);
        assert!(matches!(block_on(look_ups.ask(key("t"))), Answer::Unasked(LookUp::Late)));
        // From then on nobody waits, whatever is asked for, and nothing is queued.
        assert!(matches!(block_on(look_ups.ask(key("u"))), Answer::Unasked(LookUp::Late)));
        assert_eq!(queue.try_iter().collect::<Vec<_>>(), [key("t")]);
        look_ups.answer(&key("t"), &Answer::Absent, UnixMillis(0));
        assert!(!look_ups.hangs(), "it answers again");
    }

    /// A server that hung let a reader wait anew whenever its last look-up ran into its timeout.
    #[test]
    fn a_look_up_that_fails_after_the_deadline_lets_nobody_wait_again() {
        let slow = Config { deadline: Duration::from_millis(10), ..config() };
        let (look_ups, queue) = LookUps::new(slow, 1);
        assert!(matches!(block_on(look_ups.ask(key("t"))), Answer::Unasked(LookUp::Late)));
        assert_eq!(queue.try_iter().collect::<Vec<_>>(), [key("t")]);
        look_ups.answer(&key("t"), &Answer::Unasked(LookUp::Failed), UnixMillis(0));
        assert!(look_ups.hangs());
        // The next ones ask, one at a time, and wait for nothing.
        for token in ["u", "v"] {
            assert!(matches!(block_on(look_ups.ask(key(token))), Answer::Unasked(LookUp::Late)));
        }
        assert_eq!(queue.try_iter().collect::<Vec<_>>(), [key("u")]);
        look_ups.answer(&key("u"), &Answer::Unasked(LookUp::Failed), UnixMillis(0));
        assert!(look_ups.hangs());
        look_ups.barred();
        assert!(!look_ups.hangs(), "known as down, and asked anew when it is up");
    }

    #[test]
    fn misses_end_with_time_and_when_the_link_arrives() {
        let (look_ups, _queue) = LookUps::new(config(), 1);
        let remember = |at| {
            look_ups.in_flight.fetch_add(1, Relaxed);
            look_ups.answer(&key("t"), &Answer::Absent, UnixMillis(at));
        };
        remember(0);
        assert!(matches!(look_ups.cached(&key("t"), UnixMillis(4_999)), Cached::Absent));
        assert!(matches!(look_ups.cached(&key("t"), UnixMillis(5_000)), Cached::Nothing));
        remember(5_000);
        look_ups.forget(&key("t"));
        assert!(matches!(look_ups.cached(&key("t"), UnixMillis(5_001)), Cached::Nothing));
    }

    #[test]
    fn guessing_does_not_grow_memory() {
        let (look_ups, _queue) = LookUps::new(config(), 1);
        for n in 0..10_000 {
            look_ups.in_flight.fetch_add(1, Relaxed);
            look_ups.answer(&key(&n.to_string()), &Answer::Absent, UnixMillis(0));
        }
        assert!(look_ups.remembered() <= 64);
    }
}
