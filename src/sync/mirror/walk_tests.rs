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

/// A portal, what walk after walk has read of it, and where the next one begins.
struct Follower {
    portal: Portal,
    /// How far the clock here is ahead of the portal's.
    skew: i64,
    read: BTreeMap<u64, i64>,
    horizon: Horizon,
    from: i64,
}

/// What a walk asked and heard.
#[derive(Debug, Default)]
struct Walked {
    questions: usize,
    /// The moments of the records that were shown, however often.
    shown: Vec<i64>,
    ended: bool,
}

impl Follower {
    fn new(skew: i64) -> Follower {
        let mut portal = Portal {
            now: 10_000_000,
            ..Portal::default()
        };
        for id in 0..25 {
            portal.modify(id, 0);
        }
        portal.pass(1);
        Follower {
            portal,
            skew,
            read: BTreeMap::new(),
            horizon: Horizon::default(),
            from: 0,
        }
    }

    /// Walks once, something happening before each question while there is something to happen; after `most` questions
    /// it is cut. The next one begins where this one says, whether or not it was cut.
    fn walk(&mut self, happenings: &mut impl Iterator<Item = Before>, most: usize) -> Walked {
        let mut walk = Walk::new(self.from);
        let (mut passed, mut told) = (None, Walked::default());
        while let Some(ask) = walk.ask().cloned() {
            if told.questions == most {
                break;
            }
            if let Some((by, modified)) = happenings.next() {
                for (id, lag) in modified {
                    self.portal.modify(id, lag);
                }
                self.portal.pass(by);
            }
            let (found, more) = self.portal.answer(&ask);
            let now = self.portal.now + self.skew;
            for (id, at) in &found {
                let (id, at) = (id.unwrap(), at.unwrap());
                let read = self.read.entry(id).or_insert(at);
                *read = at.max(*read);
                self.horizon.see(at, now, self.portal.now);
                told.shown.push(at);
            }
            if told.questions == 0 {
                passed = self.horizon.at(now);
                walk.set_until(self.portal.now);
            }
            assert!(
                passed.is_none_or(|passed| passed <= self.portal.now),
                "the time of HubSpot's that has passed is not ahead of it"
            );
            walk.heard(&found, more).unwrap();
            told.questions += 1;
            assert!(told.questions < 500, "the walk does not end");
        }
        told.ended = walk.ask().is_none();
        let next = walk.next_from(passed);
        assert!(next >= self.from, "no walk goes back");
        self.from = next;
        told
    }
}

proptest! {
    #[test]
    fn every_modification_is_read_whatever_moves_lags_shares_its_time_or_is_cut(
        happenings in prop::collection::vec(before(), 1..60),
        cuts in prop::collection::vec(prop_oneof![Just(usize::MAX), 0usize..12], 1..8),
        skew in -1_000_000i64..1_000_000,
    ) {
        let mut follower = Follower::new(skew);
        let mut happenings = happenings.into_iter();
        for most in cuts {
            follower.walk(&mut happenings, most);
        }
        // Nothing happens any more, and the index catches up.
        follower.portal.pass(OVERLAP_MS);
        follower.walk(&mut std::iter::empty(), usize::MAX);
        prop_assert_eq!(&follower.read, &follower.portal.records);
    }

    #[test]
    fn what_was_read_is_left_behind_so_that_a_quiet_portal_costs_one_question(
        happenings in prop::collection::vec(before(), 0..40),
        cuts in prop::collection::vec(prop_oneof![Just(usize::MAX), 0usize..12], 0..6),
        skew in -1_000_000i64..1_000_000, rest in 0i64..1_000_000,
    ) {
        let mut follower = Follower::new(skew);
        let mut happenings = happenings.into_iter();
        for most in cuts {
            follower.walk(&mut happenings, most);
        }
        follower.portal.pass(OVERLAP_MS);
        // The first reads all that there is, however long it has been there. The second knows HubSpot's time by it.
        for _ in 0..2 {
            let walked = follower.walk(&mut std::iter::empty(), usize::MAX);
            prop_assert!(walked.ended);
            follower.portal.pass(OVERLAP_MS + 1 + rest);
        }
        let quiet = follower.walk(&mut std::iter::empty(), usize::MAX);
        prop_assert_eq!((quiet.questions, quiet.shown), (1, Vec::new()));
        // And what is modified after that is read alone.
        follower.portal.modify(3, 0);
        follower.portal.pass(1);
        let at = follower.portal.records[&3];
        let next = follower.walk(&mut std::iter::empty(), usize::MAX);
        prop_assert_eq!((next.questions, next.shown), (1, vec![at]));
        prop_assert_eq!(&follower.read, &follower.portal.records);
    }

    #[test]
    fn a_walk_that_is_cut_again_and_again_gets_on_where_an_overlap_holds_less_than_it_reads(
        gaps in prop::collection::vec(OVERLAP_MS / 3..OVERLAP_MS * 3, 10..40), skew in -1_000_000i64..1_000_000,
    ) {
        // One record at a time: an overlap holds three or four of them at most, which are two pages.
        let mut follower = Follower::new(skew);
        follower.portal = Portal { now: 10_000_000, ..Portal::default() };
        for (id, gap) in gaps.iter().enumerate() {
            follower.portal.modify(id as u64, 0);
            follower.portal.pass(*gap);
        }
        let mut walks = 0;
        while !follower.walk(&mut std::iter::empty(), 3).ended {
            walks += 1;
            prop_assert!(walks <= gaps.len(), "it does not get on");
        }
        prop_assert_eq!(&follower.read, &follower.portal.records);
    }

    #[test]
    fn a_walk_asks_for_a_page_no_oftener_than_there_are_pages_and_moments(
        moments in prop::collection::vec(0i64..12, 1..60),
    ) {
        let mut portal = Portal { now: 1_000, ..Portal::default() };
        for (id, moment) in moments.iter().enumerate() {
            portal.index.insert(id as u64, 1_000 + moment);
        }
        let mut walk = Walk::new(0);
        let (mut read, mut questions) = (BTreeMap::new(), 0);
        while let Some(ask) = walk.ask().cloned() {
            let (found, more) = portal.answer(&ask);
            read.extend(found.iter().map(|(id, at)| (id.unwrap(), at.unwrap())));
            walk.heard(&found, more).unwrap();
            questions += 1;
            prop_assert!(questions < 500, "the walk does not end");
        }
        prop_assert_eq!(&read, &portal.index);
        // Each page brings something new but for the last, and each moment is asked for once more at most, and left.
        let moments: std::collections::BTreeSet<_> = moments.iter().collect();
        prop_assert!(questions <= read.len().div_ceil(PAGE) + 3 * moments.len() + 1, "{questions} questions");
        prop_assert_eq!(walk.next_from(Some(i64::MAX)), i64::MAX - OVERLAP_MS);
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
fn a_full_page_behind_which_there_is_nothing_is_the_last() {
    let mut walk = Walk::new(0);
    let page: Vec<_> = (0..4).map(|id| (Some(id), Some(7))).collect();
    walk.heard(&page, false).unwrap();
    assert_eq!(walk.ask(), None);
}

#[test]
fn a_walk_ends_although_records_are_modified_faster_than_they_are_read() {
    let mut follower = Follower::new(0);
    let modified = |turn: u64| (10, (0..2 * PAGE as u64).map(|id| (100 * turn + id, 0)).collect());
    let mut for_ever = (1..).map(modified);
    let walked = follower.walk(&mut for_ever, 100);
    assert!(walked.ended, "{} questions", walked.questions);
    follower.portal.pass(1);
    follower.walk(&mut std::iter::empty(), usize::MAX);
    assert_eq!(
        follower.read, follower.portal.records,
        "what it left is the next one's"
    );
}

#[test]
fn a_search_that_shows_older_ones_than_asked_for_does_not_hold_a_walk_back() {
    let mut walk = Walk::new(7);
    walk.heard(&[(Some(1), Some(3)), (Some(2), Some(5))], true)
        .unwrap();
    assert_eq!(walk.ask(), Some(&Ask::Within(7, None)));
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
