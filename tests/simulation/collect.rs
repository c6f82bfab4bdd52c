//! The collecting loop, as `src/daemon/collect.rs` has it, without its control session: it looks when the doorbell
//! rings, when something is freed or named, and at every safety poll.

use super::store::Simulated;
use hubsyncd::daemon::door::{Batch, Door, Tally};
use hubsyncd::hubspot::Lane;
use hubsyncd::mapping::Mapping;
use hubsyncd::sync::change::Change;
use hubsyncd::sync::watermark::{Horizon, Mark};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often it is looked whether a sweep is wanted, or the database is back.
pub const POLL: Duration = Duration::from_millis(250);
/// The safety poll's period: the longest time between two looks.
const SAFETY: Duration = Duration::from_secs(1);

/// Looks, hands out, waits.
pub struct Collect {
    pub store: Arc<Simulated>,
    pub door: Arc<Door>,
    looker: Looker,
    pushes: JoinSet<Tally>,
    probes: JoinSet<()>,
    turn: usize,
}

impl Collect {
    pub fn new(store: &Arc<Simulated>, door: &Arc<Door>) -> Collect {
        Collect {
            store: Arc::clone(store),
            looker: Looker::new(&door.mapping),
            door: Arc::clone(door),
            pushes: JoinSet::new(),
            probes: JoinSet::new(),
            turn: 0,
        }
    }

    /// Collects until it is dropped, or the daemon stops and all that was under way is recorded; dropped, pushes under
    /// way go on.
    pub async fn run(&mut self, stop: &CancellationToken) {
        self.looker = Looker::new(&self.door.mapping);
        self.door.desk.backlog().forget_waiting();
        let mut safety_at = Instant::now() + SAFETY;
        while !stop.is_cancelled() {
            let world = Arc::clone(&self.store.world);
            let bell = world.bell.notified();
            if safety_at <= Instant::now() {
                safety_at = Instant::now() + SAFETY;
                self.probe();
                self.door.name_doubts().await;
                // What cannot be named now is named by the next poll.
                let _ = self.door.store.name_due().await;
            }
            self.look().await;
            self.dispatch(stop);
            let now = self.door.desk.now();
            let next = if self.pushes.len() < 8 {
                self.door.desk.backlog().next_ready(self.door.max_records, now)
            } else {
                None
            };
            let next = next.map_or(safety_at, |at| self.door.desk.instant(at).min(safety_at));
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                Some(joined) = self.pushes.join_next() => {
                    let tally = joined.expect("a push neither panics nor is cancelled");
                    let Tally { created, updated, failed, archived, .. } = tally;
                    world.trace(format_args!("pushed: {created} created, {updated} updated, {failed} failed, {archived} archived"));
                }
                () = self.door.desk.freed() => {}
                () = bell => {}
                () = tokio::time::sleep_until(next) => {}
            }
        }
        self.end().await;
        while !self.door.desk.backlog().idle() {
            self.door.desk.freed().await;
        }
    }

    /// Waits for the pushes under way.
    pub async fn end(&mut self) {
        while self.pushes.join_next().await.is_some() {}
    }

    /// Asks HubSpot whether it takes the token again, or answers again.
    fn probe(&mut self) {
        let pace = &self.door.pace;
        while self.probes.try_join_next().is_some() {}
        if !self.probes.is_empty() || (pace.halted().is_none() && pace.silent_for().is_none()) {
            return;
        }
        let door = Arc::clone(&self.door);
        self.probes.spawn(async move {
            let halted = door.pace.halted().is_some();
            if door.client.account(door.pace.probe()).await.is_ok() && halted {
                door.pace.resume();
            }
        });
    }

    async fn look(&mut self) {
        let (number, room) = {
            let mut backlog = self.door.desk.backlog();
            (backlog.look_begins(), backlog.room())
        };
        let changes = self.looker.look(&self.store, &room).await;
        let mut backlog = self.door.desk.backlog();
        backlog.admit(number, changes, self.door.desk.now());
    }

    fn dispatch(&mut self, stop: &CancellationToken) {
        let now = self.door.desk.now();
        let count = self.door.objects.len();
        let mut idle = 0;
        while idle < count && self.pushes.len() < 8 {
            let object = self.turn % count;
            self.turn = (self.turn + 1) % count;
            let claimed = self.door.desk.backlog().take(object, self.door.max_records, now);
            if claimed.is_empty() {
                idle += 1;
                continue;
            }
            idle = 0;
            let keys: Vec<&str> = claimed.iter().map(|claimed| &*claimed.key).collect();
            self.store.world.trace(format_args!("push {object}: {keys:?}"));
            let (door, stop) = (Arc::clone(&self.door), stop.clone());
            self.pushes.spawn(async move {
                door.push(Batch {
                    object,
                    lane: Lane::Change,
                    claimed,
                    ahead: None,
                    gained: HashSet::new(),
                    stop,
                })
                .await
            });
        }
    }
}

/// The look at the change table, as `src/postgres/changes.rs` has it, with the real marks.
struct Looker {
    marks: Vec<Mark>,
}

impl Looker {
    fn new(mapping: &Mapping) -> Looker {
        Looker {
            marks: vec![Mark::default(); mapping.objects.len()],
        }
    }

    async fn look(&mut self, store: &Simulated, room: &[usize]) -> Vec<Change> {
        let last_seq = store.world.model().last_seq;
        let looked = store.trip("look", |model, _| {
            let horizon = Horizon {
                last_seq,
                next_xid: model.next_xid,
                xmin: model.running.first().copied().unwrap_or(model.next_xid),
            };
            let of_object = |(object, mark): (usize, &Mark)| {
                let above = model.changes.range(mark.floor() + 1..);
                let mine = above.filter(|(_, change)| change.object == object);
                let limit = mark.above().saturating_add(room[object]);
                mine.map(|(_, change)| change.clone()).take(limit + 1).collect()
            };
            let seen: Vec<Vec<Change>> = self.marks.iter().enumerate().map(of_object).collect();
            (horizon, seen)
        });
        let Ok((horizon, mut seen)) = looked.await else {
            self.marks.fill(Mark::default());
            return Vec::new();
        };
        for (object, (mark, changes)) in self.marks.iter_mut().zip(&mut seen).enumerate() {
            let limit = mark.above().saturating_add(room[object]);
            let more = changes.len() > limit;
            changes.truncate(limit);
            let seqs: Vec<i64> = changes.iter().map(|change| change.seq).collect();
            mark.looked(horizon, &seqs, more);
        }
        seen.into_iter().flatten().collect()
    }
}
