//! What stands beside the rows of a read: our memory of their links, the audit entries that named them, and the
//! targets that their lookups find.
//!
//! Each is one CTE over the statement's core `p` and one join of it. They are joined as sets, not asked row by row,
//! so that a lookup or an audit log without an index costs one walk a read, not a hundred.

use super::quote;
use super::select::{Select, comparable, filled};
use crate::mapping::Link;
use std::fmt::Write as _;

impl Select<'_> {
    /// The link memory of the rows.
    pub(super) fn remembered(&self, sql: &mut String, joins: &mut String) {
        if self.object.links.is_empty() {
            return;
        }
        let _ = write!(
            sql,
            ",\nm AS (SELECT l.key, array_agg(l.link) AS names, array_agg(l.to_id) AS ids, array_agg(concat_ws(' ', l.state, \
             l.found, coalesce((extract(epoch FROM \
             l.unsettled_at) * 1000000)::bigint::text, '-'), l.from_id)) AS states FROM p JOIN hubsyncd.link l ON l.object = {} AND \
             l.key = p.key GROUP BY l.key)",
            quote::literal(&self.object.name)
        );
        joins.push_str("\n  LEFT JOIN m ON m.key = p.key");
    }

    /// The unmarked audit entries of the rows.
    pub(super) fn entries(&self, sql: &mut String, joins: &mut String) {
        let Some(audit) = &self.mapping.audit else {
            return;
        };
        let record_id = self
            .shape
            .and_then(|shape| shape.audit_record_id.as_deref())
            .unwrap_or("text");
        let _ = write!(
            sql,
            ",\ne AS (SELECT p.key, array_agg(a.id::bigint ORDER BY a.id) AS ids FROM p JOIN {} a ON {} AND a.table_name \
             IN ({}, {}) AND a.synced_to_hubspot_at IS NULL GROUP BY p.key)",
            quote::table(audit),
            entry_names_row(record_id, self.key_type()),
            quote::literal(&self.object.table.name),
            quote::literal(&self.object.table.to_string()),
        );
        joins.push_str("\n  LEFT JOIN e ON e.key = p.key");
    }

    /// The one id that a link's lookup finds for each row, if it is one.
    pub(super) fn lookup(&self, index: usize, link: &Link, sql: &mut String, joins: &mut String) {
        let target = self.mapping.position(&link.to);
        let (Some(target), false) = (target, link.lookup.is_empty()) else {
            return;
        };
        let shape = self.shapes.iter().find(|shape| shape.object == target);
        let to = &self.mapping.objects[target];
        let id = filled(&format!("o.{}", quote::identifier(&to.hubspot_id)));
        let equal = link.lookup.iter().enumerate().map(|(position, (theirs, own))| {
            let their_column = shape.and_then(|shape| shape.table_columns.get(theirs));
            let own_column = self.shape.and_then(|shape| shape.read_columns.get(own));
            let cast = if comparable(their_column, own_column) {
                ""
            } else {
                "::text"
            };
            format!(
                "o.{}{cast} = p.l{index}_{position}{cast}",
                quote::identifier(theirs)
            )
        });
        let equal: Vec<String> = equal.collect();
        let missing = if link.column.is_some() {
            format!(" WHERE p.t{index} IS NULL")
        } else {
            String::new()
        };
        let _ = write!(
            sql,
            ",\nk{index} AS (SELECT p.key, CASE WHEN count(DISTINCT {id}) = 1 THEN min({id}) END AS id FROM p JOIN {} o ON \
             {}{missing} GROUP BY p.key)",
            quote::table(&to.table),
            equal.join(" AND "),
        );
        let _ = write!(joins, "\n  LEFT JOIN k{index} ON k{index}.key = p.key");
    }
}

/// `a.record_id` names the row `p`: compared in the column's own type, so that its index serves, and without an
/// error where the key is no such value.
fn entry_names_row(record_id: &str, key_type: &str) -> String {
    let if_like = |pattern: &str, cast: &str| {
        format!("a.record_id = CASE WHEN p.key ~ '{pattern}' THEN p.key::{cast} END")
    };
    match (record_id, key_type) {
        ("uuid", "uuid") => "a.record_id = p.k".to_owned(),
        ("int2" | "int4" | "int8", "int2" | "int4" | "int8") => "a.record_id = p.k".to_owned(),
        ("uuid", _) => if_like("^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", "uuid"),
        ("int2" | "int4" | "int8", _) => if_like("^-?[0-9]{1,18}$", "bigint"),
        // A uuid is often written in capitals by those who write text.
        ("text" | "varchar", "uuid") => "a.record_id = ANY(ARRAY[p.key, upper(p.key)])".to_owned(),
        ("text" | "varchar", _) => "a.record_id = p.key".to_owned(),
        _ => "a.record_id::text = p.key".to_owned(),
    }
}
