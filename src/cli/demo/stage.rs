//! The stage: a private Postgres with the application's tables, the sandbox, and the daemon between them.

use super::fault;
use super::leashed::{Ends, Leashed};
use super::school::School;
use crate::cli::cluster::{Cluster, ClusterError, Options};
use crate::cli::failure::Failure;
use crate::daemon::exit;
use crate::mapping::Mapping;
use crate::postgres::{Address, Error, Session, connect, setup};
use crate::sandbox::{Sandbox, Settings};
use std::time::{Duration, Instant};

const SCHEMA: &str = include_str!("../../../sql/app-schema.sql");
const RIGHTS: &str = include_str!("rights.sql");
/// The application's database.
const DATABASE: &str = "tutoring";
/// The least-privileged role of the daemon.
const ROLE: &str = "hubsyncd";
/// Who runs setup: the owner of the tables, who is no superuser; the application's own writers are another role.
const ROLES: &str =
    "CREATE ROLE hubsyncd LOGIN; CREATE ROLE app_owner LOGIN CREATEROLE; CREATE ROLE app LOGIN";

/// HubSpot's limit for the stand-in's plan, and how long it takes for a request.
const REQUESTS_PER_WINDOW: u32 = 190;
const LATENCY: Duration = Duration::from_millis(100);

/// How long the daemon may take until it holds the lease, and until its first sweep has ended.
const READY_MAX: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Everything that runs. The order of the fields is that of the end.
pub(super) struct Stage {
    pub(super) daemon: Leashed,
    /// The application's session, as its least-privileged writer.
    pub(super) application: Session,
    /// The comparison's session, as superuser.
    pub(super) observer: Session,
    pub(super) sandbox: Sandbox,
    cluster: Cluster,
}

impl Stage {
    /// Starts everything, the daemon last, and answers the school that lives there.
    pub(super) async fn set(seed: u64) -> Result<(Stage, School), Failure> {
        let started = tokio::task::spawn_blocking(|| Cluster::start(Options::default())).await;
        let started = started.map_err(|error| fault(error, "starting the private PostgreSQL"))?;
        let cluster = started.map_err(no_cluster)?;
        let settings = Settings {
            requests_per_window: Some(REQUESTS_PER_WINDOW),
            latency: LATENCY,
            seed,
            ..Settings::default()
        };
        let sandbox = Sandbox::tutoring(settings).await;
        let sandbox = sandbox.map_err(|error| {
            let error = anyhow::Error::new(error).context("starting the stand-in for HubSpot");
            Failure::new(exit::UNAVAILABLE, error)
        })?;
        let school = School::found(seed, &mut sandbox.world());
        let database = furnish(&cluster, &school).await;
        let (application, observer) = database.map_err(|error| fault(error, "preparing the database"))?;
        let daemon = Leashed::start(
            cluster.directory(),
            &Ends {
                database_url: cluster.url_as(ROLE, DATABASE),
                base_url: sandbox.base_url(),
                token: sandbox.token(),
            },
        )?;
        let stage = Stage {
            daemon,
            application,
            observer,
            sandbox,
            cluster,
        };
        Ok((stage, school))
    }

    /// Waits until the daemon's first sweep has ended; answers it.
    pub(super) async fn swept_first(&mut self) -> Result<serde_json::Value, Failure> {
        let begin = Instant::now();
        loop {
            self.daemon.lives()?;
            let status = self.daemon.status().await.unwrap_or_default();
            if status["last_sweep"].is_object() && status["listener"] == "armed" {
                return Ok(status["last_sweep"].clone());
            }
            if begin.elapsed() > READY_MAX {
                return Err(self
                    .daemon
                    .fails("the daemon does not come to the end of its first sweep"));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Where to look at what runs.
    pub(super) fn places(&self, school: &School) -> String {
        let (url, base) = (self.cluster.url(DATABASE), self.sandbox.base_url());
        let (socket, log) = (self.daemon.socket().display(), self.daemon.log().display());
        let (students, bookings, exams) = (school.students.len(), school.bookings.len(), school.exams.len());
        format!(
            "  the application  {students} students, {bookings} bookings, {exams} mock exams in a private PostgreSQL
                   psql '{url}'
  HubSpot          a stand-in on {base}, {REQUESTS_PER_WINDOW} requests in 10 s, {} ms each
                   curl {base}/_sandbox/records/bookings
  the daemon       as role {ROLE}, which owns nothing, with row level security on
                   curl --unix-socket {socket} http://hubsyncd/status
                   tail -f {log}",
            LATENCY.as_millis()
        )
    }
}

/// The application's tables, its school, and what setup installs; answers the application's session and a
/// superuser's.
async fn furnish(cluster: &Cluster, school: &School) -> anyhow::Result<(Session, Session)> {
    let run = async |session: &Session, doing: &str, sql: &str| {
        let done = session.batch_execute(sql).await;
        done.map_err(|error| Error::from_client(doing, error))
    };
    let open = async |url: String| -> anyhow::Result<Session> {
        Ok(connect::connect(&Address::parse(&url)?, "demo").await?)
    };
    let first = open(cluster.url("postgres")).await?;
    run(&first, "making the roles", ROLES).await?;
    let create = format!("CREATE DATABASE {DATABASE} OWNER app_owner");
    run(&first, "making the database", &create).await?;
    let mut owner = open(cluster.url_as("app_owner", DATABASE)).await?;
    run(&owner, "making the application's tables", SCHEMA).await?;
    run(&owner, "granting the application its rights", RIGHTS).await?;
    let application = open(cluster.url_as("app", DATABASE)).await?;
    run(&application, "filling the application's tables", &school.sql()).await?;
    setup::setup(&mut owner, &Mapping::built_in(), &setup::Options::for_role(ROLE)).await?;
    let observer = open(cluster.url(DATABASE)).await?;
    Ok((application, observer))
}

fn no_cluster(error: ClusterError) -> Failure {
    Failure::new(exit::UNAVAILABLE, anyhow::Error::new(error))
}
