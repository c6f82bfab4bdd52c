//! Adoption: records that are in HubSpot before their rows are known there.

use crate::support::DEADLINE;
use crate::support::daemon::{CONTACTS, QUICK, Stage};
use hubsyncd::sandbox::{Endpoint, Settings, When, World};

const INSERT: &str =
    "INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email, firstname, sj_credits) VALUES";
const IDS: &str =
    "SELECT string_agg(hubspot_id, ',' ORDER BY student_id) FROM hubspot_sync.hubspot_contact_credits";

#[tokio::test]
async fn an_unowned_contact_with_that_email_is_adopted_whatever_its_case_and_not_doubled() {
    let stage = Stage::new("case").await;
    let known = stage
        .sandbox
        .world()
        .create(CONTACTS, [("email", "anna@example.com")]);
    let _daemon = stage.start().await;
    stage
        .app(&format!("{INSERT} ('s1', '  Anna@EXAMPLE.com ', 'Anna', 3)"))
        .await;
    stage.wait_value(IDS, &known).await;
    stage.wait_drained().await;
    let world = stage.sandbox.world();
    assert_eq!(world.records(CONTACTS).count(), 1);
    let contact = world.record(CONTACTS, &known).unwrap();
    assert_eq!(contact.get("email"), Some("anna@example.com"));
    assert_eq!(
        (contact.get("firstname"), contact.get("sj_credits")),
        (Some("Anna"), Some("3"))
    );
}

#[tokio::test]
async fn a_contact_that_has_the_email_as_its_secondary_one_is_adopted() {
    let stage = Stage::new("secondary").await;
    let survivor = {
        let mut world = stage.sandbox.world();
        let first = world.create(CONTACTS, [("email", "first@example.com")]);
        let second = world.create(CONTACTS, [("email", "second@example.com")]);
        world.merge(CONTACTS, &first, &second).unwrap()
    };
    let _daemon = stage.start().await;
    stage
        .app(&format!("{INSERT} ('s1', 'Second@example.com', 'Anna', 3)"))
        .await;
    stage.wait_value(IDS, &survivor).await;
    stage.wait_drained().await;
    let world = stage.sandbox.world();
    assert_eq!(world.records(CONTACTS).count(), 1);
    let contact = world.record(CONTACTS, &survivor).unwrap();
    assert_eq!(contact.get("sj_credits"), Some("3"));
}

#[tokio::test]
async fn emails_are_compared_trimmed_and_lower_case_so_of_two_rows_one_owns_the_contact() {
    let stage = Stage::new("two_rows").await;
    let daemon = stage.start().await;
    stage
        .app(&format!(
            "{INSERT} ('s1', 'anna@example.com', 'First', 1), ('s2', ' ANNA@example.com', 'Second', 2)"
        ))
        .await;
    stage
        .wait_value("SELECT string_agg(category, ',') FROM hubsyncd.failure", "owner")
        .await;
    stage.wait_drained().await;
    daemon.settled().await;
    stage
        .wait_value(
            "SELECT count(hubspot_id) FROM hubspot_sync.hubspot_contact_credits",
            "1",
        )
        .await;
    let owner = "SELECT firstname FROM hubspot_sync.hubspot_contact_credits WHERE hubspot_id IS NOT NULL";
    let owner = stage.value(owner).await.unwrap();
    let world = stage.sandbox.world();
    assert_eq!(world.records(CONTACTS).count(), 1);
    let contact = world.find(CONTACTS, "email", "anna@example.com").unwrap();
    assert_eq!(
        contact.get("firstname"),
        Some(owner.as_str()),
        "never overwritten"
    );
}

/// Contacts alone, with what to do about records that are there already.
fn contacts(adopt: &str) -> String {
    format!(
        "{QUICK}[[object]]\nname = \"contacts\"\ntable = \"hubspot_sync.hubspot_contact_credits\"\ntype = \"0-1\"\n\
         match-on = \"email\"\nadopt = \"{adopt}\"\n[object.properties]\n\
         email = {{ column = \"email\", on = \"create\" }}\nfirstname = {{ column = \"firstname\", on = \"create\" }}\n\
         sj_credits = {{ column = \"sj_credits\", null = \"0\" }}\n"
    )
}

#[tokio::test]
async fn adopting_for_updates_only_leaves_what_only_a_create_sends() {
    let stage = Stage::with("update_only", Settings::default(), &contacts("update-only")).await;
    let known = stage
        .sandbox
        .world()
        .create(CONTACTS, [("email", "anna@example.com"), ("firstname", "Old")]);
    let daemon = stage.start().await;
    stage
        .app(&format!(
            "{INSERT} ('s1', 'Anna@example.com', 'New', 3), ('s2', 'bert@example.com', 'Bert', 4)"
        ))
        .await;
    stage
        .wait_world("both are there with their credits", |world| {
            let credits = |email: &str| world.find(CONTACTS, "email", email)?.get("sj_credits");
            credits("anna@example.com") == Some("3") && credits("bert@example.com") == Some("4")
        })
        .await;
    stage.wait_drained().await;
    daemon.settled().await;
    stage
        .wait_value(
            "SELECT hubspot_id FROM hubspot_sync.hubspot_contact_credits WHERE student_id = 's1'",
            &known,
        )
        .await;
    let world = stage.sandbox.world();
    assert_eq!(
        world.record(CONTACTS, &known).unwrap().get("firstname"),
        Some("Old")
    );
    let new = world.find(CONTACTS, "email", "bert@example.com").unwrap();
    assert_eq!(new.get("firstname"), Some("Bert"));
    assert_eq!(world.records(CONTACTS).count(), 2);
}

#[tokio::test]
async fn adopting_nothing_refuses_the_row_and_names_the_record() {
    let stage = Stage::with("adopt_fail", Settings::default(), &contacts("fail")).await;
    let known = stage
        .sandbox
        .world()
        .create(CONTACTS, [("email", "anna@example.com"), ("sj_credits", "9")]);
    let daemon = stage.start().await;
    stage
        .app(&format!(
            "{INSERT} ('s1', 'ANNA@example.com', 'New', 3), ('s2', 'bert@example.com', 'Bert', 4)"
        ))
        .await;
    stage
        .wait_value(
            "SELECT category || ' ' || existing_id FROM hubsyncd.failure",
            &format!("adopt {known}"),
        )
        .await;
    stage.wait_drained().await;
    daemon.settled().await;
    let row = "SELECT hubspot_id IS NULL AND hubspot_last_sync_at IS NULL FROM hubspot_sync.hubspot_contact_credits \
               WHERE student_id = 's1'";
    assert_eq!(stage.value(row).await.as_deref(), Some("t"));
    let world = stage.sandbox.world();
    assert_eq!(
        world.record(CONTACTS, &known).unwrap().get("sj_credits"),
        Some("9")
    );
    assert!(
        world.find(CONTACTS, "email", "bert@example.com").is_some(),
        "its neighbour is made"
    );
    assert_eq!(world.count(Endpoint::Update), 0);
}

#[tokio::test]
async fn of_two_rows_that_hubspot_holds_for_one_contact_the_owner_keeps_every_value() {
    let stage = Stage::new("one_contact").await;
    let survivor = {
        let mut world = stage.sandbox.world();
        let first = world.create(CONTACTS, [("email", "first@example.com")]);
        let second = world.create(CONTACTS, [("email", "second@example.com")]);
        world.merge(CONTACTS, &first, &second).unwrap()
    };
    stage
        .app(&format!("{INSERT} ('s1', 'first@example.com', 'Anna', 3)"))
        .await;
    let daemon = stage.start().await;
    stage.wait_value(IDS, &survivor).await;
    stage
        .app(&format!("{INSERT} ('s2', 'second@example.com', 'Bert', 4)"))
        .await;
    stage
        .wait_value(
            "SELECT count(*) FROM hubsyncd.failure WHERE category = 'owner'",
            "1",
        )
        .await;
    stage.wait_drained().await;
    daemon.settled().await;
    let world = stage.sandbox.world();
    assert_eq!(world.records(CONTACTS).count(), 1);
    let contact = world.record(CONTACTS, &survivor).unwrap();
    for (property, value) in [
        ("student_id", "s1"),
        ("firstname", "Anna"),
        ("email", "first@example.com"),
        ("sj_credits", "3"),
    ] {
        assert_eq!(contact.get(property), Some(value), "{property}");
    }
}

/// One row's contact was merged into another, which the other row is led to by its e-mail before that is noted.
#[tokio::test]
async fn of_two_rows_that_are_led_to_one_contact_at_a_time_one_gets_it() {
    let stage = Stage::with("led", Settings::default(), &contacts("update-only")).await;
    // A table that lets two rows hold one record.
    stage
        .sql("ALTER TABLE hubspot_sync.hubspot_contact_credits DROP CONSTRAINT hubspot_contact_credits_hubspot_id_key")
        .await;
    let daemon = stage.start().await;
    stage
        .app(&format!("{INSERT} ('s2', 'second@example.com', 'Bert', 4)"))
        .await;
    stage
        .wait_value(
            "SELECT count(hubspot_id) FROM hubspot_sync.hubspot_contact_credits",
            "1",
        )
        .await;
    stage.wait_drained().await;
    let second = stage.value(IDS).await.unwrap();
    let survivor = {
        let mut world = stage.sandbox.world();
        let first = world.create(CONTACTS, [("email", "first@example.com")]);
        world.merge(CONTACTS, &first, &second).unwrap()
    };
    let asked = stage.sandbox.hold(Endpoint::Read, When::Before);
    stage
        .app("UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = 5")
        .await;
    assert!(asked.reached(DEADLINE).await);
    let followed = stage.sandbox.hold(Endpoint::Update, When::Before);
    asked.release();
    assert!(followed.reached(DEADLINE).await);
    let counted = |world: &World| (world.count(Endpoint::Read), world.count(Endpoint::Update));
    let (reads, updates) = counted(&stage.sandbox.world());
    stage
        .app(&format!("{INSERT} ('s1', 'first@example.com', 'Anna', 3)"))
        .await;
    stage
        .wait_world("the other row waits, or writes", |world| {
            let (now_reads, now_updates) = counted(world);
            now_reads > reads + 1 || now_updates > updates
        })
        .await;
    followed.release();
    stage
        .wait_value("SELECT string_agg(category, ',') FROM hubsyncd.failure", "owner")
        .await;
    stage.wait_drained().await;
    daemon.settled().await;
    assert_eq!(stage.value(IDS).await, Some(survivor));
}
