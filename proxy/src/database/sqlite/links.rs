//! Reading links whole, by change and one by one; importing and exporting them.

use super::text::unescape_bytes;
use super::{
    Changes, Database, Each, Error, ImportedChunk, LinkRow, Loaded, OwnedLinkRow, Stop, Watermark, escape,
};
use crate::event::UnixMillis;
use rusqlite::{Connection, Params, Row, TransactionBehavior};

/// Rows between two restarts of the deadline while reading many.
const ROWS_PER_DEADLINE: u64 = 256;

/// A `SELECT` of the columns that [`visit`] reads, in its order.
macro_rules! columns {
    ($rest:literal) => {
        concat!(
            "SELECT namespace, token, url, campaign, append, expires_at, disabled, deleted, updated_at ",
            $rest
        )
    };
}

/// A callback that is given link by link, with the moment of its last change.
type EachDated<'a> = dyn FnMut(LinkRow<'_>, i64) -> Result<(), Stop> + 'a;

impl Database {
    /// Whether anybody else wrote to the database since the last call; true at the first.
    ///
    /// # Errors
    /// As any read.
    pub fn changed(&mut self) -> Result<bool, Error> {
        self.begin()?;
        let version: i64 = self
            .connection
            .pragma_query_value(None, "data_version", |row| row.get(0))
            .map_err(|e| self.error("asking for changes", e))?;
        Ok(self.version_seen.replace(version) != Some(version))
    }

    /// Gives every link, tombstones included, as of one moment, in the order of namespace and token.
    ///
    /// # Errors
    /// Whatever went wrong: then what was given is not complete and must be thrown away.
    pub fn load(&mut self, each: &mut Each<'_>) -> Result<Loaded, Error> {
        self.read(columns!("FROM links"), (), &mut |row, _| each(row))
    }

    /// Gives every link that is not deleted, in the order of namespace and token.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn export(&mut self, each: &mut Each<'_>) -> Result<Loaded, Error> {
        self.read(columns!("FROM links WHERE deleted = 0"), (), &mut |row, _| each(row))
    }

    /// Gives the links that changed after `after`, oldest change first, `rows_max` at most, and
    /// returns where to go on.
    ///
    /// A watermark below `after` says that the database knows less than was seen before: it is an
    /// older copy, and only a complete load tells what it holds.
    ///
    /// # Errors
    /// As [`Self::load`]; where to go on is then still `after`.
    pub fn changes(
        &mut self,
        after: Watermark,
        rows_max: u32,
        each: &mut Each<'_>,
    ) -> Result<Changes, Error> {
        let mut last = after;
        let sql = columns!("FROM links WHERE updated_at > ?1 ORDER BY updated_at LIMIT ?2");
        let loaded = self.read(sql, (after.0, rows_max), &mut |row, updated_at| {
            last = Watermark(updated_at);
            each(row)
        })?;
        let more = loaded.rows == u64::from(rows_max);
        Ok(Changes { more, ..Changes::up_to(if more { last } else { loaded.watermark }) })
    }

    /// One link, or its tombstone.
    ///
    /// # Errors
    /// As any read.
    pub fn lookup(&mut self, namespace: &[u8], token: &[u8]) -> Result<Option<OwnedLinkRow>, Error> {
        let sql = columns!("FROM links WHERE namespace = ?1 AND token = ?2");
        self.begin()?;
        let mut found = None;
        let asked = (escape(namespace), escape(token));
        visit(&self.connection, sql, asked, &mut |row, _| {
            found = Some(row.into());
            Ok(())
        })
        .map_err(|e| e.into_error(self))?;
        Ok(found)
    }

    /// The links of one token in all namespaces, tombstones included.
    ///
    /// # Errors
    /// As any read.
    pub fn show(&mut self, token: &[u8]) -> Result<Vec<OwnedLinkRow>, Error> {
        // Hops from namespace to namespace by the key; there are few, and tokens by the million.
        let sql = "WITH RECURSIVE spaces(name) AS (
                SELECT min(namespace) FROM links
                UNION ALL
                SELECT (SELECT min(namespace) FROM links WHERE namespace > name) FROM spaces WHERE name IS NOT NULL)
            SELECT namespace, token, url, campaign, append, expires_at, disabled, deleted, updated_at
            FROM spaces CROSS JOIN links ON namespace = name AND token = ?1";
        self.begin()?;
        let mut found = Vec::new();
        visit(&self.connection, sql, [escape(token)], &mut |row, _| {
            found.push(row.into());
            Ok(())
        })
        .map_err(|e| e.into_error(self))?;
        Ok(found)
    }

    /// Writes some links in one transaction: new ones are inserted, different ones updated. Doing
    /// it again changes nothing.
    ///
    /// The deadline holds for each link, the write lock for the whole chunk: a few thousand links
    /// keep delivery waiting for a few hundredths of a second.
    ///
    /// # Errors
    /// As any write; nothing of the chunk is then in the database.
    pub fn import(&mut self, chunk: &[OwnedLinkRow]) -> Result<ImportedChunk, Error> {
        self.begin()?;
        self.import_in_transaction(chunk).map_err(|e| self.error("the links", e))
    }

    fn import_in_transaction(&mut self, chunk: &[OwnedLinkRow]) -> rusqlite::Result<ImportedChunk> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut done = ImportedChunk::default();
        {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO links (namespace, token, url, campaign, append, expires_at, disabled, deleted)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (namespace, token) DO NOTHING",
            )?;
            let mut update = transaction.prepare_cached(
                "UPDATE links SET url = ?3, campaign = ?4, append = ?5, expires_at = ?6, disabled = ?7, deleted = ?8
                 WHERE namespace = ?1 AND token = ?2
                 AND (url, campaign, append, expires_at, disabled, deleted) IS NOT (?3, ?4, ?5, ?6, ?7, ?8)",
            )?;
            for link in chunk {
                self.deadline.arm();
                let expires_at = link.expires_at.map(|at| i64::try_from(at.0).unwrap_or(i64::MAX));
                let values = (
                    escape(&link.namespace),
                    escape(&link.token),
                    &link.url,
                    &link.campaign,
                    link.append,
                    expires_at,
                    link.disabled,
                    link.deleted,
                );
                if insert.execute(values.clone())? > 0 {
                    done.inserted += 1;
                } else if update.execute(values)? > 0 {
                    done.updated += 1;
                } else {
                    done.unchanged += 1;
                }
            }
        }
        self.deadline.arm();
        transaction.commit()?;
        Ok(done)
    }

    /// Reads many rows in one read transaction, and believes them only if the file is still the
    /// same afterwards.
    fn read(&mut self, sql: &str, params: impl Params, each: &mut EachDated<'_>) -> Result<Loaded, Error> {
        self.begin()?;
        let loaded = self.read_in_transaction(sql, params, each).map_err(|e| e.into_error(self))?;
        self.check_identity()?;
        Ok(loaded)
    }

    fn read_in_transaction(
        &mut self,
        sql: &str,
        params: impl Params,
        each: &mut EachDated<'_>,
    ) -> Result<Loaded, Ended> {
        // Pages from before could hide that the file was overwritten.
        self.connection.execute_batch("PRAGMA shrink_memory")?;
        let deadline = &self.deadline;
        let transaction = self.connection.transaction()?;
        let clock = "SELECT value FROM meta WHERE key = 'links_clock'";
        let watermark = Watermark(transaction.query_row(clock, (), |row| row.get(0))?);
        let mut rows = 0;
        visit(&transaction, sql, params, &mut |row, updated_at| {
            rows += 1;
            if rows % ROWS_PER_DEADLINE == 0 {
                deadline.arm();
            }
            each(row, updated_at)
        })?;
        transaction.commit()?;
        Ok(Loaded { rows, watermark })
    }

    pub(super) fn begin(&self) -> Result<(), Error> {
        self.check_identity()?;
        self.deadline.arm();
        Ok(())
    }
}

/// Why reading ended before its end.
pub(super) enum Ended {
    Failed(rusqlite::Error),
    Stopped,
}

impl From<rusqlite::Error> for Ended {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(error)
    }
}

impl Ended {
    fn into_error(self, database: &Database) -> Error {
        match self {
            Self::Failed(error) => database.error("reading links", error),
            Self::Stopped => Error::Stopped,
        }
    }
}

fn visit(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    each: &mut EachDated<'_>,
) -> Result<(), Ended> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    while let Some(row) = rows.next()? {
        let namespace = unescape_bytes(bytes(row, 0)?);
        let token = unescape_bytes(bytes(row, 1)?);
        let expires_at: Option<i64> = row.get(5)?;
        let link = LinkRow {
            namespace: &namespace,
            token: &token,
            url: text(bytes(row, 2)?),
            campaign: text(bytes(row, 3)?),
            append: row.get(4)?,
            expires_at: expires_at.map(|at| UnixMillis(u64::try_from(at).unwrap_or(0))),
            disabled: row.get(6)?,
            deleted: row.get(7)?,
        };
        each(link, row.get(8)?).map_err(|Stop| Ended::Stopped)?;
    }
    Ok(())
}

fn bytes<'a>(row: &'a Row<'_>, column: usize) -> rusqlite::Result<&'a [u8]> {
    Ok(row.get_ref(column)?.as_bytes()?)
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap_or("")
}
