//! Which edge orders a certificate, and what it was issued, sealed for the others.

use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::connection::Parameter;
use super::{Database, Error, Fault};

/// The step that makes the table.
const STEP: u32 = 2;

impl Database {
    /// Takes `name` for `edge`, by the server's clock, unless another edge has it; whether it is taken now.
    pub(in super::super) fn take_order(
        &mut self,
        name: &str,
        edge: &str,
        lease: Duration,
    ) -> Result<bool, Error> {
        let sql = format!(
            "INSERT INTO {0}.orders AS mine (name, holder, lease_until)
             VALUES ($1, $2, clock_timestamp() + $3 * interval '1 ms')
             ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, lease_until = excluded.lease_until
             WHERE mine.lease_until <= clock_timestamp() OR mine.holder = excluded.holder
             RETURNING true",
            self.tables
        );
        let lease_ms = i64::try_from(lease.as_millis()).unwrap_or(i64::MAX) as f64;
        let asked: &[Parameter<'_>] = &[(&name, Type::TEXT), (&edge, Type::TEXT), (&lease_ms, Type::FLOAT8)];
        Ok(!self.order("taking a name to order", &sql, asked)?.is_empty())
    }

    /// Gives `name` back, if `edge` has it.
    pub(in super::super) fn release_order(&mut self, name: &str, edge: &str) -> Result<(), Error> {
        let sql = format!(
            "UPDATE {}.orders SET lease_until = clock_timestamp() WHERE name = $1 AND holder = $2",
            self.tables
        );
        self.order("giving a name back", &sql, &[(&name, Type::TEXT), (&edge, Type::TEXT)]).map(drop)
    }

    /// What was left last for `name`.
    pub(in super::super) fn shared_certificate(&mut self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let sql = format!("SELECT sealed FROM {}.orders WHERE name = $1", self.tables);
        let rows = self.order("looking for another edge's certificate", &sql, &[(&name, Type::TEXT)])?;
        Ok(rows.first().and_then(|row| row.get(0)))
    }

    /// Leaves `sealed` for the other edges. Names that nobody has ordered for longer than any certificate
    /// is good are forgotten.
    pub(in super::super) fn share_certificate(&mut self, name: &str, sealed: &[u8]) -> Result<(), Error> {
        let sql = format!(
            "WITH gone AS (DELETE FROM {0}.orders WHERE lease_until < clock_timestamp() - interval '400 days')
             UPDATE {0}.orders SET sealed = $2 WHERE name = $1",
            self.tables
        );
        self.order(
            "leaving a certificate for other edges",
            &sql,
            &[(&name, Type::TEXT), (&sealed, Type::BYTEA)],
        )
        .map(drop)
    }

    fn order(&self, doing: &'static str, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, Error> {
        if self.found < STEP {
            let why = format!(
                "its schema is {}, and the table orders comes with {STEP}: run `holdfast migrate`",
                self.found
            );
            return Err(Error::NotOurs(Fault::new(self.connection.name(), why)));
        }
        let rows = self.connection.transaction("", async |talk| talk.query(sql, parameters).await);
        rows.map_err(|trouble| trouble.into_error(self.connection.name(), doing))
    }
}
