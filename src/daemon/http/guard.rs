//! Who may ask what.
//!
//! A unix socket becomes `localhost` of a browser with one `ssh -L`, so both kinds of listener know their own names
//! and refuse what another site's page makes a browser send. TCP wants the cron secret besides.

use super::dashboard;
use super::routes::failure;
use super::session::{Keys, Purpose};
use crate::sync::guesses::Guesses;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use subtle::ConstantTimeEq;

/// The documented manual trigger, which acts on GET too.
pub(super) const TRIGGER: &str = "/api/admin/cron/batch-sync-hubspot";

/// Where the mirror's routes begin; each may make the daemon ask HubSpot, on GET too.
pub(super) const MIRROR: &str = "/api/admin/hubspot/";

/// What TCP clients may ask without the secret.
const OPEN_ROUTES: [&str; 2] = ["/livez", "/health"];

/// What a listener demands of a request.
#[derive(Clone)]
pub(super) struct Gate(Arc<Demands>);

struct Demands {
    names: Vec<String>,
    /// The digest of the secret, so that a comparison tells nothing of its length either.
    secret: Option<[u8; 32]>,
    keys: Keys,
    guesses: Mutex<Guesses>,
    /// What the times of `guesses` count from.
    epoch: Instant,
}

/// What a client shows to be let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    /// The secret, or any where none is wanted.
    Right,
    /// Another one.
    Wrong,
    /// None.
    Nothing,
}

impl Gate {
    /// A unix socket, whose permissions are the key.
    pub(super) fn unix() -> Gate {
        Gate::new(None, None)
    }

    /// A TCP address.
    pub(super) fn tcp(address: SocketAddr, secret: &SecretString) -> Gate {
        Gate::new(
            Some(address.ip()),
            Some(digest(secret.expose_secret().as_bytes())),
        )
    }

    fn new(address: Option<IpAddr>, secret: Option<[u8; 32]>) -> Gate {
        let mut names = vec!["localhost".to_owned(), "hubsyncd".to_owned()];
        names.extend(address.map(|address| address.to_string()));
        if secret.is_some() {
            // Beyond the loopback the machine is known by its name.
            let hostname = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
            let hostname = hostname.trim().to_ascii_lowercase();
            names.extend((!hostname.is_empty()).then_some(hostname));
        }
        Gate(Arc::new(Demands {
            names,
            secret,
            keys: Keys::new(),
            guesses: Mutex::default(),
            epoch: Instant::now(),
        }))
    }

    /// Why a request is refused, if it is.
    fn refusal(&self, request: &Request) -> Option<Response> {
        let headers = request.headers();
        let host = headers
            .get(header::HOST)
            .map(|host| host.to_str().unwrap_or_default());
        match host {
            Some(host) if self.knows(host) => {}
            // HTTP/1.0 has no Host, and no browser speaks it.
            None if request.version() == Version::HTTP_10 => {}
            _ => {
                return Some(
                    failure(
                        StatusCode::MISDIRECTED_REQUEST,
                        "this host name is not known here",
                    )
                    .into_response(),
                );
            }
        }
        let path = request.uri().path();
        let shown = self.shown(headers);
        if !OPEN_ROUTES.contains(&path) && shown != Shown::Right && !self.is_visitor(request) {
            if let Some(wait) = self.wrong(shown) {
                return Some(too_many(wait));
            }
            if request.method() == Method::GET && dashboard::is_page(path) && wants_html(headers) {
                return Some(dashboard::sign_in(self, false));
            }
            let refusal = failure(StatusCode::UNAUTHORIZED, "Unauthorized");
            return Some(([(header::WWW_AUTHENTICATE, "Bearer")], refusal).into_response());
        }
        let acts = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS)
            || [TRIGGER, dashboard::RECORD].contains(&path)
            || path.starts_with(MIRROR);
        if acts && is_foreign(headers, host) {
            return Some(
                failure(StatusCode::FORBIDDEN, "a page of another site may not do this").into_response(),
            );
        }
        None
    }

    fn knows(&self, host: &str) -> bool {
        let name = without_port(host).to_ascii_lowercase();
        let bare = name.trim_matches(['[', ']']);
        // An address is no name that a foreign DNS could point here.
        bare.parse::<IpAddr>().is_ok() || self.0.names.iter().any(|known| known == bare)
    }

    /// Whether a browser asks for a page of the dashboard with a session, or for a session.
    fn is_visitor(&self, request: &Request) -> bool {
        let path = request.uri().path();
        let cookies = request.headers().get_all(header::COOKIE);
        let mut cookies = cookies.iter().filter_map(|cookie| cookie.to_str().ok());
        path == dashboard::SESSION
            || dashboard::is_page(path)
                && cookies.any(|cookies| self.0.keys.is_session(cookies, SystemTime::now()))
    }

    /// What whoever gives this secret to the form is answered, unless it is the right one; any is where none is wanted.
    pub(super) fn turns_away(&self, secret: &str) -> Option<Response> {
        let shown = self.compared(secret.as_bytes());
        (shown != Shown::Right).then(|| match self.wrong(shown) {
            Some(wait) => too_many(wait),
            None => dashboard::sign_in(self, true),
        })
    }

    /// Counts what was shown if it is a wrong secret, and tells of them now and then; answers for how long whoever shows
    /// one is to wait, if there were too many.
    fn wrong(&self, shown: Shown) -> Option<Duration> {
        if shown != Shown::Wrong {
            return None;
        }
        let mut guesses = self.0.guesses.lock().unwrap_or_else(PoisonError::into_inner);
        let wrong = guesses.wrong(self.0.epoch.elapsed());
        drop(guesses);
        if let Some(count) = wrong.tell {
            tracing::warn!(
                count,
                "somebody gave a wrong cron secret over TCP; told at most once a minute, with how many there were since"
            );
        }
        wrong.wait
    }

    /// The header that gives a browser a session.
    pub(super) fn session(&self) -> String {
        self.0.keys.session(SystemTime::now())
    }

    /// The token of the forms that do this.
    pub(super) fn form(&self, purpose: Purpose) -> String {
        self.0.keys.form(purpose)
    }

    /// Whether a form brought the token that it was given.
    pub(super) fn is_form(&self, purpose: Purpose, token: &str) -> bool {
        self.0.keys.is_form(purpose, token)
    }

    fn shown(&self, headers: &HeaderMap) -> Shown {
        let given = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.as_bytes().split_first_chunk::<7>())
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "))
            .map_or(&b""[..], |(_, given)| given);
        self.compared(given)
    }

    /// What a secret is, found in the same time whatever it is.
    fn compared(&self, given: &[u8]) -> Shown {
        let same = self
            .0
            .secret
            .is_none_or(|wanted| digest(given).ct_eq(&wanted).into());
        match (same, given) {
            (true, _) => Shown::Right,
            (false, []) => Shown::Nothing,
            (false, _) => Shown::Wrong,
        }
    }
}

/// The answer to wrong secrets of which there were too many.
fn too_many(wait: Duration) -> Response {
    let seconds = wait.as_secs() + 1;
    let words =
        format!("too many wrong secrets; the right one is taken at any time, another one in {seconds} s");
    let refusal = failure(StatusCode::TOO_MANY_REQUESTS, words);
    ([(header::RETRY_AFTER, seconds.to_string())], refusal).into_response()
}

/// Whether a browser shows the answer to somebody.
fn wants_html(headers: &HeaderMap) -> bool {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}

/// Whether a browser says that a page of another site sends this.
fn is_foreign(headers: &HeaderMap, host: Option<&str>) -> bool {
    let site = headers.get("sec-fetch-site").map(|site| site.as_bytes());
    if site.is_some_and(|site| site != b"none" && site != b"same-origin") {
        return true;
    }
    let Some(origin) = headers.get(header::ORIGIN) else {
        return false;
    };
    let authority = origin
        .to_str()
        .ok()
        .and_then(|origin| origin.split_once("://"))
        .map(|(_, authority)| authority);
    authority.is_none() || authority != host
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// The gate in front of every route.
pub(super) async fn guard(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let mut response = match gate.refusal(&request) {
        Some(refusal) => refusal,
        None => next.run(request).await,
    };
    let headers = response.headers_mut();
    headers.insert(
        header::CACHE_CONTROL,
        header::HeaderValue::from_static("no-store"),
    );
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        header::HeaderValue::from_static("nosniff"),
    );
    response
}
