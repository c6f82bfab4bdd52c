//! The client: one request for one slot.
//!
//! [`Client`] owns the connections, the token and the [`Pace`]. Every method takes a [`Slot`], sends exactly
//! one request, tells the pace and the observer how it went, and returns what HubSpot said. It follows no
//! redirection, repeats nothing, speaks plain HTTP only to this machine, and reads no more than
//! [`BODY_BYTES_MAX`] of an answer, unpacked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use secrecy::{ExposeSecret, SecretString};

use super::endpoint::Call;
use super::error::{Asked, Cause, Failed};
use super::pace::{Budget, Heard, Pace, Slot, Verdict};
use super::reply;

/// The most of an answer that is read, in bytes after unpacking. A full batch of 100 records of 64 KB
/// texts is 6.4 MB.
pub const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

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
    http: reqwest::Client,
    base: Url,
    pub(super) api_version: Arc<str>,
    authorization: HeaderValue,
    /// The token says Europe and the address does not.
    elsewhere: bool,
    pace: Arc<Pace>,
    observer: Observer,
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
        let base = Url::parse(&settings.base_url).map_err(|error| Setup::Address(error.to_string()))?;
        let host = base.host_str().unwrap_or_default().to_owned();
        if host.is_empty() || base.cannot_be_a_base() {
            return Err(Setup::Address("it has no host".to_owned()));
        }
        let local = is_loopback(&host);
        if base.scheme() != "https" && !(local && base.scheme() == "http") {
            return Err(Setup::Unencrypted);
        }
        let token = settings.token.expose_secret().trim();
        let mut authorization =
            HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| Setup::Token)?;
        authorization.set_sensitive(true);
        Ok(Client {
            http: connections(&settings, base.scheme() == "https", local)?,
            elsewhere: token.starts_with("pat-eu1") && host != EUROPE,
            base,
            api_version: settings.api_version.into(),
            authorization,
            pace: Pace::new(settings.budget),
            observer: settings.observer,
        })
    }

    /// The token's one budget.
    pub fn pace(&self) -> &Arc<Pace> {
        &self.pace
    }

    /// The version in the paths.
    pub fn api_version(&self) -> &str {
        &self.api_version
    }

    /// Sends one request and returns the body of its success.
    pub(super) async fn send(
        &self,
        mut slot: Slot,
        call: &Call<'_>,
        body: Option<Vec<u8>>,
    ) -> Result<Answer, Failed> {
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
        slot.answered(headers.heard, headers.daily_remaining, verdict);
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

    async fn exchange(&self, call: &Call<'_>, body: Option<Vec<u8>>) -> Result<Exchange, Cause> {
        let method = if body.is_some() { Method::POST } else { Method::GET };
        let mut request = self
            .http
            .request(method, call.url(&self.base))
            .header(AUTHORIZATION, self.authorization.clone());
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body);
        }
        let mut response = request.send().await.map_err(cause)?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(cause)? {
            if body.len() + chunk.len() > BODY_BYTES_MAX {
                return Err(Cause::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Exchange {
            status,
            headers,
            body,
        })
    }
}

/// A success.
pub(super) struct Answer {
    pub body: Vec<u8>,
    pub correlation_id: Option<String>,
}

struct Exchange {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

/// What of an answer's headers concerns us.
#[derive(Default)]
struct Headers {
    heard: Heard,
    daily_remaining: Option<u64>,
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
            daily_remaining: number("x-hubspot-ratelimit-daily-remaining"),
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

fn cause(error: reqwest::Error) -> Cause {
    if error.is_connect() {
        Cause::Unconnected(error)
    } else if error.is_timeout() {
        Cause::TimedOut(error)
    } else {
        Cause::Broken(error)
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost"
        || bare
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

fn connections(settings: &Settings, encrypted: bool, local: bool) -> Result<reqwest::Client, Setup> {
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("hubsyncd/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        // A slot is one request; the library repeats nothing behind our back.
        .retry(reqwest::retry::never())
        .timeout(settings.timeout)
        .connect_timeout(settings.timeout.min(Duration::from_secs(10)))
        .pool_idle_timeout(Duration::from_secs(50))
        .tcp_nodelay(true)
        .tcp_keepalive(Duration::from_secs(30))
        // A connection that died silently is noticed before the next batch times out on it.
        .http2_keep_alive_interval(Duration::from_secs(10))
        .http2_keep_alive_timeout(Duration::from_secs(10))
        .tls_backend_preconfigured(tls(encrypted)?);
    if local {
        builder = builder.no_proxy();
    }
    builder.build().map_err(|error| Setup::Client(Box::new(error)))
}

/// TLS by rustls with ring and the machine's root certificates (`SSL_CERT_FILE` and `SSL_CERT_DIR` count).
fn tls(encrypted: bool) -> Result<rustls::ClientConfig, Setup> {
    let mut roots = rustls::RootCertStore::empty();
    if encrypted {
        let found = rustls_native_certs::load_native_certs();
        let (good, _) = roots.add_parsable_certificates(found.certs);
        if good == 0 {
            return Err(Setup::Roots);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Setup::Client(Box::new(error)))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
