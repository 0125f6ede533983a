//! The time of day, read here and in a few named shell files only; everything else takes `now`.

#![expect(clippy::disallowed_methods, reason = "this is the place where the clock is read")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::event::UnixMillis;

/// Now, by the system's clock, which may jump; before 1970 it reads zero.
#[must_use]
pub fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Whether a link's time may end it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// The clock can be trusted.
    Counts,
    /// The clock is behind the table's own time: a wrong clock must not end links.
    Ignored,
}

/// A clock that is set a little now and then is no fault.
const TOLERANCE: Duration = Duration::from_secs(5);

impl Expiry {
    /// By a clock that says `now` beside a table that was made at `made_at`.
    #[must_use]
    pub fn beside(now: UnixMillis, made_at: UnixMillis) -> Self {
        if now.after(TOLERANCE) < made_at { Self::Ignored } else { Self::Counts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_behind_the_table_ends_no_links() {
        let made_at = UnixMillis(1_700_000_000_000);
        let back = |by: u64| UnixMillis(made_at.0 - by);
        assert_eq!(Expiry::beside(made_at, made_at), Expiry::Counts);
        assert_eq!(Expiry::beside(back(5_000), made_at), Expiry::Counts);
        assert_eq!(Expiry::beside(back(5_001), made_at), Expiry::Ignored);
        assert_eq!(Expiry::beside(UnixMillis(0), made_at), Expiry::Ignored);
        assert_eq!(Expiry::beside(UnixMillis(0), UnixMillis(0)), Expiry::Counts, "there is no table yet");
    }
}
