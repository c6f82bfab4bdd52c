//! The private cluster: it starts in every version, and nothing of it stays behind.

use crate::support::postgres::{Database, Server};
use crate::support::wait_until;
use hubsyncd::cli::cluster::{Cluster, Mode, Options};
use std::path::Path;
use std::process::{Command, Stdio};

#[tokio::test]
async fn every_version_of_postgres_starts_and_takes_the_applications_tables() {
    for server in Server::every_version().await {
        let database = server.application("versions").await;
        let session = database.session().await;
        let row = session
            .query_one("SELECT current_setting('server_version_num')::int", &[])
            .await
            .unwrap();
        let version: i32 = row.get(0);
        println!("{}: {version}", server.label);
        assert!(server.label == "system" || version.to_string().starts_with(&server.label));
        let daemon = database.session_as("hubsyncd").await;
        daemon
            .query("SELECT * FROM hubspot_sync.hubspot_bookings", &[])
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_stopped_cluster_comes_back_with_its_data() {
    let mut server = Server::start(Options::default()).await;
    let database = server.database("again").await;
    database
        .session()
        .await
        .batch_execute("CREATE TABLE kept (a int)")
        .await
        .unwrap();
    let first = server.cluster.pid();
    for mode in [Mode::Fast, Mode::Immediate] {
        server.cluster.restart(mode).unwrap();
        assert_ne!(first, server.cluster.pid());
    }
    database
        .session()
        .await
        .query("SELECT * FROM kept", &[])
        .await
        .unwrap();
}

#[tokio::test]
async fn a_database_of_one_test_is_not_that_of_another() {
    let (one, other) = (Database::new("same").await, Database::new("same").await);
    one.session()
        .await
        .batch_execute("CREATE TABLE mine (a int)")
        .await
        .unwrap();
    assert!(
        other
            .session()
            .await
            .query("SELECT * FROM mine", &[])
            .await
            .is_err()
    );
}

#[test]
fn a_dropped_cluster_leaves_no_process_and_no_file() {
    let cluster = Cluster::start(Options::default()).unwrap();
    let (directory, pid) = (cluster.directory().to_owned(), cluster.pid().unwrap());
    assert!(alive(pid) && directory.exists());
    drop(cluster);
    assert!(!alive(pid) && !directory.exists());
}

/// Not a test of its own: the process that the next test kills.
#[test]
#[ignore = "is run by a_killed_owner_leaves_no_process_and_no_file"]
fn owner_of_a_cluster_until_it_is_killed() {
    let cluster = Cluster::start(Options::default()).unwrap();
    println!(
        "cluster {} {}",
        cluster.pid().unwrap(),
        cluster.directory().display()
    );
    std::thread::park();
}

#[tokio::test]
async fn a_killed_owner_leaves_no_process_and_no_file() {
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "--ignored",
            "--nocapture",
            "cluster::owner_of_a_cluster_until_it_is_killed",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(owner.stdout.take().unwrap()));
    let line = lines
        .map(Result::unwrap)
        .find_map(|line| Some(line.split_once("cluster ")?.1.to_owned()))
        .unwrap();
    let (pid, directory) = line.split_once(' ').unwrap();
    let pid = pid.parse().unwrap();
    assert!(alive(pid) && Path::new(directory).exists());
    owner.kill().unwrap();
    owner.wait().unwrap();
    wait_until("server and files are gone", async || {
        !alive(pid) && !Path::new(directory).exists()
    })
    .await;
}

#[test]
fn a_setting_that_postgres_refuses_is_reported_with_the_log() {
    let settings = vec![("no_such_setting".to_owned(), "1".to_owned())];
    let error = Cluster::start(Options {
        settings,
        ..Options::default()
    })
    .unwrap_err()
    .to_string();
    assert!(
        error.contains("did not start") && error.contains("no_such_setting"),
        "{error}"
    );
}

/// Whether a process runs (one that waits to be reaped does not).
fn alive(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    !stat
        .rsplit(')')
        .next()
        .is_some_and(|rest| rest.trim_start().starts_with('Z'))
}
