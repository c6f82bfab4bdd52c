//! Rows: whatever the application stores, every row is read, travels as JSON, and means what it meant.

use super::runner;
use crate::support::postgres::Database;
use crate::support::reading::{mapping_of, memory, object, property};
use hubsyncd::mapping::{Null, Object, On};
use hubsyncd::postgres::Session;
use hubsyncd::postgres::catalog::inspect;
use hubsyncd::postgres::quote;
use hubsyncd::postgres::rows::Reader;
use proptest::prelude::*;
use proptest::sample::select;
use std::collections::BTreeMap;

/// The rows of a case.
const ROWS: usize = 20;

/// One row, as an application would write it.
#[derive(Debug, Clone)]
struct Row {
    text: String,
    float: f64,
    number: &'static str,
    stamp: &'static str,
    list: Vec<String>,
    id: Option<String>,
}

impl Row {
    /// The row as SQL, under this key.
    fn sql(&self, key: usize) -> String {
        let literal = |text: &str| quote::literal(text);
        let list: Vec<String> = self.list.iter().map(|text| literal(text)).collect();
        format!(
            "({key}, {}, {}, '{}'::float8, '{}'::numeric, '{}'::timestamptz, ARRAY[{}]::text[])",
            self.id.as_deref().map_or("NULL".to_owned(), literal),
            literal(&self.text),
            self.float,
            self.number,
            self.stamp,
            list.join(",")
        )
    }
}

fn hostile() -> impl Strategy<Value = String> {
    let biting = select(vec![
        "'",
        "\"",
        "\\",
        "$$",
        "--",
        "\u{0}",
        "\n",
        "\u{1}",
        "\u{7f}",
        "\u{2028}",
        "é",
        "💥",
        "\\u0000",
        "}",
        "\",\"id\":\"9",
    ]);
    let piece = prop_oneof![
        biting.prop_map(str::to_owned),
        "\\PC{0,6}",
        Just("x".repeat(70_000))
    ];
    prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat().replace('\0', ""))
}

fn row() -> impl Strategy<Value = Row> {
    let number = select(vec![
        "0",
        "-0.0",
        "NaN",
        "1e-20",
        "123456789012345678901234567890.5",
        "Infinity",
        "-Infinity",
        "7",
    ]);
    let stamp = select(vec![
        "infinity",
        "-infinity",
        "epoch",
        "4713-01-01 BC",
        "12345-06-07",
        "9999-12-31 23:59:59.999999+00",
        "2026-03-29 02:30+01",
    ]);
    let id = prop::option::of(prop_oneof!["[0-9]{1,20}", Just("  ".to_owned()), hostile()]);
    (
        hostile(),
        any::<f64>(),
        number,
        stamp,
        prop::collection::vec(hostile(), 0..3),
        id,
    )
        .prop_map(|(text, float, number, stamp, list, id)| Row {
            text,
            float,
            number,
            stamp,
            list,
            id,
        })
}

const TABLE: &str = "CREATE TABLE wide (id int PRIMARY KEY, hubspot_id text, synced timestamptz, t text, f float8, n numeric, s timestamptz, l text[])";

async fn ready() -> (Database, Session, Reader) {
    let database = Database::new("fuzzed_rows").await;
    let session = database.session_as("app_owner").await;
    session.batch_execute(TABLE).await.unwrap();
    session.batch_execute(&memory()).await.unwrap();
    let columns = ["t", "f", "n", "s", "l"];
    let properties = columns
        .iter()
        .map(|name| property(name, name, On::Both, Null::Clear));
    let mapping = mapping_of(vec![Object {
        properties: properties.collect(),
        ..object("wide", "wide")
    }]);
    let shapes = inspect(&session, &mapping).await.unwrap();
    let types = [
        ("s", "datetime"),
        ("l", "enumeration"),
        ("n", "number"),
        ("f", "number"),
    ];
    let types: BTreeMap<String, String> = types
        .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
        .into();
    let reader = Reader::new(&mapping, 0, &shapes, &types);
    (database, session, reader)
}

/// What one record says of the row it was read from.
fn check(row: &Row, record: &hubsyncd::sync::record::Record) -> Result<(), TestCaseError> {
    let sent: Result<BTreeMap<String, String>, _> = serde_json::from_str(&record.properties);
    prop_assert!(sent.is_ok(), "no JSON object of texts: {:?}", record.properties);
    let sent = sent.unwrap_or_default();
    let text = sent.get("t").map(String::as_str);
    prop_assert_eq!(text, Some(&*row.text));
    let problem = |name: &str| {
        record
            .problems
            .iter()
            .any(|problem| problem.starts_with(&format!("{name}: ")))
    };
    let is_finite = |text: &str| text.parse::<f64>().is_ok_and(f64::is_finite);
    prop_assert_eq!(problem("n"), !is_finite(row.number));
    prop_assert_eq!(problem("f"), !row.float.is_finite());
    if row.float.is_finite() {
        let float = sent.get("f").cloned().unwrap_or_default();
        prop_assert!(!float.contains(['e', 'E']), "an exponent: {float}");
        prop_assert_eq!(float.parse::<f64>().ok(), Some(row.float));
    }
    prop_assert_eq!(
        problem("s"),
        row.stamp.contains("infinity") || row.stamp.contains("BC") || row.stamp.starts_with("12345")
    );
    let elements: Vec<&str> = row
        .list
        .iter()
        .map(String::as_str)
        .filter(|text| !text.is_empty())
        .collect();
    prop_assert_eq!(problem("l"), elements.iter().any(|text| text.contains(';')));
    if !problem("l") {
        prop_assert_eq!(sent.get("l").map(String::as_str), Some(&*elements.join(";")));
    }
    Ok(())
}

#[test]
fn any_row_is_read_and_means_what_it_meant() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (database, session, reader) = runtime.block_on(ready());
    let checked = runner(40).run(&prop::collection::vec(row(), ROWS), |rows| {
        let values: Vec<String> = rows.iter().enumerate().map(|(key, row)| row.sql(key)).collect();
        let sql = format!(
            "TRUNCATE wide; INSERT INTO wide (id, hubspot_id, t, f, n, s, l) VALUES {}",
            values.join(", ")
        );
        let read = runtime.block_on(async {
            session.batch_execute(&sql).await.unwrap();
            reader.page(&session, None, 1000).await
        });
        prop_assert!(read.is_ok(), "the page is not read: {:?}", read.err());
        let records = read.map(|read| read.records).unwrap_or_default();
        prop_assert_eq!(records.len(), rows.len());
        for record in &records {
            let key: usize = record.key.parse().expect("keys are ours");
            check(&rows[key], record)?;
        }
        Ok(())
    });
    drop(database);
    checked.unwrap();
}
