//! What each route answers: kind × what is known of the link × health, as one table.
//!
//! | kind | live | expired, disabled, deleted | absent, part up | absent, part not up | unasked |
//! |---|---|---|---|---|---|
//! | `click` | 302 | 410 page | 404 page | 503 page | 503 page |
//! | `open` | pixel | pixel | pixel | pixel | pixel |

use super::{Health, Part};
use crate::event::{Kind, Outcome, UnixMillis};
use crate::route::Manner;

/// What is known of the link that a token names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Known {
    /// The database was asked, now or a moment ago, and has no such link.
    Absent,
    /// There was such a link; it was deleted.
    Deleted,
    /// There is such a link; it is switched off.
    Disabled,
    /// There is such a link; its time is over.
    Expired,
    /// There is such a link.
    Live,
    /// No such link is known here, and the database was not asked or did not answer in time.
    Unasked,
}

impl Known {
    /// Every value.
    pub const ALL: &'static [Self] =
        &[Self::Absent, Self::Deleted, Self::Disabled, Self::Expired, Self::Live, Self::Unasked];
}

/// The answer to a request, and with it the outcome to record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Plan {
    /// 410: the page that says that this link is over.
    Gone(Outcome),
    /// 503: the maintenance page.
    Maintenance(Notice),
    /// 404, or as the route has it: the page for a link that nobody knows.
    NotFound,
    /// 200: the pixel.
    Pixel,
    /// 302, or as the route has it, to the link's target.
    Redirect,
}

impl Plan {
    /// What the hit is recorded as.
    #[must_use]
    pub const fn outcome(self) -> Outcome {
        match self {
            Self::Gone(outcome) => outcome,
            Self::Maintenance(_) => Outcome::Missed,
            Self::NotFound => Outcome::Unknown,
            Self::Pixel => Outcome::Shown,
            Self::Redirect => Outcome::Redirected,
        }
    }

    /// The answer's HTTP status on a route of this manner.
    #[must_use]
    pub const fn status(self, manner: Manner) -> u16 {
        match self {
            Self::Gone(_) => 410,
            Self::Maintenance(_) => 503,
            Self::NotFound => manner.unknown.status(),
            Self::Pixel => 200,
            Self::Redirect => manner.redirect.status(),
        }
    }
}

/// What the maintenance page announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Notice {
    /// A window, with its planned end.
    Planned {
        /// When the window ends.
        until: UnixMillis,
    },
    /// An outage that nobody planned.
    Unplanned,
}

impl Notice {
    /// When the page says that all is back; `None` when nobody knows, or that time has passed.
    #[must_use]
    pub fn back_at(self, now: UnixMillis) -> Option<UnixMillis> {
        match self {
            Self::Planned { until } if until > now => Some(until),
            Self::Planned { .. } | Self::Unplanned => None,
        }
    }

    /// The value of `Retry-After`: seconds to the window's end, rounded up, or `retry_after_s`
    /// where there is no end ahead.
    #[must_use]
    pub fn retry_after_s(self, now: UnixMillis, retry_after_s: u64) -> u64 {
        self.back_at(now).map_or(retry_after_s, |until| until.0.saturating_sub(now.0).div_ceil(1000))
    }

    const fn of(health: &Health) -> Self {
        match health {
            Health::Window { until, .. } => Self::Planned { until: *until },
            Health::Down { .. } | Health::Up => Self::Unplanned,
        }
    }
}

/// The part whose health decides the answer to this kind.
#[must_use]
pub const fn needs(kind: Kind) -> Part {
    match kind {
        Kind::Click | Kind::Open => Part::Database,
    }
}

/// Whether a link that is not known here is worth asking for. `needed` is the health of [`needs`].
///
/// An open is answered the same whatever its token is.
#[must_use]
pub const fn look_up(kind: Kind, needed: &Health) -> bool {
    match kind {
        Kind::Click => needed.is_up(),
        Kind::Open => false,
    }
}

/// The answer to a request. `needed` is the health of the part that [`needs`] names.
#[must_use]
pub const fn plan(kind: Kind, known: Known, needed: &Health) -> Plan {
    match (kind, known) {
        (Kind::Click, Known::Live) => Plan::Redirect,
        (Kind::Click, Known::Expired) => Plan::Gone(Outcome::Expired),
        (Kind::Click, Known::Disabled) => Plan::Gone(Outcome::Disabled),
        (Kind::Click, Known::Deleted) => Plan::Gone(Outcome::Deleted),
        // An absence may be a remembered one: only a database that is up can vouch for it.
        (Kind::Click, Known::Absent) if needed.is_up() => Plan::NotFound,
        // A link that nobody could ask for is never called unknown.
        (Kind::Click, Known::Absent | Known::Unasked) => Plan::Maintenance(Notice::of(needed)),
        (Kind::Open, _) => Plan::Pixel,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Cause;
    use super::*;
    use std::collections::HashSet;

    const END: UnixMillis = UnixMillis(10_000);

    fn healths() -> [Health; 3] {
        let window = Health::Window { until: END, reason: "move".into() };
        [Health::Up, Health::Down { since: UnixMillis(1), cause: Cause::Gone }, window]
    }

    // The table of the design's section 3, in its own words, for the kinds that there are.
    #[test]
    fn every_cell_of_the_table() {
        use Known::{Absent, Deleted, Disabled, Expired, Live, Unasked};
        let unplanned = Plan::Maintenance(Notice::Unplanned);
        let planned = Plan::Maintenance(Notice::Planned { until: END });
        let table = [
            //               up               down             window
            (Kind::Click, Live, [Plan::Redirect, Plan::Redirect, Plan::Redirect]),
            (Kind::Click, Expired, [Plan::Gone(Outcome::Expired); 3]),
            (Kind::Click, Disabled, [Plan::Gone(Outcome::Disabled); 3]),
            (Kind::Click, Deleted, [Plan::Gone(Outcome::Deleted); 3]),
            (Kind::Click, Absent, [Plan::NotFound, unplanned, planned]),
            (Kind::Click, Unasked, [unplanned, unplanned, planned]),
            (Kind::Open, Live, [Plan::Pixel; 3]),
            (Kind::Open, Expired, [Plan::Pixel; 3]),
            (Kind::Open, Disabled, [Plan::Pixel; 3]),
            (Kind::Open, Deleted, [Plan::Pixel; 3]),
            (Kind::Open, Absent, [Plan::Pixel; 3]),
            (Kind::Open, Unasked, [Plan::Pixel; 3]),
        ];
        for (kind, known, expected) in table {
            for (health, expected) in healths().iter().zip(expected) {
                assert_eq!(plan(kind, known, health), expected, "{kind}, {known:?}, {health:?}");
            }
        }
        let cells: HashSet<_> = table.iter().map(|(kind, known, _)| (*kind, *known)).collect();
        assert_eq!(cells.len(), Kind::ALL.len() * Known::ALL.len(), "a cell is missing");
    }

    #[test]
    fn answers_have_their_status_and_outcome() {
        let shown = |plan: Plan| (plan.status(Manner::default()), plan.outcome());
        assert_eq!(shown(Plan::Redirect), (302, Outcome::Redirected));
        assert_eq!(shown(Plan::Pixel), (200, Outcome::Shown));
        assert_eq!(shown(Plan::NotFound), (404, Outcome::Unknown));
        assert_eq!(shown(Plan::Gone(Outcome::Deleted)), (410, Outcome::Deleted));
        assert_eq!(shown(Plan::Maintenance(Notice::Unplanned)), (503, Outcome::Missed));
    }

    #[test]
    fn nobody_asks_a_database_that_is_away_nor_for_a_pixel() {
        for health in healths() {
            assert_eq!(look_up(Kind::Click, &health), health.is_up());
            assert!(!look_up(Kind::Open, &health));
        }
    }

    #[test]
    fn retry_after_counts_to_the_end_of_the_window() {
        let planned = Notice::Planned { until: END };
        let check = |notice: Notice, now, expected| {
            let now = UnixMillis(now);
            assert_eq!((notice.retry_after_s(now, 900), notice.back_at(now)), expected, "{now:?}");
        };
        check(planned, 0, (10, Some(END)));
        check(planned, 1, (10, Some(END)));
        check(planned, 9_999, (1, Some(END)));
        check(planned, 10_000, (900, None));
        check(planned, 90_000, (900, None));
        check(Notice::Unplanned, 0, (900, None));
    }
}
