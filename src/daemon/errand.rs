//! An errand: a daemon that somebody brings along for one task, where none runs.
//!
//! It does what a daemon does, with three differences: it has no part in systemd's dealings, it never stands by (a lease
//! that is another's ends it, at its start and later), and a hung-up terminal stops it as SIGTERM does.

use super::exit::Exit;
use super::signals::Signals;
use super::{Purpose, Stopped, serve};
use crate::config::{Alert, Config, Http, Sweep};
use std::path::PathBuf;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A period whose first slot is beyond this century: the clock starts no sweep.
const NEVER: Duration = Duration::from_secs(u32::MAX as u64);

/// A daemon that has not begun, and already takes signals.
pub struct Errand {
    signals: Signals,
}

impl Errand {
    /// Takes over the process's signals.
    ///
    /// # Errors
    /// Code 70 if the system refuses that.
    pub fn prepare() -> Result<Errand, Exit> {
        let signals = Signals::install(Purpose::Errand)?;
        Ok(Errand { signals })
    }

    /// Runs until `done`, or until a signal; what HubSpot has answered by then is recorded. It is asked over `socket`
    /// alone, sweeps only because it is asked to, and alerts nobody.
    ///
    /// # Errors
    /// As [`super::run`]; code 75 where another daemon holds the lease.
    pub async fn run(
        self,
        config: Config,
        socket: PathBuf,
        done: CancellationToken,
    ) -> Result<Stopped, Exit> {
        let config = narrowed(config, socket);
        let load = || Err(vec!["this daemon is here for one task only".to_owned()]);
        serve(Purpose::Errand, config, Box::new(load), self.signals, done).await
    }
}

/// The configuration without what only a service has.
fn narrowed(config: Config, socket: PathBuf) -> Config {
    Config {
        sweep: Sweep {
            every: NEVER,
            on_start: false,
            ..config.sweep
        },
        http: Http {
            socket,
            socket_mode: 0o600,
            health_socket: None,
            listen: None,
            cron_secret: None,
        },
        alert: Alert::default(),
        mirror: None,
        ..config
    }
}
