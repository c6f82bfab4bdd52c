//! One transaction of a receipt: take what can be had, let [`Work`] decide, write, commit.

use super::statement::Strength;
use super::trouble::{self, Trouble};
use super::work::{Held, Work};
use super::{Entry, Probe, Receipt, Writer, Written};
use crate::postgres::lease;
use crate::postgres::pipeline::{self, Step};
use crate::postgres::{Error, ErrorKind, Session};
use crate::sync::change::Key;
use crate::sync::outcome::Refusal;
use std::collections::HashSet;

/// Which part of a receipt to write.
#[derive(Debug)]
pub enum Part<'a> {
    /// These entries, with their rows.
    Rows(&'a [usize]),
    /// This entry without its row, which refuses to be written.
    Refused(usize, &'a Refusal),
}

/// What became of a transaction; but for [`Tried::Written`] it was rolled back.
pub(super) enum Tried {
    /// Committed, with what became of each entry.
    Written(Vec<(usize, Written)>),
    /// A whole table is locked: nothing can be had now.
    NotNow,
    /// A write had to wait for somebody too long.
    Waited,
    /// A row refuses.
    Refused(Refusal),
}

/// What the two halves of a transaction may end with besides their answer.
enum Broken {
    /// The lease's generation is gone.
    Fenced,
    /// As the server or the connection has it.
    Client(tokio_postgres::Error),
}

impl From<tokio_postgres::Error> for Broken {
    fn from(error: tokio_postgres::Error) -> Broken {
        Broken::Client(error)
    }
}

/// Writes a part of a receipt in a transaction of its own.
pub(super) async fn write(
    session: &mut Session,
    writer: &Writer,
    receipt: &Receipt,
    part: &Part<'_>,
) -> Result<Tried, Error> {
    let entries: Vec<&Entry> = match part {
        Part::Rows(indices) => indices.iter().map(|index| &receipt.entries[*index]).collect(),
        Part::Refused(..) => Vec::new(),
    };
    let holds = entries
        .iter()
        .any(|entry| entry.writes_row() || entry.row_gone || !entry.audit.is_empty());
    let held = match if holds {
        hold(session, writer, receipt.generation, &entries).await
    } else {
        Ok(Held::default())
    } {
        Ok(held) => held,
        Err(error) => {
            return Ok(match roll_back(session, writer, error).await? {
                Trouble::Refused(refusal) => Tried::Refused(refusal),
                Trouble::Wait => Tried::NotNow,
                Trouble::Broken(error) => return Err(error),
            });
        }
    };
    let work = Work::of(receipt, part, &held);
    match commit(session, writer, receipt, &work, holds).await {
        Ok(true) => Ok(Tried::Written(work.said)),
        Ok(false) => {
            pipeline::send(session, &[Step::simple("ROLLBACK")])
                .await
                .map_err(|error| Error::from_client("ending a receipt", error))?;
            Ok(Tried::Refused(trouble::suppressed(&writer.table)))
        }
        Err(error) => Ok(match roll_back(session, writer, error).await? {
            Trouble::Refused(refusal) => Tried::Refused(refusal),
            Trouble::Wait => Tried::Waited,
            Trouble::Broken(error) => return Err(error),
        }),
    }
}

/// Sorts a failure and leaves the session outside of any transaction.
async fn roll_back(session: &Session, writer: &Writer, broken: Broken) -> Result<Trouble, Error> {
    let doing = format!("writing a receipt of {}", writer.name);
    let Broken::Client(error) = broken else {
        let ended = session.batch_execute("ROLLBACK").await;
        ended.map_err(|error| Error::from_client(doing.as_str(), error))?;
        return Err(lease::gone(doing));
    };
    let closed = error.is_closed() || error.as_db_error().is_none();
    let trouble = trouble::sort(error, &doing, &writer.table);
    if closed {
        return Ok(trouble);
    }
    match (session.batch_execute("ROLLBACK").await, trouble) {
        // What ended the connection says more than that it is ended.
        (Err(_), Trouble::Broken(error)) => Err(error),
        (Err(error), _) => Err(Error::from_client(doing, error)),
        (Ok(()), trouble) => Ok(trouble),
    }
}

/// Begins the transaction and takes, without waiting for any row, what can be had: one round trip, and another to
/// see whether what was not got is there.
async fn hold(
    session: &Session,
    writer: &Writer,
    generation: i64,
    entries: &[&Entry],
) -> Result<Held, Broken> {
    let statements = &writer.statements;
    let keys = |of_ids: bool| -> Vec<String> {
        let rows = entries
            .iter()
            .filter(|entry| entry.writes_row() && entry.new_id().is_some() == of_ids);
        rows.map(|entry| entry.key.to_string()).collect()
    };
    let mut steps = vec![Step::simple(&statements.begin), lease::hold(generation)];
    let rows_from = steps.len();
    let mut wanted: HashSet<String> = HashSet::new();
    for (strength, keys) in [(Strength::Id, keys(true)), (Strength::Touch, keys(false))] {
        if !keys.is_empty() {
            wanted.extend(keys.iter().cloned());
            steps.push(statements.hold(strength, keys));
        }
    }
    let entries_from = steps.len();
    let entries_wanted: HashSet<i64> = entries
        .iter()
        .flat_map(|entry| entry.audit.iter().copied())
        .collect();
    steps.extend(statements.hold_entries(entries_wanted.iter().copied().collect()));
    let answers = pipeline::send(session, &steps).await?;
    if answers[1].is_empty() {
        return Err(Broken::Fenced);
    }
    let mut held = Held {
        rows: answers[rows_from..entries_from]
            .iter()
            .flatten()
            .map(|row| (row.get(0), row.get(1)))
            .collect(),
        entries: answers[entries_from..]
            .iter()
            .flatten()
            .map(|row| row.get(0))
            .collect(),
        ..Held::default()
    };
    let gone = entries
        .iter()
        .filter(|entry| entry.row_gone && statements.can_be_key(&entry.key));
    let missing: Vec<String> = wanted
        .into_iter()
        .filter(|key| !held.rows.contains_key(key))
        .chain(gone.map(|entry| entry.key.to_string()))
        .collect();
    let entries_missing: Vec<i64> = entries_wanted
        .into_iter()
        .filter(|id| !held.entries.contains(id))
        .collect();
    if !missing.is_empty() || !entries_missing.is_empty() {
        let mut steps = vec![statements.seen(missing)];
        steps.extend(statements.seen_entries(entries_missing));
        let answers = pipeline::send(session, &steps).await?;
        held.there = answers[0].iter().map(|row| row.get(0)).collect();
        held.entries_out_of_reach = answers[1..].iter().flatten().map(|row| row.get(0)).collect();
    }
    Ok(held)
}

/// Writes and commits; false if an UPDATE came back with fewer rows than we hold (nothing is committed then).
async fn commit(
    session: &Session,
    writer: &Writer,
    receipt: &Receipt,
    work: &Work<'_>,
    begun: bool,
) -> Result<bool, Broken> {
    let mut steps = Vec::new();
    if !begun {
        steps.push(Step::simple(&writer.statements.begin));
        steps.push(lease::hold(receipt.generation));
    }
    let first = steps.len();
    steps.extend(work.steps(writer, receipt.read_at));
    let answers = pipeline::send(session, &steps).await?;
    if !begun && answers[1].is_empty() {
        return Err(Broken::Fenced);
    }
    let mut updates = answers[first..].iter();
    for expected in [work.ids.len(), work.touched.len()] {
        if expected > 0 && updates.next().is_none_or(|rows| rows.len() < expected) {
            return Ok(false);
        }
    }
    pipeline::send(session, &[Step::simple("COMMIT")]).await?;
    Ok(true)
}

/// Asks why a row stays out of reach.
pub(super) async fn probe(session: &mut Session, writer: &Writer, key: &Key) -> Result<Probe, Error> {
    let doing = || format!("asking for a row of {} that stays out of reach", writer.name);
    let failed = |error| Error::from_client(doing(), error);
    let seen = pipeline::send(session, &[writer.statements.seen(vec![key.to_string()])]).await;
    if seen.map_err(failed)?.iter().all(Vec::is_empty) {
        return Ok(Probe::Gone);
    }
    let steps = [
        Step::simple(&writer.statements.begin),
        writer.statements.hold_now(key.to_string()),
    ];
    let asked = pipeline::send(session, &steps).await;
    let asked = asked
        .map(|answers| answers.iter().any(|rows| !rows.is_empty()))
        .map_err(failed);
    match asked {
        Err(error) if error.kind == ErrorKind::Unreachable => Err(error),
        asked => {
            session.batch_execute("ROLLBACK").await.map_err(failed)?;
            match asked {
                Ok(true) => Ok(Probe::Free),
                Ok(false) => Ok(Probe::Forbidden),
                Err(error) if error.kind == ErrorKind::Busy => Ok(Probe::Locked),
                Err(error) => Err(error),
            }
        }
    }
}
