//! An item: one row of a batch between its claim and its receipt.

use super::archive::Ending;
use super::{ByKey, unreadable};
use crate::postgres;
use crate::sync::backlog::Claimed;
use crate::sync::change::Key;
use crate::sync::linking::Note;
use crate::sync::outcome::Refusal;
use crate::sync::plan::{Rules, Step};
use crate::sync::record::{Read, Record};
use std::time::Duration;

/// What became of an item so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    /// Not decided yet.
    Open,
    /// HubSpot confirmed the write under this id.
    Accepted {
        /// The record's id in HubSpot.
        id: String,
        /// Whether a create found the record there already.
        adopted: bool,
        /// What became of its links.
        links: Links,
    },
    /// Refused; no more is sent for it.
    Refused(Refusal),
    /// Its outcome was not learned; it is pushed again.
    Again,
    /// Nothing may be sent for it yet; it is pushed again after this many microseconds.
    Wait(i64),
    /// Another row holds its natural key; it is pushed again once that is done.
    Held,
    /// It was refused together with others; it is tried in a smaller part.
    Split,
    /// There is no such row (any more): nothing is sent and its changes are done.
    Gone,
    /// Nothing is to be sent.
    Leave,
}

/// What became of an accepted record's links, with what is to be remembered of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Links {
    /// All are as they should be.
    Made(Vec<Note>),
    /// One was refused.
    Refused(Vec<Note>, Refusal),
    /// The outcome of one was not learned.
    Again(Vec<Note>),
}

/// One row of a batch.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) claimed: Claimed,
    pub(super) record: Option<Record>,
    pub(super) step: Step,
    pub(super) fate: Fate,
    /// What became of the HubSpot records that lost this row, by id.
    pub(super) orphans: Vec<(String, Ending)>,
    /// The record that was merged into the one it is written to now.
    pub(super) merged_from: Option<String>,
    /// Whether a record may have been made for it of which the id is not known.
    pub(super) pending: bool,
    /// Whether the row is gone and nothing is in doubt of a create of it: it was asked what became of that, or nobody asks.
    pub(super) exhumed: bool,
    /// Whether it takes a record over to write update properties only.
    pub(super) update_only: bool,
    /// Whether this attempt has noted an intent.
    pub(super) noted: bool,
    /// When this attempt's request for the record was started, as the desk counts time.
    pub(super) begun: Option<Duration>,
}

impl Item {
    /// Pairs claimed rows with what was read of them, and plans each.
    pub(super) fn pair(claimed: Vec<Claimed>, read: Read, rules: &Rules) -> Vec<Item> {
        let mut records: ByKey<Record> = read
            .records
            .into_iter()
            .map(|record| (record.key.clone(), record))
            .collect();
        let items = claimed.into_iter().map(|claimed| {
            let Some(record) = records.remove(&claimed.key) else {
                return Item::of(claimed, None, Step::Leave, Fate::Gone);
            };
            let step = rules.step(&record);
            let fate = match &step {
                Step::Refuse(refusal) => Fate::Refused(refusal.clone()),
                Step::Leave => Fate::Leave,
                Step::Update(_) | Step::Keep(_) | Step::Create(_) => Fate::Open,
            };
            let pending = record
                .intent
                .as_ref()
                .is_some_and(|intent| intent.match_value.is_some());
            Item {
                pending,
                ..Item::of(claimed, Some(record), step, fate)
            }
        });
        items.collect()
    }

    fn of(claimed: Claimed, record: Option<Record>, step: Step, fate: Fate) -> Item {
        Item {
            claimed,
            record,
            step,
            fate,
            orphans: Vec::new(),
            merged_from: None,
            pending: false,
            exhumed: false,
            update_only: false,
            noted: false,
            begun: None,
        }
    }

    /// The one row that Postgres cannot read.
    pub(super) fn unreadable(claimed: Vec<Claimed>, error: &postgres::Error) -> Vec<Item> {
        let refused = || Fate::Refused(unreadable(error));
        let items = claimed
            .into_iter()
            .map(|claimed| Item::of(claimed, None, Step::Leave, refused()));
        items.collect()
    }

    /// The row's key.
    pub(super) fn key(&self) -> &Key {
        &self.claimed.key
    }

    /// The value of the natural key it would be created by.
    pub(super) fn creates(&self) -> Option<&str> {
        match (&self.step, &self.fate) {
            (Step::Create(value), Fate::Open) => Some(value),
            _ => None,
        }
    }

    /// The id it would be updated under, or of the record that is left as it is.
    pub(super) fn updates(&self) -> Option<&str> {
        match (&self.step, &self.fate) {
            (Step::Update(id) | Step::Keep(id), Fate::Open) => Some(id),
            _ => None,
        }
    }

    /// There is nothing to write to the record, so that all that is left to do are its links.
    pub(super) fn keep(&mut self) {
        let Some(id) = self.updates().map(str::to_owned) else {
            return;
        };
        let adopted = self.record().known_id().is_none();
        self.fate = Fate::Accepted {
            id,
            adopted,
            links: Links::Made(Vec::new()),
        };
    }

    /// The properties of an update: those of the read, or the update ones alone.
    pub(super) fn payload(&self) -> &str {
        let record = self.record();
        if self.update_only {
            &record.update_properties
        } else {
            &record.properties
        }
    }

    /// Whether what its intent speaks of is over once its fate is recorded.
    pub(super) fn intent_over(&self) -> bool {
        let Some(record) = &self.record else { return false };
        let noted = self.noted || record.intent.is_some();
        match &self.fate {
            Fate::Accepted { id, .. } => noted || record.hubspot_id.as_ref() != Some(id),
            // An id that the row was refused stays, and so does a create of which nothing is known.
            Fate::Refused(_) | Fate::Leave => noted && !self.pending && record.intent_id.is_none(),
            _ => false,
        }
    }

    /// The row leaves the record `id`, which is gone: what is remembered of links is that one's.
    pub(super) fn leave_links(&mut self, id: &str) {
        let links = self.record.iter_mut().flat_map(|record| &mut record.linked);
        for row in links.flatten() {
            row.from.get_or_insert_with(|| id.to_owned());
        }
    }

    /// The record of an item that is open or accepted.
    pub(super) fn record(&self) -> &Record {
        self.record.as_ref().expect("only a row that was read is sent")
    }
}
