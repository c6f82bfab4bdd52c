//! The daemon and the documented cron's algorithm, at the same work.
//!
//! The cron does one request at a time, so that its time grows with the number of records and nothing else: where
//! HubSpot takes its time it is given a part of the new records, and what it took is multiplied.

use super::ground::{self, Ground, NO_SWEEP, UNLIMITED};
use super::process::{cpu_seconds, peak_mb};
use super::requests::{in_step, new_bookings, new_contacts};
use super::rival;
use super::support::daemon::{EXAMS, Stage};
use super::table::{Goal, Measured};
use hubsyncd::sandbox::{Endpoint, Settings};
use std::time::{Duration, Instant};

/// HubSpot's latencies, and the part of the new records that the cron is given at each, as 1 of so many.
const LATENCIES: [(u64, usize); 3] = [(0, 1), (50, 5), (300, 20)];

/// The same in a quick run.
const QUICK: [(u64, usize); 3] = [(0, 1), (5, 2), (20, 4)];

/// What a piece of work took.
struct Took {
    seconds: f64,
    requests: f64,
    cpu: f64,
    memory: f64,
}

pub async fn measure(ground: &Ground) -> Vec<Measured> {
    let [none, some, much] = ground.scale(LATENCIES, QUICK);
    let mut rows = at_latency(ground, none).await;
    // Both wait nearly always.
    let (fifty, many) = futures::join!(at_latency(ground, some), at_latency(ground, much));
    rows.extend(fifty);
    rows.extend(many);
    rows.extend(at_the_limit(ground).await);
    rows
}

async fn at_latency(ground: &Ground, (latency, part): (u64, usize)) -> Vec<Measured> {
    let (new, updates) = (ground.scale(1_000, 100), ground.scale(10_000, 500));
    let ours = ours(ground, latency, new, updates).await;
    let cron = cron(ground, latency, new, updates, part).await;
    let mut rows = Vec::new();
    for (work, ours, cron, part) in [
        (
            format!("{new} new contacts + {new} new bookings"),
            &ours[0],
            &cron[0],
            part,
        ),
        (format!("{updates} updates"), &ours[1], &cron[1], 1),
    ] {
        let about = if part > 1 {
            format!(" (from 1/{part} of them)")
        } else {
            String::new()
        };
        let row = |what: &str, unit, value| {
            Measured::new(
                format!("{work}, {latency} ms: {what}"),
                Goal::None,
                unit,
                vec![value],
            )
        };
        rows.push(Measured::new(
            format!("{work}, {latency} ms: the cron's time{about} ÷ hubsyncd's"),
            Goal::AtLeast(1.0),
            "",
            vec![cron.seconds / ours.seconds],
        ));
        rows.push(row("hubsyncd", " s", ours.seconds));
        rows.push(row("hubsyncd, requests", "", ours.requests));
        rows.push(row("hubsyncd, processor", " s", ours.cpu));
        rows.push(row("hubsyncd, peak memory", " MB", ours.memory));
        rows.push(row(&format!("the cron{about}"), " s", cron.seconds));
        rows.push(row(&format!("the cron, requests{about}"), "", cron.requests));
        rows.push(row(&format!("the cron, processor{about}"), " s", cron.cpu));
        rows.push(row("the cron, peak memory", " MB", cron.memory));
    }
    rows
}

/// Both pieces of work by a daemon: from the commit to the last receipt.
async fn ours(ground: &Ground, latency: u64, new: usize, updates: usize) -> [Took; 2] {
    let stage = ground
        .stage("race", Settings::default(), &format!("{UNLIMITED}{NO_SWEEP}"))
        .await;
    stage.sandbox.set_latency(Duration::from_millis(latency));
    let (contact, exam) = (stage.known_contact("s").await, stage.known_exam().await);
    let created = daemon_does(&stage, async || {
        new_contacts(&stage, new).await;
        new_bookings(&stage, new, &contact, &exam).await;
    })
    .await;
    ground::known_contacts(&stage, updates).await;
    let all = "UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = sj_credits + 1, hubspot_last_sync_at = NULL
               WHERE student_id LIKE 'p%'";
    let updated = daemon_does(&stage, async || stage.app(all).await).await;
    [created, updated]
}

async fn daemon_does(stage: &Stage, work: impl AsyncFnOnce()) -> Took {
    let daemon = stage.start().await;
    let asked = || stage.sandbox.world().count(Endpoint::Any);
    let (before, cpu, begun) = (asked(), cpu_seconds(daemon.pid()), Instant::now());
    work().await;
    in_step(stage).await;
    let took = Took {
        seconds: begun.elapsed().as_secs_f64(),
        requests: (asked() - before) as f64,
        cpu: cpu_seconds(daemon.pid()) - cpu,
        memory: peak_mb(daemon.pid()),
    };
    ground::stop(daemon).await;
    took
}

/// Both pieces of work by the cron, of which the first is a part.
async fn cron(ground: &Ground, latency: u64, new: usize, updates: usize, part: usize) -> [Took; 2] {
    let stage = ground.bare("race_cron", "").await;
    stage.sandbox.set_latency(Duration::from_millis(latency));
    let (contact, exam) = (stage.known_contact("s").await, stage.known_exam().await);
    new_contacts(&stage, new / part).await;
    new_bookings(&stage, new / part, &contact, &exam).await;
    let mut created = cron_runs(&stage).await;
    // Two batches, of the one contact and the one exam that were there before, are no part of it.
    let batches = 2.0 * latency as f64 / 1000.0;
    created.seconds = (created.seconds - batches) * part as f64 + batches;
    created.requests = (created.requests - 2.0) * part as f64 + 2.0;
    created.cpu *= part as f64;
    let links = stage.sandbox.world().records(EXAMS).count();
    assert_eq!(links, 1, "the exam is there");
    let other = ground.bare("race_cron", "").await;
    other.sandbox.set_latency(Duration::from_millis(latency));
    ground::known_contacts(&other, updates).await;
    [created, cron_runs(&other).await]
}

async fn cron_runs(stage: &Stage) -> Took {
    let asked = || stage.sandbox.world().count(Endpoint::Any);
    let (before, begun) = (asked(), Instant::now());
    let output = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args([
            rival::WORD,
            &stage.database.url(),
            &stage.sandbox.base_url(),
            stage.sandbox.token(),
        ])
        .output()
        .await
        .unwrap();
    let seconds = begun.elapsed().as_secs_f64();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the cron ends well: {said}");
    let used = String::from_utf8(output.stdout).unwrap();
    let (cpu, memory) = used.trim().split_once(' ').unwrap();
    Took {
        seconds,
        requests: (asked() - before) as f64,
        cpu: cpu.parse().unwrap(),
        memory: memory.parse().unwrap(),
    }
}

/// The new records at HubSpot's smaller limit, against the figures that were measured elsewhere on a like machine.
async fn at_the_limit(ground: &Ground) -> Vec<Measured> {
    let (limit, new) = (100, ground.scale(1_000, 100));
    let toml = format!("[hubspot]\nrequests = {limit}\n{NO_SWEEP}");
    let settings = ground::limited(limit, Duration::from_millis(ground.scale(300, 50)));
    let stage = ground.stage("race_limit", settings, &toml).await;
    let (contact, exam) = (stage.known_contact("s").await, stage.known_exam().await);
    let took = daemon_does(&stage, async || {
        new_contacts(&stage, new).await;
        new_bookings(&stage, new, &contact, &exam).await;
    })
    .await;
    let row = |what: &str, goal, unit, value| {
        let work = format!("{new} new contacts + {new} new bookings, 300 ms, 100/10 s");
        Measured::new(format!("{work}: {what}"), goal, unit, vec![value])
    };
    vec![
        row(
            "hubsyncd; quoted: cron 311 s, graphile-worker 6 s",
            Goal::AtMost(6.0),
            " s",
            took.seconds,
        ),
        row(
            "requests; quoted: cron 3,001, graphile-worker 44",
            Goal::AtMost(54.0),
            "",
            took.requests,
        ),
        row(
            "peak memory; quoted: graphile-worker 116 MB",
            Goal::AtMost(116.0),
            " MB",
            took.memory,
        ),
    ]
}
