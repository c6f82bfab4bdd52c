//! The checkup: both ends compared with the mapping, everything at once, nothing changed.
//!
//! It takes no lease and no lock that anybody waits for, and listens on a channel of its own, so that it may run beside
//! the daemon, also in production. What depends on something that is wrong is skipped and said to be; everything else
//! is looked at, so that nothing has to be mended twice. Told are names of settings, tables, columns, properties and
//! roles; never a value of a row, a secret or an address of a person.

mod database;
mod hubspot;

pub(super) use hubspot::client;

use super::pinned;
use crate::config::{self, Config};
use crate::mapping::Mapping;
use crate::postgres::catalog::Shape;
use crate::postgres::pins::{self, Pin, Pins};
use crate::postgres::{Address, Session};
use crate::sync::checkup::{Checkup, Finding};
use crate::sync::report::chain;
use secrecy::ExposeSecret;

/// Clocks that differ by more than this are told of: half of what the search for a lost create allows for.
const CLOCKS_APART_MAX_MICROS: i64 = 5_000_000;

/// Is shown each finding as it is made.
pub type Tell<'a> = &'a mut dyn FnMut(&Finding);

/// Findings as they are made.
struct Notes<'a> {
    findings: Vec<Finding>,
    tell: Tell<'a>,
}

impl Notes<'_> {
    fn note(&mut self, finding: Finding) {
        (self.tell)(&finding);
        self.findings.push(finding);
    }
}

/// A database that answers.
struct Reached {
    address: Address,
    session: Session,
    /// The columns, if the tables fit the mapping.
    shapes: Option<Vec<Shape>>,
    /// Whether setup has been run here.
    is_set_up: bool,
    /// How far its clock is ahead of this machine's, microseconds.
    ahead: i64,
}

/// What HubSpot says of the token.
struct Portal {
    id: i64,
    /// How far its clock is ahead of this machine's, microseconds, to a second.
    ahead: i64,
}

/// Looks at everything. `read` is the configuration with all that is wrong with it; each finding is shown as it is made.
pub async fn look(read: (Option<Config>, Vec<config::Problem>), tell: Tell<'_>) -> Checkup {
    let mut notes = Notes {
        findings: Vec::new(),
        tell,
    };
    let (config, problems) = read;
    for problem in &problems {
        notes.note(of_config(problem));
    }
    let Some(config) = config else {
        for check in ["database", "hubspot"] {
            notes.note(Finding::skipped(
                check,
                "not looked at: the configuration cannot be read",
            ));
        }
        return Checkup::of(notes.findings);
    };
    if problems.is_empty() {
        let names: Vec<&str> = config
            .mapping
            .objects
            .iter()
            .map(|object| object.name.as_str())
            .collect();
        notes.note(Finding::ok(
            "config",
            format!("it can be read; it maps {}", names.join(", ")),
        ));
    }
    let mapping = problems
        .iter()
        .all(|problem| !is_of_mapping(problem))
        .then_some(&config.mapping);
    let reached = if has_url(&config, &problems) {
        database::look(&mut notes, &config, mapping).await
    } else {
        notes.note(Finding::skipped(
            "database",
            "not looked at: its URL is missing or none of Postgres",
        ));
        None
    };
    let shapes = reached.as_ref().and_then(|reached| reached.shapes.as_deref());
    let portal = if config.hubspot.token.expose_secret().is_empty() {
        notes.note(Finding::skipped("hubspot", "not looked at: the token is missing"));
        None
    } else {
        hubspot::look(&mut notes, &config, mapping, shapes).await
    };
    clocks(&mut notes, reached.as_ref(), portal.as_ref());
    if let Some(reached) = reached.filter(|reached| reached.is_set_up) {
        pinned_there(&mut notes, &reached, portal.as_ref()).await;
    }
    Checkup::of(notes.findings)
}

fn of_config(problem: &config::Problem) -> Finding {
    let place = match problem.line {
        Some(line) => format!("{}:{line}", problem.origin),
        None => problem.origin.clone(),
    };
    let hint = problem.hint.clone();
    Finding {
        hint,
        ..Finding::problem("config", format!("{place}: {}", problem.message), "")
    }
    .about(&problem.key)
}

/// Whether a problem of the configuration is one of the mapping, which then says nothing about the two ends.
fn is_of_mapping(problem: &config::Problem) -> bool {
    ["object", "columns", "audit"]
        .iter()
        .any(|section| problem.key.starts_with(section))
}

fn has_url(config: &Config, problems: &[config::Problem]) -> bool {
    let refused = problems.iter().any(|problem| problem.key == "DATABASE_URL");
    !refused && !config.database.url.expose_secret().is_empty()
}

/// Compares the three clocks with one another.
fn clocks(notes: &mut Notes<'_>, reached: Option<&Reached>, portal: Option<&Portal>) {
    let theirs = [
        ("the database", reached.map(|reached| reached.ahead)),
        ("HubSpot", portal.map(|portal| portal.ahead)),
    ];
    let mut clocks = vec![("this machine", 0)];
    clocks.extend(
        theirs
            .into_iter()
            .filter_map(|(whose, ahead)| Some((whose, ahead?))),
    );
    let mut apart = false;
    for (at, (one, of_one)) in clocks.iter().enumerate() {
        for (other, of_other) in &clocks[at + 1..] {
            let by = of_other - of_one;
            if by.abs() > CLOCKS_APART_MAX_MICROS {
                apart = true;
                let seconds = by.abs() / 1_000_000;
                let order = if by > 0 { "behind" } else { "ahead of" };
                let message = format!("the clock of {one} is {seconds} s {order} that of {other}");
                notes.note(Finding::warning(
                    "clock",
                    message,
                    "set them by NTP: timedatectl set-ntp true",
                ));
            }
        }
    }
    if !apart && clocks.len() > 1 {
        let whose: Vec<&str> = clocks.iter().map(|(whose, _)| *whose).collect();
        notes.note(Finding::ok(
            "clock",
            format!("the clocks of {} agree", whose.join(", ")),
        ));
    }
}

/// Compares what this database is pinned to with what was found.
async fn pinned_there(notes: &mut Notes<'_>, reached: &Reached, portal: Option<&Portal>) {
    let found = async {
        let mut found = pins::of_database(&reached.session, &reached.address).await?;
        found.extend(portal.into_iter().flat_map(|portal| pins::of_portal(portal.id)));
        let mismatches = pins::mismatches(&reached.session, &found).await?;
        Ok::<(Pins, Vec<_>), crate::postgres::Error>((found, mismatches))
    };
    match found.await {
        Ok((found, mismatches)) if mismatches.is_empty() => {
            let named: Vec<String> = found.keys().map(Pin::to_string).collect();
            let message = format!(
                "nothing else was pushed from or to before: {} are those of before, or the first ones",
                named.join(", ")
            );
            notes.note(Finding::ok("pins", message));
        }
        Ok((_, mismatches)) => {
            for mismatch in &mismatches {
                let hint = pinned::hint(std::slice::from_ref(mismatch));
                notes.note(Finding::problem("pins", mismatch.to_string(), hint));
            }
        }
        Err(error) => notes.note(Finding::problem(
            "pins",
            chain(&error),
            "look at the rights of the daemon's role",
        )),
    }
}

/// The mapping without the objects that a problem names (`object NAME: …`).
fn without(mapping: &Mapping, problems: &[crate::postgres::Problem]) -> Mapping {
    let is_fine = |key: &str| problems.iter().all(|problem| !problem.key.starts_with(key));
    let objects = mapping.objects.iter();
    Mapping {
        objects: objects
            .filter(|object| is_fine(&format!("object {}:", object.name)))
            .cloned()
            .collect(),
        audit: mapping.audit.clone().filter(|_| is_fine("audit")),
    }
}
