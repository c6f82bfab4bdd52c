//! Tests: quoting. Any name and any text survive the way into SQL and back.

use crate::support::postgres::Database;
use hubsyncd::mapping::TableName;
use hubsyncd::postgres::Session;
use hubsyncd::postgres::quote;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// Texts of every sort, rich in what SQL takes amiss; Postgres holds no NUL.
fn hostile() -> impl Strategy<Value = String> {
    let biting = prop::sample::select(vec![
        "'", "\"", "\\", "$$", "--", "/*", "*/", ";", "\n", "%", "E'", "$1", "{", "é",
    ]);
    let piece = prop_oneof![biting.prop_map(str::to_owned), "[^\\x00]{0,6}"];
    vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

/// A name that Postgres takes whole: 1 to 63 bytes.
fn name() -> impl Strategy<Value = String> {
    hostile().prop_map(|text| {
        let mut name: String = text;
        while name.len() > 60 {
            name.pop();
        }
        if name.is_empty() { "x".to_owned() } else { name }
    })
}

/// Runs `check` on lists of generated strings against one session.
fn against_postgres(
    strategy: impl Strategy<Value = String>,
    check: impl AsyncFn(&Session, &[String]) -> Result<(), TestCaseError>,
) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (_database, session) = runtime.block_on(async {
        let database = Database::new("quoting").await;
        let session = database.session_as("app_owner").await;
        (database, session)
    });
    let mut runner = TestRunner::new(Config::with_cases(60));
    runner
        .run(&vec(strategy, 20), |texts| {
            runtime.block_on(check(&session, &texts))
        })
        .unwrap();
}

#[test]
fn any_literal_comes_back_as_it_went() {
    against_postgres(hostile(), async |session, texts| {
        for conforming in ["on", "off"] {
            let set = format!("SET standard_conforming_strings = {conforming}; SET backslash_quote = on");
            session.batch_execute(&set).await.unwrap();
            let literals: Vec<String> = texts.iter().map(|text| quote::literal(text)).collect();
            let row = session
                .query_one(&format!("SELECT ARRAY[{}]::text[]", literals.join(",")), &[])
                .await
                .unwrap();
            prop_assert_eq!(row.get::<_, Vec<String>>(0), texts);
        }
        Ok(())
    });
}

#[test]
fn any_identifier_names_a_column() {
    against_postgres(name(), async |session, names| {
        let columns = names
            .iter()
            .map(|name| format!("1 AS {}", quote::identifier(name)));
        let columns: Vec<String> = columns.collect();
        let statement = session
            .prepare(&format!("SELECT {}", columns.join(", ")))
            .await
            .unwrap();
        let back: Vec<&str> = statement.columns().iter().map(|column| column.name()).collect();
        prop_assert_eq!(back, names.iter().map(String::as_str).collect::<Vec<_>>());
        Ok(())
    });
}

#[test]
fn any_schema_and_table_are_found_under_their_names() {
    against_postgres(name(), async |session, names| {
        for pair in names.chunks(2).take(3) {
            let table = TableName {
                schema: format!("s{}", pair[0]),
                name: pair[1].clone(),
            };
            let (schema, quoted) = (quote::identifier(&table.schema), quote::table(&table));
            let create = format!(
                "DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}; CREATE TABLE {quoted} ()"
            );
            session.batch_execute(&create).await.unwrap();
            let found = "SELECT EXISTS (SELECT FROM pg_tables WHERE schemaname = $1 AND tablename = $2)";
            let row = session
                .query_one(found, &[&table.schema, &table.name])
                .await
                .unwrap();
            prop_assert!(row.get::<_, bool>(0));
            session
                .batch_execute(&format!("DROP SCHEMA {schema} CASCADE"))
                .await
                .unwrap();
        }
        Ok(())
    });
}
