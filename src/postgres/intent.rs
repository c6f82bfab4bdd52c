//! Intents: what we are about to do, or may have done, in HubSpot, in a table of ours that can refuse nothing.
//!
//! An intent is committed before its create is sent and deleted by the receipt that finds it fulfilled; so is the
//! note that a row is due to be pushed once more. Each function is one round trip.

use super::pipeline::{self, Step};
use super::{Error, Session, lease};
use crate::sync::change::Key;
use crate::sync::doubt::Due;
use tokio_postgres::types::Type;

/// How many due rows are named at a time: the next poll takes the rest.
const NAMED_MAX: i64 = 10_000;

/// What is about to be sent for a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noted {
    /// The row's key.
    pub key: Key,
    /// The natural key that it is created under; `None`: it takes a record over, and sends update properties only.
    pub match_value: Option<String>,
    /// The write trace.
    pub trace: String,
}

/// Commits what is about to be sent under a generation of the lease. What a row's intent held before is over, but for
/// the time it is due at, and the time of the first attempt at the same create.
///
/// # Errors
/// [`super::ErrorKind::Fenced`] if that generation is gone, else [`Error`] as the database has it; then nothing may be
/// sent.
pub async fn note(session: &Session, object: &str, generation: i64, notes: &[Noted]) -> Result<(), Error> {
    if notes.is_empty() {
        return Ok(());
    }
    let keys: Vec<&str> = notes.iter().map(|note| &*note.key).collect();
    let values: Vec<Option<&str>> = notes.iter().map(|note| note.match_value.as_deref()).collect();
    let traces: Vec<&str> = notes.iter().map(|note| &*note.trace).collect();
    let held = lease::held("$5");
    let sql = format!(
        "INSERT INTO hubsyncd.intent AS i (object, key, match_value, trace, update_only, noted_at, first_at) \
         SELECT $1, v.key, v.value, v.trace, v.value IS NULL, clock_timestamp(), clock_timestamp() \
         FROM unnest($2::text[], $3::text[], $4::text[]) AS v (key, value, trace), {held} \
         ON CONFLICT (object, key) DO UPDATE SET match_value = excluded.match_value, trace = excluded.trace, \
         update_only = excluded.update_only, noted_at = excluded.noted_at, first_at = CASE WHEN i.match_value = \
         excluded.match_value THEN coalesce(i.first_at, i.noted_at) ELSE excluded.noted_at END RETURNING 1"
    );
    let step = Step::new(sql)
        .with(object, Type::TEXT)
        .with(keys, Type::TEXT_ARRAY)
        .with(values, Type::TEXT_ARRAY)
        .with(traces, Type::TEXT_ARRAY)
        .with(generation, Type::INT8);
    let doing = || {
        format!(
            "noting what is about to be sent for {} rows of {object}",
            notes.len()
        )
    };
    let answer = pipeline::send(session, &[step]).await;
    let answer = answer.map_err(|error| Error::from_client(doing(), error))?;
    if answer.iter().all(Vec::is_empty) {
        return Err(lease::gone(doing()));
    }
    Ok(())
}

/// Takes back creates: HubSpot has not done them and will not. Only what still stands as it was noted.
///
/// # Errors
/// [`Error`] as the database has it; then the rows are searched for before they are created.
pub async fn withdraw(session: &Session, object: &str, notes: &[Noted]) -> Result<(), Error> {
    let keys: Vec<&str> = notes.iter().map(|note| &*note.key).collect();
    let traces: Vec<&str> = notes.iter().map(|note| &*note.trace).collect();
    let sql = "UPDATE hubsyncd.intent AS i SET match_value = NULL, trace = NULL \
               FROM unnest($2::text[], $3::text[]) AS v (key, trace) \
               WHERE i.object = $1 AND i.key = v.key AND i.trace = v.trace";
    let step = Step::new(sql)
        .with(object, Type::TEXT)
        .with(keys, Type::TEXT_ARRAY)
        .with(traces, Type::TEXT_ARRAY);
    let doing = || format!("taking back the creates of {} rows of {object}", notes.len());
    let answer = pipeline::send(session, &[step]).await;
    answer.map_err(|error| Error::from_client(doing(), error))?;
    Ok(())
}

/// Names the rows of these objects that are due to be pushed once more, and says whether there were any. It rings no
/// doorbell: look afterwards. The intent stays until a push that began later is confirmed; from here on it is the
/// change that cannot be lost.
///
/// # Errors
/// [`Error`] as the database has it.
pub async fn name_due(session: &Session, objects: &[String]) -> Result<bool, Error> {
    // The update gives the transaction its xid before the first number is drawn; an idle poll draws neither.
    let sql = "WITH due AS (UPDATE hubsyncd.intent SET named = true WHERE (object, key) IN ( \
               SELECT object, key FROM hubsyncd.intent WHERE due_at <= clock_timestamp() AND NOT named \
               AND object = ANY($1::text[]) ORDER BY due_at LIMIT $2) RETURNING object, key, due_full), \
               named AS (INSERT INTO hubsyncd.change (object, key, op) \
               SELECT object, key, CASE WHEN due_full THEN 'N' ELSE 'U' END::\"char\" FROM due RETURNING 1) \
               SELECT count(*) FROM named";
    let step = Step::new(sql)
        .with(objects, Type::TEXT_ARRAY)
        .with(NAMED_MAX, Type::INT8);
    let answer = pipeline::send(session, &[step]).await;
    let rows = answer.map_err(|error| Error::from_client("naming the rows that are due", error))?;
    Ok(rows.iter().flatten().any(|row| row.get::<_, i64>(0) > 0))
}

/// Writes down when rows are due to be pushed once more, whatever else their intents hold.
pub(super) fn owe<'a>(object: &'a str, owed: &[(&'a str, Due)]) -> Step<'a> {
    let keys: Vec<&str> = owed.iter().map(|(key, _)| *key).collect();
    let micros = |due: &Due| i64::try_from(due.within.as_micros()).unwrap_or(i64::MAX / 2);
    let within: Vec<i64> = owed.iter().map(|(_, due)| micros(due)).collect();
    let full: Vec<bool> = owed.iter().map(|(_, due)| due.full).collect();
    let update_only: Vec<bool> = owed.iter().map(|(_, due)| due.update_only).collect();
    let sql = "INSERT INTO hubsyncd.intent AS i (object, key, due_at, due_full, update_only) \
               SELECT $1, v.key, clock_timestamp() + v.within * interval '1 microsecond', v.due_full, v.update_only \
               FROM unnest($2::text[], $3::bigint[], $4::boolean[], $5::boolean[]) AS v (key, within, due_full, update_only) \
               ON CONFLICT (object, key) DO UPDATE SET due_at = excluded.due_at, due_full = excluded.due_full, \
               named = false, update_only = i.update_only OR excluded.update_only";
    Step::new(sql)
        .with(object, Type::TEXT)
        .with(keys, Type::TEXT_ARRAY)
        .with(within, Type::INT8_ARRAY)
        .with(full, Type::BOOL_ARRAY)
        .with(update_only, Type::BOOL_ARRAY)
}

/// Forgets what was sent for rows that are gone, but for creates whose outcome is not known: their records may yet
/// turn up.
pub(super) fn bury<'a>(object: &'a str, keys: Vec<&'a str>) -> Step<'a> {
    let sql = "DELETE FROM hubsyncd.intent WHERE object = $1 AND key = ANY($2::text[]) \
               AND (match_value IS NULL OR hubspot_id IS NOT NULL)";
    Step::new(sql)
        .with(object, Type::TEXT)
        .with(keys, Type::TEXT_ARRAY)
}
