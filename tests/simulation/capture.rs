//! The triggers: what an UPDATE of the application writes into the change table, as `sql/capture.sql` has it.

use super::model::Row;
use hubsyncd::mapping::{Mapping, Object, On};
use hubsyncd::sync::change::Op;

/// The value of a row's natural key as HubSpot compares it.
pub fn natural_key(object: &Object, row: &Row) -> Option<String> {
    let property = object.match_property()?;
    let value = row.columns.get(&property.column)?.as_ref()?;
    Some(normal(object, value))
}

/// A natural key as HubSpot compares it.
pub fn normal(object: &Object, value: &str) -> String {
    if object.matches_on_email() {
        value.trim().to_lowercase()
    } else {
        value.to_owned()
    }
}

/// What the trigger writes of an UPDATE; notes in `new` what was captured.
pub fn captured(mapping: &Mapping, object: &Object, old: &Row, new: &mut Row) -> Option<Op> {
    let differs = |column: &String| old.columns.get(column) != new.columns.get(column);
    let sent = object.properties.iter();
    let sent = sent.filter(|property| property.on != On::Create);
    let links = object.links.iter();
    let linked = links.flat_map(|link| link.column.iter().chain(link.lookup.iter().map(|(_, own)| own)));
    let pointing = mapping.objects.iter().flat_map(|from| &from.links);
    let looked_up = pointing.filter(|link| link.to == object.name);
    let looked_up = looked_up.flat_map(|link| link.lookup.iter().map(|(theirs, _)| theirs));
    let mut always = sent
        .chain(object.match_property())
        .map(|property| &property.column)
        .chain(linked)
        .chain(looked_up);
    let without_id = new.hubspot_id.is_none();
    let mut all = object.properties.iter().map(|property| &property.column);
    let counts = always.any(differs) || (without_id && all.any(differs)) || old.hubspot_id != new.hubspot_id;
    if without_id && counts {
        new.captured = vec![new.columns.clone()];
    } else {
        new.captured.push(new.columns.clone());
    }
    let op = if without_id { Op::New } else { Op::Update };
    counts.then_some(op)
}
