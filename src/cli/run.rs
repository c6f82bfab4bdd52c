//! `hubsyncd run`: the daemon.

use super::failure::Failure;
use super::{Surroundings, environment, logs, refuse_configuration};
use crate::config::Config;
use crate::daemon::{self, exit};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {}

/// Runs the daemon until it is told to stop.
pub(super) async fn run(surroundings: &Surroundings, _: Arguments) -> Result<u8, Failure> {
    let config = Config::load(surroundings.config_path(), &environment);
    let config = config.map_err(|problems| refuse_configuration(&problems))?;
    logs::start();
    daemon::run(config).await?;
    Ok(exit::OK)
}
