//! A term: the tasks that push, from one configuration to the next.
//!
//! A daemon has one term after the other; a reload ends the present one and begins the next. What outlives terms is
//! [`Shared`]'s.

use super::board::Board;
use super::door::Door;
use super::keeper::Keeper;
use super::mirror::state::MirrorState;
use super::mirror::{self, Puller};
use super::reopen::Reopener;
use super::sweep::Sweeper;
use super::trouble::Trouble;
use super::{Ended, Purpose, Shared};
use crate::config::Config;
use crate::hubspot::Client;
use crate::mapping::Mirrored;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The tasks of a term.
pub(super) struct Term {
    pub(super) tasks: JoinSet<Ended>,
    pub(super) client: Arc<Client>,
    stop: CancellationToken,
    door: Arc<OnceLock<Arc<Door>>>,
    /// Whether this process has had a door before: what does not fit since then is waited for.
    proven: bool,
    /// Up to when the clock's sweeps were looked after, as the time since the Unix epoch.
    looked_after: Duration,
}

/// The door of the present term, once both ends are known.
#[derive(Default)]
pub(super) struct Doorway(Mutex<Arc<OnceLock<Arc<Door>>>>);

impl Doorway {
    /// The door, if there is one now.
    pub(super) fn door(&self) -> Option<Arc<Door>> {
        let place = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        place.get().cloned()
    }

    fn open(&self, place: &Arc<OnceLock<Arc<Door>>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(place);
    }
}

impl Term {
    /// Begins a term with the live configuration, after `last` or as the first.
    pub(super) fn begin(shared: &Shared, client: Arc<Client>, last: Option<&Term>) -> Term {
        let config = Arc::clone(&shared.live.borrow());
        let mut term = Term {
            tasks: JoinSet::new(),
            client: Arc::clone(&client),
            stop: shared.stop.child_token(),
            door: Arc::default(),
            proven: last.is_some_and(|last| last.proven || last.door.get().is_some()),
            looked_after: last.map_or_else(now, |last| last.looked_after),
        };
        shared.doorway.open(&term.door);
        let reader = Client::clone(&client).asking(Arc::new(|| true));
        shared.speaker.send_replace(Some(reader));
        let before = shared.board.state().mirror;
        let going_on = |mirror| MirrorState::going_on(mirror, before.as_ref());
        shared.board.set_mirror(config.mirror.as_ref().map(going_on));
        let keeper = Keeper {
            config: Arc::clone(&config),
            address: shared.address.clone(),
            pool: Arc::clone(&shared.pool),
            client,
            board: Arc::clone(&shared.board),
            lease: Arc::clone(&shared.lease),
            door: Arc::clone(&term.door),
            stop: term.stop.clone(),
            proven: term.proven,
            stands_by: shared.purpose == Purpose::Service,
            trouble: Trouble::new(),
        };
        term.tasks.spawn(async move { ("keeper", keeper.run().await) });
        let sweeper = Sweeper {
            door: Arc::clone(&term.door),
            pool: Arc::clone(&shared.pool),
            requests: Arc::clone(&shared.requests),
            board: Arc::clone(&shared.board),
            lease: Arc::clone(&shared.lease),
            stop: term.stop.clone(),
            every: config.sweep.every,
            on_start: config.sweep.on_start && last.is_none_or(|last| last.door.get().is_none()),
            since: term.looked_after,
            give_up: config.sweep.give_up,
            in_flight: config.hubspot.in_flight,
            progress: Mutex::default(),
            late: Mutex::default(),
        };
        term.mirror(shared, &config);
        let reopener = Reopener {
            door: Arc::clone(&term.door),
            reopened: Arc::clone(&shared.reopened),
            stop: term.stop.clone(),
        };
        term.tasks.spawn(async move {
            reopener.run().await;
            ("reopen", Ok(()))
        });
        term.tasks.spawn(async move {
            sweeper.run().await;
            ("sweep", Ok(()))
        });
        term
    }

    /// Begins the mirror's task, if there is a mirror.
    fn mirror(&mut self, shared: &Shared, config: &Config) {
        let Some(mirrored) = config.mirror.clone() else {
            mirror::none(&shared.pulls);
            return;
        };
        let puller = Puller {
            troubles: Mirrored::ALL.map(|_| Trouble::new()),
            unread: Trouble::new(),
            door: Arc::clone(&self.door),
            pool: Arc::clone(&shared.pool),
            client: Arc::clone(&self.client),
            pulls: Arc::clone(&shared.pulls),
            board: Arc::clone(&shared.board),
            lease: Arc::clone(&shared.lease),
            stop: self.stop.clone(),
            end: shared.stop.clone(),
            config: mirrored,
            give_up: config.sweep.give_up,
            horizons: Mutex::default(),
            epoch: Instant::now(),
        };
        self.tasks.spawn(async move {
            puller.run().await;
            ("mirror", Ok(()))
        });
    }

    /// Ends the term: what is under way is finished and recorded, nothing new begins. Answers whether a sweep was cut
    /// short that no waiting change asks for again.
    pub(super) async fn end(&mut self, board: &Board) -> bool {
        let sweeping = board.state().sweep.filter(|run| run.reason != "trigger");
        self.looked_after = now();
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        let ended = board.state().last_sweep;
        sweeping.is_some_and(|run| ended.is_none_or(|last| last.id != run.id || !last.is_complete()))
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
