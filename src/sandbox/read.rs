//! Reading records, and taking them away: get, list, batch read, archive and merge.

use super::association::TypeIx;
use super::draft::Inputs;
use super::http::Query;
use super::log::Write;
use super::object_type::Record;
use super::reply::{Reply, Text, parse};
use super::route::Route;
use super::show::histories;
use super::world::World;
use super::write::{Asked, INPUTS_MAX, missing_entry};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashSet;

/// The most inputs of a batch read that asks for histories.
const HISTORY_INPUTS_MAX: usize = 50;
/// The most records of a listed page.
const PAGE_MAX: usize = 100;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ReadBatch {
    properties: Vec<String>,
    properties_with_history: Vec<String>,
    id_property: Option<Text>,
    inputs: Vec<Named>,
}

#[derive(Debug, Deserialize)]
struct Named {
    id: Text,
}

#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Merging {
    primary_object_id: Option<Text>,
    object_id_to_merge: Option<Text>,
}

impl World {
    /// The record that a path names by id, by a merged-away id, or by a unique property.
    pub(super) fn named_record(&self, kind: TypeIx, id: &str, key: Option<&str>) -> Result<u64, Reply> {
        let object = &self.types[kind];
        let found = match key.filter(|key| *key != "hs_object_id") {
            Some(key) if !object.is_key(key) => return Err(Reply::not_unique("read", &object.id, key)),
            Some(key) => object.holder(key, id),
            None => match id.parse().map(|id| object.survivor(id)) {
                Ok(id) => Some(id),
                Err(_) => return Err(Reply::no_object(id)),
            },
        };
        found
            .filter(|id| object.live(*id).is_some())
            .ok_or_else(Reply::not_found)
    }
}

impl Asked<'_> {
    pub(super) fn get(&mut self, kind: TypeIx, route: &Route, query: &Query) -> Result<Reply, Reply> {
        let object = &self.world.types[kind];
        let archived = query.get("archived") == Some("true");
        let record = match route.id.parse().ok().and_then(|id| object.records.get(&id)) {
            Some(record) if archived && record.archived_ms.is_some() => record,
            _ => {
                &object.records[&self
                    .world
                    .named_record(kind, &route.id, query.get("idProperty"))?]
            }
        };
        let (names, targets) = (query.names("properties"), self.world.targets(kind, query));
        let shown = self.world.shown_with_links(kind, record, &names, &targets);
        Ok(Reply::new(200, shown))
    }

    pub(super) fn list(&mut self, kind: TypeIx, route: &Route, query: &Query) -> Result<Reply, Reply> {
        let limit = query.number("limit", 10)?;
        if limit > PAGE_MAX {
            return Err(Reply::validation(format!(
                "The limit must be at most {PAGE_MAX}."
            )));
        }
        let after = query.number("after", 0)? as u64;
        let archived = query.get("archived") == Some("true");
        let object = &self.world.types[kind];
        let mut page: Vec<&Record> = object.listed(after, archived).take(limit + 1).collect();
        let next = (page.len() > limit)
            .then(|| page.pop())
            .flatten()
            .map(|record| record.id.to_string());
        let (names, targets) = (query.names("properties"), self.world.targets(kind, query));
        let results: Vec<Value> = page
            .into_iter()
            .map(|record| self.world.shown_with_links(kind, record, &names, &targets))
            .collect();
        let mut body = json!({"results": results});
        if let Some(next) = next {
            let link = format!(
                "https://api.hubapi.com/crm/v3/objects/{}?after={next}&limit={limit}",
                route.object
            );
            body["paging"] = json!({"next": {"after": next, "link": link}});
        }
        Ok(Reply::new(200, body))
    }

    pub(super) fn batch_read(&mut self, kind: TypeIx, body: &[u8], query: &Query) -> Result<Reply, Reply> {
        let asked: ReadBatch = parse(body)?;
        self.inputs = asked.inputs.len();
        if asked.inputs.len() > INPUTS_MAX {
            return Err(Reply::too_many_inputs(INPUTS_MAX));
        }
        if !asked.properties_with_history.is_empty() && asked.inputs.len() > HISTORY_INPUTS_MAX {
            return Err(Reply::validation(format!(
                "The maximum number of inputs supported in a batch request for property histories is \
                 {HISTORY_INPUTS_MAX}. Please reduce the number of items and try again"
            )));
        }
        let object = &self.world.types[kind];
        let key = asked
            .id_property
            .as_ref()
            .map(|key| key.0.as_str())
            .filter(|key| *key != "hs_object_id");
        let mut seen = HashSet::new();
        let compared = |id: &str| object.key_value(key.unwrap_or_default(), id).into_owned();
        let repeated: Vec<String> = asked
            .inputs
            .iter()
            .map(|input| compared(&input.id.0))
            .filter(|id| !seen.insert(id.clone()))
            .collect();
        if !repeated.is_empty() {
            return Err(Reply::duplicate_ids(&repeated));
        }
        if let Some(key) = key.filter(|key| !object.is_key(key)) {
            return Err(Reply::not_unique("read", &object.id, key));
        }
        let wants_archived = query.get("archived") == Some("true");
        let (mut results, mut missing) = (Vec::new(), Vec::new());
        for input in asked.inputs.iter().skip(self.omitted) {
            let found = match key {
                Some(key) => object.holder(key, &input.id.0),
                None => input.id.0.parse().ok(),
            };
            let record = found.and_then(|id| object.records.get(&id));
            match record.filter(|record| record.archived_ms.is_some() == wants_archived) {
                Some(record) => results.push(self.shown_in_batch(kind, record, &asked)),
                // As in an update, nothing is said about an id that was merged away.
                None if found.is_some_and(|id| object.merged_into.contains_key(&id)) => {}
                None => missing.push((input.id.0.clone(), None)),
            }
        }
        let errors: Vec<Value> = (!missing.is_empty())
            .then(|| missing_entry(&object.label(), &missing))
            .into_iter()
            .collect();
        if self.world.settings.shuffle {
            self.world.dice.shuffle(&mut results);
        }
        Ok(self.batch_reply(200, results, errors))
    }

    pub(super) fn batch_archive(&mut self, kind: TypeIx, body: &[u8]) -> Result<Reply, Reply> {
        let inputs = parse::<Inputs<Named>>(body)?.inputs;
        self.inputs = inputs.len();
        if inputs.len() > INPUTS_MAX {
            return Err(Reply::too_many_inputs(INPUTS_MAX));
        }
        for input in inputs {
            self.archive_named(kind, &input.id.0);
        }
        Ok(Reply::empty(204))
    }

    pub(super) fn archive(&mut self, kind: TypeIx, id: &str) -> Result<Reply, Reply> {
        self.inputs = 1;
        if id.parse::<u64>().is_err() {
            return Err(Reply::no_object(id));
        }
        self.archive_named(kind, id);
        Ok(Reply::empty(204))
    }

    pub(super) fn merge(&mut self, kind: TypeIx, body: &[u8]) -> Result<Reply, Reply> {
        let asked: Merging = parse(body)?;
        let id = |given: Option<Text>| {
            given
                .and_then(|id| id.0.parse().ok())
                .ok_or_else(Reply::not_found)
        };
        let (primary, other) = (id(asked.primary_object_id)?, id(asked.object_id_to_merge)?);
        let Some(survivor) = self.world.merge_ids(kind, primary, other) else {
            return Err(Reply::validation("The objects cannot be merged."));
        };
        let object = &self.world.types[kind];
        Ok(Reply::new(
            200,
            self.world.shown_whole(object, &object.records[&survivor]),
        ))
    }

    fn archive_named(&mut self, kind: TypeIx, id: &str) {
        if id.parse().is_ok_and(|id| self.world.archive_id(kind, id)) {
            let object = self.world.types[kind].id.clone();
            self.writes.push(Write::Archived {
                object,
                id: id.to_owned(),
            });
        }
    }

    fn shown_in_batch(&self, kind: TypeIx, record: &Record, asked: &ReadBatch) -> Value {
        let object = &self.world.types[kind];
        let mut shown = self.world.shown_read(object, record, &asked.properties);
        if !asked.properties_with_history.is_empty() {
            shown["propertiesWithHistory"] = histories(object, record, &asked.properties_with_history);
        }
        shown
    }
}
