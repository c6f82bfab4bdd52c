//! Tables of other shapes than the documents': strange names, views, conditions, partitions.

use super::{captured, only, taken};
use crate::support::postgres::Server;
use hubsyncd::mapping::TableName;
use hubsyncd::postgres::setup::{Options, setup};

#[tokio::test]
async fn strange_names_and_hostile_values_are_only_names_and_values() {
    for server in Server::every_version().await {
        let database = server.database("capture_names").await;
        let mut owner = database.session_as("app_owner").await;
        owner
            .batch_execute(
                r#"CREATE SCHEMA "My ""Schema""; DROP";
                   CREATE DOMAIN "My ""Schema""; DROP"."Do""main" AS text;
                   CREATE TABLE "My ""Schema""; DROP"."$hubsyncd$ ta'ble
-- {{ring}}" ("the ""key""\" text PRIMARY KEY, "select" varchar(40), "TG_OP" json, "found" int4range, "new" text[],
                      "new_rows" "My ""Schema""; DROP"."Do""main", "synced
at" timestamptz, "n" interval, "o" point, "old" xml)"#,
            )
            .await
            .unwrap();
        let columns = ["TG_OP", "found", "new", "new_rows", "n", "o", "old"];
        let mut mapping = only(
            "My \"Schema\"; DROP",
            "$hubsyncd$ ta'ble\n-- {{ring}}",
            "the \"key\"\\",
            &columns,
        );
        mapping.objects[0].hubspot_id = "select".to_owned();
        mapping.objects[0].synced_at = "synced\nat".to_owned();
        let table = r#""My ""Schema""; DROP"."$hubsyncd$ ta'ble
-- {{ring}}""#;
        let report = setup(&mut owner, &mapping, &Options::for_role("hubsyncd"))
            .await
            .unwrap();
        assert!(report.notes.is_empty());
        let root = database.session().await;
        let key = "'; DROP TABLE hubsyncd.change; -- \u{1f4a5} \\ $$ %s {{key}}";
        owner
            .execute(&format!("INSERT INTO {table} VALUES ($1)"), &[&key])
            .await
            .unwrap();
        let named = |op: char| {
            let sql = format!("SELECT key FROM hubsyncd.change WHERE op = '{op}'");
            let root = &root;
            async move { root.query_one(&sql, &[]).await.unwrap().get::<_, String>(0) }
        };
        assert_eq!(named('I').await, key);
        taken(&root).await;
        for change in [
            r#""TG_OP" = '{"a": 1}'"#,
            r#""TG_OP" = '{"a": 2}'"#,
            r#""found" = '[1,5)'"#,
            r#""new" = '{a,b}'"#,
            r#""new_rows" = repeat('x', 65536)"#,
            r#""new_rows" = 'X'"#,
            r#""n" = '1 month'"#,
            r#""n" = '30 days'"#,
            r#""o" = '(1,2)'"#,
            r#""old" = '<a/>'"#,
        ] {
            owner
                .batch_execute(&format!("UPDATE {table} SET {change}"))
                .await
                .unwrap();
            assert_eq!(named('N').await, key, "{change}");
            taken(&root).await;
        }
        owner
            .batch_execute(&format!(
                "UPDATE {table} SET \"TG_OP\" = \"TG_OP\", \"synced\nat\" = now()"
            ))
            .await
            .unwrap();
        assert!(taken(&root).await.is_empty());
        owner
            .batch_execute(&format!("DELETE FROM {table}"))
            .await
            .unwrap();
        assert_eq!(named('D').await, key);
        let again = setup(&mut owner, &mapping, &Options::for_role("hubsyncd"))
            .await
            .unwrap();
        assert!(again.changed_nothing(), "{again:?}");
    }
}

#[tokio::test]
async fn a_view_is_watched_through_the_columns_of_its_table() {
    for server in Server::every_version().await {
        let database = server.database("capture_watch").await;
        let mut owner = database.session_as("app_owner").await;
        owner
            .batch_execute(
                "CREATE SCHEMA app; SET search_path = app;
                 CREATE TABLE raw (id int PRIMARY KEY, hubspot_id text, hubspot_last_sync_at timestamptz, a int, b int);
                 CREATE VIEW shown AS SELECT id, a * 2 AS twice FROM raw; INSERT INTO raw VALUES (1, 'h', NULL, 1, 1)",
            )
            .await
            .unwrap();
        let mut mapping = only("app", "raw", "id", &["twice"]);
        mapping.objects[0].from = Some(TableName {
            schema: "app".to_owned(),
            name: "shown".to_owned(),
        });
        mapping.objects[0].watch = vec!["a".to_owned()];
        setup(&mut owner, &mapping, &Options::for_role("hubsyncd"))
            .await
            .unwrap();
        let root = database.session().await;
        assert!(captured(&owner, &root, "UPDATE raw SET b = 2").await.is_empty());
        assert_eq!(
            captured(&owner, &root, "UPDATE raw SET a = 2").await,
            ["contacts U 1"]
        );
        assert_eq!(
            captured(&owner, &root, "UPDATE raw SET hubspot_id = 'i'").await,
            ["contacts U 1"]
        );
    }
}

#[tokio::test]
async fn a_row_that_enters_or_leaves_the_condition_is_named() {
    for server in Server::every_version().await {
        let database = server.database("capture_where").await;
        let mut owner = database.session_as("app_owner").await;
        owner
            .batch_execute(
                r#"CREATE SCHEMA app; SET search_path = app;
                   CREATE TABLE raw (id int PRIMARY KEY, hubspot_id text, hubspot_last_sync_at timestamptz, a int,
                       state text, "Deleted At" timestamptz, other text);
                   CREATE FUNCTION fails(text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
                   INSERT INTO raw VALUES (1, 'h')"#,
            )
            .await
            .unwrap();
        let mut mapping = only("app", "raw", "id", &["a"]);
        let condition = r#"fails(raw.State) AND "Deleted At" IS NULL AND hubspot_last_sync_at IS NULL AND 'it''s "x' <> ''"#;
        mapping.objects[0].condition = Some(condition.to_owned());
        setup(&mut owner, &mapping, &Options::for_role("hubsyncd"))
            .await
            .unwrap();
        let root = database.session().await;
        assert_eq!(
            captured(&owner, &root, "UPDATE raw SET state = 'x'").await,
            ["contacts U 1"]
        );
        assert_eq!(
            captured(&owner, &root, "UPDATE raw SET \"Deleted At\" = now()").await,
            ["contacts U 1"]
        );
        // A receipt writes what the condition reads.
        let receipt =
            "BEGIN; SET LOCAL hubsyncd.receipt = 'on'; UPDATE raw SET hubspot_last_sync_at = now(); COMMIT";
        assert!(captured(&owner, &root, receipt).await.is_empty());
        mapping.objects[0].condition = Some("raw IS NOT NULL".to_owned());
        setup(&mut owner, &mapping, &Options::for_role("hubsyncd"))
            .await
            .unwrap();
        assert_eq!(
            captured(&owner, &root, "UPDATE raw SET other = 'x'").await,
            ["contacts U 1"]
        );
    }
}

#[tokio::test]
async fn a_partitioned_table_is_captured_through_its_parent() {
    for server in Server::every_version().await {
        let database = server.database("capture_parts").await;
        let mut owner = database.session_as("app_owner").await;
        owner
            .batch_execute(
                "CREATE SCHEMA app; SET search_path = app;
                 CREATE TABLE raw (id int, hubspot_id text, hubspot_last_sync_at timestamptz, a int, part int,
                                   PRIMARY KEY (id, part)) PARTITION BY LIST (part);
                 CREATE TABLE raw_1 PARTITION OF raw FOR VALUES IN (1);
                 CREATE TABLE raw_2 (part int NOT NULL, a int, hubspot_last_sync_at timestamptz, hubspot_id text, id int NOT NULL);
                 ALTER TABLE raw ATTACH PARTITION raw_2 FOR VALUES IN (2)",
            )
            .await
            .unwrap();
        let mapping = only("app", "raw", "id", &["a"]);
        setup(&mut owner, &mapping, &Options::for_role("hubsyncd"))
            .await
            .unwrap();
        let root = database.session().await;
        let insert = "INSERT INTO raw VALUES (1, 'h', NULL, 5, 1), (2, NULL, NULL, 6, 2)";
        assert_eq!(
            captured(&owner, &root, insert).await,
            ["contacts I 1", "contacts I 2"]
        );
        assert_eq!(
            captured(&owner, &root, "UPDATE raw SET a = 7 WHERE id = 2").await,
            ["contacts N 2"]
        );
        // Moving to another partition is no change of what is sent.
        assert!(
            captured(&owner, &root, "UPDATE raw SET part = 2 WHERE id = 1")
                .await
                .is_empty()
        );
        assert_eq!(
            captured(&owner, &root, "DELETE FROM raw WHERE id = 1").await,
            ["contacts D 1 h"]
        );
        root.batch_execute("TRUNCATE app.raw").await.unwrap();
        assert_eq!(taken(&root).await, ["contacts T"]);
    }
}
