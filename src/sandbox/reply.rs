//! What an answer looks like: HubSpot's envelope, its error bodies, and the parsing of what was asked.
//!
//! Bodies are made without a correlation id; [`super::http`] adds it to the body and to the headers.

use super::value::Invalid;
use serde::de::{DeserializeOwned, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};
use std::fmt;

/// An answer before it becomes HTTP.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub status: u16,
    /// `Null` for an answer without a body.
    pub body: Value,
    /// A body that is no JSON, with its content type; wins over `body`.
    pub raw: Option<(&'static str, String)>,
    pub headers: Vec<(&'static str, String)>,
}

impl Reply {
    pub(super) fn new(status: u16, body: Value) -> Self {
        Self {
            status,
            body,
            raw: None,
            headers: Vec::new(),
        }
    }

    pub(super) fn empty(status: u16) -> Self {
        Self::new(status, Value::Null)
    }

    pub(super) fn text(status: u16, kind: &'static str, text: &str) -> Self {
        Self {
            raw: Some((kind, text.to_owned())),
            ..Self::empty(status)
        }
    }

    pub(super) fn error(status: u16, category: &str, message: impl Into<String>) -> Self {
        let mut body = json!({"status": "error", "message": message.into()});
        if !category.is_empty() {
            body["category"] = Value::from(category);
        }
        Self::new(status, body)
    }

    pub(super) fn validation(message: impl Into<String>) -> Self {
        Self::error(400, "VALIDATION_ERROR", message)
    }

    pub(super) fn with(mut self, field: &str, value: Value) -> Self {
        self.body[field] = value;
        self
    }

    pub(super) fn header(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }

    /// 404 of a path or an id that HubSpot does not know; it carries no category.
    pub(super) fn not_found() -> Self {
        Self::error(404, "", "resource not found")
    }

    /// 404 of a record that is not there.
    pub(super) fn no_object(id: &str) -> Self {
        Self::error(
            404,
            "OBJECT_NOT_FOUND",
            "Object not found.  objectId are usually numeric.",
        )
        .with("context", json!({"id": [id]}))
    }

    pub(super) fn no_type(named: &str) -> Self {
        Self::error(400, "", format!("Unable to infer object type from: {named}"))
    }

    pub(super) fn too_many_inputs(max: usize) -> Self {
        Self::validation(format!(
            "The maximum number of inputs supported in a batch is {max}. Please reduce the number of items and try again"
        ))
    }

    pub(super) fn not_unique(doing: &str, type_id: &str, property: &str) -> Self {
        Self::validation(format!(
            "Unable to perform {doing} by non-unique {type_id} property {property}"
        ))
    }

    pub(super) fn duplicate_ids(ids: &[String]) -> Self {
        Self::validation(format!(
            "Duplicate IDs found in batch input: [{}]. IDs must be unique",
            ids.join(", ")
        ))
        .with("context", json!({"ids": ids}))
    }
}

/// A scalar that HubSpot takes as text: strings, and numbers and booleans coerced.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Text(pub String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Scalar;
        impl Visitor<'_> for Scalar {
            type Value = Text;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_str<E>(self, text: &str) -> Result<Text, E> {
                Ok(Text(text.to_owned()))
            }
            fn visit_string<E>(self, text: String) -> Result<Text, E> {
                Ok(Text(text))
            }
            fn visit_bool<E>(self, value: bool) -> Result<Text, E> {
                Ok(Text(value.to_string()))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Text, E> {
                Ok(Text(value.to_string()))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Text, E> {
                Ok(Text(value.to_string()))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Text, E> {
                Ok(Text(value.to_string()))
            }
        }
        deserializer.deserialize_any(Scalar)
    }
}

/// Reads a request body. A bare array, or an object without the expected fields, is taken for an empty
/// request, as HubSpot does (2xx with no results).
pub(super) fn parse<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, Reply> {
    if body.trim_ascii_start().first() == Some(&b'[') && serde_json::from_slice::<Value>(body).is_ok() {
        return Ok(T::default());
    }
    parse_exactly(body)
}

/// Reads a request body that may be an array.
pub(super) fn parse_exactly<T: DeserializeOwned>(body: &[u8]) -> Result<T, Reply> {
    serde_json::from_slice(body).map_err(|error| {
        let words = error.to_string();
        let reason = match words
            .split_once("missing field `")
            .and_then(|(_, rest)| rest.split_once('`'))
        {
            Some((field, _)) => format!("Some required fields were not set: [{field}]"),
            None => words,
        };
        let at = format!("line {}, column {}", error.line(), error.column());
        Reply::error(400, "", format!("Invalid input JSON on {at}: {reason}"))
    })
}

/// A batch answer without results yet.
pub(super) fn batch(results: Vec<Value>, started: &str, completed: &str) -> Value {
    json!({"status": "COMPLETE", "results": results, "startedAt": started, "completedAt": completed})
}

/// The message and the `errors` of values that were refused, HubSpot's way: JSON inside the message.
pub(super) fn invalid_values(portal_id: i64, invalid: &[Invalid]) -> (String, Value) {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Embedded<'a> {
        is_valid: bool,
        message: &'a str,
        error: &'a str,
        name: &'a str,
        localized_error_message: &'a str,
        portal_id: i64,
    }
    let embedded: Vec<Embedded<'_>> = invalid
        .iter()
        .map(|one| Embedded {
            is_valid: false,
            message: &one.message,
            error: &one.code,
            name: &one.name,
            localized_error_message: &one.message,
            portal_id,
        })
        .collect();
    let embedded = serde_json::to_string(&embedded).unwrap_or_default();
    // HubSpot names each distinct complaint once here, however many records share it.
    let mut errors: Vec<Value> = Vec::new();
    for one in invalid {
        let error =
            json!({"message": one.message, "code": one.code, "context": {"propertyName": [one.name]}});
        if !errors.contains(&error) {
            errors.push(error);
        }
    }
    (
        format!("Property values were not valid: {embedded}"),
        Value::from(errors),
    )
}
