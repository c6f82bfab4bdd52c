//! The last day, minute by minute: how much waited, and how long changes took.
//!
//! Bounded: at most [`MINUTES`] minutes, a few words each. Nobody samples on a timer; what is reported falls into the minute
//! of its time, and minutes in which nothing was reported repeat how much waited last. Times are [`Duration`]s since the
//! daemon started.

use std::collections::VecDeque;
use std::time::Duration;

/// Minutes of a day.
pub const MINUTES: usize = 1440;

/// Latencies are counted in buckets, four to a doubling, the first up to a millisecond and the last from four hours on.
const BUCKETS: usize = 96;
const BUCKETS_A_DOUBLING: f64 = 4.0;

/// What one minute saw.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Minute {
    /// The most changes that waited at any moment of it.
    pub pending: u64,
    /// Changes that HubSpot accepted in it.
    pub accepted: u32,
    /// How long half of these took at most, in seconds, to within a tenth; `None`: there were none.
    pub median: Option<f32>,
    /// How long 99 % of these took at most, likewise.
    pub slowest: Option<f32>,
}

/// The minutes of the last day.
#[derive(Debug)]
pub struct History {
    /// The minutes that ended, the oldest first.
    ended: VecDeque<Minute>,
    /// The number, since the start, of the minute that fills.
    number: u64,
    /// The most that waited in it.
    most: u64,
    /// How much waits now.
    pending: u64,
    latencies: Box<[u32; BUCKETS]>,
}

impl Default for History {
    fn default() -> History {
        History {
            ended: VecDeque::new(),
            number: 0,
            most: 0,
            pending: 0,
            latencies: Box::new([0; BUCKETS]),
        }
    }
}

impl History {
    /// From `now` on so many changes wait.
    pub fn waiting(&mut self, now: Duration, pending: u64) {
        self.turn(now);
        self.pending = pending;
        self.most = self.most.max(pending);
    }

    /// HubSpot accepted a change that took so long.
    pub fn accepted(&mut self, now: Duration, latency: Duration) {
        self.turn(now);
        let count = &mut self.latencies[bucket(latency)];
        *count = count.saturating_add(1);
    }

    /// The minutes up to `now`, the oldest first; the last is the one that fills.
    pub fn minutes(&mut self, now: Duration) -> Vec<Minute> {
        self.turn(now);
        self.ended.iter().copied().chain([self.filling()]).collect()
    }

    /// Ends the minutes that are over at `now`.
    fn turn(&mut self, now: Duration) {
        let number = now.as_secs() / 60;
        // What is reported a moment late, by a clock read before another's, falls into the present minute.
        let over = number.saturating_sub(self.number);
        if over == 0 {
            return;
        }
        self.ended.push_back(self.filling());
        let quiet = Minute {
            pending: self.pending,
            accepted: 0,
            median: None,
            slowest: None,
        };
        let quiet_minutes = usize::try_from(over - 1).unwrap_or(MINUTES).min(MINUTES);
        self.ended.extend(std::iter::repeat_n(quiet, quiet_minutes));
        // One place is the filling minute's.
        let surplus = self.ended.len().saturating_sub(MINUTES - 1);
        self.ended.drain(..surplus);
        self.number = number;
        self.most = self.pending;
        self.latencies.fill(0);
    }

    fn filling(&self) -> Minute {
        let accepted = self
            .latencies
            .iter()
            .fold(0, |sum: u32, count| sum.saturating_add(*count));
        Minute {
            pending: self.most,
            accepted,
            median: self.quantile(accepted, 0.5),
            slowest: self.quantile(accepted, 0.99),
        }
    }

    fn quantile(&self, of: u32, part: f64) -> Option<f32> {
        let rank = (f64::from(of) * part).ceil().max(1.0);
        let mut seen = 0.0;
        let place = self.latencies.iter().position(|count| {
            seen += f64::from(*count);
            seen >= rank
        });
        place.filter(|_| of > 0).map(middle)
    }
}

fn bucket(latency: Duration) -> usize {
    let millis = latency.as_secs_f64() * 1000.0;
    let place = (millis.max(1.0).log2() * BUCKETS_A_DOUBLING).ceil();
    // A float turned into an integer stops at the integer's ends.
    (place as usize).min(BUCKETS - 1)
}

/// The middle of a bucket, in seconds.
fn middle(bucket: usize) -> f32 {
    let doublings = (bucket as f64 - 0.5).max(0.0) / BUCKETS_A_DOUBLING;
    (doublings.exp2() / 1000.0) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(minute: u64, second: u64) -> Duration {
        Duration::from_secs(minute * 60 + second)
    }

    #[test]
    fn a_minute_keeps_its_peak_and_quiet_minutes_repeat_what_waits() {
        let mut history = History::default();
        history.waiting(at(0, 1), 5);
        history.waiting(at(0, 2), 90);
        history.waiting(at(0, 3), 7);
        history.accepted(at(0, 4), Duration::from_millis(200));
        let pending = |history: &mut History, now| -> Vec<u64> {
            history.minutes(now).iter().map(|minute| minute.pending).collect()
        };
        assert_eq!(pending(&mut history, at(3, 0)), [90, 7, 7, 7]);
        history.waiting(at(3, 1), 0);
        assert_eq!(pending(&mut history, at(4, 0)), [90, 7, 7, 7, 0]);
        let minutes = history.minutes(at(4, 0));
        assert_eq!(
            minutes.iter().map(|minute| minute.accepted).collect::<Vec<_>>(),
            [1, 0, 0, 0, 0]
        );
        assert_eq!((minutes[1].median, minutes[1].slowest), (None, None));
    }

    #[test]
    fn the_slowest_hundredth_does_not_hide_and_does_not_rule() {
        let mut history = History::default();
        for _ in 0..99 {
            history.accepted(at(0, 0), Duration::from_millis(10));
        }
        history.accepted(at(0, 0), Duration::from_secs(60));
        let minute = history.minutes(at(0, 0))[0];
        let near = |seconds: Option<f32>, wanted: f32| {
            let seconds = seconds.expect("there were changes");
            assert!((seconds / wanted - 1.0).abs() < 0.1, "{seconds} for {wanted}");
        };
        near(minute.median, 0.010);
        near(minute.slowest, 0.010);
        history.accepted(at(0, 0), Duration::from_secs(60));
        near(history.minutes(at(0, 0))[0].slowest, 60.0);
    }

    proptest! {
        #[test]
        fn a_day_is_all_it_ever_holds(steps in prop::collection::vec((0u64..5000, 0u64..1000), 1..60)) {
            let mut history = History::default();
            let mut minute = 0;
            for (quiet, pending) in steps {
                minute += quiet;
                history.waiting(at(minute, 0), pending);
                let minutes = history.minutes(at(minute, 59));
                let wanted = usize::try_from(minute + 1).unwrap_or(MINUTES).min(MINUTES);
                prop_assert_eq!(minutes.len(), wanted);
                prop_assert!(minutes[wanted - 1].pending >= pending);
            }
        }

        #[test]
        fn a_single_latency_is_told_to_within_a_tenth(millis in 1u64..10_000_000) {
            let mut history = History::default();
            history.accepted(at(0, 0), Duration::from_millis(millis));
            let told = f64::from(history.minutes(at(0, 0))[0].median.expect("there was one"));
            prop_assert!((told * 1000.0 / millis as f64 - 1.0).abs() < 0.1, "{} for {}", told, millis);
        }
    }
}
