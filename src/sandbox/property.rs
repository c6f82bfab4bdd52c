//! What a property is: its type, its rules, and how HubSpot's property API shows it.
//!
//! Definitions only; [`super::value`] decides which values a definition accepts.

use serde_json::{Value, json};
use std::sync::Arc;

/// The name of a property, shared by every record that holds it.
pub type Name = Arc<str>;

/// One option of an enumeration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// What people see.
    pub label: String,
    /// What the API takes; case matters.
    pub value: String,
}

/// The type of a property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Text of at most 65,536 characters.
    String,
    /// A plain decimal number.
    Number,
    /// `true` or `false`.
    Bool,
    /// A day, `YYYY-MM-DD`.
    Date,
    /// An instant, ISO 8601 or milliseconds since 1970.
    DateTime,
    /// A telephone number, taken as text.
    Phone,
    /// An e-mail address: trimmed, lower-cased, and refused when it cannot be one.
    Email,
    /// One of the options, or several of them joined by `;`.
    Enumeration {
        /// What may be chosen.
        choices: Vec<Choice>,
        /// Whether several may be chosen at once.
        several: bool,
    },
}

/// Why a property cannot be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writable {
    /// It can be set.
    Yes,
    /// HubSpot calculates it.
    Calculated,
    /// HubSpot alone sets it.
    ReadOnly,
}

/// The definition of a property; built in the style `Property::string("booking_id").unique()`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Property {
    pub(super) name: Name,
    pub(super) label: String,
    pub(super) group: String,
    pub(super) description: String,
    pub(super) kind: Kind,
    pub(super) unique: bool,
    pub(super) writable: Writable,
    pub(super) required: bool,
    pub(super) sensitive: bool,
    pub(super) built_in: bool,
}

impl Property {
    /// A property of the given type.
    pub fn new(name: &str, kind: Kind) -> Self {
        Self {
            name: Name::from(name),
            label: name.replace('_', " "),
            group: String::from("information"),
            description: String::new(),
            kind,
            unique: false,
            writable: Writable::Yes,
            required: false,
            sensitive: false,
            built_in: false,
        }
    }

    /// A text property.
    pub fn string(name: &str) -> Self {
        Self::new(name, Kind::String)
    }

    /// A number property.
    pub fn number(name: &str) -> Self {
        Self::new(name, Kind::Number)
    }

    /// A property that is `true` or `false`.
    pub fn boolean(name: &str) -> Self {
        Self::new(name, Kind::Bool)
    }

    /// A day.
    pub fn date(name: &str) -> Self {
        Self::new(name, Kind::Date)
    }

    /// An instant.
    pub fn datetime(name: &str) -> Self {
        Self::new(name, Kind::DateTime)
    }

    /// One of `options`.
    pub fn enumeration(name: &str, options: &[&str]) -> Self {
        Self::new(
            name,
            Kind::Enumeration {
                choices: choices(options),
                several: false,
            },
        )
    }

    /// Any of `options`, joined by `;`.
    pub fn checkboxes(name: &str, options: &[&str]) -> Self {
        Self::new(
            name,
            Kind::Enumeration {
                choices: choices(options),
                several: true,
            },
        )
    }

    /// No two records may hold the same value; only such a property can be an `idProperty`.
    pub fn unique(mut self) -> Self {
        self.unique = true;
        self
    }

    /// HubSpot alone sets it.
    pub fn read_only(mut self) -> Self {
        self.writable = Writable::ReadOnly;
        self
    }

    /// HubSpot calculates it.
    pub fn calculated(mut self) -> Self {
        self.writable = Writable::Calculated;
        self
    }

    /// A record cannot be created without it.
    pub fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// It is left out of the default list of properties, as sensitive data is.
    pub fn sensitive(mut self) -> Self {
        self.sensitive = true;
        self
    }

    /// What people see instead of the name.
    pub fn labelled(mut self, label: &str) -> Self {
        self.label = label.to_owned();
        self
    }

    pub(super) fn built_in(mut self) -> Self {
        self.built_in = true;
        self
    }

    /// The definition as the property API shows it (`Property` in HubSpot's specification).
    pub(super) fn shown(&self) -> Value {
        let (kind, field) = self.type_names();
        json!({
            "name": &*self.name,
            "label": self.label,
            "description": self.description,
            "groupName": self.group,
            "type": kind,
            "fieldType": field,
            "options": self.options(),
            "displayOrder": -1,
            "hasUniqueValue": self.unique,
            "hidden": false,
            "formField": self.writable == Writable::Yes,
            "calculated": self.writable == Writable::Calculated,
            "externalOptions": false,
            "hubspotDefined": self.built_in,
            "archived": false,
            "dataSensitivity": if self.sensitive { "sensitive" } else { "non_sensitive" },
            "modificationMetadata": {
                "archivable": !self.built_in,
                "readOnlyDefinition": self.built_in,
                "readOnlyOptions": self.built_in,
                "readOnlyValue": self.writable != Writable::Yes,
            },
        })
    }

    fn type_names(&self) -> (&'static str, &'static str) {
        match &self.kind {
            Kind::String | Kind::Email => ("string", "text"),
            Kind::Number => ("number", "number"),
            Kind::Bool => ("bool", "booleancheckbox"),
            Kind::Date => ("date", "date"),
            Kind::DateTime => ("datetime", "date"),
            Kind::Phone => ("phone_number", "phonenumber"),
            Kind::Enumeration { several: false, .. } => ("enumeration", "select"),
            Kind::Enumeration { several: true, .. } => ("enumeration", "checkbox"),
        }
    }

    fn options(&self) -> Vec<Value> {
        let Kind::Enumeration { choices, .. } = &self.kind else {
            return Vec::new();
        };
        let shown = choices.iter().enumerate().map(|(order, choice)| {
            json!({"label": choice.label, "value": choice.value, "displayOrder": order, "hidden": false})
        });
        shown.collect()
    }
}

fn choices(options: &[&str]) -> Vec<Choice> {
    let choice = |option: &&str| Choice {
        label: (*option).to_owned(),
        value: (*option).to_owned(),
    };
    options.iter().map(choice).collect()
}
