//! A deletion: what becomes of a HubSpot record whose row was deleted, where `on-delete = "archive"`.
//!
//! Such a record is an orphan only as far as one change knows. Before it is archived the tables are asked: a row may
//! hold it after all (its key was changed, it was deleted and inserted again, two rows shared it), and the row itself
//! may be back and not have its record yet. What cannot be believed is not acted upon. And a brake stands between
//! a mistake and HubSpot: more than [`BRAKE_ROWS`] deletions and more than a hundredth of the rows within an hour wait
//! until somebody says so.

use super::change::Key;
use super::outcome::Refusal;
use std::collections::{HashMap, HashSet};

/// The category of a failure that the brake holds.
pub const BRAKE: &str = "brake";
/// Deletions within an hour that pass the brake whatever the table's size.
pub const BRAKE_ROWS: u64 = 20;
/// The brake lets one row in so many be deleted within an hour.
const BRAKE_SHARE: u64 = 100;

/// A HubSpot record that lost its row.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Orphan {
    /// The key of the row it lost.
    pub key: Key,
    /// Its id in HubSpot.
    pub hubspot_id: String,
    /// Whether somebody who knows of the brake said that it may go.
    pub released: bool,
}

/// What the tables say of orphans.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Those of their ids that a row holds, or is about to get.
    pub held: HashSet<String>,
    /// Those of their keys that a row has again, and whether it has a HubSpot id.
    pub back: HashMap<Key, bool>,
    /// Why the tables cannot be believed, if so: rows may be hidden from us.
    pub hidden: Option<String>,
    /// Other deletions of the last hour that count: archived, or held by the brake.
    pub recent: u64,
    /// The table's rows, counted up to [`rows_asked`] for these orphans.
    pub rows: u64,
}

/// What becomes of an orphan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: it is no orphan.
    Leave,
    /// It is archived.
    Archive,
    /// Nothing yet: its row is back and has no record, which may be this one.
    Back,
    /// Nothing until somebody says so.
    Brake,
}

/// How many rows the table must have for the brake to let `deleted` deletions within an hour pass; 0 if they pass
/// whatever its size.
pub fn rows_asked(deleted: u64) -> u64 {
    if deleted > BRAKE_ROWS {
        // Of the rows there were, those deleted are among the hundred.
        deleted.saturating_mul(BRAKE_SHARE - 1)
    } else {
        0
    }
}

/// Decides what becomes of each orphan; all are of one object, and no id is there twice. [`Findings::hidden`] is the
/// caller's to look at first.
pub fn decide(orphans: &[Orphan], findings: &Findings) -> Vec<Verdict> {
    let first = |orphan: &Orphan| {
        if !is_record(&orphan.hubspot_id) || findings.held.contains(&orphan.hubspot_id) {
            return Verdict::Leave;
        }
        match findings.back.get(&orphan.key) {
            Some(false) if !orphan.released => Verdict::Back,
            _ => Verdict::Archive,
        }
    };
    let mut verdicts: Vec<Verdict> = orphans.iter().map(first).collect();
    let braked =
        |(orphan, verdict): &(&Orphan, &mut Verdict)| !orphan.released && **verdict == Verdict::Archive;
    let deleted = findings.recent + count(orphans.iter().zip(&mut verdicts).filter(braked).count());
    if findings.rows < rows_asked(deleted) {
        for (_, verdict) in orphans.iter().zip(&mut verdicts).filter(braked) {
            *verdict = Verdict::Brake;
        }
    }
    verdicts
}

/// The failure of an orphan that is not archived for now.
pub fn refusal(verdict: Verdict, orphan: &Orphan) -> Option<Refusal> {
    let id = &orphan.hubspot_id;
    match verdict {
        Verdict::Leave | Verdict::Archive => None,
        Verdict::Back => Some(Refusal::ours(
            "archive",
            format!(
                "the row of HubSpot record {id} was deleted and is back without a HubSpot id; the next sweep archives the \
                 record if the row has another one by then, and leaves it if the row has this one; if nobody needs the \
                 record: hubsyncd sweep --archive"
            ),
        )),
        Verdict::Brake => Some(Refusal::ours(
            BRAKE,
            format!(
                "the row of HubSpot record {id} was deleted with many others: more than {BRAKE_ROWS} and more than 1 % of the \
                 table's rows within an hour; the record stays until somebody says so: look whether this was meant, then \
                 hubsyncd sweep --archive"
            ),
        )),
    }
}

/// Whether a text can be HubSpot's id of a record; what else stood in the row's column never was one.
fn is_record(id: &str) -> bool {
    !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit())
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn orphans(count: usize) -> Vec<Orphan> {
        let orphan = |number: usize| Orphan {
            key: Key::from(number.to_string()),
            hubspot_id: number.to_string(),
            released: false,
        };
        (0..count).map(orphan).collect()
    }

    fn verdicts(count: usize, recent: u64, rows: u64) -> Vec<Verdict> {
        let findings = Findings {
            recent,
            rows,
            ..Findings::default()
        };
        decide(&orphans(count), &findings)
    }

    #[test]
    fn twenty_deletions_pass_a_small_table_and_the_twenty_first_does_not() {
        assert_eq!(verdicts(20, 0, 0), vec![Verdict::Archive; 20]);
        assert_eq!(verdicts(21, 0, 0), vec![Verdict::Brake; 21]);
        assert_eq!(verdicts(1, 20, 0), [Verdict::Brake]);
        assert_eq!(verdicts(21, 0, 10_000 - 21), vec![Verdict::Archive; 21]);
    }

    #[test]
    fn a_hundredth_of_the_rows_there_were_may_go() {
        assert_eq!(verdicts(100, 0, 9_900), vec![Verdict::Archive; 100]);
        assert_eq!(verdicts(100, 0, 9_899), vec![Verdict::Brake; 100]);
    }

    #[test]
    fn what_a_row_holds_is_left_and_a_row_that_is_back_without_an_id_is_waited_for() {
        let orphans = orphans(3);
        let findings = Findings {
            held: HashSet::from(["0".to_owned()]),
            back: HashMap::from([(Key::from("1"), false), (Key::from("2"), true)]),
            ..Findings::default()
        };
        let verdicts = decide(&orphans, &findings);
        assert_eq!(verdicts, [Verdict::Leave, Verdict::Back, Verdict::Archive]);
        let said: Vec<Option<String>> = verdicts
            .iter()
            .zip(&orphans)
            .map(|(verdict, orphan)| refusal(*verdict, orphan).map(|refusal| refusal.category))
            .collect();
        assert_eq!(said, [None, Some("archive".to_owned()), None]);
    }

    #[test]
    fn what_cannot_be_an_id_is_nobodys_record() {
        let mut orphans = orphans(1);
        orphans[0].hubspot_id = "../contacts".to_owned();
        assert_eq!(decide(&orphans, &Findings::default()), [Verdict::Leave]);
    }

    fn orphan() -> impl Strategy<Value = (u8, bool)> {
        (any::<u8>(), prop::bool::weighted(0.2))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn a_held_record_is_never_archived_and_the_brake_holds_all_or_none(
            given in prop::collection::btree_map(any::<u8>(), orphan(), 0..60),
            held in prop::collection::hash_set(any::<u8>(), 0..60),
            back in prop::collection::hash_map(any::<u8>(), any::<bool>(), 0..60),
            recent in 0..60u64,
            rows in 0..12_000u64,
        ) {
            let orphans: Vec<Orphan> = given
                .iter()
                .map(|(id, (key, released))| Orphan {
                    key: Key::from(key.to_string()),
                    hubspot_id: id.to_string(),
                    released: *released,
                })
                .collect();
            let findings = Findings {
                held: held.iter().map(u8::to_string).collect(),
                back: back.iter().map(|(key, id)| (Key::from(key.to_string()), *id)).collect(),
                hidden: None,
                recent,
                rows,
            };
            let verdicts = decide(&orphans, &findings);
            prop_assert_eq!(verdicts.len(), orphans.len());
            let with = |verdict: Verdict, released: bool| {
                let both = orphans.iter().zip(&verdicts);
                both.filter(|(orphan, said)| **said == verdict && orphan.released == released).count() as u64
            };
            for (orphan, verdict) in orphans.iter().zip(&verdicts) {
                prop_assert_eq!(*verdict == Verdict::Leave, findings.held.contains(&orphan.hubspot_id));
                if !orphan.released && *verdict == Verdict::Archive {
                    prop_assert!(findings.back.get(&orphan.key) != Some(&false), "it may get this record");
                }
            }
            prop_assert_eq!(with(Verdict::Brake, true), 0, "what was released is not held");
            prop_assert!(with(Verdict::Archive, false) == 0 || with(Verdict::Brake, false) == 0);
            let deleted = recent + with(Verdict::Archive, false) + with(Verdict::Brake, false);
            // In other words: of the rows there were an hour ago, more than a hundredth is gone.
            let too_many = deleted > BRAKE_ROWS && deleted * 100 > rows + deleted;
            prop_assert_eq!(with(Verdict::Brake, false) > 0, too_many && deleted > recent);
        }
    }
}
