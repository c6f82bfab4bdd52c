//! Who may ask, and how often.

use super::{OBJECTS, SOON, batch, cars, get, http, portal, post};
use hubsyncd::sandbox::{Sandbox, Settings};
use serde_json::json;
use std::time::Duration;

async fn limited(requests_per_window: u32, daily: u32) -> Sandbox {
    let settings = Settings {
        requests_per_window: Some(requests_per_window),
        daily: Some(daily),
        ..Settings::default()
    };
    cars(settings).await
}

#[tokio::test]
async fn a_wrong_token_is_refused_before_everything_else() {
    let sandbox = portal().await;
    let url = format!("{}/no/such/path", sandbox.base_url());
    let answer = http()
        .get(url)
        .bearer_auth("wrong")
        .timeout(SOON)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 401);
    let body: serde_json::Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    assert_eq!(body["category"], "INVALID_AUTHENTICATION");
    assert_eq!(get(&sandbox, "/no/such/path").await.status, 404);
    assert_eq!(get(&sandbox, "/crm/objects/2025-09/contacts").await.status, 404);
}

#[tokio::test]
async fn a_missing_scope_is_named() {
    let sandbox = portal().await;
    sandbox.world().revoke_scope("crm.objects.custom.write");
    let answer = batch(&sandbox, "2-77", "upsert", json!([])).await;
    assert_eq!(
        (answer.status, answer.body["category"].as_str()),
        (403, Some("MISSING_SCOPES"))
    );
    let needed = &answer.errors()[0]["context"]["requiredGranularScopes"];
    assert_eq!(needed, &json!(["crm.objects.custom.write"]));
    assert_eq!(batch(&sandbox, "2-77", "read", json!([])).await.status, 200);
}

#[tokio::test]
async fn the_window_rolls_and_its_headers_say_what_is_left() {
    let sandbox = limited(3, 1_000).await;
    let path = format!("{OBJECTS}/cars");
    for left in ["2", "1", "0"] {
        let answer = get(&sandbox, &path).await;
        assert_eq!(answer.header("x-hubspot-ratelimit-remaining"), Some(left));
        assert_eq!(answer.header("x-hubspot-ratelimit-max"), Some("3"));
        assert_eq!(
            answer.header("x-hubspot-ratelimit-interval-milliseconds"),
            Some("10000")
        );
    }
    let refused = get(&sandbox, &path).await;
    assert_eq!(
        (refused.status, refused.message()),
        (429, "You have reached your ten_secondly_rolling limit.")
    );
    assert_eq!(
        (refused.body["policyName"].as_str(), refused.header("retry-after")),
        (Some("TEN_SECONDLY_ROLLING"), None)
    );
    assert_eq!(refused.header("x-hubspot-ratelimit-daily-remaining"), Some("997"));
    sandbox.advance(Duration::from_secs(10));
    assert_eq!(get(&sandbox, &path).await.status, 200);
    sandbox.spend(2, 2);
    assert_eq!(get(&sandbox, &path).await.status, 429);
}

#[tokio::test]
async fn the_day_ends_at_the_portals_midnight() {
    let sandbox = limited(100, 2).await;
    let path = format!("{OBJECTS}/cars");
    get(&sandbox, &path).await;
    get(&sandbox, &path).await;
    let refused = get(&sandbox, &path).await;
    assert_eq!(
        (refused.status, refused.body["policyName"].as_str()),
        (429, Some("DAILY"))
    );
    sandbox.advance(Duration::from_secs(86_400));
    let fresh = get(&sandbox, &path).await;
    assert_eq!(
        (fresh.status, fresh.header("x-hubspot-ratelimit-daily-remaining")),
        (200, Some("1"))
    );
}

#[tokio::test]
async fn searches_have_a_bucket_of_their_own_and_no_headers() {
    let sandbox = limited(1, 1_000).await;
    let path = format!("{OBJECTS}/cars/search");
    for _ in 0..5 {
        let answer = post(&sandbox, &path, json!({})).await;
        assert_eq!(
            (answer.status, answer.header("x-hubspot-ratelimit-max")),
            (200, None)
        );
    }
    let refused = post(&sandbox, &path, json!({})).await;
    assert_eq!(
        (refused.status, refused.body["policyName"].as_str()),
        (429, Some("SECONDLY"))
    );
    assert_eq!(get(&sandbox, &format!("{OBJECTS}/cars")).await.status, 200);
    sandbox.advance(Duration::from_secs(1));
    assert_eq!(post(&sandbox, &path, json!({})).await.status, 200);
}

#[tokio::test]
async fn without_limits_nothing_is_refused_and_no_header_is_sent() {
    let sandbox = portal().await;
    for _ in 0..20 {
        let answer = get(&sandbox, &format!("{OBJECTS}/cars")).await;
        assert_eq!(
            (answer.status, answer.header("x-hubspot-ratelimit-max")),
            (200, None)
        );
    }
    sandbox.limit(Some(1), None);
    get(&sandbox, &format!("{OBJECTS}/cars")).await;
    assert_eq!(get(&sandbox, &format!("{OBJECTS}/cars")).await.status, 429);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let sandbox = cars(Settings {
        body_max_bytes: 1_000,
        ..Settings::default()
    })
    .await;
    let answer = batch(&sandbox, "cars", "upsert", json!(["x".repeat(2_000)])).await;
    assert_eq!(answer.status, 413);
}

#[tokio::test]
async fn a_request_takes_as_long_as_it_is_told_to() {
    let sandbox = cars(Settings {
        latency: Duration::from_millis(40),
        ..Settings::default()
    })
    .await;
    let started = std::time::Instant::now();
    get(&sandbox, &format!("{OBJECTS}/cars")).await;
    assert!(started.elapsed() >= Duration::from_millis(40));
}
