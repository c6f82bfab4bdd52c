//! What waits of one object: its named rows in the order of their changes, and its claims.

use super::Claimed;
use crate::sync::change::{Key, ObjectIndex};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

/// A row that waits.
#[derive(Debug, Clone)]
pub(super) struct Named {
    pub(super) seqs: Vec<i64>,
    pub(super) full: bool,
    pub(super) orphans: BTreeSet<String>,
    pub(super) inserted: bool,
    pub(super) deleted: bool,
    pub(super) attempts: u32,
    pub(super) captured_at: i64,
    pub(super) arrived: Duration,
    pub(super) not_before: Duration,
}

/// A row that is claimed.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    /// When its oldest change was first seen, if it is on a first attempt to be created.
    pub(super) fresh: Option<Duration>,
    /// When its oldest change was first seen, if a change named it.
    pub(super) arrived: Option<Duration>,
    /// The match-on values it holds.
    pub(super) matches: Vec<String>,
}

/// What waits of one object.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub(super) keys: HashMap<Key, Named>,
    /// (first seq, key) of every waiting key, so that batches go out in the order of the changes.
    pub(super) order: BTreeSet<(i64, Key)>,
    /// Claimed keys.
    pub(super) claimed: HashMap<Key, InFlight>,
    /// (arrival, key) of waiting keys that are on a first attempt to be created.
    pub(super) fresh: BTreeSet<(Duration, Key)>,
    /// Changes that want a sweep of the object.
    pub(super) sweeps: Vec<i64>,
    /// Seqs held, waiting or claimed.
    pub(super) held: HashSet<i64>,
    /// Seqs let go since the look with this number started; a look that began earlier may still return them.
    pub(super) gone: HashMap<i64, u64>,
    /// Match-on values claimed, with the row that holds each, also of objects alike.
    pub(super) matches: HashMap<String, (ObjectIndex, Key)>,
    /// Keys released since the tick; only kept while a sweep's page is outstanding.
    pub(super) released: HashMap<Key, u64>,
    /// While the object is paused: when one row is tried next.
    pub(super) trial: Option<Duration>,
    /// Whether no row can be tried: what is tried is whether HubSpot says more of the object.
    pub(super) closed: bool,
}

impl Waiting {
    /// Adds to what waits for `key`.
    pub(super) fn name(&mut self, key: Key, mut named: Named) {
        if let Some(old) = self.keys.remove(&key) {
            self.unorder(&key, &old);
            named.seqs.extend(old.seqs);
            named.full |= old.full;
            named.orphans.extend(old.orphans);
            named.inserted |= old.inserted;
            named.deleted |= old.deleted;
            named.attempts = named.attempts.max(old.attempts);
            named.captured_at = named.captured_at.min(old.captured_at);
            named.arrived = named.arrived.min(old.arrived);
            named.not_before = named.not_before.max(old.not_before);
        }
        let first = named.first();
        self.order.insert((first, key.clone()));
        if named.full && named.attempts == 0 {
            self.fresh.insert((named.arrived, key.clone()));
        }
        self.keys.insert(key, named);
    }

    pub(super) fn unorder(&mut self, key: &Key, named: &Named) {
        self.order.remove(&(named.first(), key.clone()));
        self.fresh.remove(&(named.arrived, key.clone()));
    }

    /// When the first of the rows that are on a first attempt to be created arrived.
    pub(super) fn first_fresh(&self) -> Option<Duration> {
        let waiting = self.fresh.first().map(|(arrived, _)| *arrived);
        let claimed = self.claimed.values().filter_map(|in_flight| in_flight.fresh);
        waiting.into_iter().chain(claimed).min()
    }

    /// Moves a waiting key to the claimed ones.
    pub(super) fn claim(&mut self, key: Key) -> Claimed {
        let named = self.keys.remove(&key).expect("a ready key waits");
        self.unorder(&key, &named);
        let fresh = (named.full && named.attempts == 0).then_some(named.arrived);
        self.claimed.insert(
            key.clone(),
            InFlight {
                fresh,
                arrived: Some(named.arrived),
                matches: Vec::new(),
            },
        );
        Claimed {
            key,
            seqs: named.seqs,
            full: named.full,
            orphans: named.orphans,
            inserted: named.inserted && !named.deleted,
            attempts: named.attempts,
            captured_at: named.captured_at,
            arrived: named.arrived,
        }
    }
}

impl Named {
    /// Whether it waits for new records, the first of which arrived at `barrier`, or, being a deleted row whose HubSpot
    /// record may belong to a new one by now, for those of its own object, the first of which arrived at `newborn`.
    pub(super) fn waits_behind(&self, barrier: Option<Duration>, newborn: Option<Duration>) -> bool {
        let behind = |first: Option<Duration>| first.is_some_and(|first| first <= self.arrived);
        behind(barrier) || (!self.orphans.is_empty() && !self.full && behind(newborn))
    }

    pub(super) fn first(&self) -> i64 {
        self.seqs.iter().copied().min().expect("a named row has a change")
    }
}
