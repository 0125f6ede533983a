//! Customers' domains: all of them where any changed, and importing them.

use super::changes::Snapshot;
use super::{Database, DomainRow, DomainsSeen, Error, ImportedChunk, escape, unescape};
use tokio_postgres::types::Type;

/// The step of the schema from which on domains can be followed.
const FOLLOWED_FROM: i32 = 3;

impl Database {
    /// Every domain, tombstones included, unless nothing changed since `seen`; none where the schema is too old.
    pub(in super::super) fn domains(
        &mut self,
        seen: Option<&DomainsSeen>,
    ) -> Result<Option<(Vec<DomainRow>, DomainsSeen)>, Error> {
        let done = self.connection.transaction("ISOLATION LEVEL REPEATABLE READ READ ONLY", async |talk| {
            let sql = format!(
                "SELECT pg_current_snapshot()::text, value::int FROM {}.meta WHERE key = 'schema'",
                self.tables
            );
            let row = talk.one(&sql, &[]).await?;
            let now = DomainsSeen(row.get(0));
            if row.get::<_, i32>(1) < FOLLOWED_FROM {
                return Ok(seen.is_none().then_some((Vec::new(), now)));
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
            let sql = format!(
                "SELECT host, site, namespace, brand::text, disabled, deleted FROM {}.domains ORDER BY host",
                self.tables
            );
            let rows = talk.query(&sql, &[]).await?;
            let rows = rows.iter().map(|row| DomainRow {
                host: row.get(0),
                site: row.get(1),
                namespace: unescape(row.get(2)).into_owned(),
                brand: row.get(3),
                disabled: row.get(4),
                deleted: row.get(5),
            });
            Ok(Some((rows.collect(), now)))
        });
        done.map_err(|trouble| {
            let is_about_table = trouble.is_about_statement();
            match trouble.into_error(self.connection.name(), "reading domains") {
                // A right or a column that is missing here says nothing of the rest of the database.
                Error::Unavailable(fault) if is_about_table => Error::NotOurs(fault),
                error => error,
            }
        })
    }

    /// Writes some domains in one transaction; doing it again changes nothing.
    pub(in super::super) fn import_domains(&mut self, chunk: &[DomainRow]) -> Result<ImportedChunk, Error> {
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
