//! The oracle: at quiescence both ends are held against the ledger and against each other, row by row, property by
//! property, association by association.
//!
//! It is written from the mapping and the promises, and from nothing that the daemon does. "Lost", "doubled" and
//! "stale" are counts over the ledger; everything else that is wrong is told in words.

use super::ground::PAYMENTS_TYPE;
use super::ledger::{BOOKINGS, CONTACTS, EXAMS, Kind, Ledger, PAYMENTS};
use crate::support::daemon;
use hubsyncd::postgres::Session;
use hubsyncd::sandbox::{Record, World, Write};
use std::collections::{BTreeSet, HashMap, HashSet};

/// The objects with their types in HubSpot.
pub(super) const KINDS: [(&Kind, &str); 4] = [
    (&CONTACTS, daemon::CONTACTS),
    (&BOOKINGS, daemon::BOOKINGS),
    (&EXAMS, daemon::EXAMS),
    (&PAYMENTS, PAYMENTS_TYPE),
];

/// What is read of a row: its id, whether it says when it was pushed, its update properties, its links.
const ROWS: [&str; 4] = [
    "SELECT id::text, hubspot_id, hubspot_last_sync_at IS NOT NULL, coalesce(sj_credits, 0)::text AS sj_credits,
            coalesce(cs_credits, 0)::text AS cs_credits, coalesce(sjmini_credits, 0)::text AS sjmini_credits,
            coalesce(mock_discussion_token, 0)::text AS mock_discussion_token,
            coalesce(shared_mock_credits, 0)::text AS shared_mock_credits
     FROM hubspot_sync.hubspot_contact_credits",
    "SELECT b.id::text, b.hubspot_id, b.hubspot_last_sync_at IS NOT NULL, b.is_active, b.attendance,
            coalesce(b.contact_id, c.hubspot_id) AS \"link:0-1\", b.mock_exam_id AS \"link:2-50158913\"
     FROM hubspot_sync.hubspot_bookings b
     LEFT JOIN hubspot_sync.hubspot_contact_credits c ON c.student_id = b.student_id AND c.email = b.student_email",
    "SELECT id::text, hubspot_id, hubspot_last_sync_at IS NOT NULL, coalesce(total_bookings, 0)::text AS total_bookings
     FROM hubspot_sync.hubspot_mock_exams",
    "SELECT id::text, hubspot_id, hubspot_last_sync_at IS NOT NULL, amount::text AS amount FROM hubspot_sync.payments",
];

/// Contacts that must have failed: an e-mail that is none, or one that another row's record has.
const REFUSED: &str = "
    SELECT id::text FROM hubspot_sync.hubspot_contact_credits WHERE email NOT LIKE '%@%'
    UNION ALL
    SELECT id::text FROM hubspot_sync.hubspot_contact_credits one WHERE hubspot_id IS NULL AND EXISTS
        (SELECT FROM hubspot_sync.hubspot_contact_credits other
         WHERE other.email = one.email AND other.id <> one.id AND other.hubspot_id IS NOT NULL)";

/// Audit entries: the row's key, and whether the entry is marked.
const ENTRIES: &str =
    "SELECT record_id::text, synced_to_hubspot_at IS NOT NULL FROM hubspot_sync.supabase_audit_log";

/// What the oracle found.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// Changes in the ledger.
    pub(super) changes: u64,
    /// Rows that are, properties and associations that were compared.
    pub(super) rows: u64,
    pub(super) properties: u64,
    pub(super) associations: u64,
    pub(super) entries: u64,
    /// Records whose row failed, as it had to.
    pub(super) refused: u64,
    /// Records whose row was deleted, and whose archiving the brake holds.
    pub(super) braked: u64,
    /// Rows of which HubSpot has no record, and deletions of which it does not know.
    pub(super) lost: u64,
    /// Records beyond one a row.
    pub(super) doubled: u64,
    /// Records that hold an older version than the ledger's newest.
    pub(super) stale: u64,
    /// Writes that took a record back to an older version for a while; the newer one had to win in the end.
    pub(super) overtaken: u64,
    /// All that is wrong, in words.
    pub(super) wrong: Vec<String>,
    /// Whose story is worth telling: objects and identities.
    pub(super) suspects: Vec<(&'static str, String)>,
}

impl Verdict {
    /// Adds another run's.
    pub(super) fn add(&mut self, other: Verdict) {
        self.changes += other.changes;
        self.rows += other.rows;
        self.properties += other.properties;
        self.associations += other.associations;
        self.entries += other.entries;
        self.refused += other.refused;
        self.braked += other.braked;
        self.overtaken += other.overtaken;
        self.add_wrongs(other);
    }

    /// Adds what a second look at the same run found wrong.
    pub(super) fn add_wrongs(&mut self, other: Verdict) {
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.stale += other.stale;
        self.wrong.extend(other.wrong);
    }
}

/// A row, as the tables hold it.
struct Row {
    key: String,
    hubspot_id: Option<String>,
    synced: bool,
    properties: Vec<(String, Option<String>)>,
    /// The other object's type, and the record's id.
    links: Vec<(String, Option<String>)>,
}

/// A row of `hubsyncd.failure`.
struct Failure {
    object: String,
    key: String,
    category: String,
    /// The record that is not archived; empty: the row was refused.
    archive: String,
}

/// What both ends look like.
pub(super) struct Ends {
    ledger: Ledger,
    rows: Vec<Vec<Row>>,
    refused: HashSet<String>,
    failures: Vec<Failure>,
    entries: Vec<(String, bool)>,
    left: Vec<String>,
}

impl Ends {
    /// Reads the end in Postgres.
    pub(super) async fn read(session: &Session) -> Ends {
        let kinds = KINDS.map(|(kind, _)| kind);
        let mut rows = Vec::new();
        for sql in ROWS {
            let read = session.query(sql, &[]).await.unwrap();
            rows.push(read.iter().map(row).collect());
        }
        let refused = session.query(REFUSED, &[]).await.unwrap();
        let failures = "SELECT object, key, category, archive FROM hubsyncd.failure";
        let failures = session.query(failures, &[]).await.unwrap();
        let entries = session.query(ENTRIES, &[]).await.unwrap();
        let left = "SELECT 'change ' || object || ' ' || coalesce(key, op::text) FROM hubsyncd.change
                    UNION ALL SELECT 'intent ' || object || ' ' || key FROM chaos.open_intent
                    UNION ALL SELECT 'link ' || object || ' ' || key || ' ' || state FROM hubsyncd.link WHERE state <> 'made'";
        let left = session.query(left, &[]).await.unwrap();
        Ends {
            ledger: Ledger::read(session, &kinds).await,
            rows,
            refused: refused.iter().map(|row| row.get(0)).collect(),
            failures: failures
                .iter()
                .map(|row| Failure {
                    object: row.get(0),
                    key: row.get(1),
                    category: row.get(2),
                    archive: row.get(3),
                })
                .collect(),
            entries: entries.iter().map(|row| (row.get(0), row.get(1))).collect(),
            left: left.iter().map(|row| row.get(0)).collect(),
        }
    }

    /// Holds both ends against the ledger. `swept`: a complete sweep came after the last change, so that also what
    /// only a sweep does is done.
    pub(super) fn judge(&self, world: &World, swept: bool) -> Verdict {
        let mut verdict = Verdict {
            changes: self.ledger.changes,
            wrong: self
                .left
                .iter()
                .map(|left| format!("left over: {left}"))
                .collect(),
            ..Verdict::default()
        };
        for ((kind, type_id), rows) in KINDS.iter().zip(&self.rows) {
            let mut judging = Judging {
                ends: self,
                world,
                kind,
                type_id,
                verdict: &mut verdict,
                swept,
            };
            judging.ledger(rows);
            for row in rows {
                judging.judge(row);
            }
            judging.records(rows);
        }
        self.failures(&mut verdict, swept);
        self.entries(&mut verdict, swept);
        verdict.overtaken = overtaken(world);
        verdict
    }

    fn failures(&self, verdict: &mut Verdict, swept: bool) {
        let refused = |failure: &&Failure| failure.archive.is_empty();
        let found: BTreeSet<&str> = self
            .failures
            .iter()
            .filter(refused)
            .map(|failure| failure.key.as_str())
            .collect();
        let wanted: BTreeSet<&str> = self.refused.iter().map(String::as_str).collect();
        verdict.refused = wanted.len() as u64;
        for key in wanted.difference(&found) {
            verdict
                .wrong
                .push(format!("contacts {key} is no failure, and has to be"));
        }
        for Failure {
            object,
            key,
            category,
            ..
        } in self.failures.iter().filter(refused)
        {
            if object != "contacts" || !wanted.contains(key.as_str()) {
                verdict
                    .wrong
                    .push(format!("{object} {key} is a failure ({category}) for no reason"));
            }
        }
        for failure in self.failures.iter().filter(|failure| !failure.archive.is_empty()) {
            verdict.braked += 1;
            if swept || failure.category != "brake" {
                let (object, key, category) = (&failure.object, &failure.key, &failure.category);
                verdict.wrong.push(format!(
                    "the record of {object} {key} is not archived ({category})"
                ));
            }
        }
    }

    fn entries(&self, verdict: &mut Verdict, swept: bool) {
        let alive: HashSet<&str> = self.rows.iter().flatten().map(|row| row.key.as_str()).collect();
        for (key, marked) in &self.entries {
            verdict.entries += 1;
            let refused = self.refused.contains(key);
            if *marked && refused {
                verdict.wrong.push(format!(
                    "an audit entry of {key} is marked, and the row was refused"
                ));
            }
            if !*marked && !refused && (swept || alive.contains(key.as_str())) {
                verdict
                    .wrong
                    .push(format!("an audit entry of {key} is not marked"));
            }
        }
    }
}

fn row(read: &tokio_postgres::Row) -> Row {
    let mut row = Row {
        key: read.get(0),
        hubspot_id: read.get(1),
        synced: read.get(2),
        properties: Vec::new(),
        links: Vec::new(),
    };
    for (at, column) in read.columns().iter().enumerate().skip(3) {
        match column.name().strip_prefix("link:") {
            Some(to) => row.links.push((to.to_owned(), read.get(at))),
            None => row.properties.push((column.name().to_owned(), read.get(at))),
        }
    }
    row
}

/// The judgement of one object.
struct Judging<'a> {
    ends: &'a Ends,
    world: &'a World,
    kind: &'a Kind,
    type_id: &'a str,
    verdict: &'a mut Verdict,
    swept: bool,
}

impl Judging<'_> {
    fn wrong(&mut self, key: &str, what: &str) {
        self.verdict
            .wrong
            .push(format!("{} {key}: {what}", self.kind.object));
    }

    /// The ledger against the tables: else nothing below would mean anything.
    fn ledger(&mut self, rows: &[Row]) {
        let ends = self.ends;
        let alive: HashSet<&str> = rows.iter().map(|row| row.key.as_str()).collect();
        for ((object, key), story) in &ends.ledger.stories {
            if object == self.kind.object && story.version.is_some() != alive.contains(key.as_str()) {
                self.wrong(key, "table and ledger disagree whether the row is");
            }
        }
    }

    fn judge(&mut self, row: &Row) {
        let wrongs = self.verdict.wrong.len();
        self.row(row);
        if self.verdict.wrong.len() > wrongs && self.kind.identity.is_some() {
            let story = (self.kind.object.to_owned(), row.key.clone());
            let identity = self
                .ends
                .ledger
                .stories
                .get(&story)
                .map(|story| story.identity.clone());
            self.verdict
                .suspects
                .extend(identity.map(|identity| (self.kind.object, identity)));
        }
    }

    fn row(&mut self, row: &Row) {
        self.verdict.rows += 1;
        if self.ends.refused.contains(&row.key) {
            if row.hubspot_id.is_some() {
                self.wrong(&row.key, "the row was to be refused and has a HubSpot id");
            }
            return;
        }
        let world = self.world;
        let record = row
            .hubspot_id
            .as_ref()
            .and_then(|id| world.record(self.type_id, id));
        let Some(record) = record.filter(|record| !record.archived()) else {
            self.verdict.lost += 1;
            let said = match row.hubspot_id {
                None => "has no HubSpot id",
                Some(_) => "has a HubSpot id that HubSpot does not know",
            };
            return self.wrong(&row.key, &format!("lost: the row {said}"));
        };
        if !row.synced {
            self.wrong(&row.key, "the row does not say when it was pushed");
        }
        self.version(row, record);
        self.properties(row, record);
        self.associations(row, record);
    }

    fn version(&mut self, row: &Row, record: &Record) {
        let (name, before) = self.kind.versioned;
        let held = record.get(name).and_then(|value| value.strip_prefix(before));
        let held: Option<i32> = held.and_then(|value| value.parse().ok());
        let story = self
            .ends
            .ledger
            .stories
            .get(&(self.kind.object.to_owned(), row.key.clone()));
        let newest = story.and_then(|story| story.version);
        if held != newest {
            self.verdict.stale += 1;
            self.wrong(
                &row.key,
                &format!("stale: HubSpot holds version {held:?}, the newest is {newest:?}"),
            );
        }
    }

    fn properties(&mut self, row: &Row, record: &Record) {
        for (name, value) in &row.properties {
            self.verdict.properties += 1;
            if record.get(name).unwrap_or_default() != value.as_deref().unwrap_or_default() {
                self.wrong(
                    &row.key,
                    &format!("{name} is {:?}, not {value:?}", record.get(name)),
                );
            }
        }
        let Some(story) = self
            .ends
            .ledger
            .stories
            .get(&(self.kind.object.to_owned(), row.key.clone()))
        else {
            return;
        };
        for (name, _) in self.kind.frozen {
            self.verdict.properties += 1;
            let held = record.get(name).map(str::to_owned);
            if !story.frozen[*name].contains(&held) {
                let wanted = &story.frozen[*name];
                self.wrong(&row.key, &format!("{name} is {held:?}, none of {wanted:?}"));
            }
        }
    }

    fn associations(&mut self, row: &Row, record: &Record) {
        for (to, wanted) in &row.links {
            let held = self.world.associations(self.type_id, &record.id(), to);
            let held: BTreeSet<&str> = held.iter().map(|link| link.to.as_str()).collect();
            let wanted: BTreeSet<&str> = wanted.as_deref().into_iter().collect();
            self.verdict.associations += wanted.len() as u64;
            if held != wanted {
                self.wrong(
                    &row.key,
                    &format!("associated with {to} {held:?}, not with {wanted:?}"),
                );
            }
        }
    }

    /// Every record belongs to a row that is, or was; and no row has two.
    fn records(&mut self, rows: &[Row]) {
        let Some(identity) = self.kind.identity else {
            return;
        };
        let owned: HashSet<&str> = rows.iter().filter_map(|row| row.hubspot_id.as_deref()).collect();
        let stories = self.ends.ledger.stories.iter();
        let alive: HashMap<&str, bool> = stories
            .filter(|((object, _), _)| object == self.kind.object)
            .map(|(_, story)| (story.identity.as_str(), story.version.is_some()))
            .collect();
        let mut seen = HashSet::new();
        for record in self.world.records(self.type_id) {
            let (id, name) = (record.id(), record.get(identity).unwrap_or_default());
            let wrongs = self.verdict.wrong.len();
            if !seen.insert(name) {
                self.verdict.doubled += 1;
                self.wrong(&id, &format!("doubled: a second record of {name}"));
            } else if !owned.contains(id.as_str()) {
                match alive.get(name) {
                    Some(false) if !self.kind.archived => {}
                    Some(false) => {
                        let braked = |failure: &Failure| failure.archive == id && failure.category == "brake";
                        if self.swept || !self.ends.failures.iter().any(braked) {
                            self.verdict.lost += 1;
                            self.wrong(
                                &id,
                                &format!("lost: {name} was deleted, its record is not archived"),
                            );
                        }
                    }
                    Some(true) => {
                        self.verdict.doubled += 1;
                        self.wrong(
                            &id,
                            &format!("doubled: a record of {name} that its row does not hold"),
                        );
                    }
                    None => self.wrong(&id, &format!("a record of {name:?}, which was never committed")),
                }
            }
            if self.verdict.wrong.len() > wrongs {
                self.verdict.suspects.push((self.kind.object, name.to_owned()));
            }
        }
    }
}

/// How many writes took a record back to an older version.
fn overtaken(world: &World) -> u64 {
    let mut newest: HashMap<(&str, &str), i64> = HashMap::new();
    let mut overtaken = 0;
    for write in world.requests().flat_map(|request| &request.writes) {
        let Write::Record {
            object,
            id,
            properties,
            ..
        } = write
        else {
            continue;
        };
        let Some((kind, _)) = KINDS.iter().find(|(_, type_id)| type_id == object) else {
            continue;
        };
        let (name, before) = kind.versioned;
        let version = properties
            .iter()
            .find(|(property, _)| property == name)
            .and_then(|(_, value)| value.strip_prefix(before)?.parse().ok());
        let Some(version) = version else { continue };
        let held = newest.entry((object, id)).or_insert(version);
        if version < *held {
            overtaken += 1;
        }
        *held = version.max(*held);
    }
    overtaken
}
