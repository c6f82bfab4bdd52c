//! Discretion: strings are planted in every column, secret and error text, everything is made to go wrong, and all that the
//! program ever printed, logged at any level, served, posted and told systemd is searched for them.

use super::support::daemon::{CONTACTS, Daemon, Stage};
use super::support::machine::readme;
use super::support::{http, wait_until, wait_within};
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use hubsyncd::sandbox::{Property, Sandbox, Settings};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Stands in every value, secret and text that nobody may be told, and the end of every e-mail address; in lower case.
const PLANTED: [&str; 2] = ["planted", "@example.com"];

/// Every column of every table that may hold a text, and a mapping that sends them all.
const TOML: &str = r#"
[batch]
max-delay = "30ms"
[sweep]
on-start = false
give-up = "2s"
[http]
listen = "127.0.0.1:0"
[[object]]
name = "contacts"
table = "hubspot_sync.hubspot_contact_credits"
type = "0-1"
key = "id"
hubspot-id = "hubspot_id"
synced-at = "hubspot_last_sync_at"
match-on = "email"
where = "CASE WHEN student_id LIKE '%cast%' THEN student_id::int = 1 ELSE true END"
[object.properties]
email = "email"
student_id = "student_id"
firstname = "firstname"
lastname = "lastname"
sj_credits = "sj_credits"
ndecc = "ndecc_exam_date"

[[object]]
name = "bookings"
table = "hubspot_sync.hubspot_bookings"
type = "2-50158943"
key = "id"
hubspot-id = "hubspot_id"
synced-at = "hubspot_last_sync_at"
match-on = "booking_id"
[object.properties]
booking_id = "booking_id"
student_name = "student_name"
student_email = "student_email"
is_active = "is_active"
attending_location = "attending_location"
dominant_hand = "dominant_hand"
token_used = "token_used"
idempotency_key = "idempotency_key"
[[object.link]]
to = "contacts"
column = "contact_id"
lookup = { student_id = "student_id", email = "student_email" }

[audit]
table = "hubspot_sync.supabase_audit_log"
"#;

/// What the database says of rows when it refuses them, and to whoever listens to its notices.
const TELLTALES: &str = r#"
ALTER TABLE hubspot_sync.hubspot_contact_credits
  ADD CONSTRAINT talkative CHECK (hubspot_id IS NULL OR firstname <> 'pLaNtEd-check');
CREATE FUNCTION hubspot_sync.talk() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE WARNING 'about to write %', NEW USING DETAIL = NEW.email, HINT = NEW.firstname;
  RAISE NOTICE 'about to write %', NEW;
  IF NEW.firstname = 'pLaNtEd-raise' AND NEW.hubspot_id IS NOT NULL THEN
    RAISE EXCEPTION 'no % with %', NEW.firstname, NEW.email USING DETAIL = NEW.email, HINT = NEW.lastname;
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER talk BEFORE INSERT OR UPDATE ON hubspot_sync.hubspot_contact_credits
  FOR EACH ROW EXECUTE FUNCTION hubspot_sync.talk();
"#;

/// An answer in HubSpot's name to the next request whose path holds `path`.
struct Lie {
    path: &'static str,
    status: u16,
    body: String,
}

/// Stands between the daemon and the sandbox, lies when it is told to, and takes alerts.
struct Liar {
    base: String,
    kept: Arc<Kept>,
    task: tokio::task::JoinHandle<()>,
}

struct Kept {
    sandbox: String,
    lies: Mutex<VecDeque<Lie>>,
    posts: Mutex<String>,
}

impl Liar {
    async fn before(sandbox: &Sandbox) -> Liar {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let kept = Arc::new(Kept {
            sandbox: sandbox.base_url(),
            lies: Mutex::default(),
            posts: Mutex::default(),
        });
        let router = axum::Router::new().fallback(pass).with_state(Arc::clone(&kept));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Liar { base, kept, task }
    }

    fn lie(&self, path: &'static str, status: u16, body: &str) {
        let body = body.to_owned();
        self.kept
            .lies
            .lock()
            .unwrap()
            .push_back(Lie { path, status, body });
    }

    fn is_told(&self) -> bool {
        self.kept.lies.lock().unwrap().is_empty()
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(State(kept): State<Arc<Kept>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, 16 << 20).await.unwrap();
    let path = head.uri.path_and_query().unwrap().as_str().to_owned();
    if path.starts_with("/hook/") {
        kept.posts
            .lock()
            .unwrap()
            .push_str(&String::from_utf8_lossy(&body));
        return answer(204, Bytes::new());
    }
    let lie = {
        let mut lies = kept.lies.lock().unwrap();
        let is_due = lies.front().is_some_and(|lie| path.contains(lie.path));
        is_due.then(|| lies.pop_front()).flatten()
    };
    if let Some(lie) = lie {
        return answer(lie.status, lie.body.into());
    }
    let method = head.method.as_str().parse().unwrap();
    let mut onward = http()
        .request(method, format!("{}{path}", kept.sandbox))
        .body(body);
    for name in ["authorization", "content-type"] {
        if let Some(value) = head.headers.get(name) {
            onward = onward.header(name, value.as_bytes());
        }
    }
    let response = onward.send().await.unwrap();
    answer(response.status().as_u16(), response.bytes().await.unwrap())
}

fn answer(status: u16, body: Bytes) -> Response {
    let response = Response::builder().status(status);
    let response = response.header("content-type", "application/json");
    response.body(Body::from(body)).unwrap()
}

/// HubSpot's form of an error, with planted words wherever it quotes.
fn error(category: &str) -> String {
    serde_json::json!({
        "status": "error",
        "message": "Email address pLaNtEd.mail@planted.example is invalid: pLaNtEd was not one of the allowed options",
        "correlationId": "0a1b2c3d-0000-4000-8000-000000000000",
        "category": category,
        "context": { "ids": ["pLaNtEd"], "email": ["pLaNtEd.mail@planted.example"] },
        "errors": [{
            "message": "pLaNtEd was not a valid long.",
            "in": "pLaNtEd",
            "context": { "propertyName": ["firstname"], "value": ["pLaNtEd"] },
        }],
    })
    .to_string()
}

/// A contact with planted values in all its columns.
fn contact(name: &str) -> String {
    format!(
        "INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email, firstname, lastname, ndecc_exam_date)
         VALUES ('pLaNtEd-{name}', 'pLaNtEd.{name}@example.com', 'pLaNtEd-{name}', 'pLaNtEd-last', 'pLaNtEd-date')"
    )
}

/// A booking of that contact, likewise.
fn booking(name: &str) -> String {
    format!(
        "INSERT INTO hubspot_sync.hubspot_bookings (booking_id, mock_exam_id, student_id, student_name, student_email,
           is_active, attending_location, dominant_hand, token_used, idempotency_key)
         VALUES ('pLaNtEd-{name}', 'pLaNtEd', 'pLaNtEd-{name}', 'pLaNtEd', 'pLaNtEd.{name}@example.com',
           'pLaNtEd', 'pLaNtEd', 'pLaNtEd', 'pLaNtEd', 'pLaNtEd-{name}')"
    )
}

const TOUCH: &str = "UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = sj_credits + 1
                     WHERE student_id = 'pLaNtEd-good'";

/// Hears what systemd is told. It always listens: who does not keeps the daemon waiting.
struct Systemd {
    told: Arc<Mutex<String>>,
    directory: tempfile::TempDir,
    task: tokio::task::JoinHandle<()>,
}

impl Systemd {
    fn listen() -> Systemd {
        let directory = tempfile::tempdir().unwrap();
        let socket = tokio::net::UnixDatagram::bind(directory.path().join("notify")).unwrap();
        let told = Arc::new(Mutex::new(String::new()));
        let noted = Arc::clone(&told);
        let task = tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok(length) = socket.recv(&mut buffer).await {
                let words = String::from_utf8_lossy(&buffer[..length]).into_owned();
                noted.lock().unwrap().push_str(&words);
            }
        });
        Systemd {
            told,
            directory,
            task,
        }
    }

    fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("notify")
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A stage whose secrets are planted, too, and what stands between it and the sandbox.
async fn stage() -> (Stage, Liar, Systemd) {
    let token = "pat-na1-pLaNtEd-token".to_owned();
    let settings = Settings {
        token,
        ..Settings::default()
    };
    let mut stage = Stage::without_setup("discreet", settings, TOML).await;
    stage
        .sandbox
        .world()
        .add_property(CONTACTS, Property::string("ndecc"));
    let liar = Liar::before(&stage.sandbox).await;
    stage.toml = format!(
        "{TOML}\n[alert]\nwebhook-url = \"{}/hook/pLaNtEd-hook\"\n",
        liar.base
    );
    let systemd = Systemd::listen();
    stage.set("NOTIFY_SOCKET", systemd.path().to_str().unwrap());
    let url = stage.database.url_as("hubsyncd");
    stage.set(
        "DATABASE_URL",
        &url.replacen("hubsyncd@", "hubsyncd:pLaNtEd-password@", 1),
    );
    stage.set("HUBSPOT_BASE_URL", &liar.base);
    stage.set("CRON_SECRET", "pLaNtEd-cron-secret");
    stage.set("RUST_LOG", "trace");
    stage.setup().await;
    stage.sql(TELLTALES).await;
    (stage, liar, systemd)
}

/// Runs a verb; answers all that it said.
async fn verb(stage: &Stage, line: &str) -> String {
    let mut command = stage.command("daemon");
    command.args(line.split(' '));
    let output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// The verbs of the README's table that only ask or may be repeated, with their arguments.
fn verbs() -> Vec<String> {
    let mut verbs: Vec<String> = [
        "status",
        "status --json",
        "health",
        "health --json",
        "failures",
        "failures --json",
        "sweep",
        "sweep --json",
        "failures retry",
        "reload",
        "reload --json",
        "alert test",
        "setup --print",
        "setup",
    ]
    .map(str::to_owned)
    .to_vec();
    for later in ["check", "plan"] {
        if readme().contains(&format!("| `hubsyncd {later}")) {
            verbs.extend([later.to_owned(), format!("{later} --json")]);
        }
    }
    verbs
}

/// Everything that can be asked of the daemon now.
async fn served(stage: &Stage, daemon: &Daemon) -> String {
    let mut said = String::new();
    for path in [
        "/livez",
        "/health",
        "/status",
        "/metrics",
        "/runs",
        "/failures",
        "/",
        "/dashboard/failures",
        "/dashboard/changes",
        "/dashboard/runs",
        "/dashboard/record",
        "/api/admin/hubspot/sync/status",
        "/nowhere",
    ] {
        said.push_str(&daemon.get(path).await.1);
    }
    let keys = "SELECT string_agg(id::text, ' ') FROM hubspot_sync.hubspot_contact_credits WHERE firstname <> 'pLaNtEd-good'";
    for key in stage.value(keys).await.unwrap_or_default().split(' ').take(3) {
        let path = format!("/dashboard/record?object=contacts&key={key}");
        said.push_str(&daemon.get(&path).await.1);
    }
    for verb_line in verbs() {
        let answer = verb(stage, &verb_line).await;
        said.push_str(&format!("\n$ hubsyncd {verb_line}\n{answer}"));
    }
    for table in ["failure", "run", "change", "link", "meta"] {
        let rows = format!("SELECT string_agg(t::text, ' ') FROM hubsyncd.{table} AS t");
        said.push_str(&stage.value(&rows).await.unwrap_or_default());
    }
    said
}

/// What is said of a planted string, with the words around it.
#[track_caller]
fn assert_discreet(said: &str, whose: &str) {
    assert!(!said.is_empty(), "{whose} says nothing");
    let lower = said.to_lowercase();
    if let Some(at) = PLANTED.iter().find_map(|planted| lower.find(planted)) {
        let before: String = lower[..at].chars().rev().take(400).collect();
        let before: String = before.chars().rev().collect();
        let told: String = lower[at..].chars().take(200).collect();
        panic!("{whose} tells what was planted: …{before}{told}…");
    }
    assert!(!lower.contains("panicked"), "{whose}: {said}");
}

#[tokio::test]
async fn nothing_that_was_planted_is_ever_told_to_anybody() {
    let (mut stage, liar, systemd) = stage().await;
    let daemon = stage.start().await;
    let mut heard = served(&stage, &daemon).await;

    // Rows that Postgres refuses to read or to write, that HubSpot refuses by itself, and one that all take.
    for name in ["good", "cast", "check", "raise"] {
        stage.app(&contact(name)).await;
        stage.app(&booking(name)).await;
    }
    stage
        .app(
            "INSERT INTO hubspot_sync.supabase_audit_log (table_name, record_id, operation, new_values, performed_by)
             SELECT 'hubspot_contact_credits', id, 'pLaNtEd', '{\"email\": \"pLaNtEd\"}', 'pLaNtEd'
             FROM hubspot_sync.hubspot_contact_credits",
        )
        .await;
    wait_until("the refused rows are refused", async || {
        let failed = "SELECT count(DISTINCT category) FROM hubsyncd.failure";
        stage
            .value(failed)
            .await
            .is_some_and(|count| count.parse::<u32>().unwrap() >= 2)
    })
    .await;
    heard.push_str(&served(&stage, &daemon).await);

    // Every way of HubSpot's to refuse a request, with the values in its words.
    let lies: [(&str, u16, String); 12] = [
        ("/batch/", 400, error("VALIDATION_ERROR")),
        ("/batch/", 409, error("CONFLICT")),
        ("/batch/", 404, error("OBJECT_NOT_FOUND")),
        ("/batch/", 413, "pLaNtEd is too large".to_owned()),
        ("/batch/", 423, error("LOCKED")),
        ("/batch/", 429, error("RATE_LIMITS")),
        ("/batch/", 500, error("INTERNAL")),
        ("/batch/", 502, "<html><h1>pLaNtEd Bad Gateway</h1></html>".to_owned()),
        ("/batch/", 200, "pLaNtEd no JSON".to_owned()),
        ("/batch/", 200, "{\"results\": [{\"id\": \"pLaNtEd".to_owned()),
        ("/batch/", 200, "{\"status\": \"COMPLETE\", \"results\": [{\"id\": {\"pLaNtEd\": 1}}]}".to_owned()),
        ("/batch/", 207, serde_json::json!({"results": [], "errors": [serde_json::from_str::<serde_json::Value>(&error("VALIDATION_ERROR")).unwrap()]}).to_string()),
    ];
    let patience = Duration::from_secs(60);
    for (at, (path, status, body)) in lies.into_iter().enumerate() {
        liar.lie(path, status, &body);
        // A row of its own, and time to recover: pauses grow with every failure in a row.
        stage.app(&contact(&format!("lie{at}"))).await;
        wait_within(patience, &format!("HubSpot has answered {status}"), async || {
            liar.is_told()
        })
        .await;
        stage.wait_drained().await;
    }
    heard.push_str(&served(&stage, &daemon).await);
    // A mended row whose links are refused, a right that is missing, a token that is refused: the words go to health.
    for (path, status, category) in [
        ("/associations/", 400, "VALIDATION_ERROR"),
        ("/batch/", 403, "MISSING_SCOPES"),
        ("/batch/", 401, "INVALID_AUTHENTICATION"),
    ] {
        liar.lie(path, status, &error(category));
        stage.app(TOUCH).await;
        stage
            .app("UPDATE hubspot_sync.hubspot_bookings SET is_active = is_active || '!'")
            .await;
        stage
            .app(&contact(&format!("more{status}{}", category.len())))
            .await;
        stage
            .app(&booking(&format!("more{status}{}", category.len())))
            .await;
        wait_within(patience, &format!("HubSpot has answered {status}"), async || {
            liar.is_told()
        })
        .await;
        heard.push_str(&served(&stage, &daemon).await);
    }

    // A configuration with a secret in the line that is wrong.
    let good = stage.toml.clone();
    for wrong in [
        "[database]\nurl = \"postgres://u:pLaNtEd@h/d\n",
        "[database]\nurl = \"postgres://u:pLaNtEd@h/d?sslmode=pLaNtEd\"\n",
        "[database]\nurl = 'http://pLaNtEd'\n",
    ] {
        stage.toml = format!("{wrong}{good}");
        let said = verb(&stage, "reload").await;
        assert_discreet(&said, "a refused reload");
        daemon.signal("HUP");
    }
    stage.toml = good;
    heard.push_str(&served(&stage, &daemon).await);

    let posts = liar.kept.posts.lock().unwrap().clone();
    assert!(daemon.log().contains("\"DEBUG\""), "it logs at every level");
    assert_discreet(&daemon.log(), "the log");
    assert_discreet(&heard, "an answer");
    assert_discreet(&systemd.told.lock().unwrap(), "systemd's status line");
    assert_discreet(&posts, "an alert");
    assert_eq!(daemon.stop().await, Some(0));
    assert_discreet(&stage.logs(), "the log");
}

#[tokio::test]
async fn what_is_mirrored_is_told_to_nobody_but_who_asks_for_records() {
    let (mut stage, liar, systemd) = stage().await;
    stage.toml.push_str("[mirror]\nevery = \"1h\"\n");
    {
        let mut world = stage.sandbox.world();
        let deal = [
            ("dealname", "pLaNtEd-deal"),
            ("amount", "pLaNtEd"),
            ("closedate", "pLaNtEd"),
        ];
        world.create("0-3", deal);
        world.create(
            "0-2",
            [("name", "pLaNtEd-company"), ("domain", "planted.example")],
        );
        world.create(CONTACTS, [("email", "pLaNtEd.mirror@example.com")]);
    }
    // The first list of companies is refused in words that quote.
    liar.lie("/0-2?", 400, &error("VALIDATION_ERROR"));
    let daemon = stage.start().await;
    let deals = "SELECT count(*) FROM hubsyncd.mirror_deals WHERE sync_status = 'error'";
    stage.wait_value(deals, "1").await;
    wait_until("the list was refused", async || liar.is_told()).await;
    let mut heard = served(&stage, &daemon).await;
    for line in ["mirror", "mirror --json", "mirror companies --limit 1"] {
        heard.push_str(&verb(&stage, line).await);
    }
    heard.push_str(&served(&stage, &daemon).await);
    for kind in ["contacts", "companies", "deals"] {
        let records = daemon.get(&format!("/api/admin/hubspot/{kind}")).await.1;
        assert!(records.to_lowercase().contains("planted"), "{kind}: {records}");
    }
    assert!(daemon.log().contains("the mirror pulls"), "{}", daemon.log());
    assert_discreet(&daemon.log(), "the log");
    assert_discreet(&heard, "an answer");
    assert_discreet(&systemd.told.lock().unwrap(), "systemd's status line");
    assert_eq!(daemon.stop().await, Some(0));
    assert_discreet(&stage.logs(), "the log");
}
