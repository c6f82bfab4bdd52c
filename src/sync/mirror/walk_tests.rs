//! A portal that is modified while it is walked through, with an index that lags.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const PAGE: usize = 4;

/// Records by id: when each was modified last, and when the index comes to know it.
#[derive(Default)]
struct Portal {
    now: i64,
    records: BTreeMap<u64, i64>,
    /// What the index shows.
    index: BTreeMap<u64, i64>,
    /// What it will show: when, which, what.
    coming: Vec<(i64, u64, i64)>,
}

impl Portal {
    fn modify(&mut self, id: u64, lag: i64) {
        self.records.insert(id, self.now);
        self.coming.push((self.now + lag, id, self.now));
    }

    fn pass(&mut self, by: i64) {
        self.now += by;
        let now = self.now;
        self.coming.sort();
        let due: Vec<_> = self.coming.extract_if(.., |(at, ..)| *at <= now).collect();
        for (_, id, modified) in due {
            let shown = self.index.entry(id).or_insert(modified);
            *shown = modified.max(*shown);
        }
    }

    /// The records of the first page, each with its id and its moment, and whether there are more.
    fn answer(&self, ask: &Ask) -> (Vec<Said>, bool) {
        let wanted = |id: u64, at: i64| match ask {
            Ask::From(from) => at >= *from,
            Ask::After(after) => at > *after,
            Ask::Within(time, above) => at == *time && above.is_none_or(|above| id > above),
        };
        let mut found: Vec<(u64, i64)> = self.index.iter().map(|(id, at)| (*id, *at)).collect();
        found.retain(|(id, at)| wanted(*id, *at));
        // Within one time the order is anybody's guess.
        match ask {
            Ask::Within(..) => found.sort(),
            _ => found.sort_by_key(|(id, at)| (*at, id % 3, *id)),
        }
        let more = found.len() > PAGE;
        found.truncate(PAGE);
        (
            found.into_iter().map(|(id, at)| (Some(id), Some(at))).collect(),
            more,
        )
    }
}

/// What an answer says of a record: its id, and when it was modified.
type Said = (Option<u64>, Option<i64>);

/// What happens before each question: time that passes, and records that are modified then, with the index's lag.
type Before = (i64, Vec<(u64, i64)>);

fn before() -> impl Strategy<Value = Before> {
    let modified = prop::collection::vec((0u64..40, 0i64..60_000), 0..6);
    (prop_oneof![Just(0), 0i64..2_000, 0i64..900_000], modified)
}

proptest! {
    #[test]
    fn every_modification_is_read_whatever_moves_lags_and_shares_its_time(
        happenings in prop::collection::vec(before(), 1..60), walks in 1usize..6, skew in -1_000_000i64..1_000_000,
    ) {
        let mut portal = Portal { now: 10_000_000, ..Portal::default() };
        for id in 0..25 {
            portal.modify(id, 0);
        }
        portal.pass(1);
        let mut read: BTreeMap<u64, i64> = BTreeMap::new();
        let mut horizon = Horizon::default();
        let mut from = 0;
        let mut happenings = happenings.into_iter();
        for walk in 0..walks + 2 {
            if walk >= walks {
                // Nothing happens any more, and the index catches up.
                portal.pass(OVERLAP_MS);
            }
            let mut walked = Walk::new(from);
            let (mut passed, mut first) = (None, true);
            let mut steps = 0;
            while let Some(ask) = walked.ask().cloned() {
                if walk < walks && let Some((by, modified)) = happenings.next() {
                    for (id, lag) in modified {
                        portal.modify(id, lag);
                    }
                    portal.pass(by);
                }
                let (found, more) = portal.answer(&ask);
                for (id, at) in &found {
                    let at = at.unwrap();
                    read.entry(id.unwrap()).and_modify(|read| *read = at.max(*read)).or_insert(at);
                    horizon.see(at, portal.now + skew, portal.now);
                }
                if std::mem::take(&mut first) {
                    passed = horizon.at(portal.now + skew);
                    walked.set_until(portal.now);
                }
                prop_assert!(passed.is_none_or(|passed| passed <= portal.now));
                walked.heard(&found, more).unwrap();
                steps += 1;
                prop_assert!(steps < 500, "the walk does not end");
            }
            let next = walked.next_from(passed);
            prop_assert!(next >= from);
            from = next;
        }
        prop_assert_eq!(read, portal.records);
    }
}

#[test]
fn more_of_one_time_than_a_page_holds_is_read_by_id_and_left_behind() {
    let mut walk = Walk::new(0);
    let page = |ids: std::ops::Range<u64>, at| -> Vec<_> { ids.map(|id| (Some(id), Some(at))).collect() };
    walk.heard(&page(0..4, 7), true).unwrap();
    assert_eq!(walk.ask(), Some(&Ask::Within(7, None)));
    walk.heard(&page(0..4, 7), true).unwrap();
    assert_eq!(walk.ask(), Some(&Ask::Within(7, Some(3))));
    walk.heard(&page(4..6, 7), false).unwrap();
    assert_eq!(walk.ask(), Some(&Ask::After(7)));
    walk.heard(&[], false).unwrap();
    assert_eq!(walk.ask(), None);
}

#[test]
fn a_search_that_shows_nothing_of_the_more_that_it_speaks_of_is_stuck() {
    assert_eq!(Walk::new(0).heard(&[], true), Err(Stuck));
    let mut walk = Walk::new(0);
    walk.heard(&[(Some(1), Some(7))], true).unwrap();
    walk.heard(&[(Some(1), Some(7))], true).unwrap();
    assert_eq!(walk.heard(&[(Some(1), Some(7))], true), Err(Stuck));
}

#[test]
fn a_time_that_cannot_be_is_not_believed() {
    let mut horizon = Horizon::default();
    horizon.see(i64::MAX, 5, 1_000);
    assert_eq!(horizon.at(5), None);
    horizon.see(900, 5, 1_000);
    assert_eq!(horizon.at(15), Some(910));
    horizon.see(905, 15, 1_000);
    assert_eq!(
        horizon.at(15),
        Some(910),
        "what is known to have passed stays passed"
    );
}
