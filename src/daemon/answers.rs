//! What the socket's questions are answered with.

use super::board::{Board, Lease};
use super::exit::USAGE;
use super::glance::Glance;
use super::mirror::mended;
use super::mirror::request::{self, Extent, Pulls};
use super::operations::{
    MirrorPage, NotReloaded, Operations, Page, Refused, Ticket, TicketState, WaitingRow,
};
use super::outlook::explain::{Explanation, explain};
use super::reload::{Ask, Reloaded};
use super::sweep::request::{Reason, Requests};
use super::term::Doorway;
use crate::config::Config;
use crate::mapping::Mirrored;
use crate::postgres::connect::Pool;
use crate::postgres::{self, ErrorKind, causes, failures, mirrored, runs};
use crate::sync::backlog::Stage;
use crate::sync::mirror::Pulled;
use crate::sync::report::{Cause, CauseName, Failure, Run, chain};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

/// How often somebody who waits for a pull looks whether another daemon holds the lease.
const LEASE_LOOK: Duration = Duration::from_secs(1);

/// Answers from the database and the sweeper.
pub(super) struct Answers {
    pub(super) board: Arc<Board>,
    pub(super) pool: Arc<Pool>,
    pub(super) requests: Arc<Requests>,
    pub(super) pulls: Arc<Pulls>,
    pub(super) doorway: Arc<Doorway>,
    pub(super) reloads: mpsc::Sender<Ask>,
    pub(super) live: watch::Receiver<Arc<Config>>,
    /// Held while a record is explained.
    pub(super) glance: Glance,
    pub(super) explaining: tokio::sync::Mutex<()>,
    pub(super) stop: CancellationToken,
}

impl Operations for Answers {
    fn request_sweep(&self, reason: &'static str, archive: bool) -> Result<Ticket, Refused> {
        self.refuse_standby()?;
        let reason = if reason == Reason::Manual.word() {
            Reason::Manual
        } else {
            Reason::Socket
        };
        let ticket = self.requests.ask_for(reason, None, archive);
        // Without the lease it waits for it, as behind a sweep that runs.
        let state = if ticket.started && self.board.lease() == Lease::Held {
            TicketState::Started
        } else {
            TicketState::Queued
        };
        Ok(Ticket { id: ticket.id, state })
    }

    fn wait(&self, id: String) -> BoxFuture<'_, Result<Run, Refused>> {
        async move {
            let ended = tokio::select! {
                run = self.requests.wait(&id) => run,
                () = self.stop.cancelled() => None,
            };
            ended.ok_or_else(|| Refused::Unavailable("the daemon stops".to_owned()))
        }
        .boxed()
    }

    fn runs(&self, after: Option<String>, limit: usize) -> BoxFuture<'_, Result<Page<Run>, Refused>> {
        async move {
            let session = self.pool.get().await.map_err(unavailable)?;
            let page = runs::list(&session, after.as_deref(), limit).await;
            let runs::Page { runs: items, next } = page.map_err(|error| match error.kind {
                ErrorKind::Rows => Refused::Unknown(place(after.as_deref())),
                _ => unavailable(error),
            })?;
            Ok(Page { items, next })
        }
        .boxed()
    }

    fn failures(&self, after: Option<String>, limit: usize) -> BoxFuture<'_, Result<Page<Failure>, Refused>> {
        async move {
            let cursor = after.as_deref().map(str::parse::<failures::Cursor>).transpose();
            let cursor = cursor.map_err(|_| Refused::Unknown(place(after.as_deref())))?;
            let session = self.pool.get().await.map_err(unavailable)?;
            let page = failures::list(&session, cursor.as_ref(), limit)
                .await
                .map_err(unavailable)?;
            let next = page.next.map(|cursor| cursor.to_string());
            Ok(Page {
                items: page.failures.into_iter().map(reported).collect(),
                next,
            })
        }
        .boxed()
    }

    fn retry(&self, object: Option<String>, key: Option<String>) -> BoxFuture<'_, Result<u64, Refused>> {
        async move {
            self.refuse_standby()?;
            let session = self.pool.get().await.map_err(unavailable)?;
            let named = failures::retry(&session, object.as_deref(), key.as_deref())
                .await
                .map_err(unavailable)?;
            if let Some(door) = self.doorway.door() {
                door.try_paused(object.as_deref());
            }
            if named == 0 {
                self.refuse_unknown(object, key)?;
            }
            if let Some(door) = self.doorway.door() {
                door.desk.named();
            }
            Ok(named)
        }
        .boxed()
    }

    fn causes(&self, limit: usize) -> BoxFuture<'_, Result<(Vec<Cause>, u64), Refused>> {
        async move {
            let session = self.pool.get().await.map_err(unavailable)?;
            causes::list(&session, limit).await.map_err(unavailable)
        }
        .boxed()
    }

    fn retry_cause(&self, cause: CauseName) -> BoxFuture<'_, Result<u64, Refused>> {
        async move {
            if cause.category == "paused" {
                return self.retry(Some(cause.object), None).await;
            }
            self.refuse_standby()?;
            let session = self.pool.get().await.map_err(unavailable)?;
            let named = causes::retry(&session, &cause).await.map_err(unavailable)?;
            if let Some(door) = self.doorway.door() {
                door.desk.named();
            }
            Ok(named)
        }
        .boxed()
    }

    fn explain(&self, object: String, key: String) -> BoxFuture<'_, Result<Explanation, Refused>> {
        async move {
            // Each asks HubSpot, out of the budget that the changes have.
            let turn = self.explaining.try_lock();
            let _turn =
                turn.map_err(|_| Refused::Unavailable("another record is being explained".to_owned()))?;
            let config = Config::clone(&self.live.borrow());
            let client = self.doorway.door().map(|door| Arc::clone(&door.client));
            let told = Box::pin(explain(config, client, &object, &key)).await;
            told.map_err(|exit| match exit.code {
                USAGE => Refused::Unknown(format!("{object} {key}")),
                _ => Refused::Unavailable(chain(&*exit.error)),
            })
        }
        .boxed()
    }

    fn waiting(&self, limit: usize) -> Option<Vec<WaitingRow>> {
        let door = self
            .doorway
            .door()
            .filter(|_| self.board.lease() == Lease::Held)?;
        let objects = self.board.objects();
        let now = door.desk.now();
        let shown = door.desk.backlog().shown(limit, now);
        let rows = shown.into_iter().filter_map(|row| {
            Some(WaitingRow {
                object: objects.get(row.object)?.name.clone(),
                key: row.key.to_string(),
                waited: row.arrived.map(|arrived| now.saturating_sub(arrived)),
                attempts: row.attempts,
                stage: match row.stage {
                    Stage::BackOff(until) => Stage::BackOff(until.saturating_sub(now)),
                    other => other,
                },
            })
        });
        Some(rows.collect())
    }

    fn pull(
        &self,
        reason: request::Reason,
        kinds: &[Mirrored],
        extent: Extent,
    ) -> Result<request::Ticket, Refused> {
        self.refuse_standby()?;
        if reason == request::Reason::Stale && self.pulls.rests() {
            let words = "the last pull was cut short a moment ago; the clock asks for the next one";
            return Err(Refused::Unavailable(words.to_owned()));
        }
        let live = self.live.borrow();
        let off = || Refused::Unknown("mirror: [mirror] is not in the configuration".to_owned());
        let mirror = live.mirror.as_ref().ok_or_else(off)?;
        if let Some(kind) = kinds.iter().find(|kind| !mirror.objects.contains(kind)) {
            let words = format!("mirror of {}: mirror.objects leaves it out", kind.name());
            return Err(Refused::Unknown(words));
        }
        let wanted: Vec<(Mirrored, Extent)> = kinds.iter().map(|kind| (*kind, extent)).collect();
        Ok(self.pulls.ask(reason, &wanted))
    }

    fn pulled(&self, id: String) -> BoxFuture<'_, Result<Arc<Pulled>, Refused>> {
        async move {
            // Who asks before it is known who holds the lease is told once another daemon turns out to.
            let stands_by = async {
                while self.pulls.runs(&id) || self.refuse_standby().is_ok() {
                    tokio::time::sleep(LEASE_LOOK).await;
                }
            };
            tokio::select! {
                Some(pulled) = self.pulls.wait(&id) => return Ok(pulled),
                () = stands_by => self.refuse_standby()?,
                () = self.stop.cancelled() => {}
            }
            Err(Refused::Unavailable("the daemon stops".to_owned()))
        }
        .boxed()
    }

    fn mirrored(
        &self,
        kind: Mirrored,
        from: Option<String>,
        limit: usize,
    ) -> BoxFuture<'_, Result<MirrorPage, Refused>> {
        async move {
            let session = self.pool.get().await.map_err(unavailable)?;
            let page = mirrored::page(&session, kind, from.as_deref(), limit).await;
            let page = page.map_err(|error| Refused::Unavailable(mended(&error)))?;
            Ok(MirrorPage {
                records: page.records,
                next: page.next,
                stale: page.stale,
            })
        }
        .boxed()
    }

    fn in_hubspot(
        &self,
        kind: Mirrored,
        from: Option<String>,
        limit: usize,
    ) -> BoxFuture<'_, Result<MirrorPage, Refused>> {
        async move { self.glance.page(kind, from.as_deref(), limit).await }.boxed()
    }

    fn standings(&self) -> BoxFuture<'_, Result<Vec<(String, String)>, Refused>> {
        async move {
            let session = self.pool.get().await.map_err(unavailable)?;
            let standings = mirrored::standings(&session).await;
            standings.map_err(|error| Refused::Unavailable(mended(&error)))
        }
        .boxed()
    }

    fn reload(&self) -> BoxFuture<'_, Result<Reloaded, NotReloaded>> {
        async move {
            let (answer, reloaded) = oneshot::channel();
            let asked = self.reloads.send(Some(answer)).await;
            asked.map_err(|_| NotReloaded::Stopping)?;
            match reloaded.await {
                Ok(Ok(reloaded)) => Ok(reloaded),
                Ok(Err(problems)) => Err(NotReloaded::Refused(problems)),
                Err(_) => Err(NotReloaded::Stopping),
            }
        }
        .boxed()
    }
}

impl Answers {
    /// Nothing of that name has failed: says so if that cannot be what was meant.
    fn refuse_unknown(&self, object: Option<String>, key: Option<String>) -> Result<(), Refused> {
        let Some(object) = object else { return Ok(()) };
        let known = self.board.objects();
        if known.iter().all(|known| known.name != object) {
            let mapped: Vec<&str> = known.iter().map(|known| known.name.as_str()).collect();
            let words = format!("object `{object}`; mapped are {}", mapped.join(", "));
            return Err(Refused::Unknown(words));
        }
        match key {
            Some(key) => Err(Refused::Unknown(format!("failure of {object} {key}"))),
            None => Ok(()),
        }
    }

    fn refuse_standby(&self) -> Result<(), Refused> {
        match self.board.state().lease {
            Lease::Standby(holder) => Err(Refused::Standby(holder)),
            Lease::Held | Lease::Unknown => Ok(()),
        }
    }
}

/// Where a page was to begin, as a refusal names it.
fn place(after: Option<&str>) -> String {
    format!("page after `{}`", after.unwrap_or_default())
}

fn unavailable(error: postgres::Error) -> Refused {
    Refused::Unavailable(chain(&error))
}

/// A failure as operators are told it.
fn reported(failure: failures::Failure) -> Failure {
    Failure {
        object: failure.object,
        key: Some(failure.key).filter(|key| !key.is_empty()),
        hubspot_id: failure.hubspot_id,
        category: failure.category,
        message: failure.message,
        correlation_id: failure.correlation_id,
        attempts: u64::try_from(failure.attempts).unwrap_or_default(),
        first_failed_at: failure.first_failed_at,
        last_failed_at: failure.last_failed_at,
    }
}
