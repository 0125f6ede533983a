//! Why a database did not do what it was asked.

use std::borrow::Cow;
use std::fmt;

/// Why a database did not do what it was asked, divided by what the caller must do.
#[derive(Debug)]
pub enum Error {
    /// The stored bytes contradict themselves: alarm, restore it.
    Corrupt(Fault),
    /// There is none under that name: a wrong address, or it was moved while closed. Alarm, try again
    /// slowly.
    Missing(Fault),
    /// It is no database that this release can use: another program's, no schema, a schema
    /// that is too new or not migrated, or one that somebody changed. Alarm, an operator acts.
    NotOurs(Fault),
    /// What was to be written is not acceptable; writing the same again is refused again.
    Refused(Fault),
    /// What is open is not what stands under its name any more. Close every connection to it, then
    /// open again and take a new complete load through the guard.
    Replaced(Fault),
    /// The callback asked to stop; what was given so far is not complete.
    Stopped,
    /// Locked, out of time, interrupted, out of disk, unreadable: try again later.
    Unavailable(Fault),
}

/// The database, what is wrong with it or was being done, and the cause.
#[derive(Debug)]
pub struct Fault {
    database: String,
    what: Cow<'static, str>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Fault {
    pub(super) fn new(database: impl Into<String>, what: impl Into<Cow<'static, str>>) -> Self {
        Self { database: database.into(), what: what.into(), source: None }
    }

    pub(super) fn because(self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { source: Some(source.into()), ..self }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Corrupt(fault) => {
                write!(f, "database {} is damaged, found while {}", fault.database, fault.what)
            }
            Self::Missing(fault) => write!(f, "database {} does not exist", fault.database),
            Self::NotOurs(fault) => {
                write!(f, "database {} is not one that this release can use: {}", fault.database, fault.what)
            }
            Self::Refused(fault) => write!(f, "database {} refused {}", fault.database, fault.what),
            Self::Replaced(fault) => write!(f, "database {} {}", fault.database, fault.what),
            Self::Stopped => f.write_str("reading the database was stopped"),
            Self::Unavailable(fault) => {
                write!(f, "database {} can't be used now, found while {}", fault.database, fault.what)
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Stopped => None,
            Self::Corrupt(fault)
            | Self::Missing(fault)
            | Self::NotOurs(fault)
            | Self::Refused(fault)
            | Self::Replaced(fault)
            | Self::Unavailable(fault) => match &fault.source {
                Some(source) => Some(source.as_ref()),
                None => None,
            },
        }
    }
}
