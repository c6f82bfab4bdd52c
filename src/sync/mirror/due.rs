//! Which pass of a kind is due.

use super::Standing;

/// How often passes run, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Periods {
    /// From the begin of one pass to the begin of the next.
    pub every: i64,
    /// The same of full passes.
    pub full_every: i64,
}

/// A pass that is due, or when one will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Everything is listed; one that was cut short goes on.
    Full,
    /// What was modified is searched for.
    Incremental,
    /// Nothing before then, microseconds since the Unix epoch.
    At(i64),
}

/// What is due of a kind at `now`, microseconds since the Unix epoch by the clock of the standing's times. A time that
/// lies ahead of `now` was written by a clock that was wrong: what it puts off is due.
pub fn due(now: i64, standing: &Standing, periods: Periods) -> Due {
    let Some(complete) = standing.complete_as_of.filter(|at| *at <= now) else {
        return Due::Full;
    };
    let full_at = complete.saturating_add(periods.full_every);
    if standing.begun_at.is_some() || full_at <= now {
        return Due::Full;
    }
    let caught_up = standing.caught_up_at.filter(|at| *at <= now).unwrap_or(complete);
    let at = caught_up.max(complete).saturating_add(periods.every);
    if at <= now {
        Due::Incremental
    } else {
        Due::At(at.min(full_at))
    }
}

/// Whether a pass that was cut short goes on from its cursor, or what is listed so far is too old to be built upon.
pub(super) fn goes_on(now: i64, begun_at: i64, full_every: i64) -> bool {
    begun_at <= now && now - begun_at < full_every
}

impl Standing {
    /// Whether the full pass that was cut short goes on from its cursor at `now`, rather than anew.
    pub fn goes_on(&self, now: i64, periods: Periods) -> bool {
        self.begun_at
            .is_some_and(|begun| goes_on(now, begun, periods.full_every))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::Mirrored;
    use proptest::prelude::*;

    const PERIODS: Periods = Periods {
        every: 10,
        full_every: 100,
    };

    fn standing(complete: Option<i64>, caught_up: Option<i64>, begun: Option<i64>) -> Standing {
        Standing {
            complete_as_of: complete,
            caught_up_at: caught_up,
            begun_at: begun,
            ..Standing::empty(Mirrored::Deals)
        }
    }

    #[test]
    fn the_first_pass_is_full_then_changes_are_followed_until_the_next_full_one() {
        let at = |now, complete, caught_up| due(now, &standing(complete, caught_up, None), PERIODS);
        assert_eq!(at(1_000, None, None), Due::Full);
        assert_eq!(at(1_005, Some(1_000), Some(1_000)), Due::At(1_010));
        assert_eq!(at(1_010, Some(1_000), Some(1_000)), Due::Incremental);
        assert_eq!(at(1_095, Some(1_000), Some(1_094)), Due::At(1_100));
        assert_eq!(at(1_100, Some(1_000), Some(1_099)), Due::Full);
        assert_eq!(
            due(1_001, &standing(Some(1_000), None, Some(1_001)), PERIODS),
            Due::Full
        );
    }

    proptest! {
        #[test]
        fn whatever_clocks_did_a_pass_is_due_within_a_period(
            now in 0i64..100_000, complete in prop::option::of(0i64..200_000), caught_up in prop::option::of(0i64..200_000),
        ) {
            match due(now, &standing(complete, caught_up, None), PERIODS) {
                Due::At(at) => prop_assert!(at > now && at <= now + PERIODS.every),
                Due::Full | Due::Incremental => {}
            }
        }

        #[test]
        fn a_pass_goes_on_only_within_its_period(now in 0i64..10_000, begun in 0i64..20_000) {
            let goes_on = standing(None, None, Some(begun)).goes_on(now, PERIODS);
            prop_assert_eq!(goes_on, begun <= now && now < begun + PERIODS.full_every);
        }
    }
}
