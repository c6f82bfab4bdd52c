//! The client: one request for one slot.
//!
//! [`Client`] owns the transport, the token and the [`Pace`]. Every method takes a [`Slot`], sends exactly
//! one request, tells the pace and the observer how it went, and returns what HubSpot said.

use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderValue};
use secrecy::{ExposeSecret, SecretString};

use super::endpoint::Call;
use super::error::{Asked, Cause, Failed};
use super::pace::{Budget, Heard, HeardDay, Pace, Slot, Verdict};
use super::reply;
use super::transport::{Incoming, Lost, Outgoing, Transport, Wire};

/// The host that European tokens may have to be sent to.
const EUROPE: &str = "api-eu1.hubapi.com";

/// How a [`Client`] is set up.
#[derive(Clone)]
pub struct Settings {
    /// `https://api.hubapi.com`, or where it stands in for; `http` only for a loopback host.
    pub base_url: String,
    /// The date in the paths, e.g. `2026-09`.
    pub api_version: String,
    /// The private app's or service key's token.
    pub token: SecretString,
    /// How long a request may take from connecting to the last byte of its answer.
    pub timeout: Duration,
    /// The requests of a window, the window, and the requests on their way at one time.
    pub budget: Budget,
    /// Is told of every request.
    pub observer: Observer,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("base_url", &self.base_url)
            .field("api_version", &self.api_version)
            .field("timeout", &self.timeout)
            .field("budget", &self.budget)
            .finish_non_exhaustive()
    }
}

/// Is told of every request, after its answer was read; must not block.
pub type Observer = Arc<dyn Fn(Observed) + Send + Sync>;

/// Is asked right before every request whether it may start; must not block.
pub type Leave = Arc<dyn Fn() -> bool + Send + Sync>;

/// How one request went, for metrics and logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observed {
    /// The endpoint's name, e.g. `objects/batch/upsert`.
    pub endpoint: &'static str,
    /// The HTTP status, or how the request failed without one.
    pub outcome: Answered,
    /// From the first byte sent to the last byte read.
    pub took: Duration,
}

/// An HTTP status, or why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered {
    /// An answer with this status came.
    Status(u16),
    /// No connection could be made.
    Unconnected,
    /// No whole answer came in time.
    TimedOut,
    /// The connection broke, or the answer was too large.
    Broken,
}

impl std::fmt::Display for Answered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Answered::Status(status) => write!(f, "{status}"),
            Answered::Unconnected => f.write_str("unconnected"),
            Answered::TimedOut => f.write_str("timeout"),
            Answered::Broken => f.write_str("broken"),
        }
    }
}

/// Why a [`Client`] cannot be made: the settings are wrong.
#[derive(Debug, thiserror::Error)]
pub enum Setup {
    /// `base-url` is no address.
    #[error("hubspot.base-url is no address: {0}")]
    Address(String),
    /// `base-url` would send the token unencrypted over the network.
    #[error("hubspot.base-url must be https, except for a loopback host")]
    Unencrypted,
    /// The token has characters that no header can carry.
    #[error("the HubSpot token has characters that no token has; is the right file read?")]
    Token,
    /// No certificate authority is known.
    #[error("no root certificates found on this machine; install the package ca-certificates")]
    Roots,
    /// TLS or the HTTP client cannot be set up.
    #[error("the HTTPS client cannot be set up")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Speaks to HubSpot.
#[derive(Clone)]
pub struct Client {
    transport: Arc<dyn Transport>,
    base: Url,
    pub(super) api_version: Arc<str>,
    authorization: HeaderValue,
    /// The token says Europe and the address does not.
    elsewhere: bool,
    pace: Arc<Pace>,
    observer: Observer,
    leave: Leave,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("base", &self.base.as_str())
            .field("api_version", &self.api_version)
            .field("pace", &self.pace)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Sets up connections, token and pace; sends nothing.
    ///
    /// # Errors
    ///
    /// If the settings are wrong, or this machine has no root certificates.
    pub fn new(settings: Settings) -> Result<Client, Setup> {
        let base = address(&settings.base_url)?;
        let local = is_loopback(base.host_str().unwrap_or_default());
        if base.scheme() != "https" && !(local && base.scheme() == "http") {
            return Err(Setup::Unencrypted);
        }
        let wire = Wire::new(settings.timeout, base.scheme() == "https", local)?;
        Client::over(settings, Arc::new(wire))
    }

    /// A client whose requests another transport carries; `settings.timeout` is that one's affair.
    ///
    /// # Errors
    ///
    /// If the settings are wrong.
    pub fn over(settings: Settings, transport: Arc<dyn Transport>) -> Result<Client, Setup> {
        let base = address(&settings.base_url)?;
        let token = settings.token.expose_secret().trim();
        let mut authorization =
            HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| Setup::Token)?;
        authorization.set_sensitive(true);
        Ok(Client {
            transport,
            elsewhere: token.starts_with("pat-eu1") && base.host_str() != Some(EUROPE),
            base,
            api_version: settings.api_version.into(),
            authorization,
            pace: Pace::new(settings.budget),
            observer: settings.observer,
            leave: Arc::new(|| true),
        })
    }

    /// The same client, which sends nothing while `leave` says no.
    #[must_use]
    pub fn asking(self, leave: Leave) -> Client {
        Client { leave, ..self }
    }

    /// The token's one budget.
    pub fn pace(&self) -> &Arc<Pace> {
        &self.pace
    }

    /// The version in the paths.
    pub fn api_version(&self) -> &str {
        &self.api_version
    }

    /// The body of the one question that names the token, to the host that the token is sent to anyway.
    pub(super) fn token_body(&self) -> Vec<u8> {
        let token = self.authorization.to_str().unwrap_or_default();
        let token = token.trim_start_matches("Bearer ");
        serde_json::json!({ "tokenKey": token }).to_string().into_bytes()
    }

    /// Sends one request and returns the body of its success.
    pub(super) async fn send(
        &self,
        mut slot: Slot,
        call: &Call<'_>,
        body: Option<Vec<u8>>,
    ) -> Result<Answer, Failed> {
        if !(self.leave)() {
            return Err(Failed::not_ours(call.doing()));
        }
        slot.send();
        let started = Instant::now();
        let exchange = self.exchange(call, body).await;
        let took = started.elapsed();
        let (outcome, headers) = match &exchange {
            Ok(answer) => (Answered::Status(answer.status), Headers::of(&answer.headers)),
            Err(Cause::Unconnected(_)) => (Answered::Unconnected, Headers::default()),
            Err(Cause::TimedOut(_)) => (Answered::TimedOut, Headers::default()),
            Err(_) => (Answered::Broken, Headers::default()),
        };
        (self.observer)(Observed {
            endpoint: call.endpoint.name(),
            outcome,
            took,
        });
        let result = match exchange {
            Ok(answer) if (200..300).contains(&answer.status) => Ok(Answer {
                body: answer.body,
                correlation_id: headers.correlation_id.clone(),
            }),
            Ok(answer) => {
                let body = reply::error_body(&answer.body).map(Box::new);
                Err(self.failed(call, Cause::Status(answer.status, body), &headers))
            }
            Err(cause) => Err(self.failed(call, cause, &headers)),
        };
        let verdict = verdict(&result);
        if let Err(failed) = &result
            && failed.status == Some(401)
        {
            slot.halt(failed.advice.to_owned());
        }
        if let Some(theirs) = headers.date {
            slot.told_time(theirs);
        }
        slot.answered(headers.heard, headers.day, verdict);
        result
    }

    /// A success whose body does not read.
    pub(super) fn unreadable(&self, call: &Call<'_>, why: reply::Unreadable) -> Failed {
        self.failed(call, Cause::Unreadable(why), &Headers::default())
    }

    fn failed(&self, call: &Call<'_>, cause: Cause, headers: &Headers) -> Failed {
        let asked = Asked {
            records: call.records,
            writes: call.endpoint.writes(),
            elsewhere: self.elsewhere,
        };
        let mut failed = Failed::new(call.doing(), cause, asked, headers.retry_after);
        if failed.correlation_id.is_none() {
            failed.correlation_id.clone_from(&headers.correlation_id);
        }
        failed
    }

    async fn exchange(&self, call: &Call<'_>, body: Option<Vec<u8>>) -> Result<Incoming, Cause> {
        let request = Outgoing {
            url: call.url(&self.base),
            authorization: self.authorization.clone(),
            body,
        };
        self.transport.exchange(request).await.map_err(|lost| match lost {
            Lost::Unconnected(error) => Cause::Unconnected(error),
            Lost::TimedOut(error) => Cause::TimedOut(error),
            Lost::Broken(error) => Cause::Broken(error),
            Lost::TooLarge => Cause::TooLarge,
        })
    }
}

/// A success.
pub(super) struct Answer {
    pub body: Vec<u8>,
    pub correlation_id: Option<String>,
}

/// What of an answer's headers concerns us.
#[derive(Default)]
struct Headers {
    heard: Heard,
    day: HeardDay,
    date: Option<jiff::Timestamp>,
    retry_after: Option<Duration>,
    correlation_id: Option<String>,
}

impl Headers {
    fn of(headers: &HeaderMap) -> Headers {
        let text = |name: &str| {
            headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .map(str::trim)
        };
        let number = |name: &str| text(name).and_then(|value| value.parse::<u64>().ok());
        let small = |name: &str| number(name).and_then(|value| u32::try_from(value).ok());
        Headers {
            heard: Heard {
                requests: small("x-hubspot-ratelimit-max"),
                window: number("x-hubspot-ratelimit-interval-milliseconds").map(Duration::from_millis),
                remaining: small("x-hubspot-ratelimit-remaining"),
            },
            day: HeardDay {
                quota: number("x-hubspot-ratelimit-daily"),
                remaining: number("x-hubspot-ratelimit-daily-remaining"),
            },
            date: text("date").and_then(|text| Some(jiff::fmt::rfc2822::parse(text).ok()?.timestamp())),
            retry_after: text("retry-after").and_then(retry_after),
            correlation_id: text("x-hubspot-correlation-id")
                .filter(|id| super::redact::is_correlation_id(id))
                .map(str::to_owned),
        }
    }
}

/// `Retry-After`: seconds, or a date.
fn retry_after(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    let left = at.duration_since(jiff::Timestamp::now());
    Some(Duration::try_from(left).unwrap_or(Duration::ZERO))
}

fn verdict(result: &Result<Answer, Failed>) -> Verdict {
    match result {
        Ok(_) => Verdict::Answered,
        Err(failed) => match (failed.slows(), failed.status) {
            (Some(why), _) => Verdict::Slower(why, failed.retry_after),
            (None, Some(status)) if (400..500).contains(&status) => Verdict::Answered,
            (None, _) => Verdict::Trouble(failed.retry_after),
        },
    }
}

fn address(text: &str) -> Result<Url, Setup> {
    let base = Url::parse(text).map_err(|error| Setup::Address(error.to_string()))?;
    if base.host_str().unwrap_or_default().is_empty() || base.cannot_be_a_base() {
        return Err(Setup::Address("it has no host".to_owned()));
    }
    Ok(base)
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost"
        || bare
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}
