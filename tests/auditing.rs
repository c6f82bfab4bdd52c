//! The application's audit log and the daemon: an entry names a row, and is marked when that row was pushed.

use crate::support::daemon::{CONTACTS, EXAMS, QUICK, Stage};
use crate::support::sweeping::unseen;
use crate::support::{DEADLINE, wait_until};
use hubsyncd::sandbox::{Endpoint, Fault, Settings, When};

const UNMARKED: &str =
    "SELECT count(*) FROM hubspot_sync.supabase_audit_log WHERE synced_to_hubspot_at IS NULL";

/// The SQL of an entry for a row of contacts.
fn entry(student: &str) -> String {
    format!(
        "INSERT INTO hubspot_sync.supabase_audit_log (table_name, record_id, operation)
         SELECT 'hubspot_contact_credits', id, 'UPDATE' FROM hubspot_sync.hubspot_contact_credits WHERE student_id = '{student}'"
    )
}

#[tokio::test]
async fn an_entry_pushes_the_row_it_names_bare_or_with_its_schema_and_is_marked() {
    let stage = Stage::new("audit_push").await;
    let exam = stage.known_exam().await;
    let daemon = stage.start().await;
    for (table, bookings) in [
        ("hubspot_mock_exams", "3"),
        ("hubspot_sync.hubspot_mock_exams", "4"),
    ] {
        unseen(
            &stage,
            &format!("UPDATE hubspot_sync.hubspot_mock_exams SET total_bookings = {bookings}"),
        )
        .await;
        stage
            .app(&format!(
                "INSERT INTO hubspot_sync.supabase_audit_log (table_name, record_id, operation)
                 SELECT '{table}', id, 'UPDATE' FROM hubspot_sync.hubspot_mock_exams"
            ))
            .await;
        stage
            .wait_world("the exam is pushed", |world| {
                world.record(EXAMS, &exam).unwrap().get("total_bookings") == Some(bookings)
            })
            .await;
        stage.wait_value(UNMARKED, "0").await;
    }
    drop(daemon);
}

#[tokio::test]
async fn entries_that_name_no_row_harm_nobody_and_are_marked_by_a_complete_sweep_alone() {
    let hasty = format!("{QUICK}give-up = \"1s\"\n");
    let stage = Stage::without_setup("audit_nonsense", Settings::default(), &hasty).await;
    stage
        .sql("ALTER TABLE hubspot_sync.supabase_audit_log ALTER COLUMN record_id TYPE text")
        .await;
    stage.setup().await;
    let contact = stage.known_contact("s1").await;
    let daemon = stage.start().await;
    stage
        .app(
            "INSERT INTO hubspot_sync.supabase_audit_log (table_name, record_id, operation) VALUES
             ('hubspot_contact_credits', 'no uuid; DROP TABLE x', 'UPDATE'), ('hubspot_contact_credits', '', 'UPDATE'),
             ('hubspot_bookings', gen_random_uuid()::text, 'DELETE'), ('students', gen_random_uuid()::text, 'UPDATE'),
             ('students', '17', 'INSERT')",
        )
        .await;
    stage
        .app("UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = 8")
        .await;
    stage
        .wait_world("a neighbour's change is pushed", |world| {
            world.record(CONTACTS, &contact).unwrap().get("sj_credits") == Some("8")
        })
        .await;
    stage.wait_drained().await;
    assert_eq!(stage.value(UNMARKED).await.as_deref(), Some("5"));
    assert_eq!(daemon.status().await["failures"], 0);
    let fault = Fault::named("503").unwrap().on(Endpoint::Update).always();
    stage.sandbox.fault(fault);
    assert_eq!(daemon.sweep().await["outcome"], "incomplete");
    assert_eq!(
        stage.value(UNMARKED).await.as_deref(),
        Some("5"),
        "an incomplete sweep marks none"
    );
    stage.sandbox.clear_faults();
    // HubSpot's trouble makes the daemon pause, which may outlast one more give-up.
    while daemon.sweep().await["outcome"] == "incomplete" {}
    assert_eq!(stage.value(UNMARKED).await.as_deref(), Some("0"));
}

#[tokio::test]
async fn an_entry_committed_after_the_read_stays_unmarked_until_its_own_push() {
    let stage = Stage::new("audit_late").await;
    stage.known_contact("s1").await;
    let daemon = stage.start().await;
    let first = stage.sandbox.hold(Endpoint::Update, When::Before);
    stage
        .app("UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = 1")
        .await;
    assert!(first.reached(DEADLINE).await, "the row was read");
    let second = stage.sandbox.hold(Endpoint::Update, When::Before);
    stage.app(&entry("s1")).await;
    let changes = "SELECT count(*) FROM hubsyncd.change";
    assert_eq!(stage.value(changes).await.as_deref(), Some("2"));
    first.release();
    assert!(second.reached(DEADLINE).await, "the entry's own push was read");
    assert_eq!(
        stage.value(changes).await.as_deref(),
        Some("1"),
        "the first push is recorded"
    );
    assert_eq!(
        stage.value(UNMARKED).await.as_deref(),
        Some("1"),
        "and did not mark the entry"
    );
    second.release();
    stage.wait_value(UNMARKED, "0").await;
    drop(daemon);
}

#[tokio::test]
async fn an_entry_committed_while_a_sweep_pushes_its_row_is_not_marked_by_the_sweep() {
    let stage = Stage::new("audit_swept").await;
    stage.known_contact("s1").await;
    let daemon = stage.start().await;
    let first = stage.sandbox.hold(Endpoint::Update, When::Before);
    let sweep = daemon.sweep();
    let meanwhile = async {
        assert!(first.reached(DEADLINE).await, "the row was read");
        let second = stage.sandbox.hold(Endpoint::Update, When::Before);
        stage.app(&entry("s1")).await;
        first.release();
        second
    };
    let (run, second) = tokio::join!(sweep, meanwhile);
    assert_eq!(run["outcome"], "complete", "{run}");
    assert!(
        second.reached(DEADLINE).await,
        "the entry's own push is on its way"
    );
    assert_eq!(stage.value(UNMARKED).await.as_deref(), Some("1"));
    second.release();
    stage.wait_value(UNMARKED, "0").await;
}

#[tokio::test]
async fn pitfall_1i_entries_of_refused_records_stay_unmarked_until_they_are_accepted() {
    let stage = Stage::new("audit_refused").await;
    let bad = stage.known_contact("bad").await;
    stage.known_contact("good").await;
    let daemon = stage.start().await;
    stage.sandbox.refuse_record(CONTACTS, "hs_object_id", &bad, None);
    stage
        .app(&format!(
            "UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = 5; {}; {}",
            entry("bad"),
            entry("good")
        ))
        .await;
    stage.wait_value(UNMARKED, "1").await;
    stage
        .wait_value("SELECT count(*) FROM hubsyncd.failure", "1")
        .await;
    stage.wait_drained().await;
    let run = daemon.sweep().await;
    assert_eq!(run["summary"]["contacts"]["failed"], 1, "{run}");
    assert_eq!(
        stage.value(UNMARKED).await.as_deref(),
        Some("1"),
        "refused again, so still not marked"
    );
    stage.sandbox.clear_faults();
    let run = daemon.sweep().await;
    assert_eq!(run["summary"]["contacts"]["failed"], 0, "{run}");
    assert_eq!(stage.value(UNMARKED).await.as_deref(), Some("0"));
    wait_until("no failure is left", async || {
        daemon.status().await["failures"] == 0
    })
    .await;
}
