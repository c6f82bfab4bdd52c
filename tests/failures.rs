//! Tests: the lists that operators read, of failures and of runs.

use super::support::postgres::{Database, Server};
use super::support::tables;
use hubsyncd::mapping::Mapping;
use hubsyncd::postgres::Session;
use hubsyncd::postgres::{failures, runs};
use serde_json::json;

async fn start() -> (Database, Session, Session) {
    let (database, daemon, _) = tables::database(Server::shared().await, "failures").await;
    let owner = database.session().await;
    (database, daemon, owner)
}

async fn fail(owner: &Session, object: &str, key: &str, second: u32, full_record: bool) {
    let sql = "INSERT INTO hubsyncd.failure (object, key, category, message, properties, full_record, first_failed_at, last_failed_at)
               VALUES ($1, $2, 'value', 'because', '{email}', $4, '2026-01-01 00:00+00', to_timestamp($3))";
    owner
        .execute(sql, &[&object, &key, &f64::from(second), &full_record])
        .await
        .unwrap();
}

#[tokio::test]
async fn failures_are_listed_the_latest_first_and_page_by_page_without_gap_or_repeat() {
    let (_database, daemon, owner) = start().await;
    for (key, second) in [("a", 1), ("b:c", 2), ("d", 2), ("e", 2), ("f", 3)] {
        fail(&owner, "contacts", key, second, false).await;
    }
    fail(&owner, "bookings", "d", 2, true).await;
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = failures::list(&daemon, after.as_ref(), 2).await.unwrap();
        seen.extend(
            page.failures
                .iter()
                .map(|failure| format!("{} {}", failure.object, failure.key)),
        );
        let Some(next) = page.next else { break };
        // As a URL carries it.
        after = Some(next.to_string().parse().unwrap());
        assert_eq!(after.as_ref(), Some(&next));
    }
    assert_eq!(
        seen,
        [
            "contacts f",
            "contacts e",
            "contacts d",
            "contacts b:c",
            "bookings d",
            "contacts a"
        ]
    );
    let whole = failures::list(&daemon, None, 6).await.unwrap();
    assert_eq!((whole.failures.len(), whole.next), (6, None));
    let first = &whole.failures[4];
    assert_eq!(
        (first.first_failed_at, first.last_failed_at),
        (1_767_225_600_000_000, 2_000_000)
    );
    assert_eq!(
        (first.full_record, first.attempts, &first.properties[0][..]),
        (true, 1, "email")
    );
    assert_eq!(
        failures::get(&daemon, "bookings", "d").await.unwrap().as_ref(),
        Some(first)
    );
    assert_eq!(failures::get(&daemon, "bookings", "a").await.unwrap(), None);
    assert_eq!(
        failures::counts(&daemon, &Mapping::built_in()).await.unwrap(),
        [5, 1, 0]
    );
    for text in ["", "1", "1:contacts", "x:contacts:k"] {
        assert!(text.parse::<failures::Cursor>().is_err(), "{text}");
    }
}

#[tokio::test]
async fn a_retry_names_failed_rows_and_with_create_only_properties_where_they_are_due() {
    let (_database, daemon, owner) = start().await;
    for (object, key, full) in [
        ("contacts", "a", false),
        ("contacts", "b", true),
        ("bookings", "a", false),
    ] {
        fail(&owner, object, key, 1, full).await;
    }
    let named = async || {
        let sql = "WITH gone AS (DELETE FROM hubsyncd.change RETURNING *) SELECT coalesce(string_agg(concat_ws(' ', object, key, op), \
                   ', ' ORDER BY object, key), '') FROM gone";
        owner.query_one(sql, &[]).await.unwrap().get::<_, String>(0)
    };
    assert_eq!(failures::retry(&daemon, None, None).await.unwrap(), 3);
    assert_eq!(named().await, "bookings a U, contacts a U, contacts b N");
    assert_eq!(failures::retry(&daemon, Some("contacts"), None).await.unwrap(), 2);
    assert_eq!(named().await, "contacts a U, contacts b N");
    assert_eq!(
        failures::retry(&daemon, Some("contacts"), Some("b"))
            .await
            .unwrap(),
        1
    );
    assert_eq!(named().await, "contacts b N");
    assert_eq!(
        failures::retry(&daemon, Some("contacts"), Some("z"))
            .await
            .unwrap(),
        0
    );
    assert_eq!(
        failures::erase(&daemon, "contacts", &["a", "z"]).await.unwrap(),
        1
    );
    assert_eq!(
        failures::counts(&daemon, &Mapping::built_in()).await.unwrap(),
        [1, 1, 0]
    );
}

#[tokio::test]
async fn runs_are_kept_with_their_summary_and_listed_newest_first() {
    let (_database, daemon, owner) = start().await;
    let mut ids = Vec::new();
    for reason in ["start", "clock", "signal"] {
        let (id, started_at) = runs::start(&daemon, "sweep", reason).await.unwrap();
        assert!(started_at > 1_700_000_000_000_000);
        ids.push(id);
    }
    let summary = json!({"contacts": {"created": 1, "updated": 2, "failed": 0}});
    runs::finish(&daemon, ids[0], "complete", &summary).await.unwrap();
    runs::finish(&daemon, ids[1], "incomplete", &json!({}))
        .await
        .unwrap();
    let page = runs::list(&daemon, None, 2).await.unwrap();
    let reasons: Vec<_> = page.runs.iter().map(|run| run.reason.as_str()).collect();
    assert_eq!((reasons, page.next), (vec!["signal", "clock"], Some(ids[1])));
    let page = runs::list(&daemon, page.next, 2).await.unwrap();
    assert_eq!((page.runs.len(), page.next), (1, None));
    assert_eq!(page.runs[0].summary, Some(summary));
    assert!(page.runs[0].finished_at >= Some(page.runs[0].started_at));
    let last = runs::last(&daemon, "sweep", Some("complete")).await.unwrap();
    assert_eq!(last.as_ref(), Some(&page.runs[0]));
    assert_eq!(
        runs::last(&daemon, "sweep", None)
            .await
            .unwrap()
            .map(|run| run.id),
        Some(ids[1])
    );
    assert_eq!(runs::last(&daemon, "mirror", None).await.unwrap(), None);
    assert_eq!(runs::close_abandoned(&daemon, "incomplete").await.unwrap(), 1);
    let closed = runs::get(&daemon, ids[2]).await.unwrap().unwrap();
    assert_eq!(
        (closed.outcome.as_deref(), closed.finished_at.is_some()),
        (Some("incomplete"), true)
    );
    let age = "UPDATE hubsyncd.run SET started_at = now() - interval '91 days' WHERE reason = 'start'";
    owner.batch_execute(age).await.unwrap();
    assert_eq!(runs::prune(&daemon).await.unwrap(), 1);
    assert_eq!(runs::get(&daemon, ids[0]).await.unwrap(), None);
}
