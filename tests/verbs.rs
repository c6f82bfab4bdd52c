//! The verbs: what they print, how they exit.

use super::support::postgres::Database;
use super::support::served::{Desk, Served};
use hubsyncd::sync::report::Counts;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

/// The built program in an environment of its own.
fn hubsyncd(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hubsyncd"));
    command
        .args(arguments)
        .env_clear()
        .kill_on_drop(true)
        .stdin(Stdio::null());
    command
}

async fn finish(command: &mut Command) -> (i32, String, String) {
    let ended = tokio::time::timeout(Duration::from_secs(60), command.output());
    let Output {
        status,
        stdout,
        stderr,
    } = ended.await.unwrap().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

async fn ask(socket: &Path, arguments: &[&str]) -> (i32, String, String) {
    finish(hubsyncd(arguments).env("HUBSYNCD_SOCKET", socket)).await
}

#[tokio::test]
async fn usage_errors_are_64_and_help_is_an_answer() {
    let (code, _, stderr) = finish(&mut hubsyncd(&["swep"])).await;
    assert_eq!(code, 64, "{stderr}");
    assert!(stderr.contains("sweep"), "{stderr}");
    assert_eq!(finish(&mut hubsyncd(&[])).await.0, 64);
    assert_eq!(
        finish(&mut hubsyncd(&["setup", "--print", "--uninstall"]))
            .await
            .0,
        64
    );
    let (code, stdout, _) = finish(&mut hubsyncd(&["--help"])).await;
    assert_eq!(code, 0);
    for verb in ["run", "setup", "sweep", "status", "health", "failures", "sandbox"] {
        assert!(
            stdout.contains(&format!("  {verb}  ")),
            "{verb} is not in {stdout}"
        );
    }
    let (code, stdout, _) = finish(&mut hubsyncd(&["--version"])).await;
    assert_eq!(
        (code, stdout.trim()),
        (0, concat!("hubsyncd ", env!("CARGO_PKG_VERSION")))
    );
}

#[tokio::test]
async fn a_wrong_configuration_is_78_with_every_problem_and_no_secret() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("hubsyncd.toml");
    std::fs::write(&file, "[batch]\nmax-record = 1\n[sweep]\nevery = \"7h\"\n").unwrap();
    let path = file.to_str().unwrap();
    for verb in ["run", "setup"] {
        let command = &mut hubsyncd(&[verb, "--config", path]);
        let (code, stdout, stderr) = finish(command.env("HUBSPOT_ACCESS_TOKEN", "planted")).await;
        assert_eq!((code, stdout.as_str()), (78, ""), "{stderr}");
        assert!(
            stderr.contains("error: the configuration has 3 problems:"),
            "{stderr}"
        );
        assert!(
            stderr.contains(&format!("{path}:2: batch.max-record")),
            "{stderr}"
        );
        assert!(
            stderr.contains("sweep.every") && stderr.contains("DATABASE_URL"),
            "{stderr}"
        );
        assert!(!stderr.contains("planted"), "{stderr}");
    }
    let mut command = hubsyncd(&["run", "--config", path]);
    command.env("DATABASE_URL", "postgres://a:planted@h/d?sslmode=always&ssl=1");
    let (code, _, stderr) = finish(&mut command).await;
    assert_eq!(code, 78);
    for part in [
        "has 4 problems:",
        "DATABASE_URL: ",
        "sslmode must be",
        "HUBSPOT_ACCESS_TOKEN",
    ] {
        assert!(stderr.contains(part), "{part}: {stderr}");
    }
    assert!(!stderr.contains("planted"), "{stderr}");
    let mut command = hubsyncd(&["run"]);
    let (code, _, stderr) = finish(command.env("HUBSYNCD_CONFIG", "/nonexistent.toml")).await;
    assert_eq!(code, 78);
    assert!(stderr.contains("/nonexistent.toml: cannot be read"), "{stderr}");
}

#[tokio::test]
async fn a_daemon_that_does_not_answer_is_69_with_the_cause_and_a_hint() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("h.sock");
    for verb in ["status", "sweep", "failures"] {
        let (code, stdout, stderr) = ask(&socket, &[verb]).await;
        assert_eq!((code, stdout.as_str()), (69, ""), "{stderr}");
        assert!(
            stderr.starts_with(&format!("error: the daemon at {} cannot", socket.display())),
            "{stderr}"
        );
        assert!(
            stderr.contains("caused by: No such file") && stderr.contains("hint: is it running?"),
            "{stderr}"
        );
    }
    let (code, _, stderr) = ask(&socket, &["health"]).await;
    assert_eq!(
        code, 1,
        "a monitor asks whether it is healthy, and it is not: {stderr}"
    );
    let (code, stdout, _) = ask(&socket, &["health", "--json"]).await;
    let verdict: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, verdict["status"].as_str()), (1, Some("fail")), "{stdout}");
}

#[tokio::test]
async fn sweep_waits_and_its_exit_code_says_how_it_went() {
    let mut desk = Desk::new("complete", None);
    let served = Served::start(Desk::new("complete", None));
    let (code, stdout, stderr) = ask(&served.settings.socket, &["sweep"]).await;
    assert_eq!(
        (code, stderr.as_str()),
        (1, "the refused records: hubsyncd failures\n"),
        "three records are refused"
    );
    assert_eq!(
        stdout,
        "complete: contacts 1 created, 2 updated, 3 failed; mock_exams 6 updated\n"
    );
    let (code, stdout, _) = ask(&served.settings.socket, &["sweep", "--no-wait"]).await;
    assert_eq!(
        (code, stdout.as_str()),
        (0, "a sweep will follow the one that runs\n")
    );
    assert_eq!(served.asked(), ["sweep socket", "wait 17", "sweep socket"]);

    desk.run.summary.0[1].1 = Counts::default();
    let served = Served::start(desk);
    let (code, stdout, _) = ask(&served.settings.socket, &["sweep", "--json"]).await;
    assert_eq!(code, 0);
    let run: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(run["outcome"], "complete");

    let served = Served::start(Desk::new("incomplete", Some("HubSpot answers 503")));
    let (code, stdout, _) = ask(&served.settings.socket, &["sweep"]).await;
    assert_eq!(code, 75);
    assert!(
        stdout.starts_with("incomplete (HubSpot answers 503): "),
        "{stdout}"
    );

    let served = Served::start(Desk::of_standby());
    let (code, _, stderr) = ask(&served.settings.socket, &["sweep"]).await;
    assert_eq!(code, 69);
    assert!(stderr.contains("vm-1:4711 pushes"), "{stderr}");
}

#[tokio::test]
async fn status_and_health_are_plain_in_a_pipe_and_json_on_request() {
    let served = Served::start(Desk::new("complete", None));
    let socket = &served.settings.socket;
    let (code, stdout, _) = ask(socket, &["health"]).await;
    assert_eq!(code, 1);
    assert!(
        stdout.starts_with("fail: database: no connection was made yet"),
        "{stdout}"
    );
    let (_, stdout, _) = ask(socket, &["status"]).await;
    assert!(
        stdout.contains("lease       unknown while the database"),
        "{stdout}"
    );
    served.in_step();
    served.board.set_rows(1, 12, 3);
    let (code, stdout, _) = ask(socket, &["health"]).await;
    assert_eq!((code, stdout.as_str()), (0, "pass: in step\n"));
    let (code, stdout, _) = ask(socket, &["health", "--json"]).await;
    let health: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert!(code == 0 && health["status"] == "pass", "{stdout}");
    let (code, stdout, _) = ask(socket, &["status"]).await;
    assert_eq!(code, 0);
    assert!(stdout.contains("lease       this daemon pushes\n"), "{stdout}");
    assert!(stdout.contains("health      pass: in step\n"), "{stdout}");
    let cells: Vec<&str> = stdout
        .lines()
        .find(|line| line.starts_with("bookings "))
        .unwrap()
        .split_whitespace()
        .collect();
    assert_eq!(cells, ["bookings", "0", "0", "12", "3", "-", "-"], "{stdout}");
    assert!(
        stdout.contains("AWAITING ID"),
        "numbers have their names in a pipe too: {stdout}"
    );
    let places = ["\ncontacts ", "\nbookings ", "\nmock_exams "].map(|name| stdout.find(name));
    assert!(
        places.is_sorted() && places[0].is_some(),
        "in the order of the mapping: {stdout}"
    );
    assert!(!stdout.contains('\x1b'), "no colour in a pipe: {stdout:?}");
    let (_, stdout, _) = ask(socket, &["status", "--json"]).await;
    let status: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(status["objects"]["bookings"]["rows"], 12);
}

#[tokio::test]
async fn failures_are_listed_through_every_page_and_retried_by_name() {
    let served = Served::start(Desk::new("complete", None));
    let socket = &served.settings.socket;
    let (code, stdout, _) = ask(socket, &["failures"]).await;
    assert_eq!(code, 0);
    let line =
        "bookings\tk\t-\t2\t2027-01-15T08:00:01Z\tvalidation_error\tis_active: not one of the options\n";
    assert_eq!(stdout, line.repeat(2), "both pages");
    assert_eq!(
        served.asked(),
        ["failures None 500", "failures Some(\"bookings:k\") 500"]
    );
    let (_, stdout, _) = ask(socket, &["failures", "--json"]).await;
    let failures: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(failures["failures"].as_array().unwrap().len(), 2);
    assert!(
        stdout.starts_with(r#"{"failures":[{"object":"bookings","key":"k","hubspot_id":null,"category":"#),
        "one line, its fields in the daemon's order: {stdout}"
    );
    served.asked();
    let (code, stdout, _) = ask(socket, &["failures", "retry", "bookings", "a/b & c"]).await;
    let said = "1 record is tried again; if it is refused again, `hubsyncd failures` lists it\n";
    assert_eq!((code, stdout.as_str()), (0, said));
    assert_eq!(served.asked(), ["retry Some(\"bookings\") Some(\"a/b & c\")"]);
    let (code, _, stderr) = ask(socket, &["failures", "retry", "nothing"]).await;
    assert_eq!(code, 1);
    assert!(
        stderr.starts_with("error: there is no object `nothing`") && stderr.contains("\nhint: "),
        "{stderr}"
    );
}

#[tokio::test]
async fn setup_installs_prints_and_uninstalls_with_one_url() {
    let database = super::support::postgres::Server::shared()
        .await
        .application("verbs")
        .await;
    let setup = async |arguments: &[&str]| {
        let mut command = hubsyncd(&[&["setup"], arguments].concat());
        finish(command.env("DATABASE_URL", database.url_as("app_owner"))).await
    };
    let (code, stdout, stderr) = setup(&["--print"]).await;
    assert_eq!(code, 0, "{stderr}");
    assert!(
        stdout.contains("CREATE") && stdout.contains("SECURITY DEFINER"),
        "{stdout}"
    );
    let (code, stdout, stderr) = setup(&[]).await;
    assert_eq!(code, 0, "{stderr}");
    assert!(
        stdout.contains("installed ") && stdout.contains("granted "),
        "{stdout}"
    );
    assert!(
        stdout.contains("granted SELECT, INSERT, UPDATE, DELETE, TRUNCATE on hubsyncd.change\n"),
        "the rights on a table are one line: {stdout}"
    );
    let (code, stdout, _) = setup(&[]).await;
    assert_eq!((code, stdout.as_str()), (0, "everything is in place already\n"));
    let (code, stdout, _) = setup(&["--json"]).await;
    let nothing = r#"{"adopted":[],"granted":[],"installed":[],"notes":[],"removed":[]}"#;
    assert_eq!((code, stdout.trim_end()), (0, nothing));
    let (code, stdout, stderr) = setup(&["--uninstall"]).await;
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("removed "), "{stdout}");
}

#[tokio::test]
async fn setup_says_what_is_missing_with_78_and_who_may_not_with_77() {
    let empty = Database::new("verbs_empty").await;
    let mut command = hubsyncd(&["setup"]);
    let (code, _, stderr) = finish(command.env("DATABASE_URL", empty.url_as("app_owner"))).await;
    assert_eq!(code, 78, "{stderr}");
    for table in [
        "hubspot_contact_credits",
        "hubspot_bookings",
        "hubspot_mock_exams",
    ] {
        assert!(stderr.contains(table), "{table} is not in {stderr}");
    }
    let database = super::support::postgres::Server::shared()
        .await
        .application("verbs_denied")
        .await;
    let mut command = hubsyncd(&["setup"]);
    let (code, _, stderr) = finish(command.env("DATABASE_URL", database.url_as("hubsyncd"))).await;
    assert_eq!(code, 77, "{stderr}");
    assert!(stderr.contains("hint: run setup as the owner"), "{stderr}");
    let mut command = hubsyncd(&["setup"]);
    let (code, _, stderr) =
        finish(command.env("DATABASE_URL", "postgres://planted:planted@127.0.0.1:1/x")).await;
    assert_eq!(code, 69, "{stderr}");
    assert!(!stderr.contains("planted"), "{stderr}");
}

/// The whole answer to a GET.
async fn get(address: &str, path: &str, token: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn the_sandbox_says_where_it_is_and_ends_on_sigterm() {
    let limits = [
        "--requests",
        "2",
        "--daily",
        "500",
        "--latency",
        "50ms",
        "--search-lag",
        "1s",
    ];
    let mut child = hubsyncd(&[&["sandbox"][..], &limits].concat())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let url = lines.next_line().await.unwrap().unwrap();
    let address = url.strip_prefix("HUBSPOT_BASE_URL=http://").unwrap().to_owned();
    let token = lines.next_line().await.unwrap().unwrap();
    let token = token.strip_prefix("HUBSPOT_ACCESS_TOKEN=").unwrap();
    let begin = std::time::Instant::now();
    for expected in [200, 200, 429] {
        let answer = get(&address, "/account-info/2026-09/details", token).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected} ")), "{answer}");
        if expected == 200 {
            assert!(
                answer.to_lowercase().contains("x-hubspot-ratelimit-daily: 500"),
                "{answer}"
            );
        }
    }
    assert!(
        begin.elapsed() >= Duration::from_millis(100),
        "each answer takes its time"
    );
    let pid = child.id().unwrap().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .await
            .unwrap()
            .success()
    );
    let ended = tokio::time::timeout(Duration::from_secs(20), child.wait())
        .await
        .unwrap();
    assert_eq!(ended.unwrap().code(), Some(0));
}

#[tokio::test]
async fn systemd_hears_ready_though_the_database_is_down_and_the_end_is_orderly() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let systemd = tokio::net::UnixDatagram::bind(path("notify")).unwrap();
    let mut command = hubsyncd(&["run"]);
    command
        .env("DATABASE_URL", "postgres://hubsyncd@127.0.0.1:1/nothing")
        .env("HUBSPOT_ACCESS_TOKEN", "planted-token")
        .env("HUBSPOT_BASE_URL", "http://127.0.0.1:1")
        .env("HUBSYNCD_SOCKET", path("h.sock"))
        .env("NOTIFY_SOCKET", path("notify"))
        .env("WATCHDOG_USEC", "200000")
        .stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let mut all = String::new();
    let mut heard = async |wanted: &str| {
        let mut buffer = [0; 1024];
        let hear = async {
            // A status may come before what was waited for.
            while !all.contains(wanted) {
                let length = systemd.recv(&mut buffer).await.unwrap();
                all.push_str(&String::from_utf8_lossy(&buffer[..length]));
            }
        };
        let heard = tokio::time::timeout(Duration::from_secs(20), hear).await;
        heard.unwrap_or_else(|_| panic!("systemd never heard {wanted}"));
        std::mem::take(&mut all)
    };
    let said = heard("READY=1").await;
    let status = match said.contains("STATUS=") {
        true => said,
        false => heard("STATUS=").await,
    };
    assert!(status.contains("STATUS=database: "), "{status}");
    heard("WATCHDOG=1").await;
    heard("WATCHDOG=1").await;
    let socket = directory.path().join("h.sock");
    assert_eq!(ask(&socket, &["health"]).await.0, 1);
    let (code, stdout, stderr) = ask(&socket, &["status"]).await;
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("last sweep  none yet"), "{stdout}");
    let pid = child.id().unwrap().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .await
            .unwrap()
            .success()
    );
    heard("STOPPING=1").await;
    let output = tokio::time::timeout(Duration::from_secs(20), child.wait_with_output())
        .await
        .unwrap()
        .unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{log}");
    assert!(!log.contains("planted"), "{log}");
    for line in log.lines() {
        let event: serde_json::Value = serde_json::from_str(line).expect("logs in a pipe are JSON");
        assert!(event["message"].is_string(), "{line}");
    }
    assert!(!socket.exists());
}
