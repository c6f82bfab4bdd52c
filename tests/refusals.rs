//! Tests: receipts that a row, or the database, refuses.

use super::support::postgres::Server;
use super::support::receipts::{
    CONTACTS, World, category, created, key, linked, receipt, seen, shared, updated,
};
use hubsyncd::postgres::ErrorKind;
use hubsyncd::postgres::receipt::{Entry, Written};
use hubsyncd::sync::outcome::Refusal;

#[tokio::test]
async fn a_row_that_the_applications_check_refuses_does_not_hold_up_the_others() {
    for server in Server::every_version().await {
        let mut world = World::new(server, 20).await;
        let check = "ALTER TABLE hubspot_sync.hubspot_contact_credits ADD CONSTRAINT no_thirteen CHECK (hubspot_id <> '913')";
        world.owner.batch_execute(check).await.unwrap();
        let mut entries = Vec::new();
        for number in 0..20 {
            let seqs = vec![world.change(number).await];
            let audit = vec![world.entry_id(number).await];
            entries.push(Entry {
                seqs,
                audit,
                links: vec![linked("x", "9", "1")],
                ..created(number)
            });
        }
        let refused_entry = entries[13].audit[0];
        world.writers[CONTACTS]
            .note_ids(&world.daemon, 0, &[(key(13), "913".to_owned())])
            .await
            .unwrap();
        let written = world.write(CONTACTS, entries).await;
        assert_eq!(
            written
                .iter()
                .filter(|written| **written == Written::Done)
                .count(),
            19
        );
        assert_eq!(category(&written[13]), "receipt");
        assert_eq!((world.id(13).await, world.synced_at(13).await), (None, None));
        assert_eq!(world.changes().await, Vec::<String>::new());
        assert_eq!(world.unmarked().await, [refused_entry]);
        let intent = world
            .text("SELECT concat_ws(' ', key, hubspot_id) FROM hubsyncd.intent")
            .await;
        assert_eq!(intent, Some(format!("{} 913", key(13))));
        let failure = "SELECT concat_ws(' ', key, hubspot_id, category, message) FROM hubsyncd.failure";
        let failure = world.text(failure).await.unwrap();
        assert!(
            failure.starts_with(&format!("{} 913 receipt", key(13))),
            "{failure}"
        );
        assert!(
            failure.contains("no_thirteen") && failure.contains("23514"),
            "{failure}"
        );
        assert_eq!(
            world.text("SELECT count(*) FROM hubsyncd.link").await.as_deref(),
            Some("20")
        );
    }
}

#[tokio::test]
async fn an_id_that_another_row_holds_is_a_failure_without_values() {
    let mut world = shared(2).await;
    world.write(CONTACTS, vec![created(0)]).await;
    let twin = Entry {
        hubspot_id: Some("90".to_owned()),
        ..created(1)
    };
    let written = world.write(CONTACTS, vec![twin, updated(0)]).await;
    assert_eq!((category(&written[0]), &written[1]), ("receipt", &Written::Done));
    let Written::Refused(refusal) = &written[0] else {
        unreachable!()
    };
    assert!(
        refusal.message.contains("hubspot_contact_credits_hubspot_id_key"),
        "{}",
        refusal.message
    );
    assert!(!refusal.message.contains("90"), "{}", refusal.message);
}

#[tokio::test]
async fn a_deferred_constraint_refuses_its_row_alone() {
    let mut world = shared(5).await;
    let when = "CONSTRAINT TRIGGER late AFTER UPDATE";
    let body = "IF NEW.student_id = '2' THEN RAISE EXCEPTION 'secret@example.com'; END IF; RETURN NULL;";
    let sql = format!(
        "CREATE FUNCTION hubspot_sync.late() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {body} END$$;
         CREATE {when} ON hubspot_sync.hubspot_contact_credits DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
         EXECUTE FUNCTION hubspot_sync.late()"
    );
    world.owner.batch_execute(&sql).await.unwrap();
    let written = world.write(CONTACTS, (0..5).map(created).collect()).await;
    assert_eq!(
        written
            .iter()
            .filter(|written| **written == Written::Done)
            .count(),
        4
    );
    assert_eq!(category(&written[2]), "receipt");
    let message = world.text("SELECT message FROM hubsyncd.failure").await.unwrap();
    assert!(
        message.contains("P0001") && !message.contains("secret"),
        "{message}"
    );
}

#[tokio::test]
async fn a_trigger_without_rights_or_that_suppresses_the_update_refuses_its_row_alone() {
    let mut world = shared(5).await;
    world
        .owner
        .batch_execute("CREATE TABLE hubspot_sync.private (x int)")
        .await
        .unwrap();
    let body = "IF NEW.student_id = '1' THEN INSERT INTO hubspot_sync.private VALUES (1); END IF;
                IF NEW.student_id = '3' THEN RETURN NULL; END IF; RETURN NEW;";
    world.trigger("TRIGGER app BEFORE UPDATE", body).await;
    let written = world.write(CONTACTS, (0..5).map(created).collect()).await;
    let done = [0, 2, 4].iter().all(|number| written[*number] == Written::Done);
    assert!(done, "{written:?}");
    assert_eq!(
        (category(&written[1]), category(&written[3])),
        ("receipt", "receipt")
    );
    assert_eq!(world.id(3).await, None);
}

#[tokio::test]
async fn a_missing_right_is_an_error_and_no_rows_failure() {
    let mut world = shared(2).await;
    let revoke = "REVOKE UPDATE (hubspot_id) ON hubspot_sync.hubspot_contact_credits FROM hubsyncd";
    world.owner.batch_execute(revoke).await.unwrap();
    let receipt = receipt(CONTACTS, vec![created(0), created(1)]);
    let error = world.writers[CONTACTS]
        .write(&mut world.daemon, &receipt)
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Denied);
    assert_eq!(world.text("SELECT 1 FROM hubsyncd.failure").await, None);
    let grant = "GRANT UPDATE (hubspot_id) ON hubspot_sync.hubspot_contact_credits TO hubsyncd";
    world.owner.batch_execute(grant).await.unwrap();
    assert_eq!(
        world.write(CONTACTS, receipt.entries).await,
        [Written::Done, Written::Done]
    );
}

#[tokio::test]
async fn failures_count_their_attempts_and_end_with_success() {
    let mut world = shared(2).await;
    let refused = |category: &str, full_record| Entry {
        failure: Some(Refusal {
            properties: vec!["email".to_owned(), "na\0me".to_owned()],
            correlation_id: Some("c-1".to_owned()),
            ..Refusal::ours(category, "because")
        }),
        full_record,
        ..seen(0)
    };
    world.write(CONTACTS, vec![refused("value", true)]).await;
    world.write(CONTACTS, vec![refused("conflict", false)]).await;
    let noted = "SELECT concat_ws(' ', category, properties, correlation_id, full_record, attempts, \
                 first_failed_at < last_failed_at) FROM hubsyncd.failure";
    assert_eq!(
        world.text(noted).await.as_deref(),
        Some("conflict {email,name} c-1 t 2 t")
    );
    assert_eq!((world.id(0).await, world.synced_at(0).await), (None, None));
    let well = Entry {
        clear_failure: true,
        ..created(0)
    };
    world.write(CONTACTS, vec![well]).await;
    assert_eq!(world.text("SELECT 1 FROM hubsyncd.failure").await, None);
    // A record with its id and a failed link: the id stands, the time does not, the entries stay unmarked.
    let entry = world.entry_id(1).await;
    let unlinked = Entry {
        synced: false,
        audit: vec![entry],
        failure: Some(Refusal::ours("link", "because")),
        ..created(1)
    };
    assert_eq!(world.write(CONTACTS, vec![unlinked]).await, [Written::Done]);
    assert_eq!(
        (world.id(1).await.as_deref(), world.synced_at(1).await),
        (Some("91"), None)
    );
    assert_eq!(world.unmarked().await, [entry]);
}
