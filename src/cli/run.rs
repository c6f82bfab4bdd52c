//! `hubsyncd run`: the daemon.

use super::failure::Failure;
use super::{Surroundings, configuration, environment, logs, setup};
use crate::config::{Config, Needs};
use crate::daemon::{self, exit};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Do what `hubsyncd setup` does first, for the role of DATABASE_URL
    #[arg(long)]
    setup: bool,
}

/// Runs the daemon until it is told to stop.
pub(super) async fn run(surroundings: &Surroundings, arguments: Arguments) -> Result<u8, Failure> {
    let config = configuration(surroundings, Needs::Everything)?;
    let log = logs::start();
    let ended = serve(surroundings, config, arguments.setup).await;
    if let (Err(failure), logs::For::Programs) = (&ended, log) {
        // Whoever reads JSON reads this last line as well.
        failure.log();
        return Ok(failure.code);
    }
    ended
}

async fn serve(surroundings: &Surroundings, config: Config, prepare: bool) -> Result<u8, Failure> {
    if prepare {
        setup::before_run(&config).await?;
    }
    let path = surroundings.config.clone();
    let load = move || {
        let loaded = Config::load_for(Needs::Everything, path.as_deref(), &environment);
        loaded.map_err(|problems| problems.iter().map(ToString::to_string).collect())
    };
    daemon::run(config, Box::new(load)).await?;
    Ok(exit::OK)
}
