//! Associations: which types of them exist between two object types, and which were made.
//!
//! Every association is held in both directions, each with its own type id; a labelled association always
//! carries the unlabelled type of its pair too, and goes when that type is removed.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The most labels HubSpot allows between two object types.
pub(super) const LABELS_MAX: usize = 50;

/// The position of an object type in the world.
pub(super) type TypeIx = usize;

/// A kind of association in one direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LinkType {
    pub id: u32,
    pub built_in: bool,
    pub label: Option<String>,
    pub name: String,
    pub from: TypeIx,
    pub to: TypeIx,
    pub inverse: u32,
}

impl LinkType {
    pub(super) fn category(&self) -> &'static str {
        if self.built_in {
            "HUBSPOT_DEFINED"
        } else {
            "USER_DEFINED"
        }
    }
}

/// One end of a pair: object type and record.
pub(super) type End = (TypeIx, u64);

/// All association types and all associations of the world.
#[derive(Debug)]
pub(super) struct Links {
    types: BTreeMap<u32, LinkType>,
    next: u32,
    made: HashMap<(End, TypeIx), BTreeMap<u64, BTreeSet<u32>>>,
}

impl Links {
    pub(super) fn new() -> Self {
        // Far above HubSpot's own ids, as a portal's own types are.
        Self {
            types: BTreeMap::new(),
            next: 9_901,
            made: HashMap::new(),
        }
    }

    pub(super) fn define_built_in(&mut self, there: (TypeIx, u32), back: (TypeIx, u32), label: Option<&str>) {
        let kind = |id, from, to, inverse| LinkType {
            id,
            built_in: true,
            label: label.map(str::to_owned),
            name: String::new(),
            from,
            to,
            inverse,
        };
        self.types.insert(there.1, kind(there.1, there.0, back.0, back.1));
        if there != back {
            self.types.insert(back.1, kind(back.1, back.0, there.0, there.1));
        }
    }

    /// Defines an association of the portal's own between two types; answers both directions' ids.
    pub(super) fn define(
        &mut self,
        from: TypeIx,
        to: TypeIx,
        label: Option<(&str, &str)>,
        name: &str,
    ) -> (u32, u32) {
        let (there, back) = (self.next, self.next + 1);
        self.next += 2;
        let kind = |id, label: Option<&str>, from, to, inverse| LinkType {
            id,
            built_in: false,
            label: label.map(str::to_owned),
            name: name.to_owned(),
            from,
            to,
            inverse,
        };
        self.types
            .insert(there, kind(there, label.map(|label| label.0), from, to, back));
        self.types
            .insert(back, kind(back, label.map(|label| label.1), to, from, there));
        (there, back)
    }

    pub(super) fn link_type(&self, id: u32) -> Option<&LinkType> {
        self.types.get(&id)
    }

    /// The association types from one object type to another, the unlabelled one first.
    pub(super) fn between(&self, from: TypeIx, to: TypeIx) -> Vec<&LinkType> {
        let mut found: Vec<&LinkType> = self
            .types
            .values()
            .filter(|kind| kind.from == from && kind.to == to)
            .collect();
        found.sort_by_key(|kind| (kind.label.is_some(), kind.id));
        found
    }

    /// All types that start at an object type.
    pub(super) fn starting_at(&self, from: TypeIx) -> Vec<&LinkType> {
        self.types.values().filter(|kind| kind.from == from).collect()
    }

    pub(super) fn unlabelled(&self, from: TypeIx, to: TypeIx) -> Option<&LinkType> {
        self.between(from, to)
            .into_iter()
            .find(|kind| kind.label.is_none())
    }

    /// Makes an association of exactly these labelled types; labels it had before and are not named go.
    pub(super) fn replace(&mut self, from: End, to: End, types: &[u32]) {
        let keep: BTreeSet<u32> = self.with_unlabelled(from.0, to.0, types);
        let back: BTreeSet<u32> = keep
            .iter()
            .filter_map(|id| self.types.get(id))
            .map(|kind| kind.inverse)
            .collect();
        self.made.entry((from, to.0)).or_default().insert(to.1, keep);
        if from != to {
            self.made.entry((to, from.0)).or_default().insert(from.1, back);
        }
    }

    /// Makes the unlabelled association; labels that are there stay.
    pub(super) fn add_unlabelled(&mut self, from: End, to: End) {
        let mut types: Vec<u32> = self.types_of(from, to);
        if let Some(kind) = self.unlabelled(from.0, to.0) {
            types.push(kind.id);
        }
        self.replace(from, to, &types);
    }

    /// Removes an association with all its labels.
    pub(super) fn remove(&mut self, from: End, to: End) {
        for (near, far) in [(from, to), (to, from)] {
            if let Some(held) = self.made.get_mut(&(near, far.0)) {
                held.remove(&far.1);
            }
        }
    }

    /// Removes some types of an association; without its unlabelled type nothing is left of it.
    pub(super) fn remove_types(&mut self, from: End, to: End, types: &[u32]) {
        let plain = self.unlabelled(from.0, to.0).map(|kind| kind.id);
        let left: Vec<u32> = self
            .types_of(from, to)
            .into_iter()
            .filter(|id| !types.contains(id))
            .collect();
        if left.is_empty() || plain.is_some_and(|id| types.contains(&id)) {
            self.remove(from, to);
        } else {
            self.replace(from, to, &left);
        }
    }

    pub(super) fn types_of(&self, from: End, to: End) -> Vec<u32> {
        let held = self.made.get(&(from, to.0)).and_then(|held| held.get(&to.1));
        held.map(|types| types.iter().copied().collect())
            .unwrap_or_default()
    }

    /// The records of one type that a record is associated with, and by which types.
    pub(super) fn of(&self, from: End, to: TypeIx) -> Vec<(u64, Vec<u32>)> {
        let Some(held) = self.made.get(&(from, to)) else {
            return Vec::new();
        };
        held.iter()
            .map(|(id, types)| (*id, types.iter().copied().collect()))
            .collect()
    }

    /// The same from a record on, ascending by id, without copies.
    pub(super) fn from(
        &self,
        end: End,
        to: TypeIx,
        first: u64,
    ) -> impl Iterator<Item = (u64, &BTreeSet<u32>)> {
        let held = self.made.get(&(end, to));
        held.into_iter()
            .flat_map(move |held| held.range(first..))
            .map(|(id, types)| (*id, types))
    }

    /// Removes everything a record is associated with, among `type_count` object types; answers what it was.
    pub(super) fn take_all(&mut self, end: End, type_count: usize) -> Vec<(End, Vec<u32>)> {
        let mut others: Vec<(End, Vec<u32>)> = Vec::new();
        for to in 0..type_count {
            others.extend(self.of(end, to).into_iter().map(|(id, types)| ((to, id), types)));
        }
        for (other, _) in &others {
            self.remove(end, *other);
        }
        others
    }

    fn with_unlabelled(&self, from: TypeIx, to: TypeIx, types: &[u32]) -> BTreeSet<u32> {
        types
            .iter()
            .copied()
            .chain(self.unlabelled(from, to).map(|kind| kind.id))
            .collect()
    }
}
