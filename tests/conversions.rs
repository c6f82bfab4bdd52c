//! Tests: conversions. Every form of every type of column, read from a real Postgres in one row of a wide table.

use crate::support::postgres::{Database, Server};
use crate::support::reading::{mapping_of, memory, object, property};
use hubsyncd::mapping::{Kind, Null, On, Property};
use hubsyncd::postgres::catalog::inspect;
use hubsyncd::postgres::rows::Reader;
use serde_json::Value;
use std::collections::BTreeMap;

/// A column of a type with a value, how it is to be written, and what HubSpot is to get.
struct Case {
    column: &'static str,
    value: &'static str,
    form: Form,
    zone: &'static str,
    expected: Expected,
}

/// What decides the form of a value.
#[derive(Clone, Copy)]
enum Form {
    As(Kind),
    Hub(&'static str),
    Unknown,
}

#[derive(Debug, PartialEq)]
enum Expected {
    Sent(&'static str),
    Null,
    Refused(&'static str),
}

use Expected::{Null as Nothing, Refused, Sent};
use Form::{As, Hub, Unknown};
use Kind::{Bool, Date, DateTime, Integer, Multi, Number, Text};

const INFINITE: Expected = Refused("infinite");
const NAN: Expected = Refused("not a number (NaN)");
const YEAR: Expected = Refused("a year outside 1 to 9999");
const SEMICOLON: Expected = Refused("an element with a semicolon, which HubSpot reads as two");

/// A case in UTC.
fn case(column: &'static str, value: &'static str, form: Form, expected: Expected) -> Case {
    in_zone(column, value, form, "UTC", expected)
}

fn in_zone(
    column: &'static str,
    value: &'static str,
    form: Form,
    zone: &'static str,
    expected: Expected,
) -> Case {
    Case {
        column,
        value,
        form,
        zone,
        expected,
    }
}

/// Checks the cases on every PostgreSQL at hand.
async fn check(hint: &str, cases: &[Case]) {
    for server in Server::every_version().await {
        check_in(server.database(hint).await, cases).await;
    }
}

/// Puts every case in a column of one table with one row, reads the row, and compares.
async fn check_in(database: Database, cases: &[Case]) {
    let session = database.session_as("app_owner").await;
    let columns = cases
        .iter()
        .enumerate()
        .map(|(i, case)| format!("c{i} {}", case.column));
    let values = cases.iter().map(|case| case.value.to_owned());
    let columns: Vec<String> = columns.collect();
    let values: Vec<String> = values.collect();
    let ddl = format!(
        "CREATE TYPE mood AS ENUM ('glad', 'sad; tired'); CREATE DOMAIN moment AS timestamp; \
         CREATE TABLE wide (id int PRIMARY KEY, hubspot_id text, synced timestamptz, {}); \
         INSERT INTO wide VALUES (1, '77', NULL, {})",
        columns.join(", "),
        values.join(", ")
    );
    session.batch_execute(&ddl).await.unwrap();
    session.batch_execute(&memory()).await.unwrap();
    let mut types = BTreeMap::new();
    let properties = cases.iter().enumerate().map(|(i, case)| {
        let name = format!("p{i}");
        if let Hub(hubspot_type) = case.form {
            types.insert(name.clone(), hubspot_type.to_owned());
        }
        let kind = if let As(kind) = case.form {
            Some(kind)
        } else {
            None
        };
        let zone = case.zone.to_owned();
        Property {
            kind,
            zone,
            ..property(&name, &format!("c{i}"), On::Both, Null::Omit)
        }
    });
    let properties = properties.collect();
    let mapping = mapping_of(vec![hubsyncd::mapping::Object {
        properties,
        ..object("wide", "wide")
    }]);
    let shapes = inspect(&session, &mapping).await.unwrap();
    let reader = Reader::new(&mapping, 0, &shapes, &types);
    let read = reader.read(&session, &["1".into()], &[false]).await.unwrap();
    let record = &read.records[0];
    let sent: BTreeMap<String, Value> = serde_json::from_str(&record.properties).unwrap();
    for (i, case) in cases.iter().enumerate() {
        let name = format!("p{i}");
        let about = format!("{} {} in {}", case.column, case.value, case.zone);
        let problem = record
            .problems
            .iter()
            .find_map(|problem| problem.strip_prefix(&format!("{name}: ")));
        let value = sent.get(&name).map(|value| value.as_str().unwrap());
        match case.expected {
            Sent(expected) => assert_eq!((value, problem), (Some(expected), None), "{about}"),
            Nothing => assert_eq!((value, problem), (None, None), "{about}"),
            Refused(reason) => {
                assert_eq!(problem, Some(reason), "{about}");
                assert!(value.is_some(), "{about}: never a null");
            }
        }
    }
}

#[tokio::test]
async fn numbers_arrive_as_plain_decimals() {
    let cases = [
        case("int2", "-7", Hub("number"), Sent("-7")),
        case("int4", "0", Hub("number"), Sent("0")),
        case(
            "int8",
            "9223372036854775807",
            As(Integer),
            Sent("9223372036854775807"),
        ),
        case("numeric", "1.50", Hub("number"), Sent("1.50")),
        case("numeric", "1e-20", Unknown, Sent("0.00000000000000000001")),
        case("numeric(10,2)", "12", As(Integer), Sent("12")),
        case("numeric", "12.5", As(Integer), Sent("12.5")),
        case("numeric", "'NaN'", As(Number), NAN),
        case("numeric", "'-Infinity'", As(Number), INFINITE),
        case("numeric", "'NaN'", As(Integer), NAN),
        case("float8", "0.1", As(Number), Sent("0.1")),
        case("float8", "1e22", As(Number), Sent("10000000000000000000000")),
        case(
            "float8",
            "1.0000000000000002",
            As(Number),
            Sent("1.0000000000000002"),
        ),
        case(
            "float8",
            "123456789012345678",
            As(Integer),
            Sent("123456789012345680"),
        ),
        case("float8", "1e-7", Hub("string"), Sent("0.0000001")),
        case("float8", "2.5", As(Text), Sent("2.5")),
        case("float8", "3", As(Integer), Sent("3")),
        case("float8", "'Infinity'", As(Number), INFINITE),
        case("float8", "'-Infinity'", As(Text), INFINITE),
        case("float8", "'NaN'", Unknown, NAN),
        case("float4", "0.1", As(Number), Sent("0.1")),
        case("float4", "16777216", As(Number), Sent("16777216")),
        case(
            "float4",
            "3e38",
            Unknown,
            Sent("300000000000000000000000000000000000000"),
        ),
        case("text", "' 42 '", As(Number), Sent("42")),
        case("text", "'1.50'", As(Number), Sent("1.50")),
        case("text", "'+.5'", As(Number), Sent("0.5")),
        case("text", "'1e5'", Hub("number"), Sent("100000")),
        case("text", "'007.0'", As(Integer), Sent("7")),
        case("text", "'7.5'", As(Integer), Sent("7.5")),
        case("text", "'twelve'", As(Number), Sent("twelve")),
        case("text", "'1e999999'", As(Number), Sent("1e999999")),
        case("text", "'1_000'", As(Number), Sent("1_000")),
        case("text", "'0x1F'", As(Integer), Sent("0x1F")),
        case("text", "'NaN'", As(Number), Sent("NaN")),
        case("text", "'٣'", As(Number), Sent("٣")),
        case("text", "''", As(Number), Sent("")),
        case("varchar(9)", "'12'", As(Number), Sent("12")),
        case("bool", "true", As(Number), Sent("true")),
        case("date", "'2026-01-02'", As(Number), Sent("2026-01-02")),
        case("float8", "NULL", As(Number), Nothing),
        case("text", "NULL", As(Integer), Nothing),
    ];
    check("numbers", &cases).await;
}

#[tokio::test]
async fn booleans_arrive_as_true_and_false() {
    let cases = [
        case("bool", "true", Hub("bool"), Sent("true")),
        case("bool", "false", Hub("bool"), Sent("false")),
        case("bool", "false", Hub("enumeration"), Sent("false")),
        case("bool", "true", Hub("string"), Sent("true")),
        case("bool", "true", Unknown, Sent("true")),
        case("int4", "1", As(Bool), Sent("true")),
        case("int2", "0", As(Bool), Sent("false")),
        case("int4", "2", As(Bool), Sent("2")),
        case("numeric", "1.0", As(Bool), Sent("true")),
        case("float8", "'NaN'", As(Bool), NAN),
        case("text", "' Yes'", As(Bool), Sent("true")),
        case("text", "'F'", As(Bool), Sent("false")),
        case("text", "'maybe'", Hub("bool"), Sent("maybe")),
        case("date", "'2026-01-02'", As(Bool), Sent("2026-01-02")),
        case("bool", "NULL", As(Bool), Nothing),
        case("int4", "NULL", As(Bool), Nothing),
    ];
    check("booleans", &cases).await;
}

#[tokio::test]
async fn dates_arrive_as_days_of_the_zone() {
    let zone = "America/Toronto";
    let cases = [
        case("date", "'2026-02-03'", Hub("date"), Sent("2026-02-03")),
        case("date", "'0033-02-03'", As(Date), Sent("0033-02-03")),
        case("date", "'9999-12-31'", As(Date), Sent("9999-12-31")),
        case("date", "'10000-01-01'", As(Date), YEAR),
        case("date", "'0044-03-15 BC'", As(Date), YEAR),
        case("date", "'infinity'", As(Date), INFINITE),
        case("date", "'-infinity'", As(Text), INFINITE),
        case("date", "'5874897-12-31'", Unknown, YEAR),
        case(
            "timestamp",
            "'2026-02-03 23:59:59.999'",
            As(Date),
            Sent("2026-02-03"),
        ),
        in_zone(
            "timestamp",
            "'2026-02-03 23:59:59'",
            As(Date),
            zone,
            Sent("2026-02-03"),
        ),
        case(
            "timestamptz",
            "'2026-02-03 23:30:00-05'",
            As(Date),
            Sent("2026-02-04"),
        ),
        in_zone(
            "timestamptz",
            "'2026-02-04 04:30:00+00'",
            As(Date),
            zone,
            Sent("2026-02-03"),
        ),
        in_zone("timestamptz", "'infinity'", As(Date), zone, INFINITE),
        in_zone("timestamptz", "'294276-12-31 23:59:59+00'", As(Date), zone, YEAR),
        in_zone("timestamptz", "'0001-01-01 00:00:00+00'", As(Date), zone, YEAR),
        case("text", "'2026-02-03'", As(Date), Sent("2026-02-03")),
        case("text", "'2026-02-03T10:00'", As(Date), Sent("2026-02-03")),
        case("text", "'2026-02-31'", As(Date), Sent("2026-02-31")),
        case("text", "'soon'", Hub("date"), Sent("soon")),
        case("int8", "1767225600000", As(Date), Sent("1767225600000")),
        case("time", "'10:00'", As(Date), Sent("10:00:00")),
        case("date", "NULL", As(Date), Nothing),
        in_zone("timestamptz", "NULL", As(Date), zone, Nothing),
    ];
    check("dates", &cases).await;
}

#[tokio::test]
async fn date_times_arrive_in_utc() {
    let zone = "Europe/Berlin";
    let cases = [
        case(
            "timestamptz",
            "'2026-07-01 12:00:00+02'",
            Hub("datetime"),
            Sent("2026-07-01T10:00:00.000Z"),
        ),
        case(
            "timestamptz",
            "'2026-07-01 12:00:00.123456Z'",
            Unknown,
            Sent("2026-07-01T12:00:00.123Z"),
        ),
        case(
            "timestamptz",
            "'2026-07-01 23:59:59.9999Z'",
            As(DateTime),
            Sent("2026-07-01T23:59:59.999Z"),
        ),
        case(
            "timestamp",
            "'2026-07-01 12:00:00'",
            Hub("datetime"),
            Sent("2026-07-01T12:00:00.000Z"),
        ),
        in_zone(
            "timestamp",
            "'2026-07-01 12:00:00'",
            As(DateTime),
            zone,
            Sent("2026-07-01T10:00:00.000Z"),
        ),
        in_zone(
            "timestamp",
            "'2026-01-01 12:00:00'",
            As(DateTime),
            zone,
            Sent("2026-01-01T11:00:00.000Z"),
        ),
        in_zone(
            "moment",
            "'2026-01-01 12:00:00'",
            As(DateTime),
            zone,
            Sent("2026-01-01T11:00:00.000Z"),
        ),
        in_zone(
            "date",
            "'2026-01-01'",
            As(DateTime),
            zone,
            Sent("2025-12-31T23:00:00.000Z"),
        ),
        case(
            "date",
            "'2026-01-01'",
            As(DateTime),
            Sent("2026-01-01T00:00:00.000Z"),
        ),
        case("date", "'5874897-12-31'", As(DateTime), YEAR),
        in_zone("date", "'infinity'", As(DateTime), zone, INFINITE),
        case("timestamp", "'infinity'", As(DateTime), INFINITE),
        case("timestamp", "'-infinity'", Hub("string"), INFINITE),
        case("timestamptz", "'-infinity'", As(DateTime), INFINITE),
        case(
            "timestamp",
            "'9999-12-31 23:59:59.999999'",
            As(DateTime),
            Sent("9999-12-31T23:59:59.999Z"),
        ),
        case("timestamp", "'10000-01-01'", As(DateTime), YEAR),
        in_zone(
            "timestamp",
            "'294276-12-31 23:59:59'",
            As(DateTime),
            "America/Toronto",
            YEAR,
        ),
        in_zone(
            "timestamp",
            "'9999-12-31 23:59:59'",
            As(DateTime),
            "America/Toronto",
            YEAR,
        ),
        in_zone("timestamp", "'0001-01-01 00:00:00'", As(DateTime), zone, YEAR),
        in_zone("timestamp", "'4713-01-01 00:00:00 BC'", As(DateTime), zone, YEAR),
        case(
            "text",
            "'2026-07-01T10:00:00Z'",
            As(DateTime),
            Sent("2026-07-01T10:00:00Z"),
        ),
        case("int8", "1767225600123", As(DateTime), Sent("1767225600123")),
        case(
            "timestamp",
            "'2026-07-01 12:00:00'",
            Hub("string"),
            Sent("2026-07-01T12:00:00"),
        ),
        case(
            "timestamptz",
            "'2026-07-01 12:00:00.5Z'",
            As(Text),
            Sent("2026-07-01T12:00:00.5+00:00"),
        ),
        case("timestamp", "NULL", As(DateTime), Nothing),
        in_zone("timestamp", "NULL", As(DateTime), zone, Nothing),
    ];
    check("date_times", &cases).await;
}

#[tokio::test]
async fn lists_arrive_joined_by_semicolons() {
    let cases = [
        case("text[]", "ARRAY['b', 'a']", Hub("enumeration"), Sent("b;a")),
        case("text[]", "ARRAY['b', NULL, '', ' ', 'a']", As(Multi), Sent("b;a")),
        case("text[]", "'{}'", As(Multi), Sent("")),
        case("text[]", "ARRAY[NULL, '']", As(Multi), Sent("")),
        case("text[]", "ARRAY['a;b', 'c']", As(Multi), SEMICOLON),
        case(
            "text[]",
            "ARRAY[['a', 'b'], ['c', 'd']]",
            As(Multi),
            Sent("a;b;c;d"),
        ),
        case("text[]", "'[5:6]={x,y}'", As(Multi), Sent("x;y")),
        case("text[]", "ARRAY['a', 'b c']", As(Text), Sent("{a,\"b c\"}")),
        case("text[]", "ARRAY['a', 'b']", Hub("string"), Sent("a;b")),
        case("varchar(5)[]", "ARRAY['a', 'b']", Unknown, Sent("a;b")),
        case("mood[]", "ARRAY['glad']::mood[]", As(Multi), Sent("glad")),
        case(
            "mood[]",
            "ARRAY['glad', 'sad; tired']::mood[]",
            As(Multi),
            SEMICOLON,
        ),
        case("int4[]", "ARRAY[3, 1]", As(Multi), Sent("3;1")),
        case(
            "float8[]",
            "ARRAY[1e20, 0.1]",
            As(Multi),
            Sent("100000000000000000000;0.1"),
        ),
        case("float8[]", "'{1,NaN}'", As(Multi), NAN),
        case("bool[]", "ARRAY[true, false]", As(Multi), Sent("true;false")),
        case(
            "date[]",
            "ARRAY[DATE '2026-01-02']",
            As(Multi),
            Sent("2026-01-02"),
        ),
        case("date[]", "ARRAY[DATE 'infinity']", As(Multi), INFINITE),
        case(
            "timestamptz[]",
            "ARRAY[TIMESTAMPTZ '2026-01-02 00:00Z']",
            As(Multi),
            Sent("2026-01-02T00:00:00.000Z"),
        ),
        case("jsonb", r#"'["a", "", null, "b"]'"#, As(Multi), Sent("a;b")),
        case("jsonb", r#"'["a;b"]'"#, Hub("enumeration"), SEMICOLON),
        case("jsonb", r#"'{"a": 1}'"#, As(Multi), Sent(r#"{"a": 1}"#)),
        case("jsonb", "'\"one\"'", As(Multi), Sent("one")),
        case("text", "'a;b'", As(Multi), Sent("a;b")),
        case("text[]", "NULL", As(Multi), Nothing),
        case("jsonb", "NULL", As(Multi), Nothing),
    ];
    check("lists", &cases).await;
}

#[tokio::test]
async fn texts_travel_intact() {
    let cases = [
        case(
            "text",
            r#"E'quote " back\\slash tab\t line\n \x01'"#,
            Hub("string"),
            Sent("quote \" back\\slash tab\t line\n \u{1}"),
        ),
        case(
            "text",
            "'''; DROP TABLE wide; --'",
            Hub("string"),
            Sent("'; DROP TABLE wide; --"),
        ),
        case("text", "'👩‍🔬 naïve 漢字'", Hub("string"), Sent("👩‍🔬 naïve 漢字")),
        case("text", "'null'", Hub("string"), Sent("null")),
        case("text", "'  spaces  '", Hub("string"), Sent("  spaces  ")),
        case("text", "''", Hub("string"), Sent("")),
        case("char(5)", "'ab'", Hub("string"), Sent("ab")),
        case("mood", "'sad; tired'", Hub("enumeration"), Sent("sad; tired")),
        case(
            "uuid",
            "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'",
            Hub("string"),
            Sent("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ),
        case("json", r#"'{"a" : 1}'"#, Hub("string"), Sent(r#"{"a" : 1}"#)),
        case(
            "json",
            r#"'{"a" : "\u0000"}'"#,
            Hub("enumeration"),
            Sent(r#"{"a" : "\u0000"}"#),
        ),
        case("jsonb", r#"'"text"'"#, Hub("string"), Sent("text")),
        case("jsonb", "'null'", Hub("string"), Nothing),
        case(
            "interval",
            "'1 day 2 hours'",
            Hub("string"),
            Sent("1 day 02:00:00"),
        ),
        case("inet", "'10.0.0.1'", Hub("string"), Sent("10.0.0.1/32")),
        case("int4", "12", Hub("string"), Sent("12")),
        case("numeric", "1.50", As(Text), Sent("1.50")),
        case("int4range", "'[1,5)'", Unknown, Sent("[1,5)")),
        case("text", "NULL", Unknown, Nothing),
    ];
    check("texts", &cases).await;
}
