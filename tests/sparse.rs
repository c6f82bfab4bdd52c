//! Tests: rows of which nothing is to be written to the record that they have; HubSpot refuses an update of no property.

use super::support::daemon::{BOOKINGS, CONTACTS, QUICK, Stage};
use super::support::sweeping::counts;
use hubsyncd::sandbox::{Endpoint, Settings};

/// Properties for creates alone, and in the bookings' case a link.
const CREATE_ONLY: &str = r#"
[[object]]
name = "contacts"
table = "hubspot_sync.hubspot_contact_credits"
type = "0-1"
hubspot-id = "hubspot_id"
synced-at = "hubspot_last_sync_at"
match-on = "email"
[object.properties]
email = { column = "email", on = "create" }
firstname = { column = "firstname", on = "create" }

[[object]]
name = "bookings"
table = "hubspot_sync.hubspot_bookings"
type = "2-50158943"
hubspot-id = "hubspot_id"
synced-at = "hubspot_last_sync_at"
match-on = "booking_id"
[object.properties]
booking_id = { column = "booking_id", on = "create" }
attendance = { column = "attendance", on = "update", null = "omit" }
[[object.link]]
to = "contacts"
column = "contact_id"
"#;

async fn stage(hint: &str) -> Stage {
    Stage::with(hint, Settings::default(), &format!("{QUICK}{CREATE_ONLY}")).await
}

/// A booking that HubSpot has, linked with this contact; answers its id.
async fn known_booking(stage: &Stage, contact: &str) -> String {
    let id = stage
        .sandbox
        .world()
        .create(BOOKINGS, [("booking_id", "b1"), ("attendance", "Yes")]);
    stage
        .sql(&format!(
            "INSERT INTO hubspot_sync.hubspot_bookings (booking_id, contact_id, hubspot_id, mock_exam_id, student_id, student_email)
             VALUES ('b1', '{contact}', '{id}', 'none', 's', 's@example.com')"
        ))
        .await;
    id
}

const UNSYNCED: &str =
    "SELECT (SELECT count(*) FROM hubspot_sync.hubspot_contact_credits WHERE hubspot_last_sync_at IS NULL)
     + (SELECT count(*) FROM hubspot_sync.hubspot_bookings WHERE hubspot_last_sync_at IS NULL)";

#[tokio::test]
async fn known_records_of_which_nothing_is_to_be_written_are_done_without_a_request_and_only_linked() {
    let stage = stage("sparse").await;
    let (one, other) = (stage.known_contact("s1").await, stage.known_contact("s2").await);
    let booking = known_booking(&stage, &one).await;
    let daemon = stage.start().await;
    stage.wait_drained().await;
    let updates = || stage.sandbox.world().count(Endpoint::Update);
    // Their inserts were captured, so that what creates carry went along.
    let before = updates();
    // Live: where the row leads is what changes.
    stage
        .app(&format!(
            "UPDATE hubspot_sync.hubspot_bookings SET contact_id = '{other}'"
        ))
        .await;
    stage.wait_drained().await;
    daemon.settled().await;
    let linked = |to: &str| {
        let links = stage.sandbox.world().associations(BOOKINGS, &booking, CONTACTS);
        links.iter().any(|link| link.to == to)
    };
    assert!(linked(&other) && !linked(&one));
    // A sweep: everything is named.
    stage
        .sql("UPDATE hubspot_sync.hubspot_contact_credits SET hubspot_last_sync_at = NULL")
        .await;
    let run = daemon.sweep().await;
    assert_eq!(run["outcome"], "complete", "{run}");
    assert_eq!(counts(&run, "contacts"), (0, 2, 0), "{run}");
    assert_eq!(counts(&run, "bookings"), (0, 1, 0), "{run}");
    assert_eq!(
        stage.value(UNSYNCED).await.as_deref(),
        Some("0"),
        "all have receipts"
    );
    assert_eq!(updates(), before, "no update was sent");
    assert_eq!(daemon.status().await["failures"], 0);
    // Once there is something to write, it is written.
    stage
        .app("UPDATE hubspot_sync.hubspot_bookings SET attendance = 'No'")
        .await;
    stage
        .wait_world("the attendance is there", |world| {
            world.record(BOOKINGS, &booking).unwrap().get("attendance") == Some("No")
        })
        .await;
    assert_eq!(updates(), before + 1);
}

#[tokio::test]
async fn a_new_record_is_made_with_them_and_then_left_alone() {
    let stage = stage("sparse_new").await;
    let daemon = stage.start().await;
    stage
        .app(
            "INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email, firstname)
             VALUES ('s1', 's1@example.com', 'Ana')",
        )
        .await;
    stage
        .wait_value(
            "SELECT count(hubspot_id) FROM hubspot_sync.hubspot_contact_credits",
            "1",
        )
        .await;
    stage.wait_drained().await;
    let run = daemon.sweep().await;
    assert_eq!(counts(&run, "contacts"), (0, 1, 0), "{run}");
    assert_eq!(daemon.status().await["failures"], 0);
    let world = stage.sandbox.world();
    let held = world.find(CONTACTS, "email", "s1@example.com").unwrap();
    assert_eq!(held.get("firstname"), Some("Ana"));
    assert_eq!(world.count(Endpoint::Update), 0);
}
