//! Tests: every way in which a request to HubSpot can go wrong, on every kind of request.
//!
//! Each fault strikes rows of its own; afterwards both ends agree, nothing is there twice, and nothing is a failure,
//! since no fault is a record's.

use super::support::daemon::{BOOKINGS, CONTACTS, Daemon, EXAMS, QUICK, Stage};
use super::support::instep::wait_contacts_in_step;
use super::support::wait_until;
use hubsyncd::sandbox::{Endpoint, Fault, Settings};
use std::time::{Duration, Instant};

/// Short waits where HubSpot does not say how long it wants to be left alone.
const SHORT: &str = "[hubspot]\nwindow = \"1s\"\ntimeout = \"1s\"\n";

const NOTHING_MARKED: &str = "SELECT count(*) FROM hubspot_sync.hubspot_contact_credits
    WHERE student_id LIKE 'marked-%' AND (hubspot_last_sync_at IS NOT NULL OR hubspot_id IS NOT NULL)";

async fn stage(hint: &str) -> Stage {
    Stage::with(hint, Settings::default(), &format!("{QUICK}{SHORT}")).await
}

/// The faults, with how long HubSpot wants to be left alone where it would otherwise be a minute or a day.
fn faults() -> Vec<(String, Fault)> {
    let mut faults: Vec<(String, Fault)> = Fault::NAMES
        .iter()
        .map(|name| {
            let fault = Fault::named(name).unwrap();
            let fault = match *name {
                "429-daily" | "477" => fault.retry_after(Duration::from_secs(1)),
                _ => fault,
            };
            ((*name).to_owned(), fault)
        })
        .collect();
    for name in ["429-ten-secondly", "429-secondly", "423"] {
        let fault = Fault::named(name).unwrap().retry_after(Duration::from_secs(1));
        faults.push((format!("{name} with Retry-After"), fault));
    }
    faults
}

async fn insert(stage: &Stage, name: &str) {
    stage
        .app(&format!(
            "INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email, sj_credits)
             SELECT '{name}-' || i, '{name}-' || i || '@example.com', i FROM generate_series(1, 3) i"
        ))
        .await;
}

/// A missing right pauses the object; somebody who gave it need not wait a minute.
async fn end_pause(daemon: &Daemon, object: &str, fault: &str) {
    if fault != "403" {
        return;
    }
    wait_until("the object is paused", async || {
        !daemon.status().await["objects"][object]["paused"].is_null()
    })
    .await;
    assert_eq!(
        daemon.post(&format!("/failures/retry?object={object}")).await.0,
        202
    );
}

/// New contacts while every fault in turn strikes one kind of request.
async fn new_contacts_under_faults_of(hint: &str, endpoint: Endpoint) {
    let stage = stage(hint).await;
    let daemon = stage.start().await;
    for (number, (name, fault)) in faults().into_iter().enumerate() {
        eprintln!("{name}");
        stage.sandbox.fault(fault.on(endpoint));
        insert(&stage, &format!("n{number}")).await;
        end_pause(&daemon, "contacts", &name).await;
        wait_contacts_in_step(&stage).await;
        assert_eq!(
            stage.sandbox.world().records(CONTACTS).count(),
            3 * (number + 1),
            "{name}"
        );
        stage.sandbox.clear_faults();
    }
    assert_eq!(daemon.status().await["failures"], 0);
    assert_eq!(daemon.stop().await, Some(0));
}

#[tokio::test]
async fn no_fault_of_an_upsert_harms_or_doubles_anything() {
    new_contacts_under_faults_of("faults_upsert", Endpoint::Upsert).await;
}

#[tokio::test]
async fn no_fault_of_a_question_harms_or_doubles_anything() {
    new_contacts_under_faults_of("faults_read", Endpoint::Read).await;
}

#[tokio::test]
async fn no_fault_of_an_update_harms_anything() {
    let stage = stage("faults_update").await;
    for student in ["a", "b", "c"] {
        stage.known_contact(student).await;
    }
    let daemon = stage.start().await;
    for (number, (name, fault)) in faults().into_iter().enumerate() {
        eprintln!("{name}");
        stage.sandbox.fault(fault.on(Endpoint::Update));
        stage
            .app(&format!(
                "UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = {}",
                number + 1
            ))
            .await;
        end_pause(&daemon, "contacts", &name).await;
        wait_contacts_in_step(&stage).await;
        assert_eq!(stage.sandbox.world().records(CONTACTS).count(), 3, "{name}");
        stage.sandbox.clear_faults();
    }
    assert_eq!(daemon.status().await["failures"], 0);
    assert_eq!(daemon.stop().await, Some(0));
}

#[tokio::test]
async fn no_fault_of_an_association_leaves_a_booking_unlinked_or_doubled() {
    let stage = stage("faults_link").await;
    let (contact, exam) = (stage.known_contact("s1").await, stage.known_exam().await);
    let daemon = stage.start().await;
    for (number, (name, fault)) in faults().into_iter().enumerate() {
        eprintln!("{name}");
        stage.sandbox.fault(fault.on(Endpoint::Associate));
        stage
            .app(&format!(
                "INSERT INTO hubspot_sync.hubspot_bookings (booking_id, mock_exam_id, contact_id, student_id, student_email)
                 SELECT 'b{number}-' || i, '{exam}', '{contact}', 's1', 's1@example.com' FROM generate_series(1, 3) i"
            ))
            .await;
        end_pause(&daemon, "bookings", &name).await;
        stage.wait_drained().await;
        let unmarked = "SELECT count(*) FROM hubspot_sync.hubspot_bookings
                        WHERE hubspot_id IS NULL OR hubspot_last_sync_at IS NULL";
        stage.wait_value(unmarked, "0").await;
        {
            let world = stage.sandbox.world();
            for booking in world.records(BOOKINGS).map(|booking| booking.id()) {
                for to in [CONTACTS, EXAMS] {
                    assert_eq!(world.associations(BOOKINGS, &booking, to).len(), 1, "{name}");
                }
            }
            assert_eq!(world.records(BOOKINGS).count(), 3 * (number + 1), "{name}");
        }
        stage.sandbox.clear_faults();
    }
    assert_eq!(daemon.status().await["failures"], 0);
    assert_eq!(daemon.stop().await, Some(0));
}

#[tokio::test]
async fn pitfall_4_01_nothing_is_marked_that_hubspot_did_not_confirm_and_it_is_not_asked_in_a_busy_loop() {
    let stage = stage("faults_marks").await;
    let _daemon = stage.start().await;
    for name in [
        "lose-reply",
        "commit-then-502",
        "500",
        "503-html",
        "truncated",
        "no-json",
        "half-json",
        "empty-2xx",
        "empty-results",
        "429-ten-secondly",
        "423",
    ] {
        stage
            .sandbox
            .fault(Fault::named(name).unwrap().on(Endpoint::Upsert).always());
        let (begin, before) = (Instant::now(), stage.sandbox.world().count(Endpoint::Upsert));
        insert(&stage, &format!("marked-{name}")).await;
        stage
            .wait_world("it was tried three times", |world| {
                world.count(Endpoint::Upsert) >= before + 3
            })
            .await;
        assert!(
            begin.elapsed() > Duration::from_millis(500),
            "{name}: {:?}",
            begin.elapsed()
        );
        assert_eq!(stage.value(NOTHING_MARKED).await.as_deref(), Some("0"), "{name}");
        stage.sandbox.clear_faults();
        wait_contacts_in_step(&stage).await;
        stage
            .sql("DELETE FROM hubspot_sync.hubspot_contact_credits WHERE student_id LIKE 'marked-%'")
            .await;
        stage.wait_drained().await;
    }
}
