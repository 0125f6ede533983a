//! Tests of the pump: exactly once against a model that loses what real systems lose, against SQLite
//! on real files, and against a real PostgreSQL server.

mod journal;
mod model;
mod postgres;
mod sqlite;
