//! The audit log at a sweep's end: entries that no push will ever mark.
//!
//! Receipts mark the entries of rows that were pushed. What is left are entries of tables that are not mapped
//! and of rows that are gone. A sweep that is complete marks those of them that were numbered by its begin. It walks
//! the unmarked entries by id, a page at a time, so a log of any size costs no memory, and it decides and marks in one
//! snapshot: an entry whose row is back by then stays, and one committed late is marked only if nothing is left to push.

use super::catalog::Shape;
use super::pipeline::{self, Step};
use super::{Error, Session, quote, select};
use crate::mapping::{Mapping, Object};
use tokio_postgres::types::Type;

/// What a page of the walk did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walked {
    /// How many entries were marked.
    pub marked: u64,
    /// After which id the next page starts; `None` at the end.
    pub next: Option<i64>,
}

/// Marks what no push will mark.
#[derive(Debug, Clone)]
pub struct AuditLog {
    begin: String,
    newest: String,
    walk: String,
}

impl AuditLog {
    /// The statements for the mapping's audit log; `None` if it has none.
    pub fn new(mapping: &Mapping, shapes: &[Shape]) -> Option<AuditLog> {
        let table = quote::table(mapping.audit.as_ref()?);
        let unclaimed: Vec<String> = mapping
            .objects
            .iter()
            .enumerate()
            .map(|(index, object)| {
                let shape = shapes.iter().find(|shape| shape.object == index);
                not_of(object, shape)
            })
            .collect();
        let walk = format!(
            "WITH page AS MATERIALIZED (
               SELECT a.id, a.id::bigint AS number, a.table_name::text AS table_name, a.record_id::text AS record_id FROM {table} AS a
               WHERE a.id > $1 AND a.id <= $2 AND a.synced_to_hubspot_at IS NULL ORDER BY a.id LIMIT $3
             ), held AS MATERIALIZED (
               SELECT a.id FROM {table} AS a WHERE a.id IN (SELECT e.id FROM page AS e WHERE {})
               AND a.synced_to_hubspot_at IS NULL FOR NO KEY UPDATE SKIP LOCKED
             ), marked AS (
               UPDATE {table} AS a SET synced_to_hubspot_at = clock_timestamp() WHERE a.id IN (SELECT id FROM held) RETURNING 1
             )
             SELECT (SELECT count(*) FROM marked), (SELECT count(*) FROM page), (SELECT max(number) FROM page)",
            unclaimed.join("\n AND ")
        );
        Some(AuditLog {
            begin: "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL hubsyncd.receipt = 'on'; \
                    SET LOCAL lock_timeout = '200ms'; SET LOCAL idle_in_transaction_session_timeout = '2s'"
                .to_owned(),
            newest: format!("SELECT max(id)::bigint FROM {table}"),
            walk,
        })
    }

    /// The newest entry's id, for the sweep's begin; `None` in an empty log.
    ///
    /// # Errors
    /// [`Error`] as the database has it.
    pub async fn newest(&self, session: &Session) -> Result<Option<i64>, Error> {
        let rows = session.query_typed(&self.newest, &[]).await;
        let rows = rows.map_err(|error| Error::from_client("reading the audit log's end", error))?;
        Ok(rows.first().and_then(|row| row.get(0)))
    }

    /// Walks at most `limit` unmarked entries with ids above `after` (0 at first) and not above `newest`, and marks
    /// those whose table is not mapped or whose row is gone. Entries that somebody holds are left for the next sweep.
    /// One round trip; must not be cancelled.
    ///
    /// # Errors
    /// [`Error`] as the database has it; nothing of this page is marked then. [`super::ErrorKind::Busy`] if the log
    /// was locked for 200 ms.
    pub async fn walk(
        &self,
        session: &mut Session,
        after: i64,
        newest: i64,
        limit: usize,
    ) -> Result<Walked, Error> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let steps = [
            Step::simple(&self.begin),
            Step::new(&self.walk)
                .with(after, Type::INT8)
                .with(newest, Type::INT8)
                .with(limit, Type::INT8),
            Step::simple("COMMIT"),
        ];
        let answers = pipeline::send(session, &steps).await;
        let answers = answers.map_err(|error| {
            Error::from_client("marking audit entries that nothing is left to push for", error)
        })?;
        let row = answers.get(1).and_then(|rows| rows.first());
        Ok(row.map_or(
            Walked {
                marked: 0,
                next: None,
            },
            |row| Walked {
                marked: row.get::<_, i64>(0).unsigned_abs(),
                next: row
                    .get::<_, Option<i64>>(2)
                    .filter(|_| row.get::<_, i64>(1) == limit),
            },
        ))
    }
}

/// The condition that an entry `e` names no row of this object's table: another table, or no such row.
fn not_of(object: &Object, shape: Option<&Shape>) -> String {
    let key_type = shape.map_or("text", |shape| select::key_type(&shape.key.base));
    let key = quote::identifier(&object.key);
    format!(
        "(e.table_name NOT IN ({}, {}) OR NOT EXISTS (SELECT FROM {} AS t WHERE t.{key} = {}))",
        quote::literal(&object.table.name),
        quote::literal(&object.table.to_string()),
        quote::table(&object.table),
        as_key(key_type),
    )
}

/// `e.record_id`, which may be nonsense, as a key; null where no row can have it.
fn as_key(key_type: &str) -> String {
    let group = "[0-9a-f]{4}";
    match key_type {
        // As Postgres reads a uuid: a hyphen after any group of four, in braces or not, in any case.
        "uuid" => {
            let digits = format!("({group}-?){{7}}{group}");
            format!("CASE WHEN e.record_id ~* '^({digits}|\\{{{digits}\\}})$' THEN e.record_id::uuid END")
        }
        "int2" | "int4" | "int8" => {
            "CASE WHEN e.record_id ~ '^\\s*[-+]?[0-9]{1,18}\\s*$' THEN e.record_id::bigint END".to_owned()
        }
        _ => "e.record_id".to_owned(),
    }
}
