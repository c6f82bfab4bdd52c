//! Tests: the look at the change table, and the marks it starts above.

use super::support::postgres::{Database, Server};
use super::support::{tables, wait_until};
use hubsyncd::cli::cluster::Options;
use hubsyncd::mapping::Mapping;
use hubsyncd::postgres::Session;
use hubsyncd::postgres::changes::{self, Look, Looker};
use hubsyncd::sync::change::{Key, Op};
use std::collections::BTreeSet;

const ROOM: [usize; 3] = [1000, 1000, 1000];

async fn start() -> (Database, Session, Looker) {
    let (database, daemon, _) = tables::database(Server::shared().await, "changes").await;
    (database, daemon, Looker::new(&Mapping::built_in()))
}

/// Appends a change, as a trigger does.
async fn append(writer: &Session, object: &str, key: &str) {
    let sql = "INSERT INTO hubsyncd.change (object, key, op) SELECT $1, $2, 'U' WHERE pg_current_xact_id() IS NOT NULL";
    writer.execute(sql, &[&object, &key]).await.unwrap();
}

fn keys(look: &Look) -> Vec<&str> {
    look.changes
        .iter()
        .map(|change| change.key.as_deref().unwrap())
        .collect()
}

#[tokio::test]
async fn a_look_returns_the_changes_of_all_objects_by_object_and_age() {
    let (_database, daemon, mut looker) = start().await;
    let row = "INSERT INTO hubsyncd.change (object, key, op, hubspot_id, captured_at) VALUES
        ('bookings', 'b1', 'D', '77', '2026-01-02 03:04:05.678901+00'), ('contacts', 'c1', 'I', NULL, now()),
        ('contacts', 'c2', 'N', NULL, now()), ('mock_exams', NULL, '*', NULL, now()), ('else', 'e', 'U', NULL, now())";
    daemon.batch_execute(row).await.unwrap();
    let look = looker.look(&daemon, &ROOM).await.unwrap();
    let seen: Vec<_> = look
        .changes
        .iter()
        .map(|change| (change.object, change.seq, change.key.as_deref(), change.op))
        .collect();
    let expected = [
        (0, 2, Some("c1"), Op::Insert),
        (0, 3, Some("c2"), Op::New),
        (1, 1, Some("b1"), Op::Delete),
        (2, 4, None, Op::Everything),
    ];
    assert_eq!(seen, expected);
    assert_eq!(look.changes[2].hubspot_id.as_deref(), Some("77"));
    assert_eq!(look.changes[2].captured_at, 1_767_323_045_678_901);
    assert!(look.saw_everything());
    assert_eq!(
        changes::count(&daemon, &Mapping::built_in()).await.unwrap(),
        [2, 1, 1]
    );
}

/// Looks until the mark of the contacts stands at `seq`. Transactions of other tests hold it down for a while: xids
/// are the cluster's.
async fn until_mark(looker: &mut Looker, daemon: &Session, seq: i64) {
    wait_until("the mark has risen", async || {
        looker.look(daemon, &ROOM).await.unwrap();
        looker.marks().next() == Some(seq)
    })
    .await;
}

#[tokio::test]
async fn what_is_above_the_mark_comes_again_and_what_is_below_does_not() {
    let (database, daemon, mut looker) = start().await;
    append(&daemon, "contacts", "one").await;
    assert_eq!(keys(&looker.look(&daemon, &ROOM).await.unwrap()), ["one"]);
    until_mark(&mut looker, &daemon, 1).await;
    assert!(looker.look(&daemon, &ROOM).await.unwrap().changes.is_empty());
    let writer = database.session().await;
    writer.batch_execute("BEGIN").await.unwrap();
    append(&writer, "contacts", "two").await;
    append(&daemon, "contacts", "three").await;
    for _ in 0..3 {
        assert_eq!(keys(&looker.look(&daemon, &ROOM).await.unwrap()), ["three"]);
    }
    writer.batch_execute("COMMIT").await.unwrap();
    assert_eq!(
        keys(&looker.look(&daemon, &ROOM).await.unwrap()),
        ["two", "three"]
    );
    until_mark(&mut looker, &daemon, 3).await;
    looker.reset();
    assert_eq!(
        keys(&looker.look(&daemon, &ROOM).await.unwrap()),
        ["one", "two", "three"]
    );
}

/// The xmax of a snapshot is the last ended xid plus one: a running transaction may stand at it or above. Seen only on
/// a server where nobody else ends transactions.
#[tokio::test]
async fn pitfall_3_12_a_transaction_that_no_snapshot_has_reached_yet_holds_the_mark_down() {
    let server = Server::start(Options::default()).await;
    let (database, daemon, _) = tables::database(&server, "changes").await;
    let mut looker = Looker::new(&Mapping::built_in());
    let (first, second) = (database.session().await, database.session().await);
    for writer in [&first, &second] {
        writer
            .batch_execute("BEGIN; SELECT pg_current_xact_id()")
            .await
            .unwrap();
    }
    append(&second, "contacts", "late").await;
    for _ in 0..3 {
        assert!(looker.look(&daemon, &ROOM).await.unwrap().changes.is_empty());
    }
    first.batch_execute("COMMIT").await.unwrap();
    for _ in 0..3 {
        assert!(looker.look(&daemon, &ROOM).await.unwrap().changes.is_empty());
    }
    second.batch_execute("COMMIT").await.unwrap();
    assert_eq!(keys(&looker.look(&daemon, &ROOM).await.unwrap()), ["late"]);
}

#[tokio::test]
async fn a_change_written_in_a_savepoint_is_not_lost() {
    let (database, daemon, mut looker) = start().await;
    let writer = database.session().await;
    writer
        .batch_execute("BEGIN; SELECT pg_current_xact_id(); SAVEPOINT s")
        .await
        .unwrap();
    append(&writer, "contacts", "inner").await;
    writer.batch_execute("RELEASE s").await.unwrap();
    for _ in 0..3 {
        append(&daemon, "contacts", "other").await;
        looker.look(&daemon, &ROOM).await.unwrap();
    }
    writer.batch_execute("COMMIT").await.unwrap();
    assert!(keys(&looker.look(&daemon, &ROOM).await.unwrap()).contains(&"inner"));
}

/// What was not seen before, of the object at `object`, and whether that is all of it.
fn new(seen: &mut BTreeSet<i64>, look: &Look, object: usize) -> (Vec<String>, bool) {
    let of_object = look.changes.iter().filter(|change| change.object == object);
    let new = of_object.filter(|change| seen.insert(change.seq));
    let new = new
        .map(|change| change.key.as_deref().unwrap().to_owned())
        .collect();
    (new, look.complete[object])
}

#[tokio::test]
async fn a_look_without_room_for_all_says_so_and_the_next_goes_on_where_it_ended() {
    let (_database, daemon, mut looker) = start().await;
    for number in 0..5 {
        append(&daemon, "contacts", &number.to_string()).await;
    }
    append(&daemon, "bookings", "b").await;
    let mut seen = BTreeSet::new();
    let look = looker.look(&daemon, &[2, 10, 10]).await.unwrap();
    assert_eq!(
        new(&mut seen, &look, 0),
        (vec!["0".to_owned(), "1".to_owned()], false)
    );
    assert_eq!(new(&mut seen, &look, 1), (vec!["b".to_owned()], true));
    let look = looker.look(&daemon, &[3, 10, 10]).await.unwrap();
    assert_eq!(
        new(&mut seen, &look, 0),
        (["2", "3", "4"].map(str::to_owned).to_vec(), true)
    );
    append(&daemon, "contacts", "5").await;
    let look = looker.look(&daemon, &[0, 10, 10]).await.unwrap();
    assert_eq!(new(&mut seen, &look, 0), (vec![], false));
    let look = looker.look(&daemon, &[1, 10, 10]).await.unwrap();
    assert_eq!(new(&mut seen, &look, 0), (vec!["5".to_owned()], true));
}

#[tokio::test]
async fn rows_that_come_again_take_no_room_from_new_ones() {
    let (database, daemon, mut looker) = start().await;
    let writer = database.session().await;
    writer
        .batch_execute("BEGIN; SELECT pg_current_xact_id()")
        .await
        .unwrap();
    for number in 0..4 {
        append(&daemon, "contacts", &number.to_string()).await;
    }
    assert_eq!(keys(&looker.look(&daemon, &[2, 0, 0]).await.unwrap()), ["0", "1"]);
    let look = looker.look(&daemon, &[2, 0, 0]).await.unwrap();
    assert_eq!((keys(&look), look.complete[0]), (vec!["0", "1", "2", "3"], true));
    writer.batch_execute("ROLLBACK").await.unwrap();
}

#[tokio::test]
async fn a_table_made_anew_is_looked_at_from_its_start() {
    let (database, daemon, mut looker) = start().await;
    for _ in 0..5 {
        append(&daemon, "contacts", "old").await;
    }
    until_mark(&mut looker, &daemon, 5).await;
    let owner = database.session().await;
    let anew = "TRUNCATE hubsyncd.change RESTART IDENTITY";
    owner.batch_execute(anew).await.unwrap();
    append(&daemon, "contacts", "new").await;
    assert!(!looker.look(&daemon, &ROOM).await.unwrap().saw_everything());
    assert_eq!(keys(&looker.look(&daemon, &ROOM).await.unwrap()), ["new"]);
}

#[tokio::test]
async fn naming_appends_and_forgetting_deletes_exactly_what_is_said() {
    let (_database, daemon, mut looker) = start().await;
    let named = [Key::from("a"), Key::from("'; DROP TABLE hubsyncd.change; --")];
    changes::name(&daemon, "bookings", &named, Op::New).await.unwrap();
    changes::name(&daemon, "bookings", &named, Op::Update)
        .await
        .unwrap();
    let look = looker.look(&daemon, &ROOM).await.unwrap();
    let seen: Vec<_> = look
        .changes
        .iter()
        .map(|change| (change.seq, change.op))
        .collect();
    assert_eq!(
        seen,
        [(1, Op::New), (2, Op::New), (3, Op::Update), (4, Op::Update)]
    );
    assert_eq!(look.changes[1].key.as_ref(), Some(&named[1]));
    changes::forget(&daemon, "bookings", &[1, 4]).await.unwrap();
    changes::forget(&daemon, "contacts", &[2]).await.unwrap();
    looker.reset();
    let look = looker.look(&daemon, &ROOM).await.unwrap();
    assert_eq!(
        look.changes.iter().map(|change| change.seq).collect::<Vec<_>>(),
        [2, 3]
    );
}

/// Many writers, some rolling back, all with changes of their own, against a looker that never stops.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_looker_beside_many_writers_sees_every_committed_change() {
    const WRITERS: usize = 8;
    const ROUNDS: usize = 60;
    let (database, daemon, mut looker) = start().await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let session = database.session().await;
        writers.spawn(async move {
            for round in 0..ROUNDS {
                session.batch_execute("BEGIN").await.unwrap();
                append(&session, "contacts", &format!("{writer}-{round}")).await;
                tokio::task::yield_now().await;
                let end = if round % 5 == 4 { "ROLLBACK" } else { "COMMIT" };
                session.batch_execute(end).await.unwrap();
            }
        });
    }
    let mut seen = std::collections::HashSet::new();
    let mut done = false;
    loop {
        let look = looker.look(&daemon, &[7, 0, 0]).await.unwrap();
        let complete = look.complete[0];
        seen.extend(look.changes.into_iter().map(|change| change.key.unwrap()));
        if done && complete {
            break;
        }
        while let Some(ended) = writers.try_join_next() {
            ended.unwrap();
        }
        done = writers.is_empty();
    }
    assert_eq!(seen.len(), WRITERS * ROUNDS * 4 / 5);
    until_mark(&mut looker, &daemon, i64::try_from(WRITERS * ROUNDS).unwrap()).await;
}

/// How many rows of the change table were read so far, by whatever plan, as ended sessions have told.
async fn rows_read(database: &Database) -> i64 {
    let sql = "SELECT coalesce(idx_tup_fetch, 0) + coalesce(seq_tup_read, 0) FROM pg_stat_user_tables
        WHERE schemaname = 'hubsyncd' AND relname = 'change'";
    let session = database.session().await;
    session.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_planner_that_takes_the_queue_for_empty_does_not_walk_all_of_it() {
    const WAITING: i64 = 100_000;
    let (database, daemon, mut looker) = start().await;
    let owner = database.session().await;
    let fill = format!(
        "INSERT INTO hubsyncd.change (object, key, op) SELECT 'contacts', i::text, 'U' FROM generate_series(1, {WAITING}) AS i"
    );
    // What a vacuum of a queue that was drained leaves behind: many pages, and the belief that no row is in them.
    let stopped = "ALTER TABLE hubsyncd.change SET (autovacuum_enabled = false)";
    for sql in [
        stopped,
        &fill,
        "ANALYZE hubsyncd.change",
        "DELETE FROM hubsyncd.change",
        "VACUUM ANALYZE hubsyncd.change",
        &fill,
    ] {
        owner.batch_execute(sql).await.unwrap();
    }
    drop(owner);
    wait_until("what the fill did has been counted", async || {
        let sql =
            "SELECT n_tup_ins FROM pg_stat_user_tables WHERE schemaname = 'hubsyncd' AND relname = 'change'";
        let session = database.session().await;
        session.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) >= 2 * WAITING
    })
    .await;
    let before = rows_read(&database).await;
    let look = looker.look(&daemon, &[100, 100, 100]).await.unwrap();
    let seqs: Vec<i64> = look.changes.iter().map(|change| change.seq).collect();
    assert_eq!(seqs.len(), 100);
    changes::forget(&daemon, "contacts", &seqs).await.unwrap();
    drop(daemon);
    let mut read = 0;
    wait_until("what the look did has been counted", async || {
        read = rows_read(&database).await - before;
        read >= 200
    })
    .await;
    assert!(
        read < 1_000,
        "{read} rows were read to return and delete a hundred"
    );
}
