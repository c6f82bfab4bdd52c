//! `hubsyncd sweep`: asks the running daemon for a sweep and shows how it goes.

use super::Surroundings;
use super::client::{Answer, Daemon, SOON};
use super::failure::{Failure, print};
use super::order::Order;
use super::progress::{kept, watched};
use super::status::summary;
use crate::daemon::exit;
use hyper::Method;
use serde_json::Value;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Only ask for it
    #[arg(long)]
    no_wait: bool,
    /// Sweep where no daemon runs: take the lease, push what waits and every row, give the lease back
    #[arg(long, conflicts_with = "no_wait")]
    pub(super) standalone: bool,
    /// Archive what the brake holds: you have looked at `hubsyncd failures`, and those deletions were meant
    #[arg(long)]
    archive: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// Asks for a sweep. Answers 0 if it was complete, 1 if records were refused, 75 if it ended early.
pub(super) async fn run(surroundings: &Surroundings, arguments: Arguments) -> Result<u8, Failure> {
    let daemon = Daemon::find(surroundings)?;
    if arguments.no_wait {
        let path = if arguments.archive {
            "/sweep?archive=go"
        } else {
            "/sweep"
        };
        let answer = daemon.ask(Method::POST, path, Some(SOON)).await?.accepted()?;
        let ticket = answer.json()?;
        let said = match (arguments.json, ticket["state"].as_str()) {
            (true, _) => answer.text,
            (false, Some("queued")) => "a sweep will follow the one that runs".to_owned(),
            (false, _) => "a sweep is started".to_owned(),
        };
        print(&format!("{said}\n"))?;
        return Ok(exit::OK);
    }
    let answer = swept(&daemon, &arguments, !arguments.json).await?;
    report(answer, &arguments)
}

/// Asks for a sweep and waits for its end, with progress if it is to be `shown`.
pub(super) async fn swept(daemon: &Daemon, arguments: &Arguments, shown: bool) -> Result<Answer, Failure> {
    let path = if arguments.archive {
        "/sweep?wait=true&archive=go"
    } else {
        "/sweep?wait=true"
    };
    let swept = daemon.ask(Method::POST, path, None);
    watched(daemon, swept, shown, going).await?.accepted()
}

/// Prints how the sweep went; answers the exit code.
pub(super) fn report(answer: Answer, arguments: &Arguments) -> Result<u8, Failure> {
    let run = answer.json()?;
    let code = code(&run);
    if arguments.json {
        print(&(answer.text + "\n"))?;
        return Ok(code);
    }
    print(&told(&run, &Order::of(&answer.text)))?;
    match code {
        exit::NO => eprintln!("the refused records: hubsyncd failures"),
        exit::TRY_AGAIN => {
            eprintln!("rows that were not reached are neither refused nor marked: the next sweep takes them")
        }
        _ => {}
    }
    Ok(code)
}

fn told(run: &Value, order: &Order) -> String {
    let outcome = run["outcome"].as_str().unwrap_or("incomplete");
    let error = run["error"]
        .as_str()
        .map_or_else(String::new, |error| format!(" ({error})"));
    format!("{outcome}{error}: {}\n", summary(&run["summary"], order))
}

fn code(run: &Value) -> u8 {
    let refused = run["summary"]
        .as_object()
        .into_iter()
        .flatten()
        .any(|(_, counts)| counts["failed"].as_u64().is_some_and(|failed| failed > 0));
    match run["outcome"].as_str() {
        Some("complete") if refused => exit::NO,
        Some("complete") => exit::OK,
        _ => exit::TRY_AGAIN,
    }
}

/// How it goes: rows done of those there are, by object; or what keeps it from beginning.
fn going(answer: &Answer) -> Option<String> {
    let (status, order) = (answer.json().ok()?, Order::of(&answer.text));
    let Some(running) = status["sweep"].as_object() else {
        return kept(&status).map(|why| format!("waiting to sweep: {why}"));
    };
    let done = |counts: &Value| {
        let each = ["created", "updated", "failed"];
        each.iter().filter_map(|name| counts[*name].as_u64()).sum::<u64>()
    };
    let parts: Vec<String> = order
        .of_entries(&running["summary"])
        .into_iter()
        .filter(|(_, counts)| done(counts) > 0)
        .map(|(object, counts)| {
            let rows = status["objects"][object]["rows"].as_u64().unwrap_or_default();
            let refused = match counts["failed"].as_u64() {
                None | Some(0) => String::new(),
                Some(failed) => format!(", {failed} refused"),
            };
            format!("{object} {} of {}{refused}", done(counts), rows.max(done(counts)))
        })
        .collect();
    Some(match parts.is_empty() {
        true => "sweeping: begun".to_owned(),
        false => format!("sweeping: {}", parts.join("; ")),
    })
}
