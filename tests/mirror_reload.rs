//! The mirror switched on, off and over while the daemon runs.

use crate::support::DEADLINE;
use crate::support::daemon::{Daemon, QUICK, Stage};
use crate::support::mirroring::{asked, assert_same, complete, now, populate, pulled, sync};
use hubsyncd::sandbox::{Endpoint, Settings, When};
use serde_json::Value;
use std::sync::Arc;

/// Takes another `[mirror]`, or none; answers what `POST /reload` says was taken.
async fn take(stage: &mut Stage, daemon: &Daemon, mirror: &str) -> Value {
    stage.toml = format!("{QUICK}{mirror}");
    drop(stage.command("daemon"));
    let (status, body) = daemon.post("/reload").await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str::<Value>(&body).unwrap()["changed"].clone()
}

async fn kinds(daemon: &Daemon) -> Vec<String> {
    let status = daemon.status().await;
    let kinds = status["mirror"]["kinds"].as_object();
    kinds.map_or_else(Vec::new, |kinds| kinds.keys().cloned().collect())
}

#[tokio::test]
async fn it_is_switched_on_and_off_by_a_reload_and_on_again_where_it_was() {
    let mut stage = Stage::with("mirror_switch", Settings::default(), QUICK).await;
    populate(&stage, 250);
    let daemon = stage.start().await;
    let (status, body) = sync(&daemon, "all").await;
    assert!(status == 503 && body.to_string().contains("[mirror]"), "{body}");
    assert_eq!(daemon.status().await["mirror"], Value::Null);
    let taken = take(&mut stage, &daemon, "[mirror]\n").await;
    assert_eq!(taken, serde_json::json!(["mirror"]));
    complete(&stage).await;
    assert_same(&stage).await;
    assert_eq!(daemon.get("/api/admin/hubspot/deals").await.0, 200);
    take(&mut stage, &daemon, "").await;
    daemon.settled().await;
    let since = now(&stage);
    for path in ["contacts", "sync/status"] {
        let (status, body) = daemon.get(&format!("/api/admin/hubspot/{path}")).await;
        assert!(status == 503 && body.contains("[mirror]"), "{body}");
    }
    assert_eq!(daemon.status().await["mirror"], Value::Null);
    assert_eq!(now(&stage), since);
    let held = stage
        .value("SELECT count(*) FROM hubsyncd.mirrored_contacts")
        .await;
    assert_eq!(
        held.as_deref(),
        Some("250"),
        "what is there stays for who reads the views"
    );
    take(&mut stage, &daemon, "[mirror]\n").await;
    daemon.settled().await;
    let (status, body) = daemon.get("/api/admin/hubspot/contacts?limit=1").await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &body["source"]), (200, &"postgres".into()), "{body}");
    assert_eq!(body["contacts"][0]["syncStatus"], "synced", "{body}");
    assert_eq!(
        asked(&stage, Endpoint::List, since),
        0,
        "nothing is due: it was complete a moment ago"
    );
}

#[tokio::test]
async fn whoever_waits_for_a_pull_is_told_when_the_mirror_is_switched_off_or_the_kind_left_out() {
    let mut stage = Stage::with("mirror_off", Settings::default(), &format!("{QUICK}[mirror]\n")).await;
    populate(&stage, 250);
    let daemon = Arc::new(stage.start().await);
    complete(&stage).await;
    for (mirror, said) in [
        (
            "[mirror]\nobjects = [\"contacts\", \"deals\"]\n",
            "companies: mirror.objects in the configuration leaves them out",
        ),
        ("", "[mirror] was taken out of the configuration"),
    ] {
        let hold = stage.sandbox.hold(Endpoint::List, When::Before);
        let waits = {
            let daemon = Arc::clone(&daemon);
            tokio::spawn(async move { sync(&daemon, "all").await })
        };
        assert!(hold.reached(DEADLINE).await, "the contacts are being listed");
        take(&mut stage, &daemon, mirror).await;
        hold.release();
        let (status, body) = waits.await.unwrap();
        assert_eq!((status, &body["success"]), (502, &Value::Bool(false)), "{body}");
        assert!(body["error"].as_str().unwrap().contains(said), "{said}: {body}");
        if !mirror.is_empty() {
            assert_eq!(kinds(&daemon).await, ["contacts", "deals"]);
            assert_eq!(body["updated"], 250 + 50, "the others were pulled: {body}");
            let (status, body) = sync(&daemon, "companies").await;
            assert!(
                status == 503 && body.to_string().contains("mirror.objects"),
                "{body}"
            );
            take(&mut stage, &daemon, "[mirror]\n").await;
            daemon.settled().await;
            pulled(&daemon, "all").await;
            assert_same(&stage).await;
        }
    }
}

#[tokio::test]
async fn other_periods_are_taken_and_what_they_make_due_is_done() {
    let mut stage = Stage::with(
        "mirror_periods",
        Settings::default(),
        &format!("{QUICK}[mirror]\n"),
    )
    .await;
    populate(&stage, 120);
    let daemon = stage.start().await;
    complete(&stage).await;
    let id = stage.sandbox.world().create("0-1", [("firstname", "New")]);
    let gone = stage.sandbox.world().records("0-1").next().unwrap().id();
    stage.sandbox.world().purge("0-1", &gone);
    let lists = asked(&stage, Endpoint::List, 0);
    take(&mut stage, &daemon, "[mirror]\nevery = \"1s\"\n").await;
    let there = |id: &str| format!("SELECT count(*) FROM hubsyncd.mirror_contacts WHERE hubspot_id = '{id}'");
    stage.wait_value(&there(&id), "1").await;
    assert_eq!(
        asked(&stage, Endpoint::List, 0),
        lists,
        "by incremental passes alone"
    );
    assert_eq!(
        stage.value(&there(&gone)).await.as_deref(),
        Some("1"),
        "which find no deletions"
    );
    // A second is as short as it gets; the views take the age at once.
    take(
        &mut stage,
        &daemon,
        "[mirror]\nevery = \"1s\"\nfull-every = \"2s\"\nstale-after = \"5s\"\n",
    )
    .await;
    stage.wait_value(&there(&gone), "0").await;
    stage
        .wait_value(
            "SELECT DISTINCT stale_after FROM hubsyncd.mirror_state",
            "00:00:05",
        )
        .await;
    let refused = "[mirror]\nfull-every = \"5s\"\nstale-after = \"5s\"\n";
    stage.toml = format!("{QUICK}{refused}");
    drop(stage.command("daemon"));
    let (status, body) = daemon.post("/reload").await;
    assert!(status == 422 && body.contains("mirror.full-every"), "{body}");
    stage.sandbox.world().purge("0-1", &id);
    stage.wait_value(&there(&id), "0").await;
    assert_eq!(daemon.stop().await, Some(0));
}
