//! Tests: how the daemon starts, or does not, when something of its surroundings is missing or wrong.

use super::support::daemon::{QUICK, Stage};
use super::support::machine::Machine;
use super::support::wait_until;
use hubsyncd::daemon::board::Board;
use hubsyncd::mapping::Mapping;
use hubsyncd::sandbox::Settings;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

#[tokio::test]
async fn a_socket_whose_directory_is_missing_gets_it_and_one_that_cannot_be_bound_is_69() {
    let mut stage = Stage::new("start_socket").await;
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("run/h.sock");
    stage.set("HUBSYNCD_SOCKET", place.to_str().unwrap());
    let daemon = stage.launch("made");
    wait_until("the socket stands", async || place.exists()).await;
    let made = std::fs::metadata(place.parent().unwrap())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(
        made & 0o777,
        0o755,
        "others may look for the socket, whose mode is the key"
    );
    assert_eq!(daemon.stop().await, Some(0));

    let nowhere = directory.path().join("not/there/h.sock");
    stage.set("HUBSYNCD_SOCKET", nowhere.to_str().unwrap());
    let mut daemon = stage.launch("nowhere");
    assert_eq!(daemon.ended().await, Some(69), "{}", daemon.log());
    let log = daemon.log();
    for part in [
        nowhere.to_str().unwrap(),
        "No such file",
        "\"hint\":\"make the directory",
        "\"exit_code\":69",
    ] {
        assert!(log.contains(part), "{part}: {log}");
    }
    for line in log.lines() {
        let event: serde_json::Value =
            serde_json::from_str(line).expect("logs in a pipe are JSON to the last line");
        assert!(event["message"].is_string(), "{line}");
    }

    stage.set("HUBSYNCD_SOCKET", place.to_str().unwrap());
    let first = stage.launch("first");
    wait_until("the first listens", async || place.exists()).await;
    let mut second = stage.launch("second");
    assert_eq!(second.ended().await, Some(69), "{}", second.log());
    assert!(
        second.log().contains("somebody listens there already"),
        "{}",
        second.log()
    );
    assert_eq!(first.stop().await, Some(0), "and is left alone");
}

#[tokio::test]
async fn listening_on_tcp_wants_the_cron_secret_and_nothing_else_does() {
    let stage = Stage::with("start_secret", Settings::default(), QUICK).await;
    let machine = Machine::of(&stage);
    machine
        .runs(
            "sudo systemctl start hubsyncd; until hubsyncd health; do sleep 0.1; done",
            "",
        )
        .await;
    machine.runs("sudo systemctl stop hubsyncd", "").await;

    let file = machine.read("/etc/hubsyncd/hubsyncd.toml");
    let listening = format!("{file}[http]\nlisten = \"127.0.0.1:0\"\n");
    machine.write("/etc/hubsyncd/hubsyncd.toml", &listening);
    let (code, _) = machine.tries("sudo systemctl start hubsyncd", "").await;
    assert_eq!((code, machine.read("/run/systemd/exit").trim()), (1, "78"));
    assert!(machine.journal().contains("CRON_SECRET"), "{}", machine.journal());

    let secret = "a-secret-of-the-cron";
    machine.runs(
        "sudo install -D -m 644 systemd/cron-secret.conf /etc/systemd/system/hubsyncd.service.d/cron-secret.conf
         printf %s a-secret-of-the-cron | sudo install -m 600 /dev/stdin /etc/hubsyncd/credentials/cron-secret
         sudo systemctl daemon-reload; sudo systemctl restart hubsyncd; until hubsyncd health; do sleep 0.1; done",
        "",
    )
    .await;
    assert!(machine.journal().contains("hubsyncd listens on 127.0.0.1:"));
    assert!(!machine.journal().contains(secret));
}

#[test]
fn a_loop_that_stops_turning_starves_the_watchdog_and_one_that_ended_does_not() {
    let board = Board::new(&Mapping::built_in());
    let patience = Duration::from_secs(30);
    assert!(board.stalled(Duration::ZERO).is_empty(), "no loop has begun");
    board.tick("collect");
    assert!(board.stalled(patience).is_empty());
    std::thread::sleep(Duration::from_millis(2));
    assert_eq!(board.stalled(Duration::from_millis(1)), ["collect"]);
    board.rest("collect");
    assert!(board.stalled(Duration::ZERO).is_empty());
}
