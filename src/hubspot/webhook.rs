//! The webhook that alerts are posted to.
//!
//! It is not HubSpot's. It stands behind this wall because the wall's HTTPS client is the only one, with the machine's
//! root certificates and proxies. The address is as good as a password (chat services put one in it): no error and no
//! `Debug` shows it.

use super::client::Setup;
use super::transport::tls;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Url};
use secrecy::{ExposeSecret, SecretString};
use std::time::Duration;

/// How long one attempt may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Posts JSON to one address.
pub struct Webhook {
    http: Client,
    url: Url,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").finish_non_exhaustive()
    }
}

/// Why a post did not arrive. Causes hold no address.
#[derive(Debug, thiserror::Error)]
pub enum Undelivered {
    /// No answer came.
    #[error("the webhook of [alert] cannot be reached")]
    Unanswered(#[source] reqwest::Error),
    /// The answer is not a success; redirections are not followed.
    #[error("the webhook of [alert] answers {0}")]
    Refused(u16),
}

impl Webhook {
    /// Sets up TLS; sends nothing.
    ///
    /// # Errors
    /// The address is none, or this machine has no root certificates.
    pub fn new(url: &SecretString) -> Result<Webhook, Setup> {
        let url: Url = url
            .expose_secret()
            .parse()
            .map_err(|_| Setup::Address("the webhook's is not shown".to_owned()))?;
        let encrypted = url.scheme() == "https";
        let mut builder = Client::builder()
            .user_agent(concat!("hubsyncd/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .timeout(TIMEOUT)
            .tls_backend_preconfigured(tls(encrypted)?);
        if !encrypted {
            // Plain text is for this machine only, which no proxy reaches.
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|error| Setup::Client(Box::new(error)))?;
        Ok(Webhook { http, url })
    }

    /// Posts a JSON text once.
    ///
    /// # Errors
    /// [`Undelivered`]: nobody has read it, or nobody said so.
    pub async fn post(&self, json: String) -> Result<(), Undelivered> {
        let request = self
            .http
            .post(self.url.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(json);
        let unanswered = |error: reqwest::Error| Undelivered::Unanswered(error.without_url());
        let status = request.send().await.map_err(unanswered)?.status();
        if status.is_success() {
            Ok(())
        } else {
            Err(Undelivered::Refused(status.as_u16()))
        }
    }
}
