//! What a read of the rows answers, as `src/postgres/select.rs` has the database answer it.

use super::model::{Model, Row};
use hubsyncd::mapping::{Null, Object, On, Property};
use hubsyncd::sync::change::{Key, ObjectIndex};
use hubsyncd::sync::record::Record;

/// What a set of values is sent for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    Create,
    Update,
    Full,
}

impl Model {
    /// The record of a row; `None` if there is no such row.
    pub fn record(&self, object: ObjectIndex, key: &Key, full: bool) -> Option<Record> {
        let row = self.tables[object].get(key)?;
        let declared = &self.mapping.objects[object];
        let place = (object, Key::clone(key));
        let intended = self.intents.get(&place);
        let intent_id = intended.and_then(|intended| intended.hubspot_id.clone());
        let failure = self.failure(object, key);
        let full = full || failure.is_some_and(|failure| failure.full_record);
        let full = full && !intended.is_some_and(|intended| intended.intent.update_only);
        let update_properties = json(declared, row, Sent::Update);
        let properties = if row.hubspot_id.is_none() && intent_id.is_none() {
            json(declared, row, Sent::Create)
        } else if full {
            json(declared, row, Sent::Full)
        } else {
            update_properties.clone()
        };
        let match_value = declared.match_property();
        let match_value = match_value.and_then(|property| text(property, row, Sent::Create));
        let targets = self.targets(object, row);
        let linked = declared.links.iter().map(|link| {
            let ours = self
                .links
                .iter()
                .filter(|((of, by, name, _), _)| *of == object && by == key && *name == link.name());
            ours.map(|(_, row)| row.clone()).collect()
        });
        let entries = self
            .audit
            .iter()
            .filter(|(_, entry)| !entry.marked && entry.object == object && entry.key == *key);
        Some(Record {
            key: Key::clone(key),
            hubspot_id: row.hubspot_id.clone(),
            intent: intended.map(|intended| intended.intent.clone()),
            intent_id,
            properties: properties.into(),
            update_properties: update_properties.into(),
            match_value: match_value.filter(|value| !value.trim().is_empty()),
            linked: linked.collect(),
            targets,
            entries: entries.map(|(id, _)| *id).collect(),
            update_only_set: update_only_set(declared, row),
            failed: failure.is_some(),
            problems: Vec::new(),
        })
    }
}

/// A value as it is sent; `None`: it is not.
fn text(property: &Property, row: &Row, sent: Sent) -> Option<String> {
    let value = row.columns.get(&property.column).cloned().flatten();
    match &property.null {
        Null::Literal(literal) => Some(value.unwrap_or_else(|| literal.clone())),
        Null::Clear if sent != Sent::Create => Some(value.unwrap_or_default()),
        Null::Clear | Null::Omit => value,
    }
}

fn json(object: &Object, row: &Row, sent: Sent) -> String {
    let belongs = |property: &&Property| match sent {
        Sent::Create => property.on != On::Update,
        Sent::Update => property.on != On::Create,
        Sent::Full => true,
    };
    let pairs = object.properties.iter().filter(belongs);
    let pairs = pairs.filter_map(|property| Some((property.name.clone(), text(property, row, sent)?.into())));
    serde_json::Value::Object(pairs.collect()).to_string()
}

fn update_only_set(object: &Object, row: &Row) -> bool {
    let mut only = object
        .properties
        .iter()
        .filter(|property| property.on == On::Update);
    only.any(|property| match property.null {
        Null::Literal(_) => true,
        Null::Omit | Null::Clear => row.columns.get(&property.column).is_some_and(Option::is_some),
    })
}

/// What HubSpot must hold of a property that updates carry: its value, empty where it is cleared.
pub fn on_update(property: &Property, row: &Row) -> Option<String> {
    text(property, row, Sent::Update)
}
