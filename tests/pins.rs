//! Tests of the pins: another portal's token, and copies of the database, push nothing.

use super::support::daemon::{Daemon, QUICK, Stage};
use super::support::instep::wait_contacts_in_step;
use super::support::postgres::Server;
use super::support::proxy::Proxy;
use hubsyncd::postgres::Address;
use hubsyncd::sandbox::{Endpoint, Sandbox, Settings};
use std::process::Output;

const NEW: &str =
    "INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email) VALUES ('new', 'new@example.com')";

/// Pushes a contact and stops.
async fn push_once(stage: &Stage) {
    let daemon = stage.start().await;
    stage.app(NEW).await;
    wait_contacts_in_step(stage).await;
    let log = daemon.log();
    assert_eq!(log.matches("pinned from now on").count(), 4, "{log}");
    assert_eq!(daemon.stop().await, Some(0));
}

/// Starts a daemon and waits for its end.
async fn refused(stage: &Stage, name: &str) -> Daemon {
    let mut daemon = stage.launch(name);
    assert_eq!(daemon.ended().await, Some(78), "{}", daemon.log());
    let log = daemon.log();
    assert!(log.contains("nothing is written to either side"), "{log}");
    daemon
}

/// `setup` as the superuser.
fn setup(stage: &Stage, url: &str, argument: &str) -> Output {
    let mut command = stage.command("setup");
    command.env("DATABASE_URL", url).args(["setup", argument]);
    command.output().unwrap()
}

fn adopted(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{complained}");
    said
}

#[tokio::test]
async fn a_token_of_another_portal_writes_nothing_until_it_is_adopted() {
    let mut stage = Stage::new("pin_portal").await;
    push_once(&stage).await;
    let settings = Settings {
        portal_id: Settings::default().portal_id + 1,
        ..Settings::default()
    };
    let other = Sandbox::tutoring(settings).await.unwrap();
    stage.set("HUBSPOT_BASE_URL", &other.base_url());
    stage.set("HUBSPOT_ACCESS_TOKEN", other.token());
    stage
        .app("UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = 3")
        .await;
    let log = refused(&stage, "other").await.log();
    assert!(log.contains("--adopt-portal"), "{log}");
    assert!(!log.contains("--adopt-database"), "{log}");
    assert!(other.world().requests().all(|request| request.writes.is_empty()));
    assert_eq!(
        stage
            .value("SELECT count(*) FROM hubsyncd.change")
            .await
            .as_deref(),
        Some("1")
    );
    stage
        .sql("INSERT INTO hubsyncd.link (object, key, link, to_id, state) VALUES ('bookings', 'k', 'contacts', '1', 'made')")
        .await;
    stage
        .sql(
            "INSERT INTO hubsyncd.change (object, key, op, hubspot_id) VALUES ('contacts', gen_random_uuid()::text, 'D', '7');
             INSERT INTO hubsyncd.intent (object, key, hubspot_id) VALUES ('contacts', gen_random_uuid()::text, '8');
             INSERT INTO hubsyncd.failure (object, key, hubspot_id, category, message)
                 VALUES ('contacts', gen_random_uuid()::text, '9', 'archive', '')",
        )
        .await;
    let said = adopted(&setup(&stage, &stage.database.url(), "--adopt-portal"));
    assert!(said.contains("adopted the HubSpot portal"), "{said}");
    let remembered = "SELECT (SELECT count(*) FROM hubsyncd.link) + (SELECT count(*) FROM hubsyncd.intent)
        + (SELECT count(*) FROM hubsyncd.failure) + (SELECT count(hubspot_id) FROM hubsyncd.change)";
    assert_eq!(
        stage.value(remembered).await.as_deref(),
        Some("0"),
        "an id of the portal before may be anybody's in this one"
    );
    stage
        .sql("UPDATE hubspot_sync.hubspot_contact_credits SET hubspot_id = NULL")
        .await;
    let _daemon = stage.start().await;
    stage.wait_drained().await;
    assert_eq!(other.world().count(Endpoint::Upsert), 1);
    let running = setup(&stage, &stage.database.url(), "--adopt-portal");
    assert_eq!(running.status.code(), Some(75), "not while a daemon runs");
}

#[tokio::test]
async fn a_copy_of_the_database_writes_nothing_until_it_is_adopted() {
    let server = Server::start(hubsyncd::cli::cluster::Options::default()).await;
    let mut stage = Stage::on(&server, "pin_copy", Settings::default(), QUICK).await;
    push_once(&stage).await;
    let copy = format!("{}_copy", stage.database.name);
    let url = |role: &str| stage.database.url_as(role).replace(&stage.database.name, &copy);
    let (daemons, admins) = (url("hubsyncd"), url("postgres"));
    let end = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'",
        stage.database.name
    );
    let admin = super::support::postgres::session(&server.cluster.url("postgres")).await;
    admin.batch_execute(&end).await.unwrap();
    let sql = format!("CREATE DATABASE \"{copy}\" TEMPLATE \"{}\"", stage.database.name);
    admin.batch_execute(&sql).await.unwrap();
    let copied = super::support::postgres::session(&admins).await;
    copied
        .batch_execute(NEW.replace("new", "copy").as_str())
        .await
        .unwrap();
    stage.set("DATABASE_URL", &daemons);
    let requests = stage.sandbox.world().count(Endpoint::Any);
    let log = refused(&stage, "copy").await.log();
    assert!(log.contains("the database of the database URL is"), "{log}");
    assert!(log.contains("--adopt-database"), "{log}");
    assert_eq!(
        stage.sandbox.world().count(Endpoint::Any),
        requests,
        "HubSpot is not even asked"
    );
    let said = adopted(&setup(&stage, &admins, "--adopt-database"));
    assert!(said.contains(&copy), "{said}");
    let daemon = stage.start().await;
    assert_eq!(daemon.stop().await, Some(0));
    let left: i64 = copied
        .query_one("SELECT count(*) FROM hubsyncd.change", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(left, 0);
}

#[tokio::test]
async fn another_host_is_another_database_and_every_way_to_this_machine_is_the_same() {
    let mut stage = Stage::new("pin_host").await;
    push_once(&stage).await;
    let proxy = Proxy::to_database(&stage.database);
    let local = proxy.database_url("hubsyncd", &stage.database);
    stage.set("DATABASE_URL", &local);
    let daemon = stage.start().await;
    assert_eq!(daemon.stop().await, Some(0));
    let elsewhere = format!(
        "{}&hostaddr=127.0.0.1",
        local.replace("127.0.0.1", "staging.example.com")
    );
    stage.set("DATABASE_URL", &elsewhere);
    let log = refused(&stage, "elsewhere").await.log();
    assert!(
        log.contains("the host of the database URL is staging.example.com, and was local"),
        "{log}"
    );
}

#[test]
fn a_place_is_a_hosts_name_and_this_machine_has_one() {
    let place = |url: &str| Address::parse(url).unwrap().place();
    for local in [
        "postgres://u@localhost/d",
        "postgres://u@LOCALHOST./d",
        "postgres://u@127.0.0.1:6000/d",
        "postgres://u@127.8.8.8/d",
        "postgres://u@[::1]/d",
        "host=/var/run/postgresql user=u",
        "user=u",
        "host=localhost,/tmp user=u",
    ] {
        assert_eq!(place(local), "local", "{local}");
    }
    assert_eq!(
        place("postgres://u@DB.Example.com./d?sslmode=disable"),
        "db.example.com"
    );
    assert_eq!(place("postgres://u@10.0.0.7:6432/d?sslmode=disable"), "10.0.0.7");
    assert_eq!(
        place("host=b.example,a.example user=u sslmode=disable"),
        place("host=a.example,b.example user=u sslmode=disable")
    );
}
