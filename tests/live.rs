//! A change in Postgres is in HubSpot at once: the built daemon, real triggers, the sandbox.

use crate::support::daemon::{BOOKINGS, CONTACTS, Daemon, EXAMS, QUICK, Stage};
use crate::support::{DEADLINE, wait_until};
use hubsyncd::sandbox::{Endpoint, Request, Settings, When, World, Write};

#[tokio::test]
async fn pitfall_1n_a_change_of_each_table_reaches_hubspot() {
    let stage = Stage::new("live").await;
    let contact = stage.known_contact("s1").await;
    let exam = stage.known_exam().await;
    let daemon = stage.start().await;
    stage
        .app("UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = 7 WHERE student_id = 's1'")
        .await;
    stage
        .wait_world("the contact has seven credits", |world| {
            world
                .record(CONTACTS, &contact)
                .and_then(|record| record.get("sj_credits"))
                == Some("7")
        })
        .await;
    stage
        .app(&format!(
            "INSERT INTO hubspot_sync.hubspot_bookings (booking_id, mock_exam_id, contact_id, student_id, student_email, \
             is_active) VALUES ('b1', '{exam}', '{contact}', 's1', 's1@example.com', 'Active')"
        ))
        .await;
    stage
        .wait_world("the booking is there and linked to both", |world| {
            world.find(BOOKINGS, "booking_id", "b1").is_some_and(|booking| {
                world.associations(BOOKINGS, &booking.id(), CONTACTS).len() == 1
                    && world.associations(BOOKINGS, &booking.id(), EXAMS).len() == 1
            })
        })
        .await;
    stage
        .app(&format!(
            "UPDATE hubspot_sync.hubspot_mock_exams SET total_bookings = 1 WHERE hubspot_id = '{exam}';
             INSERT INTO hubspot_sync.supabase_audit_log (table_name, record_id, operation)
             SELECT 'hubspot_mock_exams', id, 'UPDATE' FROM hubspot_sync.hubspot_mock_exams WHERE hubspot_id = '{exam}'"
        ))
        .await;
    stage
        .wait_world("the exam counts its booking", |world| {
            world
                .record(EXAMS, &exam)
                .and_then(|record| record.get("total_bookings"))
                == Some("1")
        })
        .await;
    stage.wait_drained().await;
    stage
        .wait_value(
            "SELECT count(*) FROM hubspot_sync.supabase_audit_log WHERE synced_to_hubspot_at IS NULL",
            "0",
        )
        .await;
    assert_eq!(daemon.stop().await, Some(0));
}

#[tokio::test]
async fn many_changes_of_one_row_become_few_writes_and_the_last_value_wins() {
    let stage = Stage::new("coalesce").await;
    let contact = stage.known_contact("s1").await;
    let daemon = stage.start().await;
    let hold = stage.sandbox.hold(Endpoint::Update, When::Before);
    let before = updates_of(&stage, &contact).len();
    let session = stage.database.session_as("app").await;
    let spend = async |credits: u32| {
        let sql = format!("UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = {credits}");
        session.batch_execute(&sql).await.unwrap();
    };
    spend(1).await;
    assert!(hold.reached(DEADLINE).await);
    for credits in 2..=200 {
        spend(credits).await;
    }
    wait_pending(&daemon, 200).await;
    hold.release();
    stage.wait_drained().await;
    let writes = updates_of(&stage, &contact);
    let credits: Vec<&str> = writes[before..]
        .iter()
        .map(|write| value(write, "sj_credits"))
        .collect();
    assert_eq!(credits, ["1", "200"]);
}

#[tokio::test]
async fn pitfall_4_11_a_thousand_changes_in_one_transaction_travel_in_ten_batches() {
    let stage = Stage::new("thousand").await;
    known_contacts(&stage, 1_000).await;
    let _daemon = stage.start().await;
    let before = stage.sandbox.world().count(Endpoint::Any);
    stage
        .app("UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = 3")
        .await;
    stage.wait_drained().await;
    let world = stage.sandbox.world();
    let sent: Vec<&Request> = world
        .requests()
        .filter(|request| request.number >= before)
        .collect();
    assert_eq!(sent.len(), 10);
    assert!(
        sent.iter()
            .all(|request| request.endpoint == Endpoint::Update && request.inputs == 100)
    );
    let right = |world: &World| {
        world
            .records(CONTACTS)
            .filter(|record| record.get("sj_credits") == Some("3"))
            .count()
    };
    assert_eq!(right(&world), 1_000);
}

#[tokio::test]
async fn pitfall_1a_a_hundred_new_contacts_take_two_requests_and_a_hundred_bookings_with_two_links_three() {
    let stage = Stage::new("requests").await;
    let exam = stage.known_exam().await;
    let _daemon = stage.start().await;
    let before = stage.sandbox.world().count(Endpoint::Any);
    stage
        .app(
            "INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email)
             SELECT 's' || n, 's' || n || '@example.com' FROM generate_series(1, 100) AS n",
        )
        .await;
    stage.wait_drained().await;
    stage
        .wait_value(
            "SELECT count(hubspot_id) FROM hubspot_sync.hubspot_contact_credits",
            "100",
        )
        .await;
    assert_eq!(stage.sandbox.world().count(Endpoint::Any) - before, 2);
    let before = stage.sandbox.world().count(Endpoint::Any);
    stage
        .app(&format!(
            "INSERT INTO hubspot_sync.hubspot_bookings (booking_id, mock_exam_id, student_id, student_email, is_active)
             SELECT 'b' || n, '{exam}', 's' || n, 's' || n || '@example.com', 'Active' FROM generate_series(1, 100) AS n"
        ))
        .await;
    stage.wait_drained().await;
    let world = stage.sandbox.world();
    assert_eq!(world.count(Endpoint::Any) - before, 3);
    let linked = |to: &str| {
        world
            .records(BOOKINGS)
            .filter(|booking| world.associations(BOOKINGS, &booking.id(), to).len() == 1)
            .count()
    };
    assert_eq!((linked(CONTACTS), linked(EXAMS)), (100, 100));
}

#[tokio::test]
async fn pitfall_1g_a_row_that_changes_during_its_push_is_pushed_again_afterwards_with_its_newest_value() {
    let stage = Stage::new("during").await;
    let first = stage.known_contact("s1").await;
    let other = stage.known_contact("s2").await;
    let daemon = stage.start().await;
    let before = updates_of(&stage, &first).len();
    let hold = stage.sandbox.hold(Endpoint::Update, When::After);
    let spend = |student: &str, credits: u32| {
        format!(
            "UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = {credits} WHERE student_id = '{student}';"
        )
    };
    stage.app(&spend("s1", 1)).await;
    assert!(hold.reached(DEADLINE).await);
    // In one transaction: whatever batch takes the other row could have taken this one.
    stage.app(&(spend("s1", 2) + &spend("s2", 9))).await;
    stage
        .wait_world("the other row is not held up", |world| {
            property(world, CONTACTS, &other, "sj_credits") == Some("9")
        })
        .await;
    wait_pending(&daemon, 2).await;
    assert_eq!(
        updates_of(&stage, &first).len(),
        before + 1,
        "its next push waits for the receipt of this one"
    );
    hold.release();
    stage.wait_drained().await;
    let writes = updates_of(&stage, &first);
    let credits: Vec<&str> = writes[before..]
        .iter()
        .map(|write| value(write, "sj_credits"))
        .collect();
    assert_eq!(credits, ["1", "2"]);
}

#[tokio::test]
async fn hubspot_id_and_the_time_of_the_read_stand_in_every_pushed_row_and_in_no_refused_one() {
    let stage = Stage::new("receipts").await;
    let _daemon = stage.start().await;
    for email in ["s3@example.com", "s7@example.com"] {
        stage.sandbox.refuse_record(CONTACTS, "email", email, None);
    }
    let clock = "SELECT extract(epoch FROM clock_timestamp())";
    let before = stage.value(clock).await.unwrap();
    let hold = stage.sandbox.hold(Endpoint::Upsert, When::After);
    stage
        .app(
            "INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email)
             SELECT 's' || n, 's' || n || '@example.com' FROM generate_series(1, 20) AS n",
        )
        .await;
    assert!(hold.reached(DEADLINE).await);
    let read = stage.value(clock).await.unwrap();
    hold.release();
    stage.wait_drained().await;
    let count = async |condition: &str| {
        let sql = format!("SELECT count(*) FROM hubspot_sync.hubspot_contact_credits WHERE {condition}");
        stage.value(&sql).await.unwrap()
    };
    let of_read = format!("hubspot_last_sync_at BETWEEN to_timestamp({before}) AND to_timestamp({read})");
    assert_eq!(
        count(&format!("hubspot_id IS NOT NULL AND {of_read}")).await,
        "18"
    );
    let refused = "student_id IN ('s3', 's7') AND hubspot_id IS NULL AND hubspot_last_sync_at IS NULL";
    assert_eq!(count(refused).await, "2");
    assert_eq!(
        stage
            .value("SELECT count(*) FROM hubsyncd.failure")
            .await
            .unwrap(),
        "2"
    );
    // The same of an update.
    let hold = stage.sandbox.hold(Endpoint::Update, When::After);
    let before = stage.value(clock).await.unwrap();
    stage
        .app("UPDATE hubspot_sync.hubspot_contact_credits SET cs_credits = 1 WHERE student_id = 's1'")
        .await;
    assert!(hold.reached(DEADLINE).await);
    let read = stage.value(clock).await.unwrap();
    hold.release();
    stage.wait_drained().await;
    let of_read = format!("hubspot_last_sync_at BETWEEN to_timestamp({before}) AND to_timestamp({read})");
    assert_eq!(count(&format!("student_id = 's1' AND {of_read}")).await, "1");
}

/// What applications of this kind have: every change of a row becomes an entry, by trigger.
const AUDIT_BY_TRIGGER: &str = "
    CREATE FUNCTION hubspot_sync.audit() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
    BEGIN
        INSERT INTO hubspot_sync.supabase_audit_log (table_name, record_id, record_hubspot_id, operation, new_values)
        VALUES (TG_TABLE_NAME, NEW.id, NEW.hubspot_id, TG_OP, to_jsonb(NEW));
        RETURN NEW;
    END $$;
    CREATE TRIGGER audit AFTER INSERT OR UPDATE ON hubspot_sync.hubspot_contact_credits
        FOR EACH ROW EXECUTE FUNCTION hubspot_sync.audit();
    CREATE TRIGGER audit AFTER INSERT OR UPDATE ON hubspot_sync.hubspot_bookings
        FOR EACH ROW EXECUTE FUNCTION hubspot_sync.audit();
    CREATE TRIGGER audit AFTER INSERT OR UPDATE ON hubspot_sync.hubspot_mock_exams
        FOR EACH ROW EXECUTE FUNCTION hubspot_sync.audit();";

const UPDATED_AT: &str = "
    CREATE FUNCTION hubspot_sync.touch() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN NEW.updated_at = now(); RETURN NEW; END $$;
    CREATE TRIGGER touch BEFORE UPDATE ON hubspot_sync.hubspot_contact_credits
        FOR EACH ROW EXECUTE FUNCTION hubspot_sync.touch();
    CREATE TRIGGER touch BEFORE UPDATE ON hubspot_sync.hubspot_bookings
        FOR EACH ROW EXECUTE FUNCTION hubspot_sync.touch();";

#[tokio::test]
async fn the_daemons_own_writes_cause_no_further_change() {
    silence_after_pushes("quiet", "").await;
}

#[tokio::test]
async fn nor_where_the_application_audits_by_row_trigger() {
    let (stage, _daemon) = silence_after_pushes("audited", AUDIT_BY_TRIGGER).await;
    // An entry for an exam pushes the exam, whose receipt makes an entry again.
    let exam = stage.known_exam().await;
    stage
        .app(&format!(
            "UPDATE hubspot_sync.hubspot_mock_exams SET total_bookings = 4 WHERE hubspot_id = '{exam}'"
        ))
        .await;
    stage
        .wait_world("the exam counts four", |world| {
            property(world, EXAMS, &exam, "total_bookings") == Some("4")
        })
        .await;
    stage.wait_drained().await;
    let unmarked = "SELECT count(*) FROM hubspot_sync.supabase_audit_log WHERE synced_to_hubspot_at IS NULL";
    stage.wait_value(unmarked, "0").await;
}

#[tokio::test]
async fn pitfall_1h_nor_where_a_trigger_keeps_updated_at() {
    silence_after_pushes("touched", UPDATED_AT).await;
}

/// Creates and updates, then counts what goes out beside one more change.
async fn silence_after_pushes(hint: &str, triggers: &str) -> (Stage, Daemon) {
    let stage = Stage::new(hint).await;
    stage.sql(triggers).await;
    let contact = stage.known_contact("s0").await;
    let exam = stage.known_exam().await;
    stage.sql("TRUNCATE hubspot_sync.supabase_audit_log").await;
    let daemon = stage.start().await;
    let seq = "SELECT last_value FROM hubsyncd.change_seq_seq";
    let (sent, drawn) = (requests(&stage), number(stage.value(seq).await));
    stage
        .app(&format!(
            "INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email) VALUES ('s1', 's1@example.com');
             INSERT INTO hubspot_sync.hubspot_bookings (booking_id, mock_exam_id, student_id, student_email)
             VALUES ('b1', '{exam}', 's1', 's1@example.com');
             UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = 1 WHERE student_id = 's0'"
        ))
        .await;
    stage
        .wait_value("SELECT count(hubspot_id) FROM hubspot_sync.hubspot_bookings", "1")
        .await;
    stage.wait_drained().await;
    daemon.settled().await;
    // Read, upsert and update of the contacts; upsert and two links of the booking.
    assert_eq!(requests(&stage), sent + 6);
    // Three rows, each with its entry where there is one, and the booking, whose contact has got its id.
    let entries = i64::from(triggers == AUDIT_BY_TRIGGER);
    let settled = number(stage.value(seq).await);
    assert_eq!(settled, drawn + 3 * (1 + entries) + 1);
    stage
        .app("UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = 2 WHERE student_id = 's0'")
        .await;
    stage
        .wait_world("the marker arrives", |world| {
            property(world, CONTACTS, &contact, "sj_credits") == Some("2")
        })
        .await;
    stage.wait_drained().await;
    daemon.settled().await;
    assert_eq!(requests(&stage), sent + 7, "one change, one request");
    assert_eq!(number(stage.value(seq).await), settled + 1 + entries);
    (stage, daemon)
}

#[tokio::test]
async fn columns_with_other_names_are_read_under_those() {
    let toml = format!(
        "{QUICK}[columns.bookings]\ncontact_id = \"associated_contact_id\"\nmock_exam_id = \"associated_mock_exam\"\n\
         student_name = \"name\"\n"
    );
    let stage = Stage::without_setup("renamed", Settings::default(), &toml).await;
    stage
        .sql(
            "ALTER TABLE hubspot_sync.hubspot_bookings RENAME contact_id TO associated_contact_id;
             ALTER TABLE hubspot_sync.hubspot_bookings RENAME mock_exam_id TO associated_mock_exam;
             ALTER TABLE hubspot_sync.hubspot_bookings RENAME student_name TO name",
        )
        .await;
    stage.setup().await;
    let contact = stage.known_contact("s1").await;
    let exam = stage.known_exam().await;
    let _daemon = stage.start().await;
    stage
        .app(&format!(
            "INSERT INTO hubspot_sync.hubspot_bookings (booking_id, associated_mock_exam, associated_contact_id, student_id, \
             student_email, name) VALUES ('b1', '{exam}', '{contact}', 'x', 'x@example.com', 'Ada')"
        ))
        .await;
    stage
        .wait_world("the booking is there, named and linked", |world| {
            world.find(BOOKINGS, "booking_id", "b1").is_some_and(|booking| {
                booking.get("student_name") == Some("Ada")
                    && booking.get("mock_exam_id") == Some(exam.as_str())
                    && world.associations(BOOKINGS, &booking.id(), CONTACTS)[..]
                        .first()
                        .is_some_and(|link| link.to == contact)
                    && world.associations(BOOKINGS, &booking.id(), EXAMS).len() == 1
            })
        })
        .await;
}

/// How many requests HubSpot has seen.
fn requests(stage: &Stage) -> u64 {
    stage.sandbox.world().count(Endpoint::Any)
}

fn number(text: Option<String>) -> i64 {
    text.unwrap().parse().unwrap()
}

/// Contacts `s1` to `sN` on both ends, with no change waiting.
async fn known_contacts(stage: &Stage, count: usize) {
    let ids: Vec<String> = {
        let mut world = stage.sandbox.world();
        (1..=count)
            .map(|n| world.create(CONTACTS, [("email", format!("s{n}@example.com").as_str())]))
            .collect()
    };
    stage
        .sql(&format!(
            "INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email, hubspot_id)
             SELECT 's' || n, 's' || n || '@example.com', id FROM unnest('{{{}}}'::text[]) WITH ORDINALITY AS u (id, n);
             TRUNCATE hubsyncd.change",
            ids.join(",")
        ))
        .await;
}

fn property<'w>(world: &'w World, object: &str, id: &str, name: &str) -> Option<&'w str> {
    world.record(object, id)?.get(name)
}

/// Every write of a record so far, oldest first, as the properties that were sent.
fn updates_of(stage: &Stage, record: &str) -> Vec<Vec<(String, String)>> {
    let world = stage.sandbox.world();
    let writes = world.requests().flat_map(|request| &request.writes);
    let of_record = writes.filter_map(|write| match write {
        Write::Record { id, properties, .. } if id == record => Some(properties.clone()),
        _ => None,
    });
    of_record.collect()
}

fn value<'a>(write: &'a [(String, String)], property: &str) -> &'a str {
    let found = write.iter().find(|(name, _)| name == property);
    found.map(|(_, value)| value.as_str()).unwrap_or_default()
}

/// Waits until the daemon knows of this many changes that are not pushed.
async fn wait_pending(daemon: &Daemon, count: u64) {
    wait_until(&format!("{count} changes are pending"), async || {
        daemon.status().await["pending"] == count
    })
    .await;
}
