//! The lease's row: taken, pinged, given back, and asked for in every receipt.
//!
//! The lease itself is a session lock of the control session; the row is what outlives that session. A receipt holds
//! the row `FOR KEY SHARE` under the generation it was pushed under ([`hold`]), with which pings do not conflict;
//! taking the lease takes the row `FOR UPDATE`, so it waits for the receipts that are being written and no receipt of an
//! older generation is written after it.

use super::pipeline::Step;
use super::{Error, ErrorKind, quote};
use crate::sync::lease::{Found, Taken};
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::types::Type;

/// What the server does about a holder that falls silent: a stopped process is found by the time-out of an idle
/// session, since its kernel answers keepalives; a machine that is gone, by keepalives and unanswered bytes.
pub(super) const IMPATIENT: &str = "SET idle_session_timeout = '10s'; SET tcp_keepalives_idle = 5; \
    SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3; SET tcp_user_timeout = '10s'";

/// Holds the lease's row to the end of the transaction, if its generation is still this one: one row, or none.
pub(super) fn hold<'a>(generation: i64) -> Step<'a> {
    Step::new(format!("SELECT 1 FROM {}", held("$1")))
        .with(generation, Type::INT8)
        .kept()
}

/// The lease's row, held to the end of the transaction, as a part of a statement whose parameter is the generation.
pub(super) fn held(parameter: &str) -> String {
    format!("(SELECT FROM hubsyncd.lease WHERE generation = {parameter} FOR KEY SHARE) AS lease")
}

/// A write under a generation that is gone.
pub(super) fn gone(doing: impl Into<String>) -> Error {
    let doing: String = doing.into();
    let told = format!("{doing}: another daemon has taken the lease meanwhile, so nothing was written");
    Error::new(ErrorKind::Fenced, told)
}

/// Begins the taking: finds the row and holds it against all others.
pub(super) const FIND: &str = "BEGIN; SET LOCAL lock_timeout = '5s'; \
    INSERT INTO hubsyncd.lease DEFAULT VALUES ON CONFLICT DO NOTHING; \
    SELECT generation, (extract(epoch FROM renewed_at) * 1000000)::bigint, stopped_at IS NOT NULL, \
        (extract(epoch FROM clock_timestamp()) * 1000000)::bigint FROM hubsyncd.lease FOR UPDATE";

/// Ends the taking: writes the row and commits. Under `own`, the generation this daemon held last,
/// the lease is resumed. Else the generation grows, beyond whatever a table that was emptied or restored may have forgotten.
pub(super) fn write(holder: &str, own: Option<i64>) -> String {
    let holder = quote::literal(holder);
    let own = own.map_or_else(|| "NULL".to_owned(), |own| own.to_string());
    format!(
        "UPDATE hubsyncd.lease SET holder = {holder}, renewed_at = clock_timestamp(), stopped_at = NULL, generation = \
         CASE WHEN generation = {own} AND stopped_at IS NULL THEN generation \
         ELSE greatest(generation + 1, extract(epoch FROM clock_timestamp())::bigint) END RETURNING generation; COMMIT"
    )
}

/// The statement of a ping; no row: the lease is lost.
pub(super) fn renew(generation: i64) -> String {
    format!("UPDATE hubsyncd.lease SET renewed_at = clock_timestamp() WHERE generation = {generation}")
}

/// The statement that gives the lease back with nothing on its way.
pub(super) fn give_back(generation: i64) -> String {
    format!("UPDATE hubsyncd.lease SET stopped_at = clock_timestamp() WHERE generation = {generation}")
}

/// What the row said before the lease was taken.
pub(super) fn found(answer: &[SimpleQueryMessage]) -> Option<Found> {
    let row = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    })?;
    let number = |column| row.get(column).and_then(|text| text.parse::<i64>().ok());
    Some(Found {
        generation: number(0)?,
        renewed_at: number(1),
        given_back: row.get(2) == Some("t"),
        now: number(3)?,
    })
}

/// What taking the lease means to a daemon that held `own` last.
pub(super) fn taken(found: Found, own: Option<i64>, generation: i64) -> Taken {
    if own == Some(found.generation) && own == Some(generation) {
        Taken::resumed(generation)
    } else {
        Taken::anew(found, generation)
    }
}

/// Whether a statement changed a row.
pub(super) fn changed(answer: &[SimpleQueryMessage]) -> bool {
    answer
        .iter()
        .any(|message| matches!(message, SimpleQueryMessage::CommandComplete(rows) if *rows > 0))
}
