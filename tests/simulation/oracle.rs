//! The oracle: what must be true of both ends when nothing is under way any more.

use super::model::{Model, Row, natural_key};
use super::reading::on_update;
use super::script::BAD;
use super::world::World;
use hubsyncd::mapping::On;
use hubsyncd::sandbox::World as Portal;
use hubsyncd::sync::change::{Key, ObjectIndex};
use std::collections::{BTreeMap, BTreeSet};

/// Everything that is wrong.
pub fn judge(world: &World) -> Vec<String> {
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
            let problem = match (failure, reason_to_fail(&model, &portal, object, key, row)) {
                (Some(_), Some(_)) => None,
                (Some(failure), None) => {
                    Some(format!("is a failure ({}) without a reason", failure.category))
                }
                (None, Some(reason)) => Some(format!("is no failure although {reason}")),
                (None, None) => out_of_step(world, &model, &portal, object, key, row),
            };
            wrong.extend(problem.map(|problem| format!("{name} {key} {problem}")));
        }
        wrong.extend(doubled(&model, &portal, object));
    }
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
            Some(row) => model.failure(*object, key).is_some() && row.hubspot_id.is_none(),
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
    if let Some(id) = &row.hubspot_id {
        let there = portal
            .record(object_type, id)
            .is_some_and(|record| !record.archived());
        if !there {
            return Some(format!("its record {id} is gone"));
        }
    }
    if row.unwritable {
        return Some("the table refuses its receipt".to_owned());
    }
    let creating = row.hubspot_id.is_none();
    if creating && cell("firstname").as_deref() == Some(BAD) || cell("attendance").as_deref() == Some(BAD) {
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
    if creating {
        let value = natural_key(declared, row)?;
        let property = declared.match_on.as_deref()?;
        let holder = portal.find(object_type, property, &value)?.id();
        let mut others = model.tables[object].iter().filter(|(other, _)| *other != key);
        if others.any(|(_, other)| other.hubspot_id.as_ref() == Some(&holder)) {
            return Some(format!("another row owns record {holder}"));
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
    let record = portal.record(&declared.object_type, id)?;
    if declared.create && row.synced_at.is_none() {
        return Some("is not marked as synced".to_owned());
    }
    // What people merged keeps what they chose of the two.
    let merged = world.merged.lock().expect("never held for long").contains(id);
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
        } else if declared.create && !merged {
            let normal = |text: &str| {
                let email = declared.object_type == "0-1" && property.name == "email";
                if email {
                    text.trim().to_lowercase()
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
            if !captured.any(|columns| normal(&wanted(columns)) == normal(held)) {
                return Some(format!(
                    "{} is {held:?} in HubSpot, which it never was here",
                    property.name
                ));
            }
        }
    }
    let targets = model.targets(object, row);
    for (link, target) in declared.links.iter().zip(targets) {
        let Some(target) = target.id() else { continue };
        let to = model.mapping.position(&link.to)?;
        let to_type = &model.mapping.objects[to].object_type;
        let held = portal.associations(&declared.object_type, id, to_type);
        if !held.iter().any(|link| link.to == target) {
            return Some(format!("is not linked to {} {target}", link.to));
        }
    }
    None
}

/// Records beside the one that a row has, made by us for the same row.
fn doubled(model: &Model, portal: &Portal, object: ObjectIndex) -> Vec<String> {
    let declared = &model.mapping.objects[object];
    let Some(property) = declared.match_on.as_deref() else {
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
    let mut by_value: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for record in portal.records(&declared.object_type) {
        let value = record.get(property).unwrap_or_default().to_owned();
        by_value.entry(value).or_default().push(record.id());
    }
    let mut wrong = Vec::new();
    for (value, ids) in by_value {
        let mine = |id: &&String| !owned.contains(*id);
        let holders = model.natural_keys.get(&(object, value.clone()));
        let all_live = holders.is_some_and(|keys| keys.iter().all(|key| table.contains_key(key)));
        for id in ids.iter().filter(mine).filter(|_| all_live) {
            let rows: Vec<&Key> = holders.into_iter().flatten().collect();
            wrong.push(format!(
                "{} record {id} belongs to nobody beside rows {rows:?}",
                declared.name
            ));
        }
    }
    wrong
}
