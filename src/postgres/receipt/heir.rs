//! What a receipt leaves to the heir of a row that is gone: the row that holds its HubSpot record now, or is about to be
//! given it, as one does whose key was changed.

use crate::mapping::Object;
use crate::postgres::catalog::Shape;
use crate::postgres::changes::XID_FIRST;
use crate::postgres::{quote, select};

/// Ends the link memory of the rows `$2` of the object `$1`. What we linked stays ours as long as a row holds the record:
/// the heir is given the memory, unless it has its own of the same pair, and is named, since its links may lead
/// elsewhere by now. Where nobody holds the record it is the row without one that has the natural key under which it
/// was made. Nobody is looked for where nothing is remembered.
pub(super) fn end_links(object: &Object, shape: Option<&Shape>) -> String {
    let ids = "ARRAY(SELECT e.from_id FROM ended AS e WHERE e.from_id IS NOT NULL)";
    let owners = select::owners_among(object, shape, ids);
    let name = quote::literal(&object.name);
    let successors = successors(object, &name);
    format!(
        "WITH ended AS (DELETE FROM hubsyncd.link AS l WHERE l.object = $1 AND l.key = ANY($2::text[]) \
         RETURNING l.key, l.link, l.to_id, l.state, l.from_id, l.found, l.unsettled_at), \
         owner (id, key) AS (SELECT btrim(o.id), o.key FROM ({owners}) AS o (id, key) WHERE EXISTS (SELECT FROM ended)), \
         heir AS (SELECT o.id, max(o.key) AS key FROM owner AS o WHERE o.key <> ALL($2::text[]) GROUP BY o.id), \
         ownerless AS (SELECT DISTINCT e.key FROM ended AS e WHERE e.from_id IS NOT NULL \
         AND NOT EXISTS (SELECT FROM heir AS h WHERE h.id = e.from_id)), \
         successor (old, key) AS ({successors}), \
         given AS (INSERT INTO hubsyncd.link (object, key, link, to_id, state, from_id, found, unsettled_at) \
         SELECT {name}, coalesce(h.key, s.key), e.link, e.to_id, e.state, e.from_id, e.found, e.unsettled_at \
         FROM ended AS e LEFT JOIN heir AS h ON h.id = e.from_id LEFT JOIN successor AS s ON s.old = e.key \
         WHERE e.from_id IS NOT NULL AND coalesce(h.key, s.key) IS NOT NULL ON CONFLICT DO NOTHING RETURNING key) \
         INSERT INTO hubsyncd.change (object, key, op) SELECT DISTINCT {name}, g.key, 'U'::\"char\" FROM given AS g \
         WHERE {XID_FIRST}"
    )
}

/// For each row of `ownerless` with a create that was noted: the row without a record that has its natural key.
fn successors(object: &Object, name: &str) -> String {
    let Some(property) = object.match_property() else {
        return "SELECT NULL::text, NULL::text WHERE false".to_owned();
    };
    let compared = |text: &str| {
        if object.matches_on_email() {
            format!("lower(btrim({text}))")
        } else {
            text.to_owned()
        }
    };
    let own = compared(&format!("t.{}::text", quote::identifier(&property.column)));
    let id = select::filled(&format!("t.{}", quote::identifier(&object.hubspot_id)));
    format!(
        "SELECT i.key, max(t.{}::text) FROM ownerless AS n JOIN hubsyncd.intent AS i ON i.object = {name} AND i.key = n.key \
         JOIN {} AS t ON {own} = {} WHERE {id} IS NULL GROUP BY i.key",
        quote::identifier(&object.key),
        quote::table(object.from.as_ref().unwrap_or(&object.table)),
        compared("i.match_value"),
    )
}
