//! Journals and database side by side: every sequence that was ever given is accounted for.
//!
//! Streams both sides in the order of the sequences and keeps only counts and short lists of
//! ranges. It may run beside a delivering pump: what was delivered meanwhile counts as pending.

use super::source::{Kept, Read, ReadFault, Source};
use crate::database::{self, Database, Held};
use crate::event::UnixMillis;
use crate::journal::{JournalId, Sequence};
use serde::Serialize;
use std::fmt;
use uuid::Uuid;

/// Sequences fetched at a time.
const CHUNK: usize = 50_000;
const CHUNK_BYTES: usize = 16 << 20;
/// Ranges listed one by one; beyond it only their number and their sum are kept.
const RANGES_LISTED: usize = 100;

/// What was found, journal by journal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The journals of this edge, oldest first; then those that only the database still knows.
    pub journals: Vec<JournalReport>,
    /// Journals in the database that other edges wrote, which only they can account for.
    pub elsewhere: u64,
}

/// One journal's account: appended = delivered + pending + rejected + quarantined + expired + missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct JournalReport {
    /// The journal's id.
    pub journal: String,
    /// Whether this edge still has it on disk.
    pub on_disk: bool,
    /// Sequences that were given and made durable.
    pub appended: u64,
    /// Rows in `hits`.
    pub delivered: u64,
    /// Above the cursor and readable.
    pub pending: u64,
    /// In `rejected`.
    pub rejected: u64,
    /// Damaged in the journal.
    pub quarantined: u64,
    /// Dropped by the journal before they were delivered.
    pub expired: u64,
    /// Below the cursor, but neither in `hits` nor in `rejected`.
    pub missing: Ranges,
    /// In `hits` and in `rejected`.
    pub doubled: Ranges,
    /// In the database though the journal never gave this sequence.
    pub beyond: Ranges,
}

/// Ranges of sequences; the first hundred are listed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ranges {
    /// How many sequences in all.
    pub count: u64,
    /// First and last of each range.
    pub listed: Vec<(u64, u64)>,
    /// Whether there are more ranges than are listed.
    pub more: bool,
}

/// Which side could not be read.
#[derive(Debug)]
pub enum ReconcileError {
    /// The database.
    Database(database::Error),
    /// A journal.
    Journal {
        /// Which.
        journal: JournalId,
        /// Why.
        error: ReadFault,
    },
}

impl fmt::Display for ReconcileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database(_) => f.write_str("the database can't be reconciled"),
            Self::Journal { journal, .. } => write!(f, "journal {journal} can't be reconciled"),
        }
    }
}

impl std::error::Error for ReconcileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Database(error) => Some(error),
            Self::Journal { error, .. } => Some(error.as_ref()),
        }
    }
}

impl From<database::Error> for ReconcileError {
    fn from(error: database::Error) -> Self {
        Self::Database(error)
    }
}

impl Report {
    /// Whether every journal is balanced.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        self.journals.iter().all(JournalReport::is_balanced)
    }
}

impl JournalReport {
    /// Whether everything is where it should be.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        let known = self.delivered + self.pending + self.rejected + self.quarantined + self.expired;
        self.appended == known && [&self.missing, &self.doubled, &self.beyond].iter().all(|r| r.count == 0)
    }
}

impl Ranges {
    fn add(&mut self, first: u64, last: u64) {
        self.count += last - first + 1;
        let is_full = self.listed.len() == RANGES_LISTED;
        match self.listed.last_mut() {
            Some((_, end)) if *end + 1 == first && !self.more => *end = last,
            _ if is_full => self.more = true,
            _ => self.listed.push((first, last)),
        }
    }
}

/// Holds the journals of `edge` and `database` side by side.
///
/// # Errors
/// When one side can't be read to its end.
pub fn reconcile<R: Source>(
    source: &R,
    edge: &str,
    database: &mut Database,
) -> Result<Report, ReconcileError> {
    let mut report = Report::default();
    let on_disk = source.journals();
    for kept in &on_disk {
        let nothing_kept = kept.first > kept.end;
        let mut reader = match source.reader(kept.id, Sequence(kept.first.0.saturating_sub(1))) {
            Ok(reader) => Some(reader),
            Err(_) if nothing_kept => None,
            Err(error) => return Err(ReconcileError::Journal { journal: kept.id, error }),
        };
        let account = account(kept, reader.as_mut(), database)?;
        report.journals.push(JournalReport { on_disk: true, ..account });
    }
    for (uuid, written_by) in database.journals()? {
        let id = JournalId::from_bytes(*uuid.as_bytes());
        if on_disk.iter().any(|kept| kept.id == id) {
            continue;
        }
        if written_by != edge {
            report.elsewhere += 1;
            continue;
        }
        let Held::Cursor(cursor) = database.held(uuid)? else { continue };
        let (first, end) = (Sequence(cursor + 1), Sequence(cursor));
        let kept = Kept { id, edge: written_by, opened_at: UnixMillis(0), first, end };
        report.journals.push(account(&kept, None::<&mut R::Reader>, database)?);
    }
    Ok(report)
}

/// Walks along one journal from its first sequence to its last.
fn account(
    kept: &Kept,
    reader: Option<&mut impl Read>,
    database: &mut Database,
) -> Result<JournalReport, ReconcileError> {
    let uuid = Uuid::from_bytes(*kept.id.as_bytes());
    let cursor = match database.held(uuid)? {
        Held::Cursor(cursor) => cursor,
        Held::Absent | Held::Nothing => 0,
    };
    let mut report =
        JournalReport { journal: kept.id.to_string(), appended: kept.end.0, ..JournalReport::default() };
    let mut hits = Rows::new(uuid, Table::Hits);
    let mut rejects = Rows::new(uuid, Table::Rejected);
    let read_to = kept.first.0.saturating_sub(1);
    let mut records = Records { reader, next: Vec::new(), at: 0, read_to };
    let mut gone = Gone::default();
    for sequence in 1..=kept.end.0 {
        let in_hits = hits.has(sequence, database)?;
        let in_rejects = rejects.has(sequence, database)?;
        let is_kept = sequence >= kept.first.0;
        let in_journal = is_kept
            && records.has(sequence).map_err(|error| ReconcileError::Journal { journal: kept.id, error })?;
        match (in_hits, in_rejects, in_journal) {
            (true, true, _) => {
                report.delivered += 1;
                report.doubled.add(sequence, sequence);
            }
            (true, false, _) => report.delivered += 1,
            (false, true, _) => report.rejected += 1,
            (false, false, true) if sequence > cursor => report.pending += 1,
            (false, false, true) => report.missing.add(sequence, sequence),
            (false, false, false) if sequence > cursor && is_kept => report.quarantined += 1,
            (false, false, false) if sequence > cursor => report.expired += 1,
            (false, false, false) if is_kept => {
                gone.enter(sequence, uuid, database, &mut report)?;
                gone.quarantined += 1;
                report.quarantined += 1;
            }
            (false, false, false) => {
                gone.enter(sequence, uuid, database, &mut report)?;
                gone.lost.add(sequence, sequence);
            }
        }
    }
    gone.close(&mut report);
    hits.drain(kept.end.0, database, &mut report.beyond)?;
    rejects.drain(kept.end.0, database, &mut report.beyond)?;
    Ok(report)
}

/// The batch that the walk is in, where anything of it is on neither side: it tells what was never
/// delivered from what was delivered and is gone from both.
#[derive(Default)]
struct Gone {
    /// The last sequence that the batch accounts for; 0 before the first is asked for.
    batch_last: u64,
    /// Sequences of the batch that it has neither as rows nor as rejects.
    undelivered: u64,
    /// Sequences of the batch that are on neither side.
    lost: Ranges,
    /// Sequences of the batch that are damaged in the journal.
    quarantined: u64,
}

impl Gone {
    /// Goes on to the batch of `sequence`; the one before is closed.
    fn enter(
        &mut self,
        sequence: u64,
        journal: Uuid,
        database: &mut Database,
        report: &mut JournalReport,
    ) -> Result<(), database::Error> {
        if sequence <= self.batch_last {
            return Ok(());
        }
        self.close(report);
        (self.batch_last, self.undelivered) = match database.batch_of(journal, sequence)? {
            Some(batch) => {
                (batch.last, (batch.last + 1 - batch.first).saturating_sub(batch.rows + batch.rejected))
            }
            None => (database.batch_after(journal, sequence)?.map_or(u64::MAX, |batch| batch.first - 1), 0),
        };
        Ok(())
    }

    /// A batch that wrote fewer rows than its span says how many it could not have; what is lost
    /// beyond that was delivered, and somebody deleted it.
    fn close(&mut self, report: &mut JournalReport) {
        let gone = std::mem::take(self);
        let mut expired = gone.undelivered.saturating_sub(gone.quarantined).min(gone.lost.count);
        report.expired += expired;
        report.missing.more |= gone.lost.more && gone.lost.count > expired;
        let listed: u64 = gone.lost.listed.iter().map(|(first, last)| last - first + 1).sum();
        let unlisted = gone.lost.count - listed;
        for (first, last) in gone.lost.listed {
            // Which of them expired is not known; the first ones are taken for it.
            let skip = expired.min(last - first + 1);
            expired -= skip;
            if first + skip <= last {
                report.missing.add(first + skip, last);
            }
        }
        report.missing.count += unlisted - expired.min(unlisted);
    }
}

#[derive(Clone, Copy)]
enum Table {
    Hits,
    Rejected,
}

/// The sequences of one table, in chunks.
struct Rows {
    journal: Uuid,
    table: Table,
    next: Vec<u64>,
    at: usize,
    fetched_to: u64,
    ended: bool,
}

impl Rows {
    fn new(journal: Uuid, table: Table) -> Self {
        Self { journal, table, next: Vec::new(), at: 0, fetched_to: 0, ended: false }
    }

    /// Whether `sequence` is there; asked for rising sequences.
    fn has(&mut self, sequence: u64, database: &mut Database) -> Result<bool, database::Error> {
        match self.head(database)? {
            Some(head) if head == sequence => {
                self.at += 1;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn head(&mut self, database: &mut Database) -> Result<Option<u64>, database::Error> {
        if self.at == self.next.len() && !self.ended {
            self.next.clear();
            self.at = 0;
            let (after, most) = (self.fetched_to, CHUNK as u32);
            match self.table {
                Table::Hits => database.hit_sequences(self.journal, after, most, &mut self.next)?,
                Table::Rejected => database.reject_sequences(self.journal, after, most, &mut self.next)?,
            }
            self.ended = self.next.len() < CHUNK;
            self.fetched_to = self.next.last().copied().unwrap_or(after);
        }
        Ok(self.next.get(self.at).copied())
    }

    /// Lists what is left beyond `end`.
    fn drain(&mut self, end: u64, database: &mut Database, out: &mut Ranges) -> Result<(), database::Error> {
        while let Some(head) = self.head(database)? {
            self.at += 1;
            if head > end {
                out.add(head, head);
            }
        }
        Ok(())
    }
}

/// The sequences that a journal can give, in chunks.
struct Records<'a, R> {
    reader: Option<&'a mut R>,
    next: Vec<u64>,
    at: usize,
    read_to: u64,
}

impl<R: Read> Records<'_, R> {
    /// Whether `sequence` can be read; asked for rising sequences.
    fn has(&mut self, sequence: u64) -> Result<bool, ReadFault> {
        while sequence > self.read_to {
            let Some(reader) = &mut self.reader else { return Ok(false) };
            let through = reader.fill(CHUNK, CHUNK_BYTES)?.0;
            if through <= self.read_to {
                self.reader = None;
                return Ok(false);
            }
            self.next.clear();
            self.next.extend(reader.records().map(|(found, _, _)| found.0));
            self.at = 0;
            self.read_to = through;
        }
        let found = self.next.get(self.at) == Some(&sequence);
        self.at += usize::from(found);
        Ok(found)
    }
}
