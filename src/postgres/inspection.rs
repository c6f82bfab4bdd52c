//! What does not fit between the mapping and this database, named so that the operator can put it right.

use super::Error;
use super::catalog::{Column, Relation, Relations};
use crate::mapping::{Link, Mapping, Object, TableName};
use std::collections::BTreeSet;
use std::fmt;

/// One thing that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where the mapping says it, e.g. `object bookings: synced-at`.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

impl Problem {
    /// A problem at `key`.
    pub fn new(key: impl Into<String>, message: impl Into<String>, hint: impl Into<String>) -> Problem {
        Problem {
            key: key.into(),
            message: message.into(),
            hint: hint.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.key, self.message, self.hint)
    }
}

/// Why the mapping could not be compared with the database, or how they differ.
#[derive(Debug)]
pub enum Inspection {
    /// The database could not be asked.
    Database(Error),
    /// What does not fit; never empty.
    Problems(Vec<Problem>),
}

impl From<Error> for Inspection {
    fn from(error: Error) -> Inspection {
        Inspection::Database(error)
    }
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Inspection::Database(error) => write!(f, "{error}"),
            Inspection::Problems(problems) => {
                f.write_str("the database does not fit the mapping")?;
                problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
            }
        }
    }
}

impl std::error::Error for Inspection {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Inspection::Database(error) => error.source(),
            Inspection::Problems(_) => None,
        }
    }
}

/// The types a key may have, domains resolved.
const KEY_TYPES: [&str; 6] = ["int2", "int4", "int8", "uuid", "text", "varchar"];

/// Everything about one object that does not fit.
pub(super) fn problems_of_object(
    mapping: &Mapping,
    object: &Object,
    relations: &Relations,
    problems: &mut Vec<Problem>,
) {
    let at = |setting: &str| format!("object {}: {setting}", object.name);
    let table = found(&at("table"), &object.table, relations, problems);
    let read = match &object.from {
        Some(from) => found(&at("from"), from, relations, problems),
        None => table,
    };
    if let Some(table) = table {
        problems_of_table(object, table, problems);
    }
    let Some(read) = read else { return };
    let source = object.from.as_ref().unwrap_or(&object.table);
    if object.from.is_some()
        && let Some(key) = column(&at("key"), source, read, &object.key, problems)
        && let Some(own) = table.and_then(|table| table.columns.get(&object.key))
        && own.base != key.base
    {
        let message = format!(
            "`{}` is {} in {} and {} in {source}",
            key.name, own.base, object.table, key.base
        );
        problems.push(Problem::new(
            at("key"),
            message,
            "give both one type, with a cast in the view",
        ));
    }
    for property in &object.properties {
        let key = at(&format!("properties.{}", property.name));
        if column(&key, source, read, &property.column, problems).is_some()
            && read.unsupported.contains(&property.column)
        {
            let message = format!(
                "column `{}` of {source} is of a type that HubSpot cannot hold",
                property.column
            );
            problems.push(Problem::new(
                key,
                message,
                "bytea, money and composite columns cannot be mapped",
            ));
        }
    }
    for link in &object.links {
        let key = at(&format!("link.{}", link.name()));
        problems_of_link(mapping, &key, link, (source, read), relations, problems);
    }
}

/// What does not fit in the table that is captured and written back to.
fn problems_of_table(object: &Object, table: &Relation, problems: &mut Vec<Problem>) {
    let at = |setting: &str| format!("object {}: {setting}", object.name);
    if object.capture && !matches!(table.kind, 'r' | 'p') {
        let message = format!(
            "{} is not a table, so its changes cannot be captured",
            object.table
        );
        let hint = "name the table below it, or set capture = false and leave it to the sweep";
        problems.push(Problem::new(at("table"), message, hint));
    }
    if let Some(key) = column(&at("key"), &object.table, table, &object.key, problems) {
        if !KEY_TYPES.contains(&key.base.as_str()) {
            let message = format!("column `{}` of {} is {}", key.name, object.table, key.type_name);
            let hint = "a key is one column of type smallint, integer, bigint, uuid, text or varchar";
            problems.push(Problem::new(at("key"), message, hint));
        }
        if table.kind == 'r' && !table.unique.contains(&key.name) {
            let message = format!("column `{}` of {} is not unique", key.name, object.table);
            let hint = "a key names one row: it needs a primary key or unique index of its own";
            problems.push(Problem::new(at("key"), message, hint));
        }
    }
    if let Some(id) = column(
        &at("hubspot-id"),
        &object.table,
        table,
        &object.hubspot_id,
        problems,
    ) && id.category != 'S'
    {
        let message = format!("column `{}` of {} is {}", id.name, object.table, id.type_name);
        problems.push(Problem::new(
            at("hubspot-id"),
            message,
            "HubSpot's id is kept in a text column",
        ));
    }
    if let Some(synced) = column(
        &at("synced-at"),
        &object.table,
        table,
        &object.synced_at,
        problems,
    ) && !matches!(synced.base.as_str(), "timestamptz" | "timestamp")
    {
        let message = format!(
            "column `{}` of {} is {}",
            synced.name, object.table, synced.type_name
        );
        problems.push(Problem::new(
            at("synced-at"),
            message,
            "it takes a time: make it timestamptz",
        ));
    }
    for watched in &object.watch {
        column(&at("watch"), &object.table, table, watched, problems);
    }
}

/// What does not fit in a link: its own columns are read with the row, its target's in the target's table.
fn problems_of_link(
    mapping: &Mapping,
    key: &str,
    link: &Link,
    (source, read): (&TableName, &Relation),
    relations: &Relations,
    problems: &mut Vec<Problem>,
) {
    if let Some(own) = &link.column {
        column(&format!("{key}.column"), source, read, own, problems);
    }
    let target = mapping.objects.iter().find(|object| object.name == link.to);
    for (theirs, own) in &link.lookup {
        let key = format!("{key}.lookup");
        column(&key, source, read, own, problems);
        if let Some(target) = target
            && let Some(table) = relations.get(&target.table)
        {
            column(&key, &target.table, table, theirs, problems);
        }
    }
}

/// What does not fit in the audit log.
pub(super) fn problems_of_audit(audit: &TableName, relations: &Relations, problems: &mut Vec<Problem>) {
    let Some(table) = found("audit.table", audit, relations, problems) else {
        return;
    };
    if !matches!(table.kind, 'r' | 'p') {
        let message = format!("{audit} is not a table");
        problems.push(Problem::new(
            "audit.table",
            message,
            "name the table that the entries are written to",
        ));
    }
    let columns: [(&str, &[&str], &str); 4] = [
        (
            "id",
            &["int2", "int4", "int8"],
            "an entry is marked by its id, a number",
        ),
        (
            "table_name",
            &["text", "varchar", "name"],
            "an entry names its table in a text column",
        ),
        (
            "record_id",
            &["uuid", "text", "varchar", "int2", "int4", "int8"],
            "an entry names its row by key",
        ),
        (
            "synced_to_hubspot_at",
            &["timestamptz", "timestamp"],
            "the mark is a time: make it timestamptz",
        ),
    ];
    for (name, types, hint) in columns {
        if let Some(column) = column("audit.table", audit, table, name, problems)
            && !types.contains(&column.base.as_str())
        {
            let message = format!("column `{name}` of {audit} is {}", column.type_name);
            problems.push(Problem::new("audit.table", message, hint));
        }
    }
}

/// The relation called `name`, or a problem.
fn found<'a>(
    key: &str,
    name: &TableName,
    relations: &'a Relations,
    problems: &mut Vec<Problem>,
) -> Option<&'a Relation> {
    let relation = relations.get(name);
    if relation.is_none() {
        let similar: Vec<&TableName> = relations.keys().filter(|other| other.name == name.name).collect();
        let hint = match similar.first() {
            Some(other) => format!("is it {other}?"),
            None => "create it, or correct the name; names are case-sensitive here".to_owned(),
        };
        problems.push(Problem::new(key, format!("table {name} does not exist"), hint));
    }
    relation
}

/// The column called `name`, or a problem; a column that several settings name is a problem of each.
fn column<'a>(
    key: &str,
    table: &TableName,
    relation: &'a Relation,
    name: &str,
    problems: &mut Vec<Problem>,
) -> Option<&'a Column> {
    let column = relation.columns.get(name);
    if column.is_none() {
        let names: BTreeSet<&str> = relation.columns.keys().map(String::as_str).collect();
        let names: Vec<&str> = names.into_iter().collect();
        let hint = format!("its columns are {}", names.join(", "));
        problems.push(Problem::new(
            key,
            format!("column `{name}` of {table} does not exist"),
            hint,
        ));
    }
    column
}
