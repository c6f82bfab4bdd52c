//! The lease: what follows from the pings of the one daemon that pushes, and from the silence of its forerunner.
//!
//! A holder pings every [`PING_EVERY`]. It starts no request later than [`TERM`] after it *sent* the last ping that was
//! confirmed, and the database notes the time of a ping after it was sent: so no request of a holder starts later
//! than [`TERM`] after the time that the lease's row shows. Whoever takes a lease that was not given back waits
//! until [`TAKE_OVER`] after that time: by then its forerunner starts nothing, and what it has started has had as
//! long again to arrive. A forerunner whose last ping is older than that is not waited for, and one that gave the
//! lease back with nothing on its way neither.
//!
//! What was started within the term and arrives later still is settled by pushing again what may have been under
//! way: [`Taken::former_until`] says until when the forerunner may have started requests.
//!
//! The holder's times are of a clock that goes on while the machine sleeps, from an epoch of its own; the database's are
//! microseconds since the Unix epoch.

use std::time::Duration;

/// How often the holder pings.
pub const PING_EVERY: Duration = Duration::from_secs(2);

/// How long after the sending of the last confirmed ping requests may start.
pub const TERM: Duration = Duration::from_secs(5);

/// How long after the last ping of a lease that was not given back its next holder may push.
pub const TAKE_OVER: Duration = Duration::from_secs(10);

/// The lease's row, as whoever takes the lease finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// How often it was taken so far, in effect: it only grows.
    pub generation: i64,
    /// The last ping, by the database's clock; `None` if nobody ever held it.
    pub renewed_at: Option<i64>,
    /// Whether the last holder gave it back with nothing on its way.
    pub given_back: bool,
    /// The database's clock.
    pub now: i64,
}

/// What taking the lease answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// What every receipt checks.
    pub generation: i64,
    /// Whether nobody else held the lease since this daemon lost it: then it goes on as if it had never lost it.
    pub resumed: bool,
    /// Until when a former holder may have started requests, by the database's clock; `None` if there was none, or it
    /// gave the lease back with nothing on its way. What was captured before may have been sent already.
    pub former_until: Option<i64>,
    /// How long to wait before the first push.
    pub wait: Duration,
}

impl Taken {
    /// What follows for a daemon that takes the lease anew under `generation`.
    pub fn anew(found: Found, generation: i64) -> Taken {
        let renewed_at = found.renewed_at.filter(|_| !found.given_back);
        let wait = renewed_at.map_or(Duration::ZERO, |at| {
            // A clock that was set back must not make us wait for longer than for a holder that was here just now.
            let silent = Duration::from_micros(found.now.saturating_sub(at).max(0).unsigned_abs());
            TAKE_OVER.saturating_sub(silent)
        });
        Taken {
            generation,
            resumed: false,
            former_until: renewed_at.map(|at| at.saturating_add(micros(TERM))),
            wait,
        }
    }

    /// What follows for a daemon that finds its own generation.
    pub fn resumed(generation: i64) -> Taken {
        Taken {
            generation,
            resumed: true,
            former_until: None,
            wait: Duration::ZERO,
        }
    }
}

/// The lease as its holder, or former holder, knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holding {
    /// The generation last held; 0 before the first.
    generation: i64,
    held: bool,
    /// When the last confirmed ping was sent.
    pinged: Duration,
    /// When pushing may begin.
    push_from: Duration,
    former_until: Option<i64>,
    /// When something was last learned to be on its way to HubSpot that nobody will tell us the end of: a request of ours
    /// without an answer, or those of a former holder.
    unknown: Option<Duration>,
}

impl Holding {
    /// The lease was taken by a statement that was sent at `sent`.
    pub fn take(&mut self, taken: &Taken, sent: Duration, now: Duration) {
        self.held = true;
        self.pinged = sent;
        self.generation = taken.generation;
        if !taken.resumed {
            self.push_from = now + taken.wait;
            self.former_until = taken.former_until;
            if taken.former_until.is_some() {
                self.outcome_unknown(now + TERM);
            }
        }
    }

    /// A ping that was sent at `sent` is confirmed.
    pub fn confirm(&mut self, sent: Duration) {
        self.pinged = self.pinged.max(sent);
    }

    /// The lease is lost, or given up.
    pub fn lose(&mut self) {
        self.held = false;
    }

    /// This generation is gone: somebody else has taken the lease.
    pub fn gone(&mut self, generation: i64) {
        self.held &= self.generation != generation;
    }

    /// A request ended and it is not known what became of it.
    pub fn outcome_unknown(&mut self, now: Duration) {
        self.unknown = self.unknown.max(Some(now));
    }

    /// Whether a request may start.
    pub fn may_ask(&self, now: Duration) -> bool {
        self.held && now.saturating_sub(self.pinged) <= TERM
    }

    /// Whether rows may be pushed: a request may start, and no former holder's are waited for.
    pub fn may_push(&self, now: Duration) -> bool {
        self.may_ask(now) && self.push_from <= now
    }

    /// How long until rows may be pushed, as far as that is a matter of time.
    pub fn push_wait(&self, now: Duration) -> Duration {
        self.push_from.saturating_sub(now)
    }

    /// The generation last held; 0 before the first.
    pub fn generation(&self) -> i64 {
        self.generation
    }

    /// The generation last held, if there was one.
    pub fn own(&self) -> Option<i64> {
        (self.generation != 0).then_some(self.generation)
    }

    /// See [`Taken::former_until`].
    pub fn former_until(&self) -> Option<i64> {
        self.former_until
    }

    /// Whether nothing can arrive at HubSpot any more once nothing is under way here: no request of the last `settle`
    /// ended without our learning what became of it, and the former holder's are as old.
    pub fn is_quiet(&self, settle: Duration, now: Duration) -> bool {
        self.unknown.is_none_or(|at| now.saturating_sub(at) > settle)
    }
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn found(renewed_at: Option<i64>, given_back: bool, now: i64) -> Found {
        Found {
            generation: 7,
            renewed_at,
            given_back,
            now,
        }
    }

    #[test]
    fn who_follows_a_clean_stop_or_nobody_waits_for_nothing_and_doubts_nothing() {
        for found in [found(Some(1_000), true, 2_000), found(None, false, 2_000)] {
            let taken = Taken::anew(found, 8);
            assert_eq!((taken.wait, taken.former_until), (Duration::ZERO, None));
        }
    }

    proptest! {
        /// Whatever two clocks of different epochs show: once the next holder may push, the one before may not ask.
        #[test]
        fn a_next_holder_pushes_only_when_the_one_before_starts_nothing(
            pinged in 0_u64..1_000_000_000,
            noted in 0_u64..3_000_000,
            taken_after in 0_u64..30_000_000,
            looked_after in 0_u64..60_000_000,
            epoch in 0_i64..2_000_000_000_000_000,
        ) {
            let micros = Duration::from_micros;
            let mut former = Holding::default();
            former.take(&Taken::anew(found(None, false, epoch), 7), micros(pinged), micros(pinged));
            // The database noted the ping after it was sent; the next holder took the lease after that.
            let renewed_at = epoch + i64::try_from(pinged + noted).unwrap();
            let taken_at = pinged + noted + taken_after;
            let now = renewed_at + i64::try_from(taken_after).unwrap();
            let taken = Taken::anew(found(Some(renewed_at), false, now), 8);
            let mut next = Holding::default();
            next.take(&taken, micros(taken_at), micros(taken_at));
            let looked = micros(taken_at + looked_after);
            next.confirm(looked);
            prop_assert!(!(next.may_push(looked) && former.may_ask(looked)));
            prop_assert!(taken.wait <= TAKE_OVER);
            // And what the former may have started is before the moment that the next one is told.
            if former.may_ask(looked) {
                let started = epoch + i64::try_from(taken_at + looked_after).unwrap();
                prop_assert!(started <= taken.former_until.unwrap());
            }
        }

        /// A clock that was set back makes nobody wait longer than for a holder that was here just now.
        #[test]
        fn the_wait_is_bounded_whatever_the_databases_clock_shows(renewed_at: i64, now: i64) {
            let taken = Taken::anew(found(Some(renewed_at), false, now), 8);
            prop_assert!(taken.wait <= TAKE_OVER);
        }
    }

    #[test]
    fn a_request_may_start_for_five_seconds_after_the_sending_of_a_ping_and_not_later() {
        let mut holding = Holding::default();
        assert!(!holding.may_ask(Duration::ZERO), "nothing was taken yet");
        holding.take(&Taken::anew(found(None, false, 0), 1), SECOND, 3 * SECOND);
        assert!(holding.may_push(6 * SECOND));
        assert!(!holding.may_ask(6 * SECOND + Duration::from_nanos(1)));
        holding.confirm(4 * SECOND);
        holding.confirm(2 * SECOND);
        assert!(holding.may_ask(9 * SECOND), "an older ping takes nothing back");
        holding.gone(2);
        assert!(holding.may_ask(9 * SECOND), "another generation is not ours");
        holding.gone(1);
        assert!(!holding.may_ask(9 * SECOND));
    }

    #[test]
    fn a_lease_that_is_resumed_keeps_what_its_taking_had_found() {
        let mut holding = Holding::default();
        let taken = Taken::anew(found(Some(0), false, 4_000_000), 8);
        holding.take(&taken, SECOND, SECOND);
        assert_eq!(holding.push_wait(SECOND), 6 * SECOND);
        assert_eq!(holding.former_until(), Some(5_000_000));
        holding.lose();
        assert!(!holding.may_ask(SECOND));
        holding.take(&Taken::resumed(8), 2 * SECOND, 2 * SECOND);
        assert_eq!(holding.push_wait(2 * SECOND), 5 * SECOND);
        assert_eq!(
            (holding.former_until(), holding.own()),
            (Some(5_000_000), Some(8))
        );
    }

    #[test]
    fn it_is_quiet_when_the_last_unknown_outcome_and_the_former_holders_are_older_than_settle() {
        let settle = 120 * SECOND;
        let mut holding = Holding::default();
        holding.take(&Taken::anew(found(None, false, 0), 1), SECOND, SECOND);
        assert!(holding.is_quiet(settle, 2 * SECOND));
        holding.outcome_unknown(10 * SECOND);
        assert!(!holding.is_quiet(settle, 130 * SECOND));
        assert!(holding.is_quiet(settle, 131 * SECOND));
        let mut follower = Holding::default();
        follower.take(&Taken::anew(found(Some(0), false, 0), 2), SECOND, SECOND);
        assert!(
            !follower.is_quiet(settle, 126 * SECOND),
            "the former's may still land"
        );
        assert!(follower.is_quiet(settle, 127 * SECOND));
    }
}
