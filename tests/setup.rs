//! Setup: what is installed, for whom, how it is upgraded and taken away, and that nobody has to wait for it.

use crate::support::postgres::Database;
use hubsyncd::mapping::Mapping;
use hubsyncd::postgres::Session;
use hubsyncd::postgres::catalog::inspect;
use hubsyncd::postgres::inventory::inventory;
use hubsyncd::postgres::schema::{State, installed};
use hubsyncd::postgres::setup::{Options, Report, setup};

fn options() -> Options {
    Options::for_role("hubsyncd")
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
