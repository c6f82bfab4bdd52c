//! `hubsyncd health`: for monitors that look at exit codes.

use super::Surroundings;
use super::client::{Answer, Daemon, SOON};
use super::failure::{Failure, print};
use super::paint::{Colour, paint};
use crate::daemon::exit;
use hyper::Method;
use serde_json::json;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints one line and answers 0 if the daemon is healthy. A daemon that does not answer is not.
pub(super) async fn run(surroundings: &Surroundings, arguments: Arguments) -> Result<u8, Failure> {
    let daemon = Daemon::find(surroundings)?;
    let answer = match daemon.ask(Method::GET, "/health", Some(SOON)).await {
        Ok(answer) => answer,
        Err(failure) => {
            if arguments.json {
                print(&format!(
                    "{}\n",
                    json!({ "status": "fail", "output": failure.words() })
                ))?;
            }
            failure.print();
            return Ok(exit::NO);
        }
    };
    print(&if arguments.json {
        format!("{}\n", answer.text)
    } else {
        line(&answer)? + "\n"
    })?;
    Ok(if answer.code.is_success() {
        exit::OK
    } else {
        exit::NO
    })
}

/// The verdict and why, in one line.
pub(super) fn line(answer: &Answer) -> Result<String, Failure> {
    let verdict = answer.json()?;
    let word = |name: &str| verdict[name].as_str().unwrap_or("unknown").to_owned();
    let status = word("status");
    let colour = match status.as_str() {
        "pass" => Colour::Good,
        "warn" => Colour::Doubtful,
        _ => Colour::Bad,
    };
    Ok(format!("{}: {}", paint(&status, colour), word("output")))
}
