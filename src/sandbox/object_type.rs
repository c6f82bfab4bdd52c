//! An object type and its records: properties, keys, what was merged away, what search has indexed.
//!
//! The indexes of unique values are kept here and nowhere else, so that a record cannot be stored
//! without them. Archived records keep their id and give up their unique values.

use super::index::{Lagging, Modified, Seen};
use super::property::{Name, Property};
use super::value;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// The values of a record, by property name; a property that is not set is absent.
pub type Values = BTreeMap<Name, Box<str>>;

/// A record as the world holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub(super) id: u64,
    pub(super) created_ms: i64,
    pub(super) updated_ms: i64,
    pub(super) archived_ms: Option<i64>,
    pub(super) values: Values,
    pub(super) merged: Vec<u64>,
}

impl Record {
    /// HubSpot's id.
    pub fn id(&self) -> String {
        self.id.to_string()
    }

    /// The value of a property that was set; `None` if it is not set or was cleared.
    pub fn get(&self, property: &str) -> Option<&str> {
        self.values.get(property).map(|value| &**value)
    }

    /// All values that are set.
    pub fn values(&self) -> &Values {
        &self.values
    }

    /// When the record was last written, in milliseconds since 1970.
    pub fn updated_ms(&self) -> i64 {
        self.updated_ms
    }

    /// Whether the record was archived.
    pub fn archived(&self) -> bool {
        self.archived_ms.is_some()
    }
}

/// An object type: what HubSpot calls a schema, with its records.
#[derive(Debug)]
pub struct ObjectType {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) singular: String,
    pub(super) properties: BTreeMap<Name, Property>,
    pub(super) records: BTreeMap<u64, Record>,
    pub(super) merged_into: HashMap<u64, u64>,
    lagging: Lagging,
    by_modified: Modified,
    archived: BTreeSet<u64>,
    keys: HashMap<Name, HashMap<Box<str>, u64>>,
    /// Properties that the portal's create form demands; only 2026-09 enforces them.
    pub(super) form_requires: Vec<Name>,
    /// (when this is set, that must be set); only 2026-09 enforces them.
    pub(super) conditions: Vec<(Name, Name)>,
}

impl ObjectType {
    pub(super) fn new(id: &str, name: &str, singular: &str) -> Self {
        Self {
            id: id.to_owned(),
            name: name.to_owned(),
            singular: singular.to_owned(),
            properties: BTreeMap::new(),
            records: BTreeMap::new(),
            merged_into: HashMap::new(),
            lagging: Lagging::default(),
            by_modified: Modified::new(),
            archived: BTreeSet::new(),
            keys: HashMap::new(),
            form_requires: Vec::new(),
            conditions: Vec::new(),
        }
    }

    pub(super) fn is_custom(&self) -> bool {
        self.id.starts_with("2-")
    }

    /// How error messages call a record of this type.
    pub(super) fn label(&self) -> String {
        if self.is_custom() {
            self.id.clone()
        } else {
            self.singular.to_uppercase()
        }
    }

    pub(super) fn created_name(&self) -> &'static str {
        if self.is_custom() {
            "hs_createdate"
        } else {
            "createdate"
        }
    }

    pub(super) fn modified_name(&self) -> &'static str {
        if self.id == "0-1" {
            "lastmodifieddate"
        } else {
            "hs_lastmodifieddate"
        }
    }

    pub(super) fn define(&mut self, property: Property) {
        let name = Arc::clone(&property.name);
        if property.unique || self.is_email(&name) {
            self.keys.entry(Arc::clone(&name)).or_default();
        }
        self.properties.insert(name, property);
    }

    pub(super) fn is_email(&self, property: &str) -> bool {
        self.id == "0-1" && property == "email"
    }

    /// Whether no two records may share a value of this property.
    pub(super) fn is_key(&self, property: &str) -> bool {
        self.keys.contains_key(property) && self.properties.contains_key(property)
    }

    /// A key value as HubSpot compares it.
    pub(super) fn key_value<'a>(&self, property: &str, raw: &'a str) -> Cow<'a, str> {
        match self.is_email(property) {
            true => Cow::Owned(value::email(raw).unwrap_or_else(|| raw.trim().to_lowercase())),
            false => Cow::Borrowed(raw),
        }
    }

    /// The record that holds this value of a unique property, secondary e-mails included.
    pub(super) fn holder(&self, property: &str, raw: &str) -> Option<u64> {
        self.keys
            .get(property)?
            .get(&*self.key_value(property, raw))
            .copied()
    }

    /// The record that is there and not archived.
    pub(super) fn live(&self, id: u64) -> Option<&Record> {
        self.records
            .get(&id)
            .filter(|record| record.archived_ms.is_none())
    }

    /// The id that a merged-away id leads to, else the id itself.
    pub(super) fn survivor(&self, id: u64) -> u64 {
        let mut at = id;
        while let Some(next) = self.merged_into.get(&at) {
            at = *next;
        }
        at
    }

    /// Stores a record in place of what was there, and keeps the indexes; search sees it at `seen_ms`.
    pub(super) fn put(&mut self, record: Record, seen_ms: Option<i64>) {
        self.forget(record.id);
        if record.archived_ms.is_none() {
            for (property, held) in &mut self.keys {
                for value in key_values(&record, property, self.id == "0-1") {
                    held.insert(value.into(), record.id);
                }
            }
            self.by_modified.insert((record.updated_ms, record.id));
        } else {
            self.archived.insert(record.id);
        }
        if let Some(due_ms) = seen_ms {
            let shown = record.archived_ms.is_none().then(|| Arc::new(record.clone()));
            self.lagging.expect(due_ms, record.id, shown);
        }
        self.records.insert(record.id, record);
    }

    /// Takes a record out altogether, as a merge does.
    pub(super) fn take(&mut self, id: u64, seen_ms: Option<i64>) -> Option<Record> {
        self.forget(id);
        if let Some(due_ms) = seen_ms {
            self.lagging.expect(due_ms, id, None);
        }
        self.records.remove(&id)
    }

    /// Lets search catch up with everything that is due.
    pub(super) fn catch_up(&mut self, now_ms: i64) {
        self.lagging.catch_up(now_ms);
    }

    /// What search sees: the records as they are, or a copy that lags.
    pub(super) fn seen(&self, lags: bool) -> Seen<'_> {
        match lags {
            true => self.lagging.seen(),
            false => Seen::live(&self.by_modified, &self.records),
        }
    }

    /// The records from this id on, ascending: the archived ones, or those that are not.
    pub(super) fn listed(&self, from: u64, archived: bool) -> impl Iterator<Item = &Record> {
        let gone = archived.then(|| self.archived.range(from..).filter_map(|id| self.records.get(id)));
        let live = (!archived).then(|| self.records.range(from..).map(|(_, record)| record));
        let live = live
            .into_iter()
            .flatten()
            .filter(|record| record.archived_ms.is_none());
        gone.into_iter().flatten().chain(live)
    }

    fn forget(&mut self, id: u64) {
        let Some(old) = self.records.get(&id) else {
            return;
        };
        for (property, held) in &mut self.keys {
            for value in key_values(old, property, self.id == "0-1") {
                if held.get(value) == Some(&id) {
                    held.remove(value);
                }
            }
        }
        self.by_modified.remove(&(old.updated_ms, id));
        self.archived.remove(&id);
    }

    /// The value of a property, the computed ones included.
    pub(super) fn value<'a>(&self, record: &'a Record, property: &str) -> Option<Cow<'a, str>> {
        if let Some(value) = record.values.get(property) {
            return Some(Cow::Borrowed(value));
        }
        let instant = |ms| Some(Cow::Owned(super::clock::instant_text(ms)));
        match property {
            "hs_object_id" => Some(Cow::Owned(record.id.to_string())),
            "hs_merged_object_ids" if !record.merged.is_empty() => {
                let ids: Vec<String> = record.merged.iter().map(u64::to_string).collect();
                Some(Cow::Owned(ids.join(";")))
            }
            name if name == self.created_name() => instant(record.created_ms),
            name if name == self.modified_name() => instant(record.updated_ms),
            _ => None,
        }
    }
}

fn key_values<'a>(record: &'a Record, property: &str, contact: bool) -> Vec<&'a str> {
    let own = record.values.get(property).map(|value| &**value);
    let mut values: Vec<&str> = own.into_iter().collect();
    if contact
        && property == "email"
        && let Some(more) = record.values.get("hs_additional_emails")
    {
        values.extend(more.split(';').filter(|value| !value.is_empty()));
    }
    values
}
