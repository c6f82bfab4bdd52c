//! What happened at both ends that their last state does not tell: who made, held, let go and archived what.

use super::model::{Model, Row};
use hubsyncd::mapping::OnDelete;
use hubsyncd::sync::change::{Key, ObjectIndex};
use hubsyncd::sync::deletion::BRAKE_ROWS;
use hubsyncd::sync::record::Record;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The brake counts the deletions of so many microseconds.
const HOUR: i64 = 3_600_000_000;

/// A link between two records, by object type and id of either, and the labels beside the plain association.
pub type Ends = ((String, String), (String, String));

/// What a person made of a pair.
#[derive(Debug, Clone, Default)]
pub struct Tie {
    /// Every label that a person gave the pair, and whether a person associated it at all.
    pub made: BTreeSet<String>,
    /// Those that nobody else can have made or taken away: they must be there.
    pub kept: BTreeSet<String>,
}

/// The plain association, among labels.
pub const PLAIN: &str = "";

/// The ledger.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Records that people made, by type.
    pub foreign: BTreeSet<(String, String)>,
    /// Natural keys under which people made records, by type.
    pub foreign_keys: BTreeSet<(String, String)>,
    /// Records that people merged others into.
    pub merged: BTreeSet<String>,
    /// Records that people merged, both of each.
    pub merged_away: BTreeSet<String>,
    /// Records that people archived.
    pub thrown_away: BTreeSet<String>,
    /// The rows that ever held a record.
    held: BTreeMap<(ObjectIndex, String), BTreeSet<Key>>,
    /// Records that the application took from their rows without deleting these.
    pub let_go: BTreeSet<(ObjectIndex, String)>,
    /// Rows to which the application gave another record than the one that was made for them.
    pub chosen: BTreeSet<(ObjectIndex, Key)>,
    /// Natural keys under which deleted rows came back.
    pub returned: BTreeSet<(ObjectIndex, String)>,
    /// Rows that were deleted, whether they came back or not.
    pub ended: BTreeSet<(ObjectIndex, Key)>,
    /// Rows that went with all others of their table, of which nobody was told.
    pub emptied: BTreeSet<(ObjectIndex, Key)>,
    /// Records that came back with their rows, whatever had become of them meanwhile.
    pub brought: BTreeSet<(ObjectIndex, String)>,
    /// When each record was archived by a request of ours first, by object.
    pub archived: BTreeMap<(ObjectIndex, String), i64>,
    /// The keys that rows had before, by object and the key they have now.
    renamed: BTreeMap<(ObjectIndex, Key), Key>,
    /// What people linked.
    pub ties: BTreeMap<Ends, Tie>,
    /// Where rows ever led: object, row, link, target.
    wanted: BTreeSet<(ObjectIndex, Key, usize, String)>,
    /// HubSpot refuses to archive these.
    pub unarchivable: BTreeSet<String>,
    /// Whether somebody has released the brake.
    pub released: bool,
}

impl Ledger {
    /// A row holds a record from now on.
    pub fn holds(&mut self, object: ObjectIndex, key: &Key, id: &str) {
        let holders = self.held.entry((object, id.to_owned())).or_default();
        holders.insert(Key::clone(key));
    }

    /// A row's key is changed.
    pub fn renamed(&mut self, object: ObjectIndex, old: &Key, new: &Key) {
        self.renamed.insert((object, Key::clone(new)), Key::clone(old));
    }

    /// Whether a row has, or had before, this key.
    pub fn was(&self, object: ObjectIndex, row: &Key, key: &Key) -> bool {
        let mut names = std::iter::successors(Some(row), |key| self.renamed.get(&(object, Key::clone(key))));
        names.any(|name| name == key)
    }

    /// The rows that ever held a record.
    pub fn holders(&self, object: ObjectIndex, id: &str) -> BTreeSet<Key> {
        let holders = self.held.get(&(object, id.to_owned()));
        holders.cloned().unwrap_or_default()
    }

    /// The application has written a row: notes what that does to the row's id.
    pub fn written(&mut self, object: ObjectIndex, key: &Key, old: Option<&Row>, new: &Row) {
        let before = old.and_then(|old| old.hubspot_id.as_ref());
        if before == new.hubspot_id.as_ref() {
            return;
        }
        if let Some(id) = &new.hubspot_id {
            self.chosen.insert((object, Key::clone(key)));
            self.holds(object, key, id);
        }
    }

    /// The daemon has read these rows, and where they lead.
    pub fn read(&mut self, object: ObjectIndex, records: &[Record]) {
        for record in records {
            for (link, target) in record.targets.iter().enumerate() {
                let wanted = target
                    .id()
                    .map(|to| (object, Key::clone(&record.key), link, to.to_owned()));
                self.wanted.extend(wanted);
            }
        }
    }

    /// Whether the row of a record was ever led to another by one of its links.
    pub fn ever_led(&self, object: ObjectIndex, key: &Key, link: usize, to: &str) -> bool {
        let wanted = (object, Key::clone(key), link, to.to_owned());
        self.wanted.contains(&wanted)
    }
}

impl Model {
    /// A request of ours has archived a record; what is wrong with that.
    pub fn archive(&mut self, object_type: &str, id: &str, now: i64) -> Option<String> {
        let mapping = Arc::clone(&self.mapping);
        let mut objects = mapping.objects.iter();
        let object = objects.position(|object| object.object_type == object_type)?;
        let name = &mapping.objects[object].name;
        let archived = &mut self.ledger.archived;
        let known = archived.insert((object, id.to_owned()), now).is_some();
        if mapping.objects[object].on_delete == OnDelete::Keep {
            return Some(format!("{name} record {id} is archived, where records are kept"));
        }
        // One that comes back with its row while the request is on its way cannot be told.
        let brought = self.ledger.brought.contains(&(object, id.to_owned()));
        let mut rows = self.tables[object].iter().filter(|_| !brought);
        if let Some((key, _)) = rows.find(|(_, row)| row.hubspot_id.as_deref() == Some(id)) {
            return Some(format!("{name} record {id} is archived, which row {key} holds"));
        }
        let recent = archived
            .iter()
            .filter(|((of, _), at)| *of == object && now - **at < HOUR)
            .count() as u64;
        let rows = self.tables[object].len() as u64;
        (!known && !self.ledger.released && recent > BRAKE_ROWS && recent * 100 > rows + recent)
            .then(|| format!("{name} record {id} is the {recent}th archived within an hour"))
    }
}
