//! The statement that stores a page: parsed, checked, written and counted by Postgres in one go.

use super::{columns, lease};
use crate::mapping::Mirrored;

/// A column that holds a property.
struct Column {
    name: &'static str,
    /// The function that makes its value of the text; none: the text itself.
    of: Option<&'static str>,
}

/// The columns of a kind.
fn properties(kind: Mirrored) -> Vec<Column> {
    let names: &[&'static str] = match kind {
        Mirrored::Contacts => &[
            "email",
            "firstname",
            "lastname",
            "phone",
            "company",
            "lifecyclestage",
        ],
        Mirrored::Companies => &["name", "domain", "industry", "phone", "city"],
        Mirrored::Deals => &["dealname", "amount", "dealstage", "pipeline", "closedate"],
    };
    let of = |name| match name {
        "amount" => Some("hubsyncd.mirror_number"),
        "closedate" => Some("hubsyncd.mirror_moment"),
        _ => None,
    };
    names.iter().map(|name| Column { name, of: of(*name) }).collect()
}

/// What stands in Postgres for a moment, as HubSpot writes them.
const MOMENT: &str = r"^(-?[0-9]{1,14}|[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}.*)?)$";
/// The same for a number.
const NUMBER: &str = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$";

/// What is wrong with a record's properties, as a lateral subquery: one row, `words` null if nothing is.
fn mistyped(kind: Mirrored) -> String {
    let of_columns: String = properties(kind)
        .iter()
        .filter_map(|column| {
            let (name, of) = (column.name, column.of?);
            Some(format!(
                " OR (e.key = '{name}' AND {of}(e.value #>> '{{}}') IS NULL)"
            ))
        })
        .collect();
    format!(
        "LATERAL (SELECT string_agg(format('property %s: %s', left(regexp_replace(e.key, '[^A-Za-z0-9_]', '?', 'g'), 100), \
             CASE WHEN jsonb_typeof(e.value) IN ('object', 'array') THEN 'no single value' \
                  ELSE 'not the ' || coalesce(d.kind, 'value') || ' that HubSpot declares' END), '; ' ORDER BY e.key) AS words \
         FROM jsonb_each(jsonb_strip_nulls(o.told)) AS e \
         LEFT JOIN unnest($6::text[], $7::text[]) AS d (name, kind) ON d.name = e.key \
         WHERE jsonb_typeof(e.value) IN ('object', 'array') OR (e.value #>> '{{}}' <> '' AND (CASE d.kind \
             WHEN 'number' THEN e.value #>> '{{}}' !~ '{NUMBER}' \
             WHEN 'bool' THEN e.value #>> '{{}}' NOT IN ('true', 'false') \
             WHEN 'date' THEN e.value #>> '{{}}' !~ '{MOMENT}' \
             WHEN 'datetime' THEN e.value #>> '{{}}' !~ '{MOMENT}' ELSE false END{of_columns}))) AS t"
    )
}

/// The statement for a kind. Its parameters: 1 the generation of the lease, 2 the records, 3 their ids, 4 the records
/// with their associations where those are not in 2, 5 their ids, 6 and 7 the declared properties and their types, 8
/// the kinds whose associations were asked for, 9 the place in 2 that alone is stored (null: all of it), 10 whether
/// nothing of the record but its id is, 11 whether the list has come further, and 12 to which cursor.
pub(super) fn page(kind: Mirrored) -> String {
    let name = kind.name();
    let columns_of = properties(kind);
    let names: Vec<&str> = columns_of.iter().map(|column| column.name).collect();
    // What does not fit, or is older than what is here, leaves the values as they are.
    let values: Vec<String> = columns_of
        .iter()
        .map(|Column { name, of }| {
            let text = format!("nullif(f.told ->> '{name}', '')");
            let value = of.map_or_else(|| text.clone(), |of| format!("{of}({text})"));
            format!("CASE WHEN f.kept THEN b.{name} ELSE {value} END")
        })
        .collect();
    let updates: Vec<String> = names
        .iter()
        .map(|name| format!("{name} = excluded.{name}"))
        .collect();
    let unfit = "'holds a character, or is of a size, that Postgres has no room for'";
    format!(
        "WITH lease AS MATERIALIZED (SELECT 1 AS held FROM {held}), \
         read AS MATERIALIZED (SELECT r.n, i.id, CASE WHEN $10 THEN NULL ELSE hubsyncd.mirror_record(r.record) END AS whole \
             FROM lease, json_array_elements($2::json) WITH ORDINALITY AS r (record, n) \
             JOIN unnest($3::text[]) WITH ORDINALITY AS i (id, n) USING (n) WHERE $9::bigint IS NULL OR n = $9), \
         one AS MATERIALIZED (SELECT DISTINCT ON (r.id) r.id, r.whole, CASE WHEN r.whole IS NULL THEN {unfit} \
                 WHEN jsonb_typeof(r.whole -> 'properties') IS DISTINCT FROM 'object' THEN 'properties: not an object' \
             END AS unfit, CASE jsonb_typeof(r.whole -> 'properties') WHEN 'object' THEN r.whole -> 'properties' \
                 ELSE '{{}}'::jsonb END AS told, hubsyncd.mirror_moment(r.whole ->> 'createdAt') AS created_at, \
             hubsyncd.mirror_moment(r.whole ->> 'updatedAt') AS updated_at, \
             coalesce(r.whole ->> 'archived' = 'true', false) AS archived \
             FROM read r WHERE r.id IS NOT NULL ORDER BY r.id, r.n DESC), \
         before AS MATERIALIZED (SELECT m.* FROM hubsyncd.mirror_{name} m WHERE m.hubspot_id = ANY ($3)), \
         fit AS MATERIALIZED (SELECT o.*, left(concat_ws('; ', o.unfit, t.words, CASE WHEN o.unfit IS NULL AND \
                 o.updated_at IS NULL AND coalesce(o.whole ->> 'updatedAt', '') <> '' THEN 'updatedAt: not a moment' END), \
                 500) AS words, \
             o.unfit IS NOT NULL OR coalesce(b.hubspot_updated_at > o.updated_at AND NOT b.archived, false) AS kept \
             FROM one o CROSS JOIN {mistyped} LEFT JOIN before b ON b.hubspot_id = o.id), \
         stored AS (INSERT INTO hubsyncd.mirror_{name} AS m (hubspot_id, {names}, properties, created_at, \
                 hubspot_updated_at, last_synced_at, sync_status, sync_error, archived, pass) \
             SELECT f.id, {values}, CASE WHEN f.kept THEN coalesce(b.properties, '{{}}'::jsonb) ELSE f.told END, \
                 coalesce(f.created_at, b.created_at), CASE WHEN f.kept THEN b.hubspot_updated_at ELSE f.updated_at END, \
                 clock_timestamp(), CASE f.words WHEN '' THEN 'synced' ELSE 'error' END, nullif(f.words, ''), f.archived, \
                 s.pass \
             FROM fit f LEFT JOIN before b ON b.hubspot_id = f.id CROSS JOIN hubsyncd.mirror_state s WHERE s.kind = '{name}' \
             ON CONFLICT (hubspot_id) DO UPDATE SET {updates}, properties = CASE WHEN m.properties = excluded.properties \
                 THEN m.properties ELSE excluded.properties END, created_at = excluded.created_at, \
                 hubspot_updated_at = excluded.hubspot_updated_at, last_synced_at = excluded.last_synced_at, \
                 sync_status = excluded.sync_status, sync_error = excluded.sync_error, archived = excluded.archived, \
                 pass = excluded.pass \
             RETURNING m.hubspot_id, m.sync_status, m.sync_error, m.archived, m.last_synced_at), \
         {links}, \
         counted AS (SELECT count(*) AS all_, count(*) FILTER (WHERE b.hubspot_id IS NULL) AS new, \
             {deltas}, max(s.last_synced_at) AS at \
             FROM stored s LEFT JOIN before b USING (hubspot_id)) \
         UPDATE hubsyncd.mirror_state SET synced = synced + c.synced_, pending = pending + c.pending_, \
             error = error + c.error_, archived = mirror_state.archived + c.archived_, \
             last_synced_at = greatest(last_synced_at, c.at), \
             listed = CASE WHEN $11 THEN listed + c.all_ ELSE listed END, cursor = CASE WHEN $11 THEN $12 ELSE cursor END \
         FROM lease, counted c WHERE kind = '{name}' RETURNING {state}, c.all_, c.new, \
             (SELECT count(*) FROM read WHERE id IS NULL), \
             (SELECT count(*) FROM stored WHERE sync_status = 'error'), \
             ARRAY(SELECT s.hubspot_id FROM stored s WHERE s.sync_status = 'error' ORDER BY 1 LIMIT 100), \
             ARRAY(SELECT s.sync_error FROM stored s WHERE s.sync_status = 'error' ORDER BY s.hubspot_id LIMIT 100), \
             ARRAY(SELECT n.id FROM near n WHERE n.paged ORDER BY n.id, n.kind), \
             ARRAY(SELECT n.kind FROM near n WHERE n.paged ORDER BY n.id, n.kind)",
        held = lease::held("$1"),
        mistyped = mistyped(kind),
        names = names.join(", "),
        values = values.join(", "),
        updates = updates.join(", "),
        links = links(kind),
        deltas = deltas(),
        state = columns().replace(" archived", " mirror_state.archived"),
    )
}

/// The associations that stand beside the records: those whose list is whole replace what is here. `NOT IN` is hashed
/// whatever the planner thinks of how many there are; an anti-join of nested loops took seconds for ten thousand.
fn links(kind: Mirrored) -> String {
    let name = kind.name();
    format!(
        "beside AS MATERIALIZED (SELECT o.id, coalesce(o.whole -> 'associations', '{{}}'::jsonb) AS groups FROM one o \
             WHERE $4::text IS NULL AND o.whole IS NOT NULL AND NOT o.archived \
             UNION ALL SELECT i.id, coalesce(hubsyncd.mirror_record(r.record) -> 'associations', '{{}}'::jsonb) \
             FROM lease, json_array_elements($4::json) WITH ORDINALITY AS r (record, n) \
             JOIN unnest($5::text[]) WITH ORDINALITY AS i (id, n) USING (n) WHERE i.id IS NOT NULL), \
         near AS MATERIALIZED (SELECT b.id, k.kind, b.groups #> ARRAY[k.kind, 'results'] AS results, \
             b.groups #>> ARRAY[k.kind, 'paging', 'next', 'after'] IS NOT NULL AS paged \
             FROM beside b CROSS JOIN unnest($8::text[]) AS k (kind)), \
         pairs AS MATERIALIZED (SELECT DISTINCT n.id, n.kind, e.value ->> 'id' AS to_id FROM near n \
             CROSS JOIN jsonb_array_elements(CASE jsonb_typeof(n.results) WHEN 'array' THEN n.results ELSE '[]' END) AS e \
             WHERE NOT n.paged AND e.value ->> 'id' ~ '^[A-Za-z0-9_-]{{1,64}}$'), \
         unlinked AS (DELETE FROM hubsyncd.mirror_association a USING near n WHERE a.from_kind = '{name}' \
             AND a.from_id = n.id AND a.to_kind = n.kind AND NOT n.paged \
             AND (a.from_id, a.to_kind, a.to_id) NOT IN (SELECT p.id, p.kind, p.to_id FROM pairs p)), \
         linked AS (INSERT INTO hubsyncd.mirror_association SELECT '{name}', p.id, p.kind, p.to_id FROM pairs p \
             ON CONFLICT DO NOTHING)"
    )
}

/// By how much each count changes.
fn deltas() -> String {
    let count = |of: &str, status: &str| {
        format!("count(*) FILTER (WHERE NOT {of}.archived AND {of}.sync_status = '{status}')")
    };
    let mut deltas: Vec<String> = ["synced", "pending", "error"]
        .iter()
        .map(|status| format!("{} - {} AS {status}_", count("s", status), count("b", status)))
        .collect();
    deltas.push(
        "count(*) FILTER (WHERE s.archived) - count(*) FILTER (WHERE b.archived) AS archived_".to_owned(),
    );
    deltas.join(", ")
}
