//! The transport: how one request travels to HubSpot and its answer back.
//!
//! `Wire` is the real one, over HTTPS. It follows no redirection, repeats nothing, speaks plain HTTP only to this
//! machine, and reads no more than [`BODY_BYTES_MAX`] of an answer, unpacked. The trait is the seam at which a
//! simulation puts a network of its own, with everything above it (bodies, replies, pace, error policy) the real one.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Url};

use super::client::Setup;

/// The most of an answer that is read, in bytes after unpacking. A full batch of 100 records of 64 KB
/// texts is 6.4 MB.
pub const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A request as it leaves.
#[derive(Debug)]
pub struct Outgoing {
    /// Where to, with path and query encoded.
    pub url: Url,
    /// The `Authorization` header.
    pub authorization: HeaderValue,
    /// JSON; with a body it is a POST, else a GET.
    pub body: Option<Vec<u8>>,
}

/// An answer that came whole.
#[derive(Debug)]
pub struct Incoming {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, unpacked.
    pub body: Vec<u8>,
}

/// Why there is no whole answer. Causes hold no address: it has record ids in it.
#[derive(Debug)]
pub enum Lost {
    /// No connection: HubSpot never saw the request.
    Unconnected(Box<dyn Error + Send + Sync>),
    /// No whole answer in time.
    TimedOut(Box<dyn Error + Send + Sync>),
    /// The connection broke while the request or its answer was on the way.
    Broken(Box<dyn Error + Send + Sync>),
    /// The answer is larger than [`BODY_BYTES_MAX`].
    TooLarge,
}

/// Carries requests to HubSpot.
pub trait Transport: Send + Sync {
    /// Sends one request and reads its answer to the end.
    fn exchange(&self, request: Outgoing) -> BoxFuture<'_, Result<Incoming, Lost>>;
}

/// The real transport.
#[derive(Debug)]
pub(super) struct Wire {
    http: reqwest::Client,
}

impl Wire {
    /// Sets up connections and TLS; sends nothing. `timeout` is from connecting to the last byte of the answer; `local`
    /// says that the host is this machine.
    pub(super) fn new(timeout: Duration, encrypted: bool, local: bool) -> Result<Wire, Setup> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("hubsyncd/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            // A slot is one request; the library repeats nothing behind our back.
            .retry(reqwest::retry::never())
            .timeout(timeout)
            .connect_timeout(timeout.min(Duration::from_secs(10)))
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
        let http = builder.build().map_err(|error| Setup::Client(Box::new(error)))?;
        Ok(Wire { http })
    }

    async fn send(&self, outgoing: Outgoing) -> Result<Incoming, Lost> {
        let method = if outgoing.body.is_some() {
            Method::POST
        } else {
            Method::GET
        };
        let mut request = self
            .http
            .request(method, outgoing.url)
            .header(AUTHORIZATION, outgoing.authorization);
        if let Some(body) = outgoing.body {
            request = request.header(CONTENT_TYPE, "application/json").body(body);
        }
        let mut response = request.send().await.map_err(lost)?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(lost)? {
            if body.len() + chunk.len() > BODY_BYTES_MAX {
                return Err(Lost::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Incoming {
            status,
            headers,
            body,
        })
    }
}

impl Transport for Wire {
    fn exchange(&self, request: Outgoing) -> BoxFuture<'_, Result<Incoming, Lost>> {
        Box::pin(self.send(request))
    }
}

fn lost(error: reqwest::Error) -> Lost {
    let (connect, timeout) = (error.is_connect(), error.is_timeout());
    let error = Box::new(error.without_url());
    if connect {
        Lost::Unconnected(error)
    } else if timeout {
        Lost::TimedOut(error)
    } else {
        Lost::Broken(error)
    }
}

/// TLS by rustls with ring and the machine's root certificates (`SSL_CERT_FILE` and `SSL_CERT_DIR` count).
pub(super) fn tls(encrypted: bool) -> Result<rustls::ClientConfig, Setup> {
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
