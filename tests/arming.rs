//! The armed doorbell on a real Postgres: no change is ever left waiting, and it is the bell that brings it.
//!
//! The safety poll looks once a second and would hide a bell that does not ring, so these tests read in the metrics
//! what had made the daemon look.

use crate::support::daemon::{CONTACTS, Daemon, QUICK, Stage};
use crate::support::wait_until;
use hubsyncd::postgres::Session;
use hubsyncd::sandbox::Settings;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// The environment variable that replays a run.
const SEED: &str = "HUBSYNCD_ARMING_SEED";
const WRITERS: u64 = 8;
const TRANSACTIONS: u64 = 100;
/// Rows that only one writer touches, so that transactions over several do not deadlock with one another.
const OWN_ROWS: u64 = 20;
/// Rows that all writers touch, in transactions of one statement.
const SHARED_ROWS: u64 = 10;

/// SplitMix64: small, and good enough to choose among transactions.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

struct Writer {
    number: u64,
    random: Random,
    session: Session,
    inserted: u64,
}

impl Writer {
    async fn run(mut self) {
        for _ in 0..TRANSACTIONS {
            self.transaction().await;
            // Pauses of all lengths let the daemon fall asleep between transactions, and on their edges.
            if self.random.below(4) == 0 {
                let pause = self.random.below(40_000);
                tokio::time::sleep(Duration::from_micros(pause)).await;
            }
        }
    }

    async fn transaction(&mut self) {
        let end = if self.random.below(4) == 0 {
            "ROLLBACK"
        } else {
            "COMMIT"
        };
        let sql = match self.random.below(12) {
            0..=3 => self.shared(),
            4 => format!("BEGIN; {}; {}; {end}", self.own(), self.own()),
            5 => format!(
                "BEGIN; {}; SAVEPOINT s; {}; ROLLBACK TO s; {}; {end}",
                self.own(),
                self.own(),
                self.own()
            ),
            6 => format!("BEGIN; SAVEPOINT s; {}; ROLLBACK TO s; {end}", self.own()),
            7 => format!(
                "BEGIN; SAVEPOINT s; {}; ROLLBACK TO s; SAVEPOINT t; {}; RELEASE t; {end}",
                self.own(),
                self.own()
            ),
            8 => format!("BEGIN; {}; {end}", self.all_own()),
            9 => format!("BEGIN; {}; {end}", self.insert()),
            _ => return self.long(end).await,
        };
        self.execute(&sql).await;
    }

    /// Captures a change and stays open, holding the doorbell's lock shared.
    async fn long(&mut self, end: &str) {
        let begin = format!("BEGIN; {}", self.own());
        self.execute(&begin).await;
        let open = self.random.below(60_000);
        tokio::time::sleep(Duration::from_micros(open)).await;
        let end = format!("{}; {end}", self.own());
        self.execute(&end).await;
    }

    async fn execute(&self, sql: &str) {
        self.session
            .batch_execute(sql)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    fn own(&mut self) -> String {
        let row = self.random.below(OWN_ROWS);
        self.update(&format!("student_id = 'w{}-{row}'", self.number))
    }

    fn shared(&mut self) -> String {
        let row = self.random.below(SHARED_ROWS);
        self.update(&format!("student_id = 'shared-{row}'"))
    }

    fn all_own(&mut self) -> String {
        let number = self.number;
        self.update(&format!("student_id LIKE 'w{number}-%'"))
    }

    fn update(&mut self, condition: &str) -> String {
        let value = self.random.below(1_000);
        let column = ["sj_credits", "cs_credits", "shared_mock_credits"][(value % 3) as usize];
        format!("UPDATE hubspot_sync.hubspot_contact_credits SET {column} = {value} WHERE {condition}")
    }

    fn insert(&mut self) -> String {
        self.inserted += 1;
        let student = format!("new{}-{}", self.number, self.inserted);
        let value = self.random.below(1_000);
        format!(
            "INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email, sj_credits)
             VALUES ('{student}', '{student}@example.com', {value})"
        )
    }
}

/// Contacts that both ends know.
async fn fill(stage: &Stage) {
    let own = (0..WRITERS).flat_map(|writer| (0..OWN_ROWS).map(move |row| format!("w{writer}-{row}")));
    let students: Vec<String> = own
        .chain((0..SHARED_ROWS).map(|row| format!("shared-{row}")))
        .collect();
    let mut sql =
        "INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email, hubspot_id) VALUES ".to_owned();
    for (at, student) in students.iter().enumerate() {
        let email = format!("{student}@example.com");
        let id = stage
            .sandbox
            .world()
            .create(CONTACTS, [("email", email.as_str()), ("student_id", student)]);
        let comma = if at == 0 { "" } else { ", " };
        write!(sql, "{comma}('{student}', '{email}', '{id}')").unwrap();
    }
    stage.sql(&sql).await;
}

/// The credits of every contact, by HubSpot id, as Postgres has them.
async fn in_postgres(session: &Session) -> BTreeMap<String, Vec<String>> {
    let rows = session
        .query(
            "SELECT coalesce(hubspot_id, 'none of ' || student_id), student_id, sj_credits::text, cs_credits::text,
                    shared_mock_credits::text
             FROM hubspot_sync.hubspot_contact_credits",
            &[],
        )
        .await
        .unwrap();
    let contact = |row: &tokio_postgres::Row| (row.get(0), (1..5).map(|at| row.get(at)).collect());
    rows.iter().map(contact).collect()
}

/// The same as HubSpot has them; what was never pushed counts as what it was at the beginning.
fn in_hubspot(stage: &Stage) -> BTreeMap<String, Vec<String>> {
    let world = stage.sandbox.world();
    let names = ["sj_credits", "cs_credits", "shared_mock_credits"];
    let contact = |record: &hubsyncd::sandbox::Record| {
        let student = record.get("student_id").unwrap_or_default().to_owned();
        let credits = names.map(|name| record.get(name).unwrap_or("0").to_owned());
        (record.id(), [student].into_iter().chain(credits).collect())
    };
    world.records(CONTACTS).map(contact).collect()
}

/// A counter of the daemon's by what made it look.
async fn counted(daemon: &Daemon, name: &str, by: &str) -> u64 {
    let (_, metrics) = daemon.get("/metrics").await;
    let start = format!("hubsyncd_{name}_total{{by=\"{by}\"}} ");
    let value = metrics.lines().find_map(|line| line.strip_prefix(&start));
    value.map_or(0, |value| value.parse().unwrap())
}

fn seed() -> u64 {
    let given = std::env::var(SEED).ok();
    let seed = given.map_or_else(
        || u64::from(std::process::id()) ^ std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64,
        |given| given.parse().unwrap(),
    );
    println!("{SEED}={seed} replays this run");
    seed
}

#[tokio::test]
async fn whatever_writers_do_no_change_is_left_waiting_while_the_daemon_sleeps() {
    let seed = seed();
    // No pause may come from the rate: a daemon that waits for a slot is no test of the bell.
    let toml = format!("[hubspot]\nrequests = 10000\n{QUICK}");
    let stage = Stage::with("arming", Settings::default(), &toml).await;
    fill(&stage).await;
    stage.sql("TRUNCATE hubsyncd.change").await;
    let daemon = stage.start().await;
    let mut writers = tokio::task::JoinSet::new();
    for number in 0..WRITERS {
        let writer = Writer {
            number,
            random: Random(seed.wrapping_add(number << 32)),
            session: stage.database.session_as("app").await,
            inserted: 0,
        };
        writers.spawn(writer.run());
    }
    while let Some(ended) = writers.join_next().await {
        ended.unwrap();
    }
    stage.wait_drained().await;
    daemon.settled().await;
    let session = stage.database.session().await;
    assert_eq!(in_postgres(&session).await, in_hubspot(&stage));
    let mut seen = BTreeMap::new();
    for by in ["bell", "time", "interval", "safety"] {
        seen.insert(by, counted(&daemon, "changes_seen", by).await);
    }
    // A poll once a second sees by chance what has been committed and not yet rung for.
    assert!(
        seen["safety"] * 4 < seen.values().sum(),
        "the safety poll brought too many changes: {seen:?}"
    );
    assert_eq!(daemon.stop().await, Some(0));
}

#[tokio::test]
async fn pitfall_4_04_a_sleeping_daemon_is_woken_by_the_bell_and_not_by_the_safety_poll() {
    let toml = "[hubspot]\nrequests = 10000\n[batch]\nmax-delay = \"0s\"\n[sweep]\non-start = false\n";
    let stage = Stage::with("bell", Settings::default(), toml).await;
    let contact = stage.known_contact("s1").await;
    stage.sql("TRUNCATE hubsyncd.change").await;
    let daemon = stage.start().await;
    let app = stage.database.session_as("app").await;
    let before = counted(&daemon, "changes_seen", "bell").await;
    for credits in 1..=50_u32 {
        app.batch_execute(&format!(
            "UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = {credits} WHERE student_id = 's1'"
        ))
        .await
        .unwrap();
        let text = credits.to_string();
        stage
            .wait_world("the contact has its credits", |world| {
                world
                    .record(CONTACTS, &contact)
                    .and_then(|record| record.get("sj_credits"))
                    == Some(&text)
            })
            .await;
        daemon.settled().await;
    }
    // A look of the safety poll may come between a commit and its ring, once in a while.
    let brought = counted(&daemon, "changes_seen", "bell").await - before;
    assert!(brought >= 45, "the bell brought {brought} of 50 lone changes");
    assert!(counted(&daemon, "wakeups", "bell").await >= 45);
    assert_eq!(counted(&daemon, "wakeups", "interval").await, 0);
}

#[tokio::test]
async fn a_daemon_whose_changes_wait_anyhow_is_not_rung_for_by_every_commit() {
    let toml = "[batch]\nmax-delay = \"10s\"\n[sweep]\non-start = false\n";
    let stage = Stage::with("thick", Settings::default(), toml).await;
    stage.known_contact("s1").await;
    stage.sql("TRUNCATE hubsyncd.change").await;
    let daemon = stage.start().await;
    let app = stage.database.session_as("app").await;
    let before = counted(&daemon, "wakeups", "bell").await;
    for credits in 1..=40_u64 {
        app.batch_execute(&format!(
            "UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = {credits} WHERE student_id = 's1'"
        ))
        .await
        .unwrap();
        wait_until("the daemon knows of the change", async || {
            daemon.status().await["pending"].as_u64() >= Some(credits)
        })
        .await;
    }
    let rung = counted(&daemon, "wakeups", "bell").await - before;
    assert!(rung >= 1, "the first commit rings");
    assert!(
        rung <= 20,
        "{rung} of 40 commits rang for what waits for company anyhow"
    );
}

#[tokio::test]
async fn pitfall_3_13_a_long_transaction_mutes_the_changes_of_others_no_longer_than_the_look_interval() {
    let stage = Stage::with("muted", Settings::default(), QUICK).await;
    let long = stage.known_contact("long").await;
    let other = stage.known_contact("other").await;
    stage.sql("TRUNCATE hubsyncd.change").await;
    let holder = stage.database.session_as("app").await;
    let app = stage.database.session_as("app").await;
    // It captures while nobody sleeps, so it holds the doorbell's lock from then on, and no daemon can arm.
    holder
        .batch_execute(
            "BEGIN; UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = 1 WHERE student_id = 'long'",
        )
        .await
        .unwrap();
    let daemon = stage.launch("daemon");
    wait_until("the daemon looks by itself", async || {
        let Some((200, status)) = daemon.try_get("/status").await else {
            return false;
        };
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        status["lease"] == "held" && status["listener"] == "awake"
    })
    .await;
    let interval = counted(&daemon, "changes_seen", "interval").await;
    for credits in 100..120_u32 {
        app.batch_execute(&format!(
            "UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = {credits} WHERE student_id = 'other'"
        ))
        .await
        .unwrap();
        let text = credits.to_string();
        stage
            .wait_world("the other's change arrives", |world| {
                world
                    .record(CONTACTS, &other)
                    .and_then(|record| record.get("sj_credits"))
                    == Some(&text)
            })
            .await;
    }
    let by_interval = counted(&daemon, "changes_seen", "interval").await - interval;
    let by_time = counted(&daemon, "changes_seen", "time").await;
    assert!(
        by_interval + by_time >= 16,
        "of 20 changes the interval brought {by_interval}, what was freed {by_time}"
    );
    holder.batch_execute("COMMIT").await.unwrap();
    stage
        .wait_world("the long transaction's change arrives", |world| {
            world
                .record(CONTACTS, &long)
                .and_then(|record| record.get("sj_credits"))
                .is_some()
        })
        .await;
    daemon.settled().await;
}
