//! Starting and stopping.

use super::ground::{self, Ground, NO_SWEEP};
use super::samples::ms;
use super::support::daemon::Stage;
use super::table::{Goal, Measured};
use hubsyncd::sandbox::{Endpoint, Settings, When};
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// HubSpot's round trip while the daemon is told to stop.
const ROUND_TRIP: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(20);

pub async fn measure(ground: &Ground) -> Vec<Measured> {
    let stage = ground
        .stage(
            "lifecycle",
            Settings::default(),
            &format!("[batch]\nmax-delay = \"0ms\"\n{NO_SWEEP}"),
        )
        .await;
    let turns = ground.scale(10, 2);
    ground::known_contacts(&stage, turns).await;
    let mut ready = Vec::new();
    for _ in 0..turns {
        ready.push(starts(&stage));
    }
    stage.sandbox.set_latency(ROUND_TRIP);
    let mut gone = Vec::new();
    for turn in 0..turns {
        gone.push(stops(&stage, turn).await);
    }
    vec![
        Measured::new("start to ready", Goal::AtMost(100.0), " ms", ready),
        Measured::new(
            "SIGTERM to gone, a batch of 300 ms in flight",
            Goal::AtMost(1000.0),
            " ms",
            gone,
        ),
    ]
}

/// From the start of the process to the READY that systemd waits for.
fn starts(stage: &Stage) -> f64 {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let notify = UnixDatagram::bind(&path).unwrap();
    notify.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = stage.command("ready");
    command.arg("run").env("NOTIFY_SOCKET", &path);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let begun = Instant::now();
    let mut child = command.spawn().unwrap();
    let mut message = [0; 4096];
    loop {
        let length = notify.recv(&mut message).unwrap();
        let text = String::from_utf8_lossy(&message[..length]).into_owned();
        if text.lines().any(|line| line == "READY=1") {
            break;
        }
    }
    let taken = ms(begun.elapsed());
    child.kill().unwrap();
    child.wait().unwrap();
    taken
}

/// From the signal to the end of the process, while HubSpot answers a batch.
async fn stops(stage: &Stage, turn: usize) -> f64 {
    let mut daemon = stage.start().await;
    let gate = stage.sandbox.hold(Endpoint::Update, When::Before);
    let sql = format!(
        "UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = sj_credits + 1 WHERE student_id = 'p{turn}'"
    );
    stage.app(&sql).await;
    assert!(gate.reached(PATIENCE).await, "a batch is in flight");
    let begun = Instant::now();
    daemon.signal("TERM");
    tokio::time::sleep(ROUND_TRIP / 2).await;
    gate.release();
    while daemon.has_ended().is_none() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let taken = ms(begun.elapsed());
    assert_eq!(daemon.ended().await, Some(0), "it ends well");
    taken
}
