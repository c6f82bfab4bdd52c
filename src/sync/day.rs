//! The day: what is left of the daily quota, and which part of that is kept for live changes.
//!
//! The quota belongs to the whole portal, so that only HubSpot knows what is left of it: its newest answer is believed,
//! and what was granted since is taken off. At the portal's midnight all of it is forgotten.

use std::time::Duration;

/// What is known of the day. Time is a [`Duration`] since an epoch that the caller chooses.
#[derive(Debug, Clone, PartialEq)]
pub struct Day {
    /// The part of the quota that is kept for live changes.
    reserve: f64,
    told: Option<Told>,
    /// Counts the requests.
    requests: u64,
    /// The newest request whose answer told what is left.
    newest: u64,
    /// Requests since that one.
    since: u64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Told {
    quota: Option<u64>,
    remaining: u64,
    until: Duration,
}

/// What an answer's headers say of the day; absent where HubSpot said nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Heard {
    /// `X-HubSpot-RateLimit-Daily`: the portal's requests in a day.
    pub quota: Option<u64>,
    /// `X-HubSpot-RateLimit-Daily-Remaining`: what is left of them, everybody's counted.
    pub remaining: Option<u64>,
}

impl Day {
    /// A day of which nothing is known; `reserve` is the part of the quota kept for live changes, 0 to 1.
    pub fn new(reserve: f64) -> Day {
        Day {
            reserve,
            told: None,
            requests: 0,
            newest: 0,
            since: 0,
        }
    }

    /// Changes the part that is kept for live changes.
    pub fn set_reserve(&mut self, reserve: f64) {
        self.reserve = reserve;
    }

    /// Notes that a request is about to be sent and answers its number.
    pub fn request(&mut self) -> u64 {
        self.requests += 1;
        self.since += 1;
        self.requests
    }

    /// The request was never sent.
    pub fn refund(&mut self, number: u64) {
        if number > self.newest {
            self.since = self.since.saturating_sub(1);
        }
    }

    /// Believes what the answer to a request says, unless a newer one's was heard; `midnight` is when the day ends.
    pub fn hear(&mut self, number: u64, heard: Heard, midnight: Duration) {
        let Some(remaining) = heard.remaining.filter(|_| number > self.newest) else {
            return;
        };
        self.since = self.requests - number;
        self.newest = number;
        self.told = Some(Told {
            quota: heard.quota.or(self.told.and_then(|told| told.quota)),
            remaining,
            until: midnight,
        });
    }

    /// What is left of the day, if HubSpot has said.
    pub fn remaining(&self, now: Duration) -> Option<u64> {
        let told = self.told.filter(|told| now < told.until)?;
        Some(told.remaining.saturating_sub(self.since))
    }

    /// How many requests sweep and mirror may still send, and until when that holds; `None`: as many as the window lets
    /// them.
    pub fn spare(&self, now: Duration) -> Option<(u64, Duration)> {
        let told = self.told.filter(|told| now < told.until)?;
        // The quota is far below 2^53, where a float is exact.
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss
        )]
        let kept = (told.quota? as f64 * self.reserve).ceil() as u64;
        let left = told.remaining.saturating_sub(self.since);
        Some((left.saturating_sub(kept), told.until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIDNIGHT: Duration = Duration::from_secs(3600);

    fn heard(quota: u64, remaining: u64) -> Heard {
        Heard {
            quota: Some(quota),
            remaining: Some(remaining),
        }
    }

    #[test]
    fn what_is_left_is_what_the_newest_answer_said_less_what_was_granted_since() {
        let mut day = Day::new(0.1);
        assert_eq!(
            (day.remaining(Duration::ZERO), day.spare(Duration::ZERO)),
            (None, None)
        );
        let (first, second, third) = (day.request(), day.request(), day.request());
        day.hear(second, heard(1000, 500), MIDNIGHT);
        assert_eq!(
            day.remaining(Duration::ZERO),
            Some(499),
            "the third is on its way"
        );
        day.hear(first, heard(1000, 900), MIDNIGHT);
        assert_eq!(day.remaining(Duration::ZERO), Some(499), "an older answer");
        assert_eq!(day.spare(Duration::ZERO), Some((399, MIDNIGHT)));
        day.refund(third);
        assert_eq!(day.remaining(Duration::ZERO), Some(500));
        let fourth = day.request();
        day.hear(fourth, heard(1000, 120), MIDNIGHT);
        assert_eq!(
            day.spare(Duration::ZERO),
            Some((20, MIDNIGHT)),
            "others use it too"
        );
    }

    #[test]
    fn at_midnight_everything_is_forgotten() {
        let mut day = Day::new(0.1);
        let number = day.request();
        day.hear(number, heard(1000, 0), MIDNIGHT);
        assert_eq!(day.spare(MIDNIGHT - Duration::from_nanos(1)), Some((0, MIDNIGHT)));
        assert_eq!((day.remaining(MIDNIGHT), day.spare(MIDNIGHT)), (None, None));
    }

    proptest! {
        #[test]
        fn the_reserve_is_never_spared(
            quota in 0_u64..1_000_000, reserve in 0.0_f64..1.0, asks in prop::collection::vec(any::<bool>(), 1..200),
            remaining in 0_u64..1_000_000,
        ) {
            let mut day = Day::new(reserve);
            let number = day.request();
            day.hear(number, heard(quota, remaining), MIDNIGHT);
            let mut left = remaining;
            for sweep in asks {
                let may = !sweep || day.spare(Duration::ZERO).is_some_and(|(spare, _)| spare > 0);
                if may {
                    day.request();
                    left = left.saturating_sub(1);
                }
                prop_assert!(!(sweep && may) || left as f64 >= quota as f64 * reserve - 1e-6);
            }
        }
    }
}
