//! Signals, and two daemons on one database.

use crate::support::daemon::{CONTACTS, Daemon, Stage};
use crate::support::proxy::{Proxy, Silent};
use crate::support::sweeping::logged;
use crate::support::{DEADLINE, extras, wait_until};
use hubsyncd::sandbox::{Endpoint, Settings, When};

const RUNS: &str = "SELECT count(*) FROM hubsyncd.run WHERE reason = 'signal' AND outcome = 'complete'";
const CREDITS: &str = "UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = sj_credits + 1";

fn said(daemon: &Daemon, words: &str) -> usize {
    daemon.log().matches(words).count()
}

#[tokio::test]
async fn sigusr1_sweeps_and_any_number_of_them_meanwhile_make_exactly_one_more() {
    let stage = Stage::new("signal_sweep").await;
    stage.known_contact("s1").await;
    let daemon = stage.start().await;
    let held = stage.sandbox.hold(Endpoint::Update, When::Before);
    daemon.signal("USR1");
    assert!(held.reached(DEADLINE).await, "it sweeps");
    for times in 1..=3 {
        daemon.signal("USR1");
        wait_until("the signal is taken", async || {
            said(&daemon, "SIGUSR1: a sweep runs after the one that runs") == times
        })
        .await;
    }
    held.release();
    stage.wait_value(RUNS, "2").await;
    daemon.sweep().await;
    assert_eq!(stage.value(RUNS).await.as_deref(), Some("2"), "and not one more");
    let all = stage.value("SELECT count(*) FROM hubsyncd.run").await;
    assert_eq!(all.as_deref(), Some("3"));
}

#[tokio::test]
async fn sigusr1_before_the_database_is_up_is_kept_and_sighup_kills_nobody() {
    let stage = Stage::new("signal_early").await;
    stage.known_contact("s1").await;
    let limit = |limit: i32| {
        format!(
            "ALTER DATABASE \"{}\" CONNECTION LIMIT {limit}",
            stage.database.name
        )
    };
    stage.sql(&limit(0)).await;
    let daemon = stage.launch("daemon");
    wait_until("it lives and has no database", async || {
        daemon
            .try_get("/livez")
            .await
            .is_some_and(|(code, _)| code == 200)
            && daemon.get("/health").await.0 == 503
    })
    .await;
    daemon.signal("HUP");
    logged(&daemon, "SIGHUP").await;
    daemon.signal("USR1");
    logged(&daemon, "SIGUSR1: a sweep runs").await;
    stage.sql(&limit(-1)).await;
    stage.wait_value(RUNS, "1").await;
    daemon.settled().await;
}

#[tokio::test]
async fn sigterm_records_what_hubspot_has_answered_and_starts_nothing_more() {
    let stage = Stage::new("signal_term").await;
    stage.known_contact("s1").await;
    let mut daemon = stage.start().await;
    let held = stage.sandbox.hold(Endpoint::Update, When::After);
    stage.app(CREDITS).await;
    assert!(held.reached(DEADLINE).await);
    daemon.signal("TERM");
    logged(&daemon, "hubsyncd stops").await;
    stage.app("INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email) VALUES ('s2', 's2@example.com')").await;
    held.release();
    assert_eq!(daemon.ended().await, Some(0));
    let left = stage
        .value("SELECT string_agg(op::text, '') FROM hubsyncd.change")
        .await;
    assert_eq!(
        left.as_deref(),
        Some("I"),
        "the receipt is written; what came later waits"
    );
    assert!(stage.sandbox.world().find(CONTACTS, "student_id", "s2").is_none());
    let daemon = stage.start().await;
    stage.wait_drained().await;
    assert!(stage.sandbox.world().find(CONTACTS, "student_id", "s2").is_some());
    drop(daemon);
}

#[tokio::test]
async fn a_second_sigterm_stops_at_once_and_nothing_is_lost() {
    let stage = Stage::new("signal_twice").await;
    let contact = stage.known_contact("s1").await;
    let mut daemon = stage.start().await;
    let held = stage.sandbox.hold(Endpoint::Update, When::Before);
    stage.app(CREDITS).await;
    assert!(held.reached(DEADLINE).await);
    daemon.signal("TERM");
    logged(&daemon, "hubsyncd stops").await;
    daemon.signal("TERM");
    assert_eq!(daemon.ended().await, Some(0));
    assert_eq!(
        stage
            .value("SELECT count(*) FROM hubsyncd.change")
            .await
            .as_deref(),
        Some("1")
    );
    held.release();
    let daemon = stage.start().await;
    stage.wait_drained().await;
    let world = stage.sandbox.world();
    assert_eq!(
        world.record(CONTACTS, &contact).unwrap().get("sj_credits"),
        Some("1")
    );
    drop(daemon);
}

#[tokio::test]
async fn a_database_that_takes_no_receipt_holds_up_the_end_for_less_than_systemd_waits() {
    if !extras() {
        println!("not run: an end without the database takes 50 s (set HUBSYNCD_TEST_EXTRAS=1)");
        return;
    }
    let mut stage = Stage::new("signal_cut_off").await;
    stage.through.database = Some(Proxy::to_database(&stage.database));
    let contact = stage.known_contact("s1").await;
    let mut daemon = stage.start().await;
    let held = stage.sandbox.hold(Endpoint::Update, When::After);
    stage.app(CREDITS).await;
    assert!(held.reached(DEADLINE).await);
    stage.through.database.as_ref().unwrap().silence(Silent::Both);
    let begin = std::time::Instant::now();
    daemon.signal("TERM");
    logged(&daemon, "hubsyncd stops").await;
    held.release();
    let ended = async {
        while daemon.has_ended().is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    // TimeoutStopSec= of the unit.
    let in_time = tokio::time::timeout(std::time::Duration::from_secs(60), ended).await;
    assert!(in_time.is_ok(), "{}", daemon.log());
    assert_eq!(daemon.has_ended().and_then(|status| status.code()), Some(0));
    assert!(begin.elapsed() > DEADLINE, "it did wait for the database");
    logged(&daemon, "stopping without").await;
    let left = stage.value("SELECT count(*) FROM hubsyncd.change").await;
    assert_eq!(left.as_deref(), Some("1"), "what was not recorded waits");
    stage.through.database = None;
    let daemon = stage.start().await;
    stage.wait_drained().await;
    let world = stage.sandbox.world();
    assert_eq!(
        world.record(CONTACTS, &contact).unwrap().get("sj_credits"),
        Some("1")
    );
    drop(daemon);
}

#[tokio::test]
async fn sigterm_ends_a_sweep_incomplete_and_the_next_start_sweeps_again() {
    let stage = Stage::with(
        "signal_swept",
        Settings::default(),
        "[batch]\nmax-delay = \"30ms\"\n",
    )
    .await;
    stage.known_contact("s1").await;
    stage.known_contact("s2").await;
    let mut daemon = stage.launch("daemon");
    // Past the changes of the rows' making, at the sweep's own push.
    let runs = "SELECT count(*) FROM hubsyncd.run";
    stage
        .wait_value(
            &format!("{runs} WHERE outcome = 'complete' AND reason = 'start'"),
            "1",
        )
        .await;
    let held = stage.sandbox.hold(Endpoint::Update, When::After);
    daemon.post("/sweep").await;
    assert!(held.reached(DEADLINE).await);
    daemon.signal("TERM");
    logged(&daemon, "hubsyncd stops").await;
    held.release();
    assert_eq!(daemon.ended().await, Some(0));
    let ended = stage
        .value("SELECT outcome || ': ' || error FROM hubsyncd.run WHERE reason = 'socket'")
        .await;
    assert!(
        ended
            .as_deref()
            .is_some_and(|ended| ended.contains("incomplete") && ended.contains("the daemon stops")),
        "{ended:?}"
    );
}

#[tokio::test]
async fn pitfall_4_18_a_second_daemon_stands_by_and_takes_over_when_the_first_dies_or_stops() {
    let stage = Stage::new("signal_standby").await;
    let contact = stage.known_contact("s1").await;
    let credits = |expected: &'static str| {
        let contact = contact.clone();
        move |world: &hubsyncd::sandbox::World| {
            world.record(CONTACTS, &contact).unwrap().get("sj_credits") == Some(expected)
        }
    };
    let first = stage.start().await;
    let second = stage.launch("second");
    wait_until(
        "the second stands by",
        async || matches!(second.try_get("/health").await, Some((200, health)) if health.contains("standby")),
    )
    .await;
    let status = second.status().await;
    assert_eq!(status["lease"], "standby");
    let holder = status["holder"].as_str().unwrap().to_owned();
    assert!(!holder.is_empty());
    for path in ["/sweep", "/failures/retry", "/api/admin/cron/batch-sync-hubspot"] {
        let (code, body) = second.post(path).await;
        assert_eq!(code, 409, "{path}: {body}");
        assert!(body.contains(&holder), "{path} names the holder: {body}");
    }
    second.signal("USR1");
    logged(&second, "SIGUSR1 does nothing here").await;
    stage.app(CREDITS).await;
    stage.wait_world("the first pushes", credits("1")).await;
    assert_eq!(said(&second, "batch pushed"), 0, "a standby pushes nothing");
    first.kill();
    stage.app(CREDITS).await;
    stage
        .wait_world("the second pushes once the first is dead", credits("2"))
        .await;
    let third = stage.launch("third");
    wait_until(
        "the third stands by",
        async || matches!(third.try_get("/health").await, Some((200, health)) if health.contains("standby")),
    )
    .await;
    assert_eq!(second.stop().await, Some(0));
    stage.app(CREDITS).await;
    stage
        .wait_world("the third pushes once the second has stopped", credits("3"))
        .await;
    assert_eq!(third.stop().await, Some(0));
}
