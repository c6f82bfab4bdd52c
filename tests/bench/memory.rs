//! The most memory the daemon takes: idle, with rows of 4 KB in a sweep, with changes waiting.

use super::ground::{self, Ground, NO_SWEEP, UNLIMITED};
use super::process::peak_mb;
use super::support::daemon::Stage;
use super::support::wait_within;
use super::sweeps;
use super::table::{Goal, Measured};
use hubsyncd::sandbox::Settings;
use std::time::Duration;

/// How long a daemon is idle before its memory is read.
const IDLE: Duration = Duration::from_secs(3);
/// How long it looks at what waits.
const LOOKING: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(120);
const TABLE: &str = "hubspot_sync.hubspot_contact_credits";

pub async fn measure(ground: &Ground) -> Vec<Measured> {
    let rows = ground.scale(1_000_000, 3_000);
    let stage = ground
        .stage("memory", Settings::default(), &format!("{UNLIMITED}{NO_SWEEP}"))
        .await;
    ground::known_contacts(&stage, rows).await;
    // A row is 4 KB wide where its own columns are: the names go to HubSpot only with a create.
    let idle = idle(ground, &stage).await;
    let swept = swept(ground, &stage, rows).await;
    let waiting = waiting(ground, &stage, rows).await;
    vec![
        Measured::new("peak memory, idle", Goal::AtMost(15.0), " MB", vec![idle]),
        Measured::new(
            format!("peak memory, sweeping {rows} rows"),
            Goal::AtMost(40.0),
            " MB",
            vec![swept],
        ),
        Measured::new(
            format!("peak memory, {rows} changes waiting"),
            Goal::AtMost(40.0),
            " MB",
            vec![waiting],
        ),
    ]
}

async fn idle(ground: &Ground, stage: &Stage) -> f64 {
    let daemon = stage.start().await;
    tokio::time::sleep(ground.scale(IDLE, IDLE / 10)).await;
    let peak = peak_mb(daemon.pid());
    ground::stop(daemon).await;
    peak
}

async fn swept(ground: &Ground, stage: &Stage, rows: usize) -> f64 {
    let daemon = stage.start().await;
    sweeps::sweep(ground, stage, &daemon, rows).await;
    let peak = peak_mb(daemon.pid());
    ground::stop(daemon).await;
    peak
}

/// All rows change while HubSpot takes one request a window.
async fn waiting(ground: &Ground, stage: &Stage, rows: usize) -> f64 {
    let daemon = stage.start().await;
    stage.sandbox.limit(Some(2), None);
    stage
        .app(&format!("UPDATE {TABLE} SET sj_credits = sj_credits + 1"))
        .await;
    wait_within(PATIENCE, "the daemon knows what waits", async || {
        let pending = daemon.status().await["pending"].as_u64().unwrap_or_default();
        pending as usize + 20_000 > rows
    })
    .await;
    tokio::time::sleep(ground.scale(LOOKING, LOOKING / 10)).await;
    let peak = peak_mb(daemon.pid());
    daemon.kill();
    stage.sandbox.limit(None, None);
    peak
}
