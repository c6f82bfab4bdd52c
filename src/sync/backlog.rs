//! The backlog: which rows wait, which are claimed, and which may go out now.
//!
//! The change table is the queue; this holds the part of it that was seen. A key is claimed before its
//! row is read and released after its receipt, so that a row is never in two batches at once: a newer
//! change of a claimed key waits here and is read afterwards. A match-on value is claimed likewise, since
//! two rows may name one HubSpot record. Time is a [`Duration`] since an epoch that the caller chooses.

mod pages;
mod paused;
mod shown;
mod waiting;

use super::change::{Change, Key, ObjectIndex, Op};
pub use paused::TRIAL_EVERY;
pub use shown::{Shown, Stage};
use std::collections::BTreeSet;
use std::time::Duration;
use waiting::{Named, Waiting};

/// How long an object's batch waits for records it links to.
pub const ORDER_WAIT: Duration = Duration::from_secs(10);

/// A named row that was given out: its key is claimed until it is released.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The row.
    pub key: Key,
    /// The changes that named it; the receipt deletes exactly these.
    pub seqs: Vec<i64>,
    /// Whether create-only properties go along also where the row turns out to have a HubSpot id.
    pub full: bool,
    /// The HubSpot records that lost this row, as its changes say: they are to be archived unless a row holds them.
    pub orphans: BTreeSet<String>,
    /// Whether an insert is among its changes and no deletion, so that HubSpot cannot have a record of it yet.
    pub inserted: bool,
    /// How often it was pushed before without an answer.
    pub attempts: u32,
    /// When the oldest of its changes was captured, microseconds since the Unix epoch.
    pub captured_at: i64,
    /// When the oldest of its changes was first seen here.
    pub arrived: Duration,
}

/// What becomes of a claimed row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Release {
    /// Its changes are deleted (or it had none).
    Done,
    /// It keeps its changes and is pushed again, not before the given time.
    Again {
        /// The earliest time of the next attempt.
        not_before: Duration,
        /// Whether this attempt counts: one that only waited for another row does not.
        counts: bool,
    },
}

/// The rows that wait and the rows that are claimed, of every object.
#[derive(Debug)]
pub struct Backlog {
    objects: Vec<Waiting>,
    /// For each object, the objects whose new records its batches wait for.
    after: Vec<Vec<ObjectIndex>>,
    /// For each object, the one under which claims of match-on values are kept.
    alike: Vec<ObjectIndex>,
    /// Objects whose deleted rows leave their HubSpot records alone.
    kept: BTreeSet<ObjectIndex>,
    /// The most changes of one object held at a time.
    capacity: usize,
    max_delay: Duration,
    looks: u64,
    tick: u64,
    pages: BTreeSet<u64>,
    /// Pages read before this tick are outdated.
    outdated: u64,
}

impl Backlog {
    /// A backlog for `after.len()` objects. `after[i]` lists the objects that object `i` links to and that may
    /// be created; `capacity` is the most changes of one object held at a time.
    pub fn new(after: Vec<Vec<ObjectIndex>>, capacity: usize, max_delay: Duration) -> Backlog {
        let objects = after.iter().map(|_| Waiting::default()).collect();
        Backlog {
            objects,
            alike: (0..after.len()).collect(),
            after,
            kept: BTreeSet::new(),
            capacity,
            max_delay,
            looks: 0,
            tick: 0,
            pages: BTreeSet::new(),
            outdated: 0,
        }
    }

    /// The same, but what a deleted row of `object` was in HubSpot concerns nobody.
    pub fn keeping(mut self, object: ObjectIndex) -> Backlog {
        self.kept.insert(object);
        self
    }

    /// The same, but rows of objects that share an entry of `alike`, which is one of them, may name one HubSpot record.
    pub fn alike(mut self, alike: Vec<ObjectIndex>) -> Backlog {
        self.alike = alike;
        self
    }

    /// How many more changes of each object may be admitted.
    pub fn room(&self) -> Vec<usize> {
        self.objects
            .iter()
            .map(|object| self.capacity.saturating_sub(object.held.len()))
            .collect()
    }

    /// Notes that a look begins and answers its number, for [`Backlog::admit`].
    pub fn look_begins(&mut self) -> u64 {
        self.looks += 1;
        self.looks
    }

    /// Those of `changes` that are not held yet.
    pub fn news<'c>(&self, changes: &'c [Change]) -> impl Iterator<Item = &'c Change> {
        let held = |change: &Change| {
            let object = &self.objects[change.object];
            object.held.contains(&change.seq) || object.gone.contains_key(&change.seq)
        };
        changes.iter().filter(move |change| !held(change))
    }

    /// Takes in what a look saw; answers how many changes were new. Changes already held, and those let go
    /// while the look was under way, are passed over.
    pub fn admit(&mut self, look: u64, changes: Vec<Change>, now: Duration) -> usize {
        let mut new = 0;
        for change in changes {
            let kept = self.kept.contains(&change.object);
            let object = &mut self.objects[change.object];
            if object.gone.contains_key(&change.seq) || !object.held.insert(change.seq) {
                continue;
            }
            new += 1;
            match (change.key, change.op) {
                (Some(key), op) if !matches!(op, Op::Everything | Op::Truncate) => {
                    object.name(
                        key,
                        Named {
                            seqs: vec![change.seq],
                            full: op.sends_create_only(),
                            orphans: change.hubspot_id.filter(|_| !kept).into_iter().collect(),
                            inserted: op == Op::Insert,
                            deleted: op == Op::Delete,
                            attempts: 0,
                            captured_at: change.captured_at,
                            arrived: now,
                            not_before: Duration::ZERO,
                        },
                    );
                }
                _ => object.sweeps.push(change.seq),
            }
        }
        for object in &mut self.objects {
            object.gone.retain(|_, since| *since >= look);
        }
        new
    }

    /// Claims up to `max` rows of `object` that may go out now, oldest change first; none while the batch may still
    /// fill (younger than `max_delay` and fewer than `max`) or waits for records it links to.
    pub fn take(&mut self, object: ObjectIndex, max: usize, now: Duration) -> Vec<Claimed> {
        if let Some(at) = self.objects[object].trial {
            return self.take_trial(object, at, now);
        }
        let ready = self.ready(object, max, now);
        let full = ready.len() >= max;
        let due = |key: &Key| self.due(&self.objects[object].keys[key]) <= now;
        if !full && !ready.iter().any(due) {
            return Vec::new();
        }
        ready
            .into_iter()
            .map(|key| self.objects[object].claim(key))
            .collect()
    }

    /// The keys of `object` that may go out now, oldest change first, at most `max`.
    fn ready(&self, object: ObjectIndex, max: usize, now: Duration) -> Vec<Key> {
        let waiting = &self.objects[object];
        let (barrier, newborn) = (self.barrier(object), waiting.first_fresh());
        waiting
            .order
            .iter()
            .filter(|(_, key)| {
                let named = &waiting.keys[key];
                named.not_before <= now
                    && !waiting.claimed.contains_key(key)
                    && (!named.waits_behind(barrier, newborn) || named.arrived + ORDER_WAIT <= now)
            })
            .take(max)
            .map(|(_, key)| key.clone())
            .collect()
    }

    /// When the first of the new records arrived, on their first attempt, of the objects that `object` links to.
    ///
    /// Arrival, not seq: one look shows all of a transaction, in which the booking may stand before its contact.
    fn barrier(&self, object: ObjectIndex) -> Option<Duration> {
        let targets = self.after[object].iter();
        targets
            .filter(|target| !self.is_paused(**target))
            .filter_map(|target| self.objects[*target].first_fresh())
            .min()
    }

    /// When the next row may become ready by the passing of time alone; `now` if [`Backlog::take`] would give one out,
    /// `None` if nothing waits for time.
    pub fn next_ready(&self, max: usize, now: Duration) -> Option<Duration> {
        let nexts = (0..self.objects.len()).filter_map(|object| self.next_ready_of(object, max, now));
        nexts.min()
    }

    fn next_ready_of(&self, object: ObjectIndex, max: usize, now: Duration) -> Option<Duration> {
        if let Some(at) = self.objects[object].trial {
            return self.next_trial(object, at, now);
        }
        let ready = self.ready(object, max, now);
        let waiting = &self.objects[object];
        if ready.len() >= max || ready.iter().any(|key| self.due(&waiting.keys[key]) <= now) {
            return Some(now);
        }
        let (barrier, newborn) = (self.barrier(object), waiting.first_fresh());
        let unclaimed = waiting
            .keys
            .iter()
            .filter(|(key, _)| !waiting.claimed.contains_key(*key));
        let times = unclaimed.map(|(_, named)| {
            let at = named.not_before.max(self.due(named));
            if named.waits_behind(barrier, newborn) {
                at.max(named.arrived + ORDER_WAIT)
            } else {
                at
            }
        });
        times.min()
    }

    /// When a batch goes out for this row's sake though it is not full.
    fn due(&self, named: &Named) -> Duration {
        if named.attempts > 0 {
            Duration::ZERO
        } else {
            named.arrived + self.max_delay
        }
    }

    /// Claims the match-on values of rows of `object` whose keys are claimed; answers the keys whose value another
    /// row holds (in this batch or another, of this object or one alike). Those are to be released with [`Release::Again`].
    pub fn claim_matches(&mut self, object: ObjectIndex, values: &[(Key, String)]) -> Vec<Key> {
        let alike = self.alike[object];
        let mut refused = Vec::new();
        for (key, value) in values {
            match self.objects[alike].matches.get(value) {
                Some((of, holder)) if *of != object || holder != key => refused.push(key.clone()),
                Some(_) => {}
                None => {
                    let in_flight = self.objects[object].claimed.get_mut(key);
                    let in_flight = in_flight.expect("only a claimed row claims a match-on value");
                    in_flight.matches.push(value.clone());
                    let matches = &mut self.objects[alike].matches;
                    matches.insert(value.clone(), (object, key.clone()));
                }
            }
        }
        refused
    }

    /// Releases a claimed row.
    pub fn release(&mut self, object: ObjectIndex, claimed: Claimed, release: Release) {
        self.tick += 1;
        let (looks, tick, swept) = (self.looks + 1, self.tick, !self.pages.is_empty());
        let in_flight = self.objects[object].claimed.remove(&claimed.key);
        for value in in_flight.unwrap_or_default().matches {
            self.objects[self.alike[object]].matches.remove(&value);
        }
        let object = &mut self.objects[object];
        if swept {
            object.released.insert(claimed.key.clone(), tick);
        }
        match release {
            Release::Done => {
                for seq in claimed.seqs {
                    object.held.remove(&seq);
                    object.gone.insert(seq, looks);
                }
            }
            Release::Again { .. } if claimed.seqs.is_empty() => {}
            Release::Again { not_before, counts } => {
                let named = Named {
                    seqs: claimed.seqs,
                    full: claimed.full,
                    orphans: claimed.orphans,
                    inserted: claimed.inserted,
                    deleted: !claimed.inserted,
                    attempts: claimed.attempts + u32::from(counts),
                    captured_at: claimed.captured_at,
                    arrived: claimed.arrived,
                    not_before,
                };
                object.name(claimed.key, named);
            }
        }
    }

    /// Takes the changes that want a sweep of `object`; they are given back by [`Backlog::sweep_done`] or
    /// [`Backlog::sweep_again`].
    pub fn take_sweep(&mut self, object: ObjectIndex) -> Vec<i64> {
        std::mem::take(&mut self.objects[object].sweeps)
    }

    /// Whether changes that want a sweep of `object` wait.
    pub fn wants_sweep(&self, object: ObjectIndex) -> bool {
        !self.objects[object].sweeps.is_empty()
    }

    /// The changes that wanted a sweep are deleted.
    pub fn sweep_done(&mut self, object: ObjectIndex, seqs: Vec<i64>) {
        let looks = self.looks + 1;
        let object = &mut self.objects[object];
        for seq in seqs {
            object.held.remove(&seq);
            object.gone.insert(seq, looks);
        }
    }

    /// The sweep that these changes wanted did not complete; they wait again.
    pub fn sweep_again(&mut self, object: ObjectIndex, seqs: Vec<i64>) {
        self.objects[object].sweeps.extend(seqs);
    }

    /// How many changes of `object` are held, waiting or claimed.
    pub fn held(&self, object: ObjectIndex) -> usize {
        self.objects[object].held.len()
    }

    /// When the oldest change of `object` that is not yet pushed was first seen here.
    pub fn oldest(&self, object: ObjectIndex) -> Option<Duration> {
        let object = &self.objects[object];
        let waiting = object.keys.values().map(|named| named.arrived);
        let claimed = object.claimed.values().filter_map(|in_flight| in_flight.arrived);
        waiting.chain(claimed).min()
    }

    /// Whether nothing waits on a first attempt, save of paused objects, and nothing is claimed: what the start-up sweep
    /// waits for.
    pub fn first_attempts_done(&self) -> bool {
        let put_off =
            |object: &Waiting| object.trial.is_some() || object.keys.values().all(|named| named.attempts > 0);
        self.objects
            .iter()
            .all(|object| object.claimed.is_empty() && put_off(object))
    }

    /// Whether no row is claimed.
    pub fn idle(&self) -> bool {
        self.objects.iter().all(|object| object.claimed.is_empty())
    }

    /// The claimed keys of every object.
    pub fn claimed(&self) -> Vec<Vec<Key>> {
        let objects = self.objects.iter();
        objects
            .map(|object| object.claimed.keys().cloned().collect())
            .collect()
    }

    /// Forgets every waiting row; the changes stay in the table and are looked up anew. Claims stay.
    pub fn forget_waiting(&mut self) {
        for object in &mut self.objects {
            for named in object.keys.values() {
                for seq in &named.seqs {
                    object.held.remove(seq);
                }
            }
            for seq in object.sweeps.drain(..) {
                object.held.remove(&seq);
            }
            object.keys.clear();
            object.order.clear();
            object.fresh.clear();
        }
    }
}

#[cfg(test)]
#[path = "backlog_tests.rs"]
mod tests;
