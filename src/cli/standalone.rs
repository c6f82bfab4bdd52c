//! `hubsyncd sweep --standalone`: a sweep where no daemon runs.
//!
//! The verb brings a daemon along, in this process: it takes the lease, pushes what waits, is asked for the sweep as any
//! daemon is, and ends as at SIGTERM. Its socket is in a directory of its own, of which nothing stays behind; the
//! configured one is not touched. Where another daemon holds the lease, nothing is pushed, and that one is named.

use super::client::{Answer, Daemon, SOON};
use super::failure::Failure;
use super::progress::KEEPING;
use super::sweep::{self, Arguments};
use super::{Surroundings, configuration, logs};
use crate::config::Needs;
use crate::daemon::errand::Errand;
use crate::daemon::{Stopped, exit};
use anyhow::anyhow;
use hyper::Method;
use serde_json::Value;
use std::fs::Permissions;
use std::io::IsTerminal;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// How often the daemon is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long what changed during the sweep may take to be pushed as well; the rest waits in the database.
const REST_MAX: Duration = Duration::from_secs(10);
/// The longest path of a temporary directory in which a socket has room for its name.
const DIRECTORY_BYTES_MAX: usize = 60;

/// Sweeps with a daemon of its own. Answers as [`sweep::run`] does.
pub(super) async fn run(surroundings: &Surroundings, arguments: &Arguments) -> Result<u8, Failure> {
    let config = configuration(surroundings, Needs::Everything)?;
    logs::start_beside_progress();
    let errand = Errand::prepare()?;
    let place = place().map_err(|error| {
        let error = anyhow::Error::new(error).context("making a directory for a socket");
        Failure::new(exit::UNAVAILABLE, error).hint("look at TMPDIR, and at who may write there")
    })?;
    let socket = place.path().join("hub.sock");
    let give_up = config.sweep.give_up;
    let (done, ended) = (CancellationToken::new(), CancellationToken::new());
    let served = async {
        let stopped = Box::pin(errand.run(config, socket.clone(), done.clone())).await;
        ended.cancel();
        stopped
    };
    let swept = async {
        let daemon = Daemon::at(socket.clone());
        let swept = tokio::select! {
            swept = Box::pin(swept(&daemon, &socket, arguments, give_up)) => swept,
            () = ended.cancelled() => Err(stopped_early()),
        };
        if swept.is_ok() {
            tokio::select! {
                () = rest_pushed(&daemon) => {}
                () = ended.cancelled() => {}
            }
        }
        done.cancel();
        swept
    };
    match tokio::join!(served, swept) {
        (Err(exit), Err(_)) => Err(exit.into()),
        (Ok(Stopped::Signal), Err(_)) => Err(stopped_early()),
        (Ok(Stopped::Done), Err(failure)) => Err(failure),
        (Err(exit), Ok(answer)) => {
            sweep::report(answer, arguments)?;
            Err(exit.into())
        }
        (Ok(_), Ok(answer)) => sweep::report(answer, arguments),
    }
}

/// A directory that nobody else may enter, and that goes when it is dropped.
fn place() -> std::io::Result<TempDir> {
    let chosen = std::env::temp_dir();
    let short = chosen.as_os_str().as_bytes().len() <= DIRECTORY_BYTES_MAX;
    let within = if short { chosen } else { PathBuf::from("/tmp") };
    tempfile::Builder::new()
        .prefix("hubsyncd-")
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(within)
}

fn stopped_early() -> Failure {
    let error = anyhow!("stopped before the sweep had ended; what HubSpot has answered is recorded");
    Failure::new(exit::TRY_AGAIN, error).hint("run it again: it sweeps every row anew")
}

/// Asks the daemon for a sweep once its socket is there. If nothing can be sent for `give_up` before the sweep begins,
/// that is said instead.
async fn swept(
    daemon: &Daemon,
    socket: &Path,
    arguments: &Arguments,
    give_up: Duration,
) -> Result<Answer, Failure> {
    while !socket.exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let shown = !arguments.json && std::io::stderr().is_terminal();
    tokio::select! {
        answer = sweep::swept(daemon, arguments, shown) => answer,
        words = kept_from_beginning(daemon, give_up) => {
            let after = humantime::format_duration(give_up);
            let error = anyhow!(words).context(format!("the sweep could not begin for {after}"));
            let failure = Failure::new(exit::TRY_AGAIN, error);
            Err(failure.hint("nothing is lost; run it again when that is mended"))
        }
    }
}

async fn status(daemon: &Daemon) -> Option<Value> {
    let answer = daemon.ask(Method::GET, "/status", Some(SOON)).await.ok()?;
    answer.json().ok()
}

/// What has kept the sweep from beginning for `give_up`. Never answers once it has begun: then it gives up by itself.
async fn kept_from_beginning(daemon: &Daemon, give_up: Duration) -> String {
    let mut since: Option<Instant> = None;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(status) = status(daemon).await else {
            continue;
        };
        if status["sweep"].is_object() {
            return std::future::pending().await;
        }
        let words = KEEPING
            .iter()
            .find_map(|name| status["conditions"][name].as_str());
        match words {
            None => since = None,
            Some(words) if since.get_or_insert_with(Instant::now).elapsed() >= give_up => {
                return words.to_owned();
            }
            Some(_) => {}
        }
    }
}

/// Waits until what changed before the sweep's end is pushed, save of objects that are paused; not for long.
async fn rest_pushed(daemon: &Daemon) {
    let begin = Instant::now();
    while begin.elapsed() < REST_MAX {
        let Some(status) = status(daemon).await else {
            return;
        };
        let age = begin.elapsed().as_secs_f64();
        let waits = |object: &Value| {
            let oldest = object["oldest_pending_seconds"].as_f64();
            object["paused"].is_null() && oldest.is_some_and(|oldest| oldest >= age)
        };
        if !status["objects"]
            .as_object()
            .into_iter()
            .flatten()
            .any(|(_, object)| waits(object))
        {
            return;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
