//! Capture: the functions and triggers by which a change of the application names its row.
//!
//! Generated from the mapping, as the files of `sql/` with the columns filled in. What counts as a change is
//! decided here; when the daemon is woken is `sql/ring.sql`.

use super::catalog::{Column, Shape};
use super::control::{ARMED_LOCK, LOCK_CLASS};
use super::quote::{identifier, literal, table};
use super::template::fill;
use crate::mapping::{Mapping, Object, On, TableName};
use std::collections::BTreeSet;

/// The lock under which `setup` changes the schema, of class [`LOCK_CLASS`].
pub(super) const LOCK_SETUP: i32 = 3;

/// The audit log's capture function, and its trigger: no object can have these names.
pub(super) const AUDIT_FUNCTION: &str = "audit_entries";
/// See [`AUDIT_FUNCTION`].
pub(super) const AUDIT_TRIGGER: &str = "hubsyncd_entries";

/// The name of an object's capture function, within schema `hubsyncd`.
pub(super) fn function_of(object: &Object) -> String {
    format!("capture_{}", object.name)
}

/// The names of an object's triggers: on insert, update, delete and truncate.
pub(super) fn triggers_of(object: &Object) -> [String; 4] {
    ["insert", "update", "delete", "truncate"].map(|event| format!("hubsyncd_{}_{event}", object.name))
}

/// The capture function of an object.
pub(super) fn function(mapping: &Mapping, object: &Object, shape: &Shape) -> String {
    let function = function_of(object);
    let changed = changed(mapping, object, shape);
    let changed: String = changed
        .iter()
        .map(|condition| format!("\n                   OR {condition}"))
        .collect();
    fill(
        include_str!("../../sql/capture.sql"),
        &[
            ("object", &object.name),
            ("table", &commented(&object.table)),
            ("function", &function),
            ("name", &literal(&object.name)),
            ("key", &identifier(&object.key)),
            ("id", &identifier(&object.hubspot_id)),
            ("changed", changed.trim_start()),
            ("ring", &ring()),
            ("own", &own(&function)),
        ],
    )
}

/// The triggers of an object.
pub(super) fn triggers(object: &Object) -> String {
    let names = triggers_of(object).map(|name| identifier(&name));
    let [insert, update, delete, truncate] = &names;
    fill(
        include_str!("../../sql/triggers.sql"),
        &[
            ("object", &object.name),
            ("title", &commented(&object.table)),
            ("table", &table(&object.table)),
            ("function", &function_of(object)),
            ("insert", insert),
            ("update", update),
            ("delete", delete),
            ("truncate", truncate),
        ],
    )
}

/// The capture function of the audit log.
pub(super) fn audit_function(mapping: &Mapping, shapes: &[Shape], audit: &TableName) -> String {
    let pairs = || mapping.objects.iter().zip(shapes);
    let named: Vec<String> = pairs()
        .map(|(object, shape)| named_by_entry(object, &shape.key))
        .collect();
    let names: Vec<String> = mapping
        .objects
        .iter()
        .map(|object| literal(&object.name))
        .collect();
    fill(
        include_str!("../../sql/audit.sql"),
        &[
            ("table", &commented(audit)),
            ("function", AUDIT_FUNCTION),
            ("named", &named.join("\n            UNION\n            ")),
            ("names", &names.join(", ")),
            ("ring", &ring()),
            ("own", &own(AUDIT_FUNCTION)),
        ],
    )
}

/// The trigger of the audit log.
pub(super) fn audit_trigger(audit: &TableName) -> String {
    fill(
        include_str!("../../sql/audit_trigger.sql"),
        &[
            ("title", &commented(audit)),
            ("table", &table(audit)),
            ("function", AUDIT_FUNCTION),
            ("insert", &identifier(AUDIT_TRIGGER)),
        ],
    )
}

/// The conditions of which one is enough for an updated row, seen before as `o` and after as `n`, to be a change.
fn changed(mapping: &Mapping, object: &Object, shape: &Shape) -> Vec<String> {
    let own = [object.key.as_str(), object.hubspot_id.as_str()];
    let mut always = BTreeSet::new();
    let mut without_id = BTreeSet::new();
    let mut condition = BTreeSet::new();
    if object.from.is_some() {
        always.extend(object.watch.iter().map(String::as_str));
    } else {
        always.extend(sent_on_update(object));
        without_id.extend(object.properties.iter().map(|property| property.column.as_str()));
        if let Some(text) = &object.condition {
            condition = mentioned(text, object, shape);
        }
    }
    always.extend(looked_up_by(mapping, object));
    let differs = |names: &BTreeSet<&str>, but: &[&BTreeSet<&str>]| -> Vec<String> {
        let fresh = |name: &&str| !own.contains(name) && !but.iter().any(|other| other.contains(name));
        let columns = names.iter().copied().filter(fresh);
        let mut columns: Vec<&Column> = columns.filter_map(|name| shape.table_columns.get(name)).collect();
        // One difference is enough, and texts are the slowest to compare.
        columns.sort_by_key(|column| is_text(column));
        columns.into_iter().map(differs).collect()
    };

    let id = identifier(&object.hubspot_id);
    let outside_receipt = "current_setting('hubsyncd.receipt', true) IS DISTINCT FROM 'on'";
    let mut conditions = differs(&always, &[]);
    let without_id = differs(&without_id, &[&always]);
    if !without_id.is_empty() {
        conditions.push(format!(
            "(coalesce(btrim(n.{id}), '') = ''\n                       AND ({}))",
            without_id.join(OR)
        ));
    }
    // What only the condition reads, and the id, may be of our own receipt's making.
    let mut ours = differs(&condition, &[&always]);
    ours.push(format!("o.{id} IS DISTINCT FROM n.{id}"));
    conditions.push(format!(
        "({outside_receipt}\n                       AND ({}))",
        ours.join(OR)
    ));
    conditions
}

/// Between the columns of a group, indented as `sql/capture.sql` is.
const OR: &str = "\n                            OR ";

/// The columns whose change matters also where HubSpot has the record: sent on update, linked by, matched on.
fn sent_on_update(object: &Object) -> impl Iterator<Item = &str> {
    let sent = object
        .properties
        .iter()
        .filter(|property| property.on != On::Create);
    let links = object.links.iter();
    let linked = links.flat_map(|link| link.column.iter().chain(link.lookup.iter().map(|(_, own)| own)));
    sent.chain(object.match_property())
        .map(|property| property.column.as_str())
        .chain(linked.map(String::as_str))
}

/// The columns by which links of the mapping find this object's rows.
fn looked_up_by<'a>(mapping: &'a Mapping, object: &Object) -> impl Iterator<Item = &'a str> {
    let links = mapping.objects.iter().flat_map(|other| &other.links);
    let target = object.name.clone();
    links
        .filter(move |link| link.to == target)
        .flat_map(|link| link.lookup.iter().map(|(theirs, _)| theirs.as_str()))
}

/// The columns that a condition may read: every one whose name stands in it, and all of them if the table's own
/// name does, as in `f(bookings)`.
///
/// The condition itself is not evaluated in the application's statement: it may call functions that are slow, or
/// not ours to call. A column too many costs a read that changes nothing.
fn mentioned<'a>(condition: &str, object: &Object, shape: &'a Shape) -> BTreeSet<&'a str> {
    let words = identifiers(condition);
    let whole_row = words.contains(&object.table.name);
    let columns = shape.table_columns.keys().map(String::as_str);
    columns
        .filter(|name| whole_row || words.contains(*name))
        .collect()
}

/// The identifiers of an SQL text, and some words that are none: keywords, and what stands in string literals.
fn identifiers(text: &str) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if first == '"' {
            let mut name = String::new();
            let mut letters = rest.char_indices().skip(1).peekable();
            let mut end = rest.len();
            while let Some((at, letter)) = letters.next() {
                if letter == '"' && letters.next_if(|(_, next)| *next == '"').is_none() {
                    end = at + 1;
                    break;
                }
                name.push(letter);
            }
            words.insert(name);
            rest = &rest[end..];
        } else if first.is_alphabetic() || first == '_' {
            let part = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == '$';
            let end = rest.find(|letter| !part(letter)).unwrap_or(rest.len());
            words.insert(rest[..end].to_ascii_lowercase());
            rest = &rest[end..];
        } else {
            rest = &rest[first.len_utf8()..];
        }
    }
    words
}

/// Whether a column differs between `o` and `n`, byte by byte for texts: a collation that holds two texts for
/// equal does not make them equal to HubSpot.
fn differs(column: &Column) -> String {
    let name = identifier(&column.name);
    match column.base.as_str() {
        _ if is_text(column) => {
            format!("o.{name} COLLATE \"C\" IS DISTINCT FROM n.{name} COLLATE \"C\"")
        }
        // Equal intervals may read differently: 30 days, 1 month.
        "interval" => format!("o.{name}::text IS DISTINCT FROM n.{name}::text"),
        _ if column.has_equality => format!("o.{name} IS DISTINCT FROM n.{name}"),
        _ => format!("o.{name}::text IS DISTINCT FROM n.{name}::text"),
    }
}

/// Whether a column holds text, which has a collation.
fn is_text(column: &Column) -> bool {
    matches!(column.base.as_str(), "text" | "varchar" | "bpchar")
}

/// The rows of an object that entries name, as the keys print; null where the entry's id cannot be a key.
fn named_by_entry(object: &Object, key: &Column) -> String {
    let id = "e.record_id::text";
    let number = |low: i64, high: i64| {
        format!(
            "CASE WHEN {id} ~ '^-?[0-9]{{1,19}}$' THEN\n                CASE WHEN {id}::numeric BETWEEN {low} \
             AND {high} THEN {id}::numeric::text END\n            END"
        )
    };
    let key = match key.base.as_str() {
        "int2" => number(i16::MIN.into(), i16::MAX.into()),
        "int4" => number(i32::MIN.into(), i32::MAX.into()),
        "int8" => number(i64::MIN, i64::MAX),
        "uuid" => format!(
            "CASE WHEN {id} ~* '^[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}$' THEN lower({id}) END"
        ),
        _ => id.to_owned(),
    };
    let TableName { schema, name } = &object.table;
    let names: BTreeSet<String> = BTreeSet::from([
        literal(name),
        literal(&identifier(name)),
        literal(&format!("{schema}.{name}")),
        literal(&table(&object.table)),
    ]);
    let names: Vec<String> = names.into_iter().collect();
    format!(
        "SELECT {}, {key}\n            FROM new_rows AS e\n            WHERE e.table_name IN ({})",
        literal(&object.name),
        names.join(", ")
    )
}

/// The doorbell.
fn ring() -> String {
    let numbers = [
        ("class", LOCK_CLASS.to_string()),
        ("armed", ARMED_LOCK.to_string()),
    ];
    let numbers: Vec<(&str, &str)> = numbers
        .iter()
        .map(|(name, number)| (*name, number.as_str()))
        .collect();
    fill(include_str!("../../sql/ring.sql"), &numbers)
        .trim_end()
        .replace('\n', "\n        ")
}

/// What makes a function `hubsyncd_owner`'s.
fn own(function: &str) -> String {
    fill(include_str!("../../sql/own.sql"), &[("function", function)])
}

/// A table's name in a comment, where a line break would end it.
fn commented(name: &TableName) -> String {
    name.to_string().replace(['\n', '\r'], " ")
}
