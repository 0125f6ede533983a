//! Tests of the pump: exactly once against a model that loses what real systems lose, and against
//! SQLite on real files.

mod journal;
mod model;
mod sqlite;
