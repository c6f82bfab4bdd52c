//! From a request to an answer: who may ask, what goes wrong on purpose, the call itself, the envelope.
//!
//! The order is HubSpot's: token, scopes, limits and faults, then JSON, object type, and the call's own
//! checks. A request is answered by a task of its own, so that it is carried through when its client has
//! gone, as HubSpot does.

use super::clock::instant_text;
use super::control;
use super::fault::{Answer, Endpoint, Fault, Strike, When};
use super::limits::{Class, Headers, refused};
use super::log::Request as Logged;
use super::reply::Reply;
use super::route::{Call, Route};
use super::wire::Wire;
use super::write::Asked;
use super::{Shared, World};
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::Response;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Longer URLs are refused; HubSpot's own limit is not documented.
const URL_MAX_BYTES: usize = 8_000;

/// The query of a request.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    fn of(uri: &Uri) -> Self {
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
enum Delivery {
    Whole(Reply),
    /// Half of the body, then the connection ends.
    Truncated(Reply),
    /// The connection ends without an answer.
    Cut,
    /// The connection stays open and silent.
    Never,
}

/// A request that was read to its end.
struct Incoming {
    method: String,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
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
async fn exchange(shared: Arc<Shared>, incoming: Incoming) -> (Delivery, Headers) {
    let route = Route::of(&incoming.method, incoming.uri.path());
    let endpoint = route.as_ref().map_or(Endpoint::Any, Route::endpoint);
    let number = shared.arrived(&incoming, endpoint);
    pause(shared.latency() / 2).await;
    let (delivery, headers) = match shared.admit(route.as_ref(), &incoming) {
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

    /// Whether a request may pass, with the rate headers that its answer carries either way.
    fn admit<'a>(
        &self,
        route: Option<&'a Route>,
        incoming: &Incoming,
    ) -> Result<(&'a Route, Headers), Box<(Reply, Headers)>> {
        let plain = |reply| Box::new((reply, Headers::new()));
        if incoming.uri.to_string().len() > URL_MAX_BYTES {
            return Err(plain(Reply::text(
                414,
                "text/html",
                "<html><body>414 URI Too Long</body></html>",
            )));
        }
        let world = self.world();
        let asks_about_token = route.is_some_and(|route| route.call == Call::TokenInfo);
        if !asks_about_token && !authorised(&incoming.headers, &world.settings.token) {
            return Err(plain(unauthorised()));
        }
        let Some(route) = route else {
            return Err(plain(Reply::not_found()));
        };
        if let Some(scope) = missing_scope(&world, route) {
            return Err(plain(forbidden(&scope)));
        }
        let class = match route.call {
            Call::Search => Class::Search,
            Call::TokenInfo => Class::Free,
            _ => Class::Counted,
        };
        let (now_ms, portal_id) = (world.now_ms(), world.settings.portal_id);
        drop(world);
        let mut limits = self.limits();
        let admitted = limits.admit(class, now_ms);
        let headers = limits.headers(class);
        match admitted {
            Ok(()) => Ok((route, headers)),
            Err(policy) => Err(Box::new((refused(policy, portal_id), headers))),
        }
    }

    /// Carries a call out on the world and notes in the log what it wrote.
    fn call(&self, number: u64, route: &Route, incoming: &Incoming, omitted: usize) -> Reply {
        let now_ms = self.clock.now_ms();
        // Never both locks at once: a test may hold the world while it changes the limits.
        let (utc_offset, usage) = {
            let mut limits = self.limits();
            (limits.utc_offset(now_ms), limits.usage(now_ms))
        };
        let mut world = self.world();
        let started = instant_text(now_ms);
        let mut asked = Asked {
            world: &mut world,
            version: route.version,
            inputs: 0,
            writes: Vec::new(),
            omitted,
            started,
        };
        let query = Query::of(&incoming.uri);
        let body = &incoming.body;
        let reply = match route.call {
            Call::Details => asked.details(utc_offset),
            Call::Usage => Ok(Reply::new(200, usage)),
            Call::TokenInfo => asked.token_info(body),
            Call::Schemas => asked.schemas(),
            _ => asked.on_type(route, &query, body),
        };
        let (inputs, writes) = (asked.inputs, asked.writes);
        world.log.wrote(number, inputs, writes);
        drop(world);
        self.changed();
        reply.unwrap_or_else(|refused| refused)
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

impl Asked<'_> {
    /// A call on an object type, or on a pair of them.
    fn on_type(&mut self, route: &Route, query: &Query, body: &[u8]) -> Result<Reply, Reply> {
        if !body.is_empty() {
            super::reply::parse_exactly::<IgnoredAny>(body)?;
        }
        let position = |named: &str| {
            self.world
                .type_position(named)
                .ok_or_else(|| Reply::no_type(named))
        };
        let kind = position(&route.object)?;
        let to = if route.to.is_empty() {
            kind
        } else {
            position(&route.to)?
        };
        match route.call {
            Call::Create => self.create(kind, body),
            Call::Get => self.get(kind, route, query),
            Call::Update => self.update(kind, route, query, body),
            Call::Archive => self.archive(kind, &route.id),
            Call::List => self.list(kind, route, query),
            Call::BatchCreate => self.batch_create(kind, body),
            Call::BatchUpdate => self.batch_update(kind, body),
            Call::BatchUpsert => self.batch_upsert(kind, body),
            Call::BatchRead => self.batch_read(kind, body, query),
            Call::BatchArchive => self.batch_archive(kind, body),
            Call::Merge => self.merge(kind, body),
            Call::Search => self.search(kind, body),
            Call::ListLinks => self.list_links(kind, to, route, query),
            Call::PutDefaultLink => self.put_default_link(kind, to, route),
            Call::PutLink => self.put_link(kind, to, route, body),
            Call::DeleteLink => self.delete_link(kind, to, route),
            Call::BatchLinkDefault => self.batch_link_default(kind, to, body),
            Call::BatchLink => self.batch_link(kind, to, body),
            Call::BatchReadLinks => self.batch_read_links(kind, to, body),
            Call::BatchArchiveLinks => self.batch_archive_links(kind, to, body),
            Call::BatchArchiveLabels => self.batch_archive_labels(kind, to, body),
            Call::Labels => self.labels(kind, to),
            Call::CreateLabel => self.create_label(kind, to, body),
            Call::Properties => self.properties(kind, query),
            Call::Property => self.property(kind, &route.id),
            Call::CreateProperty => self.create_property(kind, body),
            Call::UpdateProperty => self.update_property(kind, &route.id, body),
            Call::ArchiveProperty => self.archive_property(kind, &route.id),
            Call::BatchReadProperties => self.batch_read_properties(kind, body),
            Call::BatchCreateProperties => self.batch_create_properties(kind, body),
            Call::Schema => self.schema(kind),
            Call::CreateSchemaLink => self.create_schema_link(kind, body),
            Call::Schemas | Call::Details | Call::Usage | Call::TokenInfo => Err(Reply::not_found()),
        }
    }
}

fn authorised(headers: &HeaderMap, token: &str) -> bool {
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    given.and_then(|value| value.strip_prefix("Bearer ")) == Some(token)
}

fn unauthorised() -> Reply {
    Reply::error(
        401,
        "INVALID_AUTHENTICATION",
        "Authentication credentials not found. This API supports OAuth 2.0 authentication and you can find more \
         details at https://developers.hubspot.com/docs/methods/auth/oauth-overview",
    )
}

fn forbidden(scope: &str) -> Reply {
    let message = "This app hasn't been granted all required scopes to make this call. Read more about required \
                   scopes here: https://developers.hubspot.com/scopes.";
    let errors = json!([{
        "message": "One or more of the following scopes are required.",
        "context": {"requiredGranularScopes": [scope]},
    }]);
    Reply::error(403, "MISSING_SCOPES", message)
        .with("errors", errors)
        .with(
            "links",
            json!({"scopes": "https://developers.hubspot.com/scopes"}),
        )
}

/// The scope that a call needs and the token lacks.
fn missing_scope(world: &World, route: &Route) -> Option<String> {
    let object = world
        .type_position(&route.object)
        .map(|kind| &world.types[kind])?;
    let family = if object.is_custom() {
        "custom"
    } else {
        object.name.as_str()
    };
    let needed: Vec<String> = match route.endpoint() {
        Endpoint::Create
        | Endpoint::Upsert
        | Endpoint::Update
        | Endpoint::Archive
        | Endpoint::Merge
        | Endpoint::Associate
        | Endpoint::AssociationArchive => vec![format!("crm.objects.{family}.write")],
        Endpoint::Properties | Endpoint::Schemas => {
            vec![
                format!("crm.objects.{family}.read"),
                format!("crm.schemas.{family}.read"),
            ]
        }
        _ => vec![format!("crm.objects.{family}.read")],
    };
    let held = needed.iter().any(|scope| world.scopes.contains(scope));
    (!held).then(|| needed.into_iter().next()).flatten()
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

fn reversed(mut reply: Reply) -> Reply {
    if let Some(results) = reply.body.get_mut("results").and_then(Value::as_array_mut) {
        results.reverse();
    }
    reply
}

/// Puts an answer into HubSpot's envelope: content type, correlation id, rate headers.
fn response(mut reply: Reply, headers: Headers) -> Response {
    let correlation = uuid::Uuid::now_v7().to_string();
    if reply.status >= 400 && reply.body.is_object() {
        reply.body["correlationId"] = Value::from(correlation.clone());
    }
    let (kind, text) = match reply.raw {
        Some((kind, text)) => (Some(kind), text),
        None if reply.body.is_null() => (None, String::new()),
        None => (Some("application/json;charset=utf-8"), reply.body.to_string()),
    };
    let mut response = Response::new(Body::from(text));
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
