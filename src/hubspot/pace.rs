//! The pace: one budget for the token, waited for.
//!
//! Whoever wants to send a request asks for a [`Slot`] in a lane and gets it when the window allows; a slot
//! is good for one request and is consumed by it. The arithmetic is [`crate::sync::lanes`]; here are the
//! clock, the waiting, and what answers do to the budget: headers correct it, a refusal by policy closes it
//! for as long as HubSpot wants, repeated trouble (5xx, time-outs, resets) closes it with a jittered
//! back-off, and a refused token halts it until somebody calls [`Pace::resume`].
//!
//! After every closing one request goes alone; only when it succeeds do the others follow.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::tz::TimeZone;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::retry::Schedule;
pub use crate::sync::lanes::{Budget, Heard, Lane};
use crate::sync::lanes::{Grant, Lanes, Ticket};

/// Consecutive failures of the connection or the server after which everybody waits, not only the batch
/// that met one: below that it may be the batch.
const TROUBLE_MAX: u32 = 3;

/// HubSpot's locks last 2 s (its error documentation).
const LOCK: Duration = Duration::from_secs(2);

/// How long we wait where HubSpot refuses for the day and its midnight is not known.
const HOUR: Duration = Duration::from_secs(3600);

/// Both clocks may differ a little: a day is over when this much of the next is.
const MIDNIGHT_MARGIN: Duration = Duration::from_secs(5);

/// No wait that HubSpot asks for is shorter or longer than this.
const WAITS: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(25 * 3600));

/// One budget for the token, in three lanes.
#[derive(Debug)]
pub struct Pace {
    state: Mutex<State>,
    /// Rung whenever something may now be granted that could not before.
    changed: Notify,
    epoch: Instant,
}

#[derive(Debug)]
struct State {
    lanes: Lanes,
    halt: Option<Halt>,
    why: Why,
    daily_remaining: Option<u64>,
    zone: Option<TimeZone>,
    troubles: u32,
    /// When the first of them was met.
    trouble_since: Option<Instant>,
    schedule: Schedule,
}

/// Why the door is halted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Halt {
    /// One sentence for the operator.
    pub reason: String,
}

/// Why nothing is sent for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The requests of the rolling window are used up, by us or by another program.
    Window,
    /// The requests of one second are used up.
    Second,
    /// The daily quota is used up; it returns at the portal's midnight.
    Daily,
    /// HubSpot has locked the records for a moment (423).
    Locked,
    /// HubSpot moves the portal between its data centres (477).
    Migration,
    /// Requests fail one after the other: 5xx, time-outs, resets.
    Trouble,
}

/// A pause that ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pause {
    /// Why.
    pub why: Why,
    /// How long it still lasts.
    pub left: Duration,
}

/// What is left of the token's limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Requests the rolling window has left.
    pub window_remaining: u32,
    /// Requests in a whole window.
    pub window_max: u32,
    /// Requests left of the day, if HubSpot has said.
    pub daily_remaining: Option<u64>,
}

/// What an answer means for the pace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// HubSpot answered, whatever it said of the records.
    Answered,
    /// HubSpot wants fewer requests.
    Slower(Why, Option<Duration>),
    /// The connection or the server failed.
    Trouble(Option<Duration>),
}

impl Pace {
    /// A pace with nothing sent yet.
    pub fn new(budget: Budget) -> Arc<Pace> {
        Arc::new(Pace {
            state: Mutex::new(State {
                lanes: Lanes::new(budget),
                halt: None,
                why: Why::Window,
                daily_remaining: None,
                zone: None,
                troubles: 0,
                trouble_since: None,
                schedule: Schedule::new(Duration::from_millis(250), Duration::from_secs(30)),
            }),
            changed: Notify::new(),
            epoch: Instant::now(),
        })
    }

    /// Replaces the configured budget (a reload); what headers say corrects it again.
    pub fn configure(&self, budget: Budget) {
        self.lock().lanes.set_budget(budget);
        self.changed.notify_waiters();
    }

    /// Tells where the portal's day ends: its zone, or where this machine does not know that name, its
    /// present offset from UTC in seconds, east positive. Source: `GET /account-info/…/details`.
    pub fn set_day(&self, zone: Option<&str>, utc_offset_seconds: Option<i32>) {
        let named = zone.and_then(|name| TimeZone::get(name).ok());
        let fixed = || {
            jiff::tz::Offset::from_seconds(utc_offset_seconds?)
                .ok()
                .map(TimeZone::fixed)
        };
        self.lock().zone = named.or_else(fixed);
    }

    /// Waits for leave to send one request. Dropping the future gives up the place in the queue; dropping
    /// the slot unused gives it back.
    pub async fn slot(self: &Arc<Pace>, lane: Lane) -> Slot {
        let place = Place {
            ticket: self.lock().lanes.queue(lane),
            pace: self,
        };
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let look_again = match place.try_take() {
                Ok(grant) => return self.hold(grant),
                Err(look_again) => look_again,
            };
            match look_again {
                Some(at) => tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep_until(self.epoch + at) => {}
                },
                None => changed.await,
            }
        }
    }

    /// One slot past the queue, past a pause and past a halt: for the daemon's probe of a halted door.
    pub fn probe(self: &Arc<Pace>) -> Slot {
        let grant = self.lock().lanes.probe(self.now());
        self.hold(grant)
    }

    /// Stops everything until [`Pace::resume`]; the first reason is kept.
    pub fn halt(&self, halt: Halt) {
        let mut state = self.lock();
        state.lanes.halt();
        state.halt.get_or_insert(halt);
    }

    /// Why everything is stopped, if it is.
    pub fn halted(&self) -> Option<Halt> {
        self.lock().halt.clone()
    }

    /// Ends a halt; one request goes alone until one succeeds.
    pub fn resume(&self) {
        let mut state = self.lock();
        state.halt = None;
        state.lanes.resume();
        drop(state);
        self.changed.notify_waiters();
    }

    /// The pause that is on, if one is.
    pub fn paused(&self) -> Option<Pause> {
        let now = self.now();
        let state = self.lock();
        let left = state.lanes.closed_until().saturating_sub(now);
        (!left.is_zero()).then_some(Pause { why: state.why, left })
    }

    /// For how long requests have failed one after the other (5xx, time-outs, resets), if enough of them did that it
    /// is not a single batch's bad luck.
    pub fn silent_for(&self) -> Option<Duration> {
        let state = self.lock();
        let since = state.trouble_since.filter(|_| state.troubles >= TROUBLE_MAX)?;
        Some(since.elapsed())
    }

    /// What is left of the limits, for `/status` and the metrics.
    pub fn limits(&self) -> Limits {
        let now = self.now();
        let mut state = self.lock();
        Limits {
            window_remaining: state.lanes.remaining(now),
            window_max: state.lanes.budget().requests,
            daily_remaining: state.daily_remaining,
        }
    }

    fn hold(self: &Arc<Pace>, grant: Grant) -> Slot {
        Slot {
            pace: Arc::clone(self),
            grant,
            sent: false,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change under the lock is complete in itself, so a panic elsewhere leaves it usable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }
}

impl State {
    fn close(&mut self, now: Duration, why: Why, wait: Duration) {
        let until = now + wait.clamp(WAITS.0, WAITS.1);
        if until >= self.lanes.closed_until() {
            self.why = why;
        }
        self.lanes.close(until);
    }

    fn slower(&mut self, now: Duration, why: Why, asked: Option<Duration>) {
        let usual = match why {
            Why::Window | Why::Trouble => self.lanes.budget().window,
            Why::Second => Duration::from_secs(1),
            Why::Daily => self.until_midnight().unwrap_or(HOUR),
            Why::Locked => LOCK,
            Why::Migration => Duration::from_secs(60),
        };
        let wait = match (why, asked) {
            (Why::Locked, Some(asked)) => asked.max(LOCK),
            (_, Some(asked)) => asked,
            (_, None) => usual,
        };
        self.close(now, why, wait);
    }

    fn trouble(&mut self, now: Duration, number: u64, asked: Option<Duration>) {
        self.trouble_since.get_or_insert_with(Instant::now);
        // Of eight that fail together only the first counts as a further attempt.
        if self.lanes.predates_closing(number) {
            return;
        }
        self.troubles = self.troubles.saturating_add(1);
        if let Some(asked) = asked {
            self.close(now, Why::Trouble, asked);
        } else if self.troubles >= TROUBLE_MAX {
            let wait = self.schedule.next();
            self.close(now, Why::Trouble, wait);
        }
    }

    fn until_midnight(&self) -> Option<Duration> {
        let zone = self.zone.clone()?;
        until_midnight(&jiff::Timestamp::now().to_zoned(zone))
    }
}

/// From `now` to a little after the next midnight of its zone.
fn until_midnight(now: &jiff::Zoned) -> Option<Duration> {
    let midnight = now.tomorrow().ok()?.start_of_day().ok()?;
    let left = Duration::try_from(now.duration_until(&midnight)).ok()?;
    Some(left + MIDNIGHT_MARGIN)
}

/// A place in the queue; leaving it gives back what was granted meanwhile.
struct Place<'a> {
    ticket: Ticket,
    pace: &'a Pace,
}

impl Place<'_> {
    fn try_take(&self) -> Result<Grant, Option<Duration>> {
        let mut state = self.pace.lock();
        let advance = state.lanes.advance(self.pace.now());
        let mine = state.lanes.take(self.ticket);
        drop(state);
        if advance.granted > 0 {
            self.pace.changed.notify_waiters();
        }
        mine.ok_or(advance.look_again)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.pace.lock().lanes.leave(self.ticket);
        self.pace.changed.notify_waiters();
    }
}

/// Leave to send one request. It counts against the window from now on; unused, it is given back.
#[derive(Debug)]
#[must_use = "a slot is a request that nobody else may send"]
pub struct Slot {
    pace: Arc<Pace>,
    grant: Grant,
    sent: bool,
}

impl Slot {
    /// For whom it was granted.
    pub fn lane(&self) -> Lane {
        self.grant.lane
    }

    /// The request is on its way: from here on the slot is spent, also if the caller is cancelled.
    pub(super) fn send(&mut self) {
        self.sent = true;
    }

    /// The request's answer, or its failure, is known.
    pub(super) fn answered(self, heard: Heard, daily_remaining: Option<u64>, verdict: Verdict) {
        let now = self.pace.now();
        let number = self.grant.number;
        let mut state = self.pace.lock();
        state.lanes.hear(number, heard, now);
        if daily_remaining.is_some() {
            state.daily_remaining = daily_remaining;
        }
        match verdict {
            Verdict::Answered => {
                state.lanes.succeeded(number);
                state.troubles = 0;
                state.trouble_since = None;
                state.schedule.reset();
            }
            Verdict::Slower(why, asked) => {
                // It answers, if only to be left alone.
                state.trouble_since = None;
                state.slower(now, why, asked);
            }
            Verdict::Trouble(asked) => state.trouble(now, number, asked),
        }
    }

    /// The request's answer showed that the token is refused.
    pub(super) fn halt(&self, reason: String) {
        self.pace.halt(Halt { reason });
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let now = self.pace.now();
        let mut state = self.pace.lock();
        if self.sent {
            state.lanes.answered(self.grant.number, now);
        } else {
            state.lanes.refund(self.grant.number);
        }
        drop(state);
        self.pace.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(requests: u32, in_flight: u32) -> Arc<Pace> {
        Pace::new(Budget {
            requests,
            window: Duration::from_secs(10),
            in_flight,
        })
    }

    fn answer(mut slot: Slot, verdict: Verdict) {
        slot.send();
        slot.answered(Heard::default(), None, verdict);
    }

    /// How long until the next change gets a slot and is answered well.
    async fn wait_for_change(pace: &Arc<Pace>) -> Duration {
        let since = Instant::now();
        answer(pace.slot(Lane::Change).await, Verdict::Answered);
        since.elapsed()
    }

    fn is_about(took: Duration, expected: Duration) -> bool {
        (expected..expected + Duration::from_millis(20)).contains(&took)
    }

    #[tokio::test(start_paused = true)]
    async fn the_window_is_waited_for() {
        let pace = pace(3, 8);
        for _ in 0..3 {
            assert!(wait_for_change(&pace).await.is_zero());
        }
        assert!(is_about(wait_for_change(&pace).await, Duration::from_secs(10)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_wakes_who_waits_for_a_place_in_flight() {
        let pace = pace(100, 1);
        let first = pace.slot(Lane::Change).await;
        let second = wait_for_change(&pace);
        let answered = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            answer(first, Verdict::Answered);
        };
        let (took, ()) = tokio::join!(second, answered);
        assert!(is_about(took, Duration::from_millis(300)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slot_dropped_unused_or_never_picked_up_is_given_back() {
        let pace = pace(1, 8);
        drop(pace.slot(Lane::Change).await);
        let held = pace.slot(Lane::Change).await;
        let waiting = tokio::time::timeout(Duration::from_secs(1), pace.slot(Lane::Change)).await;
        assert!(waiting.is_err());
        drop(held);
        assert!(wait_for_change(&pace).await.is_zero());
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_request_stays_charged() {
        let pace = pace(1, 8);
        let mut slot = pace.slot(Lane::Change).await;
        slot.send();
        drop(slot);
        assert!(is_about(wait_for_change(&pace).await, Duration::from_secs(10)));
    }

    #[tokio::test(start_paused = true)]
    async fn every_policy_waits_as_long_as_it_lasts_and_retry_after_wins() {
        let asked = Some(Duration::from_secs(33));
        for (why, asked, expected) in [
            (Why::Window, None, Duration::from_secs(10)),
            (Why::Second, None, Duration::from_secs(1)),
            (Why::Daily, None, HOUR),
            (Why::Locked, None, LOCK),
            (Why::Locked, Some(Duration::from_millis(1)), LOCK),
            (Why::Migration, asked, Duration::from_secs(33)),
            (Why::Window, asked, Duration::from_secs(33)),
            (Why::Window, Some(Duration::ZERO), WAITS.0),
        ] {
            let pace = pace(100, 8);
            answer(pace.slot(Lane::Sweep).await, Verdict::Slower(why, asked));
            assert_eq!(pace.paused().map(|pause| pause.why), Some(why));
            let took = wait_for_change(&pace).await;
            assert!(is_about(took, expected), "{why:?} with {asked:?}: {took:?}");
            assert_eq!(pace.paused(), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_exhausted_day_ends_at_the_portals_midnight() {
        let pace = pace(100, 8);
        pace.set_day(Some("Nowhere/Unknown"), Some(0));
        let expected = until_midnight(&jiff::Timestamp::now().to_zoned(TimeZone::UTC)).unwrap();
        answer(pace.slot(Lane::Change).await, Verdict::Slower(Why::Daily, None));
        let left = pace.paused().unwrap().left;
        assert!(
            left.abs_diff(expected) < Duration::from_secs(2),
            "{left:?}, {expected:?}"
        );
    }

    #[test]
    fn midnight_is_found_also_on_days_of_23_and_25_hours() {
        let left = |text: &str| until_midnight(&text.parse().unwrap()).unwrap() - MIDNIGHT_MARGIN;
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        assert_eq!(left("2026-11-20T22:00-05:00[-05:00]"), hours(2));
        if TimeZone::get("Europe/Berlin").is_ok() {
            assert_eq!(left("2026-03-29T00:00[Europe/Berlin]"), hours(23));
            assert_eq!(left("2026-10-25T00:00[Europe/Berlin]"), hours(25));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn three_troubles_in_a_row_make_everybody_wait_longer_and_longer() {
        let pace = pace(1000, 8);
        for _ in 0..TROUBLE_MAX - 1 {
            answer(pace.slot(Lane::Change).await, Verdict::Trouble(None));
            assert_eq!(pace.paused(), None);
        }
        let mut longest = Duration::ZERO;
        for _ in 0..10 {
            answer(pace.slot(Lane::Change).await, Verdict::Trouble(None));
            longest = longest.max(pace.paused().unwrap().left);
        }
        assert!(longest > Duration::from_secs(10), "{longest:?}");
        assert!(longest < Duration::from_secs(46), "{longest:?}");
        wait_for_change(&pace).await;
        answer(pace.slot(Lane::Change).await, Verdict::Trouble(None));
        assert_eq!(pace.paused(), None, "a success begins anew");
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_fail_together_count_as_one_further_attempt() {
        let pace = pace(1000, 8);
        let mut slots = Vec::new();
        for _ in 0..8 {
            slots.push(pace.slot(Lane::Change).await);
        }
        for slot in slots {
            answer(slot, Verdict::Trouble(None));
        }
        assert!(pace.paused().unwrap().left < Duration::from_millis(400));
    }

    #[tokio::test(start_paused = true)]
    async fn a_halt_stops_all_lanes_until_it_is_ended_and_the_first_reason_stays() {
        let pace = pace(100, 8);
        let slot = pace.slot(Lane::Change).await;
        slot.halt("the token is refused".to_owned());
        slot.halt("again".to_owned());
        drop(slot);
        assert_eq!(pace.halted().unwrap().reason, "the token is refused");
        for lane in [Lane::Change, Lane::Sweep, Lane::Mirror] {
            let waiting = tokio::time::timeout(Duration::from_secs(3600), pace.slot(lane)).await;
            assert!(waiting.is_err());
        }
        answer(pace.probe(), Verdict::Answered);
        let resumed = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            pace.resume();
        };
        let (took, ()) = tokio::join!(wait_for_change(&pace), resumed);
        assert!(is_about(took, Duration::from_secs(1)));
        assert_eq!(pace.halted(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn limits_tell_what_the_headers_told() {
        let pace = pace(100, 8);
        let mut slot = pace.slot(Lane::Change).await;
        slot.send();
        let heard = Heard {
            requests: Some(190),
            window: None,
            remaining: Some(50),
        };
        slot.answered(heard, Some(1234), Verdict::Answered);
        let limits = pace.limits();
        assert_eq!(limits.window_remaining, 50);
        assert_eq!(limits.window_max, 190);
        assert_eq!(limits.daily_remaining, Some(1234));
    }
}
