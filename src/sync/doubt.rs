//! Doubt: rows of which an older request may land after the one that HubSpot confirmed.
//!
//! A request that timed out or broke may still be carried out, for as long as `settle` after its start. Its row is
//! pushed again at once, and once more when the old request can land no more: then what was sent last wins. Until a
//! push is confirmed the doubt is remembered here; then it is written down with the receipt, as [`Due`].
//!
//! Times are durations since an epoch that the caller chooses.

use super::change::{Key, ObjectIndex};
use std::collections::HashMap;
use std::time::Duration;

/// Longer than a push that was begun within the settle time can take to be confirmed (a time-out is 10 minutes at
/// most): a doubt so much older than that concerns nobody.
const FORGOTTEN: Duration = Duration::from_secs(3600);

/// That a row is to be pushed once more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Due {
    /// From now, when no older request can land any more.
    pub within: Duration,
    /// Whether create-only properties go along then, because an older request may carry old ones.
    pub full: bool,
    /// Whether, until then, only update properties are to be sent whatever names the row: it took a record over.
    pub update_only: bool,
}

impl Due {
    /// Both: the later time, and all that either sends.
    #[must_use]
    pub fn and(self, other: Due) -> Due {
        Due {
            within: self.within.max(other.within),
            full: self.full || other.full,
            update_only: self.update_only || other.update_only,
        }
    }
}

/// The requests of a row whose outcome is not known.
#[derive(Debug, Clone, Copy)]
struct Doubt {
    /// When the last of them was started.
    started: Duration,
    /// Whether one of them carried create-only properties.
    full: bool,
}

/// The rows in doubt.
#[derive(Debug)]
pub struct Doubts {
    settle: Duration,
    rows: HashMap<(ObjectIndex, Key), Doubt>,
    /// How many rows there may be before the forgotten ones are looked for.
    many: usize,
}

impl Doubts {
    /// No doubts, where a request can land until `settle` after its start.
    pub fn new(settle: Duration) -> Doubts {
        Doubts {
            settle,
            rows: HashMap::new(),
            many: 1024,
        }
    }

    /// The outcome of a request for a row is not known; it was started at `started` and carried create-only
    /// properties if it was `full`.
    pub fn note(&mut self, object: ObjectIndex, key: &Key, started: Duration, full: bool) {
        if self.rows.len() >= self.many {
            let settle = self.settle;
            self.rows
                .retain(|_, doubt| doubt.started + settle + FORGOTTEN > started);
            self.many = 1024.max(2 * self.rows.len());
        }
        let new = Doubt { started, full };
        let doubt = self.rows.entry((object, Key::clone(key))).or_insert(new);
        doubt.started = doubt.started.max(started);
        doubt.full |= full;
    }

    /// What is owed to a row when a push that was begun at `begun` is confirmed at `now`.
    pub fn owed(&self, object: ObjectIndex, key: &Key, begun: Duration, now: Duration) -> Option<Due> {
        if self.rows.is_empty() {
            return None;
        }
        let doubt = self.rows.get(&(object, Key::clone(key)))?;
        let over = doubt.started + self.settle;
        (begun < over).then(|| Due {
            within: over.saturating_sub(now),
            full: doubt.full,
            update_only: false,
        })
    }

    /// What is owed to the row is written down.
    pub fn forget(&mut self, object: ObjectIndex, key: &Key) {
        if !self.rows.is_empty() {
            self.rows.remove(&(object, Key::clone(key)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SETTLE: u64 = 100;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// One request of a row: how long after the last it is begun, whether it is answered, how long it takes until it
    /// is carried out, and how long until its answer comes.
    #[derive(Debug, Clone)]
    struct Sent {
        pause: u64,
        answered: bool,
        lands: u64,
        full: bool,
    }

    fn sent() -> impl Strategy<Value = Sent> {
        (1..150u64, any::<bool>(), 0..SETTLE, any::<bool>()).prop_map(|(pause, answered, lands, full)| Sent {
            pause,
            answered,
            lands: if answered { lands / 20 } else { lands },
            full,
        })
    }

    proptest! {
        #[test]
        fn after_the_push_that_is_due_the_newest_version_stands(requests in prop::collection::vec(sent(), 1..12)) {
            let key = Key::from("1");
            let mut doubts = Doubts::new(ms(SETTLE));
            let mut now = 0;
            let mut landed: Vec<(u64, usize, bool)> = Vec::new();
            let mut due: Option<(Duration, bool)> = None;
            for (version, request) in requests.iter().enumerate() {
                now += request.pause;
                let begun = now;
                landed.push((begun + request.lands, version, request.full));
                if !request.answered {
                    doubts.note(0, &key, ms(begun), request.full);
                    // The time-out is shorter than the settle time.
                    now += SETTLE / 4;
                    continue;
                }
                now += request.lands;
                // A confirmed push begun after the time that was due clears it.
                due = due.filter(|(at, _)| ms(begun) < *at);
                if let Some(owed) = doubts.owed(0, &key, ms(begun), ms(now)) {
                    let old = due.unwrap_or_default();
                    due = Some(((ms(now) + owed.within).max(old.0), owed.full || old.1));
                }
                doubts.forget(0, &key);
            }
            // The last request is answered: the row is pushed until it is.
            let begun = now + 1;
            let last = requests.len();
            landed.push((begun, last, false));
            due = due.filter(|(at, _)| ms(begun) < *at);
            if let Some(owed) = doubts.owed(0, &key, ms(begun), ms(begun)) {
                let old = due.unwrap_or_default();
                due = Some(((ms(begun) + owed.within).max(old.0), owed.full || old.1));
            }
            let stale = landed.iter().any(|(at, version, _)| *at > begun && *version < last);
            let stale_full = landed.iter().any(|(at, version, full)| *at > begun && *version < last && *full);
            if let Some((at, full)) = due {
                // Carried out when it is due, after everything else.
                prop_assert!(landed.iter().all(|(landed, ..)| ms(*landed) <= at || *landed <= begun));
                prop_assert!(full || !stale_full, "an old create-only value stands");
            } else {
                prop_assert!(!stale, "an older request landed last and nobody puts it right");
            }
        }
    }

    #[test]
    fn what_nobody_can_be_waiting_for_is_forgotten() {
        let mut doubts = Doubts::new(ms(SETTLE));
        for number in 0..100_000_u64 {
            let key = Key::from(number.to_string());
            doubts.note(0, &key, Duration::from_secs(number), false);
        }
        assert!(doubts.rows.len() < 10_000, "{}", doubts.rows.len());
    }
}
