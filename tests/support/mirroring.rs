//! A portal and its mirror, compared record by record.

use super::daemon::{Daemon, QUICK, Stage};
use super::wait_within;
use hubsyncd::sandbox::{Endpoint, Population, Settings, World};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The mirrored kinds with their object types.
pub const KINDS: [(&str, &str); 3] = [("contacts", "0-1"), ("companies", "0-2"), ("deals", "0-3")];

/// A mirror whose clock asks for nothing within a test but the first pass.
pub const MIRROR: &str = "[mirror]\nevery = \"1h\"\n";

/// A stage whose daemons mirror; `toml` goes into `[mirror]`.
pub async fn mirrored(hint: &str, settings: Settings, toml: &str) -> Stage {
    Stage::with(
        hint,
        settings,
        &format!("{QUICK}give-up = \"20s\"\n{MIRROR}{toml}"),
    )
    .await
}

/// A small portal: more than a page of contacts, some companies and deals.
pub fn populate(stage: &Stage, contacts: usize) {
    stage.sandbox.world().populate(Population {
        contacts,
        companies: contacts / 5,
        deals: contacts / 5,
    });
}

/// A portal of so many contacts that is mirrored, and its daemon.
pub async fn standing(hint: &str, contacts: usize) -> (Stage, Daemon) {
    begun(mirrored(hint, Settings::default(), "").await, contacts).await
}

/// The same with a mirror that looks for changes every second.
pub async fn following(hint: &str, settings: Settings, contacts: usize) -> (Stage, Daemon) {
    let mut stage = mirrored(hint, settings, "").await;
    stage.toml = stage.toml.replace("every = \"1h\"", "every = \"1s\"");
    begun(stage, contacts).await
}

async fn begun(stage: Stage, contacts: usize) -> (Stage, Daemon) {
    populate(&stage, contacts);
    let daemon = stage.start().await;
    complete(&stage).await;
    (stage, daemon)
}

/// Waits for an incremental pass of every kind that began after now.
pub async fn followed(stage: &Stage) {
    let at = stage.value("SELECT clock_timestamp()").await.unwrap();
    let sql = format!("SELECT count(*) FROM hubsyncd.mirror_state WHERE caught_up_at > '{at}'");
    stage.wait_value(&sql, "3").await;
}

/// Waits until every kind is complete, and no full pass goes on.
pub async fn complete(stage: &Stage) {
    let sql =
        "SELECT count(*) FROM hubsyncd.mirror_state WHERE complete_as_of IS NOT NULL AND begun_at IS NULL";
    // A page comes every tenth of a second, whatever the machine does.
    wait_within(Duration::from_secs(90), "every kind is complete", async || {
        stage.value(sql).await.as_deref() == Some("3")
    })
    .await;
    stage
        .wait_value(
            "SELECT count(*) FROM hubsyncd.run WHERE kind = 'mirror' AND finished_at IS NULL",
            "0",
        )
        .await;
}

/// Pulls over the documented route; answers status and body.
pub async fn sync(daemon: &Daemon, what: &str) -> (u16, Value) {
    let (status, body) = daemon.post(&format!("/api/admin/hubspot/sync/{what}")).await;
    (
        status,
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}")),
    )
}

/// Pulls everything and wants it to succeed.
pub async fn pulled(daemon: &Daemon, what: &str) -> Value {
    let (status, body) = sync(daemon, what).await;
    assert_eq!((status, &body["success"]), (200, &Value::Bool(true)), "{body}");
    body
}

type Records = BTreeMap<String, BTreeMap<String, String>>;

fn in_world(world: &World, object: &str) -> Records {
    let values = |record: &hubsyncd::sandbox::Record| {
        let values = record.values().iter();
        values
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect()
    };
    world
        .records(object)
        .map(|record| (record.id(), values(record)))
        .collect()
}

async fn in_mirror(stage: &Stage, kind: &str) -> Records {
    let session = stage.database.session().await;
    let sql = format!("SELECT hubspot_id, properties::text FROM hubsyncd.mirror_{kind} WHERE NOT archived");
    let rows = session.query(&sql, &[]).await.unwrap();
    let values = |text: String| -> BTreeMap<String, String> {
        let properties: BTreeMap<String, Value> = serde_json::from_str(&text).unwrap();
        let set = properties
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.as_str()?.to_owned())));
        set.collect()
    };
    rows.iter().map(|row| (row.get(0), values(row.get(1)))).collect()
}

fn links_in_world(world: &World) -> BTreeSet<[String; 4]> {
    let mut links = BTreeSet::new();
    for (from, from_type) in KINDS {
        for record in world.records(from_type) {
            for (to, to_type) in KINDS.iter().filter(|(to, _)| *to != from) {
                for link in world.associations(from_type, &record.id(), to_type) {
                    links.insert([from.to_owned(), record.id(), (*to).to_owned(), link.to]);
                }
            }
        }
    }
    links
}

/// Wants every record with every value of it, and every association, to be in the mirror, and nothing else.
pub async fn assert_same(stage: &Stage) {
    for (kind, object) in KINDS {
        let expected = in_world(&stage.sandbox.world(), object);
        let found = in_mirror(stage, kind).await;
        let ids = |records: &Records| records.keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(ids(&found), ids(&expected), "the ids of {kind}");
        for (id, values) in &expected {
            for (name, value) in values {
                assert_eq!(found[id].get(name), Some(value), "{kind} {id} {name}");
            }
        }
    }
    let expected = links_in_world(&stage.sandbox.world());
    let session = stage.database.session().await;
    let sql = "SELECT from_kind, from_id, to_kind, to_id FROM hubsyncd.mirror_association";
    let rows = session.query(sql, &[]).await.unwrap();
    let found: BTreeSet<[String; 4]> = rows
        .iter()
        .map(|row| [row.get(0), row.get(1), row.get(2), row.get(3)])
        .collect();
    let missing: Vec<_> = expected.difference(&found).take(5).collect();
    let wrong: Vec<_> = found.difference(&expected).take(5).collect();
    assert!(
        missing.is_empty() && wrong.is_empty(),
        "missing {missing:?}, too many {wrong:?}"
    );
    assert_counted(stage).await;
}

/// Wants the counts that are kept up to be what counting gives.
pub async fn assert_counted(stage: &Stage) {
    for (kind, _) in KINDS {
        let counted = format!(
            "SELECT concat_ws(' ', count(*) FILTER (WHERE NOT archived AND sync_status = 'synced'), \
             count(*) FILTER (WHERE NOT archived AND sync_status = 'pending'), \
             count(*) FILTER (WHERE NOT archived AND sync_status = 'error'), count(*) FILTER (WHERE archived)) \
             FROM hubsyncd.mirror_{kind}"
        );
        let kept = format!(
            "SELECT concat_ws(' ', synced, pending, error, archived) FROM hubsyncd.mirror_state WHERE kind = '{kind}'"
        );
        assert_eq!(stage.value(&kept).await, stage.value(&counted).await, "{kind}");
    }
}

/// How many requests of a kind came since request `since`.
pub fn asked(stage: &Stage, endpoint: Endpoint, since: u64) -> usize {
    let world = stage.sandbox.world();
    let requests = world.requests().filter(|request| request.number >= since);
    requests.filter(|request| request.endpoint == endpoint).count()
}

/// The number of the next request.
pub fn now(stage: &Stage) -> u64 {
    stage.sandbox.world().count(Endpoint::Any)
}
