//! HubSpot's replies: whatever comes back, only what is said is believed, and no value of a row gets into an error.

use super::runner;
use hubsyncd::hubspot::{AssociationKind, Budget, Client, Settings, UpdateInput, UpsertInput};
use hubsyncd::sync::answer::{By, Done, Input, Verdict, attribute};
use hubsyncd::sync::report::chain;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// What HubSpot's texts quote of a row, and nobody may see.
const EMAIL: &str = "planted.person@secret.example";

/// What a scripted HubSpot sends, whatever it is asked.
#[derive(Debug, Clone)]
struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Reply {
    fn bytes(&self) -> Vec<u8> {
        let mut head = format!(
            "HTTP/1.1 {} X\r\nContent-Length: {}\r\n",
            self.status,
            self.body.len()
        );
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("Connection: close\r\n\r\n");
        [head.as_bytes(), &self.body].concat()
    }
}

/// Replies as the documentation has them, about the records `t1`/11 and `t2`/12.
fn documented() -> Vec<Value> {
    let record = |id: &str, trace: &str| {
        json!({"id": id, "objectWriteTraceId": trace, "new": true, "createdAt": "2026-01-01T00:00:00Z",
               "properties": {"email": EMAIL, "sj_credits": "3"}})
    };
    let error = json!({"status": "error", "category": "VALIDATION_ERROR", "message": format!("Property values were not valid: {EMAIL}"),
        "correlationId": "aeb5f871-7f07-4993-9211-075dc63e7cbf",
        "errors": [{"message": format!("{EMAIL} was not valid"), "context": {"propertyName": ["email"], "objectWriteTraceId": ["t2"]}}]});
    vec![
        json!({"status": "COMPLETE", "results": [record("11", "t1"), record("12", "t2")]}),
        json!({"status": "COMPLETE", "results": [record("11", "t1")], "numErrors": 1, "errors": [error]}),
        error,
        json!({"results": [{"from": {"id": "11"}, "to": {"id": "21"}, "associationSpec": {"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": 3}}]}),
        json!({"results": [{"from": {"id": "11"}, "to": [{"toObjectId": 21, "associationTypes": [{"category": "HUBSPOT_DEFINED", "typeId": 3, "label": null}]}]}]}),
        json!({"results": [{"name": "email", "type": "string", "hasUniqueValue": false}]}),
        json!({"portalId": 62515, "timeZone": "Europe/Berlin", "utcOffsetMilliseconds": 3_600_000}),
    ]
}

/// Any JSON, rich in the names that mean something here.
fn odd() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        select(vec!["t1", "t2", "11", "12", "", "OK", EMAIL]).prop_map(Into::into),
        "\\PC{0,20}".prop_map(Into::into),
    ];
    let name = select(vec![
        "results",
        "errors",
        "id",
        "objectWriteTraceId",
        "context",
        "message",
        "category",
        "status",
        "from",
        "to",
        "properties",
        "paging",
        "policyName",
    ]);
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
            prop::collection::btree_map(name.clone().prop_map(str::to_owned), inner, 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// Puts `odd` in the place of the `at`-th value inside `whole`.
fn put(whole: &mut Value, at: &mut usize, odd: &Value) {
    if *at == 0 {
        *whole = odd.clone();
    }
    *at = at.wrapping_sub(1);
    match whole {
        Value::Array(values) => values.iter_mut().for_each(|value| put(value, at, odd)),
        Value::Object(fields) => fields.values_mut().for_each(|value| put(value, at, odd)),
        _ => {}
    }
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let mangled = (select(documented()), 0..20_usize, odd()).prop_map(|(mut whole, mut at, odd)| {
        put(&mut whole, &mut at, &odd);
        whole.to_string().into_bytes()
    });
    let cut = (
        select(documented()),
        any::<prop::sample::Index>(),
        any::<u8>(),
        any::<bool>(),
    )
        .prop_map(|(whole, at, byte, cut)| {
            let mut bytes = whole.to_string().into_bytes();
            let at = at.index(bytes.len());
            if cut {
                bytes.truncate(at);
            } else {
                bytes[at] = byte;
            }
            bytes
        });
    prop_oneof![
        4 => mangled,
        2 => cut,
        1 => odd().prop_map(|value| value.to_string().into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..200),
        1 => Just(format!("<html><body>{EMAIL}</body></html>").into_bytes()),
        1 => Just(b"[".repeat(20_000)),
    ]
}

fn reply() -> impl Strategy<Value = Reply> {
    let status = select(vec![
        200, 200, 200, 201, 204, 207, 207, 301, 400, 401, 403, 404, 409, 413, 414, 422, 423, 429, 477, 500,
        502, 503, 521, 599,
    ]);
    let name = select(vec![
        "X-HubSpot-RateLimit-Max",
        "X-HubSpot-RateLimit-Remaining",
        "X-HubSpot-RateLimit-Interval-Milliseconds",
        "X-HubSpot-RateLimit-Daily-Remaining",
        "Retry-After",
        "X-HubSpot-Correlation-Id",
        "Location",
        "Content-Type",
    ]);
    let value = prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| number.to_string()),
        "[ -~]{0,30}",
        Just(EMAIL.to_owned()),
    ];
    (status, prop::collection::vec((name, value), 0..4), body()).prop_map(|(status, headers, body)| Reply {
        status,
        headers,
        body: if status == 204 { Vec::new() } else { body },
    })
}

/// A server that answers every request with the reply that stands in the slot.
async fn scripted(slot: Arc<Mutex<Vec<u8>>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let bytes = slot.lock().unwrap().clone();
            let _ = stream.read(&mut [0; 8192]).await;
            let _ = stream.write_all(&bytes).await;
        }
    });
    base_url
}

fn client(base_url: String) -> Client {
    let settings = Settings {
        base_url,
        api_version: "2026-09".to_owned(),
        token: "pat-na1-11111111-2222-3333-4444-555555555555".to_owned().into(),
        timeout: Duration::from_secs(5),
        budget: Budget {
            requests: 100_000,
            window: Duration::from_secs(10),
            in_flight: 8,
        },
        observer: Arc::new(|_| ()),
    };
    Client::new(settings).unwrap()
}

const INPUTS: [UpdateInput<'static>; 2] = [
    UpdateInput {
        trace: "t1",
        id: "11",
        properties: "{}",
    },
    UpdateInput {
        trace: "t2",
        id: "12",
        properties: "{}",
    },
];

/// Everything the daemon asks, answered by the same reply; the failures in words.
async fn everything(client: &Client) -> (Option<hubsyncd::hubspot::BatchReply>, Vec<String>) {
    let mut words = Vec::new();
    let mut note = |failed: hubsyncd::hubspot::Failed| {
        words.push(format!("{} {}", chain(&failed), failed.advice));
        words.push(format!("{:?}", failed.refusal()));
    };
    let slot = || client.pace().probe();
    let updated = client
        .update(slot(), "0-1", &INPUTS)
        .await
        .map_err(&mut note)
        .ok();
    let upsert = [UpsertInput {
        trace: "t1",
        match_value: EMAIL,
        properties: "{}",
    }];
    client
        .upsert(slot(), "0-1", "email", &upsert)
        .await
        .map_err(&mut note)
        .ok();
    client
        .read_by(slot(), "0-1", Some("email"), &[EMAIL], &["email"])
        .await
        .map_err(&mut note)
        .ok();
    client.get(slot(), "0-1", "11", &[]).await.map_err(&mut note).ok();
    client.properties(slot(), "0-1").await.map_err(&mut note).ok();
    client.account(slot()).await.map_err(&mut note).ok();
    let pairs = [("11", "21")];
    client
        .associate(slot(), "0-1", "0-2", AssociationKind::Default, &pairs)
        .await
        .map_err(&mut note)
        .ok();
    (updated, words)
}

#[test]
fn whatever_hubspot_answers_only_what_it_says_is_believed_and_no_value_is_repeated() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let slot = Arc::new(Mutex::new(Vec::new()));
    let client = client(runtime.block_on(scripted(Arc::clone(&slot))));
    let checked = runner(300).run(&reply(), |reply| {
        *slot.lock().unwrap() = reply.bytes();
        let (updated, words) = runtime.block_on(everything(&client));
        for words in &words {
            prop_assert!(!words.contains(EMAIL), "a value is repeated: {words}");
        }
        let Some(updated) = updated else { return Ok(()) };
        prop_assert!((200..300).contains(&reply.status));
        let results: Vec<Done> = updated
            .results
            .iter()
            .map(|done| Done {
                id: done.id.clone(),
                trace: done.trace.clone(),
                created: done.new,
                match_value: None,
            })
            .collect();
        let said = String::from_utf8_lossy(&reply.body).into_owned();
        let inputs = INPUTS.map(|input| Input {
            trace: input.trace,
            name: input.id,
        });
        for (input, verdict) in inputs.iter().zip(attribute(&inputs, &results, &[], By::Id)) {
            if let Verdict::Done(_) = verdict {
                let named = said.contains(input.trace) || said.contains(input.name);
                prop_assert!(
                    named,
                    "{} is believed done and never named in {said}",
                    input.trace
                );
            }
        }
        Ok(())
    });
    checked.unwrap();
}
