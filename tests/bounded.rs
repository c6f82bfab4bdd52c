//! Tests: bounded by design. Memory does not grow with what waits or with the tables, and a look stays as small as
//! what it looks for.
//!
//! `HUBSYNCD_BOUNDED_ROWS` sets how many rows the sweep walks (default 20,000; a million by hand).

use crate::support::daemon::{Daemon, QUICK, Stage};
use crate::support::postgres::{Database, Server};
use crate::support::{tables, wait_within};
use hubsyncd::mapping::Mapping;
use hubsyncd::postgres::Session;
use hubsyncd::postgres::changes::{self, Looker};
use hubsyncd::sandbox::{Endpoint, Fault, Settings};
use std::time::Duration;

/// What the daemon may hold of memory while a million changes wait, or a table of a million rows is swept, in kB. A
/// build with debug assertions has more code and more stack to touch.
const MEMORY_MAX_KB: u64 = if cfg!(debug_assertions) {
    56 * 1024
} else {
    40 * 1024
};
/// How much more a sweep of four times the rows may hold, in kB: what the allocator keeps differs from run to run.
const GROWTH_MAX_KB: u64 = 8 * 1024;
/// The blocks that a look at an empty queue may touch: a descent of each index for each object, and the newest pages.
/// All of what was drained is more than a thousand.
const BLOCKS_MAX: i64 = 100;
/// Counting a million rows takes its time on a busy machine.
const PATIENCE: Duration = Duration::from_secs(240);

/// The most memory that a daemon ever held, in kB.
fn peak(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Students with a thousand bytes of text each.
async fn insert_contacts(stage: &Stage, first: u64, last: u64) {
    let sql = format!(
        "INSERT INTO hubspot_sync.hubspot_contact_credits (student_id, email, firstname, lastname)
         SELECT 'S' || i, 's' || i || '@example.com', repeat('x', 1000), 'y' FROM generate_series({first}, {last}) AS i"
    );
    stage.app(&sql).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_million_changes_wait_in_the_database_while_hubspot_is_down_and_not_in_memory() {
    const WAITING: u64 = 1_000_000;
    let stage = Stage::new("million").await;
    let daemon = stage.start().await;
    daemon.settled().await;
    stage.sandbox.fault(Fault::status(503).always());
    insert_contacts(&stage, 1, WAITING).await;
    let pending = async || daemon.status().await["pending"].as_u64().unwrap();
    wait_within(PATIENCE, "every waiting change is counted", async || {
        pending().await >= WAITING
    })
    .await;
    let before = stage.sandbox.world().count(Endpoint::Any);
    change_three(&stage).await;
    wait_within(PATIENCE, "what came later is counted too", async || {
        pending().await > WAITING
    })
    .await;
    wait_within(PATIENCE, "health says that HubSpot is down", async || {
        daemon.get("/health").await.0 == 503
    })
    .await;
    let asked = stage.sandbox.world().count(Endpoint::Any) - before;
    assert!(asked < 200, "{asked} requests hammer a HubSpot that is down");
    let peak = peak(&daemon);
    assert!(
        peak < MEMORY_MAX_KB,
        "{peak} kB were held while {WAITING} changes waited"
    );
}

/// Three of them change.
async fn change_three(stage: &Stage) {
    stage
        .app("UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = 7 WHERE student_id IN ('S1', 'S2', 'S3')")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_holds_a_few_pages_whatever_the_tables_size() {
    let rows: u64 = match std::env::var("HUBSYNCD_BOUNDED_ROWS") {
        Ok(rows) => rows.parse().expect("HUBSYNCD_BOUNDED_ROWS is a number"),
        Err(_) => 20_000,
    };
    let stage = Stage::without_setup("wide", Settings::default(), QUICK).await;
    let few = rows / 4;
    insert_contacts(&stage, 1, few).await;
    stage.setup().await;
    let daemon = stage.start().await;
    let run = daemon.sweep().await;
    assert_eq!(run["summary"]["contacts"]["created"], few, "{run}");
    let of_few = peak(&daemon);
    // Without triggers nobody names them: only a sweep finds them.
    stage
        .sql("ALTER TABLE hubspot_sync.hubspot_contact_credits DISABLE TRIGGER USER")
        .await;
    insert_contacts(&stage, few + 1, rows).await;
    let run = daemon.sweep().await;
    assert_eq!(run["outcome"], "complete", "{run}");
    assert_eq!(run["summary"]["contacts"]["created"], rows - few, "{run}");
    assert_eq!(run["summary"]["contacts"]["updated"], few, "{run}");
    let of_all = peak(&daemon);
    assert!(
        of_all < MEMORY_MAX_KB,
        "{of_all} kB were held in a sweep of {rows} rows"
    );
    assert!(
        of_all < of_few + GROWTH_MAX_KB,
        "{of_few} kB were held for {few} rows, {of_all} kB for {rows}"
    );
}

/// Blocks of the change table and its indexes that were touched so far.
async fn blocks(session: &Session) -> i64 {
    session
        .batch_execute("SELECT pg_stat_force_next_flush()")
        .await
        .ok();
    let sql = "SELECT heap_blks_hit + heap_blks_read + coalesce(idx_blks_hit + idx_blks_read, 0)
        FROM pg_statio_user_tables WHERE schemaname = 'hubsyncd' AND relname = 'change'";
    session.query_one(sql, &[]).await.unwrap().get(0)
}

/// Looks, forgets what was seen, and so on until nothing is left.
async fn drain(daemon: &Session, looker: &mut Looker, objects: usize) {
    loop {
        let look = looker.look(daemon, &vec![4_000; objects]).await.unwrap();
        if look.changes.is_empty() {
            return;
        }
        let seqs: Vec<i64> = look.changes.iter().map(|change| change.seq).collect();
        changes::forget(daemon, "contacts", &seqs).await.unwrap();
    }
}

#[tokio::test]
async fn a_dump_that_holds_its_snapshot_does_not_make_a_look_walk_what_is_dead() {
    const DRAINED: u64 = 100_000;
    let (database, daemon, _) = tables::database(Server::shared().await, "dump").await;
    let mut looker = Looker::new(&Mapping::built_in());
    let objects = Mapping::built_in().objects.len();
    let dump = database.session().await;
    dump.batch_execute("SET idle_in_transaction_session_timeout = 0; BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM hubsyncd.change")
        .await
        .unwrap();
    let fill = format!(
        "INSERT INTO hubsyncd.change (object, key, op) SELECT 'contacts', i::text, 'U' FROM generate_series(1, {DRAINED}) AS i"
    );
    database.session().await.batch_execute(&fill).await.unwrap();
    drain(&daemon, &mut looker, objects).await;
    // The mark rises once no transaction of the cluster, other tests' among them, is older than the last change.
    wait_within(
        PATIENCE,
        "a look at an empty queue touches few blocks",
        async || look_touches(&database, &mut looker, objects).await < BLOCKS_MAX,
    )
    .await;
    dump.batch_execute("COMMIT").await.unwrap();
}

/// How many blocks one look at an empty queue touches.
async fn look_touches(database: &Database, looker: &mut Looker, objects: usize) -> i64 {
    let (looking, counting) = (database.session_as("hubsyncd").await, database.session().await);
    let before = blocks(&counting).await;
    let look = looker.look(&looking, &vec![4_000; objects]).await.unwrap();
    assert!(look.changes.is_empty() && look.saw_everything());
    // A session's counts are told when it ends.
    drop(looking);
    let mut touched = 0;
    wait_within(PATIENCE, "what the look touched is told", async || {
        touched = blocks(&counting).await - before;
        touched > 0
    })
    .await;
    touched
}
