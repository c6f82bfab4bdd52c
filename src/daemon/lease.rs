//! The lease as the daemon's tasks share it: asked before every request, fed by pings.
//!
//! What it decides is [`crate::sync::lease`]'s; here is the lock around it and the clock under it. The clock is the
//! machine's boot time, which goes on while the machine sleeps or the process is stopped, and which nobody sets.

use crate::postgres::control::Pinger;
use crate::sync::change::{Key, ObjectIndex};
use crate::sync::lease::{Holding, PING_EVERY, TERM, Taken};
use crate::sync::report::chain;
use rustix::time::{ClockId, clock_gettime};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A clock: the time since a moment of its own, on which nothing sets it back.
pub type Clock = fn() -> Duration;

/// This daemon's hold on the lease, as of now.
#[derive(Debug)]
pub struct Hold {
    clock: Clock,
    holding: Mutex<Holding>,
    doubts: Mutex<Doubts>,
}

/// The rows in doubt.
pub type Doubts = HashMap<(ObjectIndex, Key), Doubt>;

/// A row that was on its way to HubSpot when the lease was lost: what was sent may have arrived after what the next
/// holder sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doubt {
    /// The generation it was sent under.
    generation: i64,
    /// Whether create-only properties were sent.
    pub full: bool,
}

/// Pings until the lease is lost, and tells all who rely on it that it is. A ping that is not answered within the term
/// is as good as a lost connection: after that nothing may be sent anyway.
pub(super) async fn keep(pinger: Pinger, hold: Arc<Hold>) {
    let reason = loop {
        tokio::time::sleep(PING_EVERY).await;
        let sent = boot_time();
        match tokio::time::timeout(TERM, pinger.ping()).await {
            Ok(Ok(true)) => hold.confirm(sent),
            Ok(Ok(false)) => break "another daemon has taken the lease".to_owned(),
            Ok(Err(error)) => break chain(&error),
            Err(_) => break format!("the database did not confirm the lease within {TERM:?}"),
        }
    };
    hold.lose();
    pinger.lose(reason);
}

impl Default for Hold {
    /// By the machine's boot time.
    fn default() -> Hold {
        Hold::by(boot_time)
    }
}

impl Hold {
    /// No hold yet; `clock` tells the time, and is the one that is read at the sending of a ping.
    pub fn by(clock: Clock) -> Hold {
        Hold {
            clock,
            holding: Mutex::default(),
            doubts: Mutex::default(),
        }
    }

    /// The lease was taken by a statement that was sent at `sent` (see [`boot_time`]).
    pub fn take(&self, taken: &Taken, sent: Duration) {
        self.lock().take(taken, sent, (self.clock)());
    }

    /// A ping that was sent at `sent` is confirmed.
    pub fn confirm(&self, sent: Duration) {
        self.lock().confirm(sent);
    }

    /// The lease is lost, or given up: no request starts from now on.
    pub fn lose(&self) {
        self.lock().lose();
    }

    /// This generation is gone, a receipt has found: no request starts under it from now on.
    pub fn gone(&self, generation: i64) {
        self.lock().gone(generation);
    }

    /// A request ended and it is not known what became of it.
    pub fn outcome_unknown(&self) {
        self.lock().outcome_unknown((self.clock)());
    }

    /// Whether a request may start now.
    pub fn may_ask(&self) -> bool {
        self.lock().may_ask((self.clock)())
    }

    /// Whether rows may be pushed now.
    pub fn may_push(&self) -> bool {
        self.pushing().is_some()
    }

    /// The generation under which rows may be pushed now, if they may. A push that began under another one is over.
    pub fn pushing(&self) -> Option<i64> {
        let holding = self.lock();
        holding.may_push((self.clock)()).then(|| holding.generation())
    }

    /// How long until rows may be pushed: requests of a former holder are waited for.
    pub fn push_wait(&self) -> Duration {
        self.lock().push_wait((self.clock)())
    }

    /// The generation that was held last, if any was.
    pub fn own(&self) -> Option<i64> {
        self.lock().own()
    }

    /// Until when a former holder may have started requests, microseconds since the Unix epoch by the database's
    /// clock; `None` if there was none, or it gave the lease back with nothing on its way. A change captured before
    /// then may have been sent by it, and that request may still arrive.
    pub fn former_until(&self) -> Option<i64> {
        self.lock().former_until()
    }

    /// Whether no request of the last `settle` ended without our learning what became of it.
    pub fn is_quiet(&self, settle: Duration) -> bool {
        self.lock().is_quiet(settle, (self.clock)())
    }

    /// Notes rows, and whether create-only properties were sent, that were on their way under a generation which
    /// cannot be proven any more. Whoever keeps the control session names them as changed.
    pub fn doubt(&self, object: ObjectIndex, generation: i64, rows: impl Iterator<Item = (Key, bool)>) {
        let mut doubts = self.doubts();
        for (key, full) in rows {
            let doubt = doubts.entry((object, key)).or_insert(Doubt { generation, full });
            doubt.full |= full;
        }
    }

    /// Takes the rows noted by [`Hold::doubt`], but for those that turned out to be in no doubt: the generation they
    /// were sent under is held again, so that nobody else held the lease meanwhile.
    pub fn take_doubts(&self) -> Doubts {
        let held = self.pushing();
        let mut doubts = std::mem::take(&mut *self.doubts());
        doubts.retain(|_, doubt| Some(doubt.generation) != held);
        doubts
    }

    /// Gives back what could not be named.
    pub fn return_doubts(&self, doubts: Doubts) {
        let mut kept = self.doubts();
        for (row, doubt) in doubts {
            kept.entry(row).or_insert(doubt).full |= doubt.full;
        }
    }

    fn doubts(&self) -> MutexGuard<'_, Doubts> {
        self.doubts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Holding> {
        self.holding.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The time since the machine was booted, sleep included.
pub fn boot_time() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or_default();
    Duration::new(seconds, nanoseconds)
}
