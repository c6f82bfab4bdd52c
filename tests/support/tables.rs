//! A database with our tables and the application's, for the tests of what reads and writes them.

use super::postgres::{Database, Server};
use hubsyncd::mapping::Mapping;
use hubsyncd::postgres::Session;
use hubsyncd::postgres::setup::{Options, setup};

/// The tables alone: nothing is captured, so that a test sees its own changes only. Answers the daemon's session and the
/// application's.
pub async fn database(server: &Server, hint: &str) -> (Database, Session, Session) {
    let database = server.application(hint).await;
    let tables = include_str!("../../sql/schema.sql");
    let tables = tables.split("\nGRANT ").next().unwrap();
    let rights =
        "GRANT USAGE ON SCHEMA hubsyncd TO hubsyncd; GRANT ALL ON ALL TABLES IN SCHEMA hubsyncd TO hubsyncd;
                  GRANT ALL ON ALL SEQUENCES IN SCHEMA hubsyncd TO hubsyncd";
    let owner = database.session().await;
    owner
        .batch_execute(&format!("{tables};\n{rights}"))
        .await
        .unwrap();
    with_sessions(database).await
}

/// Everything that setup installs for the built-in mapping.
pub async fn captured(server: &Server, hint: &str) -> (Database, Session, Session) {
    let database = server.application(hint).await;
    let mut owner = database.session_as("app_owner").await;
    let options = Options::for_role("hubsyncd");
    setup(&mut owner, &Mapping::built_in(), &options).await.unwrap();
    with_sessions(database).await
}

async fn with_sessions(database: Database) -> (Database, Session, Session) {
    let daemon = database.session_as("hubsyncd").await;
    let application = database.session_as("app").await;
    (database, daemon, application)
}
