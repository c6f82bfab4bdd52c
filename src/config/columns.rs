//! `[columns.*]`: the built-in mapping with other column names.

use super::names::column_name;
use super::section::{Findings, Section};
use crate::mapping::Mapping;
use std::collections::BTreeSet;

/// `[columns.bookings] student_name = "name"`: other names for columns of the built-in mapping.
pub(super) fn rename_columns<'a>(findings: &'a Findings<'a>, root: &Section<'a>, mapping: &mut Mapping) {
    let names: Vec<String> = mapping.objects.iter().map(|object| object.name.clone()).collect();
    let known: Vec<&str> = names.iter().map(String::as_str).collect();
    let columns = Section::of(findings, "columns", root.value("columns"), &known);
    for name in &names {
        let used = used_columns(mapping, name);
        let known: Vec<&str> = used.iter().map(String::as_str).collect();
        let renames = Section::of(findings, columns.key(name), columns.value(name), &known);
        let pairs: Vec<(String, String)> = used
            .iter()
            .filter_map(|old| Some((old.clone(), renames.read(old, column_name)?)))
            .collect();
        rename(mapping, name, &pairs);
    }
}

/// Every column of the object's table that the mapping names.
fn used_columns(mapping: &Mapping, name: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for object in &mapping.objects {
        if object.name == name {
            used.extend([
                object.key.clone(),
                object.hubspot_id.clone(),
                object.synced_at.clone(),
            ]);
            used.extend(object.properties.iter().map(|property| property.column.clone()));
        }
        for link in &object.links {
            if object.name == name {
                used.extend(link.column.clone());
                used.extend(link.lookup.iter().map(|(_, mine)| mine.clone()));
            }
            if link.to == name {
                used.extend(link.lookup.iter().map(|(theirs, _)| theirs.clone()));
            }
        }
    }
    used
}

fn rename(mapping: &mut Mapping, name: &str, pairs: &[(String, String)]) {
    let apply = |column: &mut String| {
        if let Some((_, new)) = pairs.iter().find(|(old, _)| old == column) {
            column.clone_from(new);
        }
    };
    for object in &mut mapping.objects {
        let own = object.name == name;
        if own {
            [&mut object.key, &mut object.hubspot_id, &mut object.synced_at]
                .into_iter()
                .for_each(apply);
            object
                .properties
                .iter_mut()
                .map(|property| &mut property.column)
                .for_each(apply);
        }
        for link in &mut object.links {
            if own {
                link.column.iter_mut().for_each(apply);
                link.lookup.iter_mut().map(|(_, mine)| mine).for_each(apply);
            }
            if link.to == name {
                link.lookup.iter_mut().map(|(theirs, _)| theirs).for_each(apply);
            }
        }
    }
}
