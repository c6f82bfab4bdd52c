//! Asking HubSpot, and writing to Postgres, until it is done or there is a reason not to go on.

use super::Puller;
use crate::hubspot::{Disposition, Failed, Lane, Slot};
use crate::mapping::Mirrored;
use crate::postgres::connect::Lent;
use crate::postgres::{self, ErrorKind};
use crate::retry::Schedule;
use crate::sync::mirror::{Repeats, Stuck};
use crate::sync::report::chain;
use futures::future::BoxFuture;
use std::time::{Duration, Instant};
use tracing::debug;

/// How long an answer that is on its way when the term ends is waited for: it need not be asked for again then.
const GRACE: Duration = Duration::from_millis(500);

/// Why a pass does not go on.
#[derive(Debug)]
pub(super) enum Cut {
    /// The term ends.
    Stopped,
    /// In words for people, without values.
    Because(String),
    /// HubSpot refuses the request itself.
    Refused(Box<Failed>),
    /// The list does not go on from where it was: it is listed anew.
    Anew(String),
}

impl Cut {
    /// In words for people.
    pub(super) fn words(self) -> String {
        match self {
            Cut::Stopped => "the daemon stops; the next one goes on from here".to_owned(),
            Cut::Because(words) | Cut::Anew(words) => words,
            Cut::Refused(failed) => told(&failed),
        }
    }
}

impl From<Repeats> for Cut {
    fn from(repeats: Repeats) -> Cut {
        Cut::Anew(repeats.to_string())
    }
}

impl From<Stuck> for Cut {
    fn from(stuck: Stuck) -> Cut {
        Cut::Because(stuck.to_string())
    }
}

fn told(failed: &Failed) -> String {
    let advice = match failed.disposition {
        // What is advised for a refused record, or of changes, is no advice here.
        Disposition::Split | Disposition::Reject => "the mirror asks again at its next pass",
        Disposition::Halt { token: false } => {
            "the token lacks a right: give the key the read scopes of what is mirrored, or leave it out of [mirror] \
             objects; the pass goes on from here then"
        }
        Disposition::Retry { .. } | Disposition::Halt { token: true } => failed.advice,
    };
    format!("{}; {advice}", chain(failed))
}

/// What Postgres refuses, and what mends it where that is known.
pub(in crate::daemon) fn mended(error: &postgres::Error) -> String {
    match error.kind {
        ErrorKind::Schema | ErrorKind::Denied => format!(
            "{}; `hubsyncd setup` makes the mirror's tables and grants the daemon's role what it needs",
            chain(error)
        ),
        _ => chain(error),
    }
}

/// Which of HubSpot's limits a request counts against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    /// The rolling window.
    Window,
    /// The searches of a second.
    Search,
}

/// One kind's part of a pull.
pub(super) struct Pass<'a> {
    pub(super) puller: &'a Puller,
    pub(super) kind: Mirrored,
    /// The generation of the lease it began under.
    pub(super) generation: i64,
}

impl Pass<'_> {
    /// Sends a request, again after a while where that may help, and no longer than `give-up` in vain.
    pub(super) async fn ask<'f, T>(
        &self,
        limit: Limit,
        send: impl Fn(Slot) -> BoxFuture<'f, Result<T, Failed>> + Send,
    ) -> Result<T, Cut> {
        let begun = Instant::now();
        let mut pauses = Schedule::new(Duration::from_millis(250), Duration::from_secs(20));
        let mut last: Option<Failed> = None;
        loop {
            let slot = self.slot(limit, begun, last.as_ref()).await?;
            let answer = tokio::select! {
                biased;
                answer = send(slot) => answer,
                () = self.out_of_time() => return Err(Cut::Stopped),
            };
            match answer {
                Ok(answer) => return Ok(answer),
                Err(failed) if failed.is_too_large() => return Err(Cut::Refused(Box::new(failed))),
                Err(failed) => match failed.disposition {
                    Disposition::Retry { .. } => {
                        self.held()?;
                        debug!(kind = self.kind.name(), "asked again: {}", chain(&failed));
                        if begun.elapsed() >= self.puller.give_up {
                            return Err(Cut::Because(told(&failed)));
                        }
                        last = Some(failed);
                        self.rest(pauses.next().min(self.puller.give_up)).await?;
                    }
                    Disposition::Halt { .. } => return Err(Cut::Because(told(&failed))),
                    Disposition::Split | Disposition::Reject => return Err(Cut::Refused(Box::new(failed))),
                },
            }
        }
    }

    async fn slot(&self, limit: Limit, begun: Instant, last: Option<&Failed>) -> Result<Slot, Cut> {
        let pace = self.puller.client.pace();
        if let Some(withheld) = pace.withheld() {
            let words = format!("{withheld}; the pass goes on after the portal's midnight");
            return Err(Cut::Because(words));
        }
        let waited = self.puller.give_up.saturating_sub(begun.elapsed());
        let slot = async {
            match limit {
                Limit::Window => pace.slot(Lane::Mirror).await,
                Limit::Search => pace.search_slot(Lane::Mirror).await,
            }
        };
        tokio::select! {
            biased;
            () = self.puller.stop.cancelled() => Err(Cut::Stopped),
            slot = slot => Ok(slot),
            () = tokio::time::sleep(waited) => Err(Cut::Because(match (pace.halted(), last) {
                (Some(halt), _) => halt.reason,
                (None, Some(last)) => told(last),
                (None, None) => "no request could be sent for as long as [sweep] give-up says".to_owned(),
            })),
        }
    }

    /// Writes to Postgres, again after a while where that may help, and no longer than `give-up` in vain.
    pub(super) async fn write<'f, T>(
        &self,
        work: impl Fn(Lent) -> BoxFuture<'f, Result<T, postgres::Error>> + Send,
    ) -> Result<T, Cut> {
        let begun = Instant::now();
        let mut pauses = Schedule::new(Duration::from_millis(100), Duration::from_secs(5));
        loop {
            self.held()?;
            let done = match self.puller.pool.get().await {
                Ok(session) => work(session).await,
                Err(error) => Err(error),
            };
            match done {
                Ok(done) => return Ok(done),
                Err(error) => {
                    if error.kind == ErrorKind::Fenced {
                        self.puller.lease.gone(self.generation);
                    }
                    let passes = matches!(error.kind, ErrorKind::Unreachable | ErrorKind::Busy);
                    if !passes || begun.elapsed() >= self.puller.give_up {
                        return Err(Cut::Because(mended(&error)));
                    }
                    debug!(kind = self.kind.name(), "written again: {}", chain(&error));
                    self.rest(pauses.next()).await?;
                }
            }
        }
    }

    /// Whether the lease under which the pass began is still held.
    pub(super) fn held(&self) -> Result<(), Cut> {
        if self.puller.lease.pushing() == Some(self.generation) {
            return Ok(());
        }
        if self.puller.stop.is_cancelled() {
            return Err(Cut::Stopped);
        }
        let words = "the lease is not confirmed; whoever holds it next goes on from here";
        Err(Cut::Because(words.to_owned()))
    }

    /// The end of the term, and what is still waited for after it.
    async fn out_of_time(&self) {
        self.puller.stop.cancelled().await;
        tokio::time::sleep(GRACE).await;
    }

    async fn rest(&self, pause: Duration) -> Result<(), Cut> {
        tokio::select! {
            () = tokio::time::sleep(pause) => Ok(()),
            () = self.puller.stop.cancelled() => Err(Cut::Stopped),
        }
    }
}
