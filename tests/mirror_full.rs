//! Full passes: everything is listed, whatever dies goes on, and only what HubSpot says is gone goes.

use crate::support::mirroring::{
    asked, assert_counted, assert_same, complete, mirrored, now, populate, pulled, standing, sync,
};
use crate::support::{DEADLINE, wait_until};
use hubsyncd::sandbox::{Endpoint, Fault, Property, Settings, When};
use std::time::{Duration, Instant};

#[tokio::test]
async fn a_start_mirrors_everything_with_the_fewest_requests_and_a_second_pass_changes_nothing() {
    let (stage, daemon) = standing("mirror_start", 450).await;
    assert_same(&stage).await;
    assert_eq!(
        asked(&stage, Endpoint::List, 0),
        5 + 1 + 1,
        "a hundred records a request"
    );
    assert_eq!(asked(&stage, Endpoint::Read, 0), 0);
    let since = now(&stage);
    let body = pulled(&daemon, "all").await;
    assert_eq!(
        (&body["synced"], &body["updated"], &body["errors"]),
        (&0.into(), &630.into(), &0.into())
    );
    assert_eq!(
        now(&stage) - since,
        7 + 3,
        "the lists, and the properties of each kind"
    );
    assert_same(&stage).await;
    assert_eq!(
        stage.value("SELECT count(*) FROM hubsyncd.mirrored_contacts WHERE sync_status = 'synced' AND email = properties ->> 'email'").await,
        Some("450".to_owned())
    );
    let columns = "SELECT count(*) FROM hubsyncd.mirrored_deals WHERE amount::text = properties ->> 'amount' \
                   AND closedate = (properties ->> 'closedate')::timestamptz";
    assert_ne!(stage.value(columns).await, Some("0".to_owned()));
    assert_eq!(daemon.stop().await, Some(0));
}

#[tokio::test]
async fn what_hubspot_archived_deleted_and_merged_is_found_by_the_next_full_pass() {
    let (stage, daemon) = standing("mirror_gone", 120).await;
    let ids: Vec<String> = stage
        .sandbox
        .world()
        .records("0-1")
        .map(|record| record.id())
        .collect();
    let survivor = {
        let mut world = stage.sandbox.world();
        assert!(world.archive("0-1", &ids[3]));
        assert!(world.purge("0-1", &ids[4]));
        world.merge("0-1", &ids[5], &ids[6]).unwrap()
    };
    pulled(&daemon, "all").await;
    assert_same(&stage).await;
    let of = |id: &str| format!("SELECT archived FROM hubsyncd.mirror_contacts WHERE hubspot_id = '{id}'");
    assert_eq!(stage.value(&of(&ids[3])).await.as_deref(), Some("t"));
    for gone in [&ids[4], &ids[5], &ids[6]] {
        assert_eq!(stage.value(&of(gone)).await, None, "{gone}");
    }
    assert_eq!(stage.value(&of(&survivor)).await.as_deref(), Some("f"));
    // And what is in the recycle bin goes for good once HubSpot has emptied it.
    stage.sandbox.world().purge("0-1", &ids[3]);
    pulled(&daemon, "contacts").await;
    assert_eq!(stage.value(&of(&ids[3])).await, None);
    assert_counted(&stage).await;
}

#[tokio::test]
async fn what_somebody_did_to_a_table_is_mended_and_counted_by_the_next_full_pass() {
    let (stage, daemon) = standing("mirror_emptied", 120).await;
    stage.sql("TRUNCATE hubsyncd.mirror_contacts").await;
    let body = pulled(&daemon, "contacts").await;
    assert_eq!(body["synced"], 120, "{body}");
    assert_same(&stage).await;
    assert_eq!(daemon.status().await["mirror"]["kinds"]["contacts"]["total"], 120);
    stage.sql("DROP TABLE hubsyncd.mirror_deals CASCADE").await;
    let (code, body) = sync(&daemon, "deals").await;
    assert!(
        code == 502 && body["error"].as_str().unwrap().contains("`hubsyncd setup`"),
        "{code} {body}"
    );
}

#[tokio::test]
async fn a_list_that_is_empty_or_short_deletes_nothing() {
    let (stage, daemon) = standing("mirror_short", 250).await;
    stage
        .sandbox
        .fault(Fault::named("empty-results").unwrap().on(Endpoint::List));
    pulled(&daemon, "contacts").await;
    assert_same(&stage).await;
    // Twice in a row: still each record is asked for by its id.
    stage
        .sandbox
        .fault(Fault::named("empty-results").unwrap().on(Endpoint::List).times(2));
    pulled(&daemon, "contacts").await;
    assert_same(&stage).await;
    // And a read that says nothing is no reason either.
    stage
        .sandbox
        .fault(Fault::named("empty-results").unwrap().on(Endpoint::List).times(2));
    stage
        .sandbox
        .fault(Fault::named("empty-results").unwrap().on(Endpoint::Read).times(3));
    pulled(&daemon, "contacts").await;
    assert_same(&stage).await;
}

#[tokio::test]
async fn a_killed_daemon_goes_on_from_its_cursor() {
    let stage = mirrored("mirror_killed", Settings::default(), "objects = [\"contacts\"]\n").await;
    populate(&stage, 650);
    // Five pages are listed, and the sixth is held.
    stage
        .sandbox
        .fault(Fault::named("hang").unwrap().on(Endpoint::List).after(5));
    let daemon = stage.launch("daemon");
    stage
        .wait_value(
            "SELECT listed FROM hubsyncd.mirror_state WHERE kind = 'contacts'",
            "500",
        )
        .await;
    wait_until("the sixth hangs", async || stage.sandbox.faults_waiting() == 0).await;
    daemon.kill();
    let begun = stage
        .value("SELECT begun_at FROM hubsyncd.mirror_state WHERE kind = 'contacts'")
        .await;
    let since = now(&stage);
    let daemon = stage.start().await;
    stage
        .wait_value(
            "SELECT complete_as_of IS NOT NULL FROM hubsyncd.mirror_state WHERE kind = 'contacts'",
            "t",
        )
        .await;
    assert_eq!(asked(&stage, Endpoint::List, since), 2, "the last two pages");
    let as_of = stage
        .value("SELECT complete_as_of FROM hubsyncd.mirror_state WHERE kind = 'contacts'")
        .await;
    assert_eq!(
        as_of, begun,
        "it is complete as of the begin of the pass that was cut"
    );
    assert_eq!(
        stage
            .value("SELECT count(*) FROM hubsyncd.mirror_contacts")
            .await
            .as_deref(),
        Some("650")
    );
    drop(daemon);
}

#[tokio::test]
async fn nine_hundred_properties_are_read_by_id_and_all_kept() {
    let stage = mirrored("mirror_wide", Settings::default(), "").await;
    {
        let mut world = stage.sandbox.world();
        let names: Vec<String> = (0..900)
            .map(|number| format!("a_property_of_many_{number:03}"))
            .collect();
        world.define("0-1", "contacts", names.iter().map(|name| Property::string(name)));
    }
    populate(&stage, 230);
    let id = stage.sandbox.world().create(
        "0-1",
        [("a_property_of_many_899", "the last"), ("firstname", "Ana")],
    );
    let daemon = stage.start().await;
    complete(&stage).await;
    assert_same(&stage).await;
    let sql = format!(
        "SELECT (properties ->> 'a_property_of_many_899') || ' ' || (SELECT count(*) FROM jsonb_object_keys(properties))
         FROM hubsyncd.mirror_contacts WHERE hubspot_id = '{id}'"
    );
    let kept = stage.value(&sql).await.unwrap();
    assert!(kept.starts_with("the last 9"), "{kept}");
    assert_eq!(stage.sandbox.world().answered_with(414), 0);
    assert_eq!(asked(&stage, Endpoint::Read, 0), 3, "a hundred records a request");
    // And changes are followed without naming them in a search.
    stage
        .sandbox
        .world()
        .set("0-1", &id, "a_property_of_many_001", "new");
    stage.sql("UPDATE hubsyncd.mirror_state SET caught_up_at = caught_up_at - interval '2 hours', complete_as_of = complete_as_of - interval '2 hours'").await;
    let daemon = {
        drop(daemon);
        stage.start().await
    };
    stage.wait_value(&format!("SELECT properties ->> 'a_property_of_many_001' FROM hubsyncd.mirror_contacts WHERE hubspot_id = '{id}'"), "new").await;
    drop(daemon);
}

#[tokio::test]
async fn ten_thousand_associations_in_a_page_are_compared_with_those_that_are_here_in_no_time() {
    let stage = mirrored("mirror_dense", Settings::default(), "").await;
    {
        let mut world = stage.sandbox.world();
        let contacts: Vec<String> = (0..100)
            .map(|_| world.create("0-1", [("firstname", "Ana")]))
            .collect();
        for _ in 0..100 {
            let company = world.create("0-2", [("name", "Everybody's")]);
            for contact in &contacts {
                world.associate(("0-1", contact), ("0-2", &company));
            }
        }
    }
    let daemon = stage.start().await;
    complete(&stage).await;
    // Comparing each with each took fifteen seconds for each of the two kinds.
    let begun = Instant::now();
    pulled(&daemon, "all").await;
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert_same(&stage).await;
}

#[tokio::test]
async fn a_limit_takes_the_first_so_many_of_each_kind_and_says_nothing_of_the_rest() {
    let (stage, daemon) = standing("mirror_limit", 250).await;
    let before = stage
        .value(
            "SELECT string_agg(complete_as_of::text || pass, ' ' ORDER BY kind) FROM hubsyncd.mirror_state",
        )
        .await;
    let last = stage.sandbox.world().records("0-1").last().unwrap().id();
    stage.sandbox.world().archive("0-1", &last);
    let since = now(&stage);
    let body = pulled(&daemon, "contacts?limit=120").await;
    assert_eq!((&body["synced"], &body["updated"]), (&0.into(), &120.into()));
    let lists: Vec<String> = stage
        .sandbox
        .world()
        .requests()
        .filter(|request| request.number >= since && request.endpoint == Endpoint::List)
        .map(|request| request.path.clone())
        .collect();
    assert_eq!(lists.len(), 2);
    assert!(
        lists[0].contains("limit=100&") && lists[1].contains("limit=20&"),
        "{lists:?}"
    );
    let after = stage
        .value(
            "SELECT string_agg(complete_as_of::text || pass, ' ' ORDER BY kind) FROM hubsyncd.mirror_state",
        )
        .await;
    assert_eq!(after, before);
    let kept = format!("SELECT archived FROM hubsyncd.mirror_contacts WHERE hubspot_id = '{last}'");
    assert_eq!(stage.value(&kept).await.as_deref(), Some("f"), "no deletions");
}

#[tokio::test]
async fn a_second_call_joins_the_running_pass() {
    let (stage, daemon) = standing("mirror_join", 120).await;
    let hold = stage.sandbox.hold(Endpoint::List, When::Before);
    let since = now(&stage);
    let second = async {
        assert!(hold.reached(DEADLINE).await);
        let second = sync(&daemon, "contacts");
        let release = async {
            wait_until("the second call is answered with, or waits", async || {
                stage
                    .value("SELECT count(*) FROM hubsyncd.run WHERE kind = 'mirror'")
                    .await
                    .as_deref()
                    == Some("2")
            })
            .await;
            hold.release();
        };
        tokio::join!(second, release).0
    };
    let ((first, one), (second, other)) = tokio::join!(sync(&daemon, "all"), second);
    assert_eq!((first, second), (200, 200), "{one} {other}");
    assert_eq!(
        asked(&stage, Endpoint::List, since),
        2 + 1 + 1,
        "nothing was listed twice"
    );
}

#[tokio::test]
async fn what_no_pass_confirmed_for_stale_after_is_pending_in_the_view_at_once_and_in_the_table_soon() {
    let (stage, daemon) = standing("mirror_stale", 30).await;
    daemon.stop().await;
    stage.sql("UPDATE hubsyncd.mirror_contacts SET last_synced_at = now() - interval '25 hours'; UPDATE hubsyncd.mirror_state SET complete_as_of = now() - interval '25 hours', begun_at = NULL").await;
    let pending = "SELECT count(*) FROM hubsyncd.mirrored_contacts WHERE sync_status = 'pending'";
    assert_eq!(
        stage.value(pending).await.as_deref(),
        Some("30"),
        "nobody had to write it down"
    );
    stage
        .sandbox
        .fault(Fault::named("500").unwrap().on(Endpoint::List).always());
    let daemon = stage.launch("daemon");
    stage
        .wait_value(
            "SELECT count(*) FROM hubsyncd.mirror_contacts WHERE sync_status = 'pending'",
            "30",
        )
        .await;
    stage
        .wait_value(
            "SELECT pending FROM hubsyncd.mirror_state WHERE kind = 'contacts'",
            "30",
        )
        .await;
    stage.sandbox.clear_faults();
    stage.wait_value(pending, "0").await;
    complete(&stage).await;
    assert_same(&stage).await;
    drop(daemon);
}
