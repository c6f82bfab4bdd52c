//! Objects alike: the rows of two tables become records of one HubSpot type, and each record is one row's.

use super::support::daemon::{Daemon, QUICK, Stage};
use super::support::{DEADLINE, wait_within};
use hubsyncd::sandbox::{Endpoint, Fault, Property, Settings, When};
use std::time::Duration;

const MEMBERS: &str = "2-70011";

const TABLES: &str = "
CREATE SCHEMA club;
CREATE TABLE club.player (id bigint PRIMARY KEY, ref text UNIQUE NOT NULL, email text, side text, hubspot_id text, synced timestamptz);
CREATE TABLE club.coach (LIKE club.player INCLUDING ALL);
GRANT USAGE ON SCHEMA club TO hubsyncd, app;
GRANT SELECT ON club.player, club.coach TO hubsyncd;
GRANT UPDATE (hubspot_id, synced) ON club.player, club.coach TO hubsyncd;
GRANT SELECT, INSERT, UPDATE, DELETE ON club.player, club.coach TO app;
";

/// Players and coaches, records of one type, found by the same natural key, which both ends keep unique.
async fn stage(hint: &str) -> (Stage, Daemon) {
    let object = |name: &str| {
        format!(
            "[[object]]\nname = \"{name}\"\ntable = \"club.{name}\"\ntype = \"{MEMBERS}\"\nkey = \"id\"\nhubspot-id = \"hubspot_id\"\n\
             synced-at = \"synced\"\nmatch-on = \"ref\"\n[object.properties]\nref = {{ column = \"ref\", on = \"create\" }}\nside = \"side\"\n"
        )
    };
    let hubspot = "[hubspot]\nsettle = \"5s\"\ntimeout = \"2s\"\n";
    let toml = format!("{QUICK}{hubspot}{}{}", object("player"), object("coach"));
    let stage = Stage::without_setup(hint, Settings::default(), &toml).await;
    stage.sql(TABLES).await;
    let properties = [Property::string("ref").unique(), Property::string("side")];
    stage.sandbox.world().define(MEMBERS, "members", properties);
    stage.setup().await;
    let daemon = stage.start().await;
    daemon.settled().await;
    (stage, daemon)
}

fn insert(table: &str, id: u32, side: &str) -> String {
    format!("INSERT INTO club.{table} (id, ref, side) VALUES ({id}, 'M-1', '{side}')")
}

async fn wait_owned(stage: &Stage, table: &str) {
    let owned = format!("SELECT count(hubspot_id) FROM club.{table}");
    wait_within(DEADLINE, "the row owns the record", async || {
        stage.value(&owned).await.as_deref() == Some("1")
    })
    .await;
}

async fn wait_failure(stage: &Stage, failure: &str) {
    let sql = "SELECT string_agg(object || ' ' || category, ',') FROM hubsyncd.failure";
    stage.wait_value(sql, failure).await;
    stage.wait_drained().await;
}

fn side(stage: &Stage) -> Option<String> {
    let world = stage.sandbox.world();
    let member = world.find(MEMBERS, "ref", "M-1")?;
    member.get("side").map(str::to_owned)
}

#[tokio::test]
async fn a_record_that_a_row_of_another_table_owns_is_never_written_over() {
    let (stage, daemon) = stage("alike_owned").await;
    stage.app(&insert("player", 1, "left")).await;
    wait_owned(&stage, "player").await;
    stage.app(&insert("coach", 1, "right")).await;
    wait_failure(&stage, "coach owner").await;
    assert_eq!(side(&stage).as_deref(), Some("left"));
    let told = "SELECT message FROM hubsyncd.failure";
    let told = stage.value(told).await.unwrap();
    assert!(told.contains("belongs to row 1 of player"), "{told}");
    assert_eq!(daemon.sweep().await["outcome"], "complete");
    assert_eq!(side(&stage).as_deref(), Some("left"));
    assert_eq!(
        stage
            .value("SELECT count(hubspot_id) FROM club.coach")
            .await
            .as_deref(),
        Some("0")
    );
}

/// The second row's turn comes when the first one's record is made and not yet written down.
#[tokio::test]
async fn of_two_rows_of_two_tables_with_one_natural_key_one_gets_the_record() {
    let (stage, _daemon) = stage("alike_both").await;
    let hold = stage.sandbox.hold(Endpoint::Upsert, When::After);
    stage.app(&insert("player", 1, "left")).await;
    assert!(hold.reached(DEADLINE).await);
    let reads = stage.sandbox.world().count(Endpoint::Read);
    stage.app(&insert("coach", 2, "right")).await;
    // A third row shows that others went past it.
    stage
        .app("INSERT INTO club.coach (id, ref, side) VALUES (3, 'M-3', 'middle')")
        .await;
    wait_owned(&stage, "coach").await;
    assert!(stage.sandbox.world().count(Endpoint::Read) > reads);
    assert_eq!(stage.sandbox.world().count(Endpoint::Upsert), 2);
    hold.release();
    wait_failure(&stage, "coach owner").await;
    assert_eq!(side(&stage).as_deref(), Some("left"));
}

/// A lost create of a row that moved to the other table lands on the record that is its heir's there.
#[tokio::test]
async fn what_a_lost_create_writes_over_the_record_of_a_row_of_another_table_is_put_right() {
    let (stage, _daemon) = stage("alike_late").await;
    stage
        .sandbox
        .fault(Fault::hang(Some(Duration::from_secs(4))).on(Endpoint::Upsert));
    stage.app(&insert("player", 1, "late")).await;
    stage
        .wait_world("the first create is on its way", |world| {
            world.count(Endpoint::Upsert) == 1
        })
        .await;
    let moved = format!(
        "BEGIN; DELETE FROM club.player; {}; COMMIT",
        insert("coach", 1, "heir")
    );
    stage.app(&moved).await;
    wait_owned(&stage, "coach").await;
    stage
        .wait_world("the late create has landed", |world| {
            world
                .find(MEMBERS, "ref", "M-1")
                .and_then(|member| member.get("side"))
                == Some("late")
        })
        .await;
    let left = "SELECT (SELECT count(*) FROM hubsyncd.change) + (SELECT count(*) FROM hubsyncd.intent)
                + (SELECT count(*) FROM hubsyncd.failure)";
    stage.wait_value(left, "0").await;
    assert_eq!(side(&stage).as_deref(), Some("heir"));
    assert_eq!(stage.sandbox.world().records(MEMBERS).count(), 1);
}
