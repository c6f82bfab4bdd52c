//! A deterministic simulation of the daemon: the real door, desk, backlog, plan, pace and client, on one thread, with
//! a clock that jumps, over a database in memory and a network that loses, delays and lies, all from a seed.
//!
//! `HUBSYNCD_SIM_SEEDS=100000` runs that many seeds, `HUBSYNCD_SIM_SEED=17` replays one and prints its trace,
//! `HUBSYNCD_SIM_STEPS=10` shortens the runs.

mod capture;
mod collect;
mod daemon;
mod dice;
mod ledger;
mod lookups;
mod memory;
mod model;
mod moves;
mod network;
mod oracle;
mod people;
mod reading;
mod receipt;
mod records;
mod run;
mod scene;
mod script;
mod store;
mod ties;
mod world;
mod writes;

use run::{Outcome, Plan};
use std::sync::atomic::{AtomicU64, Ordering};

fn knob(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn plan(seed: u64) -> Plan {
    Plan {
        steps: knob("HUBSYNCD_SIM_STEPS").unwrap_or(20),
        ..Plan::of(seed)
    }
}

#[test]
fn hubspot_equals_the_projection_of_postgres_whatever_is_lost_killed_or_reordered() {
    if let Some(seed) = knob("HUBSYNCD_SIM_SEED") {
        let Outcome { trace, wrong } = run::run(plan(seed));
        println!("{}", trace.join("\n"));
        assert!(wrong.is_empty(), "seed {seed}: {wrong:#?}");
        return;
    }
    let seeds = knob("HUBSYNCD_SIM_SEEDS").unwrap_or(1_000);
    let first = knob("HUBSYNCD_SIM_FIRST").unwrap_or(1);
    let next = AtomicU64::new(first);
    let work = || {
        let mut failed = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + seeds {
                return failed;
            }
            let wrong = run::run(plan(seed)).wrong;
            if !wrong.is_empty() {
                eprintln!("seed {seed}: {wrong:#?}");
                failed.push(seed);
            }
        }
    };
    let mut failed: Vec<u64> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        let ended = workers.into_iter();
        ended
            .flat_map(|worker| {
                worker
                    .join()
                    .expect("a run says what is wrong and does not panic")
            })
            .collect()
    });
    failed.sort_unstable();
    assert!(
        failed.is_empty(),
        "{} of {seeds} seeds fail, replay one with HUBSYNCD_SIM_SEED: {failed:?}",
        failed.len()
    );
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 1..=20 {
        let (once, again) = (run::run(plan(seed)).trace, run::run(plan(seed)).trace);
        let differs = once.iter().zip(&again).position(|(one, other)| one != other);
        assert_eq!(
            differs,
            None,
            "seed {seed}: {:?}",
            differs.map(|at| (&once[at], &again[at]))
        );
        assert_eq!(once.len(), again.len(), "seed {seed}");
    }
}
