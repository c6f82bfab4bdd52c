//! `hubsyncd demo`: the whole product on one machine with nothing configured.
//!
//! A private Postgres with the application's tables, the sandbox in HubSpot's place, the built daemon between them, and
//! an application that keeps making changes. At the end both ends are compared. Nothing is left behind, however the
//! demo ends: what it starts hangs on pipes from it (`cluster`, [`leashed`]), and all files lie in one directory that
//! goes with the cluster.

mod application;
mod compare;
mod dice;
mod latency;
mod leashed;
mod people;
mod plot;
mod school;
mod screen;
mod stage;
mod story;

use super::failure::Failure;
use crate::daemon::exit;
use screen::Screen;
use stage::Stage;
use std::time::Duration;
use story::Story;
use tokio::signal::unix::{Signal, SignalKind, signal};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Make changes for so many seconds, then compare and end; without it, until Ctrl-C
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: Option<u64>,
    /// The seed of data and changes
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// Runs the demo. Answers 0 if both ends agree in the end, else 1.
pub(super) async fn run(arguments: Arguments) -> Result<u8, Failure> {
    let mut signals = Signals::install()?;
    let mut screen = Screen::new();
    screen.say(&format!(
        "hubsyncd {}: the demo, with data from seed {}; starting ...",
        env!("CARGO_PKG_VERSION"),
        arguments.seed
    ));
    let begun = async {
        let (mut stage, school) = Stage::set(arguments.seed).await?;
        let places = stage.places(&school);
        screen.say(&format!("\n{places}\n"));
        screen.begin();
        let sweep = stage.swept_first().await?;
        Ok::<_, Failure>((stage, school, sweep))
    };
    let (stage, school, sweep) = tokio::select! {
        begun = begun => begun?,
        () = signals.next() => {
            screen.say("stopped before it began; nothing was compared");
            return Ok(exit::NO);
        }
    };
    let seconds = arguments.seconds.map(Duration::from_secs);
    let mut story = Story::new(stage, school, screen, seconds);
    story.first_sweep(&sweep);
    story.tell(&mut signals).await?;
    tokio::select! {
        agree = story.end() => Ok(if agree? { exit::OK } else { exit::NO }),
        () = signals.next() => {
            story.cut_short();
            Ok(exit::NO)
        }
    }
}

/// A failure that no user can do anything about.
fn fault(error: impl Into<anyhow::Error>, doing: &'static str) -> Failure {
    Failure::new(exit::SOFTWARE, error.into().context(doing))
}

/// The signals that end the demo; one that comes while it starts is not lost.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn install() -> Result<Signals, Failure> {
        let install = |kind| signal(kind).map_err(|error| fault(error, "listening to signals"));
        Ok(Signals {
            interrupt: install(SignalKind::interrupt())?,
            terminate: install(SignalKind::terminate())?,
            hangup: install(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
