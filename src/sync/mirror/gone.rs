//! What became of records that a list did not show, by what HubSpot says of each when it is asked by id.

use std::collections::HashSet;

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// HubSpot has it: the list left it out.
    Alive,
    /// It is in the recycle bin.
    Archived,
    /// HubSpot says that it has it nowhere, or that it is a part of another record now.
    Gone,
    /// HubSpot says nothing of it: it stays as it is.
    Unknown,
}

/// Sorts `asked`, in their order. `alive` and `archived` are the ids that HubSpot answered with, among all and among the
/// archived ones; `denied` those of which it said both times that they are not there; `merged` those that another
/// record, or HubSpot asked for them alone, names as merged into it. Silence deletes nothing.
pub fn fates<'a>(
    asked: &[&'a str],
    alive: &HashSet<&'a str>,
    archived: &HashSet<&'a str>,
    denied: &HashSet<&'a str>,
    merged: &HashSet<&'a str>,
) -> Vec<Fate> {
    let fate = |id: &&str| {
        if alive.contains(id) {
            Fate::Alive
        } else if merged.contains(id) {
            Fate::Gone
        } else if archived.contains(id) {
            Fate::Archived
        } else if denied.contains(id) {
            Fate::Gone
        } else {
            Fate::Unknown
        }
    };
    asked.iter().map(fate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn nothing_is_gone_that_hubspot_did_not_deny_and_nothing_that_it_shows_ever_is(
            said in prop::collection::vec((any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()), 1..50),
        ) {
            let ids: Vec<String> = (0..said.len()).map(|id| id.to_string()).collect();
            let asked: Vec<&str> = ids.iter().map(String::as_str).collect();
            let of = |which: fn(&(bool, bool, bool, bool)) -> bool| -> HashSet<&str> {
                asked.iter().zip(&said).filter(|(_, said)| which(said)).map(|(id, _)| *id).collect()
            };
            let fates = fates(&asked, &of(|s| s.0), &of(|s| s.1), &of(|s| s.2), &of(|s| s.3));
            for (fate, (alive, archived, denied, merged)) in fates.into_iter().zip(&said) {
                match fate {
                    Fate::Alive => prop_assert!(*alive),
                    Fate::Archived => prop_assert!(*archived && !alive),
                    Fate::Gone => prop_assert!((*denied || *merged) && !alive),
                    Fate::Unknown => prop_assert!(!(*alive || *archived || *denied || *merged)),
                }
            }
        }
    }
}
