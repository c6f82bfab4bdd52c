//! The signals of design and systemd.

use super::Purpose;
use super::exit::{Exit, SOFTWARE};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Sweep,
    Reload,
    Stop,
}

/// The process's signals.
pub(super) struct Signals {
    purpose: Purpose,
    sweep: Signal,
    /// Absent where it is to be ignored.
    hangup: Option<Signal>,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Installs the handlers: the first thing a daemon does, since SIGUSR1 and SIGHUP kill who has none.
    pub(super) fn install(purpose: Purpose) -> Result<Signals, Exit> {
        let install = |kind| signal(kind).map_err(|error| Exit::new(SOFTWARE, error));
        let ignored = purpose == Purpose::Errand && hangup_is_ignored();
        let hangup = (!ignored).then(|| install(SignalKind::hangup()));
        Ok(Signals {
            purpose,
            sweep: install(SignalKind::user_defined1())?,
            hangup: hangup.transpose()?,
            terminate: install(SignalKind::terminate())?,
            interrupt: install(SignalKind::interrupt())?,
        })
    }

    /// The next one. An errand is over when its terminal is hung up, unless that is ignored (nohup), and sweeps for nobody
    /// else.
    pub(super) async fn next(&mut self) -> Asked {
        let service = self.purpose == Purpose::Service;
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.sweep.recv(), if service => Asked::Sweep,
            _ = hangup => if service { Asked::Reload } else { Asked::Stop },
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
        }
    }
}

/// Whether whoever started this process had it ignore SIGHUP, as nohup does.
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & 1 == 1)
}
