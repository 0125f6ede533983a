//! What a numbered step of a schema is, and who may take it.

/// One step of the schema; its SQL runs in one transaction, together with the new number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Migration {
    /// The schema's number after this step; steps are numbered 1, 2, 3, ….
    pub(super) number: u32,
    /// The oldest schema number whose programs can still work with the result: the release before
    /// must be able to go on while an upgrade is under way.
    pub(super) compatible: u32,
    /// What is run.
    pub(super) sql: &'static str,
}

/// Whether the program may change the schema by itself (`database.migrate`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Migrate {
    /// Steps that are missing are taken when the database is opened for writing.
    Auto,
    /// Steps that are missing are an error that names them, where they are needed; an operator takes them.
    Never,
}
