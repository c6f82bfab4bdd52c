//! From the application's commit to HubSpot's acceptance.
//!
//! The clock of a change starts when its commit has returned to the application and stops when the sandbox has carried
//! out the write and this process has seen that it has.

use super::ground::{self, Ground, NO_SWEEP, UNLIMITED};
use super::samples::{ms, percentile};
use super::support::daemon::{CONTACTS, Stage};
use super::table::{Goal, Measured};
use futures::future::join_all;
use hubsyncd::postgres::Session;
use hubsyncd::sandbox::{Sandbox, Settings, World, Write};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The time a change may take before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(60);
/// The round trip of the live changes beside a sweep.
const ROUND_TRIP: Duration = Duration::from_millis(300);

/// Latencies in milliseconds of changes made at a steady rate, each of a row of its own.
pub async fn of_changes(stage: &Stage, from: usize, count: usize, per_second: f64) -> Vec<f64> {
    let seen = Seen::of(&stage.sandbox);
    let watch = tokio::spawn(Arc::clone(&seen).watch(Arc::clone(&stage.sandbox), from, count));
    let clients = ((per_second / 30.0) as usize).clamp(1, 32);
    let opened = (0..clients).map(|_| stage.database.session_as("app"));
    let sessions = join_all(opened).await;
    let begun = Instant::now();
    let writing = sessions.iter().enumerate().map(|(client, session)| async move {
        let mut committed = Vec::new();
        for at in (client..count).step_by(clients) {
            let due = begun + Duration::from_secs_f64(at as f64 / per_second);
            tokio::time::sleep_until(due.into()).await;
            committed.push((from + at, change(session, from + at).await));
        }
        committed
    });
    let committed: Vec<(usize, Instant)> = join_all(writing).await.into_iter().flatten().collect();
    let accepted = watch.await.unwrap();
    let taken = committed.iter().map(|(at, committed)| {
        let accepted = accepted.get(at).expect("every change was accepted");
        ms(accepted.saturating_duration_since(*committed))
    });
    taken.collect()
}

/// Gives the contact of this number a value that only a change of it gives, and another than it has from the last one;
/// answers when it was committed.
async fn change(session: &Session, at: usize) -> Instant {
    let value = at + 1000;
    let sql = format!(
        "UPDATE hubspot_sync.hubspot_contact_credits
         SET sj_credits = CASE sj_credits WHEN {value} THEN -{value} ELSE {value} END WHERE student_id = 'p{at}'"
    );
    session.batch_execute(&sql).await.unwrap();
    Instant::now()
}

/// What the sandbox has written, as it is seen.
struct Seen {
    /// By change, when it was first seen written.
    accepted: Mutex<HashMap<usize, Instant>>,
    /// Requests that were looked through.
    done: Mutex<HashSet<u64>>,
    first: u64,
}

impl Seen {
    fn of(sandbox: &Sandbox) -> Arc<Seen> {
        let first = sandbox
            .world()
            .requests()
            .next_back()
            .map_or(0, |request| request.number + 1);
        Arc::new(Seen {
            accepted: Mutex::default(),
            done: Mutex::default(),
            first,
        })
    }

    /// Watches until so many changes, counted from `from`, were accepted.
    async fn watch(
        self: Arc<Seen>,
        sandbox: Arc<Sandbox>,
        from: usize,
        count: usize,
    ) -> HashMap<usize, Instant> {
        let wanted = from..from + count;
        let all = sandbox.wait_until(PATIENCE, |world| {
            self.look(world, &wanted);
            self.accepted.lock().unwrap().len() >= count
        });
        assert!(all.await, "every change is accepted within {PATIENCE:?}");
        std::mem::take(&mut *self.accepted.lock().unwrap())
    }

    fn look(&self, world: &World, wanted: &std::ops::Range<usize>) {
        let now = Instant::now();
        let mut done = self.done.lock().unwrap();
        let mut accepted = self.accepted.lock().unwrap();
        // Requests are numbered as they arrive; what is older than the newest hundred was answered long ago.
        let newest = world
            .requests()
            .rev()
            .take_while(|request| request.number >= self.first)
            .take(100);
        for request in newest.filter(|request| !request.writes.is_empty()) {
            if !done.insert(request.number) {
                continue;
            }
            for write in &request.writes {
                let Write::Record {
                    object, properties, ..
                } = write
                else {
                    continue;
                };
                let value = properties
                    .iter()
                    .find(|(name, _)| object == CONTACTS && name == "sj_credits");
                let at = value.and_then(|(_, value)| {
                    value
                        .trim_start_matches('-')
                        .parse::<usize>()
                        .ok()?
                        .checked_sub(1000)
                });
                if let Some(at) = at.filter(|at| wanted.contains(at)) {
                    accepted.entry(at).or_insert(now);
                }
            }
        }
    }
}

pub async fn lone(ground: &Ground) -> Vec<Measured> {
    let count = ground.scale(200, 20);
    let toml = format!("[batch]\nmax-delay = \"0ms\"\n{UNLIMITED}{NO_SWEEP}");
    let stage = ground.stage("lone", Settings::default(), &toml).await;
    let turns = ground.scale(5, 1);
    ground::known_contacts(&stage, (turns + 1) * count).await;
    let daemon = stage.start().await;
    of_changes(&stage, turns * count, count / 4, 20.0).await;
    let (mut half, mut most) = (Vec::new(), Vec::new());
    for turn in 0..turns {
        let taken = of_changes(&stage, turn * count, count, 20.0).await;
        half.push(percentile(&taken, 50.0));
        most.push(percentile(&taken, 99.0));
    }
    ground::stop(daemon).await;
    vec![
        Measured::new(
            "commit → accepted, lone changes at 20/s, no latency, no limit, max-delay 0: p50 (graphile-worker with the \
             official client elsewhere: 6.4 ms)",
            Goal::AtMost(3.0),
            " ms",
            half,
        ),
        Measured::new(
            "the same: p99 (graphile-worker elsewhere: 15.4 ms)",
            Goal::AtMost(10.0),
            " ms",
            most,
        ),
    ]
}

pub async fn stream(ground: &Ground) -> Vec<Measured> {
    let count = ground.scale(4_000, 400);
    let turns = ground.scale(5, 1);
    let stage = ground
        .stage("stream", Settings::default(), &format!("{UNLIMITED}{NO_SWEEP}"))
        .await;
    let max_delay = stage_max_delay(&stage);
    ground::known_contacts(&stage, turns * count).await;
    let daemon = stage.start().await;
    let (mut half, mut most) = (Vec::new(), Vec::new());
    for turn in 0..turns {
        let taken = of_changes(&stage, turn * count, count, 500.0).await;
        half.push(percentile(&taken, 50.0));
        most.push(percentile(&taken, 99.0) - max_delay);
    }
    ground::stop(daemon).await;
    vec![
        Measured::new(
            "commit → accepted at 500 changes/s, no limit, default max-delay: p99 above max-delay",
            Goal::AtMost(50.0),
            " ms",
            most,
        ),
        Measured::new("the same: p50", Goal::None, " ms", half),
    ]
}

/// The default of `max-delay`, in milliseconds, as the configuration has it.
fn stage_max_delay(stage: &Stage) -> f64 {
    ms(stage.configured().batch.max_delay)
}

/// The limit of the sweep that live changes are made beside.
pub const BESIDE: u32 = 100;

/// Rows of the sweep, and live changes of each kind.
fn beside_counts(ground: &Ground) -> (usize, usize) {
    (ground.scale(70_000, 3_000), ground.scale(30, 3))
}

/// A stage for [`beside_a_sweep`].
pub async fn stage_beside(ground: &Ground) -> Stage {
    let toml = format!("[batch]\nmax-delay = \"0ms\"\n[hubspot]\nrequests = {BESIDE}\n{NO_SWEEP}");
    let stage = ground
        .stage("beside", ground::limited(BESIDE, ROUND_TRIP), &toml)
        .await;
    let (rows, count) = beside_counts(ground);
    ground::known_contacts(&stage, rows + 2 * count).await;
    stage
}

/// Milliseconds that a sweep, which takes all that the limit leaves it, adds to live changes at p99; as many changes a
/// window as are kept for them.
pub async fn beside_a_sweep(ground: &Ground, stage: &Stage) -> f64 {
    let (rows, count) = beside_counts(ground);
    let daemon = stage.start().await;
    let alone = of_changes(stage, rows, count, 4.0).await;
    daemon.post("/sweep").await;
    let beside = of_changes(stage, rows + count, count, ground.scale(0.5, 4.0)).await;
    let unfinished = daemon.status().await["last_sweep"]["finished_at"].is_null();
    assert!(unfinished, "the sweep went on beside the changes");
    daemon.kill();
    percentile(&beside, 99.0) - percentile(&alone, 99.0)
}

/// What one of `limit` requests a window and a round trip may add.
pub fn slot_and_round_trip(limit: u32) -> f64 {
    10_000.0 / f64::from(limit) + ms(ROUND_TRIP)
}
