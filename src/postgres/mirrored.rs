//! Reading the mirror: pages of records as Postgres writes them in JSON.
//!
//! Pages go by id in HubSpot's order, which is that of numbers, and a page is named by the first id of it, as in
//! HubSpot: who began to read there goes on here at the same place, and the other way round.

use super::pipeline::{self, Step};
use super::{Error, Session};
use crate::mapping::Mirrored;
use tokio_postgres::types::Type;

/// A part of a kind's records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Each a JSON object, as the API answers it.
    pub records: Vec<String>,
    /// The id that the next page begins with; `None` at the end.
    pub next: Option<String>,
    /// Whether no full pass has ended that began within `stale-after`.
    pub stale: bool,
}

/// At most `limit` records of a kind from the id `from` on, archived ones left out. A record whose `last_synced_at` is
/// older than `stale-after` says `pending`, whether or not the daemon has come to write that down.
///
/// # Errors
/// [`Error`] as the database has it.
pub async fn page(
    session: &Session,
    kind: Mirrored,
    from: Option<&str>,
    limit: usize,
) -> Result<Page, Error> {
    let name = kind.name();
    // Identifiers are our own; the columns of the order are those of the index `mirror_…_live`.
    let sql = format!(
        "SELECT hubspot_id, json_build_object('id', hubspot_id, 'properties', properties, \
         'createdAt', {created}, 'updatedAt', {updated}, 'archived', archived, 'lastSyncedAt', {synced}, \
         'syncStatus', CASE WHEN sync_status = 'synced' AND last_synced_at < now() - \
         (SELECT stale_after FROM hubsyncd.mirror_state WHERE kind = '{name}') THEN 'pending' ELSE sync_status END, \
         'syncError', sync_error)::text \
         FROM hubsyncd.mirror_{name} WHERE NOT archived \
         AND (length(hubspot_id), hubspot_id COLLATE \"C\") >= (length($1), $1 COLLATE \"C\") \
         ORDER BY length(hubspot_id), hubspot_id COLLATE \"C\" LIMIT $2",
        created = moment("created_at"),
        updated = moment("hubspot_updated_at"),
        synced = moment("last_synced_at"),
    );
    let one_more = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
    let records = Step::new(sql)
        .with(from.unwrap_or_default(), Type::TEXT)
        .with(one_more, Type::INT8);
    let state = Step::new(
        "SELECT coalesce(complete_as_of < now() - stale_after, true) FROM hubsyncd.mirror_state WHERE kind = $1",
    )
    .with(name, Type::TEXT);
    let answers = pipeline::send(session, &[state, records]).await;
    let mut answers = answers
        .map_err(|error| Error::from_client("reading the mirror", error))?
        .into_iter();
    let (state, rows) = (
        answers.next().unwrap_or_default(),
        answers.next().unwrap_or_default(),
    );
    let next = rows.get(limit).map(|row| row.get(0));
    Ok(Page {
        records: rows.iter().take(limit).map(|row| row.get(1)).collect(),
        next,
        stale: state.first().is_none_or(|row| row.get(0)),
    })
}

/// A column as HubSpot writes moments.
fn moment(column: &str) -> String {
    format!("to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')")
}

/// Where the kinds stand, each as the JSON object that the API answers; the counts are kept, not counted.
///
/// # Errors
/// [`Error`] as the database has it.
pub async fn standings(session: &Session) -> Result<Vec<(String, String)>, Error> {
    let sql = format!(
        "SELECT kind, json_build_object('total', synced + pending + error, 'synced', synced, 'pending', pending, \
         'error', error, 'lastSyncedAt', {synced}, 'completeAsOf', {complete}, 'caughtUpAt', {caught_up}, \
         'stale', coalesce(complete_as_of < now() - stale_after, true))::text FROM hubsyncd.mirror_state",
        synced = moment("last_synced_at"),
        complete = moment("complete_as_of"),
        caught_up = moment("caught_up_at"),
    );
    let answers = pipeline::send(session, &[Step::new(sql)]).await;
    let answers = answers.map_err(|error| Error::from_client("reading where the mirror stands", error))?;
    let rows = answers.into_iter().flatten();
    Ok(rows.map(|row| (row.get(0), row.get(1))).collect())
}
