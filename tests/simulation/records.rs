//! The oracle of records: each belongs to a row, or it is known why not.

use super::capture::normal;
use super::model::Model;
use super::scene::PAYMENTS;
use hubsyncd::mapping::OnDelete;
use hubsyncd::sandbox::World as Portal;
use hubsyncd::sync::change::{Key, ObjectIndex};
use hubsyncd::sync::deletion::{BRAKE, BRAKE_ROWS};
use std::collections::BTreeSet;

/// Records that nobody holds and that we have made: doubled ones, and those that should have been archived.
pub fn strays(model: &Model, portal: &Portal, object: ObjectIndex) -> Vec<String> {
    let declared = &model.mapping.objects[object];
    let Some(property) = declared.match_on.as_deref().filter(|_| declared.create) else {
        return Vec::new();
    };
    let table = &model.tables[object];
    let waiting = model.intents.iter().filter(|((of, _), _)| *of == object);
    let waiting = waiting.filter_map(|(_, intended)| intended.hubspot_id.as_ref());
    let owned: BTreeSet<&String> = table
        .values()
        .filter_map(|row| row.hubspot_id.as_ref())
        .chain(waiting)
        .collect();
    // What a failed row's create may have made is asked for when the row is tried again.
    let pending = model
        .intents
        .iter()
        .filter(|((of, key), _)| *of == object && model.failure(*of, key).is_some());
    let pending = pending.filter_map(|(_, intended)| intended.intent.match_value.as_ref());
    let pending: BTreeSet<String> = pending.map(|value| normal(declared, value)).collect();
    let listed = model.failures.keys().filter_map(|(_, _, record)| record.as_ref());
    let listed: BTreeSet<&String> = listed.collect();
    let ledger = &model.ledger;
    let mut wrong = Vec::new();
    for record in portal.records(&declared.object_type) {
        let id = record.id();
        let of_people = ledger
            .foreign
            .contains(&(declared.object_type.clone(), id.clone()));
        if owned.contains(&id) || listed.contains(&id) || of_people || ledger.merged.contains(&id) {
            continue;
        }
        let value = normal(declared, record.get(property).unwrap_or_default());
        let known = ledger
            .foreign_keys
            .contains(&(declared.object_type.clone(), value.to_lowercase()));
        if known || pending.contains(&value) || ledger.let_go.contains(&(object, id.clone())) {
            continue;
        }
        let holders = ledger.holders(object, &id);
        let named = model.natural_keys.get(&(object, value.clone()));
        let named: BTreeSet<Key> = named.cloned().unwrap_or_default();
        let chosen = |key: &Key| ledger.chosen.contains(&(object, key.clone()));
        // Nobody asks what became of the create of a row to which the application has given another record meanwhile.
        if holders.is_empty() && named.iter().any(chosen) {
            continue;
        }
        let is_over = |key: &Key| ledger.ended.contains(&(object, key.clone())) || chosen(key);
        let kept = declared.on_delete == OnDelete::Keep && holders.iter().chain(&named).any(is_over);
        // Nothing is archived because of a row that nobody has named.
        let emptied = |key: &Key| ledger.emptied.contains(&(object, key.clone()));
        let untold = holders.iter().chain(&named).any(emptied);
        // Of several that only a search finds, and nobody holds, none is told to be whose.
        let doubled =
            object == PAYMENTS && holders.is_empty() && named.len() > 1 && named.iter().all(is_over);
        if !kept && !untold && !doubled {
            wrong.push(format!(
                "{} record {id} ({value}) belongs to nobody; rows with its key: {named:?}, rows that held it: {holders:?}",
                declared.name
            ));
        }
    }
    wrong
}

/// Records that are listed as not archived, for no reason; `swept`: a sweep has tried again.
pub fn unarchived(model: &Model, swept: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    for ((object, key, record), failure) in &model.failures {
        let Some(id) = record else { continue };
        let name = &model.mapping.objects[*object].name;
        let braked = model.failures.iter().filter(|((of, _, record), failure)| {
            of == object && record.is_some() && failure.category == BRAKE
        });
        let archived = model.ledger.archived.keys().filter(|(of, _)| of == object);
        let row = model.tables[*object].get(key);
        let reason = if failure.category == BRAKE {
            !model.ledger.released && (braked.count() + archived.count()) as u64 > BRAKE_ROWS
        } else {
            !swept
                || model.ledger.unarchivable.contains(id)
                || row.is_some_and(|row| row.hubspot_id.is_none())
        };
        if !reason {
            wrong.push(format!(
                "{name} record {id} of {key} is not archived ({})",
                failure.category
            ));
        }
    }
    wrong
}
