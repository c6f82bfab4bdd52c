//! Answers that are silent: a record of which HubSpot says nothing is not one that it does not have.

use crate::guarded::{TICKETS, mapping, stage as tickets, wait_in_step};
use crate::support::DEADLINE;
use crate::support::daemon::{CONTACTS, QUICK, Stage};
use hubsyncd::sandbox::{Endpoint, Fault, Settings};

/// The faults that leave a record out of an answer without a word.
const SILENT: [&str; 3] = ["empty-results", "unreported", "partial"];

/// An answer that lacks a record, given twice.
fn silent(name: &str, on: Endpoint) -> Fault {
    let fault = Fault::named(name).expect("it is one of the names");
    fault.on(on).times(2).dropping(1)
}

#[tokio::test]
async fn a_record_that_a_read_does_not_mention_is_not_created_again() {
    for name in SILENT {
        let toml = format!("{QUICK}[hubspot]\nsettle = \"400ms\"\n");
        let stage = Stage::with("silent_read", Settings::default(), &toml).await;
        let _daemon = stage.start().await;
        stage.sandbox.fault(Fault::lose_reply().on(Endpoint::Upsert));
        stage
            .app("INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email, sj_credits) VALUES ('s1', 's1@example.com', 5)")
            .await;
        stage
            .wait_world("the upsert is done, its reply lost", |world| {
                world.records(CONTACTS).count() == 1
            })
            .await;
        stage.sandbox.fault(silent(name, Endpoint::Read));
        stage
            .app(
                "UPDATE hubspot_sync.hubspot_contact_credits SET email = 'moved@example.com', sj_credits = 6",
            )
            .await;
        stage.wait_drained().await;
        stage
            .wait_value("SELECT count(*) FROM hubsyncd.intent", "0")
            .await;
        let world = stage.sandbox.world();
        assert_eq!(world.records(CONTACTS).count(), 1, "{name}");
        assert_eq!(stage.sandbox.struck().get(name), Some(&2), "{name} struck");
        let record = world.records(CONTACTS).next().expect("there is one");
        assert_eq!(record.get("sj_credits"), Some("6"));
    }
}

#[tokio::test]
async fn a_record_that_a_search_does_not_mention_is_not_created_again() {
    let stage = tickets("silent_search", &mapping("overwrite"), true).await;
    let _daemon = stage.start().await;
    stage.sandbox.fault(Fault::lose_reply().on(Endpoint::Create));
    stage.sandbox.fault(silent("empty-results", Endpoint::Search));
    stage
        .app("INSERT INTO desk.ticket VALUES (1, 'T-1', 'open')")
        .await;
    wait_in_step(&stage, DEADLINE).await;
    assert_eq!(stage.sandbox.world().records(TICKETS).count(), 1);
    assert_eq!(stage.sandbox.struck().get("empty-results"), Some(&2));
}

#[tokio::test]
async fn a_record_that_a_read_does_not_mention_is_archived_with_its_row() {
    let toml = mapping("overwrite").replace("match-on", "on-delete = \"archive\"\nmatch-on");
    let stage = tickets("silent_archive", &toml, true).await;
    let _daemon = stage.start().await;
    stage
        .app("INSERT INTO desk.ticket VALUES (1, 'T-1', 'open')")
        .await;
    wait_in_step(&stage, DEADLINE).await;
    stage.sandbox.fault(silent("empty-results", Endpoint::Read));
    stage.app("DELETE FROM desk.ticket").await;
    stage
        .wait_world("the record is archived", |world| {
            world.records(TICKETS).all(hubsyncd::sandbox::Record::archived)
        })
        .await;
    stage.wait_drained().await;
    assert_eq!(stage.sandbox.struck().get("empty-results"), Some(&2));
}

#[tokio::test]
async fn what_hubspot_is_always_silent_about_is_not_there_at_last() {
    let stage = tickets("silent_for_ever", &mapping("overwrite"), true).await;
    let _daemon = stage.start().await;
    // The create never arrives, and every search after it answers as if there were nothing, in the scarcest words.
    stage.sandbox.fault(
        Fault::named("refuse-connection")
            .expect("a name")
            .on(Endpoint::Create),
    );
    stage
        .sandbox
        .fault(silent("empty-results", Endpoint::Search).times(3));
    stage
        .app("INSERT INTO desk.ticket VALUES (1, 'T-1', 'open')")
        .await;
    wait_in_step(&stage, DEADLINE).await;
    assert_eq!(stage.sandbox.world().records(TICKETS).count(), 1);
}

#[tokio::test]
async fn an_object_type_without_any_property_is_never_believed() {
    let stage = Stage::new("silent_properties").await;
    let empty = Fault::named("empty-results").expect("it is one of the names");
    stage.sandbox.fault(empty.on(Endpoint::Properties).times(3));
    let _daemon = stage.start().await;
    assert_eq!(stage.sandbox.struck().get("empty-results"), Some(&3));
}
