//! What can go wrong with HubSpot, by what the caller does about it.
//!
//! [`Failed`] is one request that did not succeed as a whole; a batch that succeeded with refused records
//! is a reply, not a failure. Exactly one `match`, in `judge`, turns what happened into a [`Disposition`]
//! and a sentence for the operator. Nothing here holds a value of a row: HubSpot's texts are redacted
//! before they arrive, and addresses are left out of causes.

use std::fmt;
use std::time::Duration;

use super::pace::Why;
use super::reply::{ErrorBody, Unreadable};
use super::wire::RecordError;
use crate::sync::outcome::Refusal;

/// What the caller does about a failed request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// Read the rows and send them again, after a back-off. It never counts against the records.
    Retry {
        /// Whether HubSpot may have done, or may still do, what was asked: the settle time applies.
        unknown: bool,
    },
    /// The batch is refused as a whole, for one of its records or for its size: halve it.
    Split,
    /// The only record of the request is refused.
    Reject,
    /// Nothing of this kind will succeed until somebody acts.
    Halt {
        /// Whether it concerns everything the token does (the pace is halted already), or this object.
        token: bool,
    },
}

/// Which limit a 429 speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// The rolling window, `TEN_SECONDLY_ROLLING`.
    Window,
    /// One second, `SECONDLY`; the search endpoints have it.
    Second,
    /// The portal's day, `DAILY`.
    Daily,
}

/// A request that did not succeed as a whole.
#[derive(Debug)]
pub struct Failed {
    /// What to do about it.
    pub disposition: Disposition,
    /// What we were doing, e.g. `batch/upsert of 100 records of 0-1`.
    pub doing: String,
    /// The HTTP status, if an answer came.
    pub status: Option<u16>,
    /// What HubSpot said, redacted, if it said anything that reads.
    pub said: Option<Box<RecordError>>,
    /// HubSpot's correlation id, for its support.
    pub correlation_id: Option<String>,
    /// With 429: which limit.
    pub policy: Option<Policy>,
    /// How long HubSpot wants to be left alone; the pace obeys it already.
    pub retry_after: Option<Duration>,
    /// What this means and what to do, for the operator.
    pub advice: &'static str,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What an answer that is larger than we read means.
const TOO_LARGE: &str = "the answer is larger than this program reads; it is asked again";

/// How a request failed.
#[derive(Debug)]
pub(super) enum Cause {
    /// No connection: HubSpot never saw the request.
    Unconnected(Box<dyn std::error::Error + Send + Sync>),
    /// No whole answer in time.
    TimedOut(Box<dyn std::error::Error + Send + Sync>),
    /// The connection broke while the request or its answer was on the way.
    Broken(Box<dyn std::error::Error + Send + Sync>),
    /// The answer is larger than we read.
    TooLarge,
    /// A success whose body says nothing that can be understood.
    Unreadable(Unreadable),
    /// Any other status than success, and what its body says.
    Status(u16, Option<Box<ErrorBody>>),
}

/// The request that failed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    /// How many records it was about.
    pub records: usize,
    /// Whether it changes anything in HubSpot.
    pub writes: bool,
    /// Whether the token looks as if it belonged to the other, European address.
    pub elsewhere: bool,
}

/// The one place that decides what a failure means.
fn judge(cause: &Cause, asked: Asked) -> (Disposition, &'static str) {
    let retry = Disposition::Retry { unknown: false };
    let lost = Disposition::Retry {
        unknown: asked.writes,
    };
    let refused = if asked.records > 1 {
        Disposition::Split
    } else {
        Disposition::Reject
    };
    match cause {
        Cause::Unconnected(_) => (
            retry,
            "HubSpot cannot be reached; it is tried again: check network, DNS, proxy and base-url",
        ),
        Cause::TimedOut(_) => (
            lost,
            "no answer in time; it is sent again, since it may or may not have arrived",
        ),
        Cause::Broken(_) => (
            lost,
            "the connection broke; it is sent again, since it may or may not have arrived",
        ),
        Cause::TooLarge => (lost, TOO_LARGE),
        Cause::Unreadable(_) => (
            lost,
            "the answer cannot be understood; it is sent again and looked up: a proxy may stand between",
        ),
        Cause::Status(status, _) => match status {
            100..=399 => (
                retry,
                "a redirection, which is never followed: check base-url, and whether a proxy stands between",
            ),
            401 if asked.elsewhere => (
                Disposition::Halt { token: true },
                "HubSpot refuses the token; it is a European one (pat-eu1): try base-url = \"https://api-eu1.hubapi.com\", or check that it was not rotated",
            ),
            401 => (
                Disposition::Halt { token: true },
                "HubSpot refuses the token; nothing is sent until it is accepted: check that it was not rotated or revoked",
            ),
            403 => (
                Disposition::Halt { token: false },
                "the token lacks a right; changes are kept: give the key the scopes that the message or the README names",
            ),
            407 => (
                retry,
                "a proxy asks for authentication: check the proxy's settings",
            ),
            408 => (lost, "HubSpot gave up waiting; it is sent again"),
            423 => (
                retry,
                "HubSpot has locked the records for a moment; it is sent again",
            ),
            429 => (
                retry,
                "HubSpot's limit is reached; it is sent again when the limit allows",
            ),
            477 => (
                retry,
                "HubSpot is moving the portal; it is sent again when HubSpot says",
            ),
            413 | 414 => (refused, "the request is too large; it is halved"),
            400..=499 => (
                refused,
                "HubSpot refuses the data; what it refuses alone is listed under failures and tried again by the next sweep",
            ),
            _ => (
                lost,
                "HubSpot has trouble; it is sent again, since it may or may not have been done",
            ),
        },
    }
}

impl Failed {
    pub(super) fn new(doing: String, cause: Cause, asked: Asked, retry_after: Option<Duration>) -> Failed {
        let (disposition, advice) = judge(&cause, asked);
        let mut failed = Failed {
            disposition,
            doing,
            status: None,
            said: None,
            correlation_id: None,
            policy: None,
            retry_after,
            advice,
            source: None,
        };
        match cause {
            Cause::Unconnected(error) | Cause::TimedOut(error) | Cause::Broken(error) => {
                failed.source = Some(error);
            }
            Cause::TooLarge => {}
            Cause::Unreadable(unreadable) => failed.source = Some(Box::new(unreadable)),
            Cause::Status(status, body) => {
                failed.status = Some(status);
                failed.policy = (status == 429).then(|| policy(body.as_deref()));
                if let Some(body) = body {
                    failed.correlation_id = body.correlation_id;
                    failed.said = Some(Box::new(body.error));
                }
            }
        }
        failed
    }

    /// A request that succeeded and whose answer refuses a part of it.
    pub(super) fn told(
        disposition: Disposition,
        doing: String,
        said: RecordError,
        correlation_id: Option<String>,
    ) -> Failed {
        Failed {
            disposition,
            doing,
            status: None,
            said: Some(Box::new(said)),
            correlation_id,
            policy: None,
            retry_after: None,
            advice: "HubSpot refuses the data; what it refuses alone is listed under failures and tried again by the next sweep",
            source: None,
        }
    }

    /// A request that was never sent, because whoever wanted it stopped waiting for its slot.
    pub fn unsent(records: usize, object_type: &str) -> Failed {
        Failed {
            disposition: Disposition::Retry { unknown: false },
            doing: format!("waiting for leave to send a request for {records} records of {object_type}"),
            status: None,
            said: None,
            correlation_id: None,
            policy: None,
            retry_after: None,
            advice: "nothing was sent; the rows are pushed again later",
            source: None,
        }
    }

    /// A request that was never sent, because this daemon cannot prove that it holds the lease.
    pub fn not_ours(doing: impl fmt::Display) -> Failed {
        Failed {
            disposition: Disposition::Retry { unknown: false },
            doing: format!("{doing}: the lease is not confirmed, so nothing was sent"),
            status: None,
            said: None,
            correlation_id: None,
            policy: None,
            retry_after: None,
            advice: "the rows are pushed when the lease is held again",
            source: None,
        }
    }

    /// Whether HubSpot may have done what was asked.
    pub fn is_unknown(&self) -> bool {
        self.disposition == Disposition::Retry { unknown: true }
    }

    /// Whether the answer is larger than we read: fewer records at a time may fit.
    pub fn is_too_large(&self) -> bool {
        self.status.is_none() && self.advice == TOO_LARGE
    }

    /// Whether HubSpot says that what was asked for is not there.
    pub fn is_not_found(&self) -> bool {
        self.status == Some(404) && self.said.as_ref().is_some_and(|said| said.is_not_found())
    }

    /// As a refusal of the record that was sent alone.
    pub fn refusal(&self) -> Refusal {
        match &self.said {
            Some(said) => said.refusal(self.correlation_id.as_deref()),
            None => Refusal {
                correlation_id: self.correlation_id.clone(),
                ..Refusal::ours("unknown", self.to_string())
            },
        }
    }

    /// Why the pace slows down for this, if it does.
    pub(super) fn slows(&self) -> Option<Why> {
        match (self.status?, self.policy) {
            (_, Some(Policy::Window)) => Some(Why::Window),
            (_, Some(Policy::Second)) => Some(Why::Second),
            (_, Some(Policy::Daily)) => Some(Why::Daily),
            (423, _) => Some(Why::Locked),
            (477, _) => Some(Why::Migration),
            _ => None,
        }
    }
}

/// Which limit a 429 speaks of; where it does not say, the rolling window is the one that returns soonest
/// among those that are met in practice.
fn policy(body: Option<&ErrorBody>) -> Policy {
    let Some(body) = body else { return Policy::Window };
    match body.policy.as_deref() {
        Some(name) if name.contains("DAILY") => Policy::Daily,
        Some(name) if name.contains("TEN_SECONDLY") => Policy::Window,
        Some(name) if name.contains("SECONDLY") => Policy::Second,
        None if body.daily => Policy::Daily,
        _ => Policy::Window,
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.doing)?;
        if let Some(status) = self.status {
            write!(f, ": HubSpot answered {status}")?;
        }
        if let Some(said) = &self.said {
            write!(f, " {}", said.category)?;
            if !said.message.is_empty() {
                write!(f, ": {}", said.message)?;
            }
        }
        if let Some(id) = &self.correlation_id {
            write!(f, " (correlation id {id})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn std::error::Error + 'static))
    }
}
