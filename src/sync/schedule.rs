//! The sweep's clock: on the wall, in UTC, at multiples of the period since midnight.

use std::time::Duration;

/// Decides when a periodic sweep is due. The period divides 24 hours, so its slots begin at UTC midnight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    every: Duration,
    slot: u64,
}

impl Schedule {
    /// A schedule whose present slot counts as done. `now` is the time since the Unix epoch.
    ///
    /// # Panics
    /// If `every` is shorter than a second; the configuration refuses that.
    pub fn new(every: Duration, now: Duration) -> Schedule {
        assert!(every >= Duration::from_secs(1), "a period is at least a second");
        Schedule {
            every,
            slot: slot(every, now),
        }
    }

    /// Whether a sweep is due at `now`: once for any number of slots that have begun since the last call. After a
    /// step back of the clock the schedule goes on from the present slot.
    pub fn due(&mut self, now: Duration) -> bool {
        let slot = slot(self.every, now);
        let due = slot > self.slot;
        self.slot = slot;
        due
    }

    /// When the next slot begins, as the time since the Unix epoch.
    pub fn next_at(&self) -> Duration {
        let millis = u64::try_from(self.every.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis((self.slot + 1).saturating_mul(millis))
    }
}

fn slot(every: Duration, now: Duration) -> u64 {
    u64::try_from(now.as_millis() / every.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(hours: u32, minutes: u32) -> Duration {
        Duration::from_secs(20_000 * 86_400) + HOUR * hours + Duration::from_secs(60) * minutes
    }

    #[test]
    fn two_hours_fire_at_midnight_and_at_two_and_not_between() {
        let mut schedule = Schedule::new(HOUR * 2, at(0, 0) - Duration::from_millis(1));
        assert!(schedule.due(at(0, 0)));
        assert!(!schedule.due(at(0, 0)) && !schedule.due(at(1, 59)));
        assert_eq!(schedule.next_at(), at(2, 0));
        assert!(schedule.due(at(2, 0)));
        assert!(!schedule.due(at(3, 59)));
    }

    #[test]
    fn a_jump_of_the_clock_fires_once() {
        let mut schedule = Schedule::new(HOUR * 2, at(1, 0));
        assert!(schedule.due(at(23, 1)));
        assert!(!schedule.due(at(23, 2)));
        assert!(!schedule.due(at(3, 0)), "a step back fires nothing");
        assert!(!schedule.due(at(3, 59)));
        assert!(schedule.due(at(4, 0)), "and goes on from there");
    }
}
