//! One transaction of a receipt: take what can be had, decide, write, commit.

use super::statement::{self, Strength};
use super::trouble::{self, Trouble};
use super::{Entry, Probe, Receipt, Writer, Written};
use crate::postgres::pipeline::{self, Step};
use crate::postgres::{Error, ErrorKind, Session};
use crate::sync::change::Key;
use crate::sync::outcome::Refusal;
use std::collections::{HashMap, HashSet};

/// Which part of a receipt to write.
pub(super) enum Part<'a> {
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

/// What the locks at the begin got.
#[derive(Default)]
struct Held {
    /// The rows we hold, with the HubSpot id they hold.
    rows: HashMap<String, Option<String>>,
    /// Rows that are there and that we do not hold, or were not asked to.
    there: HashSet<String>,
    /// The audit entries we hold.
    entries: HashSet<i64>,
    /// Unmarked audit entries that are there and that we do not hold.
    entries_out_of_reach: HashSet<i64>,
}

/// Everything to write, statement by statement.
#[derive(Default)]
struct Work<'a> {
    ids: Vec<(&'a str, &'a str, bool)>,
    touched: Vec<&'a str>,
    given: Vec<&'a str>,
    marks: Vec<i64>,
    seqs: Vec<i64>,
    failures: Vec<serde_json::Value>,
    failures_over: Vec<&'a str>,
    intents_over: Vec<&'a str>,
    intents: Vec<(&'a str, &'a str)>,
    links_over: Vec<&'a str>,
    links: Vec<(&'a str, &'a str, &'a str)>,
    named: Vec<&'a str>,
    said: Vec<(usize, Written)>,
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
        hold(session, writer, &entries).await
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
    match commit(session, writer, receipt.read_at, &work, holds).await {
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
async fn roll_back(
    session: &Session,
    writer: &Writer,
    error: tokio_postgres::Error,
) -> Result<Trouble, Error> {
    let closed = error.is_closed() || error.as_db_error().is_none();
    let doing = format!("writing a receipt of {}", writer.name);
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
async fn hold(session: &Session, writer: &Writer, entries: &[&Entry]) -> Result<Held, tokio_postgres::Error> {
    let statements = &writer.statements;
    let keys = |of_ids: bool| -> Vec<String> {
        let rows = entries
            .iter()
            .filter(|entry| entry.writes_row() && entry.new_id().is_some() == of_ids);
        rows.map(|entry| entry.key.to_string()).collect()
    };
    let mut steps = vec![Step::simple(&statements.begin)];
    let mut wanted: HashSet<String> = HashSet::new();
    for (strength, keys) in [(Strength::Id, keys(true)), (Strength::Touch, keys(false))] {
        if !keys.is_empty() {
            wanted.extend(keys.iter().cloned());
            steps.push(statements.hold(strength, keys));
        }
    }
    let row_steps = steps.len();
    let entries_wanted: HashSet<i64> = entries
        .iter()
        .flat_map(|entry| entry.audit.iter().copied())
        .collect();
    steps.extend(statements.hold_entries(entries_wanted.iter().copied().collect()));
    let answers = pipeline::send(session, &steps).await?;
    let mut held = Held {
        rows: answers[..row_steps]
            .iter()
            .flatten()
            .map(|row| (row.get(0), row.get(1)))
            .collect(),
        entries: answers[row_steps..]
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
    read_at: i64,
    work: &Work<'_>,
    begun: bool,
) -> Result<bool, tokio_postgres::Error> {
    let mut steps = Vec::new();
    if !begun {
        steps.push(Step::simple(&writer.statements.begin));
    }
    let first = steps.len();
    steps.extend(work.steps(writer, read_at));
    if !begun {
        // After a failed statement COMMIT rolls back.
        steps.push(Step::simple("COMMIT"));
        pipeline::send(session, &steps).await?;
        return Ok(true);
    }
    let answers = pipeline::send(session, &steps).await?;
    let mut updates = answers[first..].iter();
    for expected in [work.ids.len(), work.touched.len()] {
        if expected > 0 && updates.next().is_none_or(|rows| rows.len() < expected) {
            return Ok(false);
        }
    }
    pipeline::send(session, &[Step::simple("COMMIT")]).await?;
    Ok(true)
}

impl<'a> Work<'a> {
    fn of(receipt: &'a Receipt, part: &Part<'_>, held: &Held) -> Work<'a> {
        let mut work = Work::default();
        match part {
            Part::Rows(indices) => {
                for index in *indices {
                    let said = work.entry(&receipt.entries[*index], held);
                    work.said.push((*index, said));
                }
            }
            Part::Refused(index, refusal) => {
                let entry = &receipt.entries[*index];
                work.refused(entry, refusal);
                work.said.push((*index, Written::Refused((*refusal).clone())));
            }
        }
        work
    }

    /// Decides what becomes of an entry and adds what that takes.
    fn entry(&mut self, entry: &'a Entry, held: &Held) -> Written {
        if entry.row_gone && !held.there.contains(&*entry.key) {
            self.gone(entry, held);
            return Written::Gone;
        }
        if entry.writes_row() {
            match held.rows.get(&*entry.key) {
                None if held.there.contains(&*entry.key) => return Written::Locked,
                None => {
                    self.gone(entry, held);
                    return Written::Gone;
                }
                Some(now) if *now != entry.read_id && (now.is_none() || *now != entry.hubspot_id) => {
                    return self.lost(entry, now.is_some());
                }
                Some(now) => self.row(entry, now.as_deref()),
            }
        }
        self.outcome(entry);
        if entry.failure.is_none() {
            self.marks
                .extend(entry.audit.iter().filter(|id| held.entries.contains(id)));
        }
        if entry
            .audit
            .iter()
            .any(|id| held.entries_out_of_reach.contains(id))
        {
            // All but an audit entry is written; the changes stay, so that it is marked by the next push.
            return Written::Locked;
        }
        self.seqs.extend(&entry.seqs);
        if entry.rename {
            self.named.push(&entry.key);
        }
        Written::Done
    }

    /// The row itself, which we hold and which holds `now`.
    fn row(&mut self, entry: &'a Entry, now: Option<&str>) {
        match entry.hubspot_id.as_deref().filter(|id| now != Some(*id)) {
            Some(id) => {
                self.ids.push((&entry.key, id, entry.synced));
                self.given.push(&entry.key);
            }
            None if entry.synced => self.touched.push(&entry.key),
            None => {}
        }
        if entry.hubspot_id.is_some() {
            self.intents_over.push(&entry.key);
        }
        if entry.new_id().is_some() && entry.read_id.is_some() {
            // Another record than the one whose links we remember.
            self.links_over.push(&entry.key);
        }
    }

    /// Failure and links.
    fn outcome(&mut self, entry: &'a Entry) {
        match &entry.failure {
            Some(refusal) => self.failure(entry, refusal),
            None if entry.clear_failure => self.failures_over.push(&entry.key),
            None => {}
        }
        self.made_links(entry);
    }

    fn failure(&mut self, entry: &'a Entry, refusal: &Refusal) {
        let id = entry.hubspot_id.as_deref().or(entry.read_id.as_deref());
        self.failures
            .push(statement::failure(&entry.key, id, entry.full_record, refusal));
    }

    fn made_links(&mut self, entry: &'a Entry) {
        let links = entry.made_links.iter();
        self.links
            .extend(links.map(|(link, to)| (&*entry.key, link.as_str(), to.as_str())));
    }

    /// The row's end: nothing of it is remembered. Entries of a row that is gone have nothing left to push.
    fn gone(&mut self, entry: &'a Entry, held: &Held) {
        self.seqs.extend(&entry.seqs);
        self.marks
            .extend(entry.audit.iter().filter(|id| held.entries.contains(id)));
        self.failures_over.push(&entry.key);
        self.intents_over.push(&entry.key);
        self.links_over.push(&entry.key);
    }

    /// Another id won: it is read and pushed anew under that one.
    fn lost(&mut self, entry: &'a Entry, holds_one: bool) -> Written {
        self.seqs.extend(&entry.seqs);
        self.intents_over.push(&entry.key);
        self.links_over.push(&entry.key);
        self.named.push(&entry.key);
        let reason = if holds_one {
            "the row was given another HubSpot id during the push; that one is kept and the row is pushed again"
        } else {
            "the row's HubSpot id was taken away during the push; the row is pushed again"
        };
        Written::Lost {
            reason: reason.to_owned(),
        }
    }

    /// Postgres refuses the row: all but the row itself is written.
    fn refused(&mut self, entry: &'a Entry, refusal: &Refusal) {
        self.failure(entry, refusal);
        self.made_links(entry);
        self.seqs.extend(&entry.seqs);
        if let Some(id) = entry.new_id() {
            self.intents.push((&entry.key, id));
        }
    }

    /// The statements, those on the application's rows first.
    fn steps(&'a self, writer: &'a Writer, read_at: i64) -> Vec<Step<'a>> {
        let (statements, object) = (&writer.statements, writer.name.as_str());
        let mut steps = Vec::new();
        if !self.ids.is_empty() {
            let keys = self.ids.iter().map(|id| id.0).collect();
            let ids = self.ids.iter().map(|id| id.1).collect();
            steps.push(statements.set_ids(read_at, keys, ids, self.ids.iter().map(|id| id.2).collect()));
        }
        if !self.touched.is_empty() {
            steps.push(statements.touch(read_at, self.touched.clone()));
        }
        steps.extend(statements.mark(read_at, self.marks.clone()));
        steps.extend(statements.name_lookups(&self.given));
        self.own_steps(object, &mut steps);
        if !self.ids.is_empty() || !self.touched.is_empty() {
            // The application's deferred triggers audit now, not after we have marked.
            steps.push(Step::simple("SET CONSTRAINTS ALL IMMEDIATE"));
            steps.extend(statements.mark_collected(read_at));
        }
        steps
    }

    /// The statements on our own tables.
    fn own_steps(&'a self, object: &'a str, steps: &mut Vec<Step<'a>>) {
        let over = [
            ("link", &self.links_over),
            ("failure", &self.failures_over),
            ("intent", &self.intents_over),
        ];
        for (table, keys) in over {
            if !keys.is_empty() {
                steps.push(statement::delete(table, object, keys.clone()));
            }
        }
        if !self.links.is_empty() {
            steps.push(statement::remember_links(object, &self.links));
        }
        if !self.failures.is_empty() {
            steps.push(statement::note_failures(object, self.failures.clone()));
        }
        if !self.intents.is_empty() {
            steps.push(statement::note_ids(object, self.intents.iter().copied()));
        }
        if !self.named.is_empty() {
            steps.push(statement::name(object, self.named.clone()));
        }
        if !self.seqs.is_empty() {
            steps.push(statement::delete_changes(object, self.seqs.clone()));
        }
    }
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
