//! How sweeps, changes and memory grow with the table.

use super::ground::{self, Ground, NO_SWEEP, UNLIMITED};
use super::latency;
use super::memory;
use super::plot::{Line, plot};
use super::process::peak_mb;
use super::samples::{median, percentile};
use super::support::daemon::Stage;
use super::sweeps::{self, Swept};
use super::table::{Goal, Measured, count};
use hubsyncd::sandbox::Settings;
use std::path::Path;

/// What was found at a size of the table, in every turn.
struct Point {
    rows: usize,
    /// The medians of lone changes, in milliseconds.
    latency: Vec<f64>,
    swept: Vec<Swept>,
    /// MB.
    memory: Vec<f64>,
}

pub async fn measure(ground: &Ground) -> Vec<Measured> {
    // How often, as often as there is time for.
    let sizes = ground.scale(
        [(10_000, 5), (100_000, 3), (1_000_000, 2)],
        [(500, 1), (1_000, 1), (3_000, 1)],
    );
    let changes = ground.scale(100, 10);
    let toml = format!("[batch]\nmax-delay = \"0ms\"\n{UNLIMITED}{NO_SWEEP}");
    let stage = ground.stage("growth", Settings::default(), &toml).await;
    ground::known_contacts(&stage, changes).await;
    let mut empty = Vec::new();
    for _ in 0..ground.scale(3, 1) {
        let daemon = stage.start().await;
        let taken = latency::of_changes(&stage, 0, changes, 20.0).await;
        empty.push(percentile(&taken, 50.0));
        ground::stop(daemon).await;
    }
    let mut points = Vec::new();
    let mut from = changes;
    for (rows, turns) in sizes {
        ground::more_contacts(&stage, from, rows).await;
        from = rows;
        points.push(at(ground, &stage, rows, (changes, turns)).await);
    }
    let waiting = memory::changes_wait(ground, &stage, from).await;
    let drawing = draw(&points);
    rows_of(&points, (changes, empty), waiting, &drawing)
}

async fn at(ground: &Ground, stage: &Stage, rows: usize, (changes, turns): (usize, usize)) -> Point {
    let mut point = Point {
        rows,
        latency: Vec::new(),
        swept: Vec::new(),
        memory: Vec::new(),
    };
    for _ in 0..turns {
        let daemon = stage.start().await;
        let taken = latency::of_changes(stage, rows - changes, changes, 20.0).await;
        point.latency.push(percentile(&taken, 50.0));
        // A row that a live change still holds is not the sweep's to count.
        daemon.settled().await;
        point
            .swept
            .push(sweeps::sweep(ground, stage, &daemon, rows).await);
        point.memory.push(peak_mb(daemon.pid()));
        ground::stop(daemon).await;
        ground::tidy(stage, "hubspot_sync.hubspot_contact_credits").await;
    }
    point
}

impl Point {
    fn each(&self, of: fn(&Swept) -> f64) -> Vec<f64> {
        self.swept.iter().map(of).collect()
    }
}

/// Draws the lines; answers where.
fn draw(points: &[Point]) -> String {
    let line = |title, of: fn(&Point) -> Vec<f64>| Line {
        title,
        points: points
            .iter()
            .map(|point| (point.rows as f64, median(&of(point))))
            .collect(),
    };
    let lines = [
        line("sweep, seconds", |point| point.each(|swept| swept.seconds)),
        line("sweep, Postgres' processor seconds", |point| {
            point.each(|swept| swept.postgres_cpu)
        }),
        line("peak memory, MB", |point| point.memory.clone()),
        line("lone change, median, ms", |point| point.latency.clone()),
    ];
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("growth.svg");
    std::fs::write(&path, plot("rows in the table", &lines)).unwrap();
    let place = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap_or(&path);
    place.display().to_string()
}

fn rows_of(
    points: &[Point],
    (changes, empty): (usize, Vec<f64>),
    waiting: f64,
    drawing: &str,
) -> Vec<Measured> {
    let none = median(&empty);
    let mut rows = vec![Measured::new(
        format!("lone change in a table of the {changes} rows that change: p50"),
        Goal::None,
        " ms",
        empty,
    )];
    for point in points {
        let size = count(point.rows);
        let mut row = |what: &str, unit, samples| {
            rows.push(Measured::new(
                format!("{what}, {size} rows"),
                Goal::None,
                unit,
                samples,
            ));
        };
        row("sweep, limit off", " s", point.each(|swept| swept.seconds));
        row(
            "the daemon's processor time for it",
            " s",
            point.each(|swept| swept.daemon_cpu),
        );
        row(
            "Postgres' processor time for it",
            " s",
            point.each(|swept| swept.postgres_cpu),
        );
        row("the daemon's peak memory", " MB", point.memory.clone());
        row("lone change: p50", " ms", point.latency.clone());
    }
    let (first, last) = (&points[0], &points[points.len() - 1]);
    let (small, large) = (count(first.rows), count(last.rows));
    let a_row = |point: &Point| -> Vec<f64> {
        let rows = point.rows as f64;
        point.swept.iter().map(|swept| swept.seconds / rows).collect()
    };
    let least = median(&a_row(first));
    rows.push(Measured::new(
        format!("sweep time per row, {large} rows ÷ {small} rows (drawn: {drawing})"),
        Goal::AtMost(1.25),
        "",
        a_row(last).iter().map(|seconds| seconds / least).collect(),
    ));
    rows.push(Measured::new(
        format!("lone change p50, {large} rows ÷ the {changes} that change"),
        Goal::AtMost(1.25),
        "",
        last.latency.iter().map(|latency| latency / none).collect(),
    ));
    rows.push(Measured::new(
        format!("peak memory, sweeping {large} rows"),
        Goal::AtMost(40.0),
        " MB",
        last.memory.clone(),
    ));
    rows.push(Measured::new(
        format!("peak memory, {large} changes waiting"),
        Goal::AtMost(40.0),
        " MB",
        vec![waiting],
    ));
    rows
}
