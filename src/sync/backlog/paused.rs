//! Paused objects: their rows wait, and one of them is tried from time to time.

use super::{Backlog, Claimed};
use crate::sync::change::{Key, ObjectIndex};
use std::time::Duration;

/// How often one row of a paused object is tried.
pub const TRIAL_EVERY: Duration = Duration::from_secs(60);

impl Backlog {
    /// Pauses an object: from now on one row goes out at a time, the first after [`TRIAL_EVERY`].
    pub fn pause(&mut self, object: ObjectIndex, now: Duration) {
        self.objects[object].trial.get_or_insert(now + TRIAL_EVERY);
    }

    /// The same, but `object` is closed: paused, and not even one of its rows goes out.
    pub fn closing(mut self, object: ObjectIndex) -> Backlog {
        self.objects[object].closed = true;
        self.pause(object, Duration::ZERO);
        self
    }

    /// Whether HubSpot is to be asked for a closed object now; if so, it is next after [`TRIAL_EVERY`].
    pub fn is_asked_for(&mut self, object: ObjectIndex, now: Duration) -> bool {
        let object = &mut self.objects[object];
        let due = object.closed && object.trial.is_some_and(|at| at <= now);
        if due {
            object.trial = Some(now + TRIAL_EVERY);
        }
        due
    }

    /// Lets the next row of a paused object go out at once.
    pub fn try_now(&mut self, object: ObjectIndex) {
        if let Some(at) = &mut self.objects[object].trial {
            *at = Duration::ZERO;
        }
    }

    /// Ends a pause: whatever waits may go.
    pub fn resume(&mut self, object: ObjectIndex) {
        let object = &mut self.objects[object];
        object.trial = None;
        for named in object.keys.values_mut() {
            named.not_before = Duration::ZERO;
        }
    }

    /// Whether an object is paused.
    pub fn is_paused(&self, object: ObjectIndex) -> bool {
        self.objects[object].trial.is_some()
    }

    /// Whether a row of a paused object is to be tried now and none waits, nor is under way.
    pub fn lacks_trial(&self, object: ObjectIndex, now: Duration) -> bool {
        let object = &self.objects[object];
        let nothing = object.keys.is_empty() && object.claimed.is_empty();
        nothing && !object.closed && object.trial.is_some_and(|at| at <= now)
    }

    /// The one row of a paused object that is to be tried now, if it is time: the one that was not tried for longest.
    pub(super) fn take_trial(&mut self, object: ObjectIndex, at: Duration, now: Duration) -> Vec<Claimed> {
        let object = &mut self.objects[object];
        if object.closed {
            return Vec::new();
        }
        let unclaimed = object
            .keys
            .iter()
            .filter(|(key, _)| !object.claimed.contains_key(*key));
        let next = unclaimed.min_by_key(|(_, named)| (named.not_before, named.first()));
        let Some(key) = next.map(|(key, _)| Key::clone(key)).filter(|_| at <= now) else {
            return Vec::new();
        };
        object.trial = Some(now + TRIAL_EVERY);
        vec![object.claim(key)]
    }

    /// When a row of a paused object is tried next, if one waits.
    pub(super) fn next_trial(&self, object: ObjectIndex, at: Duration, now: Duration) -> Option<Duration> {
        let object = &self.objects[object];
        let waits = !object.closed && object.keys.keys().any(|key| !object.claimed.contains_key(key));
        waits.then(|| at.max(now))
    }
}
