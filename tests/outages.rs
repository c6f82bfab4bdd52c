//! Tests: HubSpot or the database is away, for a while or from the start.

use super::support::daemon::{BOOKINGS, CONTACTS, Daemon, QUICK, Stage};
use super::support::instep::wait_contacts_in_step;
use super::support::postgres::Server;
use super::support::proxy::{Proxy, Silent};
use super::support::{DEADLINE, wait_until};
use hubsyncd::cli::cluster::{Mode, Options};
use hubsyncd::sandbox::{Endpoint, Fault, Settings, When};
use std::time::{Duration, Instant};

async fn insert(stage: &Stage, student: &str) {
    stage
        .app(&format!(
            "INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email) VALUES ('{student}', '{student}@example.com')"
        ))
        .await;
}

/// Waits until health fails, and for a reason with these words in it.
async fn wait_ill(daemon: &Daemon, words: &str) {
    let mut last = String::new();
    wait_until(&format!("health fails because of {words}"), async || {
        if let Some((status, body)) = daemon.try_get("/health").await {
            let ill = status == 503 && body.contains(words);
            last = body;
            return ill;
        }
        false
    })
    .await;
}

/// Waits until health is no failure any more; a warning that no sweep ran yet may stay.
async fn wait_well(daemon: &Daemon) {
    wait_until("health recovers", async || {
        matches!(daemon.try_get("/health").await, Some((200, _)))
    })
    .await;
}

#[tokio::test]
async fn pitfall_4_07_a_hubspot_that_is_away_at_start_is_waited_for_and_told_by_health() {
    let stage = Stage::new("away_start").await;
    stage.sandbox.fault(Fault::refuse_connection().always());
    insert(&stage, "early").await;
    let daemon = stage.launch("daemon");
    wait_ill(&daemon, "HubSpot").await;
    assert_eq!(daemon.get("/livez").await.0, 200);
    insert(&stage, "later").await;
    stage.sandbox.clear_faults();
    wait_contacts_in_step(&stage).await;
    wait_well(&daemon).await;
}

#[tokio::test]
async fn pitfall_4_08_a_hubspot_that_goes_away_is_told_by_health_and_loses_nothing() {
    let stage = Stage::new("away_later").await;
    let daemon = stage.start().await;
    insert(&stage, "before").await;
    wait_contacts_in_step(&stage).await;
    stage.sandbox.fault(Fault::refuse_connection().always());
    insert(&stage, "during").await;
    let since = Instant::now();
    let before = stage.sandbox.world().count(Endpoint::Any);
    wait_ill(&daemon, "hubspot").await;
    let requests = stage.sandbox.world().count(Endpoint::Any) - before;
    let bound = 10 + since.elapsed().as_secs() * 2;
    assert!(requests <= bound, "{requests} requests in {:?}", since.elapsed());
    stage.sandbox.clear_faults();
    wait_well(&daemon).await;
    wait_contacts_in_step(&stage).await;
}

#[tokio::test]
async fn pitfall_4_20_a_refused_token_stops_everything_is_told_by_health_and_probed_without_hammering() {
    let stage = Stage::new("token").await;
    let daemon = stage.start().await;
    stage.sandbox.fault(Fault::status(401).always());
    insert(&stage, "one").await;
    wait_ill(&daemon, "token").await;
    let (begin, probes) = (Instant::now(), stage.sandbox.world().count(Endpoint::Account));
    let other = stage.sandbox.world().count(Endpoint::Any) - probes;
    insert(&stage, "two").await;
    stage
        .wait_world("HubSpot was probed three times", |world| {
            world.count(Endpoint::Account) >= probes + 3
        })
        .await;
    assert!(
        begin.elapsed() >= Duration::from_secs(2),
        "no hammering: {:?}",
        begin.elapsed()
    );
    {
        let world = stage.sandbox.world();
        assert_eq!(
            world.count(Endpoint::Any) - world.count(Endpoint::Account),
            other,
            "nothing but probes is sent"
        );
    }
    stage.sandbox.clear_faults();
    wait_well(&daemon).await;
    wait_contacts_in_step(&stage).await;
}

#[tokio::test]
async fn a_token_refused_at_the_start_is_asked_for_again_also_after_the_database_was_lost_meanwhile() {
    let stage = Stage::new("token_start").await;
    stage.sandbox.fault(Fault::status(401).always());
    let daemon = stage.launch("daemon");
    insert(&stage, "one").await;
    for lost in 1..=3 {
        // Between two questions nothing may be sent; the session ends then.
        let asked = stage.sandbox.world().count(Endpoint::Account);
        stage
            .wait_world("HubSpot was asked a few times", |world| {
                world.count(Endpoint::Account) >= asked + 3
            })
            .await;
        let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND usename = 'hubsyncd'";
        stage.sql(cut).await;
        wait_until(&format!("the loss is noticed for the {lost}. time"), async || {
            daemon.log().matches("the database is not to be had").count() >= lost
        })
        .await;
    }
    stage.sandbox.clear_faults();
    wait_contacts_in_step(&stage).await;
    wait_well(&daemon).await;
}

#[tokio::test]
async fn a_daemon_whose_token_is_refused_stops_when_told() {
    let stage = Stage::new("token_stop").await;
    let daemon = stage.start().await;
    stage.sandbox.fault(Fault::status(401).always());
    insert(&stage, "one").await;
    daemon.post("/sweep").await;
    wait_ill(&daemon, "token").await;
    let begin = Instant::now();
    assert_eq!(daemon.stop().await, Some(0));
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_spent_quota_is_a_warning_asks_nothing_and_does_not_keep_the_daemon_from_stopping() {
    let stage = Stage::new("quota").await;
    let daemon = stage.start().await;
    stage.sandbox.fault(Fault::named("429-daily").unwrap().always());
    insert(&stage, "one").await;
    wait_until("health tells of the quota", async || {
        let (_, body) = daemon.get("/health").await;
        body.contains("quota")
    })
    .await;
    assert_eq!(daemon.get("/health").await.0, 200, "a warning, no failure");
    let asked = stage.sandbox.world().count(Endpoint::Any);
    insert(&stage, "two").await;
    wait_until("the second change is seen", async || {
        daemon.status().await["pending"] == 2
    })
    .await;
    assert_eq!(stage.sandbox.world().count(Endpoint::Any), asked);
    assert_eq!(daemon.stop().await, Some(0));
    stage.sandbox.clear_faults();
    let _daemon = stage.start().await;
    wait_contacts_in_step(&stage).await;
}

#[tokio::test]
async fn a_scope_that_the_token_lacks_stops_its_object_and_no_other() {
    let stage = Stage::new("scope").await;
    let exam = stage.known_exam().await;
    let contact = stage.known_contact("known").await;
    let daemon = stage.start().await;
    stage.sandbox.world().revoke_scope("crm.objects.contacts.write");
    insert(&stage, "one").await;
    stage
        .app(&format!(
            "INSERT INTO hubspot_sync.hubspot_bookings (booking_id, mock_exam_id, contact_id, student_id, student_email)
             VALUES ('b1', '{exam}', '{contact}', 's1', 's1@example.com')"
        ))
        .await;
    stage
        .wait_world("the booking is there", |world| {
            world.records(BOOKINGS).count() == 1
        })
        .await;
    // A row that a live change still holds is not the sweep's to count.
    wait_until("the booking is done with", async || {
        daemon.status().await["objects"]["bookings"]["pending"] == 0
    })
    .await;
    wait_ill(&daemon, "contacts:paused").await;
    assert_eq!(
        stage
            .value("SELECT count(*) FROM hubsyncd.change WHERE object = 'contacts'")
            .await
            .as_deref(),
        Some("1"),
        "the change is kept"
    );
    let run = daemon.sweep().await;
    assert_eq!(run["outcome"], "incomplete", "{run}");
    assert!(run["error"].as_str().unwrap().contains("contacts"), "{run}");
    assert_eq!(run["summary"]["bookings"]["updated"], 1, "{run}");
}

#[tokio::test]
async fn a_sweep_gives_up_when_nothing_can_be_sent_and_says_so() {
    let toml = format!("{QUICK}give-up = \"2s\"\n");
    let stage = Stage::with("gives_up", Settings::default(), &toml).await;
    stage.known_contact("known").await;
    let daemon = stage.start().await;
    for fault in ["empty-results", "500", "429-daily", "empty-2xx"] {
        stage.sandbox.fault(Fault::named(fault).unwrap().always());
        let run = daemon.sweep().await;
        assert_eq!(run["outcome"], "incomplete", "{fault}: {run}");
        assert_eq!(run["summary"]["contacts"]["updated"], 0, "{fault}: {run}");
        assert!(
            run["error"].as_str().unwrap().contains("nothing could be sent"),
            "{fault}: {run}"
        );
        stage.sandbox.clear_faults();
        if fault == "429-daily" {
            return;
        }
    }
}

#[tokio::test]
async fn a_database_that_is_down_at_start_is_waited_for() {
    let mut server = Server::start(Options::default()).await;
    let stage = Stage::on(&server, "late", Settings::default(), QUICK).await;
    insert(&stage, "early").await;
    server.cluster.stop(Mode::Fast).unwrap();
    let daemon = stage.launch("daemon");
    wait_ill(&daemon, "database").await;
    assert_eq!(daemon.get("/livez").await.0, 200);
    server.cluster.restart(Mode::Fast).unwrap();
    daemon.settled().await;
    wait_contacts_in_step(&stage).await;
    wait_well(&daemon).await;
}

#[tokio::test]
async fn pitfall_3_06_a_database_that_restarts_or_cuts_every_connection_while_changes_flow_loses_nothing() {
    // Else Postgres itself loses what was committed shortly before it is killed.
    let durable = Options {
        fsync: true,
        ..Options::default()
    };
    let mut server = Server::start(durable).await;
    let stage = Stage::on(&server, "restarts", Settings::default(), QUICK).await;
    let mut daemon = stage.start().await;
    stage.sandbox.set_latency(Duration::from_millis(20));
    for round in 0..6 {
        let session = stage.database.session_as("app").await;
        for row in 0..40 {
            let sql = format!(
                "INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email, sj_credits)
                 VALUES ('r{round}-{row}', 'r{round}-{row}@example.com', {row});
                 UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = sj_credits + 1 WHERE student_id LIKE 'r%-{row}'"
            );
            session.batch_execute(&sql).await.unwrap();
        }
        drop(session);
        match round % 3 {
            0 => server.cluster.restart(Mode::Immediate).unwrap(),
            1 => server.cluster.restart(Mode::Fast).unwrap(),
            _ => {
                let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'hubsyncd'";
                stage.database.session().await.batch_execute(cut).await.unwrap();
            }
        }
    }
    wait_contacts_in_step(&stage).await;
    assert_eq!(stage.sandbox.world().records(CONTACTS).count(), 240);
    daemon.settled().await;
    wait_well(&daemon).await;
    assert_eq!(daemon.status().await["failures"], 0);
    daemon.signal("TERM");
    assert_eq!(daemon.ended().await, Some(0));
}

#[tokio::test]
async fn pitfall_3_07_connections_that_go_silent_for_a_while_or_for_ever_lose_nothing() {
    let mut stage = Stage::with(
        "silent",
        Settings::default(),
        &format!("{QUICK}[hubspot]\ntimeout = \"2s\"\n"),
    )
    .await;
    stage.through.database = Some(Proxy::to_database(&stage.database));
    stage.through.hubspot = Some(Proxy::to_http(&stage.sandbox.base_url()));
    let daemon = stage.start().await;
    let (database, hubspot) = (&stage.through.database, &stage.through.hubspot);
    let proxies = [database.as_ref().unwrap(), hubspot.as_ref().unwrap()];
    for (round, proxy) in proxies.into_iter().enumerate() {
        assert!(proxy.connections() > 0, "the daemon goes through it");
        proxy.silence(Silent::Both);
        insert(&stage, &format!("held{round}")).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        proxy.silence(Silent::Not);
        wait_contacts_in_step(&stage).await;
        proxy.silence(Silent::Down);
        insert(&stage, &format!("lost{round}")).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        proxy.cut();
        proxy.silence(Silent::Not);
        wait_contacts_in_step(&stage).await;
    }
    daemon.settled().await;
    assert_eq!(stage.sandbox.world().records(CONTACTS).count(), 4);
}

#[tokio::test]
async fn a_daemon_that_cannot_write_a_receipt_stops_at_the_second_signal_and_finds_the_record_again() {
    let mut server = Server::start(Options::default()).await;
    let stage = Stage::on(&server, "no_receipt", Settings::default(), QUICK).await;
    let mut daemon = stage.start().await;
    let hold = stage.sandbox.hold(Endpoint::Upsert, When::After);
    insert(&stage, "one").await;
    assert!(hold.reached(DEADLINE).await);
    server.cluster.stop(Mode::Fast).unwrap();
    hold.release();
    wait_ill(&daemon, "database").await;
    daemon.signal("TERM");
    wait_until("the first signal is heard", async || {
        daemon.log().contains("hubsyncd stops")
    })
    .await;
    daemon.signal("TERM");
    assert_eq!(daemon.ended().await, Some(0));
    server.cluster.restart(Mode::Fast).unwrap();
    let _daemon = stage.start().await;
    wait_contacts_in_step(&stage).await;
    assert_eq!(stage.sandbox.world().records(CONTACTS).count(), 1);
}
