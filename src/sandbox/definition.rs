//! The APIs of definitions: properties, schemas, and what the account says of itself.

use super::association::TypeIx;
use super::draft::Inputs;
use super::http::Query;
use super::object_type::ObjectType;
use super::property::{Choice, Kind, Name, Property};
use super::reply::{Reply, Text, parse};
use super::world::World;
use super::write::{Asked, INPUTS_MAX};
use serde::Deserialize;
use serde_json::{Value, json};

/// The app that the token belongs to.
const APP_ID: u32 = 26_892_217;

/// What a property is created from; everything may be missing, and is then complained about.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NewProperty {
    name: String,
    label: String,
    group_name: String,
    description: String,
    #[serde(rename = "type")]
    kind: String,
    field_type: String,
    has_unique_value: bool,
    options: Vec<NewOption>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NewOption {
    label: String,
    value: String,
}

#[derive(Debug, Deserialize)]
struct NamedProperty {
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NewSchemaLink {
    to_object_type_id: String,
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct TokenAsked {
    token_key: Option<Text>,
}

impl Asked<'_> {
    pub(super) fn properties(&mut self, kind: TypeIx, query: &Query) -> Result<Reply, Reply> {
        let sensitive = query.get("dataSensitivity").unwrap_or("non_sensitive") != "non_sensitive";
        let properties = self.world.types[kind].properties.values();
        let shown: Vec<Value> = properties
            .filter(|property| property.sensitive == sensitive)
            .map(Property::shown)
            .collect();
        Ok(Reply::new(200, json!({"results": shown})))
    }

    pub(super) fn property(&mut self, kind: TypeIx, name: &str) -> Result<Reply, Reply> {
        match self.world.types[kind].properties.get(name) {
            Some(property) => Ok(Reply::new(200, property.shown())),
            None => Err(no_property(name)),
        }
    }

    pub(super) fn create_property(&mut self, kind: TypeIx, body: &[u8]) -> Result<Reply, Reply> {
        let asked: NewProperty = parse(body)?;
        let shown = self.define(kind, &asked)?;
        Ok(Reply::new(201, shown))
    }

    pub(super) fn batch_create_properties(&mut self, kind: TypeIx, body: &[u8]) -> Result<Reply, Reply> {
        let inputs = parse::<Inputs<NewProperty>>(body)?.inputs;
        self.inputs = inputs.len();
        if inputs.len() > INPUTS_MAX {
            return Err(Reply::too_many_inputs(INPUTS_MAX));
        }
        let results = inputs
            .iter()
            .map(|asked| self.define(kind, asked))
            .collect::<Result<Vec<Value>, Reply>>()?;
        Ok(self.batch_reply(201, results, Vec::new()))
    }

    pub(super) fn batch_read_properties(&mut self, kind: TypeIx, body: &[u8]) -> Result<Reply, Reply> {
        let inputs = parse::<Inputs<NamedProperty>>(body)?.inputs;
        self.inputs = inputs.len();
        if inputs.len() > INPUTS_MAX {
            return Err(Reply::too_many_inputs(INPUTS_MAX));
        }
        let known = &self.world.types[kind].properties;
        let found = inputs.iter().filter_map(|input| known.get(input.name.as_str()));
        let results: Vec<Value> = found.map(Property::shown).collect();
        let missing = inputs
            .iter()
            .filter(|input| !known.contains_key(input.name.as_str()));
        let errors: Vec<Value> = missing.map(|input| no_property(&input.name).body).collect();
        Ok(self.batch_reply(200, results, errors))
    }

    /// Takes a new label, description or options; a new `hasUniqueValue` is answered with 200 and ignored.
    pub(super) fn update_property(&mut self, kind: TypeIx, name: &str, body: &[u8]) -> Result<Reply, Reply> {
        let asked: NewProperty = parse(body)?;
        let Some(property) = self.world.types[kind].properties.get_mut(name) else {
            return Err(no_property(name));
        };
        if !asked.label.is_empty() {
            property.label = asked.label;
        }
        if !asked.description.is_empty() {
            property.description = asked.description;
        }
        if let (Kind::Enumeration { choices, .. }, false) = (&mut property.kind, asked.options.is_empty()) {
            *choices = asked.options.into_iter().map(Choice::from).collect();
        }
        Ok(Reply::new(200, property.shown()))
    }

    pub(super) fn archive_property(&mut self, kind: TypeIx, name: &str) -> Result<Reply, Reply> {
        let known = &mut self.world.types[kind].properties;
        match known.get(name) {
            None => Err(no_property(name)),
            Some(property) if property.built_in => Err(Reply::validation(format!(
                "Property {name} is defined by HubSpot and cannot be archived."
            ))),
            Some(_) => {
                known.remove(name);
                Ok(Reply::empty(204))
            }
        }
    }

    pub(super) fn schemas(&mut self) -> Result<Reply, Reply> {
        let custom = (0..self.world.types.len()).filter(|kind| self.world.types[*kind].is_custom());
        let results: Vec<Value> = custom.map(|kind| self.world.schema_shown(kind)).collect();
        Ok(Reply::new(200, json!({"results": results})))
    }

    pub(super) fn schema(&mut self, kind: TypeIx) -> Result<Reply, Reply> {
        Ok(Reply::new(200, self.world.schema_shown(kind)))
    }

    pub(super) fn create_schema_link(&mut self, kind: TypeIx, body: &[u8]) -> Result<Reply, Reply> {
        let asked: NewSchemaLink = parse(body)?;
        let Some(to) = self.world.type_position(&asked.to_object_type_id) else {
            return Err(Reply::no_type(&asked.to_object_type_id));
        };
        let (id, _) = self.world.links.define(kind, to, None, &asked.name);
        let (from, to) = (&self.world.types[kind].id, &self.world.types[to].id);
        let body =
            json!({"id": id.to_string(), "fromObjectTypeId": from, "toObjectTypeId": to, "name": asked.name});
        Ok(Reply::new(201, body))
    }

    pub(super) fn details(&mut self, mut account: Value) -> Result<Reply, Reply> {
        let settings = &self.world.settings;
        account["portalId"] = Value::from(settings.portal_id);
        account["accountType"] = Value::from("SANDBOX");
        account["timeZone"] = Value::from(settings.time_zone.clone());
        account["companyCurrency"] = Value::from("USD");
        account["additionalCurrencies"] = json!([]);
        account["uiDomain"] = Value::from("app.hubspot.com");
        account["dataHostingLocation"] = Value::from("na1");
        Ok(Reply::new(200, account))
    }

    pub(super) fn token_info(&mut self, body: &[u8]) -> Result<Reply, Reply> {
        let asked: TokenAsked = parse(body)?;
        if asked
            .token_key
            .is_none_or(|token| token.0 != self.world.settings.token)
        {
            return Err(Reply::error(400, "VALIDATION_ERROR", "The token is not known."));
        }
        let body = json!({
            "userId": 1_234_567,
            "hubId": self.world.settings.portal_id,
            "appId": APP_ID,
            "scopes": self.world.scopes,
            "isUserToken": false,
        });
        Ok(Reply::new(200, body))
    }

    fn define(&mut self, kind: TypeIx, asked: &NewProperty) -> Result<Value, Reply> {
        let fields = [
            ("groupName", &asked.group_name),
            ("name", &asked.name),
            ("label", &asked.label),
            ("type", &asked.kind),
            ("fieldType", &asked.field_type),
        ];
        let missing: Vec<&str> = fields
            .iter()
            .filter(|(_, value)| value.is_empty())
            .map(|(field, _)| *field)
            .collect();
        if !missing.is_empty() {
            let fields = missing.join(", ");
            return Err(Reply::validation(format!(
                "Some required fields were not set: [{fields}]"
            )));
        }
        let object = &mut self.world.types[kind];
        if object.properties.contains_key(asked.name.as_str()) {
            let message = format!("A property named '{}' already exists.", asked.name);
            return Err(Reply::error(409, "OBJECT_ALREADY_EXISTS", message)
                .with("subCategory", Value::from("Properties.PROPERTY_WITH_NAME_EXISTS")));
        }
        let property = asked.property()?;
        let shown = property.shown();
        object.define(property);
        Ok(shown)
    }
}

impl NewProperty {
    fn property(&self) -> Result<Property, Reply> {
        let choices = || self.options.iter().map(Choice::from).collect();
        let kind = match self.kind.as_str() {
            "string" => Kind::String,
            "number" => Kind::Number,
            "bool" => Kind::Bool,
            "date" => Kind::Date,
            "datetime" => Kind::DateTime,
            "phone_number" => Kind::Phone,
            "enumeration" => Kind::Enumeration {
                choices: choices(),
                several: self.field_type == "checkbox",
            },
            other => return Err(Reply::validation(format!("{other} is not a valid property type"))),
        };
        let mut property = Property::new(&self.name, kind).labelled(&self.label);
        property.group.clone_from(&self.group_name);
        property.description.clone_from(&self.description);
        property.unique = self.has_unique_value;
        Ok(property)
    }
}

impl From<&NewOption> for Choice {
    fn from(option: &NewOption) -> Self {
        Self {
            label: option.label.clone(),
            value: option.value.clone(),
        }
    }
}

impl From<NewOption> for Choice {
    fn from(option: NewOption) -> Self {
        Self::from(&option)
    }
}

impl World {
    fn schema_shown(&self, kind: TypeIx) -> Value {
        let object: &ObjectType = &self.types[kind];
        let own: Vec<&Property> = object
            .properties
            .values()
            .filter(|property| !property.built_in)
            .collect();
        let required: Vec<&Name> = own
            .iter()
            .filter(|property| property.required)
            .map(|property| &property.name)
            .collect();
        let links: Vec<Value> = self
            .links
            .starting_at(kind)
            .into_iter()
            .map(|link| {
                let (from, to) = (&self.types[link.from].id, &self.types[link.to].id);
                json!({"id": link.id.to_string(), "fromObjectTypeId": from, "toObjectTypeId": to, "name": link.name})
            })
            .collect();
        let required: Vec<&str> = required.into_iter().map(|name| &**name).collect();
        json!({
            "id": object.id.trim_start_matches("2-"),
            "objectTypeId": object.id,
            "fullyQualifiedName": format!("p{}_{}", self.settings.portal_id, object.name),
            "name": object.name,
            "labels": {"singular": object.singular, "plural": object.name},
            "requiredProperties": required,
            "searchableProperties": required,
            "secondaryDisplayProperties": [],
            "primaryDisplayProperty": own.first().map(|property| property.name.to_string()),
            "properties": object.properties.values().map(Property::shown).collect::<Vec<Value>>(),
            "associations": links,
            "allowsSensitiveProperties": false,
            "archived": false,
        })
    }
}

fn no_property(name: &str) -> Reply {
    Reply::error(404, "OBJECT_NOT_FOUND", format!("Property {name} does not exist"))
        .with("subCategory", Value::from("Properties.PROPERTY_NOT_FOUND"))
}
