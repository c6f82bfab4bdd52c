//! The mirror's routes: pulls, where the kinds stand, and their records.
//!
//! Records come from Postgres and, where it cannot be asked or is not wanted, from HubSpot. They are passed on page by
//! page as they were written there: nobody reads them on the way, and an answer of a thousand takes the room of a hundred.

use super::guard::MIRROR;
use super::parameters::{Parameters, check_parameters};
use super::routes::{Desk, Failure, Shared, Waiting, acting, failure, refused, soon, words};
use crate::daemon::mirror::request::{Extent, Reason};
use crate::daemon::mirror::state::MirrorState;
use crate::daemon::operations::{MirrorPage, Operations, Refused};
use crate::mapping::Mirrored;
use crate::sync::mirror::{COMPLAINTS_MAX, Complaint, Pulled};
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures::{StreamExt, stream};
use serde::Serialize;
use std::sync::Arc;

/// Records that are asked for at a time.
const PAGE: usize = 100;
/// Records that are answered at most.
const LIMIT_MAX: usize = 1_000;
/// Characters of a cursor at most: an id has no more digits, and HubSpot's own cursors are no longer.
const CURSOR_MAX: usize = 128;
/// What is said of another cursor.
const CURSOR: &str = "after is paging.next.after of an earlier page, or left out for the first one";

/// The mirror's routes.
pub(super) fn routes() -> Router<Arc<Desk>> {
    Router::new()
        .route(&format!("{MIRROR}sync/status"), get(status))
        .route(&format!("{MIRROR}sync/{{kinds}}"), acting(sync))
        .route(&format!("{MIRROR}{{kind}}"), get(records))
}

/// What a pull did, in the words of the documents.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Synced {
    success: bool,
    synced: u64,
    updated: u64,
    errors: u64,
    error_messages: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Synced {
    fn of(pulled: &Pulled, kinds: &[Mirrored]) -> Synced {
        let mut sum = Synced::default();
        let mut cut = Vec::new();
        for kind in kinds {
            let (tally, error) = pulled.of(*kind);
            sum.synced += tally.synced;
            sum.updated += tally.updated;
            sum.errors += tally.errors;
            let room = COMPLAINTS_MAX.saturating_sub(sum.error_messages.len());
            let told = tally.complaints.iter().take(room).map(told);
            sum.error_messages.extend(told);
            cut.extend(error.map(|error| format!("{}: {error}", kind.name())));
        }
        Synced {
            success: cut.is_empty(),
            error: (!cut.is_empty()).then(|| cut.join("; ")),
            ..sum
        }
    }
}

/// A record and why it could not be stored.
fn told(complaint: &Complaint) -> String {
    match &complaint.id {
        Some(id) => format!("{id}: {}", complaint.reason),
        None => format!("a record without an id: {}", complaint.reason),
    }
}

/// Pulls, and answers what came of it.
async fn sync(
    State(desk): Shared,
    Path(named): Path<String>,
    Parameters(parameters): Parameters,
) -> Result<Response, Failure> {
    let one = match named.as_str() {
        "all" => None,
        name => Some(Mirrored::named(name).ok_or_else(unknown)?),
    };
    check_parameters(&parameters, &["limit"])?;
    let extent = match parameters.get("limit").map(|limit| limit.parse()) {
        None => Extent::Full,
        Some(Ok(limit)) if limit > 0 => Extent::First(limit),
        Some(_) => {
            let words = "limit is a number of records from 1 up, or left out for all of them";
            return Err(failure(StatusCode::BAD_REQUEST, words));
        }
    };
    let mirror = mirror(&desk, one)?;
    let kinds: Vec<Mirrored> = match one {
        Some(kind) => vec![kind],
        None => mirror.kinds.iter().map(|standing| standing.kind).collect(),
    };
    let _place = Waiting::enter(&desk)?;
    let operations = &desk.context.operations;
    let ticket = operations.pull(Reason::Socket, &kinds, extent).map_err(refused)?;
    let pulled = operations.pulled(ticket.id).await.map_err(refused)?;
    let answer = Synced::of(&pulled, &kinds);
    let code = match answer.success {
        true => StatusCode::OK,
        false => StatusCode::BAD_GATEWAY,
    };
    Ok((code, Json(answer)).into_response())
}

fn unknown() -> Failure {
    failure(StatusCode::NOT_FOUND, "there is no such route")
}

/// The mirror, if it is on and has this kind.
fn mirror(desk: &Desk, kind: Option<Mirrored>) -> Result<MirrorState, Failure> {
    let off = |words: String| failure(StatusCode::SERVICE_UNAVAILABLE, words);
    let mirror = desk.context.board.state().mirror.ok_or_else(|| {
        off(
            "the mirror is off: it is switched on by a [mirror] section in the configuration, and a reload"
                .to_owned(),
        )
    })?;
    match kind.filter(|kind| mirror.kind(*kind).is_none()) {
        None => Ok(mirror),
        Some(kind) => {
            let name = kind.name();
            Err(off(format!(
                "{name} are not mirrored: mirror.objects in the configuration leaves them out"
            )))
        }
    }
}

/// Where the kinds stand; null for one that is not mirrored.
async fn status(State(desk): Shared, Parameters(parameters): Parameters) -> Result<Response, Failure> {
    check_parameters(&parameters, &[])?;
    let mirror = mirror(&desk, None)?;
    let standings = soon(desk.context.operations.standings()).await?;
    let entries: Vec<String> = Mirrored::ALL
        .iter()
        .map(|kind| {
            let told = standings.iter().find(|(name, _)| name == kind.name());
            let told = told.filter(|_| mirror.kind(*kind).is_some());
            let told = told.map_or("null", |(_, told)| told);
            format!("\"{}\":{told}", kind.name())
        })
        .collect();
    Ok(json(Body::from(format!("{{{}}}", entries.join(",")))))
}

fn json(body: Body) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// Which records are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    kind: Mirrored,
    limit: usize,
    after: Option<String>,
}

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Postgres,
    HubSpot,
}

async fn records(
    State(desk): Shared,
    Path(kind): Path<String>,
    Parameters(mut parameters): Parameters,
) -> Result<Response, Failure> {
    let kind = Mirrored::named(&kind).ok_or_else(unknown)?;
    check_parameters(&parameters, &["limit", "after", "useSync"])?;
    let refuse = |words: String| failure(StatusCode::BAD_REQUEST, words);
    let default = match kind {
        Mirrored::Contacts | Mirrored::Companies => 50,
        Mirrored::Deals => 100,
    };
    let limit = match parameters.get("limit").map(|limit| limit.parse()) {
        None => default,
        Some(Ok(limit)) if (1..=LIMIT_MAX).contains(&limit) => limit,
        Some(_) => return Err(refuse(format!("limit is a number from 1 to {LIMIT_MAX}"))),
    };
    let from_postgres = match parameters.get("useSync").map(String::as_str) {
        None | Some("true") => true,
        Some("false") => false,
        Some(_) => return Err(refuse("useSync is true or false".to_owned())),
    };
    let after = parameters.remove("after");
    // Our pages are named by ids; HubSpot's by whatever it likes, and it is HubSpot that judges them.
    let allowed = |byte: u8| match from_postgres {
        true => byte.is_ascii_digit(),
        false => byte.is_ascii_graphic(),
    };
    let is_cursor = |after: &String| (1..=CURSOR_MAX).contains(&after.len()) && after.bytes().all(allowed);
    if !after.as_ref().is_none_or(is_cursor) {
        return Err(refuse(CURSOR.to_owned()));
    }
    mirror(&desk, Some(kind))?;
    let wanted = Wanted { kind, limit, after };
    let operations = Arc::clone(&desk.context.operations);
    if !from_postgres {
        return answered(operations, wanted, Source::HubSpot, String::new()).await;
    }
    let read = first(&operations, &wanted, Source::Postgres).await;
    match read {
        Ok(page) => {
            if let Some(past) = desk.unread[kind as usize].succeeded() {
                tracing::info!(kind = kind.name(), "the mirror can be read again, {past}");
            }
            let mut more = String::new();
            if page.stale {
                more.push_str(",\"stale\":true");
                // A standby cannot; the one that pulls has a clock of its own. Nor is HubSpot asked for every answer anew
                // where it has just refused.
                let _ = operations.pull(Reason::Stale, &[kind], Extent::Full);
            }
            Ok(told_by(operations, wanted, Source::Postgres, page, more))
        }
        Err(why) => {
            if let Some(still) = desk.unread[kind as usize].failed() {
                tracing::warn!(
                    kind = kind.name(),
                    "{still}the mirror cannot be read, HubSpot is asked instead: {}",
                    why.words
                );
            }
            let more = format!(",\"fallback\":{}", serde_json::Value::from(why.words.as_str()));
            answered(operations, wanted, Source::HubSpot, more)
                .await
                .map_err(|other| {
                    failure(
                        other.code,
                        format!("{}; and the mirror cannot be read: {}", other.words, why.words),
                    )
                })
        }
    }
}

/// The first page, which decides whether there is an answer.
async fn first(
    operations: &Arc<dyn Operations>,
    wanted: &Wanted,
    source: Source,
) -> Result<MirrorPage, Failure> {
    let (kind, after, limit) = (wanted.kind, wanted.after.clone(), wanted.limit.min(PAGE));
    match source {
        Source::Postgres => soon(operations.mirrored(kind, after, limit)).await,
        Source::HubSpot => {
            let page = operations.in_hubspot(kind, after, limit).await;
            page.map_err(|refusal| match refusal {
                Refused::Unavailable(_) => failure(StatusCode::BAD_GATEWAY, words(&refusal)),
                Refused::Unknown(_) => failure(
                    StatusCode::BAD_REQUEST,
                    format!("{CURSOR}; HubSpot does not know this one"),
                ),
                Refused::Standby(_) => refused(refusal),
            })
        }
    }
}

async fn answered(
    operations: Arc<dyn Operations>,
    wanted: Wanted,
    source: Source,
    more: String,
) -> Result<Response, Failure> {
    let page = first(&operations, &wanted, source).await?;
    Ok(told_by(operations, wanted, source, page, more))
}

/// What is left to be said.
struct Telling {
    operations: Arc<dyn Operations>,
    wanted: Wanted,
    source: Source,
    /// The page to be said next; `None`: the end was said.
    page: Option<MirrorPage>,
    said: usize,
    more: String,
}

/// The answer that begins with this page. Pages after it are read while it is sent; where one cannot be, the answer
/// ends without its end.
fn told_by(
    operations: Arc<dyn Operations>,
    wanted: Wanted,
    source: Source,
    page: MirrorPage,
    more: String,
) -> Response {
    let begin = format!("{{\"{}\":[", wanted.kind.name());
    let telling = Telling {
        operations,
        wanted,
        source,
        page: Some(page),
        said: 0,
        more,
    };
    let pages = stream::try_unfold(telling, |telling| Box::pin(telling.go_on()));
    let begin = stream::iter([Ok(Bytes::from(begin))]);
    json(Body::from_stream(begin.chain(pages)))
}

impl Telling {
    async fn go_on(mut self) -> std::io::Result<Option<(Bytes, Telling)>> {
        let Some(page) = self.page.take() else {
            return Ok(None);
        };
        let mut text = String::new();
        for record in &page.records {
            if self.said > 0 {
                text.push(',');
            }
            text.push_str(record);
            self.said += 1;
        }
        let left = self.wanted.limit.saturating_sub(self.said);
        match page.next {
            Some(next) if left > 0 => {
                let wanted = Wanted {
                    limit: left,
                    after: Some(next),
                    ..self.wanted.clone()
                };
                let read = first(&self.operations, &wanted, self.source).await;
                self.page = Some(read.map_err(|why| std::io::Error::other(why.words))?);
            }
            next => text.push_str(&self.end(next.as_deref())),
        }
        Ok(Some((Bytes::from(text), self)))
    }

    fn end(&self, next: Option<&str>) -> String {
        let next = next.map_or_else(
            || "null".to_owned(),
            |next| format!("{{\"after\":{}}}", serde_json::Value::from(next)),
        );
        let source = match self.source {
            Source::Postgres => "\"source\":\"postgres\",\"synced\":true",
            Source::HubSpot => "\"source\":\"hubspot\",\"synced\":false",
        };
        format!("],\"paging\":{{\"next\":{next}}},{source}{}}}", self.more)
    }
}
