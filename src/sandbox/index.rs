//! What search and lists look at: records in the order of their last modification, and which are archived.
//!
//! Search sees records late; what it knows meanwhile is a copy of its own. Both are kept in order, so that a page
//! costs what it shows and not what the portal holds.

use super::object_type::Record;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Records that are not archived: (when modified, in milliseconds since 1970; id).
pub(super) type Modified = BTreeSet<(i64, u64)>;

/// What search knows while it lags behind the records.
#[derive(Debug, Default)]
pub(super) struct Lagging {
    known: BTreeMap<u64, Arc<Record>>,
    by_modified: Modified,
    coming: VecDeque<(i64, u64, Option<Arc<Record>>)>,
}

impl Lagging {
    /// Notes what search will see at `due_ms`: the record, or that it is gone.
    pub(super) fn expect(&mut self, due_ms: i64, id: u64, shown: Option<Arc<Record>>) {
        self.coming.push_back((due_ms, id, shown));
    }

    /// Takes in everything that is due.
    pub(super) fn catch_up(&mut self, now_ms: i64) {
        while let Some((due_ms, _, _)) = self.coming.front()
            && *due_ms <= now_ms
            && let Some((_, id, shown)) = self.coming.pop_front()
        {
            if let Some(old) = self.known.remove(&id) {
                self.by_modified.remove(&(old.updated_ms, id));
            }
            if let Some(record) = shown {
                self.by_modified.insert((record.updated_ms, id));
                self.known.insert(id, record);
            }
        }
    }

    pub(super) fn seen(&self) -> Seen<'_> {
        Seen {
            by_modified: &self.by_modified,
            records: Records::Copied(&self.known),
        }
    }
}

/// What a search sees.
pub(super) struct Seen<'a> {
    pub by_modified: &'a Modified,
    records: Records<'a>,
}

enum Records<'a> {
    Live(&'a BTreeMap<u64, Record>),
    Copied(&'a BTreeMap<u64, Arc<Record>>),
}

impl<'a> Seen<'a> {
    /// The records as they are.
    pub(super) fn live(by_modified: &'a Modified, records: &'a BTreeMap<u64, Record>) -> Self {
        Self {
            by_modified,
            records: Records::Live(records),
        }
    }

    pub(super) fn record(&self, id: u64) -> Option<&'a Record> {
        match self.records {
            Records::Live(records) => records.get(&id),
            Records::Copied(records) => records.get(&id).map(|record| &**record),
        }
    }
}
