//! Tests: what the daemon refuses to work with at its start, and how it says so.

use super::support::daemon::{QUICK, Stage};
use hubsyncd::sandbox::{Endpoint, Fault, Settings};

/// A mapping of the bookings alone.
fn bookings(match_on: &str) -> String {
    format!(
        r#"
[[object]]
name = "bookings"
table = "hubspot_sync.hubspot_bookings"
type = "2-50158943"
key = "id"
hubspot-id = "hubspot_id"
synced-at = "hubspot_last_sync_at"
match-on = "{match_on}"
[object.properties]
{match_on} = "{match_on}"
"#
    )
}

/// Runs the daemon to its end; answers exit code and what it said.
async fn refusal(stage: &Stage) -> (Option<i32>, String) {
    let mut daemon = stage.launch("daemon");
    let code = daemon.ended().await;
    (code, daemon.log())
}

async fn refused_after(hint: &str, sql: &str, code: i32, words: &[&str]) {
    let stage = Stage::new(hint).await;
    stage.sql(sql).await;
    let (ended, log) = refusal(&stage).await;
    assert_eq!(ended, Some(code), "{sql}: {log}");
    for word in words {
        assert!(log.contains(word), "{sql}: {word} is not said: {log}");
    }
    assert_eq!(
        stage.sandbox.world().requests().count(),
        0,
        "HubSpot was not asked"
    );
}

#[tokio::test]
async fn a_database_without_our_schema_is_refused_with_setup_in_the_hint() {
    let stage = Stage::without_setup("bare", Settings::default(), QUICK).await;
    let (code, log) = refusal(&stage).await;
    assert_eq!(code, Some(78), "{log}");
    assert!(log.contains("hubsyncd setup"), "{log}");
}

#[tokio::test]
async fn triggers_of_an_older_mapping_are_refused_with_setup_in_the_hint() {
    let mut stage = Stage::new("older").await;
    stage.toml = format!("{QUICK}{}", bookings("booking_id"));
    let (code, log) = refusal(&stage).await;
    assert_eq!(code, Some(78), "{log}");
    assert!(log.contains("hubsyncd setup") && log.contains("older"), "{log}");
}

#[tokio::test]
async fn a_mapped_table_or_column_that_is_missing_is_named() {
    refused_after(
        "no_column",
        "ALTER TABLE hubspot_sync.hubspot_bookings DROP COLUMN attendance",
        78,
        &["attendance"],
    )
    .await;
    refused_after(
        "no_table",
        "DROP TABLE hubspot_sync.hubspot_mock_exams",
        78,
        &["hubspot_mock_exams"],
    )
    .await;
}

#[tokio::test]
async fn a_role_without_its_rights_is_refused_and_told_which() {
    let table = "hubspot_sync.hubspot_contact_credits";
    for (hint, sql, words) in [
        (
            "no_select",
            format!("REVOKE SELECT ON {table} FROM hubsyncd"),
            ["GRANT SELECT", "hubspot_contact_credits"],
        ),
        (
            "no_update",
            format!("REVOKE UPDATE (hubspot_id, hubspot_last_sync_at) ON {table} FROM hubsyncd"),
            ["GRANT UPDATE", "hubspot_last_sync_at"],
        ),
        (
            "no_schema",
            "REVOKE USAGE ON SCHEMA hubsyncd FROM hubsyncd".to_owned(),
            ["setup", "hubsyncd"],
        ),
        (
            "no_changes",
            "REVOKE ALL ON hubsyncd.change FROM hubsyncd".to_owned(),
            ["GRANT", "change"],
        ),
    ] {
        refused_after(hint, &sql, 77, &words).await;
    }
}

#[tokio::test]
async fn row_level_security_that_hides_the_rows_is_refused_with_the_policy_to_make() {
    refused_after(
        "no_policy",
        "DROP POLICY hubsyncd_read ON hubspot_sync.hubspot_bookings",
        77,
        &["row level security", "CREATE POLICY", "hubspot_bookings"],
    )
    .await;
    refused_after(
        "no_write_policy",
        "DROP POLICY hubsyncd_write ON hubspot_sync.hubspot_mock_exams",
        77,
        &["row level security", "FOR UPDATE", "hubspot_mock_exams"],
    )
    .await;
}

#[tokio::test]
async fn creating_by_a_key_that_hubspot_does_not_have_is_refused() {
    let toml = format!("{QUICK}{}", bookings("booking_status"));
    let stage = Stage::with("no_natural_key", Settings::default(), &toml).await;
    let (code, log) = refusal(&stage).await;
    assert_eq!(code, Some(78), "{log}");
    assert!(
        log.contains("booking_status") && log.contains("match-on"),
        "{log}"
    );
}

#[tokio::test]
async fn an_answer_cut_short_is_not_believed_to_be_the_portal() {
    for fault in ["empty-results", "unreported"] {
        let stage = Stage::new("cut_short").await;
        let fault = Fault::named(fault).unwrap().dropping(100);
        stage.sandbox.fault(fault.on(Endpoint::Properties));
        let daemon = stage.start().await;
        assert_eq!(stage.sandbox.struck().values().sum::<u64>(), 1);
        assert_eq!(daemon.stop().await, Some(0));
    }
}
