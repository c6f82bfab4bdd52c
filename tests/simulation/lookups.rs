//! What the tables say of each other: who holds which record, where links lead, and whom a new id concerns, as
//! `src/postgres/orphans.rs` and `src/postgres/select.rs` ask and receipts name.

use super::model::{Model, Row};
use hubsyncd::sync::change::{Key, ObjectIndex, Op};
use hubsyncd::sync::deletion::{BRAKE, Findings, Orphan};
use hubsyncd::sync::linking::Target;
use std::collections::BTreeSet;
use std::sync::Arc;

impl Model {
    /// What the tables say of orphans, as `src/postgres/orphans.rs` asks.
    pub fn findings(&self, object: ObjectIndex, orphans: &[Orphan], now: i64) -> Findings {
        let of_type = &self.mapping.objects[object].object_type;
        let objects = &self.mapping.objects;
        let alike = (0..objects.len()).filter(|at| objects[*at].object_type == *of_type);
        let alike: Vec<ObjectIndex> = alike.collect();
        let asked = |id: &String| orphans.iter().any(|orphan| orphan.hubspot_id == *id);
        let mut findings = Findings::default();
        for at in alike {
            let holding = self.tables[at].values().filter_map(|row| row.hubspot_id.clone());
            findings.held.extend(holding.filter(asked));
        }
        for ((of, key), intent) in &self.intents {
            let id = intent
                .hubspot_id
                .as_ref()
                .filter(|id| asked(id) || orphans.iter().any(|orphan| orphan.key == *key));
            let there = self.tables[*of].contains_key(key);
            findings.held.extend(
                id.cloned()
                    .filter(|_| there && objects[*of].object_type == *of_type),
            );
        }
        for orphan in orphans {
            if let Some(row) = self.tables[object].get(&orphan.key) {
                let given = self.intents.get(&(object, Key::clone(&orphan.key)));
                let has_id =
                    row.hubspot_id.is_some() || given.is_some_and(|given| given.hubspot_id.is_some());
                findings.back.insert(Key::clone(&orphan.key), has_id);
            }
        }
        let recent = |at: i64| now - at < 3_600_000_000;
        let archived = self
            .archived
            .iter()
            .filter(|((of, id), (at, released))| *of == object && recent(*at) && !released && !asked(id));
        let braked = self.failures.iter().filter(|((of, _, record), failure)| {
            let other = record.as_ref().is_some_and(|id| !asked(id));
            *of == object && other && failure.category == BRAKE && recent(failure.first_at)
        });
        findings.recent = (archived.count() + braked.count()) as u64;
        findings.rows = self.tables[object].len() as u64;
        findings
    }

    /// Each link's target: the link's column, else the one id that its lookup finds.
    pub fn targets(&self, object: ObjectIndex, row: &Row) -> Vec<Target> {
        let declared = &self.mapping.objects[object];
        let cell = |column: &String| row.columns.get(column).cloned().flatten();
        let targets = declared.links.iter().map(|link| {
            let own = link.column.as_ref().and_then(cell);
            if let Some(id) = own.filter(|id| !id.trim().is_empty()) {
                return Target::To(id);
            }
            if link.lookup.is_empty() || link.lookup.iter().any(|(_, own)| cell(own).is_none()) {
                return Target::Nowhere;
            }
            let to = self.mapping.position(&link.to).expect("the target is declared");
            let points_at = |target: &&Row| {
                let mut pairs = link.lookup.iter();
                pairs.all(|(theirs, own)| target.columns.get(theirs).cloned().flatten() == cell(own))
            };
            let found = self.tables[to].values().filter(points_at);
            let mut ids: BTreeSet<String> = found.filter_map(|target| target.hubspot_id.clone()).collect();
            match (ids.pop_first(), ids.is_empty()) {
                (Some(id), true) => Target::To(id),
                _ => Target::Unknown,
            }
        });
        targets.collect()
    }

    /// Names the rows whose lookups point at a row that has just got its id.
    pub fn name_lookups(&mut self, object: ObjectIndex, key: &Key, now: i64) {
        let mapping = Arc::clone(&self.mapping);
        let Some(target) = self.tables[object].get(key).cloned() else {
            return;
        };
        for (from, declared) in mapping.objects.iter().enumerate() {
            for link in &declared.links {
                if link.to != mapping.objects[object].name || link.lookup.is_empty() {
                    continue;
                }
                let points = |row: &Row| {
                    let cell = |column: &String| row.columns.get(column).cloned().flatten();
                    let by_column = link.column.as_ref().and_then(cell).is_some();
                    let mut pairs = link.lookup.iter();
                    !by_column
                        && pairs.all(|(theirs, own)| {
                            let theirs = target.columns.get(theirs).cloned().flatten();
                            theirs.is_some() && theirs == cell(own)
                        })
                };
                let rows = self.tables[from].iter().filter(|(_, row)| points(row));
                let keys: Vec<Key> = rows.map(|(key, _)| Key::clone(key)).collect();
                for key in keys {
                    self.name(from, &key, Op::Update, now);
                }
            }
        }
    }
}
