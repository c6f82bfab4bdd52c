//! `hubsyncd check`: the doctor. Looks at the configuration and at both ends, and says everything at once.

use super::failure::{Failure, print};
use super::paint::{Colour, paint};
use super::{Surroundings, environment};
use crate::config;
use crate::daemon::{checkup, exit};
use crate::sync::checkup::{Checkup, Finding, State};
use std::io::IsTerminal;

/// How wide the names of checks are on a terminal.
const CHECK_WIDTH: usize = 20;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Looks at everything; 0 if there is no problem, else 78.
pub(super) async fn run(surroundings: &Surroundings, arguments: Arguments) -> Result<u8, Failure> {
    let read = config::examine(surroundings.config_path(), &environment);
    let on_terminal = std::io::stdout().is_terminal();
    let mut printed = Ok(());
    let mut tell = |finding: &Finding| {
        if !arguments.json && printed.is_ok() {
            printed = print(&if on_terminal {
                shown(finding)
            } else {
                plain(finding)
            });
        }
    };
    let checkup = checkup::look(read, &mut tell).await;
    printed?;
    if arguments.json {
        let json = serde_json::to_string(&checkup)
            .map_err(|error| Failure::new(exit::SOFTWARE, anyhow::Error::new(error)))?;
        print(&(json + "\n"))?;
    } else if on_terminal {
        print(&format!("\n{}\n", summary(&checkup)))?;
    }
    Ok(if checkup.ok { exit::OK } else { exit::CONFIGURATION })
}

fn word(state: State) -> &'static str {
    match state {
        State::Ok => "ok",
        State::Warning => "warning",
        State::Problem => "problem",
        State::Skipped => "skipped",
    }
}

/// A line for people, and one more for what to do.
fn shown(finding: &Finding) -> String {
    let colour = match finding.state {
        State::Ok => Colour::Good,
        State::Warning => Colour::Doubtful,
        State::Problem => Colour::Bad,
        State::Skipped => Colour::Faint,
    };
    let state = paint(&format!("{:<7}", word(finding.state)), colour);
    let about = if finding.about.is_empty() {
        String::new()
    } else {
        format!("{}: ", finding.about)
    };
    let line = format!(
        "{state}  {:<CHECK_WIDTH$}  {about}{}\n",
        finding.check, finding.message
    );
    match finding.hint.as_deref().filter(|hint| !hint.is_empty()) {
        Some(hint) => format!("{line}{:9}{}\n", "", paint(&format!("→ {hint}"), Colour::Faint)),
        None => line,
    }
}

/// A line for a pipe, tab-separated: state, check, whose, message, what to do.
fn plain(finding: &Finding) -> String {
    let hint = finding.hint.as_deref().unwrap_or_default();
    let cells = [
        word(finding.state),
        finding.check,
        &finding.about,
        &finding.message,
        hint,
    ];
    cells.map(|cell| cell.replace(['\t', '\n', '\r'], " ")).join("\t") + "\n"
}

fn summary(checkup: &Checkup) -> String {
    let count = |number: usize, one: &str| match number {
        1 => format!("1 {one}"),
        many => format!("{many} {one}s"),
    };
    let words = format!(
        "{}, {}",
        count(checkup.problems, "problem"),
        count(checkup.warnings, "warning")
    );
    match (checkup.problems, checkup.warnings) {
        (0, 0) => paint("all is well", Colour::Good),
        (0, _) => paint(&words, Colour::Doubtful),
        _ => paint(&words, Colour::Bad),
    }
}
