//! The daemon and the documented cron's algorithm, at the same work.
//!
//! The cron does one request at a time, so that its time grows with the number of records and nothing else: where
//! HubSpot takes its time it is given a part of the new records, and what it took is multiplied.

use super::ground::{self, Ground, NO_SWEEP, UNLIMITED};
use super::process::{cpu_seconds, peak_mb};
use super::requests::{in_step, new_bookings, new_contacts};
use super::rival;
use super::samples::ratios;
use super::support::daemon::{EXAMS, Stage};
use super::table::{Goal, Measured, count};
use hubsyncd::sandbox::{Endpoint, Settings};
use std::time::{Duration, Instant};

/// A latency of HubSpot's, and the part of each piece of work that the cron is given at it, as 1 of so many.
struct Pace {
    latency: u64,
    new: usize,
    updates: usize,
}

const fn pace(latency: u64, new: usize, updates: usize) -> Pace {
    Pace {
        latency,
        new,
        updates,
    }
}

const PACES: [Pace; 3] = [pace(0, 1, 1), pace(50, 20, 1), pace(300, 100, 10)];

/// The same in a quick run.
const QUICK: [Pace; 3] = [pace(0, 1, 1), pace(5, 2, 1), pace(20, 4, 5)];

/// What a piece of work took.
#[derive(Clone, Copy)]
struct Took {
    seconds: f64,
    requests: f64,
    cpu: f64,
    memory: f64,
}

/// What is told of both: its name, its unit, its number.
type Column = (&'static str, &'static str, fn(&Took) -> f64);

pub async fn measure(ground: &Ground) -> Vec<Measured> {
    let [none, some, much] = ground.scale(PACES, QUICK);
    let mut rows = at_latency(ground, none).await;
    // Both wait nearly always.
    let (fifty, many) = futures::join!(at_latency(ground, some), at_latency(ground, much));
    rows.extend(fifty);
    rows.extend(many);
    rows.extend(at_the_limit(ground).await);
    rows
}

async fn at_latency(ground: &Ground, pace: Pace) -> Vec<Measured> {
    let (new, updates) = (ground.scale(1_000, 100), ground.scale(10_000, 500));
    let (mut by_us, mut by_cron) = (Vec::new(), Vec::new());
    for _ in 0..ground.scale(3, 1) {
        by_us.push(ours(ground, pace.latency, new, updates).await);
        by_cron.push(cron(ground, &pace, new, updates).await);
    }
    let (new, updates) = (count(new), count(updates));
    let works = [
        format!("{new} new contacts + {new} new bookings"),
        format!("{updates} updates"),
    ];
    let mut rows = Vec::new();
    for (at, (work, part)) in works.into_iter().zip([pace.new, pace.updates]).enumerate() {
        let work = format!("{work}, {} ms a request", pace.latency);
        let (times, at_part) = match part {
            1 => (String::new(), String::new()),
            part => (
                format!(" ({part} × what 1/{part} of it took)"),
                format!(" (at 1/{part} of it)"),
            ),
        };
        let ours = |of: fn(&Took) -> f64| by_us.iter().map(|both| of(&both[at])).collect::<Vec<f64>>();
        let cron = |of: fn(&Took) -> f64| by_cron.iter().map(|both| of(&both[at])).collect::<Vec<f64>>();
        let seconds = |took: &Took| took.seconds;
        rows.push(Measured::new(
            format!("{work}: the cron's time ÷ hubsyncd's"),
            Goal::AtLeast(1.0),
            "",
            ratios(&cron(seconds), &ours(seconds)),
        ));
        let columns: [Column; 4] = [
            ("time", " s", seconds),
            ("requests", "", |took| took.requests),
            ("processor time", " s", |took| took.cpu),
            ("peak memory", " MB", |took| took.memory),
        ];
        for (name, unit, of) in columns {
            for (who, samples) in [("hubsyncd", ours(of)), ("the cron", cron(of))] {
                // Most of a part's is the program's start, and would be multiplied too.
                if (who, name) == ("the cron", "processor time") && !times.is_empty() {
                    continue;
                }
                let about = match (who, name) {
                    ("hubsyncd", _) => "",
                    (_, "peak memory") => &at_part,
                    _ => &times,
                };
                rows.push(Measured::new(
                    format!("{work}: {name}, {who}{about}"),
                    Goal::None,
                    unit,
                    samples,
                ));
            }
        }
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
    let records = [new_contacts(0, new), new_bookings(0, new, &contact, &exam)];
    let created = daemon_does(&stage, &records).await;
    ground::known_contacts(&stage, updates).await;
    let all = "UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = sj_credits + 1, hubspot_last_sync_at = NULL
               WHERE student_id LIKE 'p%'";
    let updated = daemon_does(&stage, &[all.to_owned()]).await;
    [created, updated]
}

/// What a daemon takes for what `work` says of the database, from the commit on: the cron, too, begins with rows that are
/// there.
async fn daemon_does(stage: &Stage, work: &[String]) -> Took {
    let daemon = stage.start().await;
    let asked = || stage.sandbox.world().count(Endpoint::Any);
    let session = stage.database.session_as("app").await;
    session.batch_execute("BEGIN").await.unwrap();
    for sql in work {
        session.batch_execute(sql).await.unwrap();
    }
    let (before, cpu, begun) = (asked(), cpu_seconds(daemon.pid()), Instant::now());
    session.batch_execute("COMMIT").await.unwrap();
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

/// Both pieces of work by the cron, which is given a part of each.
async fn cron(ground: &Ground, pace: &Pace, new: usize, updates: usize) -> [Took; 2] {
    let stage = ground.bare("race_cron", "").await;
    stage.sandbox.set_latency(Duration::from_millis(pace.latency));
    let (contact, exam) = (stage.known_contact("s").await, stage.known_exam().await);
    stage.app(&new_contacts(0, new / pace.new)).await;
    stage.app(&new_bookings(0, new / pace.new, &contact, &exam)).await;
    let created = cron_runs(&stage).await;
    // Two batches, of the one contact and the one exam that were there before, are no part of it.
    let beside = (2.0 * pace.latency as f64 / 1000.0, 2.0);
    let exams = stage.sandbox.world().records(EXAMS).count();
    assert_eq!(exams, 1, "the exam is there");
    let other = ground.bare("race_cron", "").await;
    other.sandbox.set_latency(Duration::from_millis(pace.latency));
    ground::known_contacts(&other, updates / pace.updates).await;
    let updated = cron_runs(&other).await;
    [
        created.times(pace.new, beside),
        updated.times(pace.updates, (0.0, 0.0)),
    ]
}

impl Took {
    /// The whole of which this was the `part`th, but for the seconds and requests `beside` it.
    fn times(self, part: usize, (seconds, requests): (f64, f64)) -> Took {
        let part = part as f64;
        Took {
            seconds: (self.seconds - seconds) * part + seconds,
            requests: (self.requests - requests) * part + requests,
            cpu: self.cpu,
            memory: self.memory,
        }
    }
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
    let latency = ground.scale(300, 50);
    let mut took = Vec::new();
    for _ in 0..ground.scale(3, 1) {
        let settings = ground::limited(limit, Duration::from_millis(latency));
        let stage = ground.stage("race_limit", settings, &toml).await;
        let (contact, exam) = (stage.known_contact("s").await, stage.known_exam().await);
        let records = [new_contacts(0, new), new_bookings(0, new, &contact, &exam)];
        took.push(daemon_does(&stage, &records).await);
    }
    let new = count(new);
    let row = |what: &str, most, unit, of: fn(&Took) -> f64| {
        Measured::new(
            format!("{new} new contacts + {new} new bookings, 100/10 s, {latency} ms a request: {what}"),
            Goal::AtMost(most),
            unit,
            took.iter().map(of).collect(),
        )
    };
    vec![
        row(
            "time (elsewhere: the cron 311 s, graphile-worker with the official client 6 s)",
            6.0,
            " s",
            |took| took.seconds,
        ),
        row(
            "requests (elsewhere: the cron 3,001, graphile-worker 44; here a read per 100 contacts protects shared e-mails)",
            54.0,
            "",
            |took| took.requests,
        ),
        row(
            "peak memory (elsewhere: graphile-worker 116 MB)",
            116.0,
            " MB",
            |took| took.memory,
        ),
    ]
}
