//! The sweep: every row of every object goes through the door, whatever the changes said.

use crate::support::DEADLINE;
use crate::support::daemon::{BOOKINGS, CONTACTS, EXAMS, QUICK, Stage};
use crate::support::sweeping::{counts, known_contacts, logged, unseen, written};
use hubsyncd::sandbox::{Endpoint, Settings, When, Write};

#[tokio::test]
async fn a_sweep_pushes_every_row_in_the_order_of_the_mapping_also_those_in_step() {
    let stage = Stage::new("sweep_all").await;
    let contact = stage.known_contact("s1").await;
    let exam = stage.known_exam().await;
    let daemon = stage.start().await;
    unseen(
        &stage,
        &format!(
            "INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email) VALUES ('s2', 's2@example.com');
             INSERT INTO hubspot_sync.hubspot_bookings (booking_id, mock_exam_id, student_id, student_email, is_active)
             VALUES ('b1', '{exam}', 's1', 's1@example.com', 'Active');
             UPDATE hubspot_sync.hubspot_mock_exams SET total_bookings = 4"
        ),
    )
    .await;
    let asked = stage.sandbox.world().count(Endpoint::Any);
    let run = daemon.sweep().await;
    assert_eq!(run["outcome"], "complete", "{run}");
    assert_eq!(counts(&run, "contacts"), (1, 1, 0), "{run}");
    assert_eq!(counts(&run, "bookings"), (1, 0, 0), "{run}");
    assert_eq!(counts(&run, "mock_exams"), (0, 1, 0), "{run}");
    let order: Vec<String> = {
        let world = stage.sandbox.world();
        let mut order: Vec<String> = world
            .requests()
            .filter(|request| request.number >= asked)
            .flat_map(|request| &request.writes)
            .filter_map(|write| match write {
                Write::Record { object, .. } => Some(object.clone()),
                _ => None,
            })
            .collect();
        order.dedup();
        assert_eq!(
            world.record(EXAMS, &exam).unwrap().get("total_bookings"),
            Some("4")
        );
        let booking = world.find(BOOKINGS, "booking_id", "b1").unwrap().id();
        let held = world.associations(BOOKINGS, &booking, CONTACTS);
        assert_eq!(
            held.len(),
            1,
            "the booking is linked to its contact, found by student and e-mail"
        );
        order
    };
    assert_eq!(order, [CONTACTS, BOOKINGS, EXAMS]);
    // All is in step now, and the next sweep pushes it all the same.
    let before = written(&stage.sandbox.world(), CONTACTS, &contact, "sj_credits").len();
    let run = daemon.sweep().await;
    assert_eq!(counts(&run, "contacts"), (0, 2, 0), "{run}");
    assert_eq!(counts(&run, "bookings"), (0, 1, 0), "{run}");
    assert_eq!(counts(&run, "mock_exams"), (0, 1, 0), "{run}");
    let after = written(&stage.sandbox.world(), CONTACTS, &contact, "sj_credits").len();
    assert_eq!(after, before + 1);
}

#[tokio::test]
async fn a_value_typed_over_and_a_link_removed_in_hubspot_are_put_right_and_other_peoples_links_stay() {
    let stage = Stage::new("sweep_drift").await;
    let contact = stage.known_contact("s1").await;
    let exam = stage.known_exam().await;
    let other = stage.sandbox.world().create(EXAMS, [("total_bookings", "0")]);
    let daemon = stage.start().await;
    stage
        .app(&format!(
            "INSERT INTO hubspot_sync.hubspot_bookings (booking_id, mock_exam_id, contact_id, student_id, student_email, \
             is_active) VALUES ('b1', '{exam}', '{contact}', 's1', 's1@example.com', 'Active')"
        ))
        .await;
    stage
        .wait_value(
            "SELECT count(*) FROM hubspot_sync.hubspot_bookings WHERE hubspot_last_sync_at IS NOT NULL",
            "1",
        )
        .await;
    daemon.settled().await;
    let token = stage.sandbox.token().to_owned();
    let booking = stage
        .value("SELECT hubspot_id FROM hubspot_sync.hubspot_bookings")
        .await
        .unwrap();
    {
        let mut world = stage.sandbox.world();
        world.set(BOOKINGS, &booking, "is_active", "typed over");
        world.associate((BOOKINGS, &booking), (EXAMS, &other));
        assert_eq!(world.associations(BOOKINGS, &booking, CONTACTS).len(), 1);
    }
    // Somebody removes the link to the contact in HubSpot.
    let url = format!(
        "{}/crm/v4/associations/{BOOKINGS}/{CONTACTS}/batch/archive",
        stage.sandbox.base_url()
    );
    let body = serde_json::json!({"inputs": [{"from": {"id": booking}, "to": [{"id": contact}]}]});
    let client = crate::support::http();
    let answer = client
        .post(&url)
        .bearer_auth(&token)
        .header("content-type", "application/json")
        .body(body.to_string())
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status().as_u16(), 204);
    assert!(
        stage
            .sandbox
            .world()
            .associations(BOOKINGS, &booking, CONTACTS)
            .is_empty()
    );
    let run = daemon.sweep().await;
    assert_eq!(run["outcome"], "complete");
    let world = stage.sandbox.world();
    assert_eq!(
        world.record(BOOKINGS, &booking).unwrap().get("is_active"),
        Some("Active")
    );
    assert_eq!(
        world.associations(BOOKINGS, &booking, CONTACTS).len(),
        1,
        "the link is made again"
    );
    assert_eq!(
        world.associations(BOOKINGS, &booking, EXAMS).len(),
        2,
        "the link that people made stays"
    );
}

#[tokio::test]
async fn pitfall_1d_a_sweep_of_more_rows_than_a_page_counts_each_once_and_tells_the_same_everywhere() {
    let stage = Stage::with(
        "sweep_pages",
        Settings {
            requests_per_window: None,
            ..Settings::default()
        },
        QUICK,
    )
    .await;
    let daemon = stage.start().await;
    known_contacts(&stage, 1_200).await;
    unseen(
        &stage,
        "INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email)
         SELECT 'n' || at, 'n' || at || '@example.com' FROM generate_series(1, 1300) AS at",
    )
    .await;
    let exam = stage.known_exam().await;
    stage.sandbox.refuse_record(CONTACTS, "student_id", "n7", None);
    let run = daemon.sweep().await;
    assert_eq!(run["outcome"], "complete", "{run}");
    assert_eq!(counts(&run, "contacts"), (1_299, 1_200, 1), "{run}");
    assert_eq!(counts(&run, "mock_exams"), (0, 1, 0));
    {
        let world = stage.sandbox.world();
        assert_eq!(world.records(CONTACTS).count(), 2_499);
        assert_eq!(
            world.records(EXAMS).count(),
            1,
            "no exam was created beside {exam}"
        );
    }
    let status = daemon.status().await;
    assert_eq!(status["last_sweep"]["summary"], run["summary"]);
    assert_eq!(status["objects"]["contacts"]["rows"], 2_500);
    assert_eq!(status["failures"], 1);
    let (_, runs) = daemon.get("/runs").await;
    let runs: serde_json::Value = serde_json::from_str(&runs).unwrap();
    assert_eq!(runs["runs"][0], run);
    let kept = stage.value("SELECT summary FROM hubsyncd.run").await.unwrap();
    let kept: serde_json::Value = serde_json::from_str(&kept).unwrap();
    assert_eq!(kept, run["summary"]);
    logged(&daemon, "sweep complete: contacts: 1299 created, 1200 updated, 1 failed; bookings: 0 created, 0 updated, 0 failed").await;
    // The refused one is tried again by the next sweep, and counted once more.
    stage.sandbox.clear_faults();
    let run = daemon.sweep().await;
    assert_eq!(counts(&run, "contacts"), (1, 2_499, 0), "{run}");
    assert_eq!(daemon.status().await["failures"], 0);
}

#[tokio::test]
async fn a_page_read_ahead_never_goes_out_over_a_newer_push() {
    let toml = format!("{QUICK}[hubspot]\nin-flight = 2\n");
    let stage = Stage::with(
        "sweep_ahead",
        Settings {
            requests_per_window: None,
            ..Settings::default()
        },
        &toml,
    )
    .await;
    let daemon = stage.start().await;
    known_contacts(&stage, 400).await;
    // The sweep's first batch is held, and with it the one request that changes leave to a sweep; the page with all
    // rows is read.
    let first = stage.sandbox.hold(Endpoint::Update, When::Before);
    let sweep = daemon.sweep();
    let meanwhile = async {
        assert!(first.reached(DEADLINE).await);
        let last = "(SELECT id FROM hubspot_sync.hubspot_contact_credits ORDER BY id DESC LIMIT 1)";
        let id = stage
            .value(&format!(
                "SELECT hubspot_id FROM hubspot_sync.hubspot_contact_credits WHERE id = {last}"
            ))
            .await
            .unwrap();
        stage
            .app(&format!(
                "UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = 99 WHERE id = {last}"
            ))
            .await;
        stage
            .wait_world("the newer value is in HubSpot while the sweep waits", |world| {
                world.record(CONTACTS, &id).unwrap().get("sj_credits") == Some("99")
            })
            .await;
        stage.wait_drained().await;
        first.release();
        id
    };
    let (run, id) = tokio::join!(sweep, meanwhile);
    assert_eq!(run["outcome"], "complete");
    assert_eq!(
        counts(&run, "contacts"),
        (0, 399, 0),
        "the live change's row is not the sweep's"
    );
    let written = written(&stage.sandbox.world(), CONTACTS, &id, "sj_credits");
    assert_eq!(written, ["99"], "nothing old went out, before or after");
}

#[tokio::test]
async fn with_touch_changed_a_sweep_leaves_the_sync_time_of_rows_that_were_in_step() {
    let toml = "[batch]\nmax-delay = \"30ms\"\n[sweep]\non-start = false\ntouch = \"changed\"\n";
    let stage = Stage::with("sweep_touch", Settings::default(), toml).await;
    let contact = stage.known_contact("s1").await;
    let daemon = stage.start().await;
    let time =
        "SELECT hubspot_last_sync_at FROM hubspot_sync.hubspot_contact_credits WHERE student_id = 's1'";
    stage
        .wait_value(
            &format!("SELECT hubspot_last_sync_at IS NOT NULL FROM ({time}) AS time"),
            "t",
        )
        .await;
    let before = stage.value(time).await;
    unseen(
        &stage,
        "INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email) VALUES ('s2', 's2@example.com')",
    )
    .await;
    stage.sandbox.world().set(CONTACTS, &contact, "sj_credits", "55");
    let run = daemon.sweep().await;
    assert_eq!(counts(&run, "contacts"), (1, 1, 0));
    assert_eq!(stage.value(time).await, before, "it was pushed and not touched");
    assert_eq!(
        stage
            .sandbox
            .world()
            .record(CONTACTS, &contact)
            .unwrap()
            .get("sj_credits"),
        Some("0"),
        "drift is put right all the same"
    );
    let new = "SELECT count(*) FROM hubspot_sync.hubspot_contact_credits WHERE student_id = 's2' AND hubspot_last_sync_at IS NOT NULL";
    assert_eq!(stage.value(new).await.as_deref(), Some("1"));
    stage
        .sql("INSERT INTO hubspot_sync.supabase_audit_log (table_name, record_id, operation)
             SELECT 'hubspot_contact_credits', id, 'UPDATE' FROM hubspot_sync.hubspot_contact_credits WHERE student_id = 's1'")
        .await;
    stage
        .wait_value(
            "SELECT count(*) FROM hubspot_sync.supabase_audit_log WHERE synced_to_hubspot_at IS NULL",
            "0",
        )
        .await;
    assert_ne!(stage.value(time).await, before, "a change is written always");
}

#[tokio::test]
async fn the_documents_two_queries_are_answered_by_the_views() {
    let stage = Stage::new("sweep_views").await;
    let daemon = stage.start().await;
    unseen(
        &stage,
        "INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email, created_at) VALUES
         ('s1', 's1@example.com', '2026-01-02'), ('s2', 's2@example.com', '2026-01-01')",
    )
    .await;
    let awaiting =
        "SELECT concat_ws(' ', total_records, awaiting_hubspot_id, oldest_pending AT TIME ZONE 'UTC')
                    FROM hubsyncd.awaiting_id WHERE table_name = 'contact_credits'";
    assert_eq!(
        stage.value(awaiting).await.as_deref(),
        Some("2 2 2026-01-01 00:00:00")
    );
    daemon.sweep().await;
    assert_eq!(stage.value(awaiting).await.as_deref(), Some("2 0"));
    let last = "SELECT concat_ws(' ', last_sync > now() - interval '1 minute', synced_recently)
                FROM hubsyncd.last_sync WHERE table_name = 'contact_credits'";
    assert_eq!(stage.value(last).await.as_deref(), Some("t 2"));
}
