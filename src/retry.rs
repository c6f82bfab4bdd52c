//! The jittered schedule of repeated attempts; the only file that names the `backoff` crate.
//!
//! The crate is unmaintained (RUSTSEC-2025-0012), so it gives us its arithmetic and nothing else: the
//! caller does the waiting, and its habit of giving up after fifteen minutes is switched off. A daemon's
//! back-off has no end; whoever wants one counts.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use backoff::SystemClock;
use backoff::backoff::Backoff;
use backoff::exponential::ExponentialBackoff;

/// Each wait is drawn from half to one and a half times its nominal length, so that many who failed
/// together do not come back together.
const JITTER: f64 = 0.5;

/// The nominal length doubles from one attempt to the next.
const GROWTH: f64 = 2.0;

thread_local! {
    /// Where this thread's jitter is drawn from; at first from what the machine's chance gave.
    static DICE: Cell<u64> = Cell::new(RandomState::new().hash_one(()));
}

/// Draws this thread's jitter from `seed` from now on, so that a run on one thread can be repeated.
pub fn seed(seed: u64) {
    DICE.set(seed);
}

/// A number from 0 to 1 (SplitMix64).
fn chance() -> f64 {
    let state = DICE.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
    DICE.set(state);
    let mut mixed = state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    f64::from(u32::try_from((mixed ^ (mixed >> 31)) >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX)
}

/// How long to wait before the next attempt: jittered, growing, without end.
#[derive(Debug)]
pub struct Schedule {
    inner: ExponentialBackoff<SystemClock>,
}

impl Schedule {
    /// Waits of nominally `initial`, then twice as long each time, up to nominally `max`.
    pub fn new(initial: Duration, max: Duration) -> Schedule {
        let initial = initial.min(max);
        Schedule {
            inner: ExponentialBackoff {
                current_interval: initial,
                initial_interval: initial,
                // Its dice cannot be seeded.
                randomization_factor: 0.0,
                multiplier: GROWTH,
                max_interval: max,
                start_time: Instant::now(),
                max_elapsed_time: None,
                clock: SystemClock::default(),
            },
        }
    }

    /// The wait before the next attempt: 0.5 to 1.5 times the nominal length.
    #[expect(
        clippy::should_implement_trait,
        reason = "a schedule has no end, so it never yields None"
    )]
    pub fn next(&mut self) -> Duration {
        let max = self.inner.max_interval;
        let nominal = self.inner.next_backoff().unwrap_or(max);
        nominal.mul_f64(1.0 - JITTER + 2.0 * JITTER * chance())
    }

    /// Begins again at the initial length; called after a success.
    pub fn reset(&mut self) {
        self.inner.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_from_the_initial_to_the_maximum_within_their_jitter() {
        let mut schedule = Schedule::new(Duration::from_millis(100), Duration::from_secs(1));
        for nominal in [100, 200, 400, 800, 1000, 1000, 1000] {
            let wait = schedule.next().as_millis();
            assert!(
                (nominal / 2..=nominal * 3 / 2 + 1).contains(&wait),
                "{wait} for {nominal}"
            );
        }
        schedule.reset();
        assert!(schedule.next() <= Duration::from_millis(151));
    }

    #[test]
    fn waits_differ_unless_they_are_drawn_from_one_seed() {
        let waits = || -> Vec<Duration> {
            let mut schedule = Schedule::new(Duration::from_secs(1), Duration::from_secs(1));
            (0..20).map(|_| schedule.next()).collect()
        };
        assert_ne!(waits(), waits());
        seed(7);
        let first = waits();
        seed(7);
        assert_eq!(waits(), first);
        seed(8);
        assert_ne!(waits(), first);
    }

    #[test]
    fn a_schedule_never_ends() {
        let mut schedule = Schedule::new(Duration::from_secs(1), Duration::from_secs(60));
        assert!((0..10_000).all(|_| schedule.next() <= Duration::from_millis(90_001)));
    }
}
