//! Tests: the lists that operators read, of failures and of runs.

use super::support::postgres::{Database, Server};
use super::support::tables;
use hubsyncd::mapping::Mapping;
use hubsyncd::postgres::{ErrorKind, Session, failures, runs};
use hubsyncd::sync::report::{Counts, Run, Summary};

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
    let mut kept = Vec::new();
    for (at, reason) in ["start", "clock", "signal", "trigger"].into_iter().enumerate() {
        let run = Run {
            id: uuid::Uuid::now_v7().to_string(),
            kind: "sweep".to_owned(),
            reason: reason.to_owned(),
            started_at: 1_800_000_000_000_000 + at as i64,
            finished_at: None,
            outcome: None,
            error: None,
            summary: Summary::default(),
        };
        runs::keep(&daemon, &run).await.unwrap();
        kept.push(run);
    }
    let counts = Counts {
        created: 1,
        updated: 2,
        failed: 0,
    };
    for (at, outcome) in [(0, "complete"), (1, "incomplete"), (3, "complete")] {
        kept[at].finished_at = Some(kept[at].started_at + 5);
        kept[at].outcome = Some(outcome.to_owned());
        kept[at].error = (outcome == "incomplete").then(|| "HubSpot was away".to_owned());
        kept[at].summary = Summary(vec![("contacts".to_owned(), counts)]);
        runs::keep(&daemon, &kept[at]).await.unwrap();
    }
    let page = runs::list(&daemon, None, 3).await.unwrap();
    assert_eq!(page.runs, [kept[3].clone(), kept[2].clone(), kept[1].clone()]);
    let page = runs::list(&daemon, page.next.as_deref(), 3).await.unwrap();
    assert_eq!((page.runs, page.next), (vec![kept[0].clone()], None));
    let nonsense = runs::list(&daemon, Some("nonsense"), 3).await.unwrap_err();
    assert_eq!(nonsense.kind, ErrorKind::Rows);
    let complete = runs::last(&daemon, "sweep", Some("complete")).await.unwrap();
    assert_eq!(
        complete.as_ref(),
        Some(&kept[0]),
        "a trigger's sweep is not a whole one"
    );
    let last = runs::last(&daemon, "sweep", None).await.unwrap();
    assert_eq!(last.as_ref(), Some(&kept[1]));
    assert_eq!(runs::last(&daemon, "mirror", None).await.unwrap(), None);
    assert_eq!(runs::close_abandoned(&daemon).await.unwrap(), 1);
    let page = runs::list(&daemon, None, 4).await.unwrap();
    assert_eq!(page.runs[1].outcome.as_deref(), Some("incomplete"));
    assert!(page.runs[1].finished_at.is_some() && page.runs[1].error.is_some());
    let age = "UPDATE hubsyncd.run SET started_at = now() - interval '91 days' WHERE reason = 'start'";
    owner.batch_execute(age).await.unwrap();
    assert_eq!(runs::prune(&daemon).await.unwrap(), 1);
    assert_eq!(runs::list(&daemon, None, 9).await.unwrap().runs.len(), 3);
}
