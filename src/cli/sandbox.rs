//! `hubsyncd sandbox`: a HubSpot to try a mapping or an integration against.

use super::failure::{Failure, print};
use crate::daemon::exit;
use crate::sandbox::{Sandbox, Settings};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The loopback port; 0 takes any that is free
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Requests taken in ten seconds; without it any number
    #[arg(long, value_name = "N")]
    requests: Option<u32>,
    /// Requests taken in a day of the portal
    #[arg(long, value_name = "N")]
    daily: Option<u32>,
    /// How long an answer takes, e.g. 300ms
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "0s")]
    latency: Duration,
    /// How long what was written is not found by search, e.g. 10s
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "0s")]
    search_lag: Duration,
}

/// Serves until interrupted.
pub(super) async fn run(arguments: Arguments) -> Result<u8, Failure> {
    let settings = Settings {
        port: arguments.port,
        requests_per_window: arguments.requests,
        daily: arguments.daily,
        latency: arguments.latency,
        search_lag: arguments.search_lag,
        ..Settings::default()
    };
    let failed = |error: std::io::Error| {
        let doing = format!("starting the sandbox on port {}", arguments.port);
        Failure::new(exit::UNAVAILABLE, anyhow::Error::new(error).context(doing))
    };
    let mut terminated = signal(SignalKind::terminate()).map_err(failed)?;
    let sandbox = Sandbox::tutoring(settings).await.map_err(failed)?;
    print(&format!(
        "HUBSPOT_BASE_URL={}\nHUBSPOT_ACCESS_TOKEN={}\n",
        sandbox.base_url(),
        sandbox.token()
    ))?;
    eprintln!("The sandbox serves until Ctrl-C. It remembers nothing after that.");
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated.recv() => {}
    }
    Ok(exit::OK)
}
