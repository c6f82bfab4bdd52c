//! The mirror: HubSpot's contacts, companies and deals, copied into Postgres by a task of the lease's holder.
//!
//! A pull takes its kinds one after the other. A *full* pass lists everything, a page at a time, each stored in one
//! statement with the place where the list goes on, so that whatever dies, the next pass continues there (`full`).
//! What it did not see is asked for by id before it is believed to be gone (`absent`). An *incremental* pass follows
//! what was modified since (`changes`). All requests wait in the lane of the mirror; nothing of it is in memory but two
//! pages, or five of a search.

mod absent;
mod ask;
mod changes;
mod fetch;
mod full;
mod pull;
pub mod request;
pub mod state;

pub(super) use ask::mended;

use super::board::Board;
use super::door::Door;
use super::lease::Hold;
use super::trouble::Trouble;
use crate::config;
use crate::hubspot::Client;
use crate::mapping::Mirrored;
use crate::postgres::connect::Pool;
use crate::postgres::{self, mirror, runs};
use crate::sync::mirror::{Due, Horizon, Periods, Pulled, Standing, due};
use crate::sync::report::chain;
use request::{Extent, Pulls, Reason};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// How often the clock is looked at.
const CLOCK: Duration = Duration::from_secs(1);
/// How often who does not pull looks where the one that does has come.
const GLANCE: Duration = Duration::from_secs(10);
/// How long after a pull that was cut short the clock asks for the next one; and how long after all that is not confirmed
/// was written down it is looked for again, which reads the whole table.
const AGAIN: Duration = Duration::from_secs(60);
/// How many records are written down as not confirmed in one statement.
const AGED: i64 = 2_000;

/// Runs the pulls.
pub(super) struct Puller {
    /// The door, once both ends are known.
    pub(super) door: Arc<OnceLock<Arc<Door>>>,
    /// Worker connections.
    pub(super) pool: Arc<Pool>,
    /// HubSpot.
    pub(super) client: Arc<Client>,
    /// Who asked.
    pub(super) pulls: Arc<Pulls>,
    /// Where progress is reported.
    pub(super) board: Arc<Board>,
    /// This daemon's hold on the lease.
    pub(super) lease: Arc<Hold>,
    /// The end of the term.
    pub(super) stop: CancellationToken,
    /// The end of the daemon.
    pub(super) end: CancellationToken,
    /// What is mirrored, and how often.
    pub(super) config: config::Mirror,
    /// For each kind, that its passes are cut.
    pub(super) troubles: [Trouble; 3],
    /// That it cannot be read where the kinds stand.
    pub(super) unread: Trouble,
    /// How long nothing could be had before a pull is cut short.
    pub(super) give_up: Duration,
    /// What is known of HubSpot's time, by kind.
    pub(super) horizons: Mutex<HashMap<Mirrored, Horizon>>,
    /// What the times of `horizons` count from.
    pub(super) epoch: Instant,
}

/// What the loop remembers from turn to turn.
#[derive(Default)]
struct Memory {
    /// How far the database's clock is ahead of ours, microseconds, once the standings were read.
    ahead: Option<i64>,
    /// The clock asked for a pull before.
    started: bool,
    /// When a kind may be written down as not confirmed again.
    aged: HashMap<Mirrored, Instant>,
    /// When the standings were read last by one that does not pull.
    glanced: Option<Instant>,
}

impl Puller {
    /// Pulls until the term ends; a pull that runs then goes on in the next one.
    pub(super) async fn run(&self) {
        let mut clock = tokio::time::interval(CLOCK);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut memory = Memory::default();
        self.pulls.rest_until(None);
        while !self.stop.is_cancelled() {
            self.board.tick("mirror");
            tokio::select! {
                () = self.stop.cancelled() => break,
                () = self.pulls.asked() => {}
                _ = clock.tick() => {}
            }
            if self.door.get().is_none() || !self.lease.may_push() {
                // Another daemon may write meanwhile.
                let glanced = memory.glanced.filter(|at| at.elapsed() < GLANCE);
                memory = Memory {
                    glanced,
                    ..Memory::default()
                };
                if glanced.is_none() {
                    memory.glanced = Some(Instant::now());
                    self.alive(self.glance()).await;
                }
                self.pulls.rest_until(None);
                continue;
            }
            if memory.ahead.is_none() {
                memory.ahead = self.remember().await;
            }
            let Some(ahead) = memory.ahead else { continue };
            let now = micros().saturating_add(ahead);
            self.age(now, &mut memory).await;
            // While sweep and mirror may send nothing for hours, every pass would be cut at once.
            let withheld = self.client.pace().withheld().is_some();
            if !withheld && !self.pulls.rests() {
                self.ask_for_due(now, &mut memory);
            }
            if let Some(asked) = self.pulls.take() {
                self.alive(Box::pin(self.pull(asked))).await;
            }
        }
        self.board.rest("mirror");
    }

    /// Waits for something that takes long, and shows meanwhile that the loop lives.
    async fn alive<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            self.board.tick("mirror");
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(CLOCK) => {}
            }
        }
    }

    /// Reads where the kinds stand; answers how far the database's clock is ahead of ours.
    async fn remember(&self) -> Option<i64> {
        let read = async {
            let session = self.pool.get().await?;
            let stale_after = i64::try_from(self.config.stale_after.as_micros()).unwrap_or(i64::MAX);
            mirror::configure(&session, stale_after).await?;
            let last = runs::last(&session, "mirror", None).await?;
            Ok::<_, postgres::Error>((mirror::standings(&session).await?, last))
        };
        match read.await {
            Ok(((standings, now), last)) => {
                if let Some(past) = self.unread.succeeded() {
                    info!("where the mirror stands can be read again, {past}");
                }
                for standing in standings {
                    self.show(standing);
                }
                self.board
                    .with_mirror(|mirror| mirror.last = mirror.last.take().or(last));
                Some(now.saturating_sub(micros()))
            }
            Err(error) => {
                if let Some(still) = self.unread.failed() {
                    warn!(
                        "{still}where the mirror stands cannot be read now: {}",
                        mended(&error)
                    );
                }
                None
            }
        }
    }

    /// Shows where the kinds stand by the table, which another daemon may write.
    async fn glance(&self) {
        let read = async {
            let session = self.pool.get().await?;
            mirror::standings(&session).await
        };
        let read = tokio::select! {
            read = read => read,
            () = self.stop.cancelled() => return,
        };
        match read {
            Ok((standings, _)) => standings.into_iter().for_each(|standing| self.show(standing)),
            Err(error) => debug!("where the mirror stands cannot be read now: {}", chain(&error)),
        }
    }

    /// Shows where a kind stands.
    fn show(&self, standing: Standing) {
        self.board.with_mirror(|mirror| {
            let kind = standing.kind;
            mirror.known = true;
            if let Some(shown) = mirror.kinds.iter_mut().find(|shown| shown.kind == kind) {
                *shown = standing;
            }
        });
    }

    /// Where the mirrored kinds stand.
    fn standings(&self) -> Vec<Standing> {
        let state = self.board.state().mirror;
        state.map(|mirror| mirror.kinds).unwrap_or_default()
    }

    fn periods(&self) -> Periods {
        let micros = |period: Duration| i64::try_from(period.as_micros()).unwrap_or(i64::MAX);
        Periods {
            every: micros(self.config.every),
            full_every: micros(self.config.full_every),
        }
    }

    fn ask_for_due(&self, now: i64, memory: &mut Memory) {
        let mut wanted = Vec::new();
        let mut next: Option<i64> = None;
        for standing in self.standings() {
            match due(now, &standing, self.periods()) {
                Due::Full => wanted.push((standing.kind, Extent::Full)),
                Due::Incremental => wanted.push((standing.kind, Extent::Incremental)),
                Due::At(at) => next = Some(next.map_or(at, |next| next.min(at))),
            }
        }
        let first = !std::mem::replace(&mut memory.started, true);
        self.board.with_mirror(|mirror| mirror.next_at = next);
        if !wanted.is_empty() {
            let reason = if first { Reason::Start } else { Reason::Clock };
            self.pulls.ask(reason, &wanted);
        }
    }

    /// Writes down what no pass has confirmed for too long, a little at a time.
    async fn age(&self, now: i64, memory: &mut Memory) {
        let stale_after = i64::try_from(self.config.stale_after.as_micros()).unwrap_or(i64::MAX);
        let Some(generation) = self.lease.pushing() else {
            return;
        };
        for standing in self.standings() {
            let kind = standing.kind;
            let waits = memory
                .aged
                .get(&kind)
                .is_some_and(|until| *until > Instant::now());
            if waits || standing.synced == 0 || !standing.is_stale(now, stale_after) {
                continue;
            }
            let aged = async {
                let session = self.pool.get().await?;
                mirror::age(&session, generation, kind, AGED).await
            };
            match aged.await {
                Ok((count, standing)) => {
                    self.show(standing);
                    if count < AGED {
                        memory.aged.insert(kind, Instant::now() + AGAIN);
                    }
                }
                Err(error) => {
                    memory.aged.insert(kind, Instant::now() + AGAIN);
                    warn!(
                        kind = kind.name(),
                        "what is not confirmed cannot be written down now: {}",
                        mended(&error)
                    );
                }
            }
        }
    }

    fn horizon<T>(&self, kind: Mirrored, use_it: impl FnOnce(&mut Horizon, i64) -> T) -> T {
        let now = i64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(i64::MAX);
        let mut horizons = self.horizons.lock().unwrap_or_else(PoisonError::into_inner);
        use_it(horizons.entry(kind).or_default(), now)
    }
}

/// There is no mirror any more: whoever waits for a pull is told.
pub(super) fn none(pulls: &Pulls) {
    while let Some(asked) = pulls.take() {
        let why = "[mirror] was taken out of the configuration".to_owned();
        pulls.ended(Pulled {
            id: asked.id,
            tallies: Vec::new(),
            errors: asked.kinds.iter().map(|(kind, _)| (*kind, why.clone())).collect(),
            started_at: micros(),
            finished_at: micros(),
        });
    }
}

/// Microseconds since the Unix epoch.
fn micros() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_micros()).unwrap_or(i64::MAX)
}
