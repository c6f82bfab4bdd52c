//! What capture costs one statement over a hundred thousand rows.

use super::ground::{self, Ground, NO_SWEEP};
use super::samples::{ms, ratios};
use super::support::daemon::Stage;
use super::table::{Goal, Measured, count};
use hubsyncd::sandbox::Settings;
use std::time::Instant;

const TABLE: &str = "hubspot_sync.hubspot_contact_credits";

/// How long a statement takes, in milliseconds; the table's dead rows are taken away after it.
pub async fn timed(stage: &Stage, sql: &str) -> f64 {
    let session = stage.database.session_as("app").await;
    let begun = Instant::now();
    session.batch_execute(sql).await.unwrap();
    let taken = ms(begun.elapsed());
    stage.sql(&format!("VACUUM {TABLE}")).await;
    taken
}

pub async fn measure(ground: &Ground) -> Vec<Measured> {
    let rows = ground.scale(100_000, 5_000);
    let captured = ground.stage("bulk_captured", Settings::default(), NO_SWEEP).await;
    let bare = ground.bare("bulk_bare", "").await;
    for stage in [&bare, &captured] {
        ground::contacts(stage, rows).await;
    }
    let sql = format!("UPDATE {TABLE} SET sj_credits = sj_credits + 1");
    let (mut with, mut without) = (Vec::new(), Vec::new());
    // The first of each grows the files of table and queue; from then on there is room in them.
    for turn in 0..ground.scale(8, 2) {
        bare.sql("CHECKPOINT").await;
        let (one, other) = (timed(&bare, &sql).await, timed(&captured, &sql).await);
        let named = captured.value("SELECT count(*) FROM hubsyncd.change").await;
        assert_eq!(named, Some(rows.to_string()), "every row is named");
        // As the daemon and autovacuum leave it.
        captured.sql("DELETE FROM hubsyncd.change").await;
        captured.sql("VACUUM hubsyncd.change").await;
        if turn > 0 {
            without.push(one);
            with.push(other);
        }
    }
    vec![
        Measured::new(
            format!("one UPDATE of {} rows with capture ÷ without", count(rows)),
            Goal::AtMost(1.5),
            "",
            ratios(&with, &without),
        ),
        Measured::new("that UPDATE: with capture", Goal::None, " ms", with),
        Measured::new("that UPDATE: without", Goal::None, " ms", without),
    ]
}
