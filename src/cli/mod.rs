//! The command line: one file a verb.
//!
//! A verb prints its result on stdout and everything else on stderr. What goes wrong is printed with its whole chain
//! of causes and what to do about it, and decides the exit code (sysexits, [`crate::daemon::exit`]).

mod alert;
mod check;
mod client;
pub mod cluster;
mod completions;
mod demo;
mod explain;
mod failure;
mod failures;
mod health;
mod logs;
mod man;
mod mirror;
mod order;
mod paint;
mod plan;
mod progress;
mod reload;
mod run;
mod sandbox;
mod setup;
mod standalone;
mod status;
mod sweep;

use crate::config::{self, Config, Needs, Problem};
use crate::daemon::exit;
use crate::postgres::address::Address;
use clap::{CommandFactory, Parser, Subcommand};
use failure::Failure;
use secrecy::ExposeSecret;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Threads that blocking calls (name resolution, files) may take; the unit limits the process's tasks.
const BLOCKING_THREADS_MAX: usize = 16;

#[derive(Debug, Parser)]
#[command(name = "hubsyncd", version, about, max_term_width = 100)]
struct Arguments {
    /// The configuration file [default: /etc/hubsyncd/hubsyncd.toml if it exists]
    #[arg(
        long,
        global = true,
        env = "HUBSYNCD_CONFIG",
        value_name = "PATH",
        hide_env_values = true
    )]
    config: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the daemon
    Run(run::Arguments),
    /// Install schema, capture function and triggers for the mapping
    Setup(setup::Arguments),
    /// Look at configuration, database and HubSpot, and say everything that is wrong at once
    Check(check::Arguments),
    /// Tell what a sweep would do, asking HubSpot by reads alone
    Plan(plan::Arguments),
    /// Ask the running daemon for a sweep and show its progress
    Sweep(sweep::Arguments),
    /// Health, backlog, last sweep, failures, limits
    Status(status::Arguments),
    /// Exit 0 if healthy and 1 if not, with one line why
    Health(health::Arguments),
    /// List refused records with HubSpot's reason, or try them again
    Failures(failures::Arguments),
    /// Tell the whole story of one record: row, payload, what HubSpot holds, last answer, what happens next
    Explain(explain::Arguments),
    /// Pull HubSpot's contacts, companies and deals into the mirror now, and show its progress
    Mirror(mirror::Arguments),
    /// Ask the running daemon to take a changed configuration
    Reload(reload::Arguments),
    /// Try whether alerts arrive, or tell of a failed unit
    Alert(alert::Arguments),
    /// Show the whole product on this machine, with nothing configured and nothing left behind
    Demo(demo::Arguments),
    /// Run a stand-in for HubSpot alone on a loopback port
    Sandbox(sandbox::Arguments),
    /// Print what a shell needs to complete the words of this program
    Completions(completions::Arguments),
    /// Print the manual page
    Man,
}

/// The command line's definition, which help, completions and the manual page are made from.
fn command() -> clap::Command {
    Arguments::command()
}

/// Where a verb finds its settings.
struct Surroundings {
    config: Option<PathBuf>,
}

impl Surroundings {
    fn config_path(&self) -> Option<&Path> {
        self.config.as_deref()
    }
}

/// Reads a variable of the process's environment; one that is not Unicode counts as absent.
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Runs the program with the process's arguments and answers its exit code.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(refusal) => {
            let wrong = refusal.use_stderr();
            // Help and version are an answer; there is nobody to tell if it cannot be printed.
            let _ = refusal.print();
            return ExitCode::from(if wrong { exit::USAGE } else { exit::OK });
        }
    };
    let surroundings = Surroundings {
        config: arguments.config.filter(|path| !path.as_os_str().is_empty()),
    };
    let ended = match arguments.verb {
        Verb::Run(arguments) => {
            threads().and_then(|threads| threads.block_on(run::run(&surroundings, arguments)))
        }
        Verb::Setup(arguments) => alone(setup::run(&surroundings, arguments)),
        Verb::Check(arguments) => alone(check::run(&surroundings, arguments)),
        Verb::Sweep(arguments) if arguments.standalone => {
            threads().and_then(|threads| threads.block_on(standalone::run(&surroundings, &arguments)))
        }
        Verb::Plan(arguments) => alone(plan::run(&surroundings, arguments)),
        Verb::Sweep(arguments) => alone(sweep::run(&surroundings, arguments)),
        Verb::Status(arguments) => alone(status::run(&surroundings, arguments)),
        Verb::Health(arguments) => alone(health::run(&surroundings, arguments)),
        Verb::Failures(arguments) => alone(failures::run(&surroundings, arguments)),
        Verb::Explain(arguments) => alone(explain::run(&surroundings, arguments)),
        Verb::Mirror(arguments) => alone(mirror::run(&surroundings, arguments)),
        Verb::Reload(arguments) => alone(reload::run(&surroundings, arguments)),
        Verb::Alert(arguments) => alone(alert::run(&surroundings, arguments)),
        Verb::Demo(arguments) => threads().and_then(|threads| threads.block_on(demo::run(arguments))),
        Verb::Sandbox(arguments) => alone(sandbox::run(arguments)),
        Verb::Completions(arguments) => completions::run(&arguments),
        Verb::Man => man::run(),
    };
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            failure.print();
            ExitCode::from(failure.code)
        }
    }
}

/// A runtime for work on all cores.
fn threads() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .build()
        .map_err(|error| {
            Failure::new(
                exit::UNAVAILABLE,
                anyhow::Error::new(error).context("starting threads"),
            )
        })
}

/// Runs a verb that only asks the daemon.
fn alone(verb: impl Future<Output = Result<u8, Failure>>) -> Result<u8, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(exit::UNAVAILABLE, anyhow::Error::new(error).context("starting")))?
        .block_on(verb)
}

/// The configuration. The database's URL is looked at together with the rest, so that nothing has to be mended twice.
fn configuration(surroundings: &Surroundings, needs: Needs) -> Result<Config, Failure> {
    let path = surroundings.config_path();
    let loaded = Config::load_for(needs, path, &environment);
    let url = config::database_url(path, &environment);
    let Some(error) = url.and_then(|url| Address::parse(url.expose_secret()).err()) else {
        return loaded.map_err(|problems| refuse_configuration(&problems));
    };
    let mut problems = loaded.err().unwrap_or_default();
    problems.push(Problem {
        origin: "secrets".to_owned(),
        line: None,
        key: "DATABASE_URL".to_owned(),
        message: error.to_string(),
        hint: Some("its form is postgres://user:password@host:5432/database?sslmode=verify-full".to_owned()),
    });
    Err(refuse_configuration(&problems))
}

/// What is wrong with the configuration, all of it.
fn refuse_configuration(problems: &[Problem]) -> Failure {
    let lines: Vec<String> = problems.iter().map(|problem| format!("\n  {problem}")).collect();
    let count = match problems.len() {
        1 => "a problem".to_owned(),
        many => format!("{many} problems"),
    };
    let words = format!("the configuration has {count}:{}", lines.concat());
    Failure::new(exit::CONFIGURATION, anyhow::anyhow!(words))
}
