//! The database in memory: the application's tables as its transactions leave them, what the triggers capture, and
//! the tables of ours.
//!
//! A transaction locks the rows it writes from its first word to its end and shows nothing before its commit; its
//! changes draw their numbers when they are captured, so that they appear out of order. Everything else happens at one
//! moment. What the triggers see is what `sql/capture.sql` says of them.

use super::memory::Intended;
use hubsyncd::mapping::{Mapping, Object, On};
use hubsyncd::sync::change::{Change, Key, ObjectIndex, Op};
use hubsyncd::sync::deletion::{BRAKE, Findings, Orphan};
use hubsyncd::sync::lease::{Found, Taken};
use hubsyncd::sync::linking::{Remembered, Target};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A row's columns by name; values are texts as HubSpot takes them.
pub type Columns = BTreeMap<String, Option<String>>;

/// A row of the application.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    /// The columns but for those below.
    pub columns: Columns,
    /// The column that holds HubSpot's id.
    pub hubspot_id: Option<String>,
    /// The column that holds the time of the read of the last confirmed push.
    pub synced_at: Option<i64>,
    /// A check of the table refuses every receipt.
    pub unwritable: bool,
    /// The create-only columns as they were captured last while the id was null, and every later version: what
    /// HubSpot may hold of them.
    pub captured: Vec<Columns>,
}

/// An entry of the application's audit log.
#[derive(Debug, Clone)]
pub struct Entry {
    pub object: ObjectIndex,
    pub key: Key,
    pub marked: bool,
}

/// What one of our failures says.
#[derive(Debug, Clone)]
pub struct Failure {
    pub category: String,
    pub full_record: bool,
    pub first_at: i64,
    pub last_at: i64,
}

/// A transaction of the application that has not ended.
#[derive(Debug)]
pub struct Transaction {
    xid: i64,
    writes: BTreeMap<(ObjectIndex, Key), Option<Row>>,
    changes: Vec<Change>,
    entries: Vec<(ObjectIndex, Key)>,
}

/// The lease's row, and the session lock beside it.
#[derive(Debug, Default)]
pub struct Lease {
    pub generation: i64,
    pub renewed_at: Option<i64>,
    pub given_back: bool,
    /// The daemon whose session holds the lock.
    pub locked_by: Option<u64>,
}

/// The whole database.
pub struct Model {
    pub mapping: Arc<Mapping>,
    pub tables: Vec<BTreeMap<Key, Row>>,
    pub locks: BTreeSet<(ObjectIndex, Key)>,
    pub changes: BTreeMap<i64, Change>,
    pub last_seq: i64,
    pub next_xid: i64,
    pub running: BTreeSet<i64>,
    pub intents: BTreeMap<(ObjectIndex, Key), Intended>,
    /// By object, row and, for a record that lost its row, the record's id.
    pub failures: BTreeMap<(ObjectIndex, Key, Option<String>), Failure>,
    /// Records that were archived, by object: when, and whether somebody had released them.
    pub archived: BTreeMap<(ObjectIndex, String), (i64, bool)>,
    pub lease: Lease,
    /// Objects that are noted as paused.
    pub paused: BTreeSet<ObjectIndex>,
    /// What is remembered of links: object, row, link's name, target's id.
    pub links: BTreeMap<(ObjectIndex, Key, String, String), Remembered>,
    pub audit: BTreeMap<i64, Entry>,
    /// Every natural key that a row ever had, by object.
    pub natural_keys: BTreeMap<(ObjectIndex, String), BTreeSet<Key>>,
    clock: i64,
}

impl Model {
    pub fn new(mapping: Arc<Mapping>, clock: i64) -> Model {
        Model {
            tables: mapping.objects.iter().map(|_| BTreeMap::new()).collect(),
            mapping,
            locks: BTreeSet::new(),
            changes: BTreeMap::new(),
            last_seq: 0,
            next_xid: 700,
            running: BTreeSet::new(),
            intents: BTreeMap::new(),
            failures: BTreeMap::new(),
            archived: BTreeMap::new(),
            lease: Lease::default(),
            paused: BTreeSet::new(),
            links: BTreeMap::new(),
            audit: BTreeMap::new(),
            natural_keys: BTreeMap::new(),
            clock,
        }
    }

    /// The time, which no two events share: microseconds since 1970.
    pub fn tick(&mut self, at_least: i64) -> i64 {
        self.clock = (self.clock + 1).max(at_least);
        self.clock
    }

    pub fn begin(&mut self) -> Transaction {
        let xid = self.next_xid;
        self.next_xid += 1;
        self.running.insert(xid);
        Transaction {
            xid,
            writes: BTreeMap::new(),
            changes: Vec::new(),
            entries: Vec::new(),
        }
    }

    /// The row as the transaction sees it; `None` if it is not there or another transaction holds it.
    pub fn seen(&self, transaction: &Transaction, object: ObjectIndex, key: &Key) -> Option<Row> {
        let place = (object, Key::clone(key));
        match transaction.writes.get(&place) {
            Some(written) => written.clone(),
            None if self.locks.contains(&place) => None,
            None => self.tables[object].get(key).cloned(),
        }
    }

    /// Inserts, updates (`Some`) or deletes (`None`) a row that nobody else holds.
    pub fn write(
        &mut self,
        transaction: &mut Transaction,
        object: ObjectIndex,
        key: &Key,
        row: Option<Row>,
        now: i64,
    ) {
        let old = self.seen(transaction, object, key);
        let place = (object, Key::clone(key));
        let mut row = row;
        let op = {
            let declared = &self.mapping.objects[object];
            match (&old, &mut row) {
                (None, None) => return,
                (None, Some(new)) => {
                    new.captured = vec![new.columns.clone()];
                    Some(Op::Insert)
                }
                (Some(_), None) => Some(Op::Delete),
                (Some(old), Some(new)) => captured(&self.mapping, declared, old, new),
            }
        };
        if let Some(new) = &row {
            self.remember_natural_key(object, key, new);
        }
        if let Some(op) = op {
            let hubspot_id = old.filter(|_| op == Op::Delete).and_then(|old| old.hubspot_id);
            transaction
                .changes
                .push(self.change(object, key, op, hubspot_id, now));
        }
        self.locks.insert(place.clone());
        transaction.writes.insert(place, row);
    }

    fn remember_natural_key(&mut self, object: ObjectIndex, key: &Key, row: &Row) {
        let value = natural_key(&self.mapping.objects[object], row);
        if let Some(value) = value {
            let holders = self.natural_keys.entry((object, value)).or_default();
            holders.insert(Key::clone(key));
        }
    }

    /// Writes an audit entry, which names its row.
    pub fn note(&mut self, transaction: &mut Transaction, object: ObjectIndex, key: &Key, now: i64) {
        transaction.entries.push((object, Key::clone(key)));
        let change = self.change(object, key, Op::Update, None, now);
        transaction.changes.push(change);
    }

    fn change(
        &mut self,
        object: ObjectIndex,
        key: &Key,
        op: Op,
        hubspot_id: Option<String>,
        now: i64,
    ) -> Change {
        self.last_seq += 1;
        Change {
            object,
            seq: self.last_seq,
            key: Some(Key::clone(key)),
            op,
            hubspot_id,
            captured_at: now,
        }
    }

    /// Makes all of a transaction visible.
    pub fn commit(&mut self, transaction: Transaction) {
        self.running.remove(&transaction.xid);
        for ((object, key), row) in transaction.writes {
            self.locks.remove(&(object, Key::clone(&key)));
            match row {
                Some(row) => drop(self.tables[object].insert(key, row)),
                None => drop(self.tables[object].remove(&key)),
            }
        }
        for change in transaction.changes {
            self.changes.insert(change.seq, change);
        }
        for (object, key) in transaction.entries {
            let id = self.audit.last_key_value().map_or(1, |(last, _)| last + 1);
            let entry = Entry {
                object,
                key,
                marked: false,
            };
            self.audit.insert(id, entry);
        }
    }

    /// Forgets all of a transaction.
    pub fn roll_back(&mut self, transaction: Transaction) {
        self.running.remove(&transaction.xid);
        for place in transaction.writes.into_keys() {
            self.locks.remove(&place);
        }
    }

    /// Appends a change of ours.
    pub fn name(&mut self, object: ObjectIndex, key: &Key, op: Op, now: i64) {
        self.name_record(object, key, op, None, now);
    }

    /// Appends a change of ours that carries a record's id.
    pub fn name_record(&mut self, object: ObjectIndex, key: &Key, op: Op, id: Option<String>, now: i64) {
        self.next_xid += 1;
        let change = self.change(object, key, op, id, now);
        self.changes.insert(change.seq, change);
    }

    /// The failure of a row, not of a record it lost.
    pub fn failure(&self, object: ObjectIndex, key: &Key) -> Option<&Failure> {
        self.failures.get(&(object, Key::clone(key), None))
    }

    /// Takes the lease as `src/postgres/lease.rs` does for a daemon that held `own` last.
    pub fn take_lease(&mut self, own: Option<i64>, now: i64) -> Taken {
        let found = Found {
            generation: self.lease.generation,
            renewed_at: self.lease.renewed_at,
            given_back: self.lease.given_back,
            now,
        };
        let resumed = own == Some(found.generation) && !found.given_back;
        if !resumed {
            self.lease.generation = (found.generation + 1).max(now / 1_000_000);
        }
        self.lease.renewed_at = Some(now);
        self.lease.given_back = false;
        if resumed {
            Taken::resumed(self.lease.generation)
        } else {
            Taken::anew(found, self.lease.generation)
        }
    }

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

/// The value of a row's natural key as HubSpot compares it.
pub fn natural_key(object: &Object, row: &Row) -> Option<String> {
    let property = object.match_property()?;
    let value = row.columns.get(&property.column)?.as_ref()?;
    Some(if object.matches_on_email() {
        value.trim().to_lowercase()
    } else {
        value.clone()
    })
}

/// What the trigger writes of an UPDATE; notes in `new` what was captured.
fn captured(mapping: &Mapping, object: &Object, old: &Row, new: &mut Row) -> Option<Op> {
    let differs = |column: &String| old.columns.get(column) != new.columns.get(column);
    let sent = object.properties.iter();
    let sent = sent.filter(|property| property.on != On::Create);
    let links = object.links.iter();
    let linked = links.flat_map(|link| link.column.iter().chain(link.lookup.iter().map(|(_, own)| own)));
    let pointing = mapping.objects.iter().flat_map(|from| &from.links);
    let looked_up = pointing.filter(|link| link.to == object.name);
    let looked_up = looked_up.flat_map(|link| link.lookup.iter().map(|(theirs, _)| theirs));
    let mut always = sent
        .chain(object.match_property())
        .map(|property| &property.column)
        .chain(linked)
        .chain(looked_up);
    let without_id = new.hubspot_id.is_none();
    let mut all = object.properties.iter().map(|property| &property.column);
    let counts = always.any(differs) || (without_id && all.any(differs)) || old.hubspot_id != new.hubspot_id;
    if without_id && counts {
        new.captured = vec![new.columns.clone()];
    } else {
        new.captured.push(new.columns.clone());
    }
    let op = if without_id { Op::New } else { Op::Update };
    counts.then_some(op)
}
