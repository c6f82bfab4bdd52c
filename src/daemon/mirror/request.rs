//! Requests for pulls: one runs, at most one more waits; who asks for what runs already joins it, and everybody who
//! asked learns of the end.

use crate::mapping::Mirrored;
use crate::sync::mirror::{Pulled, Tally};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::{Notify, watch};

/// How many ended pulls are remembered for those who wait.
const REMEMBERED: usize = 32;

/// Why a pull runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The daemon started and a pass is due.
    Start,
    /// The clock.
    Clock,
    /// Somebody asked over the socket: a route or the verb.
    Socket,
    /// Somebody read what is older than `stale-after`.
    Stale,
}

impl Reason {
    /// The word in `hubsyncd.run`.
    pub fn word(self) -> &'static str {
        match self {
            Reason::Start => "start",
            Reason::Clock => "clock",
            Reason::Socket => "socket",
            Reason::Stale => "stale",
        }
    }
}

/// How far a pull goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Everything that HubSpot holds, deletions too.
    Full,
    /// What was modified since the last pass.
    Incremental,
    /// The first so many records of each kind, in HubSpot's order: for a look, never complete, and no deletions.
    First(u64),
}

impl Extent {
    /// Whether a pull of this extent does all that one of the other would.
    fn covers(self, other: Extent) -> bool {
        match (self, other) {
            (Extent::Full, _) => true,
            (Extent::First(most), Extent::First(wanted)) => most >= wanted,
            (Extent::Incremental, Extent::Incremental) => true,
            _ => false,
        }
    }

    /// The smallest extent that covers both.
    fn widen(self, other: Extent) -> Extent {
        if self.covers(other) {
            self
        } else if other.covers(self) {
            other
        } else {
            Extent::Full
        }
    }

    /// The word on the board.
    pub fn word(self) -> &'static str {
        match self {
            Extent::Full => "full",
            Extent::Incremental => "incremental",
            Extent::First(_) => "limited",
        }
    }
}

/// A pull that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The id its run has, or will have.
    pub id: String,
    /// Why, by the first who asked.
    pub reason: Reason,
    /// What of, each with how far, in the order of [`Mirrored::ALL`].
    pub kinds: Vec<(Mirrored, Extent)>,
    /// What it did in earlier terms.
    pub(super) carried: Carried,
    /// Ids of others that wait for the same end.
    also: Vec<String>,
}

/// What a pull that one term after the other works at has done so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Carried {
    /// When it began, microseconds since the Unix epoch.
    pub(super) started_at: Option<i64>,
    /// What it did, by kind.
    pub(super) tallies: Vec<(Mirrored, Tally)>,
    /// Why kinds were cut short that are not gone on with.
    pub(super) errors: Vec<(Mirrored, String)>,
}

impl Carried {
    /// Adds what one more pass over a kind came to.
    pub(super) fn add(&mut self, kind: Mirrored, tally: Tally) {
        match self.tallies.iter_mut().find(|(of, _)| *of == kind) {
            Some((_, own)) => own.add(tally),
            None => self.tallies.push((kind, tally)),
        }
    }
}

impl Asked {
    fn covers(&self, kinds: &[(Mirrored, Extent)]) -> bool {
        kinds.iter().all(|(kind, extent)| {
            let own = self.kinds.iter().find(|(of, _)| of == kind);
            own.is_some_and(|(_, own)| own.covers(*extent))
        })
    }

    fn widen(&mut self, kinds: &[(Mirrored, Extent)]) {
        for (kind, extent) in kinds {
            match self.kinds.iter_mut().find(|(of, _)| of == kind) {
                Some((_, own)) => *own = own.widen(*extent),
                None => self.kinds.push((*kind, *extent)),
            }
        }
        self.kinds.sort_by_key(|(kind, _)| *kind);
    }
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The id of the run that serves it.
    pub id: String,
    /// Whether it joined one that runs already.
    pub joined: bool,
}

#[derive(Debug, Default)]
struct State {
    running: Option<Asked>,
    /// The one that runs has done its work: nobody joins it any more.
    closing: bool,
    queued: Option<Asked>,
    /// Until when nobody's clock and nobody's stale answer asks again, after a pull that was cut short.
    rests_until: Option<Instant>,
}

/// The requests for pulls. Shared by the clock, the socket and the puller; outlives terms.
#[derive(Debug)]
pub struct Pulls {
    state: Mutex<State>,
    wake: Notify,
    ended: watch::Sender<VecDeque<Arc<Pulled>>>,
}

impl Default for Pulls {
    fn default() -> Pulls {
        Pulls {
            state: Mutex::default(),
            wake: Notify::new(),
            ended: watch::Sender::new(VecDeque::new()),
        }
    }
}

impl Pulls {
    /// Asks for a pull of some kinds, each to its extent. If the one that runs, or the one that waits, does all of it
    /// anyway, that is the one; else the one that waits is widened.
    pub fn ask(&self, reason: Reason, kinds: &[(Mirrored, Extent)]) -> Ticket {
        let mut state = self.state();
        let joinable = state.running.as_ref().filter(|_| !state.closing);
        if let Some(running) = joinable.filter(|running| running.covers(kinds)) {
            return Ticket {
                id: running.id.clone(),
                joined: true,
            };
        }
        let mut queued = state.queued.take().unwrap_or_else(|| Asked {
            id: uuid::Uuid::now_v7().to_string(),
            reason,
            kinds: Vec::new(),
            carried: Carried::default(),
            also: Vec::new(),
        });
        queued.widen(kinds);
        let id = queued.id.clone();
        state.queued = Some(queued);
        drop(state);
        self.wake.notify_one();
        Ticket { id, joined: false }
    }

    /// Takes the pull that waits, if there is one; it counts as running until [`Pulls::ended`] or [`Pulls::put_back`].
    pub(super) fn take(&self) -> Option<Asked> {
        let mut state = self.state();
        let asked = state.queued.take()?;
        state.running = Some(asked.clone());
        state.closing = false;
        Some(asked)
    }

    /// The pull that runs has nothing more to ask HubSpot: what is asked for from now on is another one's.
    pub(super) fn closing(&self) {
        self.state().closing = true;
    }

    /// Whether the last pull was cut short so lately that only who means it asks for the next one.
    pub fn rests(&self) -> bool {
        self.state()
            .rests_until
            .is_some_and(|until| until > Instant::now())
    }

    /// Rests until then, or not at all.
    pub(super) fn rest_until(&self, until: Option<Instant>) {
        self.state().rests_until = until;
    }

    /// Waits until somebody asks.
    pub(super) async fn asked(&self) {
        self.wake.notified().await;
    }

    /// The pull that ran was cut short by the end of its term: what is `left` of it waits for the next one, with what was
    /// asked for meanwhile.
    pub(super) fn put_back(&self, left: &[(Mirrored, Extent)], carried: Carried) {
        let mut state = self.state();
        let Some(mut cut) = state.running.take() else {
            return;
        };
        cut.kinds = left.to_vec();
        cut.carried = carried;
        if let Some(queued) = state.queued.take() {
            cut.widen(&queued.kinds);
            cut.also.push(queued.id);
            cut.also.extend(queued.also);
        }
        state.queued = Some(cut);
        drop(state);
        self.wake.notify_one();
    }

    /// The pull that ran has ended.
    pub(super) fn ended(&self, pulled: Pulled) {
        let running = self.state().running.take();
        let also = running.map(|running| running.also).unwrap_or_default();
        self.ended.send_modify(|ended| {
            for id in also {
                let pulled = pulled.clone();
                ended.push_back(Arc::new(Pulled { id, ..pulled }));
            }
            ended.push_back(Arc::new(pulled));
            while ended.len() > REMEMBERED {
                ended.pop_front();
            }
        });
        self.wake.notify_one();
    }

    /// Whether the pull with this id runs now.
    pub fn runs(&self, id: &str) -> bool {
        let state = self.state();
        let running = state.running.as_ref();
        running.is_some_and(|running| running.id == id || running.also.iter().any(|also| also == id))
    }

    /// Waits for the end of the pull with this id; `None` if the daemon stops before.
    pub async fn wait(&self, id: &str) -> Option<Arc<Pulled>> {
        let mut ended = self.ended.subscribe();
        let ended = ended
            .wait_for(|ended| ended.iter().any(|pulled| pulled.id == id))
            .await
            .ok()?;
        ended.iter().find(|pulled| pulled.id == id).cloned()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
