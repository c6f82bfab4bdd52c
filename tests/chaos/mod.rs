//! Chaos: the built daemon, a real Postgres and the sandbox, with writers at work while everything is attacked.
//!
//! A run is drawn from a seed: what is attacked, where, and what the writers do; how the machine interleaves it all is
//! not. `cargo test` makes short runs of fixed seeds. The long one, which prints its figures:
//!
//! ```text
//! HUBSYNCD_CHAOS=long cargo test --release --test all chaos:: -- --nocapture
//! ```
//!
//! `HUBSYNCD_CHAOS_SEED=7` makes one short run, or the long test, of another seed; with `HUBSYNCD_CHAOS=one` it makes one
//! of the long test's runs again, which are named by their seeds as they begin.

mod attacks;
mod dice;
mod ground;
mod ledger;
mod oracle;
mod run;
mod story;
mod writers;

use run::{Figures, Plan};

/// The seeds of the short runs.
const SEEDS: [u64; 2] = [1, 2];

/// What a short run comes to at least.
const SHORT: Plan = Plan {
    kills: 2,
    faults: 20,
    changes: 300,
    pause_ms: 150,
    usurps: false,
};

/// What one of the long test's runs comes to at least; there are [`LONG_RUNS`], some of them at a time.
const LONG: Plan = Plan {
    kills: 13,
    faults: 130,
    changes: 1_300,
    pause_ms: 400,
    usurps: true,
};
const LONG_RUNS: u64 = 16;
const LONG_AT_A_TIME: usize = 16;

fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name} is a number, not {value:?}")),
    )
}

#[test]
fn whatever_is_attacked_nothing_is_lost_nothing_doubled_nothing_stale() {
    let seed = number("HUBSYNCD_CHAOS_SEED");
    let mode = std::env::var("HUBSYNCD_CHAOS").unwrap_or_else(|_| "short".to_owned());
    let (plan, seeds, at_a_time) = match mode.as_str() {
        "short" => (SHORT, seed.map_or(SEEDS.to_vec(), |seed| vec![seed]), SEEDS.len()),
        "one" => (LONG, vec![seed.expect("HUBSYNCD_CHAOS=one wants a seed")], 1),
        "long" => {
            let first = seed.unwrap_or(1) * 1_000;
            (LONG, (first..first + LONG_RUNS).collect(), LONG_AT_A_TIME)
        }
        other => panic!("HUBSYNCD_CHAOS is short, long or one, not {other:?}"),
    };
    let figures = Figures::of_all(&plan, &seeds, at_a_time);
    println!("{figures}");
    figures.assert_nothing_is_wrong();
}
