//! The known links: a table, the changes since it was built, and both of them on disk.
//!
//! Invariants:
//! - [`Links`] never changes: a change or a new table makes a new value, published whole by the caller.
//! - A namespace's tokens are found under that namespace only.
//! - What the overlay says of a token hides what the table says.
//! - Every target in table and overlay passed [`target::approve`].
//!
//! On disk a generation consists of `table-<g>.links`, a snapshot, and `links-<g>.log`, the changes
//! that came after the snapshot of that generation was begun. To begin generation `g` is: create
//! `links-<g>.log` and write all further changes to it, take the links as they are ([`builder::Builder`]
//! or [`builder::fold`]), build, write `table-<g>.links`. So the newest good snapshot `s` and the logs of
//! all generations from `s` on give everything that was known, whenever the process dies, and when the
//! newest snapshot is damaged the one before it does so too.
//!
//! It does not read the database, decide when to build, nor compare times of expiry: `follow` and
//! `resolve` do. Only [`snapshot`] and [`log`] touch a disk.

pub mod namespaces;

pub mod target;

pub mod entry;

mod blob;

mod record;

mod pool;

pub mod table;

pub mod overlay;

pub mod guard;

pub mod builder;

pub mod snapshot;

pub mod log;

pub mod domains;

use std::sync::Arc;

use crate::event::UnixMillis;
use namespaces::NamespaceId;
use overlay::{Change, Overlay};
use table::Table;
use target::Target;

/// The longest token in bytes; a longer one is never a link's.
pub const TOKEN_BYTES_MAX: usize = crate::event::TOKEN_BYTES_MAX;
/// The longest campaign that is kept; the rest is cut off, as the record of a hit does.
pub const CAMPAIGN_BYTES_MAX: usize = crate::event::TEXT_BYTES_MAX;

/// How many tokens are looked for at once at most.
pub const TOGETHER: usize = 16;

/// What is known of links at one moment.
#[derive(Clone, Debug)]
pub struct Links {
    table: Arc<Table>,
    overlay: Overlay,
}

impl Links {
    /// The links of `table` and `overlay`.
    #[must_use]
    pub fn new(table: Arc<Table>, overlay: Overlay) -> Self {
        Self { table, overlay }
    }

    /// No links; `seed` makes the places of tokens in the overlay unpredictable.
    #[must_use]
    pub fn empty(seed: u64) -> Self {
        Self { table: Arc::default(), overlay: Overlay::new(seed) }
    }

    /// What is known of `token`; `None` when nothing is.
    #[must_use]
    pub fn get(&self, namespace: NamespaceId, token: &[u8]) -> Option<Found<'_>> {
        match self.overlay.get(namespace, token) {
            Some(entry) => Some(entry.found()),
            None => self.table.get(namespace, token),
        }
    }

    /// The same for many at once, in their order; `None` where nothing is asked.
    ///
    /// In a large table each look-up waits for memory; these wait together.
    #[must_use]
    pub fn get_all(&self, asked: &[Option<(NamespaceId, &[u8])>; TOGETHER]) -> [Option<Found<'_>>; TOGETHER] {
        let mut found = self.table.get_all(asked);
        if !self.overlay.is_empty() {
            for (found, asked) in found.iter_mut().zip(asked) {
                if let Some(entry) = asked.and_then(|(namespace, token)| self.overlay.get(namespace, token)) {
                    *found = Some(entry.found());
                }
            }
        }
        found
    }

    /// The table.
    #[must_use]
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// The changes since the table was built.
    #[must_use]
    pub fn overlay(&self) -> &Overlay {
        &self.overlay
    }

    /// These links with `changes`; a later change of the same token wins.
    #[must_use]
    pub fn with(&self, changes: impl IntoIterator<Item = Change>) -> Self {
        Self { table: Arc::clone(&self.table), overlay: self.overlay.with(changes) }
    }

    /// `table`, which was built from `basis`, with those changes that came since `basis` was taken.
    #[must_use]
    pub fn rebuilt(&self, table: Arc<Table>, basis: &Self) -> Self {
        Self { table, overlay: self.overlay.without(&basis.overlay) }
    }

    /// The memory of table and overlay in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.table.bytes() + self.overlay.bytes()
    }
}

/// What is known of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// It was deleted.
    Deleted,
    /// It is switched off.
    Disabled,
    /// It leads somewhere, unless its time is over.
    Live(Link<'a>),
}

/// A live link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link<'a> {
    /// Where it leads.
    pub target: Target<'a>,
    /// Its campaign; empty without one.
    pub campaign: &'a [u8],
    /// Whether the route's `append` applies.
    pub append: bool,
    /// The end of its life; the caller compares.
    pub expires_at: Option<UnixMillis>,
}

/// The state in which a link is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// It leads to its target.
    Live = 0,
    /// It is switched off and may come back.
    Disabled = 1,
    /// A tombstone.
    Deleted = 2,
}

impl State {
    fn from_tag(tag: u8) -> Option<Self> {
        match tag {
            0 => Some(Self::Live),
            1 => Some(Self::Disabled),
            2 => Some(Self::Deleted),
            _ => None,
        }
    }
}

/// How a link came to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Origin {
    /// A load or a followed change brought it: it stays until a load, a change or P9 says otherwise.
    Change = 0,
    /// A single token was looked up: it may be forgotten where a bound asks for it, for it can be
    /// looked up again, and its absence from a load says nothing.
    LookUp = 1,
}

impl Origin {
    fn from_tag(tag: u8) -> Option<Self> {
        match tag {
            0 => Some(Self::Change),
            1 => Some(Self::LookUp),
            _ => None,
        }
    }
}

/// A link as a database or `links.log` has it, not yet approved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row<'a> {
    /// The name of its namespace.
    pub namespace: &'a [u8],
    /// The token's bytes.
    pub token: &'a [u8],
    /// The target as stored; not looked at unless the state is [`State::Live`].
    pub url: &'a str,
    /// The campaign; empty without one.
    pub campaign: &'a [u8],
    /// Whether the route's `append` applies.
    pub append: bool,
    /// The end of its life.
    pub expires_at: Option<UnixMillis>,
    /// Live, disabled or deleted.
    pub state: State,
}

#[cfg(test)]
mod tests;
