//! Tests: pitfalls. What broke in systems like this one, each row with a regression test that bears its name.
//!
//! The rows are those of the survey that the design rests on: its section 1 reads the cron script of the first document
//! (1a to 1n), section 3 is about LISTEN and NOTIFY, section 4 lists what users suffer from, section 5 named bugs of others.
//! A test named `pitfall_4_10_…` is the one of section 4, row 10; most stand in the file of their topic.

use crate::support::daemon::{CONTACTS, QUICK, Stage};
use crate::support::wait_until;
use hubsyncd::sandbox::Settings;
use std::collections::BTreeSet;
use std::path::Path;

/// The rows that apply here: their number and what broke.
const ROWS: [(&str, &str); 47] = [
    ("1a", "one request a record"),
    ("1b", "a crash between the create and the write-back doubles"),
    ("1c", "a step that fails keeps the next ones from running"),
    ("1d", "a table is read only up to a thousand rows"),
    ("1e", "one bad record fails its hundred neighbours"),
    ("1f", "no pause after 429, no retry after 5xx"),
    ("1g", "a row that changes during the push looks synced"),
    ("1h", "an updated_at trigger makes every row sync again"),
    ("1i", "audit entries of failed records are marked as synced"),
    ("1j", "cron and manual trigger overlap"),
    ("1k", "a header that anybody can send authorises"),
    ("1l", "nulls clear what they should not"),
    ("1m", "a refused association loses the id of its record"),
    ("1n", "two hours of latency, and nothing to see"),
    ("3_01", "a NOTIFY in every commit serialises the commits"),
    (
        "3_03",
        "a payload over 8,000 bytes aborts the application's transaction",
    ),
    ("3_04", "a full queue fails every commit that notifies"),
    ("3_05", "notifications are lost while nobody listens"),
    ("3_06", "a scan before the new LISTEN is active loses the gap"),
    ("3_07", "a half-open connection looks fine"),
    ("3_08", "a reconnect that returns the dead connection"),
    ("3_09", "a trigger that vanished, and nobody says so"),
    ("3_10", "LISTEN behind a transaction pooler"),
    ("3_11", "a stampede of notifications"),
    ("3_12", "the order of a sequence is not the order of commits"),
    ("3_13", "a long transaction mutes the others"),
    ("4_01", "the run is green and the records are not there"),
    ("4_02", "one bad record fails the run"),
    ("4_03", "a failed row is skipped for ever, without a reason"),
    ("4_04", "the listener stops after hours and nothing is logged"),
    ("4_05", "storms of 429"),
    ("4_06", "search, then create: a duplicate"),
    ("4_07", "it does not run and says nothing"),
    ("4_08", "what failed while the other side was away is lost"),
    ("4_09", "deletes are not mirrored"),
    ("4_10", "associations are missing or stale"),
    ("4_11", "one record a call: hours for ten thousand rows"),
    ("4_12", "the index lags behind"),
    ("4_14", "connections leak until the database is down"),
    ("4_15", "NOTIFY slows the application"),
    ("4_16", "a pooler makes LISTEN silently useless"),
    ("4_18", "a crashed worker leaves its work locked"),
    ("4_19", "values change on the way: zero, false, dates, nulls"),
    ("4_20", "the token expires in the middle"),
    ("4_21", "a property is renamed or a rule added"),
    (
        "4_22",
        "an upgrade changes what is installed under the application",
    ),
    ("5_airbyte_207", "a 207 is taken for success"),
];

/// The names of all test functions under `folder`.
fn names(folder: &Path, into: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("node_modules") {
            names(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let lines: Vec<&str> = text.lines().map(str::trim).collect();
            for pair in lines.windows(2) {
                let is_test = pair[0].starts_with("#[test]") || pair[0].starts_with("#[tokio::test");
                let name = pair[1]
                    .split("fn ")
                    .nth(1)
                    .and_then(|rest| rest.split('(').next());
                into.extend(name.filter(|_| is_test).map(str::to_owned));
            }
        }
    }
}

#[test]
fn every_row_that_applies_has_a_test_that_bears_its_name() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeSet::new();
    names(&root.join("tests"), &mut found);
    names(&root.join("src"), &mut found);
    let bears = |row: &str| {
        found
            .iter()
            .any(|name| name.starts_with(&format!("pitfall_{row}_")))
    };
    let missing: Vec<_> = ROWS.iter().filter(|(row, _)| !bears(row)).collect();
    assert!(missing.is_empty(), "no test bears the name of {missing:?}");
    let known = |name: &str| {
        ROWS.iter()
            .any(|(row, _)| name.starts_with(&format!("pitfall_{row}_")))
    };
    let unknown: Vec<_> = found
        .iter()
        .filter(|name| name.starts_with("pitfall_") && !known(name))
        .collect();
    assert!(unknown.is_empty(), "no row has the name of {unknown:?}");
}

async fn insert(stage: &Stage, student: &str) {
    let sql = format!(
        "INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email) VALUES ('{student}', '{student}@example.com')"
    );
    stage.app(&sql).await;
}

/// Ends every session of the daemon.
async fn cut(stage: &Stage) {
    let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
               WHERE datname = current_database() AND usename = 'hubsyncd'";
    stage.value(sql).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pitfall_3_09_a_trigger_that_vanished_is_told_and_its_changes_are_found_by_a_sweep() {
    let stage = Stage::new("vanished_trigger").await;
    let daemon = stage.start().await;
    daemon.settled().await;
    let drop = "DO $$ DECLARE t record; BEGIN
        FOR t IN SELECT tgname FROM pg_trigger WHERE tgrelid = 'hubspot_sync.hubspot_contact_credits'::regclass AND NOT tgisinternal
            AND tgname LIKE 'hubsyncd%' LOOP
            EXECUTE format('DROP TRIGGER %I ON hubspot_sync.hubspot_contact_credits', t.tgname);
        END LOOP; END $$";
    stage.sql(drop).await;
    cut(&stage).await;
    wait_until("health names the triggers", async || {
        daemon.get("/health").await.1.contains("triggers")
    })
    .await;
    insert(&stage, "unseen").await;
    let run = daemon.sweep().await;
    assert_eq!(run["summary"]["contacts"]["created"], 1, "{run}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pitfall_4_14_sessions_and_files_do_not_pile_up_however_often_connections_break() {
    let toml = format!("{QUICK}[database]\nconnections = 3\n");
    let stage = Stage::with("leak", Settings::default(), &toml).await;
    let daemon = stage.start().await;
    daemon.settled().await;
    let files = || {
        let folder = format!("/proc/{}/fd", daemon.pid());
        std::fs::read_dir(folder).unwrap().count()
    };
    let mut most_files = 0;
    for round in 0..20 {
        cut(&stage).await;
        let student = format!("leak{round}");
        insert(&stage, &student).await;
        stage
            .wait_world("the contact arrives after the cut", |world| {
                world.find(CONTACTS, "student_id", &student).is_some()
            })
            .await;
        if round == 2 {
            most_files = files() + 4;
        }
    }
    daemon.settled().await;
    let sessions =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = 'hubsyncd'";
    let sessions: u32 = stage.value(sessions).await.unwrap().parse().unwrap();
    assert!(
        sessions <= 4,
        "{sessions} sessions of a daemon with three connections beside control"
    );
    wait_until("no more files are open than after the first cuts", async || {
        files() <= most_files
    })
    .await;
}
