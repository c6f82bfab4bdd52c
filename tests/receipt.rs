//! Tests: receipts, which write into tables that belong to somebody else.

use super::support::postgres::Server;
use super::support::receipts::{
    BOOKINGS, CONTACTS, READ_AT_TEXT, World, created, key, linked, receipt, seen, shared, updated,
};
use super::support::wait_until;
use hubsyncd::postgres::ErrorKind;
use hubsyncd::postgres::control::Control;
use hubsyncd::postgres::receipt::{Entry, Receipt, Written};
use hubsyncd::sync::change::Key;
use hubsyncd::sync::outcome::Refusal;

#[tokio::test]
async fn a_receipt_writes_the_id_and_the_time_of_the_read_and_deletes_exactly_its_changes() {
    for server in Server::every_version().await {
        let mut world = World::new(server, 3).await;
        let (first, second) = (world.change(0).await, world.change(0).await);
        let audit = world.entry_id(0).await;
        let later = world.entry_id(0).await;
        world.writers[CONTACTS]
            .note_ids(&world.daemon, 0, &[(key(0), "90".to_owned())])
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
            links: vec![linked("bookings", "90", "77")],
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
        .note_ids(&world.daemon, 0, &[(key(0), "90".to_owned())])
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
async fn a_row_gone_meanwhile_is_forgotten_and_one_outside_the_condition_is_not() {
    let mut world = shared(3).await;
    for number in 0..3 {
        let sql = "INSERT INTO hubsyncd.failure (object, key, category, message) VALUES ('contacts', $1, 'value', 'x')";
        world.owner.execute(sql, &[&&*key(number)]).await.unwrap();
        let sql = "INSERT INTO hubsyncd.link VALUES ('contacts', $1, 'bookings', '1', 'made')";
        world.owner.execute(sql, &[&&*key(number)]).await.unwrap();
        world.writers[CONTACTS]
            .note_ids(&world.daemon, 0, &[(key(number), "1".to_owned())])
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
async fn owners_of_ids_are_named_as_changed() {
    let mut world = shared(2).await;
    world.write(CONTACTS, vec![created(0), created(1)]).await;
    let ids = ["91".to_owned(), "none".to_owned()];
    let owners = world.writers[CONTACTS]
        .name_owners(&world.daemon, &ids)
        .await
        .unwrap();
    assert_eq!(owners, [("91".to_owned(), key(1))]);
    // With all its properties: what only a create sends was written over too.
    assert_eq!(world.changes().await, [format!("contacts {} N", key(1))]);
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

#[tokio::test]
async fn a_receipt_of_a_generation_that_is_gone_writes_nothing_and_the_session_is_fit_for_the_next() {
    let mut world = shared(2).await;
    let (with_row, without) = (world.change(0).await, world.change(1).await);
    let take = "UPDATE hubsyncd.lease SET generation = 5";
    world.owner.batch_execute(take).await.unwrap();
    let everything = "SELECT concat_ws(' ', (SELECT string_agg(t::text, ' ') FROM hubspot_sync.hubspot_contact_credits AS t), \
        (SELECT string_agg(c::text, ' ') FROM hubsyncd.change AS c), (SELECT string_agg(i::text, ' ') FROM hubsyncd.intent AS i), \
        (SELECT string_agg(f::text, ' ') FROM hubsyncd.failure AS f))";
    let before = world.text(everything).await;
    let ids = [(key(0), "90".to_owned())];
    let noted = world.writers[CONTACTS].note_ids(&world.daemon, 4, &ids).await;
    assert_eq!(noted.unwrap_err().kind, ErrorKind::Fenced);
    let entries = [
        Entry {
            seqs: vec![with_row],
            ..created(0)
        },
        Entry {
            seqs: vec![without],
            failure: Some(Refusal::ours("mapping", "no")),
            ..seen(1)
        },
    ];
    for entry in &entries {
        let old = Receipt {
            generation: 4,
            ..receipt(CONTACTS, vec![entry.clone()])
        };
        let refused = world.writers[CONTACTS].write(&mut world.daemon, &old).await;
        assert_eq!(refused.unwrap_err().kind, ErrorKind::Fenced);
    }
    assert_eq!(world.text(everything).await, before);
    let current = Receipt {
        generation: 5,
        ..receipt(CONTACTS, entries.into())
    };
    world.writers[CONTACTS]
        .note_ids(&world.daemon, 5, &ids)
        .await
        .unwrap();
    let written = world.writers[CONTACTS].write(&mut world.daemon, &current).await;
    assert_eq!(written.unwrap(), [Written::Done, Written::Done]);
    assert_eq!(world.id(0).await.as_deref(), Some("90"));
}

#[tokio::test]
async fn whoever_takes_the_lease_waits_for_the_receipts_that_are_being_written() {
    let world = shared(1).await;
    let mut control = Control::open(&world.database.address("hubsyncd")).await.unwrap();
    let hold = "BEGIN; SELECT 1 FROM hubsyncd.lease WHERE generation = 0 FOR KEY SHARE";
    world.owner.batch_execute(hold).await.unwrap();
    let ping = "UPDATE hubsyncd.lease SET renewed_at = clock_timestamp() WHERE generation = 0";
    world
        .daemon
        .batch_execute(ping)
        .await
        .expect("a ping does not wait for it");
    let taking = tokio::spawn(async move {
        control
            .try_lease(None)
            .await
            .map(|taken| taken.unwrap().generation)
    });
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    wait_until("the taking waits", async || {
        world.text(waits).await.as_deref() == Some("1")
    })
    .await;
    world.owner.batch_execute("COMMIT").await.unwrap();
    assert!(taking.await.unwrap().unwrap() > 0);
}
