//! Tests: the daemon's own schema is dropped under it, as by a restored dump or a hasty hand.

use super::support::daemon::{CONTACTS, Stage};
use super::support::sweeping::logged;
use super::support::wait_until;

const CREDITS: &str = "UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = sj_credits + 1";

#[tokio::test]
async fn a_schema_that_vanishes_pauses_the_daemon_and_another_setup_makes_it_go_on() {
    let stage = Stage::new("vanished").await;
    let contact = stage.known_contact("s1").await;
    let credits = |expected: &'static str| {
        let contact = contact.clone();
        move |world: &hubsyncd::sandbox::World| {
            world.record(CONTACTS, &contact).unwrap().get("sj_credits") == Some(expected)
        }
    };
    let daemon = stage.start().await;
    stage.app(CREDITS).await;
    stage.wait_world("it pushes", credits("1")).await;
    stage.wait_drained().await;
    stage.sql("DROP SCHEMA hubsyncd CASCADE").await;
    let mut last = String::new();
    wait_until("health fails and says what to do", async || {
        let (code, body) = daemon.get("/health").await;
        last.clone_from(&body);
        code == 503 && body.contains("schema hubsyncd") && body.contains("hubsyncd setup")
    })
    .await;
    let verdict: serde_json::Value = serde_json::from_str(&last).unwrap();
    assert_eq!(verdict["checks"]["schema"][0]["status"], "fail", "{last}");
    logged(&daemon, "the schema hubsyncd is not installed").await;
    // The application goes on without us, and nothing names what it does.
    stage.app(CREDITS).await;
    let requests = stage.sandbox.world().requests().count();
    assert_eq!(daemon.get("/livez").await.0, 200);
    stage.setup().await;
    daemon.settled().await;
    wait_until("health recovers", async || daemon.get("/health").await.0 == 200).await;
    assert_eq!(
        stage.sandbox.world().requests().count(),
        requests,
        "nothing was pushed while it paused, and it does not ask HubSpot anew"
    );
    stage.app(CREDITS).await;
    stage.wait_world("it goes on", credits("3")).await;
    stage.wait_drained().await;
    assert_eq!(daemon.sweep().await["outcome"], "complete");
    assert_eq!(daemon.stop().await, Some(0));
}
