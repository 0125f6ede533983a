//! Reading links whole, by change and one by one; importing and exporting them.

use super::text::unescape_bytes;
use super::{Database, Error, escape};
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

/// A moment of the database's own clock of changes; see [`Database::changes`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Watermark(pub i64);

/// One link as it stands in the database, borrowed for one call.
///
/// A text that is no UTF-8 is given as an empty one: an empty URL passes no approval, so such a
/// link is listed as refused instead of failing the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkRow<'a> {
    /// The namespace's bytes.
    pub namespace: &'a [u8],
    /// The token's bytes, as they stand in the path of a request.
    pub token: &'a [u8],
    /// The target as somebody wrote it, not yet approved.
    pub url: &'a str,
    /// The campaign, or nothing.
    pub campaign: &'a str,
    /// Whether the route's `append` applies.
    pub append: bool,
    /// From when on the link is over.
    pub expires_at: Option<UnixMillis>,
    /// Whether it is switched off.
    pub disabled: bool,
    /// Whether this is the tombstone of a deleted link.
    pub deleted: bool,
    /// The [`Watermark`] of its last change.
    pub updated_at: i64,
}

/// As [`LinkRow`], owned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnedLinkRow {
    /// The namespace's bytes.
    pub namespace: Vec<u8>,
    /// The token's bytes.
    pub token: Vec<u8>,
    /// The target.
    pub url: String,
    /// The campaign, or nothing.
    pub campaign: String,
    /// Whether the route's `append` applies.
    pub append: bool,
    /// From when on the link is over.
    pub expires_at: Option<UnixMillis>,
    /// Whether it is switched off.
    pub disabled: bool,
    /// Whether it is a tombstone.
    pub deleted: bool,
    /// The [`Watermark`] of its last change; not used when it is imported.
    pub updated_at: i64,
}

impl OwnedLinkRow {
    /// The same, borrowed.
    #[must_use]
    pub fn as_row(&self) -> LinkRow<'_> {
        LinkRow {
            namespace: &self.namespace,
            token: &self.token,
            url: &self.url,
            campaign: &self.campaign,
            append: self.append,
            expires_at: self.expires_at,
            disabled: self.disabled,
            deleted: self.deleted,
            updated_at: self.updated_at,
        }
    }
}

impl From<LinkRow<'_>> for OwnedLinkRow {
    fn from(row: LinkRow<'_>) -> Self {
        Self {
            namespace: row.namespace.into(),
            token: row.token.into(),
            url: row.url.into(),
            campaign: row.campaign.into(),
            append: row.append,
            expires_at: row.expires_at,
            disabled: row.disabled,
            deleted: row.deleted,
            updated_at: row.updated_at,
        }
    }
}

/// What a callback returns to end a load early; the load then fails with [`Error::Stopped`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop;

/// A complete load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// How many rows were given, tombstones included.
    pub rows: u64,
    /// From here on [`Database::changes`] gives what this load has not seen.
    pub watermark: Watermark,
}

/// What became of one chunk of an import.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImportedChunk {
    /// Links that were new.
    pub inserted: u64,
    /// Links that were different.
    pub updated: u64,
    /// Links that stood there just so.
    pub unchanged: u64,
}

/// A callback that is given link by link.
type Each<'a> = dyn FnMut(LinkRow<'_>) -> Result<(), Stop> + 'a;

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
        self.read(columns!("FROM links"), (), each)
    }

    /// Gives every link that is not deleted, in the order of namespace and token.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn export(&mut self, each: &mut Each<'_>) -> Result<Loaded, Error> {
        self.read(columns!("FROM links WHERE deleted = 0"), (), each)
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
    ) -> Result<Watermark, Error> {
        let mut last = after;
        let mut given = 0;
        let sql = columns!("FROM links WHERE updated_at > ?1 ORDER BY updated_at LIMIT ?2");
        let loaded = self.read(sql, (after.0, rows_max), &mut |row| {
            last = Watermark(row.updated_at);
            given += 1;
            each(row)
        })?;
        Ok(if given < rows_max { loaded.watermark } else { last })
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
        visit(&self.connection, sql, asked, &mut |row| {
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
        visit(&self.connection, sql, [escape(token)], &mut |row| {
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
    fn read(&mut self, sql: &str, params: impl Params, each: &mut Each<'_>) -> Result<Loaded, Error> {
        self.begin()?;
        let loaded = self.read_in_transaction(sql, params, each).map_err(|e| e.into_error(self))?;
        self.check_identity()?;
        Ok(loaded)
    }

    fn read_in_transaction(
        &mut self,
        sql: &str,
        params: impl Params,
        each: &mut Each<'_>,
    ) -> Result<Loaded, Ended> {
        // Pages from before could hide that the file was overwritten.
        self.connection.execute_batch("PRAGMA shrink_memory")?;
        let deadline = &self.deadline;
        let transaction = self.connection.transaction()?;
        let clock = "SELECT value FROM meta WHERE key = 'links_clock'";
        let watermark = Watermark(transaction.query_row(clock, (), |row| row.get(0))?);
        let mut rows = 0;
        visit(&transaction, sql, params, &mut |row| {
            rows += 1;
            if rows % ROWS_PER_DEADLINE == 0 {
                deadline.arm();
            }
            each(row)
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
enum Ended {
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

fn visit(connection: &Connection, sql: &str, params: impl Params, each: &mut Each<'_>) -> Result<(), Ended> {
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
            updated_at: row.get(8)?,
        };
        each(link).map_err(|Stop| Ended::Stopped)?;
    }
    Ok(())
}

fn bytes<'a>(row: &'a Row<'_>, column: usize) -> rusqlite::Result<&'a [u8]> {
    Ok(row.get_ref(column)?.as_bytes()?)
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap_or("")
}
