//! Writing records: create, update and upsert, alone and in batches.
//!
//! A batch is first checked as a whole (size, duplicate ids, key), then record by record into drafts, and
//! only then written: without a trace id on every input one refused record refuses them all, with trace
//! ids the others are written. HubSpot's order of evaluation is kept.

use super::association::TypeIx;
use super::clock::instant_text;
use super::draft::{Batch, Draft, Input};
use super::http::Query;
use super::log::Write;
use super::problem::Problem;
use super::reply::{Reply, batch, parse};
use super::route::{Route, Version};
use super::world::World;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};

/// The most inputs of an object batch.
pub(super) const INPUTS_MAX: usize = 100;

/// One request being answered: the world, and what the log will say of it.
pub(super) struct Asked<'a> {
    pub world: &'a mut World,
    pub version: Version,
    pub inputs: usize,
    pub writes: Vec<Write>,
    /// How many inputs a fault leaves out without a word.
    pub omitted: usize,
    pub started: String,
}

/// What a batch write does with its inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Create,
    Update,
    Upsert,
}

/// What became of the inputs of a batch before anything is written.
#[derive(Default)]
struct Checked {
    drafts: Vec<Draft>,
    refused: Vec<(Problem, Option<String>)>,
    /// Inputs whose record is not there, with their trace ids.
    missing: Vec<(String, Option<String>)>,
}

impl Asked<'_> {
    pub(super) fn batch_create(&mut self, kind: TypeIx, body: &[u8]) -> Result<Reply, Reply> {
        let inputs = self.inputs_of(body)?;
        self.no_repeated_emails(kind, &inputs)?;
        let mut checked = Checked::default();
        let mut batch = Batch::default();
        for input in &inputs {
            let draft = self.world.draft_new(kind, input, None, self.version, &mut batch);
            checked.push(draft, input);
        }
        self.finish(kind, Verb::Create, checked, &inputs)
    }

    pub(super) fn batch_update(&mut self, kind: TypeIx, body: &[u8]) -> Result<Reply, Reply> {
        let inputs = self.inputs_of(body)?;
        let key = self.key_of(kind, &inputs, Verb::Update)?;
        let mut checked = Checked::default();
        let mut batch = Batch::default();
        let mut unknown: Vec<String> = Vec::new();
        for input in &inputs {
            let id = input.id_text()?;
            let object = &self.world.types[kind];
            let found = match &key {
                Some(key) => object.holder(key, id),
                None => id.parse().ok(),
            };
            match found.filter(|id| object.live(*id).is_some()) {
                Some(found) => {
                    let draft = self
                        .world
                        .draft_change(kind, found, input, self.version, &mut batch);
                    checked.push(draft, input);
                }
                // HubSpot says nothing at all about an id that was merged away.
                None if found.is_some_and(|id| object.merged_into.contains_key(&id)) => {}
                None if let Some(key) = &key => unknown.push(format!("{key}:{id}")),
                None => checked.missing.push((id.to_owned(), input.trace())),
            }
        }
        if !unknown.is_empty() {
            let message = "Some objects could not be found by their unique property values.";
            return Err(Reply::error(404, "OBJECT_NOT_FOUND", message).with(
                "context",
                json!({"missingObjectPropertyValueCoordinates": unknown}),
            ));
        }
        self.finish(kind, Verb::Update, checked, &inputs)
    }

    pub(super) fn batch_upsert(&mut self, kind: TypeIx, body: &[u8]) -> Result<Reply, Reply> {
        let inputs = self.inputs_of(body)?;
        let key = self.key_of(kind, &inputs, Verb::Upsert)?;
        let mut checked = Checked::default();
        let mut batch = Batch::default();
        for input in &inputs {
            let key = key.as_deref().unwrap_or_default();
            let draft = match self.world.types[kind].holder(key, input.id_text()?) {
                Some(found) => self
                    .world
                    .draft_change(kind, found, input, self.version, &mut batch),
                None => self
                    .world
                    .draft_new(kind, input, Some(key), self.version, &mut batch),
            };
            checked.push(draft, input);
        }
        self.finish(kind, Verb::Upsert, checked, &inputs)
    }

    pub(super) fn create(&mut self, kind: TypeIx, body: &[u8]) -> Result<Reply, Reply> {
        let input: Input = parse(body)?;
        self.inputs = 1;
        let drafted = self
            .world
            .draft_new(kind, &input, None, self.version, &mut Batch::default());
        let draft = drafted.map_err(|problem| problem.reply())?;
        let shown = self.commit(kind, Verb::Create, &draft);
        Ok(Reply::new(201, shown))
    }

    pub(super) fn update(
        &mut self,
        kind: TypeIx,
        route: &Route,
        query: &Query,
        body: &[u8],
    ) -> Result<Reply, Reply> {
        let input: Input = parse(body)?;
        self.inputs = 1;
        let found = self
            .world
            .named_record(kind, &route.id, query.get("idProperty"))?;
        let drafted = self
            .world
            .draft_change(kind, found, &input, self.version, &mut Batch::default());
        let draft = drafted.map_err(|problem| problem.reply())?;
        let shown = self.commit(kind, Verb::Update, &draft);
        Ok(Reply::new(200, shown))
    }

    /// The inputs of a batch, once their number is allowed.
    fn inputs_of(&mut self, body: &[u8]) -> Result<Vec<Input>, Reply> {
        let mut inputs = parse::<super::draft::Inputs<Input>>(body)?.inputs;
        self.inputs = inputs.len();
        if inputs.len() > INPUTS_MAX {
            return Err(Reply::too_many_inputs(INPUTS_MAX));
        }
        super::fault::drop_some(&mut inputs, self.omitted, &mut self.world.dice);
        Ok(inputs)
    }

    /// The one property that all inputs are identified by, once no two name the same record.
    fn key_of(&self, kind: TypeIx, inputs: &[Input], verb: Verb) -> Result<Option<String>, Reply> {
        let object = &self.world.types[kind];
        let mut seen: HashSet<(Option<&str>, String)> = HashSet::new();
        let mut repeated: Vec<String> = Vec::new();
        for input in inputs {
            let key = input.key();
            let id = object
                .key_value(key.unwrap_or_default(), input.id_text()?)
                .into_owned();
            if !seen.insert((key, id.clone())) && !repeated.contains(&id) {
                repeated.push(id);
            }
        }
        if !repeated.is_empty() {
            return Err(Reply::duplicate_ids(&repeated));
        }
        let Some(first) = inputs.first() else {
            return Ok(None);
        };
        if inputs.iter().any(|input| input.key() != first.key()) {
            return Err(Reply::validation(
                "All inputs of a batch must use the same idProperty.",
            ));
        }
        let usable = |key: &str| object.is_key(key) && !(verb == Verb::Update && object.is_email(key));
        match (first.key(), verb) {
            (Some(key), _) if usable(key) => Ok(Some(key.to_owned())),
            (None, Verb::Upsert) => Err(Reply::validation(
                "Some required fields were not set: [idProperty]",
            )),
            (None, _) => Ok(None),
            (Some(key), verb) => {
                let doing = if verb == Verb::Update { "update" } else { "upsert" };
                Err(Reply::not_unique(doing, &object.id, key))
            }
        }
    }

    /// Two inputs with one e-mail refuse the whole batch, with or without trace ids.
    fn no_repeated_emails(&self, kind: TypeIx, inputs: &[Input]) -> Result<(), Reply> {
        let object = &self.world.types[kind];
        let emails = inputs.iter().filter_map(|input| input.properties.get("email"));
        let mut seen = HashSet::new();
        let repeated = emails
            .filter(|raw| !raw.0.is_empty())
            .any(|raw| !seen.insert(object.key_value("email", &raw.0)));
        match repeated && object.is_email("email") {
            true => Err(Reply::error(409, "CONFLICT", "Contact already exists")),
            false => Ok(()),
        }
    }

    fn finish(
        &mut self,
        kind: TypeIx,
        verb: Verb,
        checked: Checked,
        inputs: &[Input],
    ) -> Result<Reply, Reply> {
        let portal_id = self.world.settings.portal_id;
        let problems: Vec<Problem> = checked
            .refused
            .iter()
            .map(|(problem, _)| problem.clone())
            .collect();
        if !traced(inputs)
            && let Some(whole) = Problem::all(portal_id, &problems)
        {
            return Err(whole);
        }
        let mut results: Vec<Value> = checked
            .drafts
            .iter()
            .map(|draft| self.commit(kind, verb, draft))
            .collect();
        let mut errors: Vec<Value> = checked
            .refused
            .iter()
            .map(|(problem, trace)| problem.entry(trace.as_slice()))
            .collect();
        if !checked.missing.is_empty() {
            errors.push(missing_entry(&self.world.types[kind].label(), &checked.missing));
        }
        if self.world.settings.shuffle {
            self.world.dice.shuffle(&mut results);
        }
        let whole = if verb == Verb::Create { 201 } else { 200 };
        Ok(self.batch_reply(whole, results, errors))
    }

    /// A batch's answer: 207 as soon as there are errors, unless this version is set to fold them in.
    pub(super) fn batch_reply(&self, whole: u16, results: Vec<Value>, errors: Vec<Value>) -> Reply {
        let mut body = batch(results, &self.started, &instant_text(self.world.now_ms()));
        if errors.is_empty() {
            return Reply::new(whole, body);
        }
        body["numErrors"] = Value::from(errors.len());
        body["errors"] = Value::from(errors);
        let folded = self.version == Version::September2026 && !self.world.settings.multi_status;
        Reply::new(if folded { whole } else { 207 }, body)
    }

    /// Writes a draft and shows the record as the verb does.
    fn commit(&mut self, kind: TypeIx, verb: Verb, draft: &Draft) -> Value {
        self.world.write(kind, draft);
        let properties = draft
            .changes
            .iter()
            .map(|(name, value)| (name.to_string(), value.clone()))
            .collect();
        let object = self.world.types[kind].id.clone();
        self.writes.push(Write::Record {
            object,
            id: draft.id.to_string(),
            created: draft.new,
            properties,
        });
        let object = &self.world.types[kind];
        let record = &object.records[&draft.id];
        let written = draft
            .changes
            .iter()
            .map(|(name, _)| &**name)
            .chain(draft.key.as_deref());
        let mut shown = match verb {
            Verb::Create => self.world.shown_whole(object, record),
            Verb::Update | Verb::Upsert => self.world.shown(object, record, written, false),
        };
        let echoed = match verb {
            Verb::Create => self.world.settings.echo_trace_on_create,
            Verb::Update | Verb::Upsert => self.world.settings.echo_trace_on_upsert,
        };
        if let (true, Some(trace)) = (echoed, &draft.trace) {
            shown["objectWriteTraceId"] = Value::from(trace.clone());
        }
        if verb == Verb::Upsert {
            shown["new"] = Value::from(draft.new);
        }
        if !draft.warnings.is_empty() {
            shown["warnings"] = Value::from(draft.warnings.clone());
        }
        shown
    }
}

impl Checked {
    fn push(&mut self, draft: Result<Draft, Problem>, input: &Input) {
        match draft {
            Ok(draft) => self.drafts.push(draft),
            Err(problem) => self.refused.push((problem, input.trace())),
        }
    }
}

/// Whether every input carries a trace id of its own.
fn traced(inputs: &[Input]) -> bool {
    let traces: BTreeMap<String, ()> = inputs
        .iter()
        .filter_map(|input| Some((input.trace()?, ())))
        .collect();
    traces.len() == inputs.len()
}

/// The one entry that names all records which were not found.
pub(super) fn missing_entry(label: &str, missing: &[(String, Option<String>)]) -> Value {
    let ids: Vec<&String> = missing.iter().map(|(id, _)| id).collect();
    let traces: Vec<&String> = missing.iter().filter_map(|(_, trace)| trace.as_ref()).collect();
    let message = format!(
        "Could not get some {label} objects, they may be deleted or not exist. Check that ids are valid."
    );
    let mut entry = json!({"status": "error", "category": "OBJECT_NOT_FOUND", "message": message, "context": {"ids": ids}});
    if !traces.is_empty() {
        entry["context"]["objectWriteTraceId"] = json!(traces);
    }
    entry
}
