//! `[object.properties]`: which column becomes which HubSpot property, and how.

use super::names::column_name;
use super::section::{Fault, Findings, Section, a_kind, text};
use crate::mapping::{Kind, Null, On, Property};
use toml::Spanned;
use toml::de::DeValue;

/// `[object.properties]`, in the order of the file.
pub(super) fn properties<'a>(findings: &'a Findings<'a>, section: &Section<'a>) -> Vec<Property> {
    let Some(value) = section.value("properties") else {
        return Vec::new();
    };
    let Some(table) = value.get_ref().as_table() else {
        section.refuse(
            "properties",
            Fault::new(
                format!("is {}", a_kind(value.get_ref())),
                "write [object.properties]",
            ),
        );
        return Vec::new();
    };
    let known: Vec<&str> = table.keys().map(|key| key.get_ref().as_ref()).collect();
    let all = Section::of(findings, section.key("properties"), Some(value), &known);
    all.entries()
        .into_iter()
        .filter_map(|(name, value)| property(findings, &all, name.get_ref().as_ref(), value))
        .collect()
}

fn property<'a>(
    findings: &'a Findings<'a>,
    all: &Section<'a>,
    name: &str,
    value: &'a Spanned<DeValue<'a>>,
) -> Option<Property> {
    let plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
    if name.is_empty() || name.len() > 100 || !name.chars().all(plain) {
        let fault = Fault::new(
            "is no property's internal name",
            "lower-case letters, digits and _, as in HubSpot",
        );
        all.refuse(name, fault);
    }
    let mut property = Property {
        name: name.to_owned(),
        column: String::new(),
        on: On::Both,
        kind: None,
        null: Null::Clear,
        zone: "UTC".to_owned(),
    };
    if value.get_ref().as_str().is_some() {
        property.column = all.read(name, column_name)?;
        return Some(property);
    }
    if value.get_ref().as_table().is_none() {
        let fault = Fault::new(
            format!("is {}", a_kind(value.get_ref())),
            "write a column's name, or a table as { column = \"…\", on = \"create\" }",
        );
        all.refuse(name, fault);
        return None;
    }
    let details = Section::of(
        findings,
        all.key(name),
        Some(value),
        &["column", "on", "as", "null", "zone"],
    );
    property.column = details.required("column", "the column it is read from", column_name)?;
    let moments = [("create", On::Create), ("update", On::Update), ("both", On::Both)];
    property.on = details.choice("on", &moments).unwrap_or(On::Both);
    property.kind = details.choice("as", KINDS);
    property.null = details
        .read("null", null)
        .unwrap_or(if property.on == On::Create {
            Null::Omit
        } else {
            Null::Clear
        });
    property.zone = details.read("zone", zone).unwrap_or_else(|| "UTC".to_owned());
    Some(property)
}

const KINDS: &[(&str, Kind)] = &[
    ("text", Kind::Text),
    ("integer", Kind::Integer),
    ("number", Kind::Number),
    ("bool", Kind::Bool),
    ("date", Kind::Date),
    ("datetime", Kind::DateTime),
    ("multi", Kind::Multi),
];

/// `omit`, `clear`, or any other text as it is.
fn null(value: &DeValue<'_>) -> Result<Null, Fault> {
    match value.as_str() {
        Some("omit") => Ok(Null::Omit),
        Some("clear" | "") => Ok(Null::Clear),
        Some(literal) if literal.contains('\0') => Err(Fault::new("contains a NUL byte", "take it out")),
        Some(literal) => Ok(Null::Literal(literal.to_owned())),
        None => Err(Fault::new(
            format!("is {}", a_kind(value)),
            "\"omit\", \"clear\" or the text that stands for null, e.g. \"0\"",
        )),
    }
}

fn zone(value: &DeValue<'_>) -> Result<String, Fault> {
    let zone = text(value)?;
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "_+-/".contains(letter);
    if zone.chars().all(plain) {
        Ok(zone)
    } else {
        Err(Fault::new(
            format!("\"{zone}\" is no time zone"),
            "an IANA name, e.g. \"America/Toronto\"",
        ))
    }
}
