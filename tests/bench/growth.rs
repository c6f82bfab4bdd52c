//! How sweeps, changes and memory grow with the table.

use super::ground::{self, Ground, NO_SWEEP, UNLIMITED};
use super::latency;
use super::plot::{Line, plot};
use super::process::peak_mb;
use super::samples::percentile;
use super::support::daemon::Stage;
use super::support::wait_within;
use super::sweeps::{self, Swept};
use super::table::{Goal, Measured};
use hubsyncd::sandbox::Settings;
use std::path::Path;
use std::time::Duration;

/// How long the daemon looks at what waits.
const LOOKING: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(120);

/// What was found at a size of the table.
struct Point {
    rows: usize,
    /// The median of lone changes, in milliseconds.
    latency: f64,
    swept: Swept,
    /// MB.
    memory: f64,
}

pub async fn measure(ground: &Ground) -> Vec<Measured> {
    let sizes = ground.scale([10_000, 100_000, 1_000_000], [500, 1_000, 3_000]);
    let changes = ground.scale(100, 10);
    let toml = format!("[batch]\nmax-delay = \"0ms\"\n{UNLIMITED}{NO_SWEEP}");
    let stage = ground.stage("growth", Settings::default(), &toml).await;
    ground::known_contacts(&stage, changes).await;
    let daemon = stage.start().await;
    let empty = latency::of_changes(&stage, 0, changes, 20.0).await;
    ground::stop(daemon).await;
    let mut points = Vec::new();
    let mut from = changes;
    for rows in sizes {
        ground::more_contacts(&stage, from, rows).await;
        from = rows;
        points.push(at(ground, &stage, rows, changes).await);
    }
    let waiting = waiting(ground, &stage, from).await;
    let drawing = draw(&points);
    rows_of(&points, percentile(&empty, 50.0), waiting, &drawing)
}

async fn at(ground: &Ground, stage: &Stage, rows: usize, changes: usize) -> Point {
    let daemon = stage.start().await;
    let taken = latency::of_changes(stage, rows - changes, changes, 20.0).await;
    let swept = sweeps::sweep(ground, stage, &daemon, rows).await;
    let memory = peak_mb(daemon.pid());
    ground::stop(daemon).await;
    Point {
        rows,
        latency: percentile(&taken, 50.0),
        swept,
        memory,
    }
}

/// The peak memory of a daemon that lets all rows' changes wait, since HubSpot takes next to no request.
async fn waiting(ground: &Ground, stage: &Stage, rows: usize) -> f64 {
    let daemon = stage.start().await;
    stage.sandbox.limit(Some(2), None);
    let all = "UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = sj_credits + 1";
    stage.app(all).await;
    wait_within(PATIENCE, "the daemon knows what waits", async || {
        let pending = daemon.status().await["pending"].as_u64().unwrap_or_default();
        pending as usize >= rows - rows / 2
    })
    .await;
    tokio::time::sleep(ground.scale(LOOKING, LOOKING / 10)).await;
    let peak = peak_mb(daemon.pid());
    daemon.kill();
    peak
}

/// Draws the lines; answers where.
fn draw(points: &[Point]) -> String {
    let line = |title, of: fn(&Point) -> f64| Line {
        title,
        points: points
            .iter()
            .map(|point| (point.rows as f64, of(point)))
            .collect(),
    };
    let lines = [
        line("sweep, seconds", |point| point.swept.seconds),
        line("sweep, Postgres' processor seconds", |point| {
            point.swept.postgres_cpu
        }),
        line("peak memory, MB", |point| point.memory),
        line("lone change, median, ms", |point| point.latency),
    ];
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("growth.svg");
    std::fs::write(&path, plot("rows in the table", &lines)).unwrap();
    let place = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap_or(&path);
    place.display().to_string()
}

fn rows_of(points: &[Point], empty: f64, waiting: f64, drawing: &str) -> Vec<Measured> {
    let mut rows = Vec::new();
    for point in points {
        let size = point.rows;
        let swept = &point.swept;
        let mut row = |what: &str, unit, value| {
            rows.push(Measured::new(
                format!("{size} rows: {what}"),
                Goal::None,
                unit,
                vec![value],
            ));
        };
        row("sweep, limit off", " s", swept.seconds);
        row("the daemon's processor time of it", " s", swept.daemon_cpu);
        row("Postgres' processor time of it", " s", swept.postgres_cpu);
        row("lone change, p50", " ms", point.latency);
    }
    let (first, last) = (&points[0], &points[points.len() - 1]);
    let a_row = |point: &Point| point.swept.seconds / point.rows as f64;
    rows.push(Measured::new(
        format!(
            "sweep time a row, {} rows ÷ {} rows (drawn: {drawing})",
            last.rows, first.rows
        ),
        Goal::AtMost(1.25),
        "",
        vec![a_row(last) / a_row(first)],
    ));
    rows.push(Measured::new(
        format!("lone change p50, {} rows ÷ none but those that change", last.rows),
        Goal::AtMost(1.25),
        "",
        vec![last.latency / empty],
    ));
    rows.push(Measured::new(
        format!("peak memory, sweeping {} rows", last.rows),
        Goal::AtMost(40.0),
        " MB",
        vec![last.memory],
    ));
    rows.push(Measured::new(
        format!("peak memory, {} changes waiting", last.rows),
        Goal::AtMost(40.0),
        " MB",
        vec![waiting],
    ));
    rows
}
