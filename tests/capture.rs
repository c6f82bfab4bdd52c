//! Capture: every change of the application names its row, in its own transaction, and never harms it.

use crate::support::postgres::{Database, Server};
use hubsyncd::mapping::Mapping;
use hubsyncd::postgres::Session;
use hubsyncd::postgres::setup::{Options, setup};

/// A database with the application's tables and our triggers, a session of the application, one of the superuser.
async fn prepared(server: &Server, hint: &str, mapping: &Mapping) -> (Database, Session, Session) {
    let database = server.application(hint).await;
    let mut owner = database.session_as("app_owner").await;
    setup(&mut owner, mapping, &Options::for_role("hubsyncd"))
        .await
        .unwrap();
    let app = database.session_as("app").await;
    let root = database.session().await;
    (database, app, root)
}

/// The built-in mapping with triggers on every table.
fn everything() -> Mapping {
    let mut mapping = Mapping::built_in();
    for object in &mut mapping.objects {
        object.capture = true;
    }
    mapping
}

/// The changes captured since the last call, in order: `object op key hubspot_id`, keys shortened to their last four
/// characters.
async fn taken(root: &Session) -> Vec<String> {
    let take = "
        WITH taken AS (DELETE FROM hubsyncd.change RETURNING *)
        SELECT concat_ws(' ', object, op::text, right(key, 4), hubspot_id) FROM taken ORDER BY seq";
    root.query(take, &[])
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect()
}

const CONTACT: &str = "
    INSERT INTO hubspot_sync.hubspot_contact_credits (id, student_id, email, firstname)
    VALUES ('00000000-0000-0000-0000-00000000c001', 's1', 'ada@example.com', 'Ada')";

#[tokio::test]
async fn a_change_of_each_kind_names_its_row() {
    for server in Server::every_version().await {
        let (_database, app, root) = prepared(server, "capture_kinds", &everything()).await;
        app.batch_execute(CONTACT).await.unwrap();
        assert_eq!(taken(&root).await, ["contacts I c001"]);
        let update = |what: &str| format!("UPDATE hubspot_sync.hubspot_contact_credits SET {what}");
        app.batch_execute(&update("sj_credits = 3")).await.unwrap();
        assert_eq!(taken(&root).await, ["contacts N c001"]);
        app.batch_execute(&update("hubspot_id = '77'")).await.unwrap();
        assert_eq!(taken(&root).await, ["contacts U c001"]);
        app.batch_execute(&update("sj_credits = 4")).await.unwrap();
        assert_eq!(taken(&root).await, ["contacts U c001"]);
        app.batch_execute("DELETE FROM hubspot_sync.hubspot_contact_credits")
            .await
            .unwrap();
        assert_eq!(taken(&root).await, ["contacts D c001 77"]);
    }
}
