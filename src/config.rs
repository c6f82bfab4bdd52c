//! The configuration: TOML → `Config`, every problem at once.
