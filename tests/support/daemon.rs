//! The built daemon between a database of its own and a sandbox of its own.

use super::postgres::{Database, Server};
use super::proxy::Proxy;
use super::{DEADLINE, wait_until};
use http_body_util::{BodyExt, Full};
use hubsyncd::config::Config;
use hubsyncd::mapping::Mapping;
use hubsyncd::postgres::Session;
use hubsyncd::postgres::setup::{Options, setup};
use hubsyncd::sandbox::{Sandbox, Settings, World};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use tempfile::TempDir;

/// Contacts' object type.
pub const CONTACTS: &str = "0-1";
/// Bookings' object type.
pub const BOOKINGS: &str = "2-50158943";
/// Mock exams' object type.
pub const EXAMS: &str = "2-50158913";

/// A database, a sandbox and a configuration; no daemon yet.
pub struct Stage {
    pub database: Database,
    pub sandbox: Arc<Sandbox>,
    /// TOML beyond what the stage writes, by section.
    pub toml: String,
    /// Proxies that daemons started from now on go through.
    pub through: Through,
    environment: Vec<(String, String)>,
    directory: TempDir,
    session: Session,
}

/// What stands between a daemon and its two ends.
#[derive(Default)]
pub struct Through {
    /// Between daemon and database.
    pub database: Option<Proxy>,
    /// Between daemon and HubSpot.
    pub hubspot: Option<Proxy>,
}

/// A daemon that runs.
pub struct Daemon {
    child: Child,
    log: PathBuf,
    socket: PathBuf,
}

/// The settings of most tests: a short wait for company, and no sweep that nobody asked for.
pub const QUICK: &str = "[batch]\nmax-delay = \"30ms\"\n[sweep]\non-start = false\n";

impl Stage {
    /// The application's tables with triggers for the built-in mapping, and the tutoring portal.
    pub async fn new(hint: &str) -> Stage {
        Stage::with(hint, Settings::default(), QUICK).await
    }

    /// The same with other settings of the sandbox and of the daemon.
    pub async fn with(hint: &str, settings: Settings, toml: &str) -> Stage {
        let stage = Stage::without_setup(hint, settings, toml).await;
        stage.setup().await;
        stage
    }

    /// The same without triggers.
    pub async fn without_setup(hint: &str, settings: Settings, toml: &str) -> Stage {
        Stage::around(Database::with_application(hint).await, settings, toml).await
    }

    /// The same as [`Stage::with`] on a server of the test's own.
    pub async fn on(server: &Server, hint: &str, settings: Settings, toml: &str) -> Stage {
        let stage = Stage::around(server.application(hint).await, settings, toml).await;
        stage.setup().await;
        stage
    }

    /// The same without triggers, in a database of a server of the test's own; `more` is run in it as the owner of the
    /// application's tables.
    pub async fn bare_on(server: &Server, hint: &str, settings: Settings, toml: &str, more: &str) -> Stage {
        let database = server.application(hint).await;
        let owner = database.session_as("app_owner").await;
        owner.batch_execute(more).await.unwrap();
        Stage::around(database, settings, toml).await
    }

    async fn around(database: Database, settings: Settings, toml: &str) -> Stage {
        let sandbox = Sandbox::tutoring(settings).await.unwrap();
        let session = database.session().await;
        let directory = tempfile::tempdir().unwrap();
        Stage {
            database,
            sandbox: Arc::new(sandbox),
            toml: toml.to_owned(),
            through: Through::default(),
            environment: Vec::new(),
            directory,
            session,
        }
    }

    /// Sets a variable in the environment of the daemons to come.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Installs what the stage's mapping wants.
    pub async fn setup(&self) {
        let mut session = self.database.session().await;
        let options = Options::for_role("hubsyncd");
        setup(&mut session, &self.mapping(), &options).await.unwrap();
    }

    /// The mapping of the stage's configuration.
    pub fn mapping(&self) -> Mapping {
        self.configured().mapping
    }

    /// The stage's configuration, read.
    pub fn configured(&self) -> Config {
        let environment = |name: &str| match name {
            "HUBSPOT_ACCESS_TOKEN" => Some("pat-na1-x".to_owned()),
            "DATABASE_URL" => Some("postgres://hubsyncd@localhost/x".to_owned()),
            _ => self
                .environment
                .iter()
                .find(|(of, _)| of == name)
                .map(|(_, value)| value.clone()),
        };
        let path = self.configuration();
        Config::load(Some(&path), &environment).unwrap()
    }

    /// The configuration file, written.
    fn configuration(&self) -> PathBuf {
        let path = self.directory.path().join("hubsyncd.toml");
        // A daemon that was started a moment ago may be reading it.
        if std::fs::read_to_string(&path).ok().as_ref() != Some(&self.toml) {
            std::fs::write(&path, &self.toml).unwrap();
        }
        path
    }

    /// The daemon's command, with its environment.
    pub fn command(&self, name: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hubsyncd"));
        let database = match &self.through.database {
            Some(proxy) => proxy.database_url("hubsyncd", &self.database),
            None => self.database.url_as("hubsyncd"),
        };
        let hubspot = self.through.hubspot.as_ref();
        let hubspot = hubspot.map_or_else(|| self.sandbox.base_url(), Proxy::base_url);
        command
            .env_clear()
            .env("DATABASE_URL", database)
            .env("HUBSPOT_ACCESS_TOKEN", self.sandbox.token())
            .env("HUBSPOT_BASE_URL", hubspot)
            .env("HUBSYNCD_SOCKET", self.socket(name))
            .env("HUBSYNCD_CONFIG", self.configuration())
            .env("RUST_LOG", "debug")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.directory.path().join(format!("{name}.sock"))
    }

    /// Starts the daemon and does not wait for anything.
    pub fn launch(&self, name: &str) -> Daemon {
        let log = self.directory.path().join(format!("{name}.log"));
        let file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&log)
            .unwrap();
        let child = self
            .command(name)
            .arg("run")
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        Daemon {
            child,
            log,
            socket: self.socket(name),
        }
    }

    /// What all daemons of this stage logged so far.
    pub fn logs(&self) -> String {
        let files = std::fs::read_dir(self.directory.path()).unwrap();
        let paths = files.map(|file| file.unwrap().path());
        let logs = paths.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
        logs.map(|path| std::fs::read_to_string(path).unwrap()).collect()
    }

    /// Starts the daemon and waits until it holds the lease and sleeps.
    pub async fn start(&self) -> Daemon {
        let daemon = self.launch("daemon");
        daemon.settled().await;
        daemon
    }

    /// Runs SQL as the superuser.
    pub async fn sql(&self, sql: &str) {
        self.session
            .batch_execute(sql)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// Runs SQL as the application.
    pub async fn app(&self, sql: &str) {
        let session = self.database.session_as("app").await;
        session
            .batch_execute(sql)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// The first column of the first row, as text.
    pub async fn value(&self, sql: &str) -> Option<String> {
        let rows = self.session.simple_query(sql).await.unwrap();
        rows.into_iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        })
    }

    /// Waits until a query's value is this.
    pub async fn wait_value(&self, sql: &str, expected: &str) {
        wait_until(&format!("{sql} is {expected}"), async || {
            self.value(sql).await.as_deref() == Some(expected)
        })
        .await;
    }

    /// Waits until the sandbox's world satisfies a predicate.
    pub async fn wait_world(&self, what: &str, predicate: impl FnMut(&World) -> bool) {
        assert!(
            self.sandbox.wait_until(DEADLINE, predicate).await,
            "waited in vain until {what}"
        );
    }

    /// Waits until no change is left in the table.
    pub async fn wait_drained(&self) {
        self.wait_value("SELECT count(*) FROM hubsyncd.change", "0").await;
    }

    /// A contact with an id in the row and its record in HubSpot; answers the HubSpot id.
    pub async fn known_contact(&self, student: &str) -> String {
        let email = format!("{student}@example.com");
        let id = self
            .sandbox
            .world()
            .create(CONTACTS, [("email", email.as_str()), ("student_id", student)]);
        self.sql(&format!(
            "INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email, hubspot_id)
             VALUES ('{student}', '{email}', '{id}')"
        ))
        .await;
        id
    }

    /// A mock exam with its record in HubSpot; answers the HubSpot id.
    pub async fn known_exam(&self) -> String {
        let id = self.sandbox.world().create(EXAMS, [("total_bookings", "0")]);
        self.sql(&format!(
            "INSERT INTO hubspot_sync.hubspot_mock_exams (hubspot_id) VALUES ('{id}')"
        ))
        .await;
        id
    }
}

impl Daemon {
    /// Waits until the daemon holds the lease, sleeps, and has nothing to do.
    pub async fn settled(&self) {
        wait_until("the daemon sleeps with nothing to do", async || {
            let Some((200, status)) = self.try_get("/status").await else {
                return false;
            };
            let status: serde_json::Value = serde_json::from_str(&status).unwrap();
            status["lease"] == "held" && status["listener"] == "armed" && status["pending"] == 0
        })
        .await;
    }

    /// `GET`, answered with status and body.
    pub async fn get(&self, path: &str) -> (u16, String) {
        self.try_get(path)
            .await
            .expect("the daemon answers on its socket")
    }

    /// `GET`, unless nobody answers.
    pub async fn try_get(&self, path: &str) -> Option<(u16, String)> {
        self.request("GET", path).await
    }

    /// `POST` without a body.
    pub async fn post(&self, path: &str) -> (u16, String) {
        self.request("POST", path)
            .await
            .expect("the daemon answers on its socket")
    }

    async fn request(&self, method: &str, path: &str) -> Option<(u16, String)> {
        let stream = tokio::net::UnixStream::connect(&self.socket).await.ok()?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .ok()?;
        tokio::spawn(connection);
        let request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .header("host", "hubsyncd")
            .body(Full::<Bytes>::default())
            .unwrap();
        let response = sender.send_request(request).await.ok()?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.ok()?.to_bytes();
        Some((status, String::from_utf8(body.to_vec()).unwrap()))
    }

    /// `/status`, parsed.
    pub async fn status(&self) -> serde_json::Value {
        let (status, body) = self.get("/status").await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Asks for a sweep and waits for its end; answers the run.
    pub async fn sweep(&self) -> serde_json::Value {
        let (status, body) = self.post("/sweep?wait=true").await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its name, e.g. `USR1`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status().unwrap();
        assert!(sent.success(), "the daemon was there to be signalled");
    }

    /// Waits for the end of the process; answers its exit code.
    pub async fn ended(&mut self) -> Option<i32> {
        let mut code = None;
        let child = &mut self.child;
        wait_until("the daemon ends", async || match child.try_wait().unwrap() {
            Some(status) => {
                code = status.code();
                true
            }
            None => false,
        })
        .await;
        code
    }

    /// SIGTERM, and the exit code.
    pub async fn stop(mut self) -> Option<i32> {
        self.signal("TERM");
        self.ended().await
    }

    /// Whether the process has ended by itself, and how.
    pub fn has_ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let from = log.len().saturating_sub(6_000);
            let from = (from..log.len())
                .find(|at| log.is_char_boundary(*at))
                .unwrap_or(0);
            eprintln!("--- the daemon's log, its end ---\n{}", &log[from..]);
        }
    }
}
