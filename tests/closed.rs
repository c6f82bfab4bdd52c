//! Objects of which the token may know nothing: they wait alone, and go on without a restart when the right is back.

use crate::support::daemon::{BOOKINGS, CONTACTS, Daemon, EXAMS, QUICK, Stage};
use crate::support::sweeping::{counts, logged};
use crate::support::wait_until;
use hubsyncd::sandbox::{Endpoint, Settings};

const FAILURES: &str = "SELECT string_agg(object || ':' || key || ':' || category, ' ' ORDER BY object, key) FROM hubsyncd.failure";
const CHANGES: &str = "SELECT count(*) FROM hubsyncd.change WHERE object = ";

async fn paused(daemon: &Daemon, object: &str) -> Option<String> {
    let (_, status) = daemon.try_get("/status").await?;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    status["objects"][object]["paused"].as_str().map(str::to_owned)
}

async fn wait_closed(daemon: &Daemon, object: &str) {
    wait_until(&format!("{object} are paused for want of a scope"), async || {
        let words = paused(daemon, object).await;
        words.is_some_and(|words| words.contains("MISSING_SCOPES"))
    })
    .await;
}

/// How often HubSpot was asked for the definitions of a type.
fn asked(stage: &Stage, endpoint: Endpoint, object: &str) -> usize {
    let world = stage.sandbox.world();
    let of_object = |path: &str| path.split('/').any(|part| part == object);
    world
        .requests()
        .filter(|request| request.endpoint == endpoint && of_object(&request.path))
        .count()
}

#[tokio::test]
async fn a_right_that_is_missing_at_the_start_pauses_its_object_alone_until_it_is_given() {
    let stage = Stage::new("closed").await;
    let exam = stage.known_exam().await;
    let known = stage.known_contact("s1").await;
    let scopes = ["crm.objects.custom.read", "crm.schemas.custom.read"];
    for scope in scopes {
        stage.sandbox.world().revoke_scope(scope);
    }
    stage
        .app(&format!(
            "UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = 4;
             UPDATE hubspot_sync.hubspot_mock_exams SET total_bookings = 8;
             INSERT INTO hubspot_sync.hubspot_bookings (booking_id, mock_exam_id, contact_id, student_id, student_email, \
             exam_date) VALUES ('b1', '{exam}', '{known}', 's1', 's1@example.com', '2026-03-08 23:30:00')"
        ))
        .await;
    let daemon = stage.launch("daemon");
    wait_closed(&daemon, "bookings").await;
    wait_closed(&daemon, "mock_exams").await;
    stage
        .wait_world("the contact goes on", |world| {
            world.record(CONTACTS, &known).unwrap().get("sj_credits") == Some("4")
        })
        .await;
    stage.wait_value(&format!("{CHANGES}'contacts'"), "0").await;
    stage
        .wait_value(FAILURES, "bookings::paused mock_exams::paused")
        .await;
    let (status, health) = daemon.get("/health").await;
    assert_eq!(status, 503, "{health}");
    assert!(
        health.contains("bookings:paused") && !health.contains("contacts:paused"),
        "{health}"
    );
    let run = daemon.sweep().await;
    assert_eq!(
        (run["outcome"].as_str(), counts(&run, "contacts")),
        (Some("incomplete"), (0, 1, 0)),
        "{run}"
    );
    assert!(run["error"].as_str().unwrap().contains("bookings: "), "{run}");

    let before = asked(&stage, Endpoint::Properties, BOOKINGS);
    let (status, body) = daemon.post("/failures/retry?object=bookings").await;
    assert_eq!(status, 202, "{body}");
    wait_until("HubSpot is asked again", async || {
        asked(&stage, Endpoint::Properties, BOOKINGS) > before
    })
    .await;
    assert_eq!(
        stage.value(&format!("{CHANGES}'bookings'")).await.as_deref(),
        Some("1"),
        "kept"
    );
    for kind in [BOOKINGS, EXAMS] {
        let written = asked(&stage, Endpoint::Upsert, kind) + asked(&stage, Endpoint::Update, kind);
        assert_eq!(written, 0, "not one record is tried");
    }

    for scope in scopes {
        stage.sandbox.world().grant_scope(scope);
    }
    let (status, body) = daemon.post("/failures/retry?object=bookings").await;
    assert_eq!(status, 202, "{body}");
    stage
        .wait_world("booking and exam are there", |world| {
            let booking = world.find(BOOKINGS, "booking_id", "b1");
            let exam = world.record(EXAMS, &exam).unwrap().get("total_bookings");
            // As a date, which only HubSpot's type of the property says.
            booking.is_some_and(|booking| booking.get("exam_date") == Some("2026-03-08")) && exam == Some("8")
        })
        .await;
    stage.wait_drained().await;
    stage
        .wait_value("SELECT count(*) FROM hubsyncd.failure", "0")
        .await;
    for object in ["bookings", "mock_exams"] {
        wait_until("it is paused no more", async || {
            paused(&daemon, object).await.is_none()
        })
        .await;
    }
    let reloaded = "SELECT count(*) FROM hubsyncd.run WHERE reason = 'reload' AND outcome = 'complete'";
    stage.wait_value(reloaded, "1").await;
    daemon.settled().await;
    assert_eq!(daemon.stop().await, Some(0), "all of it was one process");
}

#[tokio::test]
async fn a_reload_asks_again_too_and_a_daemon_that_waits_stops_at_once() {
    let stage = Stage::new("closed_reload").await;
    let known = stage.known_contact("s1").await;
    let scopes = ["crm.objects.contacts.read", "crm.schemas.contacts.read"];
    for scope in scopes {
        stage.sandbox.world().revoke_scope(scope);
    }
    let daemon = stage.launch("daemon");
    wait_closed(&daemon, "contacts").await;
    assert_eq!(daemon.stop().await, Some(0));
    let daemon = stage.launch("again");
    wait_closed(&daemon, "contacts").await;
    logged(&daemon, "HubSpot is asked again every minute").await;
    wait_until("it listens", async || {
        daemon.status().await["listener"] == "armed"
    })
    .await;
    stage
        .app("UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = 5")
        .await;
    for scope in scopes {
        stage.sandbox.world().grant_scope(scope);
    }
    let (status, body) = daemon.post("/reload").await;
    assert_eq!((status, body.as_str()), (200, r#"{"changed":[],"restart":[]}"#));
    stage
        .wait_world("the contact is written", |world| {
            world.record(CONTACTS, &known).unwrap().get("sj_credits") == Some("5")
        })
        .await;
    stage.wait_drained().await;
    wait_until("it is paused no more", async || {
        paused(&daemon, "contacts").await.is_none()
    })
    .await;
    stage
        .wait_value("SELECT count(*) FROM hubsyncd.failure", "0")
        .await;
}

const LABELLED: &str = r#"
[[object]]
name = "contacts"
table = "hubspot_sync.hubspot_contact_credits"
type = "0-1"
key = "id"
hubspot-id = "hubspot_id"
synced-at = "hubspot_last_sync_at"
match-on = "email"
[object.properties]
email = { column = "email", on = "create" }
sj_credits = { column = "sj_credits", null = "0" }

[[object]]
name = "bookings"
table = "hubspot_sync.hubspot_bookings"
type = "2-50158943"
key = "id"
hubspot-id = "hubspot_id"
synced-at = "hubspot_last_sync_at"
match-on = "booking_id"
[object.properties]
booking_id = { column = "booking_id", on = "create" }
attendance = { column = "attendance", on = "update" }
[[object.link]]
to = "contacts"
column = "contact_id"
label = "Student"
"#;

#[tokio::test]
async fn labels_that_may_not_be_asked_for_pause_the_object_that_has_them() {
    let stage =
        Stage::without_setup("closed_label", Settings::default(), &format!("{QUICK}{LABELLED}")).await;
    stage.sandbox.world().label(BOOKINGS, CONTACTS, "Student");
    stage.setup().await;
    let known = stage.known_contact("s1").await;
    // The definitions of properties may be asked for with either scope.
    stage.sandbox.world().revoke_scope("crm.objects.custom.read");
    let daemon = stage.launch("daemon");
    wait_closed(&daemon, "bookings").await;
    let (properties, labels) = (
        asked(&stage, Endpoint::Properties, BOOKINGS),
        asked(&stage, Endpoint::Labels, BOOKINGS),
    );
    assert_eq!((properties, labels), (1, 1), "it is the labels that are refused");
    stage
        .app(&format!(
            "UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = 6;
             INSERT INTO hubspot_sync.hubspot_bookings (booking_id, mock_exam_id, contact_id, student_id, student_email)
             VALUES ('b1', 'none', '{known}', 's1', 's1@example.com')"
        ))
        .await;
    stage
        .wait_world("the contact goes on", |world| {
            world.record(CONTACTS, &known).unwrap().get("sj_credits") == Some("6")
        })
        .await;
    assert!(stage.sandbox.world().find(BOOKINGS, "booking_id", "b1").is_none());
    stage.sandbox.world().grant_scope("crm.objects.custom.read");
    let (status, body) = daemon.post("/failures/retry").await;
    assert_eq!(status, 202, "{body}");
    stage
        .wait_world("the booking is linked by its label", |world| {
            let booking = world
                .find(BOOKINGS, "booking_id", "b1")
                .map(|booking| booking.id());
            booking.is_some_and(|booking| {
                let links = world.associations(BOOKINGS, &booking, CONTACTS);
                links
                    .first()
                    .is_some_and(|link| link.to == known && link.labels == ["Student"])
            })
        })
        .await;
    stage.wait_drained().await;
    daemon.settled().await;
}
