//! `hubsyncd status`: backlog, last sweep, failures, limits.

use super::Surroundings;
use super::client::{Daemon, SOON};
use super::failure::{Failure, print, print_on};
use super::health;
use super::order::Order;
use super::paint::{Colour, aligned, paint, to_the_second};
use crate::daemon::exit;
use hyper::Method;
use serde_json::Value;
use std::io::IsTerminal;
use std::time::Duration;

/// How often `--watch` looks.
const WATCH_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print again every second until interrupted
    #[arg(long)]
    watch: bool,
}

/// Prints the status, once or until interrupted.
pub(super) async fn run(surroundings: &Surroundings, arguments: Arguments) -> Result<u8, Failure> {
    let daemon = Daemon::find(surroundings)?;
    let first = asked(&daemon, arguments.json).await?;
    if !arguments.watch {
        print(&first)?;
        return Ok(exit::OK);
    }
    watch(&daemon, arguments.json, first).await
}

/// Prints the status every second. A daemon that goes away, as in a restart, may come back; one that was never there is a
/// failure.
async fn watch(daemon: &Daemon, json: bool, first: String) -> Result<u8, Failure> {
    let mut frame: Result<String, Failure> = Ok(first);
    loop {
        let goes_on = match frame {
            Ok(text) => print_on(&placed(&text))?,
            Err(failure) if std::io::stdout().is_terminal() => print_on(&placed(&failure.lines()))?,
            Err(failure) => {
                failure.print();
                true
            }
        };
        if !goes_on {
            return Ok(exit::OK);
        }
        tokio::select! {
            () = tokio::time::sleep(WATCH_EVERY) => {}
            _ = tokio::signal::ctrl_c() => return Ok(exit::OK),
        }
        frame = asked(daemon, json).await;
    }
}

/// The daemon's answer, as it is printed.
async fn asked(daemon: &Daemon, json: bool) -> Result<String, Failure> {
    let answer = daemon.ask(Method::GET, "/status", Some(SOON)).await?.accepted()?;
    if json {
        return Ok(answer.text + "\n");
    }
    let verdict = daemon.ask(Method::GET, "/health", Some(SOON)).await?;
    let verdict = health::line(&verdict)?;
    let status = shown(&answer.json()?, &verdict, &Order::of(&answer.text));
    Ok(format!("health      {verdict}\n{status}"))
}

/// On a terminal in place of what was there before, without flicker; elsewhere below it.
fn placed(text: &str) -> String {
    if !std::io::stdout().is_terminal() {
        return text.to_owned();
    }
    // Home; each line to its end; what is left of the frame before.
    format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n"))
}

/// The status as lines, without the conditions that the verdict has told of.
fn shown(status: &Value, verdict: &str, order: &Order) -> String {
    let lease = match (status["lease"].as_str(), status["holder"].as_str()) {
        (Some("held"), _) => "this daemon pushes".to_owned(),
        (_, Some(holder)) => format!("standing by; {holder} pushes"),
        _ if status["conditions"]["database"].is_string() => {
            "unknown while the database cannot be reached".to_owned()
        }
        _ => "standing by".to_owned(),
    };
    let oldest = status["oldest_pending_seconds"].as_f64();
    let oldest = oldest.map_or_else(String::new, |age| format!(", the oldest for {age:.1} s"));
    let mut lines = vec![
        format!(
            "hubsyncd    {} up {}",
            word(&status["version"]),
            duration(&status["uptime_seconds"])
        ),
        format!("lease       {lease}"),
        format!("listener    {}", word(&status["listener"])),
        format!("pending     {}{oldest}", number(&status["pending"])),
        format!("failures    {}", failures(&status["failures"])),
        format!("HubSpot     {}", limits(&status["limits"])),
    ];
    for (condition, words) in status["conditions"].as_object().into_iter().flatten() {
        let words = word(words);
        if !verdict.contains(&words) {
            lines.push(paint(&format!("{condition:<11} {words}"), Colour::Doubtful));
        }
    }
    if let Some(running) = status["sweep"].as_object() {
        lines.push(format!(
            "sweeping    since {}: {}",
            at(&running["started_at"]),
            summary(&running["summary"], order)
        ));
    }
    let last = &status["last_sweep"];
    if last.is_object() {
        let ended = at(&last["finished_at"]);
        let outcome = word(&last["outcome"]);
        lines.push(format!(
            "last sweep  {outcome} {ended}: {}",
            summary(&last["summary"], order)
        ));
    } else {
        lines.push("last sweep  none yet".to_owned());
    }
    lines.push(format!("next sweep  {}", at(&status["next_sweep_at"])));
    lines.extend(mirror(&status["mirror"]));
    lines.join("\n") + "\n\n" + &objects(&status["objects"], order)
}

/// A line for every kind of the mirror, and one for the pull that runs; nothing where it is off.
fn mirror(mirror: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    // In the order in which they are pulled.
    for kind in ["contacts", "companies", "deals"] {
        let Some(told) = mirror["kinds"].get(kind) else {
            continue;
        };
        if told.is_null() {
            lines.push(format!(
                "mirror      {kind} not known while the database cannot be reached"
            ));
            continue;
        }
        let complete = match told["complete_as_of"].as_str() {
            Some(moment) => format!("complete as of {}", to_the_second(moment)),
            None => "not complete yet".to_owned(),
        };
        let complete = match told["stale"].as_bool() {
            Some(true) => paint(&complete, Colour::Doubtful),
            _ => complete,
        };
        let pending = number(&told["pending"]);
        let errors = number(&told["error"]);
        lines.push(format!(
            "mirror      {kind} {}, {complete}, {pending} pending, {errors} errors",
            number(&told["total"])
        ));
    }
    let running = &mirror["running"];
    if running.is_object() {
        lines.push(format!(
            "pulling     since {}: {} {} so far ({})",
            at(&running["started_at"]),
            number(&running["records"]),
            word(&running["kind"]),
            word(&running["pass"])
        ));
    }
    lines
}

fn objects(objects: &Value, order: &Order) -> String {
    let rows: Vec<Vec<String>> = order
        .of_entries(objects)
        .into_iter()
        .map(|(name, object)| {
            vec![
                name.clone(),
                number(&object["pending"]),
                number(&object["failures"]),
                number(&object["rows"]),
                number(&object["awaiting_hubspot_id"]),
                at(&object["last_sync_at"]),
                word(&object["paused"]),
            ]
        })
        .collect();
    let heads = [
        "OBJECT",
        "PENDING",
        "FAILURES",
        "ROWS",
        "AWAITING ID",
        "LAST SYNC",
        "PAUSED",
    ];
    aligned(&heads, &rows)
}

/// `contacts 3 created, 40 updated; bookings 1 failed`, nothing of what is zero.
pub(super) fn summary(summary: &Value, order: &Order) -> String {
    let mut parts = Vec::new();
    for (object, counts) in order.of_entries(summary) {
        let counted: Vec<String> = ["created", "updated", "failed"]
            .iter()
            .filter(|name| counts[**name].as_u64().is_some_and(|count| count > 0))
            .map(|name| format!("{} {name}", number(&counts[*name])))
            .collect();
        if !counted.is_empty() {
            parts.push(format!("{object} {}", counted.join(", ")));
        }
    }
    if parts.is_empty() {
        "nothing to do".to_owned()
    } else {
        parts.join("; ")
    }
}

fn failures(value: &Value) -> String {
    match value.as_u64() {
        Some(0) | None => paint(&number(value), Colour::Good),
        Some(_) => paint(
            &format!("{} (see: hubsyncd failures)", number(value)),
            Colour::Doubtful,
        ),
    }
}

fn limits(limits: &Value) -> String {
    let window = match (limits["window_remaining"].as_u64(), limits["window_max"].as_u64()) {
        (Some(remaining), Some(max)) => format!("{remaining} of {max} requests left in the window"),
        _ => "not asked yet".to_owned(),
    };
    match limits["daily_remaining"].as_u64() {
        Some(daily) => format!("{window}, {daily} today"),
        None => window,
    }
}

fn duration(seconds: &Value) -> String {
    let seconds = Duration::from_secs(seconds.as_u64().unwrap_or_default());
    humantime::format_duration(seconds).to_string()
}

fn number(value: &Value) -> String {
    value
        .as_u64()
        .map_or_else(|| "-".to_owned(), |number| number.to_string())
}

fn word(value: &Value) -> String {
    value.as_str().unwrap_or("-").to_owned()
}

fn at(value: &Value) -> String {
    to_the_second(&word(value))
}
