//! What goes wrong while a receipt is written, by what follows from it.

use crate::postgres::{Error, ErrorKind};
use crate::sync::outcome::Refusal;

/// What follows from a statement that failed.
#[derive(Debug)]
pub(super) enum Trouble {
    /// A row refuses: halve, then it is a failure.
    Refused(Refusal),
    /// A wait that came to its end: later.
    Wait,
    /// Neither: the caller's to deal with.
    Broken(Error),
}

/// SQLSTATE classes that are never a row's fault, wherever they arise: connection, transaction state, resources,
/// operator, system, internal.
const NOT_THE_ROWS: [&str; 7] = ["08", "25", "53", "57", "58", "F0", "XX"];

/// Sorts a failure. `doing` says what we were at.
pub(super) fn sort(error: tokio_postgres::Error, doing: &str, table: &str) -> Trouble {
    let refusal = refusal(&error, table);
    let from_function = from_function(&error);
    let error = Error::from_client(doing, error);
    match (error.kind, refusal) {
        (ErrorKind::Busy, _) => Trouble::Wait,
        (ErrorKind::Rows, Some(refusal)) => Trouble::Refused(refusal),
        // An application's trigger that fails over a right or a column of its own refuses this row only.
        (ErrorKind::Schema | ErrorKind::Denied | ErrorKind::Other, Some(refusal)) if from_function => {
            Trouble::Refused(refusal)
        }
        _ => Trouble::Broken(error),
    }
}

/// Whether the failure arose in a function, hence in a trigger of the application: our statements call none.
fn from_function(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|said| {
        let class = said.code().code().get(..2).unwrap_or_default();
        said.where_().is_some_and(|context| !context.is_empty()) && !NOT_THE_ROWS.contains(&class)
    })
}

/// The refusal in words that hold no value of the row: Postgres' own message may quote one.
fn refusal(error: &tokio_postgres::Error, table: &str) -> Option<Refusal> {
    let said = error.as_db_error()?;
    let code = said.code().code();
    let mut what = format!("{} (SQLSTATE {code}", in_words(code));
    if let Some(constraint) = said.constraint() {
        what.push_str(&format!(", constraint \"{constraint}\""));
    }
    if let Some(column) = said.column() {
        what.push_str(&format!(", column \"{column}\""));
    }
    // A trigger may have written elsewhere.
    if let (Some(schema), Some(relation)) = (said.schema(), said.table()) {
        what.push_str(&format!(", on {schema}.{relation}"));
    }
    Some(Refusal::ours(
        "receipt",
        format!(
            "HubSpot holds the record, but Postgres refuses to write its id or sync time into the row of {table}: {what}). The id \
             is kept and the record is not created again; make the row writable, then retry."
        ),
    ))
}

fn in_words(code: &str) -> &'static str {
    match code {
        "23502" => "a column may not be null",
        "23503" => "a foreign key is violated",
        "23505" => "another row holds a value that must be unique",
        "23514" => "a check constraint is violated",
        "23P01" => "an exclusion constraint is violated",
        "22001" => "a value is too long for its column",
        "42501" => "a trigger lacks a right",
        "P0001" => "a trigger raised an error",
        _ => match code.get(..2) {
            Some("22") => "a value does not fit",
            Some("23" | "27" | "44") => "a constraint is violated",
            _ => "a trigger failed",
        },
    }
}

/// The refusal of a row whose UPDATE came back without it.
pub(super) fn suppressed(table: &str) -> Refusal {
    Refusal::ours(
        "receipt",
        format!(
            "HubSpot holds the record, but an UPDATE of the row of {table} changed nothing: a trigger suppresses it. The id is kept and \
             the record is not created again; let hubsyncd's role update the row, then retry."
        ),
    )
}
