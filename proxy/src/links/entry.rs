//! One link on its own, as the overlay and the cache of looked-up links hold it.

use std::fmt;

use super::target::{self, Approved, approve};
use super::{CAMPAIGN_BYTES_MAX, Found, Link, Origin, Row, State, TOKEN_BYTES_MAX, namespaces};
use crate::event::UnixMillis;

/// An approved link with its origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    origin: Origin,
    content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    Deleted,
    Disabled,
    Live(Box<Live>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Live {
    target: Approved,
    campaign: Box<[u8]>,
    append: bool,
    expires_at: Option<UnixMillis>,
}

impl Entry {
    /// Checks a row that a change, a look-up or `links.log` brought.
    ///
    /// # Errors
    /// [`Reason`] says what is wrong with the row; what was known of the token before stays valid.
    pub fn approve(row: &Row<'_>, origin: Origin) -> Result<Self, Reason> {
        check_token(row.token)?;
        let content = match row.state {
            State::Deleted => Content::Deleted,
            State::Disabled => Content::Disabled,
            State::Live => Content::Live(Box::new(Live {
                target: approve(row.url).map_err(Reason::Target)?,
                campaign: kept_campaign(row.campaign).into(),
                append: row.append,
                expires_at: row.expires_at,
            })),
        };
        Ok(Self { origin, content })
    }

    /// How the link came to be known.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// What is known of the token.
    #[must_use]
    pub fn found(&self) -> Found<'_> {
        match &self.content {
            Content::Deleted => Found::Deleted,
            Content::Disabled => Found::Disabled,
            Content::Live(live) => Found::Live(Link {
                target: live.target.target(),
                campaign: &live.campaign,
                append: live.append,
                expires_at: live.expires_at,
            }),
        }
    }

    /// The row that this entry is written to `links.log` as.
    #[must_use]
    pub fn row<'a>(&'a self, namespace: &'a [u8], token: &'a [u8]) -> Row<'a> {
        let bare =
            |state| Row { namespace, token, url: "", campaign: b"", append: false, expires_at: None, state };
        match &self.content {
            Content::Deleted => bare(State::Deleted),
            Content::Disabled => bare(State::Disabled),
            Content::Live(live) => Row {
                url: live.target.as_str(),
                campaign: &live.campaign,
                append: live.append,
                expires_at: live.expires_at,
                ..bare(State::Live)
            },
        }
    }

    /// The entry's own memory in bytes.
    pub(super) fn bytes(&self) -> usize {
        let live = match &self.content {
            Content::Deleted | Content::Disabled => 0,
            Content::Live(live) => size_of::<Live>() + live.target.as_str().len() + live.campaign.len(),
        };
        size_of::<Self>() + live
    }
}

/// Why a row cannot become a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Its namespace gets no number.
    Namespace(namespaces::Fault),
    /// Its URL cannot be a target.
    Target(target::Refused),
    /// Its token is empty.
    TokenEmpty,
    /// Its token is longer than [`TOKEN_BYTES_MAX`].
    TokenTooLong {
        /// The token's length.
        bytes: usize,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespace(fault) => fault.fmt(f),
            Self::Target(refused) => refused.fmt(f),
            Self::TokenEmpty => f.write_str("token is empty"),
            Self::TokenTooLong { bytes } => {
                write!(f, "token has {bytes} bytes, at most {TOKEN_BYTES_MAX} are allowed")
            }
        }
    }
}

impl std::error::Error for Reason {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            // The message is the cause's own, so the chain goes on behind it.
            Self::Namespace(fault) => std::error::Error::source(fault),
            Self::Target(refused) => std::error::Error::source(refused),
            Self::TokenEmpty | Self::TokenTooLong { .. } => None,
        }
    }
}

pub(super) fn check_token(token: &[u8]) -> Result<(), Reason> {
    match token.len() {
        0 => Err(Reason::TokenEmpty),
        bytes if bytes > TOKEN_BYTES_MAX => Err(Reason::TokenTooLong { bytes }),
        _ => Ok(()),
    }
}

/// A long campaign costs the link its campaign's end, not its life.
pub(super) fn kept_campaign(campaign: &[u8]) -> &[u8] {
    campaign.get(..CAMPAIGN_BYTES_MAX).unwrap_or(campaign)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row<'static> {
        Row {
            namespace: b"n",
            token: b"t",
            url: "https://example.com/a b",
            campaign: b"spring",
            append: true,
            expires_at: Some(UnixMillis(7)),
            state: State::Live,
        }
    }

    #[test]
    fn an_entry_finds_and_writes_what_was_approved() {
        let entry = Entry::approve(&row(), Origin::LookUp).unwrap();
        let Found::Live(link) = entry.found() else { panic!("{entry:?}") };
        assert_eq!(link.target.as_bytes(), b"https://example.com/a%20b");
        assert_eq!(
            (link.campaign, link.append, link.expires_at),
            (&b"spring"[..], true, Some(UnixMillis(7)))
        );
        assert_eq!(entry.row(b"n", b"t"), Row { url: "https://example.com/a%20b", ..row() });
        let again = Entry::approve(&entry.row(b"n", b"t"), Origin::LookUp).unwrap();
        assert_eq!((again.found(), again.origin()), (entry.found(), Origin::LookUp));
    }

    #[test]
    fn a_tombstone_needs_no_target() {
        let gone = Row { url: "javascript:", state: State::Deleted, ..row() };
        assert_eq!(Entry::approve(&gone, Origin::Change).unwrap().found(), Found::Deleted);
        let off = Row { url: "", state: State::Disabled, ..row() };
        assert_eq!(Entry::approve(&off, Origin::Change).unwrap().found(), Found::Disabled);
    }

    #[test]
    fn rows_out_of_bounds_are_refused_or_cut() {
        let check = |row: Row<'_>, expected| assert_eq!(Entry::approve(&row, Origin::Change), Err(expected));
        check(Row { token: b"", ..row() }, Reason::TokenEmpty);
        let long = vec![b'x'; TOKEN_BYTES_MAX + 1];
        check(Row { token: &long, ..row() }, Reason::TokenTooLong { bytes: long.len() });
        check(Row { url: "ftp://x/", ..row() }, Reason::Target(target::Refused::Scheme));
        let entry = Entry::approve(&Row { campaign: &long, ..row() }, Origin::Change).unwrap();
        assert_eq!(entry.row(b"n", b"t").campaign.len(), CAMPAIGN_BYTES_MAX);
    }
}
