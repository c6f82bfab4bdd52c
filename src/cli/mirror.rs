//! `hubsyncd mirror`: asks the running daemon to pull HubSpot's records now, and shows how it goes.

use super::Surroundings;
use super::client::{Answer, Daemon, SOON};
use super::failure::{Failure, print};
use crate::daemon::exit;
use anyhow::anyhow;
use hyper::{Method, StatusCode};
use serde_json::Value;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// How often progress is looked at, and how often it is printed where there is no terminal.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const PRINT_EVERY: Duration = Duration::from_secs(10);

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

/// Asks for a pull and waits for its end. Answers 0 if it was complete, 1 if records could not be stored, 75 if it was
/// cut short.
pub(super) async fn run(surroundings: &Surroundings, arguments: Arguments) -> Result<u8, Failure> {
    let daemon = Daemon::find(surroundings)?;
    refuse_off(&daemon).await?;
    let mut path = format!("/api/admin/hubspot/sync/{}", arguments.kinds.word());
    if let Some(limit) = arguments.limit {
        path.push_str(&format!("?limit={limit}"));
    }
    let answer = pulled(&daemon, &path, !arguments.json).await?;
    // A pull that was cut short has counts to tell of too.
    let answer = match answer.code {
        StatusCode::BAD_GATEWAY => answer,
        _ => answer.accepted()?,
    };
    let told = answer.json()?;
    print(&match arguments.json {
        true => answer.text + "\n",
        false => in_words(&told),
    })?;
    Ok(match (told["success"].as_bool(), told["errors"].as_u64()) {
        (Some(true), Some(0)) => exit::OK,
        (Some(true), _) => exit::NO,
        _ => exit::TRY_AGAIN,
    })
}

/// A mirror that is off is a matter of the configuration, not of time.
async fn refuse_off(daemon: &Daemon) -> Result<(), Failure> {
    let status = daemon.ask(Method::GET, "/status", Some(SOON)).await?.accepted()?;
    if status.json()?["mirror"].is_object() {
        return Ok(());
    }
    let off = Failure::new(exit::CONFIGURATION, anyhow!("the mirror is off"));
    Err(off.hint("add a [mirror] section to the configuration, then: hubsyncd reload"))
}

async fn pulled(daemon: &Daemon, path: &str, shown: bool) -> Result<Answer, Failure> {
    let mut asked = std::pin::pin!(daemon.ask(Method::POST, path, None));
    let mut progress = Progress::new(shown);
    let answer = loop {
        tokio::select! {
            answer = &mut asked => break answer,
            () = tokio::time::sleep(LOOK_EVERY) => progress.look(daemon).await,
        }
    };
    progress.clear();
    answer
}

fn in_words(told: &Value) -> String {
    let count = |name: &str| told[name].as_u64().unwrap_or_default();
    let how = match told["error"].as_str() {
        Some(error) => format!("cut short ({error})"),
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

/// What is shown meanwhile: one line that changes on a terminal, a line now and then otherwise.
struct Progress {
    shown: bool,
    terminal: bool,
    printed: Instant,
}

impl Progress {
    fn new(shown: bool) -> Progress {
        Progress {
            shown,
            terminal: std::io::stderr().is_terminal(),
            printed: Instant::now(),
        }
    }

    /// A daemon that does not answer now will say so when the pull's own answer fails.
    async fn look(&mut self, daemon: &Daemon) {
        if !self.shown || (!self.terminal && self.printed.elapsed() < PRINT_EVERY) {
            return;
        }
        let Ok(answer) = daemon.ask(Method::GET, "/status", Some(SOON)).await else {
            return;
        };
        let Ok(status) = answer.json() else { return };
        let running = &status["mirror"]["running"];
        let (Some(kind), Some(records)) = (running["kind"].as_str(), running["records"].as_u64()) else {
            return;
        };
        self.printed = Instant::now();
        // How many there are is known from the last pass.
        let known = status["mirror"]["kinds"][kind]["total"].as_u64();
        let of = known
            .filter(|known| *known >= records)
            .map_or_else(String::new, |known| format!(" of about {known}"));
        let line = format!("pulling {kind}: {records}{of} records");
        self.write(&match self.terminal {
            true => format!("\r\x1b[K{line}"),
            false => line + "\n",
        });
    }

    fn clear(&self) {
        if self.shown && self.terminal {
            self.write("\r\x1b[K");
        }
    }

    fn write(&self, text: &str) {
        // Progress that nobody can see is no failure.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}
