//! The time of day, read here and in a few named shell files only; everything else takes `now`.

#![expect(clippy::disallowed_methods, reason = "this is the place where the clock is read")]

use std::time::{SystemTime, UNIX_EPOCH};

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
