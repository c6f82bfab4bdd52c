//! Failures: the records that HubSpot, Postgres or the mapping refuses, as operators see them.
//!
//! Receipts write them ([`super::receipt`]); here they are listed, counted, and named as changed to be tried
//! again. They hold no value of a row.

use super::changes::XID_FIRST;
use super::pipeline::{self, Step};
use super::{Error, Session};
use crate::mapping::Mapping;
use crate::sync::change::{Key, ObjectIndex};
use crate::sync::outcome::Refusal;
use std::fmt;
use std::str::FromStr;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

/// The key of the failure that stands for a whole object, which is paused.
const OF_THE_OBJECT: &str = "";

/// A refused record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The object's name.
    pub object: String,
    /// The row's key; empty for the object itself, which is paused.
    pub key: String,
    /// The HubSpot record that is not archived though its row is gone; empty: the row itself is refused.
    pub archive: String,
    /// The row's HubSpot id, if it has one.
    pub hubspot_id: Option<String>,
    /// HubSpot's category in lower case, or one of ours; see [`crate::sync::outcome::Refusal`].
    pub category: String,
    /// What happened and what to do, without personal data.
    pub message: String,
    /// The HubSpot properties at fault.
    pub properties: Vec<String>,
    /// HubSpot's correlation id, for its support.
    pub correlation_id: Option<String>,
    /// The HubSpot record that stands in the way.
    pub existing_id: Option<String>,
    /// Whether create-only properties are still to be sent.
    pub full_record: bool,
    /// How often it was refused.
    pub attempts: i32,
    /// The first refusal, microseconds since the Unix epoch.
    pub first_failed_at: i64,
    /// The last refusal, microseconds since the Unix epoch.
    pub last_failed_at: i64,
}

/// A part of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The failures, the latest refusal first.
    pub failures: Vec<Failure>,
    /// Where the next page starts; `None` at the end.
    pub next: Option<Cursor>,
}

/// A place in the list. Its text is for a URL's query: the time, the object, the record to archive and the key, joined by
/// colons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    last_failed_at: i64,
    object: String,
    archive: String,
    key: String,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cursor {
            last_failed_at,
            object,
            archive,
            key,
        } = self;
        write!(f, "{last_failed_at}:{object}:{archive}:{key}")
    }
}

/// A text that is no cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not where a page of failures ends; pass `next` of the page before as it is")]
pub struct BadCursor;

impl FromStr for Cursor {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<Cursor, BadCursor> {
        // Neither an object's name nor a record's id holds a colon, a key may.
        let mut parts = text.splitn(4, ':');
        let mut part = || parts.next().ok_or(BadCursor);
        Ok(Cursor {
            last_failed_at: part()?.parse().map_err(|_| BadCursor)?,
            object: part()?.to_owned(),
            archive: part()?.to_owned(),
            key: part()?.to_owned(),
        })
    }
}

const COLUMNS: &str = "SELECT object, key, hubspot_id, category, message, properties, correlation_id, existing_id, \
    full_record, attempts, (extract(epoch FROM first_failed_at) * 1000000)::bigint, \
    (extract(epoch FROM last_failed_at) * 1000000)::bigint, archive FROM hubsyncd.failure";

/// Lists at most `limit` failures after a place in the list, the latest refusal first.
///
/// # Errors
/// [`Error`] as the database has it.
pub async fn list(session: &Session, after: Option<&Cursor>, limit: usize) -> Result<Page, Error> {
    let sql = format!(
        "{COLUMNS} WHERE $1::bigint IS NULL OR (last_failed_at, object, key, archive) \
         < ('epoch'::timestamptz + $1 * interval '1 microsecond', $2, $3, $5) \
         ORDER BY last_failed_at DESC, object DESC, key DESC, archive DESC LIMIT $4"
    );
    let step = Step::new(sql)
        .with(after.map(|cursor| cursor.last_failed_at), Type::INT8)
        .with(after.map(|cursor| cursor.object.as_str()), Type::TEXT)
        .with(after.map(|cursor| cursor.key.as_str()), Type::TEXT)
        // One more tells whether there is a next page.
        .with(
            i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1),
            Type::INT8,
        )
        .with(after.map(|cursor| cursor.archive.as_str()), Type::TEXT);
    let answers = pipeline::send(session, &[step]).await;
    let answers = answers.map_err(|error| Error::from_client("listing the failures", error))?;
    let mut failures: Vec<Failure> = answers.iter().flatten().map(failure).collect();
    let more = failures.len() > limit;
    failures.truncate(limit);
    let next = failures.last().filter(|_| more).map(|last| Cursor {
        last_failed_at: last.last_failed_at,
        object: last.object.clone(),
        archive: last.archive.clone(),
        key: last.key.clone(),
    });
    Ok(Page { failures, next })
}

/// The failure of one row, if it has one: not that of a record it was.
///
/// # Errors
/// [`Error`] as the database has it.
pub async fn get(session: &Session, object: &str, key: &str) -> Result<Option<Failure>, Error> {
    let step = Step::new(format!(
        "{COLUMNS} WHERE object = $1 AND key = $2 AND archive = ''"
    ))
    .with(object, Type::TEXT)
    .with(key, Type::TEXT);
    let answers = pipeline::send(session, &[step]).await;
    let answers =
        answers.map_err(|error| Error::from_client(format!("reading a failure of {object}"), error))?;
    Ok(answers.iter().flatten().map(failure).next())
}

/// All failures of one key: that of the row, and those of records that it was to lose.
///
/// # Errors
/// [`Error`] as the database has it.
pub async fn of(session: &Session, object: &str, key: &str) -> Result<Vec<Failure>, Error> {
    let step = Step::new(format!(
        "{COLUMNS} WHERE object = $1 AND key = $2 ORDER BY archive"
    ))
    .with(object, Type::TEXT)
    .with(key, Type::TEXT);
    let answers = pipeline::send(session, &[step]).await;
    let answers = answers
        .map_err(|error| Error::from_client(format!("reading the failures of a key of {object}"), error))?;
    Ok(answers.iter().flatten().map(failure).collect())
}

fn failure(row: &Row) -> Failure {
    Failure {
        object: row.get(0),
        key: row.get(1),
        hubspot_id: row.get(2),
        category: row.get(3),
        message: row.get(4),
        properties: row.get(5),
        correlation_id: row.get(6),
        existing_id: row.get(7),
        full_record: row.get(8),
        attempts: row.get(9),
        first_failed_at: row.get(10),
        last_failed_at: row.get(11),
        archive: row.get(12),
    }
}

/// How many failures each object has.
///
/// # Errors
/// [`Error`] as the database has it.
pub async fn counts(session: &Session, mapping: &Mapping) -> Result<Vec<u64>, Error> {
    let sql = "SELECT object, count(*) FROM hubsyncd.failure GROUP BY object";
    let rows = session.query_typed(sql, &[]).await;
    let rows = rows.map_err(|error| Error::from_client("counting the failures", error))?;
    let mut counts = vec![0; mapping.objects.len()];
    for row in rows {
        if let Some(object) = mapping.position(row.get(0)) {
            counts[object] = row.get::<_, i64>(1).unsigned_abs();
        }
    }
    Ok(counts)
}

/// Names failed rows as changed, so that they are tried again: all, those of an object, or one. Answers how many.
/// Rings no doorbell: look afterwards.
///
/// # Errors
/// [`Error`] as the database has it.
pub async fn retry(session: &Session, object: Option<&str>, key: Option<&str>) -> Result<u64, Error> {
    let sql = naming("($1 IS NULL OR object = $1) AND ($2 IS NULL OR key = $2)");
    let named = session
        .execute_typed(&sql, &[(&object, Type::TEXT), (&key, Type::TEXT)])
        .await;
    named.map_err(|error| Error::from_client("naming the failed rows", error))
}

/// The statement that names the failures of a condition as changed.
pub(super) fn naming(condition: &str) -> String {
    format!(
        "INSERT INTO hubsyncd.change (object, key, op, hubspot_id) SELECT object, key, CASE WHEN archive <> '' THEN 'A' \
         WHEN full_record THEN 'N' ELSE 'U' END::\"char\", nullif(archive, '') FROM hubsyncd.failure \
         WHERE {XID_FIRST} AND NOT (key = '{OF_THE_OBJECT}' AND category = 'paused') AND {condition}"
    )
}

/// The keys, in order and after `after`, of at most `limit` rows that were last refused before `moment` (microseconds
/// since the Unix epoch); not of records that are not archived.
///
/// # Errors
/// [`Error`] as the database has it.
pub async fn before(
    session: &Session,
    object: &str,
    moment: i64,
    after: &str,
    limit: usize,
) -> Result<Vec<Key>, Error> {
    let sql = "SELECT key FROM hubsyncd.failure WHERE object = $1 AND key > $2 AND archive = '' \
               AND last_failed_at < 'epoch'::timestamptz + $3 * interval '1 microsecond' ORDER BY key LIMIT $4";
    let step = Step::new(sql)
        .with(object, Type::TEXT)
        .with(after, Type::TEXT)
        .with(moment, Type::INT8)
        .with(i64::try_from(limit).unwrap_or(i64::MAX), Type::INT8);
    let answers = pipeline::send(session, &[step]).await;
    let answers =
        answers.map_err(|error| Error::from_client(format!("listing failures of {object}"), error))?;
    Ok(answers
        .iter()
        .flatten()
        .map(|row| Key::from(row.get::<_, &str>(0)))
        .collect())
}

/// Erases the failures of these rows. Answers how many there were.
///
/// # Errors
/// [`Error`] as the database has it.
pub async fn erase(session: &Session, object: &str, keys: &[&str]) -> Result<u64, Error> {
    let sql = "DELETE FROM hubsyncd.failure WHERE object = $1 AND key = ANY($2)";
    let erased = session
        .execute_typed(sql, &[(&object, Type::TEXT), (&keys, Type::TEXT_ARRAY)])
        .await;
    erased.map_err(|error| Error::from_client(format!("erasing failures of {object}"), error))
}

/// Notes that an object is paused, as one failure that stands for all its records.
///
/// # Errors
/// [`Error`] as the database has it.
pub async fn pause(session: &Session, object: &str, why: &Refusal) -> Result<(), Error> {
    let sql = "INSERT INTO hubsyncd.failure AS f (object, key, category, message) VALUES ($1, $2, $3, $4) \
               ON CONFLICT (object, key, archive) DO UPDATE SET category = excluded.category, message = excluded.message, \
               attempts = f.attempts + 1, last_failed_at = excluded.last_failed_at";
    let noted = session
        .execute_typed(
            sql,
            &[
                (&object, Type::TEXT),
                (&OF_THE_OBJECT, Type::TEXT),
                (&why.category, Type::TEXT),
                (&why.message, Type::TEXT),
            ],
        )
        .await;
    noted.map_err(|error| Error::from_client(format!("noting that {object} is paused"), error))?;
    Ok(())
}

/// Ends the failure that stands for an object, and names the object's failed rows as changed: some were refused before
/// the object was paused, for the same cause. Rings no doorbell: look afterwards.
///
/// # Errors
/// [`Error`] as the database has it.
pub async fn resume(session: &Session, object: &str) -> Result<(), Error> {
    retry(session, Some(object), None).await?;
    let sql = "DELETE FROM hubsyncd.failure WHERE object = $1 AND key = $2 AND category = 'paused'";
    let erased = session
        .execute_typed(sql, &[(&object, Type::TEXT), (&OF_THE_OBJECT, Type::TEXT)])
        .await;
    erased.map_err(|error| Error::from_client(format!("noting that {object} goes on"), error))?;
    Ok(())
}

/// The objects that were paused when somebody last noted it, and why.
///
/// # Errors
/// [`Error`] as the database has it.
pub async fn paused(session: &Session, mapping: &Mapping) -> Result<Vec<(ObjectIndex, String)>, Error> {
    let sql = "SELECT object, message FROM hubsyncd.failure WHERE key = $1 AND category = 'paused'";
    let rows = session.query_typed(sql, &[(&OF_THE_OBJECT, Type::TEXT)]).await;
    let rows = rows.map_err(|error| Error::from_client("asking which objects are paused", error))?;
    let known = rows
        .iter()
        .filter_map(|row| Some((mapping.position(row.get(0))?, row.get(1))));
    Ok(known.collect())
}
