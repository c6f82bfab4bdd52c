//! The ground of one run: a Postgres of its own that keeps what it commits, a portal, a proxy before each, and the
//! built daemon.

use super::ledger;
use crate::support::daemon::{Daemon, EXAMS, Stage};
use crate::support::postgres::Server;
use crate::support::proxy::{Proxy, Silent};
use hubsyncd::cli::cluster::{Mode, Options};
use hubsyncd::postgres::Session;
use hubsyncd::sandbox::Settings;
use std::time::{Duration, Instant};

/// How long a request whose outcome is unknown may still land. Nothing that the attacks delay lands later.
pub(super) const SETTLE: Duration = Duration::from_secs(5);
/// How long the daemon waits for an answer.
pub(super) const TIMEOUT: Duration = Duration::from_secs(2);
/// How long calm may take: the longest pause before a row is tried again, and what `settle` adds.
const CALM: Duration = Duration::from_secs(150);
const EXAM_COUNT: usize = 6;

/// Where a run happens.
pub(super) struct Ground {
    server: Server,
    pub(super) stage: Stage,
    pub(super) daemon: Option<Daemon>,
    /// The exams' HubSpot ids.
    pub(super) exams: Vec<String>,
    session: Option<Session>,
}

impl Ground {
    /// Everything but the daemon.
    pub(super) async fn new(seed: u64) -> Ground {
        // Else Postgres itself loses what was committed shortly before it is killed.
        let durable = Options {
            fsync: true,
            ..Options::default()
        };
        let server = Server::start(durable).await;
        let settings = Settings {
            seed,
            log_max: 1_000_000,
            latency: Duration::from_millis(10),
            ..Settings::default()
        };
        let mut stage = Stage::bare_on(&server, "chaos", settings, &toml(seed), ledger::SCHEMA).await;
        stage.setup().await;
        stage.through.database = Some(Proxy::to_database(&stage.database));
        stage.through.hubspot = Some(Proxy::to_http(&stage.sandbox.base_url()));
        stage.set("RUST_LOG", "info");
        let mut exams = Vec::new();
        for _ in 0..EXAM_COUNT {
            let exam = stage.sandbox.world().create(EXAMS, [("total_bookings", "0")]);
            let insert = format!(
                "INSERT INTO {} (hubspot_id, total_bookings) VALUES ('{exam}', 0)",
                ledger::EXAMS.table
            );
            stage.sql(&ledger::EXAMS.noted("I", &insert)).await;
            exams.push(exam);
        }
        Ground {
            server,
            stage,
            daemon: None,
            exams,
            session: None,
        }
    }

    pub(super) fn database(&self) -> &Proxy {
        self.stage.through.database.as_ref().unwrap()
    }

    pub(super) fn hubspot(&self) -> &Proxy {
        self.stage.through.hubspot.as_ref().unwrap()
    }

    /// Starts a daemon if none runs; one that ended by itself is a fault.
    pub(super) fn start(&mut self) {
        match &mut self.daemon {
            Some(daemon) => {
                let ended = daemon.has_ended();
                assert!(ended.is_none(), "the daemon ended by itself: {ended:?}");
            }
            None => self.daemon = Some(self.stage.launch("daemon")),
        }
    }

    /// kill -9.
    pub(super) fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let ended = daemon.has_ended();
            assert!(ended.is_none(), "the daemon ended by itself: {ended:?}");
            daemon.kill();
        }
    }

    /// Restarts Postgres.
    pub(super) fn restart(&mut self, mode: Mode) {
        tokio::task::block_in_place(|| self.server.cluster.restart(mode).unwrap());
    }

    /// A session of the superuser that works.
    pub(super) async fn session(&mut self) -> &Session {
        if self.session.as_ref().is_none_or(|session| session.is_closed()) {
            self.session = Some(self.stage.database.session().await);
        }
        self.session.as_ref().unwrap()
    }

    /// One number; `None` if the database is not to be had just now.
    pub(super) async fn count(&mut self, sql: &str) -> Option<u64> {
        let counted = self.session().await.query_one(sql, &[]).await.ok()?;
        u64::try_from(counted.get::<_, i64>(0)).ok()
    }

    /// Ends every attack and waits until nothing is left to be done: no change waits, no intent is open, and the
    /// daemon sleeps. No sweep helps.
    pub(super) async fn calm(&mut self) -> Duration {
        self.stage.sandbox.clear_faults();
        self.database().silence(Silent::Not);
        self.hubspot().silence(Silent::Not);
        self.start();
        let begin = Instant::now();
        let mut quiet = 0;
        while quiet < 3 {
            quiet = if self.is_quiet().await { quiet + 1 } else { 0 };
            if begin.elapsed() > CALM {
                let left = self.left().await;
                panic!("there is no calm after {CALM:?}:\n{left}");
            }
            self.start();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        begin.elapsed()
    }

    async fn is_quiet(&mut self) -> bool {
        let open = "SELECT (SELECT count(*) FROM hubsyncd.change) + (SELECT count(*) FROM hubsyncd.intent)";
        if self.count(open).await != Some(0) {
            return false;
        }
        let Some((200, status)) = self.daemon.as_ref().unwrap().try_get("/status").await else {
            return false;
        };
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        status["lease"] == "held" && status["listener"] == "armed" && status["pending"] == 0
    }

    /// What keeps the daemon from calm, for people.
    async fn left(&mut self) -> String {
        let mut told = String::new();
        for sql in [
            "SELECT row_to_json(change)::text FROM hubsyncd.change ORDER BY seq LIMIT 20",
            "SELECT row_to_json(intent)::text FROM hubsyncd.intent LIMIT 20",
            "SELECT row_to_json(failure)::text FROM hubsyncd.failure LIMIT 20",
        ] {
            for row in self.session().await.query(sql, &[]).await.unwrap() {
                told += row.get(0);
                told.push('\n');
            }
        }
        if let Some((_, status)) = self.daemon.as_ref().unwrap().try_get("/status").await {
            told += &status;
        }
        told
    }
}

/// The built-in mapping with small waits. The period of the sweep is the longest there is: none comes by itself.
fn toml(seed: u64) -> String {
    let records = [5, 20, 100][usize::try_from(seed % 3).unwrap()];
    format!(
        "[batch]\nmax-delay = \"50ms\"\nmax-records = {records}\n\
         [hubspot]\nrequests = 1000\ntimeout = \"{}s\"\nsettle = \"{}s\"\n\
         [sweep]\nevery = \"24h\"\non-start = false\ngive-up = \"30s\"\n",
        TIMEOUT.as_secs(),
        SETTLE.as_secs()
    )
}
