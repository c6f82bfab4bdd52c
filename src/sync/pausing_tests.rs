//! Pausing, by example and by property.

use super::*;
use proptest::prelude::*;

fn missing(name: &str) -> Vec<Cause> {
    vec![Cause::MissingProperty(name.to_owned())]
}

fn refuse(watch: &mut Watch, act: Act, causes: &[Cause], times: usize) -> Option<Turn> {
    let push = watch.begins();
    watch.heard(push, act, 0, std::iter::repeat_n(causes, times))
}

fn accept(watch: &mut Watch, act: Act) -> Option<Turn> {
    let push = watch.begins();
    watch.heard(push, act, 1, [])
}

fn own(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn causes_are_read_from_codes_and_words_and_a_bad_value_is_none() {
    let of = |codes: &[&str], properties: &[&str], message: &str| {
        Cause::of(&own(codes), &own(properties), message)
    };
    assert_eq!(of(&["PROPERTY_DOESNT_EXIST"], &["x"], ""), missing("x"));
    assert_eq!(
        of(&["READ_ONLY_VALUE"], &["x"], ""),
        [Cause::ReadOnlyProperty("x".to_owned())]
    );
    let rule = [Cause::RequiredProperty("x".to_owned())];
    assert_eq!(of(&["MISSING_REQUIRED_PROPERTY"], &["x"], ""), rule);
    assert_eq!(of(&["MISSING_CONDITIONAL_REQUIRED_PROPERTY"], &["x"], ""), rule);
    let message = "Error creating …. Some required properties were not set.";
    assert_eq!(of(&[], &["x"], message), rule);
    let message = "Unable to perform update/upsert by non-unique … property …";
    assert_eq!(of(&[], &[], message), [Cause::KeyNotUnique]);
    assert_eq!(
        of(&[], &[], "Missing Edit Associations permission."),
        [Cause::Forbidden]
    );
    assert_eq!(
        of(&["INVALID_OPTION"], &["x"], "Property values were not valid"),
        []
    );
    assert_eq!(of(&[], &[], "Contact already exists. Existing ID: …"), []);
}

#[test]
fn twenty_in_a_row_pause_and_nineteen_do_not() {
    let mut watch = Watch::default();
    assert_eq!(refuse(&mut watch, Act::Update, &missing("x"), 19), None);
    assert_eq!(
        refuse(&mut watch, Act::Update, &missing("x"), 1),
        Some(Turn::Paused)
    );
    let words = &watch.pause().unwrap().words;
    assert!(words.contains("no property x"), "{words}");
}

#[test]
fn what_is_accepted_between_begins_the_count_anew_and_a_fault_of_its_own_does_not() {
    let mut watch = Watch::default();
    refuse(&mut watch, Act::Update, &missing("x"), 19);
    refuse(&mut watch, Act::Update, &[], 50);
    let mut other = watch.clone();
    assert_eq!(
        refuse(&mut other, Act::Update, &missing("x"), 1),
        Some(Turn::Paused)
    );
    accept(&mut watch, Act::Update);
    assert_eq!(refuse(&mut watch, Act::Update, &missing("x"), 19), None);
}

#[test]
fn creates_that_succeed_prove_nothing_of_updates() {
    let mut watch = Watch::default();
    for _ in 0..19 {
        assert_eq!(refuse(&mut watch, Act::Update, &missing("x"), 1), None);
        accept(&mut watch, Act::Create);
    }
    assert_eq!(
        refuse(&mut watch, Act::Update, &missing("x"), 1),
        Some(Turn::Paused)
    );
    assert_eq!(accept(&mut watch, Act::Create), None);
    assert_eq!(accept(&mut watch, Act::Update), Some(Turn::Resumed));
    assert_eq!(watch.pause(), None);
}

#[test]
fn an_answer_to_what_was_sent_before_the_pause_does_not_end_it() {
    let mut watch = Watch::default();
    let early = watch.begins();
    refuse(&mut watch, Act::Update, &missing("x"), 20);
    assert!(watch.outruns(early));
    assert_eq!(watch.heard(early, Act::Update, 100, []), None);
    let trial = watch.begins();
    assert!(!watch.outruns(trial));
    assert_eq!(watch.heard(trial, Act::Update, 1, []), Some(Turn::Resumed));
    assert!(!watch.outruns(early));
}

#[test]
fn a_paused_object_excuses_its_own_cause_alone_and_takes_on_a_new_one() {
    let mut watch = Watch::default();
    refuse(&mut watch, Act::Update, &missing("x"), 20);
    assert!(watch.excuses(&missing("x")));
    assert!(!watch.excuses(&missing("y")) && !watch.excuses(&[]));
    assert_eq!(
        refuse(&mut watch, Act::Update, &missing("x"), 1),
        None,
        "known already"
    );
    assert_eq!(
        refuse(&mut watch, Act::Update, &missing("y"), 1),
        Some(Turn::Paused)
    );
    assert!(watch.excuses(&missing("y")));
    let trial = watch.begins();
    assert!(!watch.outruns(trial));
    assert_eq!(watch.heard(trial, Act::Update, 1, []), Some(Turn::Resumed));
}

#[test]
fn a_bar_holds_whatever_was_refused_and_one_that_is_remembered_ends_with_anything() {
    let mut watch = Watch::default();
    assert_eq!(
        watch.bar(Some(Act::Link), "a scope is missing".to_owned()),
        Some(Turn::Paused)
    );
    assert_eq!(watch.bar(Some(Act::Link), "a scope is missing".to_owned()), None);
    assert_eq!(accept(&mut watch, Act::Update), None);
    assert_eq!(watch.bar(None, "remembered".to_owned()), Some(Turn::Paused));
    assert_eq!(accept(&mut watch, Act::Update), Some(Turn::Resumed));
    assert_eq!(watch.resume(), None);
}

/// Halves a batch as the door does until nothing is left; true if both halves of some part were refused.
fn halve(bad: &[bool], second_first: bool) -> bool {
    let key = |at: usize| Key::from(at.to_string().as_str());
    let mut halving = Halving::default();
    let mut parts = vec![(0..bad.len()).collect::<Vec<_>>()];
    while let Some(mut part) = parts.pop() {
        if !part.iter().any(|at| bad[*at]) {
            halving.accepted(Act::Update);
            continue;
        }
        let keys = part.iter().map(|at| key(*at)).collect();
        if halving.refused(Act::Update, keys, &missing("x")).is_some() {
            return true;
        }
        if part.len() > 1 {
            let second = part.split_off(part.len() / 2);
            parts.extend(if second_first {
                [part, second]
            } else {
                [second, part]
            });
        }
    }
    false
}

proptest! {
    #[test]
    fn one_bad_record_never_pauses(
        size in 1_usize..150, at in any::<prop::sample::Index>(), second_first in any::<bool>(), times in 1_usize..60,
    ) {
        let at = at.index(size);
        let bad: Vec<bool> = (0..size).map(|record| record == at).collect();
        prop_assert!(!halve(&bad, second_first));
        // Named by its trace, in one batch after the other.
        let mut watch = Watch::default();
        for _ in 0..times {
            let push = watch.begins();
            if size > 1 {
                let causes = missing("x");
                prop_assert_eq!(watch.heard(push, Act::Update, size - 1, [causes.as_slice()]), None);
            }
        }
        prop_assert_eq!(watch.pause(), None);
    }

    #[test]
    fn a_batch_refused_in_both_halves_pauses(size in 2_usize..150, second_first in any::<bool>()) {
        prop_assert!(halve(&vec![true; size], second_first));
    }

    #[test]
    fn a_missing_property_pauses_within_twenty_records_whatever_else_they_are_refused_for(
        replies in prop::collection::vec((1_usize..30, prop::collection::vec(0_u8..4, 0..4)), 20..40),
    ) {
        let mut watch = Watch::default();
        let mut records = 0;
        for (size, others) in replies {
            let mut causes: Vec<Cause> = others.iter().flat_map(|other| missing(&format!("other{other}"))).collect();
            causes.extend(missing("gone"));
            records += size;
            let turn = refuse(&mut watch, Act::Update, &causes, size);
            prop_assert_eq!(turn == Some(Turn::Paused), records >= 20);
            if turn.is_some() {
                prop_assert!(watch.excuses(&missing("gone")));
                return Ok(());
            }
        }
    }

    #[test]
    fn an_object_of_which_something_is_accepted_now_and_then_is_never_paused(
        replies in prop::collection::vec((0_usize..19, any::<bool>()), 0..200),
    ) {
        let mut watch = Watch::default();
        for (refused, update) in replies {
            let act = if update { Act::Update } else { Act::Create };
            prop_assert_eq!(refuse(&mut watch, act, &missing("x"), refused), None);
            accept(&mut watch, act);
        }
        prop_assert_eq!(watch.pause(), None);
    }
}
