//! The sandbox keeps HubSpot's rules, seen over HTTP as a client sees them.

mod faults;
mod limits;
mod links;
mod lookups;
mod pages;
mod versions;
mod writes;

use crate::support::http;
use hubsyncd::sandbox::{Property, Sandbox, Settings};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);
const OBJECTS: &str = "/crm/objects/2026-09";

struct Answer {
    status: u16,
    body: Value,
    headers: reqwest::header::HeaderMap,
}

impl Answer {
    fn results(&self) -> &[Value] {
        self.body["results"]
            .as_array()
            .unwrap_or_else(|| panic!("no results in {}", self.body))
    }

    fn errors(&self) -> &[Value] {
        self.body["errors"]
            .as_array()
            .unwrap_or_else(|| panic!("no errors in {}", self.body))
    }

    fn message(&self) -> &str {
        self.body["message"]
            .as_str()
            .unwrap_or_else(|| panic!("no message in {}", self.body))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The result whose property has this value, wherever it stands.
    fn result(&self, property: &str, value: &str) -> &Value {
        let found = self
            .results()
            .iter()
            .find(|result| result["properties"][property] == value);
        found.unwrap_or_else(|| panic!("no result with {property} {value} in {}", self.body))
    }
}

async fn send(sandbox: &Sandbox, method: Method, path: &str, body: &str) -> Result<Answer, reqwest::Error> {
    let url = format!("{}{path}", sandbox.base_url());
    let request = http()
        .request(method, url)
        .bearer_auth(sandbox.token())
        .timeout(SOON);
    let response = request
        .header("content-type", "application/json")
        .body(body.to_owned())
        .send()
        .await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await?;
    Ok(Answer {
        status,
        body: serde_json::from_str(&text).unwrap_or(Value::String(text)),
        headers,
    })
}

async fn post(sandbox: &Sandbox, path: &str, body: Value) -> Answer {
    send(sandbox, Method::POST, path, &body.to_string())
        .await
        .unwrap()
}

async fn get(sandbox: &Sandbox, path: &str) -> Answer {
    send(sandbox, Method::GET, path, "").await.unwrap()
}

/// A portal with cars (`2-77`) beside what every portal has.
async fn cars(settings: Settings) -> Sandbox {
    let sandbox = Sandbox::start(settings).await.unwrap();
    let properties = [
        Property::string("plate").unique(),
        Property::string("note"),
        Property::number("price"),
        Property::enumeration("colour", &["red", "blue"]),
        Property::checkboxes("extras", &["radio", "roof"]),
        Property::boolean("sold"),
        Property::date("built"),
        Property::datetime("seen"),
        Property::string("score").calculated(),
    ];
    sandbox.world().define("2-77", "cars", properties);
    sandbox.world().associate_types("2-77", "0-1");
    sandbox
}

async fn portal() -> Sandbox {
    cars(Settings::default()).await
}

async fn batch(sandbox: &Sandbox, object: &str, verb: &str, inputs: Value) -> Answer {
    post(
        sandbox,
        &format!("{OBJECTS}/{object}/batch/{verb}"),
        json!({"inputs": inputs}),
    )
    .await
}

/// An upsert of one car by its plate, with a trace id of the same name.
fn car(plate: &str, properties: Value) -> Value {
    json!({"id": plate, "idProperty": "plate", "objectWriteTraceId": plate, "properties": properties})
}
