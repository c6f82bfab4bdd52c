//! Recording: from what HubSpot said to the receipt, and the release of every row.

use super::archive::Ending;
use super::item::{Fate, Item, Links};
use super::{Door, Parts, Tally, Way, again, halves, held};
use crate::config::Touch;
use crate::daemon::board::Counted;
use crate::hubspot::Lane;
use crate::postgres::receipt::{Entry, Receipt, Written};
use crate::postgres::{self, ErrorKind};
use crate::retry::Schedule;
use crate::sync::backlog::{Claimed, Release};
use crate::sync::change::{Key, ObjectIndex, Op, Owner};
use crate::sync::linking::Note;
use crate::sync::outcome::Refusal;
use crate::sync::record::Record;
use crate::sync::report::chain;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tracing::{debug, error, warn};

/// What is done with a row once the receipt is written.
enum After {
    /// Release it for good.
    Done,
    /// Release it to be pushed again, since its outcome was not learned.
    Again,
    /// Release it to be pushed again after this time, since nothing may be sent before.
    Wait(Duration),
    /// Release it to be pushed again, since something held it.
    Held,
    /// Keep it claimed and try it in a smaller part.
    Split,
}

impl Door {
    /// Writes the receipt of an attempt, counts, and releases; answers the parts that are to be tried alone.
    pub(super) async fn finish(
        &self,
        way: &Way,
        generation: i64,
        read_at: i64,
        items: Vec<Item>,
        tally: &mut Tally,
        turned: bool,
    ) -> Parts {
        let (object, lane) = (way.object, way.lane);
        let mut entries = Vec::new();
        let mut rows: Vec<(Item, After, Option<usize>)> = Vec::with_capacity(items.len());
        for item in items {
            let (mut entry, after) = entry_of(&item);
            if let Some(entry) = &mut entry {
                entry.intent_over = item.intent_over() || item.exhumed;
                entry.due = self.owed(object, &item, read_at);
            }
            let after = with_orphans(&item, entry.as_mut(), after);
            let sparing = self.touch == Touch::Changed && matches!(lane, Lane::Sweep);
            if let Some(entry) = entry.as_mut().filter(|entry| sparing && entry.synced) {
                entry.synced = was_out_of_step(&item, entry);
            }
            let at = entry.map(|entry| {
                entries.push(entry);
                entries.len() - 1
            });
            rows.push((item, after, at));
        }
        let receipt = Receipt {
            object,
            generation,
            read_at,
            entries,
        };
        let Some(written) = self.write_receipt(object, receipt).await else {
            return self.fenced(way, generation, rows, tally);
        };
        if self.lease.pushing() != Some(generation) {
            let unrecorded = rows.iter().filter(|(.., at)| at.is_none());
            self.doubt(object, generation, unrecorded.map(|(item, ..)| item));
        }
        let recorded: Vec<(u32, &Key, &Written)> = rows
            .iter()
            .filter_map(|(item, _, at)| Some((item.claimed.attempts, item.key(), &written[(*at)?])))
            .collect();
        let turned = self.judge_receipt(way, &recorded).await || turned;
        let mut split = Vec::new();
        let mut released = Vec::new();
        let mut ended = Vec::new();
        let mut waiting = Vec::new();
        let now = self.desk.now();
        for (item, after, at) in rows {
            let written = at.map(|at| &written[at]);
            let locked = matches!(written, Some(Written::Locked));
            if written.is_some() && !locked {
                self.doubts().forget(object, item.key());
            }
            let after = if locked { After::Again } else { after };
            self.count(object, &item, &after, written, tally);
            let Item { claimed, orphans, .. } = item;
            if matches!(after, After::Done) {
                ended.extend(orphans);
            }
            match after {
                After::Split => split.push(claimed),
                After::Done => released.push((claimed, Release::Done)),
                After::Again | After::Held if matches!(lane, Lane::Change) => {
                    let release = if matches!(after, After::Held) {
                        held(now)
                    } else {
                        again(now, claimed.attempts)
                    };
                    released.push((claimed, release));
                }
                After::Wait(left) if matches!(lane, Lane::Change) => {
                    let release = Release::Again {
                        not_before: now + left,
                        counts: true,
                    };
                    released.push((claimed, release));
                }
                // A sweep does not wait for it: from here on a change does.
                After::Wait(_) => {
                    waiting.push(claimed.key.clone());
                    released.push((claimed, Release::Done));
                }
                After::Again if locked => released.push((claimed, Release::Done)),
                After::Again | After::Held => {
                    tally.again.push(claimed.key.clone());
                    released.push((claimed, Release::Done));
                }
            }
        }
        self.count_archived(object, &ended, true, tally);
        self.name(object, waiting, Op::New).await;
        self.desk.release(object, released);
        if turned {
            self.tell_pauses().await;
        }
        if split.is_empty() {
            Parts::new()
        } else {
            halves(split)
        }
    }

    /// The lease's generation is gone, and with it the right to record: what was sent is named as changed, and the
    /// rows go back to where they came from.
    fn fenced(
        &self,
        way: &Way,
        generation: i64,
        rows: Vec<(Item, After, Option<usize>)>,
        tally: &mut Tally,
    ) -> Parts {
        self.lease.gone(generation);
        self.doubt(way.object, generation, rows.iter().map(|(item, ..)| item));
        let claimed = rows.into_iter().map(|(item, ..)| item.claimed).collect();
        self.give_back(way, claimed, "another daemon has taken the lease", tally);
        Parts::new()
    }

    fn count(
        &self,
        object: ObjectIndex,
        item: &Item,
        after: &After,
        written: Option<&Written>,
        tally: &mut Tally,
    ) {
        let got_id = match &item.fate {
            Fate::Accepted { .. } => item.record().hubspot_id.is_none() || tally.gained.contains(item.key()),
            _ => false,
        };
        if !matches!(after, After::Done) {
            if got_id && matches!(written, Some(Written::Done)) {
                tally.gained.insert(item.key().clone());
            }
            return;
        }
        let refused = match (&item.fate, written) {
            (_, Some(Written::Refused(refusal))) | (Fate::Refused(refusal), _) => Some(refusal),
            (
                Fate::Accepted {
                    links: Links::Refused(_, refusal),
                    ..
                },
                _,
            ) => Some(refusal),
            _ => None,
        };
        let outcome = match (&item.fate, refused) {
            (_, Some(refusal)) => {
                self.warn_of(object, item, refusal);
                self.failures_changed.store(true, Ordering::Release);
                tally.failed += 1;
                Counted::Failed
            }
            (Fate::Accepted { .. }, None) if got_id => {
                tally.created += 1;
                Counted::Created
            }
            (Fate::Accepted { .. }, None) => {
                tally.updated += 1;
                Counted::Updated
            }
            _ => return,
        };
        self.board.count(object, outcome, 1);
        if item.record.as_ref().is_some_and(|record| record.failed) {
            self.failures_changed.store(true, Ordering::Release);
        }
        if matches!(outcome, Counted::Created) {
            self.board.adjust_rows(object, 0, -1);
        }
        if !item.claimed.seqs.is_empty() && refused.is_none() {
            self.board
                .change_latency(self.desk.now().saturating_sub(item.claimed.arrived));
        }
    }

    /// Tells of a refusal once; what a sweep finds refused again is in its summary.
    fn warn_of(&self, object: ObjectIndex, item: &Item, refusal: &Refusal) {
        let name = &self.mapping.objects[object].name;
        let key = item.key();
        if item.claimed.seqs.is_empty() && item.record.as_ref().is_some_and(|record| record.failed) {
            debug!(object = %name, key = %key, category = %refusal.category, "record refused again");
            return;
        }
        warn!(object = %name, key = %key, category = %refusal.category, properties = ?refusal.properties,
            correlation_id = refusal.correlation_id.as_deref(),
            "record refused; it is listed by `hubsyncd failures` and tried again by every sweep: {}", refusal.message);
    }

    /// Writes a receipt, however long the database takes to be there: HubSpot has answered, and forgetting the
    /// answer would be worse than waiting.
    /// `None` if the lease's generation is gone.
    pub(super) async fn write_receipt(&self, object: ObjectIndex, receipt: Receipt) -> Option<Vec<Written>> {
        if receipt.entries.is_empty() {
            return Some(Vec::new());
        }
        let (written, named) = self
            .insist("writing a receipt", || self.store.receipt(&receipt))
            .await?;
        if receipt.entries.iter().any(|entry| entry.synced) {
            self.board.synced(object, receipt.read_at);
        }
        if named {
            self.desk.named();
        }
        Some(written)
    }

    /// Commits ids that HubSpot gave, however long the database takes to be there.
    /// If the lease's generation is gone they are left to its next holder, as the receipt will be; then false is
    /// answered.
    pub(super) async fn note_ids(&self, object: ObjectIndex, generation: i64, ids: &[(Key, String)]) -> bool {
        let noted = self.insist("keeping the ids HubSpot gave", || {
            self.store.note_ids(object, generation, ids)
        });
        noted.await.is_some()
    }

    /// Commits what is remembered of links, however long the database takes to be there: nothing of it is sent before.
    /// False if the lease's generation is gone.
    pub(super) async fn note_links(
        &self,
        object: ObjectIndex,
        generation: i64,
        notes: &[(Key, Note)],
    ) -> bool {
        let noted = self.insist("noting links", || {
            self.store.note_links(object, generation, notes)
        });
        noted.await.is_some()
    }

    /// Which rows hold these HubSpot ids.
    pub(super) async fn owners(
        &self,
        object: ObjectIndex,
        ids: &[String],
    ) -> Result<Vec<(String, Owner)>, postgres::Error> {
        self.store.owners(object, ids).await
    }

    /// Names rows whose record another row has written over, so that all their values win again, those too that else
    /// only a create sends.
    pub(super) async fn name_owners(&self, owners: Vec<Owner>) {
        let mut keys: BTreeMap<ObjectIndex, Vec<Key>> = BTreeMap::new();
        for owner in owners {
            keys.entry(owner.object).or_default().push(owner.key);
        }
        for (object, keys) in keys {
            self.name(object, keys, Op::New).await;
        }
    }

    /// Names rows to be pushed again.
    async fn name(&self, object: ObjectIndex, keys: Vec<Key>, op: Op) {
        if keys.is_empty() {
            return;
        }
        self.insist("naming rows to be pushed again", || {
            self.store.name(object, &keys, op)
        })
        .await;
        self.desk.named();
    }

    /// Does something in the database until it succeeds, with growing pauses; `None` if it may not be done any more,
    /// because another daemon has taken the lease.
    pub(super) async fn insist<T, F>(&self, what: &str, attempt: impl Fn() -> F) -> Option<T>
    where
        F: Future<Output = Result<T, postgres::Error>>,
    {
        let mut pauses = Schedule::new(Duration::from_millis(50), Duration::from_secs(5));
        let mut failures = 0_u32;
        loop {
            match attempt().await {
                Ok(done) => return Some(done),
                Err(failure) if failure.kind == ErrorKind::Fenced => {
                    warn!("{}", chain(&failure));
                    return None;
                }
                Err(failure) => {
                    failures += 1;
                    if failures == 3 {
                        error!(
                            "{what} fails and is repeated until it succeeds: {}",
                            chain(&failure)
                        );
                    }
                    tokio::time::sleep(pauses.next()).await;
                }
            }
        }
    }
}

/// Whether a swept row that HubSpot now holds was not in step before, as far as we know: it got its id, had failed,
/// was linked, or was named by an audit entry.
fn was_out_of_step(item: &Item, entry: &Entry) -> bool {
    let record = item.record();
    record.hubspot_id != entry.hubspot_id
        || record.failed
        || !entry.links.is_empty()
        || !entry.audit.is_empty()
}

/// The receipt's entry for an item, if anything is to be written for it, and what is done with it then.
fn entry_of(item: &Item) -> (Option<Entry>, After) {
    let blank = blank_entry(&item.claimed, item.record.as_ref());
    match &item.fate {
        Fate::Accepted {
            id,
            adopted,
            links: made,
        } => {
            let record = item.record();
            let (notes, refusal, after) = match made {
                Links::Made(notes) => (notes, None, After::Done),
                Links::Refused(notes, refusal) => (notes, Some(refusal.clone()), After::Done),
                Links::Again(notes) => (notes, None, After::Again),
            };
            let complete = matches!(made, Links::Made(_));
            let again = matches!(after, After::Again);
            let entry = Entry {
                hubspot_id: Some(id.clone()),
                synced: complete,
                audit: if complete {
                    record.entries.clone()
                } else {
                    Vec::new()
                },
                seqs: if again {
                    Vec::new()
                } else {
                    item.claimed.seqs.clone()
                },
                clear_failure: complete && record.failed,
                failure: refusal,
                links: notes.clone(),
                found: *adopted,
                // One that took a record over for updates is due once more anyhow.
                rename: record.known_id().is_none()
                    && !item.update_only
                    && (*adopted || record.update_only_set),
                ..blank
            };
            (Some(entry), after)
        }
        Fate::Refused(refusal) => (
            Some(Entry {
                failure: Some(refusal.clone()),
                ..blank
            }),
            After::Done,
        ),
        Fate::Gone => (
            Some(Entry {
                row_gone: true,
                clear_failure: true,
                ..blank
            }),
            After::Done,
        ),
        Fate::Leave => (Some(blank), After::Done),
        Fate::Again | Fate::Open => (None, After::Again),
        Fate::Wait(left) => (
            None,
            After::Wait(Duration::from_micros((*left).max(0).unsigned_abs())),
        ),
        Fate::Held => (None, After::Held),
        Fate::Split => (None, After::Split),
    }
}

/// Adds what became of the records that lost the row; if that of one was not learned, the row keeps its changes.
fn with_orphans(item: &Item, entry: Option<&mut Entry>, after: After) -> After {
    let Some(entry) = entry.filter(|_| matches!(after, After::Done)) else {
        return after;
    };
    if item.orphans.iter().any(|(_, ending)| *ending == Ending::Again) {
        entry.seqs.clear();
        // The record of a create in doubt is asked for again: nobody else knows of it.
        entry.intent_over &= !item.exhumed;
        return After::Again;
    }
    for (id, ending) in &item.orphans {
        ending.write(id, entry);
    }
    after
}

/// An entry that deletes the item's changes and writes nothing else.
pub(super) fn blank_entry(claimed: &Claimed, record: Option<&Record>) -> Entry {
    Entry {
        key: claimed.key.clone(),
        read_id: record.and_then(|record| record.hubspot_id.clone()),
        hubspot_id: None,
        synced: false,
        audit: Vec::new(),
        seqs: claimed.seqs.clone(),
        failure: None,
        clear_failure: false,
        full_record: claimed.full,
        links: Vec::new(),
        rename: false,
        found: false,
        archived: Vec::new(),
        left: Vec::new(),
        unarchived: Vec::new(),
        row_gone: false,
        intent_over: false,
        due: None,
    }
}
