//! The seam between the pump and whatever hits are delivered to.

use crate::database::{self, Audit, Committed, Delivery, Held};
use crate::journal::JournalId;
use std::fmt;
use uuid::Uuid;

/// Something that takes batches whole and remembers in the same breath how far it got.
pub trait Sink {
    /// What the sink holds of a journal, read anew: the pump trusts nothing else.
    ///
    /// Too low an answer makes hits arrive twice, where the sink has no unique key; too high a one
    /// loses them.
    ///
    /// # Errors
    /// [`Fault::Failed`].
    fn holds(&mut self, journal: JournalId) -> Result<Holding, Fault>;

    /// Takes a batch whole, durably, if the cursor is where the batch expects it.
    ///
    /// # Errors
    /// After [`Fault::Failed`] the batch may have been taken or not; after any other it was not.
    fn take(&mut self, batch: &Delivery<'_>) -> Result<Committed, Fault>;

    /// Counts what is there of a stretch of a journal that was taken before.
    ///
    /// # Errors
    /// [`Fault::Failed`].
    fn count(&mut self, journal: JournalId, first: u64, last: u64) -> Result<Audit, Fault>;

    /// There is nothing to take for now.
    fn rest(&mut self, rest: Rest);
}

/// How long a sink rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Some seconds: time to tidy up.
    Brief,
    /// Nobody knows: every connection is closed.
    Long,
}

/// What a sink holds of a journal, and which sink it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The database's own identity: another database, another value, whatever its address.
    pub store: Uuid,
    /// What it holds.
    pub held: Held,
    /// Where its rows are not ours to look at, that it holds nothing is known of its books only: the
    /// journals that they know. `None` where rows can be looked at.
    pub booked: Option<Vec<JournalId>>,
}

/// Why a sink did not do what it was asked, divided by what the pump must do.
#[derive(Debug)]
pub enum Fault {
    /// Something in the batch is refused for what it is.
    Content {
        /// The sink's own words.
        reason: String,
    },
    /// A hit is there already that the cursor says can't be there.
    Doubled,
    /// Anything else. What became of a batch is not known.
    Failed(Box<dyn std::error::Error + Send + Sync>),
    /// The cursor is not where it was expected.
    Moved {
        /// Where it is.
        found: Option<u64>,
    },
}

impl Fault {
    /// Whether it may be that the database does not answer at all; otherwise it says no to what it is
    /// given, and others may be served.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        let Self::Failed(error) = self else { return false };
        !matches!(error.downcast_ref(), Some(database::Error::NotOurs(_) | database::Error::Refused(_)))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Content { reason } => write!(f, "the sink refuses the batch's own rows: {reason}"),
            Self::Doubled => f.write_str("the sink holds hits that its cursor says it lacks"),
            Self::Failed(_) => f.write_str("the sink failed"),
            Self::Moved { found: Some(found) } => {
                write!(f, "somebody else moved the sink's cursor to {found}")
            }
            Self::Moved { found: None } => f.write_str("the sink's cursor vanished"),
        }
    }
}

impl std::error::Error for Fault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Failed(error) => Some(error.as_ref()),
            _ => None,
        }
    }
}
