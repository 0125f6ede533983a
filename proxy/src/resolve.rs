//! Route → target: what a token leads to, from memory first, from the database once if it may be asked.
//!
//! The order is table with overlay, then the cache of looked-up links, then one bounded look-up.
//! Signed tokens, when they come, stand between the first two.
//!
//! It does not decide what an answer is: that is `policy`'s.

pub mod look_ups;

use crate::clock::Expiry;
use crate::event::UnixMillis;
use crate::links::{Found, Link};
use crate::policy::Known;

/// What is known of a token at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution<'a> {
    /// It leads somewhere.
    Live(Link<'a>),
    /// Its time is over.
    Expired,
    /// It is switched off.
    Disabled,
    /// It was deleted.
    Deleted,
    /// The database was asked and does not know it.
    Absent,
    /// Memory does not know it and the database could not be asked.
    Unasked,
}

impl<'a> Resolution<'a> {
    /// What was found, at the time `now`.
    #[must_use]
    pub fn of(found: Found<'a>, now: UnixMillis, expiry: Expiry) -> Self {
        match found {
            Found::Deleted => Self::Deleted,
            Found::Disabled => Self::Disabled,
            Found::Live(link) => match link.expires_at {
                Some(end) if end <= now && expiry == Expiry::Counts => Self::Expired,
                _ => Self::Live(link),
            },
        }
    }

    /// The link's campaign; empty when it has none or is not known.
    #[must_use]
    pub fn campaign(&self) -> &'a [u8] {
        match self {
            Self::Live(link) => link.campaign,
            _ => b"",
        }
    }

    /// Whether the token is one that somebody made, so that its hit is always recorded.
    #[must_use]
    pub fn is_known(&self) -> bool {
        !matches!(self, Self::Absent | Self::Unasked)
    }

    /// The same for `policy`, which has no use for the link itself.
    #[must_use]
    pub fn known(&self) -> Known {
        match self {
            Self::Live(_) => Known::Live,
            Self::Expired => Known::Expired,
            Self::Disabled => Known::Disabled,
            Self::Deleted => Known::Deleted,
            Self::Absent => Known::Absent,
            Self::Unasked => Known::Unasked,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::links::target::approve;

    #[test]
    fn a_link_ends_at_its_time_by_a_clock_that_can_be_trusted() {
        let approved = approve("https://www.example.com/").expect("is a good target");
        let end = UnixMillis(1_000);
        let link = Link { target: approved.target(), campaign: b"", append: false, expires_at: Some(end) };
        let of = |now: u64, expiry| Resolution::of(Found::Live(link), UnixMillis(now), expiry);
        assert_eq!(of(999, Expiry::Counts), Resolution::Live(link));
        assert_eq!(of(1_000, Expiry::Counts), Resolution::Expired);
        assert_eq!(of(1_000, Expiry::Ignored), Resolution::Live(link), "a wrong clock ends no links");
        assert_eq!(
            Resolution::of(Found::Disabled, UnixMillis(0), Expiry::Ignored),
            Resolution::Disabled,
            "what somebody switched off stays off"
        );
    }
}
