//! Patience: how long a pass goes on without any row being finished.

use crate::daemon::board::Board;
use crate::hubspot::Pace;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often a pass that waits shows that it lives.
const LIFE_SIGN: Duration = Duration::from_secs(1);

/// How long a pass goes on without any row being finished, and who is told.
pub(super) struct Patience {
    pub(super) board: Arc<Board>,
    pub(super) pace: Arc<Pace>,
    /// Ends the waiting for request slots.
    pub(super) stop: CancellationToken,
    pub(super) give_up: Duration,
    /// When rows were last finished, be it by being refused.
    pub(super) progressed: Instant,
}

impl Patience {
    /// Why nothing will be sent for longer than the pass may wait, if the day has nothing left for it.
    pub(super) fn withheld(&self) -> Option<String> {
        let withheld = self
            .pace
            .withheld()
            .filter(|withheld| withheld.left > self.give_up)?;
        let why = if withheld.spent {
            "HubSpot's daily quota is spent"
        } else {
            "what is left of HubSpot's daily quota is kept for live changes"
        };
        let left = humantime::format_duration(Duration::from_secs(withheld.left.as_secs()));
        Some(format!("nothing could be sent: {why}, sweeps go on in {left}"))
    }

    pub(super) fn is_over(&self) -> bool {
        self.progressed.elapsed() >= self.give_up
    }

    /// Awaits something that may take long, and shows meanwhile that the sweep lives. When patience is over, those who
    /// wait for a request slot are told to come back without one.
    pub(super) async fn over<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(LIFE_SIGN) => {
                    self.board.tick("sweep");
                    if self.is_over() || self.withheld().is_some() {
                        self.stop.cancel();
                    }
                }
            }
        }
    }
}
