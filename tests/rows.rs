//! Tests: rows. What a read says of the built-in mapping's tables, as the least-privileged role.

use crate::support::postgres::Database;
use crate::support::reading::{memory, reader};
use hubsyncd::mapping::Mapping;
use hubsyncd::postgres::Session;
use hubsyncd::postgres::rows::Reader;
use hubsyncd::sync::change::Key;
use hubsyncd::sync::linking::{Found, Remembered, State, Target};
use hubsyncd::sync::record::Record;
use serde_json::{Value, json};

const CONTACTS: usize = 0;
const BOOKINGS: usize = 1;
const MOCK_EXAMS: usize = 2;

/// A database with the application's tables, its owner's session, and the daemon's.
pub struct World {
    owner: Session,
    daemon: Session,
    mapping: Mapping,
    _database: Database,
}

impl World {
    async fn new(hint: &str) -> World {
        let database = Database::with_application(hint).await;
        let owner = database.session_as("app_owner").await;
        owner.batch_execute(&memory()).await.unwrap();
        let daemon = database.session_as("hubsyncd").await;
        World {
            owner,
            daemon,
            mapping: Mapping::built_in(),
            _database: database,
        }
    }

    async fn sql(&self, sql: &str) {
        self.owner.batch_execute(sql).await.unwrap();
    }

    async fn reader(&self, object: usize) -> Reader {
        reader(&self.daemon, &self.mapping, object).await
    }

    async fn read(&self, object: usize, key: &str, full: bool) -> Record {
        let reader = self.reader(object).await;
        let read = reader.read(&self.daemon, &[key.into()], &[full]).await.unwrap();
        assert_eq!(read.records.len(), 1, "{key}");
        read.records.into_iter().next().unwrap()
    }

    async fn contact(&self, n: u32, columns: &str, values: &str) -> String {
        let key = key(n);
        self.sql(&format!(
            "INSERT INTO hubspot_sync.hubspot_contact_credits (id, student_id, email, {columns}) \
             VALUES ('{key}', 'S{n}', 's{n}@example.com', {values})"
        ))
        .await;
        key
    }

    async fn booking(&self, n: u32, columns: &str, values: &str) -> String {
        let key = key(n);
        self.sql(&format!(
            "INSERT INTO hubspot_sync.hubspot_bookings (id, booking_id, student_id, student_email, {columns}) \
             VALUES ('{key}', 'B{n}', 'S{n}', 's{n}@example.com', {values})"
        ))
        .await;
        key
    }
}

fn key(n: u32) -> String {
    format!("00000000-0000-4000-8000-{n:012}")
}

fn parsed(properties: &str) -> Value {
    serde_json::from_str(properties).unwrap()
}

#[tokio::test]
async fn a_new_contact_is_created_with_everything_but_its_nulls() {
    let world = World::new("rows").await;
    let key = world
        .contact(1, "firstname, sj_credits, cs_credits", "'Ada', 3, NULL")
        .await;
    let record = world.read(CONTACTS, &key, false).await;
    let credits = json!({"sj_credits": "3", "cs_credits": "0", "sjmini_credits": "0",
        "mock_discussion_token": "0", "shared_mock_credits": "0"});
    let mut all = credits.clone();
    all["student_id"] = "S1".into();
    all["email"] = "s1@example.com".into();
    all["firstname"] = "Ada".into();
    assert_eq!(parsed(&record.properties), all);
    assert_eq!(parsed(&record.update_properties), credits);
    assert_eq!(record.match_value.as_deref(), Some("s1@example.com"));
    assert_eq!((record.hubspot_id, record.intent_id), (None, None));
    assert!(!record.failed && !record.update_only_set && record.problems.is_empty());
}

#[tokio::test]
async fn a_known_contact_sends_credits_and_on_demand_what_only_a_create_sends() {
    let world = World::new("rows").await;
    let key = world.contact(1, "hubspot_id, lastname", "'501', 'Byron'").await;
    let record = world.read(CONTACTS, &key, false).await;
    assert_eq!(record.hubspot_id.as_deref(), Some("501"));
    assert_eq!(record.properties, record.update_properties);
    assert_eq!(parsed(&record.properties).as_object().unwrap().len(), 5);
    let record = world.read(CONTACTS, &key, true).await;
    let full = parsed(&record.properties);
    assert_eq!(full["lastname"], "Byron");
    assert!(
        full.get("firstname").is_none(),
        "a null create-only field leaves HubSpot's value"
    );
    assert_eq!(full.as_object().unwrap().len(), 8);
    assert_eq!(parsed(&record.update_properties).as_object().unwrap().len(), 5);
}

#[tokio::test]
async fn a_blank_hubspot_id_is_none_and_one_awaiting_its_receipt_makes_an_update() {
    let world = World::new("rows").await;
    let key = world.contact(1, "hubspot_id", "'  '").await;
    let record = world.read(CONTACTS, &key, false).await;
    assert_eq!(record.known_id(), None);
    world
        .sql(&format!(
            "INSERT INTO hubsyncd.intent VALUES ('contacts', '{key}', NULL, 's1@example.com', 't')"
        ))
        .await;
    let record = world.read(CONTACTS, &key, false).await;
    assert_eq!(record.known_id(), None, "an intent without id says nothing");
    assert!(record.properties.contains("student_id"));
    world.sql("UPDATE hubsyncd.intent SET hubspot_id = '77'").await;
    let record = world.read(CONTACTS, &key, false).await;
    assert_eq!(
        (record.hubspot_id.as_deref(), record.intent_id.as_deref()),
        (None, Some("77"))
    );
    assert_eq!(record.properties, record.update_properties);
    world.sql("UPDATE hubsyncd.intent SET object = 'bookings'").await;
    assert_eq!(world.read(CONTACTS, &key, false).await.known_id(), None);
    let spaced = "UPDATE hubspot_sync.hubspot_contact_credits SET hubspot_id = ' 501 '";
    world.sql(spaced).await;
    let record = world.read(CONTACTS, &key, false).await;
    assert_eq!(record.hubspot_id.as_deref(), Some("501"));
}

#[tokio::test]
async fn a_failure_is_told_and_may_ask_for_the_full_record() {
    let world = World::new("rows").await;
    let key = world.contact(1, "hubspot_id", "'501'").await;
    world
        .sql(&format!(
            "INSERT INTO hubsyncd.failure (object, key, category, message) VALUES ('contacts', '{key}', 'value', 'm')"
        ))
        .await;
    let record = world.read(CONTACTS, &key, false).await;
    assert!(record.failed && !record.properties.contains("student_id"));
    world.sql("UPDATE hubsyncd.failure SET full_record = true").await;
    assert!(
        world
            .read(CONTACTS, &key, false)
            .await
            .properties
            .contains("student_id")
    );
    let reader = world.reader(CONTACTS).await;
    let page = reader.page(&world.daemon, None, 10).await.unwrap();
    assert!(page.records[0].properties.contains("student_id"));
}

#[tokio::test]
async fn nulls_clear_on_update_and_are_left_out_of_a_create() {
    let world = World::new("rows").await;
    let new = world.booking(1, "mock_exam_id", "'9001'").await;
    let record = world.read(BOOKINGS, &new, false).await;
    let created = parsed(&record.properties);
    assert!(created.get("is_active").is_none() && created.get("attendance").is_none());
    assert_eq!(
        parsed(&record.update_properties),
        json!({"is_active": "", "attendance": ""})
    );
    let known = world
        .booking(
            2,
            "mock_exam_id, hubspot_id, is_active, exam_date",
            "'9001', '7', 'Active', 'infinity'",
        )
        .await;
    let record = world.read(BOOKINGS, &known, false).await;
    assert_eq!(
        parsed(&record.properties),
        json!({"is_active": "Active", "attendance": ""})
    );
    assert!(record.problems.is_empty(), "what is not sent holds nothing up");
    let record = world.read(BOOKINGS, &known, true).await;
    assert_eq!(record.problems, ["exam_date: infinite"]);
}

#[tokio::test]
async fn a_value_that_only_updates_carry_is_told() {
    let world = World::new("rows").await;
    let without = world.booking(1, "mock_exam_id", "'9001'").await;
    let with = world
        .booking(2, "mock_exam_id, attendance", "'9001', 'Yes'")
        .await;
    assert!(!world.read(BOOKINGS, &without, false).await.update_only_set);
    let record = world.read(BOOKINGS, &with, false).await;
    assert!(record.update_only_set && !record.properties.contains("attendance"));
}

#[tokio::test]
async fn links_come_from_the_column_else_from_the_one_contact_that_matches() {
    let world = World::new("rows").await;
    let targets = async |key: &str| world.read(BOOKINGS, key, false).await.targets;
    let some = |id: &str| Target::To(id.to_owned());
    let by_column = world
        .booking(1, "mock_exam_id, contact_id", "' 9001 ', '41'")
        .await;
    assert_eq!(targets(&by_column).await, [some("41"), some("9001")]);
    let by_lookup = world.booking(2, "mock_exam_id, contact_id", "' ', ' '").await;
    assert_eq!(targets(&by_lookup).await, [Target::Unknown, Target::Nowhere]);
    world.contact(2, "hubspot_id", "''").await;
    assert_eq!(
        targets(&by_lookup).await,
        [Target::Unknown, Target::Nowhere],
        "a contact without id is no target"
    );
    world
        .sql("UPDATE hubspot_sync.hubspot_contact_credits SET hubspot_id = '42'")
        .await;
    assert_eq!(targets(&by_lookup).await, [some("42"), Target::Nowhere]);
    assert_eq!(targets(&by_column).await[0], some("41"), "the column wins");
    world
        .sql(
            "ALTER TABLE hubspot_sync.hubspot_contact_credits DROP CONSTRAINT hubspot_contact_credits_student_id_email_key; \
             INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email, hubspot_id) \
             VALUES ('S2', 's2@example.com', '43'), ('S2', 's2@example.com', NULL)",
        )
        .await;
    assert_eq!(
        targets(&by_lookup).await,
        [Target::Unknown, Target::Nowhere],
        "two that match are no target"
    );
    world
        .sql(
            "ALTER TABLE hubspot_sync.hubspot_bookings ALTER student_email DROP NOT NULL; \
             UPDATE hubspot_sync.hubspot_bookings SET student_email = NULL",
        )
        .await;
    assert_eq!(
        targets(&by_lookup).await,
        [Target::Nowhere, Target::Nowhere],
        "a row that names nobody looks for nobody"
    );
}

#[tokio::test]
async fn the_link_memory_is_read() {
    let world = World::new("rows").await;
    let key = world.booking(1, "mock_exam_id, contact_id", "'9001', '41'").await;
    let linked = async || world.read(BOOKINGS, &key, false).await.linked;
    assert_eq!(linked().await, [vec![], vec![]]);
    world
        .sql(&format!(
            "INSERT INTO hubsyncd.link VALUES ('bookings', '{key}', 'mock_exams', '9001', 'made'), \
             ('bookings', '{key}', 'gone', '7', 'made'), ('contacts', '{key}', 'contacts', '39', 'made'); \
             INSERT INTO hubsyncd.link VALUES ('bookings', '{key}', 'contacts', '40', 'making', '800', 'pair', \
             '2026-01-02 03:04:05.678901+00'), ('bookings', '{key}', 'contacts', '41', 'removing', '800', 'link', NULL)"
        ))
        .await;
    let remembered = |to: &str, from: Option<&str>, state: State, found: Found| Remembered {
        to: to.to_owned(),
        from: from.map(str::to_owned),
        state,
        found,
        unsettled: None,
    };
    let mut links = linked().await;
    links[0].sort_by(|a, b| a.to.cmp(&b.to));
    let making = Remembered {
        unsettled: Some(1_767_323_045_678_901),
        ..remembered("40", Some("800"), State::Making, Found::Pair)
    };
    let removing = remembered("41", Some("800"), State::Removing, Found::Link);
    let made = remembered("9001", None, State::Made, Found::Nothing);
    assert_eq!(links, [vec![making, removing], vec![made]]);
}

#[tokio::test]
async fn the_unmarked_entries_of_a_row_come_with_it() {
    let world = World::new("rows").await;
    world
        .sql(&format!(
            "INSERT INTO hubspot_sync.hubspot_mock_exams (id, hubspot_id) VALUES ('{0}', '9001'), ('{1}', '9002'); \
             INSERT INTO hubspot_sync.supabase_audit_log (id, table_name, record_id, operation, synced_to_hubspot_at) VALUES \
             (1, 'hubspot_mock_exams', '{0}', 'UPDATE', NULL), (2, 'hubspot_sync.hubspot_mock_exams', '{0}', 'UPDATE', NULL), \
             (3, 'hubspot_mock_exams', '{0}', 'UPDATE', now()), (4, 'hubspot_bookings', '{0}', 'UPDATE', NULL), \
             (5, 'hubspot_mock_exams', '{1}', 'UPDATE', NULL)",
            key(1),
            key(2)
        ))
        .await;
    let record = world.read(MOCK_EXAMS, &key(1), false).await;
    assert_eq!(record.entries, [1, 2]);
    assert_eq!(parsed(&record.properties), json!({"total_bookings": "0"}));
    let reader = world.reader(MOCK_EXAMS).await;
    let page = reader.page(&world.daemon, None, 10).await.unwrap();
    assert_eq!(page.records[0].entries, [1, 2]);
    assert_eq!(page.records[1].entries, [5]);
}

#[tokio::test]
async fn keys_that_no_row_can_have_are_not_found_and_harm_nobody() {
    let world = World::new("rows").await;
    let there = world.contact(1, "hubspot_id", "'501'").await;
    let keys: Vec<Key> = [
        "nonsense",
        &there,
        "",
        "'; DROP TABLE x; --",
        &key(2),
        "42",
        "a\0b",
    ]
    .map(Key::from)
    .into();
    let reader = world.reader(CONTACTS).await;
    let read = reader.read(&world.daemon, &keys, &[true; 7]).await.unwrap();
    assert_eq!(read.records.len(), 1);
    assert_eq!(*read.records[0].key, *there);
    assert_eq!(reader.canonical(&there.to_uppercase()).as_deref(), Some(&*there));
    assert_eq!(reader.canonical("nonsense"), None);
    let read = reader.read(&world.daemon, &[], &[]).await.unwrap();
    assert!(read.records.is_empty() && read.read_at > 0);
}

#[tokio::test]
async fn owners_of_hubspot_ids_are_found() {
    let world = World::new("rows").await;
    let key = world.contact(1, "hubspot_id", "'501'").await;
    world.contact(2, "hubspot_id", "'502'").await;
    let reader = world.reader(CONTACTS).await;
    let asked = ["501".to_owned(), "999".to_owned()];
    let owners = reader.owners(&world.daemon, &asked).await.unwrap();
    assert_eq!(owners.len(), 1);
    assert!(owners[0].0 == "501" && owners[0].1.is(&Key::from(key)));
}

#[tokio::test]
async fn hostile_texts_travel_intact_beside_their_neighbours() {
    let world = World::new("rows").await;
    let long = "ä\"\\".repeat(22_000);
    let texts = [
        "'; DROP TABLE hubspot_sync.hubspot_contact_credits; --",
        "👩‍🔬\u{1}\n\t",
        &long,
        "plain",
    ];
    let mut keys = Vec::new();
    for (n, text) in texts.iter().enumerate() {
        let n = u32::try_from(n).unwrap();
        let key = key(n);
        let insert = "INSERT INTO hubspot_sync.hubspot_contact_credits (id, student_id, email, firstname) \
                      VALUES ($1::text::uuid, $1, $1, $2)";
        let types = [(&key as _, text_type()), (text as _, text_type())];
        world.owner.query_typed(insert, &types).await.unwrap();
        keys.push(Key::from(key));
    }
    let reader = world.reader(CONTACTS).await;
    let read = reader.read(&world.daemon, &keys, &[false; 4]).await.unwrap();
    assert_eq!(read.records.len(), 4);
    for record in read.records {
        let place = keys.iter().position(|key| *key == record.key).unwrap();
        assert_eq!(parsed(&record.properties)["firstname"], texts[place]);
    }
}

fn text_type() -> tokio_postgres::types::Type {
    tokio_postgres::types::Type::TEXT
}
