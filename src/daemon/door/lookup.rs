//! Looking up: what became of records that an answer does not confirm, and who owns what an answer names.

use super::item::{Fate, Item};
use super::micros;
use super::send::Sending;
use crate::hubspot::Failed;
use crate::mapping::OnMissing;
use crate::sync::change::{Key, Owner};
use crate::sync::outcome::Refusal;
use crate::sync::plan::Step;
use crate::sync::report::chain;
use std::collections::{HashMap, HashSet};

impl Sending<'_> {
    /// Finds out what became of updated records that the reply does not confirm: merged into another, gone, or
    /// there and just not mentioned.
    pub(super) async fn look_up(&mut self, items: &mut [Item], silent: &[usize]) {
        let ids: Vec<String> = silent
            .iter()
            .filter_map(|at| Some(items[*at].updates()?.to_owned()))
            .collect();
        let asked: Vec<&str> = ids.iter().map(String::as_str).collect();
        let found = match self.read_by(None, &asked, &[]).await {
            Ok(found) => found,
            Err(failed) => return self.failed(items, silent, failed),
        };
        let there: HashSet<String> = found.into_iter().map(|found| found.id).collect();
        for at in silent.iter().copied() {
            let Some(id) = items[at].updates().map(str::to_owned) else {
                continue;
            };
            if there.contains(&id) {
                items[at].fate = self.unconfirmed(items[at].key());
                continue;
            }
            // A batch does not find a merged record, a question for it alone does.
            let found = match self.get(&id).await {
                Ok(found) => found,
                Err(failed) => {
                    items[at].fate = self.fate_of(1, &failed);
                    continue;
                }
            };
            match found {
                Some(same) if same == id => items[at].fate = self.unconfirmed(items[at].key()),
                Some(survivor) => self.follow(items, at, &id, survivor).await,
                None if self.door.mapping.objects[self.object].on_missing == OnMissing::Recreate => {
                    self.recreate(items, at, &id).await;
                }
                None => items[at].fate = Fate::Refused(Refusal::missing(&id)),
            }
        }
    }

    /// The id that a record is found under now; `None` if it is gone.
    pub(super) async fn get(&mut self, id: &str) -> Result<Option<String>, Failed> {
        let slot = self.slot(1).await?;
        let found = self.door.client.get(slot, self.object_type(), id, &[]).await?;
        Ok(found.map(|found| found.id))
    }

    /// The record was merged into `survivor`: the row takes over its id, unless another row holds that.
    async fn follow(&mut self, items: &mut [Item], at: usize, merged: &str, survivor: String) {
        let beside = items
            .iter()
            .find(|item| matches!(&item.fate, Fate::Accepted { id, .. } if *id == survivor));
        let owner = |item: &Item| Owner {
            object: self.object,
            key: Key::clone(item.key()),
            elsewhere: None,
        };
        if let Some(owner) = beside.map(owner) {
            items[at].fate = Fate::Refused(Refusal::merged_into(merged, &survivor, &owner));
            return;
        }
        if !self.claim_id(items[at].key(), &survivor) {
            items[at].fate = Fate::Held;
            return;
        }
        let Some(owners) = self.owners(items, &[at], vec![survivor.clone()]).await else {
            return;
        };
        match owners.get(&survivor).filter(|owner| !owner.is(items[at].key())) {
            Some(owner) => items[at].fate = Fate::Refused(Refusal::merged_into(merged, &survivor, owner)),
            None => {
                items[at].step = Step::Update(survivor);
                items[at].merged_from = Some(merged.to_owned());
                self.update_one(items, at).await;
            }
        }
    }

    /// Writes one record; whatever the reply does not confirm is tried again later.
    async fn update_one(&mut self, items: &mut [Item], at: usize) {
        for silent in self.update(&mut items[at..=at]).await {
            items[at + silent].fate = Fate::Again;
        }
    }

    /// The record is gone and `on-missing = "recreate"`: the row is read with its create-only properties and created.
    async fn recreate(&mut self, items: &mut [Item], at: usize, id: &str) {
        let item = &mut items[at];
        let Some(value) = item.record().match_value.clone() else {
            item.fate = Fate::Refused(Refusal::ours(
                "match_on",
                "its HubSpot record is gone and its natural key is empty, so it cannot be created again",
            ));
            return;
        };
        item.claimed.full = true;
        match self
            .door
            .read(self.object, std::slice::from_ref(&item.claimed))
            .await
        {
            Ok(mut read) => match read.records.pop() {
                Some(record) => {
                    item.record = Some(record);
                    item.step = Step::Create(value);
                    item.leave_links(id);
                    self.create_anew(items, at).await;
                }
                None => item.fate = Fate::Gone,
            },
            Err(error) => {
                self.reason = Some(chain(&error));
                item.fate = Fate::Again;
            }
        }
    }

    /// Creates one row as any other create: what another row owns is not written over.
    async fn create_anew(&mut self, items: &mut [Item], at: usize) {
        self.door.claim_matches(self.object, &mut items[at..=at]);
        self.ask_first(&mut items[at..=at]).await;
        if items[at].updates().is_some() {
            return self.update_one(items, at).await;
        }
        self.create(&mut items[at..=at]).await;
    }

    /// Claims a HubSpot id for a row that is about to get it, so that no other batch gives it to another row.
    pub(super) fn claim_id(&self, key: &Key, id: &str) -> bool {
        let claim = [(Key::clone(key), claim_of(id))];
        self.door
            .desk
            .backlog()
            .claim_matches(self.object, &claim)
            .is_empty()
    }

    /// A create that took over an existing record is checked: if another row owns that, this row is a failure, and
    /// the owner is named, so that its values win again.
    pub(super) async fn check_owners(&mut self, items: &mut [Item]) {
        let mut adopted = Vec::new();
        let mut ids = Vec::new();
        for (at, item) in items.iter_mut().enumerate() {
            let Fate::Accepted {
                id, adopted: true, ..
            } = &item.fate
            else {
                continue;
            };
            if self.claim_id(item.key(), id) {
                adopted.push(at);
                ids.push(id.clone());
            } else {
                // Another row is being given this record; afterwards it is seen to own it.
                item.fate = Fate::Held;
            }
        }
        if adopted.is_empty() {
            return;
        }
        let Some(owners) = self.owners(items, &adopted, ids.clone()).await else {
            return;
        };
        let Some(leaving) = self.leaving(items, &adopted, ids.clone()).await else {
            return;
        };
        let mut named = Vec::new();
        for (at, id) in adopted.into_iter().zip(ids) {
            if let Some(owner) = owners.get(&id).filter(|owner| !owner.is(items[at].key())) {
                items[at].fate = Fate::Refused(self.rules().owned(&id, owner));
                named.push(owner.clone());
            } else if let Some(until) = leaving.get(&id) {
                // It may be gone a moment from now; then another one is made.
                items[at].fate = self.wait(*until);
            }
        }
        self.door.name_owners(named).await;
    }

    /// Until when requests to archive these records may still land; records of which none is known are not there. If the
    /// database cannot say, the items are tried again.
    pub(super) async fn leaving(
        &mut self,
        items: &mut [Item],
        concerned: &[usize],
        ids: Vec<String>,
    ) -> Option<HashMap<String, i64>> {
        if ids.is_empty() || !self.door.mapping.archives_alike(self.object) {
            return Some(HashMap::new());
        }
        match self.door.store.archived(self.object, &ids).await {
            Ok(archived) => {
                let settle = micros(self.door.settle);
                let until = archived
                    .into_iter()
                    .map(|(id, at)| (id, at.saturating_add(settle)));
                Some(until.filter(|(_, until)| *until > self.read_at).collect())
            }
            Err(error) => {
                self.reason = Some(chain(&error));
                for at in concerned {
                    items[*at].fate = Fate::Again;
                }
                None
            }
        }
    }

    /// Which rows hold these HubSpot ids; if the database cannot say, the items are tried again.
    pub(super) async fn owners(
        &mut self,
        items: &mut [Item],
        concerned: &[usize],
        ids: Vec<String>,
    ) -> Option<HashMap<String, Owner>> {
        if ids.is_empty() {
            return Some(HashMap::new());
        }
        match self.door.owners(self.object, &ids).await {
            Ok(owners) => Some(owners.into_iter().collect()),
            Err(error) => {
                self.reason = Some(chain(&error));
                for at in concerned {
                    items[*at].fate = Fate::Again;
                }
                None
            }
        }
    }
}

/// A HubSpot id as it is claimed; no natural key begins so.
pub(super) fn claim_of(id: &str) -> String {
    format!("\0{id}")
}
