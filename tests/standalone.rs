//! A sweep where no daemon runs: it brings its own, and leaves nothing of it.

use crate::support::daemon::{CONTACTS, EXAMS, Stage};
use crate::support::sweeping::{known_contacts, unseen};
use crate::support::{DEADLINE, wait_until, wait_within};
use hubsyncd::sandbox::{Endpoint, Hold, Settings, When, World};
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const RUNS: &str = "SELECT string_agg(reason || ' ' || coalesce(outcome, 'open'), ', ' ORDER BY started_at) FROM hubsyncd.run";
const GIVEN_BACK: &str = "SELECT stopped_at IS NOT NULL FROM hubsyncd.lease";

/// `hubsyncd sweep --standalone`, under way, with a place of its own for temporary files.
struct Sweep {
    child: Child,
    place: TempDir,
    log: TempDir,
}

impl Sweep {
    fn start(stage: &Stage, more: &[&str]) -> Sweep {
        Sweep::start_by(stage, &["env"], more)
    }

    /// The same, started by another program.
    fn start_by(stage: &Stage, starter: &[&str], more: &[&str]) -> Sweep {
        let (place, log) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let daemon = stage.command("daemon");
        let variables = daemon.get_envs().filter_map(|(name, value)| Some((name, value?)));
        let child = Command::new(starter[0])
            .args(&starter[1..])
            .arg(daemon.get_program())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .envs(variables)
            .args(["sweep", "--standalone"])
            .args(more)
            .env("TMPDIR", place.path())
            .env("RUST_LOG", "info")
            .stdin(Stdio::null())
            .stdout(File::create(log.path().join("result")).unwrap())
            .stderr(File::create(log.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        Sweep { child, place, log }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.log.path().join("log")).unwrap()
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.unwrap().success());
    }

    /// What is in its place for temporary files.
    fn left(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.place.path()).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// Waits for its end, by which nothing may be left; answers exit code, stdout, stderr.
    async fn ended(mut self) -> (Option<i32>, String, String) {
        let (code, said) = self.ended_anyhow().await;
        assert_eq!(self.left(), Vec::<PathBuf>::new(), "{}", self.said());
        (code, said, self.said())
    }

    async fn ended_anyhow(&mut self) -> (Option<i32>, String) {
        let mut code = None;
        let child = &mut self.child;
        wait_within(DEADLINE * 2, "it ends", async || {
            match child.try_wait().unwrap() {
                Some(status) => {
                    code = status.code();
                    true
                }
                None => false,
            }
        })
        .await;
        let result = std::fs::read_to_string(self.log.path().join("result"));
        (code, result.unwrap())
    }
}

impl Drop for Sweep {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn credits(world: &World, credits: &str) -> usize {
    let is = |record: &&hubsyncd::sandbox::Record| record.get("sj_credits") == Some(credits);
    world.records(CONTACTS).filter(is).count()
}

#[tokio::test]
async fn it_sweeps_every_row_pushes_what_was_queued_and_leaves_nothing_but_its_run() {
    let mut stage = Stage::new("alone").await;
    let notify = tempfile::tempdir().unwrap();
    let systemd = tokio::net::UnixDatagram::bind(notify.path().join("notify")).unwrap();
    stage.set("NOTIFY_SOCKET", notify.path().join("notify").to_str().unwrap());
    known_contacts(&stage, 120).await;
    let exam = stage.known_exam().await;
    stage
        .app("UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = 9 WHERE student_id = 'p7'")
        .await;
    stage
        .app("INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email) VALUES ('new', 'new@example.com')")
        .await;
    stage.sandbox.world().set(EXAMS, &exam, "total_bookings", "77");
    let nobodys = notify.path().join("configured.sock");
    stage.set("HUBSYNCD_SOCKET", nobodys.to_str().unwrap());
    File::create(&nobodys).unwrap();
    let (code, stdout, stderr) = Sweep::start(&stage, &[]).ended().await;
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert!(
        stdout.starts_with("complete: contacts 121 updated") && stdout.lines().count() == 1,
        "{stdout}"
    );
    assert!(
        stderr.contains("\"lease taken\""),
        "its log is on stderr: {stderr}"
    );
    {
        let world = stage.sandbox.world();
        assert_eq!(credits(&world, "3"), 119, "every row");
        assert_eq!(credits(&world, "9"), 1);
        assert!(
            world.find(CONTACTS, "student_id", "new").is_some(),
            "what was queued"
        );
        let exam = world.record(EXAMS, &exam).unwrap();
        assert_eq!(exam.get("total_bookings"), Some("0"), "what somebody typed over");
    }
    stage
        .wait_value("SELECT count(*) FROM hubsyncd.change", "0")
        .await;
    assert_eq!(stage.value(RUNS).await.as_deref(), Some("socket complete"));
    assert_eq!(stage.value(GIVEN_BACK).await.as_deref(), Some("t"));
    let mut said = [0; 64];
    assert!(systemd.try_recv(&mut said).is_err(), "systemd hears nothing");
}

#[tokio::test]
async fn its_exit_code_tells_of_refused_records_and_its_result_is_one_json_document() {
    let stage = Stage::new("alone_json").await;
    known_contacts(&stage, 30).await;
    stage.sandbox.refuse_record(CONTACTS, "sj_credits", "13", None);
    unseen(
        &stage,
        "UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = 13 WHERE student_id = 'p3'",
    )
    .await;
    let (code, stdout, stderr) = Sweep::start(&stage, &["--json"]).ended().await;
    assert_eq!(code, Some(1), "{stdout}{stderr}");
    let run: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(run["outcome"], "complete");
    assert_eq!(run["summary"]["contacts"]["failed"], 1, "{run}");
    assert_eq!(run["summary"]["contacts"]["updated"], 29, "{run}");
    let run = run["id"].as_str().unwrap();
    let kept = format!("SELECT count(*) FROM hubsyncd.run WHERE id::text = '{run}'");
    assert_eq!(stage.value(&kept).await.as_deref(), Some("1"));
}

#[tokio::test]
async fn beside_a_daemon_it_names_the_holder_and_pushes_nothing() {
    let stage = Stage::new("alone_beside").await;
    known_contacts(&stage, 10).await;
    let daemon = stage.start().await;
    let asked = stage.sandbox.world().count(Endpoint::Any);
    let runs = stage.value(RUNS).await;
    let begin = Instant::now();
    let (code, stdout, stderr) = Sweep::start(&stage, &[]).ended().await;
    assert!(begin.elapsed() < DEADLINE / 2, "it does not stand by");
    assert_eq!((code, stdout.as_str()), (Some(75), ""), "{stderr}");
    assert!(
        stderr.contains("error: another daemon holds the lease: hubsyncd") && stderr.contains(", backend "),
        "{stderr}"
    );
    assert!(stderr.contains("hint: ask that one"), "{stderr}");
    assert_eq!(
        stage.sandbox.world().count(Endpoint::Any),
        asked,
        "nothing was asked or pushed"
    );
    assert_eq!(stage.value(RUNS).await, runs);
    assert_eq!(
        daemon.get("/livez").await.0,
        200,
        "the daemon's socket is still its own"
    );
    assert_eq!(daemon.sweep().await["outcome"], "complete");
}

/// Waits until a sweep's request is held in HubSpot.
async fn held_sweep(stage: &Stage) -> (Sweep, Hold) {
    let held = stage.sandbox.hold(Endpoint::Update, When::After);
    let sweep = Sweep::start(stage, &[]);
    assert!(held.reached(DEADLINE).await, "it sweeps");
    (sweep, held)
}

#[tokio::test]
async fn a_lease_that_another_takes_meanwhile_ends_it() {
    let stage = Stage::new("alone_lost").await;
    known_contacts(&stage, 10).await;
    let (sweep, held) = held_sweep(&stage).await;
    let other = stage.launch("other");
    wait_until("the other stands by", async || {
        let status = other.try_get("/status").await;
        status.is_some_and(|(_, status)| status.contains("backend"))
    })
    .await;
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_locks
        WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' AND granted
          AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let before = stage.value("SELECT generation FROM hubsyncd.lease").await;
    // Whoever is faster takes it; the other way round it is cut off once more.
    wait_until("the other takes the lease", async || {
        let (_, status) = other.get("/status").await;
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        if status["lease"] == "held" {
            return true;
        }
        stage.value(cut).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        false
    })
    .await;
    assert_ne!(stage.value("SELECT generation FROM hubsyncd.lease").await, before);
    held.release();
    let (code, stdout, stderr) = sweep.ended().await;
    assert_eq!((code, stdout.as_str()), (Some(75), ""), "{stderr}");
    assert!(stderr.contains("another daemon holds the lease: "), "{stderr}");
}

#[tokio::test]
async fn stopped_in_the_middle_it_records_what_was_answered_and_the_next_one_sweeps_all() {
    let stage = Stage::new("alone_stopped").await;
    known_contacts(&stage, 10).await;
    for signal in ["TERM", "INT", "HUP"] {
        unseen(
            &stage,
            "UPDATE hubspot_sync.hubspot_contact_credits SET hubspot_last_sync_at = NULL",
        )
        .await;
        let (sweep, held) = held_sweep(&stage).await;
        sweep.signal(signal);
        wait_until("it stops", async || sweep.said().contains("hubsyncd stops")).await;
        held.release();
        let (code, stdout, stderr) = sweep.ended().await;
        assert_eq!((code, stdout.as_str()), (Some(75), ""), "{signal}: {stderr}");
        assert!(
            stderr.contains("error: stopped before the sweep had ended"),
            "{stderr}"
        );
        let marked = "SELECT count(hubspot_last_sync_at) FROM hubspot_sync.hubspot_contact_credits";
        assert_eq!(
            stage.value(marked).await.as_deref(),
            Some("10"),
            "{signal}: recorded"
        );
        assert_eq!(stage.value(GIVEN_BACK).await.as_deref(), Some("t"), "{signal}");
    }
    let (code, stdout, stderr) = Sweep::start(&stage, &[]).ended().await;
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert_eq!(
        stage.value(RUNS).await.as_deref(),
        Some("socket incomplete, socket incomplete, socket incomplete, socket complete")
    );
}

#[tokio::test]
async fn under_nohup_a_terminal_that_hangs_up_does_not_end_it() {
    let stage = Stage::new("alone_nohup").await;
    known_contacts(&stage, 10).await;
    let held = stage.sandbox.hold(Endpoint::Update, When::After);
    let sweep = Sweep::start_by(&stage, &["sh", "-c", "trap '' HUP; exec \"$@\"", "sh"], &[]);
    assert!(held.reached(DEADLINE).await, "it sweeps");
    sweep.signal("HUP");
    held.release();
    let (code, stdout, stderr) = sweep.ended().await;
    assert_eq!(code, Some(0), "{stdout}{stderr}");
}

#[tokio::test]
async fn killed_in_the_middle_it_is_run_again() {
    let stage = Stage::new("alone_killed").await;
    known_contacts(&stage, 10).await;
    let (mut sweep, held) = held_sweep(&stage).await;
    sweep.signal("KILL");
    assert_eq!(sweep.ended_anyhow().await, (None, String::new()));
    held.release();
    let (code, stdout, stderr) = Sweep::start(&stage, &[]).ended().await;
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert!(stdout.contains("contacts 10 updated"), "{stdout}");
    assert_eq!(
        stage.value(RUNS).await.as_deref(),
        Some("socket incomplete, socket complete")
    );
    assert_eq!(credits(&stage.sandbox.world(), "3"), 10);
}

#[tokio::test]
async fn where_it_cannot_begin_it_says_why_and_exits_as_the_daemon_would_or_gives_up() {
    let stage = Stage::without_setup("alone_bare", Settings::default(), "[sweep]\ngive-up = \"1s\"\n").await;
    let (code, _, stderr) = Sweep::start(&stage, &["--no-wait"]).ended().await;
    assert_eq!(code, Some(64), "{stderr}");
    let (code, stdout, stderr) = Sweep::start(&stage, &[]).ended().await;
    assert_eq!((code, stdout.as_str()), (Some(78), ""), "{stderr}");
    assert!(stderr.contains("hint: run `hubsyncd setup`"), "{stderr}");
    stage.setup().await;
    stage
        .sql(&format!(
            "ALTER DATABASE \"{}\" CONNECTION LIMIT 0",
            stage.database.name
        ))
        .await;
    let (code, stdout, stderr) = Sweep::start(&stage, &[]).ended().await;
    assert_eq!((code, stdout.as_str()), (Some(75), ""), "{stderr}");
    assert!(
        stderr.contains("error: the sweep could not begin for 1s\ncaused by: ")
            && stderr.contains("too many connections"),
        "{stderr}"
    );
}
