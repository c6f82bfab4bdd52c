//! Owing: which rows are pushed once more though HubSpot has confirmed them, and when.

use super::item::{Fate, Item};
use super::lookup::claim_of;
use super::{Door, micros};
use crate::sync::change::ObjectIndex;
use crate::sync::doubt::Due;
use std::time::Duration;

impl Door {
    /// When a row is to be pushed once more, though this push is recorded: an older request may land after it.
    pub(super) fn owed(&self, object: ObjectIndex, item: &Item, read_at: i64) -> Option<Due> {
        let record = item.record.as_ref()?;
        let until = |at: i64| Duration::from_micros(at.saturating_sub(read_at).max(0).unsigned_abs());
        let intent = record.intent.as_ref();
        let still = intent
            .filter(|intent| !intent.is_due(read_at))
            .and_then(|intent| {
                Some(Due {
                    within: until(intent.due_at?),
                    full: intent.due_full,
                    update_only: intent.update_only,
                })
            });
        let now = self.desk.now();
        let begun = item.begun.unwrap_or(now);
        let own = self.doubts().owed(object, item.key(), begun, now);
        // A row that held the record before, or was to be made it, may be gone: its request may land nevertheless.
        let inherited = self.inherited(object, item, begun, now);
        // What a former holder had in flight is not known by row. A request of its may concern any row that has been
        // changed since it was read then: also one changed after the take-over and pushed at once, which the older
        // request would overwrite. So whatever is pushed for a change until the last of them has landed is due once
        // more. A row that is pushed for no change holds what it held then, as far as changes are captured.
        let changed = !item.claimed.seqs.is_empty() || !self.mapping.objects[object].capture;
        let former = self.lease.former_until();
        let landed = former.map(|until| until.saturating_add(micros(self.settle)));
        let former = landed.filter(|landed| changed && item.begun.is_some() && read_at < *landed);
        let former = former.map(|landed| Due {
            within: until(landed),
            full: item.claimed.full,
            update_only: false,
        });
        // What names the row until the receipt stands wants create-only properties too, which are not to be sent.
        let takes_over = item.update_only
            || intent.is_some_and(|intent| intent.update_only && record.hubspot_id.is_none());
        let taken = matches!(item.fate, Fate::Accepted { .. }).then_some(Due {
            update_only: true,
            ..Due::default()
        });
        let taken = taken.filter(|_| takes_over);
        [still, own, inherited, former, taken]
            .into_iter()
            .flatten()
            .reduce(Due::and)
    }

    /// What is owed to a row for requests of others that may land on what it was written to.
    fn inherited(&self, object: ObjectIndex, item: &Item, begun: Duration, now: Duration) -> Option<Due> {
        let doubts = self.doubts();
        if !doubts.concern_records() {
            return None;
        }
        let alike = self.mapping.first_alike(object);
        let owed = |record: String| doubts.owed_record(alike, &record, begun, now);
        let records = self.records(object, item).into_iter();
        records.filter_map(owed).reduce(Due::and)
    }

    /// The claims of what an accepted item was written to: its record, and the natural key that HubSpot keeps unique.
    fn records(&self, object: ObjectIndex, item: &Item) -> Vec<String> {
        let Fate::Accepted { id, .. } = &item.fate else {
            return Vec::new();
        };
        let rules = &self.objects[object].rules;
        let value = item.record().match_value.as_deref();
        let value = value
            .filter(|_| !rules.guarded)
            .map(|value| rules.normalise(value));
        [Some(claim_of(id)), value].into_iter().flatten().collect()
    }
}
