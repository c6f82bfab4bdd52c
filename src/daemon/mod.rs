//! The clockwork: it alone spawns, sleeps and holds both walls.

pub mod board;
mod metrics;
