//! When somebody is told that the daemon fails, and that it recovered.
//!
//! Health may fail for a moment: at the start, while Postgres restarts. Whoever is woken wants to know of what lasts,
//! once, and of its end.

use std::time::Duration;

/// How long health must have been otherwise than what was told last.
pub const LASTS: Duration = Duration::from_secs(10);

/// What somebody is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// Health fails.
    Failure,
    /// It no longer does.
    Recovery,
}

/// What was told last, and since when it is otherwise. At first all counts as well.
#[derive(Debug, Clone, Default)]
pub struct Alarm {
    failing: bool,
    otherwise_since: Option<Duration>,
}

impl Alarm {
    /// Takes in whether health fails at `now`, the time since any epoch; answers what is to be told.
    pub fn judge(&mut self, fails: bool, now: Duration) -> Option<Notice> {
        if fails == self.failing {
            self.otherwise_since = None;
            return None;
        }
        let since = *self.otherwise_since.get_or_insert(now);
        if now.saturating_sub(since) < LASTS {
            return None;
        }
        self.failing = fails;
        self.otherwise_since = None;
        Some(if fails { Notice::Failure } else { Notice::Recovery })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_lasts_is_told_once_and_its_end_once() {
        let mut alarm = Alarm::default();
        let mut told = Vec::new();
        for second in 0..60 {
            let fails = (5..=30).contains(&second);
            told.extend(alarm.judge(fails, SECOND * second).map(|notice| (second, notice)));
        }
        assert_eq!(told, [(15, Notice::Failure), (41, Notice::Recovery)]);
    }

    proptest! {
        #[test]
        fn notices_alternate_and_each_was_true_for_as_long_as_it_must(
            spells in prop::collection::vec((1_u32..40, any::<bool>()), 1..40),
        ) {
            let mut alarm = Alarm::default();
            let mut last = Notice::Recovery;
            let (mut now, mut steady) = (0, 0);
            let mut before = None;
            for (seconds, fails) in spells {
                for _ in 0..seconds {
                    steady = if before == Some(fails) { steady + 1 } else { 0 };
                    before = Some(fails);
                    if let Some(notice) = alarm.judge(fails, SECOND * now) {
                        prop_assert_ne!(notice, last);
                        prop_assert_eq!(notice == Notice::Failure, fails);
                        prop_assert_eq!(SECOND * steady, LASTS);
                        last = notice;
                    }
                    now += 1;
                    let known = (last == Notice::Failure) == fails;
                    prop_assert!(known || SECOND * steady < LASTS, "told in time");
                }
            }
        }
    }
}
