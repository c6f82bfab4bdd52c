//! `hubsyncd setup`: installs schema `hubsyncd`, the capture function and the triggers that the mapping wants.

use super::failure::{Failure, print};
use super::{Surroundings, configuration, logs};
use crate::config::{Config, Needs};
use crate::daemon::{exit, pinned};
use crate::postgres::pins::{self, Mismatch, Pin, Pins};
use crate::postgres::setup::{self, Options, Report};
use crate::postgres::uninstall::uninstall;
use crate::postgres::{Address, Error, ErrorKind, Inspection, Session, connect};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

/// The role of the daemon if nobody names one.
const ROLE: &str = "hubsyncd";

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print the SQL for a DBA and change nothing
    #[arg(long, conflicts_with = "uninstall")]
    print: bool,
    /// Remove everything that setup made, and nothing else
    #[arg(long)]
    uninstall: bool,
    /// Pin the portal of the present token instead of the one pushed to before; no daemon may run
    #[arg(long, conflicts_with_all = ["print", "uninstall"])]
    adopt_portal: bool,
    /// Pin the present database instead of the one pushed from before (moved, renamed, upgraded); no daemon may run
    #[arg(long, conflicts_with_all = ["print", "uninstall"])]
    adopt_database: bool,
    /// The role the daemon connects as, which is given its rights
    #[arg(long, value_name = "NAME", default_value = ROLE)]
    role: String,
    /// Print JSON
    #[arg(long, conflicts_with = "print")]
    json: bool,
}

/// Does what the arguments say with the database of the configuration.
pub(super) async fn run(surroundings: &Surroundings, arguments: Arguments) -> Result<u8, Failure> {
    let needs = if arguments.adopt_portal {
        Needs::Everything
    } else {
        Needs::Database
    };
    let config = configuration(surroundings, needs)?;
    logs::start();
    let address = address(&config)?;
    let mut session = open(&address).await?;
    let options = Options::for_role(arguments.role);
    if arguments.print {
        let sql = setup::print(&session, &config.mapping, &options).await;
        print(&sql.map_err(refused)?)?;
        return Ok(exit::OK);
    }
    let report = if arguments.uninstall {
        let report = uninstall(&mut session, &options).await;
        report.map_err(|error| refused(error.into()))?
    } else {
        let report = setup::setup(&mut session, &config.mapping, &options).await;
        report.map_err(refused)?
    };
    if !arguments.json {
        print(&told(&report))?;
    }
    let mut found = Pins::new();
    if arguments.adopt_database {
        let database = pins::of_database(&session, &address).await;
        found.extend(database.map_err(|error| refused(error.into()))?);
    }
    if arguments.adopt_portal {
        found.extend(pins::of_portal(pinned::portal(&config).await?));
    }
    let adopted = match found.is_empty() {
        true => Vec::new(),
        false => pins::adopt(&mut session, &found).await.map_err(not_adopted)?,
    };
    if arguments.json {
        print(&as_json(&report, &adopted))?;
    } else if !found.is_empty() {
        print(&adopted_lines(&adopted))?;
    }
    Ok(exit::OK)
}

/// All that was done, as one line of JSON.
fn as_json(report: &Report, adopted: &[Mismatch]) -> String {
    let adopted: Vec<Value> = adopted
        .iter()
        .map(|Mismatch { pin, pinned, found }| {
            json!({ "pin": pin.to_string(), "from": pinned.to_string(), "to": found.to_string() })
        })
        .collect();
    let json = json!({
        "installed": report.installed,
        "removed": report.removed,
        "granted": report.granted,
        "notes": report.notes,
        "adopted": adopted,
    });
    format!("{json}\n")
}

/// What was pinned anew.
fn adopted_lines(changed: &[Mismatch]) -> String {
    if changed.is_empty() {
        return "nothing to adopt: what is pinned is what was found\n".to_owned();
    }
    let line = |mismatch: &Mismatch| {
        let Mismatch { pin, pinned, found } = mismatch;
        format!("adopted the {pin} {found}, which was {pinned}\n")
    };
    let mut text: String = changed.iter().map(line).collect();
    if changed.iter().any(|mismatch| mismatch.pin == Pin::Portal) {
        text.push_str(
            "note: what hubsyncd remembered of records and links in the portal before is forgotten; the HubSpot ids in the \
             rows are the application's: clear those that the new portal does not have\n",
        );
    }
    text
}

fn not_adopted(error: Error) -> Failure {
    if error.kind == ErrorKind::Busy {
        let failure = Failure::new(exit::TRY_AGAIN, anyhow::Error::new(error));
        return failure.hint("stop the daemon, run this again, and start it");
    }
    refused(error.into())
}

/// What `run --setup` does first, for the role that the daemon connects as.
pub(super) async fn before_run(config: &Config) -> Result<(), Failure> {
    let address = address(config)?;
    let options = Options::for_role(address.user().unwrap_or(ROLE));
    let mut session = open(&address).await?;
    let report = setup::setup(&mut session, &config.mapping, &options).await;
    let report = report.map_err(refused)?;
    // The process's result is the daemon's; what setup did is in its log.
    for line in told(&report).lines() {
        tracing::info!("setup: {line}");
    }
    Ok(())
}

fn address(config: &Config) -> Result<Address, Failure> {
    Address::parse(config.database.url.expose_secret())
        .map_err(|error| Failure::new(exit::CONFIGURATION, anyhow::Error::new(error)))
}

async fn open(address: &Address) -> Result<Session, Failure> {
    connect::connect(address, "setup")
        .await
        .map_err(|error| refused(error.into()))
}

fn told(report: &Report) -> String {
    let mut text = String::new();
    for (done, items) in [("installed", &report.installed), ("removed", &report.removed)] {
        for item in items {
            text.push_str(&format!("{done} {item}\n"));
        }
    }
    for item in together(&report.granted) {
        text.push_str(&format!("granted {item}\n"));
    }
    if report.changed_nothing() {
        text.push_str("everything is in place already\n");
    }
    for note in &report.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    text
}

/// `SELECT on t`, `INSERT on t` → `SELECT, INSERT on t`.
fn together(granted: &[String]) -> Vec<String> {
    let mut together: Vec<String> = Vec::new();
    let mut last_place = None;
    for item in granted {
        let (right, place) = match item.split_once(" on ") {
            Some((right, place)) => (right, Some(place)),
            None => (item.as_str(), None),
        };
        match (together.last_mut(), place) {
            (Some(line), Some(place)) if last_place == Some(place) => {
                line.insert_str(line.len() - place.len() - " on ".len(), &format!(", {right}"));
            }
            _ => together.push(item.clone()),
        }
        last_place = place;
    }
    together
}

fn refused(inspection: Inspection) -> Failure {
    let (code, hint) = match &inspection {
        Inspection::Problems(_) => (exit::CONFIGURATION, None),
        Inspection::Database(error) => by_kind(error),
    };
    let failure = match inspection {
        Inspection::Database(error) => Failure::new(code, anyhow::Error::new(error)),
        Inspection::Problems(_) => Failure::new(code, anyhow::Error::new(inspection)),
    };
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn by_kind(error: &Error) -> (u8, Option<&'static str>) {
    match error.kind {
        ErrorKind::Unreachable => (
            exit::UNAVAILABLE,
            Some("is the database up, and are host, port and TLS settings of DATABASE_URL right?"),
        ),
        ErrorKind::Busy => (
            exit::TRY_AGAIN,
            Some("run it again when that transaction has ended; what is installed already stays"),
        ),
        ErrorKind::Denied => (
            exit::NOT_PERMITTED,
            Some("run setup as the owner of the tables, or give a DBA what `hubsyncd setup --print` prints"),
        ),
        ErrorKind::Schema => (exit::CONFIGURATION, None),
        ErrorKind::Rows | ErrorKind::Fenced | ErrorKind::Other => (exit::SOFTWARE, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_on_one_thing_are_one_line() {
        let granted = [
            "USAGE on schema a",
            "SELECT on a.b",
            "INSERT on a.b",
            "UPDATE (c) on a.b",
            "x",
            "SELECT on d",
        ];
        assert_eq!(
            together(&granted.map(str::to_owned)),
            [
                "USAGE on schema a",
                "SELECT, INSERT, UPDATE (c) on a.b",
                "x",
                "SELECT on d"
            ]
        );
    }
}
