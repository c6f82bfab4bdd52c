//! `hubsyncd completions SHELL`: what a shell needs to complete our words, on stdout.

use super::failure::{Failure, print};
use crate::daemon::exit;
use clap_complete::Shell;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The shell, whose own place for such files the package uses
    shell: Shell,
}

/// Prints the completions of a shell.
pub(super) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(
        arguments.shell,
        &mut super::command(),
        env!("CARGO_PKG_NAME"),
        &mut text,
    );
    print(&String::from_utf8_lossy(&text))?;
    Ok(exit::OK)
}
