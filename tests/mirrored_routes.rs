//! The mirror's routes, to the letter: what is asked for, what is answered, and who may not.

use super::support::served::{Desk, Going, NOW, SECRET, Served};
use http_body_util::{BodyExt, Empty};
use hubsyncd::config;
use hubsyncd::daemon::mirror::state::{MirrorState, Pulling};
use hubsyncd::mapping::Mirrored;
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::net::UnixStream;

const BELOW: &str = "/api/admin/hubspot";
const HOUR: Duration = Duration::from_secs(3600);

pub fn mirror(objects: &[Mirrored]) -> MirrorState {
    MirrorState::new(&config::Mirror {
        every: HOUR,
        full_every: 12 * HOUR,
        stale_after: 24 * HOUR,
        objects: objects.to_vec(),
    })
}

fn served(desk: Desk) -> Served {
    let served = Served::start(desk);
    served.board.set_mirror(Some(mirror(&Mirrored::ALL)));
    served
}

fn with(going: Going) -> Served {
    let mut desk = Desk::new("complete", None);
    desk.mirror = going;
    served(desk)
}

/// Status and body, which may come in chunks; an answer without its end is an error.
async fn ask(served: &Served, method: &str, path: &str) -> Result<(u16, String), hyper::Error> {
    let stream = UnixStream::connect(&served.settings.socket).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(format!("{BELOW}/{path}"))
        .header("host", "hubsyncd")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let response = sender.send_request(request).await?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await?.to_bytes();
    Ok((status, String::from_utf8(body.to_vec()).unwrap()))
}

async fn get(served: &Served, path: &str) -> (u16, Value) {
    let (code, text) = ask(served, "GET", path).await.unwrap();
    (
        code,
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}")),
    )
}

#[tokio::test]
async fn a_pull_answers_to_the_letter_by_get_and_post() {
    let served = served(Desk::new("complete", None));
    let documented = "{\"success\":true,\"synced\":10,\"updated\":5,\"errors\":1,\
        \"errorMessages\":[\"42: property amount: not a number\"]}";
    let bearer = format!("Authorization: Bearer {SECRET}");
    let asked = [
        ("contacts", "pull socket contacts Full"),
        ("contacts?limit=100", "pull socket contacts First(100)"),
        ("all", "pull socket contacts,companies,deals Full"),
        ("all?limit=7", "pull socket contacts,companies,deals First(7)"),
    ];
    for method in ["GET", "POST"] {
        for (path, pull) in asked {
            let (code, body) = served
                .ask_tcp(&format!("{method} {BELOW}/sync/{path}\n{bearer}"))
                .await;
            assert_eq!((code, body.as_str()), (200, documented), "{method} {path}");
            assert_eq!(served.asked(), [pull, "pulled 18"]);
        }
    }
    // Of what a pull does, an answer tells what it was asked about.
    let (code, body) = served.ask(&format!("POST {BELOW}/sync/deals")).await;
    let nothing = json!({"success": true, "synced": 0, "updated": 0, "errors": 0, "errorMessages": []});
    assert_eq!((code, body), (200, nothing));
    let (code, _) = served.ask(&format!("HEAD {BELOW}/sync/all")).await;
    assert_eq!(
        (code, served.asked()),
        (
            405,
            vec!["pull socket deals Full".to_owned(), "pulled 18".to_owned()]
        )
    );
}

#[tokio::test]
async fn another_method_is_a_405_that_names_those_that_do_something() {
    let served = served(Desk::new("complete", None));
    let allowed = [
        ("sync/all", "GET,POST"),
        ("sync/deals", "GET,POST"),
        ("sync/status", "GET,HEAD"),
        ("contacts", "GET,HEAD"),
    ];
    for (path, allows) in allowed {
        for method in ["HEAD", "PUT", "DELETE", "OPTIONS"] {
            if method == "HEAD" && allows.contains("HEAD") {
                continue;
            }
            let stream = UnixStream::connect(&served.settings.socket).await.unwrap();
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
                .await
                .unwrap();
            tokio::spawn(connection);
            let request = Request::builder()
                .method(method)
                .uri(format!("{BELOW}/{path}"))
                .header("host", "hubsyncd")
                .body(Empty::<Bytes>::new())
                .unwrap();
            let response = sender.send_request(request).await.unwrap();
            let allow = response.headers().get("allow").unwrap().to_str().unwrap();
            let mut told: Vec<&str> = allow.split(',').collect();
            told.sort_by_key(|method| allows.find(method));
            assert_eq!(
                (response.status().as_u16(), told.join(",").as_str()),
                (405, allows),
                "{method} {path}"
            );
        }
    }
    assert!(served.asked().is_empty());
}

#[tokio::test]
async fn a_pull_that_is_cut_short_is_a_502_with_the_same_fields_and_the_reason() {
    let served = served(Desk::new("incomplete", Some("HubSpot answers 503")));
    let (code, body) = served.ask(&format!("POST {BELOW}/sync/all")).await;
    let told = json!({
        "success": false, "synced": 10, "updated": 5, "errors": 1,
        "errorMessages": ["42: property amount: not a number"], "error": "contacts: HubSpot answers 503",
    });
    assert_eq!((code, body), (502, told));
    // The kinds that came to their end did.
    let (code, body) = served.ask(&format!("POST {BELOW}/sync/companies")).await;
    assert_eq!((code, &body["success"]), (200, &json!(true)));
}

#[tokio::test]
async fn wrong_parameters_are_a_400_that_says_what_is_allowed() {
    let served = served(Desk::new("complete", None));
    let wrong = [
        ("contacts?limit=0", "from 1 to 1000"),
        ("contacts?limit=1001", "from 1 to 1000"),
        ("deals?limit=ten", "from 1 to 1000"),
        ("deals?limit=", "from 1 to 1000"),
        ("companies?useSync=maybe", "true or false"),
        ("companies?useSync=", "true or false"),
        ("contacts?after=", "paging.next.after"),
        ("contacts?after=1%27--", "paging.next.after"),
        ("contacts?after=garbage", "paging.next.after"),
        ("contacts?after=-1", "paging.next.after"),
        ("contacts?useSync=false&after=%00", "paging.next.after"),
        ("contacts?limit=5&limit=6", "more than once"),
        ("contacts?limit=5&limit=5", "more than once"),
        ("sync/contacts?limit=1&limit=2", "more than once"),
        ("contacts?page=2", "limit, after, useSync"),
        ("sync/contacts?limit=0", "from 1 up"),
        ("sync/all?limit=-1", "from 1 up"),
        ("sync/all?since=1", "known here: limit"),
        ("sync/status?limit=1", "no parameters"),
    ];
    for (path, says) in wrong {
        let (code, body) = get(&served, path).await;
        let said = body["error"].as_str().unwrap();
        assert!(code == 400 && said.contains(says), "{path}: {code} {said}");
    }
    for path in ["tickets", "sync/tickets", "sync", "contacts/1"] {
        assert_eq!(get(&served, path).await.0, 404, "{path}");
    }
    assert!(served.asked().is_empty());
}

#[tokio::test]
async fn what_is_off_is_a_503_that_names_the_setting() {
    let served = Served::start(Desk::new("complete", None));
    for path in [
        "contacts",
        "deals?useSync=false",
        "sync/all",
        "sync/deals",
        "sync/status",
    ] {
        let (code, body) = get(&served, path).await;
        assert!(
            code == 503 && body["error"].as_str().unwrap().contains("[mirror]"),
            "{path}: {code} {body}"
        );
    }
    served.board.set_mirror(Some(mirror(&[Mirrored::Contacts])));
    for path in ["deals", "sync/companies"] {
        let (code, body) = get(&served, path).await;
        assert!(
            code == 503 && body["error"].as_str().unwrap().contains("mirror.objects"),
            "{path}: {code} {body}"
        );
    }
    assert!(served.asked().is_empty());
    let (code, _) = get(&served, "sync/all").await;
    assert_eq!(
        (code, served.asked()),
        (
            200,
            vec!["pull socket contacts Full".to_owned(), "pulled 18".to_owned()]
        )
    );
}

#[tokio::test]
async fn a_standby_reads_and_names_who_can_pull() {
    let mut desk = Desk::of_standby();
    desk.mirror.stale = true;
    let served = served(desk);
    for path in ["sync/all", "sync/deals?limit=3"] {
        let (code, body) = get(&served, path).await;
        assert_eq!((code, &body["holder"]), (409, &json!("vm-1:4711")), "{path}");
    }
    let (code, body) = get(&served, "contacts?limit=2").await;
    assert_eq!((code, &body["stale"]), (200, &json!(true)));
    assert_eq!(get(&served, "sync/status").await.0, 200);
}

#[tokio::test]
async fn a_page_of_another_site_can_make_a_browser_pull_nothing() {
    let served = served(Desk::new("complete", None));
    let foreign = [
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: same-site",
        "Origin: https://evil.example",
    ];
    for headers in foreign {
        for path in [
            "sync/all",
            "sync/contacts?limit=1",
            "contacts",
            "deals?useSync=false",
            "sync/status",
        ] {
            let (code, _) = served.ask(&format!("GET {BELOW}/{path}\n{headers}")).await;
            assert_eq!(code, 403, "{path} {headers}");
        }
    }
    let (code, _) = served
        .ask(&format!("GET {BELOW}/sync/all\nHost: evil.example"))
        .await;
    assert_eq!(code, 421);
    for path in ["sync/all", "contacts", "sync/status"] {
        assert_eq!(
            served.ask_tcp(&format!("GET {BELOW}/{path}")).await.0,
            401,
            "{path}"
        );
    }
    assert!(served.asked().is_empty());
}

#[tokio::test]
async fn records_come_to_the_letter_with_the_documented_limits() {
    let served = with(Going::default());
    let (code, text) = ask(&served, "GET", "contacts?limit=2").await.unwrap();
    let letter = "{\"contacts\":[{\"id\":\"1\"},{\"id\":\"2\"}],\"paging\":{\"next\":{\"after\":\"3\"}},\
        \"source\":\"postgres\",\"synced\":true}";
    assert_eq!((code, text.as_str()), (200, letter));
    let (_, text) = ask(&served, "GET", "deals?limit=9&after=250&useSync=true")
        .await
        .unwrap();
    let last =
        "{\"deals\":[{\"id\":\"250\"}],\"paging\":{\"next\":null},\"source\":\"postgres\",\"synced\":true}";
    assert_eq!(text, last);
    served.asked();
    for (kind, default) in [("contacts", 50), ("companies", 50), ("deals", 100)] {
        let (_, body) = get(&served, kind).await;
        assert_eq!(body[kind].as_array().unwrap().len(), default);
        assert_eq!(served.asked(), [format!("mirrored {kind} None {default}")]);
    }
}

#[tokio::test]
async fn a_long_answer_is_read_a_hundred_at_a_time_and_shows_every_record_once() {
    let served = with(Going::default());
    let (code, body) = get(&served, "contacts?limit=1000").await;
    let ids: Vec<&str> = body["contacts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["id"].as_str().unwrap())
        .collect();
    let all: Vec<String> = (1..=250).map(|id| id.to_string()).collect();
    assert_eq!((code, ids), (200, all.iter().map(String::as_str).collect()));
    assert_eq!(body["paging"]["next"], Value::Null);
    let pages = [
        "mirrored contacts None 100",
        "mirrored contacts Some(\"101\") 100",
        "mirrored contacts Some(\"201\") 100",
    ];
    assert_eq!(served.asked(), pages);
    let (_, body) = get(&served, "contacts?limit=150&after=11").await;
    assert_eq!(
        (
            body["contacts"].as_array().unwrap().len(),
            &body["paging"]["next"]["after"]
        ),
        (150, &json!("161"))
    );
}

#[tokio::test]
async fn without_use_sync_hubspot_is_asked_and_says_so() {
    let served = with(Going::default());
    let (code, body) = get(&served, "companies?useSync=false&limit=120").await;
    let told = (
        code,
        &body["source"],
        &body["synced"],
        body["companies"].as_array().unwrap().len(),
    );
    assert_eq!(told, (200, &json!("hubspot"), &json!(false), 120));
    assert!(body.get("fallback").is_none() && body.get("stale").is_none());
    assert_eq!(
        served.asked(),
        [
            "in_hubspot companies None 100",
            "in_hubspot companies Some(\"101\") 20"
        ]
    );
}

#[tokio::test]
async fn a_query_that_fails_falls_back_to_hubspot_with_the_reason() {
    let served = with(Going {
        unreadable_from: Some(0),
        ..Going::default()
    });
    let (code, body) = get(&served, "deals?limit=3").await;
    assert_eq!(
        (code, &body["source"], &body["synced"]),
        (200, &json!("hubspot"), &json!(false))
    );
    assert_eq!(
        (&body["fallback"], body["deals"].as_array().unwrap().len()),
        (&json!("the table is gone"), 3)
    );
    let served = with(Going {
        unreadable_from: Some(0),
        unanswered: true,
        stale: false,
    });
    let (code, body) = get(&served, "deals").await;
    let said = body["error"].as_str().unwrap();
    assert!(
        code == 502 && said.contains("HubSpot is away") && said.contains("the table is gone"),
        "{code} {said}"
    );
}

#[tokio::test]
async fn an_answer_whose_rest_cannot_be_read_has_no_end_that_could_be_taken_for_one() {
    let served = with(Going {
        unreadable_from: Some(101),
        ..Going::default()
    });
    let cut = ask(&served, "GET", "contacts?limit=200").await;
    assert!(cut.is_err(), "{cut:?}");
    assert_eq!(get(&served, "contacts?limit=100").await.0, 200);
}

#[tokio::test]
async fn what_is_older_than_stale_after_is_answered_at_once_and_pulled() {
    let served = with(Going {
        stale: true,
        ..Going::default()
    });
    let (code, body) = get(&served, "companies?limit=1").await;
    assert_eq!(
        (code, &body["stale"], &body["source"]),
        (200, &json!(true), &json!("postgres"))
    );
    assert_eq!(
        served.asked(),
        ["mirrored companies None 1", "pull stale companies Full"]
    );
    get(&served, "companies?limit=1&useSync=false").await;
    assert_eq!(served.asked(), ["in_hubspot companies None 1"]);
}

#[tokio::test]
async fn the_status_has_the_three_kinds_in_their_order_and_null_for_one_left_out() {
    let served = served(Desk::new("complete", None));
    served.board.set_mirror(Some(mirror(&[
        Mirrored::Contacts,
        Mirrored::Companies,
        Mirrored::Deals,
    ])));
    let (code, text) = ask(&served, "GET", "sync/status").await.unwrap();
    let letter = "{\"contacts\":{\"total\":1},\"companies\":null,\"deals\":{\"total\":3}}";
    assert_eq!((code, text.as_str()), (200, letter));
    served.board.set_mirror(Some(mirror(&[Mirrored::Deals])));
    let (_, body) = get(&served, "sync/status").await;
    assert_eq!(
        body,
        json!({"contacts": null, "companies": null, "deals": {"total": 3}})
    );
}

#[tokio::test]
async fn status_metrics_and_dashboard_say_as_of_when_the_mirror_is_complete() {
    let served = served(Desk::new("complete", None));
    let now = jiff::Timestamp::now().as_second();
    let moment = jiff::Timestamp::from_second(now).unwrap().to_string();
    let mut state = mirror(&Mirrored::ALL);
    let contacts = &mut state.kinds[0];
    (
        contacts.synced,
        contacts.pending,
        contacts.error,
        contacts.archived,
    ) = (1_234, 5, 6, 7);
    (contacts.complete_as_of, contacts.caught_up_at) = (Some(now * 1_000_000), None);
    state.known = true;
    state.running = Some(Pulling {
        id: "19".to_owned(),
        reason: "clock".to_owned(),
        started_at: NOW,
        kind: Mirrored::Companies,
        pass: "full",
        records: 300,
    });
    served.board.set_mirror(Some(state));
    let (_, status) = served.ask("GET /status").await;
    let contacts = &status["mirror"]["kinds"]["contacts"];
    assert_eq!(
        (&contacts["total"], &contacts["complete_as_of"]),
        (&json!(1_245), &json!(moment))
    );
    assert_eq!(
        (&contacts["stale"], &status["mirror"]["kinds"]["deals"]["stale"]),
        (&json!(false), &json!(true))
    );
    assert_eq!(status["mirror"]["running"]["kind"], "companies");
    let (_, metrics) = served.ask("GET /metrics").await;
    let metrics = metrics.as_str().unwrap();
    let complete = format!("hubsyncd_mirror_complete_timestamp_seconds{{kind=\"contacts\"}} {now}.0\n");
    for line in [
        "hubsyncd_mirror_records{kind=\"contacts\",status=\"synced\"} 1234\n",
        "hubsyncd_mirror_records{kind=\"contacts\",status=\"error\"} 6\n",
        &complete,
        "hubsyncd_mirror_stale{kind=\"contacts\"} 0\n",
        "hubsyncd_mirror_stale{kind=\"deals\"} 1\n",
        "hubsyncd_mirror_pull_running 1\n",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    let page = served
        .ask_tcp(&format!("GET /\nAuthorization: Bearer {SECRET}"))
        .await
        .1;
    assert!(
        page.contains("<h2>Mirror</h2>") && page.contains("1,245"),
        "{page}"
    );
    assert!(page.contains("300 companies so far"), "{page}");
}

#[tokio::test]
async fn until_the_database_has_said_where_the_mirror_stands_nobody_is_told_that_it_is_empty() {
    let served = served(Desk::new("complete", None));
    let (_, status) = served.ask("GET /status").await;
    let nothing = json!({"contacts": null, "companies": null, "deals": null});
    assert_eq!(status["mirror"]["kinds"], nothing);
    let (_, metrics) = served.ask("GET /metrics").await;
    for gone in ["hubsyncd_mirror_records{", "hubsyncd_mirror_stale{"] {
        assert!(!metrics.as_str().unwrap().contains(gone), "{metrics}");
    }
    let page = served
        .ask_tcp(&format!("GET /\nAuthorization: Bearer {SECRET}"))
        .await
        .1;
    assert!(
        page.contains("has not said yet") && !page.contains("stale"),
        "{page}"
    );
}
