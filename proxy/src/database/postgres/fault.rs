//! PostgreSQL's errors, sorted by what the caller must do, each with what an operator can do.

use super::{Error, Fault};
use std::borrow::Cow;
use std::time::Duration;
use tokio_postgres::error::DbError;

/// Why something asked of the server was not done, before the database's name is added.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The server or the connection says no.
    Failed(tokio_postgres::Error),
    /// No answer came in this time.
    Late(Duration),
    /// The callback asked to stop.
    Stopped,
    /// The server's answer is none that its protocol or our schema knows.
    Odd(&'static str),
    /// A statement of the configuration does not do what it is there for.
    Unfit(String),
    /// The connection was given up after an earlier fault.
    Gone,
}

impl From<tokio_postgres::Error> for Trouble {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Failed(error)
    }
}

impl Trouble {
    /// Whether the connection is of no more use: what is still on its way in it belongs to the past.
    pub(super) fn ends_connection(&self) -> bool {
        match self {
            Self::Failed(error) => {
                error.as_db_error().is_none_or(|error| error.code().code().starts_with("57P"))
            }
            Self::Unfit(_) => false,
            Self::Late(_) | Self::Stopped | Self::Odd(_) | Self::Gone => true,
        }
    }

    /// Whether the fault lies in a statement and the tables that it names: others may still do.
    pub(super) fn is_about_statement(&self) -> bool {
        match self {
            Self::Failed(error) => error.code().is_some_and(|state| {
                ["0A", "21", "22", "42", "54", "P0"].iter().any(|class| state.code().starts_with(class))
            }),
            Self::Unfit(_) => true,
            _ => false,
        }
    }

    /// Whether the server went on to serve others, as far as can be told: it said what is wrong, or left one
    /// table's reader waiting.
    pub(super) fn is_said_by_a_working_server(&self) -> bool {
        match self {
            Self::Failed(error) => error.as_db_error().is_some() && !self.ends_connection(),
            Self::Late(_) | Self::Odd(_) | Self::Unfit(_) => true,
            Self::Stopped | Self::Gone => false,
        }
    }

    /// Whether a value was refused for what it is.
    pub(super) fn is_about_data(&self) -> bool {
        match self {
            Self::Failed(error) => error.code().is_some_and(|state| state.code().starts_with("22")),
            _ => false,
        }
    }

    /// Adds what was being done, and to which database.
    pub(super) fn into_error(self, database: &str, doing: impl Into<Cow<'static, str>>) -> Error {
        let doing = doing.into();
        let plain = |doing, why: String| Error::Unavailable(Fault::new(database, doing).because(why));
        match self {
            Self::Failed(error) => sort(database, doing, error),
            Self::Late(limit) => plain(doing, format!("no answer within {} ms", limit.as_millis())),
            Self::Stopped => Error::Stopped,
            Self::Unfit(what) => Error::NotOurs(Fault::new(database, what)),
            Self::Odd(what) => plain(doing, what.to_owned()),
            Self::Gone => plain(doing, "the connection was given up".to_owned()),
        }
    }
}

fn sort(database: &str, doing: Cow<'static, str>, error: tokio_postgres::Error) -> Error {
    let Some(cause) = error.as_db_error() else {
        // What the client says of itself ("db error", "error connecting to server") has its cause behind it.
        let cause: Box<dyn std::error::Error + Send + Sync> = Box::new(error);
        return Error::Unavailable(Fault::new(database, doing).because(cause));
    };
    let (kind, advice) = advise(cause.code().code());
    let what = match advice {
        "" => doing,
        advice => format!("{doing} ({advice})").into(),
    };
    let message = said(cause);
    kind(Fault::new(database, what).because(message))
}

/// The server's own words.
pub(super) fn said(error: &DbError) -> String {
    let mut text = error.message().to_owned();
    for more in [error.detail(), error.hint()].into_iter().flatten() {
        text.push_str("; ");
        text.push_str(more);
    }
    text
}

type Kind = fn(Fault) -> Error;

/// What an SQLSTATE asks of the caller, and of an operator.
fn advise(code: &str) -> (Kind, &'static str) {
    let unavailable: Kind = Error::Unavailable;
    match code {
        "XX001" | "XX002" => (Error::Corrupt, ""),
        "3D000" => (Error::Missing, ""),
        "42P01" | "42703" | "42883" | "3F000" | "42804" => {
            (Error::NotOurs, "a table or column is not there: was it dropped, or the restore not finished?")
        }
        "42501" => (unavailable, "the user lacks a right: grant it what the tables' owner may"),
        "25006" => (
            unavailable,
            "the server takes no writes: point database.url at the primary, or name all servers with target_session_attrs=read-write; behind a transaction pooler, set database.pooler",
        ),
        "55P03" => (unavailable, "somebody keeps it locked for longer than database.timeout allows"),
        "57014" => (unavailable, "it took longer than database.timeout"),
        "57P01" | "57P02" => (unavailable, "the server is being stopped"),
        "57P03" => (unavailable, "the server is starting or recovering"),
        "53100" => (unavailable, "the server's disk is full: make room there"),
        "53200" => (unavailable, "the server is out of memory"),
        "53300" => (unavailable, "the server has no connection left: raise max_connections or close others"),
        _ => match &code[..code.len().min(2)] {
            "28" => (
                unavailable,
                "the server refuses the login: check the user and the password in database.url or database.password_file, and its pg_hba.conf",
            ),
            "22" | "23" => (Error::Refused, ""),
            _ => (unavailable, ""),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_sorted_by_what_must_be_done() {
        let name = |code: &str| match advise(code).0(Fault::new("d", "w")) {
            Error::Unavailable(_) => "unavailable",
            Error::NotOurs(_) => "not ours",
            Error::Missing(_) => "missing",
            Error::Refused(_) => "refused",
            Error::Corrupt(_) => "corrupt",
            _ => "other",
        };
        for code in ["28P01", "28000", "53300", "57P01", "40001", "40P01", "25006", "08006", "57014", ""] {
            assert_eq!(name(code), "unavailable", "{code}");
        }
        assert_eq!((name("42P01"), name("3D000")), ("not ours", "missing"));
        assert_eq!((name("22021"), name("23514"), name("XX001")), ("refused", "refused", "corrupt"));
    }
}
