//! What a receipt leaves to the heir of a row that is gone: the row that holds its HubSpot record now, as one does whose
//! key was changed.

use crate::mapping::Object;
use crate::postgres::catalog::Shape;
use crate::postgres::changes::XID_FIRST;
use crate::postgres::{quote, select};

/// Ends the link memory of the rows `$2` of the object `$1`. What we linked stays ours as long as a row holds the record:
/// the heir is given the memory, unless it has its own of the same pair, and is named, since its links may lead
/// elsewhere by now. Nobody is looked for where nothing is remembered.
pub(super) fn end_links(object: &Object, shape: Option<&Shape>) -> String {
    let ids = "ARRAY(SELECT e.from_id FROM ended AS e WHERE e.from_id IS NOT NULL)";
    let owners = select::owners_among(object, shape, ids);
    let key = quote::literal(&object.name);
    format!(
        "WITH ended AS (DELETE FROM hubsyncd.link AS l WHERE l.object = $1 AND l.key = ANY($2::text[]) \
         RETURNING l.link, l.to_id, l.state, l.from_id, l.found, l.unsettled_at), \
         owner (id, key) AS (SELECT btrim(o.id), o.key FROM ({owners}) AS o (id, key) WHERE EXISTS (SELECT FROM ended)), \
         heir AS (SELECT o.id, max(o.key) AS key FROM owner AS o WHERE o.key <> ALL($2::text[]) GROUP BY o.id), \
         given AS (INSERT INTO hubsyncd.link (object, key, link, to_id, state, from_id, found, unsettled_at) \
         SELECT {key}, h.key, e.link, e.to_id, e.state, e.from_id, e.found, e.unsettled_at \
         FROM ended AS e JOIN heir AS h ON h.id = e.from_id ON CONFLICT DO NOTHING RETURNING key) \
         INSERT INTO hubsyncd.change (object, key, op) SELECT DISTINCT {key}, g.key, 'U'::\"char\" FROM given AS g WHERE {XID_FIRST}"
    )
}
