//! The oracle: what must be true of both ends when nothing is under way any more.
//!
//! Here is what must be true of rows; of records, `records`, and of links, `ties`.

use super::capture::{natural_key, normal};
use super::model::{Model, Row};
use super::reading::on_update;
use super::scene::PAYMENTS;
use super::script::BAD;
use super::world::World;
use super::{records, ties};
use hubsyncd::mapping::{On, OnMissing};
use hubsyncd::sandbox::World as Portal;
use hubsyncd::sync::change::{Key, ObjectIndex};

/// Everything that is wrong; `swept`: a sweep has seen all rows since the last change.
pub fn judge(world: &World, swept: bool) -> Vec<String> {
    let model = world.model();
    let portal = world.portal.world();
    let mut wrong = Vec::new();
    if !model.changes.is_empty() {
        wrong.push(format!("{} changes are left", model.changes.len()));
    }
    for object in &model.paused {
        let name = &model.mapping.objects[*object].name;
        wrong.push(format!("{name} is noted as paused"));
    }
    for (object, table) in model.tables.iter().enumerate() {
        let name = &model.mapping.objects[object].name;
        for (key, row) in table {
            let failure = model.failure(object, key);
            let unseen = !swept && !model.mapping.objects[object].capture;
            if unseen || has_bad_past(row) {
                continue;
            }
            let problem = match (failure, reason_to_fail(&model, &portal, object, key, row)) {
                (Some(_), Some(_)) => None,
                // Only a sweep tries again.
                (Some(_), None) if !swept => None,
                (Some(failure), None) => {
                    Some(format!("is a failure ({}) without a reason", failure.category))
                }
                (None, Some(reason)) => Some(format!("is no failure although {reason}")),
                (None, None) => out_of_step(world, &model, &portal, object, key, row),
            };
            wrong.extend(problem.map(|problem| format!("{name} {key} {problem}")));
        }
        wrong.extend(records::strays(&model, &portal, object));
    }
    wrong.extend(records::unarchived(&model, swept));
    for (object, key, record) in model.failures.keys() {
        if record.is_none() && !model.tables[*object].contains_key(key) {
            wrong.push(format!(
                "{} {key} is a failure and has no row",
                model.mapping.objects[*object].name
            ));
        }
    }
    for ((object, key), intended) in &model.intents {
        let row = model.tables[*object].get(key);
        let waits = match row {
            None => false,
            Some(_) => model.failure(*object, key).is_some(),
        };
        if !waits {
            wrong.push(format!(
                "{} {key} has an intent left: {intended:?}",
                model.mapping.objects[*object].name
            ));
        }
    }
    for (id, entry) in &model.audit {
        if !entry.marked
            && model.failure(entry.object, &entry.key).is_none()
            && model.tables[entry.object].contains_key(&entry.key)
        {
            wrong.push(format!("audit entry {id} of {} is not marked", entry.key));
        }
    }
    wrong
}

/// Whether a row has a HubSpot id and holds what would only be refused if it were sent for a create: whether it is sent
/// depends on what has named the row.
fn has_bad_past(row: &Row) -> bool {
    let bad = |name: &str| {
        row.columns
            .get(name)
            .is_some_and(|cell| cell.as_deref() == Some(BAD))
    };
    row.hubspot_id.is_some() && (bad("firstname") || bad("payer"))
}

/// Why a row is rightly a failure.
fn reason_to_fail(
    model: &Model,
    portal: &Portal,
    object: ObjectIndex,
    key: &Key,
    row: &Row,
) -> Option<String> {
    let declared = &model.mapping.objects[object];
    let object_type = &declared.object_type;
    let cell = |name: &str| row.columns.get(name).cloned().flatten();
    let given = model.intents.get(&(object, Key::clone(key)));
    let given = given.and_then(|intended| intended.hubspot_id.as_ref());
    let own = row.hubspot_id.as_ref().or(given);
    if let Some(id) = own {
        let there = portal
            .record(object_type, id)
            .is_some_and(|record| !record.archived());
        let record = (object, id.clone());
        let brought = model.ledger.brought.contains(&record);
        // What we have archived ourselves is no reason.
        let anew = declared.on_missing == OnMissing::Recreate && !model.ledger.merged_away.contains(id);
        if !there && !anew && (brought || !model.ledger.archived.contains_key(&record)) {
            return Some(format!("its record {id} is gone"));
        }
    }
    if row.unwritable {
        return Some("the table refuses its receipt".to_owned());
    }
    let creating = row.hubspot_id.is_none();
    let bad = |name: &str| cell(name).as_deref() == Some(BAD);
    if creating && (bad("firstname") || bad("payer")) || bad("attendance") {
        return Some("HubSpot refuses a value".to_owned());
    }
    for (link, target) in declared.links.iter().zip(model.targets(object, row)) {
        let to = model.mapping.position(&link.to)?;
        let to_type = &model.mapping.objects[to].object_type;
        let there = |id: &str| {
            portal
                .record(to_type, id)
                .is_some_and(|record| !record.archived())
        };
        if target.id().is_some_and(|id| !there(id)) {
            return Some("its link leads nowhere".to_owned());
        }
    }
    // A row that was captured while it had no id sends its natural key too.
    let full = model
        .failure(object, key)
        .is_some_and(|failure| failure.full_record);
    if creating || full {
        let value = natural_key(declared, row)?;
        let property = declared.match_on.as_deref()?;
        let known = portal
            .records(object_type)
            .filter(|record| record.get(property) == Some(&value));
        let known = known.map(hubsyncd::sandbox::Record::id);
        let known: Vec<String> = known.filter(|id| Some(id) != own).collect();
        let pending = model.intents.get(&(object, Key::clone(key)));
        let pending = pending.and_then(|intended| intended.intent.match_value.as_deref());
        let ambiguous = |value: &str| {
            let mut records = portal.records(object_type);
            records
                .by_ref()
                .filter(|record| record.get(property) == Some(value))
                .count()
                > 1
        };
        if object == PAYMENTS && (known.len() > 1 || pending.is_some_and(ambiguous)) {
            return Some(format!("HubSpot has several records of {value} or {pending:?}"));
        }
        let others = model.tables[object].iter().filter(|(other, _)| *other != key);
        let held = others.filter_map(|(_, other)| other.hubspot_id.as_ref());
        let intents = model.intents.iter();
        let intents = intents.filter(|((of, other), _)| *of == object && other != key);
        let promised = intents.clone().filter_map(|(_, other)| other.hubspot_id.as_ref());
        let mut others_values = intents.filter_map(|(_, other)| other.intent.match_value.as_ref());
        // Rows that have moved to another's natural key while their records were made stand in each other's way.
        let mine = model.intents.get(&(object, Key::clone(key)));
        let mine = mine.and_then(|intended| intended.intent.match_value.as_ref());
        let moved = own.is_some() || mine.is_some_and(|mine| normal(declared, mine) != value);
        let exchanged =
            !known.is_empty() && (moved || others_values.any(|other| normal(declared, other) == value));
        if exchanged || held.chain(promised).any(|id| known.contains(id)) {
            return Some(format!("another row owns one of {known:?}"));
        }
    }
    None
}

/// What is not as the projection has it.
fn out_of_step(
    world: &World,
    model: &Model,
    portal: &Portal,
    object: ObjectIndex,
    key: &Key,
    row: &Row,
) -> Option<String> {
    let declared = &model.mapping.objects[object];
    let Some(id) = &row.hubspot_id else {
        return declared.create.then(|| "has no id".to_owned());
    };
    let mut others = model.tables[object].iter().filter(|(other, _)| *other != key);
    if others.any(|(_, other)| other.hubspot_id.as_ref() == Some(id)) {
        return Some(format!("shares record {id} with another row"));
    }
    if row.chosen.is_some() && row.chosen != row.hubspot_id && !world.scene.merges {
        return Some(format!("holds {id}, and the application wrote {:?}", row.chosen));
    }
    let Some(record) = portal
        .record(&declared.object_type, id)
        .filter(|record| !record.archived())
    else {
        return Some(format!("has record {id}, which is not there"));
    };
    if declared.create && row.synced_at.is_none() {
        return Some("is not marked as synced".to_owned());
    }
    // What people merged keeps what they chose of the two.
    let merged = model.ledger.merged.contains(id);
    for property in &declared.properties {
        let held = record.get(&property.name).unwrap_or_default();
        if property.on != On::Create {
            let wanted = on_update(property, row).unwrap_or_default();
            if held != wanted {
                return Some(format!(
                    "{} is {held:?} in HubSpot and {wanted:?} here",
                    property.name
                ));
            }
        } else if declared.create && !merged && row.chosen.is_none() {
            let normal = |text: &str| {
                if property.name == "email" {
                    normal(declared, text)
                } else {
                    text.to_owned()
                }
            };
            let mut captured = row.captured.iter();
            let wanted = |columns: &super::model::Columns| {
                columns
                    .get(&property.column)
                    .cloned()
                    .flatten()
                    .unwrap_or_default()
            };
            let explains = |columns: &super::model::Columns| {
                let wanted = wanted(columns);
                // What a create leaves out stays as an earlier one has left it.
                normal(&wanted) == normal(held) || wanted.is_empty()
            };
            if !captured.any(explains) {
                return Some(format!(
                    "{} is {held:?} in HubSpot, which it never was here",
                    property.name
                ));
            }
        }
    }
    ties::wrong(world, model, portal, object, key, row, id)
}
