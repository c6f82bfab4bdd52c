//! The daemon of the demo: this same program as a process of its own, as an operator would run it.
//!
//! It runs on a leash (`leash.sh`), so that it ends with us however we end, and in a process group of its own, so that
//! Ctrl-C reaches us alone and the comparison comes before its end.

use crate::cli::client::{Answer, Daemon, SOON};
use crate::cli::failure::Failure;
use crate::daemon::exit;
use anyhow::{Context, anyhow};
use hyper::Method;
use serde_json::Value;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

/// What of our own environment the daemon sees; nothing that could configure it.
const PASSED_ON: [&str; 2] = ["PATH", "RUST_LOG"];

/// The daemon's settings: the window is that of the sandbox.
const SETTINGS: &str = include_str!("hubsyncd.toml");

/// How many lines of its log are shown if it fails.
const LOG_LINES: usize = 15;

/// Where the daemon finds both ends.
pub(super) struct Ends<'a> {
    pub(super) database_url: String,
    pub(super) base_url: String,
    pub(super) token: &'a str,
}

/// A daemon that runs; dropping it stops it and waits for its end.
pub(super) struct Leashed {
    child: Child,
    leash: Option<ChildStdin>,
    socket: PathBuf,
    log: PathBuf,
    client: Daemon,
}

impl Leashed {
    /// Starts it with its configuration, socket and log in `directory`, and waits for nothing.
    pub(super) fn start(directory: &Path, ends: &Ends<'_>) -> Result<Leashed, Failure> {
        let spawned = spawn(directory, ends);
        let mut child = spawned
            .context("starting the daemon")
            .map_err(|error| Failure::new(exit::UNAVAILABLE, error))?;
        let socket = socket(directory);
        Ok(Leashed {
            leash: child.stdin.take(),
            child,
            client: Daemon::at(socket.clone()),
            socket,
            log: log(directory),
        })
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(super) fn log(&self) -> &Path {
        &self.log
    }

    /// Asks it something; an answer other than 2xx is a failure.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        patience: Option<Duration>,
    ) -> Result<Value, Failure> {
        let answer = self.client.ask(method, path, patience).await;
        answer.and_then(Answer::accepted)?.json()
    }

    /// `/status`; `None` while it does not answer.
    pub(super) async fn status(&self) -> Option<Value> {
        self.ask(Method::GET, "/status", Some(SOON)).await.ok()
    }

    /// Fails if it has ended.
    pub(super) fn lives(&mut self) -> Result<(), Failure> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.fails(&format!("the daemon ended by itself ({status})"))),
            Err(error) => {
                let error = anyhow::Error::new(error).context("looking after the daemon");
                Err(Failure::new(exit::SOFTWARE, error))
            }
        }
    }

    /// A failure with the end of its log.
    pub(super) fn fails(&self, what: &str) -> Failure {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
        Failure::new(exit::SOFTWARE, anyhow!("{what}; its log ends:\n{tail}"))
    }
}

impl Drop for Leashed {
    fn drop(&mut self) {
        drop(self.leash.take());
        // The only failure is that somebody else has waited for it: then it is gone, too.
        let _ = self.child.wait();
    }
}

/// Short, because it stands beside Postgres' own socket, whose path may take all that a socket's path may have.
fn socket(directory: &Path) -> PathBuf {
    directory.join("hub.sock")
}

fn log(directory: &Path) -> PathBuf {
    directory.join("hubsyncd.log")
}

fn spawn(directory: &Path, ends: &Ends<'_>) -> io::Result<Child> {
    let program = std::env::current_exe()?;
    let config = directory.join("hubsyncd.toml");
    fs::write(&config, SETTINGS)?;
    let log = File::create(log(directory))?;
    let mut command = Command::new("sh");
    command
        .args(["-c", include_str!("leash.sh"), "hubsyncd-leash"])
        .arg(program)
        .arg("--config")
        .arg(config)
        .arg("run")
        .env_clear()
        .envs(
            PASSED_ON
                .iter()
                .filter_map(|name| Some((name, std::env::var_os(name)?))),
        )
        .env("DATABASE_URL", &ends.database_url)
        .env("HUBSPOT_ACCESS_TOKEN", ends.token)
        .env("HUBSPOT_BASE_URL", &ends.base_url)
        .env("HUBSYNCD_SOCKET", socket(directory))
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0);
    command.spawn()
}
