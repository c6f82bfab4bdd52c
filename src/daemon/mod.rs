//! The clockwork: it alone spawns, sleeps and holds both walls.

pub mod board;
pub mod exit;
pub mod health;
pub mod http;
mod metrics;
pub mod operations;
mod status;
pub mod systemd;

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// Why it ends otherwise, with the exit code.
pub async fn run(_: crate::config::Config) -> Result<(), exit::Exit> {
    Err(exit::Exit::new(exit::SOFTWARE, "the tasks are not wired yet"))
}
