//! `hubsyncd mirror`: what it asks the daemon, what it prints, and its exit codes.

use super::support::served::{Desk, Served};
use hubsyncd::config;
use hubsyncd::daemon::mirror::state::MirrorState;
use hubsyncd::mapping::Mirrored;
use std::path::Path;
use std::time::Duration;
use tokio::process::Command;

fn served(desk: Desk, on: bool) -> Served {
    let served = Served::start(desk);
    let hour = Duration::from_secs(3600);
    let mirror = config::Mirror {
        every: hour,
        full_every: 12 * hour,
        stale_after: 24 * hour,
        objects: Mirrored::ALL.to_vec(),
    };
    served.board.set_mirror(on.then(|| MirrorState::new(&mirror)));
    served
}

/// Exit code, stdout, stderr.
async fn mirror(socket: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_hubsyncd"))
        .arg("mirror")
        .args(arguments)
        .env_clear()
        .env("HUBSYNCD_SOCKET", socket)
        .output()
        .await
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn a_pull_tells_what_it_did_and_one_with_errors_exits_with_1() {
    let served = served(Desk::new("complete", None), true);
    let socket = &served.settings.socket;
    let (code, stdout, _) = mirror(socket, &[]).await;
    let told = "complete: 10 new, 5 known, 1 errors\n  42: property amount: not a number\n";
    assert_eq!((code, stdout.as_str()), (Some(1), told));
    assert_eq!(
        served.asked(),
        ["pull socket contacts,companies,deals Full", "pulled 18"]
    );
    let (code, stdout, _) = mirror(socket, &["companies", "--limit", "20"]).await;
    assert_eq!(
        (code, stdout.as_str()),
        (
            Some(0),
            "the first records only, which makes nothing complete: 0 new, 0 known, 0 errors\n"
        )
    );
    assert_eq!(served.asked(), ["pull socket companies First(20)", "pulled 18"]);
    let (code, stdout, _) = mirror(socket, &["contacts", "--json"]).await;
    let told: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &told["errors"]), (Some(1), &serde_json::json!(1)));
}

#[tokio::test]
async fn a_pull_that_was_cut_short_exits_with_75_and_says_why() {
    let served = served(Desk::new("incomplete", Some("HubSpot answers 503")), true);
    let (code, stdout, _) = mirror(&served.settings.socket, &["all"]).await;
    assert_eq!(code, Some(75));
    assert!(
        stdout.starts_with("cut short (contacts: HubSpot answers 503): 10 new"),
        "{stdout}"
    );
}

#[tokio::test]
async fn without_a_mirror_a_holder_or_a_daemon_it_says_where_to_look() {
    let off = served(Desk::new("complete", None), false);
    let (code, _, stderr) = mirror(&off.settings.socket, &[]).await;
    assert!(
        code == Some(78) && stderr.contains("[mirror]"),
        "{code:?} {stderr}"
    );
    let some = served(Desk::new("complete", None), true);
    let deals = super::mirrored_routes::mirror(&[Mirrored::Deals]);
    some.board.set_mirror(Some(deals));
    let (code, _, stderr) = mirror(&some.settings.socket, &["companies"]).await;
    assert!(
        code == Some(78) && stderr.contains("`objects`"),
        "{code:?} {stderr}"
    );
    assert_eq!(mirror(&some.settings.socket, &["deals"]).await.0, Some(0));
    let standby = served(Desk::of_standby(), true);
    let (code, _, stderr) = mirror(&standby.settings.socket, &[]).await;
    assert!(
        code == Some(69) && stderr.contains("vm-1:4711"),
        "{code:?} {stderr}"
    );
    let nobody = off.directory.path().join("nobody.sock");
    assert_eq!(mirror(&nobody, &[]).await.0, Some(69));
    for wrong in [&["tickets"][..], &["--limit", "0"], &["--limit", "x"]] {
        assert_eq!(mirror(&off.settings.socket, wrong).await.0, Some(64), "{wrong:?}");
    }
}
