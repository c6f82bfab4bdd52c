//! The mirror's first full pass of a portal. HubSpot hands out a page a request, and no more requests than its limit: a pass
//! that, without limit and latency, takes its pages no slower than that is limited by HubSpot's pages alone. How far it is
//! from having nothing to do but read them, one after the other since each names the next, is shown beside it.

use super::ground::{self, Ground, NO_SWEEP, UNLIMITED};
use super::process::{cpu_seconds, peak_mb};
use super::samples::ratios;
use super::support::daemon::Stage;
use super::support::{http, wait_within};
use super::table::{Goal, Measured, count};
use hubsyncd::sandbox::{Endpoint, Population, Settings};
use serde::Deserialize;
use std::time::{Duration, Instant};

/// Records of a page, at most.
const PAGE: usize = 100;
/// Pages a second that the larger of HubSpot's limits allows.
const ALLOWED: f64 = 19.0;
/// What a daemon asks at its start, and a pass before its first page: properties, the account, the newest record.
const ASKED_FIRST: usize = 20;
const PATIENCE: Duration = Duration::from_secs(300);

pub async fn measure(ground: &Ground) -> Vec<Measured> {
    let contacts = ground.scale(100_000, 500);
    let mut passes = Vec::new();
    let mut pages = Vec::new();
    for _ in 0..ground.scale(3, 1) {
        let toml = format!("{UNLIMITED}{NO_SWEEP}[mirror]\nevery = \"10h\"\nobjects = [\"contacts\"]\n");
        let stage = ground.stage("mirror", Settings::default(), &toml).await;
        stage.sandbox.world().populate(Population {
            contacts,
            ..Population::default()
        });
        passes.push(pass(&stage, contacts).await);
        pages.push(read_pages(&stage, contacts).await);
    }
    let each = |of: fn(&Pass) -> f64| passes.iter().map(of).collect::<Vec<f64>>();
    let seconds = each(|pass| pass.seconds);
    let fewest = contacts.div_ceil(PAGE);
    let rates = seconds
        .iter()
        .map(|seconds| fewest as f64 / seconds / ALLOWED)
        .collect();
    vec![
        Measured::new(
            format!(
                "first full pass of {} contacts, latency 0, no limit: pages/s ÷ the 19/s of HubSpot's limit of 190/10 s",
                count(contacts)
            ),
            Goal::AtLeast(1.0),
            "",
            rates,
        ),
        Measured::new(
            "that pass ÷ reading its pages alone and storing nothing",
            Goal::None,
            "",
            ratios(&seconds, &pages),
        ),
        Measured::new("that pass, every contact stored", Goal::None, " s", seconds),
        Measured::new("reading its pages alone", Goal::None, " s", pages),
        Measured::new(
            format!(
                "requests, those of the daemon's start too; its pages are {}",
                count(fewest)
            ),
            Goal::AtMost((fewest + ASKED_FIRST) as f64),
            "",
            each(|pass| pass.requests),
        ),
        Measured::new(
            "the daemon's processor time",
            Goal::None,
            " s",
            each(|pass| pass.cpu),
        ),
        Measured::new(
            "the daemon's peak memory",
            Goal::AtMost(50.0),
            " MB",
            each(|pass| pass.memory),
        ),
    ]
}

/// What a pass took.
struct Pass {
    seconds: f64,
    requests: f64,
    cpu: f64,
    memory: f64,
}

/// Starts a daemon, which pulls what it has never pulled, and waits for the end of that.
async fn pass(stage: &Stage, contacts: usize) -> Pass {
    let daemon = stage.start().await;
    let complete = "SELECT count(*) FROM hubsyncd.run WHERE kind = 'mirror' AND outcome = 'complete'";
    wait_within(PATIENCE, "the pass is complete", async || {
        stage.value(complete).await.as_deref() == Some("1")
    })
    .await;
    let took =
        "SELECT extract(epoch FROM finished_at - started_at)::float8 FROM hubsyncd.run WHERE kind = 'mirror'";
    let pass = Pass {
        seconds: stage.value(took).await.unwrap().parse().unwrap(),
        requests: stage.sandbox.world().count(Endpoint::Any) as f64,
        cpu: cpu_seconds(daemon.pid()),
        memory: peak_mb(daemon.pid()),
    };
    ground::stop(daemon).await;
    let mirrored = stage.value("SELECT count(*) FROM hubsyncd.mirror_contacts").await;
    assert_eq!(mirrored, Some(contacts.to_string()), "every contact is here");
    pass
}

/// A page, of which nothing is wanted but where the next one begins.
#[derive(Deserialize)]
struct Page {
    paging: Option<Paging>,
}

#[derive(Deserialize)]
struct Paging {
    next: Option<Next>,
}

#[derive(Deserialize)]
struct Next {
    after: String,
}

/// Reads the pages that the pass has read, and does nothing with them; answers the seconds.
async fn read_pages(stage: &Stage, contacts: usize) -> f64 {
    let first = {
        let world = stage.sandbox.world();
        let mut pages = world
            .requests()
            .filter(|request| request.endpoint == Endpoint::List);
        pages.next().unwrap().path.clone()
    };
    // Installs the cryptography that any client wants.
    http();
    let client = reqwest::Client::new();
    let begun = Instant::now();
    let (mut after, mut read) = (String::new(), 0);
    loop {
        let url = format!("{}{first}{after}", stage.sandbox.base_url());
        let answer = client.get(url).bearer_auth(stage.sandbox.token()).send().await;
        let body = answer.unwrap().error_for_status().unwrap().bytes().await.unwrap();
        read += 1;
        let page: Page = serde_json::from_slice(&body).unwrap();
        match page.paging.and_then(|paging| paging.next) {
            Some(next) => after = format!("&after={}", next.after),
            None => break,
        }
    }
    assert_eq!(read, contacts.div_ceil(PAGE), "these are all pages");
    begun.elapsed().as_secs_f64()
}
