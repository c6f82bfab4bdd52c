//! What systemd is told: ready, how it goes, alive, stopping. Without systemd nothing is said.

use super::board::{Board, Lease, State};
use sd_notify::NotifyState;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How often the status line may change.
const STATUS_EVERY: Duration = Duration::from_secs(1);
/// How long a loop may not turn before the watchdog is no longer fed.
const STALL_LIMIT: Duration = Duration::from_secs(30);

/// Says that configuration, credentials, sockets and signals stand. A database that is down is no reason to wait.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Says that a changed configuration is being taken; [`ready`] ends it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "systemd could not be told of the reload"),
    }
}

/// Says that the daemon stops, and that it may take `patience`.
pub fn stopping(patience: Duration) {
    let micros = u32::try_from(patience.as_micros()).unwrap_or(u32::MAX);
    tell(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(micros)]);
}

/// Keeps the status line true, and feeds the watchdog as long as every loop turns, until `stop`.
pub async fn report(board: Arc<Board>, stop: CancellationToken) {
    let watchdog = sd_notify::watchdog_enabled().map(|limit| limit / 2);
    let pause = watchdog.map_or(STATUS_EVERY, |half| half.min(STATUS_EVERY));
    let mut clock = tokio::time::interval(pause);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut said = String::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = clock.tick() => {}
        }
        let line = status_line(&board.state(), Instant::now());
        if line != said {
            tell(&[NotifyState::Status(&line)]);
            said = line;
        }
        if watchdog.is_some() {
            let stalled = board.stalled(STALL_LIMIT);
            if stalled.is_empty() {
                tell(&[NotifyState::Watchdog]);
            } else {
                tracing::error!(loops = ?stalled, "these loops do not turn: the watchdog is not fed");
            }
        }
    }
}

/// One line for `systemctl status`.
pub fn status_line(state: &State, now: Instant) -> String {
    if let Some((condition, words)) = state.conditions.first_key_value() {
        return format!(
            "{}: {words}; {} changes waiting",
            condition.word(),
            state.pending()
        );
    }
    let doing = match (&state.lease, &state.sweep) {
        (Lease::Standby(holder), _) => {
            return format!(
                "standing by; {} pushes",
                holder.as_deref().unwrap_or("another daemon")
            );
        }
        (_, Some(_)) => "sweeping",
        (_, None) => "in step",
    };
    let oldest = state
        .oldest_pending(now)
        .map_or_else(String::new, |age| format!(" (oldest {}s)", age.as_secs()));
    let limits = state.window.map_or_else(String::new, |(remaining, max)| {
        format!("; HubSpot {remaining}/{max} left")
    });
    format!(
        "{doing}; {} changes waiting{oldest}; {} failures{limits}",
        state.pending(),
        state.failures()
    )
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd could not be told");
    }
}
