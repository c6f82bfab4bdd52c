//! The world: what a portal holds, and how a person at its screen would change it.
//!
//! Everything here follows HubSpot's rules for the *state*: ids that are never used twice, merges that
//! make a new id, archived records that give up their unique values. What the API accepts and answers is
//! decided in the modules beside this one; they read and write the world through its crate-private half.

use super::association::{End, Links, TypeIx};
use super::clock::{Clock, Dice, millis};
use super::fault::Endpoint;
use super::log::{Log, Request};
use super::object_type::{ObjectType, Record, Values};
use super::property::{Name, Property};
use super::{Settings, standard};
use std::sync::Arc;

/// A rule that refuses one record or one association, as a portal's own validation would.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub object: TypeIx,
    /// The other object type, for an association.
    pub to: Option<TypeIx>,
    /// The property looked at; `hs_object_id` for the record's id.
    pub property: String,
    pub value: String,
    /// How often it still strikes; `None` for always.
    pub times: Option<u32>,
}

/// An association of a record as the world holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The id of the record it leads to.
    pub to: String,
    /// The association type ids, in the direction asked for.
    pub type_ids: Vec<u32>,
    /// The labels, in the direction asked for.
    pub labels: Vec<String>,
}

/// A portal: object types, records, associations, and the log of what was asked.
#[derive(Debug)]
pub struct World {
    pub(super) settings: Settings,
    pub(super) clock: Arc<Clock>,
    pub(super) dice: Dice,
    pub(super) types: Vec<ObjectType>,
    pub(super) links: Links,
    pub(super) log: Log,
    pub(super) refusals: Vec<Refusal>,
    pub(super) scopes: Vec<String>,
    next_id: u64,
}

impl World {
    pub(super) fn new(settings: Settings, clock: Arc<Clock>) -> Self {
        let mut world = Self {
            dice: Dice::seeded(settings.seed),
            log: Log::keeping(settings.log_max),
            scopes: settings.scopes.clone(),
            settings,
            clock,
            types: Vec::new(),
            links: Links::new(),
            refusals: Vec::new(),
            next_id: 171_591_000_198,
        };
        standard::furnish(&mut world);
        world
    }

    /// Defines an object type, e.g. `define("2-50158943", "bookings", …)`, or adds properties to one that
    /// exists. The properties that every type has come by themselves.
    pub fn define(&mut self, type_id: &str, name: &str, properties: impl IntoIterator<Item = Property>) {
        let position = self.type_position(type_id).unwrap_or_else(|| {
            self.types
                .push(ObjectType::new(type_id, name, name.trim_end_matches('s')));
            standard::furnish_type(self.types.last_mut().expect("it was pushed just now"));
            self.types.len() - 1
        });
        for property in properties {
            self.types[position].define(property);
        }
    }

    /// Adds a property to a type, or changes its definition.
    ///
    /// # Panics
    /// If the type was never defined.
    pub fn add_property(&mut self, object: &str, property: Property) {
        self.type_mut(object).define(property);
    }

    /// Deletes a property's definition, as an administrator might while a daemon runs.
    ///
    /// # Panics
    /// If the type was never defined.
    pub fn remove_property(&mut self, object: &str, name: &str) {
        self.type_mut(object).properties.remove(name);
    }

    /// Makes the portal's create form demand a property; version 2026-09 enforces it.
    ///
    /// # Panics
    /// If the type was never defined.
    pub fn require_on_form(&mut self, object: &str, property: &str) {
        self.type_mut(object).form_requires.push(Name::from(property));
    }

    /// Makes `then` required wherever `when` is set; version 2026-09 enforces it.
    ///
    /// # Panics
    /// If the type was never defined.
    pub fn require_when(&mut self, object: &str, when: &str, then: &str) {
        self.type_mut(object)
            .conditions
            .push((Name::from(when), Name::from(then)));
    }

    /// Defines the unlabelled association between two types if there is none, and answers its type id in
    /// each direction.
    ///
    /// # Panics
    /// If a type was never defined.
    pub fn associate_types(&mut self, from: &str, to: &str) -> (u32, u32) {
        let (from, to) = (self.position(from), self.position(to));
        match self
            .links
            .unlabelled(from, to)
            .map(|kind| (kind.id, kind.inverse))
        {
            Some(known) => known,
            None => self.links.define(from, to, None, ""),
        }
    }

    /// Defines a labelled association between two types, the same label in both directions.
    ///
    /// # Panics
    /// If a type was never defined.
    pub fn label(&mut self, from: &str, to: &str, label: &str) -> (u32, u32) {
        self.associate_types(from, to);
        let (from, to) = (self.position(from), self.position(to));
        self.links.define(from, to, Some((label, label)), label)
    }

    /// Creates a record past all validation, as an import would; answers its id.
    ///
    /// # Panics
    /// If the type was never defined.
    pub fn create<'a>(
        &mut self,
        object: &str,
        values: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> String {
        let position = self.position(object);
        let values: Values = values
            .into_iter()
            .map(|(name, value)| (Name::from(name), value.into()))
            .collect();
        self.insert(position, values).to_string()
    }

    /// Types a value over, as a person at HubSpot's screen would; empty clears it.
    ///
    /// # Panics
    /// If there is no such record.
    pub fn set(&mut self, object: &str, id: &str, property: &str, value: &str) {
        let position = self.position(object);
        let mut record = self.record(object, id).expect("the record to set exists").clone();
        match value {
            "" => record.values.remove(property),
            value => record.values.insert(Name::from(property), value.into()),
        };
        record.updated_ms = self.now_ms();
        self.store(position, record);
    }

    /// Archives a record; `false` if there is none.
    pub fn archive(&mut self, object: &str, id: &str) -> bool {
        let Some(position) = self.type_position(object) else {
            return false;
        };
        id.parse().is_ok_and(|id| self.archive_id(position, id))
    }

    /// Deletes a record for good, as the law may demand: it is not among the archived ones either; `false` if there is
    /// none.
    pub fn purge(&mut self, object: &str, id: &str) -> bool {
        let (Some(position), Ok(id)) = (self.type_position(object), id.parse()) else {
            return false;
        };
        self.links.take_all((position, id), self.types.len());
        let seen = self.seen_ms();
        self.types[position].take(id, seen).is_some()
    }

    /// Merges `other` into `primary`, as a person would, and answers the survivor's id, which is a new
    /// one unless the portal preserves the primary's.
    pub fn merge(&mut self, object: &str, primary: &str, other: &str) -> Option<String> {
        let position = self.type_position(object)?;
        let survivor = self.merge_ids(position, primary.parse().ok()?, other.parse().ok()?)?;
        Some(survivor.to_string())
    }

    /// Associates two records without a label.
    ///
    /// # Panics
    /// If a type was never defined, or an id is no number.
    pub fn associate(&mut self, from: (&str, &str), to: (&str, &str)) {
        self.associate_types(from.0, to.0);
        let (from, to) = (self.end(from), self.end(to));
        self.links.add_unlabelled(from, to);
    }

    /// Ends the association of two records, with all its labels.
    ///
    /// # Panics
    /// If a type was never defined, or an id is no number.
    pub fn dissociate(&mut self, from: (&str, &str), to: (&str, &str)) {
        let (from, to) = (self.end(from), self.end(to));
        self.links.remove(from, to);
    }

    /// The record with this id, archived ones included; merged-away ids lead nowhere.
    pub fn record(&self, object: &str, id: &str) -> Option<&Record> {
        let position = self.type_position(object)?;
        self.types[position].records.get(&id.parse().ok()?)
    }

    /// The first record, by id, that is not archived and whose property has this value.
    pub fn find(&self, object: &str, property: &str, value: &str) -> Option<&Record> {
        self.records(object)
            .find(|record| record.get(property) == Some(value))
    }

    /// Every record of a type that is not archived, by id.
    pub fn records(&self, object: &str) -> impl Iterator<Item = &Record> {
        let records = self
            .type_position(object)
            .map(|position| self.types[position].records.values());
        records
            .into_iter()
            .flatten()
            .filter(|record| record.archived_ms.is_none())
    }

    /// What a record is associated with.
    pub fn associations(&self, from_type: &str, from_id: &str, to_type: &str) -> Vec<Link> {
        let places = (
            self.type_position(from_type),
            self.type_position(to_type),
            from_id.parse::<u64>(),
        );
        let (Some(from), Some(to), Ok(id)) = places else {
            return Vec::new();
        };
        let labels = |types: &[u32]| {
            types
                .iter()
                .filter_map(|id| self.links.link_type(*id))
                .filter_map(|kind| kind.label.clone())
                .collect()
        };
        let held = self.links.of((from, id), to).into_iter();
        held.map(|(id, types)| Link {
            to: id.to_string(),
            labels: labels(&types),
            type_ids: types,
        })
        .collect()
    }

    /// The requests that the log still keeps, oldest first.
    pub fn requests(&self) -> impl DoubleEndedIterator<Item = &Request> {
        self.log.requests()
    }

    /// How many requests of a kind have arrived since the start; `Endpoint::Any` for all.
    pub fn count(&self, endpoint: Endpoint) -> u64 {
        self.log.count(endpoint)
    }

    /// How many answers had this status since the start.
    pub fn answered_with(&self, status: u16) -> u64 {
        self.log.answered_with(status)
    }

    /// Takes a scope away from the token.
    pub fn revoke_scope(&mut self, scope: &str) {
        self.scopes.retain(|held| held != scope);
    }

    /// Gives the token a scope.
    pub fn grant_scope(&mut self, scope: &str) {
        self.scopes.push(scope.to_owned());
    }

    /// The world's time in milliseconds since 1970.
    pub fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }
}

/// What the API's modules do to the world.
impl World {
    /// The position of a type named by id, by name, or as `p{portal}_{name}`.
    pub(super) fn type_position(&self, named: &str) -> Option<TypeIx> {
        let bare = named
            .strip_prefix(&format!("p{}_", self.settings.portal_id))
            .unwrap_or(named);
        self.types.iter().position(|kind| {
            kind.id == named
                || kind.name.eq_ignore_ascii_case(bare)
                || kind.singular.eq_ignore_ascii_case(bare)
        })
    }

    /// Creates a record with a fresh id.
    pub(super) fn insert(&mut self, position: TypeIx, values: Values) -> u64 {
        let id = self.next_record_id();
        let now = self.now_ms();
        let record = Record {
            id,
            created_ms: now,
            updated_ms: now,
            archived_ms: None,
            values,
            merged: Vec::new(),
        };
        self.store(position, record);
        id
    }

    pub(super) fn store(&mut self, position: TypeIx, record: Record) {
        let seen = self.seen_ms();
        self.types[position].put(record, seen);
    }

    pub(super) fn archive_id(&mut self, position: TypeIx, id: u64) -> bool {
        let Some(mut record) = self.types[position].live(id).cloned() else {
            return false;
        };
        record.archived_ms = Some(self.now_ms());
        self.store(position, record);
        self.links.take_all((position, id), self.types.len());
        true
    }

    pub(super) fn merge_ids(&mut self, position: TypeIx, primary: u64, other: u64) -> Option<u64> {
        let kind = &self.types[position];
        let (primary, other) = (kind.survivor(primary), kind.survivor(other));
        if primary == other {
            return None;
        }
        let (winner, loser) = (kind.live(primary)?.clone(), kind.live(other)?.clone());
        let survivor = if self.settings.merge_keeps_primary_id {
            primary
        } else {
            self.next_record_id()
        };
        let mut merged = winner.merged.clone();
        merged.extend(&loser.merged);
        merged.extend([primary, other].iter().filter(|id| **id != survivor));
        let mut values = loser.values.clone();
        values.extend(winner.values.clone());
        if position == standard::CONTACTS {
            join_emails(&mut values, &winner, &loser);
        }
        let (seen, now) = (self.seen_ms(), self.now_ms());
        for old in [primary, other] {
            self.types[position].take(old, seen);
            if old != survivor {
                self.types[position].merged_into.insert(old, survivor);
            }
        }
        let created_ms = winner.created_ms.min(loser.created_ms);
        let record = Record {
            id: survivor,
            created_ms,
            updated_ms: now,
            archived_ms: None,
            values,
            merged,
        };
        self.store(position, record);
        for old in [primary, other] {
            for (end, types) in self.links.take_all((position, old), self.types.len()) {
                if end == (position, primary) || end == (position, other) {
                    continue;
                }
                self.links.replace((position, survivor), end, &types);
            }
        }
        Some(survivor)
    }

    /// Whether a rule refuses this write; a rule that strikes a bounded number of times is used up.
    pub(super) fn refuses(&mut self, hit: impl Fn(&Refusal) -> bool) -> Option<Refusal> {
        let position = self.refusals.iter().position(hit)?;
        let refusal = self.refusals[position].clone();
        match &mut self.refusals[position].times {
            None => {}
            Some(times) if *times > 1 => *times -= 1,
            Some(_) => {
                self.refusals.remove(position);
            }
        }
        Some(refusal)
    }

    /// An id that was never used: twelve digits, ascending, with gaps.
    pub(super) fn next_record_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1 + self.dice.below(37);
        id
    }

    /// When search will see what is written now; `None` if search does not lag.
    fn seen_ms(&self) -> Option<i64> {
        let lag = millis(self.settings.search_lag);
        (lag > 0).then(|| self.now_ms() + lag)
    }

    fn position(&self, object: &str) -> TypeIx {
        self.type_position(object)
            .expect("the object type was defined before it is used")
    }

    fn type_mut(&mut self, object: &str) -> &mut ObjectType {
        let position = self.position(object);
        &mut self.types[position]
    }

    fn end(&self, (object, id): (&str, &str)) -> End {
        (
            self.position(object),
            id.parse().expect("a record id is a number"),
        )
    }
}

/// The survivor's other addresses: everything but its primary one, each once.
fn join_emails(values: &mut Values, winner: &Record, loser: &Record) {
    let primary = values.get("email").cloned().unwrap_or_default();
    let mut others: Vec<&str> = Vec::new();
    for record in [winner, loser] {
        others.extend(record.get("email"));
        others.extend(
            record
                .get("hs_additional_emails")
                .into_iter()
                .flat_map(|all| all.split(';')),
        );
    }
    others.retain(|address| !address.is_empty() && *address != &*primary);
    others.sort_unstable();
    others.dedup();
    if !others.is_empty() {
        values.insert(Name::from("hs_additional_emails"), others.join(";").into());
    }
}
