//! The ground of one run: a Postgres of its own that keeps what it commits, a portal, a proxy before each, and the
//! built daemon.

use super::{ledger, story};
use crate::support::daemon::{Daemon, EXAMS, Stage};
use crate::support::postgres::Server;
use crate::support::proxy::{Proxy, Silent};
use crate::support::wait_until;
use hubsyncd::cli::cluster::{Mode, Options};
use hubsyncd::postgres::Session;
use hubsyncd::sandbox::{Property, Settings};
use std::time::{Duration, Instant};

/// How long a request whose outcome is unknown may still land, by seed: shorter and longer than a lease lasts that was
/// not given back. Nothing that the attacks delay lands later.
const SETTLES: [Duration; 2] = [Duration::from_secs(6), Duration::from_secs(14)];
/// How long the daemon waits for an answer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How long calm may take: the longest pause before a row is tried again, and what `settle` adds.
const CALM: Duration = Duration::from_secs(150);
/// How long HubSpot's search may be behind: less than a quarter of `settle`.
const SEARCH_LAG: Duration = Duration::from_millis(800);
const EXAM_COUNT: usize = 6;
/// Payments' object type.
pub(super) const PAYMENTS_TYPE: &str = "2-777";

/// Where a run happens.
pub(super) struct Ground {
    /// First, so that its log is still there when it is dropped.
    pub(super) daemon: Option<Daemon>,
    pub(super) stage: Stage,
    server: Server,
    /// The exams' HubSpot ids.
    pub(super) exams: Vec<String>,
    /// The daemon's `settle`.
    pub(super) settle: Duration,
    session: Option<Session>,
    /// How many daemons were started.
    started: usize,
    /// Proxies behind which sessions of dead daemons live on.
    ghosts: Vec<Proxy>,
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
            search_lag: SEARCH_LAG,
            ..Settings::default()
        };
        let settle = SETTLES[usize::try_from(seed).unwrap() / 3 % SETTLES.len()];
        let toml = toml(seed, settle);
        let mut stage = Stage::bare_on(&server, "chaos", settings, &toml, ledger::SCHEMA).await;
        stage.sandbox.world().define(
            PAYMENTS_TYPE,
            "payments",
            [
                Property::string("reference"),
                Property::string("payer"),
                Property::number("amount"),
            ],
        );
        stage.setup().await;
        stage.sql(ledger::OPEN_INTENTS).await;
        stage.sql(story::MEMORY).await;
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
            settle,
            session: None,
            started: 0,
            ghosts: Vec::new(),
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
        self.assert_lives();
        if self.daemon.is_none() {
            self.daemon = Some(self.launch());
        }
    }

    /// No attack is a reason for a daemon to end.
    fn assert_lives(&mut self) {
        let ended = self.daemon.as_mut().and_then(Daemon::has_ended);
        assert!(
            ended.is_none(),
            "the daemon ended by itself, {ended:?}:\n{}",
            self.stage.logs()
        );
    }

    /// One more daemon, with a socket of its own.
    pub(super) fn launch(&mut self) -> Daemon {
        self.started += 1;
        self.stage.launch(&format!("daemon{}", self.started))
    }

    /// kill -9.
    pub(super) fn kill(&mut self) {
        self.assert_lives();
        if let Some(daemon) = self.daemon.take() {
            daemon.kill();
        }
    }

    /// SIGTERM, once the daemon hears it: before that it ends a process like any other.
    pub(super) async fn stop(&mut self) {
        self.assert_lives();
        let Some(daemon) = self.daemon.take() else { return };
        wait_until("the daemon answers", async || {
            daemon.try_get("/livez").await.is_some()
        })
        .await;
        assert_eq!(
            daemon.stop().await,
            Some(0),
            "a daemon that is told to stop stops well"
        );
    }

    /// kill -9, of which the database does not hear: its sessions live on, until a time-out of the database's ends them.
    pub(super) fn kill_leaving_sessions(&mut self) {
        self.database().silence(Silent::Both);
        self.kill();
        let fresh = Proxy::to_database(&self.stage.database);
        self.ghosts.extend(self.stage.through.database.replace(fresh));
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
        let open = "SELECT (SELECT count(*) FROM hubsyncd.change) + (SELECT count(*) FROM chaos.open_intent)";
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
            "SELECT row_to_json(open_intent)::text FROM chaos.open_intent LIMIT 20",
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

/// The mapping with small waits. The period of the sweep is the longest there is: none comes by itself.
fn toml(seed: u64, settle: Duration) -> String {
    let records = [5, 20, 100][usize::try_from(seed % 3).unwrap()];
    format!(
        "[batch]\nmax-delay = \"50ms\"\nmax-records = {records}\n\
         [hubspot]\nrequests = 1000\ntimeout = \"{}s\"\nsettle = \"{}s\"\n\
         [sweep]\nevery = \"24h\"\non-start = false\ngive-up = \"30s\"\n{}",
        TIMEOUT.as_secs(),
        settle.as_secs(),
        include_str!("mapping.toml")
    )
}
