//! What a database gives and takes of customers' domains.

use super::error::Error;
use super::links::Stop;

/// One host as it stands in the database, nothing of it checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DomainRow {
    /// The host's name.
    pub host: String,
    /// The name of its site in the configuration.
    pub site: String,
    /// The namespace of its tokens; empty for that of its site.
    pub namespace: Vec<u8>,
    /// What differs from the site's look: a JSON object.
    pub brand: String,
    /// Whether it is switched off.
    pub disabled: bool,
    /// Whether this is the tombstone of a deleted one.
    pub deleted: bool,
}

/// What to say of a database whose schema has no domains yet.
pub(super) fn lacking(found: u32, needed: u32) -> String {
    format!(
        "its schema is at step {found}, and customers' domains come with step {needed}: run `holdfast migrate`, or \
         what `holdfast migrate --print` shows"
    )
}

/// A callback that is given one domain after the other.
pub(super) type EachDomain<'a> = dyn FnMut(DomainRow) -> Result<(), Stop> + 'a;

/// Why domains were not read.
#[derive(Debug)]
pub enum Unread {
    /// As any read of the database.
    Database(Error),
    /// The database is there, and gives this table in no way that is of use: it is missing, locked, too slow,
    /// or somebody changed it. Says nothing of the rest; the connection may be of no more use.
    Table(Error),
}

impl Unread {
    /// What is wrong, whomever it concerns.
    #[must_use]
    pub fn into_error(self) -> Error {
        match self {
            Self::Database(error) | Self::Table(error) => error,
        }
    }
}

/// The state of a database's domains at one moment, to find out later whether they changed; of no use on
/// another connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainsSeen(pub(super) String);
