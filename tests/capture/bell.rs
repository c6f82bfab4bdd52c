//! The doorbell: rung once for a sleeping daemon, and for nobody else.

use super::{CONTACT, captured, everything, prepared, taken};
use crate::support::postgres::{Database, Server, versions};
use hubsyncd::cli::cluster::Options as ClusterOptions;
use hubsyncd::postgres::Session;
use std::future::poll_fn;
use tokio::sync::mpsc;

#[tokio::test]
async fn pitfall_3_01_it_rings_only_for_a_sleeping_daemon() {
    for server in Server::every_version().await {
        let (database, app, root) = prepared(server, "capture_ring", &everything()).await;
        let mut rings = listen(&database).await;
        captured(&app, &root, CONTACT).await;
        let update = "UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = sj_credits + 1";
        // A transaction that captured while nobody slept keeps the daemon from falling asleep until it has ended.
        app.batch_execute(&format!("BEGIN; {update}")).await.unwrap();
        assert!(!sleeps(&root).await);
        app.batch_execute("COMMIT").await.unwrap();
        assert_eq!(rung(&app, &mut rings).await, 0);
        assert!(sleeps(&root).await);
        let exam = "INSERT INTO hubspot_sync.hubspot_mock_exams (hubspot_id) VALUES ('9')";
        app.batch_execute(&format!("BEGIN; {update}; {update}; {exam}; COMMIT"))
            .await
            .unwrap();
        assert_eq!(rung(&app, &mut rings).await, 1);
        let entry = "INSERT INTO hubspot_sync.supabase_audit_log (table_name, record_id, operation)
                     VALUES ('hubspot_bookings', gen_random_uuid(), 'UPDATE')";
        app.batch_execute(entry).await.unwrap();
        assert_eq!(rung(&app, &mut rings).await, 1);
        // Nothing captured, nothing rung.
        app.batch_execute("UPDATE hubspot_sync.hubspot_contact_credits SET updated_at = now()")
            .await
            .unwrap();
        app.batch_execute(&format!("BEGIN; {update}; ROLLBACK"))
            .await
            .unwrap();
        assert_eq!(rung(&app, &mut rings).await, 0);
    }
}

#[tokio::test]
async fn where_transactions_may_be_prepared_it_never_rings() {
    let settings = vec![("max_prepared_transactions".to_owned(), "5".to_owned())];
    let server = Server::start(ClusterOptions {
        settings,
        ..ClusterOptions::default()
    })
    .await;
    let (database, app, root) = prepared(&server, "capture_prepared", &everything()).await;
    let mut rings = listen(&database).await;
    assert!(sleeps(&root).await);
    app.batch_execute(&format!("BEGIN; {CONTACT}; PREPARE TRANSACTION 'two-phase'"))
        .await
        .unwrap();
    assert!(taken(&root).await.is_empty());
    app.batch_execute("COMMIT PREPARED 'two-phase'").await.unwrap();
    assert_eq!(taken(&root).await, ["contacts I c001"]);
    assert_eq!(rung(&app, &mut rings).await, 0);
}

/// Only PostgreSQL 17 and later can have a queue small enough to be filled in a test.
#[tokio::test]
async fn pitfall_3_04_a_queue_that_is_half_full_is_not_rung_into_and_a_full_one_fails_no_statement() {
    let Some(version) = versions().into_iter().find(|version| version.label == "18") else {
        println!("not run: HUBSYNCD_TEST_EXTRAS=1 is not set");
        return;
    };
    let server = Server::start(ClusterOptions {
        bin: Some(version.bin),
        settings: vec![("max_notify_queue_pages".to_owned(), "64".to_owned())],
        ..ClusterOptions::default()
    })
    .await;
    let (database, app, root) = prepared(&server, "capture_queue", &everything()).await;
    // A listener inside a transaction pins the queue's tail.
    let pin = database.session().await;
    for sql in [
        "SET idle_in_transaction_session_timeout = 0",
        "LISTEN noise",
        "BEGIN",
        "SELECT 1",
    ] {
        pin.batch_execute(sql).await.unwrap();
    }
    let mut rings = listen(&database).await;
    let usage = async || -> f64 {
        let row = root.query_one("SELECT pg_notification_queue_usage()", &[]).await;
        row.unwrap().get(0)
    };
    let noise = "SELECT pg_notify('noise', repeat('x', 7900) || gen_random_uuid())";
    while usage().await <= 0.5 {
        root.batch_execute(noise).await.unwrap();
    }
    assert!(sleeps(&root).await);
    app.batch_execute(CONTACT).await.unwrap();
    assert_eq!(rung(&app, &mut rings).await, 0);
    while root.batch_execute(noise).await.is_ok() {}
    assert!(
        app.batch_execute("NOTIFY fence").await.is_err(),
        "the queue is full"
    );
    app.batch_execute("UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = sj_credits + 1")
        .await
        .unwrap();
    assert_eq!(taken(&root).await, ["contacts I c001", "contacts N c001"]);
}

/// Takes the lock of a sleeping daemon, if it can be had.
async fn sleeps(session: &Session) -> bool {
    session
        .query_one("SELECT pg_try_advisory_lock(1752523379, 1)", &[])
        .await
        .unwrap()
        .get(0)
}

/// The channels that are notified: ours, and the fence.
async fn listen(database: &Database) -> mpsc::UnboundedReceiver<String> {
    let (client, mut connection) = tokio_postgres::connect(&database.url(), tokio_postgres::NoTls)
        .await
        .unwrap();
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            if let tokio_postgres::AsyncMessage::Notification(notification) = message {
                let _ = sender.send(notification.channel().to_owned());
            }
        }
    });
    client
        .batch_execute("LISTEN hubsyncd; LISTEN fence")
        .await
        .unwrap();
    tokio::spawn(async move {
        let _open = client;
        std::future::pending::<()>().await;
    });
    receiver
}

/// How often the bell rang since the last call. Notifications arrive in the order of commits, so the fence is last.
async fn rung(app: &Session, rings: &mut mpsc::UnboundedReceiver<String>) -> usize {
    app.batch_execute("NOTIFY fence").await.unwrap();
    let mut count = 0;
    while rings.recv().await.unwrap() != "fence" {
        count += 1;
    }
    count
}
