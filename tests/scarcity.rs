//! A daily quota that is spent, or down to its reserve: changes are kept, nothing is hurried, and at the portal's
//! midnight all of it drains.

use crate::support::daemon::{CONTACTS, Daemon, QUICK, Stage};
use crate::support::sweeping::{before_midnight, counts, known_contacts};
use crate::support::wait_until;
use hubsyncd::sandbox::{Settings, World};
use std::time::Duration;

const WAITING: &str = "SELECT count(*) FROM hubsyncd.change";

async fn stage(hint: &str, more: &str) -> Stage {
    let settings = Settings {
        requests_per_window: None,
        ..Settings::default()
    };
    Stage::with(hint, settings, &format!("{QUICK}{more}")).await
}

async fn wait_health(daemon: &Daemon, status: &str, words: &str) {
    let mut last = String::new();
    wait_until(&format!("health is {status} because of {words}"), async || {
        last = daemon.get("/health").await.1;
        let health: serde_json::Value = serde_json::from_str(&last).unwrap();
        health["status"] == status && last.contains(words)
    })
    .await;
}

fn written(world: &World, credits: &str) -> usize {
    let is = |record: &&hubsyncd::sandbox::Record| record.get("sj_credits") == Some(credits);
    world.records(CONTACTS).filter(is).count()
}

async fn set_credits(stage: &Stage, credits: &str) {
    stage
        .app(&format!(
            "UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = {credits}"
        ))
        .await;
}

#[tokio::test]
async fn a_quota_spent_by_others_keeps_the_changes_warns_and_at_the_portals_midnight_all_drains() {
    let stage = stage(
        "quota_live",
        "[health]\nwarn-after = \"1s\"\nfail-after = \"2s\"\n",
    )
    .await;
    known_contacts(&stage, 250).await;
    let daemon = stage.start().await;
    before_midnight(&stage, Duration::from_secs(9));
    stage.sandbox.limit(None, Some(1_000));
    stage.sandbox.spend(0, 1_000);
    set_credits(&stage, "7").await;
    wait_health(&daemon, "warn", "daily quota is spent").await;
    // No age makes it fail.
    wait_until("the changes are old", async || {
        daemon.status().await["oldest_pending_seconds"].as_f64() > Some(2.5)
    })
    .await;
    wait_health(&daemon, "warn", "daily quota is spent").await;
    assert_eq!(stage.value(WAITING).await.as_deref(), Some("250"));
    assert_eq!(written(&stage.sandbox.world(), "7"), 0);
    assert!(
        stage.sandbox.world().answered_with(429) <= 8,
        "it is not asked again and again"
    );
    let run = daemon.sweep().await;
    assert_eq!(run["outcome"], "complete", "so short a wait is waited for: {run}");
    stage.wait_drained().await;
    assert_eq!(written(&stage.sandbox.world(), "7"), 250);
    wait_until("nothing is wrong any more", async || {
        daemon.get("/health").await.1.contains("\"pass\"") && !daemon.get("/health").await.1.contains("quota")
    })
    .await;
}

#[tokio::test]
async fn a_quota_spent_for_hours_ends_a_sweep_at_once_and_nothing_failed() {
    let stage = stage("quota_sweep", "").await;
    known_contacts(&stage, 450).await;
    let daemon = stage.start().await;
    before_midnight(&stage, Duration::from_secs(5 * 3600 + 1800));
    stage.sandbox.limit(None, Some(1_000));
    stage.sandbox.spend(0, 1_000);
    for _ in 0..2 {
        let run = daemon.sweep().await;
        assert_eq!(run["outcome"], "incomplete", "{run}");
        let error = run["error"].as_str().unwrap();
        assert!(
            error.contains("daily quota is spent") && error.contains("in 5h"),
            "{run}"
        );
        assert_eq!(counts(&run, "contacts"), (0, 0, 0));
    }
    let marked =
        "SELECT count(*) FROM hubspot_sync.hubspot_contact_credits WHERE hubspot_last_sync_at IS NOT NULL";
    assert_eq!(stage.value(marked).await.as_deref(), Some("0"));
    stage
        .wait_value("SELECT count(*) FROM hubsyncd.failure", "0")
        .await;
}

#[tokio::test]
async fn the_reserve_stops_a_sweep_and_leaves_the_day_to_live_changes() {
    let stage = stage(
        "quota_reserve",
        "[hubspot]\ndaily-reserve = \"20%\"\nin-flight = 4\n",
    )
    .await;
    known_contacts(&stage, 1_500).await;
    let daemon = stage.start().await;
    before_midnight(&stage, Duration::from_secs(5 * 3600 + 1800));
    // 212 are left, 200 of them for changes.
    stage.sandbox.limit(None, Some(1_000));
    stage.sandbox.spend(0, 788);
    let run = daemon.sweep().await;
    assert_eq!(run["outcome"], "incomplete", "{run}");
    assert!(
        run["error"].as_str().unwrap().contains("kept for live changes"),
        "{run}"
    );
    let (created, updated, failed) = counts(&run, "contacts");
    assert!(
        created == 0 && failed == 0 && (100..1_300).contains(&updated),
        "{run}"
    );
    let left = daemon.status().await["limits"]["daily_remaining"]
        .as_u64()
        .unwrap();
    assert_eq!(left, 200, "not one request of the reserve");
    wait_health(&daemon, "warn", "kept for live changes").await;
    stage
        .app("UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = 8 WHERE student_id = 'p1'")
        .await;
    stage.wait_drained().await;
    assert_eq!(written(&stage.sandbox.world(), "8"), 1, "changes go on");
    stage.sandbox.limit(None, None);
    stage.sandbox.advance(Duration::from_secs(6 * 3600));
    assert_eq!(daemon.stop().await, Some(0));
    let daemon = stage.start().await;
    let run = daemon.sweep().await;
    assert_eq!(run["outcome"], "complete", "{run}");
    assert_eq!(counts(&run, "contacts"), (0, 1_500, 0));
}
