//! Sweeps: at HubSpot's limit, and as fast as two cores can.

use super::ground::{self, Ground, NO_SWEEP, UNLIMITED};
use super::latency;
use super::process::{cpu_seconds, cpu_seconds_with_children};
use super::support::daemon::{Daemon, Stage};
use super::table::{Goal, Measured, count};
use futures::future::join_all;
use hubsyncd::sandbox::{Endpoint, Settings, World};
use std::time::{Duration, Instant};

/// HubSpot's round trip.
const ROUND_TRIP: Duration = Duration::from_millis(300);

/// HubSpot's limits.
const LIMITS: [u32; 2] = [100, 190];

/// Sweeps at both of HubSpot's limits, and live changes beside others, all several times and at the same time: each waits
/// nearly always.
pub async fn at_the_limit(ground: &Ground) -> Vec<Measured> {
    let turns = ground.scale(3, 1);
    let over = ground.scale(Duration::from_secs(60), Duration::from_secs(3));
    let (mut swept, mut beside) = (Vec::new(), Vec::new());
    // Nothing is measured while rows are made.
    for _ in 0..turns {
        for limit in LIMITS {
            swept.push((limit, stage_at(ground, limit, over).await));
        }
        beside.push(latency::stage_beside(ground).await);
    }
    let sweeps = swept
        .iter()
        .map(|(limit, stage)| share_of(ground, stage, *limit, over));
    let changes = beside.iter().map(|stage| latency::beside_a_sweep(ground, stage));
    let (shares, added) = futures::join!(join_all(sweeps), join_all(changes));
    let refused = |stage: &Stage| stage.sandbox.world().answered_with(429) as f64;
    let mut rows = Vec::new();
    for limit in LIMITS {
        let of_limit = || swept.iter().zip(&shares).filter(move |((of, _), _)| *of == limit);
        rows.push(Measured::new(
            format!(
                "sweep at {limit}/10 s, 300 ms latency, over {} s: records/s ÷ (limit × 100)",
                over.as_secs()
            ),
            Goal::AtLeast(0.94),
            "",
            of_limit().map(|(_, share)| *share).collect(),
        ));
        rows.push(Measured::new(
            format!("429s meanwhile, at {limit}/10 s"),
            Goal::AtMost(0.0),
            "",
            of_limit().map(|((_, stage), _)| refused(stage)).collect(),
        ));
    }
    let limit = latency::BESIDE;
    rows.push(Measured::new(
        format!("live change while a sweep runs at {limit}/10 s, 300 ms latency: added p99"),
        Goal::AtMost(latency::slot_and_round_trip(limit)),
        " ms",
        added,
    ));
    rows.push(Measured::new(
        "429s meanwhile, beside live changes",
        Goal::AtMost(0.0),
        "",
        beside.iter().map(refused).collect(),
    ));
    rows
}

/// A stage with more rows than a sweep at this limit gets through in time.
async fn stage_at(ground: &Ground, limit: u32, over: Duration) -> Stage {
    let rows = (f64::from(limit) * 10.0 * (over.as_secs_f64() + 6.0)) as usize;
    let toml = format!("[hubspot]\nrequests = {limit}\n{NO_SWEEP}");
    let stage = ground
        .stage("limit", ground::limited(limit, ROUND_TRIP), &toml)
        .await;
    ground::known_contacts(&stage, rows).await;
    stage
}

/// The share of what the limit allows that a sweep updates.
async fn share_of(ground: &Ground, stage: &Stage, limit: u32, over: Duration) -> f64 {
    let daemon = stage.start().await;
    daemon.post("/sweep").await;
    // What was asked at the start is still in the window: the count begins when it is not any more.
    tokio::time::sleep(ground.scale(Duration::from_secs(2), Duration::from_secs(1))).await;
    let (from, begun) = (updated(&stage.sandbox.world()), Instant::now());
    tokio::time::sleep(over).await;
    let (to, took) = (updated(&stage.sandbox.world()), begun.elapsed());
    daemon.kill();
    let records = (to - from) as f64 * 100.0;
    records / took.as_secs_f64() / (f64::from(limit) / 10.0 * 100.0)
}

/// Requests that have updated records so far; a sweep's are full, but for its last.
fn updated(world: &World) -> u64 {
    world.count(Endpoint::Update)
}

/// What a whole sweep took.
pub struct Swept {
    pub seconds: f64,
    pub rows: usize,
    pub daemon_cpu: f64,
    pub postgres_cpu: f64,
}

/// Sweeps everything once and checks that every row was updated.
pub async fn sweep(ground: &Ground, stage: &Stage, daemon: &Daemon, rows: usize) -> Swept {
    let usage = || {
        (
            cpu_seconds(daemon.pid()),
            cpu_seconds_with_children(ground.postgres()),
        )
    };
    let refused = || stage.sandbox.world().answered_with(429);
    let refused_before = refused();
    let ((own, postgres), begun) = (usage(), Instant::now());
    let run = daemon.sweep().await;
    let seconds = begun.elapsed().as_secs_f64();
    assert_eq!(run["outcome"], "complete", "{run}");
    assert_eq!(run["summary"]["contacts"]["updated"], rows, "{run}");
    assert_eq!(refused(), refused_before, "no limit was met");
    let (own_then, postgres_then) = usage();
    Swept {
        seconds,
        rows,
        daemon_cpu: own_then - own,
        postgres_cpu: postgres_then - postgres,
    }
}

pub async fn without_limit(ground: &Ground) -> Vec<Measured> {
    let rows = ground.scale(100_000, 3_000);
    let stage = ground
        .stage(
            "unlimited",
            Settings::default(),
            &format!("{UNLIMITED}{NO_SWEEP}"),
        )
        .await;
    ground::known_contacts(&stage, rows).await;
    let daemon = stage.start().await;
    let mut swept = Vec::new();
    for _ in 0..ground.scale(5, 1) {
        ground::tidy(&stage, "hubspot_sync.hubspot_contact_credits").await;
        swept.push(sweep(ground, &stage, &daemon, rows).await);
    }
    ground::stop(daemon).await;
    let each = |of: fn(&Swept) -> f64| swept.iter().map(of).collect::<Vec<f64>>();
    vec![
        Measured::new(
            format!(
                "sweep of {} rows, limit off, Postgres and sandbox on the same cores",
                count(rows)
            ),
            Goal::AtLeast(20_000.0),
            " rows/s",
            each(|swept| swept.rows as f64 / swept.seconds),
        ),
        Measured::new(
            "that sweep: the daemon's processor time",
            Goal::None,
            " µs a row",
            each(|swept| swept.daemon_cpu / swept.rows as f64 * 1e6),
        ),
        Measured::new(
            "that sweep: Postgres' processor time",
            Goal::None,
            " µs a row",
            each(|swept| swept.postgres_cpu / swept.rows as f64 * 1e6),
        ),
    ]
}
