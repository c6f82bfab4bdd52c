//! The routes and their answers.

use super::Context;
use super::dashboard;
use super::guard::{Gate, TRIGGER, guard};
use super::mirror;
use super::parameters::{Parameters, check_parameters};
use crate::daemon::health::{self, Verdict};
use crate::daemon::operations::{NotReloaded, Page, Refused, TicketState};
use crate::daemon::status::{Status, TriggerAnswer, ordered};
use crate::daemon::trouble::Trouble;
use crate::mapping::Mirrored;
use crate::sync::report::{self, Run, Summary};
use axum::extract::State;
use axum::handler::Handler;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router, middleware};
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// How long a loop of the daemon may not turn before the process counts as stuck.
const STALL_LIMIT: Duration = Duration::from_secs(30);
/// How long the database may take to answer what a client asks for.
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);
/// Clients that wait for a sweep or a pull at one time; fewer than connections, so that others are still answered.
const WAITING_MAX: usize = 32;
/// Items of a list that are sent if nobody says how many, and at most.
const PAGE_DEFAULT: usize = 50;
const PAGE_MAX: usize = 500;

pub(super) type Shared = State<Arc<Desk>>;

/// What the routes of one listener share.
pub(super) struct Desk {
    pub(super) context: Arc<Context>,
    pub(super) gate: Gate,
    /// That a kind of the mirror cannot be read, by kind.
    pub(super) unread: [Trouble; 3],
    waiting: AtomicUsize,
}

/// Every route.
pub(super) fn everything(context: Arc<Context>, gate: Gate) -> Router {
    let acting = Router::new()
        .route("/status", get(status))
        .route("/sweep", post(sweep))
        .route("/runs", get(runs))
        .route("/failures", get(failures))
        .route("/failures/retry", post(retry))
        .route("/reload", post(reload))
        .route(TRIGGER, acting(trigger));
    let all = observed()
        .merge(acting)
        .merge(mirror::routes())
        .merge(dashboard::pages());
    finish(all, context, gate)
}

/// What everybody on the machine may ask.
pub(super) fn observing(context: Arc<Context>, gate: Gate) -> Router {
    finish(observed(), context, gate)
}

fn observed() -> Router<Arc<Desk>> {
    Router::new()
        .route("/livez", get(livez))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
}

/// A route that acts by GET and by POST, and by nothing else: HEAD is for who wants to know, and must not act.
pub(super) fn acting<H: Handler<T, Arc<Desk>>, T: 'static>(handler: H) -> MethodRouter<Arc<Desk>> {
    let refuse = || async {
        let refusal = failure(StatusCode::METHOD_NOT_ALLOWED, "ask with GET or POST");
        ([(header::ALLOW, "GET,POST")], refusal).into_response()
    };
    MethodRouter::new()
        .get(handler.clone())
        .post(handler)
        .head(refuse)
        .fallback(refuse)
}

fn finish(router: Router<Arc<Desk>>, context: Arc<Context>, gate: Gate) -> Router {
    let desk = Desk {
        context,
        gate: gate.clone(),
        unread: Mirrored::ALL.map(|_| Trouble::new()),
        waiting: AtomicUsize::new(0),
    };
    router
        .fallback(|| async { failure(StatusCode::NOT_FOUND, "there is no such route") })
        .method_not_allowed_fallback(|| async {
            failure(StatusCode::METHOD_NOT_ALLOWED, "this method does nothing here")
        })
        .layer(middleware::from_fn_with_state(gate, guard))
        .with_state(Arc::new(desk))
}

/// An answer that is none: `{"error": words}`, and the holder's name where somebody else must be asked.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) code: StatusCode,
    pub(super) words: String,
    holder: Option<String>,
}

pub(super) fn failure(code: StatusCode, words: impl Into<String>) -> Failure {
    Failure {
        code,
        words: words.into(),
        holder: None,
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut body = json!({ "error": self.words });
        if let Some(holder) = self.holder {
            body["holder"] = holder.into();
        }
        (self.code, Json(body)).into_response()
    }
}

async fn livez(State(desk): Shared) -> Response {
    let stalled = desk.context.board.stalled(STALL_LIMIT);
    let (code, body) = if stalled.is_empty() {
        (StatusCode::OK, json!({ "status": "pass" }))
    } else {
        let output = format!("these loops do not turn: {}", stalled.join(", "));
        (
            StatusCode::SERVICE_UNAVAILABLE,
            json!({ "status": "fail", "output": output }),
        )
    };
    (
        code,
        [(header::CONTENT_TYPE, "application/health+json")],
        body.to_string(),
    )
        .into_response()
}

async fn health(State(desk): Shared) -> Response {
    let context = &desk.context;
    let limits = (context.limits)();
    let verdict: Verdict = health::verdict(
        &context.board.state(),
        &limits.health,
        limits.every,
        Instant::now(),
        wall_micros(),
    );
    let code = match verdict.status {
        health::Status::Fail => StatusCode::SERVICE_UNAVAILABLE,
        health::Status::Pass | health::Status::Warn => StatusCode::OK,
    };
    let body = serde_json::to_string(&verdict).expect("names and numbers always have a JSON form");
    (code, [(header::CONTENT_TYPE, "application/health+json")], body).into_response()
}

pub(super) fn wall_micros() -> i64 {
    let since_epoch = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX)
}

async fn metrics(State(desk): Shared) -> Response {
    let format = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, format)], desk.context.board.metrics()).into_response()
}

async fn status(State(desk): Shared) -> Response {
    let board = &desk.context.board;
    Json(Status::of(
        board.state(),
        &board.objects(),
        Instant::now(),
        wall_micros(),
    ))
    .into_response()
}

async fn sweep(State(desk): Shared, Parameters(parameters): Parameters) -> Result<Response, Failure> {
    check_parameters(&parameters, &["wait", "archive"])?;
    let wait = match parameters.get("wait").map(String::as_str) {
        None | Some("false") => false,
        Some("true" | "") => true,
        Some(_) => return Err(failure(StatusCode::BAD_REQUEST, "wait is true or false")),
    };
    let archive = match parameters.get("archive").map(String::as_str) {
        None => false,
        Some("go") => true,
        Some(_) => return Err(failure(StatusCode::BAD_REQUEST, "archive is go, or left out")),
    };
    let place = if wait { Some(Waiting::enter(&desk)?) } else { None };
    let ticket = desk
        .context
        .operations
        .request_sweep("socket", archive)
        .map_err(refused)?;
    if place.is_none() {
        return Ok((StatusCode::ACCEPTED, Json(ticket)).into_response());
    }
    let run = desk.context.operations.wait(ticket.id).await.map_err(refused)?;
    Ok(Json(ordered(run, &desk.context.board.objects())).into_response())
}

/// The documented manual trigger.
async fn trigger(State(desk): Shared) -> Result<Response, Failure> {
    let _place = Waiting::enter(&desk)?;
    let names = desk.context.board.objects();
    let ran = match desk.context.operations.request_sweep("manual", false) {
        Ok(ticket) => {
            if ticket.state == TicketState::Queued {
                tracing::info!(run.id = %ticket.id, "the trigger waits for the sweep after the one that runs");
            }
            desk.context.operations.wait(ticket.id).await
        }
        Err(refusal) => Err(refusal),
    };
    let (code, answer) = match ran {
        Ok(run) => {
            let answer = TriggerAnswer::of(&run, &names);
            let code = if answer.is_success() {
                StatusCode::OK
            } else {
                StatusCode::INTERNAL_SERVER_ERROR
            };
            (code, answer)
        }
        Err(refusal) => {
            let code = match refusal {
                Refused::Standby(_) => StatusCode::CONFLICT,
                Refused::Unavailable(_) | Refused::Unknown(_) => StatusCode::INTERNAL_SERVER_ERROR,
            };
            (
                code,
                TriggerAnswer::failed(words(&refusal), &Summary::default(), &names),
            )
        }
    };
    Ok((code, Json(answer)).into_response())
}

/// Fields of a struct keep their order, summaries that of the mapping; those of a JSON value are sorted.
#[derive(Serialize)]
struct Runs {
    runs: Vec<Run>,
    next: Option<String>,
}

#[derive(Serialize)]
struct Failures {
    failures: Vec<report::Failure>,
    next: Option<String>,
}

async fn runs(State(desk): Shared, Parameters(parameters): Parameters) -> Result<Response, Failure> {
    let (after, limit) = page_of(&parameters)?;
    let page: Page<Run> = soon(desk.context.operations.runs(after, limit)).await?;
    let names = desk.context.board.objects();
    let runs: Vec<Run> = page.items.into_iter().map(|run| ordered(run, &names)).collect();
    let next = page.next;
    Ok(Json(Runs { runs, next }).into_response())
}

async fn failures(State(desk): Shared, Parameters(parameters): Parameters) -> Result<Response, Failure> {
    let (after, limit) = page_of(&parameters)?;
    let page = soon(desk.context.operations.failures(after, limit)).await?;
    let (failures, next) = (page.items, page.next);
    Ok(Json(Failures { failures, next }).into_response())
}

async fn retry(State(desk): Shared, Parameters(mut parameters): Parameters) -> Result<Response, Failure> {
    check_parameters(&parameters, &["object", "key"])?;
    let (object, key) = (parameters.remove("object"), parameters.remove("key"));
    if object.is_none() && key.is_some() {
        return Err(failure(StatusCode::BAD_REQUEST, "a key wants its object"));
    }
    let retried = soon(desk.context.operations.retry(object, key)).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "retried": retried }))).into_response())
}

async fn reload(State(desk): Shared, Parameters(parameters): Parameters) -> Result<Response, Failure> {
    check_parameters(&parameters, &[])?;
    let _place = Waiting::enter(&desk)?;
    match desk.context.operations.reload().await {
        Ok(reloaded) => Ok(Json(reloaded).into_response()),
        Err(NotReloaded::Refused(problems)) => {
            let body = json!({ "error": "the configuration is refused", "problems": problems });
            Ok((StatusCode::UNPROCESSABLE_ENTITY, Json(body)).into_response())
        }
        Err(NotReloaded::Stopping) => Err(failure(StatusCode::SERVICE_UNAVAILABLE, "the daemon stops")),
    }
}

/// `after` and `limit`.
pub(super) fn page_of(parameters: &BTreeMap<String, String>) -> Result<(Option<String>, usize), Failure> {
    check_parameters(parameters, &["after", "limit"])?;
    let limit = match parameters.get("limit").map(|limit| limit.parse()) {
        None => PAGE_DEFAULT,
        Some(Ok(limit)) if (1..=PAGE_MAX).contains(&limit) => limit,
        Some(_) => {
            let words = format!("limit is a number from 1 to {PAGE_MAX}");
            return Err(failure(StatusCode::BAD_REQUEST, words));
        }
    };
    Ok((parameters.get("after").cloned(), limit))
}

/// An answer that the database must give within [`QUERY_TIMEOUT`].
pub(super) async fn soon<T>(answer: impl Future<Output = Result<T, Refused>>) -> Result<T, Failure> {
    match tokio::time::timeout(QUERY_TIMEOUT, answer).await {
        Ok(answer) => answer.map_err(refused),
        Err(_) => Err(failure(
            StatusCode::SERVICE_UNAVAILABLE,
            "the database does not answer",
        )),
    }
}

pub(super) fn refused(refusal: Refused) -> Failure {
    let code = match &refusal {
        Refused::Standby(_) => StatusCode::CONFLICT,
        Refused::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        Refused::Unknown(_) => StatusCode::NOT_FOUND,
    };
    Failure {
        code,
        words: words(&refusal),
        holder: match refusal {
            Refused::Standby(holder) => holder,
            Refused::Unavailable(_) | Refused::Unknown(_) => None,
        },
    }
}

pub(super) fn words(refusal: &Refused) -> String {
    match refusal {
        Refused::Standby(holder) => {
            let holder = holder.as_deref().unwrap_or("another daemon");
            format!("this daemon stands by; {holder} pushes: ask there")
        }
        Refused::Unavailable(why) => why.clone(),
        Refused::Unknown(what) => format!("there is no {what}"),
    }
}

/// A client that waits for a sweep or a pull.
pub(super) struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    pub(super) fn enter(desk: &'a Desk) -> Result<Waiting<'a>, Failure> {
        let place = Waiting(&desk.waiting);
        if desk.waiting.fetch_add(1, Ordering::Relaxed) < WAITING_MAX {
            Ok(place)
        } else {
            Err(failure(
                StatusCode::SERVICE_UNAVAILABLE,
                "too many clients wait already",
            ))
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
