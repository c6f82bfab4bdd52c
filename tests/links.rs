//! Links: associations of live changes, whatever comes first.

use crate::support::DEADLINE;
use crate::support::daemon::{BOOKINGS, CONTACTS, EXAMS, Stage};
use hubsyncd::sandbox::{Endpoint, When, World};

const CONTACT: &str = "INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email)
    VALUES ('s1', 's1@example.com');";

fn booking(number: u32, exam: &str, contact: Option<&str>) -> String {
    let contact = contact.map_or("NULL".to_owned(), |id| format!("'{id}'"));
    format!(
        "INSERT INTO hubspot_sync.hubspot_bookings (booking_id, mock_exam_id, contact_id, student_id, student_email)
         VALUES ('b{number}', '{exam}', {contact}, 's1', 's1@example.com');"
    )
}

/// Whether a booking is linked to exactly these.
fn is_linked(world: &World, booking: &str, contacts: &[&str], exams: &[&str]) -> bool {
    let Some(booking) = world.find(BOOKINGS, "booking_id", booking) else {
        return false;
    };
    let held = |to: &str, wanted: &[&str]| {
        let links = world.associations(BOOKINGS, &booking.id(), to);
        links.len() == wanted.len() && links.iter().all(|link| wanted.contains(&link.to.as_str()))
    };
    held(CONTACTS, contacts) && held(EXAMS, exams)
}

fn contact_of(world: &World, email: &str) -> Option<String> {
    world.find(CONTACTS, "email", email).map(|record| record.id())
}

#[tokio::test]
async fn a_new_contact_and_its_booking_in_one_transaction_arrive_in_order_and_linked() {
    in_one_transaction("together", |exam| format!("{CONTACT}{}", booking(1, exam, None))).await;
}

#[tokio::test]
async fn also_when_the_booking_is_inserted_before_the_contact() {
    in_one_transaction("reversed", |exam| format!("{}{CONTACT}", booking(1, exam, None))).await;
}

async fn in_one_transaction(hint: &str, sql: impl Fn(&str) -> String) {
    let stage = Stage::new(hint).await;
    let exam = stage.known_exam().await;
    let daemon = stage.start().await;
    let before = stage.sandbox.world().count(Endpoint::Any);
    stage.app(&sql(&exam)).await;
    stage
        .wait_value(
            "SELECT count(hubspot_last_sync_at) FROM hubspot_sync.hubspot_bookings",
            "1",
        )
        .await;
    stage.wait_drained().await;
    daemon.settled().await;
    let world = stage.sandbox.world();
    let contact = contact_of(&world, "s1@example.com").unwrap();
    assert!(is_linked(&world, "b1", &[&contact], &[&exam]));
    let mut sent: Vec<(Endpoint, &str)> = world
        .requests()
        .filter(|request| request.number >= before)
        .map(|request| {
            let of_booking = request.path.contains(BOOKINGS);
            (request.endpoint, if of_booking { "booking" } else { "contact" })
        })
        .collect();
    let tail = sent.split_off(3);
    assert_eq!(
        sent,
        [
            (Endpoint::Read, "contact"),
            (Endpoint::Upsert, "contact"),
            (Endpoint::Upsert, "booking")
        ]
    );
    assert_eq!(
        tail.iter().map(|sent| sent.0).collect::<Vec<_>>(),
        [Endpoint::Associate; 2],
        "and nothing twice"
    );
}

#[tokio::test]
async fn a_booking_waits_for_the_contact_that_is_on_its_way_and_others_do_not() {
    let stage = Stage::new("waiting").await;
    let exam = stage.known_exam().await;
    let other = stage.known_contact("s2").await;
    let _daemon = stage.start().await;
    let hold = stage.sandbox.hold(Endpoint::Upsert, When::Before);
    stage.app(CONTACT).await;
    assert!(hold.reached(DEADLINE).await);
    stage.app(&booking(1, &exam, None)).await;
    stage
        .app("UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = 5 WHERE student_id = 's2'")
        .await;
    stage
        .wait_world("another contact is pushed meanwhile", |world| {
            world
                .record(CONTACTS, &other)
                .and_then(|record| record.get("sj_credits"))
                == Some("5")
        })
        .await;
    assert_eq!(
        stage.sandbox.world().count(Endpoint::Upsert),
        1,
        "the booking waits"
    );
    hold.release();
    stage.wait_drained().await;
    let world = stage.sandbox.world();
    let contact = contact_of(&world, "s1@example.com").unwrap();
    assert!(is_linked(&world, "b1", &[&contact], &[&exam]));
}

#[tokio::test]
async fn pitfall_4_10_a_booking_without_contact_id_is_linked_also_when_the_contact_gets_its_id_only_later() {
    let stage = Stage::new("later").await;
    let exam = stage.known_exam().await;
    let _daemon = stage.start().await;
    stage
        .sandbox
        .refuse_record(CONTACTS, "email", "s1@example.com", Some(1));
    stage.app(&format!("{CONTACT}{}", booking(1, &exam, None))).await;
    stage
        .wait_value(
            "SELECT count(hubspot_last_sync_at) FROM hubspot_sync.hubspot_bookings",
            "1",
        )
        .await;
    stage.wait_drained().await;
    assert!(
        is_linked(&stage.sandbox.world(), "b1", &[], &[&exam]),
        "a target that is not known yet is no failure"
    );
    stage
        .wait_value("SELECT string_agg(object, ',') FROM hubsyncd.failure", "contacts")
        .await;
    let upserts = stage.sandbox.world().count(Endpoint::Upsert);
    stage
        .app("UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = 1")
        .await;
    stage
        .wait_world("the booking is linked to the contact", |world| {
            contact_of(world, "s1@example.com")
                .is_some_and(|contact| is_linked(world, "b1", &[&contact], &[&exam]))
        })
        .await;
    stage.wait_drained().await;
    let world = stage.sandbox.world();
    assert_eq!(
        world.count(Endpoint::Upsert),
        upserts + 1,
        "the contact; the booking was not made again"
    );
    assert_eq!(world.records(BOOKINGS).count(), 1);
}

#[tokio::test]
async fn a_booking_is_linked_by_student_and_email_only_where_both_are_right() {
    let stage = Stage::new("lookup").await;
    let exam = stage.known_exam().await;
    let right = stage.known_contact("s1").await;
    let id = stage
        .sandbox
        .world()
        .create(CONTACTS, [("email", "x@example.com")]);
    stage
        .sql(&format!(
            "INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email, hubspot_id)
             VALUES ('s1', 'x@example.com', '{id}')"
        ))
        .await;
    let _daemon = stage.start().await;
    stage.app(&booking(1, &exam, None)).await;
    stage
        .wait_world("the booking is linked to the right contact", |world| {
            is_linked(world, "b1", &[&right], &[&exam])
        })
        .await;
}

#[tokio::test]
async fn pitfall_1m_a_refused_link_leaves_the_id_and_no_mark_and_is_made_once_its_target_is_corrected() {
    let stage = Stage::new("refused_link").await;
    let exam = stage.known_exam().await;
    let contact = stage.known_contact("s1").await;
    let _daemon = stage.start().await;
    // In a batch with others, which it does not harm.
    let rows = [
        booking(1, &exam, Some(&contact)),
        booking(2, &exam, Some("999999999")),
        booking(3, &exam, None),
    ];
    stage.app(&rows.concat()).await;
    wait_failed(&stage).await;
    {
        let world = stage.sandbox.world();
        assert!(
            is_linked(&world, "b2", &[], &[&exam]),
            "its other link is made all the same"
        );
        assert!(is_linked(&world, "b1", &[&contact], &[&exam]));
        assert!(is_linked(&world, "b3", &[&contact], &[&exam]));
    }
    let row = |columns: &str| {
        format!("SELECT {columns} FROM hubspot_sync.hubspot_bookings WHERE booking_id = 'b2'")
    };
    let id = stage.value(&row("hubspot_id")).await;
    assert!(id.is_some(), "the record has its id");
    stage.wait_value(&row("hubspot_last_sync_at IS NULL"), "t").await;
    stage
        .wait_value(
            "SELECT count(hubspot_last_sync_at) FROM hubspot_sync.hubspot_bookings",
            "2",
        )
        .await;
    let upserts = stage.sandbox.world().count(Endpoint::Upsert);
    stage
        .app(&format!(
            "UPDATE hubspot_sync.hubspot_bookings SET contact_id = '{contact}' WHERE booking_id = 'b2'"
        ))
        .await;
    stage
        .wait_world("the corrected link is made", |world| {
            is_linked(world, "b2", &[&contact], &[&exam])
        })
        .await;
    stage.wait_drained().await;
    stage
        .wait_value(&row("hubspot_last_sync_at IS NOT NULL"), "t")
        .await;
    stage
        .wait_value("SELECT count(*) FROM hubsyncd.failure", "0")
        .await;
    assert_eq!(stage.value(&row("hubspot_id")).await, id);
    let world = stage.sandbox.world();
    assert_eq!(world.count(Endpoint::Upsert), upserts, "it is not created again");
    assert_eq!(world.records(BOOKINGS).count(), 3);
}

async fn wait_failed(stage: &Stage) {
    stage
        .wait_value(
            "SELECT string_agg(category, ',') FROM hubsyncd.failure WHERE object = 'bookings'",
            "link",
        )
        .await;
    stage.wait_drained().await;
}

#[tokio::test]
async fn a_link_that_stands_is_not_made_again() {
    let stage = Stage::new("relink").await;
    let exam = stage.known_exam().await;
    let first = stage.known_contact("s1").await;
    let daemon = stage.start().await;
    stage.app(&booking(1, &exam, Some(&first))).await;
    stage
        .wait_world("the booking is linked", |world| {
            is_linked(world, "b1", &[&first], &[&exam])
        })
        .await;
    stage.wait_drained().await;
    daemon.settled().await;
    let before = stage.sandbox.world().count(Endpoint::Any);
    stage
        .app("UPDATE hubspot_sync.hubspot_bookings SET is_active = 'Cancelled'")
        .await;
    stage
        .wait_world("the booking is cancelled", |world| {
            world
                .find(BOOKINGS, "booking_id", "b1")
                .is_some_and(|booking| booking.get("is_active") == Some("Cancelled"))
        })
        .await;
    stage.wait_drained().await;
    daemon.settled().await;
    assert_eq!(stage.sandbox.world().count(Endpoint::Any), before + 1);
}
