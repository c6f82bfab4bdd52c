//! Requests for a sweep: one runs, at most one more waits, and everybody who asked learns of its end.

use crate::sync::change::ObjectIndex;
use crate::sync::report::Run;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, watch};

/// How many ended runs are remembered for those who wait.
const REMEMBERED: usize = 32;

/// Why a sweep runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The daemon started and no complete sweep is young enough.
    Start,
    /// The clock.
    Clock,
    /// SIGUSR1.
    Signal,
    /// Somebody asked over the socket.
    Socket,
    /// The documented manual trigger.
    Manual,
    /// A trigger could not name what changed.
    Trigger,
    /// The mapping was changed, or a reload cut a sweep short.
    Reload,
}

impl Reason {
    /// The word in `hubsyncd.run`.
    pub fn word(self) -> &'static str {
        match self {
            Reason::Start => "start",
            Reason::Clock => "clock",
            Reason::Signal => "signal",
            Reason::Socket => "socket",
            Reason::Manual => "manual",
            Reason::Trigger => "trigger",
            Reason::Reload => "reload",
        }
    }
}

/// A sweep that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The id its run has, or will have.
    pub id: String,
    /// Why, by the first who asked.
    pub reason: Reason,
    /// The objects to sweep; `None`: all.
    pub objects: Option<Vec<ObjectIndex>>,
    /// Whether deletions that the brake holds may go.
    pub archive: bool,
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The id of the run that serves it.
    pub id: String,
    /// Whether it begins at once; if not, it begins when the one that runs has ended.
    pub started: bool,
}

#[derive(Debug, Default)]
struct State {
    running: bool,
    queued: Option<Asked>,
}

/// The requests for sweeps. Shared by the clock, the signals, the socket and the sweeper.
#[derive(Debug)]
pub struct Requests {
    state: Mutex<State>,
    wake: Notify,
    ended: watch::Sender<VecDeque<Run>>,
}

impl Default for Requests {
    fn default() -> Requests {
        Requests {
            state: Mutex::default(),
            wake: Notify::new(),
            ended: watch::Sender::new(VecDeque::new()),
        }
    }
}

impl Requests {
    /// Asks for a sweep of everything. However often this is asked while one runs, exactly one more follows.
    pub fn ask(&self, reason: Reason) -> Ticket {
        self.ask_for(reason, None, false)
    }

    /// Asks for a sweep of some objects, with or without leave to archive what the brake holds; a sweep that waits is
    /// widened.
    pub fn ask_for(&self, reason: Reason, objects: Option<Vec<ObjectIndex>>, archive: bool) -> Ticket {
        let mut state = self.state();
        let started = !state.running;
        let queued = match state.queued.take() {
            None => Asked {
                id: uuid::Uuid::now_v7().to_string(),
                reason,
                objects,
                archive,
            },
            Some(asked) => Asked {
                // A sweep of some objects that somebody widens to all is theirs.
                reason: if asked.objects.is_some() && objects.is_none() {
                    reason
                } else {
                    asked.reason
                },
                objects: widen(asked.objects, objects),
                archive: asked.archive || archive,
                ..asked
            },
        };
        let id = queued.id.clone();
        state.queued = Some(queued);
        drop(state);
        self.wake.notify_one();
        Ticket { id, started }
    }

    /// Takes the sweep that waits, if there is one; it counts as running until [`Requests::ended`].
    pub(super) fn take(&self) -> Option<Asked> {
        let mut state = self.state();
        let asked = state.queued.take()?;
        state.running = true;
        Some(asked)
    }

    /// Waits until somebody asks.
    pub(super) async fn asked(&self) {
        self.wake.notified().await;
    }

    /// The sweep that ran has ended.
    pub(super) fn ended(&self, run: Run) {
        self.state().running = false;
        self.ended.send_modify(|ended| {
            ended.push_back(run);
            while ended.len() > REMEMBERED {
                ended.pop_front();
            }
        });
        self.wake.notify_one();
    }

    /// Waits for the end of the run with this id; `None` if the daemon stops before.
    pub async fn wait(&self, id: &str) -> Option<Run> {
        let mut ended = self.ended.subscribe();
        let ended = ended
            .wait_for(|ended| ended.iter().any(|run| run.id == id))
            .await
            .ok()?;
        ended.iter().find(|run| run.id == id).cloned()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The objects of two requests together; all objects win.
fn widen(one: Option<Vec<ObjectIndex>>, other: Option<Vec<ObjectIndex>>) -> Option<Vec<ObjectIndex>> {
    let (mut one, other) = (one?, other?);
    one.extend(other);
    one.sort_unstable();
    one.dedup();
    Some(one)
}
