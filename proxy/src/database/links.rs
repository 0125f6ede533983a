//! What a database gives and takes of links: the words that all kinds of databases share.

use crate::event::UnixMillis;

/// A moment of the database's own clock of changes; see [`super::Database::changes`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Watermark(pub i64);

/// One link as it stands in the database, borrowed for one call.
///
/// A text that is no UTF-8 is given as an empty one: an empty URL passes no approval, so such a
/// link is listed as refused instead of failing the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkRow<'a> {
    /// The namespace's bytes.
    pub namespace: &'a [u8],
    /// The token's bytes, as they stand in the path of a request.
    pub token: &'a [u8],
    /// The target as somebody wrote it, not yet approved.
    pub url: &'a str,
    /// The campaign, or nothing.
    pub campaign: &'a str,
    /// Whether the route's `append` applies.
    pub append: bool,
    /// From when on the link is over.
    pub expires_at: Option<UnixMillis>,
    /// Whether it is switched off.
    pub disabled: bool,
    /// Whether this is the tombstone of a deleted link.
    pub deleted: bool,
}

/// As [`LinkRow`], owned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnedLinkRow {
    /// The namespace's bytes.
    pub namespace: Vec<u8>,
    /// The token's bytes.
    pub token: Vec<u8>,
    /// The target.
    pub url: String,
    /// The campaign, or nothing.
    pub campaign: String,
    /// Whether the route's `append` applies.
    pub append: bool,
    /// From when on the link is over.
    pub expires_at: Option<UnixMillis>,
    /// Whether it is switched off.
    pub disabled: bool,
    /// Whether it is a tombstone.
    pub deleted: bool,
}

impl OwnedLinkRow {
    /// The same, borrowed.
    #[must_use]
    pub fn as_row(&self) -> LinkRow<'_> {
        LinkRow {
            namespace: &self.namespace,
            token: &self.token,
            url: &self.url,
            campaign: &self.campaign,
            append: self.append,
            expires_at: self.expires_at,
            disabled: self.disabled,
            deleted: self.deleted,
        }
    }
}

impl From<LinkRow<'_>> for OwnedLinkRow {
    fn from(row: LinkRow<'_>) -> Self {
        Self {
            namespace: row.namespace.into(),
            token: row.token.into(),
            url: row.url.into(),
            campaign: row.campaign.into(),
            append: row.append,
            expires_at: row.expires_at,
            disabled: row.disabled,
            deleted: row.deleted,
        }
    }
}

/// What a callback returns to end a load early; the load then fails with [`super::Error::Stopped`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop;

/// A complete load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// How many rows were given, tombstones included.
    pub rows: u64,
    /// From here on [`super::Database::changes`] gives what this load has not seen.
    pub watermark: Watermark,
}

/// What [`super::Database::changes`] gave.
#[derive(Debug)]
pub struct Changes {
    /// Where to go on. Below where this began, it says that the database knows less than was seen
    /// before: it is an older copy, and only a complete load tells what it holds.
    pub next: Watermark,
    /// Whether there was more than was asked for: ask again at once.
    pub more: bool,
    /// Whether there was so much that nothing was given: only a complete load tells what changed.
    pub reload: bool,
    /// Why a platform's statement gave nothing, where the database is well but for its tables.
    pub unfit: Option<super::Error>,
}

impl Changes {
    /// Everything up to a watermark was given.
    pub(super) fn up_to(next: Watermark) -> Self {
        Self { next, more: false, reload: false, unfit: None }
    }
}

/// What became of one chunk of an import.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImportedChunk {
    /// Links that were new.
    pub inserted: u64,
    /// Links that were different.
    pub updated: u64,
    /// Links that stood there just so.
    pub unchanged: u64,
}

/// A callback that is given link by link.
pub(super) type Each<'a> = dyn FnMut(LinkRow<'_>) -> Result<(), Stop> + 'a;
