//! Decides whether a complete load may replace what is known (promise P9).
//!
//! Only links that still lead somewhere count: neither disabled nor deleted ones, nor such as were
//! over when they went missing, nor such as are known from a look-up only, for a load need not have
//! them.

use std::fmt;
use std::time::Duration;

/// The settings of P9.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long a link must be absent from every complete load before it is forgotten.
    pub forget_after: Duration,
    /// The greatest share of the known links that a load may drop, in millionths.
    pub drop_max_ppm: u32,
}

/// What a complete load did, as far as it can be counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows that the load brought.
    pub rows: u64,
    /// Rows that cannot become links.
    pub refused: u64,
    /// Rows whose token came again later in the load.
    pub duplicates: u64,
    /// Rows whose target was repaired.
    pub repaired: u64,
    /// Rows whose campaign was cut to its bound.
    pub campaigns_cut: u64,
    /// Links that were known and live before.
    pub known: u64,
    /// Of these, absent from this load for the first time; they stay known.
    pub newly_absent: u64,
    /// Of these, absent for so long that this load forgets them.
    pub forgotten: u64,
    /// Looked-up links that were dropped because there are too many.
    pub look_ups_dropped: u64,
}

/// What to do with a finished load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Publish it.
    Take,
    /// Keep the links as they are, alarm, and wait for somebody to accept it.
    Hold(Held),
}

/// Why a load is held, and what accepting it allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Links that were known and live before.
    pub known: u64,
    /// Of these, absent for the first time.
    pub newly_absent: u64,
    /// Of these, about to be forgotten.
    pub forgotten: u64,
    /// The setting that was exceeded.
    pub drop_max_ppm: u32,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { known, newly_absent, forgotten, drop_max_ppm } = self;
        let percent = f64::from(*drop_max_ppm) / 10_000.0;
        write!(
            f,
            "the load lacks {newly_absent} of {known} known links and would forget {forgotten}, \
             links.drop_max allows {percent} %"
        )
    }
}

/// Decides on a load that was counted as `counts`.
///
/// `accepted` is the held load that somebody accepted; it lets pass a load that drops no more links
/// than that one, beside the share which is allowed anyway.
#[must_use]
pub fn decide(counts: &Counts, settings: &Settings, accepted: Option<&Held>) -> Verdict {
    let allowed = allowed(counts.known, settings.drop_max_ppm);
    let within = |dropped: u64, accepted: u64| dropped <= accepted.saturating_add(allowed);
    let (absent, forgotten) = accepted.map_or((0, 0), |held| (held.newly_absent, held.forgotten));
    if within(counts.newly_absent, absent) && within(counts.forgotten, forgotten) {
        return Verdict::Take;
    }
    Verdict::Hold(Held {
        known: counts.known,
        newly_absent: counts.newly_absent,
        forgotten: counts.forgotten,
        drop_max_ppm: settings.drop_max_ppm,
    })
}

fn allowed(known: u64, drop_max_ppm: u32) -> u64 {
    let allowed = u128::from(known) * u128::from(drop_max_ppm) / 1_000_000;
    u64::try_from(allowed).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: Settings = Settings { forget_after: Duration::from_secs(1), drop_max_ppm: 10_000 };

    fn counts(known: u64, newly_absent: u64, forgotten: u64) -> Counts {
        Counts { known, newly_absent, forgotten, ..Counts::default() }
    }

    #[track_caller]
    fn check(counts: Counts, accepted: Option<&Held>, take: bool) {
        assert_eq!(decide(&counts, &SETTINGS, accepted) == Verdict::Take, take, "{counts:?}");
    }

    #[test]
    fn more_than_the_share_is_held() {
        check(counts(0, 0, 0), None, true);
        check(counts(1000, 10, 10), None, true);
        check(counts(1000, 11, 0), None, false);
        check(counts(1000, 0, 11), None, false);
        check(counts(99, 1, 0), None, false);
        check(counts(u64::MAX, u64::MAX, 0), None, false);
        let all = Settings { drop_max_ppm: 1_000_000, ..SETTINGS };
        assert_eq!(decide(&counts(10, 10, 10), &all, None), Verdict::Take);
    }

    #[test]
    fn accepting_allows_what_was_seen_and_not_much_worse() {
        let Verdict::Hold(held) = decide(&counts(1000, 500, 0), &SETTINGS, None) else { panic!() };
        check(counts(1000, 500, 0), Some(&held), true);
        check(counts(1000, 510, 10), Some(&held), true);
        check(counts(1000, 1000, 0), Some(&held), false);
        check(counts(1000, 500, 11), Some(&held), false);
        assert_eq!(
            held.to_string(),
            "the load lacks 500 of 1000 known links and would forget 0, links.drop_max allows 1 %"
        );
    }
}
