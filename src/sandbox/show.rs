//! How a record is shown: the properties that were asked for or written, and the fields around them.

use super::association::{LinkType, TypeIx};
use super::clock::instant_text;
use super::http::Query;
use super::object_type::{ObjectType, Record};
use super::property::Writable;
use super::standard::shown_by_default;
use super::world::World;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The most associated records of a type that stand beside a record; the rest is paged.
const INLINE_MAX: usize = 100;

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

/// An object type whose associations are shown beside a record, with the names of their types.
#[derive(Debug)]
pub(super) struct Target {
    to: TypeIx,
    names: BTreeMap<u32, String>,
}

impl World {
    /// The object types whose associations a query asks for; those that are unknown are left out.
    pub(super) fn targets(&self, from: TypeIx, query: &Query) -> Vec<Target> {
        let named = query.names("associations");
        let known = named.iter().filter_map(|named| self.type_position(named));
        known
            .map(|to| Target {
                to,
                names: self.inline_names(from, to),
            })
            .collect()
    }

    /// How associations are called beside a record: `contact_to_company` is the primary one where there is one,
    /// and the unlabelled one is then `contact_to_company_unlabeled`.
    fn inline_names(&self, from: TypeIx, to: TypeIx) -> BTreeMap<u32, String> {
        let base = format!("{}_to_{}", self.types[from].singular, self.types[to].singular);
        let kinds = self.links.between(from, to);
        let primary = kinds.iter().any(|kind| kind.built_in && kind.label.is_some());
        let name = |kind: &&LinkType| match (&kind.label, kind.built_in) {
            (Some(_), false) if !kind.name.is_empty() => kind.name.clone(),
            (None, _) if primary => format!("{base}_unlabeled"),
            _ => base.clone(),
        };
        kinds.iter().map(|kind| (kind.id, name(kind))).collect()
    }

    /// A record with the properties and associations that were asked for. One that is associated by two types is
    /// named twice, and a long list is cut, with the place where it goes on.
    pub(super) fn shown_with_links(
        &self,
        from: TypeIx,
        record: &Record,
        names: &[String],
        targets: &[Target],
    ) -> Value {
        let object = &self.types[from];
        let mut shown = self.shown_read(object, record, names);
        let mut groups = Map::new();
        for target in targets {
            let mut linked = self.links.from((from, record.id), target.to, 0);
            let page: Vec<Value> = linked
                .by_ref()
                .take(INLINE_MAX)
                .flat_map(|(id, types)| types.iter().map(move |kind| (id, kind)))
                .filter_map(|(id, kind)| {
                    let name = target.names.get(kind)?;
                    Some(json!({"id": id.to_string(), "type": name}))
                })
                .collect();
            if page.is_empty() {
                continue;
            }
            let mut group = json!({"results": page});
            if let Some((next, _)) = linked.next() {
                let (to, id) = (&self.types[target.to].id, record.id);
                let link = format!(
                    "https://api.hubapi.com/crm/v3/objects/{}/{id}/associations/{to}?after={next}",
                    object.id
                );
                group["paging"] = json!({"next": {"after": next.to_string(), "link": link}});
            }
            groups.insert(self.types[target.to].name.clone(), group);
        }
        if !groups.is_empty() {
            shown["associations"] = Value::Object(groups);
        }
        shown
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
