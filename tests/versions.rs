//! The older dated version: everything the daemon does works the same against 2026-03.

use crate::guarded;
use crate::support::daemon::{BOOKINGS, CONTACTS, EXAMS, QUICK, Stage};
use crate::support::{DEADLINE, wait_until};
use hubsyncd::sandbox::{Endpoint, Fault, Settings, World};
use std::time::Duration;

const EXAM_AND_CONTACT: &str = "INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email)
    VALUES ('s1', 's1@example.com'), ('s2', 's2@example.com');";

fn contact_of(world: &World, email: &str) -> Option<String> {
    world.find(CONTACTS, "email", email).map(|record| record.id())
}

fn is_linked(world: &World, contact: &str, exam: &str) -> bool {
    let Some(booking) = world.find(BOOKINGS, "booking_id", "b1") else {
        return false;
    };
    let held = |to: &str, wanted: &str| {
        let links = world.associations(BOOKINGS, &booking.id(), to);
        links.len() == 1 && links[0].to == wanted
    };
    held(CONTACTS, contact) && held(EXAMS, exam)
}

#[tokio::test]
async fn changes_links_their_removal_and_a_sweep_go_the_same_way_through_2026_03() {
    let toml = format!("{QUICK}[hubspot]\napi-version = \"2026-03\"\n");
    let stage = Stage::with("march", Settings::default(), &toml).await;
    let exam = stage.known_exam().await;
    let daemon = stage.start().await;
    // Created, by upsert, and linked.
    let booking = format!(
        "INSERT INTO hubspot_sync.hubspot_bookings (booking_id, mock_exam_id, student_id, student_email, is_active)
         VALUES ('b1', '{exam}', 's1', 's1@example.com', 'Active');"
    );
    stage.app(&format!("{EXAM_AND_CONTACT}{booking}")).await;
    stage
        .wait_world("the booking is there, and linked", |world| {
            contact_of(world, "s1@example.com").is_some_and(|contact| is_linked(world, &contact, &exam))
        })
        .await;
    stage.wait_drained().await;
    // Updated, and linked to another contact instead.
    let second = contact_of(&stage.sandbox.world(), "s2@example.com").unwrap();
    stage
        .app(&format!(
            "UPDATE hubspot_sync.hubspot_bookings SET contact_id = '{second}', is_active = 'Cancelled'"
        ))
        .await;
    stage
        .wait_world("it is cancelled, and the other's", |world| {
            let booking = world.find(BOOKINGS, "booking_id", "b1").unwrap();
            booking.get("is_active") == Some("Cancelled") && is_linked(world, &second, &exam)
        })
        .await;
    stage.wait_drained().await;
    daemon.settled().await;
    // A refused record harms nobody beside it.
    stage
        .sandbox
        .refuse_record(CONTACTS, "email", "bad@example.com", Some(1));
    stage
        .app(
            "INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email)
             VALUES ('s3', 'bad@example.com'), ('s4', 's4@example.com')",
        )
        .await;
    stage
        .wait_value("SELECT string_agg(object, ',') FROM hubsyncd.failure", "contacts")
        .await;
    stage.wait_drained().await;
    // A sweep puts right what drifted, and makes a link that is missing.
    {
        let mut world = stage.sandbox.world();
        let booking = world.find(BOOKINGS, "booking_id", "b1").unwrap().id();
        world.set(BOOKINGS, &booking, "is_active", "Typed over");
        world.archive(EXAMS, &exam);
    }
    let other = stage.known_exam().await;
    stage
        .app(&format!(
            "UPDATE hubspot_sync.hubspot_bookings SET mock_exam_id = '{other}'"
        ))
        .await;
    stage.wait_drained().await;
    let run = daemon.sweep().await;
    assert_eq!(run["outcome"], "complete", "{run}");
    assert_eq!(run["summary"]["contacts"]["failed"], 0, "{run}");
    let world = stage.sandbox.world();
    let booking = world.find(BOOKINGS, "booking_id", "b1").unwrap();
    assert_eq!(booking.get("is_active"), Some("Cancelled"));
    assert!(is_linked(&world, &second, &other));
    assert!(contact_of(&world, "bad@example.com").is_some());
    assert!(world.count(Endpoint::AssociationArchive) > 0);
    asked_of_march_alone(&world);
}

fn asked_of_march_alone(world: &World) {
    let others: Vec<&str> = world
        .requests()
        .map(|request| request.path.as_str())
        .filter(|path| !path.contains("/2026-03/"))
        .collect();
    assert!(
        others.is_empty(),
        "everything was asked of one version: {others:?}"
    );
}

#[tokio::test]
async fn a_guarded_create_whose_reply_is_lost_is_searched_for_through_2026_03() {
    let toml = guarded::mapping("overwrite").replace("[hubspot]\n", "[hubspot]\napi-version = \"2026-03\"\n");
    let stage = guarded::stage("march_guarded", &toml, true).await;
    let daemon = stage.start().await;
    let insert = async |number: usize| {
        stage
            .app(&format!(
                "INSERT INTO desk.ticket (id, ref, state) VALUES ({number}, 'T-{number}', 'open')"
            ))
            .await;
    };
    // Done and not heard of, done late, never done: each strikes the create of a row of its own.
    let faults = [
        Fault::lose_reply(),
        Fault::hang(Some(Duration::from_millis(200))),
        Fault::hang(None),
    ];
    for (number, fault) in faults.into_iter().enumerate() {
        stage.sandbox.fault(fault.on(Endpoint::Create));
        insert(number).await;
        wait_until("the fault has struck", async || {
            stage.sandbox.faults_waiting() == 0
        })
        .await;
    }
    for number in [3, 4] {
        insert(number).await;
    }
    guarded::wait_in_step(&stage, DEADLINE).await;
    daemon.settled().await;
    let world = stage.sandbox.world();
    assert_eq!(world.records(guarded::TICKETS).count(), 5, "a record a row");
    let searches: Vec<Option<u16>> = world
        .requests()
        .filter(|request| request.endpoint == Endpoint::Search)
        .map(|request| request.status)
        .collect();
    assert!(
        !searches.is_empty() && searches.iter().all(|status| *status == Some(200)),
        "{searches:?}"
    );
    asked_of_march_alone(&world);
}
