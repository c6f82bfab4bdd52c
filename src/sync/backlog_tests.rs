use super::*;
use proptest::prelude::*;

const MS: Duration = Duration::from_millis(1);

fn change(object: ObjectIndex, seq: i64, key: &str, op: Op) -> Change {
    Change {
        object,
        seq,
        key: Some(key.into()),
        op,
        hubspot_id: None,
        captured_at: seq,
    }
}

fn backlog() -> Backlog {
    // Object 1 links to object 0, as bookings do to contacts.
    Backlog::new(vec![vec![], vec![0]], 1000, 250 * MS)
}

fn admit(backlog: &mut Backlog, changes: Vec<Change>, now: Duration) -> usize {
    let look = backlog.look_begins();
    backlog.admit(look, changes, now)
}

fn keys(claimed: &[Claimed]) -> Vec<&str> {
    claimed.iter().map(|claimed| &*claimed.key).collect()
}

#[test]
fn a_lone_change_waits_for_company_and_a_full_batch_does_not() {
    let mut backlog = backlog();
    admit(&mut backlog, vec![change(0, 1, "a", Op::Update)], Duration::ZERO);
    assert!(backlog.take(0, 2, 249 * MS).is_empty());
    assert_eq!(backlog.next_ready(2, 249 * MS), Some(250 * MS));
    assert_eq!(keys(&backlog.take(0, 2, 250 * MS)), ["a"]);
    admit(
        &mut backlog,
        vec![change(0, 2, "b", Op::Update), change(0, 3, "c", Op::Update)],
        300 * MS,
    );
    assert_eq!(keys(&backlog.take(0, 2, 300 * MS)), ["b", "c"]);
}

#[test]
fn many_changes_of_one_row_are_one_record_and_all_of_them_are_done_with_it() {
    let mut backlog = backlog();
    let changes = (1..=50).map(|seq| change(0, seq, "a", if seq == 7 { Op::Insert } else { Op::Update }));
    assert_eq!(admit(&mut backlog, changes.collect(), Duration::ZERO), 50);
    let mut claimed = backlog.take(0, 100, 250 * MS);
    assert_eq!(claimed.len(), 1);
    assert!(claimed[0].full, "one of them was the insert");
    claimed[0].seqs.sort_unstable();
    assert_eq!(claimed[0].seqs, (1..=50).collect::<Vec<i64>>());
}

#[test]
fn a_row_that_changes_during_its_push_is_pushed_again_and_not_at_the_same_time() {
    let mut backlog = backlog();
    admit(&mut backlog, vec![change(0, 1, "a", Op::Update)], Duration::ZERO);
    let first = backlog.take(0, 100, 250 * MS).remove(0);
    admit(&mut backlog, vec![change(0, 2, "a", Op::Update)], 260 * MS);
    assert!(backlog.take(0, 100, 9_000 * MS).is_empty(), "claimed");
    backlog.release(0, first, Release::Done);
    let second = backlog.take(0, 100, 9_000 * MS);
    assert_eq!((keys(&second), second[0].seqs.clone()), (vec!["a"], vec![2]));
}

#[test]
fn a_look_that_began_before_the_receipt_does_not_bring_its_changes_back() {
    let mut backlog = backlog();
    admit(&mut backlog, vec![change(0, 1, "a", Op::Update)], Duration::ZERO);
    let claimed = backlog.take(0, 100, 250 * MS).remove(0);
    let early = backlog.look_begins();
    backlog.release(0, claimed, Release::Done);
    assert_eq!(
        backlog.admit(early, vec![change(0, 1, "a", Op::Update)], 260 * MS),
        0
    );
    assert_eq!(backlog.held(0), 0);
}

#[test]
fn a_booking_waits_for_the_new_contacts_seen_with_it_or_before_it_and_for_no_other() {
    let mut backlog = backlog();
    let early = vec![
        change(0, 1, "known contact", Op::Update),
        change(1, 2, "early booking", Op::Insert),
    ];
    admit(&mut backlog, early, Duration::ZERO);
    // In one transaction, the booking first.
    let late = vec![
        change(1, 3, "late booking", Op::Insert),
        change(0, 4, "new contact", Op::Insert),
    ];
    admit(&mut backlog, late, MS);
    assert_eq!(keys(&backlog.take(1, 100, 250 * MS)), ["early booking"]);
    let contacts = backlog.take(0, 100, 250 * MS);
    assert!(
        backlog.take(1, 100, 300 * MS).is_empty(),
        "the contact is on its way"
    );
    for contact in contacts {
        backlog.release(
            0,
            contact,
            Release::Again {
                not_before: 60_000 * MS,
                counts: true,
            },
        );
    }
    assert_eq!(
        keys(&backlog.take(1, 100, 300 * MS)),
        ["late booking"],
        "a second attempt is not waited for"
    );
}

#[test]
fn the_time_of_the_next_look_is_never_now_unless_something_may_go() {
    let mut backlog = backlog();
    let changes = (1..=3).map(|seq| change(0, seq, &seq.to_string(), Op::Update));
    admit(&mut backlog, changes.collect(), Duration::ZERO);
    let held = backlog.take(0, 2, MS);
    assert_eq!(held.len(), 2, "a full batch");
    let later = |claimed: Claimed| (claimed, 9_000 * MS);
    for (claimed, not_before) in held.into_iter().map(later) {
        let again = Release::Again {
            not_before,
            counts: false,
        };
        backlog.release(0, claimed, again);
    }
    assert!(backlog.take(0, 2, 2 * MS).is_empty());
    assert_eq!(
        backlog.next_ready(2, 2 * MS),
        Some(250 * MS),
        "three wait, but one alone may go, and that is not due"
    );
}

#[test]
fn a_booking_waits_ten_seconds_at_most() {
    let mut backlog = backlog();
    let changes = vec![
        change(0, 1, "contact", Op::Insert),
        change(1, 2, "booking", Op::Insert),
    ];
    admit(&mut backlog, changes, Duration::ZERO);
    let _on_its_way = backlog.take(0, 100, 250 * MS);
    assert!(backlog.take(1, 100, ORDER_WAIT - MS).is_empty());
    assert_eq!(backlog.next_ready(100, ORDER_WAIT - MS), Some(ORDER_WAIT));
    assert_eq!(keys(&backlog.take(1, 100, ORDER_WAIT)), ["booking"]);
}

#[test]
fn a_deleted_row_carries_what_it_was_in_hubspot_and_what_is_kept_concerns_nobody() {
    let deleted = |object, seq, key: &str| Change {
        hubspot_id: Some(format!("id {seq}")),
        ..change(object, seq, key, Op::Delete)
    };
    let mut backlog = backlog().keeping(1);
    let changes = vec![deleted(0, 1, "a"), deleted(0, 2, "a"), deleted(1, 3, "b")];
    admit(&mut backlog, changes, Duration::ZERO);
    let claimed = backlog.take(0, 100, 250 * MS);
    let ids: Vec<&str> = claimed[0].orphans.iter().map(String::as_str).collect();
    assert_eq!(ids, ["id 1", "id 2"], "a key may be deleted twice");
    assert!(backlog.take(1, 100, 250 * MS)[0].orphans.is_empty());
}

#[test]
fn a_deleted_row_waits_for_new_ones_that_may_take_its_record_over() {
    let mut backlog = backlog();
    let deleted = Change {
        hubspot_id: Some("7".to_owned()),
        ..change(0, 1, "old", Op::Delete)
    };
    let changes = vec![deleted, change(0, 2, "new", Op::Insert)];
    admit(&mut backlog, changes, Duration::ZERO);
    let mut claimed = backlog.take(0, 100, 250 * MS);
    assert_eq!(keys(&claimed), ["new"]);
    assert!(backlog.take(0, 100, 300 * MS).is_empty());
    backlog.release(0, claimed.pop().expect("one was claimed"), Release::Done);
    assert_eq!(keys(&backlog.take(0, 100, 300 * MS)), ["old"]);
}

#[test]
fn a_match_value_is_claimed_by_one_row_at_a_time() {
    let mut backlog = backlog();
    let changes = vec![change(0, 1, "a", Op::Insert), change(0, 2, "b", Op::Insert)];
    admit(&mut backlog, changes, Duration::ZERO);
    let mut claimed = backlog.take(0, 100, 250 * MS);
    let values: Vec<(Key, String)> = claimed
        .iter()
        .map(|claimed| (claimed.key.clone(), "x@example.com".to_owned()))
        .collect();
    assert_eq!(backlog.claim_matches(0, &values), [Key::from("b")]);
    let again = Release::Again {
        not_before: 300 * MS,
        counts: false,
    };
    backlog.release(0, claimed.pop().expect("two were claimed"), again);
    backlog.release(0, claimed.pop().expect("two were claimed"), Release::Done);
    let second = backlog.take(0, 100, 300 * MS);
    assert_eq!(
        keys(&second),
        ["b"],
        "and the other goes when that is done, without more delay"
    );
    assert!(backlog.claim_matches(0, &values[1..]).is_empty());
}

#[test]
fn a_match_value_is_claimed_by_one_row_at_a_time_of_all_objects_alike() {
    let mut backlog = Backlog::new(vec![vec![], vec![], vec![]], 1000, 250 * MS).alike(vec![0, 0, 2]);
    let changes = (0..3).map(|object| change(object, 1 + object as i64, "a", Op::Insert));
    admit(&mut backlog, changes.collect(), Duration::ZERO);
    let value = [(Key::from("a"), "7".to_owned())];
    let mut taken: Vec<Vec<Claimed>> = (0..3).map(|object| backlog.take(object, 100, 250 * MS)).collect();
    let refused: Vec<usize> = [1, 0, 2]
        .into_iter()
        .map(|object| backlog.claim_matches(object, &value).len())
        .collect();
    assert_eq!(
        refused,
        [0, 1, 0],
        "the same key of another object is another row"
    );
    let first = taken[1].pop().expect("one was claimed");
    backlog.release(1, first, Release::Done);
    assert!(backlog.claim_matches(0, &value).is_empty());
}

#[test]
fn a_prefetched_page_leaves_out_what_a_change_has_taken_or_will_take() {
    let mut backlog = backlog();
    let page = backlog.page_begins();
    let changes = vec![
        change(0, 1, "pushed", Op::Update),
        change(0, 2, "on its way", Op::Update),
    ];
    admit(&mut backlog, changes, Duration::ZERO);
    let claimed = backlog.take(0, 100, 250 * MS);
    let pushed = claimed
        .into_iter()
        .find(|claimed| &*claimed.key == "pushed")
        .expect("it was taken");
    backlog.release(0, pushed, Release::Done);
    admit(&mut backlog, vec![change(0, 3, "changed", Op::Update)], 260 * MS);
    let all: Vec<Key> = ["pushed", "on its way", "changed", "quiet"]
        .map(Key::from)
        .to_vec();
    assert_eq!(keys(&backlog.claim_swept(0, &all, page, 300 * MS)), ["quiet"]);
    let fresh = backlog.page_begins();
    assert_eq!(
        keys(&backlog.claim_swept(0, &all[..1], fresh, 300 * MS)),
        ["pushed"],
        "a later read may go"
    );
}

#[derive(Debug, Clone)]
enum Step {
    Change(usize, u8, Op),
    Look,
    Take(usize),
    Release(prop::sample::Index, bool),
    Sweep(usize),
    Pass(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop::sample::select(vec![Op::Insert, Op::New, Op::Update, Op::Delete, Op::Archive])
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..2usize, 0..6u8, op()).prop_map(|(object, key, op)| Step::Change(object, key, op)),
        3 => Just(Step::Look),
        4 => (0..2usize).prop_map(Step::Take),
        4 => (any::<prop::sample::Index>(), any::<bool>()).prop_map(|(at, done)| Step::Release(at, done)),
        1 => (0..2usize).prop_map(Step::Sweep),
        2 => (1..2_000u64).prop_map(Step::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// The table, and beside it what is claimed: nothing is claimed twice, and in the end the table is empty.
    #[test]
    fn no_row_is_in_two_batches_and_no_change_is_lost(steps in prop::collection::vec(step(), 0..200)) {
        let mut backlog = backlog();
        let mut table: Vec<Change> = Vec::new();
        let mut flying: Vec<(ObjectIndex, Claimed)> = Vec::new();
        let (mut now, mut seq) = (Duration::ZERO, 0);
        let done = |backlog: &mut Backlog, table: &mut Vec<Change>, object, claimed: Claimed| {
            table.retain(|change| !claimed.seqs.contains(&change.seq));
            backlog.release(object, claimed, Release::Done);
        };
        for step in steps {
            match step {
                Step::Change(object, key, op) => {
                    seq += 1;
                    let orphan = matches!(op, Op::Delete | Op::Archive).then(|| format!("{}", seq % 5));
                    table.push(Change { hubspot_id: orphan, ..change(object, seq, &key.to_string(), op) });
                }
                Step::Look => drop(admit(&mut backlog, table.clone(), now)),
                Step::Take(object) => flying.extend(backlog.take(object, 3, now).into_iter().map(|row| (object, row))),
                Step::Sweep(object) => {
                    let page = backlog.page_begins();
                    let all: Vec<Key> = (0..6).map(|key| Key::from(key.to_string())).collect();
                    let swept = backlog.claim_swept(object, &all, page, now);
                    backlog.page_ends(page);
                    flying.extend(swept.into_iter().map(|row| (object, row)));
                }
                Step::Release(at, ok) if !flying.is_empty() => {
                    let (object, claimed) = flying.swap_remove(at.index(flying.len()));
                    if ok {
                        done(&mut backlog, &mut table, object, claimed);
                    } else {
                        backlog.release(object, claimed, Release::Again { not_before: now + 100 * MS, counts: true });
                    }
                }
                Step::Release(..) => {}
                Step::Pass(millis) => now += Duration::from_millis(millis),
            }
            for (object, row) in &flying {
                let named = table.iter().filter(|change| change.object == *object && row.seqs.contains(&change.seq));
                let orphans: BTreeSet<String> = named.filter_map(|change| change.hubspot_id.clone()).collect();
                prop_assert_eq!(&row.orphans, &orphans, "what its changes say it was in HubSpot");
            }
            let mut claimed: Vec<(ObjectIndex, Key)> =
                flying.iter().map(|(object, row)| (*object, row.key.clone())).collect();
            let count = claimed.len();
            claimed.sort();
            claimed.dedup();
            prop_assert_eq!(claimed.len(), count, "a row is in two batches");
        }
        for (object, claimed) in flying.drain(..) {
            done(&mut backlog, &mut table, object, claimed);
        }
        for _ in 0..200 {
            now += 11_000 * MS;
            admit(&mut backlog, table.clone(), now);
            for object in 0..2 {
                for claimed in backlog.take(object, 3, now) {
                    done(&mut backlog, &mut table, object, claimed);
                }
            }
        }
        prop_assert!(table.is_empty(), "changes were lost: {:?}", table);
        prop_assert!(backlog.held(0) == 0 && backlog.held(1) == 0);
    }
}

#[test]
fn of_a_paused_object_one_row_goes_a_minute_in_turn_and_its_neighbours_go_on() {
    let mut backlog = backlog();
    let rows = ["a", "b", "c"];
    let changes = (1..).zip(rows).map(|(seq, key)| change(0, seq, key, Op::Insert));
    admit(&mut backlog, changes.collect(), Duration::ZERO);
    backlog.pause(0, Duration::ZERO);
    assert!(backlog.is_paused(0) && backlog.first_attempts_done());
    admit(&mut backlog, vec![change(1, 9, "x", Op::Insert)], Duration::ZERO);
    assert_eq!(
        keys(&backlog.take(1, 10, 250 * MS)),
        ["x"],
        "it does not wait for the contacts"
    );
    let mut now = Duration::ZERO;
    for expected in ["a", "b", "c", "a"] {
        assert_eq!(backlog.next_ready(10, now), Some(now + TRIAL_EVERY));
        now += TRIAL_EVERY;
        assert!(backlog.take(0, 10, now - MS).is_empty());
        let tried = backlog.take(0, 10, now);
        assert_eq!(keys(&tried), [expected]);
        assert!(backlog.take(0, 10, now).is_empty());
        for claimed in tried {
            let not_before = now + MS;
            backlog.release(
                0,
                claimed,
                Release::Again {
                    not_before,
                    counts: false,
                },
            );
        }
    }
    backlog.try_now(0);
    assert_eq!(backlog.next_ready(10, now), Some(now));
    backlog.resume(0);
    assert_eq!(keys(&backlog.take(0, 10, now)), ["a", "b", "c"]);
    assert!(!backlog.is_paused(0));
}

#[test]
fn a_paused_object_of_which_nothing_waits_lacks_a_row_to_try_once_it_is_time() {
    let mut backlog = backlog();
    backlog.pause(0, Duration::ZERO);
    assert_eq!(backlog.next_ready(10, TRIAL_EVERY), None);
    assert!(!backlog.lacks_trial(0, TRIAL_EVERY - MS));
    assert!(backlog.lacks_trial(0, TRIAL_EVERY));
    assert!(!backlog.lacks_trial(1, TRIAL_EVERY), "it is not paused");
    admit(&mut backlog, vec![change(0, 1, "a", Op::Update)], TRIAL_EVERY);
    assert!(!backlog.lacks_trial(0, TRIAL_EVERY));
}

#[test]
fn of_a_closed_object_nothing_goes_out_and_it_is_asked_for_once_a_minute_or_when_somebody_wants_to_know() {
    let mut backlog = backlog().closing(0);
    let changes = vec![change(0, 1, "a", Op::Insert), change(1, 2, "b", Op::Update)];
    admit(&mut backlog, changes, Duration::ZERO);
    assert_eq!(
        keys(&backlog.take(1, 100, 250 * MS)),
        ["b"],
        "its neighbours go on"
    );
    for now in [TRIAL_EVERY, 10 * TRIAL_EVERY] {
        backlog.try_now(0);
        assert!(backlog.take(0, 100, now).is_empty());
        assert_eq!(backlog.next_ready(100, now), None);
        assert!(!backlog.lacks_trial(0, now));
    }
    assert!(backlog.is_asked_for(0, Duration::ZERO), "somebody wants to know");
    assert!(!backlog.is_asked_for(0, TRIAL_EVERY - MS));
    assert!(backlog.is_asked_for(0, TRIAL_EVERY));
    assert!(!backlog.is_asked_for(0, TRIAL_EVERY), "once");
    assert!(!backlog.is_asked_for(1, 10 * TRIAL_EVERY), "it is not closed");
    assert_eq!(backlog.held(0), 1, "its change is kept");
}
