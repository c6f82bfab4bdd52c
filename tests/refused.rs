//! Tests: a record that HubSpot or Postgres refuses stands alone, is told, and is tried again.

use super::support::daemon::{CONTACTS, Daemon, Stage};
use super::support::wait_until;
use hubsyncd::sandbox::{Endpoint, Fault};
use serde_json::Value;

/// A hundred new contacts in one statement; the 42nd has a name that the portal's rule refuses.
const HUNDRED: &str = "INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email, firstname)
    SELECT 's' || i, 's' || i || '@example.com', CASE WHEN i = 42 THEN 'Quixotica' ELSE 'Ana' END
    FROM generate_series(1, 100) i";
const WITHOUT_ID: &str = "SELECT coalesce(string_agg(student_id, ' '), '') FROM hubspot_sync.hubspot_contact_credits WHERE hubspot_id IS NULL";
const FAILURES: &str = "SELECT coalesce(string_agg(category, ' '), '') FROM hubsyncd.failure";

async fn failures(daemon: &Daemon) -> Vec<Value> {
    let (status, body) = daemon.get("/failures").await;
    assert_eq!(status, 200, "{body}");
    let body: Value = serde_json::from_str(&body).unwrap();
    body["failures"].as_array().unwrap().clone()
}

/// A hundred rows of which HubSpot refuses one, whatever it does about the others.
async fn one_bad_among_a_hundred(hint: &str, fault: Option<&str>) {
    let stage = Stage::new(hint).await;
    let mut daemon = stage.start().await;
    stage
        .sandbox
        .refuse_record(CONTACTS, "firstname", "Quixotica", None);
    if let Some(name) = fault {
        stage
            .sandbox
            .fault(Fault::named(name).unwrap().on(Endpoint::Upsert).always());
    }
    stage.app(HUNDRED).await;
    stage.wait_drained().await;
    stage.wait_value(WITHOUT_ID, "s42").await;
    assert_eq!(stage.sandbox.world().records(CONTACTS).count(), 99);
    let requests = stage.sandbox.world().count(Endpoint::Upsert);
    assert!(requests <= 2 * 8 + 2, "{requests} requests for one bad record");
    let listed = failures(&daemon).await;
    assert_eq!(listed.len(), 1, "{listed:?}");
    let key = stage
        .value("SELECT id FROM hubspot_sync.hubspot_contact_credits WHERE student_id = 's42'")
        .await;
    assert_eq!(listed[0]["object"], "contacts");
    assert_eq!(listed[0]["key"].as_str(), key.as_deref());
    assert_eq!(listed[0]["category"], "validation_error");
    assert_eq!(listed[0]["attempts"], 1);
    assert!(listed[0]["correlation_id"].is_string(), "{listed:?}");
    assert!(
        listed[0]["message"].as_str().unwrap().contains("firstname"),
        "{listed:?}"
    );
    let told = stage.command("daemon").arg("failures").output().unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(
        told.contains("contacts") && told.contains(&key.unwrap()),
        "{told}"
    );

    daemon.sweep().await;
    assert_eq!(
        failures(&daemon).await[0]["attempts"],
        2,
        "a sweep tries it again"
    );
    let table = stage
        .value("SELECT string_agg(failure::text, '') FROM hubsyncd.failure failure")
        .await;
    for place in [&told, &daemon.log(), &table.unwrap(), &format!("{listed:?}")] {
        for value in ["Quixotica", "s42@", "example.com"] {
            assert!(!place.contains(value), "{value} stands in {place}");
        }
    }

    stage.sandbox.clear_faults();
    let run = daemon.sweep().await;
    assert_eq!(run["summary"]["contacts"]["created"], 1, "{run}");
    assert_eq!(stage.value(WITHOUT_ID).await.as_deref(), Some(""));
    assert!(failures(&daemon).await.is_empty());
    assert_eq!(stage.sandbox.world().records(CONTACTS).count(), 100);
    daemon.signal("TERM");
    assert_eq!(daemon.ended().await, Some(0));
}

#[tokio::test]
async fn pitfall_1e_one_bad_record_among_a_hundred_fails_alone() {
    one_bad_among_a_hundred("bad_traced", None).await;
}

#[tokio::test]
async fn pitfall_4_02_one_bad_record_fails_alone_where_hubspot_refuses_the_whole_batch_for_it() {
    one_bad_among_a_hundred("bad_whole", Some("ignore-traces")).await;
}

#[tokio::test]
async fn one_bad_record_fails_alone_where_the_error_does_not_say_whose_it_is() {
    one_bad_among_a_hundred("bad_untraced", Some("error-without-trace")).await;
}

/// Two rows, Ana's and Bo's, with one e-mail: one owns the record, and nothing of the other ever stands in it.
async fn two_rows_with_one_email(hint: &str, inserts: &[&str]) {
    let stage = Stage::new(hint).await;
    let daemon = stage.start().await;
    for insert in inserts {
        stage.app(insert).await;
        stage.wait_drained().await;
    }
    let owner = "SELECT firstname FROM hubspot_sync.hubspot_contact_credits WHERE hubspot_id IS NOT NULL";
    stage
        .wait_value(
            "SELECT count(hubspot_id) FROM hubspot_sync.hubspot_contact_credits",
            "1",
        )
        .await;
    let owner = stage.value(owner).await.unwrap();
    let other = if owner == "Ana" { "Bo" } else { "Ana" };
    daemon.sweep().await;
    stage
        .app("UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = sj_credits + 1")
        .await;
    stage.wait_drained().await;
    stage.wait_value(FAILURES, "owner").await;
    let listed = failures(&daemon).await;
    let key = stage
        .value("SELECT id FROM hubspot_sync.hubspot_contact_credits WHERE hubspot_id IS NOT NULL")
        .await;
    assert!(
        listed[0]["message"].as_str().unwrap().contains(&key.unwrap()),
        "{listed:?}"
    );
    let world = stage.sandbox.world();
    assert_eq!(world.records(CONTACTS).count(), 1);
    let contact = world.records(CONTACTS).next().unwrap();
    assert_eq!(contact.get("firstname"), Some(&*owner));
    let overwritten = world
        .requests()
        .flat_map(|request| &request.writes)
        .any(|write| format!("{write:?}").contains(&format!("\"{other}\"")));
    assert!(
        !overwritten,
        "the other row's values never stood in the owner's record"
    );
}

#[tokio::test]
async fn two_rows_with_one_email_in_one_transaction_have_one_owner() {
    two_rows_with_one_email(
        "twins_together",
        &[
            "INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email, firstname)
           VALUES ('a', 'twin@example.com', 'Ana'), ('b', 'twin@example.com', 'Bo')",
        ],
    )
    .await;
}

#[tokio::test]
async fn two_rows_with_one_email_in_two_spellings_have_one_owner() {
    two_rows_with_one_email(
        "twins_spelt",
        &[
            "INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email, firstname)
           VALUES ('a', 'Twin@Example.com', 'Ana'), ('b', ' twin@example.COM', 'Bo')",
        ],
    )
    .await;
}

#[tokio::test]
async fn a_second_row_with_the_email_of_a_synced_one_is_a_failure_that_names_the_owner() {
    two_rows_with_one_email(
        "twins_after",
        &[
            "INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email, firstname)
             VALUES ('a', 'twin@example.com', 'Ana')",
            "INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email, firstname)
             VALUES ('b', 'TWIN@example.com', 'Bo')",
        ],
    )
    .await;
}

/// A hundred new rows of which Postgres refuses the receipt of one.
async fn a_receipt_is_refused(hint: &str, refuse: &str, allow: &str) {
    let stage = Stage::new(hint).await;
    stage.sql(refuse).await;
    let daemon = stage.start().await;
    stage.app(HUNDRED).await;
    stage.wait_drained().await;
    stage.wait_value(FAILURES, "receipt").await;
    let kept = "SELECT count(*) FROM hubsyncd.intent i JOIN hubspot_sync.hubspot_contact_credits c
                ON i.object = 'contacts' AND i.key = c.id::text
                WHERE i.hubspot_id IS NOT NULL AND c.hubspot_id IS NULL";
    assert_eq!(stage.value(kept).await.as_deref(), Some("1"), "its id is kept");
    assert_eq!(
        stage
            .value("SELECT count(hubspot_id) FROM hubspot_sync.hubspot_contact_credits")
            .await
            .as_deref(),
        Some("99"),
        "it holds nobody up"
    );
    let upserts = stage.sandbox.world().count(Endpoint::Upsert);
    for _ in 0..2 {
        daemon.sweep().await;
        assert_eq!(stage.value(FAILURES).await.as_deref(), Some("receipt"));
    }
    assert_eq!(
        stage.sandbox.world().count(Endpoint::Upsert),
        upserts,
        "never created again"
    );
    let refused = stage.value(WITHOUT_ID).await.unwrap();
    stage.sql(allow).await;
    daemon.sweep().await;
    assert_eq!(stage.value(WITHOUT_ID).await.as_deref(), Some(""));
    assert_eq!(stage.value(FAILURES).await.as_deref(), Some(""));
    assert_eq!(stage.value(kept).await.as_deref(), Some("0"));
    let id = stage
        .value(&format!(
            "SELECT hubspot_id FROM hubspot_sync.hubspot_contact_credits WHERE student_id = '{refused}'"
        ))
        .await
        .unwrap();
    let world = stage.sandbox.world();
    assert_eq!(world.records(CONTACTS).count(), 100);
    let record = world.record(CONTACTS, &id).unwrap();
    assert_eq!(record.get("student_id"), Some(&*refused));
}

#[tokio::test]
async fn a_row_whose_receipt_a_check_refuses_holds_nobody_up_and_is_never_created_twice() {
    a_receipt_is_refused(
        "check",
        "ALTER TABLE hubspot_sync.hubspot_contact_credits ADD CONSTRAINT no CHECK (student_id <> 's42' OR hubspot_id IS NULL)",
        "ALTER TABLE hubspot_sync.hubspot_contact_credits DROP CONSTRAINT no",
    )
    .await;
}

#[tokio::test]
async fn a_row_whose_receipt_a_trigger_refuses_holds_nobody_up_and_is_never_created_twice() {
    a_receipt_is_refused(
        "raises",
        "CREATE FUNCTION hubspot_sync.no() RETURNS trigger LANGUAGE plpgsql AS
           $$BEGIN IF NEW.student_id = 's42' THEN RAISE 'not %', NEW.email; END IF; RETURN NEW; END$$;
         CREATE TRIGGER no BEFORE UPDATE ON hubspot_sync.hubspot_contact_credits
           FOR EACH ROW EXECUTE FUNCTION hubspot_sync.no()",
        "DROP TRIGGER no ON hubspot_sync.hubspot_contact_credits",
    )
    .await;
}

#[tokio::test]
async fn a_row_whose_receipt_a_unique_index_refuses_holds_nobody_up_and_is_never_created_twice() {
    a_receipt_is_refused(
        "unique",
        "CREATE UNIQUE INDEX one ON hubspot_sync.hubspot_contact_credits ((1))
         WHERE hubspot_id IS NOT NULL AND student_id IN ('s42', 's7')",
        "DROP INDEX hubspot_sync.one",
    )
    .await;
}

#[tokio::test]
async fn an_application_that_updates_rows_in_reverse_order_during_pushes_never_waits_long_and_never_dies() {
    let stage = Stage::new("reverse").await;
    let daemon = stage.start().await;
    stage.app(HUNDRED).await;
    stage.wait_drained().await;
    let session = stage.database.session_as("app").await;
    session
        .batch_execute("SET lock_timeout = '1s'; SET statement_timeout = '1s'")
        .await
        .unwrap();
    let all = "UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = $1";
    let one = "UPDATE hubspot_sync.hubspot_contact_credits SET cs_credits = $1 WHERE student_id = $2";
    for round in 1..=25_i32 {
        // A push of all rows is under way while the next transaction takes them one by one.
        session.execute(all, &[&round]).await.unwrap();
        session.batch_execute("BEGIN").await.unwrap();
        for row in (1..=100).rev() {
            session
                .execute(one, &[&round, &format!("s{row}")])
                .await
                .unwrap_or_else(|error| panic!("round {round}, row {row}: {error:?}"));
        }
        session.batch_execute("COMMIT").await.unwrap();
    }
    stage.wait_drained().await;
    stage
        .wait_world("every contact has the last values", |world| {
            world.records(CONTACTS).count() == 100
                && world.records(CONTACTS).all(|contact| {
                    contact.get("sj_credits") == Some("25") && contact.get("cs_credits") == Some("25")
                })
        })
        .await;
    wait_until("no failure is left", async || {
        daemon.status().await["failures"] == 0
    })
    .await;
}
