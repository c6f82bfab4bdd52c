//! Tests: alerts arrive at a webhook, from the daemon and from the verb that systemd's `OnFailure=` calls.

use super::support::daemon::{QUICK, Stage};
use super::support::wait_within;
use axum::extract::State;
use axum::http::StatusCode;
use hubsyncd::sandbox::{Fault, Settings};
use serde_json::Value;
use std::collections::VecDeque;
use std::process::Output;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;

/// The part of the address that nobody else may learn.
const KEY: &str = "B00KEY-of-the-channel";

/// A webhook that keeps what it is sent.
struct Webhook {
    port: u16,
    kept: Arc<Kept>,
    server: JoinHandle<()>,
}

#[derive(Default)]
struct Kept {
    posts: Mutex<Vec<Value>>,
    answers: Mutex<VecDeque<StatusCode>>,
}

impl Webhook {
    async fn start() -> Webhook {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let kept = Arc::new(Kept::default());
        let router = axum::Router::new()
            .route(&format!("/{KEY}"), axum::routing::post(keep))
            .with_state(Arc::clone(&kept));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Webhook { port, kept, server }
    }

    fn toml(&self) -> String {
        format!(
            "[alert]\nwebhook-url = \"http://127.0.0.1:{}/{KEY}\"\n",
            self.port
        )
    }

    /// The answers to the next posts, which are refused.
    fn refuse(&self, answers: &[u16]) {
        let answers = answers.iter().map(|code| StatusCode::from_u16(*code).unwrap());
        self.kept.answers.lock().unwrap().extend(answers);
    }

    fn posts(&self) -> Vec<Value> {
        self.kept.posts.lock().unwrap().clone()
    }

    /// Waits for so many posts that were accepted.
    async fn wait_posts(&self, count: usize) -> Vec<Value> {
        // Recovery is told after ten seconds of health, which begin with a probe that may be fifteen away.
        let patience = Duration::from_secs(60);
        wait_within(patience, &format!("{count} alerts have arrived"), async || {
            self.posts().len() >= count
        })
        .await;
        self.posts()
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn keep(State(kept): State<Arc<Kept>>, axum::Json(post): axum::Json<Value>) -> StatusCode {
    if let Some(refusal) = kept.answers.lock().unwrap().pop_front() {
        return refusal;
    }
    kept.posts.lock().unwrap().push(post);
    StatusCode::NO_CONTENT
}

/// Runs `hubsyncd alert` with a configuration; answers exit code and all that it said.
async fn alert(toml: &str, arguments: &[&str], environment: &[(&str, &str)]) -> (i32, String) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("hubsyncd.toml");
    std::fs::write(&file, toml).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_hubsyncd"));
    command
        .env_clear()
        .envs(environment.iter().copied())
        .arg("alert")
        .args(arguments)
        .arg("--config")
        .arg(&file);
    let output: Output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(!said.contains(KEY), "the address is not shown: {said}");
    (output.status.code().unwrap(), said)
}

#[tokio::test]
async fn a_test_alert_arrives_or_says_why_not() {
    let webhook = Webhook::start().await;
    let (code, said) = alert(&webhook.toml(), &["test"], &[]).await;
    assert_eq!(code, 0, "{said}");
    let posts = webhook.posts();
    assert_eq!((posts.len(), &posts[0]["event"]), (1, &"test".into()));
    assert!(
        posts[0]["text"].as_str().unwrap().contains("hubsyncd"),
        "{posts:?}"
    );
    for refusal in [500, 302, 404] {
        webhook.refuse(&[refusal]);
        let (code, said) = alert(&webhook.toml(), &["test"], &[]).await;
        assert_eq!(code, 69, "{said}");
        assert!(said.contains(&format!("answers {refusal}")), "{said}");
    }
    assert_eq!(webhook.posts().len(), 1);
    let (code, said) = alert(&webhook.toml(), &["test", "--json"], &[]).await;
    let told: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &told["delivered"]), (0, &true.into()), "{said}");
    let (_, said) = alert("", &["unit", "x.service", "--json"], &[]).await;
    let told: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(told["delivered"], false, "{said}");
    let toml = webhook.toml();
    drop(webhook);
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = nobody.local_addr().unwrap().port();
    drop(nobody);
    let toml = toml.replace(
        toml.split(['/', ':'])
            .find(|part| part.parse::<u16>().is_ok())
            .unwrap(),
        &port.to_string(),
    );
    let (code, said) = alert(&toml, &["test"], &[]).await;
    assert_eq!(code, 69, "{said}");
    assert!(
        said.contains("cannot be reached") && said.contains("webhook-url"),
        "{said}"
    );
    let (code, said) = alert("", &["test"], &[]).await;
    assert!(code == 78 && said.contains("webhook-url"), "{code}: {said}");
}

#[tokio::test]
async fn a_failed_unit_is_told_of_though_the_configuration_is_why_it_failed() {
    let webhook = Webhook::start().await;
    let broken = format!("[batch]\nmax-records = 0\nunknown = 1\n{}", webhook.toml());
    webhook.refuse(&[503]);
    let systemd = [
        ("MONITOR_SERVICE_RESULT", "exit-code"),
        ("MONITOR_EXIT_STATUS", "78"),
    ];
    let (code, said) = alert(&broken, &["unit", "hubsyncd.service"], &systemd).await;
    assert_eq!(code, 0, "a refused attempt is repeated: {said}");
    let posts = webhook.posts();
    assert_eq!(posts.len(), 1);
    assert_eq!(posts[0]["event"], "unit");
    assert_eq!(posts[0]["unit"], "hubsyncd.service");
    let output = posts[0]["output"].as_str().unwrap();
    assert!(output.contains("exit-code, 78"), "{output}");
    let (code, said) = alert("", &["unit", "hubsyncd.service"], &[]).await;
    assert_eq!(code, 0, "without a webhook it is no second failure: {said}");
    for wrong in [
        "ftp://example.com/x",
        "http://example.com/x",
        "https://u:p@example.com",
        "no url",
    ] {
        let (code, said) = alert(&format!("[alert]\nwebhook-url = \"{wrong}\"\n"), &["test"], &[]).await;
        assert!(code == 78 && said.contains("alert.webhook-url"), "{code}: {said}");
        assert!(!said.contains(wrong), "{said}");
    }
}

#[tokio::test]
async fn the_daemon_tells_of_a_failure_that_lasts_and_of_its_recovery_and_of_nothing_private() {
    let webhook = Webhook::start().await;
    let toml = format!("{QUICK}{}", webhook.toml());
    let stage = Stage::with("alerts", Settings::default(), &toml).await;
    let daemon = stage.start().await;
    webhook.refuse(&[503]);
    stage.sandbox.fault(Fault::status(401).always());
    stage
        .app("INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email) VALUES ('s1', 'private@example.com')")
        .await;
    let patience = Duration::from_secs(60);
    wait_within(
        patience,
        "an alert that does not arrive is a warning",
        async || daemon.get("/health").await.1.contains("alerts are not delivered"),
    )
    .await;
    let posts = webhook.wait_posts(1).await;
    assert_eq!(
        (&posts[0]["event"], &posts[0]["status"]),
        (&"failure".into(), &"fail".into())
    );
    assert!(
        posts[0]["output"].as_str().unwrap().contains("token"),
        "{posts:?}"
    );
    wait_within(patience, "the warning ends", async || {
        !daemon.get("/health").await.1.contains("alerts are not delivered")
    })
    .await;
    stage.sandbox.clear_faults();
    let posts = webhook.wait_posts(2).await;
    assert_eq!(posts[1]["event"], "recovery", "{posts:?}");
    stage.wait_drained().await;
    assert_eq!(daemon.sweep().await["outcome"], "complete");
    assert_eq!(webhook.posts().len(), 2);
    let told = serde_json::to_string(&webhook.posts()).unwrap();
    for private in ["private@", stage.sandbox.token(), KEY] {
        assert!(!told.contains(private), "{private}: {told}");
    }
    assert!(!daemon.log().contains(KEY), "the address is in no log");
    assert_eq!(daemon.stop().await, Some(0));
}
