//! `hubsyncd explain OBJECT KEY`: one record, whole story.

use super::failure::{Failure, print};
use super::paint::{Colour, aligned, paint, tamed, to_the_second};
use super::{Surroundings, configuration};
use crate::config::Needs;
use crate::daemon::exit;
use crate::daemon::outlook::explain::{self, Explanation, Link};
use crate::sync::prospect::often;
use crate::sync::report::moment;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The object, e.g. contacts
    object: String,
    /// The row's key
    key: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Tells the story of one record, values and all.
pub(super) async fn run(surroundings: &Surroundings, arguments: Arguments) -> Result<u8, Failure> {
    let config = configuration(surroundings, Needs::Everything)?;
    let explanation = explain::explain(config, None, &arguments.object, &arguments.key).await?;
    let text = if arguments.json {
        let json = serde_json::to_string(&explanation);
        json.map_err(|error| Failure::new(exit::SOFTWARE, anyhow::Error::new(error)))? + "\n"
    } else {
        tamed(&shown(&explanation))
    };
    print(&text)?;
    Ok(exit::OK)
}

fn shown(told: &Explanation) -> String {
    let mut text = paint(
        &format!(
            "{} {}: {} → HubSpot {}",
            told.object, told.key, told.table, told.object_type
        ),
        Colour::Good,
    );
    text.push_str("\n\n");
    text.push_str(&line("row", &row(told)));
    text.push_str(&line("payload", &payload(told)));
    text.push_str(&line("HubSpot", &held(told)));
    if let Some(payload) = &told.payload {
        text.push('\n');
        text.push_str(&properties(told, &payload.properties));
        text.push('\n');
    }
    for link in &told.links {
        text.push_str(&line("link", &of_link(link)));
    }
    text.push_str(&answers(told));
    for change in &told.waiting {
        text.push_str(&line(
            "waits",
            &format!("a change ({}) since {}", change.op, change.captured_at),
        ));
    }
    for (at, next) in told.next.iter().enumerate() {
        text.push_str(&line(if at == 0 { "next" } else { "" }, next));
    }
    text
}

fn line(head: &str, words: &str) -> String {
    format!("{head:<12}{words}\n")
}

fn row(told: &Explanation) -> String {
    let Some(row) = &told.row else {
        return "there is none of this key, or row level security hides it".to_owned();
    };
    let id = row.hubspot_id.as_deref().filter(|id| !id.trim().is_empty());
    let id = match (id, &row.awaiting_hubspot_id) {
        (Some(id), _) => format!("HubSpot id {id}"),
        (None, Some(id)) => format!("HubSpot id {id} is noted and not written yet"),
        (None, None) => "no HubSpot id".to_owned(),
    };
    let synced = row.synced_at.as_deref().unwrap_or("never");
    let outside = match told.place {
        "outside" => "; a push does not read it",
        "unreadable" => "; a push fails to read it",
        _ => "",
    };
    format!("{id}, last sync {synced}{outside}")
}

fn payload(told: &Explanation) -> String {
    let Some(payload) = &told.payload else {
        return "none".to_owned();
    };
    let count = payload.properties.len();
    let to = payload.to.as_deref().unwrap_or("of its own");
    match payload.does {
        "create" => format!("a new record, {count} properties"),
        "adopt" => format!("takes over record {to}, {count} properties"),
        "update" | "merged" => format!("writes to record {to}, {count} properties"),
        "keep" => format!("nothing to write to record {to}"),
        "unknown" => format!("{count} properties"),
        _ => format!("nothing is sent, as said under next; it would be {count} properties"),
    }
}

fn held(told: &Explanation) -> String {
    match (&told.hubspot, &told.hubspot_silent) {
        (_, Some(why)) => paint(&format!("cannot be asked: {why}"), Colour::Bad),
        (Some(held), None)
            if told
                .payload
                .as_ref()
                .is_some_and(|payload| payload.does == "update") =>
        {
            match told.differing.len() {
                0 => format!("holds record {}, the same values", held.id),
                1 => format!("holds record {}, of which 1 value differs", held.id),
                many => format!("holds record {}, of which {many} values differ", held.id),
            }
        }
        (Some(held), None) => format!("holds record {}", held.id),
        (None, None) => "holds no record of it".to_owned(),
    }
}

fn properties(told: &Explanation, sent: &std::collections::BTreeMap<String, String>) -> String {
    let held = told.hubspot.as_ref().map(|held| &held.properties);
    let rows = sent.iter().map(|(name, value)| {
        let theirs = held
            .and_then(|held| held.get(name)?.as_deref())
            .unwrap_or_default();
        let differs = if told.differing.contains(name) {
            "differs"
        } else {
            ""
        };
        [name, value, theirs, differs]
            .map(|cell| cell.replace(['\t', '\n', '\r'], " "))
            .to_vec()
    });
    aligned(
        &["PROPERTY", "TO SEND", "IN HUBSPOT", ""],
        &rows.collect::<Vec<_>>(),
    )
}

fn of_link(link: &Link) -> String {
    let to = match (&link.target, link.waits) {
        (Some(to), _) => format!("leads to {to}"),
        (None, true) => "leads to a row without a HubSpot id".to_owned(),
        (None, false) => "leads nowhere".to_owned(),
    };
    let held = match &link.held {
        Some(held) if held.is_empty() => ", HubSpot holds none".to_owned(),
        Some(held) => format!(", HubSpot holds {}", held.join(", ")),
        None => String::new(),
    };
    let ours: Vec<String> = link
        .remembered
        .iter()
        .map(|(to, state)| format!("{to} {state}"))
        .collect();
    let ours = if ours.is_empty() {
        String::new()
    } else {
        format!(", ours: {}", ours.join(", "))
    };
    format!("{}: {to}{held}{ours}", link.link)
}

fn answers(told: &Explanation) -> String {
    let mut text = String::new();
    if let Some(why) = &told.paused {
        text.push_str(&line("paused", &paint(why, Colour::Bad)));
    }
    for failure in &told.failures {
        let record = failure
            .hubspot_id
            .as_deref()
            .map_or_else(String::new, |id| format!(", record {id}"));
        let id = failure
            .correlation_id
            .as_deref()
            .map_or_else(String::new, |id| format!(" (correlation id {id})"));
        let times = format!(
            "{}{record}, last at {}: {}: {}{id}",
            often(failure.attempts),
            to_the_second(&moment(failure.last_failed_at)),
            failure.category,
            failure.message
        );
        text.push_str(&line("refused", &paint(&times, Colour::Bad)));
    }
    let synced_at = told.row.as_ref().and_then(|row| row.synced_at.as_deref());
    match (text.is_empty(), synced_at) {
        (true, Some(at)) => text.push_str(&line(
            "last answer",
            &format!("HubSpot took what was read at {at}"),
        )),
        (true, None) => text.push_str(&line(
            "last answer",
            "none: nothing of it was taken, and nothing is refused",
        )),
        (false, _) => {}
    }
    text
}
