//! Which captures of a path name the link, and their bytes as one token.

use std::fmt;

use super::pattern::{Pattern, Values};

/// What stands between the captures of a token that is made up of several.
const JOIN: &[u8] = b"-";
/// The capture that is the token when a route does not say otherwise.
const NAME: &str = "token";

/// The captures that make up a route's token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// Captures that do not follow each other in the path with [`JOIN`] between them: copied together.
    Joined(Box<[usize]>),
    /// The path's own bytes from the first of these captures to the last: borrowed.
    Slice { first: usize, last: usize },
}

impl Token {
    pub(super) fn new(names: &[String], pattern: &Pattern) -> Result<Self, TokenFault> {
        if names.is_empty() {
            let only = pattern.index(NAME).ok_or(TokenFault::Missing)?;
            return Ok(Self::Slice { first: only, last: only });
        }
        let mut places = Vec::with_capacity(names.len());
        for name in names {
            let place = pattern.index(name).ok_or_else(|| TokenFault::Unknown(name.clone()))?;
            if places.contains(&place) {
                return Err(TokenFault::Twice(name.clone()));
            }
            places.push(place);
        }
        let neighbours = places
            .windows(2)
            .all(|pair| matches!(*pair, [a, b] if b == a + 1 && pattern.literal_after(a) == JOIN));
        match (places.first(), places.last()) {
            (Some(&first), Some(&last)) if neighbours => Ok(Self::Slice { first, last }),
            _ => Ok(Self::Joined(places.into())),
        }
    }

    /// The token in a path that the pattern matched.
    pub(super) fn of<'p>(&self, values: &Values<'p>, scratch: &'p mut Vec<u8>) -> &'p [u8] {
        match self {
            Self::Slice { first, last } => values.through(*first, *last),
            Self::Joined(places) => {
                scratch.clear();
                for (nth, &place) in places.iter().enumerate() {
                    if nth > 0 {
                        scratch.extend_from_slice(JOIN);
                    }
                    scratch.extend_from_slice(values.at(place));
                }
                scratch
            }
        }
    }
}

/// Why a route's `token` is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenFault {
    /// No capture is named and the path has none called `token`.
    Missing,
    /// A capture is named twice.
    Twice(String),
    /// The path has no capture of this name.
    Unknown(String),
}

impl fmt::Display for TokenFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("the path has no capture {token} and token names no other"),
            Self::Twice(name) => write!(f, "token names the capture `{name}` twice"),
            Self::Unknown(name) => write!(f, "token names `{name}`, which the path does not capture"),
        }
    }
}

impl std::error::Error for TokenFault {}
