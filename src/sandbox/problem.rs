//! Why one record of a write is refused, and how that is told: as an entry of `errors` beside the records
//! that were taken, or as the answer to the whole request.

use super::object_type::ObjectType;
use super::reply::{Reply, invalid_values};
use super::value::Invalid;
use serde_json::{Map, Value, json};

/// Why one record is refused.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    status: u16,
    category: &'static str,
    sub_category: Option<&'static str>,
    message: String,
    more: Box<More>,
}

#[derive(Debug, Clone, Default)]
struct More {
    context: Map<String, Value>,
    errors: Option<Value>,
    /// For values that were refused: told again when the whole request is refused.
    invalid: Vec<Invalid>,
}

impl Problem {
    fn new(status: u16, category: &'static str, message: String) -> Self {
        Self {
            status,
            category,
            sub_category: None,
            message,
            more: Box::default(),
        }
    }

    pub(super) fn validation(message: String) -> Self {
        Self::new(400, "VALIDATION_ERROR", message)
    }

    pub(super) fn sub_category(mut self, named: &'static str) -> Self {
        self.sub_category = Some(named);
        self
    }

    pub(super) fn context(mut self, name: &str, values: Value) -> Self {
        self.more.context.insert(name.to_owned(), values);
        self
    }

    /// Values that their properties do not take.
    pub(super) fn invalid(portal_id: i64, invalid: Vec<Invalid>) -> Self {
        let (message, errors) = invalid_values(portal_id, &invalid);
        let more = More {
            errors: Some(errors),
            invalid,
            ..More::default()
        };
        Self {
            more: Box::new(more),
            ..Self::validation(message)
        }
    }

    /// Rules of the portal that only version 2026-09 enforces.
    pub(super) fn rule(broken: &[Invalid]) -> Self {
        let told: Vec<Value> = broken
            .iter()
            .map(|one| json!({"code": one.code, "message": one.message, "context": {"propertyName": [one.name]}}))
            .collect();
        let message = String::from("The property values provided are invalid");
        let more = More {
            errors: Some(Value::from(told)),
            ..More::default()
        };
        Self {
            more: Box::new(more),
            ..Self::validation(message)
        }
    }

    /// Properties that the schema requires are missing from a new record.
    pub(super) fn required(kind: &ObjectType, names: &[String]) -> Self {
        let message = format!(
            "Error creating {}. Some required properties were not set.",
            kind.label()
        );
        Self::validation(message).context("properties", json!(names))
    }

    /// A contact with this e-mail exists.
    pub(super) fn contact_exists(existing: u64) -> Self {
        let message = format!("Contact already exists. Existing ID: {existing}");
        Self::new(409, "CONFLICT", message).context("existingId", json!([existing.to_string()]))
    }

    /// Another record holds this value of a unique property.
    pub(super) fn taken(
        portal_id: i64,
        kind: &ObjectType,
        name: &str,
        value: &str,
        on: u64,
        holder: u64,
    ) -> Self {
        let type_id = match kind.id.strip_prefix("2-") {
            Some(inner) => format!("ObjectTypeId{{metaTypeId=PORTAL_SPECIFIC, innerId={inner}}}"),
            None => format!("ObjectTypeId{{legacyObjectType={}}}", kind.label()),
        };
        Self::validation(format!(
            "Cannot set PropertyValueCoordinates{{portalId={portal_id}, objectTypeId={type_id}, \
             propertyName={name}, value={value}}} on {on}. {holder} already has that value."
        ))
    }

    pub(super) fn nothing_to_update() -> Self {
        let message = String::from("No properties found to update, please provide at least one.");
        Self::validation(message).context("properties", json!(["{}"]))
    }

    /// As an entry of `errors`; the traces tell which inputs it is about.
    pub(super) fn entry(&self, traces: &[String]) -> Value {
        let mut context = self.more.context.clone();
        if !traces.is_empty() {
            context.insert(String::from("objectWriteTraceId"), json!(traces));
        }
        let mut entry = json!({"status": "error", "category": self.category, "message": self.message});
        if let Some(named) = self.sub_category {
            entry["subCategory"] = Value::from(named);
        }
        if !context.is_empty() {
            entry["context"] = Value::Object(context);
        }
        entry
    }

    /// As the answer to a whole request.
    pub(super) fn reply(&self) -> Reply {
        let mut reply = Reply::error(self.status, self.category, self.message.clone());
        if let Some(errors) = &self.more.errors {
            reply = reply.with("errors", errors.clone());
        }
        // A conflict names its record in the message alone when it refuses a whole request.
        if !self.more.context.is_empty() && self.status != 409 {
            reply = reply.with("context", Value::Object(self.more.context.clone()));
        }
        reply
    }

    /// All problems of a request as one answer: refused values together, else the first problem.
    pub(super) fn all(portal_id: i64, problems: &[Problem]) -> Option<Reply> {
        let first = problems.first()?;
        if first.more.invalid.is_empty() {
            return Some(first.reply());
        }
        let invalid: Vec<Invalid> = problems
            .iter()
            .flat_map(|problem| problem.more.invalid.clone())
            .collect();
        Some(Problem::invalid(portal_id, invalid).reply())
    }
}
