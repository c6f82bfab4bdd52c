//! The documented cron's algorithm as a program of its own: a request for each new record, three for a booking, batches
//! of a hundred for updates, strictly one after the other. No limit is kept and nothing is repeated, as there.
//!
//! It is this benchmark's own binary, started with the word [`WORD`]; it prints what it used.

use super::process::{cpu_seconds, peak_mb};
use super::support::http;
use super::support::postgres::session;
use hubsyncd::postgres::Session;
use serde_json::{Value, json};
use tokio_postgres::Row;

/// The word that makes this binary the rival; database, HubSpot and token follow.
pub const WORD: &str = "rival";

const CONTACTS: &str = "0-1";
const BOOKINGS: &str = "2-50158943";
const EXAMS: &str = "2-50158913";
const CREDITS: [&str; 5] = [
    "sj_credits",
    "cs_credits",
    "sjmini_credits",
    "mock_discussion_token",
    "shared_mock_credits",
];

struct Cron {
    session: Session,
    client: reqwest::Client,
    base: String,
    token: String,
}

/// Runs once, from the contacts to the audit log.
pub fn run(mut arguments: impl Iterator<Item = String>) {
    let mut next = || arguments.next().unwrap();
    let (database, base, token) = (next(), next(), next());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        // Installs the cryptography that any client wants.
        http();
        let cron = Cron {
            session: session(&database).await,
            client: reqwest::Client::new(),
            base,
            token,
        };
        cron.contacts().await;
        cron.bookings().await;
        cron.exams().await;
        let marked = "UPDATE hubspot_sync.supabase_audit_log SET synced_to_hubspot_at = now() WHERE synced_to_hubspot_at IS NULL";
        cron.session.batch_execute(marked).await.unwrap();
    });
    let pid = std::process::id();
    println!("{} {}", cpu_seconds(pid), peak_mb(pid));
}

impl Cron {
    async fn contacts(&self) {
        let rows = self
            .rows("SELECT to_jsonb(t) FROM hubspot_sync.hubspot_contact_credits AS t")
            .await;
        let (known, new): (Vec<Value>, Vec<Value>) =
            rows.into_iter().partition(|row| row["hubspot_id"].is_string());
        for contact in new {
            let mut sent = picked(&contact, &["student_id", "email", "firstname", "lastname"]);
            credits(&contact, &mut sent);
            let id = self.create(CONTACTS, sent).await;
            self.give("hubspot_contact_credits", &contact, &id).await;
        }
        let updates = |contact: &Value| {
            let mut sent = json!({});
            credits(contact, &mut sent);
            sent
        };
        self.batches(CONTACTS, "hubspot_contact_credits", &known, updates)
            .await;
    }

    async fn bookings(&self) {
        let new = "SELECT to_jsonb(t) FROM hubspot_sync.hubspot_bookings AS t WHERE hubspot_id IS NULL";
        for booking in self.rows(new).await {
            let sent = picked(
                &booking,
                &[
                    "booking_id",
                    "student_id",
                    "student_name",
                    "student_email",
                    "mock_exam_id",
                    "is_active",
                    "token_used",
                    "attending_location",
                    "dominant_hand",
                ],
            );
            let id = self.create(BOOKINGS, sent).await;
            for (to, column) in [(CONTACTS, "contact_id"), (EXAMS, "mock_exam_id")] {
                if let Some(other) = booking[column].as_str() {
                    let path = format!("/crm/v4/objects/{BOOKINGS}/{id}/associations/default/{to}/{other}");
                    self.send(reqwest::Method::PUT, &path, &Value::Null).await;
                }
            }
            self.give("hubspot_bookings", &booking, &id).await;
        }
        let changed =
            "SELECT to_jsonb(t) FROM hubspot_sync.hubspot_bookings AS t WHERE hubspot_id IS NOT NULL
                       AND (updated_at > hubspot_last_sync_at OR hubspot_last_sync_at IS NULL)";
        let changed = self.rows(changed).await;
        let updates = |booking: &Value| picked(booking, &["is_active", "attendance"]);
        self.batches(BOOKINGS, "hubspot_bookings", &changed, updates)
            .await;
    }

    async fn exams(&self) {
        let exams = self
            .rows("SELECT to_jsonb(t) FROM hubspot_sync.hubspot_mock_exams AS t")
            .await;
        let updates = |exam: &Value| json!({"total_bookings": exam["total_bookings"].as_i64().unwrap_or(0).to_string()});
        self.batches(EXAMS, "hubspot_mock_exams", &exams, updates).await;
    }

    async fn rows(&self, sql: &str) -> Vec<Value> {
        let rows: Vec<Row> = self.session.query(sql, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    async fn create(&self, object: &str, properties: Value) -> String {
        let path = format!("/crm/v3/objects/{object}");
        let body = json!({"properties": properties});
        let record = self.send(reqwest::Method::POST, &path, &body).await;
        record["id"].as_str().unwrap().to_owned()
    }

    /// Updates by the hundred, and notes the time of each batch.
    async fn batches(&self, object: &str, table: &str, rows: &[Value], properties: impl Fn(&Value) -> Value) {
        for batch in rows.chunks(100) {
            let input = |row: &Value| json!({"id": row["hubspot_id"], "properties": properties(row)});
            let inputs: Vec<Value> = batch.iter().map(input).collect();
            let path = format!("/crm/v3/objects/{object}/batch/update");
            self.send(reqwest::Method::POST, &path, &json!({"inputs": inputs}))
                .await;
            let ids: Vec<&str> = batch.iter().filter_map(|row| row["id"].as_str()).collect();
            let sql = format!(
                "UPDATE hubspot_sync.{table} SET hubspot_last_sync_at = now() WHERE id = ANY($1::text[]::uuid[])"
            );
            self.session.execute(&sql, &[&ids]).await.unwrap();
        }
    }

    /// Writes the id that HubSpot gave a row.
    async fn give(&self, table: &str, row: &Value, id: &str) {
        let sql = format!(
            "UPDATE hubspot_sync.{table} SET hubspot_id = $1, hubspot_last_sync_at = now() WHERE id = $2::text::uuid"
        );
        self.session
            .execute(&sql, &[&id, &row["id"].as_str()])
            .await
            .unwrap();
    }

    async fn send(&self, method: reqwest::Method, path: &str, body: &Value) -> Value {
        let request = self.client.request(method, format!("{}{path}", self.base));
        let request = request.bearer_auth(&self.token);
        let request = if body.is_null() {
            request
        } else {
            request.json(body)
        };
        let answer = request.send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        answer.json().await.unwrap_or_default()
    }
}

/// Some columns as properties; those that are null are left out, as HubSpot takes none.
fn picked(row: &Value, columns: &[&str]) -> Value {
    let pairs = columns.iter().filter(|column| !row[**column].is_null());
    pairs
        .map(|column| ((*column).to_owned(), row[*column].clone()))
        .collect()
}

fn credits(contact: &Value, sent: &mut Value) {
    for credit in CREDITS {
        sent[credit] = Value::from(contact[credit].as_i64().unwrap_or(0).to_string());
    }
}
