//! What one transaction of a receipt writes: decided from what each entry wants and what the locks got.
//!
//! The decision is pure, so that a simulated database writes what the real one would.

use super::orphan;
use super::statement::{self, Statements};
use super::transaction::Part;
use super::{Entry, Receipt, Writer, Written};
use crate::postgres::pipeline::Step;
use crate::postgres::{changes, intent, links};
use crate::sync::doubt::Due;
use crate::sync::linking::Note;
use crate::sync::outcome::Refusal;
use std::collections::{HashMap, HashSet};

/// What the locks at the begin got.
#[derive(Debug, Default)]
pub struct Held {
    /// The rows we hold, with the HubSpot id they hold.
    pub rows: HashMap<String, Option<String>>,
    /// Rows that are there and that we do not hold, or were not asked to.
    pub there: HashSet<String>,
    /// The audit entries we hold.
    pub entries: HashSet<i64>,
    /// Unmarked audit entries that are there and that we do not hold.
    pub entries_out_of_reach: HashSet<i64>,
}

/// Everything to write, statement by statement, in the order of the fields.
#[derive(Debug, Default)]
pub struct Work<'a> {
    /// Rows that get their HubSpot id: (key, id, whether the sync time is written).
    pub ids: Vec<(&'a str, &'a str, bool)>,
    /// Rows whose sync time is written.
    pub touched: Vec<&'a str>,
    /// Audit entries to mark.
    pub marks: Vec<i64>,
    /// Rows whose lookups by others are named, since they have just got their id.
    pub given: Vec<&'a str>,
    /// Rows whose intent may hold a HubSpot id in vain, with the id they hold, if they are there: where deleted rows are
    /// archived, another id in the intent is named as a record to archive.
    pub in_vain: Vec<(&'a str, Option<&'a str>)>,
    /// Rows whose link memory ends, or becomes that of the row which holds their record now.
    pub links_over: Vec<&'a str>,
    /// Rows whose failure, not that of a record they lost, ends.
    pub failures_over: Vec<&'a str>,
    /// Rows whose intent ends.
    pub intents_over: Vec<&'a str>,
    /// Records that lost their row and are dealt with, whose failure ends: (key, id).
    pub archived: Vec<(&'a str, &'a str)>,
    /// Records that are not archived after all.
    pub not_archived: Vec<&'a str>,
    /// Rows that are gone, whose intents end but for creates whose outcome is not known.
    pub intents_buried: Vec<&'a str>,
    /// Rows that are due to be pushed once more.
    pub owed: Vec<(&'a str, Due)>,
    /// What is remembered of links: (key, note).
    pub links: Vec<(&'a str, &'a Note)>,
    /// Failures, as `note_failures` takes them.
    pub failures: Vec<serde_json::Value>,
    /// Ids kept in the intent: (key, id).
    pub intents: Vec<(&'a str, &'a str)>,
    /// Rows named as changed.
    pub named: Vec<&'a str>,
    /// Changes deleted.
    pub seqs: Vec<i64>,
    /// What becomes of each entry, by its position in the receipt.
    pub said: Vec<(usize, Written)>,
}

impl<'a> Work<'a> {
    /// Decides, for a part of a receipt.
    pub fn of(receipt: &'a Receipt, part: &Part<'_>, held: &Held) -> Work<'a> {
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
        self.done(entry);
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
            self.in_vain.push((&entry.key, entry.hubspot_id.as_deref()));
        }
    }

    /// What becomes of the row's intent.
    fn intent(&mut self, entry: &'a Entry) {
        if entry.intent_over && !entry.row_gone {
            self.intents_over.push(&entry.key);
        }
        self.owed.extend(entry.due.map(|due| (&*entry.key, due)));
    }

    /// Failure, links and intent.
    fn outcome(&mut self, entry: &'a Entry) {
        self.intent(entry);
        match &entry.failure {
            Some(refusal) => self.failure(entry, refusal),
            None if entry.clear_failure => self.failures_over.push(&entry.key),
            None => {}
        }
        self.links(entry);
    }

    fn failure(&mut self, entry: &'a Entry, refusal: &Refusal) {
        let id = entry.hubspot_id.as_deref().or(entry.read_id.as_deref());
        self.failures.push(statement::failure(
            &entry.key,
            None,
            id,
            entry.full_record,
            refusal,
        ));
    }

    /// Its changes are done with, and with them what they say of records that lost the row.
    fn done(&mut self, entry: &'a Entry) {
        self.seqs.extend(&entry.seqs);
        self.archived
            .extend(entry.archived.iter().map(|id| (&*entry.key, id.as_str())));
        for id in &entry.left {
            self.archived.push((&entry.key, id));
            self.not_archived.push(id);
        }
        for (id, refusal) in &entry.unarchived {
            self.not_archived.push(id);
            self.failures
                .push(statement::failure(&entry.key, Some(id), Some(id), false, refusal));
        }
    }

    fn links(&mut self, entry: &'a Entry) {
        self.links
            .extend(entry.links.iter().map(|note| (&*entry.key, note)));
    }

    /// The row's end: nothing of it is remembered. Entries of a row that is gone have nothing left to push.
    fn gone(&mut self, entry: &'a Entry, held: &Held) {
        self.done(entry);
        self.in_vain.push((&entry.key, None));
        self.marks
            .extend(entry.audit.iter().filter(|id| held.entries.contains(id)));
        self.failures_over.push(&entry.key);
        if entry.row_gone && entry.intent_over {
            self.intents_over.push(&entry.key);
        } else {
            self.intents_buried.push(&entry.key);
        }
        self.links_over.push(&entry.key);
    }

    /// Another id won: it is read and pushed anew under that one.
    fn lost(&mut self, entry: &'a Entry, holds_one: bool) -> Written {
        self.done(entry);
        if !entry.found {
            self.in_vain.push((&entry.key, None));
        }
        self.intent(entry);
        // Whose links they are stands beside them, so they are no other record's.
        self.links(entry);
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
        self.links(entry);
        self.done(entry);
        self.owed.extend(entry.due.map(|due| (&*entry.key, due)));
        if let Some(id) = entry.new_id() {
            self.intents.push((&entry.key, id));
        }
    }

    /// The statements, those on the application's rows first.
    pub(super) fn steps(&'a self, writer: &'a Writer, read_at: i64) -> Vec<Step<'a>> {
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
        if statements.archives() && !self.in_vain.is_empty() {
            // Before the intent forgets them.
            steps.push(orphan::name(object, &self.in_vain));
        }
        self.own_steps(statements, object, &mut steps);
        if !self.ids.is_empty() || !self.touched.is_empty() {
            // The application's deferred triggers audit now, not after we have marked.
            steps.push(Step::simple("SET CONSTRAINTS ALL IMMEDIATE"));
            steps.extend(statements.mark_collected(read_at));
        }
        steps
    }

    /// The statements on our own tables.
    fn own_steps(&'a self, statements: &'a Statements, object: &'a str, steps: &mut Vec<Step<'a>>) {
        if !self.failures_over.is_empty() {
            steps.push(statement::end_failures(object, self.failures_over.clone()));
        }
        if !self.archived.is_empty() {
            steps.push(orphan::end_failures(object, &self.archived));
        }
        if !self.not_archived.is_empty() {
            steps.push(orphan::not_archived(object, self.not_archived.clone()));
        }
        steps.extend(links::notes(object, &self.links));
        if !self.links_over.is_empty() {
            // After what is noted of the links of a row that has the record by now, and before the intents are forgotten.
            steps.push(statements.end_links(object, self.links_over.clone()));
        }
        if !self.intents_over.is_empty() {
            steps.push(statement::end_intents(object, self.intents_over.clone()));
        }
        if !self.intents_buried.is_empty() {
            steps.push(intent::bury(object, self.intents_buried.clone()));
        }
        if !self.owed.is_empty() {
            steps.push(intent::owe(object, &self.owed));
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
            steps.push(changes::deletion(object, self.seqs.clone()));
        }
    }
}
