//! The pages of sweeps, which are read ahead and unclaimed: their keys are claimed when the slot comes.

use super::waiting::InFlight;
use super::{Backlog, Claimed};
use crate::sync::change::{Key, ObjectIndex};
use std::collections::BTreeSet;
use std::time::Duration;

impl Backlog {
    /// Notes that a sweep's page is about to be read and answers its tick, for [`Backlog::claim_swept`].
    pub fn page_begins(&mut self) -> u64 {
        self.tick += 1;
        self.pages.insert(self.tick);
        self.tick
    }

    /// Notes that somebody else may have pushed: what pages read ahead until now hold is not to be sent.
    pub fn outdate_pages(&mut self) {
        self.tick += 1;
        self.outdated = self.tick;
    }

    /// Whether a page's rows are to be read again before they are sent.
    pub fn is_outdated(&self, page: u64) -> bool {
        page < self.outdated
    }

    /// Claims rows of a page read ahead. A key that is claimed, that has a change waiting, or that was released
    /// since the page was read is left out: another batch has taken, or will take, a newer read of it.
    pub fn claim_swept(
        &mut self,
        object: ObjectIndex,
        keys: &[Key],
        page: u64,
        now: Duration,
    ) -> Vec<Claimed> {
        let object = &mut self.objects[object];
        let mut claimed = Vec::with_capacity(keys.len());
        for key in keys {
            let newer = object.released.get(key).is_some_and(|tick| *tick > page);
            if newer || object.keys.contains_key(key) || object.claimed.contains_key(key) {
                continue;
            }
            object.claimed.insert(key.clone(), InFlight::default());
            claimed.push(Claimed {
                key: key.clone(),
                seqs: Vec::new(),
                full: false,
                orphans: BTreeSet::new(),
                inserted: false,
                attempts: 0,
                captured_at: 0,
                arrived: now,
            });
        }
        claimed
    }

    /// Notes that every row of a page was pushed or left out.
    pub fn page_ends(&mut self, page: u64) {
        self.pages.remove(&page);
        let oldest = self.pages.first().copied();
        for object in &mut self.objects {
            object
                .released
                .retain(|_, tick| oldest.is_some_and(|oldest| *tick > oldest));
        }
    }
}
