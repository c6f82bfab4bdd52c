//! Tests: receipts, which write into tables that belong to somebody else.

use super::support::postgres::{Database, Server};
use super::support::tables;
use hubsyncd::mapping::Mapping;
use hubsyncd::postgres::catalog::inspect;
use hubsyncd::postgres::receipt::{Entry, Probe, Receipt, Writer, Written};
use hubsyncd::postgres::{ErrorKind, Session};
use hubsyncd::sync::change::Key;
use hubsyncd::sync::outcome::Refusal;
use std::time::{Duration, Instant};

const CONTACTS: usize = 0;
const BOOKINGS: usize = 1;
/// 2026-01-02 03:04:05.678901 UTC.
const READ_AT: i64 = 1_767_323_045_678_901;
const READ_AT_TEXT: &str = "2026-01-02 03:04:05.678901+00";

/// A database with contacts, and the writers of all objects.
struct World {
    database: Database,
    daemon: Session,
    application: Session,
    owner: Session,
    writers: Vec<Writer>,
}

impl World {
    async fn new(server: &Server, contacts: usize) -> World {
        let (database, daemon, application) = tables::database(server, "receipt").await;
        let mapping = Mapping::built_in();
        let shapes = inspect(&daemon, &mapping).await.unwrap();
        let writers = (0..3)
            .map(|object| Writer::new(&mapping, object, &shapes))
            .collect();
        let owner = database.session().await;
        let world = World {
            database,
            daemon,
            application,
            owner,
            writers,
        };
        for number in 0..contacts {
            let sql = "INSERT INTO hubspot_sync.hubspot_contact_credits (id, student_id, email) VALUES ($1::text::uuid, $2, $2)";
            let student = number.to_string();
            world
                .application
                .execute(sql, &[&&*key(number), &student])
                .await
                .unwrap();
        }
        world
    }

    async fn write(&mut self, object: usize, entries: Vec<Entry>) -> Vec<Written> {
        let receipt = receipt(object, entries);
        let written = self.writers[object].write(&mut self.daemon, &receipt).await;
        let written =
            written.unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error)));
        let left = self.text("SELECT pg_current_xact_id_if_assigned()::text").await;
        assert_eq!(left, None, "no transaction is left open");
        written
    }

    /// The first value of the first row, as the owner sees it.
    async fn text(&self, sql: &str) -> Option<String> {
        let sql = format!("SELECT v::text FROM ({sql}) AS q (v)");
        self.owner
            .query(&sql, &[])
            .await
            .unwrap()
            .first()
            .and_then(|row| row.get(0))
    }

    async fn id(&self, number: usize) -> Option<String> {
        let sql = format!(
            "SELECT hubspot_id FROM hubspot_sync.hubspot_contact_credits WHERE id = '{}'",
            key(number)
        );
        self.text(&sql).await
    }

    async fn synced_at(&self, number: usize) -> Option<String> {
        let sql = "SELECT hubspot_last_sync_at FROM hubspot_sync.hubspot_contact_credits WHERE id";
        self.text(&format!("{sql} = '{}'", key(number))).await
    }

    /// `object key op` of every change, in order.
    async fn changes(&self) -> Vec<String> {
        let sql = "SELECT concat_ws(' ', object, key, op) FROM hubsyncd.change ORDER BY seq";
        self.owner
            .query(sql, &[])
            .await
            .unwrap()
            .iter()
            .map(|row| row.get(0))
            .collect()
    }

    /// Appends a change for a contact and answers its number.
    async fn change(&self, number: usize) -> i64 {
        let sql = "INSERT INTO hubsyncd.change (object, key, op) VALUES ('contacts', $1, 'U') RETURNING seq";
        self.owner.query_one(sql, &[&&*key(number)]).await.unwrap().get(0)
    }

    async fn entry_id(&self, number: usize) -> i64 {
        let sql = "INSERT INTO hubspot_sync.supabase_audit_log (table_name, record_id, operation) \
                   VALUES ('hubspot_contact_credits', $1::text::uuid, 'UPDATE') RETURNING id";
        self.application
            .query_one(sql, &[&&*key(number)])
            .await
            .unwrap()
            .get(0)
    }

    async fn unmarked(&self) -> Vec<i64> {
        let sql =
            "SELECT id FROM hubspot_sync.supabase_audit_log WHERE synced_to_hubspot_at IS NULL ORDER BY id";
        self.owner
            .query(sql, &[])
            .await
            .unwrap()
            .iter()
            .map(|row| row.get(0))
            .collect()
    }

    /// Makes a trigger of the application's on the contacts.
    async fn trigger(&self, when: &str, body: &str) {
        let sql = format!(
            "CREATE FUNCTION hubspot_sync.app_trigger() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {body} END$$;
             CREATE {when} ON hubspot_sync.hubspot_contact_credits FOR EACH ROW EXECUTE FUNCTION hubspot_sync.app_trigger()"
        );
        self.owner.batch_execute(&sql).await.unwrap();
    }
}

fn key(number: usize) -> Key {
    Key::from(format!("00000000-0000-4000-8000-{number:012}"))
}

fn receipt(object: usize, entries: Vec<Entry>) -> Receipt {
    Receipt {
        object,
        read_at: READ_AT,
        entries,
    }
}

/// A contact that HubSpot has just created.
fn created(number: usize) -> Entry {
    Entry {
        hubspot_id: Some(format!("9{number}")),
        synced: true,
        ..seen(number)
    }
}

/// A contact that was updated in HubSpot.
fn updated(number: usize) -> Entry {
    Entry {
        read_id: Some(format!("9{number}")),
        ..created(number)
    }
}

/// A contact of which nothing is to be written.
fn seen(number: usize) -> Entry {
    Entry {
        key: key(number),
        read_id: None,
        hubspot_id: None,
        synced: false,
        audit: Vec::new(),
        seqs: Vec::new(),
        failure: None,
        clear_failure: false,
        full_record: false,
        made_links: Vec::new(),
        rename: false,
        row_gone: false,
    }
}

fn category(written: &Written) -> &str {
    match written {
        Written::Refused(refusal) => &refusal.category,
        other => panic!("not refused: {other:?}"),
    }
}

async fn shared(contacts: usize) -> World {
    World::new(Server::shared().await, contacts).await
}

#[tokio::test]
async fn a_receipt_writes_the_id_and_the_time_of_the_read_and_deletes_exactly_its_changes() {
    for server in Server::every_version().await {
        let mut world = World::new(server, 3).await;
        let (first, second) = (world.change(0).await, world.change(0).await);
        let audit = world.entry_id(0).await;
        let later = world.entry_id(0).await;
        world.writers[CONTACTS]
            .note_ids(&world.daemon, &[(key(0), "90".to_owned())])
            .await
            .unwrap();
        assert_eq!(
            world
                .text("SELECT hubspot_id FROM hubsyncd.intent")
                .await
                .as_deref(),
            Some("90")
        );
        let newly = Entry {
            seqs: vec![first],
            audit: vec![audit],
            made_links: vec![("bookings".to_owned(), "77".to_owned())],
            ..created(0)
        };
        assert_eq!(
            world.write(CONTACTS, vec![newly, created(1)]).await,
            [Written::Done, Written::Done]
        );
        assert_eq!(world.id(0).await.as_deref(), Some("90"));
        assert_eq!(world.synced_at(0).await.as_deref(), Some(READ_AT_TEXT));
        assert_eq!(world.id(1).await.as_deref(), Some("91"));
        assert_eq!(world.synced_at(2).await, None);
        assert_eq!(
            world.text("SELECT seq FROM hubsyncd.change").await,
            Some(second.to_string())
        );
        assert_eq!(world.unmarked().await, [later]);
        let marked = "SELECT synced_to_hubspot_at FROM hubspot_sync.supabase_audit_log ORDER BY id";
        assert_eq!(world.text(marked).await.as_deref(), Some(READ_AT_TEXT));
        assert_eq!(world.text("SELECT 1 FROM hubsyncd.intent").await, None);
        let link = "SELECT concat_ws(' ', object, key, link, to_id, state) FROM hubsyncd.link";
        assert_eq!(
            world.text(link).await,
            Some(format!("contacts {} bookings 77 made", key(0)))
        );
        // An update touches the time alone.
        let again = Entry {
            seqs: vec![second],
            rename: true,
            ..updated(0)
        };
        let receipt = receipt(CONTACTS, vec![again]);
        let written = world.writers[CONTACTS]
            .write(&mut world.daemon, &receipt)
            .await
            .unwrap();
        assert_eq!(written, [Written::Done]);
        assert!(world.writers[CONTACTS].may_have_named(&receipt, &written));
        assert_eq!(world.changes().await, [format!("contacts {} U", key(0))]);
    }
}

#[tokio::test]
async fn a_row_that_holds_another_id_by_then_keeps_it_and_is_named_as_changed() {
    let mut world = shared(4).await;
    let sql = "UPDATE hubspot_sync.hubspot_contact_credits SET hubspot_id = CASE student_id WHEN '0' THEN 'theirs' WHEN '2' THEN '  ' \
               WHEN '3' THEN '93' END";
    world.application.execute(sql, &[]).await.unwrap();
    world.writers[CONTACTS]
        .note_ids(&world.daemon, &[(key(0), "90".to_owned())])
        .await
        .unwrap();
    let seq = world.change(0).await;
    let lost = Entry {
        seqs: vec![seq],
        ..created(0)
    };
    // The second held 91 at the read and holds nothing now; blank is nothing; the fourth holds what we would write.
    let written = world
        .write(CONTACTS, vec![lost, updated(1), created(2), created(3)])
        .await;
    assert!(matches!(written[0], Written::Lost { .. }), "{written:?}");
    assert!(matches!(written[1], Written::Lost { .. }), "{written:?}");
    assert_eq!(written[2..], [Written::Done, Written::Done]);
    assert_eq!(world.id(0).await.as_deref(), Some("theirs"));
    assert_eq!((world.id(1).await, world.synced_at(1).await), (None, None));
    assert_eq!(world.id(2).await.as_deref(), Some("92"));
    assert_eq!(world.synced_at(3).await.as_deref(), Some(READ_AT_TEXT));
    assert_eq!(
        world.changes().await,
        [format!("contacts {} U", key(0)), format!("contacts {} U", key(1))]
    );
    assert_eq!(world.text("SELECT 1 FROM hubsyncd.intent").await, None);
}

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
            .note_ids(&world.daemon, &ids)
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
async fn a_row_gone_meanwhile_is_forgotten_and_one_outside_the_condition_is_not() {
    let mut world = shared(3).await;
    for number in 0..3 {
        let sql = "INSERT INTO hubsyncd.failure (object, key, category, message) VALUES ('contacts', $1, 'value', 'x')";
        world.owner.execute(sql, &[&&*key(number)]).await.unwrap();
        let sql = "INSERT INTO hubsyncd.link VALUES ('contacts', $1, 'bookings', '1', 'made')";
        world.owner.execute(sql, &[&&*key(number)]).await.unwrap();
        world.writers[CONTACTS]
            .note_ids(&world.daemon, &[(key(number), "1".to_owned())])
            .await
            .unwrap();
    }
    let sql = "DELETE FROM hubspot_sync.hubspot_contact_credits WHERE student_id IN ('0', '1')";
    world.application.execute(sql, &[]).await.unwrap();
    let mut entries = Vec::new();
    for (number, mut entry) in [created(0), seen(1), seen(2)].into_iter().enumerate() {
        entry.row_gone = number > 0;
        entry.seqs = vec![world.change(number).await];
        entries.push(entry);
    }
    entries.push(Entry {
        key: Key::from("no uuid at all"),
        row_gone: true,
        ..seen(0)
    });
    let expected = [Written::Gone, Written::Gone, Written::Done, Written::Gone];
    assert_eq!(world.write(CONTACTS, entries).await, expected);
    assert_eq!(world.changes().await, Vec::<String>::new());
    for table in ["failure", "link", "intent"] {
        let left = world
            .text(&format!("SELECT string_agg(key, ' ') FROM hubsyncd.{table}"))
            .await;
        assert_eq!(left.as_deref(), Some(&*key(2)), "{table}");
    }
}

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
                made_links: vec![("x".to_owned(), "1".to_owned())],
                ..created(number)
            });
        }
        let refused_entry = entries[13].audit[0];
        world.writers[CONTACTS]
            .note_ids(&world.daemon, &[(key(13), "913".to_owned())])
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
async fn a_contact_that_gets_its_id_names_the_bookings_that_look_it_up() {
    let mut world = shared(2).await;
    let bookings = [
        ("b0", "0", "NULL"),
        ("b1", "0", "'  '"),
        ("b2", "0", "'55'"),
        ("b3", "1", "NULL"),
    ];
    for (booking, student, contact) in bookings {
        let sql = format!(
            "INSERT INTO hubspot_sync.hubspot_bookings (booking_id, mock_exam_id, contact_id, student_id, student_email)
             VALUES ('{booking}', '1', {contact}, '{student}', '{student}')"
        );
        world.application.batch_execute(&sql).await.unwrap();
    }
    assert_eq!(world.write(CONTACTS, vec![created(0)]).await, [Written::Done]);
    let named = "SELECT string_agg(booking_id || c.op::text, ' ' ORDER BY booking_id) FROM hubsyncd.change c
                 JOIN hubspot_sync.hubspot_bookings b ON b.id::text = c.key AND c.object = 'bookings'";
    assert_eq!(world.text(named).await.as_deref(), Some("b0U b1U"));
    assert_eq!(world.changes().await.len(), 2);
    // Once it has one, nobody is named again.
    assert_eq!(world.write(CONTACTS, vec![updated(0)]).await, [Written::Done]);
    assert_eq!(world.changes().await.len(), 2);
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

#[tokio::test]
async fn owners_of_ids_are_named_as_changed() {
    let mut world = shared(2).await;
    world.write(CONTACTS, vec![created(0), created(1)]).await;
    let ids = ["91".to_owned(), "none".to_owned()];
    let owners = world.writers[CONTACTS]
        .name_owners(&world.daemon, &ids)
        .await
        .unwrap();
    assert_eq!(owners, [("91".to_owned(), key(1))]);
    assert_eq!(world.changes().await, [format!("contacts {} U", key(1))]);
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

#[tokio::test]
async fn a_booking_is_written_like_a_contact() {
    let mut world = shared(0).await;
    let sql =
        "INSERT INTO hubspot_sync.hubspot_bookings (id, booking_id, mock_exam_id, student_id, student_email)
               VALUES ($1::text::uuid, 'b', '1', 's', 'e')";
    world.application.execute(sql, &[&&*key(0)]).await.unwrap();
    assert_eq!(world.write(BOOKINGS, vec![created(0)]).await, [Written::Done]);
    let row = "SELECT concat_ws(' ', hubspot_id, hubspot_last_sync_at) FROM hubspot_sync.hubspot_bookings";
    assert_eq!(world.text(row).await, Some(format!("90 {READ_AT_TEXT}")));
    assert!(world.write(BOOKINGS, Vec::new()).await.is_empty());
}
