//! Setup: what is installed, for whom, how it is upgraded and taken away, and that nobody has to wait for it.

use crate::support::postgres::{Database, Server};
use hubsyncd::mapping::{Mapping, TableName};
use hubsyncd::postgres::catalog::inspect;
use hubsyncd::postgres::inventory::inventory;
use hubsyncd::postgres::schema::{State, installed};
use hubsyncd::postgres::setup::{Options, Report, print, setup};
use hubsyncd::postgres::uninstall::uninstall;
use hubsyncd::postgres::{ErrorKind, Inspection, Session};
use std::time::{Duration, Instant};

fn options() -> Options {
    Options::for_role("hubsyncd")
}

/// Patience that ends at once.
fn impatient() -> Options {
    Options {
        patience: Duration::from_millis(300),
        ..options()
    }
}

async fn install(database: &Database, mapping: &Mapping) -> Report {
    let mut owner = database.session_as("app_owner").await;
    setup(&mut owner, mapping, &options()).await.unwrap()
}

async fn state(session: &Session, mapping: &Mapping) -> State {
    let shapes = inspect(session, mapping).await.unwrap();
    installed(session, mapping, &shapes).await.unwrap()
}

async fn problems(session: &Session, mapping: &Mapping) -> Vec<String> {
    let shapes = inspect(session, mapping).await.unwrap();
    let problems = inventory(session, mapping, &shapes).await.unwrap();
    problems.iter().map(|problem| problem.message.clone()).collect()
}

/// Everything of this database's catalog that setup could change, as text.
async fn catalog(session: &Session) -> Vec<String> {
    let asked = "
        SELECT 'relation ' || c.oid::regclass || ' ' || c.relkind::text || ' ' || coalesce(array_to_string(c.reloptions, ','), '')
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname IN ('hubsyncd', 'hubspot_sync')
        UNION ALL
        SELECT 'right ' || c.oid::regclass || ' ' || coalesce(a.attname, '-') || ' ' || x.grantee::regrole || ' ' || x.privilege_type
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN LATERAL (SELECT NULL::name AS attname, c.relacl AS acl UNION ALL
              SELECT attname, attacl FROM pg_attribute WHERE attrelid = c.oid) a ON true
        CROSS JOIN LATERAL aclexplode(a.acl) x WHERE n.nspname IN ('hubsyncd', 'hubspot_sync') AND x.grantee <> c.relowner
        UNION ALL
        SELECT 'schema ' || n.nspname || ' ' || x.grantee::regrole || ' ' || x.privilege_type
        FROM pg_namespace n CROSS JOIN LATERAL aclexplode(n.nspacl) x WHERE x.grantee <> n.nspowner AND n.nspname ~ '^hub'
        UNION ALL
        SELECT 'trigger ' || tgrelid::regclass || ' ' || pg_get_triggerdef(oid) || tgenabled::text FROM pg_trigger WHERE NOT tgisinternal
        UNION ALL
        SELECT 'policy ' || polrelid::regclass || ' ' || polname || ' ' || polcmd::text || ' ' || polroles::regrole[]::text FROM pg_policy
        UNION ALL
        SELECT 'function ' || p.oid::regprocedure || ' ' || p.proowner::regrole || ' ' || p.prosecdef || ' ' || coalesce(p.proacl::text, '') || md5(p.prosrc)
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'hubsyncd'
        ORDER BY 1";
    session
        .query(asked, &[])
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect()
}

#[tokio::test]
async fn setup_installs_everything_and_a_second_one_changes_nothing() {
    let database = Database::with_application("setup_twice").await;
    let mapping = Mapping::built_in();
    let root = database.session().await;
    let daemon = database.session_as("hubsyncd").await;
    assert_eq!(state(&daemon, &mapping).await, State::Missing);

    let report = install(&database, &mapping).await;
    assert!(report.notes.is_empty(), "{:?}", report.notes);
    assert!(!report.installed.is_empty());
    assert_eq!(state(&daemon, &mapping).await, State::Current);
    assert_eq!(problems(&daemon, &mapping).await, Vec::<String>::new());

    let before = catalog(&root).await;
    let report = install(&database, &mapping).await;
    assert!(report.changed_nothing(), "{report:?}");
    assert_eq!(catalog(&root).await, before);
}

#[tokio::test]
async fn nothing_to_do_waits_for_no_lock() {
    for server in Server::every_version().await {
        let database = server.application("setup_locked").await;
        let mapping = Mapping::built_in();
        install(&database, &mapping).await;
        let holder = database.session().await;
        holder
            .batch_execute(
                "BEGIN; LOCK hubspot_sync.hubspot_contact_credits, hubspot_sync.hubspot_bookings,
                 hubspot_sync.hubspot_mock_exams, hubspot_sync.supabase_audit_log, hubsyncd.change",
            )
            .await
            .unwrap();
        let mut owner = database.session_as("app_owner").await;
        owner.batch_execute("SET lock_timeout = '1ms'").await.unwrap();
        let report = setup(&mut owner, &mapping, &impatient()).await.unwrap();
        assert!(report.changed_nothing(), "{report:?}");
        let daemon = database.session_as("hubsyncd").await;
        daemon.batch_execute("SET lock_timeout = '1ms'").await.unwrap();
        assert_eq!(state(&daemon, &mapping).await, State::Current);
        assert_eq!(problems(&daemon, &mapping).await, Vec::<String>::new());
    }
}

#[tokio::test]
async fn who_blocks_setup_is_named_and_writers_hardly_wait() {
    let database = Database::with_application("setup_blocked").await;
    let mapping = Mapping::built_in();
    let holder = database.session().await;
    holder
        .batch_execute(
            "SET application_name = 'nightly'; BEGIN; DELETE FROM hubspot_sync.hubspot_contact_credits",
        )
        .await
        .unwrap();
    let pid: i32 = holder
        .query_one("SELECT pg_backend_pid()", &[])
        .await
        .unwrap()
        .get(0);

    let mut owner = database.session_as("app_owner").await;
    let writer = database.session_as("app").await;
    let writing = async {
        let mut longest = Duration::ZERO;
        for _ in 0..40 {
            let begin = Instant::now();
            writer
                .batch_execute("UPDATE hubspot_sync.hubspot_contact_credits SET sj_credits = 1")
                .await
                .unwrap();
            longest = longest.max(begin.elapsed());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        longest
    };
    let patience = Options {
        patience: Duration::from_secs(1),
        ..options()
    };
    let (blocked, longest) = tokio::join!(setup(&mut owner, &mapping, &patience), writing);
    let Err(Inspection::Database(error)) = blocked else {
        panic!("{blocked:?}")
    };
    assert_eq!(error.kind, ErrorKind::Busy);
    let said = error.to_string();
    for expected in [
        &format!("process {pid}"),
        "nightly",
        "hubspot_sync.hubspot_contact_credits",
    ] {
        assert!(said.contains(expected), "{expected} is not in: {said}");
    }
    assert!(!said.contains("DELETE"), "{said}");
    // The lock time-out is 100 ms; the rest is for a loaded machine.
    assert!(
        longest < Duration::from_millis(1500),
        "a writer waited {longest:?}"
    );

    holder.batch_execute("ROLLBACK").await.unwrap();
    assert!(!install(&database, &mapping).await.changed_nothing());
    assert_eq!(state(&owner, &mapping).await, State::Current);
}

#[tokio::test]
async fn pitfall_4_22_a_changed_mapping_is_upgraded_in_place_beside_open_transactions() {
    let database = Database::with_application("setup_upgrade").await;
    let mut mapping = Mapping::built_in();
    install(&database, &mapping).await;
    let writer = database.session().await;
    writer
        .batch_execute("BEGIN; UPDATE hubspot_sync.hubspot_bookings SET is_active = 'Active'")
        .await
        .unwrap();

    mapping.objects[1].properties.pop();
    let mut owner = database.session_as("app_owner").await;
    assert_eq!(
        state(&owner, &mapping).await,
        State::Outdated(vec!["capture:bookings".to_owned()])
    );
    let report = setup(&mut owner, &mapping, &impatient()).await.unwrap();
    assert_eq!(report.installed, ["capture function of bookings"]);
    assert_eq!(state(&owner, &mapping).await, State::Current);
}

#[tokio::test]
async fn an_object_that_left_the_mapping_loses_its_triggers_and_its_function() {
    let database = Database::with_application("setup_removed").await;
    let mut mapping = Mapping::built_in();
    install(&database, &mapping).await;
    let root = database.session().await;
    mapping.objects.truncate(1);
    mapping.audit = None;
    assert!(
        matches!(state(&root, &mapping).await, State::Outdated(names) if names.contains(&"capture:bookings".into()))
    );
    let report = install(&database, &mapping).await;
    assert!(
        report
            .removed
            .iter()
            .any(|what| what.contains("hubspot_bookings")),
        "{report:?}"
    );
    let left = catalog(&root).await;
    assert!(
        left.iter()
            .any(|line| line.contains("hubsyncd.capture_contacts()")),
        "{left:?}"
    );
    assert!(
        !left
            .iter()
            .any(|line| line.contains("capture_bookings") || line.contains("audit_entries")),
        "{left:?}"
    );
    assert_eq!(state(&root, &mapping).await, State::Current);
}

#[tokio::test]
async fn triggers_that_do_not_fire_are_named_and_mended() {
    let database = Database::with_application("setup_inventory").await;
    let mapping = Mapping::built_in();
    install(&database, &mapping).await;
    let root = database.session().await;
    root.batch_execute(
        "ALTER TABLE hubspot_sync.hubspot_contact_credits DISABLE TRIGGER hubsyncd_contacts_insert;
         ALTER TABLE hubspot_sync.hubspot_contact_credits ENABLE REPLICA TRIGGER hubsyncd_contacts_update;
         ALTER TABLE hubspot_sync.hubspot_contact_credits ENABLE ALWAYS TRIGGER hubsyncd_contacts_delete;
         DROP TRIGGER hubsyncd_bookings_truncate ON hubspot_sync.hubspot_bookings;
         DROP TRIGGER hubsyncd_entries ON hubspot_sync.supabase_audit_log",
    )
    .await
    .unwrap();
    let daemon = database.session_as("hubsyncd").await;
    assert_eq!(state(&daemon, &mapping).await, State::Current);
    let named = problems(&daemon, &mapping).await;
    for expected in [
        "hubsyncd_contacts_insert on hubspot_sync.hubspot_contact_credits is disabled",
        "hubsyncd_contacts_update on hubspot_sync.hubspot_contact_credits fires on replicas only",
        "hubsyncd_bookings_truncate on hubspot_sync.hubspot_bookings is missing",
        "hubsyncd_entries on hubspot_sync.supabase_audit_log is missing",
    ] {
        assert!(
            named.iter().any(|problem| problem.contains(expected)),
            "{expected} is not in {named:?}"
        );
    }
    assert_eq!(named.len(), 4, "{named:?}");
    install(&database, &mapping).await;
    assert_eq!(problems(&daemon, &mapping).await, Vec::<String>::new());
}

#[tokio::test]
async fn rows_hidden_by_row_level_security_and_missing_rights_are_named_and_mended() {
    let database = Database::with_application("setup_policies").await;
    let mapping = Mapping::built_in();
    install(&database, &mapping).await;
    let root = database.session().await;
    root.batch_execute(
        "DROP POLICY hubsyncd_read ON hubspot_sync.hubspot_bookings;
         DROP POLICY hubsyncd_write ON hubspot_sync.hubspot_contact_credits;
         ALTER TABLE hubspot_sync.supabase_audit_log ENABLE ROW LEVEL SECURITY;
         CREATE POLICY partly ON hubspot_sync.supabase_audit_log TO hubsyncd USING (id > 5);
         REVOKE UPDATE (hubspot_id) ON hubspot_sync.hubspot_bookings FROM hubsyncd;
         REVOKE INSERT ON hubsyncd.failure FROM hubsyncd",
    )
    .await
    .unwrap();
    let daemon = database.session_as("hubsyncd").await;
    let named = problems(&daemon, &mapping).await;
    for expected in [
        "hides rows of hubspot_sync.hubspot_bookings",
        "refuses writes to hubspot_sync.hubspot_contact_credits",
        "hides rows of hubspot_sync.supabase_audit_log",
        "refuses writes to hubspot_sync.supabase_audit_log",
        "lacks UPDATE (hubspot_id) on hubspot_sync.hubspot_bookings",
        "lacks INSERT on hubsyncd.failure",
    ] {
        assert!(
            named.iter().any(|problem| problem.contains(expected)),
            "{expected} is not in {named:?}"
        );
    }
    assert_eq!(named.len(), 6, "{named:?}");
    install(&database, &mapping).await;
    assert_eq!(problems(&daemon, &mapping).await, Vec::<String>::new());

    root.batch_execute(
        "CREATE POLICY night ON hubspot_sync.hubspot_bookings AS RESTRICTIVE USING (is_active <> 'x')",
    )
    .await
    .unwrap();
    let named = problems(&daemon, &mapping).await;
    assert!(
        named.len() == 1 && named[0].contains("restrictive policy night"),
        "{named:?}"
    );
    let report = install(&database, &mapping).await;
    assert!(
        report.notes.iter().any(|note| note.contains("night")),
        "{report:?}"
    );
}

#[tokio::test]
async fn the_printed_sql_does_what_setup_does() {
    for server in Server::every_version().await {
        let mapping = Mapping::built_in();
        let (ours, theirs) = (
            server.application("setup_run").await,
            server.application("setup_printed").await,
        );
        install(&ours, &mapping).await;
        let dba = theirs.session_as("app_owner").await;
        let printed = print(&dba, &mapping, &options()).await.unwrap();
        let parts: Vec<&str> = printed.split("-- Part 2").collect();
        assert_eq!(parts.len(), 2, "{printed}");
        assert!(parts[0].contains("CREATE OR REPLACE TRIGGER") && !parts[0].contains("TO \"hubsyncd\""));
        assert!(parts[1].contains(
            "UPDATE (\"hubspot_last_sync_at\") ON \"hubspot_sync\".\"hubspot_bookings\" TO \"hubsyncd\""
        ));
        for _ in 0..2 {
            dba.batch_execute(&printed).await.unwrap();
        }
        let (ours, theirs_root) = (ours.session().await, theirs.session().await);
        assert_eq!(catalog(&ours).await, catalog(&theirs_root).await);
        assert!(install(&theirs, &mapping).await.changed_nothing());
    }
}

#[tokio::test]
async fn setup_says_what_a_dba_must_run() {
    let server = Server::start(Default::default()).await;
    let database = server.application("setup_rights").await;
    let root = database.session().await;
    root.batch_execute("ALTER ROLE app_owner NOCREATEROLE")
        .await
        .unwrap();
    let mapping = Mapping::built_in();
    let mut owner = database.session_as("app_owner").await;
    let Err(Inspection::Database(error)) = setup(&mut owner, &mapping, &options()).await else {
        panic!()
    };
    assert_eq!(error.kind, ErrorKind::Denied);
    let (_, statements) = error
        .to_string()
        .split_once("must run: ")
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    root.batch_execute(&statements).await.unwrap();

    let nobody = Options::for_role("nobody yet");
    let report = setup(&mut owner, &mapping, &nobody).await.unwrap();
    assert!(report.granted.is_empty());
    let note = report.notes.join("\n");
    let statement = note.split('`').nth(1).unwrap();
    root.batch_execute(statement).await.unwrap();
    let report = setup(&mut owner, &mapping, &nobody).await.unwrap();
    assert!(
        !report.granted.is_empty() && report.installed.is_empty() && report.notes.is_empty(),
        "{report:?}"
    );
    let daemon = database.session_as("nobody%20yet").await;
    assert_eq!(problems(&daemon, &mapping).await, Vec::<String>::new());

    let mut app = database.session_as("app").await;
    let mut other = Mapping::built_in();
    other.objects.truncate(1);
    let Err(Inspection::Database(error)) = setup(&mut app, &other, &options()).await else {
        panic!()
    };
    assert_eq!(error.kind, ErrorKind::Denied);
}

#[tokio::test]
async fn uninstall_removes_what_setup_made_and_nothing_else() {
    let server = Server::start(Default::default()).await;
    let mapping = Mapping::built_in();
    let (database, neighbour) = (
        server.application("setup_undone").await,
        server.application("setup_kept").await,
    );
    let root = database.session().await;
    root.batch_execute(
        "CREATE ROLE other LOGIN; GRANT SELECT ON hubspot_sync.hubspot_mock_exams TO other;
         CREATE POLICY hubsyncd_mine ON hubspot_sync.hubspot_mock_exams FOR SELECT TO other USING (true)",
    )
    .await
    .unwrap();
    let before = catalog(&root).await;
    let mut owner = database.session_as("app_owner").await;
    for role in ["hubsyncd", "other"] {
        setup(&mut owner, &mapping, &Options::for_role(role))
            .await
            .unwrap();
    }
    assert_ne!(catalog(&root).await, before);
    install(&neighbour, &mapping).await;

    root.batch_execute("CREATE TABLE hubsyncd.theirs ()")
        .await
        .unwrap();
    assert!(uninstall(&mut owner, &options()).await.is_err());
    root.batch_execute("DROP TABLE hubsyncd.theirs").await.unwrap();
    let report = uninstall(&mut owner, &options()).await.unwrap();
    assert_eq!(catalog(&root).await, before);
    assert!(
        report.notes.iter().any(|note| note.contains("another database")),
        "{report:?}"
    );
    assert_eq!(state(&root, &mapping).await, State::Missing);

    let mut owner = neighbour.session_as("app_owner").await;
    uninstall(&mut owner, &options()).await.unwrap();
    let roles = "SELECT count(*) FROM pg_roles WHERE rolname = 'hubsyncd_owner'";
    assert_eq!(root.query_one(roles, &[]).await.unwrap().get::<_, i64>(0), 0);
    assert!(
        uninstall(&mut owner, &options())
            .await
            .unwrap()
            .removed
            .is_empty()
    );
}

#[tokio::test]
async fn databases_of_one_cluster_are_set_up_at_the_same_time() {
    let server = Server::start(Default::default()).await;
    let mapping = Mapping::built_in();
    let mut databases = Vec::new();
    for number in 0..4 {
        databases.push(server.application(&format!("setup_race{number}")).await);
    }
    let reports =
        futures::future::join_all(databases.iter().map(|database| install(database, &mapping))).await;
    assert!(
        reports
            .iter()
            .all(|report| report.notes.is_empty() && !report.installed.is_empty())
    );
}

#[tokio::test]
async fn everything_that_does_not_fit_the_mapping_is_named_at_once() {
    let database = Database::with_application("setup_misfits").await;
    let root = database.session().await;
    root.batch_execute(
        "CREATE TYPE pair AS (a int, b int);
         ALTER TABLE hubspot_sync.hubspot_bookings ADD photo bytea, ADD both_ pair[], ADD price money, ADD made date;
         CREATE VIEW hubspot_sync.seen AS SELECT id::text AS id, hubspot_id FROM hubspot_sync.hubspot_mock_exams",
    )
    .await
    .unwrap();
    let mut mapping = Mapping::built_in();
    mapping.objects[0].table.name = "hubspot_contact_credit".to_owned();
    let columns = ["photo", "both_", "price", "gone"];
    for (property, column) in mapping.objects[1].properties.iter_mut().zip(columns) {
        property.column = column.to_owned();
    }
    mapping.objects[1].key = "made".to_owned();
    mapping.objects[1].hubspot_id = "made".to_owned();
    mapping.objects[2].from = Some(TableName {
        schema: "hubspot_sync".into(),
        name: "seen".into(),
    });
    mapping.objects[2].watch = vec!["nothing".to_owned()];
    let Err(Inspection::Problems(problems)) = inspect(&root, &mapping).await else {
        panic!()
    };
    let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
    for expected in [
        "table hubspot_sync.hubspot_contact_credit does not exist",
        "`photo` of hubspot_sync.hubspot_bookings is of a type",
        "`both_` of hubspot_sync.hubspot_bookings is of a type",
        "`price` of hubspot_sync.hubspot_bookings is of a type",
        "`gone` of hubspot_sync.hubspot_bookings does not exist",
        "object bookings: key: column `made` of hubspot_sync.hubspot_bookings is date",
        "object bookings: hubspot-id",
        "`id` is uuid in hubspot_sync.hubspot_mock_exams and text in hubspot_sync.seen",
        "`nothing` of hubspot_sync.hubspot_mock_exams does not exist",
        "`total_bookings` of hubspot_sync.seen does not exist",
    ] {
        assert!(
            said.iter().any(|problem| problem.contains(expected)),
            "{expected} is not in {said:#?}"
        );
    }
}

#[tokio::test]
async fn the_views_answer_the_documents_and_do_not_hold_the_tables() {
    let database = Database::with_application("setup_views").await;
    let mapping = Mapping::built_in();
    install(&database, &mapping).await;
    let root = database.session().await;
    root.batch_execute(
        "INSERT INTO hubspot_sync.hubspot_contact_credits (hubspot_id, student_id, email, created_at, hubspot_last_sync_at)
         VALUES ('1', 'a', 'a', '2020-01-01', now()), (NULL, 'b', 'b', '2021-01-01', NULL), (' ', 'c', 'c', '2022-01-01', '2020-01-01')",
    )
    .await
    .unwrap();
    let daemon = database.session_as("hubsyncd").await;
    let asked = "SELECT table_name || ' ' || total_records || ' ' || awaiting_hubspot_id || ' ' || coalesce(oldest_pending::text, '-')
                 FROM hubsyncd.awaiting_id";
    let awaiting: Vec<String> = daemon
        .query(asked, &[])
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(
        awaiting,
        ["contact_credits 3 2 2021-01-01 00:00:00+00", "bookings 0 0 -"]
    );
    let asked = "SELECT table_name || ' ' || coalesce((last_sync > now() - interval '1 hour')::text, '-') || ' ' || synced_recently
                 FROM hubsyncd.last_sync";
    let last: Vec<String> = daemon
        .query(asked, &[])
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(last, ["contact_credits true 1", "bookings - 0", "mock_exams - 0"]);
    root.batch_execute(
        "ALTER TABLE hubspot_sync.hubspot_contact_credits ALTER created_at TYPE timestamptz;
         ALTER TABLE hubspot_sync.hubspot_contact_credits DROP hubspot_last_sync_at;
         DROP TABLE hubspot_sync.hubspot_bookings",
    )
    .await
    .unwrap();
}
