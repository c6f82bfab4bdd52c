//! `hubsyncd failures`: what HubSpot or Postgres refuses, and trying it again.

use super::Surroundings;
use super::client::{Daemon, SOON, encoded};
use super::failure::{Failure, print};
use super::paint::table;
use crate::daemon::exit;
use hyper::Method;
use serde_json::{Value, json};

/// Failures asked for at one time.
const PAGE: usize = 500;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Name refused records as changed, so that they are pushed again
    Retry {
        /// The object's name; all objects without it
        object: Option<String>,
        /// The row's key; all of the object's without it
        key: Option<String>,
    },
}

/// Lists failures, or has them tried again.
pub(super) async fn run(surroundings: &Surroundings, arguments: Arguments) -> Result<u8, Failure> {
    let daemon = Daemon::find(surroundings)?;
    match arguments.verb {
        None => list(&daemon, arguments.json).await,
        Some(Verb::Retry { object, key }) => retry(&daemon, object, key, arguments.json).await,
    }
}

async fn list(daemon: &Daemon, json: bool) -> Result<u8, Failure> {
    let mut failures: Vec<Value> = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let cursor = after.as_deref().map(|after| format!("&after={}", encoded(after)));
        let path = format!("/failures?limit={PAGE}{}", cursor.unwrap_or_default());
        let mut page = daemon
            .ask(Method::GET, &path, Some(SOON))
            .await?
            .accepted()?
            .json()?;
        if let Some(items) = page["failures"].as_array_mut() {
            failures.append(items);
        }
        after = page["next"].as_str().map(str::to_owned);
        if after.is_none() {
            break;
        }
    }
    if json {
        print(&format!("{:#}\n", json!({ "failures": failures })))?;
        return Ok(exit::OK);
    }
    let rows: Vec<Vec<String>> = failures.iter().map(row).collect();
    if rows.is_empty() {
        eprintln!("nothing is refused");
        return Ok(exit::OK);
    }
    let heads = [
        "OBJECT",
        "KEY",
        "HUBSPOT ID",
        "ATTEMPTS",
        "LAST",
        "CATEGORY",
        "MESSAGE",
    ];
    print(&table(&heads, &rows))?;
    Ok(exit::OK)
}

fn row(failure: &Value) -> Vec<String> {
    let cell = |name: &str| match &failure[name] {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.replace(['\n', '\t', '\r'], " "),
        other => other.to_string(),
    };
    [
        "object",
        "key",
        "hubspot_id",
        "attempts",
        "last_failed_at",
        "category",
        "message",
    ]
    .map(cell)
    .into()
}

async fn retry(
    daemon: &Daemon,
    object: Option<String>,
    key: Option<String>,
    json: bool,
) -> Result<u8, Failure> {
    let mut path = "/failures/retry".to_owned();
    if let Some(object) = &object {
        path.push_str(&format!("?object={}", encoded(object)));
    }
    if let Some(key) = &key {
        path.push_str(&format!("&key={}", encoded(key)));
    }
    let answer = daemon.ask(Method::POST, &path, Some(SOON)).await?.accepted()?;
    if json {
        print(&format!("{}\n", answer.text))?;
        return Ok(exit::OK);
    }
    let retried = answer.json()?["retried"].as_u64().unwrap_or_default();
    let noun = if retried == 1 { "record is" } else { "records are" };
    print(&format!("{retried} {noun} pushed again\n"))?;
    Ok(exit::OK)
}
