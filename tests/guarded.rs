//! Guarded creation: the natural key is not unique in HubSpot, answers are lost, and one row stays one record.

use crate::support::daemon::{QUICK, Stage};
use crate::support::wait_within;
use hubsyncd::sandbox::{Endpoint, Fault, Property, Settings};
use std::collections::HashSet;
use std::time::Duration;

const TICKETS: &str = "2-70009";

/// The most that the sandbox's index lags: below a quarter of [`SETTLE`].
const LAG: Duration = Duration::from_millis(80);
/// The latest that a request lands after its start: below the settle time.
const LATE: Duration = Duration::from_millis(350);

const HUBSPOT: &str =
    "[hubspot]\nsettle = \"400ms\"\ntimeout = \"1s\"\nrequests = 10000\nwindow = \"1s\"\nin-flight = 16\n";

const TABLE: &str = "
CREATE SCHEMA desk;
CREATE TABLE desk.ticket (id bigint PRIMARY KEY, ref text NOT NULL, state text, hubspot_id text, synced timestamptz);
GRANT USAGE ON SCHEMA desk TO hubsyncd, app;
GRANT SELECT ON desk.ticket TO hubsyncd;
GRANT UPDATE (hubspot_id, synced) ON desk.ticket TO hubsyncd;
GRANT SELECT, INSERT, UPDATE, DELETE ON desk.ticket TO app;
";

fn mapping(adopt: &str) -> String {
    format!(
        "{QUICK}{HUBSPOT}[[object]]\nname = \"tickets\"\ntable = \"desk.ticket\"\ntype = \"{TICKETS}\"\nkey = \"id\"\n\
         hubspot-id = \"hubspot_id\"\nsynced-at = \"synced\"\nmatch-on = \"ref\"\nadopt = \"{adopt}\"\n\
         [object.properties]\nref = \"ref\"\nstate = \"state\"\n"
    )
}

/// Tickets, whose natural key only Postgres keeps unique, if at all.
async fn tickets(hint: &str, adopt: &str, unique: bool) -> Stage {
    let settings = Settings {
        search_lag: LAG,
        log_max: 1_000_000,
        ..Settings::default()
    };
    let stage = Stage::without_setup(hint, settings, &mapping(adopt)).await;
    stage.sql(TABLE).await;
    if unique {
        stage.sql("CREATE UNIQUE INDEX ON desk.ticket (ref)").await;
    }
    let properties = [Property::string("ref"), Property::string("state")];
    stage.sandbox.world().define(TICKETS, "tickets", properties);
    stage.setup().await;
    stage
}

/// Waits until every row is one record with the row's values, and nothing waits or is due.
async fn wait_in_step(stage: &Stage, deadline: Duration) {
    let session = stage.database.session().await;
    let mut last = String::new();
    wait_within(deadline, "every ticket is in step", async || {
        match out_of_step(stage, &session).await {
            None => true,
            Some(why) => {
                if why != last {
                    eprintln!("not in step yet: {why}");
                    last = why;
                }
                false
            }
        }
    })
    .await;
}

async fn out_of_step(stage: &Stage, session: &hubsyncd::postgres::Session) -> Option<String> {
    for table in ["change", "intent", "failure"] {
        let count = format!("SELECT count(*) FROM hubsyncd.{table}");
        let count: i64 = session.query_one(&count, &[]).await.unwrap().get(0);
        if count > 0 {
            return Some(format!("{count} rows in {table}"));
        }
    }
    let rows = "SELECT hubspot_id, ref, coalesce(state, '') FROM desk.ticket";
    let rows = session.query(rows, &[]).await.unwrap();
    let world = stage.sandbox.world();
    let mut owned = HashSet::new();
    for row in &rows {
        let id: Option<&str> = row.get(0);
        let Some(id) = id else {
            return Some(format!("ticket {} has no id", row.get::<_, &str>(1)));
        };
        assert!(owned.insert(id.to_owned()), "two rows hold {id}");
        let record = world.record(TICKETS, id).unwrap();
        let held = (record.get("ref"), record.get("state").unwrap_or_default());
        if held != (Some(row.get(1)), row.get(2)) {
            return Some(format!("ticket {} is {held:?} in HubSpot", row.get::<_, &str>(1)));
        }
    }
    None
}

/// How many replies to lose: `HUBSYNCD_LOST_REPLIES`, or this many.
fn losses(default: u64) -> u64 {
    let told = std::env::var("HUBSYNCD_LOST_REPLIES").ok();
    told.and_then(|told| told.parse().ok()).unwrap_or(default)
}

/// How many requests of a kind were not answered as they should.
fn lost(stage: &Stage, endpoint: Endpoint) -> u64 {
    let world = stage.sandbox.world();
    let unanswered = |request: &&hubsyncd::sandbox::Request| {
        request.endpoint == endpoint && request.status.is_none_or(|status| status >= 500)
    };
    world.requests().filter(unanswered).count() as u64
}

/// The fault of one request in `number`: most are committed and their answers lost, some land late, some never.
fn loss(number: u64) -> Fault {
    match number % 8 {
        0 => Fault::hang(Some(LATE)),
        1 => Fault::commit_then(502),
        2 => Fault::refuse_connection(),
        3 => Fault::named("truncated").unwrap(),
        4 => Fault::status(500),
        _ => Fault::lose_reply(),
    }
}

#[tokio::test]
async fn a_thousand_lost_replies_to_guarded_creates_double_nothing() {
    let goal = losses(1_000);
    let stage = tickets("lost", "overwrite", true).await;
    let daemon = stage.start().await;
    for number in 0..goal {
        // One in two passes: else all would wait for HubSpot to come back.
        stage.sandbox.fault(loss(number).on(Endpoint::Create).after(1));
    }
    let session = stage.database.session_as("app").await;
    let mut rows = 0_i64;
    let began = std::time::Instant::now();
    while lost(&stage, Endpoint::Create) < goal {
        let patience = Duration::from_secs(60 + goal / 2);
        assert!(began.elapsed() < patience, "{rows} rows, and not enough lost");
        for _ in 0..100 {
            rows += 1;
            let sql =
                "INSERT INTO desk.ticket (id, ref, state) VALUES ($1::bigint, 'T-' || $1::bigint, 'open')";
            session.execute(sql, &[&rows]).await.unwrap();
            if rows % 3 == 0 {
                let sql = "UPDATE desk.ticket SET state = 'changed' WHERE id = $1::bigint / 2";
                session.execute(sql, &[&rows]).await.unwrap();
            }
        }
    }
    wait_in_step(&stage, Duration::from_secs(60 + goal / 10)).await;
    daemon.settled().await;
    let world = stage.sandbox.world();
    assert_eq!(world.records(TICKETS).count() as i64, rows, "a record a row");
    println!(
        "{goal} lost replies, {rows} rows, {} creates, {} searches, {:?}",
        world.count(Endpoint::Create),
        world.count(Endpoint::Search),
        began.elapsed()
    );
}
