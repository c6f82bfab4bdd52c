//! The most memory the daemon takes while it is idle, and in a sweep of wide rows. How it grows is `growth`'s.

use super::ground::{self, Ground, NO_SWEEP, UNLIMITED};
use super::process::peak_mb;
use super::sweeps;
use super::table::{Goal, Measured};
use hubsyncd::sandbox::Settings;
use std::time::Duration;

/// How long a daemon is idle before its memory is read.
const IDLE: Duration = Duration::from_secs(3);

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
    let daemon = stage.start().await;
    tokio::time::sleep(ground.scale(IDLE, IDLE / 10)).await;
    let idle = peak_mb(daemon.pid());
    sweeps::sweep(ground, &stage, &daemon, rows).await;
    let swept = peak_mb(daemon.pid());
    ground::stop(daemon).await;
    vec![
        Measured::new("peak memory, idle", Goal::AtMost(15.0), " MB", vec![idle]),
        Measured::new(
            format!("peak memory, sweeping {rows} rows of 4 KB"),
            Goal::AtMost(40.0),
            " MB",
            vec![swept],
        ),
    ]
}
