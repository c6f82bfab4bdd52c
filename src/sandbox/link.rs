//! The association API: making, reading and removing associations, and their types.

use super::association::{LABELS_MAX, TypeIx};
use super::clock::instant_text;
use super::draft::{Inputs, LinkSpec, Target, bad_link_target, bad_link_type};
use super::http::Query;
use super::log::Write;
use super::problem::Problem;
use super::reply::{Reply, Text, batch, parse, parse_exactly};
use super::route::{Route, Version};
use super::write::Asked;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The most inputs of `associate/default`; undocumented, and no integration dares more.
const DEFAULT_INPUTS_MAX: usize = 100;
const CREATE_INPUTS_MAX: usize = 2_000;
const READ_INPUTS_MAX: usize = 1_000;
/// The most associations of one record in a page.
const PAGE_MAX: usize = 500;

#[derive(Debug, Deserialize)]
struct Pair {
    from: Target,
    to: Target,
    #[serde(default)]
    types: Vec<LinkSpec>,
}

#[derive(Debug, Deserialize)]
struct Wanted {
    id: Text,
    #[serde(default)]
    after: Option<Text>,
}

#[derive(Debug, Deserialize)]
struct Removal {
    from: Target,
    to: Vec<Target>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NewLabel {
    label: String,
    inverse_label: Option<String>,
    name: String,
}

impl Asked<'_> {
    pub(super) fn batch_link_default(
        &mut self,
        from: TypeIx,
        to: TypeIx,
        body: &[u8],
    ) -> Result<Reply, Reply> {
        let pairs = self.pairs(body, DEFAULT_INPUTS_MAX)?;
        self.defined(from, to)?;
        let (mut results, mut errors) = (Vec::new(), Vec::new());
        for pair in &pairs {
            match self.ends(from, to, &pair.from.id.0, &pair.to.id.0) {
                Ok((near, far)) => results.extend(self.link_default((from, near), (to, far))),
                Err(problem) => errors.push(problem.entry(&[])),
            }
        }
        Ok(self.link_reply(200, results, errors))
    }

    pub(super) fn batch_link(&mut self, from: TypeIx, to: TypeIx, body: &[u8]) -> Result<Reply, Reply> {
        let pairs = self.pairs(body, CREATE_INPUTS_MAX)?;
        let (mut results, mut errors) = (Vec::new(), Vec::new());
        for pair in &pairs {
            let checked = self
                .link_types(from, to, &pair.types)
                .and_then(|types| Ok((types, self.ends(from, to, &pair.from.id.0, &pair.to.id.0)?)));
            match checked {
                Ok((types, (near, far))) => {
                    self.world.links.replace((from, near), (to, far), &types);
                    self.note_link((from, near), (to, far));
                    results.push(self.labelled((from, near), (to, far), &types));
                }
                Err(problem) => errors.push(problem.entry(&[])),
            }
        }
        let whole = if self.version == Version::September2026 {
            200
        } else {
            201
        };
        Ok(self.link_reply(whole, results, errors))
    }

    pub(super) fn put_default_link(
        &mut self,
        from: TypeIx,
        to: TypeIx,
        route: &Route,
    ) -> Result<Reply, Reply> {
        self.inputs = 1;
        self.defined(from, to)?;
        let (near, far) = self
            .ends(from, to, &route.id, &route.to_id)
            .map_err(|problem| problem.reply())?;
        let results = self.link_default((from, near), (to, far));
        Ok(Reply::new(
            200,
            batch(results, &self.started, &instant_text(self.world.now_ms())),
        ))
    }

    pub(super) fn put_link(
        &mut self,
        from: TypeIx,
        to: TypeIx,
        route: &Route,
        body: &[u8],
    ) -> Result<Reply, Reply> {
        self.inputs = 1;
        let specs: Vec<LinkSpec> = parse_exactly(body)?;
        let types = self
            .link_types(from, to, &specs)
            .map_err(|problem| problem.reply())?;
        let (near, far) = self
            .ends(from, to, &route.id, &route.to_id)
            .map_err(|problem| problem.reply())?;
        self.world.links.replace((from, near), (to, far), &types);
        self.note_link((from, near), (to, far));
        Ok(Reply::new(201, self.labelled((from, near), (to, far), &types)))
    }

    pub(super) fn delete_link(&mut self, from: TypeIx, to: TypeIx, route: &Route) -> Result<Reply, Reply> {
        self.inputs = 1;
        self.unlink(from, to, &route.id, &route.to_id, None);
        Ok(Reply::empty(204))
    }

    pub(super) fn batch_archive_links(
        &mut self,
        from: TypeIx,
        to: TypeIx,
        body: &[u8],
    ) -> Result<Reply, Reply> {
        let inputs = parse::<Inputs<Removal>>(body)?.inputs;
        self.allow(inputs.len(), CREATE_INPUTS_MAX)?;
        for input in inputs {
            for target in input.to {
                self.unlink(from, to, &input.from.id.0, &target.id.0, None);
            }
        }
        Ok(self.nothing())
    }

    pub(super) fn batch_archive_labels(
        &mut self,
        from: TypeIx,
        to: TypeIx,
        body: &[u8],
    ) -> Result<Reply, Reply> {
        let pairs = self.pairs(body, CREATE_INPUTS_MAX)?;
        for pair in &pairs {
            let types: Vec<u32> = pair.types.iter().map(|spec| spec.association_type_id).collect();
            self.unlink(from, to, &pair.from.id.0, &pair.to.id.0, Some(&types));
        }
        Ok(self.nothing())
    }

    pub(super) fn batch_read_links(&mut self, from: TypeIx, to: TypeIx, body: &[u8]) -> Result<Reply, Reply> {
        let inputs = parse::<Inputs<Wanted>>(body)?.inputs;
        self.allow(inputs.len(), READ_INPUTS_MAX)?;
        let (mut results, mut errors) = (Vec::new(), Vec::new());
        for input in inputs.iter().skip(self.omitted) {
            let id = input
                .id
                .0
                .parse()
                .ok()
                .filter(|id| self.world.types[from].live(*id).is_some());
            let after = input.after.as_ref().map(|after| after.0.as_str());
            let (linked, next) = match id {
                Some(id) => self.linked(from, id, to, after, PAGE_MAX),
                None => (Vec::new(), None),
            };
            if linked.is_empty() {
                errors.push(self.nothing_linked(from, to, &input.id.0));
                continue;
            }
            let mut result = json!({"from": {"id": input.id.0}, "to": linked});
            if let Some(next) = next {
                result["paging"] = json!({"next": {"after": next}});
            }
            results.push(result);
        }
        Ok(self.link_reply(200, results, errors))
    }

    pub(super) fn list_links(
        &mut self,
        from: TypeIx,
        to: TypeIx,
        route: &Route,
        query: &Query,
    ) -> Result<Reply, Reply> {
        let id = self.world.named_record(from, &route.id, None)?;
        let limit = query.number("limit", PAGE_MAX)?.min(PAGE_MAX);
        let (linked, next) = self.linked(from, id, to, query.get("after"), limit);
        let mut body = json!({"results": linked});
        if let Some(next) = next {
            body["paging"] = json!({"next": {"after": next, "link": "https://api.hubapi.com/"}});
        }
        Ok(Reply::new(200, body))
    }

    pub(super) fn labels(&mut self, from: TypeIx, to: TypeIx) -> Result<Reply, Reply> {
        let kinds = self.world.links.between(from, to);
        let shown = kinds.iter().map(|kind| {
            let mut shown = json!({"category": kind.category(), "typeId": kind.id, "label": kind.label});
            // Both dated versions have the fields; the newer one was seen to leave them empty.
            let (from, to) = (&self.world.types[from].id, &self.world.types[to].id);
            let (from, to) = match self.version {
                Version::Numbered => return shown,
                Version::March2026 => (json!(from), json!(to)),
                Version::September2026 => (Value::Null, Value::Null),
            };
            shown["fromObjectTypeId"] = from;
            shown["toObjectTypeId"] = to;
            shown
        });
        let results: Vec<Value> = shown.collect();
        Ok(Reply::new(200, json!({"results": results})))
    }

    pub(super) fn create_label(&mut self, from: TypeIx, to: TypeIx, body: &[u8]) -> Result<Reply, Reply> {
        let asked: NewLabel = parse(body)?;
        if self.world.links.between(from, to).len() > LABELS_MAX {
            return Err(Reply::error(
                437,
                "VALIDATION_ERROR",
                "The limit of association labels has been reached.",
            ));
        }
        self.defined(from, to)?;
        let back = asked.inverse_label.as_deref().unwrap_or(&asked.label);
        let ids = self
            .world
            .links
            .define(from, to, Some((&asked.label, back)), &asked.name);
        let shown = |id: u32, label: &str| json!({"category": "USER_DEFINED", "typeId": id, "label": label});
        Ok(Reply::new(
            200,
            json!({"results": [shown(ids.0, &asked.label), shown(ids.1, back)]}),
        ))
    }

    /// Makes the unlabelled association and shows it in both directions.
    fn link_default(&mut self, from: (TypeIx, u64), to: (TypeIx, u64)) -> Vec<Value> {
        self.world.links.add_unlabelled(from, to);
        self.note_link(from, to);
        let shown = |near: (TypeIx, u64), far: (TypeIx, u64)| {
            let kind = self.world.links.unlabelled(near.0, far.0)?;
            let spec = json!({"associationCategory": kind.category(), "associationTypeId": kind.id});
            Some(
                json!({"from": {"id": near.1.to_string()}, "to": {"id": far.1.to_string()}, "associationSpec": spec}),
            )
        };
        [shown(from, to), shown(to, from)].into_iter().flatten().collect()
    }

    fn labelled(&self, from: (TypeIx, u64), to: (TypeIx, u64), types: &[u32]) -> Value {
        let kinds = types.iter().filter_map(|id| self.world.links.link_type(*id));
        let labels: Vec<String> = kinds.filter_map(|kind| kind.label.clone()).collect();
        json!({
            "fromObjectTypeId": self.world.types[from.0].id,
            "fromObjectId": self.id_shown(from.1),
            "toObjectTypeId": self.world.types[to.0].id,
            "toObjectId": self.id_shown(to.1),
            "labels": labels,
        })
    }

    /// What a record is linked to, one page of it, and where the next page starts.
    fn linked(
        &self,
        from: TypeIx,
        id: u64,
        to: TypeIx,
        after: Option<&str>,
        limit: usize,
    ) -> (Vec<Value>, Option<String>) {
        let after: u64 = after.and_then(|after| after.parse().ok()).unwrap_or_default();
        let held = self.world.links.from((from, id), to, after);
        let mut page: Vec<(u64, &BTreeSet<u32>)> = held.take(limit + 1).collect();
        let next = (page.len() > limit)
            .then(|| page.pop())
            .flatten()
            .map(|(id, _)| id.to_string());
        let shown = page.into_iter().map(|(id, types)| {
            let kinds = types.iter().filter_map(|id| self.world.links.link_type(*id));
            let kinds: Vec<Value> = kinds
                .map(|kind| json!({"category": kind.category(), "typeId": kind.id, "label": kind.label}))
                .collect();
            json!({"toObjectId": self.id_shown(id), "associationTypes": kinds})
        });
        (shown.collect(), next)
    }

    /// v4 shows ids of associations as numbers, the dated versions as strings.
    fn id_shown(&self, id: u64) -> Value {
        if self.version == Version::Numbered {
            Value::from(id)
        } else {
            Value::from(id.to_string())
        }
    }

    /// A record without associations is told as an error, although nothing is wrong.
    fn nothing_linked(&self, from: TypeIx, to: TypeIx, id: &str) -> Value {
        let (from, to) = (&self.world.types[from].singular, &self.world.types[to].singular);
        json!({
            "status": "error",
            "category": "OBJECT_NOT_FOUND",
            "subCategory": "crm.associations.NO_ASSOCIATIONS_FOUND",
            "message": format!("No {to} is associated with {from} {id}."),
            "context": {"fromObjectId": [id], "fromObjectType": [from], "toObjectType": [to]},
        })
    }

    /// Both ends of a pair as records that are there.
    fn ends(&mut self, from: TypeIx, to: TypeIx, near: &str, far: &str) -> Result<(u64, u64), Problem> {
        for id in [near, far] {
            if id.parse::<u64>().is_err() {
                return Err(Problem::validation(format!("{id} is not a valid ID"))
                    .sub_category("crm.associations.INVALID_IDENTIFIER")
                    .context("id", json!([id])));
            }
        }
        if from == to && near == far {
            return Err(Problem::validation(format!(
                "Object {near} cannot be associated to itself ({far})"
            )));
        }
        let live = |kind: TypeIx, id: &str| {
            id.parse()
                .ok()
                .filter(|id| self.world.types[kind].live(*id).is_some())
        };
        let near_id = live(from, near).ok_or_else(|| bad_link_target(&self.world.types[from], near))?;
        let far_id = live(to, far).ok_or_else(|| bad_link_target(&self.world.types[to], far))?;
        let refused = self.world.refuses(|rule| {
            rule.object == from && rule.to == Some(to) && (rule.value == near || rule.value == far)
        });
        match refused {
            Some(_) => Err(bad_link_target(&self.world.types[to], far)),
            None => Ok((near_id, far_id)),
        }
    }

    fn link_types(&self, from: TypeIx, to: TypeIx, specs: &[LinkSpec]) -> Result<Vec<u32>, Problem> {
        if specs.is_empty() {
            return Err(Problem::validation(String::from(
                "Some required fields were not set: [types]",
            )));
        }
        let mut types = Vec::with_capacity(specs.len());
        for spec in specs {
            let Some(kind) = self.world.links.link_type(spec.association_type_id) else {
                return Err(bad_link_type(spec));
            };
            if kind.category() != spec.association_category {
                return Err(bad_link_type(spec));
            }
            if (kind.from, kind.to) != (from, to) {
                let (given, expected) = (&self.world.types[from].id, &self.world.types[kind.from].id);
                return Err(Problem::validation(format!(
                    "invalid from object type {given} for associations to be created. expected: {expected}"
                )));
            }
            types.push(kind.id);
        }
        Ok(types)
    }

    fn unlink(&mut self, from: TypeIx, to: TypeIx, near: &str, far: &str, types: Option<&[u32]>) {
        let (Ok(near_id), Ok(far_id)) = (near.parse(), far.parse()) else {
            return;
        };
        match types {
            Some(types) => self
                .world
                .links
                .remove_types((from, near_id), (to, far_id), types),
            None => self.world.links.remove((from, near_id), (to, far_id)),
        }
        let end = |kind: TypeIx, id: &str| (self.world.types[kind].id.clone(), id.to_owned());
        self.writes.push(Write::Unlinked {
            from: end(from, near),
            to: end(to, far),
        });
    }

    fn note_link(&mut self, from: (TypeIx, u64), to: (TypeIx, u64)) {
        let end = |(kind, id): (TypeIx, u64)| (self.world.types[kind].id.clone(), id.to_string());
        self.writes.push(Write::Linked {
            from: end(from),
            to: end(to),
        });
    }

    fn pairs(&mut self, body: &[u8], max: usize) -> Result<Vec<Pair>, Reply> {
        let mut pairs = parse::<Inputs<Pair>>(body)?.inputs;
        self.allow(pairs.len(), max)?;
        super::fault::drop_some(&mut pairs, self.omitted, &mut self.world.dice);
        Ok(pairs)
    }

    fn allow(&mut self, inputs: usize, max: usize) -> Result<(), Reply> {
        self.inputs = inputs;
        if inputs > max {
            Err(Reply::too_many_inputs(max))
        } else {
            Ok(())
        }
    }

    /// A pair of types must have an association before records can.
    fn defined(&self, from: TypeIx, to: TypeIx) -> Result<(), Reply> {
        if self.world.links.unlabelled(from, to).is_some() {
            return Ok(());
        }
        let (from, to) = (&self.world.types[from].id, &self.world.types[to].id);
        Err(Reply::validation(format!(
            "There is no association definition between {from} and {to}"
        )))
    }

    /// What a removal answers: an empty batch in the dated versions, nothing in v4.
    fn nothing(&self) -> Reply {
        if self.version == Version::Numbered {
            return Reply::empty(204);
        }
        let body = batch(Vec::new(), &self.started, &instant_text(self.world.now_ms()));
        Reply::new(200, body)
    }

    fn link_reply(&mut self, whole: u16, mut results: Vec<Value>, errors: Vec<Value>) -> Reply {
        if self.world.settings.shuffle {
            self.world.dice.shuffle(&mut results);
        }
        self.batch_reply(whole, results, errors)
    }
}
