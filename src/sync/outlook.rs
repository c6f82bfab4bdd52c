//! The outlook: what the next push would do with a row, told without doing it.
//!
//! It is composed of the decisions that the push itself takes ([`super::plan`], [`super::guard`], [`super::linking`]),
//! given what HubSpot answered to questions that change nothing.

use super::guard::{Answer, Hit};
use super::linking::{Found, Remembered, Target};
use super::outcome::Refusal;
use super::plan::Rules;
use crate::mapping::{Adopt, OnMissing};
use std::collections::{BTreeMap, BTreeSet};

/// What the next push would do with a row's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outlook {
    /// Make a record.
    Create,
    /// Take over the record with this id, which nobody owns.
    Adopt {
        /// Its id.
        id: String,
        /// Whether create-only properties are left out.
        update_only: bool,
    },
    /// Write to the record with this id.
    Update {
        /// Its id.
        id: String,
        /// The properties of which HubSpot holds something else.
        differing: Vec<String>,
    },
    /// Leave the record with this id as it is: nothing is to be written to it.
    Keep {
        /// Its id.
        id: String,
    },
    /// Write to the record that the row's own was merged into.
    Merged {
        /// The id of the one that is left.
        into: String,
    },
    /// Nothing: the row has no HubSpot id and is not created here.
    Leave,
    /// Nothing yet: what became of an earlier create is not known before this time, microseconds since the Unix epoch.
    Wait(i64),
    /// Refuse the row.
    Refuse(Refusal),
}

impl Outlook {
    /// The HubSpot id under which the row would be written, if it is known.
    pub fn id(&self) -> Option<&str> {
        match self {
            Outlook::Adopt { id, .. } | Outlook::Update { id, .. } | Outlook::Keep { id } => Some(id),
            Outlook::Merged { into } => Some(into),
            Outlook::Create | Outlook::Leave | Outlook::Wait(_) | Outlook::Refuse(_) => None,
        }
    }
}

/// Of a row that is to be created: what the answer about its natural key means.
pub fn of_create(rules: &Rules, answer: Answer, hits: &[Hit]) -> Outlook {
    match (answer, hits) {
        (Answer::Create | Answer::GoOn { .. } | Answer::Held, []) => Outlook::Create,
        // An upsert finds it and writes everything.
        (Answer::Create | Answer::GoOn { .. } | Answer::Held, [hit, ..]) => match &hit.owner {
            Some(owner) => Outlook::Refuse(rules.owned(&hit.id, owner)),
            None => Outlook::Adopt {
                id: hit.id.clone(),
                update_only: rules.adopt == Adopt::UpdateOnly,
            },
        },
        (Answer::Update { id, update_only }, _) => Outlook::Adopt { id, update_only },
        (Answer::Wait(until), _) => Outlook::Wait(until),
        (Answer::Refuse(refusal), _) => Outlook::Refuse(refusal),
    }
}

/// Of a row whose record is gone from HubSpot.
pub fn of_missing(id: &str, on_missing: OnMissing) -> Outlook {
    match on_missing {
        OnMissing::Recreate => Outlook::Create,
        OnMissing::Fail => Outlook::Refuse(Refusal::missing(id)),
    }
}

/// The properties of which HubSpot holds something else than would be sent; `kind` is HubSpot's type of a property.
pub fn differing<'a>(
    sent: &BTreeMap<String, String>,
    held: &BTreeMap<String, Option<String>>,
    kind: impl Fn(&str) -> &'a str,
) -> Vec<String> {
    let differs = |(name, value): &(&String, &String)| {
        let held = held.get(*name).and_then(Option::as_deref).unwrap_or_default();
        !is_same(value, held, kind(name))
    };
    sent.iter()
        .filter(differs)
        .map(|(name, _)| name.clone())
        .collect()
}

/// Whether HubSpot keeps two texts as one value of a property of this type.
fn is_same(one: &str, other: &str, kind: &str) -> bool {
    if one == other {
        return true;
    }
    if one.is_empty() || other.is_empty() {
        return false;
    }
    match kind {
        "number" => {
            matches!((one.trim().parse::<f64>(), other.trim().parse::<f64>()), (Ok(one), Ok(other)) if one == other)
        }
        "datetime" => moment(one).is_some_and(|one| moment(other) == Some(one)),
        "enumeration" => {
            let choices = |text: &str| -> BTreeSet<String> {
                let chosen = text.split(';').filter(|choice| !choice.is_empty());
                chosen.map(str::to_owned).collect()
            };
            choices(one) == choices(other)
        }
        // HubSpot trims and lower-cases e-mails, whose type is text.
        "string" => one.contains('@') && one.trim().to_lowercase() == other.trim().to_lowercase(),
        _ => false,
    }
}

/// A moment as HubSpot reads it: ISO 8601, a day, or milliseconds since 1970.
fn moment(text: &str) -> Option<jiff::Timestamp> {
    if let Ok(milliseconds) = text.parse::<i64>() {
        return jiff::Timestamp::from_millisecond(milliseconds).ok();
    }
    text.parse()
        .ok()
        .or_else(|| format!("{text}T00:00:00Z").parse().ok())
}

/// What the next push would do about one link of a row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkOutlook {
    /// The target whose link would be made.
    pub make: Option<String>,
    /// The targets whose links would be removed: ours, to where the row leads no more.
    pub remove: Vec<String>,
    /// The row names a target that has no HubSpot id yet.
    pub waits: bool,
}

impl LinkOutlook {
    /// From where the row leads, what is remembered, and the targets that HubSpot holds.
    pub fn of(target: &Target, remembered: &[Remembered], held: &BTreeSet<String>) -> LinkOutlook {
        let stays = |row: &&Remembered| match target {
            Target::To(to) => row.to == *to,
            Target::Unknown => true,
            Target::Nowhere => false,
        };
        let ours = remembered
            .iter()
            .filter(|row| !stays(row) && row.found != Found::Link && held.contains(&row.to));
        LinkOutlook {
            make: target.id().filter(|to| !held.contains(*to)).map(str::to_owned),
            remove: ours.map(|row| row.to.clone()).collect(),
            waits: *target == Target::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::linking::State;
    use proptest::prelude::*;

    fn texts(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let pairs = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        pairs.collect()
    }

    #[test]
    fn what_hubspot_writes_otherwise_is_no_difference_and_what_it_holds_otherwise_is() {
        let cases = [
            ("number", "3", "3.0", true),
            ("number", "3", "4", false),
            ("number", "", "0", false),
            (
                "datetime",
                "2026-03-01T00:00:00.000Z",
                "2026-03-01T00:00:00Z",
                true,
            ),
            ("datetime", "1772323200000", "2026-03-01T00:00:00Z", true),
            (
                "datetime",
                "2026-03-01T00:00:00.000Z",
                "2026-03-01T00:00:01Z",
                false,
            ),
            ("date", "2026-03-01", "2026-03-02", false),
            ("enumeration", "b;a", "a;b", true),
            ("enumeration", "a", "a;b", false),
            ("string", " Ana@Example.com", "ana@example.com", true),
            ("string", "Ana", "ana", false),
        ];
        for (kind, sent, held, same) in cases {
            assert_eq!(is_same(sent, held, kind), same, "{kind}: {sent} and {held}");
            assert_eq!(is_same(held, sent, kind), same, "{kind}: {held} and {sent}");
        }
    }

    /// A few ids, so that they meet.
    fn id() -> impl Strategy<Value = String> {
        (1..5_u8).prop_map(|number| number.to_string())
    }

    fn remembered() -> impl Strategy<Value = Remembered> {
        let found = prop_oneof![Just(Found::Nothing), Just(Found::Pair), Just(Found::Link)];
        let state = prop_oneof![Just(State::Making), Just(State::Made), Just(State::Removing)];
        (id(), found, state).prop_map(|(to, found, state)| Remembered {
            to,
            from: None,
            state,
            found,
            unsettled: None,
        })
    }

    proptest! {
        #[test]
        fn a_link_is_made_only_where_none_is_and_removed_only_where_ours_is_and_leads_elsewhere(
            target in prop_oneof![id().prop_map(Target::To), Just(Target::Unknown), Just(Target::Nowhere)],
            remembered in prop::collection::vec(remembered(), 0..5),
            held in prop::collection::btree_set(id(), 0..5),
        ) {
            let link = LinkOutlook::of(&target, &remembered, &held);
            prop_assert_eq!(link.make.as_deref(), target.id().filter(|to| !held.contains(*to)));
            for removed in &link.remove {
                prop_assert!(held.contains(removed) && target.id() != Some(removed));
                prop_assert!(remembered.iter().any(|row| row.to == *removed && row.found != Found::Link));
            }
            prop_assert!(target != Target::Unknown || (link.waits && link.remove.is_empty()));
        }

        #[test]
        fn what_was_sent_as_it_is_held_does_not_differ(values in prop::collection::btree_map("[a-c]", ".{0,8}", 0..4), kind in "number|date|datetime|enumeration|string|bool") {
            let held = values.iter().map(|(name, value)| (name.clone(), Some(value.clone()))).collect();
            prop_assert_eq!(differing(&values, &held, |_| &*kind), Vec::<String>::new());
            let without = BTreeMap::new();
            let filled = values.iter().filter(|(_, value)| !value.is_empty()).count();
            prop_assert_eq!(differing(&values, &without, |_| &*kind).len(), filled);
        }
    }

    #[test]
    fn an_absent_property_is_an_empty_one() {
        let sent = texts(&[("a", ""), ("b", "1"), ("c", "2")]);
        let held = BTreeMap::from([("b".to_owned(), None), ("c".to_owned(), Some("2".to_owned()))]);
        assert_eq!(differing(&sent, &held, |_| "string"), ["b"]);
    }

    #[test]
    fn links_are_made_where_they_lack_and_only_ours_are_removed() {
        let row = |to: &str, found| Remembered {
            to: to.to_owned(),
            from: None,
            state: State::Made,
            found,
            unsettled: None,
        };
        let remembered = [
            row("1", Found::Nothing),
            row("2", Found::Link),
            row("3", Found::Nothing),
        ];
        let held = BTreeSet::from(["1".to_owned(), "2".to_owned()]);
        let to = LinkOutlook::of(&Target::To("4".to_owned()), &remembered, &held);
        assert_eq!((to.make.as_deref(), to.remove), (Some("4"), vec!["1".to_owned()]));
        let stays = LinkOutlook::of(&Target::To("1".to_owned()), &remembered, &held);
        assert_eq!(stays, LinkOutlook::default());
        let unknown = LinkOutlook::of(&Target::Unknown, &remembered, &held);
        assert!(unknown.waits && unknown.make.is_none() && unknown.remove.is_empty());
    }
}
