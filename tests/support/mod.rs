//! What the tests stand on: a private Postgres, the sandbox, the built daemon, waiting for predicates.

#![allow(dead_code, reason = "each topic uses its own part of it")]

pub mod daemon;
pub mod going;
pub mod instep;
pub mod machine;
pub mod mirroring;
pub mod postgres;
pub mod proxy;
pub mod reading;
pub mod receipts;
pub mod scene;
pub mod served;
pub mod sweeping;
pub mod tables;

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long a test waits for what should happen at once.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Waits until the predicate holds; panics with `what` when it does not within [`DEADLINE`].
pub async fn wait_until(what: &str, predicate: impl AsyncFnMut() -> bool) {
    wait_within(DEADLINE, what, predicate).await;
}

/// The same with a deadline of the test's own, for what takes its time.
pub async fn wait_within(deadline: Duration, what: &str, mut predicate: impl AsyncFnMut() -> bool) {
    let begin = Instant::now();
    while !predicate().await {
        assert!(
            begin.elapsed() < deadline,
            "waited {deadline:?} in vain until {what}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// One client for all tests, since making one reads the machine's certificates; it keeps no connection,
/// since each would belong to a runtime that ends with its test.
pub fn http() -> &'static reqwest::Client {
    static CLIENT: OnceLock<reqwest::Client> = OnceLock::new();
    CLIENT.get_or_init(|| {
        // A second installation fails and does not matter.
        let _ = rustls::crypto::ring::default_provider().install_default();
        reqwest::Client::builder()
            .pool_max_idle_per_host(0)
            .build()
            .unwrap()
    })
}

/// Whether the tests that need more than Postgres are to run; then a missing tool is a failure.
pub fn extras() -> bool {
    std::env::var_os("HUBSYNCD_TEST_EXTRAS").is_some_and(|value| value == "1")
}
