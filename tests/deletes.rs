//! Tests: rows that are deleted, and what becomes of their HubSpot records.

use super::support::daemon::{BOOKINGS, CONTACTS, Daemon, QUICK, Stage};
use super::support::{DEADLINE, wait_until};
use hubsyncd::sandbox::{Endpoint, Fault, Settings, When, Write};

/// Contacts whose records are archived with their rows, bookings whose records are kept.
const ARCHIVE: &str = r#"
[[object]]
name = "contacts"
table = "hubspot_sync.hubspot_contact_credits"
type = "0-1"
key = "id"
hubspot-id = "hubspot_id"
synced-at = "hubspot_last_sync_at"
match-on = "email"
on-delete = "archive"
where = "student_id <> 'outside'"
[object.properties]
email = { column = "email", on = "create" }
student_id = { column = "student_id", on = "create" }
sj_credits = { column = "sj_credits", null = "0" }

[[object]]
name = "bookings"
table = "hubspot_sync.hubspot_bookings"
type = "2-50158943"
key = "id"
hubspot-id = "hubspot_id"
synced-at = "hubspot_last_sync_at"
match-on = "booking_id"
[object.properties]
booking_id = { column = "booking_id", on = "create" }
is_active = "is_active"
"#;

const FAILURES: &str = "SELECT coalesce(string_agg(category || ' ' || hubspot_id, ', ' ORDER BY hubspot_id), '') FROM hubsyncd.failure";

async fn stage(hint: &str) -> Stage {
    Stage::with(hint, Settings::default(), &format!("{QUICK}{ARCHIVE}")).await
}

async fn delete(stage: &Stage, student: &str) {
    let sql = format!("DELETE FROM hubspot_sync.hubspot_contact_credits WHERE student_id = '{student}'");
    stage.sql(&sql).await;
}

/// Rows whose HubSpot ids are known, without a record of the sandbox each.
async fn many(stage: &Stage, first: usize, count: usize) {
    for number in first..first + count {
        stage.known_contact(&format!("many{number}")).await;
    }
}

async fn delete_many(stage: &Stage, first: usize, count: usize) {
    let names: Vec<String> = (first..first + count)
        .map(|number| format!("'many{number}'"))
        .collect();
    let list = names.join(", ");
    let sql = format!("DELETE FROM hubspot_sync.hubspot_contact_credits WHERE student_id IN ({list})");
    stage.sql(&sql).await;
}

fn archived(stage: &Stage, object: &str, id: &str) -> bool {
    let world = stage.sandbox.world();
    world
        .record(object, id)
        .is_some_and(hubsyncd::sandbox::Record::archived)
}

/// How often HubSpot was asked to archive something.
fn asked_to_archive(stage: &Stage) -> usize {
    let world = stage.sandbox.world();
    let archives = world
        .requests()
        .filter(|request| request.path.ends_with("/batch/archive"));
    archives.count()
}

fn archivings(stage: &Stage) -> usize {
    let world = stage.sandbox.world();
    let writes = world.requests().flat_map(|request| &request.writes);
    writes
        .filter(|write| matches!(write, Write::Archived { .. }))
        .count()
}

async fn wait_archived(stage: &Stage, id: &str) {
    wait_until(&format!("record {id} is archived"), async || {
        archived(stage, CONTACTS, id)
    })
    .await;
}

async fn wait_health(daemon: &Daemon, status: &str) -> String {
    let mut words = String::new();
    wait_until(&format!("health is {status}"), async || {
        let (_, body) = daemon.get("/health").await;
        words.clone_from(&body);
        let health: serde_json::Value = serde_json::from_str(&body).unwrap();
        health["status"] == status
    })
    .await;
    words
}

#[tokio::test]
async fn pitfall_4_09_a_deleted_row_takes_its_record_along_where_that_is_asked_for_and_nowhere_else() {
    let stage = stage("archive").await;
    let (gone, kept) = (
        stage.known_contact("gone").await,
        stage.known_contact("kept").await,
    );
    let booking = stage.sandbox.world().create(BOOKINGS, [("booking_id", "b")]);
    stage
        .sql(&format!(
            "INSERT INTO hubspot_sync.hubspot_bookings (booking_id, mock_exam_id, student_id, student_email, hubspot_id)
             VALUES ('b', '1', 's', 's@example.com', '{booking}')"
        ))
        .await;
    let daemon = stage.start().await;
    stage.sql("DELETE FROM hubspot_sync.hubspot_bookings").await;
    delete(&stage, "gone").await;
    wait_archived(&stage, &gone).await;
    stage.wait_drained().await;
    assert!(!archived(&stage, CONTACTS, &kept));
    assert!(!archived(&stage, BOOKINGS, &booking));
    assert_eq!(stage.value(FAILURES).await.as_deref(), Some(""));
    let remembered = "SELECT hubspot_id || released FROM hubsyncd.archived";
    assert_eq!(stage.value(remembered).await, Some(format!("{gone}false")));
    let (_, metrics) = daemon.get("/metrics").await;
    let counted = "hubsyncd_records_total{object=\"contacts\",outcome=\"archived\"} 1";
    assert!(metrics.contains(counted), "{metrics}");
}

#[tokio::test]
async fn a_record_that_an_answer_leaves_out_is_not_taken_for_gone() {
    let stage = stage("unsaid").await;
    let gone = stage.known_contact("gone").await;
    let _daemon = stage.start().await;
    stage.sandbox.fault(Fault::unreported(1).on(Endpoint::Read));
    delete(&stage, "gone").await;
    wait_archived(&stage, &gone).await;
    stage.wait_drained().await;
    assert_eq!(stage.value(FAILURES).await.as_deref(), Some(""));
}

#[tokio::test]
async fn a_changed_key_and_a_row_inserted_again_keep_their_record() {
    let stage = stage("rekeyed").await;
    let (moved, again, taken) = (
        stage.known_contact("moved").await,
        stage.known_contact("again").await,
        stage.known_contact("taken").await,
    );
    let marker = stage.known_contact("marker").await;
    let _daemon = stage.start().await;
    let table = "hubspot_sync.hubspot_contact_credits";
    stage
        .sql(&format!(
            "BEGIN;
             UPDATE {table} SET id = gen_random_uuid() WHERE student_id = 'moved';
             CREATE TEMP TABLE kept ON COMMIT DROP AS SELECT * FROM {table} WHERE student_id = 'again';
             DELETE FROM {table} WHERE student_id = 'again';
             INSERT INTO {table} SELECT * FROM kept;
             DELETE FROM {table} WHERE student_id = 'taken';
             INSERT INTO {table} (student_id, email) VALUES ('heir', 'taken@example.com');
             COMMIT"
        ))
        .await;
    stage.wait_drained().await;
    delete(&stage, "marker").await;
    wait_archived(&stage, &marker).await;
    stage.wait_drained().await;
    for id in [&moved, &again, &taken] {
        assert!(!archived(&stage, CONTACTS, id));
    }
    let heir = "SELECT hubspot_id FROM hubspot_sync.hubspot_contact_credits WHERE student_id = 'heir'";
    assert_eq!(
        stage.value(heir).await,
        Some(taken),
        "it took over what its forerunner had"
    );
    assert_eq!(archivings(&stage), 1);
}

#[tokio::test]
async fn a_row_that_leaves_the_mapping_or_is_truncated_is_never_archived() {
    let stage = stage("outside").await;
    let (left, marker) = (
        stage.known_contact("left").await,
        stage.known_contact("marker").await,
    );
    let truncated = stage.known_contact("truncated").await;
    let daemon = stage.start().await;
    stage
        .sql("UPDATE hubspot_sync.hubspot_contact_credits SET student_id = 'outside' WHERE student_id = 'left'")
        .await;
    stage.wait_drained().await;
    delete(&stage, "marker").await;
    wait_archived(&stage, &marker).await;
    stage.sql("TRUNCATE hubspot_sync.hubspot_contact_credits").await;
    stage.wait_drained().await;
    daemon.sweep().await;
    assert!(!archived(&stage, CONTACTS, &left));
    assert!(!archived(&stage, CONTACTS, &truncated));
    assert_eq!(archivings(&stage), 1);
}

#[tokio::test]
async fn a_row_deleted_while_it_is_created_leaves_no_record_where_records_are_archived() {
    let stage = stage("vain").await;
    let hold = stage.sandbox.hold(Endpoint::Upsert, When::After);
    let _daemon = stage.start().await;
    let insert = "INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email) VALUES ('new', 'new@example.com')";
    stage.app(insert).await;
    assert!(hold.reached(DEADLINE).await);
    delete(&stage, "new").await;
    let made = {
        let world = stage.sandbox.world();
        world
            .find(CONTACTS, "email", "new@example.com")
            .unwrap()
            .id()
            .to_string()
    };
    hold.release();
    wait_archived(&stage, &made).await;
    stage.wait_drained().await;
    stage
        .wait_value("SELECT count(*) FROM hubsyncd.intent", "0")
        .await;
}

#[tokio::test]
async fn a_row_deleted_while_it_is_created_leaves_its_record_where_records_are_kept() {
    let stage = Stage::new("kept").await;
    let hold = stage.sandbox.hold(Endpoint::Upsert, When::After);
    let _daemon = stage.start().await;
    let insert = "INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email) VALUES ('new', 'new@example.com')";
    stage.app(insert).await;
    assert!(hold.reached(DEADLINE).await);
    delete(&stage, "new").await;
    hold.release();
    stage.wait_drained().await;
    stage
        .wait_value("SELECT count(*) FROM hubsyncd.intent", "0")
        .await;
    assert!(
        stage
            .sandbox
            .world()
            .find(CONTACTS, "email", "new@example.com")
            .is_some()
    );
    assert_eq!(asked_to_archive(&stage), 0);
}

#[tokio::test]
async fn a_record_made_in_vain_for_a_row_that_got_another_is_archived() {
    let stage = stage("lost").await;
    let other = stage
        .sandbox
        .world()
        .create(CONTACTS, [("email", "other@example.com")]);
    let hold = stage.sandbox.hold(Endpoint::Upsert, When::After);
    let _daemon = stage.start().await;
    let insert = "INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email) VALUES ('new', 'new@example.com')";
    stage.app(insert).await;
    assert!(hold.reached(DEADLINE).await);
    stage
        .app(&format!(
            "UPDATE hubspot_sync.hubspot_contact_credits SET hubspot_id = '{other}'"
        ))
        .await;
    let made = {
        let world = stage.sandbox.world();
        world
            .find(CONTACTS, "email", "new@example.com")
            .unwrap()
            .id()
            .to_string()
    };
    hold.release();
    wait_archived(&stage, &made).await;
    stage.wait_drained().await;
    assert!(!archived(&stage, CONTACTS, &other));
    let held = "SELECT hubspot_id FROM hubspot_sync.hubspot_contact_credits";
    assert_eq!(stage.value(held).await, Some(other));
}

#[tokio::test]
async fn a_daemon_killed_between_archive_and_receipt_archives_once_and_ends_the_delete() {
    let stage = stage("killed").await;
    let gone = stage.known_contact("gone").await;
    let daemon = stage.start().await;
    let hold = stage.sandbox.hold(Endpoint::Archive, When::After);
    delete(&stage, "gone").await;
    assert!(hold.reached(DEADLINE).await);
    daemon.kill();
    hold.release();
    assert!(archived(&stage, CONTACTS, &gone));
    assert_eq!(
        stage
            .value("SELECT count(*) FROM hubsyncd.change")
            .await
            .as_deref(),
        Some("1")
    );
    let daemon = stage.start().await;
    stage.wait_drained().await;
    assert_eq!(archivings(&stage), 1);
    stage
        .wait_value("SELECT count(*) FROM hubsyncd.archived", "1")
        .await;
    assert_eq!(stage.value(FAILURES).await.as_deref(), Some(""));
    drop(daemon);
}

#[tokio::test]
async fn a_lost_reply_to_an_archive_is_asked_again() {
    let stage = stage("lostreply").await;
    let gone = stage.known_contact("gone").await;
    let _daemon = stage.start().await;
    stage.sandbox.fault(Fault::status(503).on(Endpoint::Archive));
    stage.sandbox.fault(Fault::lose_reply().on(Endpoint::Archive));
    delete(&stage, "gone").await;
    wait_archived(&stage, &gone).await;
    stage.wait_drained().await;
    assert_eq!(stage.value(FAILURES).await.as_deref(), Some(""));
    assert_eq!(archivings(&stage), 1);
}

#[tokio::test]
async fn a_record_that_another_row_holds_is_never_archived() {
    let stage = stage("shared").await;
    let shared = stage.known_contact("first").await;
    let marker = stage.known_contact("marker").await;
    stage
        .sql(&format!(
            "ALTER TABLE hubspot_sync.hubspot_contact_credits DROP CONSTRAINT hubspot_contact_credits_hubspot_id_key;
             INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email, hubspot_id)
             VALUES ('second', 'second@example.com', ' {shared}')"
        ))
        .await;
    let _daemon = stage.start().await;
    delete(&stage, "first").await;
    stage.wait_drained().await;
    delete(&stage, "marker").await;
    wait_archived(&stage, &marker).await;
    assert!(!archived(&stage, CONTACTS, &shared));
    delete(&stage, "second").await;
    wait_archived(&stage, &shared).await;
}

#[tokio::test]
async fn a_record_that_a_row_of_another_table_holds_is_never_archived() {
    let toml = format!(
        "{QUICK}{ARCHIVE}\n[[object]]\nname = \"leads\"\ntable = \"public.leads\"\ntype = \"0-1\"\nkey = \"id\"\nhubspot-id = \
         \"hubspot_id\"\nsynced-at = \"synced_at\"\ncreate = false\n[object.properties]\nsj_credits = \"credits\"\n"
    );
    let stage = Stage::without_setup("alike", Settings::default(), &toml).await;
    let table =
        "CREATE TABLE leads (id int PRIMARY KEY, hubspot_id text, synced_at timestamptz, credits int)";
    stage.sql(table).await;
    stage.setup().await;
    let (shared, marker) = (
        stage.known_contact("both").await,
        stage.known_contact("marker").await,
    );
    stage
        .sql(&format!("INSERT INTO leads VALUES (1, '{shared}', NULL, 3)"))
        .await;
    let _daemon = stage.start().await;
    delete(&stage, "both").await;
    stage.wait_drained().await;
    delete(&stage, "marker").await;
    wait_archived(&stage, &marker).await;
    assert!(!archived(&stage, CONTACTS, &shared));
}

#[tokio::test]
async fn what_was_refused_is_let_go_once_deleted_rows_are_kept() {
    let mut stage = stage("rekept").await;
    let gone = stage.known_contact("gone").await;
    let daemon = stage.start().await;
    stage.sandbox.fault(Fault::status(400).on(Endpoint::Archive));
    delete(&stage, "gone").await;
    stage.wait_value(FAILURES, &format!("archive {gone}")).await;
    assert_eq!(daemon.stop().await, Some(0));
    stage.toml = stage.toml.replace("on-delete = \"archive\"", "");
    let daemon = stage.start().await;
    daemon.sweep().await;
    assert_eq!(stage.value(FAILURES).await.as_deref(), Some(""));
    assert!(!archived(&stage, CONTACTS, &gone));
}

#[tokio::test]
async fn a_row_that_is_back_without_an_id_is_waited_for() {
    let stage = stage("back").await;
    let old = stage.known_contact("old").await;
    let daemon = stage.start().await;
    let table = "hubspot_sync.hubspot_contact_credits";
    stage
        .sandbox
        .refuse_record(CONTACTS, "email", "new@example.com", Some(1));
    stage
        .sql(&format!(
            "BEGIN; CREATE TEMP TABLE kept ON COMMIT DROP AS SELECT * FROM {table};
             DELETE FROM {table}; INSERT INTO {table} (id, student_id, email) SELECT id, 'new', 'new@example.com' FROM kept;
             COMMIT"
        ))
        .await;
    stage
        .wait_value("SELECT count(*) FROM hubsyncd.failure WHERE archive = ''", "1")
        .await;
    stage
        .wait_value(
            "SELECT archive FROM hubsyncd.failure WHERE category = 'archive'",
            &old,
        )
        .await;
    assert!(!archived(&stage, CONTACTS, &old));
    daemon.sweep().await;
    assert_eq!(stage.value(FAILURES).await.as_deref(), Some(""));
    assert!(archived(&stage, CONTACTS, &old), "the row has another record now");
}

#[tokio::test]
async fn a_record_that_was_merged_into_another_is_left_alone() {
    let stage = stage("merged").await;
    let (merged, marker) = (
        stage.known_contact("merged").await,
        stage.known_contact("marker").await,
    );
    let _daemon = stage.start().await;
    stage.wait_drained().await;
    let survivor = {
        let mut world = stage.sandbox.world();
        let primary = world.create(CONTACTS, [("email", "person@example.com")]);
        world.merge(CONTACTS, &primary, &merged).unwrap()
    };
    delete(&stage, "merged").await;
    stage.wait_drained().await;
    delete(&stage, "marker").await;
    wait_archived(&stage, &marker).await;
    assert!(!archived(&stage, CONTACTS, &survivor));
    assert_eq!(stage.value(FAILURES).await.as_deref(), Some(""));
}

#[tokio::test]
async fn rows_that_row_level_security_hides_are_not_taken_for_deleted() {
    let stage = stage("hidden").await;
    let shared = stage.known_contact("first").await;
    stage
        .sql(&format!(
            "ALTER TABLE hubspot_sync.hubspot_contact_credits DROP CONSTRAINT hubspot_contact_credits_hubspot_id_key;
             INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email, hubspot_id)
             VALUES ('second', 'second@example.com', '{shared}')"
        ))
        .await;
    let daemon = stage.start().await;
    let policy = stage
        .value(
            "SELECT polname FROM pg_policy WHERE polrelid = 'hubspot_sync.hubspot_contact_credits'::regclass
             AND polcmd = 'r'",
        )
        .await
        .unwrap();
    let table = "hubspot_sync.hubspot_contact_credits";
    stage
        .sql(&format!(
            "BEGIN; ALTER POLICY {policy} ON {table} USING (false);
             DELETE FROM {table} WHERE student_id = 'first'; COMMIT"
        ))
        .await;
    wait_until("it says why nothing is archived", async || {
        daemon.log().contains("no record of a deleted row is archived")
    })
    .await;
    assert_eq!(asked_to_archive(&stage), 0);
    stage
        .sql(&format!("ALTER POLICY {policy} ON {table} USING (true)"))
        .await;
    stage.wait_drained().await;
    assert_eq!(asked_to_archive(&stage), 0);
    assert!(!archived(&stage, CONTACTS, &shared));
}

#[tokio::test]
async fn the_brake_lets_twenty_pass_holds_the_next_and_is_released_by_a_sweep() {
    let stage = stage("brake").await;
    many(&stage, 0, 30).await;
    let daemon = stage.start().await;
    delete_many(&stage, 0, 20).await;
    wait_until("twenty are archived", async || archivings(&stage) == 20).await;
    stage.wait_drained().await;
    daemon.sweep().await;
    wait_health(&daemon, "pass").await;
    delete_many(&stage, 20, 2).await;
    stage.wait_drained().await;
    let held = "SELECT count(*) FROM hubsyncd.failure WHERE category = 'brake' AND hubspot_id = archive";
    stage.wait_value(held, "2").await;
    let words = wait_health(&daemon, "warn").await;
    assert!(words.contains("hubsyncd sweep --archive"), "{words}");
    let (_, listed) = daemon.get("/failures").await;
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed["failures"].as_array().unwrap().len(), 2);
    let message = listed["failures"][0]["message"].as_str().unwrap();
    assert!(message.contains("sweep --archive"), "{message}");
    let run = daemon.sweep().await;
    assert_eq!(run["summary"]["contacts"]["failed"], 0, "{run}");
    assert_eq!(archivings(&stage), 20, "a sweep does not release the brake");
    // All of this stands in Postgres.
    assert_eq!(daemon.stop().await, Some(0));
    let daemon = stage.start().await;
    wait_health(&daemon, "warn").await;
    let (code, run) = daemon.post("/sweep?wait=true&archive=go").await;
    assert_eq!(code, 200, "{run}");
    assert_eq!(archivings(&stage), 22);
    assert_eq!(stage.value(FAILURES).await.as_deref(), Some(""));
    wait_health(&daemon, "pass").await;
}

#[tokio::test]
async fn a_mass_deletion_is_held_as_a_whole_and_survives_a_killed_daemon() {
    let stage = stage("mass").await;
    many(&stage, 0, 25).await;
    let daemon = stage.start().await;
    delete_many(&stage, 0, 21).await;
    let held = "SELECT count(*) FROM hubsyncd.failure WHERE category = 'brake'";
    stage.wait_value(held, "21").await;
    stage.wait_drained().await;
    daemon.kill();
    let daemon = stage.start().await;
    delete_many(&stage, 21, 1).await;
    stage.wait_value(held, "22").await;
    assert_eq!(asked_to_archive(&stage), 0);
    let mut verb = stage.command("daemon");
    verb.args(["sweep", "--archive"]);
    let ended = tokio::task::spawn_blocking(move || verb.output().unwrap())
        .await
        .unwrap();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(archivings(&stage), 22);
    stage.wait_value(held, "0").await;
    drop(daemon);
}

#[tokio::test]
async fn twenty_one_of_ten_thousand_rows_pass_the_brake() {
    let stage = stage("large").await;
    stage
        .sql(
            "ALTER TABLE hubspot_sync.hubspot_contact_credits DISABLE TRIGGER USER;
             INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email, hubspot_id)
             SELECT n, n || '@example.com', 1000000 + n FROM generate_series(1, 9979) AS n;
             ALTER TABLE hubspot_sync.hubspot_contact_credits ENABLE TRIGGER USER",
        )
        .await;
    many(&stage, 0, 21).await;
    let _daemon = stage.start().await;
    delete_many(&stage, 0, 21).await;
    wait_until("all are archived", async || archivings(&stage) == 21).await;
    stage.wait_drained().await;
    assert_eq!(stage.value(FAILURES).await.as_deref(), Some(""));
}

#[tokio::test]
async fn a_refused_archive_outlives_its_row_and_is_tried_again_by_sweeps_and_on_request() {
    let stage = stage("refused").await;
    let gone = stage.known_contact("gone").await;
    let daemon = stage.start().await;
    stage
        .sandbox
        .fault(Fault::status(400).on(Endpoint::Archive).times(2));
    delete(&stage, "gone").await;
    let refused = format!("archive {gone}");
    stage.wait_value(FAILURES, &refused).await;
    stage.wait_drained().await;
    let run = daemon.sweep().await;
    assert_eq!(run["summary"]["contacts"]["failed"], 1, "{run}");
    assert_eq!(stage.value(FAILURES).await.as_deref(), Some(&*refused));
    let attempts = "SELECT attempts FROM hubsyncd.failure";
    assert_eq!(stage.value(attempts).await.as_deref(), Some("2"));
    assert_eq!(
        stage
            .value("SELECT count(*) FROM hubsyncd.archived")
            .await
            .as_deref(),
        Some("0"),
        "what was refused is not counted as archived"
    );
    let run = daemon.sweep().await;
    assert_eq!(run["summary"]["contacts"]["failed"], 0, "{run}");
    assert!(archived(&stage, CONTACTS, &gone));
    assert_eq!(stage.value(FAILURES).await.as_deref(), Some(""));

    let second = stage.known_contact("second").await;
    stage.sandbox.fault(Fault::status(400).on(Endpoint::Archive));
    delete(&stage, "second").await;
    stage.wait_value(FAILURES, &format!("archive {second}")).await;
    let (code, body) = daemon.post("/failures/retry").await;
    assert_eq!((code, body.as_str()), (202, "{\"retried\":1}"));
    wait_archived(&stage, &second).await;
    stage.wait_value(FAILURES, "").await;
}

#[tokio::test]
async fn of_a_batch_that_is_refused_the_good_ones_are_archived() {
    let stage = stage("halved").await;
    many(&stage, 0, 8).await;
    let _daemon = stage.start().await;
    stage
        .sandbox
        .fault(Fault::status(400).on(Endpoint::Archive).times(3));
    delete_many(&stage, 0, 8).await;
    wait_until("most are archived", async || archivings(&stage) >= 7).await;
    stage.wait_drained().await;
    // Eight, four and two were refused: then single ones, or pairs, pass.
    assert_eq!(archivings(&stage), 8);
    assert!(asked_to_archive(&stage) > 3);
}
