//! Faults by name: what can go wrong between a client and HubSpot, scripted.
//!
//! A fault is queued and strikes the first request of its kind, in the order of queueing. What a fault
//! does to the world is part of its name: some strike before anything is written, some after it, since
//! the difference between the two is what a client must survive.

use super::clock::Dice;
use super::spoil::Spoil;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// What kind of request a fault strikes, and what the log calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Endpoint {
    /// Creating records, in a batch or alone.
    Create,
    /// Upserting a batch.
    Upsert,
    /// Updating records, in a batch or alone.
    Update,
    /// Reading records by id or key, in a batch or alone.
    Read,
    /// Listing the records of a type.
    List,
    /// Archiving records, in a batch or alone.
    Archive,
    /// Merging two records.
    Merge,
    /// Searching.
    Search,
    /// Making associations.
    Associate,
    /// Reading associations.
    AssociationRead,
    /// Removing associations or labels.
    AssociationArchive,
    /// The association types of a pair.
    Labels,
    /// Property definitions.
    Properties,
    /// Object schemas.
    Schemas,
    /// Account details, usage and the token's own scopes.
    Account,
    /// Everything, also what the sandbox does not know.
    Any,
}

impl Endpoint {
    fn covers(self, endpoint: Endpoint) -> bool {
        self == Endpoint::Any || self == endpoint
    }
}

/// Which limit a 429 speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// The rolling window of ten seconds.
    TenSecondly,
    /// The second of the search API.
    Secondly,
    /// The day.
    Daily,
}

/// Whether a held request waits before or after it was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum When {
    /// Nothing is written until it is released.
    Before,
    /// Everything is written; the answer waits.
    After,
}

/// What happens to the request that a fault strikes.
#[derive(Debug, Clone)]
pub(super) enum Strike {
    /// Answered with this instead of being looked at.
    Instead(Answer),
    /// Committed, and answered with this.
    Commit(Answer),
    /// The connection is dropped before anything was written.
    Refuse,
    /// Committed, and the connection is dropped.
    LoseReply,
    /// Never answered; committed after this time, if at all.
    Hang(Option<Duration>),
    /// Committed; the answer ends half-way and the connection with it.
    Truncate,
    /// Committed; half of the JSON arrives as a whole answer.
    HalfJson,
    /// This many inputs are dropped without a word and not written.
    Omit(usize),
    /// Everything is written, and this many results are left out of the answer.
    Unreported(usize),
    /// Errors in the answer name no trace id.
    ErrorWithoutTrace,
    /// The inputs are taken as if they carried no trace ids: one that is refused refuses the whole batch.
    IgnoreTraces,
    /// The results come in an order that differs from the usual one.
    Shuffle,
    /// The page of records that is answered has something wrong in it.
    Spoil(Spoil),
    /// Looked at this much later.
    Delay(Duration),
    /// Waits to be released.
    Hold(When, Arc<Gate>),
}

/// An answer that HubSpot's own rules did not make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Status(u16),
    Html(u16),
    NoJson,
    Empty,
    EmptyResults,
    Limited(Policy),
}

/// A scripted fault: what happens, to which requests, how often.
#[derive(Debug, Clone)]
pub struct Fault {
    pub(super) name: String,
    pub(super) strike: Strike,
    pub(super) endpoint: Endpoint,
    pub(super) times: Option<u32>,
    pub(super) skip: u32,
    pub(super) retry_after: Option<Duration>,
}

impl Fault {
    /// The fault of this name, striking the next request of any kind, once. `None` if there is none; all
    /// names are in [`Fault::NAMES`].
    pub fn named(name: &str) -> Option<Self> {
        let second = Duration::from_secs(1);
        let strike = match name {
            "lose-reply" => Strike::LoseReply,
            "refuse-connection" => Strike::Refuse,
            "commit-then-500" => Strike::Commit(Answer::Status(500)),
            "commit-then-502" => Strike::Commit(Answer::Status(502)),
            "commit-then-504" => Strike::Commit(Answer::Status(504)),
            "commit-then-524" => Strike::Commit(Answer::Status(524)),
            "hang" => Strike::Hang(None),
            "hang-then-commit" => Strike::Hang(Some(second)),
            "500" => Strike::Instead(Answer::Status(500)),
            "502" => Strike::Instead(Answer::Status(502)),
            "503" => Strike::Instead(Answer::Status(503)),
            "504" => Strike::Instead(Answer::Status(504)),
            "503-html" => Strike::Instead(Answer::Html(503)),
            "truncated" => Strike::Truncate,
            "no-json" => Strike::Commit(Answer::NoJson),
            "half-json" => Strike::HalfJson,
            "empty-2xx" => Strike::Instead(Answer::Empty),
            "empty-results" => Strike::Instead(Answer::EmptyResults),
            "429-ten-secondly" => Strike::Instead(Answer::Limited(Policy::TenSecondly)),
            "429-secondly" => Strike::Instead(Answer::Limited(Policy::Secondly)),
            "429-daily" => Strike::Instead(Answer::Limited(Policy::Daily)),
            "401" => Strike::Instead(Answer::Status(401)),
            "403" => Strike::Instead(Answer::Status(403)),
            "413" => Strike::Instead(Answer::Status(413)),
            "423" => Strike::Instead(Answer::Status(423)),
            "477" => Strike::Instead(Answer::Status(477)),
            "partial" => Strike::Omit(1),
            "unreported" => Strike::Unreported(1),
            "error-without-trace" => Strike::ErrorWithoutTrace,
            "ignore-traces" => Strike::IgnoreTraces,
            "shuffle" => Strike::Shuffle,
            "repeated-page" => Strike::Spoil(Spoil::RepeatedPage),
            "unknown-cursor" => Strike::Spoil(Spoil::UnknownCursor),
            "repeated-record" => Strike::Spoil(Spoil::RepeatedRecord),
            "record-without-id" => Strike::Spoil(Spoil::NoId),
            "mistyped-property" => Strike::Spoil(Spoil::MistypedProperty),
            "mistyped-date" => Strike::Spoil(Spoil::MistypedDate),
            "delay" => Strike::Delay(second),
            _ => return None,
        };
        Some(Self::of(name, strike))
    }

    /// The names that [`Fault::named`] knows.
    pub const NAMES: [&'static str; 38] = [
        "lose-reply",
        "refuse-connection",
        "commit-then-500",
        "commit-then-502",
        "commit-then-504",
        "commit-then-524",
        "hang",
        "hang-then-commit",
        "500",
        "502",
        "503",
        "504",
        "503-html",
        "truncated",
        "no-json",
        "half-json",
        "empty-2xx",
        "empty-results",
        "429-ten-secondly",
        "429-secondly",
        "429-daily",
        "401",
        "403",
        "413",
        "423",
        "477",
        "partial",
        "unreported",
        "error-without-trace",
        "ignore-traces",
        "shuffle",
        "repeated-page",
        "unknown-cursor",
        "repeated-record",
        "record-without-id",
        "mistyped-property",
        "mistyped-date",
        "delay",
    ];

    /// The request is committed and the connection dropped before the answer.
    pub fn lose_reply() -> Self {
        Self::of("lose-reply", Strike::LoseReply)
    }

    /// The connection is dropped before anything is written.
    pub fn refuse_connection() -> Self {
        Self::of("refuse-connection", Strike::Refuse)
    }

    /// The request is committed, and the answer is this status.
    pub fn commit_then(status: u16) -> Self {
        Self::of("commit-then", Strike::Commit(Answer::Status(status)))
    }

    /// The answer is this status, and nothing is written.
    pub fn status(status: u16) -> Self {
        Self::of("status", Strike::Instead(Answer::Status(status)))
    }

    /// The answer is 429 of the given policy, and nothing is written.
    pub fn limited(policy: Policy) -> Self {
        Self::of("429", Strike::Instead(Answer::Limited(policy)))
    }

    /// The request is never answered; with a time it is committed that much later.
    pub fn hang(lands_after: Option<Duration>) -> Self {
        Self::of("hang", Strike::Hang(lands_after))
    }

    /// `inputs` of the batch are neither written nor named in the answer.
    pub fn partial(inputs: usize) -> Self {
        Self::of("partial", Strike::Omit(inputs))
    }

    /// The whole batch is written, and `results` of it are not named in the answer.
    pub fn unreported(results: usize) -> Self {
        Self::of("unreported", Strike::Unreported(results))
    }

    /// The request is looked at this much later.
    pub fn delay(by: Duration) -> Self {
        Self::of("delay", Strike::Delay(by))
    }

    pub(super) fn hold(when: When, gate: Arc<Gate>) -> Self {
        Self::of("hold", Strike::Hold(when, gate))
    }

    /// Strikes only requests of this kind.
    pub fn on(mut self, endpoint: Endpoint) -> Self {
        self.endpoint = endpoint;
        self
    }

    /// Strikes this many requests instead of one.
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    /// Strikes until the faults are cleared.
    pub fn always(mut self) -> Self {
        self.times = None;
        self
    }

    /// Lets this many requests of its kind pass first.
    pub fn after(mut self, skip: u32) -> Self {
        self.skip = skip;
        self
    }

    /// Adds a `Retry-After` header, in whole seconds, to what the fault answers.
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Sets the time of `delay` and `hang-then-commit`.
    pub fn lasting(mut self, time: Duration) -> Self {
        match &mut self.strike {
            Strike::Delay(by) | Strike::Hang(Some(by)) => *by = time,
            _ => {}
        }
        self
    }

    /// Sets how many inputs or results `partial` and `unreported` drop.
    pub fn dropping(mut self, count: usize) -> Self {
        match &mut self.strike {
            Strike::Omit(dropped) | Strike::Unreported(dropped) => *dropped = count,
            _ => {}
        }
        self
    }

    fn of(name: &str, strike: Strike) -> Self {
        let name = name.to_owned();
        Self {
            name,
            strike,
            endpoint: Endpoint::Any,
            times: Some(1),
            skip: 0,
            retry_after: None,
        }
    }
}

/// The faults that wait for their request, first come first, and how often each has struck.
#[derive(Debug, Default)]
pub(super) struct Faults {
    waiting: Vec<Fault>,
    struck: BTreeMap<String, u64>,
}

impl Faults {
    pub(super) fn add(&mut self, fault: Fault) {
        self.waiting.push(fault);
    }

    pub(super) fn clear(&mut self) {
        for fault in self.waiting.drain(..) {
            if let Strike::Hold(_, gate) = fault.strike {
                gate.open();
            }
        }
    }

    pub(super) fn waiting(&self) -> impl ExactSizeIterator<Item = &Fault> {
        self.waiting.iter()
    }

    pub(super) fn struck(&self) -> &BTreeMap<String, u64> {
        &self.struck
    }

    /// The fault that strikes this request, if one does.
    pub(super) fn strike(&mut self, endpoint: Endpoint) -> Option<Fault> {
        let position = self
            .waiting
            .iter()
            .position(|fault| fault.endpoint.covers(endpoint))?;
        let fault = &mut self.waiting[position];
        if fault.skip > 0 {
            fault.skip -= 1;
            return None;
        }
        let struck = fault.clone();
        match &mut fault.times {
            None => {}
            Some(times) if *times > 1 => *times -= 1,
            Some(_) => {
                self.waiting.remove(position);
            }
        }
        *self.struck.entry(struck.name.clone()).or_default() += 1;
        Some(struck)
    }
}

/// A gate at which requests wait until it is opened.
#[derive(Debug)]
pub(super) struct Gate {
    open: watch::Sender<bool>,
    reached: watch::Sender<usize>,
}

impl Gate {
    pub(super) fn shut() -> Arc<Self> {
        Arc::new(Self {
            open: watch::Sender::new(false),
            reached: watch::Sender::new(0),
        })
    }

    pub(super) fn open(&self) {
        self.open.send_replace(true);
    }

    pub(super) fn reached(&self) -> watch::Receiver<usize> {
        self.reached.subscribe()
    }

    /// Waits at the gate; returns at once if it is open.
    pub(super) async fn pass(&self) {
        self.reached.send_modify(|count| *count += 1);
        let mut open = self.open.subscribe();
        // The sender lives as long as `self`, so the wait ends only by opening.
        let _ = open.wait_for(|open| *open).await;
    }
}

/// Drops `count` items at random.
pub(super) fn drop_some<T>(items: &mut Vec<T>, count: usize, dice: &mut Dice) {
    for _ in 0..count.min(items.len()) {
        let position = usize::try_from(dice.below(items.len() as u64)).unwrap_or_default();
        items.remove(position);
    }
}
