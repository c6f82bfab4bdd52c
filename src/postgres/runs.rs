//! Runs: what was swept and when, kept 90 days.
//!
//! A run stands in the table from its begin on, so that one that died with its daemon is seen: the next holder
//! closes it ([`close_abandoned`]).

use super::pipeline::{self, Step};
use super::{Error, ErrorKind, Session};
use crate::sync::report::Run;
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

/// How long runs are kept, as Postgres writes an interval.
const KEPT: &str = "90 days";

/// Any cause of an error.
type Cause = Box<dyn std::error::Error + Send + Sync>;

const COLUMNS: &str = "SELECT id::text, kind, reason, (extract(epoch FROM started_at) * 1000000)::bigint, \
     (extract(epoch FROM finished_at) * 1000000)::bigint, outcome, error, summary FROM hubsyncd.run";

/// A part of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The runs, newest first.
    pub runs: Vec<Run>,
    /// Where the next page starts: after this run; `None` at the end.
    pub next: Option<String>,
}

/// Writes a run down as it stands: at its begin, and again at its end.
///
/// # Errors
/// [`Error`] as the database has it; [`ErrorKind::Other`] for an id that is no uuid.
pub async fn keep(session: &Session, run: &Run) -> Result<(), Error> {
    let doing = "writing a run down";
    let other = |error| Error::with_source(ErrorKind::Other, doing, error);
    let id = Uuid::try_parse(&run.id).map_err(|error| other(Box::new(error) as Cause))?;
    let summary = serde_json::to_value(&run.summary).map_err(|error| other(Box::new(error) as Cause))?;
    let sql = "INSERT INTO hubsyncd.run (id, kind, reason, started_at, finished_at, outcome, error, summary) VALUES \
               ($1, $2, $3, 'epoch'::timestamptz + $4 * interval '1 microsecond', \
               'epoch'::timestamptz + $5 * interval '1 microsecond', $6, $7, $8) \
               ON CONFLICT (id) DO UPDATE SET finished_at = excluded.finished_at, outcome = excluded.outcome, \
               error = excluded.error, summary = excluded.summary";
    let step = Step::new(sql)
        .with(id, Type::UUID)
        .with(run.kind.as_str(), Type::TEXT)
        .with(run.reason.as_str(), Type::TEXT)
        .with(run.started_at, Type::INT8)
        .with(run.finished_at, Type::INT8)
        .with(run.outcome.as_deref(), Type::TEXT)
        .with(run.error.as_deref(), Type::TEXT)
        .with(summary, Type::JSONB);
    ask(session, step, doing).await?;
    Ok(())
}

/// Ends, as incomplete, the runs that a daemon left behind when it died; only for who holds the lease and runs
/// nothing yet. Answers how many there were.
///
/// # Errors
/// [`Error`] as the database has it.
pub async fn close_abandoned(session: &Session) -> Result<usize, Error> {
    let sql = "UPDATE hubsyncd.run SET finished_at = clock_timestamp(), outcome = 'incomplete', \
               error = 'the daemon ended before this run did' WHERE finished_at IS NULL RETURNING 1";
    Ok(ask(session, Step::new(sql), "closing abandoned runs")
        .await?
        .len())
}

/// Lists at most `limit` runs that began before the run `after`, newest first.
///
/// # Errors
/// [`Error`] as the database has it; [`ErrorKind::Rows`] if `after` is no run's id.
pub async fn list(session: &Session, after: Option<&str>, limit: usize) -> Result<Page, Error> {
    let after = after
        .map(Uuid::try_parse)
        .transpose()
        .map_err(|error| Error::with_source(ErrorKind::Rows, "listing the runs", error))?;
    // Ids grow with time, so a page goes on also after a run that was pruned meanwhile.
    let sql = format!("{COLUMNS} WHERE $1::uuid IS NULL OR id < $1 ORDER BY id DESC LIMIT $2");
    let one_more = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
    let step = Step::new(sql).with(after, Type::UUID).with(one_more, Type::INT8);
    let rows = ask(session, step, "listing the runs").await?;
    let mut runs: Vec<Run> = rows.iter().map(run).collect();
    let more = runs.len() > limit;
    runs.truncate(limit);
    let next = runs.last().filter(|_| more).map(|last| last.id.clone());
    Ok(Page { runs, next })
}

/// The newest run of a kind that has ended; with `outcome`, the newest that ended so. Runs that a trigger asked for
/// are left out: they sweep one object.
///
/// # Errors
/// [`Error`] as the database has it.
pub async fn last(session: &Session, kind: &str, outcome: Option<&str>) -> Result<Option<Run>, Error> {
    let sql = format!(
        "{COLUMNS} WHERE kind = $1 AND finished_at IS NOT NULL AND ($2::text IS NULL OR outcome = $2) \
         AND reason <> 'trigger' ORDER BY started_at DESC LIMIT 1"
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
    let summary = row.get::<_, Option<serde_json::Value>>(7).unwrap_or_default();
    Run {
        id: row.get(0),
        kind: row.get(1),
        reason: row.get(2),
        started_at: row.get(3),
        finished_at: row.get(4),
        outcome: row.get(5),
        error: row.get(6),
        summary: serde_json::from_value(summary).unwrap_or_default(),
    }
}
