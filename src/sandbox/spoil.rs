//! Pages that are wrong: what a list, a search or a batch read answers when HubSpot itself is broken.

use super::reply::Reply;
use serde_json::{Value, json};

/// What is wrong with a page of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spoil {
    /// The next page is this one again.
    RepeatedPage,
    /// The place to go on from is not known any more.
    UnknownCursor,
    /// The first record stands there twice.
    RepeatedRecord,
    /// The first record has no id.
    NoId,
    /// A property of the first record is no text.
    MistypedProperty,
    /// The first record was modified at no time.
    MistypedDate,
}

impl Spoil {
    /// The answer with this wrong in it; `after` is where the request asked to go on.
    pub(super) fn applied(self, mut reply: Reply, after: Option<&str>) -> Reply {
        match self {
            Spoil::UnknownCursor => {
                return Reply::validation("The cursor given by after is invalid or has expired.");
            }
            Spoil::RepeatedPage => {
                let first = reply.body["results"][0]["id"].clone();
                let here = after.map_or(first, Value::from);
                if !here.is_null() {
                    reply.body["paging"] = json!({"next": {"after": here}});
                }
                return reply;
            }
            _ => {}
        }
        let Some(results) = reply.body.get_mut("results").and_then(Value::as_array_mut) else {
            return reply;
        };
        let Some(first) = results.first_mut() else {
            return reply;
        };
        match self {
            Spoil::RepeatedRecord => {
                let again = first.clone();
                results.push(again);
            }
            Spoil::NoId => {
                if let Some(fields) = first.as_object_mut() {
                    fields.remove("id");
                }
            }
            Spoil::MistypedProperty => {
                let properties = first.get_mut("properties").and_then(Value::as_object_mut);
                let named = properties.into_iter().flatten();
                let value = named
                    .filter(|(name, value)| !name.starts_with("hs_") && value.is_string())
                    .map(|(_, value)| value)
                    .next();
                if let Some(value) = value {
                    *value = json!({"value": value.clone(), "versions": [1, null]});
                }
            }
            Spoil::MistypedDate => first["updatedAt"] = json!("the day before yesterday"),
            Spoil::UnknownCursor | Spoil::RepeatedPage => {}
        }
        reply
    }
}
