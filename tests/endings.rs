//! Tests: how a daemon ends while HubSpot never answers, and what the next one makes of what it left.

use super::support::daemon::{CONTACTS, QUICK, Stage};
use super::support::sweeping::{known_contacts, logged};
use super::support::{DEADLINE, wait_until};
use hubsyncd::sandbox::{Endpoint, Fault, Settings, When};
use std::time::{Duration, Instant};

const CREDITS: &str = "UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = sj_credits + 1";
const EVERY_RUN: &str =
    "SELECT string_agg(reason || ' ' || coalesce(outcome, 'open'), ', ' ORDER BY started_at)
                         FROM hubsyncd.run";

/// Seconds that the unit gives the daemon to stop.
fn unit_stop_timeout() -> Duration {
    let unit = include_str!("../systemd/hubsyncd.service");
    let line = unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec="));
    Duration::from_secs(line.unwrap().parse().unwrap())
}

#[tokio::test]
async fn sigterm_while_hubspot_never_answers_waits_for_one_timeout_and_no_second_attempt() {
    let toml = format!("{QUICK}[hubspot]\ntimeout = \"2s\"\n");
    let stage = Stage::with("stop_hung", Settings::default(), &toml).await;
    known_contacts(&stage, 250).await;
    let mut daemon = stage.start().await;
    stage
        .sandbox
        .fault(Fault::hang(None).on(Endpoint::Update).always());
    stage.app(CREDITS).await;
    stage
        .wait_world("the changes are on their way", |world| {
            world.count(Endpoint::Update) >= 3
        })
        .await;
    daemon.post("/sweep").await;
    let asked = stage.sandbox.world().count(Endpoint::Update);
    let begin = Instant::now();
    daemon.signal("TERM");
    assert_eq!(daemon.ended().await, Some(0));
    let took = begin.elapsed();
    assert!(took < unit_stop_timeout() / 4, "{took:?}");
    assert_eq!(
        stage.sandbox.world().count(Endpoint::Update),
        asked,
        "nothing new is sent once it stops"
    );
    stage.sandbox.clear_faults();
    let daemon = stage.start().await;
    let behind =
        "SELECT count(*) FROM hubspot_sync.hubspot_contact_credits WHERE hubspot_last_sync_at IS NULL";
    stage.wait_value(behind, "0").await;
    drop(daemon);
}

#[tokio::test]
async fn a_second_sigterm_while_hubspot_never_answers_ends_at_once() {
    let stage = Stage::new("stop_twice").await;
    stage.known_contact("s1").await;
    let mut daemon = stage.start().await;
    let held = stage.sandbox.hold(Endpoint::Update, When::Before);
    stage.app(CREDITS).await;
    assert!(held.reached(DEADLINE).await);
    daemon.signal("TERM");
    logged(&daemon, "hubsyncd stops").await;
    let begin = Instant::now();
    daemon.signal("TERM");
    assert_eq!(daemon.ended().await, Some(0));
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_sweep_cut_short_by_a_kill_is_closed_at_the_next_start_though_none_is_due() {
    let stage = Stage::new("killed_sweep").await;
    stage.known_contact("s1").await;
    let daemon = stage.start().await;
    let held = stage.sandbox.hold_all(Endpoint::Update, When::Before);
    daemon.post("/sweep").await;
    assert!(held.reached(DEADLINE).await);
    stage.wait_value(EVERY_RUN, "socket open").await;
    daemon.kill();
    held.release();
    let daemon = stage.start().await;
    stage.wait_value(EVERY_RUN, "socket incomplete").await;
    let status = daemon.status().await;
    assert_eq!(status["last_sweep"]["outcome"], "incomplete", "{status}");
    assert_eq!(daemon.stop().await, Some(0));
}

#[tokio::test]
async fn a_period_missed_while_the_daemon_was_down_is_swept_at_its_start() {
    let toml = "[batch]\nmax-delay = \"30ms\"\n[sweep]\nevery = \"2h\"\n";
    let stage = Stage::with("missed_period", Settings::default(), toml).await;
    stage.known_contact("s1").await;
    let daemon = stage.start().await;
    stage.wait_value(EVERY_RUN, "start complete").await;
    assert_eq!(daemon.stop().await, Some(0));
    let aged = |by: &str| {
        format!(
            "UPDATE hubsyncd.run SET started_at = started_at - interval '{by}',
                                     finished_at = finished_at - interval '{by}'"
        )
    };
    stage.sql(&aged("119 minutes")).await;
    let daemon = stage.start().await;
    wait_until("the sweeper has had its first turns", async || {
        daemon.status().await["uptime_seconds"].as_u64().unwrap() >= 3
    })
    .await;
    daemon.sweep().await;
    assert_eq!(daemon.stop().await, Some(0));
    assert_eq!(
        stage.value(EVERY_RUN).await.as_deref(),
        Some("start complete, socket complete"),
        "a younger one was enough"
    );
    stage.sql(&aged("2 hours")).await;
    let _daemon = stage.start().await;
    stage
        .wait_value(EVERY_RUN, "start complete, socket complete, start complete")
        .await;
    assert_eq!(stage.sandbox.world().records(CONTACTS).count(), 1);
}
