//! The wire: what goes to HubSpot and what comes back, as plain values.
//!
//! Request bodies are written by hand around the properties, which arrive as one JSON object in text and
//! leave as the same bytes: nothing is parsed and rebuilt on the way. Shapes and limits are those of
//! HubSpot's OpenAPI files for objects, associations and properties, versions 2026-03 and 2026-09, whose requests
//! are the same.

use std::collections::{BTreeMap, HashSet};

use crate::sync::outcome::Refusal;
use crate::sync::pausing::Cause;

/// The most inputs of one object batch (create, update, upsert, read, archive) and of one batch of
/// default associations.
pub const BATCH_MAX: usize = 100;

/// The most inputs of one `batch/read` of associations.
pub const ASSOCIATION_READ_MAX: usize = 1000;

/// One input of a `batch/upsert`.
#[derive(Debug, Clone, Copy)]
pub struct UpsertInput<'a> {
    /// The write trace id, unique in the batch; errors name it and most results echo it.
    pub trace: &'a str,
    /// The natural key's value; the property it belongs to is the call's.
    pub match_value: &'a str,
    /// The properties, one JSON object in text; travels as it is.
    pub properties: &'a str,
}

/// The most characters of a search's body (HubSpot's documentation of search).
pub const SEARCH_CHARACTERS_MAX: usize = 3000;

/// The most results of one search.
pub const SEARCH_RESULTS_MAX: usize = 200;

/// One input of a `batch/create`.
#[derive(Debug, Clone, Copy)]
pub struct CreateInput<'a> {
    /// The write trace id, unique in the batch; errors name it, results may not echo it.
    pub trace: &'a str,
    /// The properties, one JSON object in text; travels as it is.
    pub properties: &'a str,
}

/// One input of a `batch/update`.
#[derive(Debug, Clone, Copy)]
pub struct UpdateInput<'a> {
    /// The write trace id, unique in the batch.
    pub trace: &'a str,
    /// The record's HubSpot id.
    pub id: &'a str,
    /// The properties, one JSON object in text; travels as it is.
    pub properties: &'a str,
}

/// One input of a `batch/read` of associations.
#[derive(Debug, Clone, Copy)]
pub struct ReadLinks<'a> {
    /// The record whose associations are asked for.
    pub id: &'a str,
    /// Where the last page of this record ended.
    pub after: Option<&'a str>,
}

/// Which association is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AssociationKind<'a> {
    /// The unlabelled one; HubSpot finds its type.
    Default,
    /// Labelled ones: for each pair the types, found in [`crate::hubspot::Client::labels`], that it is to have. Labels
    /// that the pair has and that are not among them go.
    Labelled(&'a [Vec<AssociationType>]),
}

/// A type of association between two object types, in one direction.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AssociationType {
    /// `HUBSPOT_DEFINED`, `USER_DEFINED` or `INTEGRATOR_DEFINED`.
    pub category: String,
    /// The type's number; a portal's own for labels and for pairs with a custom object.
    pub type_id: i64,
    /// The label people see; `None`: the unlabelled type.
    pub label: Option<String>,
}

/// What HubSpot said to a batch. Inputs that neither list names are unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BatchReply {
    /// The records that were written or found, in any order.
    pub results: Vec<Done>,
    /// The records that were refused, or not found. One error may name several records, or none.
    pub errors: Vec<RecordError>,
    /// HubSpot's correlation id of the request, for its support.
    pub correlation_id: Option<String>,
}

/// A record that HubSpot wrote or found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Done {
    /// Its HubSpot id; after a merge it may differ from the one asked for.
    pub id: String,
    /// The write trace id, where HubSpot echoes it.
    pub trace: Option<String>,
    /// Whether an upsert created it, where HubSpot says so.
    pub new: Option<bool>,
    /// When HubSpot made the record by its own clock, microseconds since the Unix epoch, where it says so.
    pub created_at: Option<i64>,
    /// Of the properties HubSpot returned, those asked for: the match-on property for an upsert, the
    /// properties of the call for a read, none for an update. A null is `None`; e-mails are lower-case.
    pub properties: BTreeMap<String, Option<String>>,
}

/// What HubSpot has of the records it was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadReply {
    /// The records it has.
    pub results: Vec<Done>,
    /// Whether it said of every other record that it does not exist. If not, they may: an answer is easily cut short.
    pub whole: bool,
}

impl ReadReply {
    /// The reply to a question for these records, which refuses none for another reason than that it is missing.
    pub(super) fn of(reply: BatchReply, asked: &[&str]) -> ReadReply {
        let missing: HashSet<&str> = reply
            .errors
            .iter()
            .flat_map(|error| &error.ids)
            .map(String::as_str)
            .collect();
        let asked: HashSet<&str> = asked.iter().copied().collect();
        let of_all = reply.errors.iter().any(|error| error.ids.is_empty());
        ReadReply {
            whole: of_all || reply.results.len() + missing.len() >= asked.len(),
            results: reply.results,
        }
    }
}

/// A record that HubSpot refused. Holds no value of the row but `ids`, which it does not show.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RecordError {
    /// The write trace ids it concerns; empty where HubSpot does not say.
    pub traces: Vec<String>,
    /// The record ids, or natural keys, it concerns. Natural keys are values of a row: match, never log.
    pub ids: Vec<String>,
    /// HubSpot's category as it writes it, e.g. `VALIDATION_ERROR`; `UNKNOWN` if it has none.
    pub category: String,
    /// What happened, redacted.
    pub message: String,
    /// The properties at fault, if named.
    pub properties: Vec<String>,
    /// HubSpot's finer codes, e.g. `INVALID_OPTION`.
    pub codes: Vec<String>,
    /// The record that stands in the way, if named.
    pub existing_id: Option<String>,
}

impl std::fmt::Debug for RecordError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordError")
            .field("category", &self.category)
            .field("message", &self.message)
            .field("properties", &self.properties)
            .field("codes", &self.codes)
            .field("traces", &self.traces)
            .field("ids", &format_args!("{} withheld", self.ids.len()))
            .field("existing_id", &self.existing_id)
            .finish()
    }
}

impl RecordError {
    /// Whether it says that the record is not there (deleted, or never was).
    pub fn is_not_found(&self) -> bool {
        self.category == "OBJECT_NOT_FOUND"
            || self
                .codes
                .iter()
                .any(|code| code.ends_with("NO_ASSOCIATIONS_FOUND"))
    }

    /// As a refusal of the record.
    pub fn refusal(&self, correlation_id: Option<&str>) -> Refusal {
        Refusal {
            category: self.category.to_lowercase(),
            message: self.message.clone(),
            properties: self.properties.clone(),
            correlation_id: correlation_id.map(str::to_owned),
            existing_id: self.existing_id.clone(),
            causes: Cause::of(&self.codes, &self.properties, &self.message),
        }
    }
}

/// What HubSpot said to a batch of associations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Associated {
    /// The pairs asked for that it confirmed, as (from, to).
    pub made: Vec<(String, String)>,
    /// What it refused; often without saying which pair.
    pub errors: Vec<RecordError>,
    /// HubSpot's correlation id of the request.
    pub correlation_id: Option<String>,
}

/// What HubSpot said to the removal of associations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dissociated {
    /// What it refused; often without saying which pair.
    pub errors: Vec<RecordError>,
    /// HubSpot's correlation id of the request.
    pub correlation_id: Option<String>,
}

/// A page of associations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AssociationPage {
    /// The associations found.
    pub links: Vec<FoundLink>,
    /// The records that have none, where HubSpot says so.
    pub without: Vec<String>,
    /// The records that have more, with the `after` to ask with.
    pub next: Vec<(String, String)>,
    /// What went wrong, without the records that merely have no association.
    pub errors: Vec<RecordError>,
    /// HubSpot's correlation id of the request.
    pub correlation_id: Option<String>,
}

/// An association that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundLink {
    /// The record asked for.
    pub from: String,
    /// The record it is associated with.
    pub to: String,
    /// Every type this pair has: labelled and unlabelled.
    pub types: Vec<AssociationType>,
}

/// What a search found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The records, with the property searched by.
    pub results: Vec<Done>,
    /// Whether there are more.
    pub more: bool,
    /// Whether it has as many as it says there are. If not, there may be others: an answer is easily cut short.
    pub whole: bool,
}

/// A property as HubSpot defines it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PropertyInfo {
    /// The internal name.
    pub name: String,
    /// `string`, `number`, `bool`, `date`, `datetime`, `enumeration`, …
    pub kind: String,
    /// Whether its values are unique. Not reliable for HubSpot's own: a contact's `email` says no.
    pub has_unique_value: bool,
    /// Whether its value cannot be set.
    pub read_only: bool,
}

/// The portal that the token belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The portal's id.
    pub portal_id: i64,
    /// The portal's time zone as HubSpot names it, e.g. `US/Eastern`; its day ends the daily quota's.
    pub time_zone: Option<String>,
    /// The zone's present offset from UTC in seconds, east positive.
    pub utc_offset_seconds: Option<i32>,
}

/// The body of a `batch/upsert` on `match_on`.
pub(super) fn upsert_body(match_on: &str, inputs: &[UpsertInput<'_>]) -> Vec<u8> {
    let mut body = Body::inputs(inputs.iter().map(|input| input.properties.len() + 200).sum());
    for input in inputs {
        body.open();
        body.text("idProperty", match_on).text("id", input.match_value);
        body.text("objectWriteTraceId", input.trace)
            .raw("properties", input.properties);
        body.close();
    }
    body.end()
}

/// The body of a `batch/create`.
pub(super) fn create_body(inputs: &[CreateInput<'_>]) -> Vec<u8> {
    let mut body = Body::inputs(inputs.iter().map(|input| input.properties.len() + 100).sum());
    for input in inputs {
        body.open();
        body.text("objectWriteTraceId", input.trace)
            .raw("properties", input.properties);
        body.close();
    }
    body.end()
}

/// The body of a search for the records whose `property` is one of `values`. HubSpot wants the values of `IN` in
/// lower case and compares without case.
pub(super) fn search_body(property: &str, values: &[&str]) -> Vec<u8> {
    let values: Vec<String> = values.iter().map(|value| value.to_lowercase()).collect();
    let filter = serde_json::json!({"propertyName": property, "operator": "IN", "values": values});
    serde_json::json!({
        "filterGroups": [{"filters": [filter]}],
        "properties": [property],
        "limit": SEARCH_RESULTS_MAX,
    })
    .to_string()
    .into_bytes()
}

/// How many of `values`, from the first on, one search for them by `property` can carry; 0 if the first is too long
/// by itself.
pub fn searchable(property: &str, values: &[&str]) -> usize {
    let characters = |text: &str| text.chars().count();
    let written = |value: &str| characters(&serde_json::Value::from(value.to_lowercase()).to_string());
    let empty = String::from_utf8_lossy(&search_body(property, &[]))
        .chars()
        .count();
    let mut left = SEARCH_CHARACTERS_MAX.saturating_sub(empty);
    let fits = values.iter().take(BATCH_MAX).take_while(|value| {
        // The comma before it.
        let wants = written(value) + 1;
        let fits = wants <= left;
        left = left.saturating_sub(wants);
        fits
    });
    fits.count()
}

/// The body of a `batch/update`.
pub(super) fn update_body(inputs: &[UpdateInput<'_>]) -> Vec<u8> {
    let mut body = Body::inputs(inputs.iter().map(|input| input.properties.len() + 150).sum());
    for input in inputs {
        body.open();
        body.text("id", input.id).text("objectWriteTraceId", input.trace);
        body.raw("properties", input.properties);
        body.close();
    }
    body.end()
}

/// The body of a `batch/read` of objects.
pub(super) fn read_body(id_property: Option<&str>, ids: &[&str], properties: &[&str]) -> Vec<u8> {
    let inputs: Vec<_> = ids.iter().map(|id| serde_json::json!({ "id": id })).collect();
    let mut body = serde_json::json!({ "properties": properties, "inputs": inputs });
    if let Some(name) = id_property {
        body["idProperty"] = name.into();
    }
    body.to_string().into_bytes()
}

/// The body of a `batch/archive` of objects.
pub(super) fn archive_body(ids: &[&str]) -> Vec<u8> {
    let inputs: Vec<_> = ids.iter().map(|id| serde_json::json!({ "id": id })).collect();
    serde_json::json!({ "inputs": inputs }).to_string().into_bytes()
}

/// The body of a batch of associations, default or labelled.
pub(super) fn associate_body(kind: AssociationKind<'_>, pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut body = Body::inputs(pairs.len() * 160);
    for (at, (from, to)) in pairs.iter().enumerate() {
        body.open();
        body.id("from", from).id("to", to);
        if let AssociationKind::Labelled(types) = kind {
            body.raw("types", &specs(types.get(at).map_or(&[], Vec::as_slice)));
        }
        body.close();
    }
    body.end()
}

/// The body of a batch that removes associations, or a label of them.
pub(super) fn dissociate_body(label: Option<&AssociationType>, pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut body = Body::inputs(pairs.len() * 160);
    for (from, to) in pairs {
        body.open();
        body.id("from", from);
        match label {
            None => {
                let to = serde_json::json!([{ "id": to }]);
                body.raw("to", &to.to_string());
            }
            Some(label) => {
                body.id("to", to)
                    .raw("types", &specs(std::slice::from_ref(label)));
            }
        }
        body.close();
    }
    body.end()
}

/// Association types as requests name them.
fn specs(types: &[AssociationType]) -> String {
    let specs = types.iter().map(|of| {
        serde_json::json!({
            "associationCategory": of.category,
            "associationTypeId": of.type_id,
        })
    });
    serde_json::Value::Array(specs.collect()).to_string()
}

/// The body of a `batch/read` of associations.
pub(super) fn read_links_body(inputs: &[ReadLinks<'_>]) -> Vec<u8> {
    let mut body = Body::inputs(inputs.len() * 40);
    for input in inputs {
        body.open();
        body.text("id", input.id);
        if let Some(after) = input.after {
            body.text("after", after);
        }
        body.close();
    }
    body.end()
}

/// `{"inputs":[{…},{…}]}`, being written.
struct Body {
    bytes: Vec<u8>,
    first_input: bool,
    first_field: bool,
}

impl Body {
    fn inputs(bytes_expected: usize) -> Body {
        let mut bytes = Vec::with_capacity(bytes_expected + 16);
        bytes.extend_from_slice(b"{\"inputs\":[");
        Body {
            bytes,
            first_input: true,
            first_field: true,
        }
    }

    fn open(&mut self) {
        if !self.first_input {
            self.bytes.push(b',');
        }
        self.bytes.push(b'{');
        self.first_input = false;
        self.first_field = true;
    }

    fn close(&mut self) {
        self.bytes.push(b'}');
    }

    fn name(&mut self, name: &str) {
        if !self.first_field {
            self.bytes.push(b',');
        }
        self.first_field = false;
        self.string(name);
        self.bytes.push(b':');
    }

    fn string(&mut self, text: &str) {
        serde_json::to_writer(&mut self.bytes, text).expect("writing a string to memory cannot fail");
    }

    fn text(&mut self, name: &str, value: &str) -> &mut Body {
        self.name(name);
        self.string(value);
        self
    }

    fn raw(&mut self, name: &str, json: &str) -> &mut Body {
        self.name(name);
        self.bytes.extend_from_slice(json.as_bytes());
        self
    }

    fn id(&mut self, name: &str, id: &str) -> &mut Body {
        self.name(name);
        self.bytes.extend_from_slice(b"{\"id\":");
        self.string(id);
        self.bytes.push(b'}');
        self
    }

    fn end(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(b"]}");
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_travel_byte_by_byte_as_they_came() {
        let odd = r#"{ "b" : "1.50",  "a":"\u00e9 \"x\" 😀" }"#;
        let input = UpsertInput {
            trace: "t\"1",
            match_value: "Ana \\ \u{1}",
            properties: odd,
        };
        let body = String::from_utf8(upsert_body("booking_id", &[input, input])).unwrap();
        assert_eq!(body.matches(odd).count(), 2);
        let parsed: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(parsed["inputs"][1]["id"], "Ana \\ \u{1}");
        assert_eq!(parsed["inputs"][1]["objectWriteTraceId"], "t\"1");
        assert_eq!(parsed["inputs"][1]["idProperty"], "booking_id");
    }

    #[test]
    fn a_search_is_as_long_as_hubspot_allows_and_no_longer() {
        let values: Vec<String> = (0..500).map(|number| format!("Ä\"{number:04}")).collect();
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        let long = "x".repeat(500);
        for some in [&values[..], &[&*long; 20]] {
            let count = searchable("booking_id", some);
            let characters = |count: usize| {
                let body = String::from_utf8(search_body("booking_id", &some[..count])).unwrap();
                body.chars().count()
            };
            assert!(characters(count) <= SEARCH_CHARACTERS_MAX);
            assert!(count == BATCH_MAX || characters(count + 1) > SEARCH_CHARACTERS_MAX - 1);
        }
        assert_eq!(searchable("booking_id", &[&"x".repeat(3000)]), 0);
        assert_eq!(searchable("booking_id", &[]), 0);
    }

    #[test]
    fn bodies_have_the_published_shapes() {
        let labelled = AssociationType {
            category: "USER_DEFINED".into(),
            type_id: 17,
            label: Some("Exam".into()),
        };
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        assert_eq!(
            text(associate_body(AssociationKind::Default, &[("1", "2")])),
            r#"{"inputs":[{"from":{"id":"1"},"to":{"id":"2"}}]}"#
        );
        assert_eq!(
            text(associate_body(
                AssociationKind::Labelled(&[vec![labelled.clone()]]),
                &[("1", "2")]
            )),
            r#"{"inputs":[{"from":{"id":"1"},"to":{"id":"2"},"types":[{"associationCategory":"USER_DEFINED","associationTypeId":17}]}]}"#
        );
        assert_eq!(
            text(dissociate_body(None, &[("1", "2")])),
            r#"{"inputs":[{"from":{"id":"1"},"to":[{"id":"2"}]}]}"#
        );
        assert_eq!(
            text(dissociate_body(Some(&labelled), &[("1", "2")])),
            r#"{"inputs":[{"from":{"id":"1"},"to":{"id":"2"},"types":[{"associationCategory":"USER_DEFINED","associationTypeId":17}]}]}"#
        );
        assert_eq!(
            text(read_links_body(&[
                ReadLinks { id: "1", after: None },
                ReadLinks {
                    id: "2",
                    after: Some("9")
                }
            ])),
            r#"{"inputs":[{"id":"1"},{"id":"2","after":"9"}]}"#
        );
        let create = CreateInput {
            trace: "t",
            properties: r#"{"a":"1"}"#,
        };
        assert_eq!(
            text(create_body(&[create])),
            r#"{"inputs":[{"objectWriteTraceId":"t","properties":{"a":"1"}}]}"#
        );
        let search: serde_json::Value = serde_json::from_slice(&search_body("a", &["B", "c"])).unwrap();
        let filter = serde_json::json!({"propertyName": "a", "operator": "IN", "values": ["b", "c"]});
        assert_eq!(search["filterGroups"], serde_json::json!([{"filters": [filter]}]));
        let update = UpdateInput {
            trace: "t",
            id: "9",
            properties: r#"{"a":""}"#,
        };
        assert_eq!(
            text(update_body(&[update])),
            r#"{"inputs":[{"id":"9","objectWriteTraceId":"t","properties":{"a":""}}]}"#
        );
    }
}
