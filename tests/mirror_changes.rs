//! Incremental passes: what was modified is followed, through lag, equal times and our own writes.

use crate::support::daemon::CONTACTS;
use crate::support::mirroring::{asked, assert_same, followed, following, mirrored, now, populate};
use crate::support::{wait_until, wait_within};
use hubsyncd::sandbox::{Endpoint, Fault, Settings};
use std::time::Duration;

#[tokio::test]
async fn changes_and_new_records_come_with_their_associations_and_a_quiet_portal_costs_a_search_a_kind() {
    let (stage, daemon) = following("mirror_follow", Settings::default(), 120).await;
    {
        let mut world = stage.sandbox.world();
        let contact = world.records("0-1").next().unwrap().id();
        world.set("0-1", &contact, "firstname", "Changed");
        let company = world.create("0-2", [("name", "New")]);
        let fresh = world.create("0-1", [("firstname", "New"), ("email", "new@example.com")]);
        world.associate(("0-1", &fresh), ("0-2", &company));
    }
    followed(&stage).await;
    assert_same(&stage).await;
    let lists = asked(&stage, Endpoint::List, 0);
    stage.sandbox.advance(Duration::from_secs(3600));
    followed(&stage).await;
    followed(&stage).await;
    let since = now(&stage);
    followed(&stage).await;
    let reads = asked(&stage, Endpoint::Read, since) + asked(&stage, Endpoint::AssociationRead, since);
    assert_eq!(reads, 0, "what has not changed is not read again");
    assert_eq!(
        asked(&stage, Endpoint::List, 0),
        lists,
        "no list between full passes"
    );
    assert_eq!(daemon.stop().await, Some(0));
}

#[tokio::test]
async fn more_than_ten_thousand_records_of_one_time_are_followed_and_left_behind() {
    let (stage, daemon) = following("mirror_stamp", Settings::default(), 10_400).await;
    let ids: Vec<String> = stage
        .sandbox
        .world()
        .records("0-1")
        .map(|record| record.id())
        .collect();
    let late = {
        let mut world = stage.sandbox.world();
        for id in ids.iter().step_by(997) {
            world.set("0-1", id, "firstname", "Stamped");
        }
        world.stamp("0-1", ids.iter().map(String::as_str));
        world.create("0-1", [("firstname", "After the stamp")])
    };
    let sql = format!("SELECT count(*) FROM hubsyncd.mirror_contacts WHERE hubspot_id = '{late}'");
    wait_within(Duration::from_secs(120), "the stamp is left behind", async || {
        stage.value(&sql).await.as_deref() == Some("1")
    })
    .await;
    wait_within(Duration::from_secs(120), "the pass has ended", async || {
        stage
            .value("SELECT count(*) FROM hubsyncd.mirror_state WHERE caught_up_at > complete_as_of")
            .await
            .as_deref()
            == Some("3")
    })
    .await;
    assert_same(&stage).await;
    assert_eq!(
        stage.sandbox.world().answered_with(400),
        0,
        "never paged past what a search reaches"
    );
    drop(daemon);
}

#[tokio::test]
async fn what_the_index_shows_late_is_not_lost() {
    let settings = Settings {
        search_lag: Duration::from_secs(30),
        ..Settings::default()
    };
    let (stage, daemon) = following("mirror_lag", settings, 60).await;
    let (early, late) = {
        let mut world = stage.sandbox.world();
        let ids: Vec<String> = world.records("0-1").map(|record| record.id()).collect();
        world.set("0-1", &ids[0], "firstname", "Early");
        (ids[0].clone(), ids[1].clone())
    };
    followed(&stage).await;
    let name = |id: &str| format!("SELECT firstname FROM hubsyncd.mirror_contacts WHERE hubspot_id = '{id}'");
    assert_ne!(
        stage.value(&name(&early)).await.as_deref(),
        Some("Early"),
        "the index lags"
    );
    stage.sandbox.advance(Duration::from_secs(20));
    stage.sandbox.world().set("0-1", &late, "firstname", "Late");
    stage.sandbox.advance(Duration::from_secs(15));
    stage.wait_value(&name(&early), "Early").await;
    stage.sandbox.advance(Duration::from_secs(30));
    stage.wait_value(&name(&late), "Late").await;
    drop(daemon);
}

#[tokio::test]
async fn our_own_writes_are_followed_and_the_passes_end() {
    let (stage, daemon) = following("mirror_own", Settings::default(), 30).await;
    let id = stage.known_contact("s1").await;
    stage
        .app("UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = 7")
        .await;
    stage.wait_drained().await;
    stage
        .wait_value(
            &format!(
                "SELECT properties ->> 'sj_credits' FROM hubsyncd.mirror_contacts WHERE hubspot_id = '{id}'"
            ),
            "7",
        )
        .await;
    followed(&stage).await;
    assert_same(&stage).await;
    drop(daemon);
}

#[tokio::test]
async fn a_live_change_during_a_pull_waits_for_one_request_at_most() {
    let settings = Settings {
        requests_per_window: Some(100),
        ..Settings::default()
    };
    let stage = mirrored("mirror_lane", settings, "objects = [\"contacts\"]\n").await;
    populate(&stage, 3_000);
    let id = stage.known_contact("s1").await;
    let daemon = stage.start().await;
    wait_until("the pull is under way", async || {
        asked(&stage, Endpoint::List, 0) >= 3
    })
    .await;
    stage
        .app("UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = 9")
        .await;
    let committed = now(&stage);
    stage
        .wait_world("the change is in HubSpot", |world| {
            world.record(CONTACTS, &id).unwrap().get("sj_credits") == Some("9")
        })
        .await;
    let world = stage.sandbox.world();
    let update = world
        .requests()
        .find(|request| request.number >= committed && request.endpoint == Endpoint::Update)
        .unwrap()
        .number;
    let before = world
        .requests()
        .filter(|request| (committed..update).contains(&request.number) && request.endpoint == Endpoint::List)
        .count();
    // The batch waits 30 ms for company, and a slot of the mirror comes every 105 ms.
    assert!(before <= 2, "{before} pages went before it");
    assert!(world.count(Endpoint::List) < 30, "the pull goes on behind it");
    drop(world);
    drop(daemon);
}

#[tokio::test]
async fn a_search_that_is_cut_is_asked_again_and_nothing_is_passed_over() {
    let (stage, daemon) = following("mirror_cut", Settings::default(), 60).await;
    stage
        .sandbox
        .fault(Fault::named("truncated").unwrap().on(Endpoint::Search));
    stage
        .sandbox
        .fault(Fault::named("500").unwrap().on(Endpoint::Search));
    let id = stage
        .sandbox
        .world()
        .create("0-1", [("firstname", "Behind the cut")]);
    stage
        .wait_value(
            &format!("SELECT count(*) FROM hubsyncd.mirror_contacts WHERE hubspot_id = '{id}'"),
            "1",
        )
        .await;
    assert_same(&stage).await;
    drop(daemon);
}
