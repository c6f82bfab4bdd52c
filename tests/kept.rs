//! Tests: statements that a session keeps, read after read, whatever happens to the table meanwhile.

use crate::support::postgres::Database;
use crate::support::reading::{memory, reader};
use hubsyncd::mapping::Mapping;
use hubsyncd::postgres::Session;
use hubsyncd::postgres::changes::Looker;
use hubsyncd::postgres::rows::Reader;

const TABLE: &str = "hubspot_sync.hubspot_contact_credits";
const KEY: &str = "00000000-0000-4000-8000-000000000001";

struct World {
    owner: Session,
    daemon: Session,
    reader: Reader,
    _database: Database,
}

impl World {
    async fn new(hint: &str) -> World {
        let database = Database::with_application(hint).await;
        let owner = database.session_as("app_owner").await;
        owner.batch_execute(&memory()).await.unwrap();
        let row = format!(
            "INSERT INTO {TABLE} (id, student_id, email, sj_credits) VALUES ('{KEY}', 'S1', 's1@example.com', 3)"
        );
        owner.batch_execute(&row).await.unwrap();
        let daemon = database.session_as("hubsyncd").await;
        let reader = reader(&daemon, &Mapping::built_in(), 0).await;
        World {
            owner,
            daemon,
            reader,
            _database: database,
        }
    }

    async fn sql(&self, sql: &str) {
        self.owner.batch_execute(sql).await.unwrap();
    }

    /// The credits that a read shows, or what it says is wrong.
    async fn credits(&self) -> Result<String, String> {
        let read = self.reader.read(&self.daemon, &[KEY.into()], &[true]).await;
        let read = read.map_err(|error| hubsyncd::sync::report::chain(&error))?;
        let properties: serde_json::Value = serde_json::from_str(&read.records[0].properties).unwrap();
        Ok(properties["sj_credits"].as_str().unwrap().to_owned())
    }
}

/// What the session keeps: statements, and how often they were run by a plan made for any parameters and for these.
async fn kept(session: &Session, like: &str) -> (i64, i64, i64) {
    let sql = "SELECT count(*), coalesce(sum(generic_plans), 0)::bigint, coalesce(sum(custom_plans), 0)::bigint \
               FROM pg_prepared_statements WHERE statement LIKE $1";
    let row = session
        .query_typed(sql, &[(&like, tokio_postgres::types::Type::TEXT)])
        .await;
    let row = &row.unwrap()[0];
    (row.get(0), row.get(1), row.get(2))
}

#[tokio::test]
async fn a_read_that_comes_again_is_parsed_and_planned_once() {
    let world = World::new("kept_read").await;
    for _ in 0..2 {
        assert_eq!(world.credits().await.as_deref(), Ok("3"));
    }
    assert_eq!(kept(&world.daemon, "WITH p AS%").await, (1, 0, 0));
    for _ in 0..5 {
        assert_eq!(world.credits().await.as_deref(), Ok("3"));
    }
    assert_eq!(kept(&world.daemon, "WITH p AS%").await, (1, 5, 0));
}

#[tokio::test]
async fn a_look_that_comes_again_is_parsed_and_planned_once() {
    let world = World::new("kept_look").await;
    let mapping = Mapping::built_in();
    let mut looker = Looker::new(&mapping);
    let room = vec![100; mapping.objects.len()];
    for key in ["a", "b", "c", "d", "e", "f"] {
        let insert =
            format!("INSERT INTO hubsyncd.change (object, key, op) VALUES ('contacts', '{key}', 'U')");
        world.sql(&insert).await;
        let look = looker.look(&world.owner, &room).await.unwrap();
        // Those before may come once more, or not: that is the low-water mark's affair.
        assert_eq!(
            look.changes.last().and_then(|change| change.key.as_deref()),
            Some(key)
        );
    }
    assert_eq!(kept(&world.owner, "%hubsyncd.change AS c%").await.0, 0);
    assert_eq!(kept(&world.owner, "%FROM hubsyncd.change\n%").await, (1, 4, 0));
}

#[tokio::test]
async fn a_table_that_changes_is_read_as_it_is_now() {
    let world = World::new("kept_changes").await;
    for _ in 0..3 {
        assert_eq!(world.credits().await.as_deref(), Ok("3"));
    }
    world
        .sql(&format!(
            "ALTER TABLE {TABLE} ALTER COLUMN sj_credits TYPE numeric(10, 1)"
        ))
        .await;
    assert_eq!(world.credits().await.as_deref(), Ok("3.0"));
    world.sql(&format!("ALTER TABLE {TABLE} RENAME TO away")).await;
    let told = world.credits().await.unwrap_err();
    assert!(told.contains("hubspot_contact_credits"), "{told}");
    world
        .sql("CREATE TABLE hubspot_sync.hubspot_contact_credits (LIKE hubspot_sync.away INCLUDING ALL)")
        .await;
    world
        .sql(&format!(
            "GRANT SELECT ON {TABLE} TO hubsyncd; INSERT INTO {TABLE} SELECT * FROM hubspot_sync.away; UPDATE {TABLE} SET sj_credits = 8"
        ))
        .await;
    for _ in 0..3 {
        assert_eq!(world.credits().await.as_deref(), Ok("8.0"));
    }
}

#[tokio::test]
async fn what_the_server_has_forgotten_is_spelt_out_again() {
    let world = World::new("kept_forgotten").await;
    for _ in 0..3 {
        world.credits().await.unwrap();
    }
    world.daemon.batch_execute("DEALLOCATE ALL").await.unwrap();
    let told = world.credits().await.unwrap_err();
    assert!(told.contains("does not exist"), "{told}");
    for _ in 0..3 {
        assert_eq!(world.credits().await.as_deref(), Ok("3"));
    }
    assert_eq!(kept(&world.daemon, "WITH p AS%").await.0, 1);
}

#[tokio::test]
async fn a_locked_table_is_not_waited_for_longer_by_preparing() {
    let world = World::new("kept_locked").await;
    world.credits().await.unwrap();
    world
        .daemon
        .batch_execute("SET lock_timeout = '100ms'")
        .await
        .unwrap();
    world
        .sql(&format!("BEGIN; LOCK TABLE {TABLE} IN ACCESS EXCLUSIVE MODE"))
        .await;
    // It is the second use, which prepares; the transaction that failed has taken no name.
    let told = world.credits().await.unwrap_err();
    assert!(told.contains("lock timeout"), "{told}");
    assert_eq!(kept(&world.daemon, "WITH p AS%").await.0, 0);
    world.sql("COMMIT").await;
    assert_eq!(world.credits().await.as_deref(), Ok("3"));
}
