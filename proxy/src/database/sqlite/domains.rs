//! Customers' domains: all of them where any changed, and importing them.

use super::super::domains::lacking;
use super::links::Ended;
use super::text::unescape_bytes;
use super::{Database, DomainRow, DomainsSeen, EachDomain, Error, ImportedChunk, Stop, Unread, escape};
use rusqlite::TransactionBehavior;

/// The step of the schema from which on domains can be followed.
const FOLLOWED_FROM: u32 = 2;

fn of_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<DomainRow> {
    let text = |column| -> rusqlite::Result<String> {
        Ok(String::from_utf8_lossy(row.get_ref(column)?.as_bytes()?).into_owned())
    };
    Ok(DomainRow {
        host: text(0)?,
        site: text(1)?,
        namespace: unescape_bytes(row.get_ref(2)?.as_bytes()?).into_owned(),
        brand: text(3)?,
        disabled: row.get(4)?,
        deleted: row.get(5)?,
    })
}

impl Database {
    /// Gives every domain, tombstones included, unless nothing changed since `seen`.
    ///
    /// # Errors
    /// A file that is locked, away or another one concerns all of the database, this table's own fault does not.
    pub fn domains(
        &mut self,
        seen: Option<&DomainsSeen>,
        each: &mut EachDomain<'_>,
    ) -> Result<Option<DomainsSeen>, Unread> {
        self.begin().map_err(Unread::Database)?;
        let read = self.domains_in_transaction(seen, each).map_err(|ended| match ended {
            Ended::Stopped => Unread::Database(Error::Stopped),
            Ended::Failed(error) => match self.error("reading domains", error) {
                error @ (Error::Corrupt(_) | Error::NotOurs(_) | Error::Refused(_)) => Unread::Table(error),
                error => Unread::Database(error),
            },
        })?;
        self.check_identity().map_err(Unread::Database)?;
        read.map_err(|found| Unread::Table(Error::not_ours_file(&self.path, lacking(found, FOLLOWED_FROM))))
    }

    fn domains_in_transaction(
        &mut self,
        seen: Option<&DomainsSeen>,
        each: &mut EachDomain<'_>,
    ) -> Result<Result<Option<DomainsSeen>, u32>, Ended> {
        let deadline = &self.deadline;
        let transaction = self.connection.transaction()?;
        let meta = "SELECT (SELECT value FROM meta WHERE key = 'schema'),
                           (SELECT value FROM meta WHERE key = 'domains_clock')";
        let (found, clock): (u32, Option<i64>) =
            transaction.query_row(meta, (), |row| Ok((row.get(0)?, row.get(1)?)))?;
        let Some(clock) = clock else { return Ok(Err(found)) };
        let now = DomainsSeen(clock.to_string());
        if seen == Some(&now) {
            return Ok(Ok(None));
        }
        {
            let sql = "SELECT host, site, namespace, brand, disabled, deleted FROM domains ORDER BY host";
            let mut statement = transaction.prepare_cached(sql)?;
            let mut found = statement.query(())?;
            while let Some(row) = found.next()? {
                deadline.arm();
                each(of_row(row)?).map_err(|Stop| Ended::Stopped)?;
            }
        }
        transaction.commit()?;
        Ok(Ok(Some(now)))
    }

    /// Writes some domains in one transaction; doing it again changes nothing.
    ///
    /// # Errors
    /// As any write; nothing of the chunk is then in the database.
    pub fn import_domains(&mut self, chunk: &[DomainRow]) -> Result<ImportedChunk, Error> {
        if self.schema < FOLLOWED_FROM {
            return Err(Error::not_ours_file(&self.path, lacking(self.schema, FOLLOWED_FROM)));
        }
        self.begin()?;
        self.import_domains_in_transaction(chunk).map_err(|e| self.error("the domains", e))
    }

    fn import_domains_in_transaction(&mut self, chunk: &[DomainRow]) -> rusqlite::Result<ImportedChunk> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut done = ImportedChunk::default();
        {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO domains (host, site, namespace, brand, disabled, deleted)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (host) DO NOTHING",
            )?;
            let mut update = transaction.prepare_cached(
                "UPDATE domains SET site = ?2, namespace = ?3, brand = ?4, disabled = ?5, deleted = ?6
                 WHERE host = ?1 AND (site, namespace, brand, disabled, deleted) IS NOT (?2, ?3, ?4, ?5, ?6)",
            )?;
            for row in chunk {
                self.deadline.arm();
                let namespace = escape(&row.namespace);
                let values = (&row.host, &row.site, namespace, &row.brand, row.disabled, row.deleted);
                if insert.execute(values.clone())? > 0 {
                    done.inserted += 1;
                } else if update.execute(values)? > 0 {
                    done.updated += 1;
                } else {
                    done.unchanged += 1;
                }
            }
        }
        transaction.commit()?;
        Ok(done)
    }
}
