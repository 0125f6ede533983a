//! How often and how soon: rates over a window, growing waits, and spread without a clock.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::UnixSeconds;

/// So many at once, and then no more than at the pace of so many in so many seconds, as Let's Encrypt counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many at once, when none were for long; at least one.
    pub count: u32,
    /// How long it takes until as many are free again, in seconds; at least one.
    pub seconds: u32,
}

impl Rate {
    /// Three quarters of it, at the same pace: whoever keeps to this leaves the rest to others.
    pub(crate) fn most(self) -> Self {
        let part = |whole: u32| (whole / 4 * 3 + whole % 4 * 3 / 4).max(1);
        Self { count: part(self.count), seconds: part(self.seconds) }
    }

    /// As many costs as there may be at once.
    fn window_ms(self) -> i64 {
        self.cost_ms() * i64::from(self.count.max(1))
    }

    /// What one costs of the window, rounded up, so that the pace is never above the rate.
    fn cost_ms(self) -> i64 {
        let count = i64::from(self.count.max(1));
        (i64::from(self.seconds.max(1)) * 1000 + count - 1) / count
    }
}

/// How far a rate is used up, in one number: the time at which nothing of it is used any more.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Gauge {
    clear_at_ms: i64,
}

impl Gauge {
    /// When one more fits: now, or the second from which on it does.
    pub(crate) fn free_at(self, rate: Rate, now: UnixSeconds) -> UnixSeconds {
        let free_ms = self.clear_at_ms + rate.cost_ms() - rate.window_ms();
        now.max(UnixSeconds(free_ms.div_euclid(1000) + i64::from(free_ms.rem_euclid(1000) != 0)))
    }

    /// Counts one that happened at `at`; to be called in the order of time. Never more than the rate is
    /// counted: what happened beyond it is no reason to wait for longer than the rate's time.
    pub(crate) fn charge(&mut self, rate: Rate, at: UnixSeconds) {
        let at_ms = at.0.saturating_mul(1000);
        let clear_at_ms = self.clear_at_ms.max(at_ms).saturating_add(rate.cost_ms());
        self.clear_at_ms = clear_at_ms.min(at_ms.saturating_add(rate.window_ms()));
    }

    /// Takes back a [`Gauge::charge`] for what did not happen.
    pub(crate) fn refund(&mut self, rate: Rate) {
        self.clear_at_ms = self.clear_at_ms.saturating_sub(rate.cost_ms());
    }

    pub(crate) fn is_clear(self, now: UnixSeconds) -> bool {
        self.clear_at_ms <= now.0.saturating_mul(1000)
    }
}

/// A wait that doubles with each failure, up to a cap.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    pub(crate) first_seconds: i64,
    pub(crate) seconds_max: i64,
}

impl Backoff {
    /// The longest wait after so many failures in a row.
    pub(crate) fn seconds_of(self, failures: u32) -> i64 {
        let doublings = failures.saturating_sub(1).min(30);
        self.first_seconds.saturating_mul(1 << doublings).min(self.seconds_max)
    }

    /// The wait after so many failures in a row: the last quarter of it is left to chance, so that
    /// what failed together is not repeated together.
    pub(crate) fn seconds(self, failures: u32, chance: Chance) -> i64 {
        let whole = self.seconds_of(failures);
        whole - chance.below(whole / 4 + 1)
    }
}

/// A number that looks random, but is the same for the same seed and subject, so that a decision can
/// be repeated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn of(seed: u64, subject: impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        seed.hash(&mut hasher);
        subject.hash(&mut hasher);
        Self(hasher.finish())
    }

    /// From zero to one less than `bound`; zero when there is no room.
    pub(crate) fn below(self, bound: i64) -> i64 {
        if bound <= 0 { 0 } else { i64::try_from(self.0 % bound.unsigned_abs()).unwrap_or(0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_taken_at_once_and_then_at_its_pace() {
        for rate in
            [Rate { count: 5, seconds: 60 }, Rate { count: 7, seconds: 100 }, Rate { count: 300, seconds: 3 }]
        {
            let mut gauge = Gauge::default();
            let mut taken = Vec::new();
            for second in 1_000_000..1_000_500 {
                let now = UnixSeconds(second);
                while gauge.free_at(rate, now) == now {
                    gauge.charge(rate, now);
                    taken.push(second);
                }
            }
            let window = i64::from(rate.seconds);
            let total = i64::try_from(taken.len()).expect("few");
            let count = i64::from(rate.count);
            let expected = count + 499 * count / window;
            assert!((expected - 2..=expected).contains(&total), "{total} of {rate:?}");
            assert_eq!(taken.iter().filter(|&&second| second == 1_000_000).count(), rate.count as usize);
        }
    }

    #[test]
    fn a_full_gauge_says_when_it_is_free() {
        let rate = Rate { count: 2, seconds: 60 };
        let mut gauge = Gauge::default();
        gauge.charge(rate, UnixSeconds(100));
        gauge.charge(rate, UnixSeconds(100));
        assert_eq!(gauge.free_at(rate, UnixSeconds(101)), UnixSeconds(130));
        assert!(!gauge.is_clear(UnixSeconds(159)));
        assert!(gauge.is_clear(UnixSeconds(160)));
    }

    #[test]
    fn waits_double_up_to_their_cap_and_are_spread() {
        let backoff = Backoff { first_seconds: 120, seconds_max: 6 * 3600 };
        for failures in 1..100_u32 {
            let whole = (120_i64 << failures.min(20).saturating_sub(1)).min(6 * 3600);
            let waits: Vec<i64> =
                (0..50_u64).map(|seed| backoff.seconds(failures, Chance::of(seed, "a.example"))).collect();
            assert!(waits.iter().all(|wait| (whole - whole / 4..=whole).contains(wait)), "{waits:?}");
            assert!(waits.iter().any(|wait| wait != &waits[0]), "not spread: {waits:?}");
        }
        assert_eq!(Chance::of(1, "a").below(0), 0);
    }
}
