//! What is delivered to a database, and what becomes of it: the words that all kinds of databases share.

use super::Error;
use crate::event::{Event, UnixMillis};
use uuid::Uuid;

/// The columns of `hits`, in the order in which they are written.
pub(super) const COLUMNS: [&str; 20] = [
    "journal",
    "sequence",
    "at",
    "host",
    "site",
    "namespace",
    "kind",
    "token",
    "campaign",
    "captures",
    "query",
    "method",
    "status",
    "outcome",
    "class",
    "url",
    "address",
    "user_agent",
    "referrer",
    "verdict",
];

/// A journal as the database knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownJournal<'a> {
    /// Its random id.
    pub uuid: Uuid,
    /// The edge that wrote it.
    pub edge: &'a str,
    /// When it was opened.
    pub opened_at: UnixMillis,
}

/// One hit, decoded, with its place in the journal.
#[derive(Clone, Debug)]
pub struct Hit<'a> {
    /// Its sequence in the journal; with the journal's id, its identity.
    pub sequence: u64,
    /// The time of the hit.
    pub at: UnixMillis,
    /// The bytes as the journal has them.
    pub payload: &'a [u8],
    /// What they mean.
    pub event: Event<'a>,
}

/// A hit that can't be a row of `hits`, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject<'a> {
    /// Its sequence in the journal.
    pub sequence: u64,
    /// The time of the hit.
    pub at: UnixMillis,
    /// The bytes as the journal has them.
    pub payload: &'a [u8],
    /// For people.
    pub reason: String,
}

/// What is done about a row whose (journal, sequence) is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Twice {
    /// The batch is given back ([`CommitError::Doubled`]): it must not happen under the cursor.
    Refuse,
    /// The row that is there stays.
    Skip,
}

/// Everything that one transaction writes. It accounts for the sequences `first` to `last`: each is
/// a hit, a reject or a gap of the journal. With `last` below `first` it only sets the cursor.
#[derive(Clone, Debug)]
pub struct Delivery<'a> {
    /// Whose sequences these are.
    pub journal: KnownJournal<'a>,
    /// The cursor that must be found; `None` where there must be none.
    pub expected: Option<u64>,
    /// One above what was accounted for before.
    pub first: u64,
    /// The new cursor.
    pub last: u64,
    /// In the order of their sequences.
    pub hits: &'a [Hit<'a>],
    /// In the order of their sequences.
    pub rejects: &'a [Reject<'a>],
    /// What is done about rows that are there.
    pub twice: Twice,
    /// The time of delivery.
    pub at: UnixMillis,
}

/// What one transaction wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Rows that were inserted.
    pub rows: u64,
    /// Rows that were there already ([`Twice::Skip`]).
    pub skipped: u64,
    /// Hits that the database refused for what they are; they are in `rejected` now.
    pub refused: Vec<Refusal>,
}

/// A hit that the database refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its sequence.
    pub sequence: u64,
    /// The database's own words.
    pub reason: String,
}

/// Why a transaction was not committed, divided by what the pump must do. But for
/// [`Self::Failed`], where it may have been committed all the same, nothing was written.
#[derive(Debug)]
pub enum CommitError {
    /// Something in the batch is refused in a way that ends the whole transaction: halve the batch,
    /// and reject what is refused alone.
    Content {
        /// The database's own words.
        reason: String,
    },
    /// A row is there already although the cursor says it can't be: alarm, then [`Twice::Skip`].
    Doubled,
    /// Anything else: read the cursor before anything is assumed.
    Failed(Error),
    /// The cursor is not where the batch started: somebody else delivers, or the database went back.
    Moved {
        /// The cursor that was found.
        found: Option<u64>,
    },
}
