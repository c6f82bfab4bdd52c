//! Tests: rows that are deleted before it is known whether HubSpot has made their records.

use super::support::DEADLINE;
use super::support::daemon::{CONTACTS, Daemon, QUICK, Stage};
use hubsyncd::sandbox::{Endpoint, Fault, Property, Record, Settings, When, Write};
use std::time::Duration;

const TICKETS: &str = "2-70009";

/// The most that the sandbox's search lags behind: below a quarter of the settle time.
const LAG: Duration = Duration::from_millis(200);

const TABLE: &str = "
CREATE SCHEMA desk;
CREATE TABLE desk.ticket (id bigint PRIMARY KEY, ref text NOT NULL, open boolean NOT NULL DEFAULT true, hubspot_id text, synced timestamptz);
CREATE UNIQUE INDEX ON desk.ticket (ref);
GRANT USAGE ON SCHEMA desk TO hubsyncd, app;
GRANT SELECT ON desk.ticket TO hubsyncd;
GRANT UPDATE (hubspot_id, synced) ON desk.ticket TO hubsyncd;
GRANT SELECT, INSERT, UPDATE, DELETE ON desk.ticket TO app;
";

const INTENTS: &str = "SELECT count(*) FROM hubsyncd.intent";
const FAILURES: &str = "SELECT count(*) FROM hubsyncd.failure";

/// What HubSpot keeps unique, contacts, and what it does not, tickets. Their rows' records are kept or archived.
fn mapping(settle: &str, on_delete: &str) -> String {
    format!(
        "{QUICK}[hubspot]\nsettle = \"{settle}\"\ntimeout = \"1s\"\n\
         [[object]]\nname = \"contacts\"\ntable = \"hubspot_sync.hubspot_contact_credits\"\ntype = \"{CONTACTS}\"\nkey = \"id\"\n\
         hubspot-id = \"hubspot_id\"\nsynced-at = \"hubspot_last_sync_at\"\nmatch-on = \"email\"\non-delete = \"{on_delete}\"\n\
         where = \"student_id <> 'outside'\"\n[object.properties]\nemail = {{ column = \"email\", on = \"create\" }}\n\
         sj_credits = {{ column = \"sj_credits\", null = \"0\" }}\n\
         [[object]]\nname = \"tickets\"\ntable = \"desk.ticket\"\ntype = \"{TICKETS}\"\nkey = \"id\"\nhubspot-id = \"hubspot_id\"\n\
         synced-at = \"synced\"\nmatch-on = \"ref\"\non-delete = \"{on_delete}\"\n[object.properties]\nref = \"ref\"\nopen = \"open\"\n"
    )
}

async fn stage(hint: &str, settle: &str, on_delete: &str) -> Stage {
    let settings = Settings {
        search_lag: LAG,
        ..Settings::default()
    };
    let stage = Stage::without_setup(hint, settings, &mapping(settle, on_delete)).await;
    stage.sql(TABLE).await;
    let properties = [Property::string("ref"), Property::string("open")];
    stage.sandbox.world().define(TICKETS, "tickets", properties);
    stage.setup().await;
    stage
}

const CONTACT: &str =
    "INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email) VALUES ('new', 'new@example.com')";
const NO_CONTACT: &str = "DELETE FROM hubspot_sync.hubspot_contact_credits WHERE student_id = 'new'";
const TICKET: &str = "INSERT INTO desk.ticket (id, ref) VALUES (1, 'T-1')";
const NO_TICKET: &str = "DELETE FROM desk.ticket WHERE id = 1";

/// Runs `insert`, and kills the daemon when HubSpot has made the record and not said so; answers its id.
async fn kill_at_create(stage: &Stage, endpoint: Endpoint, insert: &str) -> String {
    let daemon = stage.start().await;
    let hold = stage.sandbox.hold(endpoint, When::After);
    stage.app(insert).await;
    assert!(hold.reached(DEADLINE).await);
    daemon.kill();
    hold.release();
    let made_by_create = endpoint == Endpoint::Create;
    the_record(stage, if made_by_create { TICKETS } else { CONTACTS })
}

/// The one record that is there.
fn the_record(stage: &Stage, object: &str) -> String {
    let world = stage.sandbox.world();
    let records = world.records(object);
    let ids: Vec<String> = records.map(|record| record.id().to_string()).collect();
    let [id] = ids.as_slice() else {
        panic!("{ids:?} is not one record");
    };
    id.clone()
}

/// How many records HubSpot was made to archive.
fn archivings(stage: &Stage) -> usize {
    let world = stage.sandbox.world();
    let writes = world.requests().flat_map(|request| &request.writes);
    writes
        .filter(|write| matches!(write, Write::Archived { .. }))
        .count()
}

fn archived(stage: &Stage, object: &str, id: &str) -> bool {
    let world = stage.sandbox.world();
    world.record(object, id).is_some_and(Record::archived)
}

/// Nothing waits, nothing is in doubt, and nothing failed.
async fn wait_over(stage: &Stage, daemon: &Daemon) {
    stage.wait_drained().await;
    stage.wait_value(INTENTS, "0").await;
    daemon.settled().await;
    assert_eq!(stage.value(FAILURES).await.as_deref(), Some("0"));
}

fn archives(stage: &Stage) -> u64 {
    stage.sandbox.world().count(Endpoint::Archive)
}

#[tokio::test]
async fn a_row_deleted_while_nobody_knew_of_its_record_takes_the_record_along() {
    let stage = stage("buried", "1s", "archive").await;
    let made = kill_at_create(&stage, Endpoint::Upsert, CONTACT).await;
    stage.app(NO_CONTACT).await;
    let daemon = stage.start().await;
    wait_over(&stage, &daemon).await;
    assert!(archived(&stage, CONTACTS, &made));
    let remembered = "SELECT hubspot_id FROM hubsyncd.archived";
    assert_eq!(stage.value(remembered).await, Some(made), "the brake counts it");
}

#[tokio::test]
async fn so_does_one_whose_record_only_a_search_finds() {
    let stage = stage("buried_search", "1s", "archive").await;
    let made = kill_at_create(&stage, Endpoint::Create, TICKET).await;
    stage.app(NO_TICKET).await;
    let daemon = stage.start().await;
    wait_over(&stage, &daemon).await;
    assert!(archived(&stage, TICKETS, &made));
}

#[tokio::test]
async fn where_records_are_kept_it_stays() {
    let stage = stage("buried_kept", "1s", "keep").await;
    let contact = kill_at_create(&stage, Endpoint::Upsert, CONTACT).await;
    stage.app(NO_CONTACT).await;
    let daemon = stage.start().await;
    wait_over(&stage, &daemon).await;
    assert!(!archived(&stage, CONTACTS, &contact));
    assert_eq!(archives(&stage), 0);
}

#[tokio::test]
async fn where_they_are_kept_and_no_create_writes_over_another_rows_record_nobody_asks() {
    let stage = stage("buried_kept_search", "1s", "keep").await;
    let ticket = kill_at_create(&stage, Endpoint::Create, TICKET).await;
    stage.app(NO_TICKET).await;
    let searches = stage.sandbox.world().count(Endpoint::Search);
    let daemon = stage.start().await;
    wait_over(&stage, &daemon).await;
    assert!(!archived(&stage, TICKETS, &ticket));
    assert_eq!(stage.sandbox.world().count(Endpoint::Search), searches);
}

const SEATS: &str = "2-70010";

const SEAT_TABLE: &str = "
CREATE SCHEMA desk;
CREATE TABLE desk.seat (id bigint PRIMARY KEY, ref text NOT NULL, holder text, row text, hubspot_id text, synced timestamptz);
CREATE UNIQUE INDEX ON desk.seat (ref);
GRANT USAGE ON SCHEMA desk TO hubsyncd, app;
GRANT SELECT ON desk.seat TO hubsyncd;
GRANT UPDATE (hubspot_id, synced) ON desk.seat TO hubsyncd;
GRANT SELECT, INSERT, UPDATE, DELETE ON desk.seat TO app;
";

/// A row leaves its natural key, which both ends keep unique and only a create sends, so that its record in HubSpot keeps
/// it. Another row takes the key, and is deleted before anybody knows that its create was carried out: on the first row's
/// record.
async fn written_over(hint: &str, on_delete: &str) {
    let toml = format!(
        "{QUICK}[hubspot]\nsettle = \"2s\"\ntimeout = \"1s\"\n\
         [[object]]\nname = \"seats\"\ntable = \"desk.seat\"\ntype = \"{SEATS}\"\nkey = \"id\"\nhubspot-id = \"hubspot_id\"\n\
         synced-at = \"synced\"\nmatch-on = \"ref\"\non-delete = \"{on_delete}\"\n[object.properties]\n\
         ref = {{ column = \"ref\", on = \"create\" }}\nholder = {{ column = \"holder\", on = \"create\" }}\nrow = \"row\"\n"
    );
    let stage = Stage::without_setup(hint, Settings::default(), &toml).await;
    stage.sql(SEAT_TABLE).await;
    let properties = [
        Property::string("ref").unique(),
        Property::string("holder"),
        Property::string("row"),
    ];
    stage.sandbox.world().define(SEATS, "seats", properties);
    stage.setup().await;
    let daemon = stage.start().await;
    stage
        .app("INSERT INTO desk.seat (id, ref, holder) VALUES (1, 'A', 'first')")
        .await;
    wait_over(&stage, &daemon).await;
    stage.app("UPDATE desk.seat SET ref = 'B'").await;
    wait_over(&stage, &daemon).await;
    let record = the_record(&stage, SEATS);
    let holder = || {
        let world = stage.sandbox.world();
        let record = world.record(SEATS, &record);
        record.and_then(|record| record.get("holder").map(str::to_owned))
    };
    let hold = stage.sandbox.hold(Endpoint::Upsert, When::After);
    stage
        .app("INSERT INTO desk.seat (id, ref, holder) VALUES (2, 'A', 'late')")
        .await;
    assert!(hold.reached(DEADLINE).await);
    assert_eq!(holder().as_deref(), Some("late"));
    stage.app("DELETE FROM desk.seat WHERE id = 2").await;
    daemon.kill();
    hold.release();
    let daemon = stage.start().await;
    wait_over(&stage, &daemon).await;
    assert_eq!(holder().as_deref(), Some("first"));
    assert_eq!(archives(&stage), 0);
}

#[tokio::test]
async fn a_row_whose_record_a_buried_create_wrote_over_is_pushed_once_more() {
    written_over("buried_owned", "archive").await;
}

#[tokio::test]
async fn so_is_one_where_records_are_kept() {
    written_over("buried_owned_kept", "keep").await;
}

#[tokio::test]
async fn a_create_that_lands_late_is_waited_for() {
    let stage = stage("buried_late", "6s", "archive").await;
    let daemon = stage.start().await;
    // It lands well after its time-out and its repetition by the daemon, and before the settle time is over.
    stage
        .sandbox
        .fault(Fault::hang(Some(Duration::from_secs(4))).on(Endpoint::Upsert));
    stage.app(CONTACT).await;
    stage
        .wait_world("the create is under way", |world| {
            world.count(Endpoint::Upsert) == 1
        })
        .await;
    stage.app(NO_CONTACT).await;
    wait_over(&stage, &daemon).await;
    assert_eq!(archivings(&stage), 1);
    assert_eq!(stage.sandbox.world().records(CONTACTS).count(), 0);
}

#[tokio::test]
async fn a_create_that_never_landed_leaves_nothing_behind() {
    let stage = stage("buried_never", "1s", "archive").await;
    let daemon = stage.start().await;
    stage
        .sandbox
        .fault(Fault::status(502).on(Endpoint::Upsert).always());
    stage
        .sandbox
        .fault(Fault::status(502).on(Endpoint::Create).always());
    stage.app(CONTACT).await;
    stage.app(TICKET).await;
    stage
        .wait_world("both are under way", |world| {
            world.count(Endpoint::Upsert) > 0 && world.count(Endpoint::Create) > 0
        })
        .await;
    stage.app(NO_CONTACT).await;
    stage.app(NO_TICKET).await;
    wait_over(&stage, &daemon).await;
    assert_eq!(archives(&stage), 0);
}

#[tokio::test]
async fn a_record_whose_natural_key_another_row_uses_by_now_is_never_archived() {
    let stage = stage("buried_heir", "1s", "archive").await;
    let contact = kill_at_create(&stage, Endpoint::Upsert, CONTACT).await;
    stage.app(NO_CONTACT).await;
    stage.app(&CONTACT.replace("'new'", "'heir'")).await;
    let daemon = stage.start().await;
    wait_over(&stage, &daemon).await;
    let held = "SELECT hubspot_id FROM hubspot_sync.hubspot_contact_credits";
    assert_eq!(stage.value(held).await, Some(contact), "it took the record over");
    assert_eq!(archives(&stage), 0);
}

#[tokio::test]
async fn what_a_late_create_wrote_over_that_rows_values_is_put_right() {
    let stage = stage("buried_over", "6s", "archive").await;
    let daemon = stage.start().await;
    stage
        .sandbox
        .fault(Fault::hang(Some(Duration::from_secs(4))).on(Endpoint::Upsert));
    stage.app(CONTACT).await;
    stage
        .wait_world("the create is under way", |world| {
            world.count(Endpoint::Upsert) == 1
        })
        .await;
    let moved = "UPDATE hubspot_sync.hubspot_contact_credits SET id = gen_random_uuid(), sj_credits = 7";
    stage.sql(moved).await;
    wait_over(&stage, &daemon).await;
    let record = the_record(&stage, CONTACTS);
    let world = stage.sandbox.world();
    let credits = world
        .record(CONTACTS, &record)
        .and_then(|record| record.get("sj_credits"));
    assert_eq!(credits, Some("7"));
    assert!(
        world.count(Endpoint::Update) > 0,
        "it was pushed once more when the create could land no more"
    );
}

#[tokio::test]
async fn neither_is_one_of_several_that_only_a_search_finds() {
    let stage = stage("buried_several", "3s", "archive").await;
    let daemon = stage.start().await;
    let hold = stage.sandbox.hold(Endpoint::Create, When::After);
    stage.app(TICKET).await;
    assert!(hold.reached(DEADLINE).await);
    stage.app(NO_TICKET).await;
    stage.sandbox.world().create(TICKETS, [("ref", "T-1")]);
    wait_over(&stage, &daemon).await;
    hold.release();
    assert_eq!(archives(&stage), 0);
    assert_eq!(stage.sandbox.world().records(TICKETS).count(), 2);
    assert!(daemon.log().contains("it cannot be told which of the records"));
}

#[tokio::test]
async fn of_two_the_one_that_another_row_holds_stays_and_the_other_goes() {
    let stage = stage("buried_rekeyed", "3s", "archive").await;
    let daemon = stage.start().await;
    let hold = stage.sandbox.hold(Endpoint::Create, When::After);
    stage.app(TICKET).await;
    assert!(hold.reached(DEADLINE).await);
    let made = the_record(&stage, TICKETS);
    stage.app("UPDATE desk.ticket SET id = 2").await;
    wait_over(&stage, &daemon).await;
    hold.release();
    assert!(archived(&stage, TICKETS, &made));
    let left = the_record(&stage, TICKETS);
    let held = "SELECT hubspot_id FROM desk.ticket";
    assert_eq!(stage.value(held).await, Some(left));
    assert_eq!(archivings(&stage), 1);
}

#[tokio::test]
async fn a_row_that_is_merely_outside_the_mapping_keeps_its_create_in_doubt() {
    let stage = stage("buried_outside", "1s", "archive").await;
    let made = kill_at_create(&stage, Endpoint::Upsert, CONTACT).await;
    stage
        .app("UPDATE hubspot_sync.hubspot_contact_credits SET student_id = 'outside'")
        .await;
    let daemon = stage.start().await;
    stage.wait_drained().await;
    daemon.sweep().await;
    assert_eq!(archives(&stage), 0);
    assert_eq!(stage.value(FAILURES).await.as_deref(), Some("0"));
    assert_eq!(stage.value(INTENTS).await.as_deref(), Some("1"));
    stage
        .app("UPDATE hubspot_sync.hubspot_contact_credits SET student_id = 'new'")
        .await;
    wait_over(&stage, &daemon).await;
    let held = "SELECT hubspot_id FROM hubspot_sync.hubspot_contact_credits";
    assert_eq!(stage.value(held).await, Some(made));
}

#[tokio::test]
async fn a_record_older_than_the_create_is_left_alone() {
    let stage = stage("buried_older", "1s", "archive").await;
    let theirs = kill_at_create(&stage, Endpoint::Upsert, CONTACT).await;
    stage.app(NO_CONTACT).await;
    // As if that had been made by somebody a minute before our create, which never landed.
    stage
        .sql("UPDATE hubsyncd.intent SET first_at = first_at + interval '1 minute'")
        .await;
    let daemon = stage.start().await;
    wait_over(&stage, &daemon).await;
    assert!(!archived(&stage, CONTACTS, &theirs));
    assert_eq!(archives(&stage), 0);
}

#[tokio::test]
async fn what_was_found_and_not_archived_yet_is_found_again_after_a_kill() {
    let stage = stage("buried_again", "1s", "archive").await;
    let daemon = stage.start().await;
    let hold = stage.sandbox.hold(Endpoint::Upsert, When::After);
    stage
        .sandbox
        .fault(Fault::status(503).on(Endpoint::Archive).always());
    stage.app(CONTACT).await;
    assert!(hold.reached(DEADLINE).await);
    stage.app(NO_CONTACT).await;
    stage
        .wait_world("archiving was tried twice", |world| {
            world.count(Endpoint::Archive) > 1
        })
        .await;
    daemon.kill();
    stage.sandbox.clear_faults();
    hold.release();
    let made = the_record(&stage, CONTACTS);
    let daemon = stage.start().await;
    wait_over(&stage, &daemon).await;
    assert!(archived(&stage, CONTACTS, &made));
}
