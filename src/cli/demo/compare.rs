//! The comparison of both ends: row by row, property by property, association by association.
//!
//! It is written from the documents' mapping and from nothing that the daemon does: its own SQL reads the application's
//! tables, and the sandbox's world is looked at from inside. What HubSpot must hold of a row:
//!
//! - update properties as the row holds them; null is "0" for credits and total_bookings, and nothing for the others;
//! - create-only properties as the row holds them too: the application of the demo does not change them once the row
//!   has its id;
//! - exactly the associations that the row names: its exam, and its contact by `contact_id` or else by student and
//!   e-mail.
//!
//! Besides, every record belongs to a row, and no audit entry is left unmarked. A difference names row and property,
//! never a value.

use super::school::{BOOKINGS, CONTACTS, EXAMS};
use crate::postgres::{Error, Session};
use crate::sandbox::{Record, World};
use std::collections::{BTreeSet, HashSet};
use std::fmt;

/// Columns with this prefix hold the HubSpot id that a row is to be associated with; the rest is the object's name.
const LINK: &str = "link:";

const CONTACT_ROWS: &str = "
    SELECT id::text, hubspot_id, hubspot_last_sync_at IS NOT NULL, student_id, lower(btrim(email)) AS email, firstname,
           lastname, coalesce(sj_credits, 0)::text AS sj_credits, coalesce(cs_credits, 0)::text AS cs_credits,
           coalesce(sjmini_credits, 0)::text AS sjmini_credits,
           coalesce(mock_discussion_token, 0)::text AS mock_discussion_token,
           coalesce(shared_mock_credits, 0)::text AS shared_mock_credits
    FROM hubspot_sync.hubspot_contact_credits ORDER BY id";

const BOOKING_ROWS: &str = "
    SELECT b.id::text, b.hubspot_id, b.hubspot_last_sync_at IS NOT NULL, b.booking_id, b.student_id, b.student_name,
           b.student_email, b.mock_exam_id, b.is_active, b.token_used, b.attending_location, b.dominant_hand,
           to_char(b.exam_date, 'YYYY-MM-DD') AS exam_date, b.idempotency_key, b.attendance,
           coalesce(b.contact_id, c.hubspot_id) AS \"link:contacts\", b.mock_exam_id AS \"link:mock_exams\"
    FROM hubspot_sync.hubspot_bookings b
    LEFT JOIN hubspot_sync.hubspot_contact_credits c ON c.student_id = b.student_id AND c.email = b.student_email
    ORDER BY b.id";

const EXAM_ROWS: &str = "
    SELECT id::text, hubspot_id, hubspot_last_sync_at IS NOT NULL, coalesce(total_bookings, 0)::text AS total_bookings
    FROM hubspot_sync.hubspot_mock_exams ORDER BY id";

const ENTRIES: &str = "
    SELECT count(*), count(*) FILTER (WHERE synced_to_hubspot_at IS NULL) FROM hubspot_sync.supabase_audit_log";

/// The objects with their types and how their rows are read.
const OBJECTS: [(&str, &str, &str); 3] = [
    ("contacts", CONTACTS, CONTACT_ROWS),
    ("bookings", BOOKINGS, BOOKING_ROWS),
    ("mock_exams", EXAMS, EXAM_ROWS),
];

/// The end in Postgres.
#[derive(Debug, Clone, Default)]
pub(super) struct Rows {
    /// By object, in the order of [`OBJECTS`].
    pub(super) objects: Vec<Vec<Row>>,
    /// Audit entries, and those of them that are not marked.
    pub(super) entries: (i64, i64),
}

/// What HubSpot must hold of a row.
#[derive(Debug, Clone, Default)]
pub(super) struct Row {
    pub(super) key: String,
    pub(super) hubspot_id: Option<String>,
    /// Whether the row says that it was pushed.
    pub(super) synced: bool,
    /// Name and value; `None`: HubSpot must hold nothing.
    pub(super) properties: Vec<(String, Option<String>)>,
    /// The other object's name, and the id of its record; `None`: no association.
    pub(super) links: Vec<(String, Option<String>)>,
}

/// Where the ends differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) object: &'static str,
    /// The row's key, or what else is meant.
    whose: String,
    what: String,
}

/// How much of an object was compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) object: &'static str,
    pub(super) rows: usize,
    pub(super) properties: usize,
    pub(super) associations: usize,
}

/// What the comparison found.
#[derive(Debug, Clone)]
pub(super) struct Verdict {
    pub(super) counted: Vec<Counted>,
    /// Audit entries.
    pub(super) entries: i64,
    pub(super) differences: Vec<Difference>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.object, self.whose, self.what)
    }
}

impl Rows {
    /// Reads the application's tables, as one whom no row level security hides anything from.
    ///
    /// # Errors
    /// What the database says.
    pub(super) async fn read(session: &Session) -> Result<Rows, Error> {
        let doing = |what: &str| format!("reading {what} to compare them");
        let mut rows = Rows::default();
        for (object, _, sql) in OBJECTS {
            let read = session.query(sql, &[]).await;
            let read = read.map_err(|error| Error::from_client(doing(object), error))?;
            let of_object = read.iter().map(|row| {
                let mut one = Row {
                    key: row.get(0),
                    hubspot_id: row.get(1),
                    synced: row.get(2),
                    ..Row::default()
                };
                for (at, column) in row.columns().iter().enumerate().skip(3) {
                    match column.name().strip_prefix(LINK) {
                        Some(to) => one.links.push((to.to_owned(), row.get(at))),
                        None => one.properties.push((column.name().to_owned(), row.get(at))),
                    }
                }
                one
            });
            rows.objects.push(of_object.collect());
        }
        let counted = session.query_one(ENTRIES, &[]).await;
        let counted = counted.map_err(|error| Error::from_client(doing("audit entries"), error))?;
        rows.entries = (counted.get(0), counted.get(1));
        Ok(rows)
    }

    /// Holds the rows against what HubSpot has.
    pub(super) fn compare(&self, world: &World) -> Verdict {
        let mut verdict = Verdict {
            counted: Vec::new(),
            entries: self.entries.0,
            differences: Vec::new(),
        };
        for ((object, kind, _), rows) in OBJECTS.iter().zip(&self.objects) {
            let mut comparing = Comparing {
                world,
                object,
                kind,
                counted: Counted {
                    object,
                    rows: rows.len(),
                    properties: 0,
                    associations: 0,
                },
                differences: &mut verdict.differences,
            };
            for row in rows {
                comparing.row(row);
            }
            comparing.strangers(rows);
            let counted = comparing.counted;
            verdict.counted.push(counted);
        }
        if self.entries.1 > 0 {
            verdict.differences.push(Difference {
                object: "audit",
                whose: "log".to_owned(),
                what: format!("{} entries are not marked as synced", self.entries.1),
            });
        }
        verdict
    }
}

/// The comparison of one object.
struct Comparing<'a> {
    world: &'a World,
    object: &'static str,
    kind: &'static str,
    counted: Counted,
    differences: &'a mut Vec<Difference>,
}

impl Comparing<'_> {
    fn differs(&mut self, whose: &str, what: impl Into<String>) {
        self.differences.push(Difference {
            object: self.object,
            whose: whose.to_owned(),
            what: what.into(),
        });
    }

    fn row(&mut self, row: &Row) {
        let Some(id) = &row.hubspot_id else {
            return self.differs(&row.key, "the row has no HubSpot id");
        };
        if !row.synced {
            self.differs(&row.key, "the row does not say when it was pushed");
        }
        let world = self.world;
        let Some(record) = world.record(self.kind, id).filter(|record| !record.archived()) else {
            return self.differs(&row.key, format!("HubSpot has no record {id}"));
        };
        self.properties(row, record);
        self.associations(row, id);
    }

    fn properties(&mut self, row: &Row, record: &Record) {
        for (name, value) in &row.properties {
            self.counted.properties += 1;
            let held = record.get(name).unwrap_or_default();
            if held != value.as_deref().unwrap_or_default() {
                self.differs(&row.key, format!("{name} differs"));
            }
        }
    }

    fn associations(&mut self, row: &Row, id: &str) {
        for (to, wanted) in &row.links {
            let kind = OBJECTS
                .iter()
                .find(|(object, ..)| object == to)
                .map(|(_, kind, _)| *kind);
            let held = self.world.associations(self.kind, id, kind.unwrap_or_default());
            let held: BTreeSet<&str> = held.iter().map(|link| link.to.as_str()).collect();
            let wanted: BTreeSet<&str> = wanted.as_deref().into_iter().collect();
            self.counted.associations += wanted.len();
            for missing in wanted.difference(&held) {
                self.differs(
                    &row.key,
                    format!("the association with {to} {missing} is missing"),
                );
            }
            for excess in held.difference(&wanted) {
                self.differs(
                    &row.key,
                    format!("an association with {to} {excess} that the row does not name"),
                );
            }
        }
    }

    /// Records that belong to no row: made in vain, or twice.
    fn strangers(&mut self, rows: &[Row]) {
        let known: HashSet<&str> = rows.iter().filter_map(|row| row.hubspot_id.as_deref()).collect();
        let world = self.world;
        for record in world.records(self.kind) {
            let id = record.id();
            if !known.contains(id.as_str()) {
                self.differs(&format!("record {id}"), "belongs to no row");
            }
        }
    }
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
