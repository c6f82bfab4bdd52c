//! Tests: receipts and the application, which want the same rows.

use super::support::postgres::Server;
use super::support::receipts::{CONTACTS, World, category, created, key, receipt, shared, updated};
use hubsyncd::postgres::receipt::{Entry, Probe, Written};
use std::time::{Duration, Instant};

#[tokio::test]
async fn a_locked_row_keeps_its_change_and_the_others_are_written() {
    for server in Server::every_version().await {
        let mut world = World::new(server, 4).await;
        let lock =
            "BEGIN; SELECT 1 FROM hubspot_sync.hubspot_contact_credits WHERE student_id IN ('0', '1', '2')";
        world
            .application
            .batch_execute(&format!("{lock} FOR NO KEY UPDATE"))
            .await
            .unwrap();
        let seq = world.change(0).await;
        let ids = [(key(0), "90".to_owned()), (key(1), "91".to_owned())];
        world.writers[CONTACTS]
            .note_ids(&world.daemon, 0, &ids)
            .await
            .unwrap();
        let named = Entry {
            seqs: vec![seq],
            ..created(0)
        };
        let swept_fully = Entry {
            full_record: true,
            ..created(2)
        };
        let begin = Instant::now();
        let written = world
            .write(CONTACTS, vec![named.clone(), created(1), swept_fully, created(3)])
            .await;
        assert!(
            begin.elapsed() < Duration::from_millis(150),
            "nobody waited: {:?}",
            begin.elapsed()
        );
        assert_eq!(
            written,
            [Written::Locked, Written::Locked, Written::Locked, Written::Done]
        );
        let expected = [
            format!("contacts {} U", key(0)),
            format!("contacts {} U", key(1)),
            format!("contacts {} N", key(2)),
        ];
        assert_eq!(world.changes().await, expected);
        assert_eq!(
            world
                .text("SELECT count(*) FROM hubsyncd.intent")
                .await
                .as_deref(),
            Some("2")
        );
        world.application.batch_execute("COMMIT").await.unwrap();
        assert_eq!(world.write(CONTACTS, vec![named]).await, [Written::Done]);
        assert_eq!(world.changes().await, expected[1..]);
    }
}

#[tokio::test]
async fn a_foreign_key_on_another_column_does_not_stop_the_sync_time() {
    let mut world = shared(1).await;
    world.write(CONTACTS, vec![created(0)]).await;
    // What a referencing row's insert takes.
    let lock = "BEGIN; SELECT 1 FROM hubspot_sync.hubspot_contact_credits FOR KEY SHARE";
    world.application.batch_execute(lock).await.unwrap();
    assert_eq!(world.write(CONTACTS, vec![updated(0)]).await, [Written::Done]);
}

#[tokio::test]
async fn a_receipt_that_would_wait_for_the_application_gives_up_that_row_alone() {
    let mut world = shared(20).await;
    // The application inserts the very id that we are about to write, and does not commit.
    let insert = "BEGIN; INSERT INTO hubspot_sync.hubspot_contact_credits (hubspot_id, student_id, email) VALUES ('97', 'x', 'x')";
    world.application.batch_execute(insert).await.unwrap();
    let written = world.write(CONTACTS, (0..20).map(created).collect()).await;
    let done = written
        .iter()
        .filter(|written| **written == Written::Done)
        .count();
    assert_eq!((done, &written[7]), (19, &Written::Locked));
    assert_eq!(world.changes().await, [format!("contacts {} U", key(7))]);
    world.application.batch_execute("COMMIT").await.unwrap();
    assert_eq!(
        category(&world.write(CONTACTS, vec![created(7)]).await[0]),
        "receipt"
    );
}

#[tokio::test]
async fn a_locked_table_makes_every_row_come_again_at_once() {
    let mut world = shared(10).await;
    world
        .owner
        .batch_execute("BEGIN; LOCK TABLE hubspot_sync.hubspot_contact_credits IN SHARE MODE")
        .await
        .unwrap();
    let begin = Instant::now();
    let entries: Vec<Entry> = (0..10).map(created).collect();
    let receipt = receipt(CONTACTS, entries.clone());
    let written = world.writers[CONTACTS]
        .write(&mut world.daemon, &receipt)
        .await
        .unwrap();
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    assert!(
        written.iter().all(|written| *written == Written::Locked),
        "{written:?}"
    );
    world.owner.batch_execute("COMMIT").await.unwrap();
    assert_eq!(world.changes().await.len(), 10);
    assert_eq!(world.write(CONTACTS, entries).await, vec![Written::Done; 10]);
}

/// The application holds a hundred rows and updates them in an order opposite to ours, over and over. Were we to
/// wait for a row while holding another, one of the two would die, and it could be the application.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_that_updates_in_reverse_order_never_dies_nor_waits_longer_than_a_receipt() {
    for server in Server::every_version().await {
        let mut world = World::new(server, 100).await;
        let application = world.database.session_as("app").await;
        let rounds = tokio::spawn(async move {
            let mut longest = Duration::ZERO;
            for round in 0..8 {
                application.batch_execute("BEGIN").await.unwrap();
                for number in (0..100).rev() {
                    let sql = format!(
                        "UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = {round} WHERE id = '{}'",
                        key(number)
                    );
                    let begin = Instant::now();
                    application.batch_execute(&sql).await.unwrap();
                    longest = longest.max(begin.elapsed());
                }
                application.batch_execute("COMMIT").await.unwrap();
            }
            longest
        });
        let (mut receipts, mut locked) = (0, 0);
        let mut longest_receipt = Duration::ZERO;
        while !rounds.is_finished() {
            let begin = Instant::now();
            let receipt = receipt(
                CONTACTS,
                (0..100)
                    .map(|number| {
                        if receipts == 0 {
                            created(number)
                        } else {
                            updated(number)
                        }
                    })
                    .collect(),
            );
            let written = world.writers[CONTACTS]
                .write(&mut world.daemon, &receipt)
                .await
                .unwrap();
            longest_receipt = longest_receipt.max(begin.elapsed());
            receipts += 1;
            locked += written
                .iter()
                .filter(|written| **written == Written::Locked)
                .count();
        }
        let longest = rounds.await.unwrap();
        assert!(
            receipts > 1 && locked > 0,
            "they met: {receipts} receipts, {locked} locked"
        );
        let bound = longest_receipt + Duration::from_millis(300);
        assert!(
            longest < bound,
            "the application waited {longest:?}, a receipt took {longest_receipt:?}"
        );
    }
}

#[tokio::test]
async fn a_locked_audit_entry_keeps_the_change_and_the_row_is_written() {
    let mut world = shared(1).await;
    let (one, two) = (world.entry_id(0).await, world.entry_id(0).await);
    let lock = format!("BEGIN; SELECT 1 FROM hubspot_sync.supabase_audit_log WHERE id = {one} FOR UPDATE");
    world.application.batch_execute(&lock).await.unwrap();
    let seq = world.change(0).await;
    let entry = Entry {
        audit: vec![one, two, 99_999],
        seqs: vec![seq],
        ..created(0)
    };
    assert_eq!(
        world.write(CONTACTS, vec![entry.clone()]).await,
        [Written::Locked]
    );
    assert_eq!(world.id(0).await.as_deref(), Some("90"));
    assert_eq!(world.unmarked().await, [one]);
    assert_eq!(world.changes().await.len(), 1);
    world.application.batch_execute("COMMIT").await.unwrap();
    let again = Entry {
        read_id: entry.hubspot_id.clone(),
        ..entry
    };
    assert_eq!(world.write(CONTACTS, vec![again]).await, [Written::Done]);
    assert_eq!((world.unmarked().await, world.changes().await), (vec![], vec![]));
}

#[tokio::test]
async fn a_row_that_stays_out_of_reach_is_told_from_one_that_policy_hides() {
    let mut world = shared(2).await;
    let probe = async |world: &mut World, number| {
        world.writers[CONTACTS]
            .probe(&mut world.daemon, &key(number))
            .await
            .unwrap()
    };
    assert_eq!(probe(&mut world, 0).await, Probe::Free);
    assert_eq!(probe(&mut world, 7).await, Probe::Gone);
    let lock = "BEGIN; SELECT 1 FROM hubspot_sync.hubspot_contact_credits FOR UPDATE";
    world.application.batch_execute(lock).await.unwrap();
    assert_eq!(probe(&mut world, 0).await, Probe::Locked);
    world.application.batch_execute("COMMIT").await.unwrap();
    let policy = "DROP POLICY hubsyncd_write ON hubspot_sync.hubspot_contact_credits";
    world.owner.batch_execute(policy).await.unwrap();
    assert_eq!(probe(&mut world, 0).await, Probe::Forbidden);
    assert_eq!(world.write(CONTACTS, vec![created(0)]).await, [Written::Locked]);
    assert_eq!(world.id(0).await, None);
}
