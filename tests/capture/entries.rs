//! Entries of the audit log name the rows they tell of.

use super::{CONTACT, captured, everything, only, prepared, taken};
use crate::support::postgres::Server;
use hubsyncd::mapping::{Mapping, TableName};
use hubsyncd::postgres::setup::{Options, setup};

#[tokio::test]
async fn an_audit_entry_names_its_row_once() {
    for server in Server::every_version().await {
        let (_database, app, root) = prepared(server, "capture_audit", &Mapping::built_in()).await;
        let entry = |table: &str, id: &str| {
            format!(
                "INSERT INTO hubspot_sync.supabase_audit_log (table_name, record_id, operation)
                 VALUES ('{table}', '00000000-0000-0000-0000-00000000{id}', 'UPDATE')"
            )
        };
        assert_eq!(
            captured(&app, &root, &entry("hubspot_mock_exams", "e001")).await,
            ["mock_exams U e001"]
        );
        let qualified = entry("hubspot_sync.hubspot_bookings", "b001");
        assert_eq!(captured(&app, &root, &qualified).await, ["bookings U b001"]);
        let again = "('\"hubspot_sync\".\"hubspot_bookings\"', '00000000-0000-0000-0000-00000000b001', 'x')";
        assert_eq!(
            captured(&app, &root, &format!("{qualified}, {again}")).await,
            ["bookings U b001"]
        );
        assert!(captured(&app, &root, &entry("users", "0001")).await.is_empty());
    }
}

#[tokio::test]
async fn an_entry_whose_record_id_is_no_key_is_dropped() {
    for server in Server::every_version().await {
        let database = server.database("capture_nonsense").await;
        let mut owner = database.session_as("app_owner").await;
        let columns = "hubspot_id text, hubspot_last_sync_at timestamptz, a text";
        owner
            .batch_execute(&format!(
                "CREATE SCHEMA app; SET search_path = app;
                 CREATE TABLE small (id smallint PRIMARY KEY, {columns});
                 CREATE TABLE wide (id bigint PRIMARY KEY, {columns});
                 CREATE TABLE loose (id varchar PRIMARY KEY, {columns});
                 CREATE TABLE exact (id uuid PRIMARY KEY, {columns});
                 CREATE TABLE log (id bigserial, table_name text, record_id text, synced_to_hubspot_at timestamptz)"
            ))
            .await
            .unwrap();
        let mut mapping = only("app", "small", "id", &["a"]);
        mapping.audit = Some(TableName {
            schema: "app".to_owned(),
            name: "log".to_owned(),
        });
        for name in ["wide", "loose", "exact"] {
            let mut object = mapping.objects[0].clone();
            object.name = name.to_owned();
            object.table.name = name.to_owned();
            mapping.objects.push(object);
        }
        setup(&mut owner, &mapping, &Options::for_role("hubsyncd"))
            .await
            .unwrap();
        let root = database.session().await;
        let nonsense = [
            "'007'",
            "'-0'",
            "'32768'",
            "'9223372036854775807'",
            "'99999999999999999999999'",
            "'1e3'",
            "' 1'",
            "''",
            "NULL",
            "'''; DROP'",
            "'NaN'",
            "'AAAAAAAA-0000-0000-0000-00000000000F'",
            "'aaaaaaaa000000000000000000000000'",
            "repeat('9', 70000)",
        ];
        for table in ["small", "wide", "exact", "loose"] {
            for id in nonsense {
                let sql = format!("INSERT INTO log (table_name, record_id) VALUES ('{table}', {id})");
                owner.batch_execute(&sql).await.unwrap();
            }
        }
        let strays = "INSERT INTO log (table_name, record_id) VALUES (NULL, '1'), (repeat('x', 70000), '1')";
        owner.batch_execute(strays).await.unwrap();
        let mut named = taken(&root).await;
        named.retain(|change| !change.starts_with("loose"));
        assert_eq!(
            named,
            [
                "contacts U 7",
                "contacts U 0",
                "wide U 7",
                "wide U 0",
                "wide U 2768",
                "wide U 5807",
                "exact U 000f"
            ]
        );
    }
}

#[tokio::test]
async fn entries_written_in_a_receipt_are_handed_to_it() {
    for server in Server::every_version().await {
        let (database, app, root) = prepared(server, "capture_entries", &everything()).await;
        root.batch_execute(
            "CREATE FUNCTION hubspot_sync.audit() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
             BEGIN INSERT INTO hubspot_sync.supabase_audit_log (table_name, record_id, operation)
                   VALUES (TG_TABLE_NAME, NEW.id, TG_OP), (TG_TABLE_NAME, NEW.id, 'again'); RETURN NULL; END $$;
             CREATE CONSTRAINT TRIGGER audit AFTER UPDATE ON hubspot_sync.hubspot_contact_credits
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION hubspot_sync.audit()",
        )
        .await
        .unwrap();
        captured(&app, &root, CONTACT).await;
        captured(
            &app,
            &root,
            &CONTACT.replace("c001", "c002").replace("ada@", "bob@"),
        )
        .await;
        let daemon = database.session_as("hubsyncd").await;
        daemon
            .batch_execute(
                "BEGIN; SET LOCAL hubsyncd.receipt = 'on';
                 UPDATE hubspot_sync.hubspot_contact_credits SET hubspot_last_sync_at = now();
                 SET CONSTRAINTS ALL IMMEDIATE",
            )
            .await
            .unwrap();
        let asked = "SELECT coalesce(current_setting('hubsyncd.entries', true), '')";
        let entries: String = daemon.query_one(asked, &[]).await.unwrap().get(0);
        daemon.batch_execute("COMMIT").await.unwrap();
        let ids = "SELECT string_agg(id::text, ',' ORDER BY id) FROM hubspot_sync.supabase_audit_log";
        assert_eq!(
            root.query_one(ids, &[]).await.unwrap().get::<_, String>(0),
            entries
        );
        assert_eq!(entries.split(',').count(), 4);
        assert!(taken(&root).await.is_empty());
        assert_eq!(
            daemon.query_one(asked, &[]).await.unwrap().get::<_, String>(0),
            ""
        );
        // The application's own entries name rows as ever.
        let update = "UPDATE hubspot_sync.hubspot_contact_credits SET updated_at = now() WHERE email ~ 'ada'";
        assert_eq!(captured(&app, &root, update).await, ["contacts U c001"]);
    }
}
