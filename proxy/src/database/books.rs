//! What the books of a database say of a journal: the words that all kinds of databases share.

/// What a database holds of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// No cursor, though there may be hits of this journal.
    Absent,
    /// Everything up to this sequence is accounted for.
    Cursor(u64),
    /// No cursor, and provably no hits either.
    Nothing,
}

/// How much is there of a stretch of a journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Rows in `hits`.
    pub rows: u64,
    /// Rows in `rejected`.
    pub rejected: u64,
}

/// One row of `batches`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchRow {
    /// The first sequence that it accounts for.
    pub first: u64,
    /// The last one.
    pub last: u64,
    /// How many of them became rows of `hits`.
    pub rows: u64,
    /// How many were rejected.
    pub rejected: u64,
}
