//! Sweeps that meet trouble: what ends them, what they say then, and what the next one takes.

use crate::support::daemon::{BOOKINGS, CONTACTS, EXAMS, QUICK, Stage};
use crate::support::sweeping::{counts, known_contacts, logged, unseen};
use crate::support::{DEADLINE, wait_until};
use hubsyncd::sandbox::{Endpoint, Fault, Settings, When};

#[tokio::test]
async fn pitfall_1c_an_object_that_cannot_be_read_does_not_stop_the_next_one() {
    let stage = Stage::new("sweep_unreadable").await;
    stage.known_contact("s1").await;
    let exam = stage.known_exam().await;
    let daemon = stage.start().await;
    stage
        .sql("REVOKE SELECT ON hubspot_sync.hubspot_contact_credits FROM hubsyncd")
        .await;
    unseen(
        &stage,
        &format!("UPDATE hubspot_sync.hubspot_mock_exams SET total_bookings = 9 WHERE hubspot_id = '{exam}'"),
    )
    .await;
    let run = daemon.sweep().await;
    assert_eq!(run["outcome"], "incomplete");
    let error = run["error"].as_str().unwrap();
    assert!(
        error.contains("contacts") && error.contains("hubspot_contact_credits"),
        "{error}"
    );
    assert_eq!(counts(&run, "contacts"), (0, 0, 0));
    assert_eq!(counts(&run, "mock_exams"), (0, 1, 0), "{run}");
    logged(&daemon, "sweep incomplete").await;
    stage
        .sql("GRANT SELECT ON hubspot_sync.hubspot_contact_credits TO hubsyncd")
        .await;
    let run = daemon.sweep().await;
    assert_eq!(run["outcome"], "complete", "{run}");
    assert_eq!(counts(&run, "contacts"), (0, 1, 0));
}

#[tokio::test]
async fn a_silent_hubspot_makes_a_sweep_give_up_and_the_next_one_takes_what_is_left() {
    let toml = "[batch]\nmax-delay = \"30ms\"\n[sweep]\non-start = false\ngive-up = \"1s\"\n";
    let stage = Stage::with("sweep_giveup", Settings::default(), toml).await;
    let daemon = stage.start().await;
    known_contacts(&stage, 250).await;
    stage
        .sandbox
        .fault(Fault::named("503").unwrap().on(Endpoint::Any).always());
    let run = daemon.sweep().await;
    assert_eq!(run["outcome"], "incomplete");
    assert_eq!(counts(&run, "contacts"), (0, 0, 0), "neither updated nor failed");
    assert!(
        run["error"]
            .as_str()
            .unwrap()
            .contains("nothing could be sent for 1s"),
        "{run}"
    );
    let marked =
        "SELECT count(*) FROM hubspot_sync.hubspot_contact_credits WHERE hubspot_last_sync_at IS NOT NULL";
    assert_eq!(stage.value(marked).await.as_deref(), Some("0"));
    assert_eq!(
        stage
            .value("SELECT count(*) FROM hubsyncd.failure")
            .await
            .as_deref(),
        Some("0")
    );
    let (_, livez) = daemon.get("/livez").await;
    assert!(livez.contains("pass"), "{livez}");
    stage.sandbox.clear_faults();
    let mut run = daemon.sweep().await;
    // HubSpot's own pause after so much trouble may outlast one more give-up.
    while run["outcome"] == "incomplete" {
        run = daemon.sweep().await;
    }
    assert_eq!(counts(&run, "contacts"), (0, 250, 0), "{run}");
    assert_eq!(stage.value(marked).await.as_deref(), Some("250"));
}

#[tokio::test]
async fn a_refused_token_ends_a_sweep_after_give_up_and_sigterm_needs_no_second() {
    let toml = "[batch]\nmax-delay = \"30ms\"\n[sweep]\non-start = false\ngive-up = \"1s\"\n";
    let stage = Stage::with("sweep_halt", Settings::default(), toml).await;
    let daemon = stage.start().await;
    known_contacts(&stage, 10).await;
    stage
        .sandbox
        .fault(Fault::named("401").unwrap().on(Endpoint::Any).always());
    let run = daemon.sweep().await;
    assert_eq!(run["outcome"], "incomplete");
    assert_eq!(counts(&run, "contacts"), (0, 0, 0));
    assert!(run["error"].as_str().unwrap().contains("token"), "{run}");
    daemon.post("/sweep").await;
    wait_until("the next sweep waits for leave to send", async || {
        daemon.status().await["sweep"].is_object()
    })
    .await;
    assert_eq!(daemon.stop().await, Some(0));
}

#[tokio::test]
async fn a_sweep_survives_a_restart_of_the_database_half_way() {
    let toml = format!("{QUICK}[hubspot]\nin-flight = 2\n");
    let stage = Stage::with(
        "sweep_restart",
        Settings {
            requests_per_window: None,
            ..Settings::default()
        },
        &toml,
    )
    .await;
    let daemon = stage.start().await;
    known_contacts(&stage, 1_500).await;
    let held = stage.sandbox.hold(Endpoint::Update, When::After);
    let sweep = daemon.sweep();
    let meanwhile = async {
        assert!(held.reached(DEADLINE).await);
        // All sessions of the daemon end, and for a while it gets no new one.
        let name = &stage.database.name;
        stage
            .sql(&format!(
                "ALTER DATABASE \"{name}\" CONNECTION LIMIT 0;
                 SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}' AND usename = 'hubsyncd'"
            ))
            .await;
        held.release();
        wait_until("the daemon has lost the database", async || {
            daemon.status().await["listener"] == "down"
        })
        .await;
        stage
            .sql(&format!("ALTER DATABASE \"{name}\" CONNECTION LIMIT -1"))
            .await;
    };
    let (run, ()) = tokio::join!(sweep, meanwhile);
    assert_eq!(run["outcome"], "complete", "{run}");
    assert_eq!(counts(&run, "contacts"), (0, 1_500, 0), "{run}");
    stage
        .wait_value("SELECT outcome FROM hubsyncd.run", "complete")
        .await;
    stage
        .wait_value(
            "SELECT count(*) FROM hubspot_sync.hubspot_contact_credits WHERE hubspot_last_sync_at IS NULL",
            "0",
        )
        .await;
}

#[tokio::test]
async fn a_start_sweeps_unless_a_complete_sweep_is_young_and_a_run_cut_short_is_closed() {
    let toml = "[batch]\nmax-delay = \"30ms\"\n";
    let stage = Stage::with("sweep_start", Settings::default(), toml).await;
    known_contacts(&stage, 150).await;
    let held = stage.sandbox.hold_all(Endpoint::Update, When::Before);
    let daemon = stage.launch("first");
    assert!(held.reached(DEADLINE).await, "the start sweeps");
    stage
        .wait_value("SELECT count(*) FROM hubsyncd.run WHERE reason = 'start'", "1")
        .await;
    daemon.kill();
    held.release();
    let daemon = stage.start().await;
    let complete = "SELECT count(*) FROM hubsyncd.run WHERE reason = 'start' AND outcome = 'complete'";
    stage.wait_value(complete, "1").await;
    assert_eq!(
        stage
            .value("SELECT error FROM hubsyncd.run WHERE outcome = 'incomplete' AND finished_at IS NOT NULL")
            .await
            .as_deref(),
        Some("the daemon ended before this run did")
    );
    assert_eq!(daemon.stop().await, Some(0));
    let daemon = stage.start().await;
    // The next sweep in the table is the one that is asked for, well after the sweeper's first turn: the start made none.
    wait_until("the sweeper has had its first turns", async || {
        daemon.status().await["uptime_seconds"].as_u64().unwrap() >= 3
    })
    .await;
    daemon.sweep().await;
    assert_eq!(stage.value(complete).await.as_deref(), Some("1"));
    assert_eq!(
        stage
            .value("SELECT string_agg(reason, ' ' ORDER BY started_at) FROM hubsyncd.run")
            .await
            .as_deref(),
        Some("start start socket")
    );
}

#[tokio::test]
async fn truncating_a_table_makes_one_sweep_of_it_and_ends_the_failures_of_its_rows() {
    let stage = Stage::new("sweep_truncate").await;
    stage.sandbox.refuse_record(CONTACTS, "student_id", "bad", None);
    let daemon = stage.start().await;
    stage
        .app("INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email) VALUES ('bad', 'bad@example.com')")
        .await;
    stage
        .wait_value("SELECT count(*) FROM hubsyncd.failure", "1")
        .await;
    stage.sql("TRUNCATE hubspot_sync.hubspot_contact_credits").await;
    let runs = "SELECT count(*) FROM hubsyncd.run WHERE reason = 'trigger' AND outcome = 'complete'";
    stage.wait_value(runs, "1").await;
    stage.wait_drained().await;
    assert_eq!(
        stage
            .value("SELECT count(*) FROM hubsyncd.failure")
            .await
            .as_deref(),
        Some("0")
    );
    // A second one within five minutes waits, and health says so; a sweep that somebody asks for takes it along.
    stage.sql("TRUNCATE hubspot_sync.hubspot_contact_credits").await;
    wait_until("health warns of changes without a name", async || {
        daemon.get("/health").await.1.contains("unnamed-changes")
    })
    .await;
    assert!(
        daemon.status().await["last_sweep"].is_null(),
        "a sweep of one object is not the last sweep"
    );
    let run = daemon.sweep().await;
    assert_eq!(run["outcome"], "complete");
    stage.wait_drained().await;
    assert_eq!(stage.value(runs).await.as_deref(), Some("1"));
    wait_until("health is well again", async || {
        !daemon.get("/health").await.1.contains("unnamed-changes")
    })
    .await;
}

#[tokio::test]
async fn a_record_that_hubspot_never_mentions_does_not_keep_a_sweep_for_ever() {
    let stage = Stage::new("sweep_silent").await;
    let daemon = stage.start().await;
    unseen(
        &stage,
        "INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email) VALUES ('s1', 's1@example.com')",
    )
    .await;
    stage
        .sandbox
        .fault(Fault::named("partial").unwrap().on(Endpoint::Upsert).always());
    let run = daemon.sweep().await;
    assert_eq!(run["outcome"], "complete", "{run}");
    assert_eq!(counts(&run, "contacts"), (0, 0, 1), "{run}");
    assert_eq!(
        stage
            .value("SELECT category FROM hubsyncd.failure")
            .await
            .as_deref(),
        Some("unconfirmed")
    );
}

#[tokio::test]
async fn a_record_whose_link_comes_late_counts_once_as_created() {
    let stage = Stage::new("sweep_late_link").await;
    stage.known_contact("s1").await;
    let exam = stage.known_exam().await;
    let daemon = stage.start().await;
    unseen(
        &stage,
        &format!(
            "INSERT INTO hubspot_sync.hubspot_bookings (booking_id, mock_exam_id, student_id, student_email)
             VALUES ('b1', '{exam}', 's1', 's1@example.com')"
        ),
    )
    .await;
    stage
        .sandbox
        .fault(Fault::named("503").unwrap().on(Endpoint::Associate));
    let run = daemon.sweep().await;
    assert_eq!(run["outcome"], "complete", "{run}");
    assert_eq!(counts(&run, "bookings"), (1, 0, 0), "{run}");
    let world = stage.sandbox.world();
    let booking = world.find(BOOKINGS, "booking_id", "b1").unwrap().id();
    assert_eq!(world.associations(BOOKINGS, &booking, EXAMS).len(), 1);
}
