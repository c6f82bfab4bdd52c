//! Sweeps: at HubSpot's limit, and as fast as two cores can.

use super::ground::{self, Ground, NO_SWEEP, UNLIMITED};
use super::latency;
use super::process::{cpu_seconds, cpu_seconds_with_children};
use super::support::daemon::{Daemon, Stage};
use super::table::{Goal, Measured};
use hubsyncd::sandbox::{Endpoint, Settings, World};
use std::time::{Duration, Instant};

/// HubSpot's round trip.
const ROUND_TRIP: Duration = Duration::from_millis(300);

/// Sweeps at both of HubSpot's limits, and live changes beside a third, all at the same time: each waits nearly always.
pub async fn at_the_limit(ground: &Ground) -> Vec<Measured> {
    let (mut low, high, beside) = futures::join!(
        at_a_limit(ground, 100),
        at_a_limit(ground, 190),
        latency::beside_a_sweep(ground)
    );
    low.extend(high);
    low.extend(beside);
    low
}

async fn at_a_limit(ground: &Ground, limit: u32) -> Vec<Measured> {
    let over = ground.scale(Duration::from_secs(60), Duration::from_secs(3));
    let rows = (f64::from(limit) * 10.0 * (over.as_secs_f64() + 6.0)) as usize;
    let toml = format!("[hubspot]\nrequests = {limit}\n{NO_SWEEP}");
    let stage = ground
        .stage("limit", ground::limited(limit, ROUND_TRIP), &toml)
        .await;
    ground::known_contacts(&stage, rows).await;
    let daemon = stage.start().await;
    daemon.post("/sweep").await;
    // What was asked at the start is still in the window: the count begins when it is not any more.
    tokio::time::sleep(ground.scale(Duration::from_secs(2), Duration::from_secs(1))).await;
    let (from, begun) = (updated(&stage.sandbox.world()), Instant::now());
    tokio::time::sleep(over).await;
    let (to, took) = (updated(&stage.sandbox.world()), begun.elapsed());
    daemon.kill();
    let records = (to - from) as f64 * 100.0;
    let share = records / took.as_secs_f64() / (f64::from(limit) / 10.0 * 100.0);
    let refused = stage.sandbox.world().answered_with(429) as f64;
    vec![
        Measured::new(
            format!(
                "sweep at {limit}/10 s, 300 ms latency, over {} s: records/s ÷ (limit × 100)",
                over.as_secs()
            ),
            Goal::AtLeast(0.94),
            "",
            vec![share],
        ),
        Measured::new("429s meanwhile", Goal::AtMost(0.0), "", vec![refused]),
    ]
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
    let ((own, postgres), begun) = (usage(), Instant::now());
    let run = daemon.sweep().await;
    let seconds = begun.elapsed().as_secs_f64();
    assert_eq!(run["outcome"], "complete", "{run}");
    assert_eq!(run["summary"]["contacts"]["updated"], rows, "{run}");
    assert_eq!(stage.sandbox.world().answered_with(429), 0, "no limit was met");
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
            format!("sweep of {rows} rows, limit off, Postgres and sandbox on the same cores"),
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
