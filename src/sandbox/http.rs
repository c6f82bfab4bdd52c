//! From a request to an answer: who may ask, what goes wrong on purpose, the call itself, the envelope.
//!
//! The order is HubSpot's: token, scopes, limits and faults, then JSON, object type, and the call's own
//! checks. A request is answered by a task of its own, so that it is carried through when its client has
//! gone, as HubSpot does.

use super::Shared;
use super::admission::{forbidden, unauthorised};
use super::clock::date_text;
use super::clock::instant_text;
use super::control;
use super::fault::{Answer, Endpoint, Fault, Strike, When};
use super::limits::{Headers, refused};
use super::log::Request as Logged;
use super::reply::Reply;
use super::route::Route;
use super::wire::Wire;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::Response;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// The query of a request.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn of(uri: &Uri) -> Self {
        let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri);
        Self(pairs.map(|pairs| pairs.0).unwrap_or_default())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(given, _)| given == name)
            .map(|(_, value)| value.as_str())
    }

    pub(super) fn number(&self, name: &str, absent: usize) -> Result<usize, Reply> {
        match self.get(name) {
            None => Ok(absent),
            Some(text) => text
                .parse()
                .map_err(|_| Reply::validation(format!("{name} must be a number"))),
        }
    }

    /// Names given once with commas, or several times.
    pub(super) fn names(&self, name: &str) -> Vec<String> {
        let given = self.0.iter().filter(|(given, _)| given == name);
        given
            .flat_map(|(_, value)| value.split(','))
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect()
    }
}

/// How an answer leaves.
pub(super) enum Delivery {
    Whole(Reply),
    /// Half of the body, then the connection ends.
    Truncated(Reply),
    /// The connection ends without an answer.
    Cut,
    /// The connection stays open and silent.
    Never,
}

/// A request that was read to its end.
#[derive(Clone)]
pub(super) struct Incoming {
    pub method: String,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Answers every request that reaches the sandbox.
pub(super) async fn answer(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(wire): ConnectInfo<Wire>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, shared.body_max_bytes).await else {
        return response(Reply::error(413, "", "Request Entity Too Large"), Headers::new());
    };
    let incoming = Incoming {
        method: parts.method.to_string(),
        uri: parts.uri,
        headers: parts.headers,
        body,
    };
    if let Some(path) = incoming.uri.path().strip_prefix(control::PREFIX) {
        let query = Query::of(&incoming.uri);
        let reply = control::answer(&shared, &incoming.method, path, &query, &incoming.body);
        return response(reply, Headers::new());
    }
    let carried = tokio::spawn(exchange(Arc::clone(&shared), incoming));
    let (delivery, headers) = match carried.await {
        Ok(done) => done,
        Err(_) => (
            Delivery::Whole(Reply::error(500, "", "The sandbox failed.")),
            Headers::new(),
        ),
    };
    match delivery {
        Delivery::Whole(reply) => response(reply, headers),
        Delivery::Truncated(reply) => truncated(response(reply, headers)).await,
        Delivery::Cut => {
            wire.cut();
            Response::new(Body::empty())
        }
        Delivery::Never => std::future::pending().await,
    }
}

/// One request from admission to answer; the log has it from the start.
pub(super) async fn exchange(shared: Arc<Shared>, incoming: Incoming) -> (Delivery, Headers) {
    let route = Route::of(&incoming.method, incoming.uri.path());
    let endpoint = route.as_ref().map_or(Endpoint::Any, Route::endpoint);
    let number = shared.arrived(&incoming, endpoint);
    pause(shared.latency() / 2).await;
    let (delivery, mut headers) = match shared.admit(route.as_ref(), &incoming) {
        Err(refused) => {
            let (reply, headers) = *refused;
            (Delivery::Whole(reply), headers)
        }
        Ok((route, headers)) => {
            let fault = shared.faults().strike(endpoint);
            (struck(&shared, number, route, &incoming, fault).await, headers)
        }
    };
    pause(shared.latency() / 2).await;
    if let Delivery::Whole(reply) | Delivery::Truncated(reply) = &delivery {
        shared.world().log.answered(number, reply.status);
    }
    shared.changed();
    headers.push(("date", date_text(shared.clock.now_ms())));
    (delivery, headers)
}

/// Sleeps, but not for nothing: the timer's tick is a millisecond.
async fn pause(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

/// The call with what a fault makes of it.
async fn struck(
    shared: &Shared,
    number: u64,
    route: &Route,
    incoming: &Incoming,
    fault: Option<Fault>,
) -> Delivery {
    let call = |omitted| shared.call(number, route, incoming, omitted);
    let Some(fault) = fault else {
        return Delivery::Whole(call(0));
    };
    let instead = |answer: &Answer| {
        let mut reply = shared.scripted(answer);
        if let Some(wait) = fault.retry_after {
            reply = reply.header("Retry-After", wait.as_secs());
        }
        Delivery::Whole(reply)
    };
    match &fault.strike {
        Strike::Instead(answer) => instead(answer),
        Strike::Commit(answer) => {
            call(0);
            instead(answer)
        }
        Strike::Refuse => Delivery::Cut,
        Strike::LoseReply => {
            call(0);
            Delivery::Cut
        }
        Strike::Hang(None) => Delivery::Never,
        Strike::Hang(Some(late)) => {
            tokio::time::sleep(*late).await;
            call(0);
            Delivery::Never
        }
        Strike::Truncate => Delivery::Truncated(call(0)),
        Strike::HalfJson => {
            let text = call(0).body.to_string();
            let half: String = text.chars().take(text.chars().count() / 2).collect();
            Delivery::Whole(Reply::text(200, "application/json;charset=utf-8", &half))
        }
        Strike::Omit(count) => Delivery::Whole(call(*count)),
        Strike::Unreported(count) => Delivery::Whole(shared.unreported(call(0), *count)),
        Strike::ErrorWithoutTrace => Delivery::Whole(without_traces(call(0))),
        Strike::IgnoreTraces => {
            let untraced = without_input_traces(incoming);
            Delivery::Whole(shared.call(number, route, &untraced, 0))
        }
        Strike::Spoil(spoil) => {
            let after = Query::of(&incoming.uri).get("after").map(str::to_owned);
            Delivery::Whole(spoil.applied(call(0), after.as_deref()))
        }
        Strike::Shuffle => Delivery::Whole(reversed(call(0))),
        Strike::Delay(by) => {
            tokio::time::sleep(*by).await;
            Delivery::Whole(call(0))
        }
        Strike::Hold(When::Before, gate) => {
            gate.pass().await;
            Delivery::Whole(call(0))
        }
        Strike::Hold(When::After, gate) => {
            let reply = call(0);
            gate.pass().await;
            Delivery::Whole(reply)
        }
    }
}

impl Shared {
    fn arrived(&self, incoming: &Incoming, endpoint: Endpoint) -> u64 {
        let mut world = self.world();
        let logged = Logged {
            number: 0,
            method: incoming.method.clone(),
            path: incoming.uri.to_string(),
            endpoint,
            inputs: 0,
            arrived_ms: world.now_ms(),
            status: None,
            writes: Vec::new(),
        };
        let number = world.log.arrived(logged);
        drop(world);
        self.changed();
        number
    }

    /// An answer that a fault scripted.
    fn scripted(&self, answer: &Answer) -> Reply {
        let portal_id = self.world().settings.portal_id;
        match answer {
            Answer::Html(status) => Reply::text(
                *status,
                "text/html",
                "<html><head><title>503</title></head><body>Sorry</body></html>",
            ),
            Answer::NoJson => Reply::text(200, "text/plain", "OK"),
            Answer::Empty => Reply::empty(200),
            Answer::EmptyResults => {
                let now = instant_text(self.world().now_ms());
                Reply::new(200, super::reply::batch(Vec::new(), &now, &now))
            }
            Answer::Limited(policy) => refused(*policy, portal_id),
            Answer::Status(401) => unauthorised(),
            Answer::Status(403) => forbidden("crm.objects.contacts.write"),
            Answer::Status(413) => Reply::error(413, "", "Request Entity Too Large"),
            Answer::Status(423) => Reply::error(423, "", "The resource is locked by another request."),
            Answer::Status(477) => {
                Reply::error(477, "MIGRATION_IN_PROGRESS", "This account is being migrated.")
            }
            Answer::Status(status) => Reply::error(*status, "", "internal error"),
        }
    }

    /// An answer some of whose results are missing.
    fn unreported(&self, mut reply: Reply, count: usize) -> Reply {
        if let Some(results) = reply.body.get_mut("results").and_then(Value::as_array_mut) {
            super::fault::drop_some(results, count, &mut self.world().dice);
        }
        reply
    }
}

/// An answer whose errors cannot be tied to inputs.
fn without_traces(mut reply: Reply) -> Reply {
    let errors = reply.body.get_mut("errors").and_then(Value::as_array_mut);
    for error in errors.into_iter().flatten() {
        if let Some(context) = error.get_mut("context").and_then(Value::as_object_mut) {
            context.remove("objectWriteTraceId");
        }
    }
    reply
}

/// A batch as a client sends it that knows no trace ids.
fn without_input_traces(incoming: &Incoming) -> Incoming {
    let mut batch: Value = serde_json::from_slice(&incoming.body).unwrap_or_default();
    let inputs = batch.get_mut("inputs").and_then(Value::as_array_mut);
    for input in inputs.into_iter().flatten().filter_map(Value::as_object_mut) {
        input.remove("objectWriteTraceId");
    }
    Incoming {
        body: Bytes::from(batch.to_string()),
        ..incoming.clone()
    }
}

fn reversed(mut reply: Reply) -> Reply {
    if let Some(results) = reply.body.get_mut("results").and_then(Value::as_array_mut) {
        results.reverse();
    }
    reply
}

fn response(reply: Reply, headers: Headers) -> Response {
    enveloped(reply, headers).map(Body::from)
}

/// Puts an answer into HubSpot's envelope: content type, correlation id, rate headers.
pub(super) fn enveloped(mut reply: Reply, headers: Headers) -> axum::http::Response<String> {
    let correlation = uuid::Uuid::now_v7().to_string();
    if reply.status >= 400 && reply.body.is_object() {
        reply.body["correlationId"] = Value::from(correlation.clone());
    }
    let (kind, text) = match reply.raw {
        Some((kind, text)) => (Some(kind), text),
        None if reply.body.is_null() => (None, String::new()),
        None => (Some("application/json;charset=utf-8"), reply.body.to_string()),
    };
    let mut response = axum::http::Response::new(text);
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let sent = response.headers_mut();
    if let Some(kind) = kind {
        sent.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    let ids = [
        ("x-hubspot-correlation-id", correlation.clone()),
        ("x-request-id", correlation),
    ];
    for (name, value) in ids.into_iter().chain(headers).chain(reply.headers) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            sent.insert(name, value);
        }
    }
    response
}

/// The answer with its full length announced and half of it sent.
async fn truncated(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    let whole = to_bytes(body, usize::MAX).await.unwrap_or_default();
    parts
        .headers
        .insert(header::CONTENT_LENGTH, HeaderValue::from(whole.len()));
    let half = whole.slice(..whole.len() / 2);
    let ends = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    let body = Body::from_stream(futures::stream::iter([Ok(half), Err(ends)]));
    Response::from_parts(parts, body)
}
