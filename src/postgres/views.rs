//! The documents' two monitoring queries as views, generated from the mapping.

use super::catalog::{Column, Shape};
use super::quote::{identifier, literal, table};
use super::template::fill;
use crate::mapping::{Mapping, Object};

/// The views `hubsyncd.awaiting_id` and `hubsyncd.last_sync`.
pub(super) fn views(mapping: &Mapping, shapes: &[Shape]) -> String {
    let pairs: Vec<(&Object, &Shape)> = mapping.objects.iter().zip(shapes).collect();
    let created = pairs.iter().filter(|(object, _)| object.create);
    let awaiting: Vec<String> = created
        .map(|(object, shape)| awaiting_id(object, shape))
        .collect();
    let last: Vec<String> = pairs
        .iter()
        .map(|(object, shape)| last_sync(object, shape))
        .collect();
    let nothing = |columns: &str| format!("SELECT {columns} WHERE false");
    fill(
        include_str!("../../sql/views.sql"),
        &[
            (
                "awaiting",
                &all(&awaiting, &nothing("''::text, 0::bigint, 0::bigint, now()")),
            ),
            ("last", &all(&last, &nothing("''::text, now(), 0::bigint"))),
        ],
    )
}

fn all(queries: &[String], nothing: &str) -> String {
    if queries.is_empty() {
        nothing.to_owned()
    } else {
        queries.join("\n    UNION ALL\n    ")
    }
}

/// One object's row of `awaiting_id`.
fn awaiting_id(object: &Object, shape: &Shape) -> String {
    let missing = format!(
        "coalesce(btrim(t.{}::text), '') = ''",
        identifier(&object.hubspot_id)
    );
    let oldest = match shape.table_columns.get("created_at").and_then(instant) {
        Some(created) => format!("min({created}) FILTER (WHERE {missing})"),
        None => "NULL::timestamptz".to_owned(),
    };
    format!(
        "SELECT {}::text, count(*), count(*) FILTER (WHERE {missing}), {oldest}\n    FROM {} AS t",
        literal(shown(object)),
        table(&object.table)
    )
}

/// One object's row of `last_sync`.
fn last_sync(object: &Object, shape: &Shape) -> String {
    let column = shape.table_columns.get(&object.synced_at);
    let synced = column
        .and_then(instant)
        .unwrap_or_else(|| "NULL::timestamptz".to_owned());
    format!(
        "SELECT {}::text, max({synced}),\n           count(*) FILTER (WHERE {synced} > now() - interval '2 hours')\n    FROM \
         {} AS t",
        literal(shown(object)),
        table(&object.table)
    )
}

/// The name the documents call a table by: without `hubspot_`.
fn shown(object: &Object) -> &str {
    let name = object.table.name.as_str();
    match name.strip_prefix("hubspot_") {
        Some(short) if !short.is_empty() => short,
        _ => name,
    }
}

/// A column as timestamptz, if it holds a time; one without zone is UTC.
fn instant(column: &Column) -> Option<String> {
    let name = format!("t.{}", identifier(&column.name));
    match column.base.as_str() {
        "timestamptz" => Some(format!("{name}::timestamptz")),
        "timestamp" | "date" => Some(format!("{name}::timestamp AT TIME ZONE 'UTC'")),
        _ => None,
    }
}
