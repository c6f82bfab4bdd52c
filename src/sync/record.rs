//! A record: a row as it was read.

use super::change::Key;
use super::linking::{Remembered, Target};
use std::sync::Arc;

/// A row as one read of the database saw it, with its values already in HubSpot's strings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The row's key.
    pub key: Key,
    /// The row's HubSpot id, blank read as `None`; the receipt compares and sets against it.
    pub hubspot_id: Option<String>,
    /// The id that HubSpot gave this row and that the row does not hold yet (`hubsyncd.intent`).
    pub intent_id: Option<String>,
    /// What else `hubsyncd.intent` remembers of the row.
    pub intent: Option<Intent>,
    /// The properties to send, as one JSON object in text: those of a create if neither id is known,
    /// else those of an update, with the create-only ones if the read was asked for them.
    pub properties: Arc<str>,
    /// The properties that an update alone would send, as one JSON object in text; where they are those to send, the same
    /// text and no copy of it.
    pub update_properties: Arc<str>,
    /// The natural key's value as it is sent, if the object has one and the value is not null or blank.
    pub match_value: Option<String>,
    /// For each link of the mapping, in order: where it leads.
    pub targets: Vec<Target>,
    /// For each link of the mapping, in order: what `hubsyncd.link` holds of it.
    pub linked: Vec<Vec<Remembered>>,
    /// The audit entries that named this row and were unmarked in the read's snapshot.
    pub entries: Vec<i64>,
    /// Whether a property that only updates carry has something to say: it is not null, or its null is sent as a
    /// literal.
    pub update_only_set: bool,
    /// Whether the row stands in `hubsyncd.failure`.
    pub failed: bool,
    /// `property: reason` for each value that has no HubSpot form (infinite, NaN, year above 9999).
    pub problems: Vec<String>,
}

/// What may have happened in HubSpot, or may still happen, and the row does not show.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Intent {
    /// The natural key that a create was sent under, as it was sent; `None` if no create is open.
    pub match_value: Option<String>,
    /// The write trace of that create.
    pub trace: Option<String>,
    /// When it was noted: just before the create was started. Microseconds since the Unix epoch by the database's
    /// clock, like all times here.
    pub noted_at: i64,
    /// When the row is to be pushed once more, since an older request may land after the one that was confirmed.
    pub due_at: Option<i64>,
    /// Whether it was named for that already.
    pub named: bool,
    /// Whether create-only properties go along then.
    pub due_full: bool,
    /// Whether the row takes over a record to write update properties only, so that no others go along until that
    /// is over.
    pub update_only: bool,
}

impl Intent {
    /// Whether a push begun at `now` is the one that was due.
    pub fn is_due(&self, now: i64) -> bool {
        self.due_at.is_some_and(|due_at| self.named || due_at <= now)
    }
}

impl Record {
    /// The HubSpot id this row is pushed under: its own, else the one awaiting a receipt.
    pub fn known_id(&self) -> Option<&str> {
        self.hubspot_id.as_deref().or(self.intent_id.as_deref())
    }
}

/// What one read of the database answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Read {
    /// The rows found, in key order for a page, in no order for a read by keys. Keys asked for and not
    /// here are gone, or outside the mapping's condition. Only an empty page is the end of a table.
    pub records: Vec<Record>,
    /// The database's clock at the read, microseconds since the Unix epoch.
    pub read_at: i64,
}
