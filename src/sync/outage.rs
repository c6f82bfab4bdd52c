//! What is told of something that fails over and over, and when.
//!
//! Attempts go on every few seconds for as long as an outage lasts, which may be days. Its begin is told at once, that it
//! lasts at growing intervals, its end once. What fails and succeeds by turns is told no more often: until the interval
//! after what was told last has passed, another failure is part of what is known.

use std::time::Duration;

/// How long nothing more is told after what was told; the last holds from then on.
const INTERVALS: [Duration; 3] = [
    Duration::from_secs(60),
    Duration::from_secs(5 * 60),
    Duration::from_secs(15 * 60),
];

/// What is to be told of a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Telling {
    /// It is the first.
    Begins,
    /// It has failed all the time.
    Lasts(Span),
}

/// An outage as it is so far, or was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// How long it has lasted.
    pub lasted: Duration,
    /// How many attempts failed.
    pub attempts: u64,
}

/// Whether attempts fail, and what was told of it. Times are since any epoch.
#[derive(Debug, Clone, Default)]
pub struct Outage {
    /// Since when attempts fail, and how many did; `None`: the last one succeeded.
    failing: Option<(Duration, u64)>,
    /// Whether anything was told of this outage, so that its end is told too.
    told: bool,
    /// How often something was told in a row.
    row: usize,
    /// Until when nothing more is told, and until when what begins then is told as part of the row.
    quiet_until: Duration,
    row_until: Duration,
}

impl Outage {
    /// An attempt failed at `now`; answers what is to be told of it.
    pub fn failed(&mut self, now: Duration) -> Option<Telling> {
        let (since, attempts) = self.failing.unwrap_or((now, 0));
        let attempts = attempts + 1;
        self.failing = Some((since, attempts));
        if now < self.quiet_until {
            return None;
        }
        if attempts == 1 && now >= self.row_until {
            self.row = 0;
        }
        let interval = INTERVALS[self.row.min(INTERVALS.len() - 1)];
        self.row += 1;
        self.quiet_until = now + interval;
        self.row_until = now + interval * 2;
        self.told = true;
        Some(match attempts {
            1 => Telling::Begins,
            _ => Telling::Lasts(Span {
                lasted: now.saturating_sub(since),
                attempts,
            }),
        })
    }

    /// An attempt succeeded at `now`; answers the outage that this ends, if it was told of.
    pub fn succeeded(&mut self, now: Duration) -> Option<Span> {
        let (since, attempts) = self.failing.take()?;
        std::mem::take(&mut self.told).then(|| Span {
            lasted: now.saturating_sub(since),
            attempts,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const HOUR: Duration = Duration::from_secs(3600);

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_night_without_a_database_is_told_at_its_begin_at_growing_intervals_and_at_its_end() {
        let mut outage = Outage::default();
        let mut told = Vec::new();
        for second in (0..8 * 3600).step_by(5) {
            told.extend(outage.failed(secs(second)).map(|telling| (second / 60, telling)));
        }
        let minutes: Vec<u64> = told.iter().map(|(minute, _)| *minute).collect();
        assert_eq!(minutes[..6], [0, 1, 6, 21, 36, 51]);
        assert_eq!(told.len(), 34, "four an hour");
        assert_eq!(told[0].1, Telling::Begins);
        let lasts = Span {
            lasted: MINUTE * 6,
            attempts: 73,
        };
        assert_eq!(told[2].1, Telling::Lasts(lasts));
        let whole = Span {
            lasted: HOUR * 8,
            attempts: 5760,
        };
        assert_eq!(outage.succeeded(HOUR * 8), Some(whole));
        assert_eq!(outage.succeeded(HOUR * 9), None, "it is told once");
        assert_eq!(
            outage.failed(HOUR * 10),
            Some(Telling::Begins),
            "what comes long after is told at once"
        );
        assert_eq!(outage.failed(HOUR * 10 + MINUTE / 2), None);
        assert!(
            outage.failed(HOUR * 10 + MINUTE).is_some(),
            "from the shortest interval"
        );
    }

    #[test]
    fn a_short_failure_is_told_with_its_end_and_the_next_one_soon_after_is_not() {
        let mut outage = Outage::default();
        assert_eq!(outage.failed(secs(100)), Some(Telling::Begins));
        let short = Span {
            lasted: secs(2),
            attempts: 1,
        };
        assert_eq!(outage.succeeded(secs(102)), Some(short));
        assert_eq!(outage.failed(secs(110)), None);
        assert_eq!(outage.succeeded(secs(111)), None, "nobody was told of it");
        assert_eq!(outage.failed(secs(159)), None);
        let lasts = Span {
            lasted: secs(2),
            attempts: 2,
        };
        assert_eq!(
            outage.failed(secs(161)),
            Some(Telling::Lasts(lasts)),
            "and then it is"
        );
    }

    proptest! {
        #[test]
        fn whatever_fails_and_succeeds_little_is_told_and_each_end_once(
            steps in prop::collection::vec((0..400_u64, any::<bool>()), 1..200),
        ) {
            let mut outage = Outage::default();
            let (mut now, mut open, mut last) = (Duration::ZERO, false, None::<Duration>);
            for (seconds, fails) in steps {
                now += secs(seconds);
                if !fails {
                    let ended = outage.succeeded(now).is_some();
                    prop_assert_eq!(ended, open, "an end is told where a begin was");
                    open = false;
                    continue;
                }
                let silent = last.map(|last| now - last);
                match outage.failed(now) {
                    Some(_) => {
                        prop_assert!(silent.is_none_or(|silent| silent >= INTERVALS[0]));
                        (open, last) = (true, Some(now));
                    }
                    None => prop_assert!(silent.is_some_and(|silent| silent < INTERVALS[2])),
                }
            }
        }

        #[test]
        fn what_changes_all_the_time_is_told_four_times_an_hour_in_the_long_run(period in 1..50_u64) {
            let mut outage = Outage::default();
            let mut lines = 0;
            for second in (0..24 * 3600).step_by(period as usize) {
                lines += u64::from(outage.failed(secs(second)).is_some());
                lines += u64::from(outage.succeeded(secs(second)).is_some());
            }
            prop_assert!(lines <= 2 * (24 * 4 + 3), "{} lines", lines);
        }
    }
}
