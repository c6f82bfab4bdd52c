//! What was asked: every request with what it wrote, bounded, and counts that are never forgotten.

use super::fault::Endpoint;
use std::collections::{BTreeMap, VecDeque};

/// One request as the sandbox saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Its number, from 0, in the order of arrival.
    pub number: u64,
    /// `POST` and so on.
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// What kind of request it is.
    pub endpoint: Endpoint,
    /// How many inputs it carried; 0 where there are none.
    pub inputs: usize,
    /// When it arrived, milliseconds since 1970.
    pub arrived_ms: i64,
    /// The status answered; `None` while it is under way, or if it was never answered.
    pub status: Option<u16>,
    /// What it wrote, in the order of writing; empty if nothing was committed.
    pub writes: Vec<Write>,
}

/// One thing that a request wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// A record was created or changed.
    Record {
        /// The object type id.
        object: String,
        /// The record's id.
        id: String,
        /// Whether the request made it.
        created: bool,
        /// The properties that were sent, as stored; cleared ones are empty.
        properties: Vec<(String, String)>,
    },
    /// A record was archived.
    Archived {
        /// The object type id.
        object: String,
        /// The record's id.
        id: String,
    },
    /// An association was made.
    Linked {
        /// Object type id and record id that it starts at.
        from: (String, String),
        /// Object type id and record id that it leads to.
        to: (String, String),
    },
    /// An association, or a label of it, was removed.
    Unlinked {
        /// Object type id and record id that it started at.
        from: (String, String),
        /// Object type id and record id that it led to.
        to: (String, String),
    },
}

/// The bounded log.
#[derive(Debug)]
pub(super) struct Log {
    kept: VecDeque<Request>,
    kept_max: usize,
    next: u64,
    by_endpoint: BTreeMap<Endpoint, u64>,
    by_status: BTreeMap<u16, u64>,
}

impl Log {
    pub(super) fn keeping(kept_max: usize) -> Self {
        Self {
            kept: VecDeque::new(),
            kept_max,
            next: 0,
            by_endpoint: BTreeMap::new(),
            by_status: BTreeMap::new(),
        }
    }

    /// Notes a request that arrived; answers its number.
    pub(super) fn arrived(&mut self, mut request: Request) -> u64 {
        let number = self.next;
        self.next += 1;
        request.number = number;
        *self.by_endpoint.entry(request.endpoint).or_default() += 1;
        self.kept.push_back(request);
        while self.kept.len() > self.kept_max {
            self.kept.pop_front();
        }
        number
    }

    pub(super) fn wrote(&mut self, number: u64, inputs: usize, writes: Vec<Write>) {
        if let Some(request) = self.at(number) {
            request.inputs = inputs;
            request.writes = writes;
        }
    }

    pub(super) fn answered(&mut self, number: u64, status: u16) {
        *self.by_status.entry(status).or_default() += 1;
        if let Some(request) = self.at(number) {
            request.status = Some(status);
        }
    }

    pub(super) fn requests(&self) -> impl DoubleEndedIterator<Item = &Request> {
        self.kept.iter()
    }

    pub(super) fn count(&self, endpoint: Endpoint) -> u64 {
        match endpoint {
            Endpoint::Any => self.next,
            endpoint => self.by_endpoint.get(&endpoint).copied().unwrap_or_default(),
        }
    }

    pub(super) fn answered_with(&self, status: u16) -> u64 {
        self.by_status.get(&status).copied().unwrap_or_default()
    }

    fn at(&mut self, number: u64) -> Option<&mut Request> {
        let first = self.kept.front()?.number;
        let position = usize::try_from(number.checked_sub(first)?).ok()?;
        self.kept.get_mut(position)
    }
}
