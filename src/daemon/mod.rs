//! The clockwork: it alone spawns, sleeps and holds both walls.

pub mod board;
pub mod health;
pub mod http;
mod metrics;
pub mod operations;
mod status;
pub mod systemd;
