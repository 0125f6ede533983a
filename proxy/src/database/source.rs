//! Where the database is found, and how it is shown to people.

use super::postgres::Settings;
use std::fmt;
use std::path::PathBuf;

/// Which database is used, and how to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A SQLite file.
    Sqlite(PathBuf),
    /// A PostgreSQL server.
    Postgres(Box<Settings>),
}

impl Source {
    /// The same without a platform's own tables: what is asked of Holdfast's alone.
    #[must_use]
    pub fn bare(&self) -> Self {
        match self {
            Self::Sqlite(_) => self.clone(),
            Self::Postgres(settings) => {
                let settings = (**settings).clone().with_reading(None).with_statements(Vec::new());
                Self::Postgres(Box::new(settings))
            }
        }
    }

    /// The kind of database, as it names the sink in metrics and logs.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "sqlite",
            Self::Postgres(_) => "postgres",
        }
    }
}

/// As a person would name it, without secrets.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => path.display().fmt(f),
            Self::Postgres(settings) => settings.fmt(f),
        }
    }
}
