//! `hubsyncd failures`: what HubSpot or Postgres refuses, and trying it again.

use super::Surroundings;
use super::client::{Daemon, SOON, encoded};
use super::failure::{Failure, print};
use super::paint::{table, tamed, to_the_second};
use crate::daemon::exit;
use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

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

/// A page of the daemon's list, its items as they came.
#[derive(Deserialize)]
struct Page {
    failures: Vec<Box<RawValue>>,
    next: Option<String>,
}

async fn list(daemon: &Daemon, json: bool) -> Result<u8, Failure> {
    let mut failures: Vec<Box<RawValue>> = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let cursor = after.as_deref().map(|after| format!("&after={}", encoded(after)));
        let path = format!("/failures?limit={PAGE}{}", cursor.unwrap_or_default());
        let answer = daemon.ask(Method::GET, &path, Some(SOON)).await?.accepted()?;
        let page: Page = answer.read()?;
        failures.extend(page.failures);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    if json {
        let items: Vec<&str> = failures.iter().map(|item| item.get()).collect();
        print(&format!("{{\"failures\":[{}],\"next\":null}}\n", items.join(",")))?;
        return Ok(exit::OK);
    }
    if failures.is_empty() {
        eprintln!("nothing is refused");
        return Ok(exit::OK);
    }
    let mut causes: BTreeMap<String, u64> = BTreeMap::new();
    let mut rows: Vec<Vec<String>> = Vec::with_capacity(failures.len());
    for item in &failures {
        let failure: Value = serde_json::from_str(item.get()).unwrap_or_default();
        let row = row(&failure);
        *causes.entry(format!("{} {}", row[0], row[5])).or_default() += 1;
        rows.push(row);
    }
    print(&tamed(&table(&HEADS, &rows)))?;
    eprintln!("{}", counted(rows.len(), &causes));
    Ok(exit::OK)
}

/// How many there are of what, and what to do about them.
fn counted(all: usize, causes: &BTreeMap<String, u64>) -> String {
    let mut causes: Vec<(&String, &u64)> = causes.iter().collect();
    causes.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let parts: Vec<String> = causes
        .iter()
        .map(|(cause, count)| format!("{count} {cause}"))
        .collect();
    let noun = if all == 1 { "record is" } else { "records are" };
    format!(
        "{all} {noun} refused: {}; once mended: hubsyncd failures retry [OBJECT [KEY]]",
        parts.join(", ")
    )
}

const HEADS: [&str; 7] = [
    "OBJECT",
    "KEY",
    "HUBSPOT ID",
    "ATTEMPTS",
    "LAST",
    "CATEGORY",
    "MESSAGE",
];

fn row(failure: &Value) -> Vec<String> {
    let cell = |name: &str| match &failure[name] {
        Value::Null => "-".to_owned(),
        Value::String(text) if name == "last_failed_at" => to_the_second(text),
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
    let answer = daemon.ask(Method::POST, &path, Some(SOON)).await?;
    let unknown = answer.code == StatusCode::NOT_FOUND;
    let answer = answer.accepted().map_err(|failure| match unknown {
        true => failure.hint("`hubsyncd failures` lists what is refused, by object and key"),
        false => failure,
    })?;
    if json {
        print(&format!("{}\n", answer.text))?;
        return Ok(exit::OK);
    }
    print(&match answer.json()?["retried"].as_u64().unwrap_or_default() {
        0 => "nothing is refused, so nothing is tried again\n".to_owned(),
        1 => "1 record is tried again; if it is refused again, `hubsyncd failures` lists it\n".to_owned(),
        many => format!("{many} records are tried again; `hubsyncd failures` lists what is refused again\n"),
    })?;
    Ok(exit::OK)
}
