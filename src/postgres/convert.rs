//! Conversions: how a column's value becomes HubSpot's string, as SQL.
//!
//! HubSpot takes every value as a string, and wants plain decimals, `true`/`false`, dates and UTC date-times.
//! [`convert`] writes the SQL expression that makes that string of a column. The expressions are total: they
//! raise no error whatever the row holds, because one value must not make a query of a hundred rows fail. What
//! does not convert travels as its own text, for HubSpot to refuse alone. What has no form in HubSpot at all
//! (infinite, NaN, a year outside 1 to 9999, a `;` inside a list's element) is named by a second
//! expression, the problem, so that the row is refused before it is sent.
//!
//! The expressions rely on the session's pinned settings (`TimeZone` UTC, `DateStyle` ISO,
//! `extra_float_digits` 1).

use super::catalog::Column;
use super::quote;
use crate::mapping::{Kind, Property};
use crate::sync::fitting::Form;

/// SQL for a column's value as HubSpot wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Converted {
    /// An expression of type text; null exactly where the column is null.
    pub text: String,
    /// An expression of type text that says why the value has no form in HubSpot, else null. `None`: this column's
    /// type cannot hold such a value.
    pub problem: Option<String>,
}

/// What the conversions tell apart in a column's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Bool,
    Integer,
    Numeric,
    Float,
    Date,
    Timestamp,
    TimestampTz,
    Text,
    Jsonb,
    Array,
    Other,
}

const INFINITE: &str = "'infinite'";
const NOT_A_NUMBER: &str = "'not a number (NaN)'";
const YEAR: &str = "'a year outside 1 to 9999'";
const SEMICOLON: &str = "'an element with a semicolon, which HubSpot reads as two'";

/// A decimal number as people and programs write it, short enough that no cast to numeric can overflow.
const NUMBER_PATTERN: &str =
    "'^ *[+-]?([0-9]{1,250}([.][0-9]{0,250})?|[.][0-9]{1,250})([eE][+-]?[0-9]{1,3})? *$'";

/// Writes the conversion of `cell` (SQL of the column, e.g. `t."exam_date"`) for `property`.
///
/// `hubspot_type` is the type of the HubSpot property; it decides where the mapping says no `as`. Where it is
/// unknown too, the column's own type decides.
pub fn convert(
    property: &Property,
    column: Option<&Column>,
    hubspot_type: Option<&str>,
    cell: &str,
) -> Converted {
    let base = column.map_or("text", |column| column.base.as_str());
    let class = class_of(base, column.map_or('S', |column| column.category));
    let kind = property.kind.unwrap_or_else(|| kind_by_type(class, hubspot_type));
    match (kind, class) {
        (Kind::Multi, Class::Array) => {
            elements(cell, base.strip_prefix('_').unwrap_or("text"), &property.zone)
        }
        (Kind::Multi, Class::Jsonb) => json_elements(cell),
        _ => scalar(kind, class, cell, &property.zone),
    }
}

/// What [`convert`] makes of a column's values.
pub fn form(property: &Property, column: &Column, hubspot_type: Option<&str>) -> Form {
    let class = class_of(&column.base, column.category);
    let kind = property.kind.unwrap_or_else(|| kind_by_type(class, hubspot_type));
    match (kind, class) {
        (Kind::Multi, Class::Array | Class::Jsonb) => Form::List,
        (Kind::Date, Class::Date | Class::Timestamp | Class::TimestampTz) => Form::Date,
        (Kind::DateTime, Class::Date | Class::Timestamp | Class::TimestampTz) => Form::DateTime,
        (_, Class::Bool) => Form::Bool,
        (_, Class::Integer | Class::Numeric | Class::Float) => Form::Number,
        (_, Class::Date) => Form::Date,
        (_, Class::Timestamp | Class::TimestampTz) => Form::DateTime,
        (_, Class::Text | Class::Jsonb | Class::Array | Class::Other) => Form::Text,
    }
}

fn class_of(base: &str, category: char) -> Class {
    match base {
        "bool" => Class::Bool,
        "int2" | "int4" | "int8" => Class::Integer,
        "numeric" => Class::Numeric,
        "float4" | "float8" => Class::Float,
        "date" => Class::Date,
        "timestamp" => Class::Timestamp,
        "timestamptz" => Class::TimestampTz,
        "jsonb" => Class::Jsonb,
        _ => match category {
            'A' => Class::Array,
            'S' => Class::Text,
            _ => Class::Other,
        },
    }
}

/// The kind of a property whose mapping says none.
fn kind_by_type(class: Class, hubspot_type: Option<&str>) -> Kind {
    match (hubspot_type, class) {
        (Some("number"), _) => Kind::Number,
        (Some("bool"), _) => Kind::Bool,
        (Some("date"), _) => Kind::Date,
        (Some("datetime"), _) => Kind::DateTime,
        (_, Class::Array) | (Some("enumeration"), Class::Jsonb) => Kind::Multi,
        (Some(_), _) => Kind::Text,
        (None, _) => natural(class),
    }
}

/// The kind that fits a column when nothing else is known.
fn natural(class: Class) -> Kind {
    match class {
        Class::Bool => Kind::Bool,
        Class::Integer | Class::Numeric | Class::Float => Kind::Number,
        Class::Date => Kind::Date,
        Class::Timestamp | Class::TimestampTz => Kind::DateTime,
        Class::Array => Kind::Multi,
        Class::Text | Class::Jsonb | Class::Other => Kind::Text,
    }
}

fn scalar(kind: Kind, class: Class, cell: &str, zone: &str) -> Converted {
    let text = match kind {
        Kind::Text | Kind::Multi => plain(class, cell),
        Kind::Number => number(class, cell),
        Kind::Integer => integer(class, cell),
        Kind::Bool => boolean(class, cell),
        Kind::Date => return date(class, cell, zone),
        Kind::DateTime => return date_time(class, cell, zone),
    };
    Converted {
        text,
        problem: problem(class, cell),
    }
}

/// The value's own text: floats without exponent, timestamps as ISO 8601.
fn plain(class: Class, cell: &str) -> String {
    match class {
        Class::Float => format!("{cell}::text::numeric::text"),
        Class::Timestamp | Class::TimestampTz => format!("btrim(to_json({cell})::text, '\"')"),
        Class::Jsonb => format!("({cell} #>> '{{}}')"),
        _ => format!("{cell}::text"),
    }
}

/// A decimal in text, read as a number where it is one; `render` makes the result of the numeric.
fn number_in_text(cell: &str, render: impl Fn(&str) -> String) -> String {
    let numeric = render(&format!("{cell}::text::numeric"));
    format!("CASE WHEN {cell}::text ~ {NUMBER_PATTERN} THEN {numeric} ELSE {cell}::text END")
}

fn number(class: Class, cell: &str) -> String {
    match class {
        Class::Text => number_in_text(cell, |numeric| format!("({numeric})::text")),
        _ => plain(class, cell),
    }
}

fn integer(class: Class, cell: &str) -> String {
    let whole = |numeric: &str| {
        format!(
            "CASE WHEN {numeric} = trunc({numeric}) THEN trunc({numeric})::text ELSE ({numeric})::text END"
        )
    };
    match class {
        Class::Numeric => whole(cell),
        Class::Float => whole(&format!("{cell}::text::numeric")),
        Class::Text => number_in_text(cell, whole),
        _ => plain(class, cell),
    }
}

fn boolean(class: Class, cell: &str) -> String {
    let plain = plain(class, cell);
    match class {
        Class::Integer | Class::Numeric | Class::Float => {
            format!("CASE {cell} WHEN 0 THEN 'false' WHEN 1 THEN 'true' ELSE {plain} END")
        }
        Class::Text => format!(
            "CASE WHEN lower(btrim({cell}::text)) IN ('true', 't', 'yes', 'y', 'on', '1') THEN 'true' \
             WHEN lower(btrim({cell}::text)) IN ('false', 'f', 'no', 'n', 'off', '0') THEN 'false' ELSE {plain} END"
        ),
        _ => plain,
    }
}

/// Why a value of this type has no form in HubSpot, whatever the kind.
fn problem(class: Class, cell: &str) -> Option<String> {
    match class {
        Class::Numeric | Class::Float => Some(format!(
            "CASE {cell}::text WHEN 'NaN' THEN {NOT_A_NUMBER} WHEN 'Infinity' THEN {INFINITE} \
             WHEN '-Infinity' THEN {INFINITE} END"
        )),
        Class::Date | Class::Timestamp | Class::TimestampTz => {
            let outside = format!("NOT ({})", within(class, cell));
            Some(format!(
                "CASE WHEN NOT isfinite({cell}) THEN {INFINITE} WHEN {outside} THEN {YEAR} END"
            ))
        }
        _ => None,
    }
}

/// Whether a date or timestamp lies in the years 1 to 9999; false for the infinite.
fn within(class: Class, cell: &str) -> String {
    match class {
        Class::Date => format!("{cell} >= DATE '0001-01-01' AND {cell} <= DATE '9999-12-31'"),
        Class::TimestampTz => format!(
            "{cell} >= TIMESTAMPTZ '0001-01-01 00:00:00+00' AND {cell} < TIMESTAMPTZ '10000-01-01 00:00:00+00'"
        ),
        _ => format!("{cell} >= TIMESTAMP '0001-01-01' AND {cell} < TIMESTAMP '10000-01-01'"),
    }
}

fn date(class: Class, cell: &str, zone: &str) -> Converted {
    let form = |value: &str| format!("to_char({value}, 'YYYY-MM-DD')");
    match class {
        Class::Date | Class::Timestamp => in_range(class, cell, None, form),
        Class::TimestampTz if zone == "UTC" => in_range(class, cell, None, form),
        Class::TimestampTz => {
            let local = format!("({cell} AT TIME ZONE {})", quote::literal(zone));
            in_range(class, cell, Some(&local), form)
        }
        Class::Text => Converted {
            text: format!(
                "CASE WHEN {cell}::text ~ '^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}[ T][0-9]{{2}}:[0-9]{{2}}(:[0-9]{{2}}([.][0-9]+)?)?$' \
                 THEN left({cell}::text, 10) ELSE {cell}::text END"
            ),
            problem: None,
        },
        _ => scalar(Kind::Text, class, cell, zone),
    }
}

fn date_time(class: Class, cell: &str, zone: &str) -> Converted {
    let form = |value: &str| format!("to_char({value}, 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')");
    match class {
        Class::TimestampTz => in_range(class, cell, None, |value| {
            form(&format!("{value} AT TIME ZONE 'UTC'"))
        }),
        Class::Timestamp | Class::Date if zone == "UTC" => {
            in_range(class, cell, None, |value| form(&format!("{value}::timestamp")))
        }
        Class::Timestamp | Class::Date => {
            let zone = quote::literal(zone);
            let utc = format!("({cell}::timestamp AT TIME ZONE {zone} AT TIME ZONE 'UTC')");
            in_range(class, cell, Some(&utc), form)
        }
        _ => scalar(Kind::Text, class, cell, zone),
    }
}

/// A date or timestamp formed where it lies in the years that HubSpot knows. `shifted` is the timestamp that is
/// formed instead of the cell, which may leave those years though the cell does not; it is computed only where
/// the cell lies in them, so that it cannot overflow.
fn in_range(class: Class, cell: &str, shifted: Option<&str>, form: impl Fn(&str) -> String) -> Converted {
    let inside = within(class, cell);
    let plain = plain(class, cell);
    let formed = form(shifted.unwrap_or(cell));
    let problem = problem(class, cell);
    let Some(shifted) = shifted else {
        return Converted {
            text: format!("CASE WHEN {inside} THEN {formed} ELSE {plain} END"),
            problem,
        };
    };
    let shifted_inside = within(Class::Timestamp, shifted);
    let before = problem.unwrap_or_else(|| "NULL".to_owned());
    Converted {
        text: format!(
            "CASE WHEN {inside} THEN CASE WHEN {shifted_inside} THEN {formed} ELSE {plain} END ELSE {plain} END"
        ),
        problem: Some(format!(
            "CASE WHEN {inside} THEN CASE WHEN NOT ({shifted_inside}) THEN {YEAR} END ELSE {before} END"
        )),
    }
}

/// An array joined by `;`: nulls and blanks dropped, each element in its natural form.
fn elements(cell: &str, base: &str, zone: &str) -> Converted {
    let class = class_of(base, 'S');
    let element = scalar(natural(class), class, "e.v", zone);
    let of_element = element.problem.as_deref().unwrap_or("NULL::text");
    let source = format!("unnest({cell}) WITH ORDINALITY AS e(v, n)");
    joined(cell, &element.text, of_element, &source)
}

/// A jsonb array joined by `;`; any other jsonb is its text.
fn json_elements(cell: &str) -> Converted {
    let source = format!("jsonb_array_elements_text({cell}) WITH ORDINALITY AS e(v, n)");
    let list = joined(cell, "e.v", "NULL::text", &source);
    let plain = plain(Class::Jsonb, cell);
    Converted {
        text: format!(
            "CASE WHEN jsonb_typeof({cell}) = 'array' THEN {} ELSE {plain} END",
            list.text
        ),
        problem: list
            .problem
            .map(|problem| format!("CASE WHEN jsonb_typeof({cell}) = 'array' THEN {problem} END")),
    }
}

fn joined(cell: &str, element: &str, of_element: &str, source: &str) -> Converted {
    Converted {
        text: format!(
            "CASE WHEN {cell} IS NOT NULL THEN (SELECT coalesce(string_agg(x.v, ';' ORDER BY x.n) \
             FILTER (WHERE btrim(x.v) <> ''), '') FROM (SELECT {element} AS v, e.n FROM {source}) AS x) END"
        ),
        problem: Some(format!(
            "(SELECT min(x.p) FROM (SELECT CASE WHEN strpos({element}, ';') > 0 THEN {SEMICOLON} \
             ELSE {of_element} END AS p FROM {source}) AS x)"
        )),
    }
}
