//! Links that are not one row's alone, or whose record or mapping changes under them.

use crate::support::daemon::{BOOKINGS, CONTACTS, Daemon};
use crate::support::scene::{BOOKINGS_AND_CONTACTS, Scene};
use hubsyncd::sandbox::{Endpoint, Fault};

/// The bookings' link.
const LINK: &str = "[[object.link]]\nto = \"contacts\"\ncolumn = \"contact_id\"\n";

async fn scene(hint: &str, toml: &str) -> (Scene, Daemon) {
    let mut scene = Scene::empty(hint, toml).await;
    let daemon = scene.stage.start().await;
    scene.book().await;
    (scene, daemon)
}

/// What is remembered of links to these contacts.
fn made(scene: &Scene, contacts: &[usize]) -> String {
    let mut rows: Vec<String> = contacts
        .iter()
        .map(|at| format!("{} made", scene.contacts[*at]))
        .collect();
    rows.sort();
    rows.join(", ")
}

#[tokio::test]
async fn a_pair_that_another_row_linked_too_stays_until_the_last_of_them_leaves() {
    let (scene, daemon) = scene("shared", "").await;
    let stage = &scene.stage;
    // A table that lets two rows hold one record.
    stage
        .sql("ALTER TABLE hubspot_sync.hubspot_bookings DROP CONSTRAINT hubspot_bookings_hubspot_id_key")
        .await;
    stage
        .app(&format!(
            "INSERT INTO hubspot_sync.hubspot_bookings
             (booking_id, hubspot_id, mock_exam_id, contact_id, student_id, student_email)
             VALUES ('b2', '{}', '{}', '{}', 's1', 's1@example.com')",
            scene.booking, scene.exam, scene.contacts[0]
        ))
        .await;
    scene.in_step().await;
    scene.wait_memory(&made(&scene, &[0, 0])).await;
    let lead = async |booking: &str, contact: usize| {
        let contact = &scene.contacts[contact];
        let sql = format!(
            "UPDATE hubspot_sync.hubspot_bookings SET contact_id = '{contact}' WHERE booking_id LIKE '{booking}'"
        );
        stage.app(&sql).await;
        scene.in_step().await;
    };
    // Whoever leaves first, the other's link stands.
    for (first, second, from, to) in [("b1", "b2", 0, 1), ("b2", "b1", 1, 2)] {
        lead(first, to).await;
        scene.linked(&[from, to]).await;
        scene.wait_memory(&made(&scene, &[from, to])).await;
        lead(second, to).await;
        scene.linked(&[to]).await;
        scene.wait_memory(&made(&scene, &[to, to])).await;
    }
    // Both at once.
    lead("b%", 0).await;
    scene.linked(&[0]).await;
    scene.wait_memory(&made(&scene, &[0, 0])).await;
    assert_eq!(daemon.sweep().await["outcome"], "complete");
    scene.linked(&[0]).await;
}

#[tokio::test]
async fn a_merged_record_takes_its_links_along_and_what_we_linked_stays_ours() {
    let (mut scene, daemon) = scene("merged_links", "").await;
    daemon.settled().await;
    // A person merges our record with one of theirs, which they had linked; the row leads elsewhere at the same time.
    let survivor = {
        let mut world = scene.stage.sandbox.world();
        let other = world.create(BOOKINGS, [("booking_id", "theirs")]);
        world.associate((BOOKINGS, &other), (CONTACTS, &scene.contacts[2]));
        world.merge(BOOKINGS, &scene.booking, &other).unwrap()
    };
    scene.booking.clone_from(&survivor);
    scene.linked(&[0, 2]).await;
    scene.move_to(1).await;
    scene.linked(&[1, 2]).await;
    scene.in_step().await;
    let id = "SELECT hubspot_id FROM hubspot_sync.hubspot_bookings";
    assert_eq!(scene.stage.value(id).await, Some(survivor));
    scene.wait_memory(&made(&scene, &[1])).await;
    // What they had linked stays theirs, also after the row led there.
    scene.move_to(2).await;
    scene.linked(&[2]).await;
    scene.in_step().await;
    scene.move_to(0).await;
    scene.linked(&[0, 2]).await;
    scene.in_step().await;
    assert_eq!(daemon.sweep().await["outcome"], "complete");
    scene.linked(&[0, 2]).await;
}

#[tokio::test]
async fn a_link_that_leaves_the_mapping_is_left_as_it_is_and_is_ours_when_it_comes_back() {
    let with_link = format!("{BOOKINGS_AND_CONTACTS}{LINK}");
    let (mut scene, daemon) = scene("undeclared", &with_link).await;
    let declared = scene.stage.toml.clone();
    assert_eq!(daemon.stop().await, Some(0));
    scene.stage.toml = declared.replace(LINK, "");
    scene.stage.setup().await;
    let daemon = scene.stage.start().await;
    scene.move_to(1).await;
    assert_eq!(daemon.sweep().await["outcome"], "complete");
    scene.in_step().await;
    scene.linked(&[0]).await;
    scene.wait_memory(&made(&scene, &[0])).await;
    assert_eq!(daemon.stop().await, Some(0));
    scene.stage.toml = declared;
    scene.stage.setup().await;
    let daemon = scene.stage.start().await;
    assert_eq!(daemon.sweep().await["outcome"], "complete");
    scene.in_step().await;
    scene.linked(&[1]).await;
    scene.wait_memory(&made(&scene, &[1])).await;
    // A row that ends while its link is not declared takes the memory along.
    assert_eq!(daemon.stop().await, Some(0));
    scene.stage.toml = scene.stage.toml.replace(LINK, "");
    scene.stage.setup().await;
    let daemon = scene.stage.start().await;
    scene.stage.app("DELETE FROM hubspot_sync.hubspot_bookings").await;
    scene.wait_memory("").await;
    scene.linked(&[1]).await;
    drop(daemon);
}

/// The booking under another primary key; `also`: what changes with it.
async fn rekey(scene: &Scene, also: &str) {
    let sql = format!("UPDATE hubspot_sync.hubspot_bookings SET id = gen_random_uuid(){also}");
    scene.stage.app(&sql).await;
    scene.in_step().await;
}

#[tokio::test]
async fn a_row_whose_key_and_target_change_at_once_leaves_nothing_linked_behind() {
    let (scene, daemon) = scene("rekeyed_moved", "").await;
    scene.person_links(2);
    rekey(&scene, &format!(", contact_id = '{}'", scene.contacts[1])).await;
    scene.linked(&[1, 2]).await;
    scene.wait_memory(&made(&scene, &[1])).await;
    assert_eq!(daemon.sweep().await["outcome"], "complete");
    scene.linked(&[1, 2]).await;
}

#[tokio::test]
async fn what_a_row_linked_under_another_key_is_ours_and_what_people_linked_is_theirs() {
    let (scene, daemon) = scene("rekeyed", "").await;
    scene.person_links(2);
    rekey(&scene, "").await;
    // The old key has ended by the time the new one is pushed.
    scene.stage.sandbox.fault(Fault::status(503).on(Endpoint::Update));
    rekey(&scene, "").await;
    scene.wait_memory(&made(&scene, &[0])).await;
    scene.move_to(1).await;
    scene.linked(&[1, 2]).await;
    scene.in_step().await;
    scene.move_to(2).await;
    scene.linked(&[2]).await;
    scene.in_step().await;
    rekey(&scene, &format!(", contact_id = '{}'", scene.contacts[0])).await;
    scene.linked(&[0, 2]).await;
    assert_eq!(daemon.sweep().await["outcome"], "complete");
    scene.linked(&[0, 2]).await;
}
