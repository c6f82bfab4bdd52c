//! The dashboard: pages for people, from the same board and the same operations as the routes for programs.
//!
//! Rendered here and complete as sent: no script, no file from elsewhere, one style sheet inside the page, and a content
//! security policy that forbids everything else. Whatever is not written in this folder is escaped. Pages show names,
//! numbers and keys, never what a row or a record holds. Forms carry a token, and are answered by a redirect.

mod chart;
mod failures;
mod frame;
mod mirror;
mod overview;
mod record;
mod runs;
mod waiting;
mod words;

use super::guard::Gate;
use super::routes::{Desk, Failure, Shared, failure, refused, soon};
use super::session::Purpose;
use crate::daemon::operations::TicketState;
use crate::sync::report::CauseName;
use axum::Router;
use axum::extract::rejection::FormRejection;
use axum::extract::{DefaultBodyLimit, Form, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use frame::{Page, Tab};
use maud::{Markup, html};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Where the dashboard begins.
const HOME: &str = "/";
/// Where a browser asks for a session.
pub(super) const SESSION: &str = "/dashboard/session";
const FAILURES: &str = "/dashboard/failures";
const RUNS: &str = "/dashboard/runs";
const CHANGES: &str = "/dashboard/changes";
/// One record explained, which asks HubSpot: no page of another site may make a browser do that.
pub(super) const RECORD: &str = "/dashboard/record";
const RETRY: &str = "/dashboard/retry";
const SWEEP: &str = "/dashboard/sweep";

/// Bytes of a form.
const FORM_BYTES_MAX: usize = 16 << 10;
/// How long a form may take to arrive and to be answered; the database has 10 s of it.
const FORM_TIMEOUT: Duration = Duration::from_secs(20);

/// Whether a path is one of the dashboard's.
pub(super) fn is_page(path: &str) -> bool {
    path == HOME || path.starts_with("/dashboard/")
}

/// The dashboard's routes.
pub(super) fn pages() -> Router<Arc<Desk>> {
    let forms = Router::new()
        .route(RETRY, post(retry))
        .route(SWEEP, post(sweep))
        .route(SESSION, post(session))
        .layer(DefaultBodyLimit::max(FORM_BYTES_MAX))
        .layer(middleware::from_fn(in_time));
    Router::new()
        .route(HOME, get(overview::page))
        .route(FAILURES, get(failures::page))
        .route(RUNS, get(runs::page))
        .route(CHANGES, get(waiting::page))
        .route(RECORD, get(record::page))
        .merge(forms)
}

/// An answer to a form that is none, as a page.
#[derive(Debug)]
pub(super) struct Trouble(Failure);

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Trouble {
        Trouble(failure)
    }
}

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        let Failure { code, words, .. } = self.0;
        let body = html! {
            section.card {
                h2 { (code.canonical_reason().unwrap_or("This does not work")) }
                p { (words) "." }
                p { a href=(HOME) { "Back to the overview" } }
            }
        };
        (code, Page::new("not done", None).render(&body)).into_response()
    }
}

type Fields = Result<Form<BTreeMap<String, String>>, FormRejection>;

/// The fields of a form that this daemon gave out.
fn fields(desk: &Desk, purpose: Purpose, form: Fields) -> Result<BTreeMap<String, String>, Trouble> {
    let Form(fields) = form.map_err(|rejection| failure(rejection.status(), "the form cannot be read"))?;
    let token = fields.get("token").map(String::as_str).unwrap_or_default();
    if !desk.gate.is_form(purpose, token) {
        let words = "the form is not one that this daemon gave out, or is older than its last start: load the page again";
        return Err(failure(StatusCode::FORBIDDEN, words).into());
    }
    Ok(fields)
}

/// The hidden field that every form has.
fn token(desk: &Desk) -> Markup {
    html! { input type="hidden" name="token" value=(desk.gate.form(Purpose::Act)); }
}

/// Names failures as changed: those of a cause, of an object, of one key, or all.
async fn retry(State(desk): Shared, form: Fields) -> Result<Response, Trouble> {
    let mut fields = fields(&desk, Purpose::Act, form)?;
    let mut take = |name| fields.remove(name).filter(|text| !text.is_empty());
    let (object, key) = (take("object"), take("key"));
    let operations = &desk.context.operations;
    let named = match (object, take("category"), fields.remove("shape")) {
        (Some(object), Some(category), Some(shape)) => {
            let cause = CauseName {
                object,
                category,
                shape,
            };
            soon(operations.retry_cause(cause)).await?
        }
        (object, ..) => soon(operations.retry(object, key)).await?,
    };
    tracing::info!(records = named, "the dashboard: refused records are tried again");
    Ok(see_other(&format!("{FAILURES}?retried={named}")))
}

async fn sweep(State(desk): Shared, form: Fields) -> Result<Response, Trouble> {
    fields(&desk, Purpose::Act, form)?;
    let ticket = desk.context.operations.request_sweep("socket", false);
    let ticket = ticket.map_err(refused)?;
    tracing::info!(run.id = %ticket.id, "the dashboard: a sweep is asked for");
    Ok(see_other(match ticket.state {
        TicketState::Started => "/?sweep=started",
        TicketState::Queued => "/?sweep=queued",
    }))
}

/// Gives a browser a session for the secret.
async fn session(State(desk): Shared, form: Fields) -> Result<Response, Trouble> {
    let fields = fields(&desk, Purpose::SignIn, form)?;
    let secret = fields.get("secret").map(String::as_str).unwrap_or_default();
    if let Some(answer) = desk.gate.turns_away(secret) {
        return Ok(answer);
    }
    let mut response = see_other(HOME);
    if let Ok(cookie) = HeaderValue::try_from(desk.gate.session()) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

/// The page that asks for the secret, over TCP.
pub(super) fn sign_in(gate: &Gate, wrong: bool) -> Response {
    let body = html! {
        section.card.narrow {
            h2 { "Sign in" }
            @if wrong { p.bad role="alert" { "That is not the secret." } }
            form method="post" action=(SESSION) {
                input type="hidden" name="token" value=(gate.form(Purpose::SignIn));
                label for="secret" { "Cron secret" }
                input #secret type="password" name="secret" required autocomplete="current-password" autofocus;
                button { "Sign in" }
            }
            p.quiet { "The session lasts twelve hours, or until the daemon restarts." }
        }
    };
    let page = Page::new("sign in", None).render(&body);
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
    (StatusCode::UNAUTHORIZED, challenge, page).into_response()
}

fn see_other(to: &str) -> Response {
    // Our own paths, with numbers and words of ours.
    let to = HeaderValue::try_from(to).unwrap_or(HeaderValue::from_static(HOME));
    (StatusCode::SEE_OTHER, [(header::LOCATION, to)]).into_response()
}

/// Gives up on a form that does not arrive, or is not answered.
async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(FORM_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Trouble(failure(StatusCode::REQUEST_TIMEOUT, "this took too long")).into_response(),
    }
}

/// What is shown where a list cannot be read; the rest of the page stays.
fn unreadable(why: &Failure) -> Markup {
    html! { p.quiet { "This cannot be read now: " (why.words) "." } }
}

/// A text as a URL's query carries it: whatever is not a letter or a digit is escaped.
fn query(text: &str) -> String {
    let escaped = text.bytes().map(|byte| match byte {
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    });
    escaped.collect()
}

fn tabs(desk: &Desk, tab: Tab, title: &'static str) -> Page {
    let state = desk.context.board.state();
    Page::new(title, Some(tab)).counting(state.failures(), state.pending())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::StreamBody;
    use hyper::service::Service;
    use hyper_util::service::TowerToHyperService;

    #[tokio::test(start_paused = true)]
    async fn a_form_that_never_arrives_is_given_up() {
        let forms: Router = Router::new()
            .route("/", post(|_: Fields| async { "arrived" }))
            .layer(middleware::from_fn(in_time));
        let never =
            futures::stream::pending::<Result<hyper::body::Frame<axum::body::Bytes>, std::io::Error>>();
        let request = Request::post("/")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(axum::body::Body::new(StreamBody::new(never)));
        let service = TowerToHyperService::new(forms);
        let answer = service.call(request.expect("it is well formed")).await;
        let Ok(answer) = answer;
        assert_eq!(answer.status(), StatusCode::REQUEST_TIMEOUT);
    }
}
