//! The private cluster: it starts in every version, and nothing of it stays behind.

use crate::support::postgres::{Database, Server};
use crate::support::wait_until;
use hubsyncd::cli::cluster::{Cluster, ClusterError, Mode, Options, find_programs};
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
    assert_ne!(
        process_group(pid),
        process_group(std::process::id()),
        "Ctrl-C would reach the server"
    );
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

#[test]
fn a_missing_postgres_is_reported_with_one_line_to_paste() {
    let message = ClusterError::Missing.to_string();
    assert_eq!(message.lines().last(), Some("sudo apt-get install -y postgresql"));
    let bin = Some("/nowhere".into());
    let error = Cluster::start(Options {
        bin,
        ..Options::default()
    })
    .unwrap_err();
    assert!(error.to_string().contains("/nowhere"), "{error}");
}

fn process_group(pid: u32) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .nth(2)
        .unwrap()
        .to_owned()
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

#[test]
fn programs_that_the_servers_user_cannot_reach_are_copied() {
    // A directory that only we may enter.
    let hidden = tempfile::tempdir().unwrap();
    let system = find_programs().unwrap();
    for part in ["bin", "lib", "share"] {
        let (from, to) = (system.with_file_name(part), hidden.path().join(part));
        if from.is_dir() {
            assert!(
                Command::new("cp")
                    .arg("-R")
                    .args([&from, &to])
                    .status()
                    .unwrap()
                    .success()
            );
        } else {
            std::fs::create_dir(to).unwrap();
        }
    }
    let bin = Some(hidden.path().join("bin"));
    let cluster = Cluster::start(Options {
        bin,
        ..Options::default()
    })
    .unwrap();
    let directory = cluster.directory().to_owned();
    drop(cluster);
    assert!(!directory.exists());
}
