//! Capture: every change of the application names its row, in its own transaction, and never harms it.

mod bell;
mod entries;
mod harm;
mod shapes;

use crate::support::postgres::{Database, Server};
use futures::SinkExt;
use hubsyncd::mapping::{Mapping, On, TableName};
use hubsyncd::postgres::Session;
use hubsyncd::postgres::setup::{Options, setup};

/// A database with the application's tables and our triggers, a session of the application, one of the superuser.
pub async fn prepared(server: &Server, hint: &str, mapping: &Mapping) -> (Database, Session, Session) {
    let database = server.application(hint).await;
    let mut owner = database.session_as("app_owner").await;
    setup(&mut owner, mapping, &Options::for_role("hubsyncd"))
        .await
        .unwrap();
    let app = database.session_as("app").await;
    let root = database.session().await;
    (database, app, root)
}

/// The built-in mapping with triggers on every table.
pub fn everything() -> Mapping {
    let mut mapping = Mapping::built_in();
    for object in &mut mapping.objects {
        object.capture = true;
    }
    mapping
}

/// The changes captured since the last call, in order: `object op key hubspot_id`, keys shortened to their last four
/// characters.
pub async fn taken(root: &Session) -> Vec<String> {
    let take = "
        WITH taken AS (DELETE FROM hubsyncd.change RETURNING *)
        SELECT concat_ws(' ', object, op::text, right(key, 4), hubspot_id) FROM taken ORDER BY seq";
    root.query(take, &[])
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect()
}

pub const CONTACT: &str = "
    INSERT INTO hubspot_sync.hubspot_contact_credits (id, student_id, email, firstname)
    VALUES ('00000000-0000-0000-0000-00000000c001', 's1', 'ada@example.com', 'Ada')";

#[tokio::test]
async fn a_change_of_each_kind_names_its_row() {
    for server in Server::every_version().await {
        let (_database, app, root) = prepared(server, "capture_kinds", &everything()).await;
        app.batch_execute(CONTACT).await.unwrap();
        assert_eq!(taken(&root).await, ["contacts I c001"]);
        let update = |what: &str| format!("UPDATE hubspot_sync.hubspot_contact_credits SET {what}");
        app.batch_execute(&update("sj_credits = 3")).await.unwrap();
        assert_eq!(taken(&root).await, ["contacts N c001"]);
        app.batch_execute(&update("hubspot_id = '77'")).await.unwrap();
        assert_eq!(taken(&root).await, ["contacts U c001"]);
        app.batch_execute(&update("sj_credits = 4")).await.unwrap();
        assert_eq!(taken(&root).await, ["contacts U c001"]);
        app.batch_execute("DELETE FROM hubspot_sync.hubspot_contact_credits")
            .await
            .unwrap();
        assert_eq!(taken(&root).await, ["contacts D c001 77"]);
    }
}

/// Runs statements as the application and answers what they captured.
pub async fn captured(app: &Session, root: &Session, sql: &str) -> Vec<String> {
    app.batch_execute(sql).await.unwrap();
    taken(root).await
}

/// A mapping of the contacts alone, with a table, key and HubSpot id of the test's own.
pub fn only(schema: &str, table: &str, key: &str, columns: &[&str]) -> Mapping {
    let mut mapping = Mapping::built_in();
    mapping.objects.truncate(1);
    mapping.audit = None;
    let object = &mut mapping.objects[0];
    object.table = TableName {
        schema: schema.to_owned(),
        name: table.to_owned(),
    };
    object.key = key.to_owned();
    object.match_on = None;
    object.properties.truncate(columns.len());
    for (property, column) in object.properties.iter_mut().zip(columns) {
        property.column = (*column).to_owned();
        property.on = On::Both;
    }
    mapping
}

#[tokio::test]
async fn every_table_and_every_way_of_writing_is_captured() {
    for server in Server::every_version().await {
        let (_database, app, root) = prepared(server, "capture_ways", &everything()).await;
        let exam = "INSERT INTO hubspot_sync.hubspot_mock_exams (id, hubspot_id) VALUES
                    ('00000000-0000-0000-0000-00000000e001', '9001')";
        assert_eq!(captured(&app, &root, exam).await, ["mock_exams I e001"]);
        let booking = "INSERT INTO hubspot_sync.hubspot_bookings (id, booking_id, mock_exam_id, student_id, student_email)
                       VALUES ('00000000-0000-0000-0000-00000000b001', 'b1', '9001', 's1', 'ada@example.com')";
        assert_eq!(captured(&app, &root, booking).await, ["bookings I b001"]);
        let upsert = format!(
            "{CONTACT}; {CONTACT} ON CONFLICT (id) DO UPDATE SET sj_credits = 8;
             {CONTACT} ON CONFLICT (id) DO NOTHING"
        );
        assert_eq!(
            captured(&app, &root, &upsert).await,
            ["contacts I c001", "contacts N c001"]
        );

        let copy = "COPY hubspot_sync.hubspot_contact_credits (id, student_id, email) FROM STDIN";
        let sink = root.copy_in(copy).await.unwrap();
        let mut sink = std::pin::pin!(sink);
        let lines = "00000000-0000-0000-0000-00000000c002\ts2\tb@example.com\n\
                     00000000-0000-0000-0000-00000000c003\ts3\tc@example.com\n";
        sink.send(lines.as_bytes()).await.unwrap();
        sink.finish().await.unwrap();
        assert_eq!(taken(&root).await, ["contacts I c002", "contacts I c003"]);

        if server.label != "14" {
            let merge = "
                MERGE INTO hubspot_sync.hubspot_contact_credits t
                USING (VALUES ('s1', 5), ('s2', 0), ('s9', 7)) AS s (student, credits) ON t.student_id = s.student
                WHEN MATCHED AND s.credits = 0 THEN DELETE
                WHEN MATCHED THEN UPDATE SET sj_credits = s.credits
                WHEN NOT MATCHED THEN INSERT (id, student_id, email)
                     VALUES ('00000000-0000-0000-0000-00000000c009', s.student, 'd')";
            let mut merged = captured(&app, &root, merge).await;
            merged.sort();
            assert_eq!(merged, ["contacts D c002", "contacts I c009", "contacts N c001"]);
        }
        let both = "WITH gone AS (DELETE FROM hubspot_sync.hubspot_contact_credits WHERE student_id = 's3' RETURNING 1)
                    UPDATE hubspot_sync.hubspot_contact_credits SET cs_credits = 9 WHERE student_id = 's1'";
        let mut both = captured(&app, &root, both).await;
        both.sort();
        assert_eq!(both, ["contacts D c003", "contacts N c001"]);
        root.batch_execute("TRUNCATE hubspot_sync.hubspot_contact_credits")
            .await
            .unwrap();
        assert_eq!(taken(&root).await, ["contacts T"]);
    }
}

#[tokio::test]
async fn what_is_not_sent_is_no_change() {
    for server in Server::every_version().await {
        let (_database, app, root) = prepared(server, "capture_columns", &everything()).await;
        root.batch_execute(
            "CREATE FUNCTION hubspot_sync.touch() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN NEW.updated_at = clock_timestamp(); RETURN NEW; END $$;
             CREATE TRIGGER touch BEFORE UPDATE ON hubspot_sync.hubspot_contact_credits
             FOR EACH ROW EXECUTE FUNCTION hubspot_sync.touch()",
        )
        .await
        .unwrap();
        assert_eq!(captured(&app, &root, CONTACT).await, ["contacts I c001"]);
        let update = |what: &str| format!("UPDATE hubspot_sync.hubspot_contact_credits SET {what}");
        let nothing: [&str; 0] = [];
        // The application's trigger touches updated_at each time.
        assert_eq!(
            captured(
                &app,
                &root,
                &update("synced_at = now(), hubspot_last_sync_at = now()")
            )
            .await,
            nothing
        );
        assert_eq!(
            captured(&app, &root, &update("sj_credits = sj_credits")).await,
            nothing
        );
        assert_eq!(
            captured(&app, &root, &update("sj_credits = 9 WHERE false")).await,
            nothing
        );
        // Create-only columns count while there is no HubSpot id, and blank is none.
        assert_eq!(
            captured(&app, &root, &update("firstname = 'Ada L.'")).await,
            ["contacts N c001"]
        );
        assert_eq!(
            captured(&app, &root, &update("hubspot_id = ' '")).await,
            ["contacts N c001"]
        );
        assert_eq!(
            captured(&app, &root, &update("lastname = 'L.'")).await,
            ["contacts N c001"]
        );
        assert_eq!(
            captured(&app, &root, &update("hubspot_id = '5'")).await,
            ["contacts U c001"]
        );
        assert_eq!(
            captured(&app, &root, &update("firstname = 'Augusta', lastname = NULL")).await,
            nothing
        );
        // The natural key and what a link finds the row by count always.
        assert_eq!(
            captured(&app, &root, &update("email = 'Ada@example.com'")).await,
            ["contacts U c001"]
        );
        assert_eq!(
            captured(&app, &root, &update("student_id = 's7'")).await,
            ["contacts U c001"]
        );
        assert_eq!(
            captured(&app, &root, &update("sj_credits = NULL")).await,
            ["contacts U c001"]
        );
        assert_eq!(
            captured(&app, &root, &update("hubspot_id = NULL")).await,
            ["contacts N c001"]
        );
    }
}

#[tokio::test]
async fn a_receipt_is_no_change_but_what_an_application_trigger_does_in_it_is() {
    for server in Server::every_version().await {
        let (database, app, root) = prepared(server, "capture_receipt", &everything()).await;
        assert_eq!(captured(&app, &root, CONTACT).await, ["contacts I c001"]);
        let daemon = database.session_as("hubsyncd").await;
        let receipt = |id: &str| {
            format!(
                "BEGIN; SET LOCAL hubsyncd.receipt = 'on';
                 UPDATE hubspot_sync.hubspot_contact_credits SET hubspot_id = '{id}', hubspot_last_sync_at = now();
                 COMMIT"
            )
        };
        assert!(captured(&daemon, &root, &receipt("1")).await.is_empty());
        root.batch_execute(
            "CREATE FUNCTION hubspot_sync.bonus() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN NEW.sj_credits = NEW.sj_credits + 1; RETURN NEW; END $$;
             CREATE TRIGGER bonus BEFORE UPDATE ON hubspot_sync.hubspot_contact_credits
             FOR EACH ROW EXECUTE FUNCTION hubspot_sync.bonus()",
        )
        .await
        .unwrap();
        assert_eq!(captured(&daemon, &root, &receipt("2")).await, ["contacts U c001"]);
        // The setting ended with its transaction.
        root.batch_execute("DROP TRIGGER bonus ON hubspot_sync.hubspot_contact_credits")
            .await
            .unwrap();
        let plain = "UPDATE hubspot_sync.hubspot_contact_credits SET hubspot_id = '3'";
        assert_eq!(captured(&daemon, &root, plain).await, ["contacts U c001"]);
    }
}

#[tokio::test]
async fn a_changed_key_is_a_delete_and_an_insert() {
    for server in Server::every_version().await {
        let database = server.database("capture_keys").await;
        let mut owner = database.session_as("app_owner").await;
        owner
            .batch_execute(
                "CREATE SCHEMA app;
                 CREATE TABLE app.things (id int PRIMARY KEY, hubspot_id text, hubspot_last_sync_at timestamptz, a text);
                 INSERT INTO app.things SELECT n, 'h' || n, NULL, 'same' FROM generate_series(1, 3) n",
            )
            .await
            .unwrap();
        setup(
            &mut owner,
            &only("app", "things", "id", &["a"]),
            &Options::for_role("hubsyncd"),
        )
        .await
        .unwrap();
        let root = database.session().await;
        assert_eq!(
            captured(&owner, &root, "UPDATE app.things SET id = 77 WHERE id = 1").await,
            ["contacts D 1 h1", "contacts I 77"]
        );
        // Every key moves on by one: two and three hold other rows' values now, and those rows' HubSpot ids.
        let shift = "ALTER TABLE app.things DROP CONSTRAINT things_pkey; UPDATE app.things SET id = id + 1";
        let mut shifted = captured(&owner, &root, shift).await;
        shifted.sort();
        assert_eq!(
            shifted,
            [
                "contacts D 2 h2",
                "contacts D 77 h1",
                "contacts I 4",
                "contacts I 78",
                "contacts U 3"
            ]
        );
    }
}

#[tokio::test]
async fn savepoints_and_rollbacks_leave_nothing_but_what_was_committed() {
    let (_database, app, root) = prepared(Server::shared().await, "capture_savepoints", &everything()).await;
    assert_eq!(captured(&app, &root, CONTACT).await, ["contacts I c001"]);
    let credits =
        |count: i32| format!("UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = {count}");
    let undone = format!("BEGIN; {}; ROLLBACK", credits(1));
    assert!(captured(&app, &root, &undone).await.is_empty());
    let partly = format!(
        "BEGIN; SAVEPOINT a; {}; ROLLBACK TO a; {}; SAVEPOINT b; {}; RELEASE b; COMMIT",
        credits(2),
        credits(3),
        credits(4)
    );
    assert_eq!(
        captured(&app, &root, &partly).await,
        ["contacts N c001", "contacts N c001"]
    );
    let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 1752523379
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    assert_eq!(root.query_one(locks, &[]).await.unwrap().get::<_, i64>(0), 0);
}

#[tokio::test]
async fn a_column_added_between_two_statements_of_a_session_does_not_matter() {
    let (_database, app, root) = prepared(Server::shared().await, "capture_ddl", &everything()).await;
    captured(&app, &root, CONTACT).await;
    let update = "UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = sj_credits + 1";
    assert_eq!(captured(&app, &root, update).await, ["contacts N c001"]);
    root.batch_execute(
        "ALTER TABLE hubspot_sync.hubspot_contact_credits ADD more text, DROP ndecc_exam_date",
    )
    .await
    .unwrap();
    assert_eq!(captured(&app, &root, update).await, ["contacts N c001"]);
}

#[tokio::test]
async fn one_row_then_a_hundred_thousand_in_one_session_is_fast() {
    let (_database, app, root) = prepared(Server::shared().await, "capture_bulk", &everything()).await;
    app.batch_execute(
        "INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email)
         SELECT 's' || n, n || '@example.com' FROM generate_series(1, 100000) n;
         UPDATE hubspot_sync.hubspot_contact_credits SET cs_credits = 1 WHERE student_id = 's1'",
    )
    .await
    .unwrap();
    // Under 3 s on an idle machine; the quadratic plan takes minutes.
    app.batch_execute(
        "SET statement_timeout = '15s'; UPDATE hubspot_sync.hubspot_contact_credits SET cs_credits = 2",
    )
    .await
    .unwrap();
    let count = root
        .query_one("SELECT count(*), count(DISTINCT key) FROM hubsyncd.change", &[])
        .await
        .unwrap();
    assert_eq!(
        (count.get::<_, i64>(0), count.get::<_, i64>(1)),
        (200_001, 100_000)
    );
}
