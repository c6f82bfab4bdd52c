//! Reading the mirror through the built daemon: from Postgres in HubSpot's order and by an index, from HubSpot itself,
//! and from HubSpot where Postgres cannot be read.

use super::support::daemon::{Daemon, QUICK, Stage};
use super::support::going::Going;
use super::support::mirroring::complete;
use super::support::wait_until;
use hubsyncd::sandbox::{Endpoint, Fault, Population, Property, Settings};
use serde_json::{Value, json};

/// A mirror that pulls nothing by itself while a test looks.
const IDLE: &str = "[mirror]\nevery = \"10h\"\nfull-every = \"12h\"\n";

async fn stage(hint: &str) -> Stage {
    Stage::with(hint, Settings::default(), &format!("{QUICK}{IDLE}")).await
}

async fn get(daemon: &Daemon, path: &str) -> (u16, Value) {
    let (code, text) = daemon.get(&format!("/api/admin/hubspot/{path}")).await;
    let body = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"));
    (code, body)
}

fn ids<'a>(body: &'a Value, kind: &str) -> Vec<&'a str> {
    let records = body[kind]
        .as_array()
        .unwrap_or_else(|| panic!("no {kind} in {body}"));
    records
        .iter()
        .map(|record| record["id"].as_str().unwrap())
        .collect()
}

/// Contacts as a pull would have left them, with ids of several lengths.
async fn mirrored(stage: &Stage, ids: &str, more: &str) {
    stage
        .sql(&format!(
            "INSERT INTO hubsyncd.mirror_contacts (hubspot_id, properties, created_at, hubspot_updated_at, last_synced_at, \
             sync_status, sync_error, archived, pass) SELECT id::text, jsonb_build_object('email', id || '@example.com', \
             'city', null), '2026-01-02 03:04:05.678Z', '2026-02-03 04:05:06Z', now(), 'synced', null, false, 1 \
             FROM {ids} {more}"
        ))
        .await;
}

#[tokio::test]
async fn records_come_from_postgres_in_hubspots_order_without_the_archived_ones() {
    let stage = stage("mr_order").await;
    let daemon = stage.start().await;
    stage.sql("TRUNCATE hubsyncd.mirror_contacts").await;
    mirrored(&stage, "unnest(ARRAY[51, 101, 9, 171591000198, 1000]) id", "").await;
    stage
        .sql("UPDATE hubsyncd.mirror_contacts SET archived = true WHERE hubspot_id = '101'")
        .await;
    stage
        .sql("UPDATE hubsyncd.mirror_contacts SET last_synced_at = '2026-01-01Z' WHERE hubspot_id = '51'")
        .await;
    let (code, body) = get(&daemon, "contacts?limit=3").await;
    assert_eq!((code, ids(&body, "contacts")), (200, vec!["9", "51", "1000"]));
    assert_eq!(body["paging"]["next"]["after"], "171591000198");
    let (_, rest) = get(&daemon, "contacts?limit=3&after=171591000198").await;
    assert_eq!(
        (ids(&rest, "contacts"), &rest["paging"]["next"]),
        (vec!["171591000198"], &Value::Null)
    );
    // One that nobody has confirmed for so long is pending, whether or not anybody has written it down.
    assert_eq!(body["contacts"][1]["syncStatus"], "pending");
    assert_eq!(body["contacts"][1]["lastSyncedAt"], "2026-01-01T00:00:00.000Z");
    let first = &body["contacts"][0];
    let (seen, properties) = (
        &first["lastSyncedAt"],
        json!({"email": "9@example.com", "city": null}),
    );
    let letter = json!({
        "id": "9", "properties": properties, "createdAt": "2026-01-02T03:04:05.678Z",
        "updatedAt": "2026-02-03T04:05:06.000Z", "archived": false, "lastSyncedAt": seen, "syncStatus": "synced",
        "syncError": null,
    });
    assert_eq!(first, &letter);
}

#[tokio::test]
async fn a_page_is_found_by_an_index_however_many_records_there_are() {
    let stage = stage("mr_index").await;
    mirrored(&stage, "generate_series(1, 20000) id", "").await;
    stage.sql("ANALYZE hubsyncd.mirror_contacts").await;
    let plan = stage
        .value(
            "EXPLAIN (FORMAT JSON) SELECT hubspot_id FROM hubsyncd.mirror_contacts WHERE NOT archived AND \
             (length(hubspot_id), hubspot_id COLLATE \"C\") >= (length('15000'), '15000' COLLATE \"C\") \
             ORDER BY length(hubspot_id), hubspot_id COLLATE \"C\" LIMIT 51",
        )
        .await
        .unwrap();
    let by_index =
        plan.contains("mirror_contacts_live") && plan.contains("Index Cond") && !plan.contains("Sort");
    assert!(by_index, "{plan}");
}

#[tokio::test]
async fn hubspot_is_asked_with_every_property_however_many_there_are() {
    let stage = stage("mr_hubspot").await;
    stage.sandbox.world().populate(Population {
        contacts: 130,
        companies: 3,
        deals: 0,
    });
    let daemon = stage.start().await;
    let all: Vec<String> = stage
        .sandbox
        .world()
        .records("0-1")
        .map(|record| record.id())
        .collect();
    let (code, body) = get(&daemon, "contacts?useSync=false&limit=120").await;
    assert_eq!(
        (code, &body["source"], &body["synced"]),
        (200, &json!("hubspot"), &json!(false))
    );
    assert_eq!(ids(&body, "contacts"), all[..120]);
    assert_eq!(body["paging"]["next"]["after"], json!(all[120]));
    let first = &body["contacts"][0];
    assert!(
        first["properties"]["jobtitle"].is_string() && first["updatedAt"].is_string(),
        "{first}"
    );
    let ours = ["lastSyncedAt", "syncStatus", "syncError"].map(|name| first[name].clone());
    assert_eq!(
        (ours, &first["archived"]),
        ([Value::Null, Value::Null, Value::Null], &json!(false))
    );
    // As many as a portal may have: their names fit in no URL.
    for number in 0..900 {
        let property = Property::string(&format!("a_property_with_a_long_name_{number:03}"));
        stage.sandbox.world().add_property("0-2", property);
    }
    let company = stage.sandbox.world().records("0-2").next().unwrap().id();
    stage
        .sandbox
        .world()
        .set("0-2", &company, "a_property_with_a_long_name_899", "the last one");
    let (code, body) = get(&daemon, "companies?useSync=false").await;
    assert_eq!((code, ids(&body, "companies").len()), (200, 3), "{body}");
    assert_eq!(
        body["companies"][0]["properties"]["a_property_with_a_long_name_899"],
        "the last one"
    );
    assert_eq!(stage.sandbox.world().answered_with(414), 0);
}

#[tokio::test]
async fn what_postgres_cannot_answer_hubspot_does_and_the_answer_says_why() {
    let stage = stage("mr_fallback").await;
    stage.sandbox.world().populate(Population {
        contacts: 5,
        companies: 0,
        deals: 0,
    });
    let daemon = stage.start().await;
    stage
        .sql("ALTER TABLE hubsyncd.mirror_contacts RENAME TO elsewhere")
        .await;
    let (code, body) = get(&daemon, "contacts?limit=2").await;
    assert_eq!(
        (code, &body["source"], ids(&body, "contacts").len()),
        (200, &json!("hubspot"), 2)
    );
    assert!(
        body["fallback"].as_str().unwrap().contains("reading the mirror"),
        "{body}"
    );
    // What passes at once is waited for: somebody waits for the answer.
    stage.sandbox.fault(Fault::status(503).on(Endpoint::List));
    assert_eq!(get(&daemon, "contacts?limit=2").await.0, 200);
    stage
        .sandbox
        .fault(Fault::status(503).on(Endpoint::List).always());
    let (code, body) = get(&daemon, "contacts?limit=2").await;
    assert!(
        code == 502 && body["error"].as_str().unwrap().contains("reading the mirror"),
        "{code} {body}"
    );
    stage
        .sql("ALTER TABLE hubsyncd.elsewhere RENAME TO mirror_contacts")
        .await;
    wait_until("Postgres answers again", async || {
        get(&daemon, "contacts?limit=2").await.1["source"] == "postgres"
    })
    .await;
}

#[tokio::test]
async fn where_the_database_is_away_altogether_hubspot_answers() {
    let stage = stage("mr_away").await;
    stage.sandbox.world().populate(Population {
        contacts: 3,
        companies: 0,
        deals: 0,
    });
    let daemon = stage.start().await;
    let name = &stage.database.name;
    stage
        .sql(&format!("ALTER DATABASE {name} CONNECTION LIMIT 0"))
        .await;
    stage
        .sql(&format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}' AND pid <> pg_backend_pid()"
        ))
        .await;
    let (code, body) = get(&daemon, "contacts").await;
    assert_eq!(
        (code, &body["source"], ids(&body, "contacts").len()),
        (200, &json!("hubspot"), 3),
        "{body}"
    );
    assert!(body["fallback"].is_string());
    assert_eq!(get(&daemon, "sync/status").await.0, 503);
    // And who pulls is told what it waits for.
    let mut pull = Going::begin(&stage, &["mirror"]);
    pull.says("waiting to pull: database: ").await;
    stage
        .sql(&format!("ALTER DATABASE {name} CONNECTION LIMIT -1"))
        .await;
    assert_eq!(pull.ended().await, Some(0), "{}", pull.said());
}

#[tokio::test]
async fn a_cursor_that_hubspot_does_not_know_is_a_wrong_parameter() {
    let stage = stage("mr_cursor").await;
    let daemon = stage.start().await;
    for cursor in ["garbage", "NTI1Cg%3D%3D", "99999999999999999999"] {
        let (code, body) = get(&daemon, &format!("contacts?useSync=false&after={cursor}")).await;
        let said = body["error"].as_str().unwrap();
        assert!(
            code == 400 && said.contains("paging.next.after") && said.contains("HubSpot does not know"),
            "{cursor}: {code} {said}"
        );
    }
    // Nothing of it is true where HubSpot refuses what has no cursor.
    stage
        .sandbox
        .fault(Fault::status(400).on(Endpoint::List).always());
    assert_eq!(get(&daemon, "contacts?useSync=false").await.0, 502);
}

#[tokio::test]
async fn a_token_that_is_refused_is_told_to_readers_and_pullers_at_once() {
    let stage = stage("mr_refused").await;
    let daemon = stage.start().await;
    complete(&stage).await;
    stage.sandbox.fault(Fault::status(401).on(Endpoint::Any).always());
    assert_eq!(get(&daemon, "contacts?useSync=false").await.0, 502);
    wait_until("the breaker is open", async || {
        daemon.get("/health").await.1.contains("breaker")
    })
    .await;
    let begun = std::time::Instant::now();
    for path in ["contacts?useSync=false", "sync/all"] {
        let (code, body) = get(&daemon, path).await;
        let said = body["error"].as_str().unwrap();
        assert!(
            code == 502 && said.contains("refuses the token"),
            "{path}: {code} {said}"
        );
    }
    let took = begun.elapsed();
    assert!(
        took.as_secs() < 25,
        "what will not come is not waited for: {took:?}"
    );
}

#[tokio::test]
async fn a_stale_mirror_that_cannot_be_pulled_is_not_pulled_for_every_reader() {
    let stage = stage("mr_stale").await;
    stage
        .sandbox
        .fault(Fault::status(403).on(Endpoint::List).always());
    let daemon = stage.start().await;
    let ended = "SELECT count(*) FROM hubsyncd.run WHERE kind = 'mirror' AND outcome = 'incomplete'";
    stage.wait_value(ended, "1").await;
    for _ in 0..20 {
        let (code, body) = get(&daemon, "contacts").await;
        assert_eq!((code, &body["stale"]), (200, &json!(true)));
    }
    // Who means it is heard, and whatever was asked for before has run by then.
    assert_eq!(get(&daemon, "sync/contacts").await.0, 502);
    let asked = "SELECT string_agg(reason, ' ' ORDER BY started_at) FROM hubsyncd.run WHERE kind = 'mirror'";
    assert_eq!(stage.value(asked).await.as_deref(), Some("start socket"));
    assert!(
        daemon.log().contains("goes on later: 0 new, 0 known, 0 errors; "),
        "the log says why"
    );
    stage.sandbox.clear_faults();
    assert_eq!(get(&daemon, "sync/all").await.0, 200);
    stage
        .sql("UPDATE hubsyncd.mirror_state SET complete_as_of = now() - interval '2 days' WHERE kind = 'deals'")
        .await;
    assert_eq!(get(&daemon, "deals").await.1["stale"], json!(true));
    wait_until("what is stale is pulled again", async || {
        get(&daemon, "deals").await.1.get("stale").is_none()
    })
    .await;
}

#[tokio::test]
async fn a_standby_says_where_the_mirror_stands() {
    let stage = stage("mr_standby").await;
    stage.sandbox.world().populate(Population {
        contacts: 7,
        companies: 1,
        deals: 1,
    });
    let holder = stage.start().await;
    complete(&stage).await;
    let standby = stage.launch("standby");
    wait_until("it knows", async || {
        let Some((_, status)) = standby.try_get("/status").await else {
            return false;
        };
        let status: Value = serde_json::from_str(&status).unwrap();
        let contacts = &status["mirror"]["kinds"]["contacts"];
        let told = (&contacts["total"], &contacts["stale"]);
        status["lease"] == "standby" && told == (&json!(7), &json!(false))
    })
    .await;
    assert_eq!(holder.stop().await, Some(0));
}

#[tokio::test]
async fn a_pull_of_the_first_records_is_limited_and_not_complete() {
    let stage = stage("mr_limited").await;
    let daemon = stage.start().await;
    complete(&stage).await;
    assert_eq!(get(&daemon, "sync/all?limit=1").await.0, 200);
    let last = "SELECT outcome FROM hubsyncd.run WHERE kind = 'mirror' ORDER BY started_at DESC LIMIT 1";
    assert_eq!(stage.value(last).await.as_deref(), Some("limited"));
    assert_eq!(daemon.status().await["mirror"]["last"]["outcome"], "limited");
}
