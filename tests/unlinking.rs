//! Links that lead elsewhere: the new one is made, then exactly ours is removed, whatever happens in between; what
//! people made stays.

use crate::support::DEADLINE;
use crate::support::daemon::{BOOKINGS, CONTACTS, EXAMS};
use crate::support::scene::{BOOKINGS_AND_CONTACTS, Scene, contacts_of};
use hubsyncd::sandbox::{Endpoint, Fault, When};
use std::time::Duration;

/// Short waits where HubSpot does not say how long it wants to be left alone, and requests that settle soon.
const SHORT: &str = "[hubspot]\nwindow = \"1s\"\ntimeout = \"1s\"\nsettle = \"1s\"\n";

/// The bookings' link to contacts, by a label.
const LABELLED: &str = "[[object.link]]\nto = \"contacts\"\ncolumn = \"contact_id\"\nlabel = \"Student\"\n";

async fn scene(hint: &str) -> (Scene, crate::support::daemon::Daemon) {
    let mut scene = Scene::empty(hint, SHORT).await;
    let daemon = scene.stage.start().await;
    scene.book().await;
    (scene, daemon)
}

#[tokio::test]
async fn a_target_that_changes_is_replaced_and_one_that_is_gone_is_unlinked() {
    let (scene, _daemon) = scene("replaced").await;
    scene.move_to(1).await;
    scene.linked(&[1]).await;
    scene.in_step().await;
    scene.wait_memory(&format!("{} made", scene.contacts[1])).await;
    scene
        .stage
        .app("UPDATE hubspot_sync.hubspot_bookings SET mock_exam_id = ''")
        .await;
    scene
        .stage
        .wait_world("the exam is unlinked", |world| {
            world.associations(BOOKINGS, &scene.booking, EXAMS).is_empty()
        })
        .await;
    scene.in_step().await;
    scene
        .stage
        .wait_value("SELECT string_agg(link, ',') FROM hubsyncd.link", "contacts")
        .await;
    scene.linked(&[1]).await;
}

#[tokio::test]
async fn a_lookup_that_finds_nobody_yet_unlinks_nothing() {
    let (scene, daemon) = scene("nobody").await;
    scene
        .stage
        .app("UPDATE hubspot_sync.hubspot_bookings SET contact_id = NULL, student_id = 's9', is_active = 'Later'")
        .await;
    scene
        .stage
        .wait_world("the change arrives", |world| {
            let booking = world.record(BOOKINGS, &scene.booking);
            booking.and_then(|booking| booking.get("is_active")) == Some("Later")
        })
        .await;
    scene.in_step().await;
    assert_eq!(daemon.sweep().await["outcome"], "complete");
    scene.linked(&[0]).await;
    scene
        .stage
        .app("INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email) VALUES ('s9', 's9@example.com')")
        .await;
    scene
        .stage
        .app("UPDATE hubspot_sync.hubspot_bookings SET student_email = 's9@example.com'")
        .await;
    scene
        .stage
        .wait_world("the one who came is linked, alone", |world| {
            let found = world.find(CONTACTS, "email", "s9@example.com");
            found.is_some_and(|found| contacts_of(world, &scene.booking) == [found.id()])
        })
        .await;
}

#[tokio::test]
async fn links_that_people_made_stay_whatever_the_row_says() {
    let (scene, daemon) = scene("people").await;
    scene.person_links(1);
    scene.move_to(2).await;
    scene.linked(&[1, 2]).await;
    scene.in_step().await;
    // The row leads where a person had linked before: that link is theirs also afterwards.
    scene.move_to(1).await;
    scene.linked(&[1]).await;
    scene.in_step().await;
    scene.move_to(0).await;
    scene.linked(&[0, 1]).await;
    scene.in_step().await;
    assert_eq!(daemon.sweep().await["outcome"], "complete");
    scene.linked(&[0, 1]).await;
}

#[tokio::test]
async fn a_label_that_people_gave_keeps_the_pair_that_we_linked() {
    let (scene, _daemon) = scene("label").await;
    scene.label(0, "Guardian").await;
    scene.move_to(1).await;
    scene.linked(&[0, 1]).await;
    scene.in_step().await;
    assert_eq!(scene.labels(0), ["Guardian"]);
    scene.wait_memory(&format!("{} made", scene.contacts[1])).await;
    scene.move_to(2).await;
    scene.linked(&[0, 2]).await;
}

#[tokio::test]
async fn a_labelled_link_takes_no_label_from_the_pair_and_leaves_what_it_found() {
    let mut scene = Scene::empty("labelled", &format!("{SHORT}{BOOKINGS_AND_CONTACTS}{LABELLED}")).await;
    scene.stage.sandbox.world().label(BOOKINGS, CONTACTS, "Student");
    let daemon = scene.stage.start().await;
    scene.book().await;
    assert_eq!(scene.labels(0), ["Student"]);
    scene.label(1, "Guardian").await;
    scene.label(0, "Friend").await;
    // A person's label replaces those before it; the sandbox does as HubSpot says. Ours is given back by a sweep.
    assert_eq!(scene.labels(0), ["Friend"]);
    assert_eq!(daemon.sweep().await["outcome"], "complete");
    assert_eq!(scene.labels(0), ["Friend", "Student"]);
    scene.move_to(1).await;
    scene.linked(&[0, 1]).await;
    scene.in_step().await;
    assert_eq!(scene.labels(1), ["Guardian", "Student"], "beside what was there");
    assert_eq!(scene.labels(0), ["Friend"], "ours alone is taken away");
    scene.move_to(2).await;
    scene.linked(&[0, 1, 2]).await;
    scene.in_step().await;
    assert_eq!(scene.labels(1), ["Guardian"], "the pair was not ours");
    scene.move_to(0).await;
    scene.linked(&[0, 1]).await;
    assert_eq!(scene.labels(0), ["Friend", "Student"]);
}

#[tokio::test]
async fn a_daemon_killed_while_it_replaces_a_link_is_completed_by_the_next() {
    let mut scene = Scene::empty("killed", SHORT).await;
    let mut daemon = scene.stage.start().await;
    scene.book().await;
    let steps = [
        (Endpoint::Associate, When::Before),
        (Endpoint::Associate, When::After),
        (Endpoint::AssociationArchive, When::Before),
        (Endpoint::AssociationArchive, When::After),
        (Endpoint::AssociationRead, When::After),
    ];
    for (number, (endpoint, when)) in steps.into_iter().enumerate() {
        let target = 1 + number % 2;
        let hold = scene.stage.sandbox.hold(endpoint, when);
        scene.move_to(target).await;
        assert!(hold.reached(DEADLINE).await, "{endpoint:?} {when:?}");
        daemon.kill();
        hold.release();
        daemon = scene.stage.start().await;
        scene.linked(&[target]).await;
        scene.in_step().await;
    }
    assert_eq!(daemon.status().await["failures"], 0);
    settle().await;
    assert_eq!(daemon.sweep().await["outcome"], "complete");
    scene.linked(&[1]).await;
    scene.wait_memory(&format!("{} made", scene.contacts[1])).await;
}

/// Longer than [`SHORT`]'s settle time: what may land late has landed.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(1_200)).await;
}

#[tokio::test]
async fn a_refused_removal_is_a_failure_and_is_made_good_by_a_sweep() {
    let (scene, daemon) = scene("refused_removal").await;
    scene
        .stage
        .sandbox
        .fault(Fault::status(400).on(Endpoint::AssociationArchive).always());
    scene.move_to(1).await;
    scene
        .stage
        .wait_value(
            "SELECT string_agg(category, ',') FROM hubsyncd.failure WHERE object = 'bookings'",
            "link",
        )
        .await;
    scene.stage.wait_drained().await;
    scene.linked(&[0, 1]).await;
    let mut expected = [
        format!("{} removing", scene.contacts[0]),
        format!("{} made", scene.contacts[1]),
    ];
    expected.sort();
    scene.wait_memory(&expected.join(", ")).await;
    scene.stage.sandbox.clear_faults();
    settle().await;
    assert_eq!(daemon.sweep().await["outcome"], "complete");
    scene.linked(&[1]).await;
    scene
        .stage
        .wait_value("SELECT count(*) FROM hubsyncd.failure", "0")
        .await;
    settle().await;
    assert_eq!(daemon.sweep().await["outcome"], "complete");
    scene.wait_memory(&format!("{} made", scene.contacts[1])).await;
}

#[tokio::test]
async fn no_fault_of_a_removal_leaves_a_link_too_many_or_too_few() {
    let (scene, daemon) = scene("removal_faults").await;
    let mut target = 0;
    for name in Fault::NAMES {
        eprintln!("{name}");
        let fault = Fault::named(name).unwrap();
        let fault = match name {
            "429-daily" | "477" | "429-ten-secondly" | "429-secondly" | "423" => {
                fault.retry_after(Duration::from_secs(1))
            }
            _ => fault,
        };
        if name == "413" || name == "403" {
            // A removal that is refused is told apart above.
            continue;
        }
        scene.stage.sandbox.fault(fault.on(Endpoint::AssociationArchive));
        target = (target + 1) % 3;
        scene.move_to(target).await;
        scene.linked(&[target]).await;
        scene.in_step().await;
        scene.stage.sandbox.clear_faults();
    }
    assert_eq!(daemon.status().await["failures"], 0);
    settle().await;
    assert_eq!(daemon.sweep().await["outcome"], "complete");
    scene.linked(&[target]).await;
    scene
        .wait_memory(&format!("{} made", scene.contacts[target]))
        .await;
}
