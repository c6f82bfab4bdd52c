//! Links in doubt: a request about a link that lands late, or whose reply is lost, is put right by the push that is due
//! when it has settled; no sweep is needed.

use crate::support::scene::Scene;
use crate::support::wait_until;
use hubsyncd::sandbox::{Endpoint, Fault};
use std::time::Duration;

/// Requests that are given up long before they settle, so that what is due can be told from what a poll finds anyway.
const SLOW: &str = "[hubspot]\nwindow = \"1s\"\ntimeout = \"2s\"\nsettle = \"4s\"\n";
/// When such a request lands: after it was given up, and before it is settled.
const LATE: Duration = Duration::from_secs(3);

/// Waits until nothing is due any more.
async fn wait_settled(scene: &Scene) {
    scene
        .stage
        .wait_value("SELECT count(*) FROM hubsyncd.intent", "0")
        .await;
    scene.in_step().await;
}

/// Waits until a fault has struck, which is while its request hangs.
async fn wait_struck(scene: &Scene) {
    wait_until("the fault strikes", async || {
        scene.stage.sandbox.faults_waiting() == 0
    })
    .await;
}

#[tokio::test]
async fn a_link_request_that_lands_after_its_successor_is_put_right_without_a_sweep() {
    let mut scene = Scene::empty("late_make", SLOW).await;
    let daemon = scene.stage.start().await;
    scene.book().await;
    daemon.settled().await;
    // The record's own write is answered; the link to the first target lands when the row has long left it.
    scene
        .stage
        .sandbox
        .fault(Fault::hang(Some(LATE)).on(Endpoint::Associate));
    scene.move_to(1).await;
    wait_struck(&scene).await;
    scene.move_to(2).await;
    scene.linked(&[2]).await;
    scene.linked(&[1, 2]).await;
    scene.linked(&[2]).await;
    wait_settled(&scene).await;
    scene.linked(&[2]).await;
    scene.wait_memory(&format!("{} made", scene.contacts[2])).await;
    assert_eq!(daemon.status().await["last_sweep"], serde_json::Value::Null);
}

#[tokio::test]
async fn a_removal_that_lands_after_the_link_was_wanted_again_is_put_right_without_a_sweep() {
    let mut scene = Scene::empty("late_removal", SLOW).await;
    let daemon = scene.stage.start().await;
    scene.book().await;
    daemon.settled().await;
    scene
        .stage
        .sandbox
        .fault(Fault::hang(Some(LATE)).on(Endpoint::AssociationArchive));
    scene.move_to(1).await;
    wait_struck(&scene).await;
    scene.move_to(0).await;
    scene.linked(&[0]).await;
    scene.linked(&[]).await;
    scene.linked(&[0]).await;
    wait_settled(&scene).await;
    scene.linked(&[0]).await;
    scene.wait_memory(&format!("{} made", scene.contacts[0])).await;
    assert_eq!(daemon.status().await["last_sweep"], serde_json::Value::Null);
}

#[tokio::test]
async fn a_removal_whose_reply_is_lost_leaves_nothing_to_remember_without_a_sweep() {
    let mut scene = Scene::empty("lost_removal", SLOW).await;
    let daemon = scene.stage.start().await;
    scene.book().await;
    daemon.settled().await;
    scene
        .stage
        .sandbox
        .fault(Fault::lose_reply().on(Endpoint::AssociationArchive));
    scene.move_to(1).await;
    wait_struck(&scene).await;
    scene.linked(&[1]).await;
    wait_settled(&scene).await;
    scene.linked(&[1]).await;
    scene.wait_memory(&format!("{} made", scene.contacts[1])).await;
    assert_eq!(daemon.status().await["last_sweep"], serde_json::Value::Null);
}
