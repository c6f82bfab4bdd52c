//! Notifications: any text rings, and none does more than that.

use super::runner;
use crate::support::postgres::Database;
use hubsyncd::postgres::control::{CHANNEL, Control};
use proptest::prelude::*;
use std::time::Duration;

/// A payload is shorter than 8,000 bytes.
const PAYLOAD_BYTES_MAX: usize = 7_999;

/// Texts short and long, of every character that Postgres can hold.
fn payload() -> impl Strategy<Value = String> {
    prop_oneof![
        "[^\\x00]{0,40}",
        "echo [0-9a-f-]{0,40}",
        (1..PAYLOAD_BYTES_MAX).prop_map(|length| "x".repeat(length)),
        "[^\\x00]{1500,1990}",
    ]
}

#[test]
fn any_notification_rings_and_the_session_lives_on() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (database, control, app) = runtime.block_on(async {
        let database = Database::new("fuzzed_bell").await;
        let control = Control::open(&database.address("hubsyncd")).await.unwrap();
        let app = database.session_as("app").await;
        (database, control, app)
    });
    let checked = runner(100).run(&payload(), |text| {
        prop_assume!(text.len() <= PAYLOAD_BYTES_MAX);
        let rung = runtime.block_on(async {
            let sql = "SELECT pg_notify($1, $2)";
            app.execute(sql, &[&CHANNEL, &text]).await.unwrap();
            tokio::time::timeout(Duration::from_secs(30), control.wait_rung()).await
        });
        prop_assert!(matches!(rung, Ok(Ok(()))), "it did not ring: {rung:?}");
        Ok(())
    });
    drop(database);
    checked.unwrap();
}
