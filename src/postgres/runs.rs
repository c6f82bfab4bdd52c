//! Runs: what was swept and when, kept 90 days.
//!
//! A run stands in the table from its begin on, so that one that died with its daemon is seen: the next holder
//! closes it ([`close_abandoned`]).

use super::pipeline::{self, Step};
use super::{Error, Session};
use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

/// How long runs are kept, as Postgres writes an interval.
const KEPT: &str = "90 days";

/// A run.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Its id; ids grow with time, also within a millisecond.
    pub id: Uuid,
    /// What ran, e.g. `sweep`.
    pub kind: String,
    /// Why, e.g. `clock`, `start`, `signal`.
    pub reason: String,
    /// Its begin, microseconds since the Unix epoch by the database's clock.
    pub started_at: i64,
    /// Its end, likewise; `None` while it runs.
    pub finished_at: Option<i64>,
    /// How it ended, e.g. `complete`, `incomplete`; `None` while it runs.
    pub outcome: Option<String>,
    /// What it did, by object.
    pub summary: Option<Value>,
}

/// A part of the list.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// The runs, newest first.
    pub runs: Vec<Run>,
    /// Where the next page starts: after this run; `None` at the end.
    pub next: Option<Uuid>,
}

const COLUMNS: &str = "SELECT id, kind, reason, (extract(epoch FROM started_at) * 1000000)::bigint, \
     (extract(epoch FROM finished_at) * 1000000)::bigint, outcome, summary FROM hubsyncd.run";

/// Notes that a run begins; answers its id and the database's clock, microseconds since the Unix epoch.
///
/// # Errors
/// [`Error`] as the database has it.
pub async fn start(session: &Session, kind: &str, reason: &str) -> Result<(Uuid, i64), Error> {
    let id = Uuid::now_v7();
    let sql = "INSERT INTO hubsyncd.run (id, kind, reason, started_at) VALUES ($1, $2, $3, clock_timestamp()) \
               RETURNING (extract(epoch FROM started_at) * 1000000)::bigint";
    let step = Step::new(sql)
        .with(id, Type::UUID)
        .with(kind, Type::TEXT)
        .with(reason, Type::TEXT);
    let rows = ask(session, step, "noting the begin of a run").await?;
    Ok((id, rows.first().map(|row| row.get(0)).unwrap_or_default()))
}

/// Notes how a run ended.
///
/// # Errors
/// [`Error`] as the database has it.
pub async fn finish(session: &Session, id: Uuid, outcome: &str, summary: &Value) -> Result<(), Error> {
    let sql =
        "UPDATE hubsyncd.run SET finished_at = clock_timestamp(), outcome = $2, summary = $3 WHERE id = $1";
    let step = Step::new(sql)
        .with(id, Type::UUID)
        .with(outcome, Type::TEXT)
        .with(summary, Type::JSONB);
    ask(session, step, "noting the end of a run").await?;
    Ok(())
}

/// Ends the runs that a daemon left behind when it died, as `outcome`; only for who holds the lease and runs
/// nothing yet. Answers how many there were.
///
/// # Errors
/// [`Error`] as the database has it.
pub async fn close_abandoned(session: &Session, outcome: &str) -> Result<usize, Error> {
    let sql = "UPDATE hubsyncd.run SET finished_at = clock_timestamp(), outcome = $1 WHERE finished_at IS NULL RETURNING 1";
    let rows = ask(
        session,
        Step::new(sql).with(outcome, Type::TEXT),
        "closing abandoned runs",
    )
    .await?;
    Ok(rows.len())
}

/// Lists at most `limit` runs that began before the run `after`, newest first.
///
/// # Errors
/// [`Error`] as the database has it.
pub async fn list(session: &Session, after: Option<Uuid>, limit: usize) -> Result<Page, Error> {
    // Ids grow with time, so a page goes on also after a run that was pruned meanwhile.
    let sql = format!("{COLUMNS} WHERE $1::uuid IS NULL OR id < $1 ORDER BY id DESC LIMIT $2");
    let one_more = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
    let step = Step::new(sql).with(after, Type::UUID).with(one_more, Type::INT8);
    let rows = ask(session, step, "listing the runs").await?;
    let mut runs: Vec<Run> = rows.iter().map(run).collect();
    let more = runs.len() > limit;
    runs.truncate(limit);
    let next = runs.last().filter(|_| more).map(|last| last.id);
    Ok(Page { runs, next })
}

/// One run.
///
/// # Errors
/// [`Error`] as the database has it.
pub async fn get(session: &Session, id: Uuid) -> Result<Option<Run>, Error> {
    let step = Step::new(format!("{COLUMNS} WHERE id = $1")).with(id, Type::UUID);
    let rows = ask(session, step, "reading a run").await?;
    Ok(rows.first().map(run))
}

/// The newest run of a kind that has ended; with `outcome`, the newest that ended so.
///
/// # Errors
/// [`Error`] as the database has it.
pub async fn last(session: &Session, kind: &str, outcome: Option<&str>) -> Result<Option<Run>, Error> {
    let sql = format!(
        "{COLUMNS} WHERE kind = $1 AND finished_at IS NOT NULL AND ($2::text IS NULL OR outcome = $2) \
         ORDER BY started_at DESC LIMIT 1"
    );
    let step = Step::new(sql).with(kind, Type::TEXT).with(outcome, Type::TEXT);
    let rows = ask(session, step, "looking for the last run").await?;
    Ok(rows.first().map(run))
}

/// Deletes the runs that began more than 90 days ago. Answers how many.
///
/// # Errors
/// [`Error`] as the database has it.
pub async fn prune(session: &Session) -> Result<usize, Error> {
    let sql = format!(
        "DELETE FROM hubsyncd.run WHERE started_at < clock_timestamp() - interval '{KEPT}' RETURNING 1"
    );
    Ok(ask(session, Step::new(sql), "deleting old runs").await?.len())
}

async fn ask(session: &Session, step: Step<'_>, doing: &'static str) -> Result<Vec<Row>, Error> {
    let answers = pipeline::send(session, &[step]).await;
    let answers = answers.map_err(|error| Error::from_client(doing, error))?;
    Ok(answers.into_iter().flatten().collect())
}

fn run(row: &Row) -> Run {
    Run {
        id: row.get(0),
        kind: row.get(1),
        reason: row.get(2),
        started_at: row.get(3),
        finished_at: row.get(4),
        outcome: row.get(5),
        summary: row.get(6),
    }
}
