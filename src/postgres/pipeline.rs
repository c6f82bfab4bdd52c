//! Pipelining: several statements in one round trip.
//!
//! All are on their way before the first answer is awaited; Postgres runs them in order. Outside a transaction
//! each is its own; inside one, those after a failed one fail with it, and a COMMIT among them rolls back.

use futures::future::maybe_done;
use std::borrow::Cow;
use std::future::{Future, poll_fn};
use std::task::Poll;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

/// One statement with its parameters.
pub(super) struct Step<'a> {
    sql: Cow<'a, str>,
    parameters: Vec<(Box<dyn ToSql + Sync + Send + 'a>, Type)>,
    simple: bool,
}

impl<'a> Step<'a> {
    /// A statement that takes parameters and answers rows.
    pub(super) fn new(sql: impl Into<Cow<'a, str>>) -> Step<'a> {
        Step {
            sql: sql.into(),
            parameters: Vec::new(),
            simple: false,
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

    async fn run(&self, client: &Client) -> Result<Vec<Row>, tokio_postgres::Error> {
        if self.simple {
            client.batch_execute(&self.sql).await?;
            return Ok(Vec::new());
        }
        let parameters: Vec<(&(dyn ToSql + Sync), Type)> = self
            .parameters
            .iter()
            .map(|(value, of)| (&**value as &(dyn ToSql + Sync), of.clone()))
            .collect();
        client.query_typed(&self.sql, &parameters).await
    }
}

/// Sends all steps and awaits all answers; the first failure in their order, if any, is the answer.
pub(super) async fn send(
    client: &Client,
    steps: &[Step<'_>],
) -> Result<Vec<Vec<Row>>, tokio_postgres::Error> {
    let mut answers: Vec<_> = steps
        .iter()
        .map(|step| Box::pin(maybe_done(step.run(client))))
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
    taken
        .map(|answer| answer.expect("every answer was awaited"))
        .collect()
}
