//! Buried creates: rows that were deleted before it was known whether HubSpot had made their record.
//!
//! The change that finds the row gone waits until the create can land no more; then HubSpot is asked for the natural key
//! it was sent under. What it made is a record that lost its row, and goes the way of all of them. A record that a row
//! holds, one that is older than the create, and one of several that nobody holds is none that could be told to be ours:
//! it is left alone. A record that a row holds may have been written over by the create, where HubSpot keeps the natural key
//! unique: then that row is named. Where records are kept only that is asked for.

use super::item::{Fate, Item};
use super::send::Sending;
use crate::mapping::OnDelete;
use crate::postgres::orphans::Buried;
use crate::sync::change::Key;
use crate::sync::guard::Made;
use crate::sync::report::chain;
use std::collections::HashMap;
use tracing::warn;

impl Sending<'_> {
    /// Finds out what became of the creates of rows that are gone; what they made is among the items' lost records
    /// then.
    pub(super) async fn exhume(&mut self, items: &mut [Item]) {
        let gone: Vec<usize> = (0..items.len())
            .filter(|at| items[*at].fate == Fate::Gone)
            .collect();
        if gone.is_empty() {
            return;
        }
        if self.keeps() && self.rules().guarded {
            // What was made stays, and nothing was written over.
            for at in gone {
                items[at].exhumed = true;
            }
            return;
        }
        let keys: Vec<Key> = gone.iter().map(|at| items[*at].key().clone()).collect();
        let buried = match self.door.store.buried(self.object, &keys).await {
            Ok(buried) => buried,
            Err(error) => {
                self.reason = Some(chain(&error));
                for at in gone {
                    items[at].fate = Fate::Again;
                }
                return;
            }
        };
        let mut buried: HashMap<Key, Buried> = buried.into_iter().map(|one| (one.key.clone(), one)).collect();
        let graves: Vec<(usize, Buried)> = gone
            .into_iter()
            .filter_map(|at| Some((at, buried.remove(items[at].key())?)))
            .collect();
        self.open(items, graves).await;
    }

    /// Whether the records of deleted rows stay.
    fn keeps(&self) -> bool {
        self.door.mapping.objects[self.object].on_delete == OnDelete::Keep
    }

    /// Asks for those that can be known by now.
    async fn open(&mut self, items: &mut [Item], graves: Vec<(usize, Buried)>) {
        let door = self.door;
        let guard = door.guard(self.object);
        let (mut asked, mut values, mut since) = (Vec::new(), Vec::new(), Vec::new());
        for (at, grave) in graves {
            let pending = guard.sent(&grave.match_value, grave.noted_at);
            let known_at = guard.known_at(&pending);
            if self.read_at < known_at {
                let words = "rows were deleted while their records were made; HubSpot is asked for those when no such request \
                             can land any more";
                self.reason.get_or_insert_with(|| words.to_owned());
                items[at].fate = Fate::Wait(known_at - self.read_at);
                continue;
            }
            // Another row may be about to get the record; afterwards it is seen to hold it.
            let claim = [(items[at].key().clone(), pending.value.clone())];
            if !door.desk.backlog().claim_matches(self.object, &claim).is_empty() {
                items[at].fate = Fate::Held;
                continue;
            }
            asked.push(at);
            values.push(pending.value);
            since.push(grave.first_at);
        }
        self.act = None;
        let Some(found) = self.find(items, &asked, &values).await else {
            return;
        };
        let (kept, mut owners) = (self.keeps(), Vec::new());
        for ((at, since), hits) in asked.into_iter().zip(since).zip(found) {
            let item = &mut items[at];
            item.exhumed = true;
            owners.extend(hits.iter().filter_map(|hit| hit.owner.clone()));
            match guard.made(since, &hits) {
                Made::Nothing => {}
                Made::Record(_) | Made::Unclear if kept => {}
                Made::Record(id) => {
                    item.claimed.orphans.insert(id);
                }
                Made::Unclear => {
                    let name = &door.mapping.objects[self.object].name;
                    warn!(object = %name, key = %item.key(), records = hits.len(),
                        "the row was deleted while its record was made, and it cannot be told which of the records with its \
                         natural key that is: they are left alone; look at them in HubSpot");
                }
            }
        }
        // Where HubSpot keeps the key unique, the old create may have written over their values.
        if !self.rules().guarded {
            door.name_owners(owners).await;
        }
    }
}
