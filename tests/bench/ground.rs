//! What all measurements stand on: one Postgres with fsync on, a database and a sandbox for each, rows by the thousand.

use super::support::daemon::{CONTACTS, Daemon, Stage};
use super::support::postgres::Server;
use super::support::sweeping::unseen;
use hubsyncd::cli::cluster::Options;
use hubsyncd::sandbox::Settings;
use std::time::Duration;

/// Rows made by one statement.
const CHUNK: usize = 50_000;

/// A pace that HubSpot, whose limit is off, never holds up.
pub const UNLIMITED: &str = "[hubspot]\nrequests = 10000\nwindow = \"1s\"\n";
/// No sweep that nobody asked for.
pub const NO_SWEEP: &str = "[sweep]\non-start = false\n";

/// The server, and how much is measured.
pub struct Ground {
    pub server: Server,
    pub quick: bool,
}

impl Ground {
    pub async fn new(quick: bool) -> Ground {
        let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let options = Options {
            fsync: true,
            settings: vec![
                setting("shared_buffers", "512MB"),
                setting("max_wal_size", "8GB"),
                setting("checkpoint_timeout", "1h"),
            ],
            ..Options::default()
        };
        Ground {
            server: Server::start(options).await,
            quick,
        }
    }

    /// The first of the two where everything is measured, the second in a quick run.
    pub fn scale<T>(&self, whole: T, quick: T) -> T {
        if self.quick { quick } else { whole }
    }

    /// A database with triggers and a sandbox, for a daemon with these settings.
    pub async fn stage(&self, hint: &str, settings: Settings, toml: &str) -> Stage {
        let mut stage = Stage::on(&self.server, hint, settings, toml).await;
        stage.set("RUST_LOG", "info");
        stage
    }

    /// The same without triggers; `more` is run in the database.
    pub async fn bare(&self, hint: &str, more: &str) -> Stage {
        Stage::bare_on(&self.server, hint, Settings::default(), NO_SWEEP, more).await
    }

    /// Which PostgreSQL this is.
    pub async fn version(&self) -> String {
        let session = super::support::postgres::session(&self.server.cluster.url("postgres")).await;
        let rows = session
            .query("SELECT 'PostgreSQL ' || current_setting('server_version')", &[])
            .await;
        rows.unwrap()[0].get(0)
    }

    /// The server's process id.
    pub fn postgres(&self) -> u32 {
        self.server.cluster.pid().unwrap()
    }
}

/// Contacts that HubSpot has, too; unseen by triggers. Numbered from 0: `p0@example.com`.
pub async fn known_contacts(stage: &Stage, count: usize) {
    more_contacts(stage, 0, count).await;
}

/// The same for the numbers from `first` up to, not including, `end`.
pub async fn more_contacts(stage: &Stage, first: usize, end: usize) {
    for from in (first..end).step_by(CHUNK) {
        let to = end.min(from + CHUNK);
        let ids: Vec<String> = {
            let mut world = stage.sandbox.world();
            let make = |at: usize| {
                let (email, student) = (format!("p{at}@example.com"), format!("p{at}"));
                world.create(
                    CONTACTS,
                    [("email", email.as_str()), ("student_id", student.as_str())],
                )
            };
            (from..to).map(make).collect()
        };
        insert(stage, from, &format!("unnest(ARRAY['{}'])", ids.join("','"))).await;
    }
    tidy(stage, "hubspot_sync.hubspot_contact_credits").await;
}

/// Contacts of which HubSpot knows nothing though they have ids: for what never asks it.
pub async fn contacts(stage: &Stage, count: usize) {
    insert(
        stage,
        0,
        &format!("(SELECT g::text FROM generate_series(1, {count}) AS g)"),
    )
    .await;
    tidy(stage, "hubspot_sync.hubspot_contact_credits").await;
}

async fn insert(stage: &Stage, from: usize, ids: &str) {
    let sql = format!(
        "INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email, firstname, lastname, hubspot_id, sj_credits)
         SELECT 'p' || n, 'p' || n || '@example.com', 'First' || n, 'Last' || n, id, 3
         FROM (SELECT id, {from} + row_number() OVER () - 1 AS n FROM {ids} AS known (id)) AS numbered"
    );
    unseen(stage, &sql).await;
}

/// Lets neither dead rows nor a checkpoint of what was before be paid for by what is measured next.
pub async fn tidy(stage: &Stage, table: &str) {
    stage.sql(&format!("VACUUM ANALYZE {table}")).await;
    stage.sql("CHECKPOINT").await;
}

/// A sandbox's settings with a limit and a latency.
pub fn limited(requests: u32, latency: Duration) -> Settings {
    Settings {
        requests_per_window: Some(requests),
        latency,
        ..Settings::default()
    }
}

/// Ends a daemon and says so if it does not end well.
pub async fn stop(daemon: Daemon) {
    let code = daemon.stop().await;
    assert_eq!(code, Some(0), "the daemon ends well");
}
