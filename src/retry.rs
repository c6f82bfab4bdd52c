//! The jittered schedule of repeated attempts; the only file that names the `backoff` crate.
//!
//! The crate is unmaintained (RUSTSEC-2025-0012), so it gives us its arithmetic and nothing else: the
//! caller does the waiting, and its habit of giving up after fifteen minutes is switched off. A daemon's
//! back-off has no end; whoever wants one counts.

use std::time::{Duration, Instant};

use backoff::SystemClock;
use backoff::backoff::Backoff;
use backoff::exponential::ExponentialBackoff;

/// Each wait is drawn from half to one and a half times its nominal length, so that many who failed
/// together do not come back together.
const JITTER: f64 = 0.5;

/// The nominal length doubles from one attempt to the next.
const GROWTH: f64 = 2.0;

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
                randomization_factor: JITTER,
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
        self.inner.next_backoff().unwrap_or(max)
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
    fn a_schedule_never_ends() {
        let mut schedule = Schedule::new(Duration::from_secs(1), Duration::from_secs(60));
        assert!((0..10_000).all(|_| schedule.next() <= Duration::from_millis(90_001)));
    }
}
