//! What capture costs writers: single-row updates by many of them, with it, without it, and with a NOTIFY a commit.

use super::ground::{self, Ground, NO_SWEEP};
use super::samples::ratios;
use super::support::daemon::Stage;
use super::table::{Goal, Measured};
use futures::future::join_all;
use hubsyncd::postgres::Session;
use std::time::{Duration, Instant};

/// Rows that the writers choose from.
const ROWS: usize = 10_000;
/// The limit that the daemon drains at.
const LIMIT: u32 = 190;

/// What every application that wants to know of changes at once does first.
pub const NOTIFY: &str = "
    CREATE FUNCTION hubspot_sync.tell() RETURNS trigger LANGUAGE plpgsql
        AS $$ BEGIN PERFORM pg_notify('changed', ''); RETURN NULL; END $$;
    CREATE TRIGGER tell AFTER UPDATE ON hubspot_sync.hubspot_contact_credits
        FOR EACH STATEMENT EXECUTE FUNCTION hubspot_sync.tell()";

/// The least that a trigger can do to note a change: one row of its key, without comparing, without care for failures, and
/// nobody to read it. What capture costs beyond that is ours; that is what a trigger costs.
const LEAST: &str = "
    CREATE TABLE hubspot_sync.noted (seq bigserial PRIMARY KEY, key text NOT NULL);
    CREATE FUNCTION hubspot_sync.note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
        AS $$ BEGIN INSERT INTO hubspot_sync.noted (key) VALUES (NEW.id::text); RETURN NULL; END $$;
    CREATE TRIGGER note AFTER UPDATE ON hubspot_sync.hubspot_contact_credits
        FOR EACH ROW EXECUTE FUNCTION hubspot_sync.note()";

/// Writers of one stage.
pub struct Writers {
    sessions: Vec<Session>,
    ids: Vec<String>,
}

impl Writers {
    pub async fn of(stage: &Stage, count: usize) -> Writers {
        let opened = (0..count).map(|_| stage.database.session_as("app"));
        let sessions = join_all(opened).await;
        let ids = sessions[0]
            .query("SELECT id::text FROM hubspot_sync.hubspot_contact_credits", &[])
            .await
            .unwrap();
        let ids = ids.iter().map(|row| row.get(0)).collect();
        Writers { sessions, ids }
    }

    /// Commits a second, of updates of one row each.
    pub async fn throughput(&self, span: Duration) -> f64 {
        let begun = Instant::now();
        let written = self
            .sessions
            .iter()
            .enumerate()
            .map(|(at, session)| self.write(session, at, begun, span));
        let commits: u64 = join_all(written).await.iter().sum();
        commits as f64 / begun.elapsed().as_secs_f64()
    }

    async fn write(&self, session: &Session, writer: usize, begun: Instant, span: Duration) -> u64 {
        let sql = "UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = sj_credits + 1 WHERE id = $1::text::uuid";
        let update = session.prepare(sql).await.unwrap();
        let mut dice = writer as u64 + 1;
        let mut commits = 0;
        while begun.elapsed() < span {
            dice = dice
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let id = &self.ids[(dice >> 33) as usize % self.ids.len()];
            session.execute(&update, &[id]).await.unwrap();
            commits += 1;
        }
        commits
    }
}

/// A stage with capture whose daemon drains what is written.
pub async fn captured(ground: &Ground, hint: &str) -> Stage {
    let toml = format!("[hubspot]\nrequests = {LIMIT}\n{NO_SWEEP}");
    let stage = ground
        .stage(hint, ground::limited(LIMIT, Duration::ZERO), &toml)
        .await;
    ground::known_contacts(&stage, ROWS).await;
    stage
}

pub async fn measure(ground: &Ground) -> Vec<Measured> {
    let clients = ground.scale(64, 8);
    let span = ground.scale(Duration::from_secs(4), Duration::from_millis(300));
    let bare = ground.bare("writers_bare", "").await;
    let notify = ground.bare("writers_notify", NOTIFY).await;
    let least = ground.bare("writers_least", LEAST).await;
    let captured = captured(ground, "writers_captured").await;
    for stage in [&bare, &notify, &least] {
        ground::contacts(stage, ROWS).await;
    }
    let on_bare = Writers::of(&bare, clients).await;
    let on_notify = Writers::of(&notify, clients).await;
    let on_least = Writers::of(&least, clients).await;
    let on_captured = Writers::of(&captured, clients).await;
    let (mut without, mut with, mut told) = (Vec::new(), Vec::new(), Vec::new());
    let (mut noted, mut alone) = (Vec::new(), Vec::new());
    for _ in 0..ground.scale(5, 1) {
        bare.sql("CHECKPOINT").await;
        // What is measured is neither the first writes after a checkpoint nor a daemon that wakes up, but one that drains.
        on_bare.throughput(span / 4).await;
        without.push(on_bare.throughput(span).await);
        on_notify.throughput(span / 4).await;
        told.push(on_notify.throughput(span).await);
        on_least.throughput(span / 4).await;
        noted.push(on_least.throughput(span).await);
        on_captured.throughput(span / 4).await;
        alone.push(on_captured.throughput(span).await);
        captured.sql("TRUNCATE hubsyncd.change").await;
        let daemon = captured.start().await;
        on_captured.throughput(span / 4).await;
        with.push(on_captured.throughput(span).await);
        assert!(
            captured.sandbox.world().requests().count() > 0,
            "the daemon drains"
        );
        ground::stop(daemon).await;
        captured.sql("TRUNCATE hubsyncd.change").await;
    }
    let throughputs = Throughputs {
        without,
        with,
        told,
        noted,
        alone,
    };
    throughputs.compared(clients)
}

/// Commits a second, by what the table's triggers do.
struct Throughputs {
    without: Vec<f64>,
    with: Vec<f64>,
    told: Vec<f64>,
    noted: Vec<f64>,
    alone: Vec<f64>,
}

impl Throughputs {
    fn compared(self, clients: usize) -> Vec<Measured> {
        vec![
            Measured::new(
                format!(
                    "writers' throughput, {clients} clients, with capture and a daemon draining at {LIMIT}/10 s ÷ without \
                     (graphile-worker's triggers elsewhere: 0.03 to 0.08)"
                ),
                Goal::AtLeast(0.75),
                "",
                ratios(&self.with, &self.without),
            ),
            Measured::new(
                "the same ÷ with one NOTIFY a commit",
                Goal::AtLeast(3.0),
                "",
                ratios(&self.with, &self.told),
            ),
            Measured::new(
                "writers' throughput, with capture and no daemon ÷ without",
                Goal::None,
                "",
                ratios(&self.alone, &self.without),
            ),
            Measured::new(
                "writers' throughput, with the least trigger that notes a change, and no daemon ÷ without",
                Goal::None,
                "",
                ratios(&self.noted, &self.without),
            ),
            Measured::new(
                "commits a second: with capture and a draining daemon",
                Goal::None,
                "",
                self.with,
            ),
            Measured::new("commits a second: without", Goal::None, "", self.without),
            Measured::new(
                "commits a second: with one NOTIFY a commit",
                Goal::None,
                "",
                self.told,
            ),
        ]
    }
}
