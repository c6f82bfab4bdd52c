//! Our tables alone, without triggers, for the tests of what reads and writes them.

use super::postgres::{Database, Server};
use hubsyncd::postgres::Session;

const TABLES: &str = r#"
CREATE SCHEMA hubsyncd;
CREATE TABLE hubsyncd.change (object text NOT NULL, seq bigserial, key text, op "char" NOT NULL, hubspot_id text,
  captured_at timestamptz NOT NULL DEFAULT clock_timestamp(), PRIMARY KEY (object, seq));
CREATE TABLE hubsyncd.intent (object text NOT NULL, key text NOT NULL, hubspot_id text, match_value text, trace text,
  due_at timestamptz, noted_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (object, key));
CREATE TABLE hubsyncd.failure (object text NOT NULL, key text NOT NULL, hubspot_id text, category text NOT NULL,
  message text NOT NULL, properties text[] NOT NULL DEFAULT '{}', correlation_id text, existing_id text,
  full_record boolean NOT NULL DEFAULT false, attempts integer NOT NULL DEFAULT 1,
  first_failed_at timestamptz NOT NULL DEFAULT now(), last_failed_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (object, key));
CREATE TABLE hubsyncd.link (object text NOT NULL, key text NOT NULL, link text NOT NULL, to_id text NOT NULL,
  state text NOT NULL, PRIMARY KEY (object, key, link, to_id));
CREATE TABLE hubsyncd.run (id uuid PRIMARY KEY, kind text NOT NULL, reason text NOT NULL, started_at timestamptz NOT NULL,
  finished_at timestamptz, outcome text, summary jsonb);
GRANT USAGE ON SCHEMA hubsyncd TO hubsyncd;
GRANT ALL ON ALL TABLES IN SCHEMA hubsyncd TO hubsyncd;
GRANT ALL ON ALL SEQUENCES IN SCHEMA hubsyncd TO hubsyncd;
"#;

/// A database with the application's tables and ours; the daemon's session and the application's.
pub async fn database(server: &Server, hint: &str) -> (Database, Session, Session) {
    let database = server.application(hint).await;
    database.session().await.batch_execute(TABLES).await.unwrap();
    let daemon = database.session_as("hubsyncd").await;
    let application = database.session_as("app").await;
    (database, daemon, application)
}
