//! Tests of the lease: who may push, since when, and what a daemon that lost it does no harm with.

use super::support::daemon::{CONTACTS, Daemon, QUICK, Stage};
use super::support::instep::wait_contacts_in_step;
use super::support::proxy::{Proxy, Silent};
use super::support::{DEADLINE, wait_until};
use hubsyncd::sandbox::{Endpoint, Settings, When, World};

/// Microseconds of the holder's last ping.
const RENEWED: &str = "SELECT (extract(epoch FROM renewed_at) * 1000)::bigint FROM hubsyncd.lease";
const GENERATION: &str = "SELECT generation FROM hubsyncd.lease";

async fn number(stage: &Stage, sql: &str) -> i64 {
    stage.value(sql).await.unwrap().parse().unwrap()
}

async fn set_credits(stage: &Stage, credits: u32) {
    stage
        .app(&format!(
            "UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = {credits}"
        ))
        .await;
}

fn credits<'w>(world: &'w World, contact: &str) -> Option<&'w str> {
    world.record(CONTACTS, contact).unwrap().get("sj_credits")
}

async fn wait_credits(stage: &Stage, contact: &str, expected: &str) {
    let what = format!("HubSpot holds {expected} credits");
    stage
        .wait_world(&what, |world| credits(world, contact) == Some(expected))
        .await;
}

/// Starts a daemon that finds the lease taken.
async fn standby(stage: &Stage, name: &str) -> Daemon {
    let daemon = stage.launch(name);
    wait_lease(&daemon, "standby").await;
    daemon
}

async fn wait_lease(daemon: &Daemon, state: &str) {
    wait_until(&format!("its lease is {state}"), async || {
        let Some((200, status)) = daemon.try_get("/status").await else {
            return false;
        };
        serde_json::from_str::<serde_json::Value>(&status).unwrap()["lease"] == state
    })
    .await;
}

async fn wait_log(daemon: &Daemon, words: &str) {
    wait_until(&format!("the log says {words}"), async || {
        daemon.log().contains(words)
    })
    .await;
}

/// When the last request that wrote something arrived, milliseconds since 1970.
fn last_write(stage: &Stage) -> i64 {
    let world = stage.sandbox.world();
    let mut writes = world.requests().filter(|request| !request.writes.is_empty());
    writes.next_back().expect("something was written").arrived_ms
}

/// How often the doorbell has woken the daemon.
async fn rings(daemon: &Daemon) -> u64 {
    let (_, metrics) = daemon.get("/metrics").await;
    let line = metrics
        .lines()
        .find(|line| line.starts_with("hubsyncd_wakeups_total") && line.contains("\"bell\""));
    line.map_or(0, |line| line.split(' ').next_back().unwrap().parse().unwrap())
}

#[tokio::test]
async fn a_killed_holder_is_followed_within_seconds_but_not_before_its_requests_could_have_started() {
    let stage = Stage::new("lease_killed").await;
    let contact = stage.known_contact("s1").await;
    let first = stage.start().await;
    let second = standby(&stage, "second").await;
    let (pinged, generation) = (number(&stage, RENEWED).await, number(&stage, GENERATION).await);
    first.kill();
    set_credits(&stage, 5).await;
    wait_credits(&stage, &contact, "5").await;
    let waited = last_write(&stage) - pinged;
    assert!(waited >= 10_000, "pushed {waited} ms after the last ping");
    assert!(number(&stage, GENERATION).await > generation, "taken anew");
    assert!(second.log().contains("did not give it back"), "and it says so");
}

#[tokio::test]
async fn a_lease_that_was_given_back_is_taken_without_waiting() {
    let stage = Stage::new("lease_clean").await;
    let contact = stage.known_contact("s1").await;
    let given_back = "SELECT stopped_at IS NOT NULL FROM hubsyncd.lease";
    let first = stage.start().await;
    set_credits(&stage, 1).await;
    wait_credits(&stage, &contact, "1").await;
    stage.wait_drained().await;
    let second = standby(&stage, "second").await;
    let pinged = number(&stage, RENEWED).await;
    assert_eq!(first.stop().await, Some(0));
    set_credits(&stage, 2).await;
    wait_credits(&stage, &contact, "2").await;
    let waited = last_write(&stage) - pinged;
    assert!(waited < 10_000, "it waited {waited} ms");
    assert_eq!(stage.value(given_back).await.as_deref(), Some("f"));
    stage.wait_drained().await;
    assert_eq!(second.stop().await, Some(0));
    assert_eq!(stage.value(given_back).await.as_deref(), Some("t"));
}

#[tokio::test]
async fn a_stop_with_a_request_of_unknown_outcome_behind_it_is_not_clean() {
    let toml = format!("{QUICK}[hubspot]\ntimeout = \"1s\"\n");
    let stage = Stage::with("lease_unclean", Settings::default(), &toml).await;
    let contact = stage.known_contact("s1").await;
    let daemon = stage.start().await;
    let _hold = stage.sandbox.hold(Endpoint::Update, When::Before);
    set_credits(&stage, 1).await;
    wait_credits(&stage, &contact, "1").await;
    stage.wait_drained().await;
    assert_eq!(daemon.stop().await, Some(0));
    let given_back = "SELECT stopped_at IS NOT NULL FROM hubsyncd.lease";
    assert_eq!(stage.value(given_back).await.as_deref(), Some("f"));
}

#[tokio::test]
async fn a_frozen_holder_that_wakes_writes_nothing_back_and_has_what_landed_late_pushed_over() {
    let stage = Stage::new("lease_frozen").await;
    let contact = stage.known_contact("s1").await;
    let first = stage.start().await;
    let second = standby(&stage, "second").await;
    let generation = number(&stage, GENERATION).await;
    let hold = stage.sandbox.hold(Endpoint::Update, When::Before);
    set_credits(&stage, 1).await;
    assert!(hold.reached(DEADLINE).await, "the first is pushing");
    first.signal("STOP");
    wait_lease(&second, "held").await;
    assert!(number(&stage, GENERATION).await > generation);
    set_credits(&stage, 2).await;
    wait_credits(&stage, &contact, "2").await;
    stage.wait_drained().await;
    let synced = "SELECT hubspot_last_sync_at::text FROM hubspot_sync.hubspot_contact_credits";
    let before = stage.value(synced).await;
    // What the first had sent arrives now, long after what the second sent.
    hold.release();
    wait_credits(&stage, &contact, "1").await;
    assert_eq!(stage.value(synced).await, before);
    first.signal("CONT");
    wait_log(
        &first,
        "another daemon has taken the lease meanwhile, so nothing was written",
    )
    .await;
    wait_log(&first, "they are named as changed").await;
    wait_credits(&stage, &contact, "2").await;
    wait_contacts_in_step(&stage).await;
    wait_lease(&first, "standby").await;
    assert_eq!(second.status().await["lease"], "held");
    // And it can take over again.
    assert_eq!(second.stop().await, Some(0));
    set_credits(&stage, 3).await;
    wait_credits(&stage, &contact, "3").await;
    wait_contacts_in_step(&stage).await;
}

#[tokio::test]
async fn a_generation_that_is_gone_ends_the_holding_and_its_receipt_is_refused() {
    let stage = Stage::new("lease_gone").await;
    let contact = stage.known_contact("s1").await;
    let daemon = stage.start().await;
    let synced = "SELECT hubspot_last_sync_at::text FROM hubspot_sync.hubspot_contact_credits";
    let before = stage.value(synced).await;
    let hold = stage.sandbox.hold(Endpoint::Update, When::After);
    set_credits(&stage, 1).await;
    assert!(hold.reached(DEADLINE).await);
    stage
        .sql("UPDATE hubsyncd.lease SET generation = generation + 1, renewed_at = clock_timestamp() - interval '1 minute'")
        .await;
    hold.release();
    wait_log(&daemon, "so nothing was written").await;
    assert_eq!(stage.value(synced).await, before);
    wait_log(&daemon, "they are named as changed").await;
    let refused = daemon.log().matches("so nothing was written").count();
    assert_eq!(refused, 1, "it stops pushing at once");
    wait_contacts_in_step(&stage).await;
    daemon.settled().await;
    assert_eq!(credits(&stage.sandbox.world(), &contact), Some("1"));
}

#[tokio::test]
async fn nothing_is_sent_later_than_five_seconds_after_the_last_ping_when_the_database_falls_silent() {
    // Rows that are read ahead need no database to be sent; slots come too slowly to send them all at once.
    let toml = "[batch]\nmax-records = 1\nmax-delay = \"30ms\"\n[sweep]\non-start = false\n\
                [hubspot]\nrequests = 10\nwindow = \"10s\"\n";
    let mut stage = Stage::without_setup("lease_silent", Settings::default(), toml).await;
    for student in 0..30 {
        stage.known_contact(&format!("s{student}")).await;
    }
    stage.setup().await;
    stage.through.database = Some(Proxy::to_database(&stage.database));
    let first = stage.launch("daemon");
    wait_lease(&first, "held").await;
    let proxy = stage.through.database.take().unwrap();
    let second = standby(&stage, "second").await;
    assert_eq!(first.post("/sweep").await.0, 202);
    let writes = |world: &World| world.count(Endpoint::Update);
    stage
        .wait_world("the sweep has begun", |world| writes(world) >= 3)
        .await;
    proxy.silence(Silent::Both);
    let generation = number(&stage, GENERATION).await;
    let mut pinged = number(&stage, RENEWED).await;
    wait_until("the second holds the lease", async || {
        let row =
            "SELECT (extract(epoch FROM renewed_at) * 1000)::bigint || ' ' || generation FROM hubsyncd.lease";
        let row = stage.value(row).await.unwrap();
        let (renewed, of) = row.split_once(' ').unwrap();
        let taken = of.parse::<i64>().unwrap() > generation;
        if !taken {
            pinged = renewed.parse().unwrap();
        }
        taken
    })
    .await;
    {
        let world = stage.sandbox.world();
        let updates = world
            .requests()
            .filter(|request| request.endpoint == Endpoint::Update);
        let after: Vec<i64> = updates
            .map(|request| request.arrived_ms - pinged)
            .filter(|after| *after > 0)
            .collect();
        assert!(!after.is_empty(), "it had rows to send");
        let late = after.iter().filter(|after| (5_500..10_000).contains(*after));
        assert_eq!(late.count(), 0, "milliseconds after the last ping: {after:?}");
    }
    wait_log(&first, "the lease is not confirmed, so nothing was sent").await;
    proxy.silence(Silent::Not);
    wait_lease(&first, "standby").await;
    wait_log(&first, "they are named as changed").await;
    stage.wait_drained().await;
    assert_eq!(second.status().await["lease"], "held");
}

#[tokio::test]
async fn an_armed_holder_lives_on_its_pings_which_ring_nothing() {
    let stage = Stage::new("lease_pings").await;
    let daemon = stage.start().await;
    let (rung, generation) = (rings(&daemon).await, number(&stage, GENERATION).await);
    let begin = number(&stage, RENEWED).await;
    wait_until("it has pinged beyond the server's patience", async || {
        number(&stage, RENEWED).await >= begin + 12_000
    })
    .await;
    assert_eq!(rings(&daemon).await, rung);
    assert_eq!(number(&stage, GENERATION).await, generation);
    assert!(
        !daemon.log().contains("database is not to be had"),
        "{}",
        daemon.log()
    );
    assert_eq!(daemon.status().await["listener"], "armed");
}
