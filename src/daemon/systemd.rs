//! What systemd is told: ready, how it goes, alive, stopping. Without systemd nothing is said.

use super::board::{Board, Lease, State};
use sd_notify::NotifyState;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How often the status line may change.
const STATUS_EVERY: Duration = Duration::from_secs(1);
/// How long a loop may not turn before the watchdog is no longer fed.
const STALL_LIMIT: Duration = Duration::from_secs(30);

/// How long systemd may take to read what it must hear once; what is said again is not waited for at all.
const HEARING: Duration = Duration::from_secs(2);

/// The way to systemd, or to whoever else watches this process over `NOTIFY_SOCKET`.
pub struct Systemd {
    line: Option<Line>,
    /// How often the watchdog wants to be fed.
    feeding: Option<Duration>,
}

/// A socket that is written to by name: who reads it may be a new one by then.
struct Line {
    to: SocketAddr,
    /// Never waits for the reader.
    hasty: UnixDatagram,
    /// Waits for [`HEARING`].
    patient: UnixDatagram,
    /// Whether the last message was not taken.
    unheard: AtomicBool,
}

impl Systemd {
    /// As the process's environment says; without `NOTIFY_SOCKET` nobody is told anything.
    pub fn of_environment() -> Systemd {
        let path = std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty());
        let line = path.and_then(|path| match Line::to(&path) {
            Ok(line) => Some(line),
            Err(error) => {
                tracing::warn!(%error, "systemd cannot be told anything: NOTIFY_SOCKET cannot be used");
                None
            }
        });
        Systemd {
            line,
            feeding: sd_notify::watchdog_enabled().map(|limit| limit / 2),
        }
    }

    /// Says that configuration, credentials, sockets and signals stand. A database that is down is no reason to wait.
    pub fn ready(&self) {
        self.insist(&[NotifyState::Ready]);
    }

    /// Says that a changed configuration is being taken; [`Systemd::ready`] ends it.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.insist(&[NotifyState::Reloading, now]),
            Err(error) => tracing::warn!(%error, "systemd could not be told of the reload"),
        }
    }

    /// Says that the daemon stops, and that it may take `patience`.
    pub fn stopping(&self, patience: Duration) {
        let micros = u32::try_from(patience.as_micros()).unwrap_or(u32::MAX);
        self.insist(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(micros)]);
    }

    /// Keeps the status line true, and feeds the watchdog as long as every loop turns, until `stop`.
    pub async fn report(&self, board: Arc<Board>, stop: CancellationToken) {
        let pause = self.feeding.map_or(STATUS_EVERY, |half| half.min(STATUS_EVERY));
        let mut clock = tokio::time::interval(pause);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut said = String::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = clock.tick() => {}
            }
            let line = status_line(&board.state(), Instant::now());
            if line != said && self.mention(&[NotifyState::Status(&line)]) {
                said = line;
            }
            if self.feeding.is_some() {
                let stalled = board.stalled(STALL_LIMIT);
                if stalled.is_empty() {
                    self.mention(&[NotifyState::Watchdog]);
                } else {
                    tracing::error!(loops = ?stalled, "these loops do not turn: the watchdog is not fed");
                }
            }
        }
    }

    /// Says what is said again soon; answers whether nobody has to say it again now.
    fn mention(&self, states: &[NotifyState<'_>]) -> bool {
        self.line
            .as_ref()
            .is_none_or(|line| line.say(&line.hasty, states))
    }

    /// Says what is said once.
    fn insist(&self, states: &[NotifyState<'_>]) {
        if let Some(line) = &self.line {
            line.say(&line.patient, states);
        }
    }
}

impl Line {
    /// To a path, or to a name in the abstract namespace, which begins with `@`.
    fn to(path: &OsStr) -> io::Result<Line> {
        let to = match path.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(path)?,
        };
        let (hasty, patient) = (UnixDatagram::unbound()?, UnixDatagram::unbound()?);
        hasty.set_nonblocking(true)?;
        patient.set_write_timeout(Some(HEARING))?;
        Ok(Line {
            to,
            hasty,
            patient,
            unheard: AtomicBool::new(false),
        })
    }

    /// Whether it was taken. That it is not is logged when that begins.
    fn say(&self, by: &UnixDatagram, states: &[NotifyState<'_>]) -> bool {
        let lines: String = states.iter().map(|state| format!("{state}\n")).collect();
        let sent = by.send_to_addr(lines.as_bytes(), &self.to);
        let unheard = self.unheard.swap(sent.is_err(), Ordering::Relaxed);
        match sent {
            Ok(_) => true,
            Err(error) => {
                if !unheard {
                    tracing::warn!(%error, "systemd does not take what it is told; the daemon goes on");
                }
                false
            }
        }
    }
}

/// One line for `systemctl status`.
pub fn status_line(state: &State, now: Instant) -> String {
    if let Some((condition, words)) = state.conditions.first_key_value() {
        // A line's end would begin another message.
        let words = words.replace(['\n', '\r'], " ");
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::Mapping;

    /// A socket that somebody reads, or does not.
    fn watched(feeding: Option<Duration>) -> (Systemd, UnixDatagram, tempfile::TempDir) {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let path = directory.path().join("notify");
        let ear = UnixDatagram::bind(&path).expect("it can be bound");
        ear.set_nonblocking(true).expect("it can be");
        let line = Line::to(path.as_os_str()).expect("the path is short");
        let systemd = Systemd {
            line: Some(line),
            feeding,
        };
        (systemd, ear, directory)
    }

    fn heard(ear: &UnixDatagram) -> Vec<String> {
        let mut buffer = [0; 4096];
        let mut heard = Vec::new();
        while let Ok(length) = ear.recv(&mut buffer) {
            heard.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
        heard
    }

    /// Reports for ten of the clock's ticks.
    async fn reported(systemd: &Systemd, board: &Arc<Board>) {
        let stop = CancellationToken::new();
        let report = systemd.report(Arc::clone(board), stop.clone());
        let _ = tokio::time::timeout(STATUS_EVERY * 10, report).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_watchdog_is_fed_while_every_loop_turns_and_starves_when_one_does_not() {
        let (systemd, ear, _directory) = watched(Some(Duration::from_secs(30)));
        let board = Board::new(&Mapping::built_in());
        board.tick("collect");
        reported(&systemd, &board).await;
        let fed = |heard: &[String]| heard.iter().filter(|text| *text == "WATCHDOG=1\n").count();
        assert!(fed(&heard(&ear)) >= 9);
        board.tick_at(
            "collect",
            Instant::now()
                .checked_sub(STALL_LIMIT * 2)
                .expect("the machine runs that long"),
        );
        reported(&systemd, &board).await;
        assert_eq!(fed(&heard(&ear)), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_does_not_read_holds_up_nobody_and_hears_the_status_afterwards() {
        let (systemd, ear, _directory) = watched(Some(Duration::from_secs(30)));
        let begin = Instant::now();
        while systemd.mention(&[NotifyState::Watchdog]) {}
        let board = Board::new(&Mapping::built_in());
        reported(&systemd, &board).await;
        assert!(begin.elapsed() < HEARING, "nothing waited for the reader");
        assert!(heard(&ear).iter().all(|text| text == "WATCHDOG=1\n"));
        reported(&systemd, &board).await;
        let heard = heard(&ear);
        let status = heard.iter().find(|text| text.starts_with("STATUS="));
        assert!(
            status.is_some_and(|text| text.contains("no connection was made yet")),
            "{heard:?}"
        );
    }

    #[test]
    fn what_is_said_once_is_waited_for_and_not_for_ever() {
        let (systemd, ear, _directory) = watched(None);
        while systemd.mention(&[NotifyState::Watchdog]) {}
        let reader = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            let first = heard(&ear);
            std::thread::sleep(Duration::from_millis(200));
            (first, heard(&ear))
        });
        systemd.ready();
        let (first, then) = reader.join().expect("it reads");
        assert!(first.iter().chain(&then).any(|text| text == "READY=1\n"));
        let gone = Instant::now();
        systemd.ready();
        assert!(gone.elapsed() < HEARING * 2, "nobody reads any more");
    }

    #[test]
    fn a_message_is_one_whatever_is_in_it() {
        let board = Board::new(&Mapping::built_in());
        board.set_condition(
            super::super::board::Condition::Database,
            Some("a\nREADY=1".to_owned()),
        );
        assert!(status_line(&board.state(), Instant::now()).starts_with("database: a READY=1; 0 "));
    }

    #[test]
    fn a_name_in_the_abstract_namespace_is_one() {
        let name = format!("hubsyncd-{}", uuid::Uuid::new_v4());
        let address = SocketAddr::from_abstract_name(&name).expect("it is short");
        let ear = UnixDatagram::bind_addr(&address).expect("nobody has it");
        let line = Line::to(OsStr::new(&format!("@{name}"))).expect("it is short");
        assert!(line.say(&line.hasty, &[NotifyState::Ready]));
        ear.set_nonblocking(true).expect("it can be");
        assert_eq!(heard(&ear), ["READY=1\n"]);
    }
}
