//! The socket: its routes, its answers to the letter, who may ask, and clients that stall.

use super::support::served::{Desk, NOW, SECRET, Served, ask};
use super::support::wait_until;
use hubsyncd::config::{Config, Http, Needs};
use hubsyncd::daemon::board::Counted;
use hubsyncd::daemon::http::Server;
use hubsyncd::mapping::Mirrored;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

#[tokio::test]
async fn the_documented_trigger_answers_to_the_letter() {
    let served = Served::start(Desk::new("complete", None));
    let documented = "{\"success\":true,\"duration\":\"1234ms\",\"summary\":{\
        \"contacts\":{\"created\":1,\"updated\":2,\"failed\":3},\
        \"bookings\":{\"created\":0,\"updated\":0,\"failed\":0},\
        \"mockExams\":{\"updated\":6,\"failed\":0}}}";
    let bearer = format!("Authorization: Bearer {SECRET}");
    for method in ["GET", "POST"] {
        let (code, body) = served
            .ask_tcp(&format!("{method} /api/admin/cron/batch-sync-hubspot\n{bearer}"))
            .await;
        assert_eq!((code, body.as_str()), (200, documented));
        assert_eq!(served.asked(), ["sweep manual", "wait 17"]);
    }
    let (code, _) = served
        .ask_tcp(&format!("HEAD /api/admin/cron/batch-sync-hubspot\n{bearer}"))
        .await;
    assert_eq!((code, served.asked().len()), (405, 0));
}

#[tokio::test]
async fn a_sweep_that_ends_incomplete_is_a_500_with_what_it_did() {
    let served = Served::start(Desk::new("incomplete", Some("HubSpot answers 503")));
    let (code, body) = served.ask("POST /api/admin/cron/batch-sync-hubspot").await;
    assert_eq!((code, &body["success"]), (500, &json!(false)));
    assert_eq!(body["error"], "HubSpot answers 503");
    assert_eq!(
        body["summary"]["contacts"],
        json!({ "created": 1, "updated": 2, "failed": 3 })
    );
}

#[tokio::test]
async fn pitfall_1k_a_wrong_or_missing_secret_is_unauthorized_whatever_else_is_sent() {
    let served = Served::start(Desk::new("complete", None));
    let wrong = [
        "",
        "\nx-vercel-cron: true",
        "\nAuthorization: Bearer wrong",
        "\nAuthorization: Bearer ",
        "\nAuthorization: Basic s3cret-of-the-cron",
        "\nAuthorization: s3cret-of-the-cron",
    ];
    for headers in wrong {
        for path in [
            "/api/admin/cron/batch-sync-hubspot",
            "/status",
            "/metrics",
            "/runs",
            "/nowhere",
        ] {
            let (code, body) = served.ask_tcp(&format!("GET {path}{headers}")).await;
            assert_eq!(
                (code, body.as_str()),
                (401, "{\"error\":\"Unauthorized\"}"),
                "{path} {headers}"
            );
        }
    }
    for path in ["/livez", "/health"] {
        assert_ne!(
            served.ask_tcp(&format!("GET {path}")).await.0,
            401,
            "{path} is open"
        );
    }
    assert!(served.asked().is_empty());
}

#[tokio::test]
async fn pages_of_other_sites_and_unknown_host_names_are_refused_on_both_kinds_of_socket() {
    let served = Served::start(Desk::new("complete", None));
    let bearer = format!("Authorization: Bearer {SECRET}");
    for headers in [
        "Host: evil.example",
        "Host: localhost.evil.example:3002",
        "Host: localhost\nOrigin: https://evil.example",
        "Host: localhost\nOrigin: null",
        "Host: localhost:3002\nOrigin: http://localhost:8080",
        "Host: localhost\nSec-Fetch-Site: cross-site",
        "Host: localhost\nSec-Fetch-Site: same-site",
    ] {
        for request in [
            "POST /sweep",
            "POST /failures/retry",
            "GET /api/admin/cron/batch-sync-hubspot",
        ] {
            let (code, _) = served.ask(&format!("{request}\n{headers}")).await;
            assert!(matches!(code, 403 | 421), "{request} {headers}: {code}");
            let (code, _) = served.ask_tcp(&format!("{request}\n{headers}\n{bearer}")).await;
            assert!(matches!(code, 403 | 421), "{request} {headers}: {code}");
        }
    }
    assert!(served.asked().is_empty());
    for headers in [
        "Host: localhost:3002\nOrigin: http://localhost:3002\nSec-Fetch-Site: same-origin",
        "Host: 127.0.0.1\nSec-Fetch-Site: none",
        "Host: [::1]:80",
    ] {
        assert_eq!(
            served.ask(&format!("POST /sweep\n{headers}")).await.0,
            202,
            "{headers}"
        );
    }
}

#[tokio::test]
async fn a_sweep_is_asked_for_and_waited_for() {
    let served = Served::start(Desk::new("complete", None));
    let (code, body) = served.ask("POST /sweep").await;
    assert_eq!((code, body), (202, json!({ "id": "17", "state": "queued" })));
    let (code, run) = served.ask("POST /sweep?wait=true").await;
    assert_eq!((code, &run["outcome"]), (200, &json!("complete")));
    assert_eq!(run["started_at"], "2027-01-15T08:00:00Z");
    assert_eq!(
        run["summary"]["mock_exams"],
        json!({ "created": 0, "updated": 6, "failed": 0 })
    );
    assert_eq!(served.asked(), ["sweep socket", "sweep socket", "wait 17"]);
    assert_eq!(served.ask("GET /sweep").await.0, 405);
    assert_eq!(served.ask("POST /sweep?archive=go").await.0, 202);
    assert_eq!(served.asked().last().unwrap(), "sweep socket archive");
    assert_eq!(served.ask("POST /sweep?archive=yes").await.0, 400);
    assert_eq!(
        served.ask("POST /nowhere").await,
        (404, json!({ "error": "there is no such route" }))
    );
}

#[tokio::test]
async fn runs_and_failures_come_in_pages() {
    let served = Served::start(Desk::new("complete", None));
    let (_, body) = served.ask("GET /runs").await;
    assert_eq!(
        (&body["runs"][0]["id"], &body["next"]),
        (&json!("17"), &Value::Null)
    );
    let text = ask(
        UnixStream::connect(&served.settings.socket).await.unwrap(),
        "GET /runs",
    )
    .await
    .1;
    let order = ["contacts", "bookings", "mock_exams"].map(|object| text.find(object).unwrap());
    assert!(order.is_sorted(), "in the order of the mapping: {text}");
    served.asked();
    let (_, body) = served.ask("GET /failures?limit=7&after=bookings%3Aa").await;
    let expected = json!({ "object": "bookings", "key": "k", "hubspot_id": null, "category": "validation_error",
        "message": "is_active: not one of the options", "correlation_id": "c-1", "attempts": 2,
        "first_failed_at": "2027-01-15T08:00:00Z", "last_failed_at": "2027-01-15T08:00:01Z" });
    assert_eq!(body, json!({ "failures": [expected], "next": null }));
    assert_eq!(served.asked(), ["failures Some(\"bookings:a\") 7"]);
    assert_eq!(served.ask("GET /failures?limit=0").await.0, 400);
    let (code, body) = served.ask("POST /failures/retry?object=bookings&key=a%2Fb").await;
    assert_eq!((code, body), (202, json!({ "retried": 1 })));
    assert_eq!(served.asked(), ["retry Some(\"bookings\") Some(\"a/b\")"]);
    assert_eq!(served.ask("POST /failures/retry?object=nothing").await.0, 404);
}

#[tokio::test]
async fn a_standby_answers_409_and_names_the_holder() {
    let served = Served::start(Desk::of_standby());
    let (code, body) = served.ask("POST /sweep").await;
    assert_eq!((code, &body["holder"]), (409, &json!("vm-1:4711")));
    let (code, body) = served.ask("POST /api/admin/cron/batch-sync-hubspot").await;
    assert_eq!(code, 409);
    assert!(body["error"].as_str().unwrap().contains("vm-1:4711"), "{body}");
}

#[tokio::test]
async fn the_status_holds_what_is_documented() {
    let served = Served::start(Desk::new("complete", None));
    served.in_step();
    served.board.set_backlog(1, 3, Some(Instant::now()));
    served.board.set_failures(0, 2);
    served.board.adjust_failures(0, -1);
    served.board.set_rows(1, 10, 4);
    served.board.adjust_rows(1, 0, -1);
    served.board.synced(1, NOW);
    served.board.set_window(90, 100);
    served.board.set_next_sweep(Some(NOW));
    served.board.sweep_ended(served.desk.run.clone());
    let (code, status) = served.ask("GET /status").await;
    assert_eq!(code, 200);
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(
        (&status["lease"], &status["listener"]),
        (&json!("held"), &json!("armed"))
    );
    assert_eq!((&status["pending"], &status["failures"]), (&json!(3), &json!(1)));
    assert!(status["oldest_pending_seconds"].is_f64() && status["uptime_seconds"].is_u64());
    let bookings = &status["objects"]["bookings"];
    assert_eq!(
        (&bookings["rows"], &bookings["awaiting_hubspot_id"]),
        (&json!(10), &json!(3))
    );
    assert_eq!(
        (&bookings["last_sync_at"], &bookings["paused"]),
        (&json!("2027-01-15T08:00:00Z"), &Value::Null)
    );
    assert_eq!(status["objects"]["contacts"]["last_sync_at"], Value::Null);
    assert_eq!(
        status["last_sweep"]["summary"]["contacts"],
        json!({ "created": 1, "updated": 2, "failed": 3 })
    );
    assert_eq!(status["next_sweep_at"], "2027-01-15T08:00:00Z");
    let limits = json!({ "window_remaining": 90, "window_max": 100, "daily_remaining": null });
    assert_eq!((&status["limits"], &status["mirror"]), (&limits, &Value::Null));
}

#[tokio::test]
async fn health_is_503_until_the_database_is_reached_and_live_all_the_while() {
    let served = Served::start(Desk::new("complete", None));
    let (code, body) = served.ask("GET /health").await;
    assert_eq!((code, &body["status"]), (503, &json!("fail")));
    assert_eq!(served.ask("GET /livez").await.0, 200);
    served.in_step();
    let (code, body) = served.ask("GET /health").await;
    assert_eq!(
        (code, &body["status"], &body["output"]),
        (200, &json!("pass"), &json!("in step"))
    );
    assert_eq!(body["checks"]["changes:age"][0]["observedUnit"], "s");
}

#[tokio::test]
async fn metrics_are_counted_by_object_endpoint_and_outcome() {
    let served = Served::start(Desk::new("complete", None));
    served.in_step();
    served.board.count(0, Counted::Updated, 5);
    served
        .board
        .request("batch update", Some(207), Duration::from_millis(300));
    served
        .board
        .request("batch update", None, Duration::from_secs(30));
    served.board.change_latency(Duration::from_millis(260));
    served.board.set_backlog(1, 3, Some(Instant::now()));
    served.board.sweep_ended(served.desk.run.clone());
    let (code, text) = served
        .ask_tcp(&format!("GET /metrics\nAuthorization: Bearer {SECRET}"))
        .await;
    assert_eq!(code, 200);
    for line in [
        "hubsyncd_records_total{object=\"contacts\",outcome=\"updated\"} 5",
        "hubsyncd_records_total{object=\"bookings\",outcome=\"failed\"} 0",
        "hubsyncd_hubspot_requests_total{endpoint=\"batch update\",status=\"207\"} 1",
        "hubsyncd_hubspot_requests_total{endpoint=\"batch update\",status=\"none\"} 1",
        "hubsyncd_hubspot_request_duration_seconds_count{endpoint=\"batch update\"} 2",
        "hubsyncd_change_latency_seconds_bucket{le=\"0.5\"} 1",
        "hubsyncd_pending{object=\"bookings\"} 3",
        "hubsyncd_failures{object=\"contacts\"} 0",
        "hubsyncd_listener{state=\"armed\"} 1",
        "hubsyncd_listener{state=\"down\"} 0",
        "hubsyncd_lease_held 1",
        "hubsyncd_sweeps_total{outcome=\"complete\"} 1",
        "hubsyncd_sweep_duration_seconds_count 1",
        "hubsyncd_sweep_last_success_timestamp_seconds 1",
        "hubsyncd_build_info{version=",
        "hubsyncd_oldest_pending_seconds{object=\"bookings\"} 0.",
    ] {
        assert!(text.contains(line), "{line}\nis not in\n{text}");
    }
    assert_eq!(text.matches("# EOF").count(), 1);
    assert!(text.ends_with("# EOF\n"));
}

#[tokio::test]
async fn the_socket_for_everybody_knows_three_routes() {
    let served = Served::start(Desk::new("complete", None));
    let path = served.settings.health_socket.clone().unwrap();
    assert_eq!(mode(&path), 0o666);
    for (head, expected) in [
        ("GET /livez", 200),
        ("GET /health", 503),
        ("GET /metrics", 200),
        ("GET /status", 404),
        ("POST /sweep", 404),
        ("POST /api/admin/cron/batch-sync-hubspot", 404),
    ] {
        let (code, _) = ask(UnixStream::connect(&path).await.unwrap(), head).await;
        assert_eq!(code, expected, "{head}");
    }
    assert!(served.asked().is_empty());
}

#[tokio::test]
async fn stalled_clients_harm_nobody() {
    let served = Served::start(Desk::new("complete", None));
    let mut stalled = Vec::new();
    for index in 0..63 {
        let mut stream = UnixStream::connect(&served.settings.socket).await.unwrap();
        let half = if index % 2 == 0 {
            "GET /status HT"
        } else {
            "POST /sweep HTTP/1.1\r\nHost: hubsyncd\r\nx"
        };
        stream.write_all(half.as_bytes()).await.unwrap();
        stalled.push(stream);
    }
    assert_eq!(served.ask("GET /status").await.0, 200);
    stalled.push(UnixStream::connect(&served.settings.socket).await.unwrap());
    let health = served.settings.health_socket.clone().unwrap();
    let (code, _) = ask(UnixStream::connect(&health).await.unwrap(), "GET /livez").await;
    assert_eq!(code, 200, "one listener's clients are not another's");
    // Every place is taken: who comes now waits.
    let mut late = UnixStream::connect(&served.settings.socket).await.unwrap();
    late.write_all(b"GET /livez HTTP/1.1\r\nHost: hubsyncd\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let soon = tokio::time::timeout(Duration::from_millis(300), late.read_to_end(&mut answer)).await;
    assert!(soon.is_err(), "there are as many places as were taken");
    // The stalled ones lose theirs after the time a head may take.
    late.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"));
    assert_eq!(served.ask("GET /status").await.0, 200);
}

#[tokio::test]
async fn a_client_that_reads_no_answer_is_let_go() {
    let served = Served::start(Desk::new("complete", None));
    let mut deaf = UnixStream::connect(&served.settings.socket).await.unwrap();
    let ask_on = async {
        while deaf
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: hubsyncd\r\n\r\n")
            .await
            .is_ok()
        {}
    };
    let let_go = tokio::time::timeout(Duration::from_secs(60), ask_on).await;
    assert!(let_go.is_ok(), "its answers are not kept for ever");
    assert_eq!(served.ask("GET /status").await.0, 200);
}

#[tokio::test]
async fn an_endless_head_is_cut_off() {
    let served = Served::start(Desk::new("complete", None));
    let mut stream = UnixStream::connect(&served.settings.socket).await.unwrap();
    stream
        .write_all(b"GET /status HTTP/1.1\r\nHost: hubsyncd\r\nx: ")
        .await
        .unwrap();
    let (part, mut sent) = (vec![b'y'; 64 << 10], 0);
    // The daemon hangs up before it has taken much of it.
    while sent < 64 << 20 && stream.write_all(&part).await.is_ok() {
        sent += part.len();
    }
    assert!(sent < 8 << 20, "{sent} bytes of a head were taken");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(
        answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"),
        "{:?}",
        String::from_utf8_lossy(&answer)
    );
    assert_eq!(served.ask("GET /status").await.0, 200);
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn settings(path: PathBuf) -> Http {
    let secrets = |name: &str| (name == "DATABASE_URL").then(|| "postgres://x".to_owned());
    let config = Config::parse(Needs::Database, "", "", &secrets).unwrap();
    Http {
        socket: path,
        ..config.http
    }
}

#[tokio::test]
async fn a_dead_daemons_socket_is_replaced_and_a_living_ones_is_not() {
    let served = Served::start(Desk::new("complete", None));
    let path = served.settings.socket.clone();
    assert_eq!(mode(&path), 0o640);
    let error = Server::bind(&settings(path.clone())).unwrap_err().to_string();
    assert!(error.contains("another daemon listens on it"), "{error}");
    let stale = served.directory.path().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    let server = Server::bind(&settings(stale.clone())).unwrap();
    assert_eq!(mode(&stale), 0o660);
    drop(server);
    assert!(!stale.exists(), "a socket goes with its daemon");
    std::fs::write(&stale, "precious").unwrap();
    let error = Server::bind(&settings(stale.clone())).unwrap_err().to_string();
    assert!(
        error.contains("a file that is no socket is in the way"),
        "{error}"
    );
    assert_eq!(std::fs::read_to_string(&stale).unwrap(), "precious");
}

#[tokio::test]
async fn the_socket_goes_when_the_daemon_stops() {
    let served = Served::start(Desk::new("complete", None));
    let path = served.settings.socket.clone();
    let idle = UnixStream::connect(&path).await.unwrap();
    drop(served);
    wait_until("the socket is gone", async || !path.exists()).await;
    drop(idle);
}

#[tokio::test]
async fn the_alert_rules_name_metrics_that_exist() {
    let served = Served::start(Desk::new("complete", None));
    served
        .board
        .request("batch update", Some(200), Duration::from_millis(1));
    served.board.set_daily_remaining(Some(1));
    served.board.sweep_ended(served.desk.run.clone());
    let mut mirror = super::mirrored_routes::mirror(&Mirrored::ALL);
    mirror.known = true;
    served.board.set_mirror(Some(mirror));
    let (_, metrics) = served.ask("GET /metrics").await;
    let metrics = metrics.as_str().unwrap();
    let rules = include_str!("../systemd/hubsyncd-alerts.yml");
    let names: Vec<&str> = rules
        .split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
        .filter(|word| word.starts_with("hubsyncd_"))
        .collect();
    assert!(names.len() > 8, "{names:?}");
    for name in names {
        let is_sample = |line: &str| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with([' ', '{']))
        };
        assert!(metrics.lines().any(is_sample), "{name} is not in\n{metrics}");
    }
}
