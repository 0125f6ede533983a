//! What the pump needs of a journal, and how the journal of this process gives it.

use crate::event::UnixMillis;
use crate::journal::{self, Journal, JournalId, Records, Sequence};

/// Where hits come from. A seam, so that the pump can be held against every loss that a model of
/// journal and database can suffer, thousands of times a second.
pub trait Source {
    /// See [`Read`].
    type Reader: Read;

    /// The journals there are, oldest first.
    fn journals(&self) -> Vec<Kept>;

    /// Reads a journal from the record after `after` on.
    ///
    /// # Errors
    /// When nothing can be read; the pump leaves this journal and tries again later.
    fn reader(&self, journal: JournalId, after: Sequence) -> Result<Self::Reader, ReadFault>;

    /// Says that the sink holds everything up to `through`, or, lower than before, that it lost some.
    /// Too high a value lets the journal drop what nobody has.
    fn delivered(&self, journal: JournalId, sink: &str, through: Sequence, now: UnixMillis);
}

/// A position in a journal, and the records read last.
pub trait Read {
    /// Reads the next records, only durable ones, and returns the sequence up to which it read:
    /// all that is not among the records up to there can't be read and never will.
    ///
    /// # Errors
    /// When nothing can be read now. A record that comes back later would be lost.
    fn fill(&mut self, records_max: usize, bytes_max: usize) -> Result<Sequence, ReadFault>;

    /// The records of the last [`Self::fill`], with rising sequences.
    fn records(&self) -> impl Iterator<Item = (Sequence, UnixMillis, &[u8])>;
}

/// A journal and what is kept of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its id.
    pub id: JournalId,
    /// The edge that wrote it.
    pub edge: String,
    /// When it was opened.
    pub opened_at: UnixMillis,
    /// The first sequence that is still kept; one past `end` when none is.
    pub first: Sequence,
    /// The last durable sequence; 0 when there is none.
    pub end: Sequence,
}

/// Why a journal can't be read; its words are for people.
pub type ReadFault = Box<dyn std::error::Error + Send + Sync>;

impl Source for Journal {
    type Reader = JournalReader;

    fn journals(&self) -> Vec<Kept> {
        let kept = |summary: journal::Summary| Kept {
            id: summary.id,
            edge: summary.edge,
            opened_at: summary.opened_at,
            first: summary.first,
            end: summary.end,
        };
        self.journals().into_iter().map(kept).collect()
    }

    fn reader(&self, journal: JournalId, after: Sequence) -> Result<JournalReader, ReadFault> {
        let reader = self.reader(journal, after)?;
        Ok(JournalReader { reader, records: Records::default() })
    }

    fn delivered(&self, journal: JournalId, sink: &str, through: Sequence, now: UnixMillis) {
        self.delivered(journal, sink, through, now);
    }
}

/// A reader of this process' journals with the memory for what it reads.
#[derive(Debug)]
pub struct JournalReader {
    reader: journal::Reader,
    records: Records,
}

impl Read for JournalReader {
    fn fill(&mut self, records_max: usize, bytes_max: usize) -> Result<Sequence, ReadFault> {
        match self.reader.fill(records_max, bytes_max, &mut self.records) {
            Ok(filled) => Ok(filled.through),
            // What was read before the failure is good, and the next call begins behind it.
            Err(_) if !self.records.is_empty() => Ok(self.reader.position()),
            Err(error) => {
                self.records = Records::default();
                Err(error.into())
            }
        }
    }

    fn records(&self) -> impl Iterator<Item = (Sequence, UnixMillis, &[u8])> {
        self.records.iter()
    }
}
