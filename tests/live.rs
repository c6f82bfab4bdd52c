//! A change in Postgres is in HubSpot at once: the built daemon, real triggers, the sandbox.

use crate::support::daemon::{BOOKINGS, CONTACTS, EXAMS, Stage};

#[tokio::test]
async fn a_change_of_each_table_reaches_hubspot() {
    let stage = Stage::new("live").await;
    let contact = stage.known_contact("s1").await;
    let exam = stage.known_exam().await;
    let daemon = stage.start().await;
    stage
        .app("UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = 7 WHERE student_id = 's1'")
        .await;
    stage
        .wait_world("the contact has seven credits", |world| {
            world
                .record(CONTACTS, &contact)
                .and_then(|record| record.get("sj_credits"))
                == Some("7")
        })
        .await;
    stage
        .app(&format!(
            "INSERT INTO hubspot_sync.hubspot_bookings (booking_id, mock_exam_id, contact_id, student_id, student_email, \
             is_active) VALUES ('b1', '{exam}', '{contact}', 's1', 's1@example.com', 'Active')"
        ))
        .await;
    stage
        .wait_world("the booking is there and linked to both", |world| {
            world.find(BOOKINGS, "booking_id", "b1").is_some_and(|booking| {
                world.associations(BOOKINGS, &booking.id(), CONTACTS).len() == 1
                    && world.associations(BOOKINGS, &booking.id(), EXAMS).len() == 1
            })
        })
        .await;
    stage
        .app(&format!(
            "UPDATE hubspot_sync.hubspot_mock_exams SET total_bookings = 1 WHERE hubspot_id = '{exam}';
             INSERT INTO hubspot_sync.supabase_audit_log (table_name, record_id, operation)
             SELECT 'hubspot_mock_exams', id, 'UPDATE' FROM hubspot_sync.hubspot_mock_exams WHERE hubspot_id = '{exam}'"
        ))
        .await;
    stage
        .wait_world("the exam counts its booking", |world| {
            world
                .record(EXAMS, &exam)
                .and_then(|record| record.get("total_bookings"))
                == Some("1")
        })
        .await;
    stage.wait_drained().await;
    stage
        .wait_value(
            "SELECT count(*) FROM hubspot_sync.supabase_audit_log WHERE synced_to_hubspot_at IS NULL",
            "0",
        )
        .await;
    assert_eq!(daemon.stop().await, Some(0));
}
