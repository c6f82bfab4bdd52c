//! Tests: the built daemon over TCP, where the cron secret is the key.

use super::support::daemon::{CONTACTS, Daemon, QUICK, Stage};
use super::support::sweeping::logged;
use hubsyncd::sync::guesses::WRONG_MAX;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SECRET: &str = "a secret of the cron, long";
const ROUTES: [(&str, &str); 12] = [
    ("GET", "/status"),
    ("GET", "/metrics"),
    ("POST", "/sweep"),
    ("POST", "/sweep?wait=true"),
    ("GET", "/runs"),
    ("GET", "/failures"),
    ("POST", "/failures/retry"),
    ("POST", "/reload"),
    ("GET", "/api/admin/cron/batch-sync-hubspot"),
    ("POST", "/api/admin/cron/batch-sync-hubspot"),
    ("GET", "/"),
    ("GET", "/api/admin/hubspot/contacts"),
];

/// Status and body of the answer to a request with these header lines.
async fn ask(address: &str, method: &str, path: &str, headers: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Where the daemon says that it listens.
pub async fn address(daemon: &Daemon) -> String {
    logged(daemon, "listens on 127.0.0.1:").await;
    let log = daemon.log();
    let rest = log.split_once("listens on ").unwrap().1;
    let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.' && letter != ':');
    rest[..end.unwrap_or(rest.len())].to_owned()
}

#[tokio::test]
async fn over_tcp_every_route_but_livez_and_health_wants_the_secret() {
    let mut stage = Stage::new("bearer").await;
    stage.known_contact("s1").await;
    stage.set("CRON_SECRET", SECRET);
    stage.toml = format!("{QUICK}[http]\nlisten = \"127.0.0.1:0\"\n");
    let daemon = stage.start().await;
    let address = address(&daemon).await;
    let almost = &SECRET[..SECRET.len() - 1];
    let mut wrong = 0;
    for authorization in [
        String::new(),
        "Authorization: Bearer wrong\r\n".to_owned(),
        "Authorization: Bearer \r\n".to_owned(),
        format!("Authorization: Bearer {almost}\r\n"),
        format!("Authorization: Bearer {SECRET}x\r\n"),
        format!("Authorization: Basic {SECRET}\r\n"),
        "x-vercel-cron: true\r\n".to_owned(),
    ] {
        for (method, path) in ROUTES {
            let (code, body) = ask(&address, method, path, &authorization).await;
            // Another secret, and not merely none.
            wrong += u32::from(authorization.contains("Bearer ") && !authorization.contains("Bearer \r"));
            if wrong > WRONG_MAX && code == 429 {
                continue;
            }
            assert_eq!(
                (code, body.as_str()),
                (401, r#"{"error":"Unauthorized"}"#),
                "{method} {path} {authorization}"
            );
        }
        for path in ["/livez", "/health"] {
            assert_eq!(ask(&address, "GET", path, &authorization).await.0, 200, "{path}");
        }
    }
    assert_eq!(
        stage.value("SELECT count(*) FROM hubsyncd.run").await.as_deref(),
        Some("0"),
        "nobody without the secret made it sweep"
    );
    let bearer = format!("Authorization: Bearer {SECRET}\r\n");
    for (method, path, code) in [
        ("GET", "/status", 200),
        ("GET", "/metrics", 200),
        ("GET", "/api/admin/cron/batch-sync-hubspot", 200),
        ("POST", "/sweep?wait=true", 200),
        ("GET", "/nowhere", 404),
    ] {
        let (answered, body) = ask(&address, method, path, &bearer).await;
        assert_eq!(answered, code, "{method} {path}: {body}");
    }
    assert!(!daemon.log().contains(SECRET), "the secret is in no log");
    assert_eq!(daemon.get("/status").await.0, 200, "the socket's file is its key");
}

#[tokio::test]
async fn too_many_wrong_secrets_have_to_wait_and_the_right_one_and_none_at_all_never_do() {
    let mut stage = Stage::new("bearer_many").await;
    stage.set("CRON_SECRET", SECRET);
    stage.toml = format!("{QUICK}[http]\nlisten = \"127.0.0.1:0\"\n");
    let daemon = stage.start().await;
    let address = address(&daemon).await;
    let wrong = |at: u32| format!("Authorization: Bearer guess {at}\r\n");
    for at in 0..WRONG_MAX {
        assert_eq!(ask(&address, "GET", "/status", &wrong(at)).await.0, 401, "{at}");
    }
    for at in 0..10 {
        for (method, path) in ROUTES {
            let (code, body) = ask(&address, method, path, &wrong(at)).await;
            assert_eq!(code, 429, "{method} {path}: {body}");
            assert!(body.contains("too many wrong secrets"), "{body}");
        }
    }
    let mut stream = TcpStream::connect(&address).await.unwrap();
    let request = format!(
        "GET /status HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{}\r\n",
        wrong(0)
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let after = answer.lines().find_map(|line| line.strip_prefix("retry-after: "));
    let seconds: u64 = after.expect("it says when").trim().parse().unwrap();
    assert!((1..=61).contains(&seconds), "{answer}");
    let right = format!("Authorization: Bearer {SECRET}\r\n");
    assert_eq!(ask(&address, "GET", "/status", &right).await.0, 200);
    assert_eq!(ask(&address, "GET", "/status", "").await.0, 401);
    assert_eq!(ask(&address, "GET", "/health", &wrong(1)).await.0, 200);
    assert_eq!(daemon.get("/status").await.0, 200, "the socket wants none");
    let log = daemon.log();
    let told = log.lines().filter(|line| line.contains("wrong cron secret"));
    assert!((1..=2).contains(&told.count()), "once a minute: {log}");
    assert!(!log.contains("guess"), "what was given is in no log");
}

#[tokio::test]
async fn clients_without_the_secret_that_send_slowly_or_without_end_harm_nobody() {
    let mut stage = Stage::new("bearer_stalled").await;
    let contact = stage.known_contact("s1").await;
    stage.set("CRON_SECRET", SECRET);
    stage.toml = format!("{QUICK}[http]\nlisten = \"127.0.0.1:0\"\n");
    let daemon = stage.start().await;
    let address = address(&daemon).await;

    // Without end: refused after the head, whatever is announced.
    let mut endless = TcpStream::connect(&address).await.unwrap();
    let head = format!("POST /sweep HTTP/1.1\r\nHost: {address}\r\nContent-Length: 1099511627776\r\n\r\n");
    endless.write_all(head.as_bytes()).await.unwrap();
    let flood = vec![b'x'; 1 << 20];
    let mut sent = 0;
    // Nobody reads it: either side may be the one to notice.
    while sent < 1 << 30 && endless.write_all(&flood).await.is_ok() {
        sent += flood.len();
    }
    assert!(sent < 1 << 30, "a client may not send what it likes");

    // Slowly: every place that TCP has is taken by heads that do not end.
    let mut slow = Vec::new();
    for _ in 0..64 {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(b"GET /health HTTP/1.1\r\nx: ").await.unwrap();
        slow.push(stream);
    }
    assert_eq!(
        daemon.get("/status").await.0,
        200,
        "the socket has places of its own"
    );
    stage
        .app("UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = 7")
        .await;
    stage
        .wait_world("the daemon goes on", |world| {
            world.record(CONTACTS, &contact).unwrap().get("sj_credits") == Some("7")
        })
        .await;
    assert_eq!(
        ask(&address, "GET", "/livez", "").await.0,
        200,
        "they lose their places"
    );
    drop(slow);
}
