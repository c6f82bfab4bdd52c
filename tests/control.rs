//! The control session: the doorbell, the armed lock, the lease.

use crate::support::postgres::{Database, Server};
use crate::support::wait_until;
use hubsyncd::cli::cluster::Options;
use hubsyncd::postgres::control::{
    ARMED_LOCK, Armed, Arming, Awake, CHANNEL, Control, LEASE_LOCK, LOCK_CLASS,
};
use hubsyncd::postgres::{Address, ErrorKind, Session};
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Mutex;

/// What a trigger asks: may I stay silent?
async fn may_stay_silent(session: &Session) -> bool {
    let sql = format!("SELECT pg_try_advisory_xact_lock_shared({LOCK_CLASS}, {ARMED_LOCK})");
    session.query_one(&sql, &[]).await.unwrap().get(0)
}

async fn ring(session: &Session, text: &str) {
    session
        .execute("SELECT pg_notify($1, $2)", &[&CHANNEL, &text])
        .await
        .unwrap();
}

async fn open(database: &Database) -> Awake {
    Control::open(&database.address("hubsyncd")).await.unwrap()
}

async fn arm(control: Awake) -> Armed {
    match control.try_arm().await.unwrap() {
        Arming::Armed(armed) => armed,
        Arming::Refused(_) => panic!("arming was refused"),
    }
}

async fn refused(control: Awake) -> Awake {
    match control.try_arm().await.unwrap() {
        Arming::Armed(_) => panic!("arming was not refused"),
        Arming::Refused(awake) => awake,
    }
}

/// Ends the backend of the control session.
async fn cut(admin: &Session) {
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE datname = current_database() AND application_name LIKE 'hubsyncd/% control %'";
    assert_eq!(admin.query(sql, &[]).await.unwrap().len(), 1);
}

/// The lease's table, as `setup` makes it.
async fn lease_table(admin: &Session) {
    let sql = "CREATE SCHEMA hubsyncd;
               CREATE TABLE hubsyncd.lease (one boolean PRIMARY KEY DEFAULT true CHECK (one), holder text,
                   generation bigint NOT NULL DEFAULT 0, renewed_at timestamptz, stopped_at timestamptz);
               INSERT INTO hubsyncd.lease DEFAULT VALUES;
               GRANT USAGE ON SCHEMA hubsyncd TO hubsyncd; GRANT SELECT, INSERT, UPDATE ON hubsyncd.lease TO hubsyncd";
    admin.batch_execute(sql).await.unwrap();
}

#[tokio::test]
async fn listening_is_proven_by_an_echo_which_does_not_ring() {
    let database = Database::new("echo").await;
    let control = open(&database).await;
    assert!(control.listen_proven() && control.can_arm());
    assert!(futures::poll!(Box::pin(control.wait_rung())).is_pending());
}

#[tokio::test]
async fn whatever_a_notification_says_it_rings_and_many_are_one() {
    let database = Database::new("ring").await;
    let (control, app) = (open(&database).await, database.session_as("app").await);
    for text in [
        "",
        "echo",
        "echo 00000000-0000-0000-0000-000000000000",
        "💥'; DROP TABLE x; --",
        &"x".repeat(7999),
    ] {
        ring(&app, text).await;
        control.wait_rung().await.unwrap();
    }
    for text in ["1", "2", "3"] {
        ring(&app, text).await;
    }
    // Notifications come in order, so the echo of a second control session comes after the three.
    drop(open(&database).await);
    control.wait_rung().await.unwrap();
    wait_until("no ring is left", async || {
        futures::poll!(Box::pin(control.wait_rung())).is_pending()
    })
    .await;
}

#[tokio::test]
async fn a_ring_before_the_wait_counts() {
    let database = Database::new("early").await;
    let (control, app) = (open(&database).await, database.session_as("app").await);
    let mut wait = Box::pin(control.wait_rung());
    assert!(futures::poll!(&mut wait).is_pending());
    drop(wait);
    ring(&app, "").await;
    control.wait_rung().await.unwrap();
}

#[tokio::test]
async fn pitfall_4_15_while_armed_a_writer_finds_the_lock_taken_and_else_free() {
    let database = Database::new("armed").await;
    let (control, app) = (open(&database).await, database.session_as("app").await);
    assert!(may_stay_silent(&app).await);
    let armed = arm(control).await;
    assert!(!may_stay_silent(&app).await);
    let awake = armed.disarm().await.unwrap();
    assert!(may_stay_silent(&app).await);
    // The lock counts how often it is taken: each round must give back what it took.
    let armed = arm(awake).await;
    assert!(!may_stay_silent(&app).await);
    drop(armed.disarm().await.unwrap());
    assert!(may_stay_silent(&app).await);
}

#[tokio::test]
async fn arming_is_refused_until_a_transaction_that_captured_has_ended() {
    let database = Database::new("refused").await;
    let (control, app) = (open(&database).await, database.session_as("app").await);
    app.batch_execute("BEGIN").await.unwrap();
    assert!(may_stay_silent(&app).await);
    let control = refused(control).await;
    app.batch_execute("COMMIT").await.unwrap();
    arm(control).await;
}

#[tokio::test]
async fn a_database_does_not_arm_for_its_neighbour() {
    let (here, there) = (Database::new("here").await, Database::new("there").await);
    let _armed = arm(open(&here).await).await;
    let _armed_too = arm(open(&there).await).await;
}

#[tokio::test]
async fn where_transactions_can_be_prepared_arming_is_always_refused() {
    let settings = vec![("max_prepared_transactions".to_owned(), "10".to_owned())];
    let server = Server::start(Options {
        settings,
        ..Options::default()
    })
    .await;
    let database = server.database("prepared").await;
    let control = open(&database).await;
    assert!(control.listen_proven() && !control.can_arm());
    refused(control).await;
    assert!(may_stay_silent(&database.session_as("app").await).await);
}

#[tokio::test]
async fn a_lost_connection_is_an_event_and_frees_lock_and_lease() {
    let database = Database::new("lost").await;
    let admin = database.session().await;
    lease_table(&admin).await;
    let mut control = open(&database).await;
    assert!(control.try_lease(None).await.unwrap().is_some());
    let armed = arm(control).await;
    cut(&admin).await;
    for error in [armed.lost().await, armed.wait_rung().await.unwrap_err()] {
        assert_eq!(error.kind, ErrorKind::Unreachable);
        let reason = hubsyncd::sync::report::chain(&error);
        assert!(reason.contains("administrator command"), "{reason}");
    }
    assert_eq!(armed.disarm().await.err().unwrap().kind, ErrorKind::Unreachable);
    let mut next = open(&database).await;
    wait_until("the lease is free", async || {
        next.try_lease(None).await.unwrap().is_some()
    })
    .await;
    arm(next).await;
}

#[tokio::test]
async fn one_session_holds_the_lease_and_the_other_knows_whom_it_waits_for() {
    let database = Database::new("lease").await;
    let admin = database.session().await;
    lease_table(&admin).await;
    let (mut one, mut two) = (open(&database).await, open(&database).await);
    assert_eq!(one.holder().await.unwrap(), None);
    assert!(one.try_lease(None).await.unwrap().is_some() && one.try_lease(None).await.unwrap().is_some());
    assert!(one.holds_lease());
    assert!(two.try_lease(None).await.unwrap().is_none() && !two.holds_lease());
    let holder = two.holder().await.unwrap().unwrap();
    assert!(
        holder.contains(&format!("{} control ", env!("CARGO_PKG_VERSION"))),
        "{holder}"
    );
    assert!(holder.contains(&format!(":{}", std::process::id())), "{holder}");
    let row = admin
        .query_one("SELECT holder, renewed_at IS NOT NULL FROM hubsyncd.lease", &[])
        .await
        .unwrap();
    assert!(
        row.get::<_, String>(0)
            .ends_with(&format!(":{}", std::process::id()))
            && row.get(1)
    );
    drop(one);
    wait_until("the other takes over", async || {
        two.try_lease(None).await.unwrap().is_some()
    })
    .await;
}

#[tokio::test]
async fn a_lease_without_its_table_is_not_held() {
    let database = Database::new("unset").await;
    let mut control = open(&database).await;
    assert_eq!(control.try_lease(None).await.unwrap_err().kind, ErrorKind::Schema);
    assert!(!control.holds_lease());
    lease_table(&database.session().await).await;
    assert!(control.try_lease(None).await.unwrap().is_some());
}

#[test]
fn the_locks_are_those_that_the_triggers_know() {
    assert_eq!((LOCK_CLASS, ARMED_LOCK, LEASE_LOCK), (1_752_523_379, 1, 2));
    assert_eq!(LOCK_CLASS.to_be_bytes(), *b"hubs");
}

#[tokio::test]
async fn pitfall_3_10_a_transaction_pooler_on_any_port_is_found_out() {
    let server = Server::shared().await;
    let database = server.database("pooled").await;
    let directory = tempfile::tempdir().unwrap();
    tokio::spawn(pool_by_transaction(
        UnixListener::bind(directory.path().join(".s.PGSQL.5432")).unwrap(),
        server.cluster.directory().join(".s.PGSQL.5432"),
        database.name.clone(),
    ));
    let url = format!(
        "postgres://hubsyncd@/{}?host={}",
        database.name,
        directory.path().display()
    );
    let error = Control::open(&Address::parse(&url).unwrap()).await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::Schema);
    assert!(error.to_string().contains("session pooler"), "{error}");
}

#[tokio::test]
async fn where_notifications_do_not_arrive_the_daemon_knows_and_never_arms() {
    let server = Server::shared().await;
    let database = server.database("deaf").await;
    let directory = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(directory.path().join(".s.PGSQL.5432")).unwrap();
    let upstream = server.cluster.directory().join(".s.PGSQL.5432");
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(without_notifications(
                client,
                UnixStream::connect(&upstream).await.unwrap(),
            ));
        }
    });
    let url = format!(
        "postgres://hubsyncd@/{}?host={}",
        database.name,
        directory.path().display()
    );
    let control = Control::open(&Address::parse(&url).unwrap()).await.unwrap();
    assert!(!control.listen_proven() && !control.can_arm());
    refused(control).await;
}

/// Passes everything on but the server's notifications.
async fn without_notifications(client: UnixStream, server: UnixStream) -> std::io::Result<()> {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
    loop {
        let message = message(&mut from_server).await?;
        if message[0] != b'A' {
            to_client.write_all(&message).await?;
        }
    }
}

/// The smallest transaction pooler: many clients, one backend, lent from a query to the end of its transaction.
async fn pool_by_transaction(listener: UnixListener, server: impl AsRef<Path>, database: String) {
    let mut backend = UnixStream::connect(server).await.unwrap();
    let startup = format!("\0\x03\0\0user\0hubsyncd\0database\0{database}\0\0");
    let length = u32::try_from(startup.len() + 4).unwrap();
    backend
        .write_all(&[&length.to_be_bytes(), startup.as_bytes()].concat())
        .await
        .unwrap();
    while message(&mut backend).await.unwrap()[0] != b'Z' {}
    let backend = Arc::new(Mutex::new(backend));
    while let Ok((client, _)) = listener.accept().await {
        tokio::spawn(serve(client, Arc::clone(&backend)));
    }
}

async fn serve(mut client: UnixStream, backend: Arc<Mutex<UnixStream>>) -> std::io::Result<()> {
    let length = client.read_u32().await?;
    let mut startup = vec![0; length as usize - 4];
    client.read_exact(&mut startup).await?;
    client.write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").await?;
    loop {
        let mut query = message(&mut client).await?;
        let mut backend = backend.lock().await;
        loop {
            if query[0] == b'X' {
                return Ok(());
            }
            backend.write_all(&query).await?;
            let mut answer = message(&mut *backend).await?;
            while answer[0] != b'Z' {
                client.write_all(&answer).await?;
                answer = message(&mut *backend).await?;
            }
            client.write_all(&answer).await?;
            if answer[5] == b'I' {
                break;
            }
            query = message(&mut client).await?;
        }
    }
}

/// One message of the protocol, with its type and length.
async fn message(stream: &mut (impl AsyncReadExt + Unpin)) -> std::io::Result<Vec<u8>> {
    let mut message = vec![0; 5];
    stream.read_exact(&mut message).await?;
    let length = u32::from_be_bytes([message[1], message[2], message[3], message[4]]);
    message.resize(length as usize + 1, 0);
    stream.read_exact(&mut message[5..]).await?;
    Ok(message)
}
