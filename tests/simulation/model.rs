//! The database in memory: the application's tables as its transactions leave them, what the triggers capture, and
//! the tables of ours.
//!
//! A transaction locks the rows it writes from its first word to its end and shows nothing before its commit; its
//! changes draw their numbers when they are captured, so that they appear out of order. Everything else happens at one
//! moment. What the triggers see is what `sql/capture.sql` says of them.

use super::capture::{captured, natural_key};
use super::ledger::Ledger;
use super::memory::Intended;
use hubsyncd::mapping::Mapping;
use hubsyncd::sync::change::{Change, Key, ObjectIndex, Op};
use hubsyncd::sync::lease::{Found, Taken};
use hubsyncd::sync::linking::Remembered;
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
    /// The id that the application itself wrote there last, if it is not to be made or found by us.
    pub chosen: Option<String>,
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
    /// Records that were taken from their rows.
    let_go: Vec<(ObjectIndex, String)>,
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
    /// What happened, for the oracle.
    pub ledger: Ledger,
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
            ledger: Ledger::default(),
            clock,
        }
    }

    /// The time, which no two events share: microseconds since 1970.
    pub fn tick(&mut self, at_least: i64) -> i64 {
        self.clock = (self.clock + 1).max(at_least);
        self.clock
    }

    /// The clock is set forward, or back.
    pub fn jump(&mut self, by: i64) {
        self.clock += by;
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
            let_go: Vec::new(),
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
        if let (Some(old), Some(new)) = (&old, &mut row)
            && old.hubspot_id != new.hubspot_id
        {
            new.chosen.clone_from(&new.hubspot_id);
            let before = old.hubspot_id.clone().map(|id| (object, id));
            transaction.let_go.extend(before);
        }
        if let Some(op) = op.filter(|_| self.mapping.objects[object].capture) {
            let hubspot_id = old.filter(|_| op == Op::Delete).and_then(|old| old.hubspot_id);
            transaction
                .changes
                .push(self.change(object, key, op, hubspot_id, now));
        }
        self.locks.insert(place.clone());
        transaction.writes.insert(place, row);
    }

    /// A row comes in, or is written over, past all triggers.
    pub fn put(&mut self, object: ObjectIndex, key: &Key, row: Row) {
        let value = natural_key(&self.mapping.objects[object], &row);
        if let Some(value) = value {
            let holders = self.natural_keys.entry((object, value)).or_default();
            holders.insert(Key::clone(key));
        }
        let old = self.tables[object].insert(Key::clone(key), row.clone());
        self.ledger.written(object, key, old.as_ref(), &row);
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
                Some(row) => self.put(object, &key, row),
                None => {
                    self.tables[object].remove(&key);
                    self.ledger.ended.insert((object, key));
                }
            }
        }
        self.ledger.let_go.extend(transaction.let_go);
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

    /// Empties a table, if nobody holds any of its rows.
    pub fn truncate(&mut self, object: ObjectIndex, now: i64) -> bool {
        if self.locks.iter().any(|(of, _)| *of == object) {
            return false;
        }
        for (key, row) in std::mem::take(&mut self.tables[object]) {
            self.ledger.let_go.extend(row.hubspot_id.map(|id| (object, id)));
            self.ledger.emptied.insert((object, key.clone()));
            self.ledger.ended.insert((object, key));
        }
        self.last_seq += 1;
        let change = Change {
            object,
            seq: self.last_seq,
            key: None,
            op: Op::Truncate,
            hubspot_id: None,
            captured_at: now,
        };
        self.changes.insert(change.seq, change);
        true
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
}
