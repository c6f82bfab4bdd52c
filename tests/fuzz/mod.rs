//! Tests: fuzzing. Whatever comes from outside is hostile: replies, requests on the socket, configuration,
//! notifications, rows. Each file generates one of them and states what must hold whatever was generated.
//!
//! `HUBSYNCD_FUZZ_CASES` multiplies the number of cases of every property (default 1); a failing case is shrunk and
//! printed, and `PROPTEST_RNG_SEED` replays a run.

mod configuration;
mod notifications;
mod replies;
mod rows;
mod socket;

use proptest::test_runner::{Config, TestRunner};

/// A runner of `cases` cases, times the knob.
fn runner(cases: u32) -> TestRunner {
    let times = match std::env::var("HUBSYNCD_FUZZ_CASES") {
        Ok(times) => times.parse().expect("HUBSYNCD_FUZZ_CASES is a number"),
        Err(_) => 1,
    };
    let mut config = Config::with_cases(cases * times);
    config.failure_persistence = None;
    TestRunner::new(config)
}
