//! The ledger: every committed change, written by the writers in the same transaction as the change itself.
//!
//! So what a row's newest version is, and which rows ever were, is known without believing the tables, the triggers or
//! the daemon. Every row carries its version in a property that each change raises, so that HubSpot's record tells
//! which version it holds.

use hubsyncd::postgres::Session;
use std::collections::HashMap;

/// The ledger's table, and the one table that the application does not have: payments, whose natural key HubSpot does
/// not keep unique.
pub(super) const SCHEMA: &str = "
    CREATE SCHEMA chaos;
    GRANT USAGE ON SCHEMA chaos TO app;
    CREATE TABLE chaos.ledger (
        id bigserial PRIMARY KEY, object text NOT NULL, key text NOT NULL, op text NOT NULL, version integer NOT NULL,
        unborn boolean NOT NULL, frozen jsonb NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp());
    GRANT SELECT, INSERT ON chaos.ledger TO app;
    GRANT USAGE ON SEQUENCE chaos.ledger_id_seq TO app;
    CREATE TABLE hubspot_sync.payments (
        id bigint PRIMARY KEY, hubspot_id text UNIQUE, hubspot_last_sync_at timestamptz, reference text NOT NULL,
        amount integer NOT NULL, payer text);
    ALTER TABLE hubspot_sync.payments ENABLE ROW LEVEL SECURITY;
    GRANT SELECT, INSERT, UPDATE, DELETE ON hubspot_sync.payments TO app;
    GRANT SELECT, UPDATE (hubspot_id, hubspot_last_sync_at) ON hubspot_sync.payments TO hubsyncd;
    CREATE POLICY app ON hubspot_sync.payments TO app USING (true) WITH CHECK (true);
    CREATE POLICY hubsyncd_read ON hubspot_sync.payments FOR SELECT TO hubsyncd USING (true);
    CREATE POLICY hubsyncd_write ON hubspot_sync.payments FOR UPDATE TO hubsyncd USING (true);";

/// Intents that speak of something still to be done. A row that is refused keeps what is not known of an earlier create.
pub(super) const OPEN_INTENTS: &str = "
    CREATE VIEW chaos.open_intent AS SELECT intent.* FROM hubsyncd.intent AS intent
    WHERE NOT EXISTS (SELECT FROM hubsyncd.failure WHERE (object, key) = (intent.object, intent.key) AND archive = '')";

/// An object of the mapping: where its rows are, where its version is, and what is sent on create alone.
pub(super) struct Kind {
    pub(super) object: &'static str,
    pub(super) table: &'static str,
    /// The row's version, from its columns.
    pub(super) version: &'static str,
    /// HubSpot's name for it, and what stands before the number there.
    pub(super) versioned: (&'static str, &'static str),
    /// The property that no two rows share, and that a row never changes.
    pub(super) identity: Option<&'static str>,
    /// Whether the record of a deleted row is archived.
    pub(super) archived: bool,
    /// Create-only properties, each as an expression.
    pub(super) frozen: &'static [(&'static str, &'static str)],
}

pub(super) const CONTACTS: Kind = Kind {
    object: "contacts",
    table: "hubspot_sync.hubspot_contact_credits",
    version: "sj_credits",
    versioned: ("sj_credits", ""),
    identity: Some("student_id"),
    archived: false,
    frozen: &[
        ("student_id", "student_id"),
        ("email", "lower(email)"),
        ("firstname", "firstname"),
        ("lastname", "lastname"),
    ],
};

pub(super) const BOOKINGS: Kind = Kind {
    object: "bookings",
    table: "hubspot_sync.hubspot_bookings",
    version: "substr(attendance, 2)::integer",
    versioned: ("attendance", "v"),
    identity: Some("booking_id"),
    archived: true,
    frozen: &[
        ("booking_id", "booking_id"),
        ("student_id", "student_id"),
        ("student_name", "student_name"),
        ("student_email", "student_email"),
        ("mock_exam_id", "mock_exam_id"),
        ("token_used", "token_used"),
        ("attending_location", "attending_location"),
        ("dominant_hand", "dominant_hand"),
        ("exam_date", "to_char(exam_date, 'YYYY-MM-DD')"),
        ("idempotency_key", "idempotency_key"),
    ],
};

pub(super) const EXAMS: Kind = Kind {
    object: "mock_exams",
    table: "hubspot_sync.hubspot_mock_exams",
    version: "total_bookings",
    versioned: ("total_bookings", ""),
    identity: None,
    archived: false,
    frozen: &[],
};

/// Made by guarded creation: HubSpot would take as many records of one reference as it is sent.
pub(super) const PAYMENTS: Kind = Kind {
    object: "payments",
    table: "hubspot_sync.payments",
    version: "amount",
    versioned: ("amount", ""),
    identity: Some("reference"),
    archived: true,
    frozen: &[("reference", "reference"), ("payer", "payer")],
};

impl Kind {
    /// A statement that changes rows, with its entries in the ledger.
    pub(super) fn noted(&self, op: &str, sql: &str) -> String {
        let frozen: Vec<String> = self
            .frozen
            .iter()
            .map(|(name, expression)| format!("'{name}', {expression}"))
            .collect();
        format!(
            "WITH touched AS ({sql} RETURNING *)
             INSERT INTO chaos.ledger (object, key, op, version, unborn, frozen)
             SELECT '{}', id::text, '{op}', {}, hubspot_id IS NULL, jsonb_build_object({}) FROM touched",
            self.object,
            self.version,
            frozen.join(", ")
        )
    }
}

/// What the ledger says of one row.
#[derive(Debug, Default)]
pub(super) struct Story {
    /// The newest version; `None`: the row was deleted.
    pub(super) version: Option<i32>,
    /// How often it was changed.
    pub(super) changes: u64,
    /// The values that HubSpot may hold of each create-only property: the last one captured before the row had its
    /// HubSpot id, and every later one, since a row is read when it is sent.
    pub(super) frozen: HashMap<String, Vec<Option<String>>>,
    /// Every value that the identity ever had.
    pub(super) identity: String,
}

/// The ledger, read.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// By object and key.
    pub(super) stories: HashMap<(String, String), Story>,
    /// How many entries there are.
    pub(super) changes: u64,
}

impl Ledger {
    pub(super) async fn read(session: &Session, kinds: &[&Kind]) -> Ledger {
        let sql = "SELECT object, key, op, version, unborn, frozen FROM chaos.ledger ORDER BY id";
        let mut ledger = Ledger::default();
        for row in session.query(sql, &[]).await.unwrap() {
            let (object, key): (String, String) = (row.get(0), row.get(1));
            let frozen: serde_json::Value = row.get(5);
            let identity = kinds.iter().find(|kind| kind.object == object).unwrap().identity;
            let story = ledger.stories.entry((object, key)).or_default();
            story.changes += 1;
            story.version = (row.get::<_, &str>(2) != "D").then(|| row.get(3));
            if row.get(4) {
                story.frozen.clear();
            }
            for (name, value) in frozen.as_object().unwrap() {
                let value = value.as_str().map(str::to_owned);
                let held = story.frozen.entry(name.clone()).or_default();
                if !held.contains(&value) {
                    held.push(value);
                }
            }
            if let Some(identity) = identity {
                frozen[identity].as_str().unwrap().clone_into(&mut story.identity);
            }
            ledger.changes += 1;
        }
        ledger
    }
}

/// How many entries the ledger has by now.
pub(super) async fn changes(session: &Session) -> Option<u64> {
    let counted = session
        .query_one("SELECT count(*) FROM chaos.ledger", &[])
        .await
        .ok()?;
    u64::try_from(counted.get::<_, i64>(0)).ok()
}
