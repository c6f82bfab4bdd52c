//! What an operator does while the daemon runs: the documented trigger and the verbs, against the built daemon.

use crate::support::daemon::{CONTACTS, Daemon, Stage};
use crate::support::going::Going;
use crate::support::sweeping::unseen;
use crate::support::{DEADLINE, wait_until};
use hubsyncd::sandbox::{Endpoint, When};

const TRIGGER: &str = "/api/admin/cron/batch-sync-hubspot";

/// The answer with its number of milliseconds blanked.
fn timeless(answer: &str) -> String {
    let (before, after) = answer.split_once("\"duration\":\"").unwrap();
    let (digits, after) = after.split_once("ms\"").unwrap();
    assert!(
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()),
        "{answer}"
    );
    format!("{before}\"duration\":\"_ms\"{after}")
}

/// Runs a verb against the daemon named `daemon`.
async fn verb(stage: &Stage, arguments: &[&str]) -> (i32, String) {
    let mut command = stage.command("daemon");
    command.args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    (
        output.status.code().unwrap(),
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap(),
    )
}

async fn bad_contact(stage: &Stage) -> Daemon {
    stage.known_contact("good").await;
    stage.sandbox.refuse_record(CONTACTS, "student_id", "bad", None);
    let daemon = stage.start().await;
    unseen(
        stage,
        "INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email) VALUES ('bad', 'bad@example.com')",
    )
    .await;
    daemon
}

#[tokio::test]
async fn the_documented_trigger_sweeps_and_answers_to_the_letter() {
    let stage = Stage::new("trigger").await;
    stage.known_exam().await;
    let daemon = bad_contact(&stage).await;
    let summary = r#""summary":{"contacts":{"created":0,"updated":1,"failed":1},"bookings":{"created":0,"updated":0,"failed":0},"mockExams":{"updated":1,"failed":0}}}"#;
    for method in ["GET", "POST"] {
        let (code, answer) = match method {
            "GET" => daemon.get(TRIGGER).await,
            _ => daemon.post(TRIGGER).await,
        };
        assert_eq!(code, 200, "{answer}");
        assert_eq!(
            timeless(&answer),
            format!(r#"{{"success":true,"duration":"_ms",{summary}"#)
        );
    }
    let reasons = stage
        .value("SELECT string_agg(reason, ' ') FROM hubsyncd.run")
        .await;
    assert_eq!(reasons.as_deref(), Some("manual manual"));
}

#[tokio::test]
async fn pitfall_1j_the_documented_trigger_waits_for_the_sweep_after_the_one_that_runs() {
    let stage = Stage::new("trigger_after").await;
    stage.known_contact("s1").await;
    let daemon = stage.start().await;
    let held = stage.sandbox.hold(Endpoint::Update, When::Before);
    let (code, _) = daemon.post("/sweep").await;
    assert_eq!(code, 202);
    assert!(held.reached(DEADLINE).await);
    let meanwhile = async {
        wait_until("the trigger waits", async || {
            daemon
                .log()
                .contains("the trigger waits for the sweep after the one that runs")
        })
        .await;
        held.release();
    };
    let ((code, answer), ()) = tokio::join!(daemon.get(TRIGGER), meanwhile);
    assert_eq!(code, 200, "{answer}");
    let runs = "SELECT string_agg(reason || ' ' || outcome, ', ' ORDER BY started_at) FROM hubsyncd.run";
    assert_eq!(
        stage.value(runs).await.as_deref(),
        Some("socket complete, manual complete")
    );
}

#[tokio::test]
async fn an_incomplete_sweep_makes_the_documented_trigger_fail_and_say_why() {
    let stage = Stage::new("trigger_fails").await;
    stage.known_exam().await;
    let daemon = stage.start().await;
    stage
        .sql("REVOKE SELECT ON hubspot_sync.hubspot_contact_credits FROM hubsyncd")
        .await;
    let (code, answer) = daemon.post(TRIGGER).await;
    assert_eq!(code, 500, "{answer}");
    assert!(answer.starts_with(r#"{"success":false,"error":""#), "{answer}");
    assert!(answer.contains("hubspot_contact_credits"), "{answer}");
    assert!(
        answer.ends_with(r#""summary":{"contacts":{"created":0,"updated":0,"failed":0},"bookings":{"created":0,"updated":0,"failed":0},"mockExams":{"updated":1,"failed":0}}}"#),
        "{answer}"
    );
    let (code, said) = verb(&stage, &["sweep"]).await;
    assert_eq!(code, 75, "{said}");
    assert!(said.contains("incomplete"), "{said}");
}

#[tokio::test]
async fn the_verbs_speak_with_the_running_daemon() {
    let stage = Stage::new("verbs_live").await;
    let daemon = bad_contact(&stage).await;
    let (code, said) = verb(&stage, &["sweep"]).await;
    assert_eq!(code, 1, "a record was refused: {said}");
    assert!(said.contains("complete"), "{said}");
    let (code, said) = verb(&stage, &["health"]).await;
    assert_eq!(code, 0, "refused records alone change nothing: {said}");
    let (code, said) = verb(&stage, &["status", "--json"]).await;
    assert_eq!(code, 0);
    let status: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (&status["failures"], &status["lease"]),
        (&1.into(), &"held".into()),
        "{said}"
    );
    let (code, said) = verb(&stage, &["failures"]).await;
    assert_eq!(code, 0);
    assert!(said.contains("contacts"), "{said}");
    assert!(!said.contains("bad@example.com"), "{said}");
    let (code, said) = verb(&stage, &["failures", "retry"]).await;
    assert_eq!(code, 0, "{said}");
    stage
        .wait_value("SELECT attempts FROM hubsyncd.failure", "2")
        .await;
    stage.sandbox.clear_faults();
    let key = stage.value("SELECT key FROM hubsyncd.failure").await.unwrap();
    let (code, said) = verb(&stage, &["failures", "retry", "contacts", &key]).await;
    assert_eq!(code, 0, "{said}");
    stage
        .wait_value("SELECT count(*) FROM hubsyncd.failure", "0")
        .await;
    assert!(
        stage
            .sandbox
            .world()
            .find(CONTACTS, "student_id", "bad")
            .is_some()
    );
    for (nobody, named) in [
        (["contactz"].as_slice(), "there is no object `contactz`"),
        (&["contacts", "abc"], "there is no failure of contacts abc"),
    ] {
        let (code, said) = verb(&stage, &[&["failures", "retry"], nobody].concat()).await;
        assert!(code == 1 && said.contains(named), "{code}: {said}");
    }
    let (code, said) = verb(&stage, &["sweep"]).await;
    assert_eq!(code, 0, "{said}");
    // The stage's daemon logs at debug, where the Postgres client tells the parameters of its queries.
    let log = daemon.log();
    for private in ["bad@example.com", "parameters: ["] {
        assert!(!log.contains(private), "{private} is in the log");
    }
    let (code, _) = verb(&stage, &["sweep", "--no-wait"]).await;
    assert_eq!(code, 0);
    assert_eq!(daemon.stop().await, Some(0));
    let (code, _) = verb(&stage, &["health"]).await;
    assert_eq!(code, 1, "nobody answers");
}

#[tokio::test]
async fn a_sweep_shows_how_it_goes_and_what_keeps_it_from_beginning() {
    let stage = Stage::new("progress").await;
    stage.known_contact("s1").await;
    stage.known_exam().await;
    let daemon = stage.start().await;
    let held = stage.sandbox.hold(Endpoint::Update, When::Before);
    let mut sweep = Going::begin(&stage, &["sweep"]);
    assert!(held.reached(DEADLINE).await);
    sweep.says("sweeping: ").await;
    held.release();
    assert_eq!(sweep.ended().await, Some(0), "{}", sweep.said());
    assert!(
        sweep
            .said()
            .ends_with("complete: contacts 1 updated; mock_exams 1 updated\n"),
        "{}",
        sweep.said()
    );

    let limit = |limit: i32| {
        format!(
            "ALTER DATABASE \"{}\" CONNECTION LIMIT {limit}",
            stage.database.name
        )
    };
    stage.sql(&limit(0)).await;
    stage
        .sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'hubsyncd' AND datname = current_database()")
        .await;
    wait_until("the daemon misses its database", async || {
        daemon.get("/health").await.0 == 503
    })
    .await;
    let mut sweep = Going::begin(&stage, &["sweep"]);
    sweep.says("waiting to sweep: database: ").await;
    stage.sql(&limit(-1)).await;
    assert_eq!(sweep.ended().await, Some(0), "{}", sweep.said());
}

#[tokio::test]
async fn a_watched_status_outlives_the_daemon_and_shows_the_next_one() {
    let stage = Stage::new("watched").await;
    let daemon = stage.start().await;
    let mut watch = Going::begin(&stage, &["status", "--watch"]);
    let frames = || watch.said().matches("this daemon pushes").count();
    wait_until("it looks again", async || frames() >= 2).await;
    assert_eq!(daemon.stop().await, Some(0));
    watch.says("cannot be reached").await;
    let before = frames();
    let daemon = stage.start().await;
    wait_until("it shows the next one", async || frames() > before).await;
    let pid = watch.child.id().to_string();
    assert!(
        std::process::Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(watch.ended().await, Some(0), "{}", watch.said());
    drop(daemon);
}
