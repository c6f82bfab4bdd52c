//! The sandbox's own routes, below `/_sandbox/`: faults, rules of refusal, time, and a look at the world.
//!
//! | route | what it does |
//! |---|---|
//! | `POST faults` | `{"fault":"lose-reply","endpoint":"upsert","times":1,"skip":0,"retry-after-seconds":10,"milliseconds":500,"count":1}`; `times` 0 is for ever; `hold` takes `when` and `name`; `refuse-record` takes `type`, `property`, `value`; `refuse-association` takes `type`, `to`, `value` |
//! | `GET faults`, `DELETE faults` | what waits; forget it |
//! | `POST release` | `{"name":"…"}` lets go what is held under that name; without a name everything |
//! | `GET log` | the requests, newest last; `?limit=` |
//! | `GET records/{type}` | all records that are not archived |
//! | `POST records/{type}` | `{"properties":{…}}` makes one, past validation |
//! | `POST populate` | `{"contacts":100000,"companies":20000,"deals":20000}` fills the portal as if it were years old |
//! | `POST set/{type}` | `{"id":"…","properties":{…}}` types values over; empty clears |
//! | `POST merge/{type}` | `{"primary":"…","other":"…"}` |
//! | `POST archive/{type}`, `POST purge/{type}` | `{"id":"…"}`; purged is gone for good |
//! | `POST advance` | `{"milliseconds":10000}` moves the clock ahead |
//! | `POST limits` | `{"requests-per-window":100,"daily":null}` |
//!
//! No token is asked for: the port is a loopback one, and what it guards is made up.

use super::Shared;
use super::bulk::Population;
use super::fault::{Endpoint, Fault, Gate, When};
use super::http::Query;
use super::log::{Request, Write};
use super::reply::{Reply, Text, parse};
use super::world::{Refusal, World};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Where the sandbox's own routes start.
pub(super) const PREFIX: &str = "/_sandbox/";

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
struct Scripted {
    fault: String,
    endpoint: Option<Endpoint>,
    times: Option<u32>,
    skip: u32,
    retry_after_seconds: Option<u64>,
    milliseconds: Option<u64>,
    count: Option<usize>,
    when: Option<When>,
    name: String,
    #[serde(rename = "type")]
    object: String,
    to: String,
    property: String,
    value: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Order {
    name: Option<String>,
    primary: String,
    other: String,
    id: String,
    milliseconds: u64,
    requests_per_window: Option<u32>,
    daily: Option<u32>,
    properties: BTreeMap<String, Text>,
    contacts: usize,
    companies: usize,
    deals: usize,
}

/// Answers one of the sandbox's own routes; `path` is what follows the prefix.
pub(super) fn answer(shared: &Shared, method: &str, path: &str, query: &Query, body: &[u8]) -> Reply {
    let done = match (method, path.split_once('/').unwrap_or((path, ""))) {
        ("POST", ("faults", "")) => parse(body).and_then(|scripted| shared.script(&scripted)),
        ("GET", ("faults", "")) => Ok(shared.waiting()),
        ("DELETE", ("faults", "")) => {
            shared.clear_faults();
            Ok(json!({}))
        }
        ("GET", ("log", "")) => query.number("limit", 100).map(|limit| shared.logged(limit)),
        ("GET", ("records", object)) => Ok(shared.records(object)),
        ("POST", (verb, object)) => parse(body).and_then(|order| shared.obey(verb, object, &order)),
        _ => Err(Reply::not_found()),
    };
    shared.changed();
    done.map_or_else(|refused| refused, |body| Reply::new(200, body))
}

impl Shared {
    fn script(&self, scripted: &Scripted) -> Result<Value, Reply> {
        let times = match scripted.times {
            None => Some(1),
            Some(0) => None,
            times => times,
        };
        let no_type = || Reply::no_type(&scripted.object);
        let (object, value) = (&scripted.object, &scripted.value);
        let mut fault = match scripted.fault.as_str() {
            "refuse-record" => {
                self.world()
                    .refuse_record(object, &scripted.property, value, times)
                    .ok_or_else(no_type)?;
                return Ok(json!({}));
            }
            "refuse-association" => {
                self.world()
                    .refuse_association(object, &scripted.to, value, times)
                    .ok_or_else(no_type)?;
                return Ok(json!({}));
            }
            "hold" => {
                let gate = Gate::shut();
                self.holds().push((scripted.name.clone(), Arc::clone(&gate)));
                Fault::hold(scripted.when.unwrap_or(When::Before), gate)
            }
            name => Fault::named(name).ok_or_else(|| {
                let known = Fault::NAMES.join(", ");
                Reply::validation(format!(
                    "There is no fault {name}. Known: {known}, hold, refuse-record, refuse-association"
                ))
            })?,
        };
        fault.times = times;
        fault = fault
            .on(scripted.endpoint.unwrap_or(Endpoint::Any))
            .after(scripted.skip);
        if let Some(seconds) = scripted.retry_after_seconds {
            fault = fault.retry_after(Duration::from_secs(seconds));
        }
        if let Some(milliseconds) = scripted.milliseconds {
            fault = fault.lasting(Duration::from_millis(milliseconds));
        }
        if let Some(count) = scripted.count {
            fault = fault.dropping(count);
        }
        self.faults().add(fault);
        Ok(json!({}))
    }

    fn waiting(&self) -> Value {
        let faults = self.faults();
        let shown = faults.waiting().map(|fault| {
            json!({"fault": fault.name, "endpoint": fault.endpoint, "times": fault.times, "skip": fault.skip})
        });
        json!({"faults": shown.collect::<Vec<Value>>()})
    }

    fn obey(&self, verb: &str, object: &str, order: &Order) -> Result<Value, Reply> {
        match verb {
            "release" => {
                self.release(order.name.as_deref());
                Ok(json!({}))
            }
            "advance" => {
                self.clock.advance(Duration::from_millis(order.milliseconds));
                Ok(json!({}))
            }
            "limits" => {
                let mut limits = self.limits();
                (limits.per_window, limits.per_day) = (order.requests_per_window, order.daily);
                Ok(json!({}))
            }
            "populate" => {
                self.world().populate(Population {
                    contacts: order.contacts,
                    companies: order.companies,
                    deals: order.deals,
                });
                Ok(json!({}))
            }
            "records" | "set" | "merge" | "archive" | "purge"
                if self.world().type_position(object).is_none() =>
            {
                Err(Reply::no_type(object))
            }
            "records" => {
                let values = order
                    .properties
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.0.as_str()));
                Ok(json!({"id": self.world().create(object, values)}))
            }
            "merge" => match self.world().merge(object, &order.primary, &order.other) {
                Some(survivor) => Ok(json!({"id": survivor})),
                None => Err(Reply::not_found()),
            },
            "set" => {
                let mut world = self.world();
                if world.record(object, &order.id).is_none() {
                    return Err(Reply::not_found());
                }
                for (name, value) in &order.properties {
                    world.set(object, &order.id, name, &value.0);
                }
                Ok(json!({}))
            }
            "purge" => match self.world().purge(object, &order.id) {
                true => Ok(json!({})),
                false => Err(Reply::not_found()),
            },
            "archive" => match self.world().archive(object, &order.id) {
                true => Ok(json!({})),
                false => Err(Reply::not_found()),
            },
            _ => Err(Reply::not_found()),
        }
    }

    fn release(&self, name: Option<&str>) {
        self.holds().retain(|(held, gate)| {
            let go = name.is_none_or(|name| name == held);
            if go {
                gate.open();
            }
            !go
        });
    }

    fn logged(&self, limit: usize) -> Value {
        let world = self.world();
        let mut newest: Vec<Value> = world.requests().rev().take(limit).map(request_shown).collect();
        newest.reverse();
        json!({"requests": newest})
    }

    fn records(&self, object: &str) -> Value {
        let world = self.world();
        let shown = world.records(object).map(|record| {
            let values: BTreeMap<&str, &str> = record
                .values
                .iter()
                .map(|(name, value)| (&**name, &**value))
                .collect();
            json!({"id": record.id(), "properties": values})
        });
        json!({"records": shown.collect::<Vec<Value>>()})
    }
}

impl World {
    /// Adds a rule that refuses a record; nothing if the type is unknown.
    pub(super) fn refuse_record(
        &mut self,
        object: &str,
        property: &str,
        value: &str,
        times: Option<u32>,
    ) -> Option<()> {
        let (object, property, value) = (self.type_position(object)?, property.to_owned(), value.to_owned());
        self.refusals.push(Refusal {
            object,
            to: None,
            property,
            value,
            times,
        });
        Some(())
    }

    /// Adds a rule that refuses an association; nothing if a type is unknown.
    pub(super) fn refuse_association(
        &mut self,
        from: &str,
        to: &str,
        id: &str,
        times: Option<u32>,
    ) -> Option<()> {
        let (object, to) = (self.type_position(from)?, Some(self.type_position(to)?));
        self.refusals.push(Refusal {
            object,
            to,
            property: String::new(),
            value: id.to_owned(),
            times,
        });
        Some(())
    }
}

fn request_shown(request: &Request) -> Value {
    let writes: Vec<Value> = request.writes.iter().map(write_shown).collect();
    json!({
        "number": request.number,
        "method": request.method,
        "path": request.path,
        "endpoint": request.endpoint,
        "inputs": request.inputs,
        "arrivedAt": super::clock::instant_text(request.arrived_ms),
        "status": request.status,
        "writes": writes,
    })
}

fn write_shown(write: &Write) -> Value {
    match write {
        Write::Record {
            object,
            id,
            created,
            properties,
        } => {
            let properties: BTreeMap<&String, &String> =
                properties.iter().map(|(name, value)| (name, value)).collect();
            json!({"record": {"type": object, "id": id, "created": created, "properties": properties}})
        }
        Write::Archived { object, id } => json!({"archived": {"type": object, "id": id}}),
        Write::Linked { from, to } => json!({"linked": {"from": from, "to": to}}),
        Write::Unlinked { from, to } => json!({"unlinked": {"from": from, "to": to}}),
    }
}
