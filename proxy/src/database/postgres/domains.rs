//! Customers' domains: all of them where any changed, and importing them.

use super::super::domains::lacking;
use super::changes::Snapshot;
use super::copy::stream;
use super::fault::Trouble;
use super::text::unescape_bytes;
use super::{
    Database, DomainRow, DomainsSeen, EachDomain, Error, Fault, ImportedChunk, Stop, Unread, escape,
};
use tokio_postgres::types::Type;

/// The step of the schema from which on domains can be followed.
const FOLLOWED_FROM: u32 = 3;

/// One domain, as COPY gives it.
fn of_fields(
    [host, site, namespace, brand, disabled, deleted]: [Option<&[u8]>; 6],
) -> Result<DomainRow, Trouble> {
    let text = |field: Option<&[u8]>| String::from_utf8_lossy(field.unwrap_or_default()).into_owned();
    let flag = |field: Option<&[u8]>| match field {
        Some([flag]) => Ok(*flag != 0),
        _ => Err(Trouble::Odd("a column of domains is not as this release made it")),
    };
    Ok(DomainRow {
        host: text(host),
        site: text(site),
        namespace: unescape_bytes(namespace.unwrap_or_default()).into_owned(),
        brand: text(brand),
        disabled: flag(disabled)?,
        deleted: flag(deleted)?,
    })
}

impl Database {
    /// Gives every domain, tombstones included, unless nothing changed since `seen`.
    pub(in super::super) fn domains(
        &mut self,
        seen: Option<&DomainsSeen>,
        each: &mut EachDomain<'_>,
    ) -> Result<Option<DomainsSeen>, Unread> {
        let done = self.connection.transaction("ISOLATION LEVEL REPEATABLE READ READ ONLY", async |talk| {
            let sql = format!(
                "SELECT pg_current_snapshot()::text, value::int FROM {}.meta WHERE key = 'schema'",
                self.tables
            );
            let row = talk.one(&sql, &[]).await?;
            let now = DomainsSeen(row.get(0));
            let found = u32::try_from(row.get::<_, i32>(1)).unwrap_or_default();
            if found < FOLLOWED_FROM {
                return Err(Trouble::Unfit(lacking(found, FOLLOWED_FROM)));
            }
            // A standby's snapshots do not name the transactions that still run.
            if let (Some(DomainsSeen(seen)), false) = (seen, self.recovering) {
                // Rows of transactions that were not over when they were read last, and are now: a dump brings
                // numbers of another server, which this one reaches some day or never.
                let oldest = Snapshot::parse(seen)?.watermark().0.to_string();
                let sql = format!(
                    "SELECT EXISTS (SELECT FROM {}.domains WHERE revision >= $1::xid8
                         AND NOT pg_visible_in_snapshot(revision, $2::pg_snapshot)
                         AND pg_visible_in_snapshot(revision, pg_current_snapshot()))",
                    self.tables
                );
                if !talk.one(&sql, &[(&oldest, Type::TEXT), (seen, Type::TEXT)]).await?.get::<_, bool>(0) {
                    return Ok(None);
                }
            }
            // By the key they come in order at once; sorting would keep all of them back until the last is read.
            talk.batch("SET LOCAL enable_sort = off").await?;
            let select = format!(
                "SELECT host, site, namespace, brand::text, disabled, deleted FROM {}.domains ORDER BY host",
                self.tables
            );
            stream(&talk, &select, talk.timeout(), &mut |fields| {
                each(of_fields(fields)?).map_err(|Stop| Trouble::Stopped)
            })
            .await?;
            Ok(Some(now))
        });
        done.map_err(|trouble| {
            let is_about_table = trouble.is_said_by_a_working_server();
            let error = trouble.into_error(self.connection.name(), "reading domains");
            if is_about_table { Unread::Table(error) } else { Unread::Database(error) }
        })
    }

    /// Writes some domains in one transaction; doing it again changes nothing.
    pub(in super::super) fn import_domains(&mut self, chunk: &[DomainRow]) -> Result<ImportedChunk, Error> {
        // The table is older than its triggers: what is written before they are there would reach no edge.
        if self.found < FOLLOWED_FROM {
            let why = lacking(self.found, FOLLOWED_FROM);
            return Err(Error::NotOurs(Fault::new(self.connection.name(), why)));
        }
        let hosts: Vec<_> = chunk.iter().map(|row| row.host.as_str()).collect();
        let sites: Vec<_> = chunk.iter().map(|row| row.site.as_str()).collect();
        let namespaces: Vec<_> = chunk.iter().map(|row| escape(&row.namespace)).collect();
        let brands: Vec<_> = chunk.iter().map(|row| row.brand.as_str()).collect();
        let disabled: Vec<_> = chunk.iter().map(|row| row.disabled).collect();
        let deleted: Vec<_> = chunk.iter().map(|row| row.deleted).collect();
        let sql = format!(
            "INSERT INTO {0}.domains AS known (host, site, namespace, brand, disabled, deleted)
             SELECT host, site, namespace, brand::json, disabled, deleted
                 FROM unnest($1, $2, $3, $4, $5, $6) AS row(host, site, namespace, brand, disabled, deleted)
             ON CONFLICT (host) DO UPDATE SET site = excluded.site, namespace = excluded.namespace,
                 brand = excluded.brand, disabled = excluded.disabled, deleted = excluded.deleted
             WHERE (known.site, known.namespace, known.brand::text, known.disabled, known.deleted)
                 IS DISTINCT FROM (excluded.site, excluded.namespace, excluded.brand::text,
                     excluded.disabled, excluded.deleted)
             RETURNING xmax = 0",
            self.tables
        );
        let rows = self.connection.transaction("", async |talk| {
            let values: &[(&(dyn tokio_postgres::types::ToSql + Sync), Type)] = &[
                (&hosts, Type::TEXT_ARRAY),
                (&sites, Type::TEXT_ARRAY),
                (&namespaces, Type::TEXT_ARRAY),
                (&brands, Type::TEXT_ARRAY),
                (&disabled, Type::BOOL_ARRAY),
                (&deleted, Type::BOOL_ARRAY),
            ];
            talk.query(&sql, values).await
        });
        let rows = rows.map_err(|trouble| trouble.into_error(self.connection.name(), "writing domains"))?;
        let inserted = rows.iter().filter(|row| row.get::<_, bool>(0)).count() as u64;
        let updated = rows.len() as u64 - inserted;
        Ok(ImportedChunk { inserted, updated, unchanged: chunk.len() as u64 - inserted - updated })
    }
}
