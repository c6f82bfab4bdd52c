//! The client against hostile and broken servers: each reply is scripted, byte by byte where that matters.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use hubsyncd::hubspot::{
    Answered, AssociationKind, Budget, Client, Disposition, Failed, Lane, Observed, Policy, ReadLinks,
    Settings, Setup, UpdateInput, UpsertInput, Why,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const TOKEN: &str = "pat-na1-11111111-2222-3333-4444-555555555555";
const LOST: Disposition = Disposition::Retry { unknown: true };
const AGAIN: Disposition = Disposition::Retry { unknown: false };

type Seen = Arc<Mutex<Vec<Observed>>>;

fn settings(base_url: &str, seen: &Seen) -> Settings {
    let seen = Arc::clone(seen);
    Settings {
        base_url: base_url.to_owned(),
        api_version: "2026-09".to_owned(),
        token: TOKEN.to_owned().into(),
        timeout: Duration::from_millis(500),
        budget: Budget {
            requests: 1000,
            window: Duration::from_secs(10),
            in_flight: 8,
        },
        observer: Arc::new(move |observed| seen.lock().unwrap().push(observed)),
    }
}

fn client(base_url: &str) -> Client {
    Client::new(settings(base_url, &Seen::default())).unwrap()
}

/// What the server got.
#[derive(Debug, Clone)]
struct Got {
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

/// A server that answers everything with what `reply` makes of it.
async fn server(
    reply: impl Fn(&Got) -> Response + Clone + Send + Sync + 'static,
) -> (String, Arc<Mutex<Vec<Got>>>) {
    let got = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&got);
    let answer = move |uri: Uri, headers: HeaderMap, body: Bytes| {
        let request = Got { uri, headers, body };
        let response = reply(&request);
        kept.lock().unwrap().push(request);
        async move { response }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    let router = axum::Router::new().fallback(answer);
    tokio::spawn(async move { axum::serve(listener, router).await });
    (base_url, got)
}

fn json(status: u16, body: &str) -> Response {
    let status = StatusCode::from_u16(status).unwrap();
    (
        status,
        [("content-type", "application/json;charset=utf-8")],
        body.to_owned(),
    )
        .into_response()
}

/// A server that answers every connection with these bytes and then closes it.
async fn raw_server(bytes: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(bytes).await;
        }
    });
    base_url
}

const TWO: [UpdateInput<'static>; 2] = [
    UpdateInput {
        trace: "t1",
        id: "1",
        properties: r#"{"a":"x"}"#,
    },
    UpdateInput {
        trace: "t2",
        id: "2",
        properties: r#"{"a":"y"}"#,
    },
];

async fn update(
    client: &Client,
    inputs: &[UpdateInput<'_>],
) -> Result<hubsyncd::hubspot::BatchReply, Failed> {
    client
        .update(client.pace().slot(Lane::Change).await, "0-1", inputs)
        .await
}

async fn update_fails(reply: impl Fn(&Got) -> Response + Clone + Send + Sync + 'static) -> (Failed, Client) {
    let (base_url, _) = server(reply).await;
    let client = client(&base_url);
    (update(&client, &TWO).await.unwrap_err(), client)
}

#[tokio::test]
async fn the_requests_have_the_paths_and_headers_of_the_version() {
    let (base_url, got) = server(|_| json(200, r#"{"results":[]}"#)).await;
    let client = client(&format!("{base_url}/"));
    let slot = || client.pace().probe();
    let upsert = UpsertInput {
        trace: "t",
        match_value: "b-1",
        properties: "{}",
    };
    client
        .upsert(slot(), "2-50158943", "booking_id", &[upsert])
        .await
        .unwrap();
    client.update(slot(), "0-1", &TWO).await.unwrap();
    client
        .read_by(slot(), "0-1", Some("email"), &["a@b.example"], &["email"])
        .await
        .unwrap();
    client
        .get(slot(), "0-1", "12/../..", &["email", "x"])
        .await
        .unwrap_err();
    client
        .associate(slot(), "2-1", "0-1", AssociationKind::Default, &[("1", "2")])
        .await
        .unwrap();
    client
        .read_associations(slot(), "2-1", "0-1", &[ReadLinks { id: "1", after: None }])
        .await
        .unwrap();
    client.labels(slot(), "2-1", "0-1").await.unwrap();
    // Neither of the two can be without anything.
    client.properties(slot(), "0-1").await.unwrap_err();
    client.account(slot()).await.unwrap_err();
    let got = got.lock().unwrap();
    let uris: Vec<String> = got.iter().map(|got| got.uri.to_string()).collect();
    assert_eq!(
        uris,
        [
            "/crm/objects/2026-09/2-50158943/batch/upsert",
            "/crm/objects/2026-09/0-1/batch/update",
            "/crm/objects/2026-09/0-1/batch/read",
            "/crm/objects/2026-09/0-1/12%2F..%2F..?properties=email,x",
            "/crm/associations/2026-09/2-1/0-1/batch/associate/default",
            "/crm/associations/2026-09/2-1/0-1/batch/read",
            "/crm/associations/2026-09/2-1/0-1/labels",
            "/crm/properties/2026-09/0-1",
            "/account-info/2026-09/details",
        ]
    );
    for got in got.iter() {
        assert_eq!(got.headers["authorization"], format!("Bearer {TOKEN}"));
        assert!(
            got.headers["user-agent"]
                .to_str()
                .unwrap()
                .starts_with("hubsyncd/")
        );
        assert_eq!(got.headers["accept-encoding"], "gzip");
    }
    assert_eq!(got[0].headers["content-type"], "application/json");
    let upsert =
        r#"{"inputs":[{"idProperty":"booking_id","id":"b-1","objectWriteTraceId":"t","properties":{}}]}"#;
    assert_eq!(got[0].body, upsert);
}

#[tokio::test]
async fn a_success_is_told_by_its_body_and_not_by_its_number() {
    for status in [200, 201, 202, 207] {
        let reply = r#"{"status":"COMPLETE","results":[{"id":"1"}],"numErrors":1,"errors":[
            {"status":"error","category":"OBJECT_NOT_FOUND","message":"Could not get some CONTACT objects, they may be deleted or not exist. Check that ids are valid.",
             "subCategory":{"odd":true},"context":{"ids":["2"],"objectWriteTraceId":"t2"}}]}"#;
        let (base_url, _) = server(move |_| json(status, reply)).await;
        let reply = update(&client(&base_url), &TWO).await.unwrap();
        assert_eq!(reply.results[0].id, "1");
        assert_eq!(reply.errors[0].traces, ["t2"]);
        assert!(reply.errors[0].is_not_found());
    }
}

#[tokio::test]
async fn a_success_that_says_nothing_is_a_lost_reply() {
    for body in [
        "",
        "null",
        "[]",
        "{}",
        "true",
        "<html>Sorry</html>",
        r#"{"results":"#,
        r#"{"results":{}}"#,
        "\u{0}",
    ] {
        for status in [200, 201, 204, 207] {
            let (failed, client) =
                update_fails(move |_| json(status, if status == 204 { "" } else { body })).await;
            assert_eq!(failed.disposition, LOST, "{status} {body:?}");
            assert!(client.pace().paused().is_none());
        }
    }
}

#[tokio::test]
async fn an_answer_in_results_and_errors_both_empty_is_no_failure_and_confirms_nothing() {
    let (base_url, _) = server(|_| json(207, r#"{"status":"PENDING","results":[],"errors":[]}"#)).await;
    let reply = update(&client(&base_url), &TWO).await.unwrap();
    assert!(reply.results.is_empty() && reply.errors.is_empty());
}

#[tokio::test]
async fn every_status_has_its_disposition() {
    let halt = |token| Disposition::Halt { token };
    for (status, several, alone) in [
        (301, AGAIN, AGAIN),
        (400, Disposition::Split, Disposition::Reject),
        (401, halt(true), halt(true)),
        (403, halt(false), halt(false)),
        (404, Disposition::Split, Disposition::Reject),
        (408, LOST, LOST),
        (409, Disposition::Split, Disposition::Reject),
        (413, Disposition::Split, Disposition::Reject),
        (414, Disposition::Split, Disposition::Reject),
        (423, AGAIN, AGAIN),
        (429, AGAIN, AGAIN),
        (477, AGAIN, AGAIN),
        (500, LOST, LOST),
        (502, LOST, LOST),
        (503, LOST, LOST),
        (504, LOST, LOST),
        (521, LOST, LOST),
        (524, LOST, LOST),
    ] {
        for body in [
            r#"{"status":"error","message":"x","category":"Y_Z"}"#,
            "<html><body>Cloudflare</body></html>",
            "",
        ] {
            let (base_url, got) = server(move |_| json(status, body)).await;
            let failed = update(&client(&base_url), &TWO).await.unwrap_err();
            assert_eq!(failed.disposition, several, "{status}");
            assert_eq!(failed.status, Some(status));
            let failed = update(&client(&base_url), &TWO[..1]).await.unwrap_err();
            assert_eq!(failed.disposition, alone, "{status}");
            assert!(!failed.advice.is_empty());
            assert_eq!(got.lock().unwrap().len(), 2, "nothing is repeated or followed");
        }
    }
}

#[tokio::test]
async fn a_failed_read_never_has_an_unknown_outcome() {
    let (base_url, _) = server(|_| json(500, "")).await;
    let client = client(&base_url);
    let failed = client
        .read_by(client.pace().probe(), "0-1", None, &["1"], &[])
        .await
        .unwrap_err();
    assert_eq!(failed.disposition, AGAIN);
}

#[tokio::test]
async fn limits_are_told_apart_and_obeyed() {
    for (body, header, policy, why) in [
        (
            r#"{"policyName":"TEN_SECONDLY_ROLLING"}"#,
            None,
            Policy::Window,
            Why::Window,
        ),
        (
            r#"{"policyName":"SECONDLY"}"#,
            Some("2"),
            Policy::Second,
            Why::Second,
        ),
        (r#"{"policyName":"DAILY"}"#, Some("7"), Policy::Daily, Why::Daily),
        (
            r#"{"message":"You have reached your daily limit."}"#,
            None,
            Policy::Daily,
            Why::Daily,
        ),
        (
            "<html>",
            Some("Wed, 21 Oct 2015 07:28:00 GMT"),
            Policy::Window,
            Why::Window,
        ),
        ("", Some("never"), Policy::Window, Why::Window),
    ] {
        let (failed, client) = update_fails(move |_| {
            let mut response = json(429, body);
            if let Some(header) = header {
                response
                    .headers_mut()
                    .insert("retry-after", header.parse().unwrap());
            }
            response
        })
        .await;
        assert_eq!(failed.policy, Some(policy));
        let pause = client.pace().paused().unwrap();
        assert_eq!(pause.why, why);
        if let Some(seconds) = header.and_then(|header| header.parse().ok()) {
            let asked = Duration::from_secs(seconds);
            assert!(pause.left <= asked && pause.left > asked - Duration::from_millis(500));
        }
    }
}

#[tokio::test]
async fn a_refused_token_halts_everything_and_the_next_probe_may_pass() {
    let (failed, client) = update_fails(|_| {
        json(401, r#"{"status":"error","message":"Authentication credentials not found.","category":"INVALID_AUTHENTICATION"}"#)
    })
    .await;
    assert_eq!(failed.disposition, Disposition::Halt { token: true });
    assert!(client.pace().halted().unwrap().reason.contains("token"));
    let waiting = tokio::time::timeout(Duration::from_millis(50), client.pace().slot(Lane::Change)).await;
    assert!(waiting.is_err());
    client.account(client.pace().probe()).await.unwrap_err();
    client.pace().resume();
    assert!(client.pace().halted().is_none());
    let slot = tokio::time::timeout(Duration::from_secs(5), client.pace().slot(Lane::Change)).await;
    assert!(slot.is_ok());
}

#[tokio::test]
async fn missing_scopes_halt_the_object_and_not_the_token() {
    let (failed, client) = update_fails(|_| json(403, r#"{"status":"error","message":"This app hasn't been granted all required scopes to make this call. Read more about required scopes here: https://developers.hubspot.com/scopes.","correlationId":"aaaaaaaa-bbbb","errors":[{"message":"One or more of the following scopes are required.","context":{"requiredGranularScopes":["crm.schemas.deals.read"]}}],"category":"MISSING_SCOPES"}"#)).await;
    assert_eq!(failed.disposition, Disposition::Halt { token: false });
    assert!(client.pace().halted().is_none());
    assert_eq!(failed.said.as_ref().unwrap().category, "MISSING_SCOPES");
    assert!(
        failed
            .to_string()
            .contains("are required. crm.schemas.deals.read ("),
        "{failed}"
    );
    assert_eq!(failed.correlation_id.as_deref(), Some("aaaaaaaa-bbbb"));
    let (failed, _) = update_fails(|_| json(403, r#"{"status":"error","message":"The scope needed for this API call isn't available for public use","context":{"requiredScopes":["ana@example.com","crm.objects.custom.write"]}}"#)).await;
    let said = failed.to_string();
    assert!(
        said.contains("crm.objects.custom.write") && !said.contains("ana@"),
        "{said}"
    );
    let (failed, _) = update_fails(|_| json(403, r#"{"status":"error","message":"App 7 cannot write ObjectTypeId{legacyObjectType=LEAD} in portal 9 (requires one of [leads-read, Ana])"}"#)).await;
    let said = failed.to_string();
    assert!(
        !said.contains("leads-read") && !said.contains("Ana"),
        "a sentence may quote a row: {said}"
    );
}

#[tokio::test]
async fn a_whole_batch_refused_for_its_properties_names_them_without_values() {
    let body = r#"{"status":"error","message":"Property values were not valid: [{\"isValid\":false,\"message\":\"Ana was not one of the allowed options: [label: \\\"A\\\"]\",\"error\":\"INVALID_OPTION\",\"name\":\"dominant_hand\"}]","correlationId":"a996e7d6-1111","errors":[{"message":"Ana was not one of the allowed options","code":"INVALID_OPTION","context":{"propertyName":["dominant_hand"]}}],"category":"VALIDATION_ERROR"}"#;
    let (failed, _) = update_fails(move |_| json(400, body)).await;
    let said = failed.said.as_ref().unwrap();
    assert_eq!(said.properties, ["dominant_hand"]);
    assert_eq!(said.codes, ["INVALID_OPTION"]);
    let shown = format!("{failed} {failed:?} {:?}", failed.refusal());
    assert!(shown.contains("dominant_hand (INVALID_OPTION)"));
    assert!(!shown.contains("Ana"), "{shown}");
    assert_eq!(failed.refusal().category, "validation_error");
}

#[tokio::test]
async fn an_error_of_the_new_write_rules_is_readable() {
    let body = r#"{"status":"error","category":"VALIDATION_ERROR","message":"The property values provided are invalid","errors":[{"code":"MISSING_REQUIRED_PROPERTY","message":"A value for firstname must be provided","context":{"propertyName":["firstname"]}}]}"#;
    let (failed, _) = update_fails(move |_| json(400, body)).await;
    let said = failed.said.unwrap();
    assert_eq!(
        said.message,
        "The property values provided are invalid A value for firstname must be provided"
    );
    assert_eq!(said.properties, ["firstname"]);
}

#[tokio::test]
async fn broken_connections_are_lost_replies_and_refused_ones_are_not() {
    for bytes in [
        b"".as_slice(),
        b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"results\":[{\"id\":\"1\"}",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"res",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\nnope",
        b"SSH-2.0-OpenSSH_9.2\r\n",
    ] {
        let seen = Seen::default();
        let client = Client::new(settings(&raw_server(bytes).await, &seen)).unwrap();
        let failed = update(&client, &TWO).await.unwrap_err();
        assert_eq!(failed.disposition, LOST);
        assert_eq!(seen.lock().unwrap()[0].outcome, Answered::Broken);
        assert!(std::error::Error::source(&failed).is_some());
    }
    let free = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let failed = update(&client(&format!("http://{free}")), &TWO)
        .await
        .unwrap_err();
    assert_eq!(failed.disposition, AGAIN);
}

#[tokio::test]
async fn a_server_that_hangs_is_given_up_in_time_and_observed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let seen = Seen::default();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    let client = Client::new(settings(&base_url, &seen)).unwrap();
    let failed = update(&client, &TWO).await.unwrap_err();
    assert_eq!(failed.disposition, LOST);
    let seen = seen.lock().unwrap();
    assert_eq!(seen[0].outcome, Answered::TimedOut);
    assert_eq!(seen[0].endpoint, "objects/batch/update");
    assert!(seen[0].took >= Duration::from_millis(490));
}

#[tokio::test]
async fn an_endless_answer_is_cut_off() {
    let (base_url, _) = server(|_| {
        let piece: Result<Bytes, std::io::Error> = Ok(Bytes::from(vec![b' '; 1 << 20]));
        let stream =
            futures::stream::repeat_with(move || Ok::<_, std::io::Error>(piece.as_ref().unwrap().clone()));
        axum::body::Body::from_stream(stream).into_response()
    })
    .await;
    let mut settings = settings(&base_url, &Seen::default());
    settings.timeout = Duration::from_secs(30);
    let client = Client::new(settings).unwrap();
    let failed = tokio::time::timeout(Duration::from_secs(20), update(&client, &TWO))
        .await
        .unwrap();
    assert_eq!(failed.unwrap_err().disposition, LOST);
}

#[tokio::test]
async fn a_redirection_is_not_followed_and_the_token_stays_here() {
    let (elsewhere, stolen) = server(|_| json(200, r#"{"results":[]}"#)).await;
    let (failed, _) = update_fails(move |_| {
        let mut response = json(307, "");
        response
            .headers_mut()
            .insert("location", elsewhere.parse().unwrap());
        response
    })
    .await;
    assert_eq!(failed.disposition, AGAIN);
    assert!(stolen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn the_headers_of_answers_set_the_limits() {
    let (base_url, _) = server(|_| {
        let mut response = json(200, r#"{"results":[]}"#);
        for (name, value) in [
            ("X-HubSpot-RateLimit-Max", "190"),
            ("X-HubSpot-RateLimit-Remaining", "77"),
            ("X-HubSpot-RateLimit-Interval-Milliseconds", "10000"),
            ("X-HubSpot-RateLimit-Daily-Remaining", "624999"),
        ] {
            response.headers_mut().insert(
                axum::http::HeaderName::try_from(name).unwrap(),
                value.parse().unwrap(),
            );
        }
        response
    })
    .await;
    let client = client(&base_url);
    update(&client, &TWO).await.unwrap();
    let limits = client.pace().limits();
    assert_eq!((limits.window_max, limits.window_remaining), (190, 77));
    assert_eq!(limits.daily_remaining, Some(624_999));
}

#[tokio::test]
async fn nothing_missing_is_invented_by_a_read() {
    for (status, body, found, whole) in [
        (
            207,
            r#"{"results":[{"id":"5","properties":{"email":"a@b.example","x":null,"y":"z"}}],"errors":[{"category":"OBJECT_NOT_FOUND","context":{"ids":["gone"]}}]}"#,
            1,
            true,
        ),
        (207, r#"{"results":[],"errors":[]}"#, 0, false),
        (
            207,
            r#"{"results":[],"errors":[{"category":"OBJECT_NOT_FOUND","context":{"ids":["gone"]}}]}"#,
            0,
            false,
        ),
        (
            207,
            r#"{"results":[],"errors":[{"category":"OBJECT_NOT_FOUND"}]}"#,
            0,
            true,
        ),
        (
            404,
            r#"{"status":"error","category":"OBJECT_NOT_FOUND","message":"Could not get some CONTACT objects"}"#,
            0,
            true,
        ),
    ] {
        let (base_url, _) = server(move |_| json(status, body)).await;
        let client = client(&base_url);
        let ids = ["a@b.example", "gone"];
        let reply = client
            .read_by(client.pace().probe(), "0-1", Some("email"), &ids, &["email", "x"])
            .await
            .unwrap();
        assert_eq!((reply.results.len(), reply.whole), (found, whole), "{body}");
        if let Some(record) = reply.results.first() {
            assert_eq!(record.properties["email"].as_deref(), Some("a@b.example"));
            assert_eq!(record.properties["x"], None);
            assert!(!record.properties.contains_key("y"));
        }
    }
    for (status, body) in [
        (404, r#"{"message":"no such route"}"#),
        (404, "<html>"),
        (
            207,
            r#"{"results":[],"errors":[{"category":"VALIDATION_ERROR"}]}"#,
        ),
    ] {
        let (base_url, _) = server(move |_| json(status, body)).await;
        let client = client(&base_url);
        let failed = client
            .read_by(client.pace().probe(), "0-1", None, &["1", "2"], &[])
            .await
            .unwrap_err();
        assert_eq!(failed.disposition, Disposition::Split);
    }
}

#[tokio::test]
async fn a_european_token_gets_the_hint_and_nothing_shows_a_token() {
    let (base_url, _) = server(|_| json(401, "{}")).await;
    let mut settings = settings(&base_url, &Seen::default());
    settings.token = "pat-eu1-secret\n".to_owned().into();
    let shown = format!("{settings:?}");
    assert!(!shown.contains("secret"));
    let client = Client::new(settings).unwrap();
    let failed = update(&client, &TWO).await.unwrap_err();
    assert!(failed.advice.contains("api-eu1.hubapi.com"));
    for shown in [
        format!("{failed:?} {failed} {}", failed.advice),
        format!("{client:?}"),
    ] {
        assert!(!shown.contains("secret"), "{shown}");
    }
}

#[tokio::test]
async fn wrong_settings_are_refused_before_anything_is_sent() {
    let made = |base_url: &str, token: &str| {
        let mut settings = settings(base_url, &Seen::default());
        settings.token = token.to_owned().into();
        Client::new(settings)
    };
    assert!(matches!(
        made("http://api.hubapi.com", TOKEN),
        Err(Setup::Unencrypted)
    ));
    assert!(matches!(made("ftp://localhost", TOKEN), Err(Setup::Unencrypted)));
    assert!(matches!(
        made("http://127.0.0.1.example.com", TOKEN),
        Err(Setup::Unencrypted)
    ));
    assert!(matches!(made("no address", TOKEN), Err(Setup::Address(_))));
    assert!(matches!(made("https:", TOKEN), Err(Setup::Address(_))));
    assert!(matches!(
        made("https://api.hubapi.com", "a\nb"),
        Err(Setup::Token)
    ));
    // Without ca-certificates it says so, instead of failing at the first request.
    assert!(matches!(
        made("https://api.hubapi.com", TOKEN),
        Ok(_) | Err(Setup::Roots)
    ));
    for good in ["http://localhost:1", "http://127.0.0.1:1", "http://[::1]:1"] {
        assert!(made(good, TOKEN).is_ok(), "{good}");
    }
}
