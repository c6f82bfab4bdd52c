//! Tests: records that somebody deleted or merged in HubSpot.

use super::support::daemon::{BOOKINGS, CONTACTS, QUICK, Stage};
use hubsyncd::sandbox::Settings;

const FAILURES: &str = "SELECT coalesce(string_agg(category, ' '), '') FROM hubsyncd.failure";

/// Contacts and bookings that are made anew when their records are gone.
const RECREATE: &str = r#"
[[object]]
name = "contacts"
table = "hubspot_sync.hubspot_contact_credits"
type = "0-1"
key = "id"
hubspot-id = "hubspot_id"
synced-at = "hubspot_last_sync_at"
match-on = "email"
on-missing = "recreate"
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
on-missing = "recreate"
[object.properties]
booking_id = { column = "booking_id", on = "create" }
student_name = { column = "student_name", on = "create" }
is_active = "is_active"
[[object.link]]
to = "contacts"
column = "contact_id"
"#;

async fn credits(stage: &Stage, student: &str, credits: i32) {
    stage
        .app(&format!(
            "UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = {credits} WHERE student_id = '{student}'"
        ))
        .await;
}

async fn id_of(stage: &Stage, student: &str) -> String {
    let sql =
        format!("SELECT hubspot_id FROM hubspot_sync.hubspot_contact_credits WHERE student_id = '{student}'");
    stage.value(&sql).await.unwrap()
}

#[tokio::test]
async fn an_update_of_a_deleted_record_is_a_failure_until_somebody_decides() {
    let stage = Stage::new("gone").await;
    let (gone, there) = (
        stage.known_contact("gone").await,
        stage.known_contact("there").await,
    );
    let daemon = stage.start().await;
    stage.sandbox.world().archive(CONTACTS, &gone);
    stage
        .app("UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = 5")
        .await;
    stage.wait_drained().await;
    stage.wait_value(FAILURES, "missing").await;
    let message = stage.value("SELECT message FROM hubsyncd.failure").await.unwrap();
    assert!(message.contains(&gone), "{message}");
    stage
        .wait_world("its neighbour is written", |world| {
            world
                .record(CONTACTS, &there)
                .and_then(|record| record.get("sj_credits"))
                == Some("5")
        })
        .await;
    let run = daemon.sweep().await;
    assert_eq!(run["outcome"], "complete");
    assert_eq!(run["summary"]["contacts"]["failed"], 1, "{run}");
    assert_eq!(
        stage.sandbox.world().records(CONTACTS).count(),
        1,
        "nothing is made anew"
    );
    // The way out that the message names.
    stage
        .app("UPDATE hubspot_sync.hubspot_contact_credits SET hubspot_id = NULL WHERE student_id = 'gone'")
        .await;
    stage.wait_drained().await;
    stage.wait_value(FAILURES, "").await;
    let new = id_of(&stage, "gone").await;
    assert!(new != gone && stage.sandbox.world().record(CONTACTS, &new).is_some());
}

#[tokio::test]
async fn a_deleted_record_is_made_anew_with_all_its_values_and_links_where_the_mapping_says_so() {
    let toml = format!("{QUICK}{RECREATE}");
    let stage = Stage::with("anew", Settings::default(), &toml).await;
    let contact = stage.known_contact("s1").await;
    let daemon = stage.start().await;
    stage
        .app(&format!(
            "INSERT INTO hubspot_sync.hubspot_bookings (booking_id, mock_exam_id, contact_id, student_id, student_name,
             student_email, is_active) VALUES ('b1', 'x', '{contact}', 's1', 'Ana', 's1@example.com', 'Active')"
        ))
        .await;
    stage.wait_drained().await;
    let booking = "SELECT hubspot_id FROM hubspot_sync.hubspot_bookings";
    let old = stage.value(booking).await.unwrap();
    stage.sandbox.world().archive(BOOKINGS, &old);
    stage
        .app("UPDATE hubspot_sync.hubspot_bookings SET is_active = 'Cancelled'")
        .await;
    stage.wait_drained().await;
    stage
        .wait_world("the booking is there again, whole and linked", |world| {
            world.find(BOOKINGS, "booking_id", "b1").is_some_and(|new| {
                new.id() != old
                    && new.get("student_name") == Some("Ana")
                    && new.get("is_active") == Some("Cancelled")
                    && world.associations(BOOKINGS, &new.id(), CONTACTS).len() == 1
            })
        })
        .await;
    assert_ne!(stage.value(booking).await.unwrap(), old);
    assert_eq!(stage.value(FAILURES).await.as_deref(), Some(""));
    assert_eq!(daemon.stop().await, Some(0));
}

#[tokio::test]
async fn a_record_made_anew_never_takes_over_what_another_row_owns() {
    let toml = format!("{QUICK}{RECREATE}");
    let stage = Stage::with("anew_owned", Settings::default(), &toml).await;
    let (first, second) = (stage.known_contact("a").await, stage.known_contact("b").await);
    let _daemon = stage.start().await;
    stage.sandbox.world().archive(CONTACTS, &second);
    stage
        .app("UPDATE hubspot_sync.hubspot_contact_credits SET email = 'A@example.com', sj_credits = 9 WHERE student_id = 'b'")
        .await;
    stage.wait_drained().await;
    stage.wait_value(FAILURES, "owner").await;
    let world = stage.sandbox.world();
    assert_eq!(world.records(CONTACTS).count(), 1);
    let record = world.record(CONTACTS, &first).unwrap();
    assert_eq!(
        (record.get("student_id"), record.get("sj_credits")),
        (Some("a"), Some("0"))
    );
}

#[tokio::test]
async fn a_merged_record_is_followed_and_the_second_row_of_it_is_a_failure() {
    let stage = Stage::new("merged").await;
    let (first, second) = (stage.known_contact("a").await, stage.known_contact("b").await);
    let daemon = stage.start().await;
    let survivor = stage.sandbox.world().merge(CONTACTS, &first, &second).unwrap();
    credits(&stage, "a", 3).await;
    stage.wait_drained().await;
    assert_eq!(id_of(&stage, "a").await, survivor);
    credits(&stage, "b", 8).await;
    stage.wait_drained().await;
    stage.wait_value(FAILURES, "merged").await;
    let owner = stage
        .value("SELECT id FROM hubspot_sync.hubspot_contact_credits WHERE student_id = 'a'")
        .await
        .unwrap();
    let message = stage.value("SELECT message FROM hubsyncd.failure").await.unwrap();
    assert!(
        message.contains(&owner) && message.contains(&survivor),
        "{message}"
    );
    assert_eq!(id_of(&stage, "b").await, second, "a row's id is not taken away");
    daemon.sweep().await;
    let world = stage.sandbox.world();
    let record = world.record(CONTACTS, &survivor).unwrap();
    assert_eq!(record.get("sj_credits"), Some("3"), "the owner's value stands");
}

#[tokio::test]
async fn two_rows_of_one_batch_whose_records_were_merged_have_one_owner() {
    let stage = Stage::new("merged_both").await;
    let (first, second) = (stage.known_contact("a").await, stage.known_contact("b").await);
    let _daemon = stage.start().await;
    let survivor = stage.sandbox.world().merge(CONTACTS, &first, &second).unwrap();
    stage
        .app("UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = CASE student_id WHEN 'a' THEN 3 ELSE 8 END")
        .await;
    stage.wait_drained().await;
    stage.wait_value(FAILURES, "merged").await;
    let owner = format!(
        "SELECT sj_credits FROM hubspot_sync.hubspot_contact_credits WHERE hubspot_id = '{survivor}'"
    );
    let owners = stage.value(&owner).await.expect("one row owns the survivor");
    stage
        .wait_world("the owner's value stands", |world| {
            world.record(CONTACTS, &survivor).unwrap().get("sj_credits") == Some(&*owners)
        })
        .await;
}
