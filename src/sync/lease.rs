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
