//! Heirs: rows that hold, or take over, the record of a row that is gone, while a request of that one may still land.

use super::support::daemon::{CONTACTS, Daemon, QUICK, Stage};
use super::support::{DEADLINE, wait_within};
use hubsyncd::sandbox::{Endpoint, Fault, Settings, When, World};
use std::time::Duration;

const EMAIL: &str = "shared@example.com";

/// Requests land after their time-out, and before they are settled.
async fn stage(hint: &str, on_delete: &str) -> (Stage, Daemon) {
    let toml = format!(
        "{QUICK}[hubspot]\nsettle = \"5s\"\ntimeout = \"2s\"\n\
         [[object]]\nname = \"contacts\"\ntable = \"hubspot_sync.hubspot_contact_credits\"\ntype = \"{CONTACTS}\"\nkey = \"id\"\n\
         hubspot-id = \"hubspot_id\"\nsynced-at = \"hubspot_last_sync_at\"\nmatch-on = \"email\"\non-delete = \"{on_delete}\"\n\
         [object.properties]\nemail = {{ column = \"email\", on = \"create\" }}\n\
         student_id = {{ column = \"student_id\", on = \"create\" }}\nsj_credits = {{ column = \"sj_credits\", null = \"0\" }}\n"
    );
    let stage = Stage::with(hint, Settings::default(), &toml).await;
    let daemon = stage.start().await;
    daemon.settled().await;
    (stage, daemon)
}

fn insert(student: &str) -> String {
    format!(
        "INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email, sj_credits) VALUES ('{student}', '{EMAIL}', 3)"
    )
}

fn held(world: &World, property: &str) -> Option<String> {
    let contact = world.find(CONTACTS, "email", EMAIL)?;
    contact.get(property).map(str::to_owned)
}

async fn wait_held(stage: &Stage, property: &'static str, value: &'static str) {
    let words = format!("{property} is {value}");
    let is = |world: &World| held(world, property).as_deref() == Some(value);
    stage.wait_world(&words, is).await;
}

/// Nothing waits, is due, or failed.
async fn wait_over(stage: &Stage) {
    let left = "SELECT (SELECT count(*) FROM hubsyncd.change) + (SELECT count(*) FROM hubsyncd.intent)
                + (SELECT count(*) FROM hubsyncd.failure)";
    stage.wait_value(left, "0").await;
}

async fn wait_owned(stage: &Stage, student: &str) {
    let owned = format!(
        "SELECT count(*) FROM hubspot_sync.hubspot_contact_credits WHERE student_id = '{student}' AND hubspot_id IS NOT NULL"
    );
    wait_within(DEADLINE, "the heir owns the contact", async || {
        stage.value(&owned).await.as_deref() == Some("1")
    })
    .await;
}

/// A row's lost create lands on the record of a row that was inserted in its place.
async fn a_lost_create(hint: &str, on_delete: &str) {
    let (stage, _daemon) = stage(hint, on_delete).await;
    stage
        .sandbox
        .fault(Fault::hang(Some(Duration::from_secs(4))).on(Endpoint::Upsert));
    stage.app(&insert("late")).await;
    stage
        .wait_world("the first create is on its way", |world| {
            world.count(Endpoint::Upsert) == 1
        })
        .await;
    let replace = format!(
        "BEGIN; DELETE FROM hubspot_sync.hubspot_contact_credits; {}; COMMIT",
        insert("heir")
    );
    stage.app(&replace).await;
    wait_owned(&stage, "heir").await;
    wait_held(&stage, "student_id", "late").await;
    wait_over(&stage).await;
    assert_eq!(
        held(&stage.sandbox.world(), "student_id").as_deref(),
        Some("heir")
    );
    assert_eq!(stage.sandbox.world().records(CONTACTS).count(), 1);
}

#[tokio::test]
async fn a_lost_create_of_a_deleted_row_that_lands_on_its_heirs_record_is_put_right() {
    a_lost_create("heir_kept", "keep").await;
}

#[tokio::test]
async fn so_is_one_where_the_records_of_deleted_rows_are_archived() {
    a_lost_create("heir_archived", "archive").await;
}

/// The row's primary key changes while an update of it hangs: another key, the same record.
#[tokio::test]
async fn a_lost_update_of_a_row_whose_key_changed_meanwhile_is_put_right() {
    let (stage, _daemon) = stage("heir_rekeyed", "keep").await;
    stage.app(&insert("one")).await;
    wait_owned(&stage, "one").await;
    wait_over(&stage).await;
    stage
        .sandbox
        .fault(Fault::hang(Some(Duration::from_secs(4))).on(Endpoint::Update));
    update_on_its_way(&stage).await;
    stage
        .app("UPDATE hubspot_sync.hubspot_contact_credits SET id = gen_random_uuid(), sj_credits = 6")
        .await;
    wait_held(&stage, "sj_credits", "6").await;
    wait_held(&stage, "sj_credits", "5").await;
    wait_over(&stage).await;
    assert_eq!(held(&stage.sandbox.world(), "sj_credits").as_deref(), Some("6"));
    assert_eq!(stage.sandbox.world().records(CONTACTS).count(), 1);
}

/// Nothing is lost and nothing late: the old key's request is merely slower than the new key's would be.
#[tokio::test]
async fn of_two_keys_of_one_record_the_later_waits_for_the_earlier_ones_answer() {
    let (stage, _daemon) = stage("heir_waits", "keep").await;
    stage.app(&insert("one")).await;
    wait_owned(&stage, "one").await;
    wait_over(&stage).await;
    let hold = stage.sandbox.hold(Endpoint::Update, When::Before);
    stage
        .app("UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = 5")
        .await;
    assert!(hold.reached(DEADLINE).await);
    let updates = stage.sandbox.world().count(Endpoint::Update);
    stage
        .app("UPDATE hubspot_sync.hubspot_contact_credits SET id = gen_random_uuid(), sj_credits = 6")
        .await;
    let other = insert("other").replace(EMAIL, "other@example.com");
    stage.app(&other).await;
    wait_owned(&stage, "other").await;
    assert_eq!(
        stage.sandbox.world().count(Endpoint::Update),
        updates,
        "the new key's update is under way beside the old one's"
    );
    hold.release();
    wait_over(&stage).await;
    assert_eq!(held(&stage.sandbox.world(), "sj_credits").as_deref(), Some("6"));
}

async fn update_on_its_way(stage: &Stage) {
    let updates = stage.sandbox.world().count(Endpoint::Update);
    stage
        .app("UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = 5")
        .await;
    stage
        .wait_world("the update is on its way", |world| {
            world.count(Endpoint::Update) > updates
        })
        .await;
}
