//! What waits, as operators are shown it.

use super::waiting::Named;
use super::{Backlog, ORDER_WAIT};
use crate::sync::change::{Key, ObjectIndex};
use std::time::Duration;

/// A row that a change named, and what it waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The object.
    pub object: ObjectIndex,
    /// The row.
    pub key: Key,
    /// When its oldest change was first seen; `None`: a sweep brought it.
    pub arrived: Option<Duration>,
    /// How often it was pushed before without an answer.
    pub attempts: u32,
    /// What it waits for.
    pub stage: Stage,
}

/// What a row waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It is on its way: claimed, until its receipt.
    Claimed,
    /// It goes out as soon as HubSpot's rate allows, at the latest when its batch no longer waits for company.
    Ready,
    /// For new records that it may link to.
    Order,
    /// For another attempt, at this time.
    BackOff(Duration),
    /// Its object is paused.
    Paused,
}

impl Backlog {
    /// At most `limit` rows of each object: those on their way first, then those that wait, the oldest change first.
    pub fn shown(&self, limit: usize, now: Duration) -> Vec<Shown> {
        let objects = 0..self.objects.len();
        objects
            .flat_map(|object| self.shown_of(object, limit, now))
            .collect()
    }

    fn shown_of(&self, object: ObjectIndex, limit: usize, now: Duration) -> Vec<Shown> {
        let rows = &self.objects[object];
        let (barrier, newborn) = (self.barrier(object), rows.first_fresh());
        let claimed = rows.claimed.iter().map(|(key, in_flight)| Shown {
            object,
            key: Key::clone(key),
            arrived: in_flight.arrived,
            attempts: 0,
            stage: Stage::Claimed,
        });
        let stage = |named: &Named| {
            if self.is_paused(object) {
                Stage::Paused
            } else if named.not_before > now {
                Stage::BackOff(named.not_before)
            } else if named.waits_behind(barrier, newborn) && named.arrived + ORDER_WAIT > now {
                Stage::Order
            } else {
                Stage::Ready
            }
        };
        let waiting = rows.order.iter().map(|(_, key)| {
            let named = &rows.keys[key];
            Shown {
                object,
                key: Key::clone(key),
                arrived: Some(named.arrived),
                attempts: named.attempts,
                stage: stage(named),
            }
        });
        claimed.chain(waiting).take(limit).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::backlog::Release;
    use crate::sync::change::{Change, Op};

    const MAX_DELAY: Duration = Duration::from_millis(250);

    fn change(object: ObjectIndex, seq: i64, op: Op) -> Change {
        Change {
            object,
            seq,
            key: Some(format!("k{seq}").into()),
            op,
            hubspot_id: None,
            captured_at: 0,
        }
    }

    #[test]
    fn each_row_is_shown_with_what_it_waits_for() {
        // Object 1 links to object 0.
        let mut backlog = Backlog::new(vec![vec![], vec![0]], 100, MAX_DELAY);
        let look = backlog.look_begins();
        let changes = (1..=3).map(|seq| change(0, seq, Op::Update));
        backlog.admit(look, changes.collect(), Duration::ZERO);
        let now = MAX_DELAY;
        let mut taken = backlog.take(0, 2, now).into_iter();
        let later = Release::Again {
            not_before: now + Duration::from_secs(9),
            counts: true,
        };
        backlog.release(0, taken.next().expect("two were taken"), later);
        let new = vec![change(0, 4, Op::Insert), change(1, 5, Op::Update)];
        let look = backlog.look_begins();
        backlog.admit(look, new, now);
        let stages = |backlog: &Backlog, limit| -> Vec<(String, Stage)> {
            let shown = backlog.shown(limit, now);
            shown
                .into_iter()
                .map(|row| (row.key.to_string(), row.stage))
                .collect()
        };
        let told = |key: &str, stage| (key.to_owned(), stage);
        let again = Stage::BackOff(now + Duration::from_secs(9));
        assert_eq!(
            stages(&backlog, 9),
            [
                told("k2", Stage::Claimed),
                told("k1", again),
                told("k3", Stage::Ready),
                told("k4", Stage::Ready),
                told("k5", Stage::Order),
            ]
        );
        assert_eq!(
            stages(&backlog, 1),
            [told("k2", Stage::Claimed), told("k5", Stage::Order)]
        );
        assert_eq!(backlog.shown(9, now)[1].attempts, 1);
        backlog.pause(1, now);
        assert_eq!(stages(&backlog, 9)[4], told("k5", Stage::Paused));
    }
}
