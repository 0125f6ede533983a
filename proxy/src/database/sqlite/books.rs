//! Reading the books: cursors, batches, and which sequences of a journal are there.

use super::{Audit, BatchRow, Database, Error, Held};
use rusqlite::{Connection, OptionalExtension as _};
use uuid::Uuid;

impl Database {
    /// What is here of a journal.
    ///
    /// # Errors
    /// As any read.
    pub fn held(&mut self, journal: Uuid) -> Result<Held, Error> {
        self.begin()?;
        held(&self.connection, journal).map_err(|e| self.error("reading a cursor", e))
    }

    /// The journals that were ever delivered here: uuid and edge.
    ///
    /// # Errors
    /// As any read.
    pub fn journals(&mut self) -> Result<Vec<(Uuid, String)>, Error> {
        self.begin()?;
        let all = || -> rusqlite::Result<Vec<(String, String)>> {
            let mut statement = self.connection.prepare("SELECT uuid, edge FROM journals ORDER BY id")?;
            statement.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        };
        let all = all().map_err(|e| self.error("reading journals", e))?;
        Ok(all.into_iter().filter_map(|(uuid, edge)| Some((Uuid::parse_str(&uuid).ok()?, edge))).collect())
    }

    /// Counts what is there of a stretch of a journal, both ends included.
    ///
    /// # Errors
    /// As any read.
    pub fn audit(&mut self, journal: Uuid, first: u64, last: u64) -> Result<Audit, Error> {
        self.begin()?;
        let count = |table: &str| {
            let sql = format!(
                "SELECT count(*) FROM {table} WHERE journal = (SELECT id FROM journals WHERE uuid = ?1)
                 AND sequence BETWEEN ?2 AND ?3"
            );
            let mut statement = self.connection.prepare_cached(&sql)?;
            statement.query_row((journal.to_string(), first as i64, last as i64), |row| row.get::<_, i64>(0))
        };
        let audit = || Ok(Audit { rows: count("hits")? as u64, rejected: count("rejected")? as u64 });
        audit().map_err(|e| self.error("counting hits", e))
    }

    /// Gives the sequences of a journal in `hits` above `after` in rising order, `rows_max` at most.
    ///
    /// # Errors
    /// As any read.
    pub fn hit_sequences(
        &mut self,
        journal: Uuid,
        after: u64,
        rows_max: u32,
        out: &mut Vec<u64>,
    ) -> Result<(), Error> {
        self.sequences("hits", journal, after, rows_max, out)
    }

    /// As [`Self::hit_sequences`], of `rejected`.
    ///
    /// # Errors
    /// As any read.
    pub fn reject_sequences(
        &mut self,
        journal: Uuid,
        after: u64,
        rows_max: u32,
        out: &mut Vec<u64>,
    ) -> Result<(), Error> {
        self.sequences("rejected", journal, after, rows_max, out)
    }

    /// The batch that accounts for a sequence; of several, the one that begins last.
    ///
    /// # Errors
    /// As any read.
    pub fn batch_of(&mut self, journal: Uuid, sequence: u64) -> Result<Option<BatchRow>, Error> {
        let found = self.batch("first <= ?2 ORDER BY first DESC", journal, sequence)?;
        Ok(found.filter(|batch| batch.last >= sequence))
    }

    /// The first batch that begins after a sequence.
    ///
    /// # Errors
    /// As any read.
    pub fn batch_after(&mut self, journal: Uuid, sequence: u64) -> Result<Option<BatchRow>, Error> {
        self.batch("first > ?2 ORDER BY first", journal, sequence)
    }

    fn batch(&self, which: &'static str, journal: Uuid, sequence: u64) -> Result<Option<BatchRow>, Error> {
        self.begin()?;
        let sql = format!(
            "SELECT first, last, rows, rejected FROM batches
             WHERE journal = (SELECT id FROM journals WHERE uuid = ?1) AND {which} LIMIT 1"
        );
        let read = || {
            let mut statement = self.connection.prepare_cached(&sql)?;
            let mut rows = statement.query((journal.to_string(), sequence as i64))?;
            let Some(row) = rows.next()? else { return Ok(None) };
            let number = |column| row.get::<_, i64>(column).map(|n| n as u64);
            Ok(Some(BatchRow { first: number(0)?, last: number(1)?, rows: number(2)?, rejected: number(3)? }))
        };
        read().map_err(|e| self.error("reading batches", e))
    }

    fn sequences(
        &self,
        table: &str,
        journal: Uuid,
        after: u64,
        rows_max: u32,
        out: &mut Vec<u64>,
    ) -> Result<(), Error> {
        self.begin()?;
        let sql = format!(
            "SELECT sequence FROM {table} WHERE journal = (SELECT id FROM journals WHERE uuid = ?1)
             AND sequence > ?2 ORDER BY sequence LIMIT ?3"
        );
        let mut all = || {
            let mut statement = self.connection.prepare_cached(&sql)?;
            let mut rows = statement.query((journal.to_string(), after as i64, rows_max))?;
            while let Some(row) = rows.next()? {
                out.push(row.get::<_, i64>(0)? as u64);
            }
            Ok(())
        };
        all().map_err(|e| self.error("reading sequences", e))
    }
}

fn held(connection: &Connection, journal: Uuid) -> rusqlite::Result<Held> {
    let known = connection
        .prepare_cached(
            "SELECT sequence FROM journals LEFT JOIN cursors ON cursors.journal = journals.id WHERE uuid = ?1",
        )?
        .query_row([journal.to_string()], |row| row.get::<_, Option<i64>>(0))
        .optional()?;
    match known {
        Some(Some(sequence)) => return Ok(Held::Cursor(sequence as u64)),
        Some(None) => return Ok(Held::Absent),
        None => {}
    }
    // Hits whose journal nobody knows may be this one's: its row was lost. Few journals, many hits.
    let strays: bool = connection
        .prepare_cached(
            "WITH RECURSIVE present(id) AS (
                SELECT min(journal) FROM hits
                UNION ALL
                SELECT (SELECT min(journal) FROM hits WHERE journal > id) FROM present WHERE id IS NOT NULL)
             SELECT EXISTS (SELECT 1 FROM present WHERE id IS NOT NULL AND id NOT IN (SELECT id FROM journals))",
        )?
        .query_row((), |row| row.get(0))?;
    Ok(if strays { Held::Absent } else { Held::Nothing })
}
