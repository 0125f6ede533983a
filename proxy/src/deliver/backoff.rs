//! Waiting longer after each failure, and not all at the same moment.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);

/// The waits after failures in a row: doubling up to a cap, each cut by up to half at random.
#[derive(Debug)]
pub(super) struct Backoff {
    max: Duration,
    failures: u32,
    state: u64,
}

impl Backoff {
    pub(super) fn new(max: Duration, seed: u64) -> Self {
        Self { max, failures: 0, state: seed }
    }

    /// Sets another cap and begins anew.
    pub(super) fn limit(&mut self, max: Duration) {
        self.max = max;
        self.reset();
    }

    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    pub(super) fn next(&mut self) -> Duration {
        let whole = FIRST.saturating_mul(1 << self.failures.min(20)).min(self.max);
        self.failures = self.failures.saturating_add(1);
        let share = (self.random() >> 11) as f64 / (1_u64 << 53) as f64;
        whole.mul_f64(1.0 - share / 2.0)
    }

    /// SplitMix64.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_cap_and_differ() {
        let max = Duration::from_secs(3);
        let (mut one, mut two) = (Backoff::new(max, 1), Backoff::new(max, 2));
        let mut differed = false;
        for round in 0..40_u32 {
            let whole = FIRST.saturating_mul(1 << round.min(20)).min(max);
            let (a, b) = (one.next(), two.next());
            assert!(a <= whole && a >= whole / 2, "{a:?} of {whole:?}");
            differed |= a != b;
        }
        assert!(differed);
        one.reset();
        assert!(one.next() <= FIRST);
    }
}
