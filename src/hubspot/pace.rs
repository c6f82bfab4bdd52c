//! The pace: one budget for the token, waited for.
//!
//! Whoever wants to send a request asks for a [`Slot`] in a lane and gets it when the window allows; a slot
//! is good for one request and is consumed by it. Searches have a window of their own. The arithmetic is [`crate::sync::lanes`]; here are the
//! clock, the waiting, and what answers do to the budget: headers correct it, a refusal by policy closes it
//! for as long as HubSpot wants, repeated trouble (5xx, time-outs, resets) closes it with a jittered
//! back-off, and a refused token halts it until somebody calls [`Pace::resume`].
//!
//! After every closing one request goes alone; only when it succeeds do the others follow.

mod slot;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::SignedDuration;
use jiff::tz::TimeZone;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::retry::Schedule;
use crate::sync::day::Day;
pub use crate::sync::day::Heard as HeardDay;
pub use crate::sync::lanes::{Budget, Heard, Lane};
use crate::sync::lanes::{Grant, Lanes};
use slot::Place;
pub use slot::Slot;

/// Consecutive failures of the connection or the server after which everybody waits, not only the batch
/// that met one: below that it may be the batch.
const TROUBLE_MAX: u32 = 3;

/// HubSpot's locks last 2 s (its error documentation).
const LOCK: Duration = Duration::from_secs(2);

/// How long we wait where HubSpot refuses for the day and its midnight is not known.
const HOUR: Duration = Duration::from_secs(3600);

/// A quota that is spent so soon after midnight is the old day's still.
const EARLY: Duration = Duration::from_secs(900);

/// How soon it is asked for then.
const EARLY_PAUSE: Duration = Duration::from_secs(60);

/// Both clocks may differ a little: a day is over when this much of the next is.
const MIDNIGHT_MARGIN: Duration = Duration::from_secs(5);

/// The searches of an account: HubSpot allows five a second, not counted in the window. One is left to whoever else
/// searches there, and as many are on their way at a time as in HubSpot's own SDK.
const SEARCHES: Budget = Budget {
    requests: 4,
    window: Duration::from_secs(1),
    in_flight: 3,
};

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
    window: Lanes,
    searches: Lanes,
    halt: Option<Halt>,
    why: Why,
    day: Day,
    zone: Option<TimeZone>,
    /// Our wall clock.
    wall: fn() -> jiff::Timestamp,
    /// How far HubSpot's clock is ahead of it.
    ahead: SignedDuration,
    troubles: u32,
    /// When the first of them was met.
    trouble_since: Option<Instant>,
    schedule: Schedule,
}

/// Which of HubSpot's limits a request counts against, beside the day's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    /// The rolling window.
    Window,
    /// The searches of one second.
    Search,
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

/// What the day withholds from sweep and mirror.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Withheld {
    /// Whether the whole quota is spent; otherwise what is left is kept for live changes.
    pub spent: bool,
    /// How long until the portal's midnight.
    pub left: Duration,
}

impl std::fmt::Display for Withheld {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.spent {
            true => "the daily quota of HubSpot requests is spent",
            false => "what is left of the daily quota is kept for live changes",
        })
    }
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
                window: Lanes::new(budget),
                searches: Lanes::new(SEARCHES),
                halt: None,
                why: Why::Window,
                day: Day::new(0.0),
                zone: None,
                wall: jiff::Timestamp::now,
                ahead: SignedDuration::ZERO,
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
        self.lock().window.set_budget(budget);
        self.changed.notify_waiters();
    }

    /// Keeps a part of the daily quota, 0 to 1, for live changes.
    pub fn set_reserve(&self, reserve: f64) {
        self.lock().day.set_reserve(reserve);
        self.changed.notify_waiters();
    }

    /// Reads another wall clock from now on, as a simulation's.
    pub fn set_wall(&self, wall: fn() -> jiff::Timestamp) {
        self.lock().wall = wall;
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
        self.wait(Limit::Window, lane).await
    }

    /// The same for a search, which has a limit of its own and takes nothing from the window.
    pub async fn search_slot(self: &Arc<Pace>, lane: Lane) -> Slot {
        self.wait(Limit::Search, lane).await
    }

    async fn wait(self: &Arc<Pace>, limit: Limit, lane: Lane) -> Slot {
        let place = Place {
            ticket: self.lock().of(limit).queue(lane),
            limit,
            pace: self,
        };
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let look_again = match place.try_take() {
                Ok(grant) => return self.hold(limit, grant),
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
        let grant = self.lock().window.probe(self.now());
        self.hold(Limit::Window, grant)
    }

    /// Stops everything until [`Pace::resume`]; the first reason is kept.
    pub fn halt(&self, halt: Halt) {
        let mut state = self.lock();
        state.window.halt();
        state.searches.halt();
        state.halt.get_or_insert(halt);
    }

    /// How far HubSpot's clock was ahead of this machine's at its last answer, to a second; zero if it never said.
    pub fn clock_ahead(&self) -> SignedDuration {
        self.lock().ahead
    }

    /// Why everything is stopped, if it is.
    pub fn halted(&self) -> Option<Halt> {
        self.lock().halt.clone()
    }

    /// Ends a halt; one request goes alone until one succeeds.
    pub fn resume(&self) {
        let mut state = self.lock();
        state.halt = None;
        state.window.resume();
        state.searches.resume();
        drop(state);
        self.changed.notify_waiters();
    }

    /// The pause that is on, if one is.
    pub fn paused(&self) -> Option<Pause> {
        let now = self.now();
        let state = self.lock();
        let left = state.window.closed_until().saturating_sub(now);
        (!left.is_zero()).then_some(Pause { why: state.why, left })
    }

    /// Why sweep and mirror may send nothing for a long time, and how long: the daily quota is spent, or what is left of it
    /// is kept for live changes.
    pub fn withheld(&self) -> Option<Withheld> {
        let now = self.now();
        if let Some(pause) = self.paused().filter(|pause| pause.why == Why::Daily) {
            return Some(Withheld {
                spent: true,
                left: pause.left,
            });
        }
        let (spare, until) = self.lock().day.spare(now)?;
        (spare == 0).then(|| Withheld {
            spent: false,
            left: until.saturating_sub(now),
        })
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
            window_remaining: state.window.remaining(now),
            window_max: state.window.budget().requests,
            daily_remaining: state.day.remaining(now),
        }
    }

    fn hold(self: &Arc<Pace>, limit: Limit, grant: Grant) -> Slot {
        let day = self.lock().day.request();
        Slot {
            day,
            pace: Arc::clone(self),
            limit,
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
    fn of(&mut self, limit: Limit) -> &mut Lanes {
        match limit {
            Limit::Window => &mut self.window,
            Limit::Search => &mut self.searches,
        }
    }

    /// Closes what the reason concerns: the limit that the request counted against, or everything.
    fn close(&mut self, now: Duration, limit: Limit, why: Why, wait: Duration) {
        let until = now + wait.clamp(WAITS.0, WAITS.1);
        let everything = match why {
            Why::Daily | Why::Migration | Why::Trouble => true,
            Why::Window | Why::Second | Why::Locked => false,
        };
        if everything || limit == Limit::Window {
            if until >= self.window.closed_until() {
                self.why = why;
            }
            self.window.close(until);
        }
        if everything || limit == Limit::Search {
            self.searches.close(until);
        }
    }

    fn slower(&mut self, now: Duration, limit: Limit, why: Why, asked: Option<Duration>) {
        let usual = match why {
            Why::Window | Why::Trouble => self.window.budget().window,
            Why::Second => Duration::from_secs(1),
            Why::Daily => self.until_reset(),
            Why::Locked => LOCK,
            Why::Migration => Duration::from_secs(60),
        };
        let wait = match (why, asked) {
            (Why::Locked, Some(asked)) => asked.max(LOCK),
            (_, Some(asked)) => asked,
            (_, None) => usual,
        };
        self.close(now, limit, why, wait);
    }

    fn trouble(&mut self, now: Duration, limit: Limit, number: u64, asked: Option<Duration>) {
        self.trouble_since.get_or_insert_with(Instant::now);
        // Of eight that fail together only the first counts as a further attempt.
        if self.of(limit).predates_closing(number) {
            return;
        }
        self.troubles = self.troubles.saturating_add(1);
        if let Some(asked) = asked {
            self.close(now, limit, Why::Trouble, asked);
        } else if self.troubles >= TROUBLE_MAX {
            let wait = self.schedule.next();
            self.close(now, limit, Why::Trouble, wait);
        }
    }

    /// HubSpot's present time where the portal is.
    fn portal_now(&self) -> Option<jiff::Zoned> {
        let zone = self.zone.clone()?;
        let now = (self.wall)().checked_add(self.ahead).ok()?;
        Some(now.to_zoned(zone))
    }

    /// How long the day lasts that HubSpot speaks of.
    fn until_midnight(&self) -> Duration {
        let now = self.portal_now();
        now.and_then(|now| until_midnight(&now)).unwrap_or(HOUR)
    }

    /// How long a spent quota is spent.
    fn until_reset(&self) -> Duration {
        let now = self.portal_now();
        now.and_then(|now| until_reset(&now)).unwrap_or(HOUR)
    }
}

/// From `now` to a little after the next midnight of its zone.
fn until_midnight(now: &jiff::Zoned) -> Option<Duration> {
    let midnight = now.tomorrow().ok()?.start_of_day().ok()?;
    let left = Duration::try_from(now.duration_until(&midnight)).ok()?;
    Some(left + MIDNIGHT_MARGIN)
}

/// The same where HubSpot says that the quota is spent: in the first minutes of a day that is yesterday's, which
/// returns in a moment, and not in a day.
fn until_reset(now: &jiff::Zoned) -> Option<Duration> {
    let begun = now.start_of_day().ok()?;
    let since = Duration::try_from(begun.duration_until(now)).ok()?;
    if since < EARLY {
        return Some(EARLY_PAUSE);
    }
    until_midnight(now)
}

#[cfg(test)]
#[path = "pace/tests.rs"]
mod tests;
