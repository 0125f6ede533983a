//! Reading links whole and one by one; importing and exporting them.

use super::changes::Snapshot;
use super::copy::stream;
use super::fault::Trouble;
use super::foreign::mark;
use super::settings::Pooler;
use super::text::unescape_bytes;
use super::value::Moment;
use super::{Database, Each, Error, Fault, ImportedChunk, LinkRow, Loaded, OwnedLinkRow, Stop, escape};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

/// Longest time before the first row of all links, in statements'.
const FIRST_ROW: u32 = 15;
/// How many columns a statement about links begins with.
pub(super) const COUNT: usize = 8;

/// The columns of a link, as a statement gives them.
#[derive(Clone, Copy)]
pub(super) struct Columns<'a> {
    namespace: &'a [u8],
    token: &'a [u8],
    url: &'a str,
    campaign: &'a str,
    append: bool,
    expires_at: Option<Moment>,
    disabled: bool,
    deleted: bool,
}

impl<'a> Columns<'a> {
    pub(super) const NAMES: &'static str =
        "namespace, token, url, campaign, append, expires_at, disabled, deleted";

    pub(super) fn of(row: &'a Row) -> Result<Self, Trouble> {
        Ok(Self {
            namespace: row.try_get::<_, &str>(0)?.as_bytes(),
            token: row.try_get::<_, &str>(1)?.as_bytes(),
            url: row.try_get(2)?,
            campaign: row.try_get(3)?,
            append: row.try_get(4)?,
            expires_at: row.try_get(5)?,
            disabled: row.try_get(6)?,
            deleted: row.try_get(7)?,
        })
    }

    fn of_fields(fields: [Option<&'a [u8]>; COUNT]) -> Result<Self, Trouble> {
        const ODD: Trouble = Trouble::Odd("a column of links is not as this release made it");
        let [namespace, token, url, campaign, append, expires_at, disabled, deleted] = fields;
        let text = |field: Option<&'a [u8]>| str::from_utf8(field.unwrap_or_default()).unwrap_or("");
        let flag = |field: Option<&'a [u8]>| match field {
            Some([flag]) => Ok(*flag != 0),
            _ => Err(ODD),
        };
        let moment = |bytes: &'a [u8]| bytes.try_into().map(i64::from_be_bytes).map_err(|_| ODD);
        Ok(Self {
            namespace: namespace.unwrap_or_default(),
            token: token.unwrap_or_default(),
            url: text(url),
            campaign: text(campaign),
            append: flag(append)?,
            expires_at: expires_at.map(moment).transpose()?.map(Moment::of_micros),
            disabled: flag(disabled)?,
            deleted: flag(deleted)?,
        })
    }

    pub(super) fn give(self, each: &mut Each<'_>) -> Result<(), Trouble> {
        let link = LinkRow {
            namespace: &unescape_bytes(self.namespace),
            token: &unescape_bytes(self.token),
            url: self.url,
            campaign: self.campaign,
            append: self.append,
            expires_at: self.expires_at.map(|Moment(at)| at),
            disabled: self.disabled,
            deleted: self.deleted,
        };
        each(link).map_err(|Stop| Trouble::Stopped)
    }
}

impl Database {
    pub(in super::super) fn load(&mut self, each: &mut Each<'_>) -> Result<Loaded, Error> {
        self.stream("", each)
    }

    pub(in super::super) fn export(&mut self, each: &mut Each<'_>) -> Result<Loaded, Error> {
        self.stream("WHERE NOT deleted ORDER BY namespace, token", each)
    }

    /// Gives rows as they come, of one snapshot; it may take long, but never long without a row.
    fn stream(&self, which: &str, each: &mut Each<'_>) -> Result<Loaded, Error> {
        let foreign = match &self.reading {
            // Before the snapshot: whatever is written later must be read later.
            Some(reading) => {
                let mark = self.connection.run("asking for the time", async |talk| mark(&talk).await)?;
                Some((reading, mark))
            }
            None => None,
        };
        let done = self.connection.transaction("ISOLATION LEVEL REPEATABLE READ READ ONLY", async |talk| {
            let (select, watermark) = match foreign {
                Some((reading, mark)) => {
                    let all = self.foreign_preload(&talk, reading).await?;
                    (format!("SELECT {} FROM (\n{all}\n) AS link {which}", Columns::NAMES), mark)
                }
                None => {
                    let sql = "SELECT pg_current_snapshot()::text";
                    let snapshot = talk.one(sql, &[]).await?.get::<_, String>(0);
                    let watermark = Snapshot::parse(&snapshot)?.watermark();
                    (format!("SELECT {} FROM {}.links {which}", Columns::NAMES, self.tables), watermark)
                }
            };
            let mut rows = 0;
            // The server may have to sort them all before it gives one.
            let patience = talk.timeout().saturating_mul(FIRST_ROW);
            stream(&talk, &select, patience, &mut |fields| {
                rows += 1;
                Columns::of_fields(fields)?.give(each)
            })
            .await?;
            Ok(Loaded { rows, watermark })
        });
        done.map_err(|trouble| trouble.into_error(self.connection.name(), "reading links"))
    }

    pub(in super::super) fn lookup(
        &mut self,
        namespace: &[u8],
        token: &[u8],
    ) -> Result<Option<OwnedLinkRow>, Error> {
        if let Some(reading) = self.reading.clone() {
            return self.foreign_lookup(&reading, namespace, token);
        }
        let sql = format!(
            "SELECT {} FROM {}.links WHERE namespace = $1 AND token = $2",
            Columns::NAMES,
            self.tables
        );
        let (namespace, token) = (escape(namespace), escape(token));
        let prepared = &mut self.lookup;
        let rows = if self.connection.pooler() == Pooler::None {
            self.connection.try_run(async |talk| {
                let statement = match prepared {
                    Some(statement) => statement,
                    None => prepared.insert(talk.prepare(&sql).await?),
                };
                owned(&talk.bounded(talk.client.query(&*statement, &[&namespace, &token])).await?)
            })
        } else {
            self.connection.transaction("READ ONLY", async |talk| {
                owned(&talk.query(&sql, &[(&namespace, Type::TEXT), (&token, Type::TEXT)]).await?)
            })
        };
        let mut found =
            rows.map_err(|trouble| trouble.into_error(self.connection.name(), "looking a link up"))?;
        Ok(found.pop())
    }

    pub(in super::super) fn show(&mut self, token: &[u8]) -> Result<Vec<OwnedLinkRow>, Error> {
        if let Some(reading) = self.reading.clone() {
            let found = self.foreign_lookup(&reading, reading.namespace.as_bytes(), token)?;
            return Ok(found.into_iter().collect());
        }
        // Hops from namespace to namespace by the key; there are few, and tokens by the million.
        let sql = format!(
            "WITH RECURSIVE spaces(name) AS (
                (SELECT min(namespace) FROM {0}.links)
                UNION ALL
                SELECT (SELECT min(namespace) FROM {0}.links WHERE namespace > name) FROM spaces WHERE name IS NOT NULL)
             SELECT {1} FROM spaces JOIN {0}.links ON namespace = name AND token = $1 ORDER BY namespace",
            self.tables,
            Columns::NAMES
        );
        let token = escape(token);
        let rows = self
            .connection
            .transaction("READ ONLY", async |talk| owned(&talk.query(&sql, &[(&token, Type::TEXT)]).await?));
        rows.map_err(|trouble| trouble.into_error(self.connection.name(), "looking a token up"))
    }

    pub(in super::super) fn import(&mut self, chunk: &[OwnedLinkRow]) -> Result<ImportedChunk, Error> {
        if self.reading.is_some() {
            let what = "links: they are read from tables of the platform (links.preload), write them there";
            return Err(Error::Refused(Fault::new(self.connection.name(), what)));
        }
        // Of a key that stands twice the later one counts; one statement would refuse both.
        let mut newest = std::collections::BTreeMap::new();
        for link in chunk {
            newest.insert((&link.namespace, &link.token), link);
        }
        let each = || newest.values();
        let namespaces: Vec<_> = each().map(|link| escape(&link.namespace)).collect();
        let tokens: Vec<_> = each().map(|link| escape(&link.token)).collect();
        let urls: Vec<_> = each().map(|link| link.url.as_str()).collect();
        let campaigns: Vec<_> = each().map(|link| link.campaign.as_str()).collect();
        let appends: Vec<_> = each().map(|link| link.append).collect();
        let expires: Vec<_> = each().map(|link| link.expires_at.map(Moment)).collect();
        let disabled: Vec<_> = each().map(|link| link.disabled).collect();
        let deleted: Vec<_> = each().map(|link| link.deleted).collect();
        let sql = format!(
            "INSERT INTO {0}.links AS known ({1})
             SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8)
             ON CONFLICT (namespace, token) DO UPDATE SET url = excluded.url, campaign = excluded.campaign,
                 append = excluded.append, expires_at = excluded.expires_at,
                 disabled = excluded.disabled, deleted = excluded.deleted
             WHERE (known.url, known.campaign, known.append, known.expires_at, known.disabled, known.deleted)
                 IS DISTINCT FROM (excluded.url, excluded.campaign, excluded.append, excluded.expires_at,
                     excluded.disabled, excluded.deleted)
             RETURNING xmax = 0",
            self.tables,
            Columns::NAMES
        );
        let rows = self.connection.transaction("", async |talk| {
            talk.query(
                &sql,
                &[
                    (&namespaces, Type::TEXT_ARRAY),
                    (&tokens, Type::TEXT_ARRAY),
                    (&urls, Type::TEXT_ARRAY),
                    (&campaigns, Type::TEXT_ARRAY),
                    (&appends, Type::BOOL_ARRAY),
                    (&expires, Type::TIMESTAMPTZ_ARRAY),
                    (&disabled, Type::BOOL_ARRAY),
                    (&deleted, Type::BOOL_ARRAY),
                ],
            )
            .await
        });
        let rows = rows.map_err(|trouble| trouble.into_error(self.connection.name(), "writing links"))?;
        let inserted = rows.iter().filter(|row| row.get::<_, bool>(0)).count() as u64;
        let updated = rows.len() as u64 - inserted;
        Ok(ImportedChunk { inserted, updated, unchanged: chunk.len() as u64 - inserted - updated })
    }
}

pub(super) fn owned(rows: &[Row]) -> Result<Vec<OwnedLinkRow>, Trouble> {
    let mut found = Vec::with_capacity(rows.len());
    for row in rows {
        Columns::of(row)?.give(&mut |link| {
            found.push(link.into());
            Ok(())
        })?;
    }
    Ok(found)
}
