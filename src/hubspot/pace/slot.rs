//! A slot: leave to send one request, from its place in the queue to the request's answer.

use super::{Halt, HeardDay, Limit, Pace, Verdict};
use crate::sync::lanes::{Grant, Heard, Lane, Ticket};
use std::sync::Arc;
use std::time::Duration;

/// A place in the queue; leaving it gives back what was granted meanwhile.
pub(super) struct Place<'a> {
    pub(super) ticket: Ticket,
    pub(super) limit: Limit,
    pub(super) pace: &'a Pace,
}

impl Place<'_> {
    /// What was granted, or when time alone may grant something.
    pub(super) fn try_take(&self) -> Result<Grant, Option<Duration>> {
        let now = self.pace.now();
        let mut state = self.pace.lock();
        let spare = state.day.spare(now);
        let lanes = state.of(self.limit);
        lanes.set_spare(spare);
        let advance = lanes.advance(now);
        let mine = lanes.take(self.ticket);
        drop(state);
        if advance.granted > 0 {
            self.pace.changed.notify_waiters();
        }
        mine.ok_or(advance.look_again)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.pace.lock().of(self.limit).leave(self.ticket);
        self.pace.changed.notify_waiters();
    }
}

/// Leave to send one request. It counts against the window from now on; unused, it is given back.
#[derive(Debug)]
#[must_use = "a slot is a request that nobody else may send"]
pub struct Slot {
    pub(super) pace: Arc<Pace>,
    pub(super) limit: Limit,
    pub(super) grant: Grant,
    /// Counts the requests of the day.
    pub(super) day: u64,
    pub(super) sent: bool,
}

impl Slot {
    /// For whom it was granted.
    pub fn lane(&self) -> Lane {
        self.grant.lane
    }

    /// The request is on its way: from here on the slot is spent, also if the caller is cancelled.
    pub(in crate::hubspot) fn send(&mut self) {
        self.sent = true;
    }

    /// An answer told HubSpot's clock.
    pub(in crate::hubspot) fn told_time(&self, theirs: jiff::Timestamp) {
        let mut state = self.pace.lock();
        state.ahead = theirs.duration_since((state.wall)());
    }

    /// The request's answer, or its failure, is known.
    pub(in crate::hubspot) fn answered(self, heard: Heard, day: HeardDay, verdict: Verdict) {
        let now = self.pace.now();
        let number = self.grant.number;
        let mut state = self.pace.lock();
        // What an answer to a search says of a window is not said of the searches' own.
        if self.limit == Limit::Window {
            state.window.hear(number, heard, now);
        }
        let midnight = now + state.until_midnight();
        state.day.hear(self.day, day, midnight);
        match verdict {
            Verdict::Answered => {
                state.of(self.limit).succeeded(number);
                state.troubles = 0;
                state.trouble_since = None;
                state.schedule.reset();
            }
            Verdict::Slower(why, asked) => {
                // It answers, if only to be left alone.
                state.trouble_since = None;
                state.slower(now, self.limit, why, asked);
            }
            Verdict::Trouble(asked) => state.trouble(now, self.limit, number, asked),
        }
    }

    /// The request's answer showed that the token is refused.
    pub(in crate::hubspot) fn halt(&self, reason: String) {
        self.pace.halt(Halt { reason });
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let now = self.pace.now();
        let mut state = self.pace.lock();
        if self.sent {
            state.of(self.limit).answered(self.grant.number, now);
        } else {
            state.of(self.limit).refund(self.grant.number);
            state.day.refund(self.day);
        }
        drop(state);
        self.pace.changed.notify_waiters();
    }
}
