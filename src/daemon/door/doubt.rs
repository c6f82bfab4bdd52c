//! Doubts: rows that were on their way to HubSpot when the lease was lost.
//!
//! A process that was stopped, or cut off, for longer than its lease may find that another daemon has pushed newer values
//! of the rows it had sent. What it sent may arrive after those: a body half written when it was stopped, a request held
//! up on the way. It cannot take that back. It names these rows as changed, whoever holds the lease by then, and what
//! Postgres holds is pushed once more.

use super::Door;
use super::item::Item;
use crate::sync::change::{Key, ObjectIndex, Op};
use crate::sync::report::chain;
use std::collections::BTreeMap;
use tracing::{debug, warn};

impl Door {
    /// Notes rows that were sent under a generation that cannot be proven any more.
    pub(super) fn doubt<'i>(
        &self,
        object: ObjectIndex,
        generation: i64,
        items: impl Iterator<Item = &'i Item>,
    ) {
        let doubts = items.map(|item| {
            let read = item.record.as_ref();
            let created = read.is_some_and(|record| record.hubspot_id.is_none());
            (item.key().clone(), item.claimed.full || created)
        });
        self.lease.doubt(object, generation, doubts);
    }

    /// Notes every row that is on its way: another daemon has held the lease.
    pub fn doubt_all(&self) {
        let Some(own) = self.lease.own() else { return };
        for (object, keys) in self.desk.backlog().claimed().into_iter().enumerate() {
            let rows = keys.into_iter().map(|key| (key, false));
            self.lease.doubt(object, own, rows);
        }
    }

    /// Names as changed what was noted. While the database is away the notes are kept.
    pub async fn name_doubts(&self) {
        let doubts = self.lease.take_doubts();
        if doubts.is_empty() {
            return;
        }
        let mut batches: BTreeMap<(ObjectIndex, bool), Vec<Key>> = BTreeMap::new();
        for ((object, key), doubt) in &doubts {
            let keys = batches.entry((*object, doubt.full)).or_default();
            keys.push(Key::clone(key));
        }
        for ((object, full), keys) in batches {
            let op = if full { Op::New } else { Op::Update };
            if let Err(error) = self.store.name(object, &keys, op).await {
                let why = chain(&error);
                debug!("rows that were on their way cannot be named now: {why}");
                self.lease.return_doubts(doubts);
                return;
            }
        }
        warn!(
            rows = doubts.len(),
            "the lease was lost while rows were on their way to HubSpot; they are named as changed, to be pushed once more"
        );
        self.desk.named();
    }
}
