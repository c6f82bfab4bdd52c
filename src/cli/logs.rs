//! Where the log goes: to people on a terminal, to the journal under systemd, as JSON otherwise.

use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The crate whose lines may be seen at every level.
const OURS: &str = env!("CARGO_CRATE_NAME");

/// Who reads the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    /// People: on a terminal, or by `journalctl`.
    People,
    /// Programs: a line is a JSON object, and nothing else may stand between.
    Programs,
}

/// Starts the log. `RUST_LOG` chooses what is in it; without it, everything from `info`. Of other crates only warnings
/// and errors are ever in it: the Postgres client logs the parameters of its queries at `debug` and what triggers of
/// the application say at `info`, and both may hold values of rows.
pub(super) fn start() -> For {
    start_from("info", false)
}

/// Starts the log of a verb that shows on a terminal how it goes: there, warnings without being asked for more.
pub(super) fn start_beside_progress() {
    let terminal = std::io::stderr().is_terminal();
    let _ = start_from(if terminal { "warn" } else { "info" }, terminal);
}

fn start_from(level: &str, over_progress: bool) -> For {
    let wanted = std::env::var("RUST_LOG").unwrap_or_default();
    let filter = EnvFilter::builder().parse_lossy(if wanted.is_empty() { level } else { &wanted });
    let ours = filter_fn(|about| about.target().starts_with(OURS) || *about.level() <= Level::WARN);
    let log = tracing_subscriber::registry().with(filter).with(ours);
    let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let people = tracing_subscriber::fmt::layer()
        .with_writer(move || Terminal { over_progress })
        .with_target(false);
    // The log can be started once; a second start, by a test in this process, changes nothing.
    if std::io::stderr().is_terminal() {
        let _ = log.with(people.with_ansi(colour)).try_init();
        return For::People;
    }
    if is_journal()
        && let Ok(journal) = tracing_journald::layer()
    {
        let _ = log.with(journal).try_init();
        return For::People;
    }
    let json = tracing_subscriber::fmt::layer().json().flatten_event(true);
    let _ = log.with(json.with_writer(std::io::stderr)).try_init();
    For::Programs
}

/// Stderr that is a terminal, whose present line may show progress: a line of the log takes its place.
struct Terminal {
    over_progress: bool,
}

impl Write for Terminal {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let mut terminal = std::io::stderr().lock();
        if self.over_progress {
            terminal.write_all(b"\r\x1b[K")?;
        }
        terminal.write_all(line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

/// Whether stderr is the journal's stream: systemd names its device and inode, and only a match counts, since the
/// variable is inherited by children whose stderr is something else.
fn is_journal() -> bool {
    let named = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    let Some((device, inode)) = named.split_once(':') else {
        return false;
    };
    let stderr = std::io::stderr()
        .as_fd()
        .try_clone_to_owned()
        .map(std::fs::File::from);
    stderr
        .and_then(|file| file.metadata())
        .is_ok_and(|file| device.parse() == Ok(file.dev()) && inode.parse() == Ok(file.ino()))
}
