//! Progress of what the daemon does, while its answer is waited for: one line that changes on a terminal, a line now
//! and then otherwise.

use super::client::{Answer, Daemon, SOON};
use super::failure::Failure;
use serde_json::Value;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// How often progress is looked at, and how often it is printed where there is no terminal.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const PRINT_EVERY: Duration = Duration::from_secs(10);

/// What keeps the daemon from asking HubSpot, as `/status` calls it.
pub(super) const KEEPING: [&str; 5] = ["database", "schema", "breaker", "hubspot", "quota"];

/// What keeps the daemon from asking HubSpot, if anything does.
pub(super) fn kept(status: &Value) -> Option<String> {
    KEEPING.iter().find_map(|name| {
        let words = status["conditions"][name].as_str()?;
        Some(format!("{name}: {words}"))
    })
}

/// Waits for an answer; meanwhile, if it is to be `shown`, `line` makes of `/status` what there is to show.
pub(super) async fn watched(
    daemon: &Daemon,
    asked: impl Future<Output = Result<Answer, Failure>>,
    shown: bool,
    line: impl Fn(&Answer) -> Option<String>,
) -> Result<Answer, Failure> {
    let mut asked = std::pin::pin!(asked);
    let mut progress = Progress {
        terminal: std::io::stderr().is_terminal(),
        printed: None,
    };
    let answer = loop {
        tokio::select! {
            answer = &mut asked => break answer,
            () = tokio::time::sleep(LOOK_EVERY) => if shown {
                progress.look(daemon, &line).await;
            },
        }
    };
    progress.clear();
    answer
}

struct Progress {
    terminal: bool,
    printed: Option<Instant>,
}

impl Progress {
    /// A daemon that does not answer now will say so when the awaited answer fails.
    async fn look(&mut self, daemon: &Daemon, line: impl Fn(&Answer) -> Option<String>) {
        if !self.terminal && self.printed.is_some_and(|at| at.elapsed() < PRINT_EVERY) {
            return;
        }
        let Ok(answer) = daemon.ask(hyper::Method::GET, "/status", Some(SOON)).await else {
            return;
        };
        let Some(line) = line(&answer) else { return };
        self.printed = Some(Instant::now());
        self.write(&if self.terminal {
            // Cut off at the edge: a line that wraps could not be taken back.
            format!("\r\x1b[K\x1b[?7l{line}\x1b[?7h")
        } else {
            line + "\n"
        });
    }

    fn clear(&self) {
        if self.terminal && self.printed.is_some() {
            self.write("\r\x1b[K");
        }
    }

    fn write(&self, text: &str) {
        // Progress that nobody can see is no failure.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}
