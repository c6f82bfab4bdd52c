//! `hubsyncd alert`: tries whether alerts arrive, and tells of a failed unit.

use super::failure::{Failure, print};
use super::{Surroundings, environment, refuse_configuration};
use crate::config;
use crate::daemon::alert::Alert;
use crate::daemon::exit;
use serde_json::json;
use std::time::Duration;

/// How long delivery is tried: what failed may have taken the network with it.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    about: About,
}

#[derive(Debug, clap::Subcommand)]
enum About {
    /// Send a test alert to the webhook of [alert]
    Test,
    /// Tell that a systemd unit failed; what OnFailure= calls
    Unit {
        /// The unit's name
        name: String,
    },
}

/// Delivers an alert. Without a webhook a test is refused with 78, and a failed unit is nobody's business.
pub(super) async fn run(surroundings: &Surroundings, arguments: Arguments) -> Result<u8, Failure> {
    let url = config::webhook_url(surroundings.config_path())
        .map_err(|problems| refuse_configuration(&problems))?;
    let Some(url) = url else {
        let unset = anyhow::anyhow!("no webhook is configured, so nobody is told");
        return match arguments.about {
            About::Unit { name } => {
                let words = format!("{name} has failed; nobody is told: set webhook-url in [alert]");
                print(&match arguments.json {
                    true => format!("{}\n", json!({ "delivered": false, "output": words })),
                    false => words + "\n",
                })?;
                Ok(exit::OK)
            }
            About::Test => Err(Failure::new(exit::CONFIGURATION, unset).hint("set webhook-url in [alert]")),
        };
    };
    let (alert, patience) = match arguments.about {
        About::Test => (Alert::test(), Duration::ZERO),
        About::Unit { name } => (Alert::of_unit(&name, result().as_deref()), PATIENCE),
    };
    alert.deliver_to(&url, patience).await.map_err(|error| {
        Failure::from(error).hint("look at webhook-url in [alert], and whether it can be reached")
    })?;
    print(&match arguments.json {
        true => format!("{}\n", json!({ "delivered": true, "output": alert.text })),
        false => format!("delivered: {}\n", alert.text),
    })?;
    Ok(exit::OK)
}

/// What systemd says of the failed unit to the one it starts for it.
fn result() -> Option<String> {
    let result = environment("MONITOR_SERVICE_RESULT").filter(|result| !result.is_empty())?;
    Some(
        match environment("MONITOR_EXIT_STATUS").filter(|status| !status.is_empty()) {
            Some(status) => format!("{result}, {status}"),
            None => result,
        },
    )
}
