//! How many wrong secrets are answered as such.
//!
//! Who knows the secret is never kept waiting, whatever others send: only wrong ones are counted. From all sides together,
//! since who guesses has many addresses.

use std::time::Duration;

/// Wrong secrets within [`WINDOW`] that are answered as such; more are told to wait.
pub const WRONG_MAX: u32 = 20;
/// The time within which they are counted, and in which they are told of once.
pub const WINDOW: Duration = Duration::from_secs(60);

/// The wrong secrets that were given lately. Times are since any epoch.
#[derive(Debug, Default)]
pub struct Guesses {
    /// When the first of the present window came, and how many came since.
    window: Option<(Duration, u32)>,
    /// When they were told of last, and how many came since.
    told_at: Option<Duration>,
    untold: u64,
}

/// What a wrong secret means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wrong {
    /// For how long whoever gave it is told to wait, if there were too many.
    pub wait: Option<Duration>,
    /// How many are to be told of now.
    pub tell: Option<u64>,
}

impl Guesses {
    /// A wrong secret was given at `now`.
    pub fn wrong(&mut self, now: Duration) -> Wrong {
        let window = self
            .window
            .filter(|(begun, _)| now.saturating_sub(*begun) < WINDOW);
        let (begun, count) = window.unwrap_or((now, 0));
        let count = count.saturating_add(1);
        self.window = Some((begun, count));
        self.untold += 1;
        let due = self.told_at.is_none_or(|told| now.saturating_sub(told) >= WINDOW);
        Wrong {
            wait: (count > WRONG_MAX).then(|| (begun + WINDOW).saturating_sub(now)),
            tell: due.then(|| {
                self.told_at = Some(now);
                std::mem::take(&mut self.untold)
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn some_wrong_secrets_are_refused_more_have_to_wait_and_a_minute_later_it_begins_anew() {
        let mut guesses = Guesses::default();
        for second in 0..u64::from(WRONG_MAX) {
            assert_eq!(guesses.wrong(secs(100 + second)).wait, None, "{second}");
        }
        assert_eq!(guesses.wrong(secs(130)).wait, Some(secs(30)));
        assert_eq!(guesses.wrong(secs(159)).wait, Some(secs(1)));
        assert_eq!(guesses.wrong(secs(160)).wait, None);
    }

    #[test]
    fn they_are_told_of_once_a_minute_with_their_number() {
        let mut guesses = Guesses::default();
        let told: Vec<(u64, u64)> = (0..200)
            .filter_map(|second| Some((second, guesses.wrong(secs(second)).tell?)))
            .collect();
        assert_eq!(told, [(0, 1), (60, 60), (120, 60), (180, 60)]);
    }

    proptest! {
        #[test]
        fn within_a_minute_no_more_are_answered_than_twice_as_many_and_every_one_is_told_of(
            pauses in prop::collection::vec(0..20_000_u64, 1..400),
        ) {
            let mut guesses = Guesses::default();
            let mut now = Duration::ZERO;
            let (mut answered, mut given, mut told) = (Vec::new(), 0_u64, 0);
            for pause in pauses {
                now += Duration::from_millis(pause);
                given += 1;
                let wrong = guesses.wrong(now);
                match wrong.wait {
                    None => answered.push(now),
                    Some(wait) => prop_assert!(wait <= WINDOW && !wait.is_zero()),
                }
                if let Some(count) = wrong.tell {
                    told += count;
                    prop_assert_eq!(told, given);
                }
            }
            for (at, from) in answered.iter().enumerate() {
                let within = answered[at..].iter().take_while(|to| **to - *from < WINDOW).count();
                prop_assert!(within <= 2 * WRONG_MAX as usize);
            }
        }
    }
}
