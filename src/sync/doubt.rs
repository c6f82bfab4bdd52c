//! Doubt: rows of which an older request may land after the one that HubSpot confirmed.
//!
//! A request that timed out or broke may still be carried out, for as long as `settle` after its start. Its row is
//! pushed again at once, and once more when the old request can land no more: then what was sent last wins. Until a
//! push is confirmed the doubt is remembered here; then it is written down with the receipt, as [`Due`].
//!
//! The row may be gone by then, and another one hold its record, or be made one under its natural key: so what such a
//! request may write to is remembered too, until it can land no more, and whoever writes to it is owed the same.
//!
//! Times are durations since an epoch that the caller chooses.

use super::change::{Key, ObjectIndex};
use std::collections::HashMap;
use std::hash::Hash;
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
    rows: Noted<Key>,
    /// By what the caller calls a record: its id, or the natural key it was to be made under.
    records: Noted<String>,
}

/// Doubts by what they concern.
#[derive(Debug)]
struct Noted<T> {
    doubts: HashMap<(ObjectIndex, T), Doubt>,
    /// How many there may be before the forgotten ones are looked for.
    many: usize,
}

impl<T: Hash + Eq> Noted<T> {
    fn new() -> Noted<T> {
        Noted {
            doubts: HashMap::new(),
            many: 1024,
        }
    }

    fn note(&mut self, object: ObjectIndex, what: T, new: Doubt, settle: Duration) {
        if self.doubts.len() >= self.many {
            self.doubts
                .retain(|_, doubt| doubt.started + settle + FORGOTTEN > new.started);
            self.many = 1024.max(2 * self.doubts.len());
        }
        let doubt = self.doubts.entry((object, what)).or_insert(new);
        doubt.started = doubt.started.max(new.started);
        doubt.full |= new.full;
    }
}

impl Doubt {
    fn owed(self, settle: Duration, begun: Duration, now: Duration) -> Option<Due> {
        let over = self.started + settle;
        (begun < over).then(|| Due {
            within: over.saturating_sub(now),
            full: self.full,
            update_only: false,
        })
    }
}

impl Doubts {
    /// No doubts, where a request can land until `settle` after its start.
    pub fn new(settle: Duration) -> Doubts {
        Doubts {
            settle,
            rows: Noted::new(),
            records: Noted::new(),
        }
    }

    /// The outcome of a request for a row is not known; it was started at `started` and carried create-only
    /// properties if it was `full`.
    pub fn note(&mut self, object: ObjectIndex, key: &Key, started: Duration, full: bool) {
        let doubt = Doubt { started, full };
        self.rows.note(object, Key::clone(key), doubt, self.settle);
    }

    /// The same request may have written to this record, or made it: [`Doubts::owed_record`]. Of objects whose records are
    /// of one type, `object` is always the same one.
    pub fn note_record(&mut self, object: ObjectIndex, record: &str, started: Duration, full: bool) {
        let doubt = Doubt { started, full };
        self.records.note(object, record.to_owned(), doubt, self.settle);
    }

    /// What is owed to a row when a push that was begun at `begun` is confirmed at `now`.
    pub fn owed(&self, object: ObjectIndex, key: &Key, begun: Duration, now: Duration) -> Option<Due> {
        if self.rows.doubts.is_empty() {
            return None;
        }
        let doubt = self.rows.doubts.get(&(object, Key::clone(key)))?;
        doubt.owed(self.settle, begun, now)
    }

    /// Whether anything may be owed to whoever writes to some record: it need not be asked for each.
    pub fn concern_records(&self) -> bool {
        !self.records.doubts.is_empty()
    }

    /// What is owed to whatever row wrote to this record by a push that was begun at `begun` and is confirmed at `now`.
    pub fn owed_record(
        &self,
        object: ObjectIndex,
        record: &str,
        begun: Duration,
        now: Duration,
    ) -> Option<Due> {
        let doubt = self.records.doubts.get(&(object, record.to_owned()))?;
        doubt.owed(self.settle, begun, now)
    }

    /// What is owed to the row is written down.
    pub fn forget(&mut self, object: ObjectIndex, key: &Key) {
        if !self.rows.doubts.is_empty() {
            self.rows.doubts.remove(&(object, Key::clone(key)));
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
    fn whoever_writes_to_a_record_in_doubt_is_owed_until_nothing_can_land_there_any_more() {
        let (old, new) = (Key::from("old"), "7");
        let mut doubts = Doubts::new(ms(SETTLE));
        doubts.note(0, &old, ms(10), false);
        doubts.note_record(0, new, ms(10), true);
        doubts.forget(0, &old);
        let due = Due {
            within: ms(60),
            full: true,
            update_only: false,
        };
        assert_eq!(doubts.owed_record(0, new, ms(40), ms(50)), Some(due));
        assert_eq!(doubts.owed_record(0, new, ms(110), ms(120)), None);
        assert_eq!(doubts.owed_record(1, new, ms(40), ms(50)), None);
    }

    #[test]
    fn what_nobody_can_be_waiting_for_is_forgotten() {
        let mut doubts = Doubts::new(ms(SETTLE));
        for number in 0..100_000_u64 {
            let key = Key::from(number.to_string());
            doubts.note(0, &key, Duration::from_secs(number), false);
            doubts.note_record(0, &key, Duration::from_secs(number), false);
        }
        let (rows, records) = (doubts.rows.doubts.len(), doubts.records.doubts.len());
        assert!(rows < 10_000 && records < 10_000, "{rows} {records}");
    }
}
