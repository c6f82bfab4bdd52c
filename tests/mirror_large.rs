//! Answers larger than what is read of one: fewer records are asked for at a time, in every kind of pass.

use crate::support::mirroring::{assert_same, complete, followed, mirrored, pulled};
use crate::support::wait_within;
use hubsyncd::sandbox::{Endpoint, Property, Settings};
use std::time::Duration;

/// As much as a property may hold, nearly.
fn essay(letter: &str) -> String {
    letter.repeat(60_000)
}

#[tokio::test]
async fn pages_searches_and_reads_that_are_too_large_are_asked_for_in_parts() {
    let mut stage = mirrored("mirror_large", Settings::default(), "").await;
    let essays = ["essay_1", "essay_2", "essay_3"];
    let ids: Vec<String> = {
        let mut world = stage.sandbox.world();
        for name in essays {
            world.add_property("0-1", Property::string(name));
        }
        let text = essay("x");
        // A page of these is 18 MB.
        (0..120)
            .map(|_| world.create("0-1", essays.map(|name| (name, text.as_str()))))
            .collect()
    };
    let daemon = stage.start().await;
    complete(&stage).await;
    assert_same(&stage).await;
    // All of them change: the search answers with 22 MB.
    {
        let mut world = stage.sandbox.world();
        for id in &ids {
            world.set("0-1", id, "firstname", "Changed");
        }
    }
    stage.toml = stage.toml.replace("every = \"1h\"", "every = \"1s\"");
    drop(stage.command("daemon"));
    assert_eq!(daemon.post("/reload").await.0, 200);
    wait_within(Duration::from_secs(90), "the changes are followed", async || {
        let sql = "SELECT count(*) FROM hubsyncd.mirror_contacts WHERE firstname = 'Changed'";
        stage.value(sql).await.as_deref() == Some("120")
    })
    .await;
    followed(&stage).await;
    assert_eq!(
        stage.sandbox.world().count(Endpoint::List),
        3 + 2,
        "a hundred, fifty, the rest; and by no other full pass"
    );
    // All of them are thrown into the recycle bin: what is read there is 18 MB at a time.
    for id in &ids[1..] {
        stage.sandbox.world().archive("0-1", id);
    }
    pulled(&daemon, "contacts").await;
    assert_same(&stage).await;
    let archived = "SELECT count(*) FROM hubsyncd.mirror_contacts WHERE archived";
    assert_eq!(stage.value(archived).await.as_deref(), Some("119"));
}

#[tokio::test]
async fn a_record_that_is_too_large_alone_is_an_error_alone() {
    let stage = mirrored(
        "mirror_giant",
        Settings::default(),
        "objects = [\"deals\", \"contacts\"]\n",
    )
    .await;
    let names: Vec<String> = (0..290).map(|number| format!("part_{number:03}")).collect();
    let (giant, small) = {
        let mut world = stage.sandbox.world();
        for name in &names {
            world.add_property("0-3", Property::string(name));
        }
        let text = essay("y");
        let giant = world.create("0-3", names.iter().map(|name| (name.as_str(), text.as_str())));
        let small: Vec<String> = (0..5)
            .map(|_| world.create("0-3", [("dealname", "Small")]))
            .collect();
        (giant, small)
    };
    let daemon = stage.launch("daemon");
    wait_within(Duration::from_secs(90), "the deals are complete", async || {
        let sql = "SELECT complete_as_of IS NOT NULL FROM hubsyncd.mirror_state WHERE kind = 'deals'";
        stage.value(sql).await.as_deref() == Some("t")
    })
    .await;
    let of = |id: &str| {
        format!(
            "SELECT concat_ws(' ', sync_status, dealname, sync_error) FROM hubsyncd.mirror_deals WHERE hubspot_id = '{id}'"
        )
    };
    let told = stage.value(&of(&giant)).await.unwrap();
    assert!(told.starts_with("error") && told.contains("size"), "{told}");
    for id in &small {
        assert_eq!(stage.value(&of(id)).await.as_deref(), Some("synced Small"));
    }
    // It is not taken for gone either, and what it was once it is small again.
    {
        let mut world = stage.sandbox.world();
        for name in &names[9..] {
            world.set("0-3", &giant, name, "");
        }
        world.set("0-3", &giant, "dealname", "Giant");
    }
    pulled(&daemon, "deals").await;
    assert_eq!(stage.value(&of(&giant)).await.as_deref(), Some("synced Giant"));
}
