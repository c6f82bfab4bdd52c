//! One record of a write, checked: what would be written, or why it is refused.
//!
//! A draft is checked against the world as it stands and against the drafts before it in the same batch,
//! so that two inputs cannot take one unique value.

use super::association::{End, TypeIx};
use super::object_type::{ObjectType, Record, Values};
use super::problem::Problem;
use super::property::Name;
use super::reply::{Reply, Text};
use super::route::Version;
use super::standard::LIFECYCLE;
use super::value::Invalid;
use super::world::{Refusal, World};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The body of a batch.
#[derive(Debug, Deserialize)]
pub(super) struct Inputs<T> {
    #[serde(default = "Vec::new")]
    pub inputs: Vec<T>,
}

impl<T> Default for Inputs<T> {
    fn default() -> Self {
        Self { inputs: Vec::new() }
    }
}

/// One input of a write, batch or single.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Input {
    pub id: Option<Text>,
    pub id_property: Option<Text>,
    pub properties: BTreeMap<String, Text>,
    pub associations: Vec<InlineLink>,
    pub object_write_trace_id: Option<Text>,
}

/// An association that a create asks for.
#[derive(Debug, Deserialize)]
pub(super) struct InlineLink {
    to: Target,
    #[serde(default)]
    types: Vec<LinkSpec>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Target {
    pub id: Text,
}

/// `AssociationSpec` of HubSpot's specification.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LinkSpec {
    pub association_category: String,
    pub association_type_id: u32,
}

impl Input {
    pub(super) fn id_text(&self) -> Result<&str, Reply> {
        match &self.id {
            Some(id) => Ok(&id.0),
            None => Err(Reply::error(
                400,
                "",
                "Invalid input JSON on line 1, column 1: Some required fields were not set: [id]",
            )),
        }
    }

    pub(super) fn key(&self) -> Option<&str> {
        self.id_property
            .as_ref()
            .map(|name| name.0.as_str())
            .filter(|name| !name.is_empty())
    }

    pub(super) fn trace(&self) -> Option<String> {
        self.object_write_trace_id.as_ref().map(|trace| trace.0.clone())
    }
}

/// A record as it would be written.
#[derive(Debug)]
pub(super) struct Draft {
    pub id: u64,
    pub new: bool,
    /// Properties as stored; empty clears.
    pub changes: Vec<(Name, String)>,
    pub warnings: Vec<Value>,
    pub links: Vec<(End, Vec<u32>)>,
    pub trace: Option<String>,
    /// The property that the record was named by.
    pub key: Option<String>,
}

/// The unique values that the drafts of a batch have taken so far.
#[derive(Debug, Default)]
pub(super) struct Batch(HashMap<(Name, String), u64>);

impl World {
    /// Checks an input that makes a new record; `key` is the property that an upsert names it by.
    pub(super) fn draft_new(
        &mut self,
        kind: TypeIx,
        input: &Input,
        key: Option<&str>,
        version: Version,
        batch: &mut Batch,
    ) -> Result<Draft, Problem> {
        let id = self.next_record_id();
        let mut raw = input.properties.clone();
        if let (Some(key), Some(value)) = (key, &input.id) {
            let object = &self.types[kind];
            let same = |given: &Text| object.key_value(key, &given.0) == object.key_value(key, &value.0);
            if raw.get(key).is_some_and(|given| !same(given)) {
                let message = format!("The value of {key} differs from the id of the input.");
                return Err(Problem::invalid(
                    self.settings.portal_id,
                    vec![Invalid::new("INVALID_KEY", key, message)],
                ));
            }
            raw.insert(key.to_owned(), value.clone());
        }
        let mut draft = self.checked(kind, id, None, &raw, version)?;
        draft.new = true;
        self.complete(kind, &draft, version)?;
        self.unrefused(kind, None, input, &draft)?;
        self.claim(kind, &draft, batch)?;
        draft.links = self.inline_links(kind, &input.associations)?;
        draft.trace = input.trace();
        draft.key = key.map(str::to_owned);
        Ok(draft)
    }

    /// Checks an input that changes a record.
    pub(super) fn draft_change(
        &mut self,
        kind: TypeIx,
        id: u64,
        input: &Input,
        version: Version,
        batch: &mut Batch,
    ) -> Result<Draft, Problem> {
        if input.properties.is_empty() {
            return Err(Problem::nothing_to_update());
        }
        let record = self.types[kind].records[&id].clone();
        let mut draft = self.checked(kind, id, Some(&record), &input.properties, version)?;
        self.unrefused(kind, Some(&record), input, &draft)?;
        self.claim(kind, &draft, batch)?;
        draft.trace = input.trace();
        draft.key = input.key().map(str::to_owned);
        Ok(draft)
    }

    /// Writes a draft: the record, its indexes, its associations.
    pub(super) fn write(&mut self, kind: TypeIx, draft: &Draft) {
        let now = self.now_ms();
        let empty = Record {
            id: draft.id,
            created_ms: now,
            updated_ms: now,
            archived_ms: None,
            values: Values::new(),
            merged: Vec::new(),
        };
        let mut record = self.types[kind].records.get(&draft.id).cloned().unwrap_or(empty);
        record.updated_ms = now;
        for (name, value) in &draft.changes {
            match value.as_str() {
                "" => record.values.remove(name),
                value => record.values.insert(Arc::clone(name), value.into()),
            };
        }
        self.store(kind, record);
        for (to, types) in &draft.links {
            self.links.replace((kind, draft.id), *to, types);
        }
    }

    /// The values of an input as their properties take them.
    fn checked(
        &self,
        kind: TypeIx,
        id: u64,
        record: Option<&Record>,
        raw: &BTreeMap<String, Text>,
        version: Version,
    ) -> Result<Draft, Problem> {
        let object = &self.types[kind];
        let lenient = version == Version::September2026;
        let mut draft = Draft {
            id,
            new: false,
            changes: Vec::with_capacity(raw.len()),
            warnings: Vec::new(),
            links: Vec::new(),
            trace: None,
            key: None,
        };
        let mut invalid = Vec::new();
        for (name, raw) in raw {
            let Some((name, property)) = object.properties.get_key_value(name.as_str()) else {
                let message = format!("Property \"{name}\" does not exist");
                invalid.push(Invalid::new("PROPERTY_DOESNT_EXIST", name, message));
                continue;
            };
            match property.take(&raw.0, lenient) {
                Ok(taken) => {
                    if taken.normalised {
                        draft.warnings.push(normalised(name, &raw.0, &taken.value));
                    }
                    let old = record.and_then(|record| record.get(name));
                    let value = joined(old, taken.value, property.appends(&raw.0));
                    if !moves_back(object, name, old, &value) {
                        draft.changes.push((Arc::clone(name), value));
                    }
                }
                Err(refused) => invalid.push(refused),
            }
        }
        if invalid.is_empty() {
            Ok(draft)
        } else {
            Err(Problem::invalid(self.settings.portal_id, invalid))
        }
    }

    /// Whether a new record has everything that the schema and, on 2026-09, the portal's rules demand.
    fn complete(&self, kind: TypeIx, draft: &Draft, version: Version) -> Result<(), Problem> {
        let object = &self.types[kind];
        let has = |wanted: &Name| {
            draft
                .changes
                .iter()
                .any(|(name, value)| name == wanted && !value.is_empty())
        };
        let required = object.properties.values().filter(|property| property.required);
        let missing: Vec<String> = required
            .filter(|property| !has(&property.name))
            .map(|property| property.name.to_string())
            .collect();
        if !missing.is_empty() {
            return Err(Problem::required(object, &missing));
        }
        if version != Version::September2026 {
            return Ok(());
        }
        let form = object.form_requires.iter().filter(|name| !has(name)).map(|name| {
            let message = format!("A value for {name} must be provided");
            Invalid::new("MISSING_REQUIRED_PROPERTY", name, message)
        });
        let broken: Vec<Invalid> = form.chain(broken_conditions(object, &has)).collect();
        if broken.is_empty() {
            Ok(())
        } else {
            Err(Problem::rule(&broken))
        }
    }

    /// Whether a rule scripted by a test refuses the record.
    fn unrefused(
        &mut self,
        kind: TypeIx,
        record: Option<&Record>,
        input: &Input,
        draft: &Draft,
    ) -> Result<(), Problem> {
        let says = |rule: &Refusal| {
            let is = |value: &str| value == rule.value;
            rule.object == kind
                && rule.to.is_none()
                && ((rule.property == "hs_object_id" && is(&draft.id.to_string()))
                    || draft
                        .changes
                        .iter()
                        .any(|(name, value)| **name == *rule.property && is(value))
                    || record.is_some_and(|record| record.get(&rule.property).is_some_and(is))
                    || (input.key() == Some(&rule.property) && input.id.as_ref().is_some_and(|id| is(&id.0))))
        };
        let Some(rule) = self.refuses(says) else {
            return Ok(());
        };
        let refused = Invalid::new(
            "INVALID_ALPHA",
            &rule.property,
            String::from("Enter only letters"),
        );
        Err(Problem::invalid(self.settings.portal_id, vec![refused]))
    }

    /// Takes the unique values of a draft, or says who holds one.
    fn claim(&self, kind: TypeIx, draft: &Draft, batch: &mut Batch) -> Result<(), Problem> {
        let object = &self.types[kind];
        let unique = |(name, value): &&(Name, String)| object.is_key(name) && !value.is_empty();
        let claims: Vec<&(Name, String)> = draft.changes.iter().filter(unique).collect();
        for claim in &claims {
            let holder = object
                .holder(&claim.0, &claim.1)
                .or_else(|| batch.0.get(*claim).copied());
            let Some(holder) = holder.filter(|holder| *holder != draft.id) else {
                continue;
            };
            let portal_id = self.settings.portal_id;
            return Err(match object.is_email(&claim.0) {
                true => Problem::contact_exists(holder),
                false => Problem::taken(portal_id, object, &claim.0, &claim.1, draft.id, holder),
            });
        }
        batch
            .0
            .extend(claims.into_iter().map(|claim| (claim.clone(), draft.id)));
        Ok(())
    }

    fn inline_links(&self, kind: TypeIx, wanted: &[InlineLink]) -> Result<Vec<(End, Vec<u32>)>, Problem> {
        let mut links = Vec::new();
        for link in wanted {
            let mut types = Vec::new();
            let mut to = None;
            for spec in &link.types {
                let found = self
                    .links
                    .link_type(spec.association_type_id)
                    .filter(|found| found.from == kind);
                let Some(found) = found.filter(|found| found.category() == spec.association_category) else {
                    return Err(bad_link_type(spec));
                };
                types.push(found.id);
                to = Some(found.to);
            }
            let Some(to) = to else {
                return Err(Problem::validation(String::from(
                    "Some required fields were not set: [types]",
                )));
            };
            let id = link
                .to
                .id
                .0
                .parse()
                .ok()
                .filter(|id| self.types[to].live(*id).is_some());
            let Some(id) = id else {
                return Err(bad_link_target(&self.types[to], &link.to.id.0));
            };
            links.push(((to, id), types));
        }
        Ok(links)
    }
}

/// An association type that does not exist in this direction.
pub(super) fn bad_link_type(spec: &LinkSpec) -> Problem {
    let named = format!("{}={}", spec.association_category, spec.association_type_id);
    Problem::validation(String::from("One or more associations are invalid"))
        .context("associationSpec", json!([named]))
        .context(
            "INVALID_ASSOCIATION_TYPE_ID",
            json!([format!("{named} is not a valid association definition id")]),
        )
}

/// A record that cannot be associated because it is not there.
pub(super) fn bad_link_target(kind: &ObjectType, id: &str) -> Problem {
    let label = kind.label();
    Problem::validation(String::from("One or more associations are invalid"))
        .context(
            "INVALID_OBJECT_IDS",
            json!([format!("{label}={id} is not valid")]),
        )
        .context("objectId", json!([id]))
        .context("objectType", json!([label]))
}

fn normalised(name: &str, raw: &str, value: &str) -> Value {
    let context = json!({"propertyName": name, "rawValue": raw, "normalizedValue": value});
    json!({"category": "PROPERTY_VALUE_NORMALIZED", "message": format!("{name} was normalized"), "context": context})
}

/// The chosen options with more added to them.
fn joined(old: Option<&str>, value: String, append: bool) -> String {
    if !append {
        return value;
    }
    let mut chosen: Vec<&str> = old
        .unwrap_or_default()
        .split(';')
        .filter(|part| !part.is_empty())
        .collect();
    for part in value.split(';').filter(|part| !part.is_empty()) {
        if !chosen.contains(&part) {
            chosen.push(part);
        }
    }
    chosen.join(";")
}

/// Whether a lifecycle stage would go back, which HubSpot ignores without a word.
fn moves_back(object: &ObjectType, name: &str, old: Option<&str>, value: &str) -> bool {
    let place = |stage: &str| LIFECYCLE.iter().position(|known| *known == stage);
    let (Some(old), Some(new)) = (old.and_then(place), place(value)) else {
        return false;
    };
    name == "lifecyclestage" && !object.is_custom() && new < old
}

fn broken_conditions(object: &ObjectType, has: &impl Fn(&Name) -> bool) -> Vec<Invalid> {
    let broken = object
        .conditions
        .iter()
        .filter(|(when, then)| has(when) && !has(then));
    broken
        .map(|(when, then)| {
            let message =
                format!("{then} is required because of a conditional property rule based on [{when}]");
            Invalid::new("MISSING_CONDITIONAL_REQUIRED_PROPERTY", then, message)
        })
        .collect()
}
