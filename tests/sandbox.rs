//! The sandbox keeps HubSpot's rules, seen over HTTP.

use hubsyncd::sandbox::{Endpoint, Property, Sandbox, Settings};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(5);
const OBJECTS: &str = "/crm/objects/2026-09";

struct Answer {
    status: u16,
    body: Value,
}

impl Answer {
    fn results(&self) -> &Vec<Value> {
        self.body["results"]
            .as_array()
            .unwrap_or_else(|| panic!("results in {}", self.body))
    }
}

async fn asked(sandbox: &Sandbox, method: Method, path: &str, body: Value) -> Result<Answer, reqwest::Error> {
    crypto();
    let request = reqwest::Client::new()
        .request(method, format!("{}{path}", sandbox.base_url()))
        .bearer_auth(sandbox.token())
        .timeout(SOON);
    let request = if body.is_null() {
        request
    } else {
        request.json(&body)
    };
    let response = request.send().await?;
    let status = response.status().as_u16();
    let text = response.text().await?;
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Ok(Answer { status, body })
}

async fn post(sandbox: &Sandbox, path: &str, body: Value) -> Answer {
    asked(sandbox, Method::POST, path, body).await.unwrap()
}

fn crypto() {
    // The client has no TLS provider of its own; a second installation fails and does not matter.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

async fn cars(settings: Settings) -> Sandbox {
    let sandbox = Sandbox::start(settings).await.unwrap();
    let properties = [
        Property::string("plate").unique(),
        Property::number("price"),
        Property::enumeration("colour", &["red", "blue"]),
        Property::date("built"),
    ];
    sandbox.world().define("2-77", "cars", properties);
    sandbox.world().associate_types("2-77", "0-1");
    sandbox
}

#[tokio::test]
async fn an_upsert_creates_then_updates_one_record() {
    let sandbox = cars(Settings::default()).await;
    let path = &format!("{OBJECTS}/2-77/batch/upsert");
    let body = json!({"inputs": [{"id": "A", "idProperty": "plate", "objectWriteTraceId": "t1", "properties": {"price": 5}}]});
    let first = post(&sandbox, path, body.clone()).await;
    assert_eq!((first.status, &first.results()[0]["new"]), (200, &json!(true)));
    assert_eq!(first.results()[0]["objectWriteTraceId"], "t1");
    assert_eq!(first.results()[0]["properties"]["plate"], "A");
    let second = post(&sandbox, path, body).await;
    assert_eq!(second.results()[0]["new"], json!(false));
    assert_eq!(second.results()[0]["id"], first.results()[0]["id"]);
    let world = sandbox.world();
    assert_eq!(world.records("cars").count(), 1);
    assert_eq!(world.find("cars", "plate", "A").unwrap().get("price"), Some("5"));
    assert_eq!(world.count(Endpoint::Upsert), 2);
}
