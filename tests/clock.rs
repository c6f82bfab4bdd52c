//! Tests: the built daemon by the clock on the wall. Its process is given a wall clock of the test's own; the clocks
//! that measure how long something takes stay right.

use super::support::daemon::{Daemon, Stage};
use super::support::wait_until;
use hubsyncd::sandbox::Settings;
use jiff::Timestamp;
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

/// A wall clock that can be set.
struct Wall {
    directory: TempDir,
}

impl Wall {
    fn at(time: &str) -> Wall {
        let wall = Wall {
            directory: tempfile::tempdir().unwrap(),
        };
        // The linker that Rust itself cannot do without is a C compiler too.
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(wall.library())
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/wall.c"))
            .status()
            .unwrap();
        assert!(built.success());
        wall.set(time);
        wall
    }

    fn library(&self) -> PathBuf {
        self.directory.path().join("wall.so")
    }

    fn offset(&self) -> PathBuf {
        self.directory.path().join("offset")
    }

    fn set(&self, time: &str) {
        let time: Timestamp = time.parse().unwrap();
        let wrong = time.as_millisecond() - Timestamp::now().as_millisecond();
        let next = self.directory.path().join("next");
        std::fs::write(&next, wrong.to_string()).unwrap();
        std::fs::rename(next, self.offset()).unwrap();
    }

    /// A daemon that goes by this clock, asleep with nothing to do.
    async fn start(&self, stage: &mut Stage) -> Daemon {
        stage.set("LD_PRELOAD", self.library().to_str().unwrap());
        stage.set("WALL_CLOCK_OFFSET", self.offset().to_str().unwrap());
        stage.start().await
    }
}

/// The minutes at which runs began, by the daemon's clock, and why.
async fn runs(stage: &Stage) -> String {
    let sql =
        "SELECT string_agg(to_char(started_at AT TIME ZONE 'UTC', 'DD HH24:MI ') || reason || ' ' || outcome,
               ', ' ORDER BY started_at) FROM hubsyncd.run";
    stage.value(sql).await.unwrap_or_default()
}

async fn wait_runs(stage: &Stage, expected: &[&str]) {
    let expected = expected.join(", ");
    let mut last = String::new();
    wait_until(&format!("the runs are {expected}"), async || {
        last = runs(stage).await;
        last == expected
    })
    .await;
}

async fn wait_next(daemon: &Daemon, expected: &str) {
    wait_until(
        &format!("the next sweep is announced for {expected}"),
        async || {
            daemon.status().await["next_sweep_at"]
                .as_str()
                .is_some_and(|next| next.starts_with(expected))
        },
    )
    .await;
}

#[tokio::test]
async fn every_two_hours_fires_at_midnight_and_at_two_and_once_after_a_clock_jump() {
    let toml = "[batch]\nmax-delay = \"30ms\"\n[sweep]\nevery = \"2h\"\non-start = false\n";
    let mut stage = Stage::with("wall_clock", Settings::default(), toml).await;
    stage.known_contact("s1").await;
    let wall = Wall::at("2031-03-01T23:10:00Z");
    let daemon = wall.start(&mut stage).await;
    wait_next(&daemon, "2031-03-02T00:00:00").await;
    wall.set("2031-03-01T23:59:58.500Z");
    let midnight = "02 00:00 clock complete";
    wait_runs(&stage, &[midnight]).await;
    wait_next(&daemon, "2031-03-02T02:00:00").await;
    wall.set("2031-03-02T01:59:58.500Z");
    let two = "02 02:00 clock complete";
    wait_runs(&stage, &[midnight, two]).await;
    // Over four slots at once: one sweep makes up for all.
    wall.set("2031-03-02T11:17:00Z");
    let jump = "02 11:17 clock complete";
    wait_runs(&stage, &[midnight, two, jump]).await;
    wait_next(&daemon, "2031-03-02T12:00:00").await;
    // Back again: nothing until the next slot begins.
    wall.set("2031-03-02T05:20:00Z");
    wait_next(&daemon, "2031-03-02T06:00:00").await;
    wall.set("2031-03-02T05:59:58.500Z");
    let six = "02 06:00 clock complete";
    wait_runs(&stage, &[midnight, two, six, jump]).await;
    assert_eq!(daemon.stop().await, Some(0));
    wait_runs(&stage, &[midnight, two, six, jump]).await;
}
