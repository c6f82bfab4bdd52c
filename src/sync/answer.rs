//! An answer: what a batch reply says, and of which records it says it.
//!
//! Only what is said is believed. A record is done if it stands in the results, found by its trace id, or by
//! its id, or by its natural key; never by its position, since HubSpot shuffles results and leaves out what failed.

use super::outcome::Refusal;
use std::collections::HashMap;

/// One entry of a reply's `results`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Done {
    /// The record's id in HubSpot.
    pub id: String,
    /// The write trace, if HubSpot echoes it.
    pub trace: Option<String>,
    /// Whether the record is new, if HubSpot says so.
    pub created: Option<bool>,
    /// The natural key's value in the answer, if it is there.
    pub match_value: Option<String>,
}

/// One entry of a reply's `errors`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// The write traces it names.
    pub traces: Vec<String>,
    /// The ids (or natural keys) it names.
    pub ids: Vec<String>,
    /// Why.
    pub refusal: Refusal,
}

/// What was sent for one record, as far as the reply can name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Input<'a> {
    /// Its unique write trace.
    pub trace: &'a str,
    /// The HubSpot id of an update, the normalised natural key of a create.
    pub name: &'a str,
}

/// What the reply says of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It was written.
    Done(Done),
    /// It was refused.
    Denied(Refusal),
    /// Something was refused, and the reply does not say that it was not this.
    Suspect(Refusal),
    /// Nothing is said of it.
    Silent,
}

/// How a result names its record where it echoes no trace.
#[derive(Clone, Copy)]
pub enum By<'a> {
    /// By its id: an update.
    Id,
    /// By its natural key, compared after this: an upsert.
    Match(&'a dyn Fn(&str) -> String),
}

/// Says for each input, in order, what the reply says of it. A record that stands both in the results and in the
/// errors is refused.
pub fn attribute(inputs: &[Input<'_>], results: &[Done], errors: &[Denial], by: By<'_>) -> Vec<Verdict> {
    let traces: HashMap<&str, usize> = inputs
        .iter()
        .enumerate()
        .map(|(at, input)| (input.trace, at))
        .collect();
    let names: HashMap<&str, usize> = inputs
        .iter()
        .enumerate()
        .map(|(at, input)| (input.name, at))
        .collect();
    let named = |name: &str| match by {
        By::Id => names.get(name).copied(),
        By::Match(normalise) => names.get(normalise(name).as_str()).copied(),
    };
    let mut verdicts = vec![Verdict::Silent; inputs.len()];
    for done in results.iter().filter(|done| !done.id.is_empty()) {
        let by_trace = done.trace.as_deref().and_then(|trace| traces.get(trace).copied());
        let by_name = || match by {
            By::Id => named(&done.id),
            By::Match(_) => named(done.match_value.as_deref()?),
        };
        if let Some(at) = by_trace.or_else(by_name) {
            verdicts[at] = Verdict::Done(done.clone());
        }
    }
    let mut untraced = None;
    for denial in errors {
        let by_trace = denial
            .traces
            .iter()
            .filter_map(|trace| traces.get(trace.as_str()).copied());
        let mut hit: Vec<usize> = by_trace.collect();
        hit.extend(denial.ids.iter().filter_map(|id| named(id)));
        if hit.is_empty() {
            untraced = Some(&denial.refusal);
        }
        for at in hit {
            verdicts[at] = Verdict::Denied(denial.refusal.clone());
        }
    }
    if let Some(refusal) = untraced {
        for verdict in verdicts.iter_mut().filter(|verdict| **verdict == Verdict::Silent) {
            *verdict = Verdict::Suspect(refusal.clone());
        }
    }
    verdicts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn done(id: &str, trace: Option<&str>, match_value: Option<&str>) -> Done {
        Done {
            id: id.into(),
            trace: trace.map(Into::into),
            created: None,
            match_value: match_value.map(Into::into),
        }
    }

    fn denial(traces: &[&str], ids: &[&str]) -> Denial {
        let own = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Denial {
            traces: own(traces),
            ids: own(ids),
            refusal: Refusal::ours("validation_error", "no"),
        }
    }

    const INPUTS: [Input<'static>; 3] = [
        Input {
            trace: "t1",
            name: "a@x.com",
        },
        Input {
            trace: "t2",
            name: "b@x.com",
        },
        Input {
            trace: "t3",
            name: "c@x.com",
        },
    ];

    #[test]
    fn results_are_matched_by_trace_or_by_natural_key_and_not_by_position() {
        let lower = |value: &str| value.to_lowercase();
        let results = [
            done("3", None, Some("C@x.com")),
            done("1", Some("t1"), None),
            done("9", None, None),
        ];
        let verdicts = attribute(&INPUTS, &results, &[], By::Match(&lower));
        assert!(matches!(&verdicts[0], Verdict::Done(done) if done.id == "1"));
        assert_eq!(
            verdicts[1],
            Verdict::Silent,
            "a result that names nobody proves nothing"
        );
        assert!(matches!(&verdicts[2], Verdict::Done(done) if done.id == "3"));
    }

    #[test]
    fn an_error_without_trace_makes_suspects_of_the_silent_only() {
        let results = [done("1", Some("t1"), None)];
        let verdicts = attribute(
            &INPUTS,
            &results,
            &[denial(&[], &[]), denial(&["t2"], &[])],
            By::Id,
        );
        assert!(matches!(verdicts[0], Verdict::Done(_)));
        assert!(matches!(verdicts[1], Verdict::Denied(_)));
        assert!(matches!(verdicts[2], Verdict::Suspect(_)));
    }

    #[test]
    fn an_update_is_matched_by_id_and_one_error_may_name_several() {
        let inputs = [
            Input {
                trace: "t1",
                name: "11",
            },
            Input {
                trace: "t2",
                name: "12",
            },
        ];
        let verdicts = attribute(
            &inputs,
            &[done("12", None, None)],
            &[denial(&[], &["11", "13"])],
            By::Id,
        );
        assert!(matches!(verdicts[0], Verdict::Denied(_)));
        assert!(matches!(verdicts[1], Verdict::Done(_)));
    }

    proptest! {
        #[test]
        fn order_does_not_matter_and_none_is_done_that_was_not_named(
            named in prop::collection::vec(any::<bool>(), 30),
            seed in any::<prop::sample::Index>(),
        ) {
            let names: Vec<(String, String)> =
                (0..30).map(|at| (format!("t{at}"), format!("{}", 1000 + at))).collect();
            let inputs: Vec<Input<'_>> = names.iter().map(|(trace, name)| Input { trace, name }).collect();
            let mut results: Vec<Done> = (0..30).filter(|at| named[*at]).map(|at| {
                done(&names[at].1, (at % 2 == 0).then_some(names[at].0.as_str()), None)
            }).collect();
            let straight = attribute(&inputs, &results, &[], By::Id);
            if !results.is_empty() {
                let at = seed.index(results.len());
                results.rotate_left(at);
            }
            prop_assert_eq!(&attribute(&inputs, &results, &[], By::Id), &straight);
            for at in 0..30 {
                prop_assert_eq!(matches!(straight[at], Verdict::Done(_)), named[at]);
            }
        }
    }
}
