//! A pass that is cut: nothing is lost, no deletion is invented, it goes on where it was, and whoever waits is told why.

use crate::support::daemon::{Daemon, Stage};
use crate::support::mirroring::{
    MIRROR, asked, assert_same, complete, mirrored, now, populate, pulled, standing, sync,
};
use crate::support::sweeping::{before_midnight, logged};
use crate::support::{DEADLINE, wait_until, wait_within};
use hubsyncd::sandbox::{Endpoint, Fault, Population, Settings, When};
use serde_json::Value;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// For what waits for another daemon's lease, or for midnight.
const PATIENCE: Duration = Duration::from_secs(90);

/// What a kind's standing says.
async fn state(stage: &Stage, kind: &str, what: &str) -> String {
    let sql = format!("SELECT {what} FROM hubsyncd.mirror_state WHERE kind = '{kind}'");
    stage.value(&sql).await.unwrap_or_default()
}

/// Pulls while the test goes on.
fn pulling(daemon: &Arc<Daemon>, what: &'static str) -> tokio::task::JoinHandle<(u16, Value)> {
    let daemon = Arc::clone(daemon);
    tokio::spawn(async move { sync(&daemon, what).await })
}

/// Waits until a full pass of a kind has listed so many, and is not at its end.
async fn under_way(stage: &Stage, kind: &str, listed: usize) {
    wait_until("the pass is under way", async || {
        state(
            stage,
            kind,
            &format!("begun_at IS NOT NULL AND cursor <> '' AND listed >= {listed}"),
        )
        .await
            == "t"
    })
    .await;
}

async fn wait_lease(daemon: &Daemon, state: &str) {
    wait_within(PATIENCE, &format!("its lease is {state}"), async || {
        let Some((200, status)) = daemon.try_get("/status").await else {
            return false;
        };
        serde_json::from_str::<Value>(&status).unwrap()["lease"] == state
    })
    .await;
}

fn failed((status, body): (u16, Value), said: &[&str]) -> Value {
    assert_eq!((status, &body["success"]), (502, &Value::Bool(false)), "{body}");
    for said in said {
        assert!(body["error"].as_str().unwrap().contains(said), "{said}: {body}");
    }
    body
}

/// All that the mirror holds, with the transactions that wrote it.
async fn written(stage: &Stage) -> Vec<Option<String>> {
    let mut all = Vec::new();
    for table in ["contacts", "companies", "deals", "association", "state"] {
        let sql = format!(
            "SELECT count(*) || md5(string_agg(t.xmin::text || t::text, ',' ORDER BY t::text)) FROM hubsyncd.mirror_{table} t"
        );
        all.push(stage.value(&sql).await);
    }
    all
}

#[tokio::test]
async fn a_right_that_is_taken_away_cuts_that_kind_alone_and_it_goes_on_where_it_was() {
    let stage = mirrored("cut_403", Settings::default(), "").await;
    stage.sandbox.world().populate(Population {
        contacts: 150,
        companies: 350,
        deals: 50,
    });
    let daemon = stage.start().await;
    complete(&stage).await;
    let before = state(&stage, "companies", "complete_as_of").await;
    // Two pages of contacts, two of companies.
    stage
        .sandbox
        .fault(Fault::named("403").unwrap().on(Endpoint::List).after(4));
    let body = failed(
        sync(&daemon, "all").await,
        &[
            "companies: ",
            "403",
            "lacks a right",
            "read scopes",
            "goes on from here",
        ],
    );
    assert_eq!(body["updated"], 150 + 200 + 50, "{body}");
    assert_eq!(state(&stage, "companies", "complete_as_of").await, before);
    assert_eq!(state(&stage, "deals", "begun_at IS NULL").await, "t");
    assert_same(&stage).await;
    let since = now(&stage);
    let body = pulled(&daemon, "companies").await;
    assert_eq!(body["updated"], 150, "{body}");
    assert_eq!(
        asked(&stage, Endpoint::List, since),
        2,
        "the pages that were left"
    );
    assert_same(&stage).await;
    // The scope itself, too.
    stage.sandbox.world().revoke_scope("crm.objects.companies.read");
    failed(
        sync(&daemon, "all").await,
        &["companies: ", "crm.objects.companies.read"],
    );
    stage.sandbox.world().grant_scope("crm.objects.companies.read");
    pulled(&daemon, "all").await;
    assert_same(&stage).await;
}

#[tokio::test]
async fn a_daily_quota_that_ends_cuts_the_pass_and_after_the_portals_midnight_it_goes_on_by_itself() {
    let mut stage = mirrored("cut_daily", Settings::default(), "").await;
    stage.toml = stage.toml.replace(MIRROR, "[mirror]\nevery = \"1s\"\n");
    populate(&stage, 650);
    let daemon = stage.start().await;
    complete(&stage).await;
    before_midnight(&stage, Duration::from_secs(20));
    stage
        .sandbox
        .fault(Fault::named("429-daily").unwrap().on(Endpoint::List).after(2));
    let said = ["daily quota of HubSpot requests is spent", "midnight"];
    failed(sync(&daemon, "contacts").await, &said);
    assert_eq!(state(&stage, "contacts", "listed").await, "200");
    let since = now(&stage);
    failed(sync(&daemon, "deals").await, &said);
    // The clock asks every second, and does not while nothing may be sent: neither HubSpot, nor for another run.
    let runs = "SELECT count(*) FROM hubsyncd.run";
    let before = stage.value(runs).await;
    let begun = Instant::now();
    wait_until("the clock has turned more than once", async || {
        begun.elapsed() > Duration::from_millis(2_500)
    })
    .await;
    assert_eq!(stage.value(runs).await, before);
    assert_eq!(now(&stage), since, "nothing is asked in vain");
    assert_same(&stage).await;
    wait_within(PATIENCE, "the pass has gone on", async || {
        state(&stage, "contacts", "begun_at IS NULL").await == "t"
    })
    .await;
    assert_eq!(
        asked(&stage, Endpoint::List, since),
        5,
        "the pages that were left"
    );
    assert_same(&stage).await;
}

#[tokio::test]
async fn a_frozen_holder_that_wakes_with_a_page_in_hand_writes_nothing_over_its_successors() {
    let (stage, first) = standing("cut_frozen", 350).await;
    let first = Arc::new(first);
    let second = stage.launch("second");
    wait_lease(&second, "standby").await;
    let id = stage.sandbox.world().records("0-1").next().unwrap().id();
    let hold = stage.sandbox.hold(Endpoint::List, When::After);
    let waits = pulling(&first, "all");
    assert!(hold.reached(DEADLINE).await);
    // The page that the first will hold says what is not so any more.
    stage.sandbox.world().set("0-1", &id, "firstname", "Newer");
    let gone = stage.sandbox.world().records("0-1").last().unwrap().id();
    stage.sandbox.world().purge("0-1", &gone);
    first.signal("STOP");
    wait_lease(&second, "held").await;
    pulled(&second, "all").await;
    assert_same(&stage).await;
    let before = written(&stage).await;
    hold.release();
    first.signal("CONT");
    failed(waits.await.unwrap(), &["lease"]);
    wait_lease(&first, "standby").await;
    assert_eq!(written(&stage).await, before);
    assert_same(&stage).await;
    assert_eq!(second.status().await["lease"], "held");
}

#[tokio::test]
async fn a_generation_that_is_gone_cuts_the_pass_which_goes_on_once_the_lease_is_held_again() {
    let (stage, daemon) = standing("cut_lease", 650).await;
    let daemon = Arc::new(daemon);
    let waits = pulling(&daemon, "contacts");
    under_way(&stage, "contacts", 200).await;
    let hold = stage.sandbox.hold(Endpoint::List, When::Before);
    assert!(hold.reached(DEADLINE).await);
    stage
        .sql("UPDATE hubsyncd.lease SET generation = generation + 1, renewed_at = clock_timestamp()")
        .await;
    let listed: usize = state(&stage, "contacts", "listed").await.parse().unwrap();
    let since = now(&stage);
    hold.release();
    failed(waits.await.unwrap(), &["lease"]);
    let kept: usize = state(&stage, "contacts", "listed").await.parse().unwrap();
    assert!(
        kept - listed <= 100,
        "a page that was being stored at that moment"
    );
    wait_within(PATIENCE, "the pass has gone on", async || {
        state(&stage, "contacts", "begun_at IS NULL").await == "t"
    })
    .await;
    let pages = (650 - kept).div_ceil(100);
    let lists = asked(&stage, Endpoint::List, since);
    assert!(
        lists <= pages + 1,
        "{lists} lists for {pages} pages and one that was on its way"
    );
    assert_same(&stage).await;
}

#[tokio::test]
async fn a_reload_in_the_middle_goes_on_in_the_next_term_and_whoever_waits_is_told_of_all_of_it() {
    let mut stage = mirrored("cut_reload", Settings::default(), "").await;
    stage.sandbox.world().populate(Population {
        contacts: 250,
        companies: 120,
        deals: 1_050,
    });
    let daemon = Arc::new(stage.start().await);
    complete(&stage).await;
    let since = now(&stage);
    let waits = pulling(&daemon, "all");
    under_way(&stage, "deals", 200).await;
    let hold = stage.sandbox.hold(Endpoint::List, When::Before);
    assert!(hold.reached(DEADLINE).await);
    stage.toml = stage.toml.replace("30ms", "31ms");
    drop(stage.command("daemon"));
    daemon.signal("HUP");
    logged(&daemon, "a changed configuration is taken").await;
    hold.release();
    logged(&daemon, "reloaded: batch.max-delay").await;
    let (status, body) = waits.await.unwrap();
    assert_eq!((status, &body["success"]), (200, &Value::Bool(true)), "{body}");
    assert_eq!(
        (&body["synced"], &body["updated"], &body["errors"]),
        (&0.into(), &1_420.into(), &0.into())
    );
    // What was complete is not listed again, and of what was cut only what was on its way.
    let lists = asked(&stage, Endpoint::List, since);
    assert!((16..=17).contains(&lists), "{lists} lists for 3 + 2 + 11 pages");
    let runs = "SELECT string_agg(reason || ' ' || outcome, ', ' ORDER BY started_at) FROM hubsyncd.run";
    assert_eq!(
        stage.value(runs).await.as_deref(),
        Some("start complete, socket complete"),
        "one run, whatever terms it took"
    );
    assert_same(&stage).await;
}

#[tokio::test]
async fn a_standby_reads_what_is_mirrored_and_pulls_nothing() {
    let (stage, first) = standing("cut_standby", 120).await;
    let second = stage.launch("second");
    wait_until("its socket answers", async || {
        second.try_get("/livez").await.is_some()
    })
    .await;
    let (status, body) = sync(&second, "all").await;
    assert_eq!(status, 409, "also before it has found the lease taken: {body}");
    stage
        .sql("UPDATE hubsyncd.mirror_state SET complete_as_of = complete_as_of - interval '25 hours' WHERE kind = 'deals'")
        .await;
    let since = now(&stage);
    for (path, count) in [("contacts", 50), ("companies?limit=1000", 24), ("deals", 24)] {
        let (status, body) = second.get(&format!("/api/admin/hubspot/{path}")).await;
        let body: Value = serde_json::from_str(&body).unwrap();
        let kind = path.split('?').next().unwrap();
        assert_eq!((status, &body["source"]), (200, &"postgres".into()), "{body}");
        assert_eq!(body[kind].as_array().unwrap().len(), count, "{path}");
        assert_eq!(body["stale"] == true, kind == "deals", "{path}");
    }
    let (status, _) = second.get("/api/admin/hubspot/sync/status").await;
    assert_eq!(status, 200);
    let holder = stage.value("SELECT holder FROM hubsyncd.lease").await.unwrap();
    for what in ["all", "contacts?limit=5"] {
        let (status, body) = sync(&second, what).await;
        assert_eq!(
            (
                status,
                body["holder"]
                    .as_str()
                    .is_some_and(|named| named.contains(&holder))
            ),
            (409, true),
            "{body}"
        );
    }
    assert_eq!(now(&stage), since, "a standby asks HubSpot for nothing of that");
    let (status, body) = second
        .get("/api/admin/hubspot/contacts?useSync=false&limit=3")
        .await;
    assert!(status == 200 && body.contains("\"source\":\"hubspot\""), "{body}");
    drop((first, second));
}

#[tokio::test]
async fn a_stop_waits_for_no_page_that_hangs_and_the_next_start_asks_for_what_is_left() {
    let stage = mirrored("cut_stop", Settings::default(), "").await;
    populate(&stage, 650);
    stage
        .sandbox
        .fault(Fault::named("hang").unwrap().on(Endpoint::List).after(4));
    let daemon = stage.launch("daemon");
    stage
        .wait_value(
            "SELECT listed FROM hubsyncd.mirror_state WHERE kind = 'contacts'",
            "400",
        )
        .await;
    wait_until("the fifth hangs", async || stage.sandbox.faults_waiting() == 0).await;
    let begun = Instant::now();
    assert_eq!(daemon.stop().await, Some(0));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let since = now(&stage);
    let daemon = stage.start().await;
    complete(&stage).await;
    assert_eq!(asked(&stage, Endpoint::List, since), 3 + 2 + 2);
    assert_same(&stage).await;
    drop(daemon);
}

#[tokio::test]
async fn however_often_a_pass_is_stopped_each_stop_costs_a_page_at_most() {
    let stage = mirrored("cut_often", Settings::default(), "objects = [\"contacts\"]\n").await;
    populate(&stage, 2_050);
    for part in 1..=4 {
        let daemon = stage.launch("daemon");
        under_way(&stage, "contacts", part * 400).await;
        assert_eq!(daemon.stop().await, Some(0));
    }
    let daemon = stage.launch("daemon");
    wait_until("the pass has ended", async || {
        state(
            &stage,
            "contacts",
            "complete_as_of IS NOT NULL AND begun_at IS NULL",
        )
        .await
            == "t"
    })
    .await;
    let lists = asked(&stage, Endpoint::List, 0);
    assert!(
        (21..=25).contains(&lists),
        "{lists} lists for 21 pages and 4 stops"
    );
    assert_eq!(state(&stage, "contacts", "pass || ' ' || synced").await, "1 2050");
    drop(daemon);
}

#[tokio::test]
async fn a_pass_cut_after_its_last_page_goes_on_with_what_it_had_not_seen() {
    let (stage, daemon) = standing("cut_absent", 350).await;
    let ids: Vec<String> = stage
        .sandbox
        .world()
        .records("0-1")
        .map(|record| record.id())
        .collect();
    for id in &ids[..250] {
        stage.sandbox.world().purge("0-1", id);
    }
    // What is missing is asked for a hundred at a time, twice: is it there, is it archived?
    stage
        .sandbox
        .fault(Fault::named("403").unwrap().on(Endpoint::Read).after(2));
    failed(sync(&daemon, "contacts").await, &["403"]);
    let left = "SELECT count(*) FROM hubsyncd.mirror_contacts";
    assert_eq!(stage.value(left).await.as_deref(), Some("250"));
    let since = now(&stage);
    pulled(&daemon, "contacts").await;
    assert_eq!(asked(&stage, Endpoint::List, since), 0, "all was listed");
    assert_eq!(asked(&stage, Endpoint::Read, since), 4);
    pulled(&daemon, "all").await;
    assert_same(&stage).await;
    let (_, metrics) = daemon.get("/metrics").await;
    for line in [
        "hubsyncd_mirror_records_pulled_total{kind=\"contacts\",outcome=\"new\"} 350\n",
        "hubsyncd_mirror_records_pulled_total{kind=\"contacts\",outcome=\"known\"} 200\n",
        "hubsyncd_mirror_records_pulled_total{kind=\"contacts\",outcome=\"gone\"} 250\n",
        "hubsyncd_mirror_records_pulled_total{kind=\"deals\",outcome=\"error\"} 0\n",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}

#[tokio::test]
async fn a_list_that_left_records_out_before_the_cut_is_read_again_after_it() {
    let (stage, daemon) = standing("cut_left_out", 350).await;
    let new = stage.sandbox.world().create("0-1", [("firstname", "New")]);
    stage
        .sandbox
        .fault(Fault::named("empty-results").unwrap().on(Endpoint::List));
    stage
        .sandbox
        .fault(Fault::named("403").unwrap().on(Endpoint::Read).after(2));
    failed(sync(&daemon, "contacts").await, &["403"]);
    let since = now(&stage);
    pulled(&daemon, "contacts").await;
    assert_eq!(asked(&stage, Endpoint::List, since), 4, "all of it");
    let known = format!("SELECT count(*) FROM hubsyncd.mirror_contacts WHERE hubspot_id = '{new}'");
    assert_eq!(stage.value(&known).await.as_deref(), Some("1"));
    assert_same(&stage).await;
}
