//! Deciding where to go on in a journal that stands still for want of a cursor.

use super::alarm::{Alarm, Standing};
use super::sink::{Fault, Sink};
use super::source::{Kept, Source};
use super::{Place, Pump, batch};
use crate::database::Held;
use crate::event::UnixMillis;
use crate::journal::{JournalId, Sequence};
use std::fmt;

/// Where to go on in a journal whose cursor the sink lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdoptFrom {
    /// What is there counts as delivered.
    Now,
    /// From the oldest record that is kept; rows that are there already stay.
    Oldest,
    /// From this record on.
    Sequence(Sequence),
}

/// Why nothing was adopted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdoptError {
    /// A sequence was given, but several journals stand still: name one.
    Ambiguous(Vec<JournalId>),
    /// No journal, or not the one named, stands still.
    NothingStands,
    /// The journal has no such record.
    OutOfRange {
        /// The first that can be given.
        first: Sequence,
        /// The last one.
        last: Sequence,
    },
}

impl fmt::Display for AdoptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ambiguous(journals) => {
                write!(f, "a sequence belongs to one journal, but these stand still:")?;
                journals.iter().try_for_each(|journal| write!(f, " {journal}"))
            }
            Self::NothingStands => f.write_str("no journal waits for adoption"),
            Self::OutOfRange { first, last } => write!(f, "the journal can go on from {first} to {last}"),
        }
    }
}

impl std::error::Error for AdoptError {}

impl<R: Source, S: Sink> Pump<R, S> {
    /// Says where to go on in journals that stand still for want of a cursor; it is done in the
    /// next step. `only` names one of them; otherwise all are meant.
    ///
    /// # Errors
    /// See [`AdoptError`]; nothing is then changed.
    pub fn adopt(
        &mut self,
        from: AdoptFrom,
        only: Option<JournalId>,
    ) -> Result<Vec<(JournalId, Sequence)>, AdoptError> {
        let standing = |id: &JournalId| {
            matches!(
                self.places.get(id),
                Some(Place::Standing(Standing::CursorLost { .. } | Standing::CursorAhead { .. }))
            )
        };
        let mut chosen = self.source.journals();
        chosen.retain(|kept| standing(&kept.id) && only.is_none_or(|only| only == kept.id));
        if chosen.is_empty() {
            return Err(AdoptError::NothingStands);
        }
        if let (AdoptFrom::Sequence(_), [_, _, ..]) = (from, chosen.as_slice()) {
            return Err(AdoptError::Ambiguous(chosen.iter().map(|kept| kept.id).collect()));
        }
        let mut adopted = Vec::new();
        for kept in chosen {
            let oldest = Sequence(kept.first.0.saturating_sub(1).min(kept.end.0));
            let after = match from {
                AdoptFrom::Now => kept.end,
                AdoptFrom::Oldest => oldest,
                AdoptFrom::Sequence(first) if (oldest.0 + 1..=kept.end.0 + 1).contains(&first.0) => {
                    Sequence(first.0 - 1)
                }
                AdoptFrom::Sequence(_) => {
                    let (first, last) = (Sequence(oldest.0 + 1), Sequence(kept.end.0 + 1));
                    return Err(AdoptError::OutOfRange { first, last });
                }
            };
            adopted.push((kept.id, after));
        }
        for &(journal, after) in &adopted {
            self.places.remove(&journal);
            self.adoptions.insert(journal, after);
        }
        Ok(adopted)
    }

    /// Writes the cursor that somebody decided on, so that it holds after a crash too.
    pub(super) fn write_adoption(
        &mut self,
        kept: &Kept,
        held: Held,
        after: Sequence,
        now: UnixMillis,
    ) -> Result<Place, Fault> {
        let expected = match held {
            Held::Cursor(cursor) => Some(cursor),
            Held::Absent | Held::Nothing => None,
        };
        let mut order = batch::delivery(kept, now);
        order.expected = expected;
        order.first = after.0 + 1;
        order.last = after.0;
        self.sink.take(&order)?;
        self.adoptions.remove(&kept.id);
        self.unaudited.remove(&kept.id);
        self.overlaps.insert(kept.id, kept.end);
        self.alarms.raise(Alarm::Adopted { journal: kept.id, after });
        self.reached.insert(kept.id, after);
        Ok(Place::At { expected: Some(after.0), after })
    }
}
