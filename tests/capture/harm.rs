//! The application is never harmed: whatever is wrong with capture, its statement passes.

use super::{CONTACT, captured, everything, prepared, taken};
use crate::support::postgres::Server;
use std::future::poll_fn;
use std::time::{Duration, Instant};
use tokio_postgres::{AsyncMessage, NoTls};

#[tokio::test]
async fn a_failing_capture_never_breaks_the_statement() {
    for server in Server::every_version().await {
        let (_database, app, root) = prepared(server, "capture_failing", &everything()).await;
        captured(&app, &root, CONTACT).await;
        let update = "UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = sj_credits + 1";
        // Only rows with a key are refused: the object is named as a whole.
        root.batch_execute("ALTER TABLE hubsyncd.change ADD CONSTRAINT broken CHECK (key IS NULL)")
            .await
            .unwrap();
        assert_eq!(captured(&app, &root, update).await, ["contacts *"]);
        let entry = "INSERT INTO hubspot_sync.supabase_audit_log (table_name, record_id, operation)
                     VALUES ('hubspot_bookings', '00000000-0000-0000-0000-00000000b001', 'UPDATE')";
        assert_eq!(
            captured(&app, &root, entry).await,
            ["contacts *", "bookings *", "mock_exams *"]
        );
        // The mapped column is gone.
        root.batch_execute(
            "ALTER TABLE hubsyncd.change DROP CONSTRAINT broken;
             ALTER TABLE hubspot_sync.hubspot_contact_credits DROP cs_credits",
        )
        .await
        .unwrap();
        assert_eq!(captured(&app, &root, update).await, ["contacts *"]);
        // Nothing can be written at all.
        root.batch_execute("REVOKE INSERT ON hubsyncd.change FROM hubsyncd_owner")
            .await
            .unwrap();
        assert!(captured(&app, &root, update).await.is_empty());
        assert!(captured(&app, &root, entry).await.is_empty());
        root.batch_execute("ALTER SCHEMA hubsyncd RENAME TO elsewhere")
            .await
            .unwrap();
        app.batch_execute(&format!("{update}; {entry}; {update}"))
            .await
            .unwrap();
        app.batch_execute("DELETE FROM hubspot_sync.hubspot_contact_credits")
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn nobody_may_call_the_capture_function() {
    let (_database, app, _root) = prepared(Server::shared().await, "capture_rights", &everything()).await;
    let may = "SELECT has_function_privilege('app', p.oid, 'EXECUTE'), p.proowner::regrole::text,
                      has_schema_privilege('hubsyncd_owner', 'hubsyncd', 'CREATE')
               FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'hubsyncd' AND p.prosecdef";
    let functions = app.query(may, &[]).await.unwrap();
    assert_eq!(functions.len(), 4);
    for function in functions {
        assert!(!function.get::<_, bool>(0));
        assert_eq!(function.get::<_, String>(1), "hubsyncd_owner");
        assert!(!function.get::<_, bool>(2));
    }
    assert!(app.batch_execute("SELECT * FROM hubsyncd.change").await.is_err());
}

#[tokio::test]
async fn who_locks_the_queue_does_not_stop_the_application() {
    for server in Server::every_version().await {
        let (_database, app, root) = prepared(server, "capture_queue", &everything()).await;
        captured(&app, &root, CONTACT).await;
        root.batch_execute("BEGIN; LOCK hubsyncd.change").await.unwrap();
        let begin = Instant::now();
        app.batch_execute("UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = 5")
            .await
            .unwrap();
        assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
        root.batch_execute("COMMIT").await.unwrap();
        assert!(taken(&root).await.is_empty());
    }
}

#[tokio::test]
async fn a_change_that_could_not_be_noted_is_a_warning_without_values() {
    let (database, app, root) = prepared(Server::shared().await, "capture_warning", &everything()).await;
    captured(&app, &root, CONTACT).await;
    root.batch_execute("REVOKE INSERT ON hubsyncd.change FROM hubsyncd_owner")
        .await
        .unwrap();
    let (client, mut connection) = tokio_postgres::connect(&database.url_as("app"), NoTls)
        .await
        .unwrap();
    let driven = tokio::spawn(async move {
        let mut warnings = Vec::new();
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notice(notice) = message {
                warnings.push(notice.to_string());
            }
        }
        warnings
    });
    client
        .batch_execute("UPDATE hubspot_sync.hubspot_contact_credits SET email = 'secret@example.com'")
        .await
        .unwrap();
    drop(client);
    let warnings = driven.await.unwrap();
    assert!(
        warnings.len() == 1 && warnings[0].contains("could not note a change of contacts"),
        "{warnings:?}"
    );
    assert!(!warnings[0].contains("secret"), "{warnings:?}");
}
