//! `hubsyncd mirror`: asks the running daemon to pull HubSpot's records now, and shows how it goes.

use super::Surroundings;
use super::client::{Answer, Daemon, SOON};
use super::failure::{Failure, print};
use super::progress::{kept, watched};
use crate::daemon::exit;
use anyhow::anyhow;
use hyper::{Method, StatusCode};
use serde_json::Value;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// What to pull
    #[arg(value_enum, default_value_t = Kinds::All)]
    kinds: Kinds,
    /// Pull the first N records of each kind only: for a look, never complete, and no deletions
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What can be pulled.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Kinds {
    Contacts,
    Companies,
    Deals,
    All,
}

impl Kinds {
    fn word(self) -> &'static str {
        match self {
            Kinds::Contacts => "contacts",
            Kinds::Companies => "companies",
            Kinds::Deals => "deals",
            Kinds::All => "all",
        }
    }
}

/// Asks for a pull and waits for its end. Answers 0 if it did all that it was to do, 1 if records could not be stored,
/// 75 if it was cut short.
pub(super) async fn run(surroundings: &Surroundings, arguments: Arguments) -> Result<u8, Failure> {
    let daemon = Daemon::find(surroundings)?;
    refuse_off(&daemon, arguments.kinds).await?;
    let mut path = format!("/api/admin/hubspot/sync/{}", arguments.kinds.word());
    if let Some(limit) = arguments.limit {
        path.push_str(&format!("?limit={limit}"));
    }
    let asked = daemon.ask(Method::POST, &path, None);
    let answer = watched(&daemon, asked, !arguments.json, going).await?;
    // A pull that was cut short has counts to tell of too.
    let answer = match answer.code {
        StatusCode::BAD_GATEWAY => answer,
        _ => answer.accepted()?,
    };
    let told = answer.json()?;
    print(&match arguments.json {
        true => answer.text + "\n",
        false => in_words(&told, arguments.limit.is_some()),
    })?;
    Ok(match (told["success"].as_bool(), told["errors"].as_u64()) {
        (Some(true), Some(0)) => exit::OK,
        (Some(true), _) => exit::NO,
        _ => exit::TRY_AGAIN,
    })
}

/// A mirror that is off is a matter of the configuration, not of time.
async fn refuse_off(daemon: &Daemon, kinds: Kinds) -> Result<(), Failure> {
    let status = daemon.ask(Method::GET, "/status", Some(SOON)).await?.accepted()?;
    let status = status.json()?;
    let Some(mirrored) = status["mirror"]["kinds"].as_object() else {
        let off = Failure::new(exit::CONFIGURATION, anyhow!("the mirror is off"));
        return Err(off.hint("add a [mirror] section to the configuration, then: hubsyncd reload"));
    };
    let name = kinds.word();
    if matches!(kinds, Kinds::All) || mirrored.contains_key(name) {
        return Ok(());
    }
    let left_out = Failure::new(exit::CONFIGURATION, anyhow!("{name} are not mirrored"));
    Err(left_out.hint("add them to `objects` of [mirror] in the configuration, then: hubsyncd reload"))
}

/// How it goes: records of a kind, or what keeps them away.
fn going(answer: &Answer) -> Option<String> {
    let status = answer.json().ok()?;
    let kept = kept(&status);
    let running = &status["mirror"]["running"];
    let (Some(kind), Some(records)) = (running["kind"].as_str(), running["records"].as_u64()) else {
        return kept.map(|why| format!("waiting to pull: {why}"));
    };
    // How many there are is known from the last pass.
    let known = status["mirror"]["kinds"][kind]["total"].as_u64();
    let of = known
        .filter(|known| *known >= records && running["pass"] == "full")
        .map_or_else(String::new, |known| format!(" of about {known}"));
    let kept = kept.map_or_else(String::new, |why| format!("; {why}"));
    Some(format!("pulling {kind}: {records}{of} records{kept}"))
}

fn in_words(told: &Value, limited: bool) -> String {
    let count = |name: &str| told[name].as_u64().unwrap_or_default();
    let how = match told["error"].as_str() {
        Some(error) => format!("cut short ({error})"),
        None if limited => "the first records only, which makes nothing complete".to_owned(),
        None => "complete".to_owned(),
    };
    let mut text = format!(
        "{how}: {} new, {} known, {} errors\n",
        count("synced"),
        count("updated"),
        count("errors")
    );
    for message in told["errorMessages"].as_array().into_iter().flatten() {
        text.push_str(&format!("  {}\n", message.as_str().unwrap_or_default()));
    }
    text
}
