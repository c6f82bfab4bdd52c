//! `hubsyncd health`: for monitors that look at exit codes.

use super::client::{Daemon, SOON};
use super::failure::{Failure, print};
use super::paint::{Colour, paint};
use super::{Surroundings, client};
use crate::daemon::exit;
use hyper::Method;

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
            failure.print();
            return Ok(exit::NO);
        }
    };
    let (status, why) = said(&answer)?;
    let colour = match status.as_str() {
        "pass" => Colour::Good,
        "warn" => Colour::Doubtful,
        _ => Colour::Bad,
    };
    print(&if arguments.json {
        format!("{}\n", answer.text)
    } else {
        format!("{}: {why}\n", paint(&status, colour))
    })?;
    Ok(if answer.code.is_success() {
        exit::OK
    } else {
        exit::NO
    })
}

/// The verdict and its reason.
fn said(answer: &client::Answer) -> Result<(String, String), Failure> {
    let verdict = answer.json()?;
    let word = |name: &str| verdict[name].as_str().unwrap_or("unknown").to_owned();
    Ok((word("status"), word("output")))
}
