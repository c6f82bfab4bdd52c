//! What capture costs the owner of the database, with the doorbell armed: by the number of writers, by the size of the
//! statement, in log written and in dead rows; beside one NOTIFY a commit, and nothing at all.
//!
//! A daemon sleeps at the doorbell, and HubSpot takes next to nothing: what is written is the application's own.

use super::bulk::timed;
use super::ground::{self, Ground, NO_SWEEP};
use super::support::daemon::{Daemon, Stage};
use super::table::{Goal, Measured, count};
use super::writers::{NOTIFY, Writers};
use hubsyncd::sandbox::{Endpoint, Settings, When};
use std::time::Duration;

const TABLE: &str = "hubspot_sync.hubspot_contact_credits";
/// Writers at a time.
const WRITERS: [usize; 3] = [1, 16, 64];

/// The three ways to be compared.
struct Ways {
    bare: Stage,
    notify: Stage,
    captured: Stage,
}

impl Ways {
    fn each(&self) -> [(&'static str, &Stage); 3] {
        [
            ("no capture", &self.bare),
            ("one NOTIFY a commit", &self.notify),
            ("capture", &self.captured),
        ]
    }
}

pub async fn measure(ground: &Ground) -> Vec<Measured> {
    let rows = ground.scale(100_000, 2_000);
    let ways = Ways {
        bare: ground.bare("cost_bare", "").await,
        notify: ground.bare("cost_notify", NOTIFY).await,
        captured: ground.stage("cost_captured", Settings::default(), NO_SWEEP).await,
    };
    ground::contacts(&ways.bare, rows).await;
    ground::contacts(&ways.notify, rows).await;
    ground::known_contacts(&ways.captured, rows).await;
    let mut measured = by_writers(ground, &ways).await;
    for size in [1, rows.min(100), rows] {
        measured.extend(by_size(ground, &ways, size).await);
    }
    measured.extend(log_and_dead_rows(ground, &ways).await);
    measured
}

/// Commits a second of each way, in turns.
async fn by_writers(ground: &Ground, ways: &Ways) -> Vec<Measured> {
    let span = ground.scale(Duration::from_millis(1500), Duration::from_millis(100));
    let mut measured = Vec::new();
    for count in ground.scale(WRITERS, [1, 2, 4]) {
        let mut of_way = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..ground.scale(3, 1) {
            for ((_, stage), samples) in ways.each().into_iter().zip(&mut of_way) {
                let writers = Writers::of(stage, count).await;
                let daemon = armed(stage, ways).await;
                samples.push(writers.throughput(span).await);
                disarm(daemon).await;
                stage.sql("CHECKPOINT").await;
            }
        }
        for ((way, _), samples) in ways.each().into_iter().zip(of_way) {
            let what = format!("commits a second, {}: {way}", plural(count, "writer"));
            measured.push(Measured::new(what, Goal::None, "", samples));
        }
    }
    measured
}

fn plural(number: usize, what: &str) -> String {
    format!("{} {what}{}", count(number), if number == 1 { "" } else { "s" })
}

/// A daemon at the doorbell of the stage that has one, with nothing waiting and next to no request to send.
async fn armed(stage: &Stage, ways: &Ways) -> Option<Daemon> {
    if !std::ptr::eq(stage, &raw const ways.captured) {
        return None;
    }
    stage.sql("TRUNCATE hubsyncd.change").await;
    stage.sandbox.limit(None, None);
    let daemon = stage.start().await;
    stage.sandbox.limit(Some(1), None);
    Some(daemon)
}

/// Ends the daemon of [`armed`], well: the next one would wait for it else.
async fn disarm(daemon: Option<Daemon>) {
    if let Some(daemon) = daemon {
        ground::stop(daemon).await;
    }
}

/// Milliseconds a statement of so many rows, of each way, in turns.
async fn by_size(ground: &Ground, ways: &Ways, size: usize) -> Vec<Measured> {
    let sql = format!(
        "UPDATE {TABLE} SET sj_credits = sj_credits + 1 WHERE id IN (SELECT id FROM {TABLE} ORDER BY id LIMIT {size})"
    );
    let mut of_way = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..ground.scale(5, 1) {
        for ((_, stage), samples) in ways.each().into_iter().zip(&mut of_way) {
            let daemon = armed(stage, ways).await;
            samples.push(timed(stage, &sql).await);
            disarm(daemon).await;
        }
    }
    let rows = ways.each().into_iter().zip(of_way);
    rows.map(|((way, _), samples)| {
        Measured::new(
            format!("an UPDATE of {}: {way}", plural(size, "row")),
            Goal::None,
            " ms",
            samples,
        )
    })
    .collect()
}

/// Bytes of log and dead rows that a change of one row leaves; where it is captured, without its pushing and with it.
async fn log_and_dead_rows(ground: &Ground, ways: &Ways) -> Vec<Measured> {
    let changes = ground.scale(1_000, 100);
    let names = [
        "no capture",
        "one NOTIFY a commit",
        "capture alone",
        "capture, push and receipt",
    ];
    let mut of_name: [(Vec<f64>, Vec<f64>); 4] = Default::default();
    for _ in 0..ground.scale(3, 1) {
        for (column, (_, stage)) in ways.each().into_iter().enumerate() {
            ground::tidy(stage, TABLE).await;
            let daemon = armed(stage, ways).await;
            stage.sandbox.limit(None, None);
            let hold = stage.sandbox.hold_all(Endpoint::Update, When::Before);
            let before = (number(stage, LOG).await, dead_rows(stage).await);
            let mut left = async |column: usize| {
                let log = number(stage, LOG).await - before.0;
                let dead = dead_rows(stage).await - before.1;
                of_name[column].0.push(log / f64::from(changes));
                of_name[column].1.push(dead / f64::from(changes));
            };
            change_one_by_one(stage, changes).await;
            left(column).await;
            hold.release();
            if let Some(daemon) = daemon {
                stage.wait_drained().await;
                ground::stop(daemon).await;
                left(3).await;
            }
            stage.sandbox.clear_faults();
        }
    }
    let mut measured = Vec::new();
    for (what, unit, pick) in [
        ("write-ahead log per change of one row", " bytes", 0),
        ("dead rows per change of one row", "", 1),
    ] {
        for (name, (log, dead)) in names.iter().zip(&of_name) {
            let samples = if pick == 0 { log } else { dead };
            let what = format!("{what}: {name}");
            measured.push(Measured::new(what, Goal::None, unit, samples.clone()));
        }
    }
    measured
}

async fn change_one_by_one(stage: &Stage, changes: i32) {
    let session = stage.database.session_as("app").await;
    let update = format!("UPDATE {TABLE} SET sj_credits = sj_credits + 1 WHERE student_id = 'p' || $1::int");
    let update = session.prepare(&update).await.unwrap();
    for change in 0..changes {
        session.execute(&update, &[&change]).await.unwrap();
    }
}

const LOG: &str = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')";

/// Rows that updates and deletes have left dead so far. A session tells of its own when it ends, or once a second.
async fn dead_rows(stage: &Stage) -> f64 {
    tokio::time::sleep(Duration::from_millis(1200)).await;
    number(
        stage,
        "SELECT sum(n_tup_upd + n_tup_del) FROM pg_stat_user_tables",
    )
    .await
}

async fn number(stage: &Stage, sql: &str) -> f64 {
    stage.value(sql).await.unwrap().parse().unwrap()
}
