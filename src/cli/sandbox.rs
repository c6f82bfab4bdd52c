//! `hubsyncd sandbox`: a HubSpot to try a mapping or an integration against.

use super::failure::{Failure, print};
use crate::daemon::exit;
use crate::sandbox::{Sandbox, Settings};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The loopback port; 0 takes any that is free
    #[arg(long, default_value_t = 0)]
    port: u16,
}

/// Serves until interrupted.
pub(super) async fn run(arguments: Arguments) -> Result<u8, Failure> {
    let settings = Settings {
        port: arguments.port,
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
