//! The dashboard without a browser: who may see it, who may act on it, what it says, and that nothing in it is markup
//! that we did not write. `browser` looks at it with Chromium.

use super::support::daemon::{CONTACTS, Stage};
use super::support::postgres::Server;
use super::support::proxy::{Proxy, Silent};
use super::support::served::{Desk, SECRET, Served};
use super::support::{tables, wait_until};
use hubsyncd::daemon::board::{Condition, Lease};
use hubsyncd::postgres::causes;
use hubsyncd::sandbox::{Endpoint, When};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

const PAGES: [&str; 4] = [
    "/",
    "/dashboard/failures",
    "/dashboard/changes",
    "/dashboard/runs",
];
const FORMS: [&str; 2] = ["/dashboard/retry", "/dashboard/sweep"];

/// An answer in full.
struct Answer {
    code: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let prefix = format!("{name}: ");
        self.head.lines().find_map(|line| line.strip_prefix(&prefix))
    }

    /// The token of the first form that goes there.
    fn token(&self, form: &str) -> String {
        let (_, after) = self.body.split_once(&format!("action=\"{form}\"")).unwrap();
        let (_, after) = after.split_once("name=\"token\" value=\"").unwrap();
        after.split('"').next().unwrap().to_owned()
    }
}

/// Sends a request line with header lines, and a form where there is one.
async fn exchange<S>(mut stream: S, head: &str, form: Option<&str>) -> Answer
where
    S: AsyncReadExt + AsyncWriteExt + Unpin,
{
    let (line, headers) = head.split_once('\n').unwrap_or((head, ""));
    let mut request = format!("{line} HTTP/1.1\r\nHost: localhost:8080\r\nConnection: close\r\n");
    for header in headers.lines() {
        request.push_str(&format!("{header}\r\n"));
    }
    if let Some(form) = form {
        let length = form.len();
        request.push_str(&format!(
            "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {length}\r\n"
        ));
    }
    request.push_str("\r\n");
    request.push_str(form.unwrap_or_default());
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    Answer {
        code: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

async fn unix(served: &Served, head: &str, form: Option<&str>) -> Answer {
    let stream = UnixStream::connect(&served.settings.socket).await.unwrap();
    exchange(stream, head, form).await
}

async fn tcp(served: &Served, head: &str, form: Option<&str>) -> Answer {
    exchange(TcpStream::connect(&served.tcp).await.unwrap(), head, form).await
}

#[tokio::test]
async fn every_page_forbids_whatever_is_not_its_own_and_escapes_what_it_shows() {
    let served = Served::start(Desk::new(
        "incomplete",
        Some("HubSpot said <script>alert(1)</script> & \"so\""),
    ));
    served
        .board
        .set_condition(Condition::Triggers, Some("<i>hostile</i> words".to_owned()));
    for path in PAGES {
        let answer = unix(&served, &format!("GET {path}"), None).await;
        assert_eq!(answer.code, 200, "{path}: {}", answer.body);
        let policy = answer.header("content-security-policy").unwrap();
        let (before, after) = policy.split_once("'nonce-").unwrap();
        assert_eq!(before, "default-src 'none'; style-src ");
        let (nonce, after) = after.split_once('\'').unwrap();
        assert_eq!(
            after,
            "; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        );
        assert_eq!(
            answer.body.matches(nonce).count(),
            1,
            "the style sheet alone has it"
        );
        let again = unix(&served, &format!("GET {path}"), None).await;
        assert!(!again.head.contains(nonce), "it is used once");
        for (name, value) in [
            ("content-type", "text/html; charset=utf-8"),
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "same-origin"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{path}");
        }
        for markup in ["<script", "<i>", "<b>", " style=", "//cdn", "url("] {
            assert!(!answer.body.contains(markup), "{path} has {markup}");
        }
    }
    let changes = unix(&served, "GET /dashboard/changes", None).await;
    assert!(changes.body.contains("&lt;b&gt;k&lt;/b&gt;"), "{}", changes.body);
    let runs = unix(&served, "GET /dashboard/runs", None).await;
    assert!(
        runs.body.contains("&lt;script&gt;alert(1)&lt;/script&gt; &amp;"),
        "{}",
        runs.body
    );
    let overview = unix(&served, "GET /", None).await;
    assert!(
        overview.body.contains("&lt;i&gt;hostile&lt;/i&gt; words"),
        "{}",
        overview.body
    );
}

#[tokio::test]
async fn the_banner_says_how_things_are_and_forms_act_with_their_token_only_and_are_answered_by_a_redirect() {
    let served = Served::start(Desk::new("complete", None));
    let failing = unix(&served, "GET /", None).await;
    assert!(failing.body.contains("<title>Failing") && failing.body.contains("class=\"banner bad\""));
    served.in_step();
    let overview = unix(&served, "GET /", None).await;
    assert!(overview.body.contains("<title>In step") && overview.body.contains("class=\"banner good\""));
    let token = overview.token("/dashboard/retry");
    assert_eq!(overview.token("/dashboard/sweep"), token);
    let elsewhere = tcp(&served, &format!("GET /\nAuthorization: Bearer {SECRET}"), None).await;
    let foreign = elsewhere.token("/dashboard/retry");
    assert_ne!(foreign, token, "each listener has tokens of its own");
    served.asked();
    for form in FORMS {
        for body in [
            String::new(),
            "token=".to_owned(),
            format!("token={}", "0".repeat(64)),
            format!("token={foreign}"),
            format!("token={}", &token[..63]),
        ] {
            let answer = unix(&served, &format!("POST {form}"), Some(&body)).await;
            assert_eq!(answer.code, 403, "{form} {body}");
        }
        assert_eq!(unix(&served, &format!("POST {form}"), None).await.code, 415);
        assert_eq!(unix(&served, &format!("GET {form}"), None).await.code, 405);
        let huge = format!("token={token}&x={}", "x".repeat(20_000));
        assert_eq!(
            unix(&served, &format!("POST {form}"), Some(&huge)).await.code,
            413
        );
    }
    assert!(served.asked().is_empty());
    for (form, fields, location, asked) in [
        (
            "/dashboard/retry",
            "&object=bookings&category=validation_error&shape=is_active%3A+not+%E2%80%A6",
            "/dashboard/failures?retried=1234",
            "retry cause bookings validation_error is_active: not …",
        ),
        (
            "/dashboard/retry",
            "&object=bookings&key=a%26b",
            "/dashboard/failures?retried=1",
            "retry Some(\"bookings\") Some(\"a&b\")",
        ),
        (
            "/dashboard/retry",
            "",
            "/dashboard/failures?retried=1",
            "retry None None",
        ),
        ("/dashboard/sweep", "", "/?sweep=queued", "sweep socket"),
    ] {
        let answer = unix(
            &served,
            &format!("POST {form}"),
            Some(&format!("token={token}{fields}")),
        )
        .await;
        assert_eq!((answer.code, answer.header("location")), (303, Some(location)));
        assert_eq!(served.asked(), [asked]);
    }
    let body = format!("token={token}&object=nothing&key=k");
    let answer = unix(&served, "POST /dashboard/retry", Some(&body)).await;
    assert_eq!(answer.code, 404);
    assert!(
        answer.body.contains("there is no object `nothing`"),
        "{}",
        answer.body
    );
}

#[tokio::test]
async fn pages_of_other_sites_cannot_act_with_a_token_and_a_session_either() {
    let served = Served::start(Desk::new("complete", None));
    served.in_step();
    let cookie = sign_in(&served).await;
    let token = unix(&served, "GET /", None).await.token("/dashboard/sweep");
    let tcp_token = tcp(&served, &format!("GET /\n{cookie}"), None)
        .await
        .token("/dashboard/sweep");
    served.asked();
    for headers in [
        "Origin: http://evil.example",
        "Origin: null",
        "Origin: http://localhost:9999",
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: same-site",
    ] {
        for form in FORMS {
            let head = format!("POST {form}\n{headers}");
            let answer = unix(&served, &head, Some(&format!("token={token}"))).await;
            assert_eq!(answer.code, 403, "{head}");
            let answer = tcp(
                &served,
                &format!("{head}\n{cookie}"),
                Some(&format!("token={tcp_token}")),
            )
            .await;
            assert_eq!(answer.code, 403, "{head} over TCP");
        }
    }
    assert!(served.asked().is_empty());
    let own = "POST /dashboard/sweep\nOrigin: http://localhost:8080\nSec-Fetch-Site: same-origin";
    assert_eq!(
        unix(&served, own, Some(&format!("token={token}"))).await.code,
        303
    );
}

/// Gives the secret to the form and answers the `Cookie` header line.
async fn sign_in(served: &Served) -> String {
    let page = tcp(served, "GET /\nAccept: text/html", None).await;
    let token = page.token("/dashboard/session");
    let body = format!("token={token}&secret={SECRET}");
    let answer = tcp(served, "POST /dashboard/session", Some(&body)).await;
    assert_eq!((answer.code, answer.header("location")), (303, Some("/")));
    let cookie = answer.header("set-cookie").unwrap();
    assert!(cookie.ends_with("; HttpOnly; SameSite=Strict"), "{cookie}");
    format!("Cookie: {}", cookie.split(';').next().unwrap())
}

#[tokio::test]
async fn over_tcp_the_secret_buys_a_session_that_opens_the_pages_and_nothing_else() {
    let served = Served::start(Desk::new("complete", None));
    for path in PAGES {
        let program = tcp(&served, &format!("GET {path}"), None).await;
        assert_eq!(
            (program.code, program.body.as_str()),
            (401, "{\"error\":\"Unauthorized\"}")
        );
        let person = tcp(&served, &format!("GET {path}\nAccept: text/html,*/*"), None).await;
        assert_eq!(
            (person.code, person.header("www-authenticate")),
            (401, Some("Bearer"))
        );
        assert!(person.body.contains("Cron secret"), "{}", person.body);
        assert!(!person.body.contains("bookings"), "{}", person.body);
    }
    let page = tcp(&served, "GET /\nAccept: text/html", None).await;
    let token = page.token("/dashboard/session");
    for body in [
        format!("token={token}"),
        format!("token={token}&secret=wrong"),
        format!("token={token}&secret={}", &SECRET[1..]),
    ] {
        let answer = tcp(&served, "POST /dashboard/session", Some(&body)).await;
        assert_eq!((answer.code, answer.header("set-cookie")), (401, None));
    }
    let untold = format!("secret={SECRET}");
    assert_eq!(
        tcp(&served, "POST /dashboard/session", Some(&untold)).await.code,
        403
    );
    let cookie = sign_in(&served).await;
    for path in PAGES {
        let answer = tcp(&served, &format!("GET {path}\n{cookie}"), None).await;
        assert_eq!(answer.code, 200, "{path}");
        let broken = format!("GET {path}\n{}x", cookie);
        assert_eq!(tcp(&served, &broken, None).await.code, 401, "{path}");
        let bearer = format!("GET {path}\nAuthorization: Bearer {SECRET}");
        assert_eq!(tcp(&served, &bearer, None).await.code, 200, "{path}");
    }
    served.asked();
    for request in [
        "GET /status",
        "GET /failures",
        "GET /metrics",
        "POST /sweep",
        "POST /failures/retry",
        "GET /api/admin/cron/batch-sync-hubspot",
    ] {
        let answer = tcp(&served, &format!("{request}\n{cookie}\nAccept: text/html"), None).await;
        assert_eq!(
            (answer.code, answer.body.as_str()),
            (401, "{\"error\":\"Unauthorized\"}"),
            "{request}"
        );
    }
    // The form that strangers are shown has a token that acts on nothing.
    let body = format!("token={token}");
    for form in FORMS {
        assert_eq!(
            tcp(&served, &format!("POST {form}\n{cookie}"), Some(&body))
                .await
                .code,
            403
        );
        assert_eq!(tcp(&served, &format!("POST {form}"), Some(&body)).await.code, 401);
    }
    assert!(served.asked().is_empty());
}

#[tokio::test]
async fn a_record_is_explained_to_who_asks_here_and_not_because_another_site_wants_it() {
    let served = Served::start(Desk::new("complete", None));
    let form = unix(&served, "GET /dashboard/record", None).await;
    assert_eq!(form.code, 200);
    assert!(form.body.contains("<option>mock_exams</option>"), "{}", form.body);
    assert!(served.asked().is_empty());
    let request = "GET /dashboard/record?object=contacts&key=%3Cb%3E+1";
    for site in ["cross-site", "same-site"] {
        let answer = unix(&served, &format!("{request}\nSec-Fetch-Site: {site}"), None).await;
        assert_eq!((answer.code, served.asked().len()), (403, 0));
    }
    for site in ["none", "same-origin"] {
        let answer = unix(&served, &format!("{request}\nSec-Fetch-Site: {site}"), None).await;
        assert_eq!(
            (answer.code, served.asked()),
            (404, vec!["explain contacts <b> 1".to_owned()])
        );
        assert!(answer.body.contains("contacts &lt;b&gt; 1"), "{}", answer.body);
    }
}

#[tokio::test]
async fn a_standby_says_who_pushes_and_offers_no_sweep() {
    let served = Served::start(Desk::of_standby());
    served.in_step();
    served
        .board
        .set_lease(Lease::Standby(Some("vm-1:4711".to_owned())));
    let overview = unix(&served, "GET /", None).await;
    assert!(overview.body.contains("Standing by"), "{}", overview.body);
    assert!(overview.body.contains("vm-1:4711"), "{}", overview.body);
    assert!(!overview.body.contains("Sweep now"), "{}", overview.body);
    let changes = unix(&served, "GET /dashboard/changes", None).await;
    assert!(changes.body.contains("vm-1:4711 pushes"), "{}", changes.body);
}

#[tokio::test]
async fn the_health_socket_has_no_dashboard() {
    let served = Served::start(Desk::new("complete", None));
    let health = served.settings.health_socket.clone().unwrap();
    for path in PAGES {
        let stream = UnixStream::connect(&health).await.unwrap();
        assert_eq!(exchange(stream, &format!("GET {path}"), None).await.code, 404);
    }
}

#[tokio::test]
async fn while_the_database_is_silent_the_overview_says_so_at_once() {
    let mut stage = Stage::new("dashboard_silent").await;
    let proxy = Proxy::to_database(&stage.database);
    stage.through.database = Some(proxy);
    let daemon = stage.start().await;
    assert!(daemon.get("/").await.1.contains("Nothing ran yet"));
    stage.through.database.as_ref().unwrap().silence(Silent::Both);
    let began = Instant::now();
    let (code, page) = daemon.get("/").await;
    assert_eq!(code, 200);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(page.contains("This cannot be read now"), "{page}");
}

#[tokio::test]
async fn failures_that_differ_in_numbers_and_ids_only_have_one_cause_and_are_retried_together() {
    let (database, daemon, _) = tables::database(Server::shared().await, "causes").await;
    let rows = "INSERT INTO hubsyncd.failure (object, key, category, message, first_failed_at, last_failed_at)
        SELECT 'contacts', i::text, 'validation_error', format('record %s of 2026-11-22 has no e-mail', 1000 + i),
               'epoch'::timestamptz + i * interval '1 second', 'epoch'::timestamptz + i * interval '1 hour'
        FROM generate_series(1, 5) AS i
        UNION ALL VALUES
          ('contacts', 'a', 'owner', 'held by 0192b3a4-7c1d-7e00-8f00-00000000000a', now(), now()),
          ('contacts', 'b', 'owner', 'held by 0192b3a4-7c1d-7e00-8f00-00000000000b', now(), now()),
          ('contacts', 'c', 'value', 'record 7 of 2026-11-22 has no e-mail', now(), now()),
          ('bookings', '', 'paused', 'a property is missing', now(), now())";
    let owner = database.session().await;
    owner.batch_execute(rows).await.unwrap();
    let (listed, more) = causes::list(&daemon, 3).await.unwrap();
    let told: Vec<_> = listed
        .iter()
        .map(|cause| {
            (
                cause.name.object.as_str(),
                cause.name.category.as_str(),
                cause.records,
            )
        })
        .collect();
    assert_eq!(
        (told, more),
        (
            vec![
                ("bookings", "paused", 1),
                ("contacts", "validation_error", 5),
                ("contacts", "owner", 2)
            ],
            1
        ),
        "the pause first, then the most frequent"
    );
    assert_eq!(listed[0].key, None);
    let cause = &listed[1];
    assert_eq!(cause.name.shape, "record … of … has no e-mail");
    assert_eq!(cause.message, "record 1001 of 2026-11-22 has no e-mail");
    assert_eq!(
        (cause.first_failed_at, cause.last_failed_at),
        (1_000_000, 18_000_000_000)
    );
    let named = "WITH gone AS (DELETE FROM hubsyncd.change RETURNING *) SELECT string_agg(concat_ws(' ', object, key), ', '
                 ORDER BY key) FROM gone";
    assert_eq!(causes::retry(&daemon, &cause.name).await.unwrap(), 5);
    let changes: Option<String> = owner.query_one(named, &[]).await.unwrap().get(0);
    assert_eq!(
        changes.as_deref(),
        Some("contacts 1, contacts 2, contacts 3, contacts 4, contacts 5")
    );
    assert_eq!(
        causes::retry(&daemon, &listed[0].name).await.unwrap(),
        0,
        "an object is no row"
    );
}

#[tokio::test]
async fn a_failure_and_a_change_under_way_are_shown_without_a_value_and_a_cause_is_retried() {
    let stage = Stage::new("dashboard_live").await;
    stage.sandbox.refuse_record(CONTACTS, "student_id", "bad", None);
    let daemon = stage.start().await;
    stage
        .app(
            "INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email, firstname) VALUES
              ('bad', 'pLaNtEd@example.com', 'pLaNtEd')",
        )
        .await;
    wait_until("the record is refused", async || {
        daemon.status().await["failures"] == 1
    })
    .await;
    let key = stage.value("SELECT key FROM hubsyncd.failure").await.unwrap();
    let (_, page) = daemon.get("/dashboard/failures").await;
    assert!(page.contains(&key), "{page}");
    let address = format!(
        "/dashboard/record?object=contacts&amp;key={}",
        key.replace('-', "%2D")
    );
    assert!(page.contains(&format!("href=\"{address}\"")), "{page}");
    let record = format!("/dashboard/record?object=contacts&key={key}");
    let (code, page) = daemon.get(&record).await;
    assert_eq!(code, 200, "{page}");
    let (_, metrics) = daemon.get("/metrics").await;
    let counted = metrics.lines().filter_map(|line| {
        let (_, count) = line
            .strip_prefix("hubsyncd_hubspot_requests_total{")?
            .rsplit_once(' ')?;
        count.parse::<usize>().ok()
    });
    assert_eq!(
        counted.sum::<usize>(),
        stage.sandbox.world().requests().count(),
        "a page asks at the daemon's own pace: {metrics}"
    );
    for told in [
        "no HubSpot id",
        "validation_error",
        "firstname",
        "•••",
        "student_id",
    ] {
        assert!(page.contains(told), "{told} is not on {page}");
    }
    let private = page.to_lowercase();
    assert!(
        !private.contains("planted") && !private.contains("@example.com"),
        "{page}"
    );
    let stream = UnixStream::connect(daemon.socket()).await.unwrap();
    let overview = exchange(stream, "GET /", None).await;
    stage.sandbox.clear_faults();
    let held = stage.sandbox.hold(Endpoint::Upsert, When::Before);
    let (category, shape) = {
        let field = |name: &str| {
            let (_, after) = overview
                .body
                .split_once(&format!("name=\"{name}\" value=\""))
                .unwrap();
            after.split('"').next().unwrap().replace(' ', "+")
        };
        (field("category"), field("shape"))
    };
    let token = overview.token("/dashboard/retry");
    let body = format!("token={token}&object=contacts&category={category}&shape={shape}");
    let stream = UnixStream::connect(daemon.socket()).await.unwrap();
    let answer = exchange(stream, "POST /dashboard/retry", Some(&body)).await;
    assert_eq!(
        (answer.code, answer.header("location")),
        (303, Some("/dashboard/failures?retried=1")),
        "{body}"
    );
    wait_until("the change is shown on its way", async || {
        let (_, page) = daemon.get("/dashboard/changes").await;
        page.contains(&key) && page.contains("on its way")
    })
    .await;
    held.release();
    stage
        .wait_value("SELECT count(*) FROM hubsyncd.failure", "0")
        .await;
    daemon.settled().await;
    let (_, page) = daemon.get("/").await;
    assert!(page.contains("No record is refused"), "{page}");
    for path in PAGES {
        assert!(!daemon.get(path).await.1.contains("pLaNtEd"), "{path}");
    }
    assert!(!overview.body.contains("pLaNtEd"));
}
