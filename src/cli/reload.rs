//! `hubsyncd reload`: asks the running daemon to take a changed configuration.

use super::Surroundings;
use super::client::Daemon;
use super::failure::{Failure, print};
use crate::daemon::exit;
use hyper::{Method, StatusCode};
use serde_json::Value;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Waits until the daemon has taken it, and says what has changed; 78 with every problem if it refuses.
pub(super) async fn run(surroundings: &Surroundings, arguments: Arguments) -> Result<u8, Failure> {
    let daemon = Daemon::find(surroundings)?;
    let answer = daemon.ask(Method::POST, "/reload", None).await?;
    if answer.code == StatusCode::UNPROCESSABLE_ENTITY {
        let body = answer.json()?;
        if arguments.json {
            print(&(answer.text + "\n"))?;
        }
        let problems = words(&body["problems"]);
        let noun = if problems.len() == 1 {
            "problem"
        } else {
            "problems"
        };
        let refused = anyhow::anyhow!(
            "the configuration is refused with {} {noun}:\n  {}",
            problems.len(),
            problems.join("\n  ")
        );
        return Err(Failure::new(exit::CONFIGURATION, refused).hint("the configuration of before goes on"));
    }
    let answer = answer.accepted()?;
    let reloaded = answer.json()?;
    print(&if arguments.json {
        answer.text + "\n"
    } else {
        told(&reloaded)
    })?;
    Ok(exit::OK)
}

fn told(reloaded: &Value) -> String {
    let changed = words(&reloaded["changed"]).join(", ");
    let mut text = if changed.is_empty() {
        "nothing has changed that a reload takes\n".to_owned()
    } else {
        format!("taken: {changed}\n")
    };
    let restart = words(&reloaded["restart"]).join(", ");
    if !restart.is_empty() {
        text.push_str(&format!("only a restart takes: {restart}\n"));
    }
    text
}

fn words(list: &Value) -> Vec<&str> {
    let list = list.as_array().into_iter().flatten();
    list.filter_map(Value::as_str).collect()
}
