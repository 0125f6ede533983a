//! What the pump finds that somebody should know.

use crate::database::Audit;
use crate::journal::{JournalId, Sequence};
use std::collections::VecDeque;
use std::fmt;

/// Alarms kept until somebody takes them; the oldest give way.
const KEPT: usize = 256;

/// Something that is logged once and counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// A journal goes on where somebody said.
    Adopted {
        /// Which.
        journal: JournalId,
        /// The sequence that counts as delivered.
        after: Sequence,
    },
    /// Older alarms gave way before anybody took them.
    Dropped {
        /// How many.
        alarms: u64,
    },
    /// Rows were there already that the cursor said were not; they stayed as they were.
    Doubled {
        /// Whose.
        journal: JournalId,
        /// The first sequence of the batch.
        first: Sequence,
        /// The last one.
        last: Sequence,
        /// How many rows were there.
        rows: u64,
    },
    /// These sequences were dropped by the journal before the sink had them.
    Expired {
        /// Whose.
        journal: JournalId,
        /// The first of them.
        first: Sequence,
        /// The last one.
        last: Sequence,
    },
    /// These sequences can't be read from the journal.
    Gap {
        /// Whose.
        journal: JournalId,
        /// The first of them.
        first: Sequence,
        /// The last one.
        last: Sequence,
    },
    /// The sink does not hold what it took.
    Miscounted {
        /// Whose.
        journal: JournalId,
        /// The first sequence that was counted.
        first: Sequence,
        /// The last one.
        last: Sequence,
        /// Rows that were taken.
        rows: u64,
        /// Hits that were rejected.
        rejected: u64,
        /// What is there.
        found: Audit,
    },
    /// The file that remembers deliveries can't be written.
    NotRemembered {
        /// Why.
        error: String,
    },
    /// More hits are rejected than the setting allows.
    RejectRate {
        /// Rejected lately.
        rejected: u64,
        /// Of so many.
        hits: u64,
        /// The reason of the last one.
        reason: String,
    },
    /// The sink lost what it had; it gets it again.
    Rewound {
        /// Of which journal.
        journal: JournalId,
        /// How far it was, where this process has seen it.
        from: Option<Sequence>,
        /// How far it is.
        to: Sequence,
    },
    /// A journal stands still.
    Standing(Standing),
}

/// Why a journal is not delivered until somebody acts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The sink holds more than the journal has: storage was swapped or restored under this edge.
    CursorAhead {
        /// Which.
        journal: JournalId,
        /// The sink's cursor.
        cursor: Sequence,
        /// The journal's last durable sequence.
        end: Sequence,
    },
    /// The sink held something of this journal before and now has no cursor for it.
    CursorLost {
        /// Which.
        journal: JournalId,
    },
    /// The journal can't be read; it is tried again.
    Unreadable {
        /// Which.
        journal: JournalId,
        /// Why.
        error: String,
    },
}

impl Standing {
    /// The journal that stands still.
    #[must_use]
    pub fn journal(&self) -> JournalId {
        match self {
            Self::CursorAhead { journal, .. }
            | Self::CursorLost { journal }
            | Self::Unreadable { journal, .. } => *journal,
        }
    }
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Adopted { journal, after } => write!(f, "journal {journal} goes on after sequence {after}"),
            Self::Dropped { alarms } => write!(f, "{alarms} older alarms of delivery were dropped"),
            Self::Doubled { journal, first, last, rows } => write!(
                f,
                "{rows} hits between {first} and {last} of journal {journal} were in the database above its cursor"
            ),
            Self::Expired { journal, first, last } => {
                write!(f, "hits {first} to {last} of journal {journal} expired before the database had them")
            }
            Self::Gap { journal, first, last } => {
                write!(f, "hits {first} to {last} of journal {journal} can't be read and are not delivered")
            }
            Self::Miscounted { journal, first, last, rows, rejected, found } => write!(
                f,
                "of hits {first} to {last} of journal {journal} the database took {rows} and rejected {rejected}, \
                 but holds {} and {}",
                found.rows, found.rejected
            ),
            Self::NotRemembered { error } => write!(f, "deliver.json can't be written: {error}"),
            Self::RejectRate { rejected, hits, reason } => {
                write!(f, "the database rejected {rejected} of the last {hits} hits, lately with: {reason}")
            }
            Self::Rewound { journal, from: Some(from), to } => write!(
                f,
                "the database went back from sequence {from} to {to} of journal {journal}, which is delivered again"
            ),
            Self::Rewound { journal, from: None, to } => write!(
                f,
                "the database went back to sequence {to} of journal {journal}, which is delivered again"
            ),
            Self::Standing(standing) => standing.fmt(f),
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CursorAhead { journal, cursor, end } => write!(
                f,
                "the database has journal {journal} up to sequence {cursor}, but it ends at {end}: its disk was \
                 swapped or restored; restart for a new journal, `holdfast deliver adopt --from now` settles this one"
            ),
            Self::CursorLost { journal } => write!(
                f,
                "the database has lost its cursor of journal {journal}: say where to go on with `holdfast deliver adopt --from oldest|now|SEQUENCE`"
            ),
            Self::Unreadable { journal, error } => write!(f, "journal {journal} can't be read: {error}"),
        }
    }
}

/// Alarms waiting to be taken; that a journal stands still is told once.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    waiting: VecDeque<Alarm>,
    dropped: u64,
    /// Journals of which it was told that they stand still.
    told: Vec<JournalId>,
}

impl Alarms {
    pub(super) fn raise(&mut self, alarm: Alarm) {
        if let Alarm::Standing(standing) = &alarm {
            if self.told.contains(&standing.journal()) {
                return;
            }
            self.told.push(standing.journal());
            self.told.drain(..self.told.len().saturating_sub(KEPT));
        }
        if self.waiting.len() == KEPT {
            self.waiting.pop_front();
            self.dropped += 1;
        }
        self.waiting.push_back(alarm);
    }

    /// A journal goes on: that it stands still would be news again.
    pub(super) fn settled(&mut self, journal: JournalId) {
        self.told.retain(|&told| told != journal);
    }

    pub(super) fn take(&mut self) -> Vec<Alarm> {
        let dropped = std::mem::take(&mut self.dropped);
        let first = (dropped > 0).then_some(Alarm::Dropped { alarms: dropped });
        first.into_iter().chain(self.waiting.drain(..)).collect()
    }
}
