//! Tests: a daemon that was not there, or died at a bad moment.

use super::support::daemon::{CONTACTS, Daemon, QUICK, Stage};
use super::support::instep::{wait_contacts_in_step, with_email};
use super::support::{DEADLINE, wait_until};
use hubsyncd::sandbox::{Endpoint, Settings, When, Write};

const NEW: &str = "INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email, sj_credits)
                   VALUES ('new', 'new@example.com', 4)";

/// How often the safety poll has woken the loop.
async fn safety_polls(daemon: &Daemon) -> u64 {
    let (_, metrics) = daemon.try_get("/metrics").await.unwrap_or_default();
    let line = metrics
        .lines()
        .find(|line| line.starts_with("hubsyncd_wakeups_total") && line.contains("safety"));
    line.and_then(|line| line.split(' ').next_back()?.parse().ok())
        .unwrap_or(0)
}

#[tokio::test]
async fn pitfall_3_05_changes_made_while_the_daemon_is_down_are_pushed_at_start_before_any_sweep() {
    let toml = QUICK.replace("on-start = false", "on-start = true");
    let stage = Stage::without_setup("down", Settings::default(), &toml).await;
    // No change names this one: only a sweep finds it.
    let unnamed = stage.known_contact("unnamed").await;
    let named = stage.known_contact("named").await;
    stage.setup().await;
    stage.app(NEW).await;
    stage
        .app("UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = 6 WHERE student_id = 'named'")
        .await;
    let hold = stage.sandbox.hold(Endpoint::Upsert, When::Before);
    let daemon = stage.launch("daemon");
    assert!(hold.reached(DEADLINE).await);
    wait_until("a few seconds of the loop have passed", async || {
        safety_polls(&daemon).await >= 3
    })
    .await;
    assert_eq!(
        stage.value("SELECT count(*) FROM hubsyncd.run").await.as_deref(),
        Some("0"),
        "no sweep while a change waits for its first answer"
    );
    hold.release();
    let written = |id: &str| {
        let world = stage.sandbox.world();
        let wrote = |write: &Write| matches!(write, Write::Record { id: of, .. } if of == id);
        world
            .requests()
            .find(|request| request.writes.iter().any(wrote))
            .map(|request| request.number)
    };
    wait_until("the sweep came by", async || written(&unnamed).is_some()).await;
    daemon.settled().await;
    let new = stage
        .value("SELECT hubspot_id FROM hubspot_sync.hubspot_contact_credits WHERE student_id = 'new'")
        .await
        .unwrap();
    let swept = written(&unnamed).unwrap();
    assert!(written(&named).unwrap() < swept, "an update first");
    assert!(written(&new).unwrap() < swept, "a create first");
    wait_contacts_in_step(&stage).await;
}

#[tokio::test]
async fn pitfall_1b_a_daemon_killed_between_hubspots_commit_and_its_reply_creates_nothing_twice() {
    let stage = Stage::new("killed_reply").await;
    let daemon = stage.start().await;
    let hold = stage.sandbox.hold(Endpoint::Upsert, When::After);
    stage.app(NEW).await;
    assert!(hold.reached(DEADLINE).await);
    assert_eq!(with_email(&stage.sandbox.world(), "new@example.com"), 1);
    daemon.kill();
    hold.release();
    let _daemon = stage.start().await;
    wait_contacts_in_step(&stage).await;
    assert_eq!(stage.sandbox.world().records(CONTACTS).count(), 1);
}

#[tokio::test]
async fn a_daemon_killed_before_it_could_keep_the_id_creates_nothing_twice() {
    let stage = Stage::new("killed_intent").await;
    let daemon = stage.start().await;
    // HubSpot has answered, and the id cannot be written down anywhere.
    stage.sql("BEGIN; LOCK hubsyncd.intent IN EXCLUSIVE MODE").await;
    stage.app(NEW).await;
    let waits =
        "SELECT count(*) > 0 FROM pg_stat_activity WHERE usename = 'hubsyncd' AND wait_event_type = 'Lock'
                 AND datname = current_database()";
    stage.wait_value(waits, "t").await;
    daemon.kill();
    stage.sql("ROLLBACK").await;
    let _daemon = stage.start().await;
    wait_contacts_in_step(&stage).await;
    assert_eq!(stage.sandbox.world().records(CONTACTS).count(), 1);
}

#[tokio::test]
async fn a_daemon_killed_during_its_receipt_creates_nothing_twice() {
    let stage = Stage::new("killed_receipt").await;
    stage
        .sql(
            "CREATE FUNCTION hubspot_sync.slow() RETURNS trigger LANGUAGE plpgsql AS
               $$BEGIN PERFORM pg_sleep(600); RETURN NEW; END$$;
             CREATE TRIGGER slow BEFORE UPDATE ON hubspot_sync.hubspot_contact_credits
               FOR EACH ROW EXECUTE FUNCTION hubspot_sync.slow()",
        )
        .await;
    let daemon = stage.start().await;
    stage.app(NEW).await;
    let sleeps = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'hubsyncd' AND wait_event = 'PgSleep'
                  AND datname = current_database()";
    stage.wait_value(sleeps, "1").await;
    daemon.kill();
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'hubsyncd'
               AND datname = current_database()";
    stage.sql(end).await;
    stage
        .sql("DROP TRIGGER slow ON hubspot_sync.hubspot_contact_credits")
        .await;
    let upserts = stage.sandbox.world().count(Endpoint::Upsert);
    let _daemon = stage.start().await;
    wait_contacts_in_step(&stage).await;
    let world = stage.sandbox.world();
    assert_eq!(world.records(CONTACTS).count(), 1);
    assert_eq!(
        world.count(Endpoint::Upsert),
        upserts,
        "the id was kept, so the row is updated"
    );
}
