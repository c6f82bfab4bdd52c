//! Pausing: when refusals are not the records' fault.
//!
//! A property that somebody deleted in HubSpot, a right that was taken away, a new rule of the portal: HubSpot then
//! refuses every record of an object, and a hundred failures would tell nothing. A [`Watch`] looks at what HubSpot
//! says of one object and decides when the object is paused, and when it goes on:
//!
//! - [`IN_A_ROW`] records refused for one common cause that is not theirs, with none accepted between, pause it; so do
//!   both halves of a batch that was refused as a whole ([`Halving`]), and a missing right at once.
//! - One bad record never does, whatever it is refused for: its neighbours are accepted.
//! - A paused object goes on with the first record accepted of those sent since, for what it was refused for: a
//!   create that succeeds proves nothing where updates were refused.
//!
//! Causes are compared as sets, since one record may be refused for several: the object's cause is what they share.

use super::change::Key;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;

/// So many records refused one after the other for one cause pause their object.
pub const IN_A_ROW: u32 = 20;

/// Why HubSpot refuses a record, where that need not be the record's fault.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// HubSpot has no such property.
    MissingProperty(String),
    /// The property cannot be written.
    ReadOnlyProperty(String),
    /// Records cannot be named by this property: its values are not unique in HubSpot.
    KeyNotUnique,
    /// The portal requires the property.
    RequiredProperty(String),
    /// The token's user may not do this.
    Forbidden,
}

impl Cause {
    /// The causes that an error tells of, as far as they need not be the record's fault: from its codes, the properties
    /// it names, and what is left of its message.
    pub fn of(codes: &[String], properties: &[String], message: &str) -> Vec<Cause> {
        let mut causes = BTreeSet::new();
        for code in codes {
            let of_property: fn(String) -> Cause = match code.as_str() {
                "PROPERTY_DOESNT_EXIST" => Cause::MissingProperty,
                "READ_ONLY_VALUE" => Cause::ReadOnlyProperty,
                "MISSING_REQUIRED_PROPERTY" | "MISSING_CONDITIONAL_REQUIRED_PROPERTY" => {
                    Cause::RequiredProperty
                }
                _ => continue,
            };
            causes.extend(properties.iter().cloned().map(of_property));
        }
        let says = |words: &str| message.to_ascii_lowercase().contains(words);
        if says("required properties were not set") {
            causes.extend(properties.iter().cloned().map(Cause::RequiredProperty));
        }
        if says("by non-unique") {
            causes.insert(Cause::KeyNotUnique);
        }
        if says("permission") {
            causes.insert(Cause::Forbidden);
        }
        causes.into_iter().collect()
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::MissingProperty(name) => write!(
                f,
                "HubSpot has no property {name}: make it there, or take it out of the mapping"
            ),
            Cause::ReadOnlyProperty(name) => write!(
                f,
                "the property {name} cannot be written in HubSpot: make it writable, or take it out of the mapping"
            ),
            Cause::KeyNotUnique => f.write_str(
                "HubSpot does not keep the natural key unique: make match-on a property that requires unique values",
            ),
            Cause::RequiredProperty(name) => write!(
                f,
                "a rule of the portal requires the property {name}: fill it by the mapping, or change the rule"
            ),
            Cause::Forbidden => f.write_str(
                "the portal's permissions forbid this to the token: give it the permission that HubSpot names",
            ),
        }
    }
}

/// What was done with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Act {
    /// Created, by upsert too.
    Create,
    /// Updated.
    Update,
    /// Linked.
    Link,
    /// Written back into its row.
    Receipt,
}

/// What an answer changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// The object is paused from now on, or for another reason than before.
    Paused,
    /// The object goes on.
    Resumed,
}

/// Why an object is paused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// What was refused; `None` where that is not known any more.
    act: Option<Act>,
    /// The causes common to what was refused; empty where the words alone say it.
    causes: BTreeSet<Cause>,
    /// What happened and what to do, for the operator.
    pub words: String,
    /// Pushes that began before this one prove nothing.
    since: u64,
}

/// Records refused one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Run {
    causes: BTreeSet<Cause>,
    records: u32,
}

/// Watches one object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Watch {
    runs: BTreeMap<Act, Run>,
    pause: Option<Pause>,
    pushes: u64,
}

impl Watch {
    /// Notes that a push begins and answers its number.
    pub fn begins(&mut self) -> u64 {
        self.pushes += 1;
        self.pushes
    }

    /// Why the object is paused, if it is.
    pub fn pause(&self) -> Option<&Pause> {
        self.pause.as_ref()
    }

    /// Whether push number `push` began before the object was paused: what of it was not sent yet is not to be sent.
    pub fn outruns(&self, push: u64) -> bool {
        self.pause.as_ref().is_some_and(|pause| push < pause.since)
    }

    /// Whether a trial of which HubSpot refused nothing tells nothing yet: push number `push` is one, and what is awaited is
    /// the next record's answer, not the receipt.
    pub fn may_try_next(&self, push: u64) -> bool {
        let pause = self.pause.as_ref();
        pause.is_some_and(|pause| push >= pause.since && pause.act != Some(Act::Receipt))
    }

    /// Whether a refusal for these causes is the object's while it is paused, not the record's.
    pub fn excuses(&self, causes: &[Cause]) -> bool {
        let shared = |pause: &Pause| causes.iter().any(|cause| pause.causes.contains(cause));
        self.pause.as_ref().is_some_and(shared)
    }

    /// Takes in what one answer in push number `push` said: how many records it accepted, and of every refused one
    /// which causes are not its own.
    pub fn heard<'a>(
        &mut self,
        push: u64,
        act: Act,
        accepted: usize,
        refused: impl IntoIterator<Item = &'a [Cause]>,
    ) -> Option<Turn> {
        if accepted > 0 {
            self.runs.remove(&act);
            let proves =
                |pause: &Pause| push >= pause.since && pause.act.is_none_or(|refused| refused == act);
            return self.pause.take_if(|pause| proves(pause)).map(|_| Turn::Resumed);
        }
        let mut turn = None;
        for causes in refused.into_iter().filter(|causes| !causes.is_empty()) {
            turn = self.refused(act, causes).or(turn);
        }
        turn
    }

    fn refused(&mut self, act: Act, causes: &[Cause]) -> Option<Turn> {
        if self.pause.is_some() {
            if self.excuses(causes) {
                return None;
            }
            // One record is tried at a time; what it is refused for is what keeps the object now.
            return self.stop(act, causes.iter().cloned().collect());
        }
        let causes: BTreeSet<Cause> = causes.iter().cloned().collect();
        let run = self.runs.entry(act).or_insert_with(|| Run {
            causes: causes.clone(),
            records: 0,
        });
        let shared: BTreeSet<Cause> = run.causes.intersection(&causes).cloned().collect();
        if shared.is_empty() {
            *run = Run { causes, records: 0 };
        } else {
            run.causes = shared;
        }
        run.records += 1;
        if run.records < IN_A_ROW {
            return None;
        }
        let causes = run.causes.clone();
        self.stop(act, causes)
    }

    /// Both halves of a batch were refused for these causes.
    pub fn halves_refused(&mut self, act: Act, causes: BTreeSet<Cause>) -> Option<Turn> {
        self.stop(act, causes)
    }

    fn stop(&mut self, act: Act, causes: BTreeSet<Cause>) -> Option<Turn> {
        let words: Vec<String> = causes.iter().map(Cause::to_string).collect();
        self.set(Some(act), causes, words.join("; "))
    }

    /// Pauses at once, for something that no record has to do with; `act` is what is refused, if only that is.
    pub fn bar(&mut self, act: Option<Act>, words: String) -> Option<Turn> {
        self.set(act, BTreeSet::new(), words)
    }

    fn set(&mut self, act: Option<Act>, causes: BTreeSet<Cause>, words: String) -> Option<Turn> {
        let old = self.pause.as_ref();
        if old.is_some_and(|old| old.act == act && old.causes == causes && old.words == words) {
            return None;
        }
        self.runs.clear();
        let since = old.map_or(self.pushes + 1, |old| old.since);
        self.pause = Some(Pause {
            act,
            causes,
            words,
            since,
        });
        Some(Turn::Paused)
    }

    /// Ends a pause that nothing is left to prove.
    pub fn resume(&mut self) -> Option<Turn> {
        self.pause.take().map(|_| Turn::Resumed)
    }
}

/// Watches the parts of one batch that is halved because it was refused as a whole.
///
/// Of a batch with one bad record, every part that is refused holds that record, so that each is a part of the one
/// refused before. Two refused parts that have no record in common mean both halves of some part.
#[derive(Debug, Default)]
pub struct Halving {
    refused: BTreeMap<Act, (HashSet<Key>, BTreeSet<Cause>)>,
}

impl Halving {
    /// Records of the batch were accepted.
    pub fn accepted(&mut self, act: Act) {
        self.refused.remove(&act);
    }

    /// These records were refused together, or the one alone; answers the causes if both halves of a part were refused for
    /// them by now.
    pub fn refused(&mut self, act: Act, keys: HashSet<Key>, causes: &[Cause]) -> Option<BTreeSet<Cause>> {
        let causes: BTreeSet<Cause> = causes.iter().cloned().collect();
        if causes.is_empty() || keys.is_empty() {
            return None;
        }
        let shared = self.refused.get(&act).and_then(|(before, known)| {
            let shared: BTreeSet<Cause> = known.intersection(&causes).cloned().collect();
            (before.is_disjoint(&keys) && !shared.is_empty()).then_some(shared)
        });
        if shared.is_none() {
            self.refused.insert(act, (keys, causes));
        }
        shared
    }
}

#[cfg(test)]
#[path = "pausing_tests.rs"]
mod tests;
