//! Objects that are paused: refusals that are no record's fault keep the changes, cost no storm, and end by themselves.

use crate::support::daemon::{CONTACTS, Daemon, EXAMS, Stage};
use crate::support::sweeping::{counts, known_contacts};
use crate::support::wait_until;
use hubsyncd::sandbox::{Endpoint, Property, World};

const CONTACTS_CHANGED: &str = "SELECT count(*) FROM hubsyncd.change WHERE object = 'contacts'";
const FAILURES: &str =
    "SELECT string_agg(object || ':' || key || ':' || category, ' ' ORDER BY key) FROM hubsyncd.failure";

async fn wait_paused(daemon: &Daemon, words: &str) {
    let mut last = serde_json::Value::Null;
    wait_until(&format!("contacts are paused because of {words}"), async || {
        last = daemon.status().await["objects"]["contacts"]["paused"].clone();
        last.as_str().is_some_and(|reason| reason.contains(words))
    })
    .await;
}

async fn wait_going(daemon: &Daemon) {
    wait_until("contacts go on", async || {
        daemon.status().await["objects"]["contacts"]["paused"].is_null()
    })
    .await;
}

/// The exam is written, and with it all that was asked before.
async fn exam_goes_on(stage: &Stage, exam: &str, bookings: u32) {
    stage
        .app(&format!(
            "UPDATE hubspot_sync.hubspot_mock_exams SET total_bookings = {bookings} WHERE hubspot_id = '{exam}'"
        ))
        .await;
    stage
        .wait_world("the exam is written", |world| {
            let exam = world.record(EXAMS, exam);
            exam.and_then(|exam| exam.get("total_bookings")) == Some(bookings.to_string().as_str())
        })
        .await;
}

fn written(world: &World, credits: &str) -> usize {
    let is = |record: &&hubsyncd::sandbox::Record| record.get("sj_credits") == Some(credits);
    world.records(CONTACTS).filter(is).count()
}

fn contact_updates(stage: &Stage) -> usize {
    let world = stage.sandbox.world();
    let requests = world.requests();
    requests
        .filter(|request| request.endpoint == Endpoint::Update && request.path.contains("/0-1/"))
        .count()
}

async fn retry(daemon: &Daemon) {
    let (status, body) = daemon.post("/failures/retry?object=contacts").await;
    assert_eq!(status, 202, "{body}");
}

#[tokio::test]
async fn pitfall_4_21_a_property_deleted_in_hubspot_pauses_its_object_alone_and_restored_lets_all_drain() {
    let stage = Stage::new("paused_live").await;
    let exam = stage.known_exam().await;
    known_contacts(&stage, 900).await;
    let daemon = stage.start().await;
    stage.sandbox.world().remove_property(CONTACTS, "sj_credits");
    stage
        .app("UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = 7")
        .await;
    wait_paused(&daemon, "no property sj_credits").await;
    stage.wait_value(FAILURES, "contacts::paused").await;
    exam_goes_on(&stage, &exam, 3).await;
    assert_eq!(
        stage.value(CONTACTS_CHANGED).await.as_deref(),
        Some("900"),
        "kept"
    );
    let asked = contact_updates(&stage);
    assert!(asked <= 9, "no storm: {asked} requests");
    let (status, health) = daemon.get("/health").await;
    assert_eq!(status, 503, "{health}");
    assert!(
        health.contains("contacts:paused") && health.contains("sj_credits"),
        "{health}"
    );
    let (_, metrics) = daemon.get("/metrics").await;
    assert!(
        metrics.contains("hubsyncd_paused{object=\"contacts\"} 1"),
        "{metrics}"
    );
    let (_, failures) = daemon.get("/failures").await;
    let failures: serde_json::Value = serde_json::from_str(&failures).unwrap();
    assert_eq!(failures["failures"].as_array().unwrap().len(), 1, "{failures}");
    assert!(failures["failures"][0]["key"].is_null(), "{failures}");

    retry(&daemon).await;
    wait_until("one more record was tried", async || {
        contact_updates(&stage) == asked + 1
    })
    .await;
    exam_goes_on(&stage, &exam, 4).await;
    assert_eq!(contact_updates(&stage), asked + 1, "and no other");

    let property = Property::number("sj_credits");
    stage.sandbox.world().add_property(CONTACTS, property);
    retry(&daemon).await;
    wait_going(&daemon).await;
    stage.wait_drained().await;
    assert_eq!(written(&stage.sandbox.world(), "7"), 900);
    stage
        .wait_value("SELECT count(*) FROM hubsyncd.failure", "0")
        .await;
    wait_until("the failures are counted", async || {
        daemon.status().await["failures"] == 0
    })
    .await;
    assert_eq!(daemon.stop().await, Some(0));
}

#[tokio::test]
async fn records_refused_one_by_one_before_the_cause_was_seen_are_retried_when_it_ends() {
    let stage = Stage::new("paused_single").await;
    known_contacts(&stage, 30).await;
    let daemon = stage.start().await;
    stage.sandbox.world().remove_property(CONTACTS, "sj_credits");
    for at in 0..19 {
        stage
            .app(&format!(
                "UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = 8 WHERE student_id = 'p{at}'"
            ))
            .await;
        let failed = format!("{}", at + 1);
        stage
            .wait_value("SELECT count(*) FROM hubsyncd.failure", &failed)
            .await;
        stage.wait_drained().await;
    }
    assert!(daemon.status().await["objects"]["contacts"]["paused"].is_null());
    stage
        .app("UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = 8 WHERE student_id = 'p19'")
        .await;
    wait_paused(&daemon, "sj_credits").await;
    stage
        .wait_value("SELECT count(*) FROM hubsyncd.failure", "20")
        .await;
    assert_eq!(stage.value(CONTACTS_CHANGED).await.as_deref(), Some("1"));
    stage
        .sandbox
        .world()
        .add_property(CONTACTS, Property::number("sj_credits"));
    retry(&daemon).await;
    stage
        .wait_value("SELECT count(*) FROM hubsyncd.failure", "0")
        .await;
    stage.wait_drained().await;
    assert_eq!(written(&stage.sandbox.world(), "8"), 20);
}

#[tokio::test]
async fn a_sweep_of_a_paused_object_tries_one_record_and_ends_incomplete_with_nothing_failed() {
    let stage = Stage::new("paused_sweep").await;
    let _exam = stage.known_exam().await;
    known_contacts(&stage, 450).await;
    let daemon = stage.start().await;
    stage.sandbox.world().remove_property(CONTACTS, "sj_credits");
    let run = daemon.sweep().await;
    assert_eq!(run["outcome"], "incomplete", "{run}");
    assert!(run["error"].as_str().unwrap().contains("sj_credits"), "{run}");
    assert_eq!(counts(&run, "contacts"), (0, 0, 0));
    assert_eq!(counts(&run, "mock_exams"), (0, 1, 0), "the next object");
    let asked = contact_updates(&stage);
    assert!(asked <= 9, "no storm: {asked} requests");
    let run = daemon.sweep().await;
    assert_eq!(run["outcome"], "incomplete", "{run}");
    assert_eq!(counts(&run, "contacts"), (0, 0, 0));
    assert_eq!(contact_updates(&stage), asked + 1, "one record was tried");
    let marked =
        "SELECT count(*) FROM hubspot_sync.hubspot_contact_credits WHERE hubspot_last_sync_at IS NOT NULL";
    assert_eq!(stage.value(marked).await.as_deref(), Some("0"));
    assert_eq!(stage.value(FAILURES).await.as_deref(), Some("contacts::paused"));
    stage
        .sandbox
        .world()
        .add_property(CONTACTS, Property::number("sj_credits"));
    let run = daemon.sweep().await;
    assert_eq!(run["outcome"], "complete", "{run}");
    assert_eq!(counts(&run, "contacts"), (0, 450, 0), "each once");
    wait_going(&daemon).await;
    stage
        .wait_value("SELECT count(*) FROM hubsyncd.failure", "0")
        .await;
}

#[tokio::test]
async fn a_pause_outlives_the_daemon_and_ends_by_itself_when_its_cause_has() {
    let stage = Stage::new("paused_restart").await;
    known_contacts(&stage, 300).await;
    let daemon = stage.start().await;
    stage.sandbox.world().revoke_scope("crm.objects.contacts.write");
    stage
        .app("UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = 9")
        .await;
    wait_paused(&daemon, "scope").await;
    stage.wait_value(FAILURES, "contacts::paused").await;
    daemon.kill();
    let asked = contact_updates(&stage);
    let daemon = stage.launch("again");
    wait_until("it knows of the pause", async || {
        let status = daemon.try_get("/status").await;
        status.is_some_and(|(_, body)| body.contains("scope"))
    })
    .await;
    wait_until("one record was tried", async || contact_updates(&stage) > asked).await;
    assert_eq!(contact_updates(&stage), asked + 1);
    daemon.kill();
    stage.sandbox.world().grant_scope("crm.objects.contacts.write");
    let daemon = stage.start().await;
    wait_going(&daemon).await;
    assert_eq!(written(&stage.sandbox.world(), "9"), 300);
    stage
        .wait_value("SELECT count(*) FROM hubsyncd.failure", "0")
        .await;
}

#[tokio::test]
async fn row_level_security_that_forbids_to_write_back_pauses_the_object() {
    let stage = Stage::new("paused_rows").await;
    known_contacts(&stage, 5).await;
    let daemon = stage.start().await;
    stage
        .sql("DROP POLICY hubsyncd_write ON hubspot_sync.hubspot_contact_credits")
        .await;
    stage
        .app("UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = 6")
        .await;
    wait_paused(&daemon, "row level security").await;
    stage.wait_value(FAILURES, "contacts::paused").await;
    assert_eq!(stage.value(CONTACTS_CHANGED).await.as_deref(), Some("5"), "kept");
    stage
        .sql("CREATE POLICY written ON hubspot_sync.hubspot_contact_credits FOR UPDATE TO hubsyncd USING (true)")
        .await;
    retry(&daemon).await;
    wait_going(&daemon).await;
    stage.wait_drained().await;
    stage
        .wait_value("SELECT count(*) FROM hubsyncd.failure", "0")
        .await;
}
