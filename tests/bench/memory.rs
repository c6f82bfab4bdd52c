//! The most memory the daemon takes while it is idle, in a sweep of wide rows, and while changes of them wait. How it grows
//! with the number of rows is `growth`'s.

use super::ground::{self, Ground, NO_SWEEP, UNLIMITED};
use super::process::peak_mb;
use super::support::daemon::Stage;
use super::support::wait_within;
use super::sweeps;
use super::table::{Goal, Measured, count};
use hubsyncd::sandbox::Settings;
use std::time::Duration;

/// How long a daemon is idle before its memory is read.
const IDLE: Duration = Duration::from_secs(3);
/// How long the daemon looks at what waits.
const LOOKING: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(120);

/// Contacts of which a column of nearly 4 KB goes along with every update.
const WIDE: &str = r#"
[[object]]
name = "contacts"
table = "hubspot_sync.hubspot_contact_credits"
type = "0-1"
hubspot-id = "hubspot_id"
synced-at = "hubspot_last_sync_at"
match-on = "email"
[object.properties]
email = { column = "email", on = "create" }
firstname = "firstname"
sj_credits = "sj_credits"
"#;

pub async fn measure(ground: &Ground) -> Vec<Measured> {
    let rows = ground.scale(30_000, 2_000);
    let toml = format!("{UNLIMITED}{NO_SWEEP}{WIDE}");
    let stage = ground.stage("memory", Settings::default(), &toml).await;
    ground::known_contacts(&stage, rows).await;
    let widened = "SET session_replication_role = replica;
                   UPDATE hubspot_sync.hubspot_contact_credits SET firstname = repeat('x', 3900);
                   RESET session_replication_role";
    stage.sql(widened).await;
    let (mut idle, mut swept, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ground.scale(3, 1) {
        let daemon = stage.start().await;
        tokio::time::sleep(ground.scale(IDLE, IDLE / 10)).await;
        idle.push(peak_mb(daemon.pid()));
        sweeps::sweep(ground, &stage, &daemon, rows).await;
        swept.push(peak_mb(daemon.pid()));
        ground::stop(daemon).await;
        waiting.push(changes_wait(ground, &stage, rows).await);
    }
    let of = count(rows);
    vec![
        Measured::new("peak memory, idle", Goal::AtMost(15.0), " MB", idle),
        Measured::new(
            format!("peak memory, sweeping {of} rows of 4 KB"),
            Goal::AtMost(40.0),
            " MB",
            swept,
        ),
        Measured::new(
            format!("peak memory, {of} changes of rows of 4 KB waiting"),
            Goal::AtMost(40.0),
            " MB",
            waiting,
        ),
    ]
}

/// The peak memory of a daemon that lets the changes of all rows wait, since HubSpot takes next to no request; they are
/// gone afterwards.
pub async fn changes_wait(ground: &Ground, stage: &Stage, rows: usize) -> f64 {
    let daemon = stage.start().await;
    stage.sandbox.limit(Some(2), None);
    let all = "UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = sj_credits + 1";
    stage.app(all).await;
    wait_within(PATIENCE, "the daemon knows what waits", async || {
        let pending = daemon.status().await["pending"].as_u64().unwrap_or_default();
        pending as usize >= rows - rows / 2
    })
    .await;
    tokio::time::sleep(ground.scale(LOOKING, LOOKING / 10)).await;
    let peak = peak_mb(daemon.pid());
    ground::stop(daemon).await;
    stage.sandbox.limit(None, None);
    stage.sql("TRUNCATE hubsyncd.change").await;
    peak
}
