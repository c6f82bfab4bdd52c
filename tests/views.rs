//! Tests: rows of tables that the documents do not know. Integer and text keys, views, conditions, other audit logs,
//! pages, and the plans that Postgres makes of the statements.

use crate::support::postgres::Database;
use crate::support::reading::{mapping_of, memory, object, property, public, reader};
use hubsyncd::mapping::{Kind, Link, Mapping, Null, Object, On, Property};
use hubsyncd::postgres::rows::Reader;
use hubsyncd::postgres::{ErrorKind, Session};
use hubsyncd::sync::change::Key;
use hubsyncd::sync::linking::{State, Target};
use serde_json::{Value, json};

/// A database with the daemon's memory, and what `sql` makes in it.
async fn session(sql: &str) -> (Database, Session) {
    let database = Database::new("views").await;
    let session = database.session_as("app_owner").await;
    session.batch_execute(&memory()).await.unwrap();
    session.batch_execute(sql).await.unwrap();
    (database, session)
}

fn keys<const N: usize>(keys: [&str; N]) -> Vec<Key> {
    keys.map(Key::from).into()
}

/// Courses: an integer key, a view that computes, a condition, a list, a labelled link, columns of other names.
fn courses() -> Mapping {
    let properties = vec![
        property("Course Title", "the \"title\"", On::Create, Null::Omit),
        Property {
            kind: Some(Kind::Multi),
            ..property("tags", "tags", On::Both, Null::Clear)
        },
        property("seats_left", "left", On::Update, Null::Clear),
    ];
    let teacher = Link {
        to: "people".to_owned(),
        column: None,
        lookup: vec![("number".to_owned(), "teacher".to_owned())],
        label: Some("Teacher's; choice".to_owned()),
    };
    let courses = Object {
        from: Some(public("course_view")),
        key: "No".to_owned(),
        hubspot_id: "hs id".to_owned(),
        condition: Some("open AND \"left\" > -100 -- not the closed ones".to_owned()),
        match_on: Some("Course Title".to_owned()),
        properties,
        links: vec![teacher],
        ..object("courses", "course")
    };
    mapping_of(vec![object("people", "person"), courses])
}

const COURSES: &str = r#"
CREATE TABLE person (id bigint PRIMARY KEY, number varchar(9), hubspot_id text, synced timestamptz);
CREATE TABLE course ("No" int PRIMARY KEY, "the ""title""" text, tags text[], seats int, taken int, open bool,
  teacher text, "hs id" text, synced timestamptz);
CREATE VIEW course_view AS SELECT "No", "the ""title""", tags, seats - taken AS "left", open, teacher FROM course
  UNION ALL SELECT -1, 'of no row', NULL, 0, true, NULL;
INSERT INTO person VALUES (1, 'T1', '601', NULL), (2, 'T2', ' ', NULL);
INSERT INTO course VALUES (1, 'Rust', '{a,"",b}', 9, 2, true, 'T1', NULL, NULL), (2, NULL, NULL, 9, NULL, true, 'T2', '72', NULL),
  (3, 'Closed', NULL, 9, 2, false, NULL, NULL, NULL), (4, '', '{}', 3, 2, true, NULL, NULL, NULL);"#;

#[tokio::test]
async fn a_view_with_an_integer_key_a_condition_a_list_and_a_labelled_link_is_read() {
    let (_database, session) = session(COURSES).await;
    let link =
        "INSERT INTO hubsyncd.link VALUES ('courses', '1', 'people:Teacher''s; choice', '600', 'made')";
    session.batch_execute(link).await.unwrap();
    let reader = reader(&session, &courses(), 1).await;
    let asked = keys(["1", "2", "3", "-1", "99999999999999999999", "01", "nonsense"]);
    let mut records = reader.read(&session, &asked, &[false; 7]).await.unwrap().records;
    records.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(
        records.len(),
        1,
        "left is null in 2, 3 is closed, -1 is of no row"
    );
    let record = &records[0];
    let parsed = |text: &str| -> Value { serde_json::from_str(text).unwrap() };
    assert_eq!(
        parsed(&record.properties),
        json!({"Course Title": "Rust", "tags": "a;b"})
    );
    assert_eq!(
        parsed(&record.update_properties),
        json!({"tags": "a;b", "seats_left": "7"})
    );
    assert_eq!(record.match_value.as_deref(), Some("Rust"));
    assert_eq!(record.targets, [Target::To("601".to_owned())]);
    let [linked] = record.linked.as_slice() else {
        panic!("one link is mapped");
    };
    assert_eq!((linked[0].to.as_str(), linked[0].state), ("600", State::Made));
    assert!(record.update_only_set);
    let update = "UPDATE course SET \"hs id\" = '71', taken = 9 WHERE \"No\" = 1; UPDATE course SET taken = 0 WHERE \"No\" = 2";
    session.batch_execute(update).await.unwrap();
    let records = reader.page(&session, None, 10).await.unwrap().records;
    let found: Vec<_> = records
        .iter()
        .map(|record| (&*record.key, record.hubspot_id.as_deref()))
        .collect();
    assert_eq!(found, [("1", Some("71")), ("2", Some("72")), ("4", None)]);
    assert_eq!(
        parsed(&records[1].properties),
        json!({"tags": "", "seats_left": "9"})
    );
    assert_eq!(
        (&records[2].match_value, &records[1].targets[0]),
        (&None, &Target::Unknown),
        "blank is nothing"
    );
    assert_eq!(reader.canonical(" 007").as_deref(), Some("7"));
    assert_eq!(reader.canonical("2147483648"), None);
}

#[tokio::test]
async fn the_hubspot_id_is_the_tables_also_where_a_view_shows_an_old_one() {
    let (_database, session) = session(
        "CREATE TABLE item (id int PRIMARY KEY, name text, hubspot_id text, synced timestamptz); \
         INSERT INTO item VALUES (1, 'one'); CREATE MATERIALIZED VIEW items AS SELECT id::text, name, hubspot_id FROM item; \
         UPDATE item SET hubspot_id = '9'",
    )
    .await;
    let properties = vec![property("name", "name", On::Create, Null::Omit)];
    let items = Object {
        from: Some(public("items")),
        properties,
        ..object("items", "item")
    };
    let mapping = mapping_of(vec![items]);
    let reader = Reader::new(
        &mapping,
        0,
        &shapes_of_text_view(&session, &mapping).await,
        &Default::default(),
    );
    let read = reader.read(&session, &keys(["1"]), &[false]).await.unwrap();
    assert_eq!(read.records[0].hubspot_id.as_deref(), Some("9"));
}

/// The shapes of a mapping whose view shows the key as text.
async fn shapes_of_text_view(
    session: &Session,
    mapping: &Mapping,
) -> Vec<hubsyncd::postgres::catalog::Shape> {
    let plain = mapping_of(vec![Object {
        from: None,
        ..mapping.objects[0].clone()
    }]);
    let mut shapes = hubsyncd::postgres::catalog::inspect(session, &plain)
        .await
        .unwrap();
    let key = shapes[0].read_columns.get_mut("id").unwrap();
    key.base = "text".to_owned();
    key.category = 'S';
    shapes
}

#[tokio::test]
async fn a_row_that_fails_the_query_says_so_and_leaves_its_neighbours_readable() {
    let (_database, session) = session(
        "CREATE TABLE item (id int PRIMARY KEY, n int, hubspot_id text, synced timestamptz); \
         INSERT INTO item VALUES (1, 1), (2, 0), (3, 3); CREATE VIEW items AS SELECT id, 12 / n AS share FROM item",
    )
    .await;
    let properties = vec![property("share", "share", On::Both, Null::Omit)];
    let items = Object {
        from: Some(public("items")),
        properties,
        ..object("items", "item")
    };
    let reader = reader(&session, &mapping_of(vec![items]), 0).await;
    let failed = reader
        .read(&session, &keys(["1", "2", "3"]), &[false; 3])
        .await
        .unwrap_err();
    assert_eq!(failed.kind, ErrorKind::Rows);
    let read = reader
        .read(&session, &keys(["1", "3"]), &[false; 2])
        .await
        .unwrap();
    assert_eq!(read.records.len(), 2);
}

#[tokio::test]
async fn a_key_with_two_rows_in_its_view_is_one_record_with_a_problem() {
    let (_database, session) = session(
        "CREATE TABLE item (id int PRIMARY KEY, hubspot_id text, synced timestamptz); INSERT INTO item VALUES (1), (2); \
         CREATE VIEW items AS SELECT id, n FROM item, generate_series(1, id) AS n",
    )
    .await;
    let properties = vec![property("n", "n", On::Both, Null::Omit)];
    let items = Object {
        from: Some(public("items")),
        properties,
        ..object("items", "item")
    };
    let reader = reader(&session, &mapping_of(vec![items]), 0).await;
    let records = reader.page(&session, None, 10).await.unwrap().records;
    let problems: Vec<usize> = records.iter().map(|record| record.problems.len()).collect();
    assert_eq!(problems, [0, 1]);
}

#[tokio::test]
async fn the_clock_of_a_read_is_not_after_its_snapshot() {
    let (_database, session) = session(
        "CREATE TABLE item (id int PRIMARY KEY, hubspot_id text, synced timestamptz); INSERT INTO item VALUES (1); \
         CREATE VIEW items AS SELECT id, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS n FROM item",
    )
    .await;
    let properties = vec![property("n", "n", On::Both, Null::Omit)];
    let items = Object {
        from: Some(public("items")),
        properties,
        ..object("items", "item")
    };
    let reader = reader(&session, &mapping_of(vec![items]), 0).await;
    let read = reader.read(&session, &keys(["1"]), &[false]).await.unwrap();
    let sent: Value = serde_json::from_str(&read.records[0].properties).unwrap();
    let row_clock: i64 = sent["n"].as_str().unwrap().parse().unwrap();
    assert!(read.read_at <= row_clock && row_clock - read.read_at < 10_000_000);
}

#[tokio::test]
async fn pages_walk_every_row_once_in_the_order_of_the_key() {
    let (_database, session) = session(
        "CREATE TABLE numbered (id int PRIMARY KEY, hubspot_id text, synced timestamptz); \
         CREATE TABLE named (id varchar(40) PRIMARY KEY, hubspot_id text, synced timestamptz); \
         CREATE TABLE marked (id uuid PRIMARY KEY, hubspot_id text, synced timestamptz); \
         INSERT INTO numbered SELECT n * 7 - 300 FROM generate_series(1, 100) n; \
         INSERT INTO named SELECT chr(60 + n) || 'ä''\\ ' || n FROM generate_series(1, 100) n; \
         INSERT INTO marked SELECT md5(n::text)::uuid FROM generate_series(1, 100) n",
    )
    .await;
    for table in ["numbered", "named", "marked"] {
        let mapping = mapping_of(vec![Object {
            condition: Some("true".to_owned()),
            ..object(table, table)
        }]);
        let reader = reader(&session, &mapping, 0).await;
        let mut walked: Vec<Key> = Vec::new();
        loop {
            let page = reader.page(&session, walked.last(), 7).await.unwrap();
            if page.records.is_empty() {
                break;
            }
            assert!(page.records.len() <= 7 && page.read_at > 0);
            walked.extend(page.records.into_iter().map(|record| record.key));
        }
        let rows = session
            .query(&format!("SELECT id::text FROM {table} t ORDER BY t.id"), &[])
            .await
            .unwrap();
        let expected: Vec<Key> = rows.iter().map(|row| Key::from(row.get::<_, &str>(0))).collect();
        assert_eq!(walked, expected, "{table}");
        let read = reader.read(&session, &walked, &[false; 100]).await.unwrap();
        assert_eq!(read.records.len(), 100, "{table}");
    }
}

#[tokio::test]
async fn entries_are_found_whatever_types_record_id_and_key_have() {
    let marked = "5f0c7d1e-0000-4000-8000-00000000abcd";
    let (_database, session) = session(&format!(
        "CREATE TABLE numbered (id int PRIMARY KEY, hubspot_id text, synced timestamptz); INSERT INTO numbered VALUES (7); \
         CREATE TABLE named (id text PRIMARY KEY, hubspot_id text, synced timestamptz); INSERT INTO named VALUES ('7'), ('x'); \
         CREATE TABLE marked (id uuid PRIMARY KEY, hubspot_id text, synced timestamptz); INSERT INTO marked VALUES ('{marked}'); \
         INSERT INTO named VALUES ('{marked}')"
    ))
    .await;
    let spelled = marked.to_uppercase();
    let types = [
        ("text", vec!["7", "nonsense", marked, &spelled], [1, 2, 2]),
        (
            "varchar(36)",
            vec!["7", "99999999999999999999", marked],
            [1, 2, 1],
        ),
        ("bigint", vec!["7", "99999999999"], [1, 1, 0]),
        ("smallint", vec!["7"], [1, 1, 0]),
        ("uuid", vec![marked], [0, 1, 1]),
    ];
    for (place, (record_id, entries, expected)) in types.iter().enumerate() {
        let audit = format!("log{place}");
        let create = format!(
            "CREATE TABLE {audit} (id serial PRIMARY KEY, table_name text, record_id {record_id}, synced_to_hubspot_at timestamptz)"
        );
        session.batch_execute(&create).await.unwrap();
        let mut found = [0; 3];
        for (index, table) in ["numbered", "named", "marked"].into_iter().enumerate() {
            for entry in entries {
                let insert =
                    format!("INSERT INTO {audit} (table_name, record_id) VALUES ('{table}', '{entry}')");
                session.batch_execute(&insert).await.unwrap();
            }
            let mapping = Mapping {
                objects: vec![object(table, table)],
                audit: Some(public(&audit)),
            };
            let reader = reader(&session, &mapping, 0).await;
            let records = reader.page(&session, None, 10).await.unwrap().records;
            found[index] = records.iter().map(|record| record.entries.len()).sum();
        }
        assert_eq!(found, *expected, "{record_id}");
    }
}

/// `EXPLAIN` of a statement with its parameters in place.
async fn explain(session: &Session, statement: &str, parameters: &[(&str, &str)]) -> String {
    let mut statement = statement.to_owned();
    for (name, value) in parameters {
        statement = statement.replace(name, value);
    }
    let rows = session
        .simple_query(&format!("EXPLAIN {statement}"))
        .await
        .unwrap();
    let line = |message: &tokio_postgres::SimpleQueryMessage| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    };
    let lines: Vec<String> = rows.iter().filter_map(line).collect();
    lines.join("\n")
}

#[tokio::test]
async fn reads_use_the_indexes_of_large_tables() {
    let database = Database::with_application("plans").await;
    let session = database.session_as("app_owner").await;
    session.batch_execute(&memory()).await.unwrap();
    session
        .batch_execute(
            "INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email, hubspot_id) \
             SELECT 's' || n, n || '@example.com', n FROM generate_series(1, 50000) n; \
             INSERT INTO hubspot_sync.hubspot_bookings (booking_id, mock_exam_id, student_id, student_email) \
             SELECT n, '9', 's' || n, n || '@example.com' FROM generate_series(1, 50000) n; \
             INSERT INTO hubspot_sync.supabase_audit_log (table_name, record_id, operation) \
             SELECT 'hubspot_bookings', id, 'INSERT' FROM hubspot_sync.hubspot_bookings; ANALYZE",
        )
        .await
        .unwrap();
    let reader = reader(&session, &Mapping::built_in(), 1).await;
    let ids = "SELECT format('ARRAY[%s]', string_agg(quote_literal(id), ',')) FROM (SELECT id FROM \
               hubspot_sync.hubspot_bookings LIMIT 100) t";
    let ids: String = session.query_one(ids, &[]).await.unwrap().get(0);
    let [by_key, next_page] = reader.statements();
    let plan = explain(&session, by_key, &[("$1", &ids), ("$2", "'{}'")]).await;
    assert!(plan.contains("hubspot_bookings_pkey"), "{plan}");
    assert!(!plan.contains("Seq Scan on hubspot"), "{plan}");
    let key = "'80000000-0000-4000-8000-000000000000'";
    let plan = explain(&session, next_page, &[("$1", "100"), ("$2", key)]).await;
    assert!(plan.contains("Index Scan using hubspot_bookings_pkey"), "{plan}");
    assert!(!plan.contains("Seq Scan on hubspot"), "{plan}");
}
