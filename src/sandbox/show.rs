//! How a record is shown: the properties that were asked for or written, and the fields around them.

use super::clock::instant_text;
use super::object_type::{ObjectType, Record};
use super::property::Writable;
use super::standard::shown_by_default;
use super::world::World;
use serde_json::{Map, Value, json};

impl World {
    /// A record with the given properties; the three that always come are added. `nulls` shows properties
    /// that are not set, as reads do; names that the type does not know are left out.
    pub(super) fn shown<'a>(
        &self,
        kind: &ObjectType,
        record: &Record,
        names: impl IntoIterator<Item = &'a str>,
        nulls: bool,
    ) -> Value {
        let mut properties = Map::new();
        let always = ["hs_object_id", kind.created_name(), kind.modified_name()];
        for name in always.into_iter().chain(names) {
            if !kind.properties.contains_key(name) {
                continue;
            }
            match kind.value(record, name) {
                Some(value) => properties.insert(name.to_owned(), Value::from(value.into_owned())),
                None if nulls => properties.insert(name.to_owned(), Value::Null),
                None => None,
            };
        }
        let mut shown = json!({
            "id": record.id.to_string(),
            "properties": properties,
            "createdAt": instant_text(record.created_ms),
            "updatedAt": instant_text(record.updated_ms),
            "archived": record.archived_ms.is_some(),
        });
        if let Some(archived_ms) = record.archived_ms {
            shown["archivedAt"] = Value::from(instant_text(archived_ms));
        }
        if self.settings.extra_fields {
            let (portal, object, id) = (self.settings.portal_id, &kind.id, record.id);
            shown["url"] = Value::from(format!(
                "https://app.hubspot.com/contacts/{portal}/record/{object}/{id}"
            ));
            // HubSpot adds fields without notice; a client must not mind.
            shown["fieldOfTheFuture"] = json!({"nested": [1, null, true]});
        }
        shown
    }

    /// A record as a read answers: the properties asked for, or the type's small default set.
    pub(super) fn shown_read(&self, kind: &ObjectType, record: &Record, asked: &[String]) -> Value {
        if asked.is_empty() {
            self.shown(kind, record, shown_by_default(kind).iter().copied(), true)
        } else {
            self.shown(kind, record, asked.iter().map(String::as_str), true)
        }
    }

    /// A record as a create answers: everything that is set.
    pub(super) fn shown_whole(&self, kind: &ObjectType, record: &Record) -> Value {
        self.shown(kind, record, record.values.keys().map(|name| &**name), false)
    }
}

/// The histories that were asked for: HubSpot keeps all versions, the sandbox the present one.
pub(super) fn histories(kind: &ObjectType, record: &Record, asked: &[String]) -> Value {
    let mut histories = Map::new();
    for name in asked {
        let Some(property) = kind.properties.get(name.as_str()) else {
            continue;
        };
        let source = if property.writable == Writable::Yes {
            "INTEGRATION"
        } else {
            "CRM_SETTING"
        };
        let versions: Vec<Value> = kind
            .value(record, name)
            .map(|value| json!({"value": value, "timestamp": instant_text(record.updated_ms), "sourceType": source}))
            .into_iter()
            .collect();
        histories.insert(name.clone(), Value::from(versions));
    }
    Value::Object(histories)
}
