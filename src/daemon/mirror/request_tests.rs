//! Who asks for what, and that everybody who asked is told of a pull that did it.

use super::*;
use Extent::{First, Full, Incremental};
use Mirrored::{Companies, Contacts, Deals};
use futures::FutureExt;
use proptest::prelude::*;
use std::collections::HashMap;

fn told(id: &str) -> Pulled {
    Pulled {
        id: id.to_owned(),
        tallies: Vec::new(),
        errors: Vec::new(),
        started_at: 0,
        finished_at: 0,
    }
}

/// Whether who waits for this pull has been told of its end.
fn is_told(pulls: &Pulls, id: &str) -> bool {
    pulls
        .wait(id)
        .now_or_never()
        .flatten()
        .is_some_and(|pulled| pulled.id == id)
}

#[test]
fn one_pull_waits_and_is_widened_and_everybody_who_asked_before_it_began_is_its() {
    let pulls = Pulls::default();
    let first = pulls.ask(Reason::Clock, &[(Deals, Incremental)]);
    let second = pulls.ask(Reason::Clock, &[(Contacts, First(5)), (Deals, Full)]);
    let third = pulls.ask(Reason::Stale, &[(Contacts, First(3))]);
    assert!(first.id == second.id && second.id == third.id && !third.joined);
    let asked = pulls.take().unwrap();
    assert_eq!(asked.id, first.id);
    assert_eq!(asked.kinds, [(Contacts, First(5)), (Deals, Full)]);
    assert_eq!(asked.reason, Reason::Clock);
    assert_eq!(pulls.take(), None, "one waited");
    pulls.ended(told(&asked.id));
    assert!(is_told(&pulls, &first.id));
}

#[test]
fn who_asks_for_what_runs_joins_it_and_who_asks_for_more_or_too_late_has_one_of_his_own() {
    let pulls = Pulls::default();
    pulls.ask(Reason::Socket, &[(Contacts, Full), (Deals, First(10))]);
    let running = pulls.take().unwrap();
    for kinds in [
        &[(Contacts, Full)][..],
        &[(Contacts, Incremental)],
        &[(Contacts, First(99)), (Deals, First(10))],
    ] {
        let ticket = pulls.ask(Reason::Socket, kinds);
        assert_eq!((&ticket.id, ticket.joined), (&running.id, true), "{kinds:?}");
    }
    for kinds in [
        &[(Deals, First(11))][..],
        &[(Deals, Full)],
        &[(Contacts, Full), (Companies, Incremental)],
    ] {
        let ticket = pulls.ask(Reason::Socket, kinds);
        assert!(ticket.id != running.id && !ticket.joined, "{kinds:?}");
    }
    let next = pulls.take().unwrap();
    assert_eq!(
        next.kinds,
        [(Contacts, Full), (Companies, Incremental), (Deals, Full)]
    );
    pulls.closing();
    let late = pulls.ask(Reason::Socket, &[(Contacts, Full)]);
    assert!(
        late.id != next.id && !late.joined,
        "its lists are read: what changed since is not in them"
    );
    assert!(
        !is_told(&pulls, &late.id) && is_told_after(&pulls, &next.id),
        "each waits for its own"
    );
}

fn is_told_after(pulls: &Pulls, id: &str) -> bool {
    pulls.ended(told(id));
    is_told(pulls, id)
}

#[test]
fn a_pull_that_was_cut_short_is_rested_from_until_its_time_and_no_longer() {
    let pulls = Pulls::default();
    assert!(!pulls.rests());
    let now = Instant::now();
    pulls.rest_until(Some(now + std::time::Duration::from_secs(60)));
    assert!(pulls.rests());
    pulls.ask(Reason::Socket, &[(Contacts, Full)]);
    assert!(pulls.take().is_some(), "who means it is served all the same");
    pulls.rest_until(Some(now));
    assert!(!pulls.rests());
    pulls.rest_until(None);
    assert!(!pulls.rests());
}

#[test]
fn what_is_left_of_a_pull_goes_on_under_its_id_with_what_it_did_and_with_what_was_asked_meanwhile() {
    let pulls = Pulls::default();
    let first = pulls.ask(
        Reason::Socket,
        &[(Contacts, Full), (Companies, Full), (Deals, Full)],
    );
    let asked = pulls.take().unwrap();
    let meanwhile = pulls.ask(Reason::Clock, &[(Contacts, Incremental), (Deals, First(7))]);
    assert!(meanwhile.joined, "all of it runs");
    pulls.closing();
    let other = pulls.ask(Reason::Clock, &[(Contacts, Incremental)]);
    assert_ne!(other.id, first.id);
    let mut carried = Carried {
        started_at: Some(5),
        ..Carried::default()
    };
    let tally = |synced| Tally {
        synced,
        ..Tally::default()
    };
    carried.add(Contacts, tally(3));
    carried.add(Companies, tally(1));
    carried.add(Companies, tally(1));
    pulls.put_back(&asked.kinds[1..], carried.clone());
    let again = pulls.take().unwrap();
    assert_eq!(again.id, first.id);
    assert_eq!(
        again.kinds,
        [(Contacts, Incremental), (Companies, Full), (Deals, Full)]
    );
    assert_eq!(again.carried, carried);
    assert_eq!(
        again.carried.tallies,
        [(Contacts, tally(3)), (Companies, tally(2))]
    );
    // And once more: nobody is forgotten on the way.
    pulls.put_back(&again.kinds[2..], again.carried.clone());
    let last = pulls.take().unwrap();
    assert_eq!(last.kinds, [(Deals, Full)]);
    assert!(pulls.runs(&first.id) && pulls.runs(&other.id));
    pulls.ended(told(&last.id));
    assert!(!pulls.runs(&first.id) && !pulls.runs(&other.id));
    assert!(is_told(&pulls, &first.id) && is_told(&pulls, &other.id));
    pulls.put_back(&[(Deals, Full)], Carried::default());
    assert_eq!(pulls.take(), None, "nothing ran that could be put back");
}

#[test]
fn the_last_pulls_are_remembered_for_whoever_comes_to_wait_late() {
    let pulls = Pulls::default();
    for number in 0..=REMEMBERED {
        pulls.ended(told(&number.to_string()));
    }
    assert!(!is_told(&pulls, "0"));
    assert!((1..=REMEMBERED).all(|number| is_told(&pulls, &number.to_string())));
}

fn extent() -> impl Strategy<Value = Extent> {
    prop_oneof![Just(Full), Just(Incremental), (1u64..4).prop_map(First)]
}

fn kinds() -> impl Strategy<Value = Vec<(Mirrored, Extent)>> {
    prop::collection::btree_map(0usize..3, extent(), 1..4).prop_map(|kinds| {
        let of = |(at, extent): (usize, Extent)| (Mirrored::ALL[at], extent);
        kinds.into_iter().map(of).collect()
    })
}

#[derive(Debug, Clone)]
enum Step {
    Ask(Vec<(Mirrored, Extent)>),
    /// The puller takes a pull, or does one kind of the one it has.
    Work,
    /// The term ends.
    End,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![2 => kinds().prop_map(Step::Ask), 5 => Just(Step::Work), 1 => Just(Step::End)]
}

/// Does what the puller does: the next kind, and after the last one the end.
fn work(pulls: &Pulls, running: &mut Option<(Asked, usize)>, done: &mut Vec<(String, Mirrored, Extent)>) {
    let Some((asked, at)) = running else {
        *running = pulls.take().map(|asked| (asked, 0));
        return;
    };
    if let Some((kind, extent)) = asked.kinds.get(*at) {
        done.push((asked.id.clone(), *kind, *extent));
        *at += 1;
        if *at == asked.kinds.len() {
            pulls.closing();
        }
        return;
    }
    pulls.ended(told(&asked.id));
    *running = None;
}

proptest! {
    #[test]
    fn of_two_extents_the_wider_does_what_both_would(one in extent(), other in extent()) {
        let both = one.widen(other);
        prop_assert!(both.covers(one) && both.covers(other));
        prop_assert_eq!(both, other.widen(one));
        prop_assert_eq!(one.widen(one), one);
        prop_assert!(both == one || both == other || both == Full, "no wider than it must be");
        prop_assert!(!First(1).covers(Incremental) && !Incremental.covers(First(1)) && !Incremental.covers(Full));
    }

    #[test]
    fn everybody_is_told_of_a_pull_that_did_what_was_asked_for_however_often_it_was_put_back(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let pulls = Pulls::default();
        let mut running: Option<(Asked, usize)> = None;
        // What was done, in which pull; and who asked for what, after how much of it.
        let mut done = Vec::new();
        let mut tickets = Vec::new();
        for step in steps {
            match step {
                Step::Ask(kinds) if tickets.len() < REMEMBERED / 2 => {
                    let ticket = pulls.ask(Reason::Socket, &kinds);
                    if ticket.joined {
                        let (asked, _) = running.as_ref().expect("only what runs is joined");
                        prop_assert_eq!(&asked.id, &ticket.id);
                    }
                    tickets.push((ticket, kinds, done.len()));
                }
                Step::Ask(_) => {}
                Step::Work => work(&pulls, &mut running, &mut done),
                // A pull that has done all is told of, and not put back.
                Step::End => if let Some((asked, at)) = running.take_if(|(asked, at)| *at < asked.kinds.len()) {
                    pulls.put_back(&asked.kinds[at..], Carried::default());
                },
            }
        }
        for _ in 0..200 {
            work(&pulls, &mut running, &mut done);
        }
        prop_assert!(running.is_none() && pulls.take().is_none());
        let mut told: HashMap<String, usize> = HashMap::new();
        for pulled in pulls.ended.borrow().iter() {
            *told.entry(pulled.id.clone()).or_default() += 1;
        }
        for (ticket, kinds, before) in tickets {
            prop_assert_eq!(told.get(&ticket.id), Some(&1), "told once");
            for (kind, extent) in kinds {
                let does = |(id, of, to): &(String, Mirrored, Extent)| {
                    *of == kind && to.covers(extent) && (!ticket.joined || *id == ticket.id)
                };
                let since = if ticket.joined { 0 } else { before };
                prop_assert!(done[since..].iter().any(does), "{kind:?} {extent:?} was not done");
            }
        }
    }
}
