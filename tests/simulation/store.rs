//! The database as the door sees it: every question is one or more round trips, each of which may take its time, find
//! the connection gone before it did anything, or after it did everything.

use super::model::{Failure, Model};
use super::world::World;
use futures::FutureExt;
use hubsyncd::daemon::door::store::{Asked, Store};
use hubsyncd::mapping::OnDelete;
use hubsyncd::postgres::intent::Noted;
use hubsyncd::postgres::orphans::Buried;
use hubsyncd::postgres::receipt::work::{Held, Work};
use hubsyncd::postgres::receipt::{Entry, Part, Probe, Receipt, Written};
use hubsyncd::postgres::rows::Counted;
use hubsyncd::postgres::{Error, ErrorKind, Problem};
use hubsyncd::sync::change::{Key, ObjectIndex, Op};
use hubsyncd::sync::deletion::{BRAKE, Findings, Orphan};
use hubsyncd::sync::linking::{Beside, Note, Pair};
use hubsyncd::sync::outcome::Refusal;
use hubsyncd::sync::record::Read;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The simulated database, as one daemon's life uses it.
pub struct Simulated {
    pub world: Arc<World>,
    /// Which daemon asks.
    pub daemon: u64,
}

/// What became of one transaction of a receipt.
enum Tried {
    Fenced,
    Written(Vec<(usize, Written)>),
    NotNow,
    Waited,
    Refused(Refusal),
}

impl Simulated {
    /// One round trip: `work` is done at one moment, unless the connection is gone before; who asked may learn of it or
    /// not.
    pub async fn trip<T>(
        &self,
        what: &'static str,
        work: impl FnOnce(&mut Model, i64) -> T + Send,
    ) -> Result<T, Error> {
        let world = &self.world;
        let fate = world.database_fate();
        world.pause(fate.before).await;
        world.thaw(self.daemon).await;
        if fate.lost_before {
            world.trace(format_args!("db {what}: lost before"));
            return Err(gone(what));
        }
        let now = world.tick();
        let done = work(&mut world.model(), now);
        world.trace(format_args!(
            "db {what}{}",
            if fate.lost_after { ": answer lost" } else { "" }
        ));
        world.pause(fate.after).await;
        world.thaw(self.daemon).await;
        if fate.lost_after {
            Err(gone(what))
        } else {
            Ok(done)
        }
    }

    /// As `Writer::write` has it: in halves where rows refuse or waits end.
    async fn write(&self, receipt: &Receipt) -> Result<Vec<Written>, Error> {
        let entries = &receipt.entries;
        let mut written: Vec<Written> = vec![Written::Locked; entries.len()];
        let mut parts: Vec<Vec<usize>> = vec![(0..entries.len()).collect()];
        let mut waits = 0;
        while let Some(mut part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            let wait = self.world.receipt_waits();
            let tried = self
                .trip("receipt", |model, now| match wait {
                    Some(true) => Tried::NotNow,
                    Some(false) => Tried::Waited,
                    None => self.transaction(model, now, receipt, &Part::Rows(&part)),
                })
                .await?;
            match tried {
                Tried::Written(list) => list.into_iter().for_each(|(index, said)| written[index] = said),
                Tried::Fenced => return Err(fenced("receipt")),
                Tried::NotNow => break,
                Tried::Waited if part.len() == 1 => waits += 1,
                Tried::Waited if waits >= 16 => {}
                Tried::Refused(refusal) if part.len() == 1 => {
                    let index = part[0];
                    let tried = self
                        .trip("receipt of a refused row", |model, now| {
                            self.transaction(model, now, receipt, &Part::Refused(index, &refusal))
                        })
                        .await?;
                    if matches!(tried, Tried::Fenced) {
                        return Err(fenced("receipt"));
                    }
                    written[index] = Written::Refused(refusal);
                }
                Tried::Waited | Tried::Refused(_) => {
                    waits += u32::from(matches!(tried, Tried::Waited));
                    let second = part.split_off(part.len().div_ceil(2));
                    parts.push(second);
                    parts.push(part);
                }
            }
        }
        for (op, full) in [(Op::Update, false), (Op::New, true)] {
            let unfinished = entries.iter().zip(&written).filter(|(entry, written)| {
                **written == Written::Locked && entry.seqs.is_empty() && entry.full_record == full
            });
            let keys: Vec<Key> = unfinished.map(|(entry, _)| Key::clone(&entry.key)).collect();
            if !keys.is_empty() {
                self.trip("naming of unfinished rows", |model, now| {
                    for key in &keys {
                        model.name(receipt.object, key, op, now);
                    }
                })
                .await?;
            }
        }
        Ok(written)
    }

    fn transaction(&self, model: &mut Model, now: i64, receipt: &Receipt, part: &Part<'_>) -> Tried {
        let object = receipt.object;
        if model.lease.generation != receipt.generation {
            return Tried::Fenced;
        }
        let held = match part {
            Part::Rows(indices) => hold(
                model,
                object,
                indices.iter().map(|index| &receipt.entries[*index]),
            ),
            Part::Refused(..) => Held::default(),
        };
        let work = Work::of(receipt, part, &held);
        if let Some(refusal) = refusal(model, object, &work) {
            return Tried::Refused(refusal);
        }
        self.world.check_receipt(model, receipt, &work);
        Tried::Written(apply(model, now, receipt, work))
    }
}

fn fenced(what: &str) -> Error {
    Error::new(ErrorKind::Fenced, format!("{what}: the generation is gone"))
}

fn gone(what: &str) -> Error {
    Error::new(ErrorKind::Unreachable, format!("{what}: the connection is gone"))
}

fn writes_row(entry: &Entry) -> bool {
    let new_id = entry.hubspot_id.is_some() && entry.hubspot_id != entry.read_id;
    !entry.row_gone && (entry.synced || new_id)
}

/// What the locks at a receipt's begin get.
fn hold<'e>(model: &Model, object: ObjectIndex, entries: impl Iterator<Item = &'e Entry>) -> Held {
    let mut held = Held::default();
    for entry in entries {
        let there = model.tables[object].get(&entry.key);
        let locked = model.locks.contains(&(object, Key::clone(&entry.key)));
        match there {
            Some(row) if writes_row(entry) && !locked => {
                held.rows.insert(entry.key.to_string(), row.hubspot_id.clone());
            }
            Some(_) if writes_row(entry) || entry.row_gone => {
                held.there.insert(entry.key.to_string());
            }
            _ => {}
        }
        let unmarked = entry
            .audit
            .iter()
            .filter(|id| model.audit.get(*id).is_some_and(|entry| !entry.marked));
        held.entries.extend(unmarked);
    }
    held
}

/// Why the tables refuse what a receipt writes: a check, or two rows with one id.
fn refusal(model: &Model, object: ObjectIndex, work: &Work<'_>) -> Option<Refusal> {
    let table = &model.tables[object];
    let written = work.ids.iter().map(|id| id.0).chain(work.touched.iter().copied());
    let checked = written
        .into_iter()
        .any(|key| table.get(key).is_some_and(|row| row.unwritable));
    let mut new = BTreeSet::new();
    let taken = work.ids.iter().any(|(key, id, _)| {
        let mut others = table.iter().filter(|(other, _)| ***other != **key);
        !new.insert(*id) || others.any(|(_, row)| row.hubspot_id.as_deref() == Some(*id))
    });
    (checked || taken).then(|| Refusal::ours("receipt", "the table refuses the receipt"))
}

/// Writes what was decided, in the order of the statements.
fn apply(model: &mut Model, now: i64, receipt: &Receipt, work: Work<'_>) -> Vec<(usize, Written)> {
    let object = receipt.object;
    // Whoever adds a statement to a receipt is stopped here, to say what it does.
    let Work {
        ids,
        touched,
        marks,
        given,
        in_vain,
        links_over,
        failures_over,
        intents_over,
        archived,
        not_archived,
        intents_buried,
        owed,
        links,
        failures,
        intents,
        named,
        seqs,
        said,
    } = work;
    let place = |key: &str| (object, Key::from(key));
    for (key, id, synced) in ids {
        if let Some(row) = model.tables[object].get_mut(key) {
            row.hubspot_id = Some(id.to_owned());
            row.synced_at = if synced {
                Some(receipt.read_at)
            } else {
                row.synced_at
            };
        }
    }
    for key in touched {
        if let Some(row) = model.tables[object].get_mut(key) {
            row.synced_at = Some(receipt.read_at);
        }
    }
    for id in marks {
        if let Some(entry) = model.audit.get_mut(&id) {
            entry.marked = true;
        }
    }
    for key in given {
        model.name_lookups(object, &Key::from(key), now);
    }
    if model.mapping.objects[object].on_delete == OnDelete::Archive {
        for (key, id) in in_vain {
            let made = model.intents.get(&place(key));
            let made = made.and_then(|made| made.hubspot_id.clone());
            if let Some(made) = made.filter(|made| Some(made.as_str()) != id) {
                model.name_record(object, &Key::from(key), Op::Archive, Some(made), now);
            }
        }
    }
    let over: BTreeSet<&str> = links_over.into_iter().collect();
    model
        .links
        .retain(|(of, key, _, _), _| *of != object || !over.contains(&**key));
    for key in failures_over {
        model.failures.remove(&(object, Key::from(key), None));
    }
    for (key, id) in archived {
        let place = (object, Key::from(key), Some(id.to_owned()));
        model.failures.remove(&place);
    }
    for id in not_archived {
        model.archived.remove(&(object, id.to_owned()));
    }
    for key in intents_over {
        model.intents.remove(&place(key));
    }
    for key in intents_buried {
        model.bury(object, &Key::from(key));
    }
    for (key, due) in owed {
        model.owe(object, &Key::from(key), due, now);
    }
    for (key, note) in links {
        model.note_link(object, &Key::from(key), note, now);
    }
    for failure in failures {
        note_failure(model, object, now, &failure);
    }
    for (key, id) in intents {
        model.keep_id(object, &Key::from(key), id, now);
    }
    for key in named {
        model.name(object, &Key::from(key), Op::Update, now);
    }
    for seq in seqs {
        model.changes.remove(&seq);
    }
    said
}

fn note_failure(model: &mut Model, object: ObjectIndex, now: i64, noted: &serde_json::Value) {
    let word = |name: &str| noted[name].as_str().unwrap_or_default().to_owned();
    let full = noted["full_record"].as_bool().unwrap_or_default();
    let record = Some(word("archive")).filter(|record| !record.is_empty());
    let place = (object, Key::from(word("key")), record);
    let before = model.failures.get(&place);
    let failure = Failure {
        category: word("category"),
        full_record: full || before.is_some_and(|failure| failure.full_record),
        first_at: before.map_or(now, |failure| failure.first_at),
        last_at: now,
    };
    model.failures.insert(place, failure);
}

impl Store for Simulated {
    fn canonical(&self, _object: ObjectIndex, key: &str) -> Option<Key> {
        Some(Key::from(key))
    }

    fn read<'a>(&'a self, object: ObjectIndex, keys: &'a [Key], full: &'a [bool]) -> Asked<'a, Read> {
        let read = move |model: &mut Model, now| Read {
            records: keys
                .iter()
                .zip(full)
                .filter_map(|(key, full)| model.record(object, key, *full))
                .collect(),
            read_at: now,
        };
        self.trip("read", read).boxed()
    }

    fn page<'a>(&'a self, object: ObjectIndex, after: Option<&'a Key>, limit: i64) -> Asked<'a, Read> {
        let page = move |model: &mut Model, now| {
            let keys = model.tables[object]
                .keys()
                .filter(|key| after.is_none_or(|after| *key > after));
            let keys: Vec<Key> = keys.take(usize::try_from(limit).unwrap_or(0)).cloned().collect();
            Read {
                records: keys
                    .iter()
                    .filter_map(|key| model.record(object, key, false))
                    .collect(),
                read_at: now,
            }
        };
        self.trip("page", page).boxed()
    }

    fn next_key<'a>(&'a self, object: ObjectIndex, after: Option<&'a Key>) -> Asked<'a, Option<Key>> {
        let next = move |model: &mut Model, _| {
            let mut keys = model.tables[object].keys();
            keys.find(|key| after.is_none_or(|after| *key > after)).cloned()
        };
        self.trip("next key", next).boxed()
    }

    fn owners<'a>(&'a self, object: ObjectIndex, ids: &'a [String]) -> Asked<'a, Vec<(String, Key)>> {
        let owners = move |model: &mut Model, _| {
            let waiting = model.intents.iter().filter(|((of, _), _)| *of == object);
            let waiting = waiting
                .filter_map(|((_, key), intended)| Some((intended.hubspot_id.clone()?, Key::clone(key))));
            let holding = model.tables[object].iter();
            let holding = holding.filter_map(|(key, row)| Some((row.hubspot_id.clone()?, Key::clone(key))));
            let all = waiting.chain(holding);
            all.filter(|(id, _)| ids.contains(id)).collect()
        };
        self.trip("owners", owners).boxed()
    }

    fn count(&self, object: ObjectIndex) -> Asked<'_, Counted> {
        let count = move |model: &mut Model, now| {
            let rows = &model.tables[object];
            Counted {
                rows: rows.len() as u64,
                awaiting_id: rows.values().filter(|row| row.hubspot_id.is_none()).count() as u64,
                counted_at: now,
            }
        };
        self.trip("count", count).boxed()
    }

    fn note_ids<'a>(
        &'a self,
        object: ObjectIndex,
        generation: i64,
        ids: &'a [(Key, String)],
    ) -> Asked<'a, ()> {
        let note = move |model: &mut Model, now| {
            if model.lease.generation != generation {
                return Err(fenced("noting of ids"));
            }
            for (key, id) in ids {
                model.keep_id(object, key, id, now);
            }
            Ok(())
        };
        async move { self.trip("noting of ids", note).await? }.boxed()
    }

    fn note_links<'a>(
        &'a self,
        object: ObjectIndex,
        generation: i64,
        notes: &'a [(Key, Note)],
    ) -> Asked<'a, ()> {
        let note = move |model: &mut Model, now| {
            if model.lease.generation != generation {
                return Err(fenced("noting of links"));
            }
            for (key, note) in notes {
                model.note_link(object, key, note, now);
            }
            Ok(())
        };
        async move { self.trip("noting of links", note).await? }.boxed()
    }

    fn links_beside<'a>(
        &'a self,
        object: ObjectIndex,
        link: usize,
        pairs: &'a [(Key, Pair)],
    ) -> Asked<'a, Vec<Vec<Beside>>> {
        self.trip("links beside", move |model, _| {
            model.links_beside(object, link, pairs)
        })
        .boxed()
    }

    fn note<'a>(&'a self, object: ObjectIndex, generation: i64, notes: &'a [Noted]) -> Asked<'a, ()> {
        let note = move |model: &mut Model, now| {
            if model.lease.generation != generation {
                return Err(fenced("noting of intents"));
            }
            model.intend(object, notes, now);
            Ok(())
        };
        async move { self.trip("noting of intents", note).await? }.boxed()
    }

    fn withdraw<'a>(&'a self, object: ObjectIndex, notes: &'a [Noted]) -> Asked<'a, ()> {
        self.trip("withdrawal", move |model, _| model.withdraw(object, notes))
            .boxed()
    }

    fn name_due(&self) -> Asked<'_, bool> {
        self.trip("naming of what is due", |model, now| model.name_due(now))
            .boxed()
    }

    fn receipt<'a>(&'a self, receipt: &'a Receipt) -> Asked<'a, (Vec<Written>, bool)> {
        let write = async move {
            let written = self.write(receipt).await?;
            let mapping = Arc::clone(&self.world.model().mapping);
            let name = &mapping.objects[receipt.object].name;
            let mut links = mapping.objects.iter().flat_map(|from| &from.links);
            let is_looked_up = links.any(|link| link.to == *name && !link.lookup.is_empty());
            let named = receipt.entries.iter().zip(&written).any(|(entry, written)| {
                let new_id = entry.hubspot_id.is_some() && entry.hubspot_id != entry.read_id;
                match written {
                    Written::Done => entry.rename || (is_looked_up && new_id),
                    Written::Locked => entry.seqs.is_empty() || (is_looked_up && new_id),
                    Written::Lost { .. } => true,
                    Written::Gone => mapping.objects[receipt.object].on_delete == OnDelete::Archive,
                    Written::Refused(_) => false,
                }
            });
            Ok((written, named))
        };
        write.boxed()
    }

    fn name<'a>(&'a self, object: ObjectIndex, keys: &'a [Key], op: Op) -> Asked<'a, ()> {
        let name = move |model: &mut Model, now| {
            // Who names rows may have them in no order.
            let keys: BTreeSet<&Key> = keys.iter().collect();
            for key in keys {
                model.name(object, key, op, now);
            }
        };
        self.trip("naming", name).boxed()
    }

    fn failed_before<'a>(
        &'a self,
        object: ObjectIndex,
        before: i64,
        after: &'a Key,
        limit: usize,
    ) -> Asked<'a, Vec<Key>> {
        let failed = move |model: &mut Model, _| {
            let failed = model.failures.iter().filter(|((of, key, record), failure)| {
                *of == object && record.is_none() && key > after && failure.last_at < before
            });
            failed
                .map(|((_, key, _), _)| Key::clone(key))
                .take(limit)
                .collect()
        };
        self.trip("failed before", failed).boxed()
    }

    fn orphans<'a>(&'a self, object: ObjectIndex, orphans: &'a [Orphan]) -> Asked<'a, Findings> {
        self.trip("orphans", move |model, now| model.findings(object, orphans, now))
            .boxed()
    }

    fn buried<'a>(&'a self, object: ObjectIndex, keys: &'a [Key]) -> Asked<'a, Vec<Buried>> {
        self.trip("buried creates", move |model, _| model.buried(object, keys))
            .boxed()
    }

    fn archiving<'a>(&'a self, object: ObjectIndex, generation: i64, orphans: &'a [Orphan]) -> Asked<'a, ()> {
        let note = move |model: &mut Model, now| {
            if model.lease.generation != generation {
                return Err(fenced("noting what is archived"));
            }
            for orphan in orphans {
                let place = (object, orphan.hubspot_id.clone());
                model.archived.insert(place, (now, orphan.released));
            }
            Ok(())
        };
        async move { self.trip("noting what is archived", note).await? }.boxed()
    }

    fn listed_orphans<'a>(
        &'a self,
        object: ObjectIndex,
        after: Option<&'a Orphan>,
        released: bool,
        limit: usize,
    ) -> Asked<'a, Vec<Orphan>> {
        let listed = move |model: &mut Model, _| {
            let failures = model.failures.iter().filter(|((of, _, record), failure)| {
                *of == object && record.is_some() && (released || failure.category != BRAKE)
            });
            let orphans = failures.map(|((_, key, record), _)| Orphan {
                key: Key::clone(key),
                hubspot_id: record.clone().unwrap_or_default(),
                released,
            });
            let later = orphans.filter(|orphan| {
                after.is_none_or(|after| (&orphan.key, &orphan.hubspot_id) > (&after.key, &after.hubspot_id))
            });
            later.take(limit).collect()
        };
        self.trip("listed orphans", listed).boxed()
    }

    fn probe<'a>(&'a self, object: ObjectIndex, key: &'a Key) -> Asked<'a, Probe> {
        let probe = move |model: &mut Model, _| match model.tables[object].get(key) {
            None => Probe::Gone,
            Some(_) if model.locks.contains(&(object, Key::clone(key))) => Probe::Locked,
            Some(_) => Probe::Free,
        };
        self.trip("probe", probe).boxed()
    }

    fn note_pause<'a>(&'a self, object: ObjectIndex, why: Option<&'a Refusal>) -> Asked<'a, ()> {
        let note = move |model: &mut Model, _| match why {
            Some(_) => drop(model.paused.insert(object)),
            None => drop(model.paused.remove(&object)),
        };
        self.trip("pause", note).boxed()
    }

    fn lacking(&self, _object: ObjectIndex) -> Asked<'_, Vec<Problem>> {
        self.trip("rights", |_, _| Vec::new()).boxed()
    }
}
