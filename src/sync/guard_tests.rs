//! The guard against a small HubSpot, where requests land late, the index lags and answers are lost.

use super::*;
use crate::mapping::{Adopt, Object, OnDelete, OnMissing, TableName};
use crate::sync::record::Intent;
use proptest::prelude::*;

const SETTLE: i64 = 1_000;
const TIMEOUT: i64 = 300;

fn rules(adopt: Adopt, unique: bool) -> Rules {
    let object = Object {
        name: "bookings".to_owned(),
        table: TableName {
            schema: "public".to_owned(),
            name: "booking".to_owned(),
        },
        from: None,
        watch: Vec::new(),
        object_type: "2-1".to_owned(),
        key: "id".to_owned(),
        hubspot_id: "hubspot_id".to_owned(),
        synced_at: "synced_at".to_owned(),
        match_on: Some("booking_id".to_owned()),
        adopt,
        create: true,
        capture: true,
        on_missing: OnMissing::Fail,
        on_delete: OnDelete::Keep,
        condition: None,
        properties: Vec::new(),
        links: Vec::new(),
    };
    Rules::new(&object, true).in_hubspot(unique, false)
}

fn guard(rules: &Rules) -> Guard<'_> {
    Guard {
        rules,
        settle: SETTLE,
        former: None,
    }
}

fn row(pending: Option<(&str, i64)>, inserted: bool) -> Row {
    Row {
        value: "B1".to_owned(),
        pending: pending.map(|(value, started)| Pending {
            value: value.to_owned(),
            started,
        }),
        inserted,
    }
}

fn owned_by(key: &str) -> Owner {
    Owner {
        object: 0,
        key: key.into(),
        elsewhere: None,
    }
}

fn hit(id: &str, owner: Option<&str>) -> Hit {
    Hit {
        id: id.to_owned(),
        owner: owner.map(owned_by),
        busy: false,
        leaves: None,
        created_at: None,
    }
}

fn refused(answer: Answer) -> String {
    match answer {
        Answer::Refuse(refusal) => refusal.category,
        other => panic!("{other:?} is no refusal"),
    }
}

/// One attempt at the row: how long after the last, under which natural key, and what becomes of its create.
#[derive(Debug, Clone)]
struct Attempt {
    pause: i64,
    value: u8,
    answered: bool,
    /// How long after its start the create lands; `None`: never, unless it is answered.
    lands: Option<i64>,
    lag: i64,
}

fn attempt() -> impl Strategy<Value = Attempt> {
    let lands = prop::option::of(0..SETTLE);
    (0..SETTLE, 0..3_u8, any::<bool>(), lands, 0..=index_lag(SETTLE)).prop_map(
        |(pause, value, answered, lands, lag)| Attempt {
            pause,
            value,
            answered,
            lands: if answered {
                Some(lands.unwrap_or(0) / 10)
            } else {
                lands
            },
            lag,
        },
    )
}

#[derive(Debug)]
struct Made {
    value: String,
    landed: i64,
    indexed: i64,
}

/// HubSpot, and the row's intent.
struct World {
    unique: bool,
    records: Vec<Made>,
    now: i64,
    intent: Option<(String, i64)>,
    inserted: bool,
}

impl World {
    fn find(&self, value: &str) -> Vec<Hit> {
        let seen = |made: &&Made| {
            let known = if self.unique { made.landed } else { made.indexed };
            made.value == value && known <= self.now
        };
        self.records
            .iter()
            .filter(seen)
            .map(|made| hit(&made.value, None))
            .collect()
    }

    /// A create, after its intent; true if it was confirmed.
    fn create(&mut self, value: &str, attempt: &Attempt) -> bool {
        self.intent = Some((value.to_owned(), self.now));
        if let Some(delay) = attempt.lands {
            let landed = self.now + delay;
            match self
                .records
                .iter_mut()
                .find(|made| self.unique && made.value == value)
            {
                Some(same) => same.landed = same.landed.min(landed),
                None => self.records.push(Made {
                    value: value.to_owned(),
                    landed,
                    indexed: landed + attempt.lag,
                }),
            }
        }
        self.now += if attempt.answered {
            attempt.lands.unwrap_or(0)
        } else {
            TIMEOUT
        };
        attempt.answered
    }

    /// Does what the guard says until something is sent; true if the row knows its record then.
    fn push(&mut self, guard: &Guard<'_>, attempt: &Attempt) -> bool {
        let value = attempt.value.to_string();
        self.now += attempt.pause;
        let mut asked_own = false;
        for _ in 0..10 {
            let pending = self
                .intent
                .as_ref()
                .map(|(value, started)| (value.as_str(), *started));
            let row = Row {
                value: value.clone(),
                ..row(pending, self.inserted)
            };
            let answer = match guard.next(&row, self.now) {
                Next::Create => Answer::Create,
                Next::Ask if asked_own => Answer::Create,
                Next::Ask => {
                    asked_own = true;
                    guard.asked(&row, &self.find(&row.value))
                }
                Next::Resolve => {
                    let earlier = row.pending.as_ref().unwrap().value.clone();
                    guard.resolved(&row, &self.find(&earlier), self.now)
                }
                Next::Wait(until) => Answer::Wait(until),
            };
            match answer {
                Answer::Create => return self.create(&value, attempt),
                Answer::GoOn { .. } => self.intent = None,
                Answer::Update { id, update_only } => {
                    assert!(!update_only);
                    let record = self.records.iter_mut().find(|made| made.value == id).unwrap();
                    record.value = value;
                    return true;
                }
                Answer::Wait(until) => {
                    assert!(until > self.now, "waiting for the past");
                    self.now = until;
                }
                Answer::Held => panic!("there is no other row"),
                Answer::Refuse(refusal) => panic!("{refusal:?}"),
            }
        }
        panic!("no end of questions");
    }
}

proptest! {
    #[test]
    fn one_row_is_one_record_however_many_answers_are_lost(
        attempts in prop::collection::vec(attempt(), 1..8),
        unique in any::<bool>(),
        inserted in any::<bool>(),
    ) {
        let rules = rules(Adopt::Overwrite, unique);
        let guard = guard(&rules);
        let mut world = World { unique, records: Vec::new(), now: 0, intent: None, inserted };
        let last = Attempt { pause: 1, value: 1, answered: true, lands: Some(1), lag: 0 };
        for attempt in attempts.iter().chain([&last]) {
            if world.push(&guard, attempt) {
                break;
            }
        }
        prop_assert_eq!(world.records.len(), 1, "{:?}", &world.records);
    }
}

#[test]
fn what_is_unique_is_created_at_once_and_repeated_at_once() {
    let rules = rules(Adopt::Overwrite, true);
    let guard = guard(&rules);
    assert_eq!(guard.next(&row(None, false), 0), Next::Create);
    assert_eq!(guard.next(&row(Some(("B1", 0)), false), 1), Next::Create);
    assert_eq!(guard.next(&row(Some(("B0", 0)), true), 1), Next::Resolve);
}

#[test]
fn what_is_not_unique_is_searched_for_unless_an_insert_named_it() {
    let rules = rules(Adopt::Overwrite, false);
    let guard = guard(&rules);
    assert_eq!(guard.next(&row(None, true), 0), Next::Create);
    assert_eq!(guard.next(&row(None, false), 0), Next::Ask);
    let known = SETTLE + index_lag(SETTLE);
    assert_eq!(
        guard.next(&row(Some(("B1", 0)), true), known - 1),
        Next::Wait(known)
    );
    assert_eq!(guard.next(&row(Some(("B1", 0)), true), known), Next::Resolve);
    let not_alone = Rules {
        ask_first: true,
        ..rules.clone()
    };
    let guard = Guard {
        rules: &not_alone,
        ..guard
    };
    assert_eq!(
        guard.next(&row(None, true), 0),
        Next::Ask,
        "another row may have made it"
    );
}

#[test]
fn a_create_of_a_former_holder_may_have_been_started_as_late_as_any_request_of_its() {
    let rules = rules(Adopt::Overwrite, false);
    let guard = Guard {
        former: Some(500),
        ..guard(&rules)
    };
    let record = |noted_at| Record {
        key: "1".into(),
        hubspot_id: None,
        intent_id: None,
        intent: Some(Intent {
            match_value: Some("B1".to_owned()),
            noted_at,
            ..Intent::default()
        }),
        properties: "".into(),
        update_properties: "".into(),
        match_value: None,
        targets: Vec::new(),
        linked: Vec::new(),
        entries: Vec::new(),
        update_only_set: false,
        failed: false,
        problems: Vec::new(),
    };
    let started = |noted_at| guard.pending(&record(noted_at)).map(|pending| pending.started);
    assert_eq!((started(100), started(700)), (Some(500), Some(700)));
}

#[test]
fn two_records_under_one_key_are_never_chosen_from() {
    let rules = rules(Adopt::Overwrite, false);
    let guard = guard(&rules);
    let two = [hit("1", None), hit("2", Some("7"))];
    assert_eq!(refused(guard.asked(&row(None, false), &two)), "ambiguous");
    let pending = row(Some(("B1", 0)), true);
    assert_eq!(refused(guard.resolved(&pending, &two, 10 * SETTLE)), "ambiguous");
}

#[test]
fn a_record_that_another_row_holds_is_that_rows_and_it_is_named() {
    let rules = rules(Adopt::Overwrite, false);
    let guard = guard(&rules);
    let owned = [hit("1", Some("7"))];
    assert_eq!(refused(guard.asked(&row(None, false), &owned)), "owner");
    let same = row(Some(("B1", 0)), true);
    assert_eq!(refused(guard.resolved(&same, &owned, 10 * SETTLE)), "owner");
    // The row has another natural key by now: the record under the old one does not concern it any more.
    let other = row(Some(("B0", 0)), true);
    let go_on = Answer::GoOn {
        next: Next::Create,
        owner: Some(owned_by("7")),
    };
    assert_eq!(guard.resolved(&other, &owned, 10 * SETTLE), go_on);
}

#[test]
fn a_record_that_another_row_is_on_its_way_to_is_waited_for_until_it_is_known_whose_it_is() {
    for unique in [true, false] {
        let rules = rules(Adopt::UpdateOnly, unique);
        let guard = guard(&rules);
        let busy = |owner: Option<&str>| Hit {
            busy: true,
            ..hit("7", owner)
        };
        assert_eq!(guard.asked(&row(None, false), &[busy(None)]), Answer::Held);
        let leaving = Hit {
            leaves: Some(7),
            ..hit("7", None)
        };
        assert_eq!(guard.asked(&row(None, false), &[leaving]), Answer::Wait(7));
        let pending = row(Some(("B1", 0)), true);
        assert_eq!(guard.resolved(&pending, &[busy(None)], 10 * SETTLE), Answer::Held);
        assert_eq!(
            refused(guard.asked(&row(None, false), &[busy(Some("k"))])),
            "owner"
        );
    }
}

#[test]
fn an_unowned_record_is_adopted_as_the_mapping_says_unless_our_own_create_made_it() {
    let found = [hit("1", None)];
    let update = |update_only| Answer::Update {
        id: "1".to_owned(),
        update_only,
    };
    for unique in [false, true] {
        let answer = |adopt, pending| {
            let rules = rules(adopt, unique);
            guard(&rules).asked(&row(pending, false), &found)
        };
        let takes_over = if unique { Answer::Create } else { update(false) };
        assert_eq!(answer(Adopt::Overwrite, None), takes_over);
        assert_eq!(answer(Adopt::UpdateOnly, None), update(true));
        assert_eq!(refused(answer(Adopt::Fail, None)), "adopt");
    }
    // Asked for before it was created, it was not there.
    for adopt in [Adopt::Overwrite, Adopt::UpdateOnly, Adopt::Fail] {
        let rules = rules(adopt, true);
        assert_eq!(
            guard(&rules).asked(&row(Some(("B1", 0)), true), &found),
            Answer::Create
        );
        let rules = self::rules(adopt, false);
        let resolved = guard(&rules).resolved(&row(Some(("B1", 0)), true), &found, 10 * SETTLE);
        assert_eq!(resolved, update(false));
    }
}

#[test]
fn what_a_buried_create_has_made_is_the_one_record_that_is_young_enough_and_nobodys() {
    let rules = rules(Adopt::Overwrite, true);
    let guard = guard(&rules);
    let made_at = |hit: Hit, at: i64| Hit {
        created_at: Some(at),
        ..hit
    };
    let first_at = 100_000_000;
    let young = made_at(hit("7", None), first_at - CLOCKS);
    let old = made_at(hit("7", None), first_at - CLOCKS - 1);
    let held = made_at(hit("8", Some("k")), first_at);
    assert_eq!(guard.made(first_at, &[]), super::Made::Nothing);
    assert_eq!(
        guard.made(first_at, std::slice::from_ref(&young)),
        super::Made::Record("7".to_owned())
    );
    assert_eq!(
        guard.made(first_at, std::slice::from_ref(&old)),
        super::Made::Nothing
    );
    assert_eq!(
        guard.made(first_at, std::slice::from_ref(&held)),
        super::Made::Nothing
    );
    assert_eq!(
        guard.made(first_at, &[hit("7", None)]),
        super::Made::Nothing,
        "its age is not known"
    );
    assert_eq!(
        guard.made(first_at, &[young.clone(), held]),
        super::Made::Record("7".to_owned()),
        "whose the other is, is known"
    );
    assert_eq!(guard.made(first_at, &[young, old]), super::Made::Unclear);
}
