//! What a receipt writes of orphans, the HubSpot records that lost their row.

use crate::postgres::changes::XID_FIRST;
use crate::postgres::pipeline::Step;
use tokio_postgres::types::Type;

/// Names the ids that HubSpot gave and the intent holds for these rows, if they hold another or none: (key, id).
pub(super) fn name<'a>(object: &'a str, rows: &[(&'a str, Option<&'a str>)]) -> Step<'a> {
    let (keys, ids): (Vec<&str>, Vec<Option<&str>>) = rows.iter().copied().unzip();
    let sql = format!(
        "INSERT INTO hubsyncd.change (object, key, op, hubspot_id) SELECT i.object, i.key, 'A', i.hubspot_id \
         FROM unnest($2::text[], $3::text[]) AS v (key, id) JOIN hubsyncd.intent AS i ON i.object = $1 AND i.key = v.key \
         WHERE {XID_FIRST} AND i.hubspot_id IS DISTINCT FROM v.id AND i.hubspot_id IS NOT NULL"
    );
    Step::new(sql)
        .with(object, Type::TEXT)
        .with(keys, Type::TEXT_ARRAY)
        .with(ids, Type::TEXT_ARRAY)
}

/// Ends the failures of records as (key, HubSpot id).
pub(super) fn end_failures<'a>(object: &'a str, orphans: &[(&'a str, &'a str)]) -> Step<'a> {
    let sql = "DELETE FROM hubsyncd.failure AS f USING unnest($2::text[], $3::text[]) AS v (key, id) \
               WHERE f.object = $1 AND f.key = v.key AND f.archive = v.id";
    let (keys, ids): (Vec<&str>, Vec<&str>) = orphans.iter().copied().unzip();
    Step::new(sql)
        .with(object, Type::TEXT)
        .with(keys, Type::TEXT_ARRAY)
        .with(ids, Type::TEXT_ARRAY)
}

/// Takes back that these records were archived.
pub(super) fn not_archived<'a>(object: &'a str, ids: Vec<&'a str>) -> Step<'a> {
    let sql = "DELETE FROM hubsyncd.archived WHERE object = $1 AND hubspot_id = ANY($2)";
    Step::new(sql)
        .with(object, Type::TEXT)
        .with(ids, Type::TEXT_ARRAY)
}
