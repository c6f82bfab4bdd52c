//! What can go wrong with Postgres, by what the caller does about it.

use std::fmt;

/// A failure of the database, with what we were doing; the cause is in `source()`.
#[derive(Debug)]
pub struct Error {
    /// What the caller can do about it.
    pub kind: ErrorKind,
    /// What we were doing, e.g. `reading 100 rows of bookings`.
    pub doing: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What the caller can do about a failure of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The connection is gone or cannot be made: try again on a new one.
    Unreachable,
    /// A lock was not to be had in time, a deadlock, a serialization failure: try again later.
    Busy,
    /// The rows or their values are refused (constraint, trigger, cast): halve, then refuse the row.
    Rows,
    /// The schema does not fit (missing table, column or function): setup or the mapping is wrong.
    Schema,
    /// Authentication failed or a right is missing.
    Denied,
    /// Another daemon has taken the lease: nothing was written, and this daemon is not to write it.
    Fenced,
    /// Everything else.
    Other,
}

impl Error {
    /// Wraps a failure of the client library and sorts it by its SQLSTATE.
    pub fn from_client(doing: impl Into<String>, source: tokio_postgres::Error) -> Error {
        let kind = match source.code().map(tokio_postgres::error::SqlState::code) {
            Some(code) => kind_of_sqlstate(code),
            None => ErrorKind::Unreachable,
        };
        Error {
            kind,
            doing: doing.into(),
            source: Some(Box::new(source)),
        }
    }

    /// A failure of our own finding.
    pub fn new(kind: ErrorKind, doing: impl Into<String>) -> Error {
        Error {
            kind,
            doing: doing.into(),
            source: None,
        }
    }

    /// A failure with any cause.
    pub fn with_source(
        kind: ErrorKind,
        doing: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        Error {
            kind,
            doing: doing.into(),
            source: Some(source.into()),
        }
    }

    /// The SQLSTATE, if the server sent one.
    pub fn sqlstate(&self) -> Option<&str> {
        let source = self.source.as_ref()?.downcast_ref::<tokio_postgres::Error>()?;
        source.code().map(tokio_postgres::error::SqlState::code)
    }
}

/// Sorts a SQLSTATE.
fn kind_of_sqlstate(code: &str) -> ErrorKind {
    match code {
        "55P03" | "40P01" | "40001" | "57014" => ErrorKind::Busy,
        "57P01" | "57P02" | "57P03" | "57P05" | "53300" | "25P03" => ErrorKind::Unreachable,
        "42501" => ErrorKind::Denied,
        _ => match code.get(..2) {
            Some("08") => ErrorKind::Unreachable,
            Some("28") => ErrorKind::Denied,
            Some("21" | "22" | "23" | "38" | "39" | "44" | "54" | "P0" | "09" | "27") => ErrorKind::Rows,
            Some("42" | "3D" | "3F") => ErrorKind::Schema,
            _ => ErrorKind::Other,
        },
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.doing)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn std::error::Error + 'static))
    }
}
