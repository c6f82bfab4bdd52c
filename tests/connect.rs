//! Addresses, sessions and the pool.

use crate::support::postgres::{Database, Server};
use crate::support::proxy::{Proxy, Silent};
use crate::support::wait_until;
use hubsyncd::cli::cluster::{Mode, Options};
use hubsyncd::postgres::{Address, Error, ErrorKind, Pool, Session, connect::connect};
use std::error::Error as _;
use std::time::Duration;
use tokio::time::timeout;
use tokio_postgres::types::Type;

fn refusal(text: &str) -> String {
    let error = Address::parse(text).expect_err(text);
    assert_eq!(error.kind, ErrorKind::Schema);
    assert!(error.source().is_none());
    error.to_string()
}

#[test]
fn an_address_is_read_from_a_url_and_from_a_list() {
    for text in [
        "postgres://sync:se%40cret@db.example.com:5433/app?sslmode=require&connect_timeout=3",
        "postgresql://db.example.com/app?user=sync&password=se%40cret&port=5433",
        "host=db.example.com user = sync password='se@cret' port=5433 dbname=app sslmode=require",
    ] {
        let address = Address::parse(text).expect(text);
        assert_eq!(address.host(), "db.example.com", "{text}");
        assert_eq!(
            (address.user(), address.database()),
            (Some("sync"), "app"),
            "{text}"
        );
        let shown = format!("{address:?}");
        assert!(!shown.contains("cret") && shown.contains("5433"), "{shown}");
    }
    let socket = Address::parse("postgres:///app?user=me").unwrap();
    assert_eq!(
        (socket.host().as_str(), socket.is_unverified()),
        ("/var/run/postgresql", false)
    );
    assert_eq!(Address::parse("postgres://me@h").unwrap().database(), "me");
}

#[test]
fn verification_without_a_root_is_refused_and_the_way_out_named() {
    for mode in ["verify-ca", "verify-full"] {
        let message = refusal(&format!("postgres://a@h/d?sslmode={mode}"));
        assert!(
            message.contains(mode) && message.contains("sslrootcert"),
            "{message}"
        );
    }
    let message = refusal("postgres://a@h/d?sslmode=verify-full&sslrootcert=/no/such/file");
    assert!(message.contains("/no/such/file cannot be read"), "{message}");
    assert!(refusal("postgres://a@h/d?sslrootcert=/no/such/file").contains("cannot be read"));
    assert!(refusal("host=h sslmode=require sslrootcert=system").contains("verify-full"));
    assert!(refusal("host=h sslmode=allow").contains("prefer"));
}

#[test]
fn an_unverified_network_connection_is_known_as_such() {
    for mode in ["disable", "prefer", "require"] {
        assert!(
            Address::parse(&format!("postgres://a@h/d?sslmode={mode}"))
                .unwrap()
                .is_unverified()
        );
    }
}

#[test]
fn pitfall_4_16_a_transaction_pooler_is_refused_with_the_way_out() {
    for text in [
        "postgres://a@h:6543/d",
        "host=h port=6543",
        "postgres://a@h/d?pgbouncer=true",
        "postgres://a@h:6543/d?pgbouncer=true",
    ] {
        let message = refusal(text);
        assert!(
            message.contains("transaction pooler") && message.contains("5432"),
            "{message}"
        );
    }
    Address::parse("postgres://a@h:6543/d?pgbouncer=false").unwrap();
}

#[test]
fn no_message_about_an_address_shows_its_password() {
    for text in [
        "postgres://a:hush@h/d?sslmode=no&x=1",
        "postgres://a:hush@h:port/d",
        "postgres://a:%ZZhush@h/d?sslmode=verify-ca",
        "postgres://a@h/d?hush=1",
        "postgres://a@h/d?password=%ZZhush",
        "host=h password='hush",
        "host=h password='hush' port=x",
        "hush",
    ] {
        assert!(!refusal(text).contains("hush"), "{text}");
    }
}

#[test]
fn everything_wrong_with_an_address_is_said_at_once() {
    let message = refusal("postgres://a@h:6543/d?sslmode=verify-ca&sslcert=x");
    for part in ["sslcert", "sslrootcert", "6543"] {
        assert!(message.contains(part), "{message}");
    }
}

#[tokio::test]
async fn settings_of_the_role_and_the_database_do_not_change_how_values_print() {
    let database = Database::new("pinned").await;
    let name = &database.name;
    let admin = database.session().await;
    for setting in [
        "timezone = 'Asia/Tokyo'",
        "datestyle = 'German'",
        "extra_float_digits = -5",
        "bytea_output = 'escape'",
        "intervalstyle = 'iso_8601'",
        "default_transaction_isolation = 'serializable'",
        "statement_timeout = '1ms'",
    ] {
        admin
            .batch_execute(&format!("ALTER DATABASE \"{name}\" SET {setting}"))
            .await
            .unwrap();
    }
    let session = database.session().await;
    let sql = "SELECT '2026-03-01 12:00+00'::timestamptz::text, (0.1::float8 + 0.2)::text, '\\x00ff'::bytea::text, \
               current_setting('transaction_isolation'), current_setting('application_name')";
    let row = session.query_one(sql, &[]).await.unwrap();
    let text = |column: usize| row.get::<_, String>(column);
    assert_eq!(text(0), "2026-03-01 12:00:00+00");
    assert_eq!(text(1), "0.30000000000000004");
    assert_eq!(text(2), "\\x00ff");
    assert_eq!(text(3), "read committed");
    assert_eq!(text(4), format!("hubsyncd/{} test", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn queries_of_one_session_overlap_and_are_answered_in_order() {
    let session = Database::new("pipeline").await.session().await;
    let ask = async |value: i32| -> i32 {
        let rows = session.query_typed("SELECT $1", &[(&value, Type::INT4)]).await;
        rows.unwrap()[0].get(0)
    };
    assert_eq!(futures::join!(ask(1), ask(2), ask(3)), (1, 2, 3));
}

#[tokio::test]
async fn pitfall_3_08_a_pool_lends_no_more_than_its_size_and_replaces_what_broke() {
    let database = Database::new("pool").await;
    let pool = Pool::new(database.address("app"), 2);
    let (one, two) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    let pids = [pid(&one).await, pid(&two).await];
    let mut third = Box::pin(pool.get());
    assert!(futures::poll!(&mut third).is_pending());
    drop(two);
    let third = third.await.unwrap();
    assert_eq!(pid(&third).await, pids[1]);

    let admin = database.session().await;
    admin
        .execute("SELECT pg_terminate_backend($1)", &[&pids[0]])
        .await
        .unwrap();
    wait_until("the pool knows that its session is gone", async || {
        one.is_closed()
    })
    .await;
    drop(one);
    let replaced = pool.get().await.unwrap();
    assert!(!pids.contains(&pid(&replaced).await));

    replaced.discard();
    third.batch_execute("SELECT 1").await.unwrap();
}

#[tokio::test]
async fn a_session_that_falls_silent_for_ever_is_given_up_and_one_that_rests_is_not() {
    let database = Database::new("silent").await;
    let proxy = Proxy::to_database(&database);
    let url = proxy.database_url("app", &database);
    let lending = |address| Pool::lending(address, 1, Duration::from_millis(600));
    let resting = lending(database.address("app"));
    let rested = pid(&resting.get().await.unwrap()).await;

    let pool = lending(Address::parse(&url).unwrap());
    let lent = pool.get().await.unwrap();
    lent.batch_execute("SELECT 1").await.unwrap();
    proxy.silence(Silent::Both);
    let asked = timeout(Duration::from_secs(20), lent.batch_execute("SELECT 1")).await;
    let answer = asked.expect("who waits is told");
    assert!(answer.is_err_and(|error| error.is_closed()));
    drop(lent);
    proxy.silence(Silent::Not);
    pool.get().await.unwrap().batch_execute("SELECT 1").await.unwrap();

    // It was given back before the other was lent.
    assert_eq!(pid(&resting.get().await.unwrap()).await, rested);
}

#[tokio::test]
async fn a_server_that_is_down_is_unreachable_and_reached_when_it_is_back() {
    let mut server = Server::start(Options::default()).await;
    let database = server.database("down").await;
    let pool = Pool::new(database.address("app"), 1);
    drop(pool.get().await.unwrap());
    server.cluster.stop(Mode::Immediate).unwrap();
    wait_until("the pool cannot reach the server", async || {
        pool.get()
            .await
            .is_err_and(|error| error.kind == ErrorKind::Unreachable)
    })
    .await;
    server.cluster.restart(Mode::Fast).unwrap();
    pool.get().await.unwrap().batch_execute("SELECT 1").await.unwrap();
}

#[tokio::test]
async fn who_is_refused_is_denied_and_what_is_missing_may_come() {
    let server = Server::start(Options::default()).await;
    let database = server.database("denied").await;
    let admin = database.session().await;
    admin
        .batch_execute("CREATE ROLE locked LOGIN PASSWORD 'right'; CREATE ROLE barred LOGIN")
        .await
        .unwrap();
    let no_entry = format!("REVOKE CONNECT ON DATABASE \"{}\" FROM PUBLIC", database.name);
    admin.batch_execute(&no_entry).await.unwrap();
    admin
        .batch_execute(&format!(
            "GRANT CONNECT ON DATABASE \"{}\" TO locked",
            database.name
        ))
        .await
        .unwrap();
    let hba = server.cluster.directory().join("data/pg_hba.conf");
    std::fs::write(hba, "local all locked scram-sha-256\nlocal all all trust\n").unwrap();
    admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let url = |user: &str| database.url().replacen("postgres@", &format!("{user}@"), 1);
    let kind = async |url: String| attempt(&url).await.map(|_| ()).unwrap_err().kind;
    wait_until("the server asks for a password", async || {
        attempt(&url("locked")).await.is_err()
    })
    .await;
    assert_eq!(kind(url("locked")).await, ErrorKind::Denied);
    assert_eq!(kind(url("locked:wrong")).await, ErrorKind::Denied);
    assert_eq!(kind(url("barred")).await, ErrorKind::Denied);
    assert_eq!(kind(url("nobody")).await, ErrorKind::Denied);
    assert_eq!(
        kind(url("postgres").replace(&database.name, "missing")).await,
        ErrorKind::Unreachable
    );
    attempt(&url("locked:right")).await.unwrap();
}

async fn attempt(url: &str) -> Result<Session, Error> {
    connect(&Address::parse(url)?, "test").await
}

async fn pid(session: &Session) -> i32 {
    session
        .query_one("SELECT pg_backend_pid()", &[])
        .await
        .unwrap()
        .get(0)
}
