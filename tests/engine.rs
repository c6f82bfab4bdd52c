//! The engine knows no table by name: a mapping of tables that the documents never heard of, with an integer key, a
//! computed view, a condition, a list, a labelled link, and names that need quoting, through everything the daemon does.

use crate::support::daemon::{Daemon, QUICK, Stage};
use hubsyncd::sandbox::{Property, Record, Settings, World};

const CARS: &str = "2-70001";
const DRIVERS: &str = "2-70002";

const TABLES: &str = r#"
CREATE SCHEMA "Fleet.Office";
CREATE TABLE "Fleet.Office"."Car Pool" (
  "Car No" integer PRIMARY KEY, "the ""Plate""" text NOT NULL UNIQUE, price numeric, tags text[],
  "Driver Ref" text, "driver name" text, in_service boolean NOT NULL DEFAULT true, remarks text,
  "HS Id" text, "Pushed At" timestamptz);
CREATE VIEW "Fleet.Office"."Car View" AS
  SELECT "Car No", "the ""Plate""", price * 2 AS "Twice", tags, "Driver Ref", "driver name", in_service
  FROM "Fleet.Office"."Car Pool";
CREATE TABLE "Fleet.Office".drivers (
  "Name" text PRIMARY KEY, phone varchar(40), retired boolean NOT NULL DEFAULT false,
  hs text, synced timestamptz);
GRANT USAGE ON SCHEMA "Fleet.Office" TO hubsyncd, app;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA "Fleet.Office" TO app;
GRANT SELECT ON ALL TABLES IN SCHEMA "Fleet.Office" TO hubsyncd;
GRANT UPDATE ("HS Id", "Pushed At") ON "Fleet.Office"."Car Pool" TO hubsyncd;
GRANT UPDATE (hs, synced) ON "Fleet.Office".drivers TO hubsyncd;
"#;

const MAPPING: &str = r#"
[[object]]
name = "drivers"
table = '"Fleet.Office".drivers'
type = "2-70002"
key = "Name"
hubspot-id = "hs"
synced-at = "synced"
create = false
adopt = "update-only"
where = "NOT retired"
properties = { phone = "phone" }

[[object]]
name = "cars"
table = '"Fleet.Office"."Car Pool"'
from = '"Fleet.Office"."Car View"'
watch = ['the "Plate"', "price", "tags", "Driver Ref", "driver name", "in_service"]
type = "2-70001"
key = "Car No"
hubspot-id = "HS Id"
synced-at = "Pushed At"
match-on = "plate"
where = "in_service AND \"Car No\" > 0"

[object.properties]
plate = { column = 'the "Plate"', on = "create" }
twice = { column = "Twice", on = "both" }
tags = { column = "tags", as = "multi", on = "both" }

[[object.link]]
to = "drivers"
column = "Driver Ref"
lookup = { Name = "driver name" }
label = "Driver's choice"
"#;

async fn stage(hint: &str) -> Stage {
    let stage = Stage::without_setup(hint, Settings::default(), &format!("{QUICK}{MAPPING}")).await;
    stage.sql(TABLES).await;
    {
        let mut world = stage.sandbox.world();
        let tags = Property::checkboxes("tags", &["red", "fast", "old"]);
        let plate = Property::string("plate").unique();
        world.define(CARS, "cars", [plate, Property::number("twice"), tags]);
        world.define(DRIVERS, "drivers", [Property::string("phone")]);
        world.label(CARS, DRIVERS, "Driver's choice");
    }
    stage.setup().await;
    stage
}

/// A driver that both ends know; answers the HubSpot id.
async fn driver(stage: &Stage, name: &str) -> String {
    let id = stage.sandbox.world().create(DRIVERS, []);
    let name = name.replace('\'', "''");
    let sql = format!(r#"INSERT INTO "Fleet.Office".drivers VALUES ('{name}', NULL, false, '{id}')"#);
    stage.sql(&sql).await;
    id
}

fn car<'w>(world: &'w World, plate: &str) -> Option<&'w Record> {
    world.find(CARS, "plate", plate)
}

async fn wait_twice(stage: &Stage, plate: &str, twice: &str) {
    stage
        .wait_world(&format!("{plate} has twice = {twice}"), |world| {
            car(world, plate).and_then(|car| car.get("twice")) == Some(twice)
        })
        .await;
}

#[tokio::test]
async fn a_table_with_odd_names_goes_through_setup_change_link_and_sweep() {
    let stage = stage("engine").await;
    let driver = driver(&stage, "Zoë O'Hara").await;
    let daemon = stage.start().await;
    stage
        .app(
            r#"INSERT INTO "Fleet.Office"."Car Pool" ("Car No", "the ""Plate""", price, tags, "driver name")
               VALUES (7, 'AB 1', 2.25, '{red,"",fast}', 'Zoë O''Hara')"#,
        )
        .await;
    wait_twice(&stage, "AB 1", "4.50").await;
    let id = car(&stage.sandbox.world(), "AB 1").unwrap().id();
    stage
        .wait_world("the car has its labelled driver", |world| {
            let links = world.associations(CARS, &id, DRIVERS);
            links.len() == 1 && links[0].to == driver && links[0].labels == ["Driver's choice"]
        })
        .await;
    let tags = |world: &World| car(world, "AB 1").unwrap().get("tags").unwrap_or("").to_owned();
    assert_eq!(tags(&stage.sandbox.world()), "red;fast");
    stage.wait_drained().await;
    let written = r#"SELECT "HS Id" || ' ' || ("Pushed At" IS NOT NULL) FROM "Fleet.Office"."Car Pool""#;
    assert_eq!(stage.value(written).await, Some(format!("{id} true")));

    // A column of the table that nothing watches names no row; the next change, which is watched, is the next request.
    daemon.settled().await;
    let requests = stage.sandbox.world().requests().count();
    stage
        .app(r#"UPDATE "Fleet.Office"."Car Pool" SET remarks = 'x'"#)
        .await;
    stage
        .app(r#"UPDATE "Fleet.Office"."Car Pool" SET price = 3, tags = NULL"#)
        .await;
    wait_twice(&stage, "AB 1", "6").await;
    assert_eq!(tags(&stage.sandbox.world()), "");
    stage.wait_drained().await;
    assert_eq!(stage.sandbox.world().requests().count(), requests + 1);

    // What somebody typed over in HubSpot is put right by the sweep, which goes by an integer key: 7, 9, 10.
    stage
        .app(
            r#"INSERT INTO "Fleet.Office"."Car Pool" ("Car No", "the ""Plate""", price) VALUES (10, 'CD', 5), (9, 'EF', 6)"#,
        )
        .await;
    wait_twice(&stage, "CD", "10").await;
    wait_twice(&stage, "EF", "12").await;
    stage.wait_drained().await;
    stage.sandbox.world().set(CARS, &id, "twice", "1");
    let run = daemon.sweep().await;
    assert_eq!(run["outcome"], "complete", "{run}");
    assert_eq!(run["summary"]["cars"]["updated"], 3, "{run}");
    assert_eq!(run["summary"]["drivers"]["updated"], 1, "{run}");
    wait_twice(&stage, "AB 1", "6").await;
    assert_eq!(daemon.stop().await, Some(0));
}

#[tokio::test]
async fn a_row_that_leaves_the_condition_is_left_alone_and_one_that_enters_is_pushed() {
    let stage = stage("leaving").await;
    let daemon = stage.start().await;
    let insert = |number: i32, plate: &str, served: bool| {
        format!(
            r#"INSERT INTO "Fleet.Office"."Car Pool" ("Car No", "the ""Plate""", price, in_service)
               VALUES ({number}, '{plate}', 1, {served})"#
        )
    };
    stage.app(&insert(1, "in", true)).await;
    stage.app(&insert(2, "out", false)).await;
    wait_twice(&stage, "in", "2").await;
    stage.wait_drained().await;
    assert!(car(&stage.sandbox.world(), "out").is_none());
    let id = car(&stage.sandbox.world(), "in").unwrap().id();
    // Both change sides in one statement, and their values with it.
    stage
        .app(r#"UPDATE "Fleet.Office"."Car Pool" SET in_service = NOT in_service, price = 50"#)
        .await;
    wait_twice(&stage, "out", "100").await;
    stage.wait_drained().await;
    let run = daemon.sweep().await;
    assert_eq!(run["summary"]["cars"]["updated"], 1, "{run}");
    {
        let world = stage.sandbox.world();
        let left = world.record(CARS, &id).unwrap();
        assert!(!left.archived());
        assert_eq!(left.get("twice"), Some("2"));
    }
    let row = r#"SELECT "HS Id" FROM "Fleet.Office"."Car Pool" WHERE "Car No" = 1"#;
    assert_eq!(stage.value(row).await, Some(id));
    assert_eq!(
        stage
            .value("SELECT count(*) FROM hubsyncd.failure")
            .await
            .as_deref(),
        Some("0")
    );
}

#[tokio::test]
async fn an_object_that_is_never_created_is_updated_once_its_id_is_there() {
    let stage = stage("never").await;
    let daemon = stage.start().await;
    stage
        .app(r#"INSERT INTO "Fleet.Office".drivers ("Name", phone) VALUES ('no id', '1')"#)
        .await;
    stage.wait_drained().await;
    assert_eq!(stage.sandbox.world().records(DRIVERS).count(), 0);
    let id = stage.sandbox.world().create(DRIVERS, []);
    stage
        .app(&format!(r#"UPDATE "Fleet.Office".drivers SET hs = '{id}'"#))
        .await;
    let phone = |world: &World| {
        world
            .record(DRIVERS, &id)
            .unwrap()
            .get("phone")
            .map(str::to_owned)
    };
    stage
        .wait_world("the driver has a telephone", |world| {
            phone(world).as_deref() == Some("1")
        })
        .await;
    // A changed key is a row that went and one that came; it is the same record still.
    stage
        .app(r#"UPDATE "Fleet.Office".drivers SET "Name" = 'renamed', phone = '2'"#)
        .await;
    stage
        .wait_world("the renamed driver's number", |world| {
            phone(world).as_deref() == Some("2")
        })
        .await;
    stage.wait_drained().await;
    assert_eq!(stage.sandbox.world().records(DRIVERS).count(), 1);
    drop(daemon);
}

#[tokio::test]
async fn pitfall_4_03_a_refused_row_of_such_a_table_is_listed_under_its_key_and_tried_again() {
    let stage = stage("refused").await;
    let daemon = stage.start().await;
    stage
        .app(
            r#"INSERT INTO "Fleet.Office"."Car Pool" ("Car No", "the ""Plate""", price, tags)
               VALUES (1, 'good', 1, '{red}'), (2, 'bad', 1, '{purple}'), (3, 'nan', 'NaN', NULL)"#,
        )
        .await;
    wait_twice(&stage, "good", "2").await;
    stage.wait_drained().await;
    let listed = failures(&daemon).await;
    let row = |key: &str| {
        listed
            .iter()
            .find(|row| row["key"] == key)
            .unwrap_or_else(|| panic!("{listed:?}"))
    };
    assert_eq!(listed.len(), 2);
    assert_eq!(
        (&row("2")["object"], &row("2")["category"]),
        (&"cars".into(), &"validation_error".into())
    );
    assert!(
        row("2")["message"].as_str().unwrap().contains("tags"),
        "{listed:?}"
    );
    assert!(
        row("3")["message"].as_str().unwrap().contains("twice"),
        "{listed:?}"
    );
    stage
        .sql(
            r#"ALTER TABLE "Fleet.Office"."Car Pool" DISABLE TRIGGER USER;
                UPDATE "Fleet.Office"."Car Pool" SET tags = '{old}', price = 4 WHERE "Car No" > 1;
                ALTER TABLE "Fleet.Office"."Car Pool" ENABLE TRIGGER USER"#,
        )
        .await;
    let run = daemon.sweep().await;
    assert_eq!(run["summary"]["cars"]["created"], 2, "{run}");
    assert_eq!(run["summary"]["cars"]["failed"], 0, "{run}");
    assert!(failures(&daemon).await.is_empty());
}

async fn failures(daemon: &Daemon) -> Vec<serde_json::Value> {
    let (status, body) = daemon.get("/failures").await;
    assert_eq!(status, 200, "{body}");
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    body["failures"].as_array().unwrap().clone()
}
