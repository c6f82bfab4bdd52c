//! Pipelining: several statements in one round trip.
//!
//! All are on their way before the first answer is awaited; Postgres runs them in order. Outside a transaction
//! each is its own; inside one, those after a failed one fail with it, and a COMMIT among them rolls back.

use super::Session;
use super::kept::How;
use futures::future::maybe_done;
use std::borrow::Cow;
use std::future::{Future, poll_fn};
use std::task::Poll;
use std::time::Instant;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Error, Row};

/// One statement with its parameters.
pub(super) struct Step<'a> {
    sql: Cow<'a, str>,
    parameters: Vec<(Box<dyn ToSql + Sync + Send + 'a>, Type)>,
    simple: bool,
    kept: bool,
}

impl<'a> Step<'a> {
    /// A statement that takes parameters and answers rows.
    pub(super) fn new(sql: impl Into<Cow<'a, str>>) -> Step<'a> {
        Step {
            sql: sql.into(),
            parameters: Vec::new(),
            simple: false,
            kept: false,
        }
    }

    /// One or more statements without parameters or rows.
    pub(super) fn simple(sql: impl Into<Cow<'a, str>>) -> Step<'a> {
        Step {
            simple: true,
            ..Step::new(sql)
        }
    }

    /// Adds the next parameter, `$1` first.
    pub(super) fn with(mut self, value: impl ToSql + Sync + Send + 'a, of: Type) -> Step<'a> {
        self.parameters.push((Box::new(value), of));
        self
    }

    /// The session may keep this statement, whose text comes again and again: its plan must be a good one for any
    /// parameters and for a table that has grown meanwhile.
    pub(super) fn kept(mut self) -> Step<'a> {
        self.kept = true;
        self
    }

    async fn run(&self, session: &Session) -> Result<Vec<Row>, Error> {
        if self.simple {
            session.batch_execute(&self.sql).await?;
            return Ok(Vec::new());
        }
        let how = if self.kept {
            session.kept().find(&self.sql, Instant::now())
        } else {
            How::Spelt
        };
        match how {
            How::Spelt => self.spell(session).await,
            How::Prepare => {
                let types: Vec<Type> = self.parameters.iter().map(|(_, of)| of.clone()).collect();
                // In this order, one behind the other. What cannot be prepared is told by the use of it.
                let (rows, prepared) =
                    futures::join!(self.spell(session), session.prepare_typed(&self.sql, &types));
                if let Ok(statement) = prepared {
                    session.kept().keep(&self.sql, statement, Instant::now());
                }
                rows
            }
            How::Prepared(statement) => {
                let parameters: Vec<&(dyn ToSql + Sync)> = self
                    .parameters
                    .iter()
                    .map(|(value, _)| &**value as &(dyn ToSql + Sync))
                    .collect();
                session.query(&statement, &parameters).await
            }
        }
    }

    async fn spell(&self, session: &Session) -> Result<Vec<Row>, Error> {
        let parameters: Vec<(&(dyn ToSql + Sync), Type)> = self
            .parameters
            .iter()
            .map(|(value, of)| (&**value as &(dyn ToSql + Sync), of.clone()))
            .collect();
        session.query_typed(&self.sql, &parameters).await
    }
}

/// Sends all steps and awaits all answers; the first failure in their order, if any, is the answer.
pub(super) async fn send(session: &Session, steps: &[Step<'_>]) -> Result<Vec<Vec<Row>>, Error> {
    let mut answers: Vec<_> = steps
        .iter()
        .map(|step| Box::pin(maybe_done(step.run(session))))
        .collect();
    // Polled in order, always: the first poll is what puts a statement on its way.
    poll_fn(|context| {
        let mut waiting = false;
        for answer in &mut answers {
            waiting |= answer.as_mut().poll(context).is_pending();
        }
        if waiting { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    let taken = answers.iter_mut().map(|answer| answer.as_mut().take_output());
    let taken: Result<Vec<Vec<Row>>, Error> = taken
        .map(|answer| answer.expect("every answer was awaited"))
        .collect();
    if taken.is_err() {
        session.kept().forget();
    }
    taken
}
