//! The SQL that reads records: one statement a batch, generated from the mapping.
//!
//! A statement has a core, the CTE `p`, which is the rows by key or a page of them with every value converted
//! once ([`super::convert`]); around it stand our own memory, the application's audit log and the tables that links
//! look into ([`super::beside`]), joined as sets so that the planner may choose.
//! In the core only the mapped table (or view) is in scope, so that the mapping's condition may name its columns
//! bare. Casts stand on parameters, never on the key column, so that the key's index serves.

use super::catalog::{Column, Shape};
use super::convert::{Converted, convert};
use super::quote;
use crate::mapping::{Mapping, Null, Object, On, Property};
use crate::sync::change::ObjectIndex;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The columns of a statement's answer, by position.
pub(super) mod column {
    pub const READ_AT: usize = 0;
    pub const KEY: usize = 1;
    pub const HUBSPOT_ID: usize = 2;
    pub const INTENT_ID: usize = 3;
    pub const PROPERTIES: usize = 4;
    pub const UPDATE_PROPERTIES: usize = 5;
    pub const MATCH_VALUE: usize = 6;
    pub const TARGETS: usize = 7;
    pub const NOWHERE: usize = 8;
    pub const LINK_NAMES: usize = 9;
    pub const LINK_IDS: usize = 10;
    pub const LINK_STATES: usize = 11;
    pub const ENTRIES: usize = 12;
    pub const UPDATE_ONLY_SET: usize = 13;
    pub const FAILED: usize = 14;
    pub const PROBLEMS: usize = 15;
    pub const INTENT_NOTED_AT: usize = 16;
    pub const INTENT_VALUE: usize = 17;
    pub const INTENT_TRACE: usize = 18;
    pub const INTENT_DUE_AT: usize = 19;
    pub const INTENT_NAMED: usize = 20;
    pub const INTENT_DUE_FULL: usize = 21;
    pub const INTENT_UPDATE_ONLY: usize = 22;
}

/// Which rows a statement reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rows {
    /// `$1 text[]`: the keys; `$2 text[]`: those of them that also send create-only properties.
    ByKey,
    /// `$1 bigint`: the limit.
    FirstPage,
    /// `$1 bigint`: the limit; `$2 text`: the key that the page comes after.
    NextPage,
}

/// A property with its conversion, and the names of its columns in the core.
struct Value<'a> {
    property: &'a Property,
    converted: Converted,
    cell: String,
    index: usize,
}

/// Everything that the statements of one object are made of.
pub(super) struct Select<'a> {
    pub(super) mapping: &'a Mapping,
    pub(super) object: &'a Object,
    pub(super) shapes: &'a [Shape],
    pub(super) shape: Option<&'a Shape>,
    key_base: &'a str,
    values: Vec<Value<'a>>,
}

/// What the row's intent says beside its id.
const INTENT: &str = "(extract(epoch FROM i.noted_at) * 1000000)::bigint AS noted_at, i.match_value AS intent_value, \
                      i.trace, (extract(epoch FROM i.due_at) * 1000000)::bigint AS due_at, i.named, i.due_full, \
                      i.update_only";

/// What a set of values is sent for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    Create,
    Update,
    Full,
}

impl<'a> Select<'a> {
    pub fn new(
        mapping: &'a Mapping,
        index: ObjectIndex,
        shapes: &'a [Shape],
        property_types: &BTreeMap<String, String>,
    ) -> Select<'a> {
        let object = &mapping.objects[index];
        let shape = shapes.iter().find(|shape| shape.object == index);
        let read = |column: &str| shape.and_then(|shape| shape.read_columns.get(column));
        let values = object.properties.iter().enumerate().map(|(index, property)| {
            let cell = cell(&property.column);
            let hubspot_type = property_types.get(&property.name).map(String::as_str);
            let converted = convert(property, read(&property.column), hubspot_type, &cell);
            Value {
                property,
                converted,
                cell,
                index,
            }
        });
        let key = read(&object.key).or(shape.map(|shape| &shape.key));
        Select {
            mapping,
            object,
            shapes,
            shape,
            key_base: key.map_or("text", |column| column.base.as_str()),
            values: values.collect(),
        }
    }

    /// The type of the key column as it is read: `uuid`, `int4`, …, `text` for every text type.
    pub fn key_type(&self) -> &'static str {
        key_type(self.key_base)
    }

    /// The statement that reads `rows`.
    pub fn statement(&self, rows: Rows) -> String {
        let mut sql = format!("WITH p AS MATERIALIZED (\n{}\n)", self.core(rows));
        let mut joins = String::new();
        self.remembered(&mut sql, &mut joins);
        self.entries(&mut sql, &mut joins);
        for (index, link) in self.object.links.iter().enumerate() {
            self.lookup(index, link, &mut sql, &mut joins);
        }
        let object = quote::literal(&self.object.name);
        // A record that is taken over for updates only is sent nothing else, whatever names its row.
        let full = match rows {
            Rows::ByKey => {
                "((p.key = ANY($2::text[]) OR coalesce(f.full_record, false)) AND i.update_only IS NOT TRUE)"
            }
            Rows::FirstPage | Rows::NextPage => {
                "(coalesce(f.full_record, false) AND i.update_only IS NOT TRUE)"
            }
        };
        let _ = write!(
            sql,
            "\nSELECT (extract(epoch FROM now()) * 1000000)::bigint, r.key, r.hubspot_id, r.intent_id, r.properties, \
             r.update_properties, r.match_value, r.targets, r.nowhere, r.link_names, r.link_ids, r.link_states, r.entries, r.update_only_set, \
             r.failed, r.problems, r.noted_at, r.intent_value, r.trace, r.due_at, r.named, r.due_full, r.update_only\n\
             FROM (VALUES (1)) AS one LEFT JOIN (\n  SELECT p.k, p.key, p.hubspot_id, \
             i.hubspot_id AS intent_id, {INTENT},\n  {} AS properties,\n  {} AS update_properties,\n  {} AS match_value,\n  \
             {} AS targets,\n  {} AS nowhere,\n  {} AS entries,\n  p.update_only_set, f.key IS NOT NULL AS failed,\n  {} AS problems,\n  \
             {}\n  FROM p\n  LEFT JOIN hubsyncd.intent i ON i.object = {object} AND i.key = p.key\n  LEFT JOIN hubsyncd.failure f ON f.object = {object} AND f.key = p.key AND f.archive = ''{joins}\n) AS r ON true \
             ORDER BY r.k",
            self.properties(full),
            self.json(Sent::Update),
            self.match_value(),
            self.targets(),
            self.nowhere(),
            if self.mapping.audit.is_some() {
                "e.ids"
            } else {
                "NULL::bigint[]"
            },
            self.problems(full),
            if self.object.links.is_empty() {
                "NULL::text[] AS link_names, NULL::text[] AS link_ids, NULL::text[] AS link_states"
            } else {
                "m.names AS link_names, m.ids AS link_ids, m.states AS link_states"
            },
        );
        sql
    }

    /// The statement that reads nothing but the key after `$1` (null: the first), so that it works where a row's values
    /// cannot be read.
    pub fn next_key(&self) -> String {
        let key = cell(&self.object.key);
        let key_type = self.key_type();
        let source = quote::table(self.object.from.as_ref().unwrap_or(&self.object.table));
        format!(
            "SELECT {key}::text FROM {source} AS t WHERE $1::text IS NULL OR {key} > $1::text::{key_type} \
             ORDER BY {key} LIMIT 1"
        )
    }

    /// The core: the rows themselves, every value converted once.
    fn core(&self, rows: Rows) -> String {
        let key = cell(&self.object.key);
        let mut list = vec![format!("{key} AS k"), format!("{key}::text AS key")];
        list.push(format!("{} AS hubspot_id", self.own_id(&key)));
        for value in &self.values {
            list.push(format!("{} AS v{}", value.converted.text, value.index));
            if let Some(problem) = &value.converted.problem {
                list.push(format!("{problem} AS q{}", value.index));
            }
        }
        for (index, link) in self.object.links.iter().enumerate() {
            if let Some(column) = &link.column {
                list.push(format!("{} AS t{index}", filled(&cell(column))));
            }
            for (position, (_, own)) in link.lookup.iter().enumerate() {
                list.push(format!("{} AS l{index}_{position}", cell(own)));
            }
        }
        list.push(format!("{} AS update_only_set", self.update_only_set()));
        let mut conditions = Vec::new();
        let key_type = self.key_type();
        match rows {
            Rows::ByKey => conditions.push(format!("{key} = ANY({})", typed_array("$1", key_type))),
            Rows::FirstPage => {}
            Rows::NextPage if key_type == "text" => conditions.push(format!("{key} > $2::text")),
            Rows::NextPage => conditions.push(format!("{key} > $2::text::{key_type}")),
        }
        if let Some(condition) = &self.object.condition {
            // A line of its own: the condition may end in a comment.
            conditions.push(format!("(\n{condition}\n)"));
        }
        if self.object.from.is_some() {
            let own = self.own_row(&key);
            conditions.push(format!("EXISTS (SELECT {own})"));
        }
        let source = quote::table(self.object.from.as_ref().unwrap_or(&self.object.table));
        let filter = if conditions.is_empty() {
            "true".to_owned()
        } else {
            conditions.join("\nAND ")
        };
        let end = match rows {
            Rows::ByKey => String::new(),
            Rows::FirstPage | Rows::NextPage => format!("\nORDER BY {key} LIMIT $1::bigint"),
        };
        format!(
            "SELECT {}\nFROM {source} AS t\nWHERE {filter}{end}",
            list.join(",\n  ")
        )
    }

    /// The row's HubSpot id, as the receipt compares it. It is always the table's: a view, a materialized one above all,
    /// may show an old one, and an id missed is a record made twice.
    fn own_id(&self, key: &str) -> String {
        let name = quote::identifier(&self.object.hubspot_id);
        if self.object.from.is_none() {
            return filled(&format!("t.{name}"));
        }
        let own = self.own_row(key);
        format!("(SELECT {} {own})", filled(&format!("b.{name}")))
    }

    /// `FROM … WHERE …` of the table's row, for an object that is read from a view.
    fn own_row(&self, key: &str) -> String {
        let table = quote::table(&self.object.table);
        let name = quote::identifier(&self.object.key);
        let table_base = self.shape.map_or(self.key_base, |shape| shape.key.base.as_str());
        let cast = if same_family(table_base, self.key_base) {
            ""
        } else {
            "::text"
        };
        format!("FROM {table} AS b WHERE b.{name}{cast} = {key}{cast}")
    }

    fn update_only_set(&self) -> String {
        let set = self
            .values
            .iter()
            .filter(|value| value.property.on == On::Update)
            .map(|value| match value.property.null {
                Null::Literal(_) => "true".to_owned(),
                Null::Omit | Null::Clear => format!("{} IS NOT NULL", value.cell),
            });
        let set: Vec<String> = set.collect();
        if set.is_empty() {
            "false".to_owned()
        } else {
            format!("({})", set.join(" OR "))
        }
    }

    /// The properties that a create sends, or an update with the create-only ones; null where they are the
    /// update's.
    fn properties(&self, full: &str) -> String {
        let mut sql = format!(
            "CASE WHEN p.hubspot_id IS NULL AND i.hubspot_id IS NULL THEN {}",
            self.json(Sent::Create)
        );
        if self.values.iter().any(|value| value.property.on == On::Create) {
            let _ = write!(sql, " WHEN {full} THEN {}", self.json(Sent::Full));
        }
        sql.push_str(" END");
        sql
    }

    /// One JSON object in text. Two arrays, because a call with a pair of arguments a property would end at 50.
    fn json(&self, sent: Sent) -> String {
        let mut names = Vec::new();
        let mut texts = Vec::new();
        for value in &self.values {
            let belongs = match sent {
                Sent::Create => value.property.on != On::Update,
                Sent::Update => value.property.on != On::Create,
                Sent::Full => true,
            };
            if belongs {
                names.push(quote::literal(&value.property.name));
                texts.push(sent_text(value, sent));
            }
        }
        format!(
            "json_strip_nulls(json_object(ARRAY[{}]::text[], ARRAY[{}]::text[]))::text",
            names.join(", "),
            texts.join(", ")
        )
    }

    fn match_value(&self) -> String {
        let name = self.object.match_on.as_deref();
        match self
            .values
            .iter()
            .find(|value| Some(value.property.name.as_str()) == name)
        {
            Some(value) => sent_text(value, Sent::Create),
            None => "NULL::text".to_owned(),
        }
    }

    /// `property: reason` of each value that is to be sent and has no form in HubSpot.
    fn problems(&self, full: &str) -> String {
        let creating = "(p.hubspot_id IS NULL AND i.hubspot_id IS NULL)";
        let texts = self
            .values
            .iter()
            .filter(|value| value.converted.problem.is_some())
            .map(|value| {
                let text = format!(
                    "{} || p.q{}",
                    quote::literal(&format!("{}: ", value.property.name)),
                    value.index
                );
                match value.property.on {
                    On::Both => text,
                    On::Create => format!("CASE WHEN {creating} OR {full} THEN {text} END"),
                    On::Update => format!("CASE WHEN NOT {creating} THEN {text} END"),
                }
            });
        let texts: Vec<String> = texts.collect();
        if texts.is_empty() {
            return "NULL::text[]".to_owned();
        }
        format!("array_remove(ARRAY[{}]::text[], NULL)", texts.join(", "))
    }

    fn targets(&self) -> String {
        let targets = self.object.links.iter().enumerate().map(|(index, link)| {
            match (&link.column, link.lookup.is_empty()) {
                (Some(_), true) => format!("p.t{index}"),
                (Some(_), false) => format!("coalesce(p.t{index}, k{index}.id)"),
                (None, false) => format!("k{index}.id"),
                (None, true) => "NULL".to_owned(),
            }
        });
        let targets: Vec<String> = targets.collect();
        format!("ARRAY[{}]::text[]", targets.join(", "))
    }

    /// Whether a row names no target for a link at all, rather than one that is not known yet.
    fn nowhere(&self) -> String {
        let nowhere = self.object.links.iter().enumerate().map(|(index, link)| {
            let column = link.column.as_ref().map(|_| format!("p.t{index} IS NULL"));
            let lookup = (0..link.lookup.len()).map(|position| format!("p.l{index}_{position} IS NULL"));
            let lookup: Vec<String> = lookup.collect();
            let lookup = (!lookup.is_empty()).then(|| format!("({})", lookup.join(" OR ")));
            let both: Vec<String> = column.into_iter().chain(lookup).collect();
            both.join(" AND ")
        });
        let nowhere: Vec<String> = nowhere.collect();
        format!("ARRAY[{}]::boolean[]", nowhere.join(", "))
    }
}

/// The statement that says who holds HubSpot ids, or is to get them: `$1 text[]`. Who holds one comes last.
pub(super) fn owners(object: &Object, shape: Option<&Shape>) -> String {
    owners_among(object, shape, "$1::text[]")
}

/// The same with the rows of other tables that become records of the same type, before those of the object; the third
/// column is the object.
pub(super) fn owners_of_type(mapping: &Mapping, object: ObjectIndex, shapes: &[Shape]) -> String {
    let one = |at: ObjectIndex| {
        let shape = shapes.iter().find(|shape| shape.object == at);
        let owners = owners(&mapping.objects[at], shape);
        format!("SELECT o.id, o.key, {at}::int8 FROM ({owners}) AS o (id, key)")
    };
    let all = mapping.alike_elsewhere(object).chain([object]);
    all.map(one).collect::<Vec<String>>().join(" UNION ALL ")
}

/// [`owners`] of the ids of an array expression.
pub(super) fn owners_among(object: &Object, shape: Option<&Shape>, ids: &str) -> String {
    let id = quote::identifier(&object.hubspot_id);
    let base = shape
        .and_then(|shape| shape.table_columns.get(&object.hubspot_id))
        .map_or("text", |column| column.base.as_str());
    let cast = if matches!(base, "text" | "varchar") {
        ""
    } else {
        "::text"
    };
    format!(
        "SELECT i.hubspot_id, i.key FROM hubsyncd.intent AS i WHERE i.object = {} AND i.hubspot_id = ANY({ids}) \
         UNION ALL SELECT t.{id}::text, t.{}::text FROM {} AS t WHERE t.{id}{cast} = ANY({ids})",
        quote::literal(&object.name),
        quote::identifier(&object.key),
        quote::table(&object.table)
    )
}

/// The statement that counts the table's rows, and those of them without a HubSpot id.
pub(super) fn count(object: &Object) -> String {
    let id = quote::identifier(&object.hubspot_id);
    format!(
        "SELECT count(*), count(*) FILTER (WHERE btrim(coalesce(t.{id}::text, '')) = ''), \
         (extract(epoch FROM now()) * 1000000)::bigint FROM {} AS t",
        quote::table(&object.table)
    )
}

/// A column of the mapped table in the core.
fn cell(column: &str) -> String {
    format!("t.{}", quote::identifier(column))
}

/// A HubSpot id without the spaces around it; blank is null.
pub(super) fn filled(cell: &str) -> String {
    format!("nullif(btrim({cell}::text), '')")
}

/// A value as it is sent, with what its null becomes.
fn sent_text(value: &Value<'_>, sent: Sent) -> String {
    let text = format!("p.v{}", value.index);
    match &value.property.null {
        Null::Literal(literal) => format!("coalesce({text}, {})", quote::literal(literal)),
        Null::Clear if sent != Sent::Create => format!("coalesce({text}, '')"),
        Null::Clear | Null::Omit => text,
    }
}

/// The type in which keys are compared, by the key column's base type.
pub(super) fn key_type(base: &str) -> &'static str {
    match base {
        "uuid" => "uuid",
        "int2" => "int2",
        "int4" => "int4",
        "int8" => "int8",
        _ => "text",
    }
}

/// Whether a row can have this key, as Postgres prints keys of this type: a cast refuses nonsense.
pub(super) fn can_be_key(key_type: &str, key: &str) -> bool {
    match key_type {
        "uuid" => uuid::Uuid::try_parse(key).is_ok_and(|id| id.to_string() == key),
        "int2" => key.parse::<i16>().is_ok_and(|number| number.to_string() == key),
        "int4" => key.parse::<i32>().is_ok_and(|number| number.to_string() == key),
        "int8" => key.parse::<i64>().is_ok_and(|number| number.to_string() == key),
        _ => !key.contains('\0'),
    }
}

pub(super) fn typed_array(parameter: &str, key_type: &str) -> String {
    if key_type == "text" {
        format!("{parameter}::text[]")
    } else {
        format!("{parameter}::text[]::{key_type}[]")
    }
}

/// Whether `=` between two types needs no cast and can use an index on either.
pub(super) fn same_family(a: &str, b: &str) -> bool {
    let family = |base: &str| match base {
        "int2" | "int4" | "int8" => "integer".to_owned(),
        "varchar" => "text".to_owned(),
        other => other.to_owned(),
    };
    family(a) == family(b)
}

/// Whether a lookup compares two columns as they are; else as text.
pub(super) fn comparable(theirs: Option<&Column>, own: Option<&Column>) -> bool {
    match (theirs, own) {
        (Some(theirs), Some(own)) => same_family(&theirs.base, &own.base) && theirs.has_equality,
        _ => true,
    }
}
