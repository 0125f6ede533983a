//! Reading the books: cursors, batches, and which sequences of a journal are there.

use super::connection::Parameter;
use super::{Audit, BatchRow, Database, Error, Held};
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

impl Database {
    pub(in super::super) fn held(&mut self, journal: Uuid) -> Result<Held, Error> {
        let sql = format!(
            "SELECT sequence FROM {0}.journals LEFT JOIN {0}.cursors ON cursors.journal = journals.id
             WHERE uuid = $1::uuid",
            self.tables
        );
        let rows = self.read("reading a cursor", &sql, &[(&journal.to_string(), Type::TEXT)])?;
        match rows.first().map(|row| row.get::<_, Option<i64>>(0)) {
            Some(Some(sequence)) => return Ok(Held::Cursor(sequence as u64)),
            Some(None) => return Ok(Held::Absent),
            None => {}
        }
        // Hits whose journal nobody knows may be this one's: its row was lost. Few journals, many hits.
        let sql = format!(
            "WITH RECURSIVE present(id) AS (
                (SELECT min(journal) FROM {0}.hits)
                UNION ALL
                SELECT (SELECT min(journal) FROM {0}.hits WHERE journal > id) FROM present WHERE id IS NOT NULL)
             SELECT EXISTS (SELECT 1 FROM present WHERE id IS NOT NULL AND id NOT IN (SELECT id FROM {0}.journals))",
            self.tables
        );
        let rows = self.read("looking for hits without a journal", &sql, &[])?;
        let strays = rows.first().is_some_and(|row| row.get(0));
        Ok(if strays { Held::Absent } else { Held::Nothing })
    }

    pub(in super::super) fn journals(&mut self) -> Result<Vec<(Uuid, String)>, Error> {
        let sql = format!("SELECT uuid::text, edge FROM {}.journals ORDER BY id", self.tables);
        let rows = self.read("reading journals", &sql, &[])?;
        Ok(rows.iter().filter_map(|row| Some((Uuid::parse_str(row.get(0)).ok()?, row.get(1)))).collect())
    }

    pub(in super::super) fn audit(&mut self, journal: Uuid, first: u64, last: u64) -> Result<Audit, Error> {
        if !self.statements.is_empty() {
            let sql = format!(
                "SELECT coalesce(sum(rows), 0)::int8, coalesce(sum(rejected), 0)::int8 FROM {0}.batches
                 WHERE journal = (SELECT id FROM {0}.journals WHERE uuid = $1::uuid) AND first >= $2 AND last <= $3",
                self.tables
            );
            return self.audit_by(&sql, journal, first, last);
        }
        let count = |table: &str| {
            format!(
                "(SELECT count(*) FROM {0}.{table} WHERE journal = (SELECT id FROM {0}.journals WHERE uuid = $1::uuid)
                 AND sequence BETWEEN $2 AND $3)",
                self.tables
            )
        };
        self.audit_by(&format!("SELECT {}, {}", count("hits"), count("rejected")), journal, first, last)
    }

    fn audit_by(&self, sql: &str, journal: Uuid, first: u64, last: u64) -> Result<Audit, Error> {
        let asked: &[Parameter<'_>] = &[
            (&journal.to_string(), Type::TEXT),
            (&(first as i64), Type::INT8),
            (&(last as i64), Type::INT8),
        ];
        let rows = self.read("counting hits", sql, asked)?;
        let number = |column| rows.first().map_or(0, |row| row.get::<_, i64>(column) as u64);
        Ok(Audit { rows: number(0), rejected: number(1) })
    }

    pub(in super::super) fn hit_sequences(
        &mut self,
        journal: Uuid,
        after: u64,
        rows_max: u32,
        out: &mut Vec<u64>,
    ) -> Result<(), Error> {
        match self.statements.is_empty() {
            true => self.sequences("hits", journal, after, rows_max, out),
            false => self.handed_over(journal, after, rows_max, out),
        }
    }

    pub(in super::super) fn reject_sequences(
        &mut self,
        journal: Uuid,
        after: u64,
        rows_max: u32,
        out: &mut Vec<u64>,
    ) -> Result<(), Error> {
        self.sequences("rejected", journal, after, rows_max, out)
    }

    pub(in super::super) fn batch_of(
        &mut self,
        journal: Uuid,
        sequence: u64,
    ) -> Result<Option<BatchRow>, Error> {
        let found = self.batch("first <= $2 ORDER BY first DESC", journal, sequence)?;
        Ok(found.filter(|batch| batch.last >= sequence))
    }

    pub(in super::super) fn batch_after(
        &mut self,
        journal: Uuid,
        sequence: u64,
    ) -> Result<Option<BatchRow>, Error> {
        self.batch("first > $2 ORDER BY first", journal, sequence)
    }

    fn batch(&self, which: &str, journal: Uuid, sequence: u64) -> Result<Option<BatchRow>, Error> {
        let sql = format!(
            "SELECT first, last, rows, rejected FROM {0}.batches
             WHERE journal = (SELECT id FROM {0}.journals WHERE uuid = $1::uuid) AND {which} LIMIT 1",
            self.tables
        );
        let asked: &[Parameter<'_>] = &[(&journal.to_string(), Type::TEXT), (&(sequence as i64), Type::INT8)];
        let rows = self.read("reading batches", &sql, asked)?;
        Ok(rows.first().map(|row| {
            let number = |column| row.get::<_, i64>(column) as u64;
            BatchRow { first: number(0), last: number(1), rows: number(2), rejected: number(3) }
        }))
    }

    fn sequences(
        &self,
        table: &str,
        journal: Uuid,
        after: u64,
        rows_max: u32,
        out: &mut Vec<u64>,
    ) -> Result<(), Error> {
        let sql = format!(
            "SELECT sequence FROM {0}.{table} WHERE journal = (SELECT id FROM {0}.journals WHERE uuid = $1::uuid)
             AND sequence > $2 ORDER BY sequence LIMIT $3",
            self.tables
        );
        let asked: &[Parameter<'_>] = &[
            (&journal.to_string(), Type::TEXT),
            (&(after as i64), Type::INT8),
            (&i64::from(rows_max), Type::INT8),
        ];
        let rows = self.read("reading sequences", &sql, asked)?;
        out.extend(rows.iter().map(|row| row.get::<_, i64>(0) as u64));
        Ok(())
    }

    /// The sequences that were handed to the platform's statements, as `batches` accounts for them.
    ///
    /// What a batch could not have, for it was damaged in the journal, is taken to be its end.
    fn handed_over(&self, journal: Uuid, after: u64, rows_max: u32, out: &mut Vec<u64>) -> Result<(), Error> {
        const SPANS: i64 = 10_000;
        let sql = format!(
            "SELECT first, least(last, first + rows + rejected - 1) AS through FROM {0}.batches
             WHERE journal = (SELECT id FROM {0}.journals WHERE uuid = $1::uuid)
             AND least(last, first + rows + rejected - 1) > $2 ORDER BY first LIMIT $3",
            self.tables
        );
        let most = out.len() + rows_max as usize;
        let mut rejects = Vec::new();
        let mut at = after;
        while out.len() < most {
            let asked: &[Parameter<'_>] =
                &[(&journal.to_string(), Type::TEXT), (&(at as i64), Type::INT8), (&SPANS, Type::INT8)];
            let spans = self.read("reading batches", &sql, asked)?;
            rejects.clear();
            self.sequences("rejected", journal, at, u32::MAX, &mut rejects)?;
            for span in &spans {
                let (first, through) = (span.get::<_, i64>(0) as u64, span.get::<_, i64>(1) as u64);
                for sequence in first.max(at + 1)..=through {
                    if out.len() == most {
                        return Ok(());
                    }
                    at = sequence;
                    if rejects.binary_search(&sequence).is_err() {
                        out.push(sequence);
                    }
                }
            }
            if spans.len() < SPANS as usize {
                break;
            }
        }
        Ok(())
    }

    fn read(&self, doing: &'static str, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, Error> {
        let rows = self.connection.transaction("READ ONLY", async |talk| talk.query(sql, parameters).await);
        rows.map_err(|trouble| trouble.into_error(self.connection.name(), doing))
    }
}
