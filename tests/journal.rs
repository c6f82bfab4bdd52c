//! Tests: what the journal has of an outage, which may last for hours.

use super::support::daemon::{Daemon, QUICK, Stage};
use super::support::instep::wait_contacts_in_step;
use super::support::postgres::Server;
use super::support::wait_until;
use hubsyncd::cli::cluster::{Mode, Options};
use hubsyncd::sandbox::{Fault, Settings};

/// The lines with these words, of a level.
fn lines(daemon: &Daemon, level: &str, words: &str) -> Vec<String> {
    let log = daemon.log();
    let lines = log.lines().filter(|line| line.contains(words));
    lines
        .filter(|line| line.contains(level))
        .map(str::to_owned)
        .collect()
}

/// Waits until so many attempts failed, of which the log has every one at its most talkative.
async fn wait_failed(daemon: &Daemon, words: &str, attempts: usize) {
    wait_until(&format!("{attempts} times: {words}"), async || {
        lines(daemon, "", words).len() >= attempts
    })
    .await;
}

async fn insert(stage: &Stage, student: &str) {
    stage
        .app(&format!(
            "INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email) VALUES ('{student}', '{student}@example.com')"
        ))
        .await;
}

#[tokio::test]
async fn a_hubspot_that_is_away_is_warned_of_once_and_its_return_told_once() {
    let stage = Stage::new("journal_hubspot").await;
    let daemon = stage.start().await;
    stage.sandbox.fault(Fault::status(503).always());
    insert(&stage, "one").await;
    let words = "batch not finished, its rows are tried again";
    wait_failed(&daemon, words, 4).await;
    let warned = lines(&daemon, "WARN", words);
    assert_eq!(warned.len(), 1, "{warned:#?}");
    assert!(warned[0].contains("503"), "with the cause: {}", warned[0]);
    stage.sandbox.clear_faults();
    wait_contacts_in_step(&stage).await;
    daemon.settled().await;
    let ended = lines(&daemon, "INFO", "batches are finished again, after ");
    assert_eq!(ended.len(), 1, "{}", daemon.log());
    assert!(ended[0].contains("attempts in vain"), "{}", ended[0]);
}

#[tokio::test]
async fn a_database_that_is_away_is_warned_of_once_and_its_return_told_once() {
    let mut server = Server::start(Options::default()).await;
    let stage = Stage::on(&server, "journal_database", Settings::default(), QUICK).await;
    let daemon = stage.start().await;
    server.cluster.stop(Mode::Fast).unwrap();
    let words = "the database is not to be had";
    wait_failed(&daemon, words, 4).await;
    let warned = lines(&daemon, "WARN", words);
    assert_eq!(warned.len(), 1, "{warned:#?}");
    server.cluster.restart(Mode::Fast).unwrap();
    daemon.settled().await;
    let ended = lines(&daemon, "INFO", "the database is there again, after ");
    assert_eq!(ended.len(), 1, "{}", daemon.log());
}

#[tokio::test]
async fn a_hubspot_that_is_away_at_the_start_is_warned_of_once() {
    let stage = Stage::new("journal_start").await;
    stage.sandbox.fault(Fault::refuse_connection().always());
    let daemon = stage.launch("daemon");
    let words = "HubSpot cannot be asked about the mapping's properties";
    wait_failed(&daemon, words, 4).await;
    assert_eq!(lines(&daemon, "WARN", words).len(), 1);
    stage.sandbox.clear_faults();
    daemon.settled().await;
    assert_eq!(lines(&daemon, "INFO", "HubSpot answers, after ").len(), 1);
}
