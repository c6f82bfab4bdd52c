//! Talking to the running daemon over its socket.

use super::failure::Failure;
use super::{Surroundings, environment, refuse_configuration};
use crate::config;
use crate::daemon::exit;
use anyhow::{Context, anyhow};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::UnixStream;

/// An answer larger than this is none of the daemon's.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// How long the daemon may take to answer a question that it can answer from memory or one query.
pub(super) const SOON: Duration = Duration::from_secs(15);

/// The daemon behind its socket.
pub(super) struct Daemon {
    path: PathBuf,
}

/// What the daemon answered.
pub(super) struct Answer {
    pub(super) code: StatusCode,
    pub(super) text: String,
}

impl Answer {
    /// The body as JSON.
    pub(super) fn json(&self) -> Result<serde_json::Value, Failure> {
        self.read()
    }

    /// The body as JSON of a known form.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_str(&self.text)
            .context("the daemon's answer is no JSON")
            .map_err(|error| Failure::new(exit::SOFTWARE, error))
    }

    /// The answer, if the daemon did what it was asked; else its words are the error.
    pub(super) fn accepted(self) -> Result<Answer, Failure> {
        if self.code.is_success() {
            return Ok(self);
        }
        let body: serde_json::Value = serde_json::from_str(&self.text).unwrap_or_default();
        let words = body["error"].as_str().map(str::to_owned);
        let words =
            words.unwrap_or_else(|| format!("the daemon answers {} without a reason", self.code.as_u16()));
        let (code, hint) = match self.code {
            StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST => (exit::NO, None),
            // Its words name the daemon to ask.
            StatusCode::CONFLICT => (exit::UNAVAILABLE, None),
            _ => (
                exit::TRY_AGAIN,
                Some("`hubsyncd health` says how the daemon is; then try again"),
            ),
        };
        let failure = Failure::new(code, anyhow!(words));
        Err(match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        })
    }
}

impl Daemon {
    /// The daemon whose socket the surroundings name.
    pub(super) fn find(surroundings: &Surroundings) -> Result<Daemon, Failure> {
        let path = config::socket_path(surroundings.config_path(), &environment);
        path.map(|path| Daemon { path })
            .map_err(|problems| refuse_configuration(&problems))
    }

    /// The daemon behind this socket.
    pub(super) fn at(path: PathBuf) -> Daemon {
        Daemon { path }
    }

    /// Asks, and waits as long as `patience` (`None`: for ever) for the whole answer.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        patience: Option<Duration>,
    ) -> Result<Answer, Failure> {
        let stream = UnixStream::connect(&self.path)
            .await
            .map_err(|error| self.unreachable(error))?;
        let talk = self.talk(stream, method, path);
        let answer = match patience {
            None => talk.await,
            Some(patience) => match tokio::time::timeout(patience, talk).await {
                Ok(answer) => answer,
                Err(_) => Err(anyhow!("no answer within {} s", patience.as_secs())),
            },
        };
        answer.map_err(|error| {
            let doing = format!("the daemon at {} did not answer", self.path.display());
            Failure::new(exit::TRY_AGAIN, error.context(doing)).hint("see its log: journalctl -u hubsyncd")
        })
    }

    async fn talk(&self, stream: UnixStream, method: Method, path: &str) -> anyhow::Result<Answer> {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "hubsyncd")
            .body(Empty::<Bytes>::new())?;
        let answer = async {
            let response = sender.send_request(request).await?;
            let code = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
            let bytes = body
                .collect()
                .await
                .map_err(anyhow::Error::from_boxed)?
                .to_bytes();
            Ok(Answer {
                code,
                text: String::from_utf8_lossy(&bytes).into_owned(),
            })
        };
        let mut answer = std::pin::pin!(answer);
        tokio::select! {
            answer = &mut answer => answer,
            // The connection ends first only if it broke; the request then knows why.
            _ = connection => answer.await,
        }
    }

    fn unreachable(&self, error: std::io::Error) -> Failure {
        let kind = error.kind();
        let error = anyhow::Error::new(error)
            .context(format!("the daemon at {} cannot be reached", self.path.display()));
        match kind {
            ErrorKind::PermissionDenied => Failure::new(exit::NOT_PERMITTED, error).hint(
                "ask as root, or join the daemon's group: usermod -aG hubsyncd $USER, then log in again",
            ),
            _ => Failure::new(exit::UNAVAILABLE, error).hint(
                "is it running? systemctl status hubsyncd; another socket: HUBSYNCD_SOCKET or --config",
            ),
        }
    }
}

/// A value for a query string.
pub(super) fn encoded(value: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    value.bytes().map(encode).collect()
}
