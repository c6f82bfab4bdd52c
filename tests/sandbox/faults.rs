//! Scripted faults: what they do to the answer, and what to the world.

use super::{Answer, OBJECTS, SOON, batch, car, get, http, portal, post, send};
use hubsyncd::sandbox::{Endpoint, Fault, Policy, Sandbox, When};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;

async fn upserted(sandbox: &Sandbox, plates: &[&str]) -> Result<Answer, reqwest::Error> {
    let inputs: Vec<Value> = plates
        .iter()
        .map(|plate| car(plate, json!({"price": "1"})))
        .collect();
    let body = json!({"inputs": inputs}).to_string();
    send(
        sandbox,
        Method::POST,
        &format!("{OBJECTS}/cars/batch/upsert"),
        &body,
    )
    .await
}

fn written(sandbox: &Sandbox) -> usize {
    sandbox.world().records("cars").count()
}

#[tokio::test]
async fn a_lost_reply_is_committed_and_a_refused_connection_is_not() {
    let sandbox = portal().await;
    sandbox.fault(Fault::refuse_connection().on(Endpoint::Upsert));
    sandbox.fault(Fault::lose_reply().on(Endpoint::Upsert));
    assert!(upserted(&sandbox, &["A"]).await.is_err());
    assert_eq!(written(&sandbox), 0);
    assert!(upserted(&sandbox, &["A"]).await.is_err());
    assert_eq!(written(&sandbox), 1);
    assert_eq!(
        upserted(&sandbox, &["A"]).await.unwrap().results()[0]["new"],
        json!(false)
    );
    assert_eq!(
        sandbox
            .world()
            .requests()
            .filter(|request| request.status.is_none())
            .count(),
        2
    );
}

#[tokio::test]
async fn statuses_are_answered_instead_of_the_request_or_after_it() {
    let sandbox = portal().await;
    for (name, status, records) in [
        ("500", 500, 0),
        ("423", 423, 0),
        ("477", 477, 0),
        ("401", 401, 0),
        ("403", 403, 0),
        ("413", 413, 0),
        ("commit-then-502", 502, 1),
        ("commit-then-504", 504, 2),
    ] {
        sandbox.fault(Fault::named(name).unwrap());
        let plate = records.to_string();
        assert_eq!(
            upserted(&sandbox, &[&plate]).await.unwrap().status,
            status,
            "{name}"
        );
        assert_eq!(written(&sandbox), records, "{name}");
    }
}

#[tokio::test]
async fn garbled_answers() {
    let sandbox = portal().await;
    sandbox.fault(Fault::named("503-html").unwrap());
    let html = upserted(&sandbox, &["A"]).await.unwrap();
    assert_eq!(
        (html.status, html.header("content-type"), written(&sandbox)),
        (503, Some("text/html"), 0)
    );
    sandbox.fault(Fault::named("empty-2xx").unwrap());
    assert_eq!(upserted(&sandbox, &["A"]).await.unwrap().body, json!(""));
    sandbox.fault(Fault::named("empty-results").unwrap());
    assert_eq!(
        (
            upserted(&sandbox, &["A"]).await.unwrap().results().len(),
            written(&sandbox)
        ),
        (0, 0)
    );
    sandbox.fault(Fault::named("no-json").unwrap());
    assert_eq!(
        (upserted(&sandbox, &["A"]).await.unwrap().body, written(&sandbox)),
        (json!("OK"), 1)
    );
    sandbox.fault(Fault::named("half-json").unwrap());
    let half = upserted(&sandbox, &["B"]).await.unwrap();
    assert!(half.body.as_str().is_some_and(|text| text.starts_with('{')));
    sandbox.fault(Fault::named("truncated").unwrap());
    assert!(upserted(&sandbox, &["C"]).await.is_err());
    assert_eq!(written(&sandbox), 3);
}

#[tokio::test]
async fn limits_are_scripted_with_and_without_retry_after() {
    let sandbox = portal().await;
    for (policy, name) in [
        (Policy::TenSecondly, "TEN_SECONDLY_ROLLING"),
        (Policy::Secondly, "SECONDLY"),
        (Policy::Daily, "DAILY"),
    ] {
        sandbox.fault(Fault::limited(policy));
        sandbox.fault(Fault::limited(policy).retry_after(Duration::from_secs(7)));
        let (plain, timed) = (
            upserted(&sandbox, &["A"]).await.unwrap(),
            upserted(&sandbox, &["A"]).await.unwrap(),
        );
        assert_eq!(
            (plain.body["policyName"].as_str(), plain.header("retry-after")),
            (Some(name), None)
        );
        assert_eq!((timed.status, timed.header("retry-after")), (429, Some("7")));
    }
}

#[tokio::test]
async fn inputs_and_results_go_missing_without_a_word() {
    let sandbox = portal().await;
    sandbox.fault(Fault::partial(2).on(Endpoint::Upsert));
    let partial = upserted(&sandbox, &["A", "B", "C"]).await.unwrap();
    assert_eq!(
        (
            partial.status,
            partial.results().len(),
            partial.body.get("errors"),
            written(&sandbox)
        ),
        (200, 1, None, 1)
    );
    sandbox.fault(Fault::unreported(1));
    let unreported = upserted(&sandbox, &["A", "B", "C"]).await.unwrap();
    assert_eq!((unreported.results().len(), written(&sandbox)), (2, 3));
}

#[tokio::test]
async fn an_error_may_come_without_its_trace_id() {
    let sandbox = portal().await;
    sandbox.fault(Fault::named("error-without-trace").unwrap());
    let inputs = json!([car("A", json!({"price": "x"})), car("B", json!({"price": "1"}))]);
    let answer = batch(&sandbox, "cars", "upsert", inputs).await;
    assert_eq!(
        (
            answer.status,
            answer.errors()[0]["context"].get("objectWriteTraceId")
        ),
        (207, None)
    );
}

#[tokio::test]
async fn faults_strike_in_order_on_their_endpoint_and_as_often_as_told() {
    let sandbox = portal().await;
    sandbox.fault(Fault::status(500).on(Endpoint::Search));
    sandbox.fault(Fault::status(502).on(Endpoint::Upsert).after(1).times(2));
    sandbox.fault(Fault::status(503).on(Endpoint::Upsert));
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(upserted(&sandbox, &["A"]).await.unwrap().status);
    }
    assert_eq!(statuses, [200, 502, 502, 503, 200]);
    sandbox.fault(Fault::status(500).always());
    for _ in 0..3 {
        assert_eq!(get(&sandbox, &format!("{OBJECTS}/cars")).await.status, 500);
    }
    sandbox.clear_faults();
    assert_eq!(get(&sandbox, &format!("{OBJECTS}/cars")).await.status, 200);
}

#[tokio::test]
async fn a_held_request_waits_before_or_after_it_was_written() {
    let sandbox = portal().await;
    for (when, plate, held) in [(When::Before, "A", 0), (When::After, "B", 2)] {
        let hold = sandbox.hold(Endpoint::Upsert, when);
        let plates = [plate];
        let sending = upserted(&sandbox, &plates);
        let look = async {
            assert!(hold.reached(SOON).await);
            assert_eq!(written(&sandbox), held);
            hold.release();
        };
        let (answer, ()) = tokio::join!(sending, look);
        assert_eq!(answer.unwrap().status, 200);
    }
    assert_eq!(written(&sandbox), 2);
}

#[tokio::test]
async fn a_request_whose_client_has_gone_lands_all_the_same() {
    let sandbox = portal().await;
    let hold = sandbox.hold(Endpoint::Upsert, When::Before);
    let plates = ["A"];
    let sending = upserted(&sandbox, &plates);
    tokio::select! {
        _ = sending => panic!("the request was held"),
        reached = hold.reached(SOON) => assert!(reached),
    }
    assert_eq!(written(&sandbox), 0);
    hold.release();
    assert!(
        sandbox
            .wait_until(SOON, |world| world.records("cars").count() == 1)
            .await
    );
}

#[tokio::test]
async fn a_hanging_request_lands_late_or_never() {
    let sandbox = portal().await;
    for (lands, plate, arrived) in [(Some(Duration::from_millis(5)), "A", 1), (None, "B", 2)] {
        sandbox.fault(Fault::hang(lands));
        let plates = [plate];
        tokio::select! {
            _ = upserted(&sandbox, &plates) => panic!("the request was answered"),
            here = sandbox.wait_until(SOON, |world| world.count(Endpoint::Upsert) == arrived) => assert!(here),
        }
        assert!(
            sandbox
                .wait_until(SOON, |world| world.records("cars").count() == 1)
                .await
        );
    }
    assert_eq!(written(&sandbox), 1);
}

#[tokio::test]
async fn a_named_record_is_refused_as_often_as_told() {
    let sandbox = portal().await;
    sandbox.refuse_record("cars", "plate", "B", Some(1));
    let answer = upserted(&sandbox, &["A", "B"]).await.unwrap();
    assert_eq!(
        (
            answer.status,
            &answer.errors()[0]["context"]["objectWriteTraceId"]
        ),
        (207, &json!(["B"]))
    );
    let answer = upserted(&sandbox, &["A", "B"]).await.unwrap();
    assert_eq!((answer.status, answer.results().len()), (200, 2));
    let id = answer.result("plate", "A")["id"].as_str().unwrap().to_owned();
    sandbox.refuse_record("cars", "hs_object_id", &id, None);
    assert_eq!(upserted(&sandbox, &["A"]).await.unwrap().status, 207);
}

#[tokio::test]
async fn a_named_association_is_refused() {
    let sandbox = portal().await;
    let car = sandbox.world().create("cars", []);
    let contact = sandbox.world().create("contacts", []);
    sandbox.refuse_association("cars", "contacts", &car, Some(1));
    let path = "/crm/associations/2026-09/cars/contacts/batch/associate/default";
    let body = json!({"inputs": [{"from": {"id": car}, "to": {"id": contact}}]});
    assert_eq!(post(&sandbox, path, body.clone()).await.status, 207);
    assert_eq!(post(&sandbox, path, body).await.status, 200);
}

#[tokio::test]
async fn the_control_routes_do_what_the_functions_do() {
    let sandbox = portal().await;
    let order = |path: &'static str, body: Value| post(&sandbox, path, body);
    let unknown = order("/_sandbox/faults", json!({"fault": "no-such"})).await;
    assert!(unknown.message().contains("lose-reply"), "{}", unknown.body);
    assert_eq!(
        order("/_sandbox/faults", json!({"fault": "500", "colour": 1}))
            .await
            .status,
        400
    );
    for name in Fault::NAMES {
        assert_eq!(
            order("/_sandbox/faults", json!({"fault": name, "endpoint": "merge"}))
                .await
                .status,
            200,
            "{name}"
        );
    }
    assert_eq!(
        get(&sandbox, "/_sandbox/faults").await.body["faults"]
            .as_array()
            .unwrap()
            .len(),
        Fault::NAMES.len()
    );
    let fault =
        json!({"fault": "429-daily", "endpoint": "upsert", "times": 2, "skip": 1, "retry-after-seconds": 9});
    order("/_sandbox/faults", fault).await;
    let statuses = [
        upserted(&sandbox, &["A"]).await.unwrap().status,
        upserted(&sandbox, &["A"]).await.unwrap().status,
    ];
    assert_eq!(statuses, [200, 429]);
    assert_eq!(
        send(&sandbox, Method::DELETE, "/_sandbox/faults", "")
            .await
            .unwrap()
            .status,
        200
    );
    assert_eq!(upserted(&sandbox, &["A"]).await.unwrap().status, 200);

    order(
        "/_sandbox/faults",
        json!({"fault": "hold", "endpoint": "read", "when": "after", "name": "h"}),
    )
    .await;
    let path = format!("{OBJECTS}/cars/1");
    let read = get(&sandbox, &path);
    let release = async {
        assert!(
            sandbox
                .wait_until(SOON, |world| world.count(Endpoint::Read) == 1)
                .await
        );
        order("/_sandbox/release", json!({"name": "h"})).await
    };
    assert_eq!(tokio::join!(read, release).0.status, 404);

    let made = order("/_sandbox/records/cars", json!({"properties": {"plate": "Z"}}))
        .await
        .body["id"]
        .clone();
    let other = order("/_sandbox/records/cars", json!({})).await.body["id"].clone();
    let merged = order("/_sandbox/merge/cars", json!({"primary": made, "other": other})).await;
    order("/_sandbox/archive/cars", json!({"id": merged.body["id"]})).await;
    let left = get(&sandbox, "/_sandbox/records/cars").await;
    assert_eq!(left.body["records"].as_array().unwrap().len(), 1);
    let log = get(&sandbox, "/_sandbox/log?limit=1").await;
    assert_eq!(
        (
            &log.body["requests"][0]["endpoint"],
            &log.body["requests"][0]["status"]
        ),
        (&json!("read"), &json!(404))
    );
    order(
        "/_sandbox/faults",
        json!({"fault": "refuse-record", "type": "cars", "property": "plate", "value": "A"}),
    )
    .await;
    assert_eq!(upserted(&sandbox, &["A"]).await.unwrap().status, 207);
}

#[tokio::test]
async fn a_dropped_sandbox_takes_its_connections_with_it() {
    let sandbox = portal().await;
    let hold = sandbox.hold(Endpoint::List, When::Before);
    let url = sandbox.base_url();
    let hanging = http()
        .get(format!("{url}{OBJECTS}/cars"))
        .bearer_auth(sandbox.token())
        .timeout(SOON)
        .send();
    let drop_it = async {
        assert!(hold.reached(SOON).await);
        drop(sandbox);
    };
    let (answer, ()) = tokio::join!(hanging, drop_it);
    assert!(answer.is_err_and(|error| !error.is_timeout()));
    assert!(http().get(url).timeout(SOON).send().await.is_err());
}
