//! What the socket's questions are answered with.

use super::board::{Board, Lease};
use super::door::{Door, chain};
use super::operations::{Operations, Page, Refused, Ticket, TicketState};
use super::sweep::request::{Reason, Requests};
use crate::postgres::connect::Pool;
use crate::postgres::{self, failures, runs};
use crate::sync::report::{Failure, Run};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::sync::{Arc, OnceLock};
use tokio_util::sync::CancellationToken;

/// Answers from the database and the sweeper.
pub(super) struct Answers {
    pub(super) board: Arc<Board>,
    pub(super) pool: Arc<Pool>,
    pub(super) requests: Arc<Requests>,
    pub(super) door: Arc<OnceLock<Arc<Door>>>,
    pub(super) stop: CancellationToken,
}

impl Operations for Answers {
    fn request_sweep(&self, reason: &'static str) -> Result<Ticket, Refused> {
        self.refuse_standby()?;
        let reason = if reason == Reason::Manual.word() {
            Reason::Manual
        } else {
            Reason::Socket
        };
        let ticket = self.requests.ask(reason);
        let state = if ticket.started {
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
            let mut items = runs::list(&session, after.as_deref(), limit + 1)
                .await
                .map_err(unavailable)?;
            let more = items.len() > limit;
            items.truncate(limit);
            let next = if more {
                items.last().map(|run| run.id.clone())
            } else {
                None
            };
            Ok(Page { items, next })
        }
        .boxed()
    }

    fn failures(&self, after: Option<String>, limit: usize) -> BoxFuture<'_, Result<Page<Failure>, Refused>> {
        async move {
            let session = self.pool.get().await.map_err(unavailable)?;
            let listed = failures::list(&session, after.as_deref(), limit).await;
            let (items, next) = listed.map_err(unavailable)?;
            Ok(Page { items, next })
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
            if named == 0
                && let Some(key) = key
            {
                return Err(Refused::Unknown(key));
            }
            if let Some(door) = self.door.get() {
                door.desk.named();
            }
            Ok(named)
        }
        .boxed()
    }
}

impl Answers {
    fn refuse_standby(&self) -> Result<(), Refused> {
        match self.board.state().lease {
            Lease::Standby(holder) => Err(Refused::Standby(holder)),
            Lease::Held | Lease::Unknown => Ok(()),
        }
    }
}

fn unavailable(error: postgres::Error) -> Refused {
    Refused::Unavailable(chain(&error))
}
